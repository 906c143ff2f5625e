/* SPDX-License-Identifier: Apache-2.0
 *
 * No hardware has this; the register layout is QEMU's, and boot/dsdt.c has the methods that use it.
 * UNIMPL: buses other than 0, the register of acpi-index.
 */
#include "dev/pc/pci_hotplug.h"

#include "base/bits.h"
#include "base/log.h"

enum hotplug_reg { CAME = 0, LEAVING = 4, EJECT = 8, REMOVABLE = 12, BUS = 16 };

static void eject(struct pci_hotplug *h, uint32_t slots)
{
    for (unsigned slot = 0; slot < PCI_HOTPLUG_SLOTS; slot++) {
        if (slots & BIT(slot)) {
            h->came &= ~(uint32_t)BIT(slot);
            h->leaving &= ~(uint32_t)BIT(slot);
            h->cfg.eject(h->cfg.ctx, slot);
        }
    }
}

static uint64_t hotplug_read(void *dev, uint64_t offset, unsigned size)
{
    struct pci_hotplug *h = dev;
    uint32_t came = h->came;
    (void)size;
    switch (offset) {
    case CAME:
        h->came = 0; /* reading tells it once */
        return came;
    case LEAVING:
        return h->leaving;
    case REMOVABLE:
        return h->cfg.removable(h->cfg.ctx);
    default:
        return 0;
    }
}

static void hotplug_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct pci_hotplug *h = dev;
    (void)size;
    if (offset == EJECT) {
        eject(h, (uint32_t)value & h->cfg.removable(h->cfg.ctx));
    } else if (offset != BUS) {
        log_guest("pci_hotplug", "write to register %u", (unsigned)offset);
    }
}

static const struct region_ops hotplug_ops = { .read = hotplug_read,
                                               .write = hotplug_write,
                                               .sizes = ACCESS_4 };

void pci_hotplug_plug(struct pci_hotplug *h, unsigned slot)
{
    h->came |= (uint32_t)BIT(slot);
    h->cfg.changed(h->cfg.ctx);
}

void pci_hotplug_unplug(struct pci_hotplug *h, unsigned slot)
{
    h->leaving |= (uint32_t)BIT(slot);
    h->cfg.changed(h->cfg.ctx);
}

/* -- State ------------------------------------------------------------------------------------- */
static const struct state_field hotplug_state[] = {
    STATE(struct pci_hotplug, came),
    STATE(struct pci_hotplug, leaving),
    STATE_END,
};

/* The next operating system finds what is there, and nobody is left to let go of what leaves. */
static void hotplug_reset(void *dev)
{
    struct pci_hotplug *h = dev;
    eject(h, h->leaving & h->cfg.removable(h->cfg.ctx));
    h->came = h->leaving = 0;
}

static const struct dev_class hotplug_class = {
    .name = "pci_hotplug",
    .version = 1,
    .state = hotplug_state,
    .size = sizeof(struct pci_hotplug),
    .reset = hotplug_reset,
};

void pci_hotplug_init(struct pci_hotplug *h, struct bus *b, uint16_t base,
                      const struct pci_hotplug_config *cfg)
{
    *h = (struct pci_hotplug){ .cfg = *cfg };
    dev_register(b, &h->dev, &hotplug_class, "pci_hotplug");
    bus_add_port(b, base, PCI_HOTPLUG_IO_SIZE, &hotplug_ops, h);
}

void pci_hotplug_fini(struct pci_hotplug *h) { dev_unregister(&h->dev); }
