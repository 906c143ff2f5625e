/* SPDX-License-Identifier: Apache-2.0
 *
 * Images on an NBD server, through libnbd: nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH
 * and their TLS forms. libnbd lets one call at a time onto a connection, so that some connections
 * are made where the server says that they see each other's writes.
 */
#include <errno.h>
#include <libnbd.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "block/internal.h"

#define CONNECTIONS_MAX 4u
#define REQUEST_MAX (16u << 20) /* what servers take */
#define ZERO_MAX (1ull << 30)

struct nbd {
    struct nbd_handle *h[CONNECTIONS_MAX];
    unsigned count;
    atomic_uint next;
    bool can_flush, can_trim, can_zero, can_map;
};

/* Its own words, without the name of the function. */
static const char *why(void)
{
    const char *text = nbd_get_error();
    const char *colon = text != NULL ? strstr(text, ": ") : NULL;
    return colon != NULL ? colon + 2 : text != NULL ? text : "unknown failure";
}

static int code(void)
{
    int number = nbd_get_errno();
    return number != 0 ? -number : -EIO;
}

static int connect_one(struct nbd *n, const char *uri)
{
    struct nbd_handle *h = nbd_create();
    if (h == NULL) {
        return -ENOMEM;
    }
    if (nbd_add_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) < 0 ||
        nbd_connect_uri(h, uri) < 0) {
        int r = code();
        nbd_close(h);
        return r;
    }
    n->h[n->count++] = h;
    return 0;
}

static void disconnect(struct nbd *n)
{
    for (unsigned i = 0; i < n->count; i++) {
        nbd_shutdown(n->h[i], 0);
        nbd_close(n->h[i]);
    }
    free(n);
}

static int ask(struct block *b, struct nbd *n, struct err *e)
{
    struct nbd_handle *h = n->h[0];
    int64_t size = nbd_get_size(h);
    if (size < 0 || (uint64_t)size > BLOCK_SIZE_MAX) {
        return err_set(e, -EINVAL, "%s: the server does not say how large it is", b->path);
    }
    if (!b->readonly && nbd_is_read_only(h) > 0) {
        return err_set(e, -EROFS, "%s: the server lets it be read only", b->path);
    }
    atomic_store(&b->size, (uint64_t)size);
    n->can_flush = nbd_can_flush(h) > 0;
    n->can_trim = nbd_can_trim(h) > 0;
    n->can_zero = nbd_can_zero(h) > 0;
    n->can_map = nbd_can_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) > 0;
    return 0;
}

static int nbd_open(struct block *b, struct err *e)
{
    struct nbd *n = xzalloc(sizeof *n);
    int r = connect_one(n, b->path);
    r = r < 0 ? err_set(e, r, "%s: %s", b->path, why()) : ask(b, n, e);
    if (r < 0) {
        disconnect(n);
        return r;
    }
    bool several = nbd_can_multi_conn(n->h[0]) > 0;
    while (several && n->count < CONNECTIONS_MAX && connect_one(n, b->path) == 0) {
    }
    b->priv = n;
    return 0;
}

static void nbd_close_image(struct block *b) { disconnect(b->priv); }

static struct nbd_handle *pick(struct nbd *n)
{
    return n->h[atomic_fetch_add(&n->next, 1) % n->count];
}

static int nbd_read(struct block *b, uint64_t offset, void *buf, size_t len)
{
    uint8_t *p = buf;
    while (len > 0) {
        size_t n = len < REQUEST_MAX ? len : REQUEST_MAX;
        if (nbd_pread(pick(b->priv), p, n, offset, 0) < 0) {
            return code();
        }
        p += n;
        offset += n;
        len -= n;
    }
    return 0;
}

static int nbd_write(struct block *b, uint64_t offset, const void *buf, size_t len)
{
    const uint8_t *p = buf;
    while (len > 0) {
        size_t n = len < REQUEST_MAX ? len : REQUEST_MAX;
        if (nbd_pwrite(pick(b->priv), p, n, offset, 0) < 0) {
            return code();
        }
        p += n;
        offset += n;
        len -= n;
    }
    return 0;
}

/* A server without flush has nothing that could be lost, or nothing that we could do. */
static int nbd_flush_image(struct block *b)
{
    struct nbd *n = b->priv;
    return n->can_flush && nbd_flush(n->h[0], 0) < 0 ? code() : 0;
}

static int nbd_discard(struct block *b, uint64_t offset, uint64_t len)
{
    struct nbd *n = b->priv;
    while (n->can_trim && len > 0) {
        uint64_t piece = len < ZERO_MAX ? len : ZERO_MAX;
        if (nbd_trim(pick(n), piece, offset, 0) < 0) {
            return code();
        }
        offset += piece;
        len -= piece;
    }
    return 0;
}

static int zero_by_writing(struct block *b, uint64_t offset, uint64_t len)
{
    static const uint8_t zeroes[65536];
    int r = 0;
    while (r == 0 && len > 0) {
        size_t n = block_piece(offset, len, sizeof zeroes);
        r = nbd_write(b, offset, zeroes, n);
        offset += n;
        len -= n;
    }
    return r;
}

static int nbd_write_zeroes(struct block *b, uint64_t offset, uint64_t len, bool may_unmap)
{
    struct nbd *n = b->priv;
    if (!n->can_zero) {
        return zero_by_writing(b, offset, len);
    }
    while (len > 0) {
        uint64_t piece = len < ZERO_MAX ? len : ZERO_MAX;
        uint32_t flags = may_unmap ? 0 : LIBNBD_CMD_FLAG_NO_HOLE;
        if (nbd_zero(pick(n), piece, offset, flags) < 0) {
            return code();
        }
        offset += piece;
        len -= piece;
    }
    return 0;
}

struct first_extent {
    uint64_t len;
    uint32_t flags;
};

static int on_extents(void *ctx, const char *context, uint64_t offset, uint32_t *entries,
                      size_t count, int *error)
{
    struct first_extent *x = ctx;
    (void)offset;
    (void)error;
    if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0 && count >= 2 && x->len == 0) {
        x->len = entries[0];
        x->flags = entries[1];
    }
    return 0;
}

static int nbd_map(struct block *b, uint64_t offset, uint64_t len, struct block_extent *out)
{
    struct nbd *n = b->priv;
    struct first_extent x = { 0 };
    nbd_extent_callback callback = { .callback = on_extents, .user_data = &x };
    uint64_t piece = len < ZERO_MAX ? len : ZERO_MAX;
    if (!n->can_map || nbd_block_status(pick(n), piece, offset, callback, 0) < 0 || x.len == 0) {
        return 0; /* data, as far as we know */
    }
    out->kind = x.flags & LIBNBD_STATE_ZERO ? BLOCK_ZERO : BLOCK_DATA;
    out->len = x.len < len ? x.len : len;
    return 0;
}

const char *block_nbd_version(void)
{
    static _Thread_local char text[32];
    struct nbd_handle *h = nbd_create();
    snprintf(text, sizeof text, "%s", h != NULL ? nbd_get_version(h) : "?");
    if (h != NULL) {
        nbd_close(h);
    }
    return text;
}

const struct block_class block_nbd = {
    .name = "nbd",
    .open = nbd_open,
    .close = nbd_close_image,
    .read = nbd_read,
    .write = nbd_write,
    .flush = nbd_flush_image,
    .discard = nbd_discard,
    .write_zeroes = nbd_write_zeroes,
    .map = nbd_map,
};
