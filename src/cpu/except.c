/* SPDX-License-Identifier: Apache-2.0
 *
 * Raising exceptions, the double- and triple-fault rules, and what all forms of delivery share
 * (SDM 3 chapter 6). The forms themselves are in deliver_*.c. */
#include "cpu/except.h"

#include "base/bits.h"
#include "cpu/debug.h"
#include "cpu/deliver.h"

/* -- Raising ----------------------------------------------------------------------------------- */
enum except_class { CLASS_BENIGN, CLASS_CONTRIBUTORY, CLASS_PAGE_FAULT, CLASS_DOUBLE_FAULT };

static enum except_class class_of(const struct cpu_exception *x)
{
    if (x->software || x->external) {
        return CLASS_BENIGN;
    }
    switch (x->vector) {
    case EXC_DE:
    case EXC_TS:
    case EXC_NP:
    case EXC_SS:
    case EXC_GP:
        return CLASS_CONTRIBUTORY;
    case EXC_PF:
        return CLASS_PAGE_FAULT;
    case EXC_DF:
        return CLASS_DOUBLE_FAULT;
    default:
        return CLASS_BENIGN;
    }
}

/* SDM 3 table 6-5: what becomes of `second` during delivery of `first`. */
static enum {
    SERIAL,
    DOUBLE,
    TRIPLE
} combine(const struct cpu_exception *first, const struct cpu_exception *second)
{
    enum except_class a = class_of(first);
    enum except_class b = class_of(second);
    if (b == CLASS_BENIGN || a == CLASS_BENIGN) {
        return SERIAL;
    }
    if (a == CLASS_DOUBLE_FAULT) {
        return TRIPLE;
    }
    return a == CLASS_CONTRIBUTORY && b == CLASS_PAGE_FAULT ? SERIAL : DOUBLE;
}

static _Noreturn void raise(struct cpu *cpu, const struct cpu_exception *x)
{
    cpu->rip = cpu->insn_ip;
    cpu->exceptions++;
    cpu->step_armed = false;
    cpu->exc_pending = true;
    if (!cpu->in_delivery) {
        cpu->pending_dr6 = 0;
        cpu->exc = *x;
    } else {
        switch (combine(&cpu->exc, x)) {
        case SERIAL:
            cpu->exc = *x;
            break;
        case DOUBLE:
            cpu->exc = (struct cpu_exception){ .vector = EXC_DF, .has_error = true };
            break;
        case TRIPLE:
            cpu->exc_pending = false;
            cpu->in_delivery = false;
            cpu->activity = CPU_SHUTDOWN;
            break;
        }
    }
    longjmp(cpu->unwind, 1);
}

void cpu_raise(struct cpu *cpu, enum cpu_vector vector)
{
    const struct cpu_exception x = { .vector = (uint8_t)vector };
    raise(cpu, &x);
}

void cpu_raise_error(struct cpu *cpu, enum cpu_vector vector, uint32_t error)
{
    const struct cpu_exception x = { .vector = (uint8_t)vector, .has_error = true, .error = error };
    raise(cpu, &x);
}

/* CR2 is loaded when the fault is found, also when it ends as a double fault. */
void cpu_raise_pf(struct cpu *cpu, uint64_t cr2, uint32_t error)
{
    const struct cpu_exception x = {
        .vector = EXC_PF,
        .has_error = true,
        .error = error,
        .cr2 = cr2,
    };
    cpu->cr2 = cr2;
    raise(cpu, &x);
}

void cpu_raise_db(struct cpu *cpu, uint64_t dr6_bits)
{
    const struct cpu_exception x = { .vector = EXC_DB, .dr6_bits = dr6_bits };
    raise(cpu, &x);
}

/* -- Stacks
 * -----------------------------------------------------------------------------------------------
 */
/* SMAP holds for pushes to a stack of another level: AC counts only at the level that set it. */
enum tlb_view cpu_view_at(const struct cpu *cpu, unsigned cpl)
{
    if (cpl == 3) {
        return TLB_VIEW_USER;
    }
    if (cpl == cpu->cpl) {
        return cpu->view;
    }
    return cpu->cr4 & CR4_SMAP ? TLB_VIEW_SUPER_SMAP : TLB_VIEW_SUPER;
}

static uint64_t mask_of(const struct cpu_seg *ss)
{
    return ss->attr & SEG_ATTR_DB ? 0xffffffff : 0xffff;
}

struct new_stack new_stack_current(const struct cpu *cpu)
{
    const struct cpu_seg *ss = &cpu->seg[SEG_SS];
    return (struct new_stack){
        .ss = *ss,
        .sp = cpu->gpr[R_SP],
        .mask = cpu_code64(cpu) ? ~0ull : mask_of(ss),
        .view = cpu->view,
        .fault_sel = 0,
    };
}

struct new_stack new_stack_at(const struct cpu *cpu, const struct cpu_seg *ss, uint64_t sp,
                              unsigned cpl)
{
    return (struct new_stack){
        .ss = *ss,
        .sp = sp,
        .mask = mask_of(ss),
        .view = cpu_view_at(cpu, cpl),
        .fault_sel = ss->sel,
    };
}

struct new_stack new_stack_flat(const struct cpu *cpu, uint64_t sp, unsigned cpl)
{
    return (struct new_stack){
        .ss = cpu->seg[SEG_SS],
        .sp = sp,
        .mask = ~0ull,
        .view = cpu_view_at(cpu, cpl),
    };
}

static bool in_stack(const struct cpu_seg *ss, uint64_t off, unsigned size)
{
    uint64_t last = off + size - 1;
    if ((ss->attr & (SEG_TYPE_CODE | SEG_TYPE_EXPAND_DOWN)) == SEG_TYPE_EXPAND_DOWN) {
        return off > ss->limit && last <= mask_of(ss);
    }
    return last <= ss->limit;
}

void new_stack_push(struct cpu *cpu, struct new_stack *s, unsigned size, uint64_t v)
{
    uint64_t off = (s->sp - size) & s->mask;
    gva_t va = off;
    if (s->mask == ~0ull) {
        if (!mmu_canonical(cpu, off)) {
            seg_fault(cpu, EXC_SS, s->fault_sel);
        }
    } else {
        if (!in_stack(&s->ss, off, size)) {
            seg_fault(cpu, EXC_SS, s->fault_sel);
        }
        va = (uint32_t)(s->ss.base + off);
    }
    cpu_view_write(cpu, s->view, va, size, v);
    s->sp = (s->sp & ~s->mask) | off;
}

void new_stack_commit(struct cpu *cpu, const struct new_stack *s)
{
    cpu->seg[SEG_SS] = s->ss;
    cpu->gpr[R_SP] = s->mask == 0xffffffff ? (uint32_t)s->sp : s->sp;
}

struct new_stack tss_stack(struct cpu *cpu, unsigned dpl)
{
    bool tss32 = seg_type(&cpu->tr) & 8;
    unsigned off = tss32 ? 4 + 8 * dpl : 2 + 4 * dpl;
    if (off + (tss32 ? 5 : 3) > cpu->tr.limit) {
        seg_fault(cpu, EXC_TS, cpu->tr.sel);
    }
    gva_t at = cpu->tr.base + off;
    uint64_t sp = cpu_sys_read(cpu, (uint32_t)at, tss32 ? 4 : 2);
    uint16_t sel = (uint16_t)cpu_sys_read(cpu, (uint32_t)(at + (tss32 ? 4 : 2)), 2);
    struct cpu_seg ss = seg_check_stack(cpu, sel, dpl, EXC_TS);
    /* A 16-bit stack segment leaves the upper half of ESP as the TSS gives it. */
    return new_stack_at(cpu, &ss, sp, dpl);
}

uint64_t tss_rsp(struct cpu *cpu, unsigned index)
{
    unsigned off = index < 3 ? 4 + 8 * index : 0x24 + 8 * (index - 4);
    if (off + 7 > cpu->tr.limit) {
        seg_fault(cpu, EXC_TS, cpu->tr.sel);
    }
    uint64_t rsp = cpu_sys_read(cpu, cpu->tr.base + off, 8);
    if (!mmu_canonical(cpu, rsp)) {
        cpu_raise_error(cpu, EXC_SS, except_ext(cpu));
    }
    return rsp;
}

void far_check_target(struct cpu *cpu, const struct seg_desc *cs, uint64_t rip)
{
    bool code64 = cpu_long_mode(cpu) && desc_l(cs);
    if (code64 ? !mmu_canonical(cpu, rip) : rip > seg_make(0, cs).limit) {
        cpu_raise_error(cpu, EXC_GP, except_ext(cpu));
    }
}

/* -- Delivery ---------------------------------------------------------------------------------- */
/* RF is set in the image for faults, so that the handler's IRET gets past an instruction
 * breakpoint, but not for the breakpoint's own (SDM 3 17.3.1.1). */
uint64_t except_flags(const struct cpu *cpu)
{
    const struct cpu_exception *x = &cpu->exc;
    uint64_t f = cpu->rflags;
    if (x->software) {
        return f & ~FLAG_RF;
    }
    bool breakpoint = x->vector == EXC_DB && !(x->dr6_bits & DR6_BD);
    return x->external || breakpoint ? f : f | FLAG_RF;
}

void deliver_finish(struct cpu *cpu, uint64_t clear_flags)
{
    cpu->rflags &= ~clear_flags;
    cpu->in_delivery = false;
    cpu->int_shadow = CPU_SHADOW_NONE;
    cpu->step_armed = false;
    if (cpu->activity == CPU_HALTED) {
        cpu->activity = CPU_ACTIVE;
    }
    cpu_update_mode(cpu);
    cpu_update_trap(cpu);
}

static void deliver(struct cpu *cpu)
{
    cpu->in_delivery = true;
    if (cpu->exc.dr6_bits != 0) {
        cpu->dr[6] = (cpu->dr[6] & ~DR6_B) | DR6_FIXED | cpu->exc.dr6_bits;
        cpu->exc.dr6_bits &= DR6_BD;
    }
    if (cpu->exc.vector == EXC_DB) {
        cpu->dr[7] &= ~DR7_GD; /* so that the handler can reach the registers (SDM 3 17.2.4) */
    }
    if (!cpu_protected(cpu)) {
        deliver_real(cpu);
    } else if (cpu_long_mode(cpu)) {
        deliver_long(cpu);
    } else {
        deliver_protected(cpu);
    }
}

void cpu_deliver_exception(struct cpu *cpu)
{
    if (!cpu->exc_pending) {
        cpu->in_delivery = false;
        return;
    }
    cpu->exc_pending = false;
    deliver(cpu);
}

void cpu_deliver_event(struct cpu *cpu, const struct cpu_exception *x)
{
    cpu->exc = *x;
    deliver(cpu);
}

void cpu_software_interrupt(struct cpu *cpu, uint8_t vector)
{
    cpu->step_armed = false;
    cpu->exc = (struct cpu_exception){ .vector = vector, .software = true };
    deliver(cpu);
}
