/* SPDX-License-Identifier: Apache-2.0
 *
 * INT n, INT3, INTO, INT1, BOUND. */
#include "cpu/deliver.h"
#include "cpu/eflags.h"
#include "cpu/opnd.h"
#include "cpu/sem_decls.h"

/* Only the two-byte form knows of VME and IOPL (SDM 3 20.3.3, table 20-2). */
void sem_int(struct cpu *cpu, const struct insn *in)
{
    uint8_t vector = (uint8_t)in->imm;
    if (cpu_v86(cpu)) {
        if (cpu->cr4 & CR4_VME) {
            cpu->step_armed = false;
            if (deliver_v86_redirected(cpu, vector)) {
                return;
            }
        }
        if (eflags_iopl(cpu) < 3) {
            cpu_raise_error(cpu, EXC_GP, 0);
        }
    }
    cpu_software_interrupt(cpu, vector);
}

void sem_int3(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    cpu_software_interrupt(cpu, EXC_BP);
}

void sem_into(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    if (cpu->rflags & FLAG_OF) {
        cpu_software_interrupt(cpu, EXC_OF);
    }
}

/* Delivered like a hardware exception: no DPL check, EXT set (SDM 2, INT n). What MOV SS before it
 * met and held back comes with it: one #DB. */
void sem_int1(struct cpu *cpu, const struct insn *in)
{
    const struct cpu_exception x = { .vector = EXC_DB,
                                     .external = true,
                                     .dr6_bits = cpu->pending_dr6 };
    (void)in;
    cpu->step_armed = false;
    cpu->pending_dr6 = 0;
    cpu_deliver_event(cpu, &x);
}

void sem_bound(struct cpu *cpu, const struct insn *in)
{
    unsigned size = in->opsize;
    uint64_t ea = cpu_effective_address(cpu, in);
    int64_t index = sign_extend(gpr_read(cpu, in->opnd[0].reg, size), size);
    int64_t low = sign_extend(cpu_read(cpu, in->mem.seg, ea, size), size);
    if (index < low && !cpu_is_amd(cpu)) { /* Intel: before the upper bound is read */
        cpu_raise(cpu, EXC_BR);
    }
    int64_t high = sign_extend(cpu_read(cpu, in->mem.seg, mask_size(ea + size, in->adsize), size),
                               size);
    if (index < low || index > high) {
        cpu_raise(cpu, EXC_BR);
    }
}
