/* SPDX-License-Identifier: Apache-2.0
 *
 * The controller: generic and port registers (AHCI 1.3.1, chapter 3), interrupts, the PCI function.
 * UNIMPL: port multipliers, hot plug, power management of links, coalescing, enclosure management,
 * the I/O window on the registers.
 */
#include "dev/pc/ahci.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "dev/pc/ahci_int.h"
#include "dev/pc/ide_int.h"

#define ABAR 5u
#define ABAR_BYTES KIB(4)
#define PORT_BASE 0x100u
#define PORT_BYTES 0x80u

enum hba_reg { REG_CAP = 0x00, REG_GHC = 0x04, REG_IS = 0x08, REG_PI = 0x0c, REG_VS = 0x10 };
#define VERSION_1_3_1 0x00010301u
/* Queuing, 64 bits, command list override, 6 Gb/s, AHCI only, PIO with many blocks, 32 slots. */
#define CAP (0xc1348000u | (AHCI_SLOTS - 1) << 8 | (AHCI_PORTS - 1))

enum ghc { GHC_HR = 1u << 0, GHC_IE = 1u << 1, GHC_AE = 1u << 31 };

enum port_reg {
    PX_CLB = 0x00,
    PX_CLBU = 0x04,
    PX_FB = 0x08,
    PX_FBU = 0x0c,
    PX_IS = 0x10,
    PX_IE = 0x14,
    PX_CMD = 0x18,
    PX_TFD = 0x20,
    PX_SIG = 0x24,
    PX_SSTS = 0x28,
    PX_SCTL = 0x2c,
    PX_SERR = 0x30,
    PX_SACT = 0x34,
    PX_CI = 0x38,
};

#define CLB_MASK 0xfffffc00u
#define FB_MASK 0xffffff00u
#define IE_BITS 0xfdc000ffu
#define CMD_KEPT (CMD_ST | CMD_FRE | CMD_ATAPI | CMD_DLAE)
#define SERR_X (1u << 26)
#define SERR_N (1u << 16)
#define SCTL_BITS 0xfffu
#define SCTL_DET 0xfu
enum scontrol_det { DET_NONE = 0, DET_COMRESET = 1, DET_OFFLINE = 4 };

/* -- Interrupts -------------------------------------------------------------------------------- */
static uint32_t port_is(const struct ahci_port *p)
{
    return p->is | (p->serr & SERR_X ? IS_PCS : 0u) | (p->serr & SERR_N ? IS_PRCS : 0u);
}

/* An MSI goes out for each port that is new in IS, or newly allowed to. */
static void notify(struct ahci *h, uint32_t fresh)
{
    bool enabled = h->ghc & GHC_IE, msi = pci_msi_enabled(&h->pci);
    if (msi && enabled && fresh != 0) {
        pci_msi_notify(&h->pci, 0);
    }
    pci_set_intx(&h->pci, !msi && enabled && h->is != 0);
}

/* A port's bit in IS is set while its interrupts are, and stays until it is cleared (10.7.2). */
void ahci_update(struct ahci *h)
{
    uint32_t before = h->is;
    for (unsigned n = 0; n < AHCI_PORTS; n++) {
        h->is |= (port_is(&h->port[n]) & h->port[n].ie) != 0 ? 1u << n : 0;
    }
    notify(h, h->is & ~before);
}

/* -- Port registers ---------------------------------------------------------------------------- */
static uint32_t read_ssts(const struct ahci_port *p)
{
    uint32_t det = p->sctl & SCTL_DET;
    uint32_t limit = p->sctl >> 4 & 0xf;
    uint32_t generation = limit >= 1 && limit <= 3 ? limit : 3;
    if (det == DET_OFFLINE) {
        return DET_OFFLINE;
    }
    return det == DET_NONE && p->drive.kind != IDE_NONE ? 0x103 | generation << 4 : 0;
}

static uint32_t read_cmd(const struct ahci_port *p)
{
    return p->cmd | CMD_SUD | CMD_POD | (uint32_t)p->slot << CMD_CCS_SHIFT |
           (p->cmd & CMD_FRE ? CMD_FR : 0u) | (p->cmd & CMD_ST ? CMD_CR : 0u);
}

static uint32_t port_read(const struct ahci_port *p, unsigned reg)
{
    switch (reg) {
    case PX_CLB:
        return (uint32_t)p->clb;
    case PX_CLBU:
        return (uint32_t)(p->clb >> 32);
    case PX_FB:
        return (uint32_t)p->fb;
    case PX_FBU:
        return (uint32_t)(p->fb >> 32);
    case PX_IS:
        return port_is(p);
    case PX_IE:
        return p->ie;
    case PX_CMD:
        return read_cmd(p);
    case PX_TFD:
        return p->tfd;
    case PX_SIG:
        return p->sig;
    case PX_SSTS:
        return read_ssts(p);
    case PX_SCTL:
        return p->sctl;
    case PX_SERR:
        return p->serr;
    case PX_SACT:
        return p->sact;
    case PX_CI:
        return p->ci;
    default:
        return 0;
    }
}

static void write_cmd(struct ahci_port *p, uint32_t v)
{
    uint32_t fallen = p->cmd & ~v;
    p->cmd = v & CMD_KEPT;
    if (v & CMD_CLO) {
        p->tfd &= ~(uint32_t)(ST_BSY | ST_DRQ);
    }
    if (fallen & CMD_ST) {
        ahci_port_stop(p);
        p->ci = p->sact = 0;
        p->slot = 0;
        p->halted = false;
    }
    ahci_port_greet(p);
    ahci_port_run(p);
}

static void write_sctl(struct ahci_port *p, uint32_t v)
{
    uint32_t before = p->sctl & SCTL_DET, det = v & SCTL_DET;
    p->sctl = v & SCTL_BITS;
    if (det == DET_COMRESET && before != DET_COMRESET) {
        ahci_port_stop(p);
        p->tfd = 0x7f;
        p->sig = 0xffffffff;
    } else if (before == DET_COMRESET && det == DET_NONE) {
        ahci_port_comreset(p);
        p->serr |= p->drive.kind != IDE_NONE ? SERR_X | SERR_N : 0;
    }
}

static void set_low(uint64_t *reg, uint32_t v) { *reg = (*reg & ~MASK64(32)) | v; }
static void set_high(uint64_t *reg, uint32_t v) { *reg = (*reg & MASK64(32)) | (uint64_t)v << 32; }

static void port_write(struct ahci_port *p, unsigned reg, uint32_t v)
{
    switch (reg) {
    case PX_CLB:
        set_low(&p->clb, v & CLB_MASK);
        break;
    case PX_CLBU:
        set_high(&p->clb, v);
        break;
    case PX_FB:
        set_low(&p->fb, v & FB_MASK);
        break;
    case PX_FBU:
        set_high(&p->fb, v);
        break;
    case PX_IS:
        p->is &= ~v;
        break;
    case PX_IE:
        p->ie = v & IE_BITS;
        break;
    case PX_CMD:
        write_cmd(p, v);
        break;
    case PX_SCTL:
        write_sctl(p, v);
        break;
    case PX_SERR:
        p->serr &= ~v;
        break;
    case PX_SACT: /* both can only be set, and only while the list is processed (3.3.13) */
        p->sact |= p->cmd & CMD_ST ? v : 0;
        break;
    case PX_CI:
        p->ci |= p->cmd & CMD_ST ? v : 0;
        ahci_port_run(p);
        break;
    default:
        break;
    }
}

/* -- The controller's own ---------------------------------------------------------------------- */
static void reset_ports(struct ahci *h)
{
    h->ghc = GHC_AE;
    h->is = 0;
    for (unsigned n = 0; n < AHCI_PORTS; n++) {
        ahci_port_reset(&h->port[n]);
    }
}

static uint64_t mmio_read(void *dev, uint64_t offset, unsigned size)
{
    struct ahci *h = dev;
    (void)size;
    if (offset >= PORT_BASE) {
        uint64_t n = (offset - PORT_BASE) / PORT_BYTES;
        return n < AHCI_PORTS ? port_read(&h->port[n], (unsigned)offset % PORT_BYTES) : 0;
    }
    switch (offset) {
    case REG_CAP:
        return CAP;
    case REG_GHC:
        return h->ghc;
    case REG_IS:
        return h->is;
    case REG_PI:
        return (1u << AHCI_PORTS) - 1;
    case REG_VS:
        return VERSION_1_3_1;
    default:
        return 0;
    }
}

static void mmio_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct ahci *h = dev;
    uint32_t v = (uint32_t)value;
    (void)size;
    if (offset >= PORT_BASE) {
        uint64_t n = (offset - PORT_BASE) / PORT_BYTES;
        if (n < AHCI_PORTS) {
            port_write(&h->port[n], (unsigned)offset % PORT_BYTES, v);
        }
    } else if (offset == REG_GHC && (v & GHC_HR)) {
        reset_ports(h);
    } else if (offset == REG_GHC) {
        bool rises = ~h->ghc & v & GHC_IE;
        h->ghc = GHC_AE | (v & GHC_IE);
        notify(h, rises ? h->is : 0);
    } else if (offset == REG_IS) {
        h->is &= ~v;
    }
    ahci_update(h);
}

static const struct region_ops mmio_ops = {
    .read = mmio_read,
    .write = mmio_write,
    .sizes = ACCESS_4,
};

/* -- State ------------------------------------------------------------------------------------- */
static const struct state_field port_state[] = {
    STATE(struct ahci_port, clb),
    STATE(struct ahci_port, fb),
    STATE(struct ahci_port, is),
    STATE(struct ahci_port, ie),
    STATE(struct ahci_port, cmd),
    STATE(struct ahci_port, tfd),
    STATE(struct ahci_port, sig),
    STATE(struct ahci_port, sctl),
    STATE(struct ahci_port, serr),
    STATE(struct ahci_port, sact),
    STATE(struct ahci_port, ci),
    STATE(struct ahci_port, slot),
    STATE(struct ahci_port, halted),
    STATE(struct ahci_port, greeting),
    STATE(struct ahci_port, srst),
    STATE_STRUCT(struct ahci_port, drive, ide_drive_state),
    STATE_END,
};

static const struct state_field ahci_state[] = {
    STATE_STRUCT(struct ahci, pci, pci_func_state),
    STATE(struct ahci, ghc),
    STATE(struct ahci, is),
    STATE_STRUCTS(struct ahci, port, port_state),
    STATE_END,
};

static void ahci_reset(void *dev)
{
    struct ahci *h = dev;
    pci_func_reset(&h->pci);
    reset_ports(h);
    for (unsigned n = 0; n < AHCI_PORTS; n++) {
        h->port[n].clb = h->port[n].fb = 0;
        ide_drive_power_on(&h->port[n].drive);
    }
}

/* Commands under way are finished, and those that wait for them in CI. */
static void ahci_quiesce(void *dev)
{
    struct ahci *h = dev;
    for (unsigned n = 0; n < AHCI_PORTS; n++) {
        struct ahci_port *p = &h->port[n];
        while (p->queued != 0 || p->drive.in_flight) {
            block_queue_drain(p->drive.queue);
        }
    }
}

static bool port_valid(const struct ahci_port *p)
{
    return ide_drive_valid(&p->drive) && p->slot < AHCI_SLOTS && (p->cmd & ~CMD_KEPT) == 0 &&
           (p->clb & ~CLB_MASK & MASK64(32)) == 0 && (p->fb & ~FB_MASK & MASK64(32)) == 0;
}

static int ahci_post_load(void *dev, struct err *e)
{
    struct ahci *h = dev;
    int r = pci_post_load(&h->pci, e);
    if (r < 0) {
        return r;
    }
    for (unsigned n = 0; n < AHCI_PORTS; n++) {
        ahci_port_forget(&h->port[n]); /* commands of the life before */
        if (!port_valid(&h->port[n])) {
            return err_set(e, -EINVAL, "impossible state");
        }
    }
    ahci_update(h);
    return 0;
}

static const struct dev_class ahci_class = {
    .name = "ahci",
    .version = 1,
    .state = ahci_state,
    .size = sizeof(struct ahci),
    .reset = ahci_reset,
    .post_load = ahci_post_load,
    .quiesce = ahci_quiesce,
};

void ahci_init(struct ahci *h, const char *name, struct pci_bus *p, struct bus *b, uint8_t devfn,
               const struct ide_drive_config drives[AHCI_PORTS])
{
    memset(h, 0, sizeof *h);
    h->mem = bus_mem(b);
    pci_func_init(&h->pci, p, devfn, 0x8086, 0x2922, 0x010601, 2);
    store_le16(h->pci.config + PCI_SUBSYSTEM_VENDOR, 0x8086);
    store_le16(h->pci.config + PCI_SUBSYSTEM, 0x2922);
    h->pci.config[PCI_INTERRUPT_PIN] = 1;
    pci_add_bar(&h->pci, ABAR, PCI_BAR_MEM32, ABAR_BYTES, &mmio_ops, h);
    pci_add_msi(&h->pci, 1);
    dev_register(b, &h->pci.dev, &ahci_class, name);
    for (unsigned n = 0; n < AHCI_PORTS; n++) {
        ahci_port_init(&h->port[n], h, n, &drives[n]);
    }
    ahci_reset(h);
}

void ahci_fini(struct ahci *h)
{
    for (unsigned n = 0; n < AHCI_PORTS; n++) {
        ahci_port_forget(&h->port[n]);
    }
    pci_func_fini(&h->pci);
    dev_unregister(&h->pci.dev);
}
