/* SPDX-License-Identifier: Apache-2.0 */
#include "block/meta.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "block/hostfile.h"

#define BUCKETS 4096u /* a power of two */
#define CLEAN_BYTES (4u << 20)
#define CROWDED_BYTES (2u << 20)
#define CLEAN -1

struct page {
    uint64_t offset;
    int rank;          /* CLEAN, or when it is to be written */
    struct page *next; /* in its bucket */
    struct page *newer, *older;
    uint8_t bytes[];
};

struct meta {
    struct hostfile *file; /* borrowed */
    uint32_t page_size;
    pthread_mutex_t lock; /* guards the rest: readers load and move pages, too */
    struct page *buckets[BUCKETS];
    struct page *newest, *oldest; /* every page, by last use */
    size_t pages;
    size_t dirty;
    meta_journal_fn *journal; /* NULL: none */
    void *journal_ctx;
};

struct meta *meta_new(struct hostfile *file, uint32_t page_size)
{
    struct meta *m = xzalloc(sizeof *m);
    m->file = file;
    m->page_size = page_size;
    pthread_mutex_init(&m->lock, NULL);
    return m;
}

void meta_free(struct meta *m)
{
    if (m == NULL) {
        return;
    }
    for (struct page *p = m->oldest; p != NULL;) {
        struct page *newer = p->newer;
        free(p);
        p = newer;
    }
    pthread_mutex_destroy(&m->lock);
    free(m);
}

static struct page **bucket_of(struct meta *m, uint64_t offset)
{
    uint64_t hash = (offset / m->page_size) * 0x9e3779b97f4a7c15ull;
    return &m->buckets[(hash >> 40) & (BUCKETS - 1)];
}

static void unlink_use(struct meta *m, struct page *p)
{
    *(p->newer != NULL ? &p->newer->older : &m->newest) = p->older;
    *(p->older != NULL ? &p->older->newer : &m->oldest) = p->newer;
}

static void link_newest(struct meta *m, struct page *p)
{
    p->newer = NULL;
    p->older = m->newest;
    *(m->newest != NULL ? &m->newest->newer : &m->oldest) = p;
    m->newest = p;
}

static void drop(struct meta *m, struct page *p)
{
    struct page **at = bucket_of(m, p->offset);
    while (*at != p) {
        at = &(*at)->next;
    }
    *at = p->next;
    unlink_use(m, p);
    m->pages--;
    m->dirty -= p->rank != CLEAN;
    free(p);
}

/* Dirty pages stay until they are flushed. */
static void make_room(struct meta *m)
{
    struct page *p = m->oldest;
    while (p != NULL && (m->pages - m->dirty) * m->page_size >= CLEAN_BYTES) {
        struct page *newer = p->newer;
        if (p->rank == CLEAN) {
            drop(m, p);
        }
        p = newer;
    }
}

static struct page *find(struct meta *m, uint64_t offset)
{
    struct page *p = *bucket_of(m, offset);
    while (p != NULL && p->offset != offset) {
        p = p->next;
    }
    if (p != NULL && p != m->newest) {
        unlink_use(m, p);
        link_newest(m, p);
    }
    return p;
}

static int get_page(struct meta *m, uint64_t offset, bool load, struct page **out)
{
    struct page *p = find(m, offset);
    if (p == NULL) {
        make_room(m);
        p = try_alloc(1, sizeof *p + m->page_size);
        if (p == NULL) {
            return -ENOMEM;
        }
        int r = load ? hostfile_read(m->file, offset, p->bytes, m->page_size) : 0;
        if (r < 0) {
            free(p);
            return r;
        }
        p->offset = offset;
        p->rank = CLEAN;
        struct page **bucket = bucket_of(m, offset);
        p->next = *bucket;
        *bucket = p;
        link_newest(m, p);
        m->pages++;
    }
    *out = p;
    return 0;
}

static void set_dirty(struct meta *m, struct page *p, unsigned rank)
{
    m->dirty += p->rank == CLEAN;
    p->rank = (int)rank > p->rank ? (int)rank : p->rank;
}

static size_t piece(const struct meta *m, uint64_t offset, size_t len)
{
    size_t n = m->page_size - (size_t)(offset & (m->page_size - 1));
    return n < len ? n : len;
}

int meta_read(struct meta *m, uint64_t offset, void *buf, size_t len)
{
    uint8_t *to = buf;
    int r = 0;
    pthread_mutex_lock(&m->lock);
    while (r == 0 && len > 0) {
        struct page *p;
        size_t n = piece(m, offset, len);
        r = get_page(m, align_down(offset, m->page_size), true, &p);
        if (r == 0) {
            memcpy(to, p->bytes + (offset & (m->page_size - 1)), n);
        }
        to += n;
        offset += n;
        len -= n;
    }
    pthread_mutex_unlock(&m->lock);
    return r;
}

int meta_write(struct meta *m, uint64_t offset, const void *buf, size_t len, unsigned rank)
{
    const uint8_t *from = buf;
    int r = 0;
    pthread_mutex_lock(&m->lock);
    while (r == 0 && len > 0) {
        struct page *p;
        size_t n = piece(m, offset, len);
        r = get_page(m, align_down(offset, m->page_size), n < m->page_size, &p);
        if (r == 0) {
            memcpy(p->bytes + (offset & (m->page_size - 1)), from, n);
            set_dirty(m, p, rank);
        }
        from += n;
        offset += n;
        len -= n;
    }
    pthread_mutex_unlock(&m->lock);
    return r;
}

int meta_zero(struct meta *m, uint64_t offset, uint64_t len, unsigned rank)
{
    int r = 0;
    pthread_mutex_lock(&m->lock);
    for (uint64_t at = offset; r == 0 && at < offset + len; at += m->page_size) {
        struct page *p;
        r = get_page(m, at, false, &p);
        if (r == 0) {
            memset(p->bytes, 0, m->page_size);
            set_dirty(m, p, rank);
        }
    }
    pthread_mutex_unlock(&m->lock);
    return r;
}

void meta_forget(struct meta *m, uint64_t offset, uint64_t len)
{
    pthread_mutex_lock(&m->lock);
    for (uint64_t at = offset; at < offset + len; at += m->page_size) {
        struct page *p = find(m, at);
        if (p != NULL) {
            drop(m, p);
        }
    }
    pthread_mutex_unlock(&m->lock);
}

bool meta_is_dirty(struct meta *m)
{
    pthread_mutex_lock(&m->lock);
    bool dirty = m->dirty != 0;
    pthread_mutex_unlock(&m->lock);
    return dirty;
}

bool meta_is_crowded(struct meta *m)
{
    pthread_mutex_lock(&m->lock);
    bool crowded = m->dirty * m->page_size >= CROWDED_BYTES;
    pthread_mutex_unlock(&m->lock);
    return crowded;
}

void meta_set_journal(struct meta *m, meta_journal_fn *fn, void *ctx)
{
    m->journal = fn;
    m->journal_ctx = ctx;
}

static int by_offset(const void *a, const void *b)
{
    const struct page *x = *(struct page *const *)a, *y = *(struct page *const *)b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static int write_pages(struct meta *m, struct page *const *list, size_t count)
{
    int r = 0;
    if (m->journal != NULL) {
        struct meta_page pages[META_JOURNAL_MAX] = { 0 };
        for (size_t i = 0; i < count; i++) {
            pages[i] = (struct meta_page){ list[i]->offset, list[i]->bytes };
        }
        r = m->journal(m->journal_ctx, pages, count);
    }
    for (size_t i = 0; r == 0 && i < count; i++) {
        r = hostfile_write(m->file, list[i]->offset, list[i]->bytes, m->page_size);
    }
    if (r == 0) {
        r = hostfile_sync(m->file);
    }
    for (size_t i = 0; r == 0 && i < count; i++) {
        list[i]->rank = CLEAN;
        m->dirty--;
    }
    return r;
}

/* In order of offset: a file that grows by these has no holes that a host file system regrets. */
static int write_rank(struct meta *m, int rank)
{
    struct page **list = try_alloc(m->dirty, sizeof *list);
    if (list == NULL) {
        return -ENOMEM;
    }
    size_t count = 0;
    for (struct page *p = m->oldest; p != NULL; p = p->newer) {
        if (p->rank == rank) {
            list[count++] = p;
        }
    }
    qsort(list, count, sizeof *list, by_offset);
    size_t most = m->journal != NULL ? META_JOURNAL_MAX : count;
    int r = 0;
    for (size_t i = 0; r == 0 && i < count; i += most) {
        r = write_pages(m, list + i, count - i < most ? count - i : most);
    }
    free(list);
    return r;
}

int meta_flush(struct meta *m)
{
    int r = hostfile_sync(m->file);
    pthread_mutex_lock(&m->lock);
    for (int rank = 0; r == 0 && m->dirty != 0 && rank < (int)META_RANKS; rank++) {
        r = write_rank(m, rank);
    }
    make_room(m);
    pthread_mutex_unlock(&m->lock);
    return r;
}
