/* SPDX-License-Identifier: Apache-2.0 -- the memory map that guests are told (ACPI 6.4, 15) */
#ifndef SOSIA_BOOT_E820_H
#define SOSIA_BOOT_E820_H

#include <stddef.h>
#include <stdint.h>

#include "mem/gmem.h"

enum e820_type { E820_RAM = 1, E820_RESERVED = 2, E820_ACPI = 3, E820_NVS = 4 };

struct e820_entry {
    uint64_t addr;
    uint64_t size;
    uint32_t type;
};

#define E820_MAX 16u
#define E820_ENTRY_BYTES 20u /* in guest memory */

struct e820 {
    struct e820_entry entry[E820_MAX];
    size_t count;
};

/* Sorted, without overlaps. Low RAM ends at the EBDA; 0xe0000 to 1 MiB is where firmware's tables
 * are; everything from the IOAPIC to 4 GiB belongs to the chipset. */
void e820_build(struct e820 *map, const struct gmem *mem);

/* The bytes of entry n as the BIOS call, Linux and fw_cfg's etc/e820 have them. */
void e820_encode(const struct e820_entry *e, uint8_t out[E820_ENTRY_BYTES]);

#endif
