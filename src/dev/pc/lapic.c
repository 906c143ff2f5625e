/* SPDX-License-Identifier: Apache-2.0
 *
 * Local APIC: acceptance, priorities, the local vector table, state (SDM 3 11.5 to 11.8).
 * Registers are in lapic_reg.c, the timer in lapic_timer.c.
 *
 * UNIMPL: CMCI entry (the version register says six entries), arbitration priority (as in all
 * processors since the Pentium 4), delivery status (messages arrive at once).
 */
#include "dev/pc/lapic.h"

#include <errno.h>
#include <stdio.h>

#include "base/bits.h"
#include "base/log.h"
#include "dev/pc/apic_bus.h"
#include "dev/pc/lapic_int.h"

#define NONE (-1)
#define FIRST_LEGAL_VECTOR 16u
#define DFR_CLUSTER 0x0u
#define SVR_RESET 0xffu

/* -- 256-bit registers ------------------------------------------------------------------------- */
static bool vec_test(const uint32_t reg[8], unsigned v) { return reg[v / 32] >> v % 32 & 1; }
static void vec_set(uint32_t reg[8], unsigned v) { reg[v / 32] |= 1u << v % 32; }
static void vec_clear(uint32_t reg[8], unsigned v) { reg[v / 32] &= ~(1u << v % 32); }

static int vec_highest(const uint32_t reg[8])
{
    for (int i = 7; i >= 0; i--) {
        if (reg[i] != 0) {
            return i * 32 + 31 - __builtin_clz(reg[i]);
        }
    }
    return NONE;
}

/* -- Priorities, 11.8.3 ------------------------------------------------------------------------ */
uint8_t lapic_ppr(const struct lapic *l)
{
    int isr = vec_highest(l->isr);
    unsigned class = isr == NONE ? 0 : (unsigned)isr & 0xf0;
    return (l->tpr & 0xf0u) >= class ? l->tpr : (uint8_t) class;
}

/* The interrupt that the processor would take, NONE when priorities bar all. */
static int deliverable(const struct lapic *l)
{
    int irr = lapic_on(l) ? vec_highest(l->irr) : NONE;
    return irr != NONE && (irr & 0xf0) > (lapic_ppr(l) & 0xf0) ? irr : NONE;
}

/* The 8259 asks: by a pin that is ExtINT, by a message of an IOAPIC, or past a disabled APIC. */
static bool extint_active(const struct lapic *l)
{
    if (!lapic_on(l)) {
        return l->lint[0]; /* 11.4.3: LINT0 is the INTR pin */
    }
    for (unsigned pin = 0; pin < 2; pin++) {
        uint32_t lvt = l->lvt[LAPIC_LVT_LINT0 + pin];
        if (l->lint[pin] && !(lvt & LVT_MASKED) && LVT_DELIVERY(lvt) == APIC_EXTINT) {
            return true;
        }
    }
    return l->extint;
}

void lapic_update(struct lapic *l)
{
    bool intr = !l->asleep && (deliverable(l) != NONE || extint_active(l));
    if (intr != l->intr) {
        l->intr = intr;
        l->cfg.out.intr(l->cfg.out.ctx, intr);
    }
}

int lapic_ack(struct lapic *l)
{
    int vector = NONE;
    if (extint_active(l)) {
        l->extint = false;
        vector = l->cfg.out.extint(l->cfg.out.ctx);
    }
    if (vector == NONE) {
        vector = deliverable(l);
        if (vector != NONE) {
            vec_clear(l->irr, (unsigned)vector);
            vec_set(l->isr, (unsigned)vector);
        }
    }
    lapic_update(l);
    return vector;
}

uint8_t lapic_get_tpr(const struct lapic *l) { return l->tpr >> 4; }

void lapic_set_tpr(struct lapic *l, uint8_t cr8)
{
    l->tpr = (uint8_t)(cr8 << 4);
    lapic_update(l);
}

/* -- Acceptance, 11.8.4 ------------------------------------------------------------------------ */
static void accept_vector(struct lapic *l, unsigned vector, bool level)
{
    vec_set(l->irr, vector);
    if (level) {
        vec_set(l->tmr, vector);
    } else {
        vec_clear(l->tmr, vector);
    }
    lapic_update(l);
}

/* The error interrupt is an event of the vector table; should its own vector be illegal, that is
 * noted but raises no further one. */
void lapic_error(struct lapic *l, enum lapic_error bit)
{
    l->esr_latent |= bit;
    uint32_t lvt = l->lvt[LAPIC_LVT_ERROR];
    if (lvt & LVT_MASKED) {
        return;
    }
    if ((lvt & LVT_VECTOR) < FIRST_LEGAL_VECTOR) {
        l->esr_latent |= ESR_RECEIVE_ILLEGAL;
    } else {
        accept_vector(l, lvt & LVT_VECTOR, false);
    }
}

static void accept_fixed(struct lapic *l, unsigned vector, bool level)
{
    if (vector < FIRST_LEGAL_VECTOR) {
        lapic_error(l, ESR_RECEIVE_ILLEGAL);
    } else {
        accept_vector(l, vector, level);
    }
}

bool lapic_accepts_fixed(const struct lapic *l) { return lapic_on(l) && (l->svr & SVR_ENABLE); }
unsigned lapic_priority(const struct lapic *l) { return lapic_ppr(l); }

bool lapic_accept(struct lapic *l, const struct apic_msg *m)
{
    const struct lapic_out *out = &l->cfg.out;
    if (!lapic_on(l)) {
        return false;
    }
    switch (m->delivery) {
    case APIC_FIXED:
    case APIC_LOWEST:
        if (!lapic_accepts_fixed(l)) {
            return false;
        }
        accept_fixed(l, m->vector, m->level);
        return true;
    case APIC_EXTINT:
        if (!lapic_accepts_fixed(l)) {
            return false;
        }
        l->extint = true;
        lapic_update(l);
        return true;
    case APIC_SMI: /* these four are taken while disabled by software, too (11.4.7.2) */
        out->smi(out->ctx);
        return true;
    case APIC_NMI:
        out->nmi(out->ctx);
        return true;
    case APIC_INIT:
        lapic_reset_regs(l);
        out->init(out->ctx);
        return true;
    case APIC_SIPI:
        out->sipi(out->ctx, m->vector);
        return true;
    default:
        return false;
    }
}

/* -- Destinations, 11.6.2 ---------------------------------------------------------------------- */
uint32_t lapic_logical_id(const struct lapic *l)
{
    if (lapic_x2(l)) {
        return l->cfg.apic_id >> 4 << 16 | 1u << (l->cfg.apic_id & 15);
    }
    return l->ldr;
}

/* An address of 8 bits reaches APICs in x2APIC mode as well: those of cluster 0. */
static bool matches_logical(const struct lapic *l, uint32_t dest)
{
    if (lapic_x2(l)) {
        uint32_t id = lapic_logical_id(l);
        return dest >> 16 == id >> 16 && (dest & id & 0xffff);
    }
    uint32_t id = l->ldr >> 24;
    if (l->dfr >> 28 == DFR_CLUSTER) {
        return dest >> 4 == id >> 4 && (dest & id & 15);
    }
    return (dest & id) != 0;
}

bool lapic_matches(const struct lapic *l, const struct apic_msg *m)
{
    if (m->broadcast) {
        return true;
    }
    if (m->logical) {
        return matches_logical(l, m->dest);
    }
    return m->dest == (lapic_x2(l) ? l->cfg.apic_id : l->id);
}

/* -- Local vector table, 11.5.1 ---------------------------------------------------------------- */
uint32_t lapic_lvt_writable(const struct lapic *l, enum lapic_lvt entry)
{
    switch (entry) {
    case LAPIC_LVT_TIMER:
        return LVT_VECTOR | LVT_MASKED | (l->cfg.tsc_deadline ? 3u : 1u) << 17;
    case LAPIC_LVT_LINT0:
    case LAPIC_LVT_LINT1:
        return LVT_VECTOR | 7u << 8 | LVT_POLARITY | LVT_LEVEL | LVT_MASKED;
    case LAPIC_LVT_ERROR:
        return LVT_VECTOR | LVT_MASKED;
    default:
        return LVT_VECTOR | 7u << 8 | LVT_MASKED;
    }
}

/* What an event does whose entry is not masked. */
static void local_deliver(struct lapic *l, enum lapic_lvt entry, bool level)
{
    uint32_t lvt = l->lvt[entry];
    struct apic_msg m = {
        .delivery = entry == LAPIC_LVT_TIMER || entry == LAPIC_LVT_ERROR ? APIC_FIXED
                                                                         : LVT_DELIVERY(lvt),
        .vector = (uint8_t)(lvt & LVT_VECTOR),
        .level = level,
    };
    bool is_lint = entry == LAPIC_LVT_LINT0 || entry == LAPIC_LVT_LINT1;
    if (m.delivery == APIC_LOWEST || m.delivery == APIC_SIPI ||
        (m.delivery == APIC_INIT && !is_lint)) {
        log_guest("lapic", "reserved delivery mode %u of local entry %d", m.delivery, entry);
    } else if (m.delivery != APIC_EXTINT) { /* ExtINT is a level, see extint_active */
        lapic_accept(l, &m);
    }
}

void lapic_local_event(struct lapic *l, enum lapic_lvt entry)
{
    if (!lapic_on(l) || (l->lvt[entry] & LVT_MASKED)) {
        return;
    }
    local_deliver(l, entry, false);
    if (entry == LAPIC_LVT_PERF) {
        l->lvt[entry] |= LVT_MASKED; /* 11.5.1: until the handler unmasks it */
    }
}

void lapic_service_lint(struct lapic *l, unsigned pin)
{
    enum lapic_lvt entry = LAPIC_LVT_LINT0 + pin;
    uint32_t lvt = l->lvt[entry];
    /* Only fixed interrupts of LINT0 are level-triggered (11.5.1, trigger mode). */
    if (pin == 0 && l->lint[0] && LVT_DELIVERY(lvt) == APIC_FIXED && (lvt & LVT_LEVEL) &&
        !(lvt & (LVT_MASKED | LVT_REMOTE_IRR)) && (lvt & LVT_VECTOR) >= FIRST_LEGAL_VECTOR) {
        l->lvt[entry] |= LVT_REMOTE_IRR;
        local_deliver(l, entry, true);
    }
}

static void lapic_set_lint(void *ctx, int n, int level)
{
    struct lapic *l = ctx;
    unsigned pin = (unsigned)n;
    enum lapic_lvt entry = LAPIC_LVT_LINT0 + pin;
    bool rises = level && !l->lint[pin];
    l->lint[pin] = level != 0;
    if (l->asleep) {
        return;
    }
    if (lapic_on(l)) {
        uint32_t lvt = l->lvt[entry];
        bool by_level = pin == 0 && LVT_DELIVERY(lvt) == APIC_FIXED && (lvt & LVT_LEVEL);
        if (by_level) {
            lapic_service_lint(l, pin);
        } else if (rises && !(lvt & LVT_MASKED)) {
            local_deliver(l, entry, false);
        }
    } else if (pin == 1 && rises) {
        l->cfg.out.nmi(l->cfg.out.ctx); /* 11.4.3: LINT1 is the NMI pin */
    }
    lapic_update(l);
}

struct irq lapic_lint(struct lapic *l, int pin)
{
    return (struct irq){ lapic_set_lint, l, pin != 0 };
}

/* 11.8.5 */
void lapic_eoi(struct lapic *l)
{
    int vector = vec_highest(l->isr);
    if (vector == NONE) {
        return;
    }
    vec_clear(l->isr, (unsigned)vector);
    lapic_timer_eoi(l, (unsigned)vector);
    if (vec_test(l->tmr, (unsigned)vector)) {
        uint32_t *lint0 = &l->lvt[LAPIC_LVT_LINT0];
        if ((*lint0 & LVT_REMOTE_IRR) && (*lint0 & LVT_VECTOR) == (uint32_t)vector) {
            *lint0 &= ~LVT_REMOTE_IRR;
            lapic_service_lint(l, 0);
        }
        if (!(l->svr & SVR_NO_EOI_BROADCAST)) {
            apic_bus_eoi(l->cfg.apics, (uint8_t)vector);
        }
    }
    lapic_update(l);
}

/* -- Reset and state --------------------------------------------------------------------------- */
/* 11.4.7.1; the ids stay. */
void lapic_reset_regs(struct lapic *l)
{
    l->tpr = 0;
    l->ldr = 0;
    l->dfr = 0xffffffff;
    l->svr = SVR_RESET;
    l->esr = 0;
    l->esr_latent = 0;
    l->icr = 0;
    for (unsigned i = 0; i < LAPIC_LVTS; i++) {
        l->lvt[i] = LVT_MASKED;
    }
    for (unsigned i = 0; i < 8; i++) {
        l->isr[i] = l->tmr[i] = l->irr[i] = 0;
    }
    l->extint = false;
    lapic_timer_reset(l);
    lapic_update(l);
}

static const struct state_field lapic_state[] = {
    STATE(struct lapic, base),          STATE(struct lapic, id),
    STATE(struct lapic, tpr),           STATE(struct lapic, ldr),
    STATE(struct lapic, dfr),           STATE(struct lapic, svr),
    STATE(struct lapic, esr),           STATE(struct lapic, esr_latent),
    STATE(struct lapic, icr),           STATE_ARRAY(struct lapic, lvt),
    STATE(struct lapic, divide),        STATE_ARRAY(struct lapic, isr),
    STATE_ARRAY(struct lapic, tmr),     STATE_ARRAY(struct lapic, irr),
    STATE_ARRAY(struct lapic, lint),    STATE(struct lapic, extint),
    STATE(struct lapic, timer_initial), STATE(struct lapic, timer_runs),
    STATE(struct lapic, timer_count),   STATE(struct lapic, timer_base_ns),
    STATE(struct lapic, tsc_deadline),
    STATE_SINCE(2, struct lapic, timer_expiries),
    STATE_SINCE(2, struct lapic, timer_owed),
    STATE_END,
};

static void lapic_reset(void *dev)
{
    struct lapic *l = dev;
    l->base = LAPIC_BASE_DEFAULT | LAPIC_BASE_EN | (l->cfg.bsp ? LAPIC_BASE_BSP : 0);
    l->id = (uint8_t)l->cfg.apic_id;
    l->divide = 0;
    lapic_reset_regs(l);
}

static int lapic_post_load(void *dev, struct err *e)
{
    struct lapic *l = dev;
    uint64_t base_bits = LAPIC_BASE_BSP | LAPIC_BASE_EN | (l->cfg.x2apic ? LAPIC_BASE_X2 : 0) |
                         (MASK64(l->cfg.phys_bits) & ~(uint64_t)(LAPIC_PAGE - 1));
    bool bad = (l->base & ~base_bits) || (lapic_x2(l) && !lapic_on(l)) || (l->divide & ~0xbu) ||
               (l->svr & ~SVR_WRITABLE) ||
               (l->dfr & 0x0fffffff) != 0x0fffffff || (l->ldr & 0x00ffffff);
    for (unsigned i = 0; i < LAPIC_LVTS; i++) {
        uint32_t ok = lapic_lvt_writable(l, i) | (i == LAPIC_LVT_LINT0 ? LVT_REMOTE_IRR : 0);
        bad |= (l->lvt[i] & ~ok) || (!(l->svr & SVR_ENABLE) && !(l->lvt[i] & LVT_MASKED));
    }
    /* Vectors below 16 are never accepted: their priority class would be that of none. */
    bad |= ((l->irr[0] | l->isr[0] | l->tmr[0]) & 0xffff) != 0;
    bad |= l->timer_runs && (l->timer_initial == 0 || l->timer_count == 0);
    bad |= l->timer_owed > LAPIC_TIMER_OWED_MAX;
    if (bad || l->timer_base_ns > clock_now_ns(l->cfg.clock)) {
        return err_set(e, -EINVAL, "impossible state of the local APIC");
    }
    lapic_timer_arm(l);
    l->intr = false; /* and tell the CPU anew */
    l->cfg.out.intr(l->cfg.out.ctx, 0);
    lapic_update(l);
    return 0;
}

static const struct dev_class lapic_class = {
    .name = "lapic",
    .version = 2,
    .state = lapic_state,
    .size = sizeof(struct lapic),
    .reset = lapic_reset,
    .post_load = lapic_post_load,
};

void lapic_init(struct lapic *l, struct bus *b, const struct lapic_config *cfg)
{
    char name[sizeof l->dev.name];
    *l = (struct lapic){ .cfg = *cfg };
    snprintf(name, sizeof name, "lapic.%u", cfg->apic_id);
    lapic_timer_init(l);
    dev_register(b, &l->dev, &lapic_class, name);
    apic_bus_add_lapic(cfg->apics, l);
    lapic_reset(l);
}

void lapic_fini(struct lapic *l)
{
    timer_cancel(&l->timer);
    dev_unregister(&l->dev);
}

void lapic_set_virtual_wire(struct lapic *l)
{
    l->svr = SVR_RESET | SVR_ENABLE;
    l->lvt[LAPIC_LVT_LINT0] = APIC_EXTINT << 8;
    l->lvt[LAPIC_LVT_LINT1] = APIC_NMI << 8;
    lapic_update(l);
}
