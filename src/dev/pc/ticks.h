/* SPDX-License-Identifier: Apache-2.0
 *
 * Counters that are computed from the clock instead of being counted: nanoseconds to ticks of a
 * frequency and back. For hz up to 1 GHz, ns_to_ticks(ticks_to_ns(t)) is t, so that a timer armed
 * for a tick finds the counter there.
 */
#ifndef SOSIA_DEV_PC_TICKS_H
#define SOSIA_DEV_PC_TICKS_H

#include <stdint.h>

#include "base/clock.h"

#define NS_PER_S 1000000000u

/* A guest can ask for interrupts faster than anyone could take them. What is periodic is not fired
 * more often than this, which nobody can see: such edges merge in the interrupt controller. */
#define MIN_PERIOD_NS 10000u

static inline uint64_t ns_to_ticks(uint64_t ns, uint64_t hz)
{
    return (uint64_t)((unsigned __int128)ns * hz / NS_PER_S);
}

/* The first nanosecond of a tick; TIMER_NEVER when it is beyond time. */
static inline uint64_t ticks_to_ns(uint64_t ticks, uint64_t hz)
{
    unsigned __int128 ns = ((unsigned __int128)ticks * NS_PER_S + hz - 1) / hz;
    return ns < TIMER_NEVER ? (uint64_t)ns : TIMER_NEVER;
}

/* base + delta, TIMER_NEVER when it is beyond time. */
static inline uint64_t deadline_after(uint64_t base_ns, uint64_t delta_ns)
{
    return delta_ns < TIMER_NEVER - base_ns ? base_ns + delta_ns : TIMER_NEVER;
}

#endif
