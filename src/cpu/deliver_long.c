/* SPDX-License-Identifier: Apache-2.0
 *
 * Delivery through the IDT of long mode (SDM 3 6.14): 16-byte gates, IST, aligned stacks. */
#include "cpu/deliver.h"

static _Noreturn void idt_fault(struct cpu *cpu, enum cpu_vector vector)
{
    cpu_raise_error(cpu, vector, (cpu->exc.vector * 8u + 2) | except_ext(cpu));
}

static void read_gate(struct cpu *cpu, struct seg_desc *gate)
{
    unsigned off = cpu->exc.vector * 16u;
    if (off + 15 > cpu->idtr.limit) {
        idt_fault(cpu, EXC_GP);
    }
    gate->addr = cpu->idtr.base + off;
    gate->lo = cpu_sys_read(cpu, gate->addr, 8);
    gate->hi = cpu_sys_read(cpu, gate->addr + 8, 8);
    unsigned type = desc_type(gate);
    if (desc_is_segment(gate) || (type != SEG_INT32 && type != SEG_TRAP32) ||
        (gate->hi >> 40 & 0x1f) != 0) {
        idt_fault(cpu, EXC_GP);
    }
    if (cpu->exc.software && desc_dpl(gate) < cpu->cpl) {
        idt_fault(cpu, EXC_GP);
    }
    if (!desc_present(gate)) {
        idt_fault(cpu, EXC_NP);
    }
}

static void read_target(struct cpu *cpu, uint16_t sel, struct seg_desc *cs)
{
    if (sel_is_null(sel)) {
        cpu_raise_error(cpu, EXC_GP, except_ext(cpu));
    }
    seg_read_or_raise(cpu, sel, cs, EXC_GP);
    if (!desc_is_code(cs) || desc_dpl(cs) > cpu->cpl || !desc_l(cs) || desc_db(cs)) {
        seg_fault(cpu, EXC_GP, sel);
    }
    if (!desc_present(cs)) {
        seg_fault(cpu, EXC_NP, sel);
    }
}

void deliver_long(struct cpu *cpu)
{
    const struct cpu_exception x = cpu->exc;
    struct seg_desc gate;
    struct seg_desc cs;
    read_gate(cpu, &gate);
    read_target(cpu, gate_selector(&gate), &cs);
    bool inner = !desc_conforming(&cs) && desc_dpl(&cs) < cpu->cpl;
    unsigned cpl = inner ? desc_dpl(&cs) : cpu->cpl;
    unsigned ist = gate.lo >> 32 & 7;

    uint64_t rsp = cpu->gpr[R_SP];
    if (ist != 0) {
        rsp = tss_rsp(cpu, 3 + ist);
    } else if (inner) {
        rsp = tss_rsp(cpu, cpl);
    }
    struct new_stack s = new_stack_flat(cpu, rsp & ~0xfull, cpl);
    new_stack_push(cpu, &s, 8, cpu->seg[SEG_SS].sel);
    new_stack_push(cpu, &s, 8, cpu->gpr[R_SP]);
    new_stack_push(cpu, &s, 8, except_flags(cpu));
    new_stack_push(cpu, &s, 8, cpu->seg[SEG_CS].sel);
    new_stack_push(cpu, &s, 8, cpu->rip);
    if (x.has_error) {
        new_stack_push(cpu, &s, 8, x.error);
    }
    uint64_t rip = gate_offset64(&gate);
    far_check_target(cpu, &cs, rip);
    seg_set_accessed(cpu, &cs);

    cpu->gpr[R_SP] = s.sp;
    if (inner) {
        seg_set_null(cpu, SEG_SS, (uint16_t)cpl, cpl);
    }
    seg_set_cs(cpu, gate_selector(&gate), &cs, cpl);
    cpu->rip = rip;
    bool interrupt_gate = desc_type(&gate) == SEG_INT32;
    deliver_finish(cpu, DELIVER_CLEARS | FLAG_NT | FLAG_VM | (interrupt_gate ? FLAG_IF : 0));
}
