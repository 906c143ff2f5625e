/* SPDX-License-Identifier: Apache-2.0
 *
 * The tables are built as if their file lay at address 0, so that each pointer in them is an offset
 * in the file; the script then names every pointer.
 */
#include "boot/loader.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "boot/acpi.h"
#include "boot/smbios.h"
#include "boot/tablebuf.h"

enum {
    ROOM = 0x20000,
    ENTRY_BYTES = 128,
    ENTRIES = 64,
    NAME_BYTES = 56,

    COMMAND_ALLOCATE = 1,
    COMMAND_ADD_POINTER = 2,
    COMMAND_ADD_CHECKSUM = 3,
    ZONE_HIGH = 1,
    ZONE_FSEG = 2,

    RSDP_BYTES = 36,
    RSDP_V1_BYTES = 20,
    RSDP_RSDT_AT = 16,
    RSDP_XSDT_AT = 24,
    FADT_FACS_AT = 36,
    FADT_DSDT_AT = 40,
    FADT_X_DSDT_AT = 140,

    SMBIOS_ANCHOR_BYTES = 31,
    SMBIOS_LENGTH_AT = 22,
    SMBIOS_ADDRESS_AT = 24,
};

/* -- The script -------------------------------------------------------------------------------- */
struct script {
    uint8_t data[ENTRIES * ENTRY_BYTES];
    size_t entries;
};

static uint8_t *entry(struct script *s, uint32_t command, const char *file)
{
    assert(s->entries < ENTRIES);
    uint8_t *p = s->data + s->entries++ * ENTRY_BYTES;
    store_le32(p, command);
    strcpy((char *)p + 4, file);
    return p + 4 + NAME_BYTES;
}

static void allocate(struct script *s, const char *file, uint32_t align, uint8_t zone)
{
    uint8_t *p = entry(s, COMMAND_ALLOCATE, file);
    store_le32(p, align);
    p[4] = zone;
}

/* The size bytes at offset of the file point into LOADER_TABLES. */
static void pointer(struct script *s, const char *file, uint64_t offset, uint8_t size)
{
    uint8_t *p = entry(s, COMMAND_ADD_POINTER, file);
    strcpy((char *)p, LOADER_TABLES);
    store_le32(p + NAME_BYTES, (uint32_t)offset);
    p[NAME_BYTES + 4] = size;
}

/* The sum's byte is 0 until the firmware has made it. */
static void checksum(struct script *s, const char *file, uint8_t *data, uint32_t at, uint32_t start,
                     uint32_t len)
{
    uint8_t *p = entry(s, COMMAND_ADD_CHECKSUM, file);
    store_le32(p, at);
    store_le32(p + 4, start);
    store_le32(p + 8, len);
    data[at] = 0;
}

static void table_sum(struct script *s, uint8_t *data, uint64_t table)
{
    checksum(s, LOADER_TABLES, data, (uint32_t)table + ACPI_CHECKSUM_AT, (uint32_t)table,
             load_le32(data + table + ACPI_LENGTH_AT));
}

/* A root table's entries, and the FADT's pointers when they are met. */
static void root_table(struct script *s, uint8_t *data, uint64_t table, uint8_t size)
{
    uint32_t len = load_le32(data + table + ACPI_LENGTH_AT);
    for (uint64_t at = table + ACPI_HEADER; at < table + len; at += size) {
        pointer(s, LOADER_TABLES, at, size);
        uint64_t to = load_le32(data + at);
        if (size == 4 && memcmp(data + to, "FACP", 4) == 0) {
            pointer(s, LOADER_TABLES, to + FADT_FACS_AT, 4);
            pointer(s, LOADER_TABLES, to + FADT_DSDT_AT, 4);
            pointer(s, LOADER_TABLES, to + FADT_X_DSDT_AT, 8);
            table_sum(s, data, to);
        }
    }
    table_sum(s, data, table);
}

/* -- Files ------------------------------------------------------------------------------------- */
static struct loader_file file_of(const char *name, const void *data, size_t size)
{
    struct loader_file f = { .name = name, .data = xzalloc(size), .size = size };
    memcpy(f.data, data, size);
    return f;
}

static void build_acpi(struct loader_files *out, const struct boot_machine *m, uint64_t low)
{
    struct tablebuf t = { .data = xzalloc(ROOM), .size = ROOM };
    struct script *s = xzalloc(sizeof *s);
    uint64_t rsdp_at;
    acpi_build(&t, m, low, &rsdp_at);
    uint8_t rsdp[RSDP_BYTES];
    memcpy(rsdp, t.data + rsdp_at, sizeof rsdp);
    memset(t.data + rsdp_at, 0, sizeof rsdp);

    allocate(s, LOADER_RSDP, 16, ZONE_FSEG);
    allocate(s, LOADER_TABLES, 64, ZONE_HIGH);
    root_table(s, t.data, load_le32(rsdp + RSDP_RSDT_AT), 4);
    root_table(s, t.data, load_le64(rsdp + RSDP_XSDT_AT), 8);
    pointer(s, LOADER_RSDP, RSDP_RSDT_AT, 4);
    pointer(s, LOADER_RSDP, RSDP_XSDT_AT, 8);
    checksum(s, LOADER_RSDP, rsdp, 8, 0, RSDP_V1_BYTES);
    checksum(s, LOADER_RSDP, rsdp, 32, 0, RSDP_BYTES);

    out->file[0] = file_of(LOADER_RSDP, rsdp, sizeof rsdp);
    out->file[1] = file_of(LOADER_TABLES, t.data, t.used);
    out->file[2] = file_of(LOADER_SCRIPT, s->data, s->entries * ENTRY_BYTES);
    free(s);
    free(t.data);
}

/* Firmware places the structures and completes the entry point. */
static void build_smbios(struct loader_files *out, const struct boot_machine *m, uint64_t low,
                         uint64_t ram)
{
    struct tablebuf t = { .data = xzalloc(ROOM), .size = ROOM };
    smbios_build(&t, m, low, ram);
    uint64_t at = load_le32(t.data + SMBIOS_ADDRESS_AT);
    size_t len = load_le16(t.data + SMBIOS_LENGTH_AT);
    out->file[3] = file_of(LOADER_SMBIOS_TABLES, t.data + at, len);
    out->file[4] = file_of(LOADER_SMBIOS_ANCHOR, t.data, SMBIOS_ANCHOR_BYTES);
    free(t.data);
}

void loader_build(struct loader_files *out, const struct boot_machine *m, uint64_t ram_below_4g,
                  uint64_t ram)
{
    build_acpi(out, m, ram_below_4g);
    build_smbios(out, m, ram_below_4g, ram);
}

void loader_free(struct loader_files *f)
{
    for (unsigned i = 0; i < LOADER_FILES; i++) {
        free(f->file[i].data);
    }
}
