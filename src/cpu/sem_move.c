/* SPDX-License-Identifier: Apache-2.0
 *
 * Data movement, conditions, flag bits, hints. */
#include <sched.h>

#include "cpu/opnd.h"
#include "cpu/sem_decls.h"

void sem_mov(struct cpu *cpu, const struct insn *in)
{
    opnd_write(cpu, in, 0, opnd_read(cpu, in, 1));
}

void sem_movzx(struct cpu *cpu, const struct insn *in)
{
    opnd_write(cpu, in, 0, opnd_read(cpu, in, 1));
}

void sem_movsx(struct cpu *cpu, const struct insn *in)
{
    opnd_write(cpu, in, 0, (uint64_t)sign_extend(opnd_read(cpu, in, 1), in->opnd[1].size));
}

void sem_movsxd(struct cpu *cpu, const struct insn *in) { sem_movsx(cpu, in); }

void sem_movnti(struct cpu *cpu, const struct insn *in) { sem_mov(cpu, in); }
void sem_movdiri(struct cpu *cpu, const struct insn *in) { sem_mov(cpu, in); }

void sem_movbe(struct cpu *cpu, const struct insn *in)
{
    unsigned size = in->opnd[0].size;
    uint64_t v = __builtin_bswap64(opnd_read(cpu, in, 1)) >> (64 - size * 8);
    opnd_write(cpu, in, 0, v);
}

void sem_lea(struct cpu *cpu, const struct insn *in)
{
    gpr_write(cpu, in->opnd[0].reg, in->opnd[0].size, cpu_effective_address(cpu, in));
}

void sem_xlat(struct cpu *cpu, const struct insn *in)
{
    uint64_t off = mask_size(cpu->gpr[R_BX] + (uint8_t)cpu->gpr[R_AX], in->adsize);
    gpr_write(cpu, R_AX, 1, cpu_read(cpu, in->mem.seg, off, 1));
}

/* CBW CWDE CDQE */
void sem_cbw(struct cpu *cpu, const struct insn *in)
{
    unsigned half = in->opsize / 2;
    gpr_write(cpu, R_AX, in->opsize, (uint64_t)sign_extend(gpr_read(cpu, R_AX, half), half));
}

/* CWD CDQ CQO */
void sem_cwd(struct cpu *cpu, const struct insn *in)
{
    gpr_write(cpu, R_DX, in->opsize,
              (uint64_t)(sign_extend(gpr_read(cpu, R_AX, in->opsize), in->opsize) >> 63));
}

/* -- Conditions -------------------------------------------------------------------------------- */
/* The source is read, and may fault, whether the condition holds or not; a 32-bit destination loses
 * its upper half either way (SDM 2, CMOVcc). */
void sem_cmovcc(struct cpu *cpu, const struct insn *in)
{
    uint64_t v = opnd_read(cpu, in, 1);
    opnd_write(cpu, in, 0, alu_cond(alu_pack(cpu->rflags), in->cc) ? v : opnd_read(cpu, in, 0));
}

void sem_setcc(struct cpu *cpu, const struct insn *in)
{
    opnd_write(cpu, in, 0, alu_cond(alu_pack(cpu->rflags), in->cc));
}

/* Undocumented: AL = CF ? FFh : 0. */
void sem_salc(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    gpr_write(cpu, R_AX, 1, cpu->rflags & FLAG_CF ? 0xff : 0);
}

/* -- Flags ------------------------------------------------------------------------------------- */
#define AH_FLAGS (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF)

void sem_lahf(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    gpr_write(cpu, 16, 1, (cpu->rflags & AH_FLAGS) | FLAG_FIXED);
}

void sem_sahf(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    cpu->rflags = (cpu->rflags & ~AH_FLAGS) | (gpr_read(cpu, 16, 1) & AH_FLAGS);
}

void sem_clc(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    cpu->rflags &= ~FLAG_CF;
}

void sem_stc(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    cpu->rflags |= FLAG_CF;
}

void sem_cmc(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    cpu->rflags ^= FLAG_CF;
}

void sem_cld(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    cpu->rflags &= ~FLAG_DF;
}

void sem_std(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    cpu->rflags |= FLAG_DF;
}

/* -- Hints, fences, undefined ------------------------------------------------------------------ */
void sem_nop(struct cpu *cpu, const struct insn *in)
{
    (void)cpu;
    (void)in;
}

/* Who spins waits for somebody who may want this host CPU: another vCPU, a device's thread. It
 * gives way now and then, as processors leave their guests (PAUSE-loop exiting, SDM 3 26.1.3). */
#define PAUSES_PER_YIELD 64u

void sem_pause(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    if (++cpu->pauses % PAUSES_PER_YIELD == 0) {
        sched_yield();
    } else {
        __builtin_ia32_pause();
    }
}

static void fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

void sem_mfence(struct cpu *cpu, const struct insn *in)
{
    (void)cpu;
    (void)in;
    fence();
}

void sem_lfence(struct cpu *cpu, const struct insn *in) { sem_mfence(cpu, in); }
void sem_sfence(struct cpu *cpu, const struct insn *in) { sem_mfence(cpu, in); }

/* Nothing to flush, but the operand is checked like a byte load (SDM 2, CLFLUSH). */
void sem_clflush(struct cpu *cpu, const struct insn *in)
{
    uint64_t off = cpu_effective_address(cpu, in);
    gva_t va = cpu_linear(cpu, in->mem.seg, off, 1, MMU_READ);
    const struct tlb_entry *e = access_entry(cpu, va);
    gva_t page = va & ACCESS_PAGE_MASK;
    if (unlikely(e->tag_read != page && e->tag_read != CPU_TLB_SLOW(page))) {
        (void)access_read(cpu, in->mem.seg, off, 1);
    }
    fence();
}

void sem_clflushopt(struct cpu *cpu, const struct insn *in) { sem_clflush(cpu, in); }
void sem_clwb(struct cpu *cpu, const struct insn *in) { sem_clflush(cpu, in); }

void sem_ud0(struct cpu *cpu, const struct insn *in) { sem_undefined(cpu, in); }
void sem_ud1(struct cpu *cpu, const struct insn *in) { sem_undefined(cpu, in); }
void sem_ud2(struct cpu *cpu, const struct insn *in) { sem_undefined(cpu, in); }
