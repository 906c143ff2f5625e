/* SPDX-License-Identifier: Apache-2.0
 *
 * Intel 82371SB (PIIX3, 290550): function 0, the PCI-ISA bridge: interrupt router (2.2.11) and
 * reset control (2.5.5). Intel 82371AB (PIIX4, 290562): function 3, power management configuration
 * (7.1); its registers in I/O space are acpi_pm.c's.
 * UNIMPL: DMA and X-bus control, MIRQ lines are storage; IDE and USB functions; SMBus.
 */
#include "dev/pc/piix3.h"

#include <assert.h>

#include "base/bits.h"
#include "base/bytes.h"

enum piix3_reg { REG_PIRQ = 0x60 };
#define PIRQ_OFF 0x80u
#define ISA_ROUTABLE 0xdef8u /* not 0, 1, 2, 8, 13 (290550 2.2.11) */

#define PORT_RESET_CONTROL 0xcf9
enum reset_control { RESET_HARD = 0x02, RESET_CPU = 0x04, RESET_KEPT = 0x0e };

enum piix4_reg { REG_PMBASE = 0x40, REG_DEVACTB = 0x58, REG_PMREGMISC = 0x80 };
#define DEVACTB_APMC_EN (1u << 25)
#define PM_IO_ENABLE 1u
#define PM_BASE_MASK 0xffc0u

/* -- Interrupt router -------------------------------------------------------------------------- */
static void route(struct piix3 *p, uint16_t drive)
{
    uint16_t level = 0;
    for (unsigned n = 0; n < 4; n++) {
        uint8_t reg = p->pci.config[REG_PIRQ + n];
        if ((p->pirq_level & BIT(n)) && !(reg & PIRQ_OFF)) {
            level |= (uint16_t)(BIT(reg & 15) & ISA_ROUTABLE);
        }
    }
    drive |= level ^ p->isa_level;
    p->isa_level = level;
    for (unsigned i = 0; i < PIIX3_ISA_IRQS; i++) {
        if (drive & BIT(i)) {
            irq_set(&p->isa_irq[i], (level & BIT(i)) != 0);
        }
    }
}

static void pirq_set(void *ctx, int n, int level)
{
    struct piix3 *p = ctx;
    p->pirq_level = (uint8_t)((p->pirq_level & ~BIT(n)) | (level != 0 ? BIT(n) : 0));
    route(p, 0);
}

struct irq piix3_pirq(struct piix3 *p, unsigned n)
{
    assert(n < 4);
    return (struct irq){ pirq_set, p, (int)n };
}

static void piix3_config_written(struct pci_func *f, unsigned offset, unsigned size)
{
    (void)offset;
    (void)size;
    route(container_of(f, struct piix3, pci), 0);
}

/* -- Reset control ----------------------------------------------------------------------------- */
static uint64_t reset_read(void *dev, uint64_t offset, unsigned size)
{
    const struct piix3 *p = dev;
    (void)offset;
    (void)size;
    return p->reset_control;
}

/* The rising edge of bit 2 resets; soft or hard is one to a machine without caches to keep. */
static void reset_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct piix3 *p = dev;
    uint8_t old = p->reset_control;
    (void)offset;
    (void)size;
    p->reset_control = value & RESET_KEPT;
    if (~old & p->reset_control & RESET_CPU) {
        irq_pulse(&p->reset);
    }
}

static const struct region_ops reset_ops = {
    .read = reset_read,
    .write = reset_write,
    .sizes = ACCESS_1,
};

/* -- Function 0 -------------------------------------------------------------------------------- */
static const struct state_field piix3_state[] = {
    STATE_STRUCT(struct piix3, pci, pci_func_state),
    STATE(struct piix3, reset_control),
    STATE_END,
};

static void piix3_reset(void *dev)
{
    struct piix3 *p = dev;
    uint8_t *config = p->pci.config;
    p->reset_control = 0;
    pci_func_reset(&p->pci);
    store_le16(config + PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    store_le16(config + PCI_STATUS, 0x0200);
    config[0x4c] = 0x4d; /* IORT */
    config[0x4e] = 0x03; /* XBCS */
    store_le32(config + REG_PIRQ, 0x80808080);
    config[0x69] = 0x02; /* TOM */
    config[0x70] = 0x80; /* MBIRQ0 */
    config[0x76] = 0x0c; /* MBDMA */
    config[0x77] = 0x0c;
    config[0x78] = 0x02; /* PCSC */
    config[0xa0] = 0x08; /* SMICNTL */
    config[0xa8] = 0x0f; /* FTMR */
    route(p, 0xffff);
}

static int piix3_post_load(void *dev, struct err *e)
{
    struct piix3 *p = dev;
    int r = pci_post_load(&p->pci, e);
    if (r < 0) {
        return r;
    }
    p->reset_control &= RESET_KEPT;
    route(p, 0xffff);
    return 0;
}

static const struct dev_class piix3_class = {
    .name = "piix3",
    .version = 1,
    .state = piix3_state,
    .size = sizeof(struct piix3),
    .reset = piix3_reset,
    .post_load = piix3_post_load,
};

void piix3_init(struct piix3 *p, struct bus *b, struct pci_bus *pci,
                const struct irq isa_irq[PIIX3_ISA_IRQS], const struct irq *reset)
{
    static const struct {
        uint8_t reg;
        uint8_t bits;
    } writable[] = {
        { 0x4c, 0x7f }, { 0x4e, 0xff }, { 0x4f, 0x01 }, { 0x60, 0x8f }, { 0x61, 0x8f },
        { 0x62, 0x8f }, { 0x63, 0x8f }, { 0x69, 0xfe }, { 0x6a, 0xff }, { 0x6b, 0xff },
        { 0x70, 0xef }, { 0x71, 0xef }, { 0x76, 0x8f }, { 0x77, 0x8f }, { 0x78, 0xff },
        { 0x79, 0xff }, { 0x80, 0x7f }, { 0x82, 0x0f }, { 0xa0, 0x1f }, { 0xa2, 0xff },
        { 0xa3, 0x01 }, { 0xa4, 0xff }, { 0xa5, 0xff }, { 0xa6, 0xff }, { 0xa7, 0xff },
        { 0xa8, 0xff }, { 0xaa, 0xff }, { 0xac, 0xff }, { 0xae, 0xff },
    };
    *p = (struct piix3){ .reset = *reset };
    for (unsigned i = 0; i < PIIX3_ISA_IRQS; i++) {
        p->isa_irq[i] = isa_irq[i];
    }
    pci_func_init(&p->pci, pci, PCI_DEVFN(1, 0), 0x8086, 0x7000, 0x060100, 0);
    store_le16(p->pci.writable + PCI_COMMAND, PCI_COMMAND_SERR);
    p->pci.writable[PCI_CACHE_LINE] = 0;
    p->pci.writable[PCI_LATENCY] = 0;
    p->pci.writable[PCI_INTERRUPT_LINE] = 0;
    for (unsigned i = 0; i < ARRAY_LEN(writable); i++) {
        p->pci.writable[writable[i].reg] = writable[i].bits;
    }
    p->pci.config_written = piix3_config_written;
    dev_register(b, &p->pci.dev, &piix3_class, "piix3");
    bus_add_port(b, PORT_RESET_CONTROL, 1, &reset_ops, p);
    piix3_reset(p);
}

void piix3_fini(struct piix3 *p)
{
    pci_func_fini(&p->pci);
    dev_unregister(&p->pci.dev);
}

/* -- Function 3 -------------------------------------------------------------------------------- */
enum tell { TELL_CHANGES, TELL_ALWAYS };

static void update_pm(struct piix4_pm *p, enum tell tell)
{
    uint16_t base = load_le16(p->pci.config + REG_PMBASE) & PM_BASE_MASK;
    bool on = (p->pci.config[REG_PMREGMISC] & PM_IO_ENABLE) && base != 0;
    if (tell == TELL_ALWAYS || base != p->base || on != p->on) {
        p->base = base;
        p->on = on;
        if (p->moved != NULL) {
            p->moved(p->ctx, base, on);
        }
    }
    bool smi = (load_le32(p->pci.config + REG_DEVACTB) & DEVACTB_APMC_EN) != 0;
    if (p->apm_smi != NULL && (tell == TELL_ALWAYS || smi != p->smi)) {
        p->apm_smi(p->ctx, smi);
    }
    p->smi = smi;
}

static void pm_config_written(struct pci_func *f, unsigned offset, unsigned size)
{
    (void)offset;
    (void)size;
    update_pm(container_of(f, struct piix4_pm, pci), TELL_CHANGES);
}

static const struct state_field piix4_pm_state[] = {
    STATE_STRUCT(struct piix4_pm, pci, pci_func_state),
    STATE_END,
};

static void piix4_pm_reset(void *dev)
{
    struct piix4_pm *p = dev;
    pci_func_reset(&p->pci);
    store_le16(p->pci.config + PCI_STATUS, 0x0280);
    p->pci.config[REG_PMBASE] = 1;        /* I/O space */
    p->pci.config[0x90] = 1;              /* SMBBASE: I/O space */
    p->pci.config[PCI_INTERRUPT_PIN] = 1; /* SCI, which is IRQ9 whatever the router says */
    update_pm(p, TELL_CHANGES);
}

static int piix4_pm_post_load(void *dev, struct err *e)
{
    struct piix4_pm *p = dev;
    int r = pci_post_load(&p->pci, e);
    if (r < 0) {
        return r;
    }
    update_pm(p, TELL_ALWAYS);
    return 0;
}

static const struct dev_class piix4_pm_class = {
    .name = "piix4_pm",
    .version = 1,
    .state = piix4_pm_state,
    .size = sizeof(struct piix4_pm),
    .reset = piix4_pm_reset,
    .post_load = piix4_pm_post_load,
};

void piix4_pm_init(struct piix4_pm *p, struct bus *b, struct pci_bus *pci,
                   void (*moved)(void *ctx, uint16_t base, bool on),
                   void (*apm_smi)(void *ctx, bool on), void *ctx)
{
    *p = (struct piix4_pm){ .moved = moved, .apm_smi = apm_smi, .ctx = ctx };
    pci_func_init(&p->pci, pci, PCI_DEVFN(1, 3), 0x8086, 0x7113, 0x068000, 3);
    store_le16(p->pci.writable + PCI_COMMAND, PCI_COMMAND_IO);
    p->pci.writable[PCI_CACHE_LINE] = 0;
    p->pci.writable[PCI_LATENCY] = 0;
    store_le16(p->pci.writable + REG_PMBASE, PM_BASE_MASK);
    for (unsigned reg = 0x44; reg < 0x80; reg++) {
        p->pci.writable[reg] = 0xff; /* CNTA to DEVRESJ: device monitors, storage */
    }
    p->pci.writable[REG_PMREGMISC] = PM_IO_ENABLE;
    store_le16(p->pci.writable + 0x90, 0xfff0); /* SMBBASE */
    p->pci.config_written = pm_config_written;
    dev_register(b, &p->pci.dev, &piix4_pm_class, "piix4_pm");
    piix4_pm_reset(p);
    update_pm(p, TELL_ALWAYS);
}

void piix4_pm_fini(struct piix4_pm *p)
{
    pci_func_fini(&p->pci);
    dev_unregister(&p->pci.dev);
}

void piix3_firmware_setup(struct piix3 *p, struct piix4_pm *pm)
{
    store_le32(p->pci.config + REG_PIRQ, 0x0b0b0a0a);
    route(p, 0);
    pm->pci.config[PCI_INTERRUPT_LINE] = 9;
    store_le16(pm->pci.config + REG_PMBASE, PIIX4_PM_BASE | 1);
    pm->pci.config[REG_PMREGMISC] = PM_IO_ENABLE;
    update_pm(pm, TELL_CHANGES);
}
