/* SPDX-License-Identifier: Apache-2.0
 *
 * Moves to and from segment registers. */
#include "cpu/except.h"
#include "cpu/far.h"
#include "cpu/opnd.h"
#include "cpu/sem_decls.h"

/* A load of SS is followed by a load of rSP: nothing may come between (SDM 3 6.8.3). LSS loads
 * both. */
static void shadow(struct cpu *cpu, unsigned seg)
{
    if (seg == SEG_SS) {
        cpu->int_shadow = CPU_SHADOW_SS;
        cpu_update_trap(cpu);
    }
}

void sem_mov_sreg(struct cpu *cpu, const struct insn *in)
{
    if (in->opnd[0].kind == OPND_SREG) {
        seg_load(cpu, in->opnd[0].reg, (uint16_t)opnd_read(cpu, in, 1));
        shadow(cpu, in->opnd[0].reg);
    } else {
        opnd_write(cpu, in, 0, cpu->seg[in->opnd[1].reg].sel);
    }
}

void sem_pop_sreg(struct cpu *cpu, const struct insn *in)
{
    uint64_t sp = cpu->gpr[R_SP];
    uint16_t sel = (uint16_t)stack_read(cpu, sp, in->opsize);
    uint64_t mask = stack_mask(cpu); /* the old stack's, also when SS itself is popped */
    seg_load(cpu, in->opnd[0].reg, sel);
    sp += in->opsize;
    cpu->gpr[R_SP] = mask == 0xffff ? (cpu->gpr[R_SP] & ~mask) | (sp & mask) : sp & mask;
    shadow(cpu, in->opnd[0].reg);
}

/* A 32-bit push writes the low half only, as processors have done since the Pentium Pro. */
void sem_push_sreg(struct cpu *cpu, const struct insn *in)
{
    uint64_t sp = cpu->gpr[R_SP] - in->opsize;
    stack_write(cpu, sp, in->opsize == 8 ? 8 : 2, cpu->seg[in->opnd[0].reg].sel);
    stack_set(cpu, sp);
}

static void load_pointer(struct cpu *cpu, const struct insn *in, unsigned seg)
{
    uint16_t sel;
    uint64_t off;
    far_read_pointer(cpu, in, &sel, &off);
    seg_load(cpu, seg, sel);
    opnd_write(cpu, in, 0, off);
}

void sem_les(struct cpu *cpu, const struct insn *in) { load_pointer(cpu, in, SEG_ES); }
void sem_lds(struct cpu *cpu, const struct insn *in) { load_pointer(cpu, in, SEG_DS); }
void sem_lss(struct cpu *cpu, const struct insn *in) { load_pointer(cpu, in, SEG_SS); }
void sem_lfs(struct cpu *cpu, const struct insn *in) { load_pointer(cpu, in, SEG_FS); }
void sem_lgs(struct cpu *cpu, const struct insn *in) { load_pointer(cpu, in, SEG_GS); }
