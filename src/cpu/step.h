/* SPDX-License-Identifier: Apache-2.0
 *
 * Single instructions by their helpers, for engines that otherwise run guest code in another way.
 * Thread: [vcpu], with cpu->unwind set: faults unwind to it (cpu/except.h).
 */
#ifndef SOSIA_CPU_STEP_H
#define SOSIA_CPU_STEP_H

#include "cpu/cpu.h"
#include "cpu/insn.h"

/* Linear address of the instruction at rip, which becomes insn_ip; may raise #GP. */
uint64_t cpu_begin_instruction(struct cpu *cpu);

/* Do it. in: room for the decoded form, which lives on as cpu->insn. */
void cpu_do_instruction(struct cpu *cpu, struct insn *in);

#endif
