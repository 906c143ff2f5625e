/* SPDX-License-Identifier: Apache-2.0
 *
 * sosia disk create and convert. A conversion is written beside its target under another name, and
 * takes the target's name when it is complete and on the medium.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "cli/disk.h"

#define CHUNK (8u << 20)
#define PACKERS_MAX 8u
#define GRAIN 4096u /* zeroes are looked for in these */

int disk_create(const struct disk_options *o, struct err *e)
{
    struct block_create c = o->create;
    c.path = o->argv[0];
    c.format = o->format != NULL ? o->format : "raw";
    c.parent = o->parent;
    c.parent_format = o->parent_format;
    c.given |= c.parent != NULL ? BLOCK_KEY_PARENT : 0;
    int r = 0;
    if (o->argc > 1) {
        r = disk_size(o->argv[1], &c.size, e);
    } else if (c.parent == NULL) {
        r = err_set(e, -EINVAL, "disk create: how large?");
    }
    return r < 0 ? r : block_create(&c, e);
}

struct copy {
    struct block *from, *to;
    struct block *parent; /* of the target: what it has need not be written */
    bool compress;
    unsigned packers; /* threads that compress */
    uint64_t unit;    /* of compression */
    uint8_t *buf, *other;
    struct disk_progress progress;
};

static int write_piece(struct copy *c, uint64_t at, const uint8_t *p, size_t n)
{
    if (c->compress) {
        int r = block_write_compressed(c->to, at, p, n);
        if (r != -EFBIG) {
            return r;
        }
    }
    return block_write(c->to, at, p, n);
}

static bool wanted(const struct copy *c, size_t at, size_t n)
{
    return c->parent != NULL ? memcmp(c->buf + at, c->other + at, n) != 0
                             : c->buf[at] != 0 || memcmp(c->buf + at, c->buf + at + 1, n - 1) != 0;
}

/* A chunk's units, each taken by the next thread that is free. */
struct packing {
    struct copy *copy;
    uint64_t offset;
    size_t len;
    atomic_size_t next;
    atomic_int result;
};

static void *pack(void *ctx)
{
    struct packing *p = ctx;
    struct copy *c = p->copy;
    size_t unit = (size_t)c->unit;
    for (;;) {
        size_t at = atomic_fetch_add(&p->next, unit);
        if (at >= p->len || atomic_load(&p->result) != 0) {
            return NULL;
        }
        size_t n = p->len - at < unit ? p->len - at : unit;
        int r = wanted(c, at, n) ? write_piece(c, p->offset + at, c->buf + at, n) : 0;
        if (r < 0) {
            atomic_store(&p->result, r);
        }
    }
}

static int pack_chunk(struct copy *c, uint64_t offset, size_t len)
{
    struct packing p = { .copy = c, .offset = offset, .len = len };
    pthread_t threads[PACKERS_MAX];
    unsigned started = 0;
    while (started + 1 < c->packers && pthread_create(&threads[started], NULL, pack, &p) == 0) {
        started++;
    }
    pack(&p);
    for (unsigned i = 0; i < started; i++) {
        pthread_join(threads[i], NULL);
    }
    return atomic_load(&p.result);
}

/* The pieces of a chunk that differ from what a new target reads as. */
static int write_chunk(struct copy *c, uint64_t offset, size_t len)
{
    if (c->packers > 1) {
        return pack_chunk(c, offset, len);
    }
    size_t unit = c->compress ? (size_t)c->unit : GRAIN;
    for (size_t at = 0; at < len;) {
        size_t n = len - at < unit ? len - at : unit;
        if (!wanted(c, at, n)) {
            at += n;
            continue;
        }
        while (!c->compress && at + n < len) {
            size_t more = len - at - n < unit ? len - at - n : unit;
            if (!wanted(c, at + n, more)) {
                break;
            }
            n += more;
        }
        int r = write_piece(c, offset + at, c->buf + at, n);
        if (r < 0) {
            return r;
        }
        at += n;
    }
    return 0;
}

static int read_parent(struct copy *c, uint64_t offset, size_t len)
{
    uint64_t size = block_size(c->parent);
    size_t n = offset >= size ? 0 : len < size - offset ? len : (size_t)(size - offset);
    memset(c->other + n, 0, len - n);
    return block_read(c->parent, offset, c->other, n);
}

/* How much from here on is known to be zeroes without reading; whole chunks of them. */
static int skip_zeroes(struct copy *c, uint64_t at, uint64_t size, uint64_t *skip)
{
    struct block_extent x;
    *skip = 0;
    if (c->parent != NULL) {
        return 0;
    }
    int r = disk_extent(c->from, at, size - at, &x, NULL);
    if (r == 0 && x.kind != BLOCK_DATA) {
        *skip = at + x.len == size ? x.len : align_down(at + x.len, CHUNK) - at;
        *skip = at + x.len < at + CHUNK && at + x.len != size ? 0 : *skip;
    }
    return r;
}

static int copy_all(struct copy *c, struct err *e)
{
    uint64_t size = block_size(c->from);
    int r = 0;
    bool reading = true;
    for (uint64_t at = 0; r == 0 && at < size;) {
        if (disk_interrupted()) {
            return err_set(e, -EINTR, "interrupted");
        }
        disk_progress_set(&c->progress, at);
        uint64_t skip;
        reading = true;
        r = skip_zeroes(c, at, size, &skip);
        if (r == 0 && skip != 0) {
            at += skip;
            continue;
        }
        size_t n = size - at < CHUNK ? (size_t)(size - at) : CHUNK;
        if (r == 0) {
            r = block_read(c->from, at, c->buf, n);
        }
        if (r == 0 && c->parent != NULL) {
            r = read_parent(c, at, n);
        }
        if (r == 0) {
            reading = false;
            r = write_chunk(c, at, n);
        }
        at += n;
    }
    if (r == 0) {
        reading = false;
        r = block_flush(c->to);
    }
    disk_progress_end(&c->progress);
    return r < 0 ? err_set(e, r, "%s: %s: %s", reading ? block_path(c->from) : block_path(c->to),
                           reading ? "reading" : "writing", strerror(-r))
                 : 0;
}

/* The directory DIR/.NAME.part-PID that the files of an image are made in, and moved out of. An
 * image with a backing file is a file of that name instead: it finds the other from where it is. */
struct staging {
    char *dir;    /* the target's */
    char *inside; /* the one for us; NULL: none */
    char *path;   /* of the image until then */
    const char *name;
};

static int staging_start(struct staging *s, const char *target, bool flat, struct err *e)
{
    const char *slash = strrchr(target, '/');
    s->name = slash != NULL ? slash + 1 : target;
    s->dir = slash == NULL     ? xstrdup(".")
             : slash == target ? xstrdup("/")
                               : xasprintf("%.*s", (int)(slash - target), target);
    char *inside = xasprintf("%s/.%s.part-%d", s->dir, s->name, (int)getpid());
    if (flat) {
        s->path = inside;
        return 0;
    }
    if (mkdir(inside, 0777) < 0) {
        int r = err_set(e, -errno, "%s: %s", inside, strerror(errno));
        free(inside);
        return r;
    }
    s->inside = inside;
    s->path = xasprintf("%s/%s", s->inside, s->name);
    return 0;
}

static int sync_directory(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = fd < 0 || fsync(fd) < 0 ? -errno : 0;
    if (fd >= 0) {
        close(fd);
    }
    return r;
}

static int move_out(const struct staging *s, const char *name)
{
    char *from = xasprintf("%s/%s", s->inside, name), *to = xasprintf("%s/%s", s->dir, name);
    int r = rename(from, to) < 0 ? -errno : 0;
    free(from);
    free(to);
    return r;
}

/* The image's own name last: whoever sees it sees all of the image. */
static int staging_publish(const struct staging *s, struct err *e)
{
    DIR *d = s->inside != NULL ? opendir(s->inside) : NULL;
    int r = s->inside != NULL && d == NULL ? -errno : 0;
    for (struct dirent *entry; d != NULL && r == 0 && (entry = readdir(d)) != NULL;) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            strcmp(entry->d_name, s->name) != 0) {
            r = move_out(s, entry->d_name);
        }
    }
    if (d != NULL) {
        closedir(d);
    }
    char *target = xasprintf("%s/%s", s->dir, s->name);
    if (r == 0 && rename(s->path, target) < 0) {
        r = -errno;
    }
    free(target);
    if (r == 0) {
        r = sync_directory(s->dir);
    }
    return r < 0 ? err_set(e, r, "%s/%s: %s", s->dir, s->name, strerror(-r)) : 0;
}

static void staging_end(struct staging *s)
{
    DIR *d = s->inside != NULL ? opendir(s->inside) : NULL;
    for (struct dirent *entry; d != NULL && (entry = readdir(d)) != NULL;) {
        char *path = xasprintf("%s/%s", s->inside, entry->d_name);
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            unlink(path);
        }
        free(path);
    }
    if (d != NULL) {
        closedir(d);
    }
    if (s->inside != NULL) {
        rmdir(s->inside);
    } else if (s->path != NULL) {
        unlink(s->path); /* not there any more when it was published */
    }
    free(s->dir);
    free(s->inside);
    free(s->path);
}

static int start_copy(struct copy *c, const struct disk_options *o, struct err *e)
{
    struct block_info info;
    c->parent = block_parent(c->to);
    block_describe(c->to, &info);
    bool always = info.subformat != NULL && strcmp(info.subformat, "streamOptimized") == 0;
    c->compress = o->compress || always;
    if (c->compress && !block_can_compress(c->to)) {
        return err_set(e, -ENOTSUP, "%s images cannot be compressed", block_format(c->to));
    }
    c->unit = info.cluster_size != 0 ? info.cluster_size : GRAIN;
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    /* A stream is written in order. */
    c->packers = !c->compress || always || cpus < 2 ? 1
                 : cpus < PACKERS_MAX               ? (unsigned)cpus
                                                    : PACKERS_MAX;
    c->buf = xzalloc(CHUNK);
    c->other = xzalloc(CHUNK);
    disk_progress_start(&c->progress, block_size(c->from), o->quiet);
    return 0;
}

static int copy_into(struct block *from, const char *path, const struct disk_options *o,
                     struct err *e)
{
    struct copy c = { .from = from };
    struct block_options open = { .path = path, .format = o->out_format };
    int r = block_open(&c.to, &open, e);
    if (r < 0) {
        return r;
    }
    if (block_size(c.to) < block_size(from)) {
        r = err_set(e, -ENOSPC, "%s: smaller than %s", path, block_path(from));
    }
    if (r == 0) {
        r = start_copy(&c, o, e);
    }
    if (r == 0) {
        r = copy_all(&c, e);
    }
    free(c.buf);
    free(c.other);
    block_close(c.to);
    return r;
}

/* A device or a server has no other name to be written under: it is the target as it stands. */
static int convert_in_place(struct block *from, const struct disk_options *o, struct err *e)
{
    if (strcmp(o->out_format, "raw") != 0 && strcmp(o->out_format, "nbd") != 0) {
        return err_set(e, -ENOTSUP, "%s: a block device takes raw images only", o->argv[1]);
    }
    struct block *to;
    struct block_options open = { .path = o->argv[1], .format = o->out_format };
    int r = block_open(&to, &open, e);
    if (r == 0) {
        r = block_size(to) < block_size(from) ? -ENOSPC
                                              : block_write_zeroes(to, 0, block_size(from), true);
        if (r < 0) {
            err_set(e, r, "%s: %s", o->argv[1], strerror(-r));
        }
        block_close(to);
    }
    return r < 0 ? r : copy_into(from, o->argv[1], o, e);
}

static int convert_to_file(struct block *from, const struct disk_options *o, struct err *e)
{
    struct staging s = { 0 };
    struct block_create c = o->create;
    int r = staging_start(&s, o->argv[1], o->parent != NULL, e);
    c.path = s.path;
    c.name = s.name;
    c.format = o->out_format;
    c.size = block_size(from);
    c.parent = o->parent;
    c.parent_format = o->parent_format;
    c.given |= c.parent != NULL ? BLOCK_KEY_PARENT : 0;
    if (r == 0) {
        r = block_create(&c, e);
    }
    if (r == 0) {
        r = copy_into(from, s.path, o, e);
    }
    if (r == 0 && disk_interrupted()) {
        r = err_set(e, -EINTR, "interrupted");
    }
    if (r == 0) {
        r = staging_publish(&s, e);
    }
    staging_end(&s);
    return r;
}

/* An existing target must be nobody's, and not the source; held until its name is taken over. */
static int check_target(const struct disk_options *o, struct block **held, bool *device,
                        struct err *e)
{
    struct stat target, source;
    *held = NULL;
    *device = false;
    if (stat(o->argv[1], &target) < 0) {
        return 0;
    }
    if (stat(o->argv[0], &source) == 0 && source.st_dev == target.st_dev &&
        source.st_ino == target.st_ino) {
        return err_set(e, -EINVAL, "%s: is the source", o->argv[1]);
    }
    *device = S_ISBLK(target.st_mode);
    if (*device || !S_ISREG(target.st_mode)) {
        return *device ? 0 : err_set(e, -EINVAL, "%s: exists and is not a file", o->argv[1]);
    }
    struct block_options open = { .path = o->argv[1], .format = "raw" };
    return block_open(held, &open, e);
}

int disk_convert(const struct disk_options *o, struct err *e)
{
    struct block *from, *held;
    bool in_place;
    if (o->out_format == NULL) {
        return err_set(e, -EINVAL, "disk convert: into which format? -O FORMAT");
    }
    bool server = strcmp(o->out_format, "nbd") == 0;
    if (!server && !block_format_known(o->out_format)) {
        return err_set(e, -EINVAL, "images of format '%s' cannot be made", o->out_format);
    }
    int r = check_target(o, &held, &in_place, e);
    in_place = in_place || server;
    if (r < 0) {
        return r;
    }
    r = disk_open(&from, o, BLOCK_READONLY, e);
    if (r == 0) {
        disk_catch_signals();
        r = in_place ? convert_in_place(from, o, e) : convert_to_file(from, o, e);
        block_close(from);
    }
    block_close(held);
    return r;
}
