/* SPDX-License-Identifier: Apache-2.0
 *
 * Who answers where. Ports: a table of 64 Ki region slots, painted in order of claim. Memory: a
 * sorted array of spans, each with the topmost region, rebuilt when a region comes, goes or moves.
 *
 * A handler may add, move or remove regions, its own included: nothing of a region is touched after
 * its handler was called, and each further piece of a split access is looked up afresh.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "bus/bus.h"
#include "bus/internal.h"

#define PORTS 65536u

struct region {
    struct bus *bus;
    uint64_t base;
    uint64_t size;
    const struct region_ops *ops;
    void *dev;
    bool is_port;
    bool enabled;
    uint16_t slot; /* ports: index into port_slot, not 0 */
};

/* [start, end]: inclusive, so that a region may reach the last byte of the address space. */
struct span {
    uint64_t start;
    uint64_t end;
    struct region *region;
};

struct bus {
    struct gmem *mem;        /* borrowed */
    pthread_mutex_t lock;    /* the machine lock: guards everything below and every device */
    struct region **regions; /* owned, in order of claim */
    size_t region_count;
    struct region **port_slot; /* slot number to region; slot 0 is nobody */
    size_t slot_count;
    uint16_t *port_map; /* PORTS slot numbers */
    struct span *spans; /* sorted, disjoint */
    size_t span_count;
    size_t span_capacity;
    struct dev *devs;
};

struct bus *bus_new(struct gmem *mem)
{
    struct bus *b = xzalloc(sizeof *b);
    b->mem = mem;
    /* Error-checking: a handler that locks again, or a thread that unlocks what it does not hold,
     * meets an assertion instead of a deadlock. */
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK);
    pthread_mutex_init(&b->lock, &attr);
    pthread_mutexattr_destroy(&attr);
    b->port_map = xcalloc(PORTS, sizeof *b->port_map);
    b->slot_count = 1;
    b->port_slot = xcalloc(1, sizeof *b->port_slot);
    return b;
}

void bus_free(struct bus *b)
{
    if (b == NULL) {
        return;
    }
    for (size_t i = 0; i < b->region_count; i++) {
        free(b->regions[i]);
    }
    free(b->regions);
    free(b->port_slot);
    free(b->port_map);
    free(b->spans);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

pthread_mutex_t *bus_lock_of(struct bus *b) { return &b->lock; }
struct gmem *bus_mem(struct bus *b) { return b->mem; }

void bus_lock(struct bus *b)
{
    int r = pthread_mutex_lock(&b->lock);
    assert(r == 0); /* EDEADLK: a handler locked the machine that already is its own */
    (void)r;
}

void bus_unlock(struct bus *b)
{
    int r = pthread_mutex_unlock(&b->lock);
    assert(r == 0); /* EPERM: not locked by this thread */
    (void)r;
}

struct dev **bus_dev_list(struct bus *b) { return &b->devs; }

/* -- Maps -------------------------------------------------------------------------------------- */
/* Paint [lo, lo+size) of the port map anew from all enabled regions, oldest first. */
static void paint_ports(struct bus *b, uint64_t lo, uint64_t size)
{
    uint64_t hi = lo + size < PORTS ? lo + size : PORTS;
    for (uint64_t p = lo; p < hi; p++) {
        b->port_map[p] = 0;
    }
    for (size_t i = 0; i < b->region_count; i++) {
        const struct region *r = b->regions[i];
        if (!r->is_port || !r->enabled) {
            continue;
        }
        uint64_t from = r->base > lo ? r->base : lo;
        uint64_t to = r->base + r->size < hi ? r->base + r->size : hi;
        for (uint64_t p = from; p < to; p++) {
            b->port_map[p] = r->slot;
        }
    }
}

static void span_insert(struct bus *b, size_t at, const struct span *s)
{
    if (b->span_count == b->span_capacity) {
        b->span_capacity = b->span_capacity != 0 ? 2 * b->span_capacity : 32;
        b->spans = xrealloc(b->spans, b->span_capacity * sizeof *b->spans);
    }
    memmove(&b->spans[at + 1], &b->spans[at], (b->span_count - at) * sizeof *s);
    b->spans[at] = *s;
    b->span_count++;
}

/* First span that ends at or after gpa. */
static size_t span_from(const struct bus *b, uint64_t gpa)
{
    size_t lo = 0;
    size_t hi = b->span_count;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (b->spans[mid].end < gpa) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

/* Lay a span over those that are there. */
static void span_lay(struct bus *b, const struct span *s)
{
    size_t i = span_from(b, s->start);
    if (i < b->span_count && b->spans[i].start < s->start) {
        struct span head = b->spans[i];
        head.end = s->start - 1;
        b->spans[i].start = s->start;
        span_insert(b, i, &head);
        i++;
    }
    size_t keep = i;
    while (keep < b->span_count && b->spans[keep].end <= s->end) {
        keep++;
    }
    if (keep != i) {
        memmove(&b->spans[i], &b->spans[keep], (b->span_count - keep) * sizeof *s);
        b->span_count -= keep - i;
    }
    if (i < b->span_count && b->spans[i].start <= s->end) {
        b->spans[i].start = s->end + 1;
    }
    span_insert(b, i, s);
}

static void rebuild_spans(struct bus *b)
{
    b->span_count = 0;
    for (size_t i = 0; i < b->region_count; i++) {
        struct region *r = b->regions[i];
        if (!r->is_port && r->enabled) {
            struct span s = { r->base, r->base + (r->size - 1), r };
            span_lay(b, &s);
        }
    }
}

static void remap(const struct region *r)
{
    if (r->is_port) {
        paint_ports(r->bus, r->base, r->size);
    } else {
        rebuild_spans(r->bus);
    }
}

/* -- Claims ------------------------------------------------------------------------------------ */
static struct region *add_region(struct bus *b, struct region claim)
{
    assert(claim.size > 0 && claim.ops->sizes != 0 && claim.ops->sizes < 16);
    struct region *r = xzalloc(sizeof *r);
    *r = claim;
    r->bus = b;
    r->enabled = true;
    b->regions = xrealloc(b->regions, (b->region_count + 1) * sizeof *b->regions);
    b->regions[b->region_count++] = r;
    if (r->is_port) {
        size_t slot = 1;
        while (slot < b->slot_count && b->port_slot[slot] != NULL) {
            slot++;
        }
        assert(slot < PORTS);
        if (slot == b->slot_count) {
            b->port_slot = xrealloc(b->port_slot, (slot + 1) * sizeof *b->port_slot);
            b->slot_count++;
        }
        b->port_slot[slot] = r;
        r->slot = (uint16_t)slot;
    }
    remap(r);
    return r;
}

struct region *bus_add_port(struct bus *b, uint16_t base, uint32_t size,
                            const struct region_ops *ops, void *dev)
{
    assert((uint64_t)base + size <= PORTS);
    struct region claim = { .base = base, .size = size, .ops = ops, .dev = dev, .is_port = true };
    return add_region(b, claim);
}

struct region *bus_add_mmio(struct bus *b, gpa_t base, uint64_t size, const struct region_ops *ops,
                            void *dev)
{
    assert(base + (size - 1) >= base);
    struct region claim = { .base = base, .size = size, .ops = ops, .dev = dev };
    return add_region(b, claim);
}

void region_move(struct region *r, uint64_t base)
{
    assert(r->is_port ? base + r->size <= PORTS : base + (r->size - 1) >= base);
    if (r->base == base) {
        return;
    }
    uint64_t old = r->base;
    r->base = base;
    if (!r->enabled) {
        return;
    }
    if (r->is_port) {
        paint_ports(r->bus, old, r->size);
    }
    remap(r);
}

void region_enable(struct region *r, bool on)
{
    if (r->enabled != on) {
        r->enabled = on;
        remap(r);
    }
}

void region_remove(struct region *r)
{
    if (r == NULL) {
        return;
    }
    struct bus *b = r->bus;
    region_enable(r, false);
    size_t i = 0;
    while (b->regions[i] != r) {
        i++;
    }
    b->region_count--;
    memmove(&b->regions[i], &b->regions[i + 1], (b->region_count - i) * sizeof *b->regions);
    if (r->is_port) {
        b->port_slot[r->slot] = NULL;
    }
    free(r);
}

bool bus_region(const struct bus *b, size_t n, struct region_place *out)
{
    if (n >= b->region_count) {
        return false;
    }
    const struct region *r = b->regions[n];
    *out = (struct region_place){ r->base, r->size, r->is_port, r->enabled, r->dev };
    return true;
}

/* -- Lookup ------------------------------------------------------------------------------------ */
/* The region at addr, NULL for nobody; *run: how many of len bytes from addr on it has on top. */
static struct region *port_at(const struct bus *b, uint64_t port, unsigned len, unsigned *run)
{
    *run = 1;
    if (port >= PORTS) {
        *run = len;
        return NULL; /* an access at the end of the port space runs into nothing */
    }
    uint16_t slot = b->port_map[port];
    while (*run < len && port + *run < PORTS && b->port_map[port + *run] == slot) {
        ++*run;
    }
    return slot != 0 ? b->port_slot[slot] : NULL;
}

static struct region *mmio_at(const struct bus *b, uint64_t gpa, unsigned len, unsigned *run)
{
    size_t i = span_from(b, gpa);
    *run = len;
    if (i == b->span_count) {
        return NULL;
    }
    const struct span *s = &b->spans[i];
    uint64_t left = s->start <= gpa ? s->end - gpa
                                    : s->start - gpa - 1; /* bytes beyond the first */
    if (left < len) {
        *run = (unsigned)left + 1 < len ? (unsigned)left + 1 : len;
    }
    return s->start <= gpa ? s->region : NULL;
}

/* -- Access ------------------------------------------------------------------------------------ */
static bool takes(const struct region *r, uint64_t offset, unsigned size)
{
    return is_pow2(size) && (r->ops->sizes & size) != 0 &&
           (r->ops->unaligned || offset % size == 0) && offset <= r->size &&
           size <= r->size - offset;
}

/* The largest piece of at most len bytes at offset that the handlers take; 0 when even the
 * smallest declared size is too wide or badly aligned. */
static unsigned piece_size(const struct region *r, uint64_t offset, unsigned len)
{
    for (unsigned size = 8; size != 0; size >>= 1) {
        if (size <= len && takes(r, offset, size)) {
            return size;
        }
    }
    return 0;
}

static uint64_t call_read(const struct region *r, uint64_t offset, unsigned size)
{
    const struct region_ops *ops = r->ops;
    if (ops->read == NULL) {
        return MASK64(8 * size);
    }
    return ops->read(r->dev, offset, size) & MASK64(8 * size);
}

/* Bytes that no declared size reads alone, cut out of the smallest wider access that holds them;
 * returns how many. Reading more than was asked for is harmless on a bus; writing is not. */
static unsigned widened_run(const struct region *r, uint64_t offset, unsigned len, uint64_t *value)
{
    for (unsigned size = 2; size <= 8; size *= 2) {
        uint64_t start = align_down(offset, size);
        if (takes(r, start, size)) {
            unsigned skip = (unsigned)(offset - start);
            unsigned run = size - skip < len ? size - skip : len;
            *value = call_read(r, start, size) >> 8 * skip & MASK64(8 * run);
            return run;
        }
    }
    *value = MASK64(8 * len);
    return len;
}

typedef struct region *lookup_fn(const struct bus *b, uint64_t addr, unsigned len, unsigned *run);

static uint64_t do_read(struct bus *b, lookup_fn *lookup, uint64_t addr, unsigned size)
{
    uint64_t value = 0;
    for (unsigned done = 0; done < size;) {
        unsigned left = size - done;
        unsigned run;
        const struct region *r = lookup(b, addr + done, left, &run);
        uint64_t part = MASK64(8 * run);
        if (r != NULL) {
            uint64_t offset = addr + done - r->base;
            /* Decoding goes by the first byte: a region that takes all that is left gets it, even
             * where another lies over its later bytes (0xcf9 over the dword port 0xcf8). */
            unsigned piece = takes(r, offset, left) ? left : piece_size(r, offset, run);
            if (piece != 0) {
                run = piece;
                part = call_read(r, offset, piece);
            } else {
                run = widened_run(r, offset, run, &part);
            }
        }
        value |= part << 8 * done;
        done += run;
    }
    return value;
}

static void do_write(struct bus *b, lookup_fn *lookup, uint64_t addr, unsigned size, uint64_t value)
{
    for (unsigned done = 0; done < size;) {
        unsigned left = size - done;
        unsigned run;
        const struct region *r = lookup(b, addr + done, left, &run);
        if (r != NULL) {
            uint64_t offset = addr + done - r->base;
            unsigned piece = takes(r, offset, left) ? left : piece_size(r, offset, run);
            if (piece == 0) {
                run = 1; /* no declared access carries this byte alone: it is lost */
            } else {
                run = piece;
                if (r->ops->write != NULL) {
                    r->ops->write(r->dev, offset, piece, value >> 8 * done & MASK64(8 * piece));
                }
            }
        }
        done += run;
    }
}

uint32_t bus_port_read(struct bus *b, uint16_t port, unsigned size)
{
    assert(size == 1 || size == 2 || size == 4);
    bus_lock(b);
    uint32_t value = (uint32_t)do_read(b, port_at, port, size);
    bus_unlock(b);
    return value;
}

void bus_port_write(struct bus *b, uint16_t port, unsigned size, uint32_t value)
{
    assert(size == 1 || size == 2 || size == 4);
    bus_lock(b);
    do_write(b, port_at, port, size, value);
    bus_unlock(b);
}

uint64_t bus_mmio_read(struct bus *b, gpa_t gpa, unsigned size)
{
    assert(size >= 1 && size <= 8);
    bus_lock(b);
    uint64_t value = do_read(b, mmio_at, gpa, size);
    bus_unlock(b);
    return value;
}

void bus_mmio_write(struct bus *b, gpa_t gpa, unsigned size, uint64_t value)
{
    assert(size >= 1 && size <= 8);
    bus_lock(b);
    do_write(b, mmio_at, gpa, size, value);
    bus_unlock(b);
}
