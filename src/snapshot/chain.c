/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/chain.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/crc32c.h"
#include "snapshot/pack.h"

/* A reader's lock: who changes or removes snapshots takes a writer's. */
static int lock_for_reading(int fd, const char *path, struct err *e)
{
    struct flock l = { .l_type = F_RDLCK, .l_whence = SEEK_SET };
    if (fcntl(fd, F_OFD_SETLK, &l) == 0 || errno == EINVAL || errno == ENOLCK) {
        return 0;
    }
    return err_set(e, -EBUSY, "%s: somebody is changing it", path);
}

static int open_layer(struct chain *c, const char *path, struct err *e)
{
    struct chain_layer *l = &c->layer[c->count];
    l->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (l->fd < 0) {
        return err_set(e, -errno, "%s: %s", path, strerror(errno));
    }
    l->path = xstrdup(path);
    c->count++;
    int r = lock_for_reading(l->fd, path, e);
    return r < 0 ? r : snapfile_read_header(l->fd, path, &l->header, e);
}

static int check_parent(const struct chain_layer *child, const struct chain_layer *parent,
                        struct err *e)
{
    if (memcmp(child->header.parent_id, parent->header.id, SNAPFILE_ID) != 0) {
        return err_set(e, -EINVAL, "%s: not the snapshot that %s was made on", parent->path,
                       child->path);
    }
    if (child->header.pages != parent->header.pages) {
        return err_set(e, -EINVAL, "%s: of a machine of another size than %s", parent->path,
                       child->path);
    }
    return 0;
}

int chain_open(struct chain **out, const char *path, struct err *e)
{
    struct chain *c = xzalloc(sizeof *c);
    int r = open_layer(c, path, e);
    while (r == 0 && c->layer[c->count - 1].header.parent[0] != '\0') {
        struct chain_layer *child = &c->layer[c->count - 1];
        if (c->count == SNAPFILE_CHAIN_MAX) {
            r = err_set(e, -ELOOP, "%s: rests on more than %u others", path, SNAPFILE_CHAIN_MAX);
            break;
        }
        char *name = snapfile_relative(child->path, child->header.parent);
        r = open_layer(c, name, e);
        free(name);
        if (r < 0) {
            r = err_prefix(e, r, "parent of %s", child->path);
        } else {
            r = check_parent(child, &c->layer[c->count - 1], e);
        }
    }
    if (r < 0) {
        chain_close(c);
        return r;
    }
    *out = c;
    return 0;
}

void chain_close(struct chain *c)
{
    if (c == NULL) {
        return;
    }
    for (unsigned i = 0; i < c->count; i++) {
        close(c->layer[i].fd);
        free(c->layer[i].path);
        free(c->layer[i].table);
        free(c->layer[i].slabs);
        free(c->layer[i].slab);
    }
    free(c);
}

int chain_load_tables(struct chain *c, struct err *e)
{
    int r = 0;
    for (unsigned i = 0; i < c->count && r == 0; i++) {
        struct chain_layer *l = &c->layer[i];
        if (l->table == NULL) {
            r = snapfile_read_table(l->fd, l->path, &l->header, &l->table, e);
        }
        if (r == 0 && (l->header.flags & SNAPFILE_ZSTD) && l->slabs == NULL) {
            r = snapfile_read_slabs(l->fd, l->path, &l->header, &l->slabs, e);
        }
    }
    return r;
}

const struct snapfile_page *chain_find(const struct chain *c, uint64_t page, unsigned *layer)
{
    /* The last one has no page of the kind PARENT: snapfile_read_table saw to that. */
    unsigned i = 0;
    while (i + 1 < c->count && c->layer[i].table[page].kind == SNAPFILE_PARENT) {
        i++;
    }
    *layer = i;
    return &c->layer[i].table[page];
}

/* The frame that the page is in, unpacked; its stored pages lie there one after the other. */
static int load_slab(struct chain_layer *l, uint64_t slab, struct err *e)
{
    const size_t room = (size_t)SNAPFILE_SLAB_PAGES * SNAPFILE_PAGE;
    if (l->slab != NULL && l->slab_number == slab) {
        return 0;
    }
    free(l->slab);
    l->slab = NULL;
    uint8_t *packed = xzalloc(l->slabs[slab].len + 1); /* capped by snapfile_read_slabs */
    uint8_t *pages = xzalloc(room);
    int r = snapfile_read(l->fd, l->path, l->slabs[slab].at, packed, l->slabs[slab].len, e);
    if (r == 0 && pack_expand(pages, room, packed, l->slabs[slab].len) < 0) {
        r = err_set(e, -EINVAL, "%s: compressed memory is damaged, or this build has no zstd",
                    l->path);
    }
    free(packed);
    if (r < 0) {
        free(pages);
        return r;
    }
    l->slab = pages;
    l->slab_number = slab;
    return 0;
}

int chain_page(struct chain *c, uint64_t page, uint8_t out[SNAPFILE_PAGE], struct err *e)
{
    unsigned i;
    const struct snapfile_page *p = chain_find(c, page, &i);
    struct chain_layer *l = &c->layer[i];
    int r;
    if (l->header.flags & SNAPFILE_ZSTD) {
        uint64_t slab = page / SNAPFILE_SLAB_PAGES, place = 0;
        for (uint64_t n = slab * SNAPFILE_SLAB_PAGES; n < page; n++) {
            place += l->table[n].kind == SNAPFILE_STORED;
        }
        r = load_slab(l, slab, e);
        if (r == 0) {
            memcpy(out, l->slab + place * SNAPFILE_PAGE, SNAPFILE_PAGE);
        }
    } else {
        r = snapfile_read(l->fd, l->path, l->header.memory_at + page * SNAPFILE_PAGE, out,
                          SNAPFILE_PAGE, e);
    }
    if (r == 0 && crc32c(0, out, SNAPFILE_PAGE) != p->crc) {
        r = err_set(e, -EINVAL, "%s: page %llu of memory is damaged", l->path,
                    (unsigned long long)page);
    }
    return r;
}
