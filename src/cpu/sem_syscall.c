/* SPDX-License-Identifier: Apache-2.0
 *
 * SYSCALL SYSRET SYSENTER SYSEXIT, SWAPGS, FS and GS bases. The vendors differ in where SYSCALL and
 * SYSENTER exist: on Intel SYSCALL only in 64-bit mode, on AMD SYSENTER only outside long mode. */
#include <string.h>

#include "cpu/eflags.h"
#include "cpu/opnd.h"
#include "cpu/seg.h"
#include "cpu/sem_decls.h"

enum flat_code { FLAT_CODE32, FLAT_CODE64 };

/* The fixed flat segments that these instructions load without looking at descriptors. */
static void flat_segments(struct cpu *cpu, uint16_t cs, uint16_t ss, unsigned cpl,
                          enum flat_code code)
{
    uint32_t common = SEG_ATTR_P | SEG_ATTR_S | SEG_ATTR_G | cpl << SEG_ATTR_DPL_SHIFT;
    cpu->seg[SEG_CS] = (struct cpu_seg){
        .sel = (cs & ~SEL_RPL) | (uint16_t)cpl,
        .limit = 0xffffffff,
        .attr = common | 0xb | (code == FLAT_CODE64 ? SEG_ATTR_L : SEG_ATTR_DB),
    };
    cpu->seg[SEG_SS] = (struct cpu_seg){
        .sel = (ss & ~SEL_RPL) | (uint16_t)cpl,
        .limit = 0xffffffff,
        .attr = common | 3 | SEG_ATTR_DB,
    };
}

static void syscall_legacy(struct cpu *cpu)
{
    uint64_t star = cpu->star;
    cpu->gpr[R_CX] = (uint32_t)cpu->rip;
    cpu->rip = (uint32_t)star;
    cpu->rflags &= ~(FLAG_VM | FLAG_IF | FLAG_RF);
    flat_segments(cpu, (uint16_t)(star >> 32), (uint16_t)((star >> 32) + 8), 0, FLAT_CODE32);
}

void sem_syscall(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    if (!(cpu->efer & EFER_SCE) || (!cpu_is_amd(cpu) && cpu->mode != INSN_MODE_64) ||
        !cpu_protected(cpu)) {
        cpu_raise(cpu, EXC_UD);
    }
    if (!cpu_long_mode(cpu)) {
        syscall_legacy(cpu);
    } else {
        uint16_t sel = (uint16_t)(cpu->star >> 32);
        cpu->gpr[R_CX] = cpu->rip;
        cpu->gpr[R_11] = cpu->rflags & ~FLAG_RF;
        cpu->rip = cpu->mode == INSN_MODE_64 ? cpu->lstar : cpu->cstar;
        cpu->rflags = (cpu->rflags & ~cpu->sfmask & ~FLAG_RF) | FLAG_FIXED;
        flat_segments(cpu, sel, (uint16_t)(sel + 8), 0, FLAT_CODE64);
    }
    /* Stepping is decided by TF after the instruction, so that IA32_FMASK can hide the kernel from
     * it. */
    cpu->step_armed = cpu->step_armed && (cpu->rflags & FLAG_TF);
    cpu_update_mode(cpu);
}

void sem_sysret(struct cpu *cpu, const struct insn *in)
{
    bool legacy = cpu_is_amd(cpu) && cpu_protected(cpu) && !cpu_long_mode(cpu);
    if (!(cpu->efer & EFER_SCE) || (cpu->mode != INSN_MODE_64 && !legacy)) {
        cpu_raise(cpu, EXC_UD);
    }
    bool to64 = in->opsize == 8;
    if (cpu->cpl != 0 || (to64 && !mmu_canonical(cpu, cpu->gpr[R_CX]))) {
        cpu_raise_error(cpu, EXC_GP, 0);
    }
    uint16_t sel = (uint16_t)(cpu->star >> 48);
    cpu->rip = to64 ? cpu->gpr[R_CX] : (uint32_t)cpu->gpr[R_CX];
    if (legacy) {
        cpu->rflags |= FLAG_IF;
    } else {
        cpu->rflags = (cpu->gpr[R_11] & 0x3c7fd7) | FLAG_FIXED;
    }
    flat_segments(cpu, to64 ? (uint16_t)(sel + 16) : sel, (uint16_t)(sel + 8), 3,
                  to64 ? FLAT_CODE64 : FLAT_CODE32);
    cpu->step_armed = cpu->rflags & FLAG_TF; /* the trap comes before the first user instruction */
    cpu_update_mode(cpu);
    cpu_update_trap(cpu);
}

void sem_sysenter(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    bool wide = cpu_long_mode(cpu);
    if (wide && cpu_is_amd(cpu)) {
        cpu_raise(cpu, EXC_UD);
    }
    if (!cpu_protected(cpu) || sel_is_null((uint16_t)cpu->sysenter_cs)) {
        cpu_raise_error(cpu, EXC_GP, 0);
    }
    uint16_t sel = (uint16_t)cpu->sysenter_cs;
    cpu->rflags &= ~(FLAG_VM | FLAG_IF | FLAG_RF);
    cpu->gpr[R_SP] = wide ? cpu->sysenter_esp : (uint32_t)cpu->sysenter_esp;
    cpu->rip = wide ? cpu->sysenter_eip : (uint32_t)cpu->sysenter_eip;
    flat_segments(cpu, sel, (uint16_t)(sel + 8), 0, wide ? FLAT_CODE64 : FLAT_CODE32);
    cpu_update_mode(cpu);
}

void sem_sysexit(struct cpu *cpu, const struct insn *in)
{
    if (cpu_long_mode(cpu) && cpu_is_amd(cpu)) {
        cpu_raise(cpu, EXC_UD);
    }
    bool to64 = in->opsize == 8;
    if (!cpu_protected(cpu) || sel_is_null((uint16_t)cpu->sysenter_cs) || cpu->cpl != 0 ||
        (to64 && (!mmu_canonical(cpu, cpu->gpr[R_CX]) || !mmu_canonical(cpu, cpu->gpr[R_DX])))) {
        cpu_raise_error(cpu, EXC_GP, 0);
    }
    uint16_t sel = (uint16_t)(cpu->sysenter_cs + (to64 ? 32 : 16));
    cpu->gpr[R_SP] = to64 ? cpu->gpr[R_CX] : (uint32_t)cpu->gpr[R_CX];
    cpu->rip = to64 ? cpu->gpr[R_DX] : (uint32_t)cpu->gpr[R_DX];
    flat_segments(cpu, sel, (uint16_t)(sel + 8), 3, to64 ? FLAT_CODE64 : FLAT_CODE32);
    cpu_update_mode(cpu);
}

/* -- Bases ------------------------------------------------------------------------------------- */
void sem_swapgs(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    cpu_need_cpl0(cpu);
    uint64_t base = cpu->seg[SEG_GS].base;
    cpu->seg[SEG_GS].base = cpu->kernel_gs_base;
    cpu->kernel_gs_base = base;
}

static void need_fsgsbase(struct cpu *cpu)
{
    if (!(cpu->cr4 & CR4_FSGSBASE)) {
        cpu_raise(cpu, EXC_UD);
    }
}

static void read_base(struct cpu *cpu, const struct insn *in, unsigned seg)
{
    need_fsgsbase(cpu);
    opnd_write(cpu, in, 0, cpu->seg[seg].base);
}

static void write_base(struct cpu *cpu, const struct insn *in, unsigned seg)
{
    need_fsgsbase(cpu);
    uint64_t base = opnd_read(cpu, in, 0);
    if (!mmu_canonical_reg(cpu, base)) {
        cpu_raise_error(cpu, EXC_GP, 0);
    }
    cpu->seg[seg].base = base;
}

void sem_rdfsbase(struct cpu *cpu, const struct insn *in) { read_base(cpu, in, SEG_FS); }
void sem_rdgsbase(struct cpu *cpu, const struct insn *in) { read_base(cpu, in, SEG_GS); }
void sem_wrfsbase(struct cpu *cpu, const struct insn *in) { write_base(cpu, in, SEG_FS); }
void sem_wrgsbase(struct cpu *cpu, const struct insn *in) { write_base(cpu, in, SEG_GS); }
