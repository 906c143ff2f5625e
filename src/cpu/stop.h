/* SPDX-License-Identifier: Apache-2.0
 *
 * Where a debugger outside of the guest wants processors to stop: breakpoints, watchpoints, single
 * steps. The guest sees nothing of them: its memory and its debug registers stay as they are.
 *
 * Addresses are linear, in whatever address space. The sets are shared by the processors and change
 * only while none runs; whoever changes them flushes the TLBs (which say what pages to look at) and
 * tells the engine (stops_changed). What an engine does:
 *
 *  - It comes to cpu_poll_events before an instruction with a breakpoint (cpu_break_here), and
 *    leaves run() when that says CPU_POLL_DEBUG. Code caches end their blocks before such an
 *    instruction, or do the instructions of the page, which has no tag_exec, one by one.
 *  - Watchpoints and steps need nothing beyond the protocol of cpu/except.h.
 *
 * Thread: [vcpu], or any while no processor runs.
 */
#ifndef SOSIA_CPU_STOP_H
#define SOSIA_CPU_STOP_H

#include "cpu/cpu.h"

struct cpu_watch {
    gva_t va;
    uint64_t len;
    bool read, write; /* stop after which accesses */
};

struct cpu_stops {
    const gva_t *breaks; /* ascending, no two alike */
    size_t break_count;
    const struct cpu_watch *watches;
    size_t watch_count;
};

enum cpu_stop_why {
    CPU_STOP_NONE,
    CPU_STOP_STEP,
    CPU_STOP_BREAK,  /* before the instruction at stop_va; the others are after one */
    CPU_STOP_WRITE,  /* of what the watchpoint at stop_va lies over, which waits for writes, */
    CPU_STOP_READ,   /* reads, */
    CPU_STOP_ACCESS, /* or both */
};

enum cpu_step {
    CPU_STEP_OFF,
    CPU_STEP_WANTED, /* one instruction, whatever waits at it, and no interrupt before it */
    CPU_STEP_DONE,
};

/* Is there a breakpoint in [va, va+len)? */
bool cpu_break_in(const struct cpu_stops *s, gva_t va, uint64_t len);
/* Is there one where this processor goes on? */
bool cpu_break_here(const struct cpu *cpu);
/* Does a watchpoint lie in the 4 KiB page? */
bool cpu_stop_watches_page(const struct cpu_stops *s, gva_t page);
/* A data access was made: the processor stops after the instruction if somebody watches for it. */
void cpu_stop_check(struct cpu *cpu, gva_t va, unsigned len, bool is_write);
/* Between two instructions: is it to stop now? stop_why tells why then. */
bool cpu_stop_due(struct cpu *cpu);
/* [no processor runs] Forget what it stopped for and go on, for one instruction or more. */
void cpu_stop_resume(struct cpu *cpu, enum cpu_step step);

#endif
