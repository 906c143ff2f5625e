/* SPDX-License-Identifier: Apache-2.0 -- what gmem.c shows to access.c only */
#ifndef SOSIA_MEM_INTERNAL_H
#define SOSIA_MEM_INTERNAL_H

#include "mem/gmem.h"

typedef void gmem_code_fn(void *ctx, gpa_t gpa, uint64_t len);

/* The code hook, NULL when none is set. */
gmem_code_fn *gmem_code_hook(const struct gmem *m, void **ctx);

#endif
