/* SPDX-License-Identifier: Apache-2.0
 *
 * Semantic helpers: one C function per operation, used by every software engine.
 *
 * The contract of a helper `void sem_x(struct cpu *cpu, const struct insn *in)`:
 *  - On entry cpu->insn_ip is the address of the instruction, cpu->rip that of the next one,
 *    cpu->insn == in. Branches set cpu->rip; others leave it alone.
 *  - A fault is raised with cpu_raise*(), which does not return: it unwinds to the engine's run
 *    loop with cpu->rip put back to insn_ip. So a helper changes registers and flags only after its
 *    last access that may fault (restartability, SDM 3 6.6).
 *  - A REP string instruction that is to be continued (event pending) sets cpu->rip = cpu->insn_ip
 *    with the registers advanced, and returns.
 *  - cpu->rflags is whole and current on entry and on return.
 */
#ifndef SOSIA_CPU_SEM_H
#define SOSIA_CPU_SEM_H

#include "cpu/cpu.h"
#include "cpu/insn.h"

typedef void sem_fn(struct cpu *cpu, const struct insn *in);

/* By enum insn_op. IA_HOST operations share sem_host (cpu/hostexec.c). */
extern sem_fn *const sem_table[OP_COUNT];

void sem_host(struct cpu *cpu, const struct insn *in);
void sem_undefined(struct cpu *cpu, const struct insn *in); /* raises #UD */

#endif
