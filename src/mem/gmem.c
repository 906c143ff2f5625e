/* SPDX-License-Identifier: Apache-2.0
 *
 * One mapping holds all RAM, then room for ROM copies, so that page n of the flags array is always
 * the page at base + n * 4096. Nothing is touched before the guest touches it.
 *
 * The map is a sorted array of ranges under a sequence count: lookups take no lock and copy out
 * what they found; a lookup that overlaps a change starts again.
 */
#include "mem/gmem.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "mem/internal.h"

#define ROM_MAX MIB(64)
#define ABOVE_4G GIB(4)
#define HUGE_PAGE MIB(2)

/* The chipset lays things over RAM at a fixed list of places; a map never comes near this. */
#define MAX_RANGES 512u

/* A struct gmem_range in words that can be read while they change. */
struct slot {
    _Atomic uint64_t gpa;
    _Atomic uint64_t size;
    _Atomic uint64_t ram_page;
    _Atomic uint32_t kind;
};

struct gmem {
    uint8_t *host; /* RAM, then ROM copies */
    size_t host_bytes;
    uint64_t ram_bytes;
    uint64_t ram_below;  /* RAM bytes below the hole */
    uint64_t rom_bytes;  /* of ROM_MAX handed out */
    uint64_t page_count; /* of RAM and of all the room for ROM */
    bool from_file;      /* some of it is a private copy of a file */
    _Atomic uint8_t *flags;

    _Atomic uint32_t seq; /* odd while slots change */
    _Atomic uint32_t count;
    struct slot slots[MAX_RANGES];

    pthread_mutex_t map_lock; /* serialises changes of the map; guards edit and rom_bytes */
    struct gmem_range edit[MAX_RANGES + 2];
    uint32_t edit_count;

    void (*map_changed)(void *ctx);
    void *map_ctx;
    gmem_code_fn *code_written;
    void *code_ctx;
};

/* -- The map: readers ---------------------------------------------------------------------------
 * The same sequence count as base/clock.c: data loads acquire, data stores release. */
static void read_slot(const struct gmem *m, uint32_t at, struct gmem_range *out)
{
    const struct slot *s = &m->slots[at];
    out->gpa = atomic_load_explicit(&s->gpa, memory_order_acquire);
    out->size = atomic_load_explicit(&s->size, memory_order_acquire);
    out->kind = (enum gmem_kind)atomic_load_explicit(&s->kind, memory_order_acquire);
    out->ram_page = atomic_load_explicit(&s->ram_page, memory_order_acquire);
    out->host = m->host + (out->ram_page << GMEM_PAGE_BITS);
}

/* or_next: when none holds gpa, the first beyond it will do. */
static bool lookup_once(const struct gmem *m, gpa_t gpa, bool or_next, struct gmem_range *out)
{
    const uint32_t count = atomic_load_explicit(&m->count, memory_order_acquire);
    uint32_t lo = 0;
    uint32_t hi = count;
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        const struct slot *s = &m->slots[mid];
        uint64_t start = atomic_load_explicit(&s->gpa, memory_order_acquire);
        uint64_t size = atomic_load_explicit(&s->size, memory_order_acquire);
        if (gpa < start) {
            hi = mid;
        } else if (gpa - start >= size) {
            lo = mid + 1;
        } else {
            read_slot(m, mid, out);
            return true;
        }
    }
    if (or_next && lo < count) {
        read_slot(m, lo, out);
        return true;
    }
    return false;
}

static bool lookup(const struct gmem *m, gpa_t gpa, bool or_next, struct gmem_range *out)
{
    for (;;) {
        uint32_t seq = atomic_load_explicit(&m->seq, memory_order_acquire);
        if (unlikely(seq & 1)) {
            continue;
        }
        struct gmem_range found = { 0 };
        bool hit = lookup_once(m, gpa, or_next, &found);
        if (likely(atomic_load_explicit(&m->seq, memory_order_acquire) == seq)) {
            if (hit) {
                *out = found;
            }
            return hit;
        }
    }
}

uint32_t gmem_map_version(const struct gmem *m)
{
    return atomic_load_explicit(&m->seq, memory_order_acquire);
}

bool gmem_find(const struct gmem *m, gpa_t gpa, struct gmem_range *out)
{
    return lookup(m, gpa, false, out);
}

bool gmem_find_next(const struct gmem *m, gpa_t gpa, struct gmem_range *out)
{
    return lookup(m, gpa, true, out);
}

/* -- The map: changes, map_lock held ----------------------------------------------------------- */
static void edit_insert(struct gmem *m, uint32_t at, const struct gmem_range *r)
{
    assert(m->edit_count < ARRAY_LEN(m->edit));
    memmove(&m->edit[at + 1], &m->edit[at], (m->edit_count - at) * sizeof *r);
    m->edit[at] = *r;
    m->edit_count++;
}

/* What is left of a range from offset on. */
static struct gmem_range tail_of(const struct gmem_range *r, uint64_t offset)
{
    struct gmem_range tail = *r;
    tail.gpa += offset;
    tail.size -= offset;
    tail.ram_page += offset >> GMEM_PAGE_BITS;
    return tail;
}

/* Take [gpa, gpa+size) out of the map; returns where a range for it would go. */
static uint32_t edit_cut(struct gmem *m, gpa_t gpa, uint64_t size)
{
    gpa_t end = gpa + size;
    uint32_t i = 0;
    while (i < m->edit_count && m->edit[i].gpa + m->edit[i].size <= gpa) {
        i++;
    }
    if (i < m->edit_count && m->edit[i].gpa < gpa) {
        struct gmem_range tail = tail_of(&m->edit[i], gpa - m->edit[i].gpa);
        m->edit[i].size = gpa - m->edit[i].gpa;
        edit_insert(m, ++i, &tail);
    }
    uint32_t keep = i;
    while (keep < m->edit_count && m->edit[keep].gpa + m->edit[keep].size <= end) {
        keep++;
    }
    memmove(&m->edit[i], &m->edit[keep], (m->edit_count - keep) * sizeof m->edit[0]);
    m->edit_count -= keep - i;
    if (i < m->edit_count && m->edit[i].gpa < end) {
        m->edit[i] = tail_of(&m->edit[i], end - m->edit[i].gpa);
    }
    return i;
}

static void edit_merge(struct gmem *m)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < m->edit_count; i++) {
        const struct gmem_range *r = &m->edit[i];
        struct gmem_range *last = &m->edit[n == 0 ? 0 : n - 1];
        if (n > 0 && last->gpa + last->size == r->gpa && last->kind == r->kind &&
            last->ram_page + (last->size >> GMEM_PAGE_BITS) == r->ram_page) {
            last->size += r->size;
        } else {
            m->edit[n++] = *r;
        }
    }
    m->edit_count = n;
}

static void publish(struct gmem *m)
{
    edit_merge(m);
    assert(m->edit_count <= MAX_RANGES);
    uint32_t seq = atomic_load_explicit(&m->seq, memory_order_relaxed);
    atomic_store_explicit(&m->seq, seq + 1, memory_order_relaxed);
    for (uint32_t i = 0; i < m->edit_count; i++) {
        const struct gmem_range *r = &m->edit[i];
        struct slot *s = &m->slots[i];
        atomic_store_explicit(&s->gpa, r->gpa, memory_order_release);
        atomic_store_explicit(&s->size, r->size, memory_order_release);
        atomic_store_explicit(&s->ram_page, r->ram_page, memory_order_release);
        atomic_store_explicit(&s->kind, r->kind, memory_order_release);
    }
    atomic_store_explicit(&m->count, m->edit_count, memory_order_release);
    atomic_store_explicit(&m->seq, seq + 2, memory_order_release);
}

static void changed(struct gmem *m)
{
    if (m->map_changed != NULL) {
        m->map_changed(m->map_ctx);
    }
}

/* RAM lies in two blocks, whatever the map shows: below the hole, and from 4 GiB. */
static struct gmem_range ram_block(const struct gmem *m, unsigned n)
{
    if (n == 0) {
        return (struct gmem_range){ .size = m->ram_below, .kind = GMEM_RAM };
    }
    return (struct gmem_range){ .gpa = ABOVE_4G,
                                .size = m->ram_bytes - m->ram_below,
                                .kind = GMEM_RAM,
                                .ram_page = m->ram_below >> GMEM_PAGE_BITS };
}

static void check_range(gpa_t gpa, uint64_t size)
{
    gpa_t end;
    assert(gpa % GMEM_PAGE_SIZE == 0 && size % GMEM_PAGE_SIZE == 0);
    assert(!ckd_add(&end, gpa, size));
    (void)end;
}

/* Show the RAM beneath [gpa, gpa+size), where there is some, as the kind says. */
static void lay_ram(struct gmem *m, gpa_t gpa, uint64_t size, enum gmem_kind kind)
{
    check_range(gpa, size);
    pthread_mutex_lock(&m->map_lock);
    edit_cut(m, gpa, size);
    for (unsigned n = 0; n < 2; n++) {
        struct gmem_range block = ram_block(m, n);
        gpa_t from = block.gpa > gpa ? block.gpa : gpa;
        gpa_t to = block.gpa + block.size < gpa + size ? block.gpa + block.size : gpa + size;
        if (from < to) {
            struct gmem_range piece = tail_of(&block, from - block.gpa);
            piece.size = to - from;
            piece.kind = kind;
            edit_insert(m, edit_cut(m, from, piece.size), &piece);
        }
    }
    publish(m);
    pthread_mutex_unlock(&m->map_lock);
}

void gmem_map_ram(struct gmem *m, gpa_t gpa, uint64_t size)
{
    lay_ram(m, gpa, size, GMEM_RAM);
    changed(m);
}

void gmem_map_ram_readonly(struct gmem *m, gpa_t gpa, uint64_t size)
{
    lay_ram(m, gpa, size, GMEM_ROM);
    changed(m);
}

void gmem_map_hole(struct gmem *m, gpa_t gpa, uint64_t size)
{
    check_range(gpa, size);
    pthread_mutex_lock(&m->map_lock);
    edit_cut(m, gpa, size);
    publish(m);
    pthread_mutex_unlock(&m->map_lock);
    changed(m);
}

int gmem_add_rom(struct gmem *m, const void *data, uint64_t size, uint64_t *page, struct err *e)
{
    if (size == 0 || size > ROM_MAX) {
        return err_set(e, -EINVAL, "rom: %" PRIu64 " bytes", size);
    }
    uint64_t span = align_up(size, GMEM_PAGE_SIZE);
    pthread_mutex_lock(&m->map_lock);
    if (span > ROM_MAX - m->rom_bytes) {
        pthread_mutex_unlock(&m->map_lock);
        return err_set(e, -ENOMEM, "rom: more than %u MiB in all", (unsigned)(ROM_MAX >> 20));
    }
    *page = (m->ram_bytes + m->rom_bytes) >> GMEM_PAGE_BITS;
    if (data != NULL) { /* what is not written is zero */
        memcpy(m->host + m->ram_bytes + m->rom_bytes, data, size);
    }
    m->rom_bytes += span;
    pthread_mutex_unlock(&m->map_lock);
    return 0;
}

static void show_pages(struct gmem *m, gpa_t gpa, uint64_t page, uint64_t size, enum gmem_kind kind)
{
    struct gmem_range r = { .gpa = gpa, .size = size, .kind = kind, .ram_page = page };
    check_range(gpa, size);
    pthread_mutex_lock(&m->map_lock);
    assert(page >= m->ram_bytes >> GMEM_PAGE_BITS &&
           page + (size >> GMEM_PAGE_BITS) <= (m->ram_bytes + m->rom_bytes) >> GMEM_PAGE_BITS);
    edit_insert(m, edit_cut(m, gpa, size), &r);
    publish(m);
    pthread_mutex_unlock(&m->map_lock);
    changed(m);
}

void gmem_show_rom(struct gmem *m, gpa_t gpa, uint64_t page, uint64_t size)
{
    show_pages(m, gpa, page, size, GMEM_ROM);
}

void gmem_show_device_ram(struct gmem *m, gpa_t gpa, uint64_t page, uint64_t size)
{
    show_pages(m, gpa, page, size, GMEM_RAM);
}

int gmem_map_rom(struct gmem *m, gpa_t gpa, const void *data, uint64_t size, struct err *e)
{
    uint64_t span = align_up(size, GMEM_PAGE_SIZE);
    uint64_t page;
    gpa_t end;
    if (gpa % GMEM_PAGE_SIZE != 0 || ckd_add(&end, gpa, span)) {
        return err_set(e, -EINVAL, "rom: cannot place %" PRIu64 " bytes at %#" PRIx64, size, gpa);
    }
    int r = gmem_add_rom(m, data, size, &page, e);
    if (r == 0) {
        gmem_show_rom(m, gpa, page, span);
    }
    return r;
}

void gmem_set_map_hook(struct gmem *m, void (*fn)(void *ctx), void *ctx)
{
    m->map_changed = fn;
    m->map_ctx = ctx;
}

void gmem_set_code_hook(struct gmem *m, void (*fn)(void *ctx, gpa_t gpa, uint64_t len), void *ctx)
{
    m->code_written = fn;
    m->code_ctx = ctx;
}

gmem_code_fn *gmem_code_hook(const struct gmem *m, void **ctx)
{
    *ctx = m->code_ctx;
    return m->code_written;
}

/* -- Making and freeing ------------------------------------------------------------------------ */
static bool proc_number(const char *path, const char *key, uint64_t *out)
{
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        return false;
    }
    char line[128];
    bool found = false;
    while (!found && fgets(line, sizeof line, f) != NULL) {
        size_t key_len = strlen(key);
        if (strncmp(line, key, key_len) == 0) {
            found = sscanf(line + key_len, "%" SCNu64, out) == 1;
        }
    }
    fclose(f);
    return found;
}

/* Most hosts overcommit, and lazily touched RAM is the point. One that is told not to (mode 2, see
 * proc(5)) would kill us at some later touch: refuse now, with words. */
static int check_commit_limit(uint64_t bytes, struct err *e)
{
    uint64_t mode, limit_kib, used_kib;
    if (!proc_number("/proc/sys/vm/overcommit_memory", "", &mode) || mode != 2 ||
        !proc_number("/proc/meminfo", "CommitLimit:", &limit_kib) ||
        !proc_number("/proc/meminfo", "Committed_AS:", &used_kib)) {
        return 0;
    }
    uint64_t left_kib = limit_kib > used_kib ? limit_kib - used_kib : 0;
    if (bytes >> 10 > left_kib) {
        return err_set(e, -ENOMEM,
                       "memory: %" PRIu64 " MiB asked for, the host's commit limit leaves %" PRIu64,
                       bytes >> 20, left_kib >> 10);
    }
    return 0;
}

/* Aligned for huge pages, so that guest and host huge pages can meet. Private memory, because hosts
 * give huge pages to it when asked, but to shared memory only by an administrator's word. */
static uint8_t *map_aligned(size_t bytes)
{
    uint8_t *raw = mmap(NULL, bytes + HUGE_PAGE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw == MAP_FAILED) {
        return NULL;
    }
    uint8_t *at = (uint8_t *)align_up((uintptr_t)raw, HUGE_PAGE);
    if (at != raw) {
        munmap(raw, (size_t)(at - raw));
    }
    munmap(at + bytes, HUGE_PAGE - (size_t)(at - raw));
    /* Hints, both: a host without huge pages runs the same. */
    madvise(at, bytes, MADV_HUGEPAGE);
    madvise(at, bytes, MADV_DONTDUMP);
    return at;
}

static int allocate(struct gmem *m, struct err *e)
{
    m->host_bytes = m->ram_bytes + ROM_MAX;
    m->page_count = m->host_bytes >> GMEM_PAGE_BITS;
    m->host = map_aligned(m->host_bytes);
    if (m->host == NULL) {
        return err_set(e, -ENOMEM, "memory: cannot map %" PRIu64 " MiB: %s", m->ram_bytes >> 20,
                       strerror(errno));
    }
    void *flags = mmap(NULL, m->page_count, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (flags == MAP_FAILED) {
        return err_set(e, -ENOMEM, "memory: no room for page flags");
    }
    m->flags = flags;
    return 0;
}

int gmem_new(struct gmem **out, uint64_t ram_bytes, gpa_t hole_start, struct err *e)
{
    assert(hole_start % GMEM_PAGE_SIZE == 0 && hole_start > 0 && hole_start <= ABOVE_4G);
    if (ram_bytes == 0 || ram_bytes % GMEM_PAGE_SIZE != 0 || ram_bytes > GMEM_RAM_MAX) {
        return err_set(e, -EINVAL, "memory: size must be 4 KiB to 1 TiB in whole pages");
    }
    int r = check_commit_limit(ram_bytes, e);
    if (r < 0) {
        return r;
    }
    struct gmem *m = xzalloc(sizeof *m);
    pthread_mutex_init(&m->map_lock, NULL);
    m->ram_bytes = ram_bytes;
    m->ram_below = ram_bytes < hole_start ? ram_bytes : hole_start;
    r = allocate(m, e);
    if (r < 0) {
        gmem_free(m);
        return r;
    }
    gmem_map_ram(m, 0, ABOVE_4G + ram_bytes);
    *out = m;
    return 0;
}

void gmem_free(struct gmem *m)
{
    if (m == NULL) {
        return;
    }
    if (m->flags != NULL) {
        munmap((void *)m->flags, m->page_count);
    }
    if (m->host != NULL) {
        munmap(m->host, m->host_bytes);
    }
    pthread_mutex_destroy(&m->map_lock);
    free(m);
}

uint64_t gmem_ram_size(const struct gmem *m) { return m->ram_bytes; }
uint64_t gmem_ram_below_4g(const struct gmem *m) { return m->ram_below; }
uint8_t *gmem_ram_host(const struct gmem *m) { return m->host; }
_Atomic uint8_t *gmem_page_flags(struct gmem *m) { return m->flags; }
uint64_t gmem_page_count(const struct gmem *m) { return m->page_count; }
uint64_t gmem_rom_pages(const struct gmem *m) { return m->rom_bytes >> GMEM_PAGE_BITS; }

int gmem_map_file(struct gmem *m, uint64_t page, uint64_t count, int fd, uint64_t offset)
{
    assert(page <= m->page_count && count <= m->page_count - page);
    uint8_t *at = m->host + (page << GMEM_PAGE_BITS);
    m->from_file = true;
    void *r = mmap(at, count << GMEM_PAGE_BITS, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd, (off_t)offset);
    return r == at ? 0 : -errno;
}

void gmem_drop_pages(struct gmem *m, uint64_t page, uint64_t count)
{
    uint8_t *at = m->host + (page << GMEM_PAGE_BITS);
    size_t bytes = count << GMEM_PAGE_BITS;
    if (!m->from_file && madvise(at, bytes, MADV_DONTNEED) == 0) {
        return;
    }
    /* That would bring back what the file has. Fresh memory splits the mapping, of which a process
     * may have some ten thousands: large pieces only. */
    if (bytes < HUGE_PAGE ||
        mmap(at, bytes, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) == MAP_FAILED) {
        memset(at, 0, bytes);
    }
}

uint64_t gmem_ram_page(const struct gmem *m, gpa_t gpa)
{
    for (unsigned n = 0; n < 2; n++) {
        struct gmem_range block = ram_block(m, n);
        if (gpa >= block.gpa && gpa - block.gpa < block.size) {
            return block.ram_page + ((gpa - block.gpa) >> GMEM_PAGE_BITS);
        }
    }
    return GMEM_NO_PAGE;
}
