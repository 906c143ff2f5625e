/* SPDX-License-Identifier: Apache-2.0
 *
 * Where things lie: fixed addresses of the PC, and a small allocator of guest RAM for what a boot
 * protocol needs.
 */
#ifndef SOSIA_BOOT_LAYOUT_H
#define SOSIA_BOOT_LAYOUT_H

#include "base/err.h"
#include "boot/e820.h"

#define LAYOUT_LOW_START 0x600u /* above IVT, BIOS data area, and what DOS left behind it */
#define LAYOUT_EBDA 0x9fc00u    /* extended BIOS data area, up to 640 KiB */
#define LAYOUT_LEGACY_END 0xa0000u
#define LAYOUT_TABLES 0xe0000u /* ACPI, MP, SMBIOS, up to 1 MiB */
#define LAYOUT_TABLES_END 0x100000u
#define LAYOUT_IOAPIC 0xfec00000u
#define LAYOUT_HPET 0xfed00000u
#define LAYOUT_LAPIC 0xfee00000u

#define LAYOUT_MAX 256u
#define LAYOUT_4G (1ull << 32)

struct layout_range {
    uint64_t start;
    uint64_t end; /* exclusive */
};

/* RAM that may be used, and what of it is used. */
struct layout {
    struct e820 map;
    struct layout_range used[LAYOUT_MAX];
    size_t count;
};

void layout_init(struct layout *l, const struct gmem *mem);

/* Mark a range that a kernel asks for. -EFAULT: it is not all RAM, -EEXIST: it overlaps something
 * that is used, -ENOSPC: too many ranges. size 0 is nothing. */
MUST_CHECK int layout_claim(struct layout *l, uint64_t start, uint64_t size);

/* Find room in [min, max), lowest or highest, and mark it. -ENOSPC. align: a power of two. */
MUST_CHECK int layout_place_low(struct layout *l, uint64_t size, uint64_t align, uint64_t min,
                                uint64_t max, uint64_t *at);
MUST_CHECK int layout_place_high(struct layout *l, uint64_t size, uint64_t align, uint64_t min,
                                 uint64_t max, uint64_t *at);

#endif
