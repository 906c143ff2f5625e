/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/time.h"

#include <cpuid.h>
#include <time.h>
#include <x86intrin.h>

#include "base/clock.h"

/* A guest has no use for the rate of a clock that counts instructions: any will do, if it is always
 * the same. */
#define VIRTUAL_TSC_KHZ 1000000u
/* 2020-01-01 00:00 UTC: where virtual time begins. */
#define VIRTUAL_EPOCH_NS (1577836800ull * 1000000000ull)
#define CALIBRATE_NS 10000000ull

static uint64_t host_ns(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

/* A pair of readings that belong together: of some tries the one that took least. */
static void read_both(uint64_t *tsc, uint64_t *ns)
{
    uint64_t best = UINT64_MAX;
    for (int i = 0; i < 16; i++) {
        uint64_t before = __rdtsc();
        uint64_t at = host_ns(CLOCK_MONOTONIC);
        uint64_t after = __rdtsc();
        if (after - before < best) {
            best = after - before;
            *tsc = before + (after - before) / 2;
            *ns = at;
        }
    }
}

static uint32_t measure_khz(void)
{
    uint64_t tsc0, ns0, tsc1, ns1;
    read_both(&tsc0, &ns0);
    while (host_ns(CLOCK_MONOTONIC) - ns0 < CALIBRATE_NS) {
        nanosleep(&(struct timespec){.tv_nsec = CALIBRATE_NS / 4}, NULL);
    }
    read_both(&tsc1, &ns1);
    return (uint32_t)((tsc1 - tsc0) * 1000000ull / (ns1 - ns0));
}

uint32_t machine_host_tsc_khz(bool *constant)
{
    unsigned a, b, c, d;
    *constant = __get_cpuid(0x80000007, &a, &b, &c, &d) && (d & 1u << 8);
    /* SDM 2 CPUID.15H: only when all three are there is the frequency exact. */
    if (__get_cpuid_count(0x15, 0, &a, &b, &c, &d) && a != 0 && b != 0 && c != 0) {
        return (uint32_t)((uint64_t)c * b / a / 1000);
    }
    return measure_khz();
}

void machine_time_init(struct machine_time *t, struct clock *clock, bool virtual_time)
{
    t->clock = clock;
    t->stopped = true;
    t->stopped_tsc = 0;
    t->virtual_time = virtual_time;
    if (virtual_time) {
        t->tsc_khz = VIRTUAL_TSC_KHZ;
        t->host_tsc = false;
    } else {
        t->tsc_khz = machine_host_tsc_khz(&t->host_tsc);
    }
}

/* What counts at the guest's rate, from wherever. */
static uint64_t ticks(const struct machine_time *t)
{
    return t->host_tsc ? __rdtsc()
                       : (uint64_t)((unsigned __int128)clock_now_ns(t->clock) * t->tsc_khz /
                                    1000000u);
}

void machine_time_stop(struct machine_time *t)
{
    if (!t->stopped) {
        t->stopped_tsc = machine_tsc(t);
        t->stopped = true;
    }
}

void machine_time_go(struct machine_time *t)
{
    if (t->stopped) {
        t->stopped = false;
        atomic_store_explicit(&t->offset, ticks(t) - t->stopped_tsc, memory_order_relaxed);
    }
}

uint64_t machine_tsc(const struct machine_time *t)
{
    if (t->stopped) {
        return t->stopped_tsc;
    }
    return ticks(t) - atomic_load_explicit(&t->offset, memory_order_relaxed);
}

/* Two measurements of one host differ by less; guests themselves tolerate 500 ppm and more. */
#define SAME_RATE_PPM 300u

void machine_time_set_rate(struct machine_time *t, uint32_t tsc_khz)
{
    uint64_t differ = tsc_khz > t->tsc_khz ? tsc_khz - t->tsc_khz : t->tsc_khz - tsc_khz;
    if (differ * 1000000u > (uint64_t)t->tsc_khz * SAME_RATE_PPM) {
        t->host_tsc = false;
    }
    t->tsc_khz = tsc_khz;
}

uint64_t machine_tsc_offset(const struct machine_time *t)
{
    return 0 - atomic_load_explicit(&t->offset, memory_order_relaxed);
}

void machine_time_set_tsc(struct machine_time *t, uint64_t tsc) { t->stopped_tsc = tsc; }

uint64_t machine_wall_ns(const struct machine_time *t)
{
    return t->virtual_time ? VIRTUAL_EPOCH_NS + clock_now_ns(t->clock)
                                   : host_ns(CLOCK_REALTIME);
}
