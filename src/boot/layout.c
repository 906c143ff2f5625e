/* SPDX-License-Identifier: Apache-2.0 -- what RAM is used, and where there is room */
#include "boot/layout.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"

static int mark(struct layout *l, uint64_t start, uint64_t end)
{
    if (l->count == LAYOUT_MAX) {
        return -ENOSPC;
    }
    l->used[l->count++] = (struct layout_range){ start, end };
    return 0;
}

void layout_init(struct layout *l, const struct gmem *mem)
{
    l->count = 0;
    e820_build(&l->map, mem);
    l->used[l->count++] = (struct layout_range){ 0, LAYOUT_LOW_START };
}

/* The used range that overlaps [start, end), NULL for none. */
static const struct layout_range *overlap(const struct layout *l, uint64_t start, uint64_t end)
{
    for (size_t i = 0; i < l->count; i++) {
        if (l->used[i].start < end && start < l->used[i].end) {
            return &l->used[i];
        }
    }
    return NULL;
}

static bool all_ram(const struct layout *l, uint64_t start, uint64_t end)
{
    for (size_t i = 0; i < l->map.count; i++) {
        const struct e820_entry *ram = &l->map.entry[i];
        if (ram->type == E820_RAM && start >= ram->addr && end <= ram->addr + ram->size) {
            return true;
        }
    }
    return false;
}

int layout_claim(struct layout *l, uint64_t start, uint64_t size)
{
    uint64_t end;
    if (size == 0) {
        return 0;
    }
    if (ckd_add(&end, start, size) || !all_ram(l, start, end)) {
        return -EFAULT;
    }
    if (overlap(l, start, end) != NULL) {
        return -EEXIST;
    }
    return mark(l, start, end);
}

/* Room in one range of RAM, cut to [min, max). The lowest place begins at its start or behind
 * something used, the highest ends at its end or before something used: each step past an obstacle
 * leaves that one for good, so that there are at most LAYOUT_MAX. */
static bool lowest(const struct layout *l, uint64_t lo, uint64_t hi, uint64_t size, uint64_t align,
                   uint64_t *at)
{
    uint64_t start = align_up(lo, align);
    while (start >= lo && start < hi && size <= hi - start) {
        const struct layout_range *o = overlap(l, start, start + size);
        if (o == NULL) {
            *at = start;
            return true;
        }
        lo = o->end;
        start = align_up(lo, align);
    }
    return false;
}

static bool highest(const struct layout *l, uint64_t lo, uint64_t hi, uint64_t size, uint64_t align,
                    uint64_t *at)
{
    while (hi > lo && size <= hi - lo) {
        uint64_t start = align_down(hi - size, align);
        if (start < lo) {
            return false;
        }
        const struct layout_range *o = overlap(l, start, start + size);
        if (o == NULL) {
            *at = start;
            return true;
        }
        hi = o->start;
    }
    return false;
}

enum direction { LOWEST, HIGHEST };

static int place(struct layout *l, uint64_t size, uint64_t align, uint64_t min, uint64_t max,
                 enum direction dir, uint64_t *at)
{
    for (size_t i = 0; i < l->map.count; i++) {
        const struct e820_entry *ram = &l->map.entry[dir == LOWEST ? i : l->map.count - 1 - i];
        uint64_t lo = ram->addr > min ? ram->addr : min;
        uint64_t hi = ram->addr + ram->size < max ? ram->addr + ram->size : max;
        if (ram->type != E820_RAM || lo >= hi) {
            continue;
        }
        bool found = dir == LOWEST ? lowest(l, lo, hi, size, align, at)
                                   : highest(l, lo, hi, size, align, at);
        if (found) {
            return mark(l, *at, *at + size);
        }
    }
    return -ENOSPC;
}

int layout_place_low(struct layout *l, uint64_t size, uint64_t align, uint64_t min, uint64_t max,
                     uint64_t *at)
{
    return place(l, size, align, min, max, LOWEST, at);
}

int layout_place_high(struct layout *l, uint64_t size, uint64_t align, uint64_t min, uint64_t max,
                      uint64_t *at)
{
    return place(l, size, align, min, max, HIGHEST, at);
}
