/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/pack.h"

#include <errno.h>

#ifdef HAVE_ZSTD
#include <zstd.h>

#define LEVEL 1 /* memory is written as fast as a disk takes it, or nearly */

bool pack_built(void) { return true; }
size_t pack_bound(size_t len) { return ZSTD_compressBound(len); }

long pack_compress(void *out, size_t room, const void *data, size_t len)
{
    size_t n = ZSTD_compress(out, room, data, len, LEVEL);
    return ZSTD_isError(n) ? -EIO : (long)n;
}

long pack_expand(void *out, size_t room, const void *data, size_t len)
{
    size_t n = ZSTD_decompress(out, room, data, len);
    return ZSTD_isError(n) ? -EIO : (long)n;
}
#else
bool pack_built(void) { return false; }
size_t pack_bound(size_t len) { return len; }

long pack_compress(void *out, size_t room, const void *data, size_t len)
{
    (void)out, (void)room, (void)data, (void)len;
    return -ENOTSUP;
}

long pack_expand(void *out, size_t room, const void *data, size_t len)
{
    (void)out, (void)room, (void)data, (void)len;
    return -ENOTSUP;
}
#endif
