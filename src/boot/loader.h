/* SPDX-License-Identifier: Apache-2.0
 *
 * Tables for firmware to place: the same that boot without firmware writes into RAM, as fw_cfg
 * files with a script that says what to allocate, which pointers to relocate and which checksums
 * to make (interface of QEMU, hw/acpi/bios-linker-loader).
 */
#ifndef SOSIA_BOOT_LOADER_H
#define SOSIA_BOOT_LOADER_H

#include "boot/boot.h"

#define LOADER_TABLES "etc/acpi/tables"
#define LOADER_RSDP "etc/acpi/rsdp"
#define LOADER_SCRIPT "etc/table-loader"
#define LOADER_SMBIOS_TABLES "etc/smbios/smbios-tables"
#define LOADER_SMBIOS_ANCHOR "etc/smbios/smbios-anchor"
#define LOADER_FILES 5u

struct loader_file {
    const char *name; /* static */
    uint8_t *data;    /* owned */
    size_t size;
};

struct loader_files {
    struct loader_file file[LOADER_FILES];
};

/* ram, ram_below_4g: bytes. */
void loader_build(struct loader_files *out, const struct boot_machine *m, uint64_t ram_below_4g,
                  uint64_t ram);
void loader_free(struct loader_files *f);

#endif
