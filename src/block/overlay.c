/* SPDX-License-Identifier: Apache-2.0
 *
 * The overlay of `ephemeral`: a nameless temporary file of the image's shape that takes the writes,
 * and a bitmap of the granules that it holds. Everything else is the image's, which is read-only.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "block/internal.h"
#include "block/vector.h"

#define GRANULE 65536u
#define OVERLAY_SIZE_MAX (1ull << 46) /* 128 MiB of bitmap, touched where it is written */

struct overlay {
    pthread_rwlock_t lock; /* exclusive: granules are being added */
    uint64_t *present;
};

static bool has(const struct overlay *o, uint64_t granule)
{
    return o->present[granule / 64] & BIT(granule % 64);
}

/* How far from offset all granules are alike. */
static uint64_t run_of(const struct overlay *o, uint64_t offset, uint64_t len, bool *present)
{
    *present = has(o, offset / GRANULE);
    uint64_t n = block_piece(offset, len, GRANULE);
    while (n < len && has(o, (offset + n) / GRANULE) == *present) {
        n += block_piece(offset + n, len - n, GRANULE);
    }
    return n;
}

static int overlay_readv(struct block *b, uint64_t offset, const struct iovec *iov, int count)
{
    struct overlay *o = b->priv;
    struct vector v = { .iov = iov };
    size_t len = vector_bytes(iov, count);
    int r = 0;
    pthread_rwlock_rdlock(&o->lock);
    while (r == 0 && len > 0) {
        bool present;
        size_t n = (size_t)run_of(o, offset, len, &present);
        r = present ? vector_read(&v, n, b->file, offset) : block_readv_parent(b, offset, &v, n);
        offset += n;
        len -= n;
    }
    pthread_rwlock_unlock(&o->lock);
    return r;
}

static int overlay_read(struct block *b, uint64_t offset, void *buf, size_t len)
{
    const struct iovec iov = { buf, len };
    return overlay_readv(b, offset, &iov, 1);
}

/* A granule that is only partly written gets the rest from the image. */
static int fill(struct block *b, uint64_t granule)
{
    struct overlay *o = b->priv;
    uint64_t at = granule * GRANULE;
    uint64_t left = block_size(b) - at;
    size_t n = left < GRANULE ? (size_t)left : GRANULE;
    if (has(o, granule)) {
        return 0;
    }
    void *bytes = xzalloc(GRANULE);
    int r = block_read_parent(b, at, bytes, n);
    if (r == 0) {
        r = hostfile_write(b->file, at, bytes, n);
    }
    free(bytes);
    return r;
}

static int prepare(struct block *b, uint64_t offset, uint64_t len)
{
    int r = 0;
    uint64_t end = offset + len;
    if (offset % GRANULE != 0) {
        r = fill(b, offset / GRANULE);
    }
    if (r == 0 && end % GRANULE != 0 && end != block_size(b)) {
        r = fill(b, end / GRANULE);
    }
    return r;
}

static void mark(struct overlay *o, uint64_t offset, uint64_t len)
{
    for (uint64_t g = offset / GRANULE; g <= (offset + len - 1) / GRANULE; g++) {
        o->present[g / 64] |= BIT(g % 64);
    }
}

static int overlay_writev(struct block *b, uint64_t offset, const struct iovec *iov, int count)
{
    struct overlay *o = b->priv;
    bool present;
    size_t len = vector_bytes(iov, count);
    pthread_rwlock_rdlock(&o->lock);
    bool in_place = run_of(o, offset, len, &present) == len && present;
    int r = in_place ? hostfile_writev(b->file, offset, iov, count) : 0;
    pthread_rwlock_unlock(&o->lock);
    if (in_place) {
        return r;
    }
    pthread_rwlock_wrlock(&o->lock);
    r = prepare(b, offset, len);
    if (r == 0) {
        r = hostfile_writev(b->file, offset, iov, count);
    }
    if (r == 0) {
        mark(o, offset, len);
    }
    pthread_rwlock_unlock(&o->lock);
    return r;
}

static int overlay_write(struct block *b, uint64_t offset, const void *buf, size_t len)
{
    const struct iovec iov = { (void *)(uintptr_t)buf, len };
    return overlay_writev(b, offset, &iov, 1);
}

static int overlay_write_zeroes(struct block *b, uint64_t offset, uint64_t len, bool may_unmap)
{
    struct overlay *o = b->priv;
    (void)may_unmap;
    pthread_rwlock_wrlock(&o->lock);
    int r = prepare(b, offset, len);
    if (r == 0) {
        r = hostfile_zero(b->file, offset, len, true);
    }
    if (r == 0) {
        mark(o, offset, len);
    }
    pthread_rwlock_unlock(&o->lock);
    return r;
}

/* Nobody sees the file after this process, so that nothing need be on the medium. */
static int overlay_flush(struct block *b)
{
    (void)b;
    return 0;
}

static int overlay_map(struct block *b, uint64_t offset, uint64_t len, struct block_extent *out)
{
    struct overlay *o = b->priv;
    bool present;
    pthread_rwlock_rdlock(&o->lock);
    out->len = run_of(o, offset, len, &present);
    out->kind = present ? BLOCK_DATA : BLOCK_HOLE;
    pthread_rwlock_unlock(&o->lock);
    return 0;
}

static void overlay_close(struct block *b)
{
    struct overlay *o = b->priv;
    pthread_rwlock_destroy(&o->lock);
    free(o->present);
    free(o);
}

int block_overlay_new(struct block **out, struct block *base, struct err *e)
{
    uint64_t size = block_size(base);
    if (size > OVERLAY_SIZE_MAX) {
        return err_set(e, -EFBIG, "%s: too large for an ephemeral overlay", base->path);
    }
    struct hostfile *file;
    int r = hostfile_temporary(&file, e);
    if (r < 0) {
        return r;
    }
    struct overlay *o = xzalloc(sizeof *o);
    o->present = try_alloc((size_t)(size / GRANULE / 64 + 1), sizeof *o->present);
    if (o->present == NULL) {
        hostfile_close(file);
        free(o);
        return err_set(e, -ENOMEM, "%s: no memory for an ephemeral overlay", base->path);
    }
    block_lock_init(&o->lock);
    struct block *b = xzalloc(sizeof *b);
    b->class = &block_overlay;
    b->path = xstrdup(base->path);
    b->file = file;
    b->parent = base;
    b->priv = o;
    atomic_store(&b->size, size);
    *out = b;
    return 0;
}

const struct block_class block_overlay = {
    .name = "overlay",
    .close = overlay_close,
    .read = overlay_read,
    .write = overlay_write,
    .readv = overlay_readv,
    .writev = overlay_writev,
    .flush = overlay_flush,
    .write_zeroes = overlay_write_zeroes,
    .map = overlay_map,
};
