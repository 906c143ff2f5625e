/* SPDX-License-Identifier: Apache-2.0
 *
 * IRET in every mode (SDM 2, IRET): real, virtual-8086 with and without VME, return of a nested
 * task, to virtual-8086 mode, same and outer privilege, 64-bit. */
#include "cpu/debug.h"
#include "cpu/eflags.h"
#include "cpu/far.h"
#include "cpu/sem_decls.h"

/* RF counts only where breakpoints are watched (poll.c clears it after the next instruction). */
static void set_flags(struct cpu *cpu, uint64_t mask, uint64_t value)
{
    if (!cpu_debug_active(cpu)) {
        value &= ~FLAG_RF;
    }
    cpu->rflags = (cpu->rflags & ~mask) | (value & mask) | FLAG_FIXED;
}

static void finish(struct cpu *cpu)
{
    cpu_update_mode(cpu);
    cpu_update_trap(cpu);
}

static void iret_real(struct cpu *cpu, unsigned size)
{
    uint64_t sp = cpu->gpr[R_SP];
    uint64_t rip = stack_read(cpu, sp, size);
    uint16_t sel = (uint16_t)stack_read(cpu, sp + size, size);
    uint64_t flags = stack_read(cpu, sp + 2 * size, size);
    if (rip > cpu->seg[SEG_CS].limit) {
        cpu_raise_error(cpu, EXC_GP, 0);
    }
    stack_set(cpu, sp + 3 * size);
    seg_load_real(cpu, SEG_CS, sel);
    cpu->rip = rip;
    set_flags(cpu, FLAGS_USER | FLAG_IF | FLAG_IOPL | FLAG_RF, eflags_widen(cpu, flags, size));
    finish(cpu);
}

static void iret_v86(struct cpu *cpu, unsigned size)
{
    bool iopl3 = (cpu->rflags & FLAG_IOPL) == FLAG_IOPL;
    if (!iopl3 && (!(cpu->cr4 & CR4_VME) || size != 2)) {
        cpu_raise_error(cpu, EXC_GP, 0);
    }
    uint64_t sp = cpu->gpr[R_SP];
    uint64_t rip = stack_read(cpu, sp, size);
    uint16_t sel = (uint16_t)stack_read(cpu, sp + size, size);
    uint64_t flags = stack_read(cpu, sp + 2 * size, size);
    if (rip > 0xffff) {
        cpu_raise_error(cpu, EXC_GP, 0);
    }
    if (iopl3) {
        set_flags(cpu, FLAGS_USER | FLAG_IF | FLAG_RF, eflags_widen(cpu, flags, size));
    } else {
        eflags_load_vme(cpu, flags);
    }
    stack_set(cpu, sp + 3 * size);
    seg_set_v86(cpu, SEG_CS, sel);
    cpu->rip = rip;
    finish(cpu);
}

static void return_task(struct cpu *cpu)
{
    struct seg_desc d;
    uint16_t sel = (uint16_t)cpu_sys_read(cpu, cpu->tr.base, 2);
    if ((sel & SEL_TI) || sel_is_null(sel) || !seg_read(cpu, sel, &d) || desc_is_segment(&d) ||
        (desc_type(&d) != SEG_TSS16_BUSY && desc_type(&d) != SEG_TSS32_BUSY)) {
        seg_fault(cpu, EXC_TS, sel);
    }
    if (!desc_present(&d)) {
        seg_fault(cpu, EXC_NP, sel);
    }
    task_switch(cpu, sel, &d, TASK_IRET, (struct task_error){ .present = false });
    finish(cpu);
}

static void return_to_v86(struct cpu *cpu, uint64_t rip, uint16_t cs, uint64_t flags)
{
    static const uint8_t order[] = { SEG_SS, SEG_ES, SEG_DS, SEG_FS, SEG_GS };
    uint64_t sp = cpu->gpr[R_SP] + 12;
    uint64_t new_sp = stack_read(cpu, sp, 4);
    uint16_t sel[5];
    for (unsigned i = 0; i < 5; i++) {
        sel[i] = (uint16_t)stack_read(cpu, sp + 4 + 4 * i, 4);
    }
    if (rip > 0xffff) {
        cpu_raise_error(cpu, EXC_GP, 0);
    }
    set_flags(cpu, FLAGS_USER | FLAG_IF | FLAG_IOPL | FLAG_VM | FLAG_VIF | FLAG_VIP | FLAG_RF,
              flags);
    seg_set_v86(cpu, SEG_CS, cs);
    for (unsigned i = 0; i < 5; i++) {
        seg_set_v86(cpu, order[i], sel[i]);
    }
    cpu->gpr[R_SP] = new_sp;
    cpu->rip = rip;
    finish(cpu);
}

static void iret_protected(struct cpu *cpu, unsigned size)
{
    if (cpu->rflags & FLAG_NT) {
        if (cpu_long_mode(cpu)) {
            cpu_raise_error(cpu, EXC_GP, 0);
        }
        return_task(cpu);
        return;
    }
    uint64_t sp = cpu->gpr[R_SP];
    struct far_target t = { .rip = stack_read(cpu, sp, size) };
    t.sel = (uint16_t)stack_read(cpu, sp + size, size);
    uint64_t flags = stack_read(cpu, sp + 2 * size, size);
    if (size == 4 && (flags & FLAG_VM) && cpu->cpl == 0 && !cpu_long_mode(cpu)) {
        return_to_v86(cpu, t.rip, t.sel, flags);
        return;
    }
    far_check_return(cpu, &t, size);

    uint64_t mask = eflags_writable(cpu) | FLAG_RF | (cpu->cpl == 0 ? FLAG_VIF | FLAG_VIP : 0);
    mask &= size == 2 ? 0xffff : ~0ull;
    if (t.cpl == cpu->cpl && cpu->mode != INSN_MODE_64) {
        far_return(cpu, &t, NULL, sp + 3 * size);
    } else {
        uint64_t new_sp = stack_read(cpu, sp + 3 * size, size);
        uint16_t sel = (uint16_t)stack_read(cpu, sp + 4 * size, size);
        struct cpu_seg ss = far_check_return_stack(cpu, &t, sel);
        far_return(cpu, &t, &ss, new_sp);
    }
    set_flags(cpu, mask, flags);
    finish(cpu);
}

/* NMIs are let through again even if the return itself faults (SDM 3 6.7.1). */
void sem_iret(struct cpu *cpu, const struct insn *in)
{
    cpu->nmi_blocked = false;
    if (!cpu_protected(cpu)) {
        iret_real(cpu, in->opsize);
    } else if (cpu_v86(cpu)) {
        iret_v86(cpu, in->opsize);
    } else {
        iret_protected(cpu, in->opsize);
    }
}
