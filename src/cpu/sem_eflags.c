/* SPDX-License-Identifier: Apache-2.0
 *
 * PUSHF POPF CLI STI, with virtual interrupts (VME, PVI). */
#include "cpu/eflags.h"
#include "cpu/insn.h"
#include "cpu/sem_decls.h"
#include "cpu/stack.h"

static bool v86_needs_vme(const struct cpu *cpu) { return cpu_v86(cpu) && eflags_iopl(cpu) < 3; }

void sem_pushf(struct cpu *cpu, const struct insn *in)
{
    uint64_t image = cpu->rflags & ~(FLAG_VM | FLAG_RF);
    if (v86_needs_vme(cpu)) {
        if (in->opsize != 2 || !(cpu->cr4 & CR4_VME)) {
            cpu_raise_error(cpu, EXC_GP, 0);
        }
        image = (image & ~FLAG_IF) | FLAG_IOPL | (image & FLAG_VIF ? FLAG_IF : 0);
    }
    stack_push(cpu, in->opsize, image);
}

void sem_popf(struct cpu *cpu, const struct insn *in)
{
    unsigned size = in->opsize;
    bool vme = v86_needs_vme(cpu);
    if (vme && (size != 2 || !(cpu->cr4 & CR4_VME))) {
        cpu_raise_error(cpu, EXC_GP, 0);
    }
    uint64_t sp = cpu->gpr[R_SP];
    uint64_t image = stack_read(cpu, sp, size);
    if (vme) {
        eflags_load_vme(cpu, image);
    } else {
        uint64_t mask = cpu_v86(cpu) ? FLAGS_USER | FLAG_IF : eflags_writable(cpu);
        mask &= size == 2 ? 0xffff : ~0ull;
        cpu->rflags = (cpu->rflags & ~(mask | FLAG_RF)) | (image & mask) | FLAG_FIXED;
    }
    stack_set(cpu, sp + size);
    cpu_update_mode(cpu);
    cpu_update_trap(cpu);
}

/* CLI and STI where IOPL does not let them at IF: VIF in virtual-8086 mode with VME, and at CPL 3
 * with PVI; elsewhere #GP(0). */
static void check_virtual(struct cpu *cpu)
{
    uint64_t need = cpu_v86(cpu) ? CR4_VME : CR4_PVI;
    if (cpu->cpl != 3 || !(cpu->cr4 & need)) {
        cpu_raise_error(cpu, EXC_GP, 0);
    }
}

void sem_cli(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    if (cpu->cpl <= eflags_iopl(cpu)) {
        cpu->rflags &= ~FLAG_IF;
        return;
    }
    check_virtual(cpu);
    cpu->rflags &= ~FLAG_VIF;
}

void sem_sti(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    if (cpu->cpl <= eflags_iopl(cpu)) {
        if (!(cpu->rflags & FLAG_IF)) {
            cpu->rflags |= FLAG_IF;
            cpu->int_shadow = CPU_SHADOW_STI;
            cpu_update_trap(cpu);
        }
        return;
    }
    check_virtual(cpu);
    if (cpu->rflags & FLAG_VIP) {
        cpu_raise_error(cpu, EXC_GP, 0);
    }
    cpu->rflags |= FLAG_VIF;
}
