/* SPDX-License-Identifier: Apache-2.0 */
#include "block/vector.h"

#include <string.h>

#include "block/hostfile.h"

size_t vector_bytes(const struct iovec *iov, int count)
{
    size_t total = 0;
    for (int i = 0; i < count; i++) {
        total += iov[i].iov_len;
    }
    return total;
}

/* The next bytes that lie together, at most len. */
static size_t step(struct vector *v, size_t len, uint8_t **at)
{
    while (v->skip == v->iov->iov_len) {
        v->iov++;
        v->skip = 0;
    }
    size_t left = v->iov->iov_len - v->skip;
    size_t n = left < len ? left : len;
    *at = (uint8_t *)v->iov->iov_base + v->skip;
    v->skip += n;
    return n;
}

int vector_take(struct vector *v, size_t len, struct iovec out[IOV_MAX])
{
    int count = 0;
    while (len > 0) {
        uint8_t *at;
        size_t n = step(v, len, &at);
        out[count++] = (struct iovec){ at, n };
        len -= n;
    }
    return count;
}

void vector_get(struct vector *v, void *buf, size_t len)
{
    for (uint8_t *to = buf; len > 0;) {
        uint8_t *at;
        size_t n = step(v, len, &at);
        memcpy(to, at, n);
        to += n;
        len -= n;
    }
}

void vector_put(struct vector *v, const void *buf, size_t len)
{
    for (const uint8_t *from = buf; len > 0;) {
        uint8_t *at;
        size_t n = step(v, len, &at);
        memcpy(at, from, n);
        from += n;
        len -= n;
    }
}

void vector_put_zeroes(struct vector *v, size_t len)
{
    while (len > 0) {
        uint8_t *at;
        size_t n = step(v, len, &at);
        memset(at, 0, n);
        len -= n;
    }
}

int vector_read(struct vector *v, size_t len, struct hostfile *f, uint64_t offset)
{
    struct iovec part[IOV_MAX];
    int count = vector_take(v, len, part);
    return hostfile_readv(f, offset, part, count);
}

int vector_write(struct vector *v, size_t len, struct hostfile *f, uint64_t offset)
{
    struct iovec part[IOV_MAX];
    int count = vector_take(v, len, part);
    return hostfile_writev(f, offset, part, count);
}
