/* SPDX-License-Identifier: Apache-2.0
 *
 * Local APIC, xAPIC and x2APIC (SDM 3 chapter 11). It knows no CPU: what it asks of one goes
 * through struct lapic_out. Each CPU sees its own at the address in IA32_APIC_BASE, so it claims no
 * range on the bus: the machine asks lapic_claims.
 * Thread: machine lock held, in every function; the callbacks are called with it.
 */
#ifndef SOSIA_DEV_PC_LAPIC_H
#define SOSIA_DEV_PC_LAPIC_H

#include "base/clock.h"
#include "bus/bus.h"
#include "bus/irq.h"
#include "state/chips.h"

struct apic_bus;
struct apic_msg;

#define LAPIC_BASE_DEFAULT 0xfee00000u
#define LAPIC_PAGE 4096u

enum lapic_base_bit {
    LAPIC_BASE_BSP = 1u << 8,
    LAPIC_BASE_X2 = 1u << 10,
    LAPIC_BASE_EN = 1u << 11
};

enum lapic_lvt {
    LAPIC_LVT_TIMER,
    LAPIC_LVT_THERMAL,
    LAPIC_LVT_PERF,
    LAPIC_LVT_LINT0,
    LAPIC_LVT_LINT1,
    LAPIC_LVT_ERROR,
    LAPIC_LVTS
};

/* The pins of the processor. ctx is the machine's. */
struct lapic_out {
    void *ctx;
    void (*intr)(void *ctx, int level); /* lapic_ack has, or has no longer, something */
    void (*nmi)(void *ctx);
    void (*smi)(void *ctx);
    void (*init)(void *ctx);
    void (*sipi)(void *ctx, uint8_t vector);
    int (*extint)(void *ctx);   /* INTA to the 8259: its vector, -1 none */
    uint64_t (*tsc)(void *ctx); /* this CPU's IA32_TIME_STAMP_COUNTER now */
};

struct lapic_config {
    uint32_t apic_id; /* x2APIC id; the xAPIC id is its low byte */
    bool bsp;
    bool x2apic;        /* CPUID.1:ECX[21] */
    bool tsc_deadline;  /* CPUID.1:ECX[24] */
    unsigned phys_bits; /* CPUID.80000008:EAX[7:0] */
    uint64_t timer_hz;  /* of the APIC timer before its divider: 1..1e9 (CPUID 0x15 crystal) */
    uint64_t tsc_hz;
    struct clock *clock;
    struct apic_bus *apics;
    struct lapic_out out;
};

struct lapic {
    struct dev dev;
    uint64_t base; /* IA32_APIC_BASE */
    uint8_t id;    /* xAPIC mode */
    uint8_t tpr;
    uint32_t ldr; /* xAPIC mode: logical id in bits 31:24 */
    uint32_t dfr;
    uint32_t svr;
    uint32_t esr;        /* as read */
    uint32_t esr_latent; /* errors since the last write of ESR */
    uint64_t icr;        /* as x2APIC has it: destination in 63:32, in xAPIC mode in 63:56 */
    uint32_t lvt[LAPIC_LVTS];
    uint32_t divide;
    uint32_t isr[8];
    uint32_t tmr[8];
    uint32_t irr[8];
    bool lint[2]; /* levels of the pins */
    bool extint;  /* an ExtINT message waits */

    /* Timer: the count was timer_count at timer_base_ns and goes down while timer_runs. */
    uint32_t timer_initial;
    bool timer_runs;
    uint32_t timer_count;
    uint64_t timer_base_ns;
    uint64_t tsc_deadline; /* 0: none */
    uint64_t timer_expiries; /* periodic: how often since timer_base_ns, as far as seen */
    uint32_t timer_owed;     /* of those, interrupts that are still to be made */

    /* Not state: */
    bool asleep;        /* another does its work (lapic_give) */
    bool intr;          /* what out.intr was told last */
    struct timer timer; /* next expiry */
    struct lapic_config cfg;
};

/* Registers itself as "lapic.<apic_id>", joins cfg->apics. */
void lapic_init(struct lapic *l, struct bus *b, const struct lapic_config *cfg);
void lapic_fini(struct lapic *l);

/* As PC firmware leaves the BSP's: enabled, LINT0 takes the 8259's interrupts, LINT1 is NMI. For
 * machines that start a kernel without firmware. */
void lapic_set_virtual_wire(struct lapic *l);

/* -- The CPU's side */
static inline bool lapic_claims(const struct lapic *l, gpa_t gpa)
{
    return (l->base & (LAPIC_BASE_EN | LAPIC_BASE_X2)) == LAPIC_BASE_EN &&
           (gpa ^ l->base) < LAPIC_PAGE;
}
/* offset within the page; size 1, 2, 4, 8. Other than aligned 4-byte writes have no effect. */
uint64_t lapic_mmio_read(struct lapic *l, uint64_t offset, unsigned size);
void lapic_mmio_write(struct lapic *l, uint64_t offset, unsigned size, uint64_t value);
/* IA32_APIC_BASE, 0x800..0x8ff, IA32_TSC_DEADLINE. False: #GP(0). */
bool lapic_msr_read(struct lapic *l, uint32_t msr, uint64_t *value);
bool lapic_msr_write(struct lapic *l, uint32_t msr, uint64_t value);
uint8_t lapic_get_tpr(const struct lapic *l); /* CR8 */
void lapic_set_tpr(struct lapic *l, uint8_t cr8);
/* Take an interrupt into service: its vector, -1 when there is none (any more). */
int lapic_ack(struct lapic *l);
/* The guest wrote the TSC, or it was restored: deadlines are at another time now. */
void lapic_tsc_changed(struct lapic *l);

/* -- The board's side */
struct irq lapic_lint(struct lapic *l, int pin); /* LINT0: INTR of the 8259; LINT1: NMI */
/* A local event with an entry in the vector table: thermal, performance counter. */
void lapic_local_event(struct lapic *l, enum lapic_lvt entry);

/* -- An engine with local APICs of its own: out of one, into the other. From lapic_give on this one
 * does nothing by itself but notice the levels of its pins; lapic_take wakes it up. */
void lapic_give(struct lapic *l, struct chip_lapic *out);
void lapic_take(struct lapic *l, const struct chip_lapic *in);

/* -- For apic_bus */
bool lapic_matches(const struct lapic *l, const struct apic_msg *m);
bool lapic_accepts_fixed(const struct lapic *l);
unsigned lapic_priority(const struct lapic *l);               /* the lower, the more it wants */
bool lapic_accept(struct lapic *l, const struct apic_msg *m); /* false: not taken */

#endif
