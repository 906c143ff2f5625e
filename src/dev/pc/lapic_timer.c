/* SPDX-License-Identifier: Apache-2.0
 *
 * The local APIC's timer, SDM 3 11.5.4: one-shot, periodic, TSC-deadline. The current count is
 * computed from the clock; a change of divider or mode goes on from the count at that moment.
 */
#include <assert.h>

#include "base/bits.h"
#include "dev/pc/lapic_int.h"
#include "dev/pc/ticks.h"

/* Faster ticks than this are not made up for. */
#define OWED_PERIOD_NS 200000u

static enum lapic_timer_mode mode_of(const struct lapic *l)
{
    return (enum lapic_timer_mode)LVT_TIMER_MODE(l->lvt[LAPIC_LVT_TIMER]);
}

/* 2, 4, .. 128, 1 */
static unsigned divisor_of(uint32_t divide)
{
    unsigned n = (divide & 3) | (divide >> 1 & 4);
    return n == 7 ? 1 : 2u << n;
}

static uint64_t elapsed(const struct lapic *l, uint64_t now_ns)
{
    uint64_t ticks = ns_to_ticks(now_ns - l->timer_base_ns, l->cfg.timer_hz);
    return ticks / divisor_of(l->divide);
}

uint32_t lapic_timer_current(const struct lapic *l)
{
    if (!l->timer_runs) {
        return 0;
    }
    uint64_t e = elapsed(l, clock_now_ns(l->cfg.clock));
    if (e < l->timer_count) {
        return l->timer_count - (uint32_t)e;
    }
    if (mode_of(l) != TIMER_PERIODIC) {
        return 0;
    }
    return l->timer_initial - (uint32_t)((e - l->timer_count) % l->timer_initial);
}

/* Counts from timer_base_ns to the next expiry after now. */
static uint64_t next_expiry(const struct lapic *l, uint64_t now_ns)
{
    uint64_t e = elapsed(l, now_ns);
    if (e < l->timer_count || mode_of(l) != TIMER_PERIODIC) {
        return l->timer_count;
    }
    uint64_t period = l->timer_initial;
    uint64_t shortest = ns_to_ticks(MIN_PERIOD_NS, l->cfg.timer_hz) / divisor_of(l->divide) + 1;
    if (period < shortest) {
        period *= (shortest + period - 1) / period; /* one for several */
    }
    return l->timer_count + ((e - l->timer_count) / period + 1) * period;
}

static uint64_t deadline_ns(const struct lapic *l, uint64_t now_ns)
{
    if (mode_of(l) == TIMER_TSC_DEADLINE) {
        uint64_t tsc = l->cfg.out.tsc(l->cfg.out.ctx);
        if (l->tsc_deadline <= tsc) {
            return l->tsc_deadline == 0 ? TIMER_NEVER : now_ns;
        }
        return deadline_after(now_ns, ticks_to_ns(l->tsc_deadline - tsc, l->cfg.tsc_hz));
    }
    if (!l->timer_runs) {
        return TIMER_NEVER;
    }
    uint64_t ticks = next_expiry(l, now_ns) * divisor_of(l->divide);
    return deadline_after(l->timer_base_ns, ticks_to_ns(ticks, l->cfg.timer_hz));
}

void lapic_timer_arm(struct lapic *l)
{
    timer_arm(&l->timer, deadline_ns(l, clock_now_ns(l->cfg.clock)));
}

static bool is_pending(const struct lapic *l, unsigned vector)
{
    return l->irr[vector / 32] >> (vector % 32) & 1;
}

/* A guest may count time in periodic interrupts, and loses it with each that merges with the one
 * before, which on hardware means that it was busy for a whole period. Here its processor or the
 * thread that runs timers may have had no host CPU. So those are made up for, one at each EOI,
 * unless they come so fast that the guest would do nothing else. */
static void owe(struct lapic *l, uint64_t now_ns)
{
    uint64_t e = elapsed(l, now_ns);
    uint64_t expiries = e < l->timer_count ? 0 : 1 + (e - l->timer_count) / l->timer_initial;
    uint64_t more = expiries > l->timer_expiries ? expiries - l->timer_expiries : 0;
    l->timer_expiries = expiries;
    uint32_t lvt = l->lvt[LAPIC_LVT_TIMER];
    uint64_t period = (uint64_t)l->timer_initial * divisor_of(l->divide);
    if ((lvt & LVT_MASKED) || ticks_to_ns(period, l->cfg.timer_hz) < OWED_PERIOD_NS) {
        l->timer_owed = 0;
        return;
    }
    if (more != 0 && !is_pending(l, lvt & LVT_VECTOR)) {
        more--; /* the one that is made now */
    }
    l->timer_owed = more < LAPIC_TIMER_OWED_MAX - l->timer_owed ? l->timer_owed + (uint32_t)more
                                                                : LAPIC_TIMER_OWED_MAX;
}

void lapic_timer_eoi(struct lapic *l, unsigned vector)
{
    uint32_t lvt = l->lvt[LAPIC_LVT_TIMER];
    if (l->timer_owed != 0 && (lvt & LVT_VECTOR) == vector && !is_pending(l, vector)) {
        l->timer_owed--;
        lapic_local_event(l, LAPIC_LVT_TIMER);
    }
}

static void expired(void *ctx, uint64_t now_ns)
{
    struct lapic *l = ctx;
    if (mode_of(l) == TIMER_TSC_DEADLINE) {
        if (l->cfg.out.tsc(l->cfg.out.ctx) < l->tsc_deadline) {
            lapic_timer_arm(l); /* rounding, or the guest set its TSC back */
            return;
        }
        l->tsc_deadline = 0;
    } else if (mode_of(l) == TIMER_PERIODIC) {
        owe(l, now_ns);
        timer_arm(&l->timer, deadline_ns(l, now_ns));
    } else {
        l->timer_runs = false;
    }
    lapic_local_event(l, LAPIC_LVT_TIMER);
}

/* What is due happens now: before what it depends on changes, or when the guest looks. The thread
 * that runs timers may be late. */
void lapic_timer_poll(struct lapic *l)
{
    uint64_t now = clock_now_ns(l->cfg.clock);
    if (timer_armed(&l->timer) && l->timer.deadline_ns <= now) {
        timer_cancel(&l->timer);
        expired(l, now);
    }
}

/* Go on counting down from here, however the count was reached. */
static void rebase(struct lapic *l)
{
    uint32_t count = lapic_timer_current(l);
    l->timer_base_ns = clock_now_ns(l->cfg.clock);
    l->timer_count = count;
    l->timer_expiries = 0;
    l->timer_owed = 0;
    l->timer_runs = count != 0;
}

void lapic_timer_set_initial(struct lapic *l, uint32_t count)
{
    if (mode_of(l) == TIMER_TSC_DEADLINE) {
        return; /* 11.5.4.1: ignored */
    }
    lapic_timer_poll(l);
    l->timer_initial = count;
    l->timer_count = count;
    l->timer_base_ns = clock_now_ns(l->cfg.clock);
    l->timer_expiries = 0;
    l->timer_owed = 0;
    l->timer_runs = count != 0;
    lapic_timer_arm(l);
}

void lapic_timer_set_divide(struct lapic *l, uint32_t divide)
{
    lapic_timer_poll(l);
    rebase(l);
    l->divide = divide & 0xb;
    lapic_timer_arm(l);
}

/* 11.5.4.1: to and from TSC-deadline mode disarms the timer. */
void lapic_timer_set_lvt(struct lapic *l, uint32_t lvt)
{
    bool was_deadline = mode_of(l) == TIMER_TSC_DEADLINE;
    bool is_deadline = LVT_TIMER_MODE(lvt) == TIMER_TSC_DEADLINE;
    lapic_timer_poll(l);
    rebase(l);
    l->lvt[LAPIC_LVT_TIMER] = lvt;
    if (was_deadline != is_deadline) {
        l->timer_initial = 0;
        l->timer_runs = false;
        l->tsc_deadline = 0;
    }
    lapic_timer_arm(l);
}

uint64_t lapic_timer_deadline(const struct lapic *l)
{
    return mode_of(l) == TIMER_TSC_DEADLINE ? l->tsc_deadline : 0;
}

void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc)
{
    if (mode_of(l) == TIMER_TSC_DEADLINE && lapic_on(l)) {
        lapic_timer_poll(l);
        l->tsc_deadline = tsc;
        lapic_timer_arm(l);
        lapic_timer_poll(l); /* a deadline that has passed fires before the next instruction */
    }
}

void lapic_tsc_changed(struct lapic *l)
{
    if (mode_of(l) == TIMER_TSC_DEADLINE) {
        lapic_timer_arm(l);
    }
}

void lapic_timer_reset(struct lapic *l)
{
    l->divide = 0;
    l->timer_initial = 0;
    l->timer_runs = false;
    l->timer_count = 0;
    l->timer_base_ns = 0;
    l->timer_expiries = 0;
    l->timer_owed = 0;
    l->tsc_deadline = 0;
    timer_cancel(&l->timer);
}

void lapic_timer_take(struct lapic *l, uint32_t initial, uint32_t current, uint32_t divide,
                      uint64_t tsc_deadline)
{
    bool deadline_mode = mode_of(l) == TIMER_TSC_DEADLINE;
    l->timer_initial = initial;
    l->timer_count = current < initial ? current : initial;
    l->timer_runs = !deadline_mode && l->timer_count != 0;
    l->timer_base_ns = clock_now_ns(l->cfg.clock);
    l->timer_expiries = 0;
    l->timer_owed = 0;
    l->divide = divide & 0xb;
    l->tsc_deadline = deadline_mode ? tsc_deadline : 0;
    lapic_timer_arm(l);
}

void lapic_timer_init(struct lapic *l)
{
    assert(l->cfg.timer_hz >= 1 && l->cfg.timer_hz <= NS_PER_S && l->cfg.tsc_hz >= 1);
    timer_init(&l->timer, l->cfg.clock, expired, l);
}
