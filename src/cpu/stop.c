/* SPDX-License-Identifier: Apache-2.0 -- stops for a debugger outside of the guest */
#include "cpu/stop.h"

#include "base/bits.h"
#include "cpu/debug.h"
#include "cpu/except.h"

bool cpu_break_in(const struct cpu_stops *s, gva_t va, uint64_t len)
{
    size_t low = 0; /* the first that is not below va, by bisection */
    size_t high = s->break_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (s->breaks[middle] < va) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < s->break_count && s->breaks[low] - va < len;
}

bool cpu_break_here(const struct cpu *cpu)
{
    return cpu->stops != NULL && cpu_break_in(cpu->stops, cpu_linear_rip(cpu), 1);
}

static bool overlap(gva_t a, uint64_t a_len, gva_t b, uint64_t b_len)
{
    return a - b < b_len || b - a < a_len;
}

bool cpu_stop_watches_page(const struct cpu_stops *s, gva_t page)
{
    for (size_t i = 0; i < s->watch_count; i++) {
        if (overlap(page, GMEM_PAGE_SIZE, s->watches[i].va, s->watches[i].len)) {
            return true;
        }
    }
    return false;
}

/* The first that an instruction meets counts. */
void cpu_stop_check(struct cpu *cpu, gva_t va, unsigned len, bool is_write)
{
    const struct cpu_stops *s = cpu->stops;
    for (size_t i = 0; i < s->watch_count && cpu->stop_why == CPU_STOP_NONE; i++) {
        const struct cpu_watch *w = &s->watches[i];
        if ((is_write ? w->write : w->read) && overlap(va, len, w->va, w->len)) {
            cpu->stop_why = !w->read ? CPU_STOP_WRITE : !w->write ? CPU_STOP_READ : CPU_STOP_ACCESS;
            cpu->stop_va = w->va;
            /* So that the block is left after this instruction. */
            atomic_fetch_or_explicit(&cpu->events, CPU_EV_CODE | CPU_EV_TRAP, memory_order_relaxed);
        }
    }
}

bool cpu_stop_due(struct cpu *cpu)
{
    if (cpu->stop_why == CPU_STOP_NONE && cpu->stop_step == CPU_STEP_DONE) {
        cpu->stop_why = CPU_STOP_STEP;
    } else if (cpu->stop_why == CPU_STOP_NONE && cpu->stop_step == CPU_STEP_OFF &&
               cpu->activity == CPU_ACTIVE && cpu_break_here(cpu)) {
        cpu->stop_why = CPU_STOP_BREAK;
        cpu->stop_va = cpu_linear_rip(cpu);
    }
    return cpu->stop_why != CPU_STOP_NONE;
}

void cpu_stop_resume(struct cpu *cpu, enum cpu_step step)
{
    cpu->stop_why = CPU_STOP_NONE;
    cpu->stop_step = (uint8_t)step;
    cpu_update_trap(cpu);
}
