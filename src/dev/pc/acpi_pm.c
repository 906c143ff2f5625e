/* SPDX-License-Identifier: Apache-2.0
 *
 * ACPI 6.4, 4.8 (fixed hardware); the layout of the 82371AB (PIIX4, 290562, 7.1 and 7.2). Of sleep
 * states there is S5. Writes to the APM command port are the only source of SMIs.
 * UNIMPL: the others, so that without SCI_EN events only set status bits; the PIIX4's device
 * monitors and clock control.
 */
#include "dev/pc/acpi_pm.h"

#include <errno.h>

#include "base/bits.h"
#include "base/log.h"
#include "dev/pc/ticks.h"

enum pm_reg {
    PM1_STATUS = 0,
    PM1_ENABLE = 2,
    PM1_CONTROL = 4,
    PM_TIMER = 8,
    GPE_STATUS = 12,
    GPE_ENABLE = 14,
    GLOBAL_CONTROL = 0x28,
};

/* Status and enable */
#define PM1_TIMER (1u << 0)
#define PM1_BUS_MASTER (1u << 4) /* status only */
#define PM1_GLOBAL (1u << 5)
#define PM1_POWER_BUTTON (1u << 8)
#define PM1_SLEEP_BUTTON (1u << 9)
#define PM1_RTC (1u << 10)
#define PM1_WAKE (1u << 15) /* status only */
#define PM1_ENABLES (PM1_TIMER | PM1_GLOBAL | PM1_POWER_BUTTON | PM1_SLEEP_BUTTON | PM1_RTC)
#define PM1_STATUSES (PM1_ENABLES | PM1_BUS_MASTER | PM1_WAKE)

#define GLOBAL_SMI_EN (1u << 0) /* the rest of GLBCTL is storage */

#define CONTROL_SCI_EN (1u << 0)
#define CONTROL_BM_RLD (1u << 1)
#define CONTROL_SLP_TYP(v) ((v) >> 10 & 7)
#define CONTROL_SLP_EN (1u << 13)
/* GBL_RLS and SLP_EN are write-only. */
#define CONTROL_KEPT (CONTROL_SCI_EN | CONTROL_BM_RLD | 7u << 10)

/* -- Timer and events -------------------------------------------------------------------------- */
static unsigned timer_bits(const struct acpi_pm *p) { return p->cfg.timer_32bit ? 32 : 24; }

static uint64_t timer_ticks(const struct acpi_pm *p)
{
    return ns_to_ticks(clock_now_ns(p->cfg.clock), ACPI_PM_TIMER_HZ);
}

/* TMR_STS: the top bit of the timer changed (4.8.3.1.1) */
static void look(struct acpi_pm *p)
{
    uint64_t carries = timer_ticks(p) >> (timer_bits(p) - 1);
    if (carries != p->carries_seen) {
        p->carries_seen = carries;
        p->pm1_status |= PM1_TIMER;
    }
}

static void update(struct acpi_pm *p)
{
    bool on = p->pm1_control & CONTROL_SCI_EN;
    irq_set(&p->cfg.sci, on && ((p->pm1_status & p->pm1_enable & PM1_ENABLES) ||
                                (p->gpe_status & p->gpe_enable)));
    if (on && (p->pm1_enable & ~p->pm1_status & PM1_TIMER)) {
        uint64_t tick = (p->carries_seen + 1) << (timer_bits(p) - 1);
        timer_arm(&p->timer, ticks_to_ns(tick, ACPI_PM_TIMER_HZ));
    } else {
        timer_cancel(&p->timer);
    }
}

static void pm_timer(void *ctx, uint64_t now_ns)
{
    struct acpi_pm *p = ctx;
    (void)now_ns;
    look(p);
    update(p);
}

bool acpi_pm_press_power_button(struct acpi_pm *p)
{
    p->pm1_status |= PM1_POWER_BUTTON;
    update(p);
    return (p->pm1_control & CONTROL_SCI_EN) && (p->pm1_enable & PM1_POWER_BUTTON);
}

void acpi_pm_raise_gpe(struct acpi_pm *p, unsigned gpe)
{
    p->gpe_status |= (uint16_t)BIT(gpe % ACPI_PM_GPES);
    update(p);
}

/* -- Registers --------------------------------------------------------------------------------- */
static uint16_t read16(const struct acpi_pm *p, unsigned reg)
{
    uint64_t count = timer_ticks(p) & MASK64(timer_bits(p));
    switch (reg) {
    case PM1_STATUS:
        return p->pm1_status;
    case PM1_ENABLE:
        return p->pm1_enable;
    case PM1_CONTROL:
        return p->pm1_control;
    case PM_TIMER:
        return (uint16_t)count;
    case PM_TIMER + 2:
        return (uint16_t)(count >> 16);
    case GPE_STATUS:
        return p->gpe_status;
    case GPE_ENABLE:
        return p->gpe_enable;
    case GLOBAL_CONTROL:
        return (uint16_t)p->global_control;
    case GLOBAL_CONTROL + 2:
        return (uint16_t)(p->global_control >> 16);
    default:
        return 0;
    }
}

static void write_control(struct acpi_pm *p, uint16_t v)
{
    p->pm1_control = v & CONTROL_KEPT;
    if (!(v & CONTROL_SLP_EN)) {
        return;
    }
    if (CONTROL_SLP_TYP(v) != ACPI_PM_SLP_TYP_S5) {
        log_guest("acpi_pm", "sleep type %u", CONTROL_SLP_TYP(v));
    } else if (p->cfg.power_off != NULL) {
        p->cfg.power_off(p->cfg.ctx);
    }
}

/* bits: which the guest wrote */
static void write16(struct acpi_pm *p, unsigned reg, uint16_t v, uint16_t bits)
{
    v &= bits;
    switch (reg) {
    case PM1_STATUS:
        p->pm1_status &= (uint16_t)~v;
        break;
    case PM1_ENABLE:
        p->pm1_enable = (uint16_t)((p->pm1_enable & ~bits) | v) & PM1_ENABLES;
        break;
    case PM1_CONTROL:
        write_control(p, (uint16_t)((p->pm1_control & ~bits) | v));
        break;
    case GPE_STATUS:
        p->gpe_status &= (uint16_t)~v;
        break;
    case GPE_ENABLE:
        p->gpe_enable = (uint16_t)((p->gpe_enable & ~bits) | v);
        break;
    case GLOBAL_CONTROL:
    case GLOBAL_CONTROL + 2: {
        unsigned shift = 8 * (reg - GLOBAL_CONTROL);
        p->global_control &= ~((uint32_t)bits << shift);
        p->global_control |= (uint32_t)v << shift;
        break;
    }
    default:
        log_guest("acpi_pm", "write to register %#x", reg);
        break;
    }
}

static uint64_t pm_read(void *dev, uint64_t offset, unsigned size)
{
    struct acpi_pm *p = dev;
    unsigned reg = (unsigned)offset & ~1u;
    look(p);
    update(p);
    uint32_t v = read16(p, reg) | (size == 4 ? (uint32_t)read16(p, reg + 2) << 16 : 0);
    return v >> 8 * (offset & 1);
}

static void pm_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct acpi_pm *p = dev;
    unsigned reg = (unsigned)offset & ~1u;
    look(p);
    if (size == 1) {
        unsigned shift = 8 * (offset & 1);
        write16(p, reg, (uint16_t)(value << shift), (uint16_t)(0xff << shift));
    } else {
        write16(p, reg, (uint16_t)value, 0xffff);
    }
    if (size == 4) {
        write16(p, reg + 2, (uint16_t)(value >> 16), 0xffff);
    }
    update(p);
}

static uint64_t apm_read(void *dev, uint64_t offset, unsigned size)
{
    struct acpi_pm *p = dev;
    (void)size;
    return offset == 0 ? p->apm_control : p->apm_status;
}

/* Handing the events to the operating system, or taking them back, is for the SMI handler. SCI_EN
 * changes even without one: firmware for virtual machines relies on that, as does boot without
 * firmware. */
static void apm_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct acpi_pm *p = dev;
    (void)size;
    if (offset == 1) {
        p->apm_status = (uint8_t)value;
        return;
    }
    p->apm_control = (uint8_t)value;
    if (value == ACPI_PM_ENABLE) {
        p->pm1_control |= CONTROL_SCI_EN;
    } else if (value == ACPI_PM_DISABLE) {
        p->pm1_control &= (uint16_t)~CONTROL_SCI_EN;
    }
    look(p);
    update(p);
    if (p->apm_smi && (p->global_control & GLOBAL_SMI_EN)) {
        irq_pulse(&p->cfg.smi);
    }
}

static const struct region_ops pm_ops = { .read = pm_read,
                                          .write = pm_write,
                                          .sizes = ACCESS_1 | ACCESS_2 | ACCESS_4 };
static const struct region_ops apm_ops = { .read = apm_read,
                                           .write = apm_write,
                                           .sizes = ACCESS_1 };

void acpi_pm_set_base(struct acpi_pm *p, uint16_t base, bool enabled)
{
    region_enable(p->region, false);
    region_move(p->region, base & ~(ACPI_PM_IO_SIZE - 1u));
    region_enable(p->region, enabled);
}

void acpi_pm_enable_apm_smi(struct acpi_pm *p, bool on) { p->apm_smi = on; }

/* -- State ------------------------------------------------------------------------------------- */
static const struct state_field acpi_pm_state[] = {
    STATE(struct acpi_pm, pm1_status),
    STATE(struct acpi_pm, pm1_enable),
    STATE(struct acpi_pm, pm1_control),
    STATE(struct acpi_pm, gpe_status),
    STATE(struct acpi_pm, gpe_enable),
    STATE(struct acpi_pm, apm_control),
    STATE(struct acpi_pm, apm_status),
    STATE(struct acpi_pm, carries_seen),
    STATE_SINCE(2, struct acpi_pm, global_control),
    STATE_END,
};

static void acpi_pm_reset(void *dev)
{
    struct acpi_pm *p = dev;
    look(p);
    p->pm1_status = 0;
    p->pm1_enable = 0;
    p->pm1_control = 0;
    p->gpe_status = 0;
    p->gpe_enable = 0;
    p->apm_control = 0;
    p->apm_status = 0;
    p->global_control = 0;
    update(p);
}

static void acpi_pm_pre_save(void *dev)
{
    struct acpi_pm *p = dev;
    look(p);
    update(p);
}

static int acpi_pm_post_load(void *dev, struct err *e)
{
    struct acpi_pm *p = dev;
    uint64_t carries = timer_ticks(p) >> (timer_bits(p) - 1);
    if ((p->pm1_status & ~PM1_STATUSES) || (p->pm1_enable & ~PM1_ENABLES) ||
        (p->pm1_control & ~CONTROL_KEPT) || p->carries_seen > carries) {
        return err_set(e, -EINVAL, "impossible state");
    }
    update(p);
    return 0;
}

static const struct dev_class acpi_pm_class = {
    .name = "acpi_pm",
    .version = 2,
    .state = acpi_pm_state,
    .size = sizeof(struct acpi_pm),
    .reset = acpi_pm_reset,
    .post_load = acpi_pm_post_load,
    .pre_save = acpi_pm_pre_save,
};

void acpi_pm_init(struct acpi_pm *p, struct bus *b, const struct acpi_pm_config *cfg)
{
    *p = (struct acpi_pm){ .cfg = *cfg };
    timer_init(&p->timer, cfg->clock, pm_timer, p);
    dev_register(b, &p->dev, &acpi_pm_class, "acpi_pm");
    p->region = bus_add_port(b, cfg->base, ACPI_PM_IO_SIZE, &pm_ops, p);
    bus_add_port(b, ACPI_PM_SMI_CMD, 2, &apm_ops, p);
    acpi_pm_reset(p);
}

void acpi_pm_fini(struct acpi_pm *p)
{
    timer_cancel(&p->timer);
    dev_unregister(&p->dev);
}
