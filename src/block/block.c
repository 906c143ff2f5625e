/* SPDX-License-Identifier: Apache-2.0
 *
 * Opening images by name and content, chains of parents, and the checks that every request passes
 * before a format sees it.
 */
#include "block/block.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "block/internal.h"
#include "block/vector.h"

struct block_chain {
    const struct block_chain *child;
    dev_t dev;
    ino_t ino;
    unsigned depth;
};

const struct block_class *const block_classes[] = {
    &block_qcow2, &block_vmdk, &block_vdi, &block_vhd, &block_vhdx,
#ifdef HAVE_LIBNBD
    &block_nbd,
#endif
    &block_raw,   NULL,
};

const struct block_class *block_class_named(const char *name)
{
    for (size_t i = 0; block_classes[i] != NULL; i++) {
        if (strcmp(block_classes[i]->name, name) == 0) {
            return block_classes[i];
        }
    }
    return NULL;
}

static bool is_nbd(const char *path)
{
    return strncmp(path, "nbd:", 4) == 0 || strncmp(path, "nbds:", 5) == 0 ||
           strncmp(path, "nbd+unix:", 9) == 0 || strncmp(path, "nbds+unix:", 10) == 0;
}

void block_lock_init(pthread_rwlock_t *lock)
{
    pthread_rwlockattr_t attr;
    pthread_rwlockattr_init(&attr);
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(lock, &attr);
    pthread_rwlockattr_destroy(&attr);
}

bool block_name_ends(const char *path, const char *ending)
{
    size_t len = strlen(path), end = strlen(ending);
    return len >= end && strcasecmp(path + len - end, ending) == 0;
}

static const struct block_class *probe_file(struct hostfile *f, const char *path, int *error)
{
    uint8_t head[BLOCK_PROBE_BYTES], tail[512] = { 0 };
    struct block_probe p = { .head = head, .tail = tail, .path = path };
    int r = hostfile_size(f, &p.size);
    if (r == 0) {
        r = hostfile_read(f, 0, head, sizeof head);
    }
    if (r == 0 && p.size >= sizeof tail) {
        r = hostfile_read(f, p.size - sizeof tail, tail, sizeof tail);
    }
    *error = r;
    for (size_t i = 0; r == 0 && block_classes[i] != NULL; i++) {
        if (block_classes[i]->probe != NULL && block_classes[i]->probe(&p)) {
            return block_classes[i];
        }
    }
    return &block_raw;
}

static int find_class(struct block *b, const char *format, struct err *e)
{
    int r = 0;
    if (format != NULL) {
        b->class = block_class_named(format);
        if (b->class == NULL || strcmp(b->class->name, "nbd") == 0) {
            return err_set(e, -EINVAL, "%s: unknown image format '%s'", b->path, format);
        }
        return 0;
    }
    b->guessed = true;
    b->class = probe_file(b->file, b->path, &r);
    return r < 0 ? err_set(e, r, "%s: %s", b->path, strerror(-r)) : 0;
}

static int open_file(struct block *b, struct block_chain *here, const struct block_chain *child,
                     struct err *e)
{
    unsigned flags = (b->readonly ? HOSTFILE_READONLY : 0) |
                     (b->flags & BLOCK_NO_LOCK ? HOSTFILE_NO_LOCK : 0);
    /* The loop first: the lock would answer it with a riddle. */
    struct hostfile *look;
    int r = hostfile_open(&look, b->path, HOSTFILE_READONLY | HOSTFILE_NO_LOCK, e);
    if (r < 0) {
        return r;
    }
    hostfile_identity(look, &here->dev, &here->ino);
    hostfile_close(look);
    for (const struct block_chain *c = child; c != NULL; c = c->child) {
        if (c->dev == here->dev && c->ino == here->ino) {
            return err_set(e, -ELOOP, "%s: is its own backing file", b->path);
        }
    }
    return hostfile_open(&b->file, b->path, flags, e);
}

static int open_layer(struct block **out, const struct block_options *o, const char *snapshot,
                      const struct block_chain *child, struct err *e)
{
    struct block_chain here = { .child = child, .depth = child != NULL ? child->depth + 1 : 1 };
    if (here.depth > BLOCK_PARENTS_MAX) {
        return err_set(e, -ELOOP, "%s: more than %u backing files", o->path, BLOCK_PARENTS_MAX);
    }
    struct block *b = xzalloc(sizeof *b);
    b->path = xstrdup(o->path);
    b->flags = o->flags;
    b->readonly = o->flags & (BLOCK_READONLY | BLOCK_EPHEMERAL);
    b->chain = &here;
    b->snapshot = snapshot;
    int r = 0;
    if (is_nbd(o->path)) {
        b->class = block_class_named("nbd");
        if (b->class == NULL) {
            r = err_set(e, -ENOTSUP, "%s: this build has no NBD client (libnbd)", o->path);
        }
    } else {
        r = open_file(b, &here, child, e);
        if (r == 0) {
            r = find_class(b, o->format, e);
        }
    }
    if (r == 0 && snapshot != NULL && b->class->snapshot_list == NULL) {
        r = err_set(e, -ENOTSUP, "%s: %s images have no snapshots", o->path, b->class->name);
    }
    if (r == 0) {
        r = b->class->open(b, e);
    }
    b->chain = NULL;
    b->snapshot = NULL;
    if (r < 0) {
        hostfile_close(b->file);
        block_close(b->parent);
        free(b->path);
        free(b);
        return r;
    }
    *out = b;
    return 0;
}

int block_open(struct block **out, const struct block_options *o, struct err *e)
{
    struct block *b;
    int r = open_layer(&b, o, NULL, NULL, e);
    if (r == 0 && (o->flags & BLOCK_EPHEMERAL) && !(o->flags & BLOCK_READONLY)) {
        struct block *base = b;
        r = block_overlay_new(&b, base, e);
        if (r < 0) {
            block_close(base);
        }
    }
    if (r == 0) {
        *out = b;
    }
    return r;
}

int block_open_snapshot(struct block **out, const struct block_options *o, const char *name,
                        struct err *e)
{
    struct block_options readonly = *o;
    readonly.flags |= BLOCK_READONLY;
    return open_layer(out, &readonly, name, NULL, e);
}

void block_close(struct block *b)
{
    if (b == NULL) {
        return;
    }
    b->class->close(b);
    hostfile_close(b->file);
    block_close(b->parent);
    free(b->path);
    free(b);
}

char *block_relative(const char *from, const char *path)
{
    const char *slash = strrchr(from, '/');
    if (path[0] == '/' || slash == NULL || is_nbd(path)) {
        return xstrdup(path);
    }
    return xasprintf("%.*s/%s", (int)(slash - from), from, path);
}

int block_open_parent(struct block *b, const char *path, const char *format, struct err *e)
{
    if (b->flags & BLOCK_NO_PARENT) {
        return 0;
    }
    if (strncmp(path, "json:", 5) == 0) {
        return err_set(e, -ENOTSUP, "%s: its backing file is not a name but '%.60s'", b->path,
                       path);
    }
    if (strncmp(path, "file:", 5) == 0) {
        path += 5;
    }
    char *name = block_relative(b->path, path);
    struct block_options o = { .path = name, .format = format };
    o.flags = BLOCK_READONLY | (b->flags & BLOCK_NO_LOCK);
    int r = open_layer(&b->parent, &o, NULL, b->chain, e);
    free(name);
    return r < 0 ? err_prefix(e, r, "backing file of %s", b->path) : 0;
}

int block_readv_parent(struct block *b, uint64_t offset, struct vector *v, size_t len)
{
    uint64_t size = b->parent != NULL ? block_size(b->parent) : 0;
    size_t n = offset >= size ? 0 : len < size - offset ? len : (size_t)(size - offset);
    int r = 0;
    if (n != 0) {
        struct iovec part[IOV_MAX];
        int count = vector_take(v, n, part);
        r = block_readv(b->parent, offset, part, count);
    }
    vector_put_zeroes(v, len - n);
    return r;
}

int block_read_parent(struct block *b, uint64_t offset, void *buf, size_t len)
{
    struct iovec iov = { buf, len };
    struct vector v = { .iov = &iov };
    return block_readv_parent(b, offset, &v, len);
}

uint64_t block_size(const struct block *b) { return atomic_load(&b->size); }
bool block_readonly(const struct block *b) { return b->readonly; }
const char *block_format(const struct block *b) { return b->class->name; }
const char *block_path(const struct block *b) { return b->path; }
struct block *block_parent(struct block *b) { return b->parent; }

static int check_range(const struct block *b, uint64_t offset, uint64_t len)
{
    uint64_t size = block_size(b);
    return offset > size || len > size - offset ? -EINVAL : 0;
}

static int check_vector(const struct block *b, uint64_t offset, const struct iovec *iov, int count,
                        size_t *total)
{
    uint64_t len = 0;
    if (count < 0 || count > IOV_MAX) {
        return -EINVAL;
    }
    for (int i = 0; i < count; i++) {
        if (iov[i].iov_len > BLOCK_REQUEST_MAX - len) {
            return -EINVAL;
        }
        len += iov[i].iov_len;
    }
    *total = (size_t)len;
    return check_range(b, offset, len);
}

/* A copy as long as the whole transfer would let a guest have any amount of our memory. */
#define COPY_MAX MIB(1)

int block_read_copied(struct block *b, uint64_t offset, struct vector *v, size_t len)
{
    void *copy = try_alloc(1, len < COPY_MAX ? len : COPY_MAX);
    int r = copy == NULL ? -ENOMEM : 0;
    while (r == 0 && len > 0) {
        size_t n = block_piece(offset, len, COPY_MAX);
        r = b->class->read(b, offset, copy, n);
        if (r == 0) {
            vector_put(v, copy, n);
        }
        offset += n;
        len -= n;
    }
    free(copy);
    return r;
}

int block_write_copied(struct block *b, uint64_t offset, struct vector *v, size_t len)
{
    void *copy = try_alloc(1, len < COPY_MAX ? len : COPY_MAX);
    int r = copy == NULL ? -ENOMEM : 0;
    while (r == 0 && len > 0) {
        size_t n = block_piece(offset, len, COPY_MAX);
        vector_get(v, copy, n);
        r = b->class->write(b, offset, copy, n);
        offset += n;
        len -= n;
    }
    free(copy);
    return r;
}

int block_readv(struct block *b, uint64_t offset, const struct iovec *iov, int count)
{
    size_t total;
    int r = check_vector(b, offset, iov, count, &total);
    if (r < 0 || total == 0) {
        return r;
    }
    struct vector v = { .iov = iov };
    return b->class->readv != NULL ? b->class->readv(b, offset, iov, count)
                                   : block_read_copied(b, offset, &v, total);
}

int block_readv_cached(struct block *b, uint64_t offset, const struct iovec *iov, int count)
{
    size_t total;
    int r = check_vector(b, offset, iov, count, &total);
    if (r < 0 || total == 0) {
        return r;
    }
    return b->class->readv_cached != NULL ? b->class->readv_cached(b, offset, iov, count) : -EAGAIN;
}

int block_writev(struct block *b, uint64_t offset, const struct iovec *iov, int count)
{
    size_t total;
    int r = check_vector(b, offset, iov, count, &total);
    if (r == 0 && b->readonly) {
        r = -EROFS;
    }
    if (r < 0 || total == 0) {
        return r;
    }
    struct vector v = { .iov = iov };
    return b->class->writev != NULL ? b->class->writev(b, offset, iov, count)
                                    : block_write_copied(b, offset, &v, total);
}

int block_read(struct block *b, uint64_t offset, void *buf, size_t len)
{
    if (len > BLOCK_REQUEST_MAX || check_range(b, offset, len) < 0) {
        return -EINVAL;
    }
    return len == 0 ? 0 : b->class->read(b, offset, buf, len);
}

int block_write(struct block *b, uint64_t offset, const void *buf, size_t len)
{
    if (len > BLOCK_REQUEST_MAX || check_range(b, offset, len) < 0) {
        return -EINVAL;
    }
    if (b->readonly) {
        return -EROFS;
    }
    return len == 0 ? 0 : b->class->write(b, offset, buf, len);
}

int block_flush(struct block *b) { return b->readonly ? 0 : b->class->flush(b); }

int block_discard(struct block *b, uint64_t offset, uint64_t len)
{
    int r = check_range(b, offset, len);
    if (r == 0 && b->readonly) {
        r = -EROFS;
    }
    return r < 0 || len == 0 || b->class->discard == NULL ? r : b->class->discard(b, offset, len);
}

static int zero_by_writing(struct block *b, uint64_t offset, uint64_t len)
{
    static const uint8_t zeroes[65536];
    while (len > 0) {
        size_t n = block_piece(offset, len, sizeof zeroes);
        int r = b->class->write(b, offset, zeroes, n);
        if (r < 0) {
            return r;
        }
        offset += n;
        len -= n;
    }
    return 0;
}

int block_write_zeroes(struct block *b, uint64_t offset, uint64_t len, bool may_unmap)
{
    int r = check_range(b, offset, len);
    if (r == 0 && b->readonly) {
        r = -EROFS;
    }
    if (r < 0 || len == 0) {
        return r;
    }
    return b->class->write_zeroes != NULL ? b->class->write_zeroes(b, offset, len, may_unmap)
                                          : zero_by_writing(b, offset, len);
}

int block_resize(struct block *b, uint64_t size, struct err *e)
{
    if (b->readonly) {
        return err_set(e, -EROFS, "%s: opened read-only", b->path);
    }
    if (b->class->resize == NULL) {
        return err_set(e, -ENOTSUP, "%s: a %s image cannot be resized", b->path, b->class->name);
    }
    if (size > BLOCK_SIZE_MAX) {
        return err_set(e, -EFBIG, "%s: too large a size", b->path);
    }
    struct err own = { "" };
    int r = b->class->resize(b, size, &own);
    if (r < 0) {
        return own.msg[0] != '\0' ? err_set(e, r, "%s", own.msg)
                                  : err_set(e, r, "%s: %s", b->path, strerror(-r));
    }
    return 0;
}

int block_map(struct block *b, uint64_t offset, uint64_t len, struct block_extent *out)
{
    int r = check_range(b, offset, len);
    if (r < 0 || len == 0) {
        return -EINVAL;
    }
    *out = (struct block_extent){ .kind = BLOCK_DATA, .len = len, .file_offset = UINT64_MAX };
    return b->class->map != NULL ? b->class->map(b, offset, len, out) : 0;
}
