/* SPDX-License-Identifier: Apache-2.0
 *
 * A disk image as devices and tools see it: a flat array of bytes. Formats (raw, qcow2, vmdk, vdi,
 * vhd, vhdx, nbd, overlay) are a struct block_class each; an image with a parent opens it through
 * this header again.
 *
 * Everything in an image file is hostile: copied in, checked, then used.
 *
 * Thread: [any] for the calls on an open image, several at once; an image orders them as a disk
 * does: overlapping requests in flight have no order, a flush covers the writes that had returned
 * before it was called. They block: vCPU threads and the loop use block/queue.h instead.
 */
#ifndef SOSIA_BLOCK_BLOCK_H
#define SOSIA_BLOCK_BLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"

struct block;

#define BLOCK_SIZE_MAX (1ull << 62)   /* bytes of an image */
#define BLOCK_REQUEST_MAX (64u << 20) /* bytes of one read or write */
#define BLOCK_PARENTS_MAX 64u         /* length of a chain of backing files */

enum block_open_flag {
    BLOCK_READONLY = 1u << 0,
    BLOCK_EPHEMERAL = 1u << 1, /* writes go to a temporary overlay that nobody sees afterwards */
    BLOCK_NO_PARENT = 1u << 2, /* tools: this layer alone; what it does not hold reads as zeroes */
    BLOCK_NO_LOCK = 1u << 3,   /* tools that only look: do not take the image's lock */
    BLOCK_REPAIR = 1u << 4,    /* tools: open although it is marked dirty or corrupt */
};

struct block_options {
    const char *path;   /* file, block device, or nbd: URI */
    const char *format; /* NULL: recognised by content; "raw" must be asked for when a format's
                           magic is there, because a guest could have written that magic */
    unsigned flags;
};

/* Takes the image's lock (shared when read-only) unless told otherwise. e gets one line that names
 * the file. */
MUST_CHECK int block_open(struct block **out, const struct block_options *o, struct err *e);
/* Writes back what the format holds in memory, and frees. Errors then are lost: flush first. */
void block_close(struct block *b);

uint64_t block_size(const struct block *b); /* bytes; any number, a device rounds down */
bool block_readonly(const struct block *b);
const char *block_format(const struct block *b); /* "qcow2" */
const char *block_path(const struct block *b);
struct block *block_parent(struct block *b); /* NULL: none */

/* The whole range or an error; -EINVAL when it ends past the image or is too long, -EROFS, -ENOSPC,
 * -EIO. After an error any part may have been transferred. The memory of a vector may change during
 * the call, as a guest's RAM does; that of a buffer does not. */
MUST_CHECK int block_readv(struct block *b, uint64_t offset, const struct iovec *iov, int count);
MUST_CHECK int block_writev(struct block *b, uint64_t offset, const struct iovec *iov, int count);
/* Only if it takes no waiting, else -EAGAIN. [any], vCPU threads too. */
MUST_CHECK int block_readv_cached(struct block *b, uint64_t offset, const struct iovec *iov,
                                  int count);
MUST_CHECK int block_read(struct block *b, uint64_t offset, void *buf, size_t len);
MUST_CHECK int block_write(struct block *b, uint64_t offset, const void *buf, size_t len);
/* On return, what was written before is on the medium. */
MUST_CHECK int block_flush(struct block *b);
/* A hint: the bytes may read as anything of theirs or zeroes afterwards. */
MUST_CHECK int block_discard(struct block *b, uint64_t offset, uint64_t len);
/* They read as zeroes afterwards; may_unmap: without space behind them if the format can. */
MUST_CHECK int block_write_zeroes(struct block *b, uint64_t offset, uint64_t len, bool may_unmap);
/* Grow or shrink. -ENOTSUP: the format cannot. */
MUST_CHECK int block_resize(struct block *b, uint64_t size, struct err *e);

enum block_extent_kind {
    BLOCK_HOLE, /* not in this image: its parent's, or zeroes without one */
    BLOCK_ZERO, /* reads as zeroes by this image's word */
    BLOCK_DATA,
};

struct block_extent {
    enum block_extent_kind kind;
    uint64_t len;         /* at least 1 */
    uint64_t file_offset; /* of plain data in the file, UINT64_MAX when it has none (compressed) */
};

/* What is at offset, and how far that goes (at most len). */
MUST_CHECK int block_map(struct block *b, uint64_t offset, uint64_t len, struct block_extent *out);

#endif
