/* SPDX-License-Identifier: Apache-2.0
 *
 * Hot-plug of PCI slots as ACPI's control methods drive it: five registers of 4 bytes, bit n for
 * slot n, laid out as in QEMU's PIIX4 (docs/specs/acpi_pci_hotplug): came, leaving, eject,
 * removable, bus. Thread: machine lock held.
 */
#ifndef SOSIA_DEV_PC_PCI_HOTPLUG_H
#define SOSIA_DEV_PC_PCI_HOTPLUG_H

#include "bus/bus.h"

#define PCI_HOTPLUG_IO_SIZE 20u
#define PCI_HOTPLUG_SLOTS 32u

struct pci_hotplug_config {
    /* Something came, or is to leave: the general purpose event. */
    void (*changed)(void *ctx);
    /* The operating system has let go of the slot, or is no more: take out what is in it. */
    void (*eject)(void *ctx, unsigned slot);
    /* Slots with something that may be taken out. */
    uint32_t (*removable)(void *ctx);
    void *ctx;
};

struct pci_hotplug {
    struct dev dev;
    struct pci_hotplug_config cfg;
    /* State */
    uint32_t came;    /* and nobody has looked yet */
    uint32_t leaving; /* not ejected yet */
};

void pci_hotplug_init(struct pci_hotplug *h, struct bus *b, uint16_t base,
                      const struct pci_hotplug_config *cfg);
void pci_hotplug_fini(struct pci_hotplug *h);
/* Something was put into the slot. */
void pci_hotplug_plug(struct pci_hotplug *h, unsigned slot);
/* The operating system is asked to let go of it: eject comes when it does, or with a reset. */
void pci_hotplug_unplug(struct pci_hotplug *h, unsigned slot);

#endif
