/* SPDX-License-Identifier: Apache-2.0 */
#include "block/image.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "block/codec.h"
#include "block/internal.h"

const char *block_parts(char *text, size_t room)
{
    char codecs[64];
    const char *have = codec_versions(codecs, sizeof codecs), *nbd = "", *uring = "";
#ifdef HAVE_LIBNBD
    nbd = block_nbd_version();
#endif
#ifdef HAVE_LIBURING
    uring = ", io_uring";
#endif
    snprintf(text, room, "%s%s%s%s%s", have[0] != '\0' ? ", " : "", have,
             nbd[0] != '\0' ? ", libnbd " : "", nbd, uring);
    return text[0] != '\0' ? text + 2 : "none";
}

bool block_format_known(const char *format)
{
    const struct block_class *class = block_class_named(format);
    return class != NULL && class->create != NULL;
}

static int check_keys(const struct block_create *c, const struct block_class *class, struct err *e)
{
    static const char *const names[] = { "cluster_size",   "compat",        "compression_type",
                                         "lazy_refcounts", "refcount_bits", "subformat",
                                         "preallocation",  "a backing file" };
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        if ((c->given & ~class->create_keys) & (1u << i)) {
            return err_set(e, -EINVAL, "%s images do not know %s", class->name, names[i]);
        }
    }
    return 0;
}

/* The parent must open as the child will open it, and gives its size. */
static int check_parent(struct block_create *c, struct err *e)
{
    if (c->parent_format == NULL) {
        return err_set(e, -EINVAL,
                       "say the backing file's format: guessing it could be fooled by "
                       "what a guest wrote");
    }
    char *name = block_relative(c->path, c->parent);
    struct block_options o = { .path = name, .format = c->parent_format };
    o.flags = BLOCK_READONLY | BLOCK_NO_LOCK;
    struct block *parent;
    int r = block_open(&parent, &o, e);
    free(name);
    if (r < 0) {
        return err_prefix(e, r, "backing file");
    }
    if (c->size == 0) {
        c->size = block_size(parent);
    }
    block_close(parent);
    return 0;
}

int block_create(const struct block_create *wanted, struct err *e)
{
    struct block_create c = *wanted;
    const struct block_class *class = block_class_named(c.format);
    if (class == NULL || class->create == NULL) {
        return err_set(e, -EINVAL, "images of format '%s' cannot be made", c.format);
    }
    int r = check_keys(&c, class, e);
    if (r == 0 && c.parent != NULL) {
        r = check_parent(&c, e);
    }
    if (class != &block_raw) { /* these count in sectors, or are read by programs that do */
        c.size = align_up(c.size, 512);
    }
    if (r == 0 && c.size > BLOCK_SIZE_MAX) {
        r = err_set(e, -EFBIG, "%s: too large a size", c.path);
    }
    if (r < 0) {
        return r;
    }
    struct hostfile *f;
    r = hostfile_open(&f, c.path, HOSTFILE_CREATE, e);
    if (r < 0) {
        return r;
    }
    r = class->create(f, &c, e);
    if (r == 0) {
        r = hostfile_sync(f);
        if (r < 0) {
            err_set(e, r, "%s: %s", c.path, strerror(-r));
        }
    }
    hostfile_close(f);
    if (r < 0) {
        unlink(c.path);
    }
    return r;
}

int block_yield(struct block *b, struct err *e)
{
    if (b->file == NULL || b->class == &block_overlay) {
        return err_set(e, -ENOTSUP, "%s: not a file that can be handed on", b->path);
    }
    int r = block_flush(b);
    if (r < 0) {
        return err_set(e, r, "%s: %s", b->path, strerror(-r));
    }
    hostfile_unlock(b->file);
    return 0;
}

int block_reclaim(struct block *b, struct err *e) { return hostfile_lock(b->file, b->path, e); }

void block_describe(struct block *b, struct block_info *info)
{
    memset(info, 0, sizeof *info);
    if (b->file != NULL && hostfile_allocated(b->file, &info->allocated) < 0) {
        info->allocated = 0;
    }
    if (b->class->info != NULL) {
        b->class->info(b, info);
    }
}

int block_check(struct block *b, bool repair, struct block_check *result, struct err *e)
{
    if (b->class->check == NULL) {
        return err_set(e, -ENOTSUP, "%s: %s images have nothing that could be checked", b->path,
                       b->class->name);
    }
    if (repair && b->readonly) {
        return err_set(e, -EROFS, "%s: opened read-only", b->path);
    }
    struct err own = { "" };
    int r = b->class->check(b, repair, result, &own);
    if (r < 0) {
        return err_set(e, r, "%s: %s", b->path, own.msg[0] != '\0' ? own.msg : strerror(-r));
    }
    return 0;
}

void block_check_say(struct block_check *c, const char *fmt, ...)
{
    char line[256];
    va_list args;
    if (c->say == NULL) {
        return;
    }
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    c->say(c->ctx, line);
}

bool block_can_compress(const struct block *b) { return b->class->write_compressed != NULL; }

int block_write_compressed(struct block *b, uint64_t offset, const void *buf, size_t len)
{
    if (b->class->write_compressed == NULL) {
        return -ENOTSUP;
    }
    if (b->readonly) {
        return -EROFS;
    }
    uint64_t size = block_size(b);
    if (len == 0 || offset > size || len > size - offset) {
        return -EINVAL;
    }
    return b->class->write_compressed(b, offset, buf, len);
}

int block_set_parent(struct block *b, const char *path, const char *format, struct err *e)
{
    if (b->class->set_parent == NULL) {
        return err_set(e, -ENOTSUP, "%s: the backing file of a %s image cannot be changed", b->path,
                       b->class->name);
    }
    if (b->readonly) {
        return err_set(e, -EROFS, "%s: opened read-only", b->path);
    }
    return b->class->set_parent(b, path, format, e);
}

int block_make_empty(struct block *b)
{
    if (b->readonly) {
        return -EROFS;
    }
    return b->class->make_empty != NULL ? b->class->make_empty(b) : -ENOTSUP;
}

int block_snapshot_list(struct block *b, struct block_snapshot **list, size_t *count, struct err *e)
{
    *list = NULL;
    *count = 0;
    return b->class->snapshot_list != NULL ? b->class->snapshot_list(b, list, count, e) : 0;
}

void block_snapshots_free(struct block_snapshot *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(list[i].id);
        free(list[i].name);
    }
    free(list);
}

int block_snapshot_change(struct block *b, enum block_snapshot_verb verb, const char *name,
                          struct err *e)
{
    if (b->class->snapshot_change == NULL) {
        return err_set(e, -ENOTSUP, "%s: %s images have no snapshots", b->path, b->class->name);
    }
    if (b->readonly) {
        return err_set(e, -EROFS, "%s: opened read-only", b->path);
    }
    return b->class->snapshot_change(b, verb, name, e);
}
