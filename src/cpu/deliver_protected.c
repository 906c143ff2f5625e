/* SPDX-License-Identifier: Apache-2.0
 *
 * Delivery through the IDT of protected mode outside long mode (SDM 3 6.12), from virtual-8086 mode
 * too (SDM 3 20.3.1). */
#include "cpu/deliver.h"

static uint16_t idt_error(const struct cpu *cpu) { return (uint16_t)(cpu->exc.vector * 8u + 2); }

static _Noreturn void idt_fault(struct cpu *cpu, enum cpu_vector vector)
{
    cpu_raise_error(cpu, vector, idt_error(cpu) | except_ext(cpu));
}

static void read_gate(struct cpu *cpu, struct seg_desc *gate)
{
    unsigned off = cpu->exc.vector * 8u;
    if (off + 7 > cpu->idtr.limit) {
        idt_fault(cpu, EXC_GP);
    }
    gate->addr = (uint32_t)(cpu->idtr.base + off);
    gate->lo = cpu_sys_read(cpu, gate->addr, 8);
    gate->hi = 0;
    unsigned type = desc_type(gate);
    if (desc_is_segment(gate) || (type != SEG_TASK_GATE && (type & 7) != 6 && (type & 7) != 7)) {
        idt_fault(cpu, EXC_GP);
    }
    if (cpu->exc.software && desc_dpl(gate) < cpu->cpl) {
        idt_fault(cpu, EXC_GP);
    }
    if (!desc_present(gate)) {
        idt_fault(cpu, EXC_NP);
    }
}

static void read_target(struct cpu *cpu, const struct seg_desc *gate, struct seg_desc *cs)
{
    uint16_t sel = gate_selector(gate);
    if (sel_is_null(sel)) {
        cpu_raise_error(cpu, EXC_GP, except_ext(cpu));
    }
    seg_read_or_raise(cpu, sel, cs, EXC_GP);
    if (!desc_is_code(cs) || desc_dpl(cs) > cpu->cpl) {
        seg_fault(cpu, EXC_GP, sel);
    }
    if (!desc_present(cs)) {
        seg_fault(cpu, EXC_NP, sel);
    }
}

void deliver_protected(struct cpu *cpu)
{
    const struct cpu_exception x = cpu->exc;
    struct seg_desc gate;
    struct seg_desc cs;
    read_gate(cpu, &gate);
    if (desc_type(&gate) == SEG_TASK_GATE) {
        task_gate(cpu, gate_selector(&gate), TASK_INTERRUPT,
                  (struct task_error){ .present = x.has_error, .code = x.error });
        deliver_finish(cpu, 0);
        return;
    }
    read_target(cpu, &gate, &cs);
    bool inner = !desc_conforming(&cs) && desc_dpl(&cs) < cpu->cpl;
    unsigned cpl = inner ? desc_dpl(&cs) : cpu->cpl;
    bool v86 = cpu_v86(cpu);
    if (v86 && (!inner || cpl != 0)) {
        seg_fault(cpu, EXC_GP, gate_selector(&gate));
    }

    unsigned size = desc_type(&gate) & 8 ? 4 : 2;
    uint64_t flags = except_flags(cpu);
    struct new_stack s = inner ? tss_stack(cpu, cpl) : new_stack_current(cpu);
    if (inner) {
        if (v86) {
            new_stack_push(cpu, &s, size, cpu->seg[SEG_GS].sel);
            new_stack_push(cpu, &s, size, cpu->seg[SEG_FS].sel);
            new_stack_push(cpu, &s, size, cpu->seg[SEG_DS].sel);
            new_stack_push(cpu, &s, size, cpu->seg[SEG_ES].sel);
        }
        new_stack_push(cpu, &s, size, cpu->seg[SEG_SS].sel);
        new_stack_push(cpu, &s, size, cpu->gpr[R_SP]);
    }
    new_stack_push(cpu, &s, size, flags);
    new_stack_push(cpu, &s, size, cpu->seg[SEG_CS].sel);
    new_stack_push(cpu, &s, size, cpu->rip);
    if (x.has_error) {
        new_stack_push(cpu, &s, size, x.error);
    }
    uint64_t rip = size == 4 ? gate_offset(&gate) : gate_offset(&gate) & 0xffff;
    far_check_target(cpu, &cs, rip);
    seg_set_accessed(cpu, &cs);

    new_stack_commit(cpu, &s);
    seg_set_cs(cpu, gate_selector(&gate), &cs, cpl);
    cpu->rip = rip;
    if (v86) {
        seg_set_null(cpu, SEG_GS, 0, 0);
        seg_set_null(cpu, SEG_FS, 0, 0);
        seg_set_null(cpu, SEG_DS, 0, 0);
        seg_set_null(cpu, SEG_ES, 0, 0);
    }
    bool interrupt_gate = !(desc_type(&gate) & 1);
    deliver_finish(cpu, DELIVER_CLEARS | FLAG_NT | FLAG_VM | (interrupt_gate ? FLAG_IF : 0));
}
