/* SPDX-License-Identifier: Apache-2.0
 *
 * Intel 82441FX: host bridge with PCI configuration mechanism 1 and the memory attributes of the
 * legacy area.  Thread: machine lock held.
 */
#ifndef SOSIA_DEV_PC_I440FX_H
#define SOSIA_DEV_PC_I440FX_H

#include "bus/bus.h"
#include "bus/irq.h"
#include "bus/pci.h"

#define I440FX_PIECES 24u /* of 16 KiB, from 640 KiB to 1 MiB */

struct i440fx {
    struct pci_func pci; /* first */
    struct pci_bus *bus; /* owned */
    uint32_t config_address;
    /* Not state: */
    struct gmem *mem;              /* borrowed */
    uint8_t mapped[I440FX_PIECES]; /* attributes in force: bit 0 readable, bit 1 writable */
    bool has_rom;                  /* the ISA bus answers in the last 128 KiB: the BIOS */
    uint64_t rom_page;             /* its first page in gmem */
    bool smm;                      /* the processors that run are in system-management mode */
};

/* Makes the PCI bus. intx[4]: PIRQA..D; msi as in pci_bus_new. bus_mem(b) is the RAM: that from 640
 * KiB to 1 MiB vanishes behind the bridge's reset values. */
void i440fx_init(struct i440fx *h, struct bus *b, const struct irq intx[4], pci_msi_fn *msi,
                 void *msi_ctx);
void i440fx_fini(struct i440fx *h); /* after the functions on the bus */
struct pci_bus *i440fx_pci(struct i440fx *h);

/* What firmware does before it starts an operating system: RAM, writable, from 0xc0000 to 1 MiB.
 * Boot without firmware calls it after each reset. */
void i440fx_open_shadow(struct i440fx *h);

/* The BIOS ROM that shows from 0xe0000 to 1 MiB where no RAM is switched on: 128 KiB in gmem's ROM
 * (gmem_add_rom). */
#define I440FX_ROM_BYTES 0x20000u
void i440fx_set_rom(struct i440fx *h, uint64_t page);

/* The SMIACT# pin: SMRAM shows while it is up. */
void i440fx_set_smm(struct i440fx *h, bool smm);

#endif
