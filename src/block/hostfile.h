/* SPDX-License-Identifier: Apache-2.0
 *
 * A file or block device of the host under an image: whole reads and writes or an error, holes, and
 * the lock that keeps two writers apart.
 *
 * The lock is a set of single-byte OFD locks at the places QEMU uses for the same purpose (bytes
 * 100 + p for a permission p that is held, 200 + p for one that others may not hold), so that the
 * tools of both sides see each other: many readers or one writer.
 *
 * Thread: [any], several calls at once on one file.
 */
#ifndef SOSIA_BLOCK_HOSTFILE_H
#define SOSIA_BLOCK_HOSTFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

struct iovec;
struct hostfile;

enum hostfile_flag {
    HOSTFILE_READONLY = 1u << 0,
    HOSTFILE_NO_LOCK = 1u << 1,
    HOSTFILE_CREATE = 1u << 2, /* must not exist yet */
};

MUST_CHECK int hostfile_open(struct hostfile **out, const char *path, unsigned flags,
                             struct err *e);
/* A nameless file in $TMPDIR (/var/tmp): gone with the process. */
MUST_CHECK int hostfile_temporary(struct hostfile **out, struct err *e);
void hostfile_close(struct hostfile *f);

/* Let others have it, though it stays open; and get it back. */
void hostfile_unlock(struct hostfile *f);
MUST_CHECK int hostfile_lock(struct hostfile *f, const char *path, struct err *e);

bool hostfile_readonly(const struct hostfile *f);
bool hostfile_is_device(const struct hostfile *f);
/* Which file this is, whatever its name. */
void hostfile_identity(const struct hostfile *f, dev_t *dev, ino_t *ino);
int hostfile_fd(const struct hostfile *f); /* borrowed */

MUST_CHECK int hostfile_size(struct hostfile *f, uint64_t *size);
MUST_CHECK int hostfile_allocated(struct hostfile *f, uint64_t *bytes); /* on the host's disk */
/* What is past the end of the file reads as zeroes. */
MUST_CHECK int hostfile_read(struct hostfile *f, uint64_t offset, void *buf, size_t len);
MUST_CHECK int hostfile_write(struct hostfile *f, uint64_t offset, const void *buf, size_t len);
MUST_CHECK int hostfile_readv(struct hostfile *f, uint64_t offset, const struct iovec *iov,
                              int count);
/* -EAGAIN: not without waiting for the disk. */
MUST_CHECK int hostfile_readv_cached(struct hostfile *f, uint64_t offset, const struct iovec *iov,
                                     int count);
MUST_CHECK int hostfile_writev(struct hostfile *f, uint64_t offset, const struct iovec *iov,
                               int count);
/* After a failure every later call fails, too: the kernel forgets what it could not write. */
MUST_CHECK int hostfile_sync(struct hostfile *f);
MUST_CHECK int hostfile_truncate(struct hostfile *f, uint64_t size);
/* Give the space back; reads as zeroes afterwards. -EOPNOTSUPP: the host cannot. */
MUST_CHECK int hostfile_punch(struct hostfile *f, uint64_t offset, uint64_t len);
/* Zeroes by whatever way works; grows the file when the range ends past it. */
MUST_CHECK int hostfile_zero(struct hostfile *f, uint64_t offset, uint64_t len, bool may_unmap);
/* Space on the host's disk for the range, the file grown to its end. */
MUST_CHECK int hostfile_reserve(struct hostfile *f, uint64_t offset, uint64_t len);
/* Whether there is data at offset, and how far that holds (at most len). */
MUST_CHECK int hostfile_extent(struct hostfile *f, uint64_t offset, uint64_t len, bool *data,
                               uint64_t *run);

#endif
