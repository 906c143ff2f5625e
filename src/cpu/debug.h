/* SPDX-License-Identifier: Apache-2.0
 *
 * Debug registers (SDM 3 chapter 17): breakpoints on instructions, data and ports. How engines take
 * part is in cpu/except.h.  Thread: [vcpu].
 */
#ifndef SOSIA_CPU_DEBUG_H
#define SOSIA_CPU_DEBUG_H

#include "cpu/cpu.h"
#include "cpu/insn.h"

#define DR6_B 0xfull /* B0..B3 */
#define DR6_BD 0x2000ull
#define DR6_BS 0x4000ull
#define DR6_BT 0x8000ull
#define DR6_WRITABLE (DR6_B | DR6_BD | DR6_BS | DR6_BT)
#define DR6_FIXED 0xffff0ff0ull
#define DR7_ENABLED 0xffull /* L0 G0 .. L3 G3 */
#define DR7_LOCAL 0x155ull  /* L0..L3, LE: cleared by a task switch */
#define DR7_GD 0x2000ull
#define DR7_FIXED 0x400ull
#define DR7_WRITABLE 0xffff23ffull

/* Any breakpoint enabled? Then instructions run one by one. */
static inline bool cpu_debug_active(const struct cpu *cpu)
{
    return (cpu->dr[7] & DR7_ENABLED) != 0;
}

/* Linear address of the next instruction. */
static inline gva_t cpu_linear_rip(const struct cpu *cpu)
{
    return cpu->mode == INSN_MODE_64 ? cpu->rip : (uint32_t)(cpu->seg[SEG_CS].base + cpu->rip);
}

/* Is a data breakpoint enabled in the 4 KiB page of this linear address, or a debugger's watchpoint
 * (cpu/stop.h)? Its accesses must go to cpu_watch_check. Asked when a TLB entry is filled; a change
 * of DR0..3, DR7 or a debugger's watchpoints that changes the answer flushes the TLBs. */
bool cpu_watch_page(const struct cpu *cpu, gva_t va);
/* A data access of len bytes at a linear address was made: breakpoints that it meets become pending
 * and are reported as a trap after the instruction. */
void cpu_watch_check(struct cpu *cpu, gva_t va, unsigned len, bool is_write);
/* The same for a port access. */
void cpu_watch_port(struct cpu *cpu, uint16_t port, unsigned size);
/* Bits of DR6 for instruction breakpoints at this linear address; 0: none. */
uint64_t cpu_breakpoint_at(const struct cpu *cpu, gva_t va);

#endif
