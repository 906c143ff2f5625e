/* SPDX-License-Identifier: Apache-2.0 */
// LAYERS: bus mem state base
#include "support/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "bus/pci.h"

struct card {
    struct pci_func pci;
    struct pci_msix msix;
    unsigned reads;
    uint64_t last_offset;
    unsigned config_writes;
};

struct machine {
    struct bus *bus;
    struct pci_bus *pci;
    int pirq[4];
    unsigned pirq_changes;
    uint64_t msi_address[64];
    uint32_t msi_data[64];
    unsigned msi_count;
};

static uint64_t card_read(void *dev, uint64_t offset, unsigned size)
{
    struct card *c = dev;
    (void)size;
    c->reads++;
    c->last_offset = offset;
    return 0xc0de0000 + offset;
}

static void card_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct card *c = dev;
    (void)size;
    (void)value;
    c->last_offset = offset;
}

static const struct region_ops card_ops = { .read = card_read,
                                            .write = card_write,
                                            .sizes = ACCESS_4 };

static void on_pirq(void *ctx, int n, int level)
{
    struct machine *m = ctx;
    m->pirq[n] = level;
    m->pirq_changes++;
}

static void on_msi(void *ctx, uint64_t address, uint32_t data)
{
    struct machine *m = ctx;
    assert_true(m->msi_count < ARRAY_LEN(m->msi_data));
    m->msi_address[m->msi_count] = address;
    m->msi_data[m->msi_count++] = data;
}

static void machine_init(struct machine *m)
{
    memset(m, 0, sizeof *m);
    m->bus = bus_new(NULL);
    struct irq intx[4];
    for (int i = 0; i < 4; i++) {
        intx[i] = (struct irq){ on_pirq, m, i };
    }
    m->pci = pci_bus_new(m->bus, intx, on_msi, m);
}

static void machine_fini(struct machine *m)
{
    pci_bus_free(m->pci);
    bus_free(m->bus);
}

static void card_init(struct card *c, struct machine *m, uint8_t devfn)
{
    memset(c, 0, sizeof *c);
    pci_func_init(&c->pci, m->pci, devfn, 0x1234, 0x5678, 0x020000, 3);
    c->pci.config[PCI_INTERRUPT_PIN] = 1;
}

static uint32_t rd(struct machine *m, uint8_t devfn, unsigned offset, unsigned size)
{
    return pci_config_read(m->pci, 0, devfn, offset, size);
}

static void wr(struct machine *m, uint8_t devfn, unsigned offset, unsigned size, uint32_t value)
{
    pci_config_write(m->pci, 0, devfn, offset, size, value);
}

#define FN PCI_DEVFN(3, 0)

static void header_reads_as_it_should(void **state)
{
    (void)state;
    struct machine m;
    struct card c;
    machine_init(&m);
    card_init(&c, &m, FN);
    assert_int_equal(rd(&m, FN, 0, 4), 0x56781234);
    assert_int_equal(rd(&m, FN, 2, 2), 0x5678);
    assert_int_equal(rd(&m, FN, 8, 4), 0x02000003);
    assert_int_equal(rd(&m, FN, 0x3d, 1), 1);
    wr(&m, FN, 0, 4, 0);
    assert_int_equal(rd(&m, FN, 0, 4), 0x56781234);
    wr(&m, FN, 0x3c, 1, 11);
    assert_int_equal(rd(&m, FN, 0x3c, 2), 0x010b);
    wr(&m, FN, 4, 2, 0xffff);
    assert_int_equal(rd(&m, FN, 4, 2), 0x0547);
    /* Nobody: other slots, other buses, beyond the end. */
    assert_int_equal(rd(&m, FN + 1, 0, 4), 0xffffffff);
    assert_int_equal(rd(&m, FN + 8, 0, 2), 0xffff);
    assert_int_equal(pci_config_read(m.pci, 1, FN, 0, 4), 0xffffffff);
    assert_int_equal(rd(&m, FN, 254, 4), 0xffffffff);
    assert_int_equal(rd(&m, FN, 0x1000, 1), 0xff);
    assert_int_equal(rd(&m, FN, UINT32_MAX, 4), 0xffffffff);
    wr(&m, FN, 254, 4, 0);
    pci_config_write(m.pci, 1, FN, 4, 2, 0);
    assert_int_equal(rd(&m, FN, 4, 2), 0x0547);
    /* Error bits of STATUS are cleared by ones. */
    c.pci.config[PCI_STATUS + 1] = 0x30;
    wr(&m, FN, PCI_STATUS, 2, 0x1000);
    assert_int_equal(rd(&m, FN, PCI_STATUS, 2), 0x2000);
    assert_ptr_equal(pci_func_at(m.pci, FN), &c.pci);
    pci_func_fini(&c.pci);
    pci_func_fini(&c.pci);
    assert_int_equal(rd(&m, FN, 0, 4), 0xffffffff);
    machine_fini(&m);
}

static void many_functions_say_so(void **state)
{
    (void)state;
    struct machine m;
    struct card zero, one;
    machine_init(&m);
    card_init(&one, &m, PCI_DEVFN(1, 1));
    card_init(&zero, &m, PCI_DEVFN(1, 0));
    assert_int_equal(rd(&m, PCI_DEVFN(1, 0), PCI_HEADER_TYPE, 1), 0x80);
    pci_func_fini(&one.pci);
    assert_int_equal(rd(&m, PCI_DEVFN(1, 0), PCI_HEADER_TYPE, 1), 0);
    pci_func_fini(&zero.pci);
    machine_fini(&m);
}

static void memory_bars_are_sized_and_moved(void **state)
{
    (void)state;
    struct machine m;
    struct card c;
    machine_init(&m);
    card_init(&c, &m, FN);
    pci_add_bar(&c.pci, 0, PCI_BAR_MEM32, 0x1000, &card_ops, &c);
    pci_add_bar(&c.pci, 2, PCI_BAR_MEM64_PREF, GIB(8), &card_ops, &c);
    wr(&m, FN, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_int_equal(bus_mmio_read(m.bus, 0, 4), 0xffffffff); /* at 0 it decodes nothing */

    wr(&m, FN, 0x10, 4, 0xffffffff);
    assert_int_equal(rd(&m, FN, 0x10, 4), 0xfffff000);
    assert_int_equal(bus_mmio_read(m.bus, 0xfffff000, 4), 0xffffffff); /* nor while it is sized */
    wr(&m, FN, 0x10, 4, 0xfeb00fff);
    assert_int_equal(rd(&m, FN, 0x10, 4), 0xfeb00000);
    assert_int_equal(bus_mmio_read(m.bus, 0xfeb00010, 4), 0xc0de0010);
    wr(&m, FN, 0x12, 1, 0xc0); /* a byte of it */
    assert_int_equal(bus_mmio_read(m.bus, 0xfeb00010, 4), 0xffffffff);
    assert_int_equal(bus_mmio_read(m.bus, 0xfec00010, 4), 0xc0de0010);
    wr(&m, FN, PCI_COMMAND, 2, 0);
    assert_int_equal(bus_mmio_read(m.bus, 0xfec00010, 4), 0xffffffff);
    wr(&m, FN, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_int_equal(bus_mmio_read(m.bus, 0xfec00010, 4), 0xc0de0010);

    wr(&m, FN, 0x18, 4, 0xffffffff);
    wr(&m, FN, 0x1c, 4, 0xffffffff);
    assert_int_equal(rd(&m, FN, 0x18, 4), 0x0000000c);
    assert_int_equal(rd(&m, FN, 0x1c, 4), 0xfffffffe);
    wr(&m, FN, 0x18, 4, 0);
    wr(&m, FN, 0x1c, 4, 0x40); /* 256 GiB */
    c.reads = 0;
    assert_int_equal(bus_mmio_read(m.bus, GIB(256) + GIB(8) - 4, 4),
                     0xffffffff & (0xc0de0000 + GIB(8) - 4));
    assert_true(c.last_offset == GIB(8) - 4);
    wr(&m, FN, 0x1c, 4, 0x100000); /* beyond what an address can be */
    bus_mmio_read(m.bus, 0x10000000000000ull, 4);
    assert_int_equal(c.reads, 1);
    assert_int_equal(rd(&m, FN, 0x14, 4), 0);
    pci_func_fini(&c.pci);
    assert_int_equal(bus_mmio_read(m.bus, 0xfec00010, 4), 0xffffffff);
    machine_fini(&m);
}

static void io_bars(void **state)
{
    (void)state;
    struct machine m;
    struct card c;
    machine_init(&m);
    card_init(&c, &m, FN);
    pci_add_bar(&c.pci, 1, PCI_BAR_IO, 32, &card_ops, &c);
    assert_int_equal(rd(&m, FN, 0x14, 4), 1);
    wr(&m, FN, 0x14, 4, 0xffffffff);
    assert_int_equal(rd(&m, FN, 0x14, 4), 0xffffffe1);
    wr(&m, FN, PCI_COMMAND, 2, PCI_COMMAND_IO);
    wr(&m, FN, 0x14, 4, 0xc000);
    assert_int_equal(bus_port_read(m.bus, 0xc004, 4), 0xc0de0004);
    wr(&m, FN, 0x14, 4, 0x1c000); /* no such port */
    assert_int_equal(bus_port_read(m.bus, 0xc004, 4), 0xffffffff);
    wr(&m, FN, 0x14, 4, 0xffe0);
    assert_int_equal(bus_port_read(m.bus, 0xfffc, 4), 0xc0de001c);
    pci_func_reset(&c.pci);
    assert_int_equal(bus_port_read(m.bus, 0xfffc, 4), 0xffffffff);
    assert_int_equal(rd(&m, FN, 0x14, 4), 1);
    pci_func_fini(&c.pci);
    machine_fini(&m);
}

static void expansion_rom(void **state)
{
    (void)state;
    struct machine m;
    struct card c;
    uint8_t rom[3000];
    memset(rom, 0x55, sizeof rom);
    machine_init(&m);
    card_init(&c, &m, FN);
    assert_int_equal(pci_add_rom(&c.pci, rom, 0), -EINVAL);
    assert_int_equal(pci_add_rom(&c.pci, rom, MIB(17)), -EINVAL);
    assert_int_equal(pci_add_rom(&c.pci, rom, sizeof rom), 0);
    wr(&m, FN, PCI_ROM_ADDRESS, 4, 0xffffffff);
    assert_int_equal(rd(&m, FN, PCI_ROM_ADDRESS, 4), 0xfffff001);
    wr(&m, FN, PCI_ROM_ADDRESS, 4, 0xfeb00000);
    wr(&m, FN, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_int_equal(bus_mmio_read(m.bus, 0xfeb00000, 2), 0xffff); /* not enabled */
    wr(&m, FN, PCI_ROM_ADDRESS, 4, 0xfeb00001);
    assert_int_equal(bus_mmio_read(m.bus, 0xfeb00001, 2), 0x5555);
    assert_int_equal(bus_mmio_read(m.bus, 0xfeb00000 + 2998, 4), 0x5555);
    bus_mmio_write(m.bus, 0xfeb00000, 4, 0);
    assert_int_equal(bus_mmio_read(m.bus, 0xfeb00000, 4), 0x55555555);
    pci_func_fini(&c.pci);
    machine_fini(&m);
}

static void intx_is_routed_and_ored(void **state)
{
    (void)state;
    struct machine m;
    struct card a, b;
    machine_init(&m);
    card_init(&a, &m, PCI_DEVFN(3, 0));
    card_init(&b, &m, PCI_DEVFN(7, 0)); /* the same line */
    unsigned line = pci_intx_route(PCI_DEVFN(3, 0), 1);
    assert_int_equal(line, 2);
    assert_int_equal(pci_intx_route(PCI_DEVFN(7, 0), 1), line);
    assert_int_equal(pci_intx_route(PCI_DEVFN(3, 0), 2), 3);
    assert_int_equal(pci_intx_route(PCI_DEVFN(3, 0), 3), 0);

    pci_set_intx(&a.pci, 1);
    pci_set_intx(&a.pci, 1);
    assert_int_equal(m.pirq[line], 1);
    assert_int_equal(m.pirq_changes, 1);
    assert_true(rd(&m, PCI_DEVFN(3, 0), PCI_STATUS, 1) & 8);
    pci_set_intx(&b.pci, 1);
    pci_set_intx(&a.pci, 0);
    assert_int_equal(m.pirq[line], 1);
    assert_int_equal(m.pirq_changes, 1);
    wr(&m, PCI_DEVFN(7, 0), PCI_COMMAND, 2, PCI_COMMAND_INTX_OFF);
    assert_int_equal(m.pirq[line], 0);
    assert_true(rd(&m, PCI_DEVFN(7, 0), PCI_STATUS, 1) & 8); /* still seen by polling */
    wr(&m, PCI_DEVFN(7, 0), PCI_COMMAND, 2, 0);
    assert_int_equal(m.pirq[line], 1);
    pci_func_fini(&b.pci); /* unplugged while it asks */
    assert_int_equal(m.pirq[line], 0);
    pci_set_intx(&a.pci, 1);
    pci_func_reset(&a.pci);
    assert_int_equal(m.pirq[line], 0);
    pci_func_fini(&a.pci);
    machine_fini(&m);
}

static void capabilities_are_chained(void **state)
{
    (void)state;
    struct machine m;
    struct card c;
    machine_init(&m);
    card_init(&c, &m, FN);
    assert_int_equal(rd(&m, FN, PCI_CAP_POINTER, 1), 0);
    uint8_t first = pci_add_cap(&c.pci, PCI_CAP_VENDOR, 17);
    uint8_t second = pci_add_cap(&c.pci, PCI_CAP_PM, 8);
    pci_add_msi(&c.pci, 4);
    pci_add_msix(&c.pci, &c.msix, 3, 4);
    assert_int_equal(first, 0x40);
    assert_int_equal(second, 0x54);
    assert_true(rd(&m, FN, PCI_STATUS, 2) & 0x10);
    unsigned seen = 0;
    for (unsigned at = rd(&m, FN, PCI_CAP_POINTER, 1); at != 0; at = rd(&m, FN, at + 1, 1)) {
        assert_true(at >= 0x40 && at % 4 == 0);
        unsigned id = rd(&m, FN, at, 1);
        assert_true(id == PCI_CAP_VENDOR || id == PCI_CAP_PM || id == PCI_CAP_MSI ||
                    id == PCI_CAP_MSIX);
        seen++;
    }
    assert_int_equal(seen, 4);
    pci_func_fini(&c.pci);
    machine_fini(&m);
}

static void msi_sends_masks_and_shares(void **state)
{
    (void)state;
    struct machine m;
    struct card c;
    machine_init(&m);
    card_init(&c, &m, FN);
    pci_add_msi(&c.pci, 4);
    uint8_t cap = c.pci.msi_cap;
    assert_int_equal(rd(&m, FN, cap + 2, 2), 0x0184); /* 64-bit, masking, 4 vectors asked for */
    wr(&m, FN, cap + 4, 4, 0xfee01003);
    assert_int_equal(rd(&m, FN, cap + 4, 4), 0xfee01000);
    wr(&m, FN, cap + 8, 4, 1);
    wr(&m, FN, cap + 12, 2, 0x4042);
    pci_msi_notify(&c.pci, 0);
    assert_false(pci_notify(&c.pci, 0));
    assert_int_equal(m.msi_count, 0);

    wr(&m, FN, cap + 2, 2, 0x0001 | 2 << 4);
    assert_true(pci_msi_enabled(&c.pci));
    pci_msi_notify(&c.pci, 3);
    assert_int_equal(m.msi_count, 0); /* no bus master: it may not write to memory */
    wr(&m, FN, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
    assert_true(pci_notify(&c.pci, 3));
    assert_int_equal(m.msi_count, 1);
    assert_true(m.msi_address[0] == 0x1fee01000ull);
    assert_int_equal(m.msi_data[0], 0x4043);
    pci_msi_notify(&c.pci, 1);
    assert_int_equal(m.msi_data[1], 0x4041);

    wr(&m, FN, cap + 2, 2, 0x0001); /* one vector only: all share it */
    pci_msi_notify(&c.pci, 3);
    assert_int_equal(m.msi_data[2], 0x4042);
    wr(&m, FN, cap + 2, 2, 0x0001 | 7 << 4); /* more than asked for */
    pci_msi_notify(&c.pci, 7);
    assert_int_equal(m.msi_data[3], 0x4043);

    wr(&m, FN, cap + 16, 4, 0xffffffff);
    assert_int_equal(rd(&m, FN, cap + 16, 4), 0xf);
    pci_msi_notify(&c.pci, 2);
    pci_msi_notify(&c.pci, 2);
    pci_msi_notify(&c.pci, 0);
    assert_int_equal(m.msi_count, 4);
    assert_int_equal(rd(&m, FN, cap + 20, 4), 5);
    wr(&m, FN, cap + 16, 4, 1);
    assert_int_equal(m.msi_count, 5);
    assert_int_equal(m.msi_data[4], 0x4042);
    assert_int_equal(rd(&m, FN, cap + 20, 4), 1);

    /* Its pin is silent while it may send messages. */
    pci_set_intx(&c.pci, 1);
    assert_int_equal(m.pirq_changes, 0);
    wr(&m, FN, cap + 2, 2, 0);
    assert_int_equal(m.pirq[2], 1);
    pci_set_intx(&c.pci, 0);
    pci_func_reset(&c.pci);
    assert_int_equal(rd(&m, FN, cap + 20, 4), 0);
    pci_func_fini(&c.pci);
    machine_fini(&m);
}

static void msix_table_masks_and_pends(void **state)
{
    (void)state;
    struct machine m;
    struct card c;
    machine_init(&m);
    card_init(&c, &m, FN);
    pci_add_msix(&c.pci, &c.msix, 70, 4);
    uint8_t cap = c.msix.cap;
    assert_int_equal(rd(&m, FN, cap + 2, 2), 69);
    assert_int_equal(rd(&m, FN, cap + 4, 4), 4);
    uint32_t pba = rd(&m, FN, cap + 8, 4) & ~7u;
    assert_int_equal(pba, 70 * 16);
    wr(&m, FN, 0x20, 4, 0xfeb00000);
    wr(&m, FN, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);

    gpa_t entry = 0xfeb00000 + 69 * 16;
    assert_int_equal(bus_mmio_read(m.bus, entry + 12, 4), 1); /* masked from reset */
    bus_mmio_write(m.bus, entry, 8, 0x1fee02003ull);
    bus_mmio_write(m.bus, entry + 8, 4, 0x51);
    assert_true(bus_mmio_read(m.bus, entry, 8) == 0x1fee02000ull);
    pci_msix_notify(&c.pci, 69);
    assert_int_equal(bus_mmio_read(m.bus, 0xfeb00000 + pba + 8, 4), 0); /* not enabled: nothing */
    wr(&m, FN, cap + 2, 2, 0x8000);
    assert_int_equal(rd(&m, FN, cap + 2, 2), 0x8045);
    assert_true(pci_notify(&c.pci, 69));
    assert_int_equal(m.msi_count, 0);
    assert_int_equal(bus_mmio_read(m.bus, 0xfeb00000 + pba + 8, 4), 1u << 5);
    bus_mmio_write(m.bus, entry + 12, 4, 0xfffffffe);
    assert_int_equal(bus_mmio_read(m.bus, entry + 12, 4), 0);
    assert_int_equal(m.msi_count, 1);
    assert_true(m.msi_address[0] == 0x1fee02000ull);
    assert_int_equal(m.msi_data[0], 0x51);
    assert_int_equal(bus_mmio_read(m.bus, 0xfeb00000 + pba + 8, 4), 0);

    wr(&m, FN, cap + 2, 2, 0xc000); /* the whole function masked */
    pci_msix_notify(&c.pci, 69);
    assert_int_equal(m.msi_count, 1);
    wr(&m, FN, cap + 2, 2, 0x8000);
    assert_int_equal(m.msi_count, 2);
    pci_msix_notify(&c.pci, 70);
    pci_msix_notify(&c.pci, 100000);
    assert_int_equal(m.msi_count, 2);
    bus_mmio_write(m.bus, 0xfeb00000 + pba, 8, UINT64_MAX); /* read-only */
    assert_true(bus_mmio_read(m.bus, 0xfeb00000 + pba, 8) == 0);
    assert_int_equal(bus_mmio_read(m.bus, 0xfeb00ffc, 4), 0);
    pci_func_fini(&c.pci);
    machine_fini(&m);
}

static void on_config(struct pci_func *f, unsigned offset, unsigned size)
{
    struct card *c = container_of(f, struct card, pci);
    (void)size;
    if (offset == 0x40) {
        c->config_writes++;
        assert_int_equal(f->config[0x40], 0x5f); /* after it took effect */
    }
}

static void devices_see_config_writes(void **state)
{
    (void)state;
    struct machine m;
    struct card c;
    machine_init(&m);
    card_init(&c, &m, FN);
    c.pci.config_written = on_config;
    c.pci.writable[0x40] = 0x0f;
    c.pci.config[0x40] = 0x50;
    wr(&m, FN, 0x40, 1, 0xff);
    assert_int_equal(c.config_writes, 1);
    pci_func_fini(&c.pci);
    machine_fini(&m);
}

/* -- State ------------------------------------------------------------------------------------- */
static const struct state_field card_state[] = {
    STATE_STRUCT(struct card, pci, pci_func_state),
    STATE_STRUCT(struct card, msix, pci_msix_state),
    STATE_END,
};

static int card_post_load(void *dev, struct err *e)
{
    struct card *c = dev;
    return pci_post_load(&c->pci, e);
}

static const struct dev_class card_class = {
    .name = "card",
    .version = 1,
    .state = card_state,
    .size = sizeof(struct card),
    .post_load = card_post_load,
};

static void full_card(struct card *c, struct machine *m, uint16_t device)
{
    memset(c, 0, sizeof *c);
    pci_func_init(&c->pci, m->pci, FN, 0x1234, device, 0x020000, 3);
    c->pci.config[PCI_INTERRUPT_PIN] = 1;
    pci_add_bar(&c->pci, 0, PCI_BAR_MEM32, 0x1000, &card_ops, c);
    pci_add_msi(&c->pci, 1);
    pci_add_msix(&c->pci, &c->msix, 4, 4);
    dev_register(m->bus, &c->pci.dev, &card_class, "card");
}

static int load_from(struct machine *to, const uint8_t *data, size_t len, struct err *e)
{
    struct state_in *in;
    assert_int_equal(state_in_new(&in, data, len, e), 0);
    int r = bus_load(to->bus, in, e);
    state_in_free(in);
    return r;
}

static void save_load_save(void **state)
{
    (void)state;
    struct machine a, b, other;
    struct card ca, cb, co;
    machine_init(&a);
    machine_init(&b);
    machine_init(&other);
    full_card(&ca, &a, 0x5678);
    full_card(&cb, &b, 0x5678);
    full_card(&co, &other, 0x9999);
    wr(&a, FN, 0x10, 4, 0xfeb00000);
    wr(&a, FN, 0x20, 4, 0xfeb10000);
    wr(&a, FN, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    bus_mmio_write(a.bus, 0xfeb10008, 4, 0x77);
    pci_set_intx(&ca.pci, 1);

    struct state_out *o = state_out_new(), *again = state_out_new();
    size_t len, len_again;
    struct err e = { "" };
    bus_save(a.bus, o);
    const uint8_t *data = state_out_data(o, &len);
    assert_int_equal(load_from(&b, data, len, &e), 0);
    assert_int_equal(bus_mmio_read(b.bus, 0xfeb00020, 4), 0xc0de0020);
    assert_int_equal(bus_mmio_read(b.bus, 0xfeb10008, 4), 0x77);
    assert_int_equal(b.pirq[2], 1);
    bus_save(b.bus, again);
    const uint8_t *data_again = state_out_data(again, &len_again);
    assert_int_equal(len, len_again);
    assert_memory_equal(data, data_again, len);

    assert_int_equal(load_from(&other, data, len, &e), -EINVAL);
    assert_non_null(strstr(e.msg, "1234:5678"));

    ca.msix.table[3] = 0xffffffff;
    struct state_out *bad = state_out_new();
    bus_save(a.bus, bad);
    data = state_out_data(bad, &len);
    assert_int_equal(load_from(&b, data, len, &e), -EINVAL);
    ca.msix.table[3] = 1;
    state_out_free(o);
    state_out_free(again);
    state_out_free(bad);
    pci_func_fini(&ca.pci);
    pci_func_fini(&cb.pci);
    pci_func_fini(&co.pci);
    machine_fini(&a);
    machine_fini(&b);
    machine_fini(&other);
}

/* Config bytes from a hostile stream: nothing but refusal or odd behaviour may come of them. */
static void hostile_config_bytes(void **state)
{
    (void)state;
    struct machine m;
    struct card c;
    machine_init(&m);
    full_card(&c, &m, 0x5678);
    uint64_t seed = 11;
    struct err e = { "" };
    for (unsigned round = 0; round < 5000; round++) {
        for (unsigned i = 4; i < PCI_CONFIG_SIZE; i++) {
            c.pci.config[i] = (uint8_t)test_random(&seed);
        }
        unsigned control = (unsigned)c.msix.cap + 2;
        c.pci.config[control] = 3;
        c.pci.config[control + 1] &= 0xf8;
        c.pci.intx_level = (int)test_random(&seed);
        (void)!pci_post_load(&c.pci, &e);
        m.msi_count = 0;
        pci_notify(&c.pci, (unsigned)test_random(&seed) % 200);
        pci_set_intx(&c.pci, round & 1);
        wr(&m, FN, (unsigned)test_random(&seed) % 64 * 4, 4, (uint32_t)test_random(&seed));
        m.msi_count = 0;
    }
    pci_func_fini(&c.pci);
    assert_int_equal(m.pirq[0] + m.pirq[1] + m.pirq[2] + m.pirq[3], 0);
    machine_fini(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header_reads_as_it_should),
        cmocka_unit_test(many_functions_say_so),
        cmocka_unit_test(memory_bars_are_sized_and_moved),
        cmocka_unit_test(io_bars),
        cmocka_unit_test(expansion_rom),
        cmocka_unit_test(intx_is_routed_and_ored),
        cmocka_unit_test(capabilities_are_chained),
        cmocka_unit_test(msi_sends_masks_and_shares),
        cmocka_unit_test(msix_table_masks_and_pends),
        cmocka_unit_test(devices_see_config_writes),
        cmocka_unit_test(save_load_save),
        cmocka_unit_test(hostile_config_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
