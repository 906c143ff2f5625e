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

#include "base/alloc.h"
#include "base/bits.h"
#include "cpu/stop.h"

#define DEFAULT_CACHE_BYTES MIB(128)
#define MIN_CACHE_BYTES MIB(1)
/* More than any one block can need. */
#define BLOCK_CODE_MAX KIB(64)
#define BLOCK_RECORDS_MAX 512u
#define SITE_WORDS ((uint32_t)((sizeof(struct bt_site) + INSN_MAX_LEN + 3) / 4))

/* A child is forked to write memory to a snapshot while the guest waits: it needs none of this. */
static void *reserve(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    if (p == MAP_FAILED) {
        return NULL;
    }
    madvise(p, bytes, MADV_DONTFORK);
    return p;
}

/* The first of all kinds are none; BT_EXIT_INDIRECT and BT_EXIT_STATE are no exits of blocks. */
static void no_records(struct bt_cache *c)
{
    c->site_used = 1;
    c->exit_count = 2;
    c->block_count = 1;
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
    /* Records scale with code: measured 57 bytes of code to a site, 67 to an exit, 320 to a block.
     */
    c->site_max = (uint32_t)(c->size / 8) + BLOCK_RECORDS_MAX * SITE_WORDS;
    c->exit_max = (uint32_t)(c->size / 32) + BLOCK_RECORDS_MAX;
    c->block_max = (uint32_t)(c->size / 64) + 2;
    c->hash_mask = (1u << (63 - __builtin_clzll(c->size / 128))) - 1;
    c->page_count = gmem_page_count(bt->config.mem);
    c->ram = gmem_ram_host(bt->config.mem);

    /* Anonymous, not a memory file: perf looks into its map for such addresses only. */
    void *w = mmap(NULL, c->size, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    void *x = w == MAP_FAILED ? MAP_FAILED : mremap(w, 0, c->size, MREMAP_MAYMOVE);
    c->write = w == MAP_FAILED ? NULL : w;
    c->exec = x == MAP_FAILED ? NULL : x;
    if (c->exec == NULL || mprotect(c->exec, c->size, PROT_READ | PROT_EXEC) < 0)
        return err_set(e, -ENOMEM, "bt: the host does not let this process map code memory");
    c->cold_first = align_up(c->size / 2, KIB(4));
    c->sites = reserve(c->site_max * sizeof *c->sites);
    c->exits = reserve(c->exit_max * sizeof *c->exits);
    c->blocks = reserve(c->block_max * sizeof *c->blocks);
    c->hash = reserve((c->hash_mask + 1) * sizeof *c->hash);
    c->page_head = reserve(c->page_count * sizeof *c->page_head);
    c->page_at = reserve(c->page_count * sizeof *c->page_at);
    if (!c->sites || !c->exits || !c->blocks || !c->hash || !c->page_head || !c->page_at)
        return err_set(e, -ENOMEM, "bt: no memory for translation records");
    bt_make_stubs(bt);
    no_records(c);
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
    bt_heir_drop(c);
    release(c->exec, c->size);
    release(c->write, c->size);
    release(c->sites, c->site_max * sizeof *c->sites);
    release(c->exits, c->exit_max * sizeof *c->exits);
    release(c->blocks, c->block_max * sizeof *c->blocks);
    release(c->hash, (c->hash_mask + 1) * sizeof *c->hash);
    release(c->page_head, c->page_count * sizeof *c->page_head);
    release(c->page_at, c->page_count * sizeof *c->page_at);
}

bool bt_cache_room(const struct bt *bt)
{
    const struct bt_cache *c = &bt->cache;
    return c->used + BLOCK_CODE_MAX <= c->cold_first && c->cold_used + BLOCK_CODE_MAX <= c->size &&
           c->site_used + BLOCK_RECORDS_MAX * SITE_WORDS <= c->site_max &&
           c->exit_count + BLOCK_RECORDS_MAX <= c->exit_max && c->block_count < c->block_max;
}

void bt_cache_reset(struct bt *bt)
{
    struct bt_cache *c = &bt->cache;
    for (uint32_t i = 1; i < c->block_count; i++) {
        const struct bt_block *b = &c->blocks[i];
        c->page_head[b->page] = 0;
        if (b->split)
            c->page_head[b->page2] = 0;
    }
    bt_heir_drop(c);
    madvise(c->hash, (c->hash_mask + 1) * sizeof *c->hash, MADV_DONTNEED);
    c->used = c->stubs_end;
    c->cold_used = c->cold_first;
    no_records(c);
    c->generation++;
}

/* Where the list of blocks begins that it may be in. */
static uint32_t *bucket(const struct bt_cache *c, uint64_t pc, gpa_t gpa_page, uint32_t mode)
{
    uint64_t gpa = gpa_page << GMEM_PAGE_BITS | (pc & (GMEM_PAGE_SIZE - 1));
    uint64_t h = ((mode & BT_MODE_SLIDING ? 0 : pc) ^ gpa << 17 ^ (uint64_t)mode << 48) *
                 0x9e3779b97f4a7c15ull;
    return &c->hash[(uint32_t)(h >> 32) & c->hash_mask];
}

/* Sliding blocks are the same wherever their page is mapped. */
static bool is_at(const struct bt_block *b, const struct bt_code_at *at)
{
    uint64_t differs = b->pc ^ at->pc;
    return (at->mode & BT_MODE_SLIDING ? differs & (GMEM_PAGE_SIZE - 1) : differs) == 0;
}

struct bt_block *bt_cache_find(struct bt *bt, const struct bt_code_at *at, uint64_t cs_base)
{
    struct bt_cache *c = &bt->cache;
    gpa_t gpa_page = at->gpa >> GMEM_PAGE_BITS;
    uint32_t page = bt_page_of(c, at->bytes);
    uint32_t n = __atomic_load_n(bucket(c, at->pc, gpa_page, at->mode), __ATOMIC_ACQUIRE);
    while (n != 0) {
        struct bt_block *b = &c->blocks[n];
        if (is_at(b, at) && b->gpa_page == gpa_page && b->page == page && b->mode == at->mode &&
            b->cs_base == cs_base)
            return b;
        n = __atomic_load_n(&b->hash_next, __ATOMIC_ACQUIRE);
    }
    return NULL;
}

void bt_cache_add(struct bt *bt, struct bt_block *b)
{
    struct bt_cache *c = &bt->cache;
    uint32_t n = bt_number(c, b);
    uint32_t *h = bucket(c, b->pc, b->gpa_page, b->mode);
    b->hash_next = *h;
    __atomic_store_n(h, n, __ATOMIC_RELEASE);
    b->page_next[0] = c->page_head[b->page];
    c->page_head[b->page] = n;
    if (b->split) {
        b->page_next[1] = c->page_head[b->page2];
        c->page_head[b->page2] = n;
    }
}

static void unhash(struct bt *bt, struct bt_block *b)
{
    struct bt_cache *c = &bt->cache;
    uint32_t *h = bucket(c, b->pc, b->gpa_page, b->mode);
    while (*h != 0 && *h != bt_number(c, b))
        h = &c->blocks[*h].hash_next;
    if (*h != 0)
        __atomic_store_n(h, b->hash_next, __ATOMIC_RELEASE);
}

static void kill_block(struct bt *bt, struct bt_block *b)
{
    bt_patch_entry(bt, b, bt->cache.exec + b->cold);
    unhash(bt, b);
    b->dead = true;
    bt->stats.invalidations++;
}

static bool overlaps(const struct bt_block *b, gpa_t page, gpa_t gpa, uint64_t len)
{
    gpa_t first = page + (b->pc & (GMEM_PAGE_SIZE - 1));
    if (b->split) { /* one instruction; both pages may be the same */
        bool head = b->gpa_page == page >> GMEM_PAGE_BITS && gpa < first + b->size &&
                    gpa + len > first;
        return head || (b->gpa_page2 == page >> GMEM_PAGE_BITS && gpa < page + b->size);
    }
    return gpa < page + b->seen_end && gpa + len > page + b->seen_first;
}

static void invalidate_page(struct bt *bt, gpa_t page, gpa_t gpa, uint64_t len)
{
    struct gmem_range r;
    if (!gmem_find(bt->config.mem, page, &r))
        return;
    uint64_t n = r.ram_page + ((page - r.gpa) >> GMEM_PAGE_BITS);
    uint32_t *link = &bt->cache.page_head[n];
    while (*link != 0) {
        struct bt_block *b = &bt->cache.blocks[*link];
        unsigned which = b->gpa_page == page >> GMEM_PAGE_BITS ? 0 : 1;
        if (b->dead || overlaps(b, page, gpa, len)) {
            if (!b->dead)
                kill_block(bt, b);
            *link = b->page_next[which];
        } else {
            link = &b->page_next[which];
        }
    }
    if (bt->cache.page_head[n] == 0) {
        atomic_fetch_and(&gmem_page_flags(bt->config.mem)[n], (uint8_t)~GMEM_PAGE_CODE);
        bt_slide_forget(bt, n);
    }
}

/* Blocks end before an instruction with a breakpoint: those that do not must go, and those that are
 * for any address. */
void bt_cache_forget_breaks(struct bt *bt)
{
    const struct cpu_stops *s = bt->config.cpus[0]->stops;
    for (uint32_t i = 1; s != NULL && s->break_count != 0 && i < bt->cache.block_count; i++) {
        struct bt_block *b = &bt->cache.blocks[i];
        if (!b->dead && ((b->mode & BT_MODE_SLIDING) || cpu_break_in(s, b->pc, b->size)))
            kill_block(bt, b);
    }
}

void bt_cache_invalidate(struct bt *bt, gpa_t gpa, uint64_t len)
{
    gpa_t last = gpa + len - 1;
    for (gpa_t page = align_down(gpa, GMEM_PAGE_SIZE); page <= last; page += GMEM_PAGE_SIZE)
        invalidate_page(bt, page, gpa, len);
}
