/* SPDX-License-Identifier: Apache-2.0 -- ACPI 5.0 tables of the machine */
#ifndef SOSIA_BOOT_ACPI_H
#define SOSIA_BOOT_ACPI_H

#include "boot/aml.h"
#include "boot/boot.h"
#include "boot/tablebuf.h"

enum { ACPI_HEADER = 36, ACPI_LENGTH_AT = 4, ACPI_CHECKSUM_AT = 9 };

/* All tables; rsdp: the root pointer's guest address. */
void acpi_build(struct tablebuf *t, const struct boot_machine *m, uint64_t ram_below_4g,
                uint64_t *rsdp);

/* dsdt.c: what follows the header of the DSDT. */
void dsdt_build(struct aml *a, const struct boot_machine *m, uint64_t ram_below_4g);

/* dsdt_hotplug.c: what goes into the device of the PCI bus, and what goes beside it. */
void dsdt_hotplug_slots(struct aml *a, const struct boot_machine *m);
void dsdt_hotplug_event(struct aml *a, const struct boot_machine *m);

/* Which IOAPIC input PIRQ n arrives at in APIC mode. */
unsigned acpi_pirq_gsi(const struct boot_machine *m, unsigned pirq);

#endif
