/* SPDX-License-Identifier: Apache-2.0
 *
 * Virtual time: see vtime.c. Thread: [vcpu] of the one whose turn it is, unless said otherwise.
 */
#ifndef SOSIA_MACHINE_VTIME_H
#define SOSIA_MACHINE_VTIME_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct clock;
struct machine;
struct vcpu;

/* Of a machine's state: who runs, and how many instructions more. */
struct vtime_turn {
    uint32_t cpu;
    uint32_t left;
};

/* While the machine is made: a clock that instructions drive; then, when there is a loop, its
 * timers become the processors' affair. */
struct clock *machine_vtime_clock(struct machine *m);
void machine_vtime_start(struct machine *m);

/* Is it this one's turn? [any] */
bool machine_vtime_turn(const struct machine *m, const struct vcpu *v);
/* Fire timers and set cpu->icount_limit. False: its turn is over, or all are to stand. */
bool machine_vtime_begin(struct machine *m, struct vcpu *v);
/* It is in HLT. wakes: v->wakes before it ran. */
void machine_vtime_idle(struct machine *m, struct vcpu *v, uint32_t wakes);

/* While all stand. */
void machine_vtime_save(const struct machine *m, struct vtime_turn *out);
MUST_CHECK int machine_vtime_load(struct machine *m, const struct vtime_turn *t, struct err *e);

/* Retired by all processors; exact while they stand. [any] */
uint64_t machine_instructions(const struct machine *m);
/* Run a paused machine to that number of instructions, or until it sleeps for good; it is paused
 * then, before any event there is delivered. -ESHUTDOWN: it ended before. [any] but vCPUs and the
 * loop */
MUST_CHECK int machine_run_until(struct machine *m, uint64_t instructions, struct err *e);

#endif
