/* SPDX-License-Identifier: Apache-2.0
 *
 * System-management mode (SDM 3 chapter 32; AMD APM 2 chapter 10).  Thread: [vcpu].
 */
#ifndef SOSIA_CPU_SMM_H
#define SOSIA_CPU_SMM_H

#include "cpu/cpu.h"

/* An SMI waits and would be taken now (cpu/poll.c). [any], while the processor stands. */
bool cpu_smi_due(const struct cpu *cpu);
/* Save the state and begin at SMBASE + 0x8000. The map shows SMRAM already. */
void smm_enter(struct cpu *cpu);
/* RSM: what the save area says. The world is told that the processor is out. */
void smm_return(struct cpu *cpu);

#endif
