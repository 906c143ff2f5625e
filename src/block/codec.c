/* SPDX-License-Identifier: Apache-2.0 */
#include "block/codec.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#ifdef HAVE_ZLIB
#include <zlib.h>
#endif
#ifdef HAVE_ZSTD
#include <zstd.h>
#include <zstd_errors.h>
#endif

bool codec_available(enum codec c)
{
#ifdef HAVE_ZLIB
    if (c == CODEC_DEFLATE || c == CODEC_ZLIB) {
        return true;
    }
#endif
#ifdef HAVE_ZSTD
    if (c == CODEC_ZSTD) {
        return true;
    }
#endif
    (void)c;
    return false;
}

const char *codec_name(enum codec c) { return c == CODEC_ZSTD ? "zstd" : "zlib"; }

const char *codec_versions(char *text, size_t room)
{
    const char *zlib = "", *zstd = "";
#ifdef HAVE_ZLIB
    zlib = ", zlib " ZLIB_VERSION;
#endif
#ifdef HAVE_ZSTD
    zstd = ", zstd " ZSTD_VERSION_STRING;
#endif
    snprintf(text, room, "%s%s", zlib, zstd);
    return text[0] != '\0' ? text + 2 : "";
}

#ifdef HAVE_ZLIB
static int deflate_all(int window_bits, const void *from, size_t from_len, void *to, size_t *len)
{
    z_stream z = { .next_in = (Bytef *)from, .next_out = to };
    if (from_len > UINT_MAX || *len > UINT_MAX) {
        return -EINVAL;
    }
    if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, window_bits, 9, Z_DEFAULT_STRATEGY) !=
        Z_OK) {
        return -ENOMEM;
    }
    z.avail_in = (uInt)from_len;
    z.avail_out = (uInt)*len;
    int r = deflate(&z, Z_FINISH);
    *len -= z.avail_out;
    deflateEnd(&z);
    return r == Z_STREAM_END ? 0 : -EFBIG;
}

static int inflate_all(int window_bits, const void *from, size_t from_len, void *to, size_t len)
{
    z_stream z = { .next_in = (Bytef *)from, .next_out = to };
    if (from_len > UINT_MAX || len > UINT_MAX) {
        return -EINVAL;
    }
    z.avail_in = (uInt)from_len;
    z.avail_out = (uInt)len;
    if (inflateInit2(&z, window_bits) != Z_OK) {
        return -ENOMEM;
    }
    int r = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    /* A full output with the stream's end not seen yet is Z_BUF_ERROR. */
    return (r == Z_STREAM_END || r == Z_BUF_ERROR) && z.avail_out == 0 ? 0 : -EIO;
}
#endif

#ifdef HAVE_ZSTD
static int zstd_pack(const void *from, size_t from_len, void *to, size_t *len)
{
    size_t n = ZSTD_compress(to, *len, from, from_len, ZSTD_CLEVEL_DEFAULT);
    if (ZSTD_isError(n)) {
        return ZSTD_getErrorCode(n) == ZSTD_error_dstSize_tooSmall ? -EFBIG : -EIO;
    }
    *len = n;
    return 0;
}

static int zstd_unpack(const void *from, size_t from_len, void *to, size_t len)
{
    ZSTD_DStream *d = ZSTD_createDStream();
    if (d == NULL) {
        return -ENOMEM;
    }
    ZSTD_inBuffer in = { .src = from, .size = from_len };
    ZSTD_outBuffer out = { .dst = to, .size = len };
    int r = 0;
    while (r == 0 && out.pos < out.size) {
        size_t in_before = in.pos, out_before = out.pos;
        size_t n = ZSTD_decompressStream(d, &out, &in);
        if (ZSTD_isError(n) || (in.pos == in_before && out.pos == out_before)) {
            r = -EIO;
        }
    }
    ZSTD_freeDStream(d);
    return r;
}
#endif

int codec_pack(enum codec c, const void *from, size_t from_len, void *to, size_t *len)
{
    switch (c) {
#ifdef HAVE_ZLIB
    case CODEC_DEFLATE:
        return deflate_all(-12, from, from_len, to, len);
    case CODEC_ZLIB:
        return deflate_all(15, from, from_len, to, len);
#endif
#ifdef HAVE_ZSTD
    case CODEC_ZSTD:
        return zstd_pack(from, from_len, to, len);
#endif
    default:
        (void)from, (void)from_len, (void)to, (void)len;
        return -ENOTSUP;
    }
}

int codec_unpack(enum codec c, const void *from, size_t from_len, void *to, size_t len)
{
    switch (c) {
#ifdef HAVE_ZLIB
    case CODEC_DEFLATE:
        return inflate_all(-15, from, from_len, to, len);
    case CODEC_ZLIB:
        return inflate_all(15, from, from_len, to, len);
#endif
#ifdef HAVE_ZSTD
    case CODEC_ZSTD:
        return zstd_unpack(from, from_len, to, len);
#endif
    default:
        (void)from, (void)from_len, (void)to, (void)len;
        return -ENOTSUP;
    }
}
