/* SPDX-License-Identifier: Apache-2.0
 *
 * The tables that operating systems find a PC's parts by: ACPI 5.0, MP 1.4, SMBIOS 3.0.
 */
#ifndef SOSIA_BOOT_TABLES_H
#define SOSIA_BOOT_TABLES_H

#include "boot/boot.h"

/* Write all of them between LAYOUT_TABLES and 1 MiB, and the BIOS data area that points to the
 * EBDA. rsdp: where ACPI's root pointer lies. */
MUST_CHECK int tables_write(struct gmem *mem, const struct boot_machine *m, uint64_t *rsdp,
                            struct err *e);

#endif
