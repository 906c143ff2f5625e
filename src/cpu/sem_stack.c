/* SPDX-License-Identifier: Apache-2.0
 *
 * PUSH POP PUSHA POPA ENTER LEAVE. The stack pointer is as wide as SS.B or 64-bit mode says,
 * whatever the operand size (SDM 1 6.2.3). */
#include "cpu/opnd.h"
#include "cpu/sem_decls.h"
#include "cpu/stack.h"

void sem_push(struct cpu *cpu, const struct insn *in)
{
    stack_push(cpu, in->opsize, opnd_read(cpu, in, 0));
}

/* A memory destination's address is computed with rSP already incremented (SDM 2, POP). */
void sem_pop(struct cpu *cpu, const struct insn *in)
{
    unsigned size = in->opsize;
    uint64_t old = cpu->gpr[R_SP];
    uint64_t v = stack_read(cpu, old, size);
    stack_set(cpu, old + size);
    if (in->opnd[0].kind == OPND_GPR) {
        gpr_write(cpu, in->opnd[0].reg, size, v);
        return;
    }
    uint64_t incremented = cpu->gpr[R_SP];
    uint64_t off = cpu_effective_address(cpu, in);
    cpu->gpr[R_SP] = old; /* should the store fault */
    cpu_write(cpu, in->mem.seg, off, size, v);
    cpu->gpr[R_SP] = incremented;
}

/* Word by word: one that faults leaves rSP alone, but what was stored before it (PUSHA) or loaded
 * (POPA) stays, as on processors. */
void sem_pusha(struct cpu *cpu, const struct insn *in)
{
    unsigned size = in->opsize;
    uint64_t sp = cpu->gpr[R_SP];
    for (unsigned r = R_AX; r <= R_DI; r++) {
        stack_write(cpu, sp - (r + 1) * size, size, r == R_SP ? sp : cpu->gpr[r]);
    }
    stack_set(cpu, sp - 8 * size);
}

void sem_popa(struct cpu *cpu, const struct insn *in)
{
    unsigned size = in->opsize;
    uint64_t sp = cpu->gpr[R_SP];
    for (unsigned i = 0; i < 8; i++) {
        uint64_t v = stack_read(cpu, sp + i * size, size);
        if (R_DI - i != R_SP) {
            gpr_write(cpu, R_DI - i, size, v);
        }
    }
    stack_set(cpu, sp + 8 * size);
}

/* imm: bytes of locals, imm2: nesting level mod 32 (SDM 2, ENTER). */
void sem_enter(struct cpu *cpu, const struct insn *in)
{
    unsigned size = in->opsize;
    unsigned level = in->imm2 & 31;
    uint64_t sp = cpu->gpr[R_SP] - size;
    uint64_t frame = sp;
    uint64_t bp = cpu->gpr[R_BP];
    stack_write(cpu, sp, size, bp);
    for (unsigned i = 1; i < level; i++) {
        bp -= size;
        sp -= size;
        stack_write(cpu, sp, size, stack_read(cpu, bp, size));
    }
    if (level > 0) {
        sp -= size;
        stack_write(cpu, sp, size, frame);
    }
    sp -= (uint16_t)in->imm;
    stack_probe(cpu, sp, size); /* the new top must be writable */
    gpr_write(cpu, R_BP, size, frame);
    stack_set(cpu, sp);
}

void sem_leave(struct cpu *cpu, const struct insn *in)
{
    unsigned size = in->opsize;
    uint64_t bp = cpu->gpr[R_BP];
    uint64_t v = stack_read(cpu, bp, size);
    stack_set(cpu, bp + size);
    gpr_write(cpu, R_BP, size, v);
}
