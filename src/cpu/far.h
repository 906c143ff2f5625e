/* SPDX-License-Identifier: Apache-2.0
 *
 * Pieces of far returns, shared by RETF and IRET.  Thread: [vcpu].
 */
#ifndef SOSIA_CPU_FAR_H
#define SOSIA_CPU_FAR_H

#include "cpu/deliver.h"
#include "cpu/insn.h"
#include "cpu/stack.h"

/* Where a far return goes. */
struct far_target {
    uint16_t sel;
    uint64_t rip;
    struct seg_desc cs;
    unsigned cpl;
};

/* Check CS:rIP popped by RETF or IRET in protected mode (not to virtual-8086 mode). */
void far_check_return(struct cpu *cpu, struct far_target *t, unsigned opsize);
/* SS for an outer level, or for any return of IRET in 64-bit mode, where null may do. */
struct cpu_seg far_check_return_stack(struct cpu *cpu, const struct far_target *t, uint16_t sel);
/* Go there. ss: NULL when the stack segment stays. */
void far_return(struct cpu *cpu, const struct far_target *t, const struct cpu_seg *ss, uint64_t sp);

/* Memory operand m16:16, m16:32 or m16:64. */
void far_read_pointer(struct cpu *cpu, const struct insn *in, uint16_t *sel, uint64_t *off);

#endif
