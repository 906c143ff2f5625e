/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "snapshot/pack.h"

#define RUN_PAGES SNAPFILE_SLAB_PAGES /* most that is written at once */

/* A checksum says that they may be the same, the bytes whether they are. */
static bool same_as_parent(struct image *w, uint64_t n, const uint8_t *page, uint32_t crc)
{
    uint8_t theirs[SNAPFILE_PAGE];
    unsigned layer;
    struct err ignored;
    const struct snapfile_page *p = chain_find(w->parent, n, &layer);
    return p->kind == SNAPFILE_STORED && p->crc == crc &&
           chain_page(w->parent, n, theirs, &ignored) == 0 &&
           memcmp(theirs, page, SNAPFILE_PAGE) == 0;
}

static void judge_memory(struct image *w, uint64_t n)
{
    const uint8_t *page = w->memory + n * SNAPFILE_PAGE;
    struct snapfile_page *p = &w->table[n];
    if (bytes_are_zero(page, SNAPFILE_PAGE)) {
        p->kind = SNAPFILE_ZERO;
        return;
    }
    p->crc = crc32c(0, page, SNAPFILE_PAGE);
    p->kind = SNAPFILE_STORED;
    if (w->parent != NULL && same_as_parent(w, n, page, p->crc)) {
        *p = (struct snapfile_page){ .kind = SNAPFILE_PARENT };
    }
}

/* What page n is, into the table. A stored one's bytes are at `page_bytes` then, for which page n
 * is the i-th of a run. */
static int judge(struct image *w, uint64_t n, uint64_t i, struct err *e)
{
    int r = 0;
    if (w->memory != NULL) {
        judge_memory(w, n);
    } else {
        unsigned layer;
        struct snapfile_page p = *chain_find(w->merged, n, &layer);
        if (p.kind == SNAPFILE_STORED && layer >= w->layers) {
            p = (struct snapfile_page){ .kind = SNAPFILE_PARENT };
        } else if (p.kind == SNAPFILE_STORED) {
            r = chain_page(w->merged, n, w->room + i * SNAPFILE_PAGE, e);
        }
        w->table[n] = p;
    }
    w->header.stored += w->table[n].kind == SNAPFILE_STORED;
    return r;
}

static const uint8_t *page_bytes(const struct image *w, uint64_t n, uint64_t i)
{
    return w->memory != NULL ? w->memory + n * SNAPFILE_PAGE : w->room + i * SNAPFILE_PAGE;
}

/* Pages at their own places: zeroes and the parent's are holes. */
static int write_plain(struct image *w, struct err *e)
{
    const struct snapfile_header *h = &w->header;
    uint64_t n = 0;
    int r = 0;
    while (r == 0 && n < h->pages) {
        uint64_t first = n;
        while (n < h->pages && n - first < RUN_PAGES) {
            r = judge(w, n, n - first, e);
            if (r < 0 || w->table[n].kind != SNAPFILE_STORED) {
                break;
            }
            n++;
        }
        if (r == 0 && n != first) {
            r = snapfile_write(w->fd, h->memory_at + first * SNAPFILE_PAGE, page_bytes(w, first, 0),
                               (n - first) * SNAPFILE_PAGE);
        }
        n += n < h->pages && n - first < RUN_PAGES; /* the one that ended the run */
    }
    return r;
}

static int write_packed(struct image *w, struct err *e)
{
    struct snapfile_header *h = &w->header;
    const size_t room = (size_t)SNAPFILE_SLAB_PAGES * SNAPFILE_PAGE;
    uint64_t count = snapfile_slab_count(h), at = h->file_len;
    struct snapfile_slab *slabs = try_alloc(count, sizeof *slabs);
    uint8_t *pages = try_alloc(1, room), *packed = try_alloc(1, pack_bound(room));
    int r = slabs != NULL && pages != NULL && packed != NULL ? 0 : -ENOMEM;
    for (uint64_t s = 0; r == 0 && s < count; s++) {
        size_t len = 0;
        uint64_t first = s * SNAPFILE_SLAB_PAGES;
        for (uint64_t n = first; r == 0 && n < h->pages && n - first < SNAPFILE_SLAB_PAGES; n++) {
            r = judge(w, n, n - first, e);
            if (r == 0 && w->table[n].kind == SNAPFILE_STORED) {
                memcpy(pages + len, page_bytes(w, n, n - first), SNAPFILE_PAGE);
                len += SNAPFILE_PAGE;
            }
        }
        if (r < 0 || len == 0) {
            continue;
        }
        long n = pack_compress(packed, pack_bound(room), pages, len);
        r = n < 0 ? (int)n : snapfile_write(w->fd, at, packed, (uint64_t)n);
        slabs[s] = (struct snapfile_slab){ at, (uint64_t)n };
        at += (uint64_t)n;
    }
    h->file_len = at;
    uint8_t crc[4];
    if (r == 0) {
        store_le32(crc, crc32c(0, slabs, count * sizeof *slabs));
        r = snapfile_write(w->fd, h->slabs_at, slabs, count * sizeof *slabs);
    }
    if (r == 0) {
        r = snapfile_write(w->fd, h->slabs_at + count * sizeof *slabs, crc, sizeof crc);
    }
    free(slabs);
    free(pages);
    free(packed);
    return r;
}

static void lay_out(struct snapfile_header *h)
{
    bool packed = h->flags & SNAPFILE_ZSTD;
    uint64_t at = SNAPFILE_PAGE;
    h->memory_at = at;
    at += packed ? 0 : h->pages * SNAPFILE_PAGE;
    h->table_at = at;
    at += h->pages * sizeof(struct snapfile_page) + 4;
    h->slabs_at = at = align_up(at, 8);
    at += packed ? snapfile_slab_count(h) * sizeof(struct snapfile_slab) + 4 : 0;
    h->state_at = at;
    h->file_len = align_up(at + h->state_len, SNAPFILE_PAGE); /* and compressed memory behind it */
}

static int write_all(struct image *w, struct err *e)
{
    struct snapfile_header *h = &w->header;
    uint64_t table_len = h->pages * sizeof *w->table;
    uint8_t crc[4], page[SNAPFILE_PAGE];
    lay_out(h);
    int r = ftruncate(w->fd, (off_t)h->file_len) < 0 ? -errno : 0;
    if (r == 0) {
        r = h->flags & SNAPFILE_ZSTD ? write_packed(w, e) : write_plain(w, e);
    }
    if (r == 0) {
        r = snapfile_write(w->fd, h->table_at, w->table, table_len);
    }
    if (r == 0) {
        store_le32(crc, crc32c(0, w->table, table_len));
        r = snapfile_write(w->fd, h->table_at + table_len, crc, sizeof crc);
    }
    if (r == 0) {
        r = snapfile_write(w->fd, h->state_at, w->state, h->state_len);
    }
    if (r == 0) {
        snapfile_encode(h, page);
        r = snapfile_write(w->fd, 0, page, sizeof page);
    }
    if (r == 0 && w->sync && fsync(w->fd) < 0) {
        r = -errno;
    }
    return r;
}

int image_write(struct image *w, struct err *e)
{
    w->room = w->memory == NULL ? try_alloc(RUN_PAGES, SNAPFILE_PAGE) : NULL;
    int r = w->memory != NULL || w->room != NULL ? write_all(w, e) : -ENOMEM;
    free(w->room);
    w->room = NULL;
    return r;
}
