/* SPDX-License-Identifier: Apache-2.0 -- compression of memory: zstd, where the build has it.
 * Thread: [any]. */
#ifndef SOSIA_SNAPSHOT_PACK_H
#define SOSIA_SNAPSHOT_PACK_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

bool pack_built(void);
/* Room that always suffices for len bytes. */
size_t pack_bound(size_t len);
/* Returns the bytes used of out, -EIO, or -ENOTSUP. */
MUST_CHECK long pack_compress(void *out, size_t room, const void *data, size_t len);
/* The same of the bytes that came out. */
MUST_CHECK long pack_expand(void *out, size_t room, const void *data, size_t len);

#endif
