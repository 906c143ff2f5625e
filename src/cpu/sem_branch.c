/* SPDX-License-Identifier: Apache-2.0
 *
 * Near branches. The target is checked before registers change: canonical in 64-bit mode, within CS
 * elsewhere; #GP(0) is the branch's own. */
#include "cpu/opnd.h"
#include "cpu/sem_decls.h"
#include "cpu/stack.h"

/* Truncated to the operand size and checked. */
static uint64_t target(struct cpu *cpu, const struct insn *in, uint64_t rip)
{
    if (likely(in->opsize == 8)) {
        if (unlikely((uint64_t)((int64_t)(rip << 16) >> 16) != rip) && !mmu_canonical(cpu, rip)) {
            cpu_raise_error(cpu, EXC_GP, 0);
        }
        return rip;
    }
    rip = in->opsize == 2 ? (uint16_t)rip : (uint32_t)rip;
    if (unlikely(cpu->mode != INSN_MODE_64 && rip > cpu->seg[SEG_CS].limit)) {
        cpu_raise_error(cpu, EXC_GP, 0);
    }
    return rip;
}

static void jump_relative(struct cpu *cpu, const struct insn *in)
{
    cpu->rip = target(cpu, in, cpu->rip + (uint64_t)in->imm);
}

void sem_jmp(struct cpu *cpu, const struct insn *in) { jump_relative(cpu, in); }

void sem_jcc(struct cpu *cpu, const struct insn *in)
{
    if (alu_cond(alu_pack(cpu->rflags), in->cc)) {
        jump_relative(cpu, in);
    }
}

void sem_jmp_ind(struct cpu *cpu, const struct insn *in)
{
    cpu->rip = target(cpu, in, opnd_read(cpu, in, 0));
}

static void call(struct cpu *cpu, const struct insn *in, uint64_t to)
{
    uint64_t sp = cpu->gpr[R_SP] - in->opsize;
    if (cpu_is_amd(cpu)) {
        stack_probe(cpu, sp, in->opsize);
        to = target(cpu, in, to);
        stack_write(cpu, sp, in->opsize, cpu->rip);
    } else { /* the return address is stored first, and stays should the target fault */
        stack_write(cpu, sp, in->opsize, cpu->rip);
        to = target(cpu, in, to);
    }
    stack_set(cpu, sp);
    cpu->rip = to;
}

void sem_call(struct cpu *cpu, const struct insn *in)
{
    call(cpu, in, cpu->rip + (uint64_t)in->imm);
}

void sem_call_ind(struct cpu *cpu, const struct insn *in) { call(cpu, in, opnd_read(cpu, in, 0)); }

void sem_ret(struct cpu *cpu, const struct insn *in)
{
    uint64_t sp = cpu->gpr[R_SP];
    uint64_t to = target(cpu, in, stack_read(cpu, sp, in->opsize));
    stack_set(cpu, sp + in->opsize + (in->nopnd != 0 ? (uint16_t)in->imm : 0));
    cpu->rip = to;
}

/* -- Counted by rCX of the address size -------------------------------------------------------- */
static void loop(struct cpu *cpu, const struct insn *in, bool condition)
{
    uint64_t count = gpr_read(cpu, R_CX, in->adsize) - 1;
    uint64_t rip = cpu->rip;
    if (mask_size(count, in->adsize) != 0 && condition) {
        rip = target(cpu, in, rip + (uint64_t)in->imm);
    }
    gpr_write(cpu, R_CX, in->adsize, count);
    cpu->rip = rip;
}

void sem_loop(struct cpu *cpu, const struct insn *in) { loop(cpu, in, true); }

/* A repeat prefix says, with AMD, which ZF goes on. */
static bool loops_on_equal(const struct cpu *cpu, const struct insn *in)
{
    if (cpu_is_amd(cpu) && (in->flags & (INSN_REP | INSN_REPNE))) {
        return in->flags & INSN_REP;
    }
    return in->op == OP_LOOPE;
}

void sem_loope(struct cpu *cpu, const struct insn *in)
{
    loop(cpu, in, loops_on_equal(cpu, in) == !!(cpu->rflags & FLAG_ZF));
}

void sem_loopne(struct cpu *cpu, const struct insn *in) { sem_loope(cpu, in); }

void sem_jcxz(struct cpu *cpu, const struct insn *in)
{
    if (gpr_read(cpu, R_CX, in->adsize) == 0) {
        jump_relative(cpu, in);
    }
}
