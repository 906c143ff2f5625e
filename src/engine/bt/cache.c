/* SPDX-License-Identifier: Apache-2.0
 *
 * Code memory and what is in it: blocks by address, blocks by page. Memory is only ever handed out
 * upwards; when it is full, everything goes at once (bt_cache_reset). A block that dies early is
 * made unreachable by overwriting its first instruction with a jump to its own exit.
 */
#include "engine/bt/bt.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bits.h"

#define DEFAULT_CACHE_BYTES MIB(128)
#define MIN_CACHE_BYTES MIB(1)
/* More than any one block can need. */
#define BLOCK_CODE_MAX KIB(64)
#define BLOCK_RECORDS_MAX 512u

static void *reserve(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

int bt_cache_init(struct bt *bt, struct err *e)
{
    struct bt_cache *c = &bt->cache;
    uint64_t want = bt->config.code_cache_bytes ? bt->config.code_cache_bytes : DEFAULT_CACHE_BYTES;
    if (want < MIN_CACHE_BYTES)
        want = MIN_CACHE_BYTES;
    if (want > GIB(1))
        want = GIB(1);
    c->size = align_up(want, KIB(64));
    /* Records scale with code: measured some 40 bytes of code to a site. */
    c->site_max = (uint32_t)(c->size / 32) + BLOCK_RECORDS_MAX;
    c->exit_max = (uint32_t)(c->size / 32) + BLOCK_RECORDS_MAX;
    c->block_max = (uint32_t)(c->size / 64) + 2;
    c->link_max = (uint32_t)(c->size / 64) + BLOCK_RECORDS_MAX;
    c->hash_mask = (1u << (63 - __builtin_clzll(c->size / 128))) - 1;
    c->page_count = gmem_page_count(bt->config.mem);

    int fd = memfd_create("sosia-code", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)c->size) < 0) {
        int r = -errno;
        if (fd >= 0)
            close(fd);
        return err_set(e, r, "bt: no memory file for the code cache: %s", strerror(-r));
    }
    /* Links are read RIP-relative: executable view and links in one reservation. */
    size_t link_bytes = align_up(c->link_max * sizeof(struct bt_link), KIB(4));
    uint8_t *area = mmap(NULL, c->size + link_bytes, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    void *x = MAP_FAILED;
    void *w = MAP_FAILED;
    int links = -1;
    if (area != MAP_FAILED) {
        x = mmap(area, c->size, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd, 0);
        links = mprotect(area + c->size, link_bytes, PROT_READ | PROT_WRITE);
        w = mmap(NULL, c->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    close(fd);
    if (x == MAP_FAILED || w == MAP_FAILED || links < 0)
        return err_set(e, -ENOMEM, "bt: the host does not let this process map code memory");
    c->exec = x;
    c->write = w;
    c->links = (struct bt_link *)(void *)(area + c->size);
    c->sites = reserve(c->site_max * sizeof *c->sites);
    c->exits = reserve(c->exit_max * sizeof *c->exits);
    c->blocks = reserve(c->block_max * sizeof *c->blocks);
    c->hash = reserve((c->hash_mask + 1) * sizeof *c->hash);
    c->page_head = reserve(c->page_count * sizeof *c->page_head);
    if (!c->sites || !c->exits || !c->blocks || !c->hash || !c->page_head)
        return err_set(e, -ENOMEM, "bt: no memory for translation records");
    bt_make_stubs(bt);
    c->exit_count = 2; /* BT_EXIT_INDIRECT, BT_EXIT_STATE */
    return 0;
}

static void release(void *p, size_t bytes)
{
    if (p != NULL)
        munmap(p, bytes);
}

void bt_cache_fini(struct bt *bt)
{
    struct bt_cache *c = &bt->cache;
    release(c->exec, c->size + align_up(c->link_max * sizeof(struct bt_link), KIB(4)));
    release(c->write, c->size);
    release(c->sites, c->site_max * sizeof *c->sites);
    release(c->exits, c->exit_max * sizeof *c->exits);
    release(c->blocks, c->block_max * sizeof *c->blocks);
    release(c->hash, (c->hash_mask + 1) * sizeof *c->hash);
    release(c->page_head, c->page_count * sizeof *c->page_head);
}

bool bt_cache_room(const struct bt *bt)
{
    const struct bt_cache *c = &bt->cache;
    return c->used + BLOCK_CODE_MAX <= c->size &&
           c->site_count + BLOCK_RECORDS_MAX <= c->site_max &&
           c->exit_count + BLOCK_RECORDS_MAX <= c->exit_max && c->block_count < c->block_max &&
           c->link_count + BLOCK_RECORDS_MAX <= c->link_max;
}

static struct bt_block **page_slot(struct bt *bt, const uint8_t *host)
{
    uint64_t page = (uint64_t)(host - gmem_ram_host(bt->config.mem)) >> GMEM_PAGE_BITS;
    return &bt->cache.page_head[page];
}

void bt_cache_reset(struct bt *bt)
{
    struct bt_cache *c = &bt->cache;
    for (uint32_t i = 0; i < c->block_count; i++) {
        struct bt_block *b = &c->blocks[i];
        *page_slot(bt, b->host) = NULL;
        if (b->split)
            *page_slot(bt, b->host2) = NULL;
    }
    madvise(c->hash, (c->hash_mask + 1) * sizeof *c->hash, MADV_DONTNEED);
    c->used = c->stubs_end;
    c->site_count = 0;
    c->exit_count = 2;
    c->block_count = 0;
    c->link_count = 0;
    c->generation++;
}

static uint32_t hash_of(const struct bt_cache *c, uint64_t pc, gpa_t gpa, uint32_t mode)
{
    uint64_t h = (pc ^ gpa << 17 ^ (uint64_t)mode << 50) * 0x9e3779b97f4a7c15ull;
    return (uint32_t)(h >> 32) & c->hash_mask;
}

struct bt_block *bt_cache_find(struct bt *bt, const struct bt_code_at *at, uint64_t cs_base)
{
    struct bt_cache *c = &bt->cache;
    struct bt_block *b = c->hash[hash_of(c, at->pc, at->gpa, at->mode)];
    while (b != NULL && (b->pc != at->pc || b->gpa != at->gpa || b->mode != at->mode ||
                         b->cs_base != cs_base || b->host != at->bytes))
        b = b->hash_next;
    return b;
}

void bt_cache_add(struct bt *bt, struct bt_block *b)
{
    struct bt_cache *c = &bt->cache;
    struct bt_block **h = &c->hash[hash_of(c, b->pc, b->gpa, b->mode)];
    b->hash_next = *h;
    *h = b;
    struct bt_block **p = page_slot(bt, b->host);
    b->page_next[0] = *p;
    *p = b;
    if (b->split) {
        p = page_slot(bt, b->host2);
        b->page_next[1] = *p;
        *p = b;
    }
}

static void unhash(struct bt *bt, struct bt_block *b)
{
    struct bt_cache *c = &bt->cache;
    struct bt_block **h = &c->hash[hash_of(c, b->pc, b->gpa, b->mode)];
    while (*h != NULL && *h != b)
        h = &(*h)->hash_next;
    if (*h == b)
        *h = b->hash_next;
}

/* The first instruction of a block is one of nine bytes, eight-aligned: replace it by a jump to the
 * block's exit in one store. */
static void kill_block(struct bt *bt, struct bt_block *b)
{
    bt_patch_entry(bt, b, b->code + b->code_size);
    unhash(bt, b);
    b->dead = true;
    bt->stats.invalidations++;
}

static bool overlaps(const struct bt_block *b, gpa_t page, gpa_t gpa, uint64_t len)
{
    if (b->split) { /* one instruction; both pages may be the same */
        bool head = align_down(b->gpa, GMEM_PAGE_SIZE) == page && gpa < b->gpa + b->size &&
                    gpa + len > b->gpa;
        return head || (b->gpa2 == page && gpa < b->gpa2 + b->size);
    }
    return gpa < page + b->seen_end && gpa + len > page + b->seen_first;
}

static void invalidate_page(struct bt *bt, gpa_t page, gpa_t gpa, uint64_t len)
{
    struct gmem_range r;
    if (!gmem_find(bt->config.mem, page, &r))
        return;
    uint64_t n = r.ram_page + ((page - r.gpa) >> GMEM_PAGE_BITS);
    struct bt_block **link = &bt->cache.page_head[n];
    while (*link != NULL) {
        struct bt_block *b = *link;
        unsigned which = align_down(b->gpa, GMEM_PAGE_SIZE) == page ? 0 : 1;
        if (b->dead || overlaps(b, page, gpa, len)) {
            if (!b->dead)
                kill_block(bt, b);
            *link = b->page_next[which];
        } else {
            link = &b->page_next[which];
        }
    }
    if (bt->cache.page_head[n] == NULL)
        atomic_fetch_and(&gmem_page_flags(bt->config.mem)[n], (uint8_t)~GMEM_PAGE_CODE);
}

void bt_cache_invalidate(struct bt *bt, gpa_t gpa, uint64_t len)
{
    gpa_t last = gpa + len - 1;
    for (gpa_t page = align_down(gpa, GMEM_PAGE_SIZE); page <= last; page += GMEM_PAGE_SIZE)
        invalidate_page(bt, page, gpa, len);
}
