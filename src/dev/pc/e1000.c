/* SPDX-License-Identifier: Apache-2.0
 *
 * Intel 82540EM Gigabit Ethernet Controller (PCI/PCI-X Family of Gigabit Ethernet Controllers
 * Software Developer's Manual, "8254x"): registers, interrupts, reset. Transmitter, receiver and
 * serial parts are in files of their own.
 *
 * Interrupts are not moderated: ITR and the delay timers are kept and have no effect. UNIMPL: wake
 * on LAN, flow control, loopback, management; MSI.
 */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "dev/pc/e1000_internal.h"

#define MMIO_BYTES KIB(128)
#define IO_BYTES 64u
#define IO_ADDRESS 0u
#define IO_DATA 4u
#define CTRL_RESET 0x00000201u /* full duplex, gigabit */

/* -- Interrupts -------------------------------------------------------------------------------- */
static void update_irq(struct e1000 *d)
{
    pci_set_intx(&d->pci, (*e1000_reg(d, REG_ICR) & *e1000_reg(d, REG_IMS)) != 0);
}

void e1000_raise(struct e1000 *d, uint32_t causes)
{
    *e1000_reg(d, REG_ICR) |= causes;
    update_irq(d);
}

/* -- Statistics: they stick at their greatest value -------------------------------------------- */
void e1000_count(struct e1000 *d, enum e1000_reg stat, uint32_t n)
{
    uint32_t *r = e1000_reg(d, stat);
    if (ckd_add(r, *r, n)) {
        *r = UINT32_MAX;
    }
}

void e1000_count64(struct e1000 *d, enum e1000_reg low, uint64_t n)
{
    uint32_t *r = e1000_reg(d, low);
    uint64_t sum;
    if (ckd_add(&sum, (uint64_t)r[1] << 32 | r[0], n)) {
        sum = UINT64_MAX;
    }
    r[0] = (uint32_t)sum;
    r[1] = (uint32_t)(sum >> 32);
}

/* -- Link -------------------------------------------------------------------------------------- */
bool e1000_link_up(const struct e1000 *d)
{
    return d->net->link_up && (d->reg[REG_CTRL / 4] & CTRL_SLU);
}

static uint32_t status(const struct e1000 *d)
{
    return STATUS_FD | STATUS_1000 | (e1000_link_up(d) ? STATUS_LU : 0);
}

static void link_changed(void *ctx, bool up)
{
    struct e1000 *d = ctx;
    (void)up;
    e1000_phy_link(d);
    e1000_raise(d, ICR_LSC);
}

/* -- Reset ------------------------------------------------------------------------------------- */
static void reset_mac(struct e1000 *d)
{
    memset(d->reg, 0, sizeof d->reg);
    *e1000_reg(d, REG_CTRL) = CTRL_RESET;
    *e1000_reg(d, REG_PBA) = 0x00100030;
    *e1000_reg(d, REG_LEDCTL) = 0x07068302;
    *e1000_reg(d, REG_VET) = 0x8100;
    *e1000_reg(d, REG_RAL) = d->eeprom[0] | (uint32_t)d->eeprom[1] << 16;
    d->reg[REG_RAL / 4 + 1] = d->eeprom[2] | RAH_AV;
    d->ee_in = d->ee_out = 0;
    d->ee_bits = 0;
    d->ee_reading = false;
    memset(d->context, 0, sizeof d->context);
    d->tx_len = 0;
    d->tx_tse = false;
    d->tx_popts = 0;
    update_irq(d);
}

static void write_ctrl(struct e1000 *d, uint32_t value)
{
    bool was_up = e1000_link_up(d);
    if (value & CTRL_RST) {
        reset_mac(d);
        return;
    }
    if (value & CTRL_PHY_RST) {
        e1000_phy_reset(d);
    }
    *e1000_reg(d, REG_CTRL) = value & ~CTRL_PHY_RST;
    if (e1000_link_up(d) != was_up) {
        e1000_raise(d, ICR_LSC);
    }
}

/* -- Registers --------------------------------------------------------------------------------- */
static bool in_table(uint32_t at)
{
    return (at >= REG_MTA && at < REG_RAL_END) || (at >= REG_VFTA && at < REG_VFTA_END);
}

static uint32_t reg_read(struct e1000 *d, uint32_t at)
{
    uint32_t value = at < 4 * E1000_REGS ? d->reg[at / 4] : 0;
    switch (at) {
    case REG_STATUS:
        return status(d);
    case REG_EECD:
        return e1000_eecd_read(d);
    case REG_ICR:
        d->reg[at / 4] = 0;
        update_irq(d);
        return value;
    case REG_ICS:
    case REG_IMC:
        return 0;
    default:
        if (at >= REG_STATS && at < REG_STATS_END) {
            d->reg[at / 4] = 0;
        }
        return value;
    }
}

/* Registers that only keep what is written; the mask of bits that are there. */
static uint32_t kept_bits(uint32_t at)
{
    switch (at) {
    case REG_CTRL_EXT:
    case REG_FCAL:
    case REG_TIPG:
    case REG_LEDCTL:
    case REG_PBA:
    case REG_RXDCTL:
    case REG_TXDCTL:
    case REG_TSPMT:
    case REG_WUC:
    case REG_WUFC:
    case REG_WUS:
    case REG_MANC:
    case REG_RDBAH:
    case REG_TDBAH:
        return 0xffffffff;
    case REG_FCAH:
    case REG_FCT:
    case REG_VET:
    case REG_ITR:
    case REG_FCTTV:
    case REG_AIT:
    case REG_RDTR:
    case REG_RADV:
    case REG_TIDV:
    case REG_TADV:
    case REG_FCRTL:
    case REG_FCRTH:
    case REG_TDH:
    case REG_RDH:
        return 0xffff;
    case REG_RSRPD:
        return 0xfff;
    case REG_RXCSUM:
        return 0x7ff;
    case REG_RDBAL:
    case REG_TDBAL:
        return 0xfffffff0;
    case REG_RDLEN:
    case REG_TDLEN:
        return 0xfff80;
    default:
        return in_table(at) ? 0xffffffff : 0;
    }
}

static void reg_write(struct e1000 *d, uint32_t at, uint32_t value)
{
    switch (at) {
    case REG_CTRL:
        write_ctrl(d, value);
        break;
    case REG_EECD:
        e1000_eecd_write(d, value);
        break;
    case REG_EERD:
        e1000_eerd_write(d, value);
        break;
    case REG_MDIC:
        e1000_mdic_write(d, value);
        break;
    case REG_ICR:
        d->reg[at / 4] &= ~value;
        update_irq(d);
        break;
    case REG_ICS:
        e1000_raise(d, value & 0x1ffff);
        break;
    case REG_IMS:
        d->reg[at / 4] |= value & 0x1ffff;
        update_irq(d);
        break;
    case REG_IMC:
        *e1000_reg(d, REG_IMS) &= ~value;
        update_irq(d);
        break;
    case REG_TCTL:
        d->reg[at / 4] = value;
        e1000_transmit(d);
        break;
    case REG_TDT:
        d->reg[at / 4] = value & 0xffff;
        e1000_transmit(d);
        break;
    case REG_RCTL:
        d->reg[at / 4] = value;
        net_ready(d->net);
        break;
    case REG_RDT:
        d->reg[at / 4] = value & 0xffff;
        net_ready(d->net);
        break;
    default: {
        uint32_t bits = kept_bits(at);
        if (bits != 0) {
            d->reg[at / 4] = value & bits;
        }
    }
    }
}

static uint64_t mmio_read(void *dev, uint64_t offset, unsigned size)
{
    (void)size;
    return reg_read(dev, (uint32_t)offset);
}

static void mmio_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    (void)size;
    reg_write(dev, (uint32_t)offset, (uint32_t)value);
}

static const struct region_ops mmio_ops = {
    .read = mmio_read,
    .write = mmio_write,
    .sizes = ACCESS_4,
};

/* The same registers by an address and a data port (13.2.2). */
static uint64_t io_read(void *dev, uint64_t offset, unsigned size)
{
    struct e1000 *d = dev;
    (void)size;
    if (offset == IO_DATA) {
        return reg_read(d, d->io_address);
    }
    return offset == IO_ADDRESS ? d->io_address : 0;
}

static void io_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct e1000 *d = dev;
    (void)size;
    if (offset == IO_DATA) {
        reg_write(d, d->io_address, (uint32_t)value);
    } else if (offset == IO_ADDRESS) {
        d->io_address = (uint32_t)value & (MMIO_BYTES - 4);
    }
}

static const struct region_ops io_ops = { .read = io_read, .write = io_write, .sizes = ACCESS_4 };

/* -- State ------------------------------------------------------------------------------------- */
static const struct state_field context_state[] = {
    STATE(struct e1000_context, ipcss),
    STATE(struct e1000_context, ipcso),
    STATE(struct e1000_context, ipcse),
    STATE(struct e1000_context, tucss),
    STATE(struct e1000_context, tucso),
    STATE(struct e1000_context, tucse),
    STATE(struct e1000_context, hdrlen),
    STATE(struct e1000_context, mss),
    STATE(struct e1000_context, ip4),
    STATE(struct e1000_context, tcp),
    STATE_END,
};

static const struct state_field e1000_state[] = {
    STATE_STRUCT(struct e1000, pci, pci_func_state),
    STATE_ARRAY(struct e1000, reg),
    STATE_ARRAY(struct e1000, phy),
    STATE(struct e1000, io_address),
    STATE(struct e1000, ee_in),
    STATE(struct e1000, ee_bits),
    STATE(struct e1000, ee_out),
    STATE(struct e1000, ee_reading),
    STATE_STRUCTS(struct e1000, context, context_state),
    STATE(struct e1000, tx_len),
    STATE(struct e1000, tx_tse),
    STATE(struct e1000, tx_popts),
    STATE_BYTES(struct e1000, tx),
    STATE_END,
};

static void e1000_reset(void *dev)
{
    struct e1000 *d = dev;
    memset(d->tx, 0, sizeof d->tx);
    reset_mac(d);
    e1000_phy_reset(d);
    d->io_address = 0;
    pci_func_reset(&d->pci);
}

static int e1000_post_load(void *dev, struct err *e)
{
    struct e1000 *d = dev;
    if (d->tx_len > sizeof d->tx || d->io_address > MMIO_BYTES - 4 || d->io_address % 4 != 0) {
        return err_set(e, -EINVAL, "state has a frame of %u bytes", d->tx_len);
    }
    int r = pci_post_load(&d->pci, e);
    if (r == 0) {
        update_irq(d);
    }
    return r;
}

static const struct dev_class e1000_class = {
    .name = "e1000",
    .version = 1,
    .state = e1000_state,
    .size = sizeof(struct e1000),
    .reset = e1000_reset,
    .post_load = e1000_post_load,
};

void e1000_init(struct e1000 *d, const char *name, struct pci_bus *p, struct bus *b, uint8_t devfn,
                struct net *net, const uint8_t mac[NET_MAC_BYTES])
{
    memset(d, 0, sizeof *d);
    d->net = net;
    e1000_eeprom_fill(d, mac);
    pci_func_init(&d->pci, p, devfn, 0x8086, 0x100e, 0x020000, 2);
    store_le16(d->pci.config + PCI_SUBSYSTEM_VENDOR, 0x8086);
    store_le16(d->pci.config + PCI_SUBSYSTEM, 0x001e);
    d->pci.config[PCI_INTERRUPT_PIN] = 1;
    d->pci.config[0x3e] = 0xff; /* minimum grant */
    pci_add_bar(&d->pci, 0, PCI_BAR_MEM32, MMIO_BYTES, &mmio_ops, d);
    pci_add_bar(&d->pci, 1, PCI_BAR_IO, IO_BYTES, &io_ops, d);
    dev_register(b, &d->pci.dev, &e1000_class, name);
    const struct net_card card = { d, e1000_receive, link_changed };
    net_attach(net, &card);
    e1000_reset(d);
}

void e1000_fini(struct e1000 *d)
{
    if (d->net == NULL) {
        return;
    }
    net_detach(d->net);
    pci_func_fini(&d->pci);
    dev_unregister(&d->pci.dev);
}
