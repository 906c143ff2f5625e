/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside of event delivery, task switches and far transfers: stacks that are not yet the CPU's, and
 * the pieces that except.c, deliver_*.c, task.c and sem_far.c share.  Thread: [vcpu].
 */
#ifndef SOSIA_CPU_DELIVER_H
#define SOSIA_CPU_DELIVER_H

#include "cpu/access.h"
#include "cpu/except.h"
#include "cpu/seg.h"

/* A stack being pushed to. Nothing of the CPU changes until new_stack_commit. */
struct new_stack {
    struct cpu_seg ss;
    uint64_t sp;
    uint64_t mask;      /* of the stack pointer; all ones: a flat 64-bit stack */
    uint8_t view;       /* enum tlb_view of the pushes */
    uint16_t fault_sel; /* #SS error code when it is too small */
};

/* The stack in use. */
struct new_stack new_stack_current(const struct cpu *cpu);
/* Another one, to run at privilege cpl. */
struct new_stack new_stack_at(const struct cpu *cpu, const struct cpu_seg *ss, uint64_t sp,
                              unsigned cpl);
struct new_stack new_stack_flat(const struct cpu *cpu, uint64_t sp, unsigned cpl);
void new_stack_push(struct cpu *cpu, struct new_stack *s, unsigned size, uint64_t v);
/* rSP, and SS when it is not the current one. */
void new_stack_commit(struct cpu *cpu, const struct new_stack *s);
enum tlb_view cpu_view_at(const struct cpu *cpu, unsigned cpl);

/* SS:ESP for privilege dpl from a 16- or 32-bit TSS, checked (SDM 3 6.12.1.1). */
struct new_stack tss_stack(struct cpu *cpu, unsigned dpl);
/* RSPn (index 0..2) or ISTn (3 + n) from a 64-bit TSS. */
uint64_t tss_rsp(struct cpu *cpu, unsigned index);

/* RFLAGS as pushed for cpu->exc. */
uint64_t except_flags(const struct cpu *cpu);

/* Deliver cpu->exc by the table of the mode. */
void deliver_real(struct cpu *cpu);
void deliver_protected(struct cpu *cpu);
void deliver_long(struct cpu *cpu);
/* Virtual-8086 mode with VME: an INT n that the task's redirection map sends to its own handler.
 * Returns false when it goes to the protected-mode IDT. */
bool deliver_v86_redirected(struct cpu *cpu, uint8_t vector);
#define DELIVER_CLEARS (FLAG_TF | FLAG_RF) /* by every way in but a task switch */
/* Common end of all. */
void deliver_finish(struct cpu *cpu, uint64_t clear_flags);

/* The code segment of a gate or far transfer, its EIP, checked against limit or canonical form. */
void far_check_target(struct cpu *cpu, const struct seg_desc *cs, uint64_t rip);

/* -- Task switches (SDM 3 7.3) */
enum task_reason { TASK_JMP, TASK_CALL, TASK_IRET, TASK_INTERRUPT };
/* d: the TSS descriptor that sel names, type and presence checked by the caller. error: pushed on
 * the new stack when has_error. rip must already be the return address. */
struct task_error {
    bool present;
    uint32_t code;
};
void task_switch(struct cpu *cpu, uint16_t sel, struct seg_desc *d, enum task_reason reason,
                 struct task_error error);
/* Through a task gate (IDT or call): checks the TSS it names. */
void task_gate(struct cpu *cpu, uint16_t sel, enum task_reason reason, struct task_error error);

#endif
