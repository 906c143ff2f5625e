/* SPDX-License-Identifier: Apache-2.0 -- sosia disk resize, snapshot, merge: changes in place */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "cli/disk.h"

#define CHUNK (1u << 20)

int disk_resize(const struct disk_options *o, struct err *e)
{
    const char *text = o->argv[1];
    char sign = text[0] == '+' || text[0] == '-' ? text[0] : '\0';
    uint64_t size;
    struct block *b;
    int r = disk_size(text + (sign != '\0'), &size, e);
    if (r == 0) {
        r = disk_open(&b, o, 0, e);
    }
    if (r < 0) {
        return r;
    }
    uint64_t old = block_size(b);
    if (sign == '-') {
        size = size > old ? 0 : old - size;
    } else if (sign == '+') {
        size = size > BLOCK_SIZE_MAX - old ? BLOCK_SIZE_MAX : old + size;
    }
    if (size < old && !o->shrink) {
        r = err_set(e, -EINVAL,
                    "%s: would lose what is past %" PRIu64 " bytes; say --shrink to do it",
                    block_path(b), size);
    }
    if (r == 0) {
        r = block_resize(b, size, e);
    }
    if (r == 0) {
        r = block_flush(b);
        if (r < 0) {
            err_set(e, r, "%s: %s", block_path(b), strerror(-r));
        }
    }
    block_close(b);
    return r;
}

int disk_snapshot(const struct disk_options *o, struct err *e)
{
    static const struct {
        const char *name;
        enum block_snapshot_verb verb;
    } verbs[] = { { "create", BLOCK_SNAPSHOT_CREATE },
                  { "apply", BLOCK_SNAPSHOT_APPLY },
                  { "delete", BLOCK_SNAPSHOT_DELETE } };
    struct disk_options image = *o;
    image.argv = o->argv + 1;
    image.argc = 1;
    if (strcmp(o->argv[0], "list") == 0) {
        return o->argc == 2 ? disk_info(&image, e)
                            : err_set(e, -EINVAL, "disk snapshot list: too many arguments");
    }
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        if (strcmp(o->argv[0], verbs[i].name) != 0) {
            continue;
        }
        if (o->argc != 3) {
            return err_set(e, -EINVAL, "disk snapshot %s: which one?", o->argv[0]);
        }
        struct block *b;
        int r = disk_open(&b, &image, 0, e);
        if (r == 0) {
            r = block_snapshot_change(b, verbs[i].verb, o->argv[2], e);
            block_close(b);
        }
        return r;
    }
    return err_set(e, -EINVAL, "disk snapshot: create, list, apply or delete, not '%s'",
                   o->argv[0]);
}

static int fail(struct err *e, int r, const struct block *b)
{
    return err_set(e, r, "%s: %s", block_path(b), strerror(-r));
}

/* What top holds goes to the same place in base. */
static int commit_range(struct block *top, struct block *base, uint64_t at,
                        const struct block_extent *x, uint8_t *buf, struct err *e)
{
    int r = 0;
    if (x->kind == BLOCK_ZERO) {
        r = block_write_zeroes(base, at, x->len, true);
        return r < 0 ? fail(e, r, base) : 0;
    }
    for (uint64_t done = 0; done < x->len;) {
        size_t n = x->len - done < CHUNK ? (size_t)(x->len - done) : CHUNK;
        r = block_read(top, at + done, buf, n);
        if (r < 0) {
            return fail(e, r, top);
        }
        r = block_write(base, at + done, buf, n);
        if (r < 0) {
            return fail(e, r, base);
        }
        done += n;
    }
    return 0;
}

static int commit_all(struct block *top, struct block *base, bool quiet, struct err *e)
{
    uint64_t size = block_size(top);
    uint8_t *buf = xzalloc(CHUNK);
    struct disk_progress p;
    int r = 0;
    if (size > block_size(base)) {
        r = block_resize(base, size, e);
    }
    disk_progress_start(&p, size, quiet);
    for (uint64_t at = 0; r == 0 && at < size;) {
        struct block_extent x;
        if (disk_interrupted()) {
            r = err_set(e, -EINTR, "interrupted; nothing is lost, do it again");
            break;
        }
        disk_progress_set(&p, at);
        r = block_map(top, at, size - at, &x);
        if (r < 0) {
            fail(e, r, top);
            break;
        }
        if (x.kind != BLOCK_HOLE) {
            r = commit_range(top, base, at, &x, buf, e);
        }
        at += x.len;
    }
    disk_progress_end(&p);
    free(buf);
    if (r == 0) {
        r = block_flush(base);
        r = r < 0 ? fail(e, r, base) : 0;
    }
    return r;
}

/* Everything that top holds is in its backing file now: what it holds can go. */
static int merge_down(const struct disk_options *o, struct err *e)
{
    struct block *top, *base;
    struct block_info info;
    int r = disk_open(&top, o, BLOCK_NO_PARENT, e);
    if (r < 0) {
        return r;
    }
    block_describe(top, &info);
    if (info.parent_path == NULL) {
        r = err_set(e, -EINVAL, "%s: has no backing file", block_path(top));
        block_close(top);
        return r;
    }
    char *path = info.parent_path[0] != '/' && strrchr(o->argv[0], '/') != NULL
                     ? xasprintf("%.*s/%s", (int)(strrchr(o->argv[0], '/') - o->argv[0]),
                                 o->argv[0], info.parent_path)
                     : xstrdup(info.parent_path);
    struct block_options open = { .path = path, .format = info.parent_format };
    r = block_open(&base, &open, e);
    if (r == 0) {
        r = commit_all(top, base, o->quiet, e);
        block_close(base);
    }
    if (r == 0) {
        r = block_make_empty(top);
        if (r == -ENOTSUP) {
            /* What stays is the same as in the backing file, no harm; but a format may want to know
             * that this is still the one. */
            struct err ignored;
            int known = block_set_parent(top, info.parent_path, info.parent_format, &ignored);
            r = known == -ENOTSUP ? 0 : known;
        }
        r = r < 0 ? fail(e, r, top) : 0;
    }
    free(path);
    block_close(top);
    return r;
}

static int read_or_zero(struct block *b, uint64_t at, uint8_t *buf, size_t n)
{
    uint64_t size = b != NULL ? block_size(b) : 0;
    size_t have = at >= size ? 0 : n < size - at ? n : (size_t)(size - at);
    memset(buf + have, 0, n - have);
    return have == 0 ? 0 : block_read(b, at, buf, have);
}

/* What the image shows through its old parent and would not show through the new one becomes its
 * own. It stays correct under the old parent all the while. */
static int keep_contents(struct block *b, struct block *base, bool quiet, struct err *e)
{
    uint64_t size = block_size(b);
    struct block_info info;
    block_describe(b, &info);
    size_t unit = info.cluster_size != 0 && info.cluster_size <= CHUNK ? (size_t)info.cluster_size
                                                                       : 65536;
    uint8_t *now = xzalloc(unit), *then = xzalloc(unit);
    struct disk_progress p;
    int r = 0;
    disk_progress_start(&p, size, quiet);
    for (uint64_t at = 0; r == 0 && at < size;) {
        struct block_extent x;
        size_t n = size - at < unit ? (size_t)(size - at) : unit;
        if (disk_interrupted()) {
            r = err_set(e, -EINTR, "interrupted; nothing is lost");
            break;
        }
        disk_progress_set(&p, at);
        r = block_map(b, at, n, &x);
        if (r == 0 && (x.kind == BLOCK_HOLE || x.len < n)) {
            r = block_read(b, at, now, n);
            if (r == 0) {
                r = read_or_zero(base, at, then, n);
            }
            if (r == 0 && memcmp(now, then, n) != 0) {
                r = block_write(b, at, now, n);
            }
        }
        if (r < 0) {
            fail(e, r, b);
        }
        at += n;
    }
    disk_progress_end(&p);
    free(now);
    free(then);
    if (r == 0) {
        r = block_flush(b);
        r = r < 0 ? fail(e, r, b) : 0;
    }
    return r;
}

static int open_base(const struct disk_options *o, struct block **base, struct err *e)
{
    if (o->parent[0] == '\0') {
        return 0;
    }
    if (o->parent_format == NULL) {
        return err_set(e, -EINVAL, "disk merge: say the backing file's format: -F FORMAT");
    }
    const char *slash = strrchr(o->argv[0], '/');
    char *path = o->parent[0] != '/' && slash != NULL
                     ? xasprintf("%.*s/%s", (int)(slash - o->argv[0]), o->argv[0], o->parent)
                     : xstrdup(o->parent);
    struct block_options open = { .path = path, .format = o->parent_format };
    open.flags = BLOCK_READONLY;
    int r = block_open(base, &open, e);
    free(path);
    return r;
}

static int rebase(const struct disk_options *o, struct err *e)
{
    struct block *b, *base = NULL;
    int r = disk_open(&b, o, o->unsafe ? BLOCK_NO_PARENT : 0, e);
    if (r < 0) {
        return r;
    }
    if (!o->unsafe) {
        r = open_base(o, &base, e);
        if (r == 0) {
            r = keep_contents(b, base, o->quiet, e);
        }
    }
    if (r == 0) {
        bool none = o->parent[0] == '\0';
        r = block_set_parent(b, none ? NULL : o->parent, none ? NULL : o->parent_format, e);
    }
    block_close(base);
    block_close(b);
    return r;
}

int disk_merge(const struct disk_options *o, struct err *e)
{
    disk_catch_signals();
    return o->parent != NULL ? rebase(o, e) : merge_down(o, e);
}
