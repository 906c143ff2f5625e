/* SPDX-License-Identifier: Apache-2.0
 *
 * One vCPU alone for a moment: locked accesses that the host cannot do atomically (page-crossing,
 * line-crossing, on pages whose writes must be announced, MMIO) stop the other vCPUs of the VM.
 *
 * A software engine makes one of these for its vCPUs (cpu->exclusive), brackets its run loop with
 * enter and leave, and calls cpu_exclusive_yield between instructions when CPU_EV_EXCLUSIVE is set.
 * The holder must not hold a lock that a device callback takes: the others finish their callbacks
 * before they stop.
 */
#ifndef SOSIA_CPU_EXCLUSIVE_H
#define SOSIA_CPU_EXCLUSIVE_H

#include "cpu/cpu.h"

struct cpu_exclusive;

/* cpus is copied; each gets its cpu->exclusive set. */
struct cpu_exclusive *cpu_exclusive_new(struct cpu **cpus, unsigned count);
void cpu_exclusive_free(struct cpu_exclusive *x); /* NULL is fine; cpu->exclusive are cleared */

/* [vcpu] The thread begins and ends to run guest code. */
void cpu_exclusive_enter(struct cpu *cpu);
void cpu_exclusive_leave(struct cpu *cpu);
/* [vcpu] Stand still while somebody is alone; clears CPU_EV_EXCLUSIVE. */
void cpu_exclusive_yield(struct cpu *cpu);
/* [vcpu] After an unwind: give up what the faulting instruction held, if it did. */
void cpu_exclusive_abandon(struct cpu *cpu);
/* [any] Between enter and leave. A vCPU that is not running flushes its TLBs before it does. */
bool cpu_exclusive_running(const struct cpu *cpu);

#endif
