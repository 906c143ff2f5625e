/* SPDX-License-Identifier: Apache-2.0
 *
 * PCI functions: configuration space, base address registers, expansion ROM, INTx (PCI Local Bus
 * 3.0, chapter 6). The bytes that the guest sees are config[]; what may change in them is
 * writable[] and w1c[], so that most registers need no code.
 *
 * UNIMPL: bridges and buses other than 0, PCI Express extended configuration space, parity.
 */
#include "bus/pci.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/bytes.h"
#include "bus/pci_internal.h"

#define STATUS_INTX 0x08u     /* low byte: interrupt status, read-only */
#define STATUS_CAPS 0x10u     /* low byte: capability list */
#define STATUS_W1C_HIGH 0xf9u /* high byte: error bits, cleared by writing one */
#define HEADER_MULTIFUNCTION 0x80u
#define ROM_ENABLE 1u
#define ROM_MIN KIB(2)
#define ROM_MAX MIB(16)
#define CAPS_START 0x40u
#define GPA_LIMIT BIT(52) /* physical addresses have no more bits than this */

struct pci_bus {
    struct bus *bus; /* borrowed */
    struct irq intx[4];
    unsigned asserted[4]; /* functions that drive each line */
    pci_msi_fn *msi;
    void *msi_ctx;
    struct pci_func *funcs[256]; /* borrowed, by devfn */
};

const struct state_field pci_func_state[] = {
    STATE_BYTES(struct pci_func, config),
    STATE(struct pci_func, intx_level),
    STATE_END,
};

struct pci_bus *pci_bus_new(struct bus *b, const struct irq intx[4], pci_msi_fn *msi, void *msi_ctx)
{
    struct pci_bus *p = xzalloc(sizeof *p);
    p->bus = b;
    memcpy(p->intx, intx, sizeof p->intx);
    p->msi = msi;
    p->msi_ctx = msi_ctx;
    return p;
}

void pci_bus_free(struct pci_bus *p)
{
    if (p == NULL) {
        return;
    }
    for (unsigned i = 0; i < ARRAY_LEN(p->funcs); i++) {
        assert(p->funcs[i] == NULL); /* each function's fini comes first */
    }
    free(p);
}

struct pci_func *pci_func_at(struct pci_bus *p, uint8_t devfn) { return p->funcs[devfn]; }

static unsigned command(const struct pci_func *f) { return load_le16(f->config + PCI_COMMAND); }

bool pci_bus_master(const struct pci_func *f) { return (command(f) & PCI_COMMAND_MASTER) != 0; }

void pci_send_msi(struct pci_func *f, uint64_t address, uint32_t data)
{
    struct pci_bus *p = f->pci;
    if (p->msi != NULL && pci_bus_master(f)) {
        p->msi(p->msi_ctx, address, data);
    }
}

/* -- INTx -------------------------------------------------------------------------------------- */
unsigned pci_intx_route(uint8_t devfn, unsigned pin)
{
    unsigned slot = devfn >> 3;
    return (slot - 1u + pin - 1u) & 3u;
}

void pci_intx_update(struct pci_func *f)
{
    unsigned pin = f->config[PCI_INTERRUPT_PIN];
    bool has_pin = pin >= 1 && pin <= 4;
    f->config[PCI_STATUS] &= (uint8_t)~STATUS_INTX;
    if (f->intx_level != 0) {
        f->config[PCI_STATUS] |= STATUS_INTX;
    }
    /* A function that may send messages must not use its pin (PCI 3.0 6.8.3.3). */
    bool out = has_pin && f->intx_level != 0 && !(command(f) & PCI_COMMAND_INTX_OFF) &&
               !pci_msi_enabled(f) && !pci_msix_enabled(f);
    if (out == f->intx_out) {
        return;
    }
    f->intx_out = out;
    struct pci_bus *p = f->pci;
    if (out) {
        f->intx_line = (uint8_t)pci_intx_route(f->devfn, pin);
        if (p->asserted[f->intx_line]++ == 0) {
            irq_set(&p->intx[f->intx_line], 1);
        }
    } else if (--p->asserted[f->intx_line] == 0) {
        irq_set(&p->intx[f->intx_line], 0);
    }
}

void pci_set_intx(struct pci_func *f, int level)
{
    f->intx_level = level != 0;
    pci_intx_update(f);
}

/* -- BARs -------------------------------------------------------------------------------------- */
static bool bar_is_64(const struct pci_bar *bar)
{
    return bar->kind == PCI_BAR_MEM64 || bar->kind == PCI_BAR_MEM64_PREF;
}

/* A BAR decodes nothing at 0, nor where writing all ones to size it puts it. */
static bool addressable(uint64_t base, uint64_t size, uint64_t limit)
{
    uint64_t last = base + (size - 1);
    return base != 0 && last >= base && last < limit && last != 0xffffffffu;
}

/* A region that is off keeps its old place: the guest's base may be no address at all. */
static void place(struct region *r, uint64_t base, bool on)
{
    if (on) {
        region_move(r, base);
    }
    region_enable(r, on);
}

uint64_t pci_bar_base(const struct pci_func *f, unsigned n)
{
    const struct pci_bar *bar = &f->bar[n];
    const uint8_t *reg = f->config + PCI_BAR0 + 4 * n;
    uint64_t base = load_le32(reg);
    if (bar_is_64(bar)) {
        base |= (uint64_t)load_le32(reg + 4) << 32;
    }
    return base & ~(bar->size - 1);
}

static void update_bar(struct pci_func *f, unsigned n)
{
    const struct pci_bar *bar = &f->bar[n];
    if (bar->kind == PCI_BAR_NONE) {
        return;
    }
    uint64_t base = pci_bar_base(f, n);
    bool on;
    if (bar->kind == PCI_BAR_IO) {
        on = (command(f) & PCI_COMMAND_IO) && addressable(base, bar->size, 0x10000);
    } else {
        on = (command(f) & PCI_COMMAND_MEMORY) && addressable(base, bar->size, GPA_LIMIT);
    }
    place(bar->region, base, on);
}

static void update_rom(struct pci_func *f)
{
    if (f->rom_region == NULL) {
        return;
    }
    uint32_t reg = load_le32(f->config + PCI_ROM_ADDRESS);
    uint64_t base = reg & ~(f->rom_size - 1);
    bool on = (reg & ROM_ENABLE) && (command(f) & PCI_COMMAND_MEMORY) &&
              addressable(base, f->rom_size, GPA_LIMIT);
    place(f->rom_region, base, on);
}

static void update_maps(struct pci_func *f)
{
    for (unsigned n = 0; n < PCI_BAR_COUNT; n++) {
        update_bar(f, n);
    }
    update_rom(f);
}

void pci_add_bar(struct pci_func *f, unsigned n, enum pci_bar_kind kind, uint64_t size,
                 const struct region_ops *ops, void *dev)
{
    struct pci_bar *bar = &f->bar[n];
    assert(n < PCI_BAR_COUNT && bar->kind == PCI_BAR_NONE && kind != PCI_BAR_NONE);
    assert(is_pow2(size) && size >= (kind == PCI_BAR_IO ? 4u : 16u));
    bar->kind = kind;
    bar->size = size;
    uint32_t type = 0;
    switch (kind) {
    case PCI_BAR_IO:
        assert(size <= 256); /* PCI 3.0 6.2.5.1 */
        type = 1;
        bar->region = bus_add_port(f->pci->bus, 0, (uint32_t)size, ops, dev);
        break;
    case PCI_BAR_MEM32_PREF:
        type = 8;
        break;
    case PCI_BAR_MEM64:
        type = 4;
        break;
    case PCI_BAR_MEM64_PREF:
        type = 12;
        break;
    default:
        break;
    }
    assert(bar_is_64(bar) || size <= GIB(2));
    if (kind != PCI_BAR_IO) {
        bar->region = bus_add_mmio(f->pci->bus, 0, size, ops, dev);
    }
    region_enable(bar->region, false);

    unsigned at = PCI_BAR0 + 4 * n;
    store_le32(f->config + at, type);
    store_le32(f->writable + at, (uint32_t) ~(size - 1));
    if (bar_is_64(bar)) {
        assert(n + 1 < PCI_BAR_COUNT && f->bar[n + 1].kind == PCI_BAR_NONE);
        store_le32(f->writable + at + 4, (uint32_t)(~(size - 1) >> 32));
    }
}

static uint64_t rom_read(void *dev, uint64_t offset, unsigned size)
{
    const struct pci_func *f = dev;
    uint64_t value = 0;
    memcpy(&value, f->rom + offset, size);
    return value;
}

static const struct region_ops rom_ops = {
    .read = rom_read,
    .sizes = ACCESS_1 | ACCESS_2 | ACCESS_4 | ACCESS_8,
    .unaligned = true,
};

int pci_add_rom(struct pci_func *f, const void *data, uint64_t size)
{
    assert(f->rom == NULL);
    if (size == 0 || size > ROM_MAX) {
        return -EINVAL;
    }
    uint64_t span = ROM_MIN;
    while (span < size) {
        span *= 2;
    }
    f->rom = try_alloc(span, 1);
    if (f->rom == NULL) {
        return -ENOMEM;
    }
    memcpy(f->rom, data, size);
    f->rom_size = span;
    f->rom_region = bus_add_mmio(f->pci->bus, 0, span, &rom_ops, f);
    region_enable(f->rom_region, false);
    store_le32(f->writable + PCI_ROM_ADDRESS, (uint32_t) ~(span - 1) | ROM_ENABLE);
    return 0;
}

uint8_t pci_add_cap(struct pci_func *f, uint8_t id, uint8_t size)
{
    /* Behind those that are there; the newest heads the list. */
    unsigned at = CAPS_START;
    for (unsigned cap = f->config[PCI_CAP_POINTER]; cap != 0; cap = f->config[cap + 1]) {
        unsigned end = cap + f->cap_size[cap / 4];
        at = end > at ? end : at;
    }
    at = (unsigned)align_up(at, 4);
    assert(size >= 2 && at + size <= PCI_CONFIG_SIZE);
    f->cap_size[at / 4] = size;
    f->config[at] = id;
    f->config[at + 1] = f->config[PCI_CAP_POINTER];
    f->config[PCI_CAP_POINTER] = (uint8_t)at;
    f->config[PCI_STATUS] |= STATUS_CAPS;
    return (uint8_t)at;
}

/* -- Functions --------------------------------------------------------------------------------- */
/* Function 0 tells whether the slot has others (PCI 3.0 6.2.1). */
static void update_multifunction(struct pci_bus *p, unsigned slot)
{
    struct pci_func *first = p->funcs[slot << 3];
    if (first == NULL) {
        return;
    }
    first->config[PCI_HEADER_TYPE] &= (uint8_t)~HEADER_MULTIFUNCTION;
    for (unsigned fn = 1; fn < 8; fn++) {
        if (p->funcs[slot << 3 | fn] != NULL) {
            first->config[PCI_HEADER_TYPE] |= HEADER_MULTIFUNCTION;
        }
    }
}

void pci_func_init(struct pci_func *f, struct pci_bus *p, uint8_t devfn, uint16_t vendor,
                   uint16_t device, uint32_t class_code, uint8_t revision)
{
    struct dev dev = f->dev; /* the device may have been registered before */
    assert(p->funcs[devfn] == NULL);
    memset(f, 0, sizeof *f);
    f->dev = dev;
    f->pci = p;
    f->devfn = devfn;
    f->id = (uint32_t)device << 16 | vendor;
    p->funcs[devfn] = f;

    store_le32(f->config + PCI_VENDOR_ID, f->id);
    store_le32(f->config + PCI_REVISION, class_code << 8 | revision);
    store_le16(f->writable + PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER |
                                              PCI_COMMAND_PARITY | PCI_COMMAND_SERR |
                                              PCI_COMMAND_INTX_OFF);
    f->w1c[PCI_STATUS + 1] = STATUS_W1C_HIGH;
    f->writable[PCI_CACHE_LINE] = 0xff;
    f->writable[PCI_LATENCY] = 0xf8;
    f->writable[PCI_INTERRUPT_LINE] = 0xff;
    update_multifunction(p, devfn >> 3);
}

void pci_func_fini(struct pci_func *f)
{
    struct pci_bus *p = f->pci;
    if (p == NULL) {
        return;
    }
    pci_set_intx(f, 0);
    for (unsigned n = 0; n < PCI_BAR_COUNT; n++) {
        region_remove(f->bar[n].region);
        f->bar[n] = (struct pci_bar){ .kind = PCI_BAR_NONE };
    }
    region_remove(f->rom_region);
    f->rom_region = NULL;
    free(f->rom);
    f->rom = NULL;
    p->funcs[f->devfn] = NULL;
    f->pci = NULL;
    update_multifunction(p, f->devfn >> 3);
}

void pci_func_reset(struct pci_func *f)
{
    for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++) {
        f->config[i] &= (uint8_t) ~(f->writable[i] | f->w1c[i]);
    }
    pci_msi_reset(f);
    f->intx_level = 0;
    pci_intx_update(f);
    update_maps(f);
}

int pci_post_load(struct pci_func *f, struct err *e)
{
    uint32_t id = load_le32(f->config + PCI_VENDOR_ID);
    if (id != f->id) {
        return err_set(e, -EINVAL, "state is of PCI device %04x:%04x, here is %04x:%04x",
                       id & 0xffff, id >> 16, f->id & 0xffff, f->id >> 16);
    }
    f->intx_level = f->intx_level != 0;
    int r = pci_msi_post_load(f, e);
    if (r < 0) {
        return r;
    }
    update_maps(f);
    pci_intx_update(f);
    return 0;
}

/* -- Configuration access ---------------------------------------------------------------------- */
static struct pci_func *target(struct pci_bus *p, uint8_t bus, uint8_t devfn, unsigned offset,
                               unsigned size)
{
    assert(size == 1 || size == 2 || size == 4);
    bool inside = offset < PCI_CONFIG_SIZE && size <= PCI_CONFIG_SIZE - offset;
    return bus == 0 && inside ? p->funcs[devfn] : NULL;
}

uint32_t pci_config_read(struct pci_bus *p, uint8_t bus, uint8_t devfn, unsigned offset,
                         unsigned size)
{
    struct pci_func *f = target(p, bus, devfn, offset, size);
    if (f == NULL) {
        return (uint32_t)MASK64(8 * size); /* master abort */
    }
    if (f->config_reading != NULL) {
        f->config_reading(f, offset, size);
    }
    uint32_t value = 0;
    memcpy(&value, f->config + offset, size);
    return value;
}

static bool touches(unsigned offset, unsigned size, unsigned reg, unsigned reg_size)
{
    return offset < reg + reg_size && reg < offset + size;
}

void pci_config_write(struct pci_bus *p, uint8_t bus, uint8_t devfn, unsigned offset, unsigned size,
                      uint32_t value)
{
    struct pci_func *f = target(p, bus, devfn, offset, size);
    if (f == NULL) {
        return;
    }
    for (unsigned i = offset; i < offset + size; i++, value >>= 8) {
        uint8_t byte = (uint8_t)value;
        uint8_t mask = f->writable[i];
        uint8_t fresh = (uint8_t)((f->config[i] & ~mask) | (byte & mask));
        f->config[i] = (uint8_t)(fresh & ~(byte & f->w1c[i]));
    }
    if (touches(offset, size, PCI_COMMAND, 2) ||
        touches(offset, size, PCI_BAR0, 4 * PCI_BAR_COUNT) ||
        touches(offset, size, PCI_ROM_ADDRESS, 4)) {
        update_maps(f);
    }
    pci_msi_config_written(f, offset, size);
    pci_intx_update(f); /* COMMAND or a message capability may let it through now, or not */
    if (f->config_written != NULL) {
        f->config_written(f, offset, size);
    }
}
