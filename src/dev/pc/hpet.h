/* SPDX-License-Identifier: Apache-2.0
 *
 * High precision event timers: a 64-bit counter of 100 MHz and three comparators. Thread: machine
 * lock held.
 */
#ifndef SOSIA_DEV_PC_HPET_H
#define SOSIA_DEV_PC_HPET_H

#include "base/clock.h"
#include "bus/bus.h"
#include "bus/irq.h"

#define HPET_TIMERS 3
#define HPET_PINS 24
#define HPET_PERIOD_FS 10000000u /* for the ACPI table: 10 ns */

struct hpet;

struct hpet_timer {
    uint64_t config;     /* the writable bits */
    uint64_t comparator; /* as it stands: in periodic mode, the next match */
    uint64_t period;     /* last value written, in periodic mode */
    uint64_t fsb;        /* value and address */
    /* Not state: */
    struct hpet *hpet;
    struct timer timer; /* next match */
};

struct hpet {
    struct dev dev;
    uint64_t config;
    uint64_t status;  /* of level-triggered interrupts */
    uint64_t counter; /* at base_ns */
    uint64_t base_ns;
    struct hpet_timer timer[HPET_TIMERS];
    bool legacy_in[2]; /* levels that the 8254 and the RTC drive */

    struct clock *clock;       /* borrowed */
    struct irq pin[HPET_PINS]; /* interrupt inputs that timers can be routed to */
    struct irq legacy[2];      /* IRQ0 and IRQ8 */
    int pin_level[HPET_PINS];
    int legacy_level[2];
    void (*msi)(void *ctx, uint64_t address, uint32_t data);
    void *msi_ctx;
};

struct hpet_config {
    struct clock *clock;
    /* IRQ0 and IRQ8. The 8254 and the RTC are connected to hpet_legacy_in, which passes them on
     * here unless the guest has the HPET take their place. */
    struct irq legacy[2];
    /* Pins that timers can be routed to: bit n of `routes` for pin[n]. */
    uint32_t routes;
    struct irq pin[HPET_PINS];
    /* FSB delivery; NULL: not offered. */
    void (*msi)(void *ctx, uint64_t address, uint32_t data);
    void *msi_ctx;
};

/* 1 KiB at base, usually 0xfed00000. */
void hpet_init(struct hpet *h, struct bus *b, gpa_t base, const struct hpet_config *cfg);
void hpet_fini(struct hpet *h);

/* 0: for the 8254's OUT0; 1: for the RTC's IRQ8. */
struct irq hpet_legacy_in(struct hpet *h, int n);

#endif
