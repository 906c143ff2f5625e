/* SPDX-License-Identifier: Apache-2.0 -- the memory map that guests are told (ACPI 6.4, 15) */
#include "boot/e820.h"

#include <assert.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "boot/layout.h"

static void add(struct e820 *map, uint64_t start, uint64_t end, enum e820_type type)
{
    if (start < end) {
        assert(map->count < E820_MAX);
        map->entry[map->count++] = (struct e820_entry){ start, end - start, type };
    }
}

static uint64_t min_u64(uint64_t a, uint64_t b) { return a < b ? a : b; }

void e820_build(struct e820 *map, const struct gmem *mem)
{
    uint64_t low = gmem_ram_below_4g(mem);
    uint64_t high = gmem_ram_size(mem) - low;
    map->count = 0;
    add(map, 0, min_u64(low, LAYOUT_EBDA), E820_RAM);
    add(map, LAYOUT_EBDA, min_u64(low, LAYOUT_LEGACY_END), E820_RESERVED);
    add(map, LAYOUT_TABLES, min_u64(low, LAYOUT_TABLES_END), E820_RESERVED);
    add(map, LAYOUT_TABLES_END, min_u64(low, LAYOUT_IOAPIC), E820_RAM);
    add(map, LAYOUT_IOAPIC, GIB(4), E820_RESERVED);
    add(map, GIB(4), GIB(4) + high, E820_RAM);
}

void e820_encode(const struct e820_entry *e, uint8_t out[E820_ENTRY_BYTES])
{
    store_le64(out, e->addr);
    store_le64(out + 8, e->size);
    store_le32(out + 16, e->type);
}
