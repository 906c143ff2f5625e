/* SPDX-License-Identifier: Apache-2.0
 *
 * A walk through the pieces of memory that one transfer goes to or comes from. That memory may be a
 * guest's, which changes it at any time: what is looked at is looked at in a copy.
 */
#ifndef SOSIA_BLOCK_VECTOR_H
#define SOSIA_BLOCK_VECTOR_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"

struct vector {
    const struct iovec *iov; /* what is ahead: borrowed, */
    size_t skip;             /* without so many bytes of the first */
};

size_t vector_bytes(const struct iovec *iov, int count);
/* The next len bytes, which must be there, in elements of their own: as many as are returned. */
int vector_take(struct vector *v, size_t len, struct iovec out[IOV_MAX]);
/* They are copied. */
void vector_get(struct vector *v, void *buf, size_t len);
void vector_put(struct vector *v, const void *buf, size_t len);
void vector_put_zeroes(struct vector *v, size_t len);
/* They go between memory and a file of the host's without a copy of ours. */
struct hostfile;
MUST_CHECK int vector_read(struct vector *v, size_t len, struct hostfile *f, uint64_t offset);
MUST_CHECK int vector_write(struct vector *v, size_t len, struct hostfile *f, uint64_t offset);

#endif
