/* SPDX-License-Identifier: Apache-2.0
 *
 * Compression of clusters, by zlib and libzstd where the build has them.  Thread: [any].
 */
#ifndef SOSIA_BLOCK_CODEC_H
#define SOSIA_BLOCK_CODEC_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

enum codec {
    CODEC_DEFLATE, /* a bare deflate stream with a window of 4 KiB: qcow2 */
    CODEC_ZLIB,    /* with zlib's header and checksum: VMDK */
    CODEC_ZSTD,
};

bool codec_available(enum codec c);
const char *codec_name(enum codec c);
/* len is how much room there is, then how much came out. -EFBIG: does not fit. */
MUST_CHECK int codec_pack(enum codec c, const void *from, size_t from_len, void *to, size_t *len);
/* Exactly len bytes must come out; what follows the stream in `from` does not matter. */
MUST_CHECK int codec_unpack(enum codec c, const void *from, size_t from_len, void *to, size_t len);

/* What this build has of them: "zlib 1.2.13, zstd 1.5.4", "" */
const char *codec_versions(char *text, size_t room);

#endif
