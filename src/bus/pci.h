/* SPDX-License-Identifier: Apache-2.0
 *
 * PCI configuration space, BARs, INTx and MSI/MSI-X (PCI Local Bus 3.0). A function is a value with
 * its config bytes; the host bridge (dev/pc/i440fx.c) owns the bus. BAR handlers are ordinary
 * region_ops. Thread: machine lock held.
 */
#ifndef SOSIA_BUS_PCI_H
#define SOSIA_BUS_PCI_H

#include "bus/bus.h"
#include "bus/irq.h"

#define PCI_CONFIG_SIZE 256u
#define PCI_BAR_COUNT 6u
#define PCI_DEVFN(dev, fn) ((uint8_t)((dev) << 3 | (fn)))

/* Configuration header, PCI 3.0 6.1 */
enum pci_config_offset {
    PCI_VENDOR_ID = 0x00,
    PCI_DEVICE_ID = 0x02,
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_REVISION = 0x08,
    PCI_CLASS = 0x09,
    PCI_CACHE_LINE = 0x0c,
    PCI_LATENCY = 0x0d,
    PCI_HEADER_TYPE = 0x0e,
    PCI_BAR0 = 0x10,
    PCI_SUBSYSTEM_VENDOR = 0x2c,
    PCI_SUBSYSTEM = 0x2e,
    PCI_ROM_ADDRESS = 0x30,
    PCI_CAP_POINTER = 0x34,
    PCI_INTERRUPT_LINE = 0x3c,
    PCI_INTERRUPT_PIN = 0x3d,
};

enum pci_command_bit {
    PCI_COMMAND_IO = 1u << 0,
    PCI_COMMAND_MEMORY = 1u << 1,
    PCI_COMMAND_MASTER = 1u << 2,
    PCI_COMMAND_PARITY = 1u << 6,
    PCI_COMMAND_SERR = 1u << 8,
    PCI_COMMAND_INTX_OFF = 1u << 10,
};

enum pci_cap_id {
    PCI_CAP_PM = 0x01,
    PCI_CAP_MSI = 0x05,
    PCI_CAP_VENDOR = 0x09,
    PCI_CAP_MSIX = 0x11
};

struct pci_bus;

enum pci_bar_kind {
    PCI_BAR_NONE,
    PCI_BAR_IO,
    PCI_BAR_MEM32,
    PCI_BAR_MEM64,
    PCI_BAR_MEM32_PREF,
    PCI_BAR_MEM64_PREF
};

struct pci_bar {
    enum pci_bar_kind kind;
    uint64_t size;
    struct region *region; /* private to pci.c */
};

#define PCI_MSIX_MAX 128u /* vectors of one function */

/* The MSI-X table and pending bits (PCI 3.0 6.8.2), embedded in the device that has them. */
struct pci_msix {
    struct pci_func *func;
    uint16_t vectors;
    uint8_t cap;                      /* offset of the capability in config space */
    uint32_t table[PCI_MSIX_MAX * 4]; /* per vector: address low, high, data, control */
    uint64_t pending[PCI_MSIX_MAX / 64];
};

struct pci_func {
    struct dev dev;      /* first */
    struct pci_bus *pci; /* NULL when not attached */
    uint8_t devfn;
    uint8_t config[PCI_CONFIG_SIZE];
    uint8_t writable[PCI_CONFIG_SIZE];     /* bits the guest may change */
    uint8_t w1c[PCI_CONFIG_SIZE];          /* bits cleared by writing one */
    uint8_t cap_size[PCI_CONFIG_SIZE / 4]; /* by offset / 4: where each capability ends */
    struct pci_bar bar[PCI_BAR_COUNT];
    uint64_t rom_size;
    uint8_t *rom;              /* owned; rom_size bytes */
    struct region *rom_region; /* private to pci.c */
    uint32_t id;               /* vendor and device, to know a stream of another device by */
    uint8_t msi_cap;           /* offset of the MSI capability, 0 when none */
    struct pci_msix *msix;     /* borrowed: part of the device; NULL when none */
    int intx_level;            /* what the device drives, whatever COMMAND lets through */
    bool intx_out;             /* what reaches the PIRQ line; private to pci.c */
    uint8_t intx_line;         /* which one, while intx_out; private to pci.c */
    /* Optional: the device looks at a config write after it took effect. */
    void (*config_written)(struct pci_func *f, unsigned offset, unsigned size);
    /* Optional: the device brings config[] up to date before it is read. */
    void (*config_reading)(struct pci_func *f, unsigned offset, unsigned size);
};

/* A message-signalled interrupt: the chipset turns the write into an APIC message. */
typedef void pci_msi_fn(void *ctx, uint64_t address, uint32_t data);

/* intx[4]: PIRQA..D of the router; msi: the APIC bus. */
struct pci_bus *pci_bus_new(struct bus *b, const struct irq intx[4], pci_msi_fn *msi,
                            void *msi_ctx);
void pci_bus_free(struct pci_bus *p);

/* Which of the four PIRQ lines INTA#..INTD# (pin 1..4) of a slot meets: the wiring that PC firmware
 * knows of i440FX boards. For the ACPI and MP tables. */
unsigned pci_intx_route(uint8_t devfn, unsigned pin);
struct pci_func *pci_func_at(struct pci_bus *p, uint8_t devfn); /* NULL: empty */

/* vendor..class fill the header; class_code is base class, sub-class, interface: 0x020000 is
 * Ethernet. Devices then add BARs and capabilities, and may change config[] and writable[] of what
 * is theirs: subsystem ids, interrupt pin (config[PCI_INTERRUPT_PIN]), device registers. */
void pci_func_init(struct pci_func *f, struct pci_bus *p, uint8_t devfn, uint16_t vendor,
                   uint16_t device, uint32_t class_code, uint8_t revision);
void pci_func_fini(struct pci_func *f);
void pci_add_bar(struct pci_func *f, unsigned n, enum pci_bar_kind kind, uint64_t size,
                 const struct region_ops *ops, void *dev);
/* Where the guest has put a BAR, whether it decodes or not. */
uint64_t pci_bar_base(const struct pci_func *f, unsigned n);
/* Expansion ROM: a copy of data, padded to a power of two from 2 KiB up. -EINVAL: too large. */
MUST_CHECK int pci_add_rom(struct pci_func *f, const void *data, uint64_t size);
uint8_t pci_add_cap(struct pci_func *f, uint8_t id, uint8_t size); /* returns its offset */
void pci_set_intx(struct pci_func *f, int level);
/* Called by a device's post_load: re-map BARs from config[], drive INTx again. -EINVAL: the stream
 * is another device's. */
MUST_CHECK int pci_post_load(struct pci_func *f, struct err *e);
/* RST#: every bit that the guest can change becomes 0, nothing is mapped, INTx low. A device whose
 * registers have other reset values sets them afterwards. */
void pci_func_reset(struct pci_func *f);
/* True when the guest lets the function do DMA and send MSIs (COMMAND bit 2). */
bool pci_bus_master(const struct pci_func *f);

/* Config access by the host bridge: bus number is 0 only. */
uint32_t pci_config_read(struct pci_bus *p, uint8_t bus, uint8_t devfn, unsigned offset,
                         unsigned size);
void pci_config_write(struct pci_bus *p, uint8_t bus, uint8_t devfn, unsigned offset, unsigned size,
                      uint32_t value);

/* -- MSI and MSI-X capability helpers. A message masked when it is sent stays pending and goes out
 * when the guest unmasks it. */
void pci_add_msi(struct pci_func *f, unsigned vectors);
bool pci_msi_enabled(const struct pci_func *f);
void pci_msi_notify(struct pci_func *f, unsigned vector);

/* MSI-X with 1..PCI_MSIX_MAX vectors in a memory BAR of its own (n): table, then pending bits. */
void pci_add_msix(struct pci_func *f, struct pci_msix *x, unsigned vectors, unsigned n);
/* The same inside a BAR that the device handles: it passes accesses (of 4 bytes, aligned; offset
 * from the table's or the pending bits' start) to the three functions below. */
void pci_add_msix_shared(struct pci_func *f, struct pci_msix *x, unsigned vectors, unsigned n,
                         uint32_t table_offset, uint32_t pba_offset);
uint32_t pci_msix_table_read(const struct pci_msix *x, uint64_t offset);
void pci_msix_table_write(struct pci_msix *x, uint64_t offset, uint32_t value);
uint32_t pci_msix_pba_read(const struct pci_msix *x, uint64_t offset);
bool pci_msix_enabled(const struct pci_func *f);
void pci_msix_notify(struct pci_func *f, unsigned vector);

/* Send by MSI-X or MSI, whichever is enabled; false when neither is: the device uses INTx. */
bool pci_notify(struct pci_func *f, unsigned vector);

/* State fields common to all functions, for tables: STATE_STRUCT(T, pci, pci_func_state). */
extern const struct state_field pci_func_state[];
extern const struct state_field pci_msix_state[]; /* STATE_STRUCT(T, msix, pci_msix_state) */

#endif
