/* SPDX-License-Identifier: Apache-2.0
 *
 * The local APIC's registers, in memory (SDM 3 11.4.1) and as MSRs (11.12), and IA32_APIC_BASE.
 * A register's number is its offset / 16, which is its MSR number minus 0x800.
 */
#include "base/bits.h"
#include "base/log.h"
#include "dev/pc/apic_bus.h"
#include "dev/pc/lapic_int.h"

enum lapic_reg {
    REG_ID = 0x02,
    REG_VERSION = 0x03,
    REG_TPR = 0x08,
    REG_APR = 0x09,
    REG_PPR = 0x0a,
    REG_EOI = 0x0b,
    REG_RRD = 0x0c,
    REG_LDR = 0x0d,
    REG_DFR = 0x0e,
    REG_SVR = 0x0f,
    REG_ISR = 0x10,
    REG_TMR = 0x18,
    REG_IRR = 0x20,
    REG_ESR = 0x28,
    REG_ICR = 0x30,
    REG_ICR_HIGH = 0x31,
    REG_LVT = 0x32,
    REG_INITIAL = 0x38,
    REG_CURRENT = 0x39,
    REG_DIVIDE = 0x3e,
    REG_SELF_IPI = 0x3f
};

enum lapic_msr { MSR_APIC_BASE = 0x1b, MSR_TSC_DEADLINE = 0x6e0, MSR_X2APIC = 0x800 };

/* Version 0x14, six LVT entries, EOI broadcasts can be suppressed */
#define VERSION (0x14u | (LAPIC_LVTS - 1) << 16 | 1u << 24)

#define ICR_DELIVERY(icr) ((uint8_t)((icr) >> 8 & 7))
#define ICR_LOGICAL (1u << 11)
#define ICR_ASSERT (1u << 14)
#define ICR_LEVEL (1u << 15)
#define ICR_SHORTHAND(icr) ((icr) >> 18 & 3)
/* Without delivery status (12), which is read-only and always idle here */
#define ICR_LOW_WRITABLE 0x000ccfffu

enum icr_shorthand { TO_DEST = 0, TO_SELF = 1, TO_ALL = 2, TO_OTHERS = 3 };

/* -- Interprocessor interrupts, 11.6 ----------------------------------------------------------- */
static void send_ipi(struct lapic *l)
{
    uint32_t low = (uint32_t)l->icr;
    struct apic_msg m = { .delivery = ICR_DELIVERY(low), .vector = (uint8_t)low };
    switch (m.delivery) {
    case APIC_FIXED:
    case APIC_LOWEST:
        if (m.vector < 16) {
            lapic_error(l, ESR_SEND_ILLEGAL);
            return;
        }
        break;
    case APIC_INIT:
        if ((low & (ICR_LEVEL | ICR_ASSERT)) == ICR_LEVEL) {
            return; /* de-assert: only set arbitration ids, long ago */
        }
        break;
    case APIC_SMI:
    case APIC_NMI:
    case APIC_SIPI:
        break;
    default:
        log_guest("lapic", "reserved delivery mode %u in ICR", m.delivery);
        return;
    }
    const struct lapic *except = NULL;
    switch (ICR_SHORTHAND(low)) {
    case TO_SELF:
        lapic_accept(l, &m);
        return;
    case TO_OTHERS:
        except = l;
        m.broadcast = true;
        break;
    case TO_ALL:
        m.broadcast = true;
        break;
    default:
        if (lapic_x2(l)) {
            m.dest = (uint32_t)(l->icr >> 32);
            m.logical = low & ICR_LOGICAL;
            m.broadcast = m.dest == 0xffffffff;
        } else {
            apic_msg_set_dest8(&m, (uint8_t)(l->icr >> 56), low & ICR_LOGICAL);
        }
        break;
    }
    apic_bus_deliver(l->cfg.apics, &m, except);
}

static void self_ipi(struct lapic *l, uint8_t vector)
{
    struct apic_msg m = { .delivery = APIC_FIXED, .vector = vector };
    if (vector < 16) {
        lapic_error(l, ESR_SEND_ILLEGAL);
    } else {
        lapic_accept(l, &m);
    }
}

/* -- Registers --------------------------------------------------------------------------------- */
/* False: there is none of this number. */
static bool reg_read(const struct lapic *l, unsigned reg, uint32_t *v)
{
    *v = 0;
    if (reg >= REG_ISR && reg < REG_ESR) {
        const uint32_t *vec = reg < REG_TMR ? l->isr : reg < REG_IRR ? l->tmr : l->irr;
        *v = vec[reg & 7];
        return true;
    }
    if (reg >= REG_LVT && reg < REG_LVT + LAPIC_LVTS) {
        *v = l->lvt[reg - REG_LVT];
        return true;
    }
    switch (reg) {
    case REG_ID:
        *v = lapic_x2(l) ? l->cfg.apic_id : (uint32_t)l->id << 24;
        break;
    case REG_VERSION:
        *v = VERSION;
        break;
    case REG_TPR:
        *v = l->tpr;
        break;
    case REG_PPR:
        *v = lapic_ppr(l);
        break;
    case REG_APR:
    case REG_EOI:
    case REG_RRD:
        break;
    case REG_LDR:
        *v = lapic_logical_id(l);
        break;
    case REG_DFR:
        *v = l->dfr;
        break;
    case REG_SVR:
        *v = l->svr;
        break;
    case REG_ESR:
        *v = l->esr;
        break;
    case REG_ICR:
        *v = (uint32_t)l->icr;
        break;
    case REG_ICR_HIGH:
        *v = (uint32_t)(l->icr >> 32);
        break;
    case REG_INITIAL:
        *v = l->timer_initial;
        break;
    case REG_CURRENT:
        *v = lapic_timer_current(l);
        break;
    case REG_DIVIDE:
        *v = l->divide;
        break;
    default:
        return false;
    }
    return true;
}

static void write_lvt(struct lapic *l, enum lapic_lvt entry, uint32_t v)
{
    uint32_t writable = lapic_lvt_writable(l, entry);
    uint32_t lvt = v & writable;
    if (!(l->svr & SVR_ENABLE)) {
        lvt |= LVT_MASKED; /* 11.4.7.2 */
    }
    if (entry == LAPIC_LVT_TIMER) {
        lapic_timer_set_lvt(l, lvt);
        return;
    }
    if (entry == LAPIC_LVT_LINT0 && (lvt & LVT_LEVEL)) {
        lvt |= l->lvt[entry] & LVT_REMOTE_IRR;
    }
    l->lvt[entry] = lvt;
    lapic_service_lint(l, 0);
    lapic_update(l); /* ExtINT may be let through now, or no longer */
}

static void write_svr(struct lapic *l, uint32_t v)
{
    l->svr = v & SVR_WRITABLE;
    if (!(l->svr & SVR_ENABLE)) {
        for (unsigned i = 0; i < LAPIC_LVTS; i++) {
            l->lvt[i] |= LVT_MASKED;
        }
    }
    lapic_update(l);
}

/* Of registers that can be written in both modes. False: not one of them. */
static bool reg_write(struct lapic *l, unsigned reg, uint32_t v)
{
    if (reg >= REG_LVT && reg < REG_LVT + LAPIC_LVTS) {
        write_lvt(l, (enum lapic_lvt)(reg - REG_LVT), v);
        return true;
    }
    switch (reg) {
    case REG_TPR:
        l->tpr = (uint8_t)v;
        lapic_update(l);
        break;
    case REG_EOI:
        lapic_eoi(l);
        break;
    case REG_SVR:
        write_svr(l, v);
        break;
    case REG_ESR: /* a write makes visible what has gathered */
        l->esr = l->esr_latent;
        l->esr_latent = 0;
        break;
    case REG_INITIAL:
        lapic_timer_set_initial(l, v);
        break;
    case REG_DIVIDE:
        lapic_timer_set_divide(l, v);
        break;
    default:
        return false;
    }
    return true;
}

/* -- Memory-mapped ----------------------------------------------------------------------------- */
uint64_t lapic_mmio_read(struct lapic *l, uint64_t offset, unsigned size)
{
    uint32_t v;
    unsigned reg = (unsigned)(offset % LAPIC_PAGE) / 16;
    unsigned byte = offset % 16;
    if (reg == REG_CURRENT) {
        lapic_timer_poll(l);
    }
    if (!reg_read(l, reg, &v)) {
        lapic_error(l, ESR_ILLEGAL_REGISTER);
    }
    return byte < 4 ? (uint64_t)v >> 8 * byte & MASK64(8 * size) : 0;
}

void lapic_mmio_write(struct lapic *l, uint64_t offset, unsigned size, uint64_t value)
{
    uint32_t v = (uint32_t)value;
    unsigned reg = (unsigned)(offset % LAPIC_PAGE) / 16;
    if (size != 4 || offset % 16 != 0) {
        log_guest("lapic", "%u-byte write at %#x", size, (unsigned)offset);
        return;
    }
    uint32_t ignored;
    switch (reg) {
    case REG_ID:
        l->id = (uint8_t)(v >> 24);
        break;
    case REG_LDR:
        l->ldr = v & 0xff000000;
        break;
    case REG_DFR:
        l->dfr = v | 0x0fffffff;
        break;
    case REG_ICR:
        l->icr = (l->icr & ~0xffffffffull) | (v & ICR_LOW_WRITABLE);
        send_ipi(l);
        break;
    case REG_ICR_HIGH:
        l->icr = (uint32_t)l->icr | (uint64_t)(v & 0xff000000) << 32;
        break;
    default:
        if (!reg_write(l, reg, v) && !reg_read(l, reg, &ignored)) {
            lapic_error(l, ESR_ILLEGAL_REGISTER); /* read-only registers just ignore writes */
        }
        break;
    }
}

/* -- MSRs -------------------------------------------------------------------------------------- */
static bool x2_read(struct lapic *l, unsigned reg, uint64_t *value)
{
    uint32_t v;
    switch (reg) {
    case REG_ICR:
        *value = l->icr;
        return true;
    case REG_APR:
    case REG_EOI:
    case REG_RRD:
    case REG_DFR:
    case REG_ICR_HIGH:
        return false; /* write-only, or not there in this mode (table 11-6) */
    default:
        if (reg == REG_CURRENT) {
            lapic_timer_poll(l);
        }
        *value = 0;
        if (!reg_read(l, reg, &v)) {
            return false;
        }
        *value = v;
        return true;
    }
}

/* Bits that may be 1 in a write; 0: EOI and ESR take only 0. Reserved ones give #GP (11.12.1.2). */
static bool x2_writable(const struct lapic *l, unsigned reg, uint64_t *bits)
{
    if (reg >= REG_LVT && reg < REG_LVT + LAPIC_LVTS) {
        /* The read-only bits may be written as they were read. */
        bool lint = reg - REG_LVT == LAPIC_LVT_LINT0 || reg - REG_LVT == LAPIC_LVT_LINT1;
        *bits = lapic_lvt_writable(l, (enum lapic_lvt)(reg - REG_LVT)) | 1u << 12 |
                (lint ? LVT_REMOTE_IRR : 0);
        return true;
    }
    switch (reg) {
    case REG_TPR:
    case REG_SELF_IPI:
        *bits = 0xff;
        return true;
    case REG_EOI:
    case REG_ESR:
        *bits = 0;
        return true;
    case REG_SVR:
        *bits = SVR_WRITABLE;
        return true;
    case REG_ICR:
        *bits = 0xffffffffull << 32 | ICR_LOW_WRITABLE | 1u << 12;
        return true;
    case REG_INITIAL:
        *bits = 0xffffffff;
        return true;
    case REG_DIVIDE:
        *bits = 0xb;
        return true;
    default:
        return false;
    }
}

static bool x2_write(struct lapic *l, unsigned reg, uint64_t value)
{
    uint64_t bits;
    if (!x2_writable(l, reg, &bits) || (value & ~bits)) {
        return false;
    }
    if (reg == REG_ICR) {
        l->icr = (value & ~0xffffffffull) | (value & ICR_LOW_WRITABLE);
        send_ipi(l);
        return true;
    }
    if (reg == REG_SELF_IPI) {
        self_ipi(l, (uint8_t)value);
        return true;
    }
    return reg_write(l, reg, (uint32_t)value);
}

static uint64_t base_writable(const struct lapic *l)
{
    return LAPIC_BASE_BSP | LAPIC_BASE_EN | (l->cfg.x2apic ? LAPIC_BASE_X2 : 0) |
           (MASK64(l->cfg.phys_bits) & ~(uint64_t)(LAPIC_PAGE - 1));
}

/* Table 11-5: which transitions there are. Disabling loses everything but the id (11.4.3). */
static bool write_base(struct lapic *l, uint64_t v)
{
    const uint64_t mode = LAPIC_BASE_EN | LAPIC_BASE_X2;
    uint64_t from = l->base & mode;
    uint64_t to = v & mode;
    if ((v & ~base_writable(l)) || to == LAPIC_BASE_X2 || (from == 0 && to == mode) ||
        (from == mode && to == LAPIC_BASE_EN)) {
        return false;
    }
    l->base = v;
    if (from != 0 && to == 0) {
        lapic_reset_regs(l);
        l->id = (uint8_t)l->cfg.apic_id;
    } else if (from != mode && to == mode) {
        l->icr &= 0xffffffff; /* its destination means something else now */
    }
    lapic_update(l);
    return true;
}

bool lapic_msr_read(struct lapic *l, uint32_t msr, uint64_t *value)
{
    switch (msr) {
    case MSR_APIC_BASE:
        *value = l->base;
        return true;
    case MSR_TSC_DEADLINE:
        *value = lapic_timer_deadline(l);
        return l->cfg.tsc_deadline;
    default:
        return msr - MSR_X2APIC < 0x100 && lapic_x2(l) && x2_read(l, msr - MSR_X2APIC, value);
    }
}

bool lapic_msr_write(struct lapic *l, uint32_t msr, uint64_t value)
{
    switch (msr) {
    case MSR_APIC_BASE:
        return write_base(l, value);
    case MSR_TSC_DEADLINE:
        if (!l->cfg.tsc_deadline) {
            return false;
        }
        lapic_timer_set_deadline(l, value);
        return true;
    default:
        return msr - MSR_X2APIC < 0x100 && lapic_x2(l) && x2_write(l, msr - MSR_X2APIC, value);
    }
}

/* -- All at once ------------------------------------------------------------------------------- */

void lapic_give(struct lapic *l, struct chip_lapic *out)
{
    lapic_timer_poll(l);
    *out = (struct chip_lapic){ .base = l->base, .tsc_deadline = lapic_timer_deadline(l) };
    for (unsigned reg = 0; reg < ARRAY_LEN(out->reg); reg++) {
        (void)!reg_read(l, reg, &out->reg[reg]);
    }
    timer_cancel(&l->timer);
    l->asleep = true;
    lapic_update(l);
}

static void take_vectors(uint32_t to[8], const uint32_t *from)
{
    for (unsigned i = 0; i < 8; i++) {
        to[i] = from[i] & (i == 0 ? 0xffff0000 : 0xffffffff);
    }
}

/* Also what a register of ours cannot hold is left out: post_load's rules hold afterwards. */
void lapic_take(struct lapic *l, const struct chip_lapic *in)
{
    const uint32_t *reg = in->reg;
    l->base = in->base & base_writable(l);
    l->id = lapic_x2(l) ? (uint8_t)l->cfg.apic_id : (uint8_t)(reg[REG_ID] >> 24);
    l->tpr = (uint8_t)reg[REG_TPR];
    l->ldr = lapic_x2(l) ? l->ldr : reg[REG_LDR] & 0xff000000;
    l->dfr = lapic_x2(l) ? l->dfr : reg[REG_DFR] | 0x0fffffff;
    l->svr = reg[REG_SVR] & SVR_WRITABLE;
    l->esr = reg[REG_ESR];
    l->icr = (uint64_t)reg[REG_ICR_HIGH] << 32 | (reg[REG_ICR] & ICR_LOW_WRITABLE);
    for (unsigned i = 0; i < LAPIC_LVTS; i++) {
        uint32_t kept = lapic_lvt_writable(l, i) | (i == LAPIC_LVT_LINT0 ? LVT_REMOTE_IRR : 0);
        l->lvt[i] = (reg[REG_LVT + i] & kept) | (l->svr & SVR_ENABLE ? 0 : LVT_MASKED);
    }
    take_vectors(l->isr, &reg[REG_ISR]);
    take_vectors(l->tmr, &reg[REG_TMR]);
    take_vectors(l->irr, &reg[REG_IRR]);
    l->asleep = false;
    lapic_timer_take(l, reg[REG_INITIAL], reg[REG_CURRENT], reg[REG_DIVIDE], in->tsc_deadline);
    l->intr = false; /* and tell the CPU anew */
    l->cfg.out.intr(l->cfg.out.ctx, 0);
    lapic_update(l);
}
