/* SPDX-License-Identifier: Apache-2.0 -- where the tables go */
#include "boot/tables.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/bytes.h"
#include "boot/acpi.h"
#include "boot/layout.h"
#include "boot/mptable.h"
#include "boot/smbios.h"
#include "boot/tablebuf.h"

enum {
    SIZE = LAYOUT_TABLES_END - LAYOUT_TABLES,
    /* MP and SMBIOS anchors are looked for from 0xf0000 on. */
    LEGACY_AT = 0xf0000 - LAYOUT_TABLES,

    BDA = 0x400,
    BDA_SERIAL = 0x00,
    BDA_EBDA_SEGMENT = 0x0e,
    BDA_EQUIPMENT = 0x10,
    BDA_BASE_KIB = 0x13,
    BDA_VIDEO_MODE = 0x49,
    BDA_VIDEO_COLUMNS = 0x4a,
    BDA_VIDEO_PAGE_BYTES = 0x4c,
    BDA_CURSOR_SHAPE = 0x60,
    BDA_CRTC_PORT = 0x63,
    BDA_VIDEO_LAST_ROW = 0x84,
    BDA_CHARACTER_LINES = 0x85,
    BDA_SIZE = 0x100,
};

uint8_t *tablebuf_take(struct tablebuf *t, size_t len, size_t align, uint64_t *at)
{
    size_t start = align_up(t->used, align);
    assert(start <= t->size && len <= t->size - start);
    t->used = start + len;
    *at = t->base + start;
    return memset(t->data + start, 0, len);
}

uint8_t table_checksum(const uint8_t *data, size_t len)
{
    unsigned sum = 0;
    for (size_t i = 0; i < len; i++) {
        sum += data[i];
    }
    return (uint8_t)-sum;
}

/* Mode 3, as the machine sets it for a kernel that is started directly. */
static void describe_video(uint8_t *bda)
{
    store_le16(bda + BDA_EQUIPMENT, 2u << 4); /* 80 columns, in colour */
    bda[BDA_VIDEO_MODE] = 3;
    store_le16(bda + BDA_VIDEO_COLUMNS, 80);
    store_le16(bda + BDA_VIDEO_PAGE_BYTES, 4096);
    store_le16(bda + BDA_CURSOR_SHAPE, 0x0d0e);
    store_le16(bda + BDA_CRTC_PORT, 0x3d4);
    bda[BDA_VIDEO_LAST_ROW] = 24;
    bda[BDA_CHARACTER_LINES] = 16;
}

/* What of the BIOS data area is looked at by those who scan for tables, and by early consoles. */
static int write_bios_data(struct gmem *mem, const struct boot_machine *m)
{
    static const uint16_t serial[4] = { 0x3f8, 0x2f8, 0x3e8, 0x2e8 };
    uint8_t bda[BDA_SIZE] = { 0 };
    for (unsigned i = 0; i < ARRAY_LEN(serial); i++) {
        store_le16(bda + BDA_SERIAL + 2 * i, (m->serial_ports & BIT(i)) != 0 ? serial[i] : 0);
    }
    if (m->vga) {
        describe_video(bda);
    }
    store_le16(bda + BDA_EBDA_SEGMENT, LAYOUT_EBDA >> 4);
    store_le16(bda + BDA_BASE_KIB, LAYOUT_EBDA / 1024);
    uint8_t ebda[LAYOUT_LEGACY_END - LAYOUT_EBDA] = { sizeof ebda / 1024 };
    int r = gmem_write(mem, BDA, bda, sizeof bda);
    return r < 0 ? r : gmem_write(mem, LAYOUT_EBDA, ebda, sizeof ebda);
}

int tables_write(struct gmem *mem, const struct boot_machine *m, uint64_t *rsdp, struct err *e)
{
    uint8_t *data = xzalloc(SIZE);
    struct tablebuf acpi = { .data = data, .base = LAYOUT_TABLES, .size = LEGACY_AT };
    struct tablebuf legacy = { .data = data + LEGACY_AT,
                               .base = LAYOUT_TABLES + LEGACY_AT,
                               .size = SIZE - LEGACY_AT };
    acpi_build(&acpi, m, gmem_ram_below_4g(mem), rsdp);
    mptable_build(&legacy, m);
    smbios_build(&legacy, m, gmem_ram_below_4g(mem), gmem_ram_size(mem));
    int r = write_bios_data(mem, m);
    if (r == 0) {
        r = gmem_write(mem, LAYOUT_TABLES, data, SIZE);
    }
    free(data);
    return r < 0 ? err_set(e, r, "the guest has no RAM for firmware tables; it needs at least 1M")
                 : 0;
}
