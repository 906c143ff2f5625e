/* SPDX-License-Identifier: Apache-2.0
 *
 * The part of the DSDT that plugs PCI cards in and out (ACPI 6.4, 6.3): a device for each slot, and
 * the event that asks the chip (dev/pc/pci_hotplug.h) which of them changed.
 */
#include <stdio.h>

#include "boot/acpi.h"

enum {
    SLOTS = 32,
    FIRST_SLOT = 3, /* what is before is soldered to the board */
    CAME = 0,       /* registers of the chip */
    EJECT = 8,
    DEVICE_CHECK = 1, /* 5.6.6 */
    EJECT_REQUEST = 3,
};

static void slot_name(char out[5], unsigned slot) { snprintf(out, 5, "S%02X_", slot & 0xffu); }

/* In the scope of the PCI bus. */
static void registers(struct aml *a, unsigned base)
{
    aml_region(a, "HPST", AML_SPACE_IO, base + CAME, 8);
    aml_field(a, "HPST", AML_ACCESS_DWORD);
    aml_field_unit(a, "PCIU", 32);
    aml_field_unit(a, "PCID", 32);
    aml_close(a);
    aml_region(a, "HPEJ", AML_SPACE_IO, base + EJECT, 4);
    aml_field(a, "HPEJ", AML_ACCESS_DWORD);
    aml_field_unit(a, "B0EJ", 32);
    aml_close(a);
}

static void slot_device(struct aml *a, unsigned slot)
{
    char name[5];
    slot_name(name, slot);
    aml_device(a, name);
    aml_name(a, "_ADR");
    aml_integer(a, (uint64_t)slot << 16);
    aml_name(a, "_SUN");
    aml_integer(a, slot);
    aml_method(a, "_EJ0", 1);
    aml_op(a, AML_STORE);
    aml_integer(a, 1u << slot);
    aml_path(a, "B0EJ");
    aml_close(a);
    aml_close(a);
}

/* Tell of every slot whose bit is set in a register. The first read of PCIU clears it. */
static void notify_slots(struct aml *a, const char *reg, unsigned what)
{
    aml_op(a, AML_STORE);
    aml_path(a, reg);
    aml_op(a, AML_LOCAL0);
    for (unsigned slot = FIRST_SLOT; slot < SLOTS; slot++) {
        char path[] = "\\_SB.PCI0.S00_";
        slot_name(path + sizeof path - 5, slot);
        aml_if(a);
        aml_op(a, AML_AND);
        aml_op(a, AML_LOCAL0);
        aml_integer(a, 1u << slot);
        aml_op(a, AML_NULL_TARGET);
        aml_op(a, AML_NOTIFY);
        aml_path(a, path);
        aml_integer(a, what);
        aml_close(a);
    }
}

void dsdt_hotplug_slots(struct aml *a, const struct boot_machine *m)
{
    registers(a, m->hotplug_base);
    for (unsigned slot = FIRST_SLOT; slot < SLOTS; slot++) {
        slot_device(a, slot);
    }
}

void dsdt_hotplug_event(struct aml *a, const struct boot_machine *m)
{
    char method[] = "_E00";
    snprintf(method, sizeof method, "_E%02X", m->hotplug_gpe & 0xffu);
    aml_scope(a, "\\_GPE");
    aml_method(a, method, 0);
    notify_slots(a, "\\_SB.PCI0.PCIU", DEVICE_CHECK);
    notify_slots(a, "\\_SB.PCI0.PCID", EJECT_REQUEST);
    aml_close(a);
    aml_close(a);
}
