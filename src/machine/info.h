/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of text about a machine share. A topic runs while every processor stands still,
 * its state synchronised, machine lock held; it may run twice, first to see how long the text is.
 */
#ifndef SOSIA_MACHINE_INFO_H
#define SOSIA_MACHINE_INFO_H

#include <stddef.h>

#include "base/err.h"

struct machine;

struct text {
    char *buf;
    size_t size;
    size_t len; /* that there would be */
};

void text_add(struct text *t, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* info_map.c: what is at which address. ctx: struct text */
void info_tlb(struct machine *m, void *ctx);
void info_mem(struct machine *m, void *ctx);
void info_mtree(struct machine *m, void *ctx);
void info_pci(struct machine *m, void *ctx);

#endif
