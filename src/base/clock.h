/* SPDX-License-Identifier: Apache-2.0
 *
 * Guest time and timers. Every device gets its time from a struct clock, so that tests can stop it
 * and step it, a paused VM's time stands still, and virtual-time mode can drive it from the
 * instruction count.
 *
 * clock_now_ns counts nanoseconds since the clock was made, excluding paused time.
 * Timers fire on the thread that runs clock_run_due: the machine's loop [loop], with the machine
 * lock held, or the test that steps a fake clock. clock_now_ns: [any]; the rest: machine lock held.
 */
#ifndef SOSIA_BASE_CLOCK_H
#define SOSIA_BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

struct clock;
struct timer;

#define TIMER_NEVER UINT64_MAX

typedef void timer_fn(void *ctx, uint64_t now_ns);

struct timer {
    struct clock *clock; /* borrowed: outlives the timer */
    timer_fn *fn;
    void *ctx;
    uint64_t deadline_ns; /* TIMER_NEVER when not armed */
    uint64_t order;       /* private to clock.c: equal deadlines fire in order of arming */
    uint32_t heap_index;  /* private to clock.c */
};

/* source: monotonic nanoseconds; NULL means CLOCK_MONOTONIC. */
struct clock *clock_new(uint64_t (*source)(void *ctx), void *ctx);
struct clock *clock_new_fake(void); /* starts at 0, moves only by clock_step */
void clock_free(struct clock *c);

uint64_t clock_now_ns(struct clock *c);
void clock_pause(struct clock *c);
void clock_resume(struct clock *c);
void clock_set_now(struct clock *c, uint64_t now_ns); /* restore: time goes on from here */

/* Fake clock: advance, firing due timers in deadline order, each seeing its own deadline as now. */
void clock_step(struct clock *c, uint64_t delta_ns);

/* False while paused, and for a fake clock: waiting brings no deadline nearer.  Thread: [any]. */
bool clock_runs(struct clock *c);

/* Earliest deadline, TIMER_NEVER when none. */
uint64_t clock_next_deadline(struct clock *c);
/* Fire what is due; returns the next deadline. A paused clock fires nothing and returns
 * TIMER_NEVER. The deadline returned may be past: a run is bounded, so that a guest whose timers
 * are always due cannot hold the loop. */
uint64_t clock_run_due(struct clock *c);
/* Pause, and fire what was due by then and not yet fired because its thread came late: what is
 * saved of a paused machine holds nothing that should have happened. Bounded as clock_run_due. */
void clock_stop(struct clock *c);
/* Called whenever the earliest deadline moves earlier (so that the loop's sleep is cut short). */
void clock_set_rearm(struct clock *c, void (*rearm)(void *ctx), void *ctx);

void timer_init(struct timer *t, struct clock *c, timer_fn *fn, void *ctx);
void timer_arm(struct timer *t, uint64_t deadline_ns); /* absolute; re-arming moves it */
void timer_cancel(struct timer *t);
static inline bool timer_armed(const struct timer *t) { return t->deadline_ns != TIMER_NEVER; }

#endif
