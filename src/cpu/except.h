/* SPDX-License-Identifier: Apache-2.0
 *
 * Exceptions and interrupts: raising, and delivery through IDT or IVT in every mode
 * (SDM 3 chapter 6). Thread: [vcpu].
 *
 * What an engine does, and all that it does (single step, breakpoints and shadows included):
 *
 *   if (setjmp(cpu->unwind) != 0) {
 *       cpu_exclusive_abandon(cpu);
 *       cpu_deliver_exception(cpu);          // may unwind to the same place again
 *   }
 *   for (;;) {                               // here: between two instructions
 *       bool one = false;
 *       if (cpu->events != 0 || cpu->activity != CPU_ACTIVE) {
 *           switch (cpu_poll_events(cpu)) {
 *           case CPU_POLL_RUN: break;
 *           case CPU_POLL_STEP: one = true; break;
 *           default: return;                 // kick, halt, shutdown, debug
 *           }
 *       }
 *       run a block, or if `one` exactly one instruction, then come back here;
 *       after `one` call cpu_poll_events even when events == 0
 *   }
 *
 * Rules that make this right:
 *  - CPU_EV_TRAP is set in cpu->events as long as instructions must run one by one: RFLAGS.TF, any
 *    breakpoint enabled in DR7, a pending #DB, an interrupt shadow. The engine tests nothing else:
 * not
 *    TF, not int_shadow, not DR7. Whatever changes these calls cpu_update_trap(), and is an
 *    IA_ENDS_BLOCK instruction or a far transfer, so that the engine comes to its boundary.
 *  - One iteration of a REP string instruction counts as an instruction while CPU_EV_TRAP is set:
 * the
 *    helper returns with rip = insn_ip (sem.h).
 *  - Before the first byte of an instruction is fetched, insn_ip = rip; an instruction-fetch fault
 * and
 *    a #UD or #GP of the decoder are raised like any other fault.
 *  - A block may be left between any two instructions, and must be left after the instruction
 * during
 *    which this vCPU's CPU_EV_CODE came up. cpu_poll_events clears CODE, TLB, TRAP, NMI, INIT,
 * SIPI and
 *    SMI as it handles them, and lets others be alone (CPU_EV_EXCLUSIVE); KICK is the caller's to
 *    clear; INTR follows the interrupt controller.
 *  - An engine that does not poll between STI and the instruction after it (nor between MOV SS and
 * the
 *    next) keeps the interrupt shadow by that alone and may clear cpu->int_shadow itself.
 */
#ifndef SOSIA_CPU_EXCEPT_H
#define SOSIA_CPU_EXCEPT_H

#include "cpu/cpu.h"

/* Raise a fault of the instruction in flight: record it, restore rip to insn_ip, unwind. While an
 * event is being delivered: the double- and triple-fault rules apply (SDM 3 table 6-5). */
_Noreturn void cpu_raise(struct cpu *cpu, enum cpu_vector vector);
_Noreturn void cpu_raise_error(struct cpu *cpu, enum cpu_vector vector, uint32_t error);
_Noreturn void cpu_raise_pf(struct cpu *cpu, uint64_t cr2, uint32_t error);
/* #DB as a fault (instruction breakpoint, general detect): these bits go to DR6. */
_Noreturn void cpu_raise_db(struct cpu *cpu, uint64_t dr6_bits);

/* The EXT bit of error codes: set while an event other than INT n, INT3, INTO is being delivered.
 */
static inline uint32_t except_ext(const struct cpu *cpu)
{
    return cpu->in_delivery && !cpu->exc.software;
}

/* After an unwind (setjmp returned non-zero): deliver cpu->exc. May itself unwind; on a triple
 * fault returns with activity CPU_SHUTDOWN. Nothing to deliver: returns. */
void cpu_deliver_exception(struct cpu *cpu);

/* Deliver an INT n, INT3 or INTO (called by their helpers; rip is already the next one). */
void cpu_software_interrupt(struct cpu *cpu, uint8_t vector);

/* Deliver something that is no fault, between two instructions (poll.c), or INT1 with rip behind
 * it. */
void cpu_deliver_event(struct cpu *cpu, const struct cpu_exception *x);

enum cpu_poll {
    CPU_POLL_RUN,
    CPU_POLL_KICK,
    CPU_POLL_HALT,
    CPU_POLL_SHUTDOWN,
    CPU_POLL_STEP, /* run exactly one instruction, then poll again */
    CPU_POLL_DEBUG, /* a debugger wants it to stand here (cpu/stop.h) */
};

/* Between two instructions, when events != 0 or activity != CPU_ACTIVE: TLB flush requests, INIT,
 * SIPI, #DB traps, NMI, SMI, external interrupts, instruction breakpoints, in the order of SDM 3
 * table 6-2. Says whether guest code runs on. May unwind (fault during delivery). */
enum cpu_poll cpu_poll_events(struct cpu *cpu);

/* The part of it that takes INIT and SIPI, for an engine that takes the others its own way. */
void cpu_startup(struct cpu *cpu);

/* Bring CPU_EV_TRAP up to date after a change of RFLAGS.TF, DR7, int_shadow, pending_dr6,
 * step_armed. */
void cpu_update_trap(struct cpu *cpu);

#endif
