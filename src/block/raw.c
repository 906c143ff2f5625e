/* SPDX-License-Identifier: Apache-2.0
 *
 * Raw images: the file is the disk. ISO images are these, too.
 *
 * An image that was taken for raw only because nothing in it looked like a format must not start
 * to look like one: the guest could then name any file of the host as its backing file at the next
 * start. Such a write to its beginning is refused unless the user said `format=raw`.
 */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "block/internal.h"
#include "block/queue.h"
#include "block/vector.h"

static int raw_open(struct block *b, struct err *e)
{
    uint64_t size;
    int r = hostfile_size(b->file, &size);
    if (r < 0) {
        return err_set(e, r, "%s: %s", b->path, strerror(-r));
    }
    if (size > BLOCK_SIZE_MAX) {
        return err_set(e, -EFBIG, "%s: too large", b->path);
    }
    atomic_store(&b->size, size);
    return 0;
}

static void raw_close(struct block *b) { (void)b; }

static int raw_read(struct block *b, uint64_t offset, void *buf, size_t len)
{
    return hostfile_read(b->file, offset, buf, len);
}

static int raw_readv(struct block *b, uint64_t offset, const struct iovec *iov, int count)
{
    return hostfile_readv(b->file, offset, iov, count);
}

static int raw_readv_cached(struct block *b, uint64_t offset, const struct iovec *iov, int count)
{
    return hostfile_readv_cached(b->file, offset, iov, count);
}

static bool looks_like_a_format(const uint8_t *head, uint64_t size)
{
    static const uint8_t no_tail[512];
    struct block_probe p = { .head = head, .tail = no_tail, .size = size, .path = "" };
    for (size_t i = 0; block_classes[i] != NULL; i++) {
        if (block_classes[i]->probe != NULL && block_classes[i]->probe(&p)) {
            return true;
        }
    }
    return false;
}

static int refuse_disguise(struct block *b, uint64_t offset, const void *buf, size_t len)
{
    uint8_t head[BLOCK_PROBE_BYTES];
    int r = hostfile_read(b->file, 0, head, sizeof head);
    if (r < 0) {
        return r;
    }
    memcpy(head + offset, buf, len < sizeof head - offset ? len : sizeof head - offset);
    if (looks_like_a_format(head, block_size(b))) {
        if (!atomic_exchange(&b->warned, true)) {
            log_warn("%s: refused a write that would make this raw image look like another "
                     "format; say format=raw to allow it",
                     b->path);
        }
        return -EPERM;
    }
    return 0;
}

static int raw_write(struct block *b, uint64_t offset, const void *buf, size_t len)
{
    if (b->guessed && offset < BLOCK_PROBE_BYTES) {
        int r = refuse_disguise(b, offset, buf, len);
        if (r < 0) {
            return r;
        }
    }
    return hostfile_write(b->file, offset, buf, len);
}

static int raw_writev(struct block *b, uint64_t offset, const struct iovec *iov, int count)
{
    if (!b->guessed || offset >= BLOCK_PROBE_BYTES) {
        return hostfile_writev(b->file, offset, iov, count);
    }
    struct vector v = { .iov = iov };
    return block_write_copied(b, offset, &v, vector_bytes(iov, count));
}

static int raw_flush(struct block *b) { return hostfile_sync(b->file); }

static int raw_discard(struct block *b, uint64_t offset, uint64_t len)
{
    int r = hostfile_punch(b->file, offset, len);
    return r == -EOPNOTSUPP || r == -ENODEV ? 0 : r; /* it was a hint */
}

static int raw_write_zeroes(struct block *b, uint64_t offset, uint64_t len, bool may_unmap)
{
    return hostfile_zero(b->file, offset, len, may_unmap);
}

static int raw_resize(struct block *b, uint64_t size, struct err *e)
{
    if (hostfile_is_device(b->file)) {
        return err_set(e, -ENOTSUP, "%s: a block device cannot be resized", b->path);
    }
    int r = hostfile_truncate(b->file, size);
    if (r == 0) {
        atomic_store(&b->size, size);
    }
    return r;
}

static int raw_map(struct block *b, uint64_t offset, uint64_t len, struct block_extent *out)
{
    bool data;
    int r = hostfile_extent(b->file, offset, len, &data, &out->len);
    out->kind = data ? BLOCK_DATA : BLOCK_ZERO;
    out->file_offset = offset;
    return r;
}

static int raw_create(struct hostfile *f, const struct block_create *c, struct err *e)
{
    const char *how = c->preallocation != NULL ? c->preallocation : "off";
    int r;
    if (strcmp(how, "off") == 0) {
        r = hostfile_truncate(f, c->size);
    } else if (strcmp(how, "falloc") == 0 || strcmp(how, "full") == 0) {
        r = hostfile_reserve(f, 0, c->size);
    } else {
        return err_set(e, -EINVAL, "preallocation of raw images: off, falloc or full");
    }
    return r < 0 ? err_set(e, r, "%s: %s", c->path, strerror(-r)) : 0;
}

int block_raw_fd(struct block *b, const struct block_request *r)
{
    if (b->class != &block_raw) {
        return -1;
    }
    bool fits = r == NULL || ((r->op == BLOCK_OP_READ || (r->op == BLOCK_OP_WRITE && !r->fua)) &&
                              r->len != 0 && r->len <= BLOCK_REQUEST_MAX &&
                              r->offset <= block_size(b) && r->len <= block_size(b) - r->offset);
    bool allowed = r == NULL || r->op == BLOCK_OP_READ ||
                   (!b->readonly && !(b->guessed && r->offset < BLOCK_PROBE_BYTES));
    return fits && allowed ? hostfile_fd(b->file) : -1;
}

const struct block_class block_raw = {
    .name = "raw",
    .open = raw_open,
    .close = raw_close,
    .read = raw_read,
    .write = raw_write,
    .readv = raw_readv,
    .writev = raw_writev,
    .flush = raw_flush,
    .readv_cached = raw_readv_cached,
    .discard = raw_discard,
    .write_zeroes = raw_write_zeroes,
    .resize = raw_resize,
    .map = raw_map,
    .create = raw_create,
    .create_keys = BLOCK_KEY_PREALLOCATION,
};
