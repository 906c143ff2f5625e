/* SPDX-License-Identifier: Apache-2.0
 *
 * Intel 440FX PCIset, 82441FX PMC (290549): host bridge. The registers that steer DRAM timing are
 * storage.
 * DEVIATION: a programmable attribute of write-only loses the writes; firmware that shadows itself
 * that way in one pass does not work, and none is known.
 * UNIMPL: SMRAM D_CLS closes data accesses only on the real chip; here it has no effect, as the map
 * does not tell them from code fetches.
 */
#include "dev/pc/i440fx.h"

#include <assert.h>

#include "base/bits.h"
#include "base/bytes.h"

#define PIECE_BYTES KIB(16)
#define LEGACY_START 0xa0000u
#define SMRAM_PIECES 8u /* 0xa0000..0xbffff */
#define ROM_START 0xe0000u
#define ROM_PIECE ((ROM_START - LEGACY_START) / PIECE_BYTES)
#define ROW_UNIT MIB(8) /* DRB */

enum i440fx_reg { REG_DRB = 0x60, REG_PAM0 = 0x59, REG_PAM6 = 0x5f, REG_SMRAM = 0x72 };
enum i440fx_pam { PAM_READ = 1, PAM_WRITE = 2 };
enum i440fx_smram {
    SMRAM_OPEN = 0x40,
    SMRAM_LOCK = 0x10,
    SMRAM_ENABLE = 0x08,
    SMRAM_RESET = 0x02,
};
enum { CONFIG_ENABLE_BIT = 31 };

/* -- Memory attributes ------------------------------------------------------------------------- */
/* PAM1..6 hold two pieces each, from 0xc0000 on; PAM0 the last four in its high half (290549
 * 3.2.13). */
static uint8_t wanted(const struct i440fx *h, unsigned piece)
{
    const uint8_t *config = h->pci.config;
    if (piece < SMRAM_PIECES) {
        bool open = (config[REG_SMRAM] & SMRAM_ENABLE) &&
                    ((config[REG_SMRAM] & SMRAM_OPEN) || h->smm);
        return open ? PAM_READ | PAM_WRITE : 0;
    }
    unsigned n = piece - SMRAM_PIECES;
    if (n >= 12) {
        return config[REG_PAM0] >> 4 & (PAM_READ | PAM_WRITE);
    }
    return config[REG_PAM0 + 1 + n / 2] >> 4 * (n & 1) & (PAM_READ | PAM_WRITE);
}

static void lay(struct i440fx *h, unsigned piece, unsigned count, uint8_t attributes)
{
    gpa_t gpa = LEGACY_START + piece * PIECE_BYTES;
    uint64_t size = count * PIECE_BYTES;
    if (!(attributes & PAM_READ) && h->has_rom && gpa >= ROM_START) {
        gmem_show_rom(h->mem, gpa, h->rom_page + (gpa - ROM_START) / GMEM_PAGE_SIZE, size);
    } else if (!(attributes & PAM_READ)) {
        gmem_map_hole(h->mem, gpa, size);
    } else if (attributes & PAM_WRITE) {
        gmem_map_ram(h->mem, gpa, size);
    } else {
        gmem_map_ram_readonly(h->mem, gpa, size);
    }
}

static void update_map(struct i440fx *h)
{
    for (unsigned i = 0; i < I440FX_PIECES;) {
        uint8_t attributes = wanted(h, i);
        unsigned n = 0;
        while (i + n < I440FX_PIECES && wanted(h, i + n) == attributes &&
               h->mapped[i + n] != attributes &&
               (n == 0 || !h->has_rom || i + n != ROM_PIECE)) {
            h->mapped[i + n] = attributes;
            n++;
        }
        if (n != 0) {
            lay(h, i, n, attributes);
        }
        i += n != 0 ? n : 1;
    }
}

static void config_written(struct pci_func *f, unsigned offset, unsigned size)
{
    struct i440fx *h = container_of(f, struct i440fx, pci);
    (void)offset;
    (void)size;
    if (f->config[REG_SMRAM] & SMRAM_LOCK) {
        f->config[REG_SMRAM] &= (uint8_t)~SMRAM_OPEN;
        f->writable[REG_SMRAM] = 0; /* until reset */
    }
    update_map(h);
}

void i440fx_set_rom(struct i440fx *h, uint64_t page)
{
    h->has_rom = true;
    h->rom_page = page;
    for (unsigned i = ROM_PIECE; i < I440FX_PIECES; i++) {
        lay(h, i, 1, wanted(h, i));
    }
}

void i440fx_set_smm(struct i440fx *h, bool smm)
{
    h->smm = smm;
    update_map(h);
}

void i440fx_open_shadow(struct i440fx *h)
{
    for (unsigned reg = REG_PAM0; reg <= REG_PAM6; reg++) {
        h->pci.config[reg] = reg == REG_PAM0 ? 0x30 : 0x33;
    }
    update_map(h);
}

/* -- Configuration mechanism 1 (PCI 3.0 3.2.2.3.2) --------------------------------------------- */
static uint64_t address_read(void *dev, uint64_t offset, unsigned size)
{
    const struct i440fx *h = dev;
    (void)offset;
    (void)size;
    return h->config_address;
}

static void address_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct i440fx *h = dev;
    (void)offset;
    (void)size;
    h->config_address = (uint32_t)value & ~3u;
}

/* Narrower writes are not for this register: 0xcf9 is the reset control. */
static const struct region_ops address_ops = {
    .read = address_read,
    .write = address_write,
    .sizes = ACCESS_4,
};

static bool selected(const struct i440fx *h) { return h->config_address >> CONFIG_ENABLE_BIT; }
static uint8_t selected_bus(const struct i440fx *h) { return (uint8_t)(h->config_address >> 16); }
static uint8_t selected_devfn(const struct i440fx *h) { return (uint8_t)(h->config_address >> 8); }

static unsigned selected_reg(const struct i440fx *h, uint64_t offset)
{
    return (h->config_address & 0xfc) + (unsigned)offset;
}

static uint64_t data_read(void *dev, uint64_t offset, unsigned size)
{
    const struct i440fx *h = dev;
    if (!selected(h)) {
        return MASK64(8 * size);
    }
    return pci_config_read(h->bus, selected_bus(h), selected_devfn(h), selected_reg(h, offset),
                           size);
}

static void data_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    const struct i440fx *h = dev;
    if (selected(h)) {
        pci_config_write(h->bus, selected_bus(h), selected_devfn(h), selected_reg(h, offset), size,
                         (uint32_t)value);
    }
}

static const struct region_ops data_ops = {
    .read = data_read,
    .write = data_write,
    .sizes = ACCESS_1 | ACCESS_2 | ACCESS_4,
};

/* -- Life -------------------------------------------------------------------------------------- */
static const struct state_field i440fx_state[] = {
    STATE_STRUCT(struct i440fx, pci, pci_func_state),
    STATE(struct i440fx, config_address),
    STATE_END,
};

/* What 290549 chapter 3 lists as default values. */
static void set_defaults(struct i440fx *h)
{
    uint8_t *config = h->pci.config;
    store_le16(config + PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    store_le16(config + PCI_STATUS, 0x0280);
    config[0x58] = 0x10; /* DRAMT */
    config[REG_SMRAM] = SMRAM_RESET;
    /* Row boundaries, as if firmware had counted the DIMMs: one row with all. */
    uint64_t rows = gmem_ram_size(h->mem) / ROW_UNIT;
    for (unsigned i = 0; i < 8; i++) {
        config[REG_DRB + i] = rows < 0xff ? (uint8_t)rows : 0xff;
    }
}

static void i440fx_reset(void *dev)
{
    struct i440fx *h = dev;
    h->config_address = 0;
    pci_func_reset(&h->pci);
    h->pci.writable[REG_SMRAM] = 0x78;
    set_defaults(h);
    update_map(h);
}

static int i440fx_post_load(void *dev, struct err *e)
{
    struct i440fx *h = dev;
    int r = pci_post_load(&h->pci, e);
    if (r < 0) {
        return r;
    }
    h->config_address &= ~3u;
    h->pci.writable[REG_SMRAM] = h->pci.config[REG_SMRAM] & SMRAM_LOCK ? 0 : 0x78;
    update_map(h);
    return 0;
}

static const struct dev_class i440fx_class = {
    .name = "i440fx",
    .version = 1,
    .state = i440fx_state,
    .size = sizeof(struct i440fx),
    .reset = i440fx_reset,
    .post_load = i440fx_post_load,
};

static void make_writable(struct pci_func *f)
{
    store_le16(f->writable + PCI_COMMAND, PCI_COMMAND_SERR | PCI_COMMAND_PARITY);
    f->writable[PCI_CACHE_LINE] = 0;
    f->writable[PCI_INTERRUPT_LINE] = 0;
    for (unsigned reg = 0x50; reg <= 0x58; reg++) {
        f->writable[reg] = 0xff; /* PMCCFG to DRAMT */
    }
    for (unsigned reg = REG_PAM0; reg <= REG_PAM6; reg++) {
        f->writable[reg] = 0x77;
    }
    f->writable[REG_PAM0] = 0x70;
    for (unsigned reg = REG_DRB; reg < REG_DRB + 8; reg++) {
        f->writable[reg] = 0xff;
    }
    f->writable[0x68] = 0xc0; /* FDHC */
    f->writable[0x70] = 0xf8; /* MTT */
    f->writable[0x71] = 0xff; /* CLT */
    f->writable[0x90] = 0xff; /* ERRCMD */
    f->w1c[0x91] = 0x11;      /* ERRSTS */
}

void i440fx_init(struct i440fx *h, struct bus *b, const struct irq intx[4], pci_msi_fn *msi,
                 void *msi_ctx)
{
    *h = (struct i440fx){ .mem = bus_mem(b) };
    for (unsigned i = 0; i < I440FX_PIECES; i++) {
        h->mapped[i] = PAM_READ | PAM_WRITE; /* as gmem_new leaves it */
    }
    h->bus = pci_bus_new(b, intx, msi, msi_ctx);
    pci_func_init(&h->pci, h->bus, PCI_DEVFN(0, 0), 0x8086, 0x1237, 0x060000, 2);
    make_writable(&h->pci);
    h->pci.config_written = config_written;
    dev_register(b, &h->pci.dev, &i440fx_class, "i440fx");
    bus_add_port(b, 0xcf8, 4, &address_ops, h);
    bus_add_port(b, 0xcfc, 4, &data_ops, h);
    i440fx_reset(h);
}

void i440fx_fini(struct i440fx *h)
{
    pci_func_fini(&h->pci);
    pci_bus_free(h->bus);
    dev_unregister(&h->pci.dev);
}

struct pci_bus *i440fx_pci(struct i440fx *h) { return h->bus; }
