/* SPDX-License-Identifier: Apache-2.0
 *
 * Far JMP, CALL and RET (SDM 2, and SDM 3 5.8): direct, through call gates, to tasks. */
#include "base/bits.h"
#include "cpu/far.h"
#include "cpu/opnd.h"
#include "cpu/sem_decls.h"

void far_read_pointer(struct cpu *cpu, const struct insn *in, uint16_t *sel, uint64_t *off)
{
    uint64_t ea = cpu_effective_address(cpu, in);
    unsigned size = in->opnd[in->nopnd - 1].size - 2u;
    uint64_t o = cpu_read(cpu, in->mem.seg, ea, size);
    *sel = (uint16_t)cpu_read(cpu, in->mem.seg, mask_size(ea + size, in->adsize), 2);
    *off = o;
}

static void pointer_of(struct cpu *cpu, const struct insn *in, uint16_t *sel, uint64_t *off)
{
    if (in->opnd[0].kind == OPND_MEM) {
        far_read_pointer(cpu, in, sel, off);
    } else {
        *sel = in->imm2;
        *off = mask_size((uint64_t)in->imm, in->opsize);
    }
}

static bool segments_are_real(const struct cpu *cpu) { return !cpu_protected(cpu) || cpu_v86(cpu); }

static void enter_real(struct cpu *cpu, uint16_t sel, uint64_t off)
{
    if (cpu_v86(cpu)) {
        seg_set_v86(cpu, SEG_CS, sel);
    } else {
        seg_load_real(cpu, SEG_CS, sel);
    }
    cpu->rip = off;
    cpu_update_mode(cpu);
}

static void check_real_target(struct cpu *cpu, uint64_t off)
{
    if (off > cpu->seg[SEG_CS].limit) {
        cpu_raise_error(cpu, EXC_GP, 0);
    }
}

static void read_target(struct cpu *cpu, uint16_t sel, struct seg_desc *d)
{
    if (sel_is_null(sel)) {
        cpu_raise_error(cpu, EXC_GP, 0);
    }
    seg_read_or_raise(cpu, sel, d, EXC_GP);
}

/* A code segment named by JMP or CALL itself: same privilege. */
static void check_direct(struct cpu *cpu, uint16_t sel, const struct seg_desc *cs)
{
    bool ok = desc_conforming(cs) ? desc_dpl(cs) <= cpu->cpl
                                  : (sel & SEL_RPL) <= cpu->cpl && desc_dpl(cs) == cpu->cpl;
    if (!ok || (cpu_long_mode(cpu) && desc_l(cs) && desc_db(cs))) {
        seg_fault(cpu, EXC_GP, sel);
    }
    if (!desc_present(cs)) {
        seg_fault(cpu, EXC_NP, sel);
    }
}

static void enter(struct cpu *cpu, uint16_t sel, struct seg_desc *cs, uint64_t rip, unsigned cpl)
{
    seg_set_accessed(cpu, cs);
    seg_set_cs(cpu, sel, cs, cpl);
    cpu->rip = rip;
    cpu_update_mode(cpu);
}

/* -- System descriptors as targets ------------------------------------------------------------- */
/* Privilege and presence of a gate or TSS that an instruction names. Long mode has call gates
 * only. */
static void check_system(struct cpu *cpu, uint16_t sel, struct seg_desc *d)
{
    unsigned type = desc_type(d);
    bool known = cpu_long_mode(cpu)
                     ? type == SEG_CALL32
                     : type == SEG_CALL16 || type == SEG_CALL32 || type == SEG_TASK_GATE ||
                           type == SEG_TSS16 || type == SEG_TSS32;
    if (!known || desc_dpl(d) < cpu->cpl || desc_dpl(d) < (sel & SEL_RPL)) {
        seg_fault(cpu, EXC_GP, sel);
    }
    if (cpu_long_mode(cpu)) {
        seg_read_upper(cpu, sel, d, EXC_GP);
    }
    if (!desc_present(d)) {
        seg_fault(cpu, EXC_NP, sel);
    }
}

/* True when the transfer was a task switch, and is done. */
static bool to_task(struct cpu *cpu, uint16_t sel, struct seg_desc *d, enum task_reason reason)
{
    unsigned type = desc_type(d);
    if (type == SEG_TASK_GATE) {
        task_gate(cpu, gate_selector(d), reason, (struct task_error){ .present = false });
        return true;
    }
    if (type == SEG_TSS16 || type == SEG_TSS32) {
        task_switch(cpu, sel, d, reason, (struct task_error){ .present = false });
        return true;
    }
    return false;
}

static void read_gate_target(struct cpu *cpu, const struct seg_desc *gate, struct seg_desc *cs)
{
    uint16_t sel = gate_selector(gate);
    read_target(cpu, sel, cs);
    if (!desc_is_code(cs) || desc_dpl(cs) > cpu->cpl ||
        (cpu_long_mode(cpu) && (!desc_l(cs) || desc_db(cs)))) {
        seg_fault(cpu, EXC_GP, sel);
    }
    if (!desc_present(cs)) {
        seg_fault(cpu, EXC_NP, sel);
    }
}

static uint64_t gate_target(const struct cpu *cpu, const struct seg_desc *gate)
{
    return cpu_long_mode(cpu)              ? gate_offset64(gate)
           : desc_type(gate) == SEG_CALL32 ? gate_offset(gate)
                                           : gate_offset(gate) & 0xffff;
}

/* -- JMP
 * ------------------------------------------------------------------------------------------------
 */
static void jump_gate(struct cpu *cpu, const struct seg_desc *gate)
{
    struct seg_desc cs;
    read_gate_target(cpu, gate, &cs);
    if (!desc_conforming(&cs) && desc_dpl(&cs) != cpu->cpl) {
        seg_fault(cpu, EXC_GP, gate_selector(gate));
    }
    uint64_t rip = gate_target(cpu, gate);
    far_check_target(cpu, &cs, rip);
    enter(cpu, gate_selector(gate), &cs, rip, cpu->cpl);
}

static void jump(struct cpu *cpu, uint16_t sel, uint64_t off)
{
    struct seg_desc d;
    if (segments_are_real(cpu)) {
        check_real_target(cpu, off);
        enter_real(cpu, sel, off);
        return;
    }
    read_target(cpu, sel, &d);
    if (desc_is_code(&d)) {
        check_direct(cpu, sel, &d);
        far_check_target(cpu, &d, off);
        enter(cpu, sel, &d, off, cpu->cpl);
        return;
    }
    if (desc_is_segment(&d)) {
        seg_fault(cpu, EXC_GP, sel);
    }
    check_system(cpu, sel, &d);
    if (!to_task(cpu, sel, &d, TASK_JMP)) {
        jump_gate(cpu, &d);
    }
}

void sem_jmpf(struct cpu *cpu, const struct insn *in)
{
    uint16_t sel;
    uint64_t off;
    pointer_of(cpu, in, &sel, &off);
    jump(cpu, sel, off);
}

void sem_jmpf_ind(struct cpu *cpu, const struct insn *in) { sem_jmpf(cpu, in); }

/* -- CALL
 * ------------------------------------------------------------------------------------------------
 */
static void push_return(struct cpu *cpu, struct new_stack *s, unsigned size)
{
    new_stack_push(cpu, s, size, cpu->seg[SEG_CS].sel);
    new_stack_push(cpu, s, size, cpu->rip);
}

/* Parameters move from the caller's stack to the inner one, in the gate's size. */
static void copy_parameters(struct cpu *cpu, struct new_stack *s, unsigned count, unsigned size)
{
    uint32_t params[31];
    for (unsigned i = 0; i < count; i++) {
        params[i] = (uint32_t)stack_read(cpu, cpu->gpr[R_SP] + i * size, size);
    }
    while (count > 0) {
        new_stack_push(cpu, s, size, params[--count]);
    }
}

static void call_gate(struct cpu *cpu, const struct seg_desc *gate)
{
    struct seg_desc cs;
    read_gate_target(cpu, gate, &cs);
    uint64_t rip = gate_target(cpu, gate);
    bool is64 = cpu_long_mode(cpu);
    unsigned size = is64 ? 8 : desc_type(gate) == SEG_CALL32 ? 4 : 2;
    bool inner = !desc_conforming(&cs) && desc_dpl(&cs) < cpu->cpl;
    if (!inner) {
        struct new_stack s = new_stack_current(cpu);
        push_return(cpu, &s, size);
        far_check_target(cpu, &cs, rip);
        seg_set_accessed(cpu, &cs);
        new_stack_commit(cpu, &s);
        enter(cpu, gate_selector(gate), &cs, rip, cpu->cpl);
        return;
    }
    unsigned cpl = desc_dpl(&cs);
    struct new_stack s = is64 ? new_stack_flat(cpu, tss_rsp(cpu, cpl), cpl) : tss_stack(cpu, cpl);
    new_stack_push(cpu, &s, size, cpu->seg[SEG_SS].sel);
    new_stack_push(cpu, &s, size, cpu->gpr[R_SP]);
    if (!is64) {
        copy_parameters(cpu, &s, gate->lo >> 32 & 0x1f, size);
    }
    push_return(cpu, &s, size);
    far_check_target(cpu, &cs, rip);
    seg_set_accessed(cpu, &cs);
    new_stack_commit(cpu, &s);
    if (is64) {
        seg_set_null(cpu, SEG_SS, (uint16_t)cpl, cpl);
    }
    enter(cpu, gate_selector(gate), &cs, rip, cpl);
}

static void call(struct cpu *cpu, uint16_t sel, uint64_t off, unsigned size)
{
    struct seg_desc d;
    struct new_stack s = new_stack_current(cpu);
    if (segments_are_real(cpu)) {
        check_real_target(cpu, off);
        push_return(cpu, &s, size);
        new_stack_commit(cpu, &s);
        enter_real(cpu, sel, off);
        return;
    }
    read_target(cpu, sel, &d);
    if (desc_is_code(&d)) {
        check_direct(cpu, sel, &d);
        push_return(cpu, &s, size);
        far_check_target(cpu, &d, off);
        seg_set_accessed(cpu, &d);
        new_stack_commit(cpu, &s);
        enter(cpu, sel, &d, off, cpu->cpl);
        return;
    }
    if (desc_is_segment(&d)) {
        seg_fault(cpu, EXC_GP, sel);
    }
    check_system(cpu, sel, &d);
    if (!to_task(cpu, sel, &d, TASK_CALL)) {
        call_gate(cpu, &d);
    }
}

void sem_callf(struct cpu *cpu, const struct insn *in)
{
    uint16_t sel;
    uint64_t off;
    pointer_of(cpu, in, &sel, &off);
    call(cpu, sel, off, in->opsize);
}

void sem_callf_ind(struct cpu *cpu, const struct insn *in) { sem_callf(cpu, in); }

/* -- RET --------------------------------------------------------------------------------------- */
void far_check_return(struct cpu *cpu, struct far_target *t, unsigned opsize)
{
    t->rip = mask_size(t->rip, opsize);
    t->cpl = t->sel & SEL_RPL;
    if (sel_is_null(t->sel)) {
        cpu_raise_error(cpu, EXC_GP, 0);
    }
    seg_read_or_raise(cpu, t->sel, &t->cs, EXC_GP);
    bool ok = desc_is_code(&t->cs) && t->cpl >= cpu->cpl &&
              (desc_conforming(&t->cs) ? desc_dpl(&t->cs) <= t->cpl : desc_dpl(&t->cs) == t->cpl) &&
              !(cpu_long_mode(cpu) && desc_l(&t->cs) && desc_db(&t->cs));
    if (!ok) {
        seg_fault(cpu, EXC_GP, t->sel);
    }
    if (!desc_present(&t->cs)) {
        seg_fault(cpu, EXC_NP, t->sel);
    }
}

struct cpu_seg far_check_return_stack(struct cpu *cpu, const struct far_target *t, uint16_t sel)
{
    if (sel_is_null(sel) && cpu_long_mode(cpu) && desc_l(&t->cs) && t->cpl != 3 &&
        (sel & SEL_RPL) == t->cpl) {
        return (struct cpu_seg){
            .sel = sel,
            .attr = SEG_ATTR_NULL | t->cpl << SEG_ATTR_DPL_SHIFT,
        };
    }
    return seg_check_stack(cpu, sel, t->cpl, EXC_GP);
}

void far_return(struct cpu *cpu, const struct far_target *t, const struct cpu_seg *ss, uint64_t sp)
{
    bool outer = t->cpl > cpu->cpl;
    struct seg_desc cs = t->cs;
    far_check_target(cpu, &cs, t->rip);
    seg_set_accessed(cpu, &cs);
    if (ss != NULL) {
        cpu->seg[SEG_SS] = *ss;
    }
    seg_set_cs(cpu, t->sel, &cs, t->cpl);
    cpu->rip = t->rip;
    cpu_update_mode(cpu);
    stack_set(cpu, sp);
    if (outer) {
        seg_drop_inner(cpu);
    }
}

void sem_retf(struct cpu *cpu, const struct insn *in)
{
    unsigned size = in->opsize;
    uint64_t drop = in->nopnd != 0 ? (uint16_t)in->imm : 0;
    uint64_t sp = cpu->gpr[R_SP];
    struct far_target t = { .rip = stack_read(cpu, sp, size) };
    t.sel = (uint16_t)stack_read(cpu, sp + size, size);
    if (segments_are_real(cpu)) {
        check_real_target(cpu, t.rip);
        stack_set(cpu, sp + 2 * size + drop);
        enter_real(cpu, t.sel, t.rip);
        return;
    }
    far_check_return(cpu, &t, size);
    if (t.cpl == cpu->cpl) {
        far_return(cpu, &t, NULL, sp + 2 * size + drop);
        return;
    }
    uint64_t new_sp = stack_read(cpu, sp + 2 * size + drop, size);
    uint16_t sel = (uint16_t)stack_read(cpu, sp + 3 * size + drop, size);
    struct cpu_seg ss = far_check_return_stack(cpu, &t, sel);
    far_return(cpu, &t, &ss, new_sp + drop);
}
