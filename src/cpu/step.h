/* SPDX-License-Identifier: Apache-2.0
 *
 * Single instructions by their helpers, for engines that otherwise run guest code in another way.
 * Thread: [vcpu], with cpu->unwind set: faults unwind to it (cpu/except.h).
 */
#ifndef SOSIA_CPU_STEP_H
#define SOSIA_CPU_STEP_H

#include "base/bits.h"
#include "cpu/cpu.h"
#include "cpu/insn.h"

/* Linear address of the instruction at rip, which becomes insn_ip; may raise #GP. */
uint64_t cpu_begin_instruction(struct cpu *cpu);

/* Do it, and count it; whoever catches a fault of it takes it back. in: room for the decoded form,
 * which lives on as cpu->insn. */
void cpu_do_instruction(struct cpu *cpu, struct insn *in);

/* The instruction just done is to be done again: a repeated string instruction that lets others in,
 * an x87 instruction that waits. It has not retired. */
static inline bool cpu_goes_on(const struct cpu *cpu, const struct insn *in)
{
    return unlikely(cpu->rip == cpu->insn_ip) && insn_info[in->row].branch == BR_NONE;
}

#endif
