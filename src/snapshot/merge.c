/* SPDX-License-Identifier: Apache-2.0
 *
 * One step does it all: a snapshot is written again, with the pages of the first layers of its
 * chain in it, and takes its own place. It shows the same, and keeps its id, so that those that
 * rest on it need not know.
 *
 * Who writes FILE has the lock of FILE.part; who reads a chain has locks on its files, so that none
 * of them is removed meanwhile.
 */
#include "snapshot/merge.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "snapshot/image.h"
#include "snapshot/part.h"

/* -- Writing one again ------------------------------------------------------------------------- */

static int write_merged(struct chain *c, unsigned layers, struct part *part, struct err *e)
{
    const struct chain_layer *top = &c->layer[0];
    struct image w = { .fd = part->fd, .merged = c, .layers = layers, .sync = true };
    struct snapfile_header *h = &w.header;
    *h = top->header;
    h->stored = 0;
    memset(h->parent, 0, sizeof h->parent);
    memset(h->parent_id, 0, sizeof h->parent_id);
    int r = chain_load_tables(c, e);
    if (r == 0 && layers < c->count) {
        const struct chain_layer *l = &c->layer[layers];
        r = part_name_parent(h, part->path, l->path, l->header.id, e);
    }
    w.table = try_alloc(h->pages, sizeof *w.table);
    uint8_t *state = try_alloc(1, h->state_len + 1);
    if (r == 0 && (w.table == NULL || state == NULL)) {
        r = err_set(e, -ENOMEM, "%s: no memory for its tables", part->path);
    }
    if (r == 0) {
        r = snapfile_read(top->fd, top->path, h->state_at, state, h->state_len, e);
    }
    if (r == 0) {
        struct err damage = { "" };
        w.state = state;
        r = image_write(&w, &damage);
        if (r < 0) {
            err_set(e, r, "%s: %s", damage.msg[0] != '\0' ? "nothing is changed" : part->path,
                    damage.msg[0] != '\0' ? damage.msg : strerror(-r));
        }
    }
    free(w.table);
    free(state);
    return r;
}

static bool same_file(const char *path, int fd)
{
    struct stat a, b;
    return stat(path, &a) == 0 && fstat(fd, &b) == 0 && a.st_ino == b.st_ino &&
           a.st_dev == b.st_dev;
}

/* How many layers of the chain go into its first one, that it may rest on `onto`. */
static int layers_above(const struct chain *c, const char *onto, unsigned *layers, struct err *e)
{
    *layers = onto == NULL ? c->count : 0;
    for (unsigned i = 1; i < c->count && onto != NULL; i++) {
        *layers = same_file(onto, c->layer[i].fd) ? i : *layers;
    }
    return *layers != 0 ? 0
                        : err_set(e, -EINVAL, "%s: does not rest on %s", c->layer[0].path, onto);
}

int snapshot_merge(const char *path, const char *onto, struct err *e)
{
    struct part part;
    struct chain *c = NULL;
    unsigned layers;
    int r = part_open(&part, path, e); /* from here on nobody else replaces it */
    if (r == 0) {
        r = chain_open(&c, path, e);
    }
    if (r == 0) {
        r = layers_above(c, onto, &layers, e);
    }
    if (r == 0 && layers > 1) {
        r = write_merged(c, layers, &part, e);
        if (r == 0) {
            r = part_publish(&part, true, e);
        }
    }
    chain_close(c);
    part_close(&part);
    return r;
}

/* -- A directory of them ----------------------------------------------------------------------- */

struct item {
    char *path;    /* owned */
    char *problem; /* owned: why its header is not known; or NULL */
    struct snapfile_header header;
    bool told;
};

struct listing {
    struct item *item; /* owned */
    size_t count;
};

/* Whatever else lies in a directory is passed over; not so what may be a snapshot, but cannot be
 * read now, or by us. */
static bool is_other(int fd, int open_errno)
{
    uint8_t head[16];
    if (fd < 0) {
        return open_errno == ENOENT || open_errno == ENXIO || open_errno == ELOOP;
    }
    struct stat st;
    if (fstat(fd, &st) == 0 && !S_ISREG(st.st_mode)) {
        return true;
    }
    ssize_t n = pread(fd, head, sizeof head, 0);
    return n >= 0 && !snapfile_recognise(head, (uint64_t)n);
}

static void add_item(struct listing *l, char *path)
{
    struct item it = { .path = path };
    struct err e = { "" };
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (is_other(fd, errno)) {
        free(path);
    } else {
        if (fd < 0) {
            it.problem = xasprintf("%s: %s", path, strerror(errno));
        } else if (snapfile_read_header(fd, path, &it.header, &e) < 0) {
            it.header = (struct snapfile_header){ .flags = 0 };
            it.problem = xstrdup(e.msg);
        }
        l->item = xrealloc(l->item, (l->count + 1) * sizeof *l->item);
        l->item[l->count++] = it;
    }
    if (fd >= 0) {
        close(fd);
    }
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct item *)a)->path, ((const struct item *)b)->path);
}

/* prefix: what goes before each name. */
static int read_directory(struct listing *l, const char *dir, const char *prefix, struct err *e)
{
    *l = (struct listing){ .count = 0 };
    DIR *d = opendir(dir);
    if (d == NULL) {
        return err_set(e, -errno, "%s: %s", dir, strerror(errno));
    }
    const struct dirent *ent;
    while (errno = 0, (ent = readdir(d)) != NULL) {
        size_t len = strlen(ent->d_name);
        if (len < 5 || strcmp(ent->d_name + len - 5, ".part") != 0) {
            add_item(l, xasprintf("%s%s", prefix, ent->d_name));
        }
    }
    int r = errno == 0 ? 0 : err_set(e, -errno, "%s: %s", dir, strerror(errno));
    closedir(d);
    if (l->count != 0) {
        qsort(l->item, l->count, sizeof *l->item, by_name);
    }
    return r;
}

static void free_listing(struct listing *l)
{
    for (size_t i = 0; i < l->count; i++) {
        free(l->item[i].path);
        free(l->item[i].problem);
    }
    free(l->item);
}

/* By its id, unless its name for it leads to another of that id: a copy. */
static bool rests_on(const struct item *child, const struct item *parent)
{
    if (child->header.parent[0] == '\0' ||
        memcmp(child->header.parent_id, parent->header.id, SNAPFILE_ID) != 0) {
        return false;
    }
    struct stat named, it;
    char *name = snapfile_relative(child->path, child->header.parent);
    bool elsewhere = stat(name, &named) == 0 && stat(parent->path, &it) == 0 &&
                     (named.st_ino != it.st_ino || named.st_dev != it.st_dev);
    free(name);
    return !elsewhere;
}

static void tell(struct item *it, unsigned depth, snapshot_entry_fn *fn, void *ctx)
{
    struct err e = { "" };
    struct chain *c = NULL;
    struct snapshot_entry entry = { .path = it->path, .header = &it->header, .depth = depth };
    if (it->problem != NULL) {
        entry.problem = it->problem;
        entry.header = NULL;
    } else if (chain_open(&c, it->path, &e) < 0) {
        entry.problem = e.msg;
        c = NULL;
    }
    chain_close(c);
    it->told = true;
    fn(ctx, &entry);
}

static void tell_tree(struct listing *l, struct item *it, unsigned depth, snapshot_entry_fn *fn,
                      void *ctx)
{
    tell(it, depth, fn, ctx);
    for (size_t i = 0; i < l->count && depth < SNAPFILE_CHAIN_MAX; i++) {
        if (!l->item[i].told && rests_on(&l->item[i], it)) {
            tell_tree(l, &l->item[i], depth + 1, fn, ctx);
        }
    }
}

static bool is_root(const struct listing *l, const struct item *it)
{
    bool root = true;
    for (size_t i = 0; i < l->count && root; i++) {
        root = !rests_on(it, &l->item[i]);
    }
    return root;
}

static int list_directory(const char *dir, snapshot_entry_fn *fn, void *ctx, struct err *e)
{
    struct listing l;
    char *prefix = strcmp(dir, ".") == 0 ? xstrdup("") : xasprintf("%s/", dir);
    int r = read_directory(&l, dir, prefix, e);
    free(prefix);
    for (size_t i = 0; i < l.count && r == 0; i++) {
        if (!l.item[i].told && is_root(&l, &l.item[i])) {
            tell_tree(&l, &l.item[i], 0, fn, ctx);
        }
    }
    for (size_t i = 0; i < l.count && r == 0; i++) { /* those that rest on each other in a circle */
        if (!l.item[i].told) {
            tell(&l.item[i], 0, fn, ctx);
        }
    }
    free_listing(&l);
    return r;
}

int snapshot_list(const char *path, snapshot_entry_fn *fn, void *ctx, struct err *e)
{
    struct stat st;
    struct chain *c;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
        return list_directory(path, fn, ctx, e);
    }
    int r = chain_open(&c, path, e);
    if (r < 0) {
        return r;
    }
    for (unsigned i = c->count; i-- > 0;) {
        const struct chain_layer *l = &c->layer[i];
        fn(ctx, &(struct snapshot_entry){
                    .path = l->path, .header = &l->header, .depth = c->count - 1 - i });
    }
    chain_close(c);
    return 0;
}

/* -- Taking one away --------------------------------------------------------------------------- */

static int free_child(const struct item *child, const struct item *it, struct err *e)
{
    char *grandparent = it->header.parent[0] != '\0'
                            ? snapfile_relative(it->path, it->header.parent)
                            : NULL;
    int r = snapshot_merge(child->path, grandparent, e);
    free(grandparent);
    return r < 0 ? err_prefix(e, r, "%s stays, as %s needs it", it->path, child->path) : 0;
}

/* Those that rest on it take in what they need. */
static int free_children(const struct listing *l, const struct item *it, snapshot_entry_fn *fn,
                         void *ctx, struct err *e)
{
    for (size_t i = 0; i < l->count; i++) {
        if (l->item[i].problem != NULL) {
            return err_set(e, -EINVAL, "%s stays, as another may need it: %s", it->path,
                           l->item[i].problem);
        }
    }
    for (size_t i = 0; i < l->count; i++) {
        struct item *child = &l->item[i];
        if (rests_on(child, it)) {
            int r = free_child(child, it, e);
            if (r < 0) {
                return r;
            }
            fn(ctx, &(struct snapshot_entry){ .path = child->path, .header = &child->header });
        }
    }
    return 0;
}

static int open_item(struct item *it, const char *path, int *fd, struct err *e)
{
    *it = (struct item){ .path = xstrdup(path) };
    *fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    return *fd < 0 ? err_set(e, -errno, "%s: %s", path, strerror(errno))
                   : snapfile_read_header(*fd, path, &it->header, e);
}

static int read_siblings(struct listing *l, const char *path, struct err *e)
{
    char *dir = part_directory(path);
    int r = read_directory(l, dir, strchr(path, '/') != NULL ? dir : "", e);
    free(dir);
    return r;
}

/* With a writer's lock on it, which who opens a chain would not get past: nobody rests on it, and
 * nobody begins to. */
static int unlink_unused(const struct item *it, int fd, struct err *e)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    struct listing l;
    if (fcntl(fd, F_OFD_SETLK, &lock) < 0 && (errno == EAGAIN || errno == EACCES)) {
        return err_set(e, -EBUSY, "%s: in use: a VM runs on it, or another rests on it", it->path);
    }
    int r = read_siblings(&l, it->path, e);
    for (size_t i = 0; i < l.count && r == 0; i++) {
        if (rests_on(&l.item[i], it)) {
            r = err_set(e, -EBUSY, "%s: %s was made on it just now", it->path, l.item[i].path);
        }
    }
    free_listing(&l);
    if (r == 0 && unlink(it->path) < 0) {
        r = err_set(e, -errno, "%s: %s", it->path, strerror(errno));
    }
    return r;
}

int snapshot_prune(const char *path, snapshot_entry_fn *fn, void *ctx, struct err *e)
{
    struct part part; /* nobody writes it anew meanwhile */
    struct listing l = { .count = 0 };
    struct item it = { .path = NULL };
    int fd = -1;
    int r = part_open(&part, path, e);
    if (r == 0) {
        r = open_item(&it, path, &fd, e);
    }
    if (r == 0) {
        r = read_siblings(&l, path, e);
    }
    if (r == 0) {
        r = free_children(&l, &it, fn, ctx, e);
    }
    if (r == 0) {
        r = unlink_unused(&it, fd, e);
    }
    if (r == 0 && part_sync_directory(path) < 0) {
        r = err_set(e, -EIO,
                    "%s: it is gone, but a crash of the host could bring it back: its "
                    "directory cannot be synced: %s",
                    path, strerror(errno));
    }
    free_listing(&l);
    free(it.path);
    if (fd >= 0) {
        close(fd);
    }
    part_close(&part);
    return r;
}
