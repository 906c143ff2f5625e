/* SPDX-License-Identifier: Apache-2.0
 *
 * The guest's time stamp counter and wall clock. The counter is the host's minus an offset, so that
 * translated and hardware-run code can read it natively; it stands still while the clock does.
 */
#ifndef SOSIA_MACHINE_TIME_H
#define SOSIA_MACHINE_TIME_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct clock;

struct machine_time {
    struct clock *clock; /* borrowed */
    uint32_t tsc_khz;
    bool host_tsc;           /* else counted from the clock: the host's TSC is not constant */
    bool stopped;            /* machine lock */
    _Atomic uint64_t offset; /* host TSC, or ticks of the clock, minus guest TSC */
    uint64_t stopped_tsc;
    bool virtual_time;
};

/* Stopped, at 0. */
void machine_time_init(struct machine_time *t, struct clock *clock, bool virtual_time);
void machine_time_stop(struct machine_time *t);
void machine_time_go(struct machine_time *t);
uint64_t machine_tsc(const struct machine_time *t);
/* What to add to the host's counter to have the guest's; right until the next stop. */
uint64_t machine_tsc_offset(const struct machine_time *t);
/* The rate that the guest was told elsewhere, while stopped. A host whose counter runs at nearly
 * that rate goes on giving it; else it is counted from the clock. */
void machine_time_set_rate(struct machine_time *t, uint32_t tsc_khz);
void machine_time_set_tsc(struct machine_time *t, uint64_t tsc); /* while stopped */
uint64_t machine_wall_ns(const struct machine_time *t);

/* Frequency of the host's TSC; *constant: whether it keeps it. For the models. */
uint32_t machine_host_tsc_khz(bool *constant);

#endif
