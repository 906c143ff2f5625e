/* SPDX-License-Identifier: Apache-2.0
 *
 * Hardware task switches (SDM 3 chapter 7): by JMP, CALL, IRET, and by task gates.
 *
 * Everything that may fault in the old task is done first. From the moment the new TSS' registers
 * are loaded, faults belong to the new task: insn_ip is its EIP then. */
#include "cpu/deliver.h"

#include "base/bits.h"
#include "cpu/debug.h"

/* Registers as a TSS holds them. */
struct tss_image {
    uint32_t cr3, eip, eflags;
    uint32_t gpr[8];
    uint16_t sel[SEG_COUNT];
    uint16_t ldt;
    bool trap;
};

#define TSS32_MIN_LIMIT 0x67u
#define TSS16_MIN_LIMIT 0x2bu

static gva_t at(gva_t base, unsigned off) { return (uint32_t)(base + off); }

static void read_image(struct cpu *cpu, gva_t tss, bool is32, struct tss_image *t)
{
    *t = (struct tss_image){ 0 };
    if (is32) {
        t->cr3 = (uint32_t)cpu_sys_read(cpu, at(tss, 0x1c), 4);
        t->eip = (uint32_t)cpu_sys_read(cpu, at(tss, 0x20), 4);
        t->eflags = (uint32_t)cpu_sys_read(cpu, at(tss, 0x24), 4);
        for (unsigned i = 0; i < 8; i++) {
            t->gpr[i] = (uint32_t)cpu_sys_read(cpu, at(tss, 0x28 + 4 * i), 4);
        }
        for (unsigned i = 0; i < SEG_COUNT; i++) {
            t->sel[i] = (uint16_t)cpu_sys_read(cpu, at(tss, 0x48 + 4 * i), 2);
        }
        t->ldt = (uint16_t)cpu_sys_read(cpu, at(tss, 0x60), 2);
        t->trap = cpu_sys_read(cpu, at(tss, 0x64), 2) & 1;
        return;
    }
    t->eip = (uint32_t)cpu_sys_read(cpu, at(tss, 0x0e), 2);
    t->eflags = (uint32_t)cpu_sys_read(cpu, at(tss, 0x10), 2);
    for (unsigned i = 0; i < 8; i++) {
        /* The upper halves are not in the TSS; processors set them to ones. */
        t->gpr[i] = 0xffff0000u | (uint32_t)cpu_sys_read(cpu, at(tss, 0x12 + 2 * i), 2);
    }
    for (unsigned i = SEG_ES; i <= SEG_DS; i++) {
        t->sel[i] = (uint16_t)cpu_sys_read(cpu, at(tss, 0x22 + 2 * i), 2);
    }
    t->ldt = (uint16_t)cpu_sys_read(cpu, at(tss, 0x2a), 2);
}

/* The dynamic fields only (SDM 3 7.2.1). */
static void save_image(struct cpu *cpu, gva_t tss, bool is32, uint32_t eflags)
{
    if (is32) {
        cpu_sys_write(cpu, at(tss, 0x20), 4, (uint32_t)cpu->rip);
        cpu_sys_write(cpu, at(tss, 0x24), 4, eflags);
        for (unsigned i = 0; i < 8; i++) {
            cpu_sys_write(cpu, at(tss, 0x28 + 4 * i), 4, (uint32_t)cpu->gpr[i]);
        }
        for (unsigned i = 0; i < SEG_COUNT; i++) {
            cpu_sys_write(cpu, at(tss, 0x48 + 4 * i), 2, cpu->seg[i].sel);
        }
        return;
    }
    cpu_sys_write(cpu, at(tss, 0x0e), 2, (uint16_t)cpu->rip);
    cpu_sys_write(cpu, at(tss, 0x10), 2, (uint16_t)eflags);
    for (unsigned i = 0; i < 8; i++) {
        cpu_sys_write(cpu, at(tss, 0x12 + 2 * i), 2, (uint16_t)cpu->gpr[i]);
    }
    for (unsigned i = SEG_ES; i <= SEG_DS; i++) {
        cpu_sys_write(cpu, at(tss, 0x22 + 2 * i), 2, cpu->seg[i].sel);
    }
}

/* The busy bit of the TSS descriptor that TR names. */
static void release_old(struct cpu *cpu)
{
    struct seg_desc d;
    if (seg_read(cpu, cpu->tr.sel, &d)) {
        seg_set_busy(cpu, &d, false);
    }
}

static void load_registers(struct cpu *cpu, const struct tss_image *t, bool is32, bool nested)
{
    cpu->cr0 |= CR0_TS;
    if (is32 && (cpu->cr0 & CR0_PG)) {
        if (mmu_pae_paging(cpu) && !mmu_load_pdptes(cpu, t->cr3)) {
            cpu_raise_error(cpu, EXC_GP, 0);
        }
        cpu->cr3 = t->cr3;
        tlb_flush_local(cpu);
    }
    uint64_t known = is32 ? 0x3f7fd5 : 0x7fd5;
    cpu->rflags = (t->eflags & known) | FLAG_FIXED | (nested ? FLAG_NT : 0);
    cpu->rip = cpu->insn_ip = t->eip;
    for (unsigned i = 0; i < 8; i++) {
        cpu->gpr[i] = t->gpr[i];
    }
    /* Selectors first, all of them unusable: a fault from here on finds the new task's. The CPL is
     * that of the new CS, so that SS carries it. */
    bool v86 = cpu->rflags & FLAG_VM;
    unsigned cpl = v86 ? 3 : t->sel[SEG_CS] & SEL_RPL;
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        if (v86) {
            seg_set_v86(cpu, i, t->sel[i]);
        } else {
            seg_set_null(cpu, i, t->sel[i], i == SEG_SS || i == SEG_CS ? cpl : 0);
        }
    }
    cpu->dr[7] &= ~DR7_LOCAL;
    cpu_update_mode(cpu);
}

static void load_ldt(struct cpu *cpu, uint16_t sel)
{
    struct seg_desc d;
    cpu->ldtr = (struct cpu_seg){ .sel = sel, .attr = SEG_ATTR_NULL };
    if (sel_is_null(sel)) {
        return;
    }
    if ((sel & SEL_TI) || !seg_read(cpu, sel, &d) || desc_is_segment(&d) ||
        desc_type(&d) != SEG_LDT || !desc_present(&d)) {
        seg_fault(cpu, EXC_TS, sel);
    }
    cpu->ldtr = seg_make_system(cpu, sel, &d);
}

static void load_cs(struct cpu *cpu, uint16_t sel)
{
    struct seg_desc d;
    unsigned rpl = sel & SEL_RPL;
    if (sel_is_null(sel) || !seg_read(cpu, sel, &d) || !desc_is_code(&d) ||
        (desc_conforming(&d) ? desc_dpl(&d) > rpl : desc_dpl(&d) != rpl)) {
        seg_fault(cpu, EXC_TS, sel);
    }
    if (!desc_present(&d)) {
        seg_fault(cpu, EXC_NP, sel);
    }
    seg_set_accessed(cpu, &d);
    cpu->seg[SEG_CS] = seg_make(sel, &d);
}

static void load_data(struct cpu *cpu, unsigned seg, uint16_t sel)
{
    struct seg_desc d;
    if (sel_is_null(sel)) {
        return;
    }
    if (!seg_read(cpu, sel, &d) || !desc_is_segment(&d) ||
        (desc_is_code(&d) && !(desc_type(&d) & SEG_TYPE_RW)) ||
        (!desc_conforming(&d) && (desc_dpl(&d) < (sel & SEL_RPL) || desc_dpl(&d) < cpu->cpl))) {
        seg_fault(cpu, EXC_TS, sel);
    }
    if (!desc_present(&d)) {
        seg_fault(cpu, EXC_NP, sel);
    }
    seg_set_accessed(cpu, &d);
    cpu->seg[seg] = seg_make(sel, &d);
}

static void load_segments(struct cpu *cpu, const struct tss_image *t)
{
    static const uint8_t data[] = { SEG_DS, SEG_ES, SEG_FS, SEG_GS };
    load_ldt(cpu, t->ldt);
    if (cpu_v86(cpu)) {
        return;
    }
    load_cs(cpu, t->sel[SEG_CS]);
    cpu->seg[SEG_SS] = seg_check_stack(cpu, t->sel[SEG_SS], cpu->cpl, EXC_TS);
    cpu_update_mode(cpu);
    for (unsigned i = 0; i < ARRAY_LEN(data); i++) {
        load_data(cpu, data[i], t->sel[data[i]]);
    }
}

void task_switch(struct cpu *cpu, uint16_t sel, struct seg_desc *d, enum task_reason reason,
                 struct task_error error)
{
    bool new32 = desc_type(d) & 8;
    bool old32 = seg_type(&cpu->tr) & 8;
    struct cpu_seg tr = seg_make(sel, d);
    bool nested = reason == TASK_CALL || reason == TASK_INTERRUPT;
    if (tr.limit < (new32 ? TSS32_MIN_LIMIT : TSS16_MIN_LIMIT)) {
        seg_fault(cpu, EXC_TS, sel);
    }

    /* Old task. A fault in here leaves it as it was, but for bytes of its own TSS. */
    struct tss_image t;
    read_image(cpu, tr.base, new32, &t);
    uint64_t flags = reason == TASK_INTERRUPT ? except_flags(cpu) : cpu->rflags & ~FLAG_RF;
    if (reason == TASK_IRET) {
        flags &= ~FLAG_NT;
    }
    save_image(cpu, cpu->tr.base, old32, (uint32_t)flags);
    if (nested) {
        cpu_sys_write(cpu, tr.base, 2, cpu->tr.sel);
    }
    if (!nested) {
        release_old(cpu);
    }
    if (reason != TASK_IRET) {
        seg_set_busy(cpu, d, true);
    }

    /* New task. */
    cpu->tr = seg_make(sel, d);
    cpu->tr.attr |= 2;
    load_registers(cpu, &t, new32, nested);
    load_segments(cpu, &t);
    if (cpu->rip > cpu->seg[SEG_CS].limit) {
        cpu_raise_error(cpu, EXC_GP, except_ext(cpu));
    }
    if (error.present) {
        struct new_stack s = new_stack_current(cpu);
        new_stack_push(cpu, &s, new32 ? 4 : 2, error.code);
        new_stack_commit(cpu, &s);
    }
    if (t.trap) {
        cpu->pending_dr6 |= DR6_BT;
    }
    cpu_update_trap(cpu);
}

void task_gate(struct cpu *cpu, uint16_t sel, enum task_reason reason, struct task_error error)
{
    struct seg_desc d;
    if (sel_is_null(sel) || (sel & SEL_TI)) {
        seg_fault(cpu, EXC_GP, sel);
    }
    seg_read_or_raise(cpu, sel, &d, EXC_GP);
    if (desc_is_segment(&d) || (desc_type(&d) != SEG_TSS16 && desc_type(&d) != SEG_TSS32)) {
        seg_fault(cpu, EXC_GP, sel);
    }
    if (!desc_present(&d)) {
        seg_fault(cpu, EXC_NP, sel);
    }
    task_switch(cpu, sel, &d, reason, error);
}
