/* SPDX-License-Identifier: Apache-2.0
 *
 * Descriptor-table registers and looks at descriptors: LGDT LIDT SGDT SIDT, LLDT SLDT LTR STR, LAR
 * LSL VERR VERW ARPL. */
#include "cpu/opnd.h"
#include "cpu/seg.h"
#include "cpu/sem_decls.h"
#include "cpu/umip.h"

/* -- GDTR, IDTR -------------------------------------------------------------------------------- */
static void store_table(struct cpu *cpu, const struct insn *in, const struct cpu_dtable *t)
{
    umip_check(cpu);
    uint64_t ea = cpu_effective_address(cpu, in);
    unsigned size = cpu->mode == INSN_MODE_64 ? 8 : 4;
    cpu_probe_write(cpu, in->mem.seg, ea, 2 + size);
    cpu_write(cpu, in->mem.seg, ea, 2, t->limit);
    cpu_write(cpu, in->mem.seg, mask_size(ea + 2, in->adsize), size, t->base);
}

static void load_table(struct cpu *cpu, const struct insn *in, struct cpu_dtable *t)
{
    cpu_need_cpl0(cpu);
    uint64_t ea = cpu_effective_address(cpu, in);
    unsigned size = cpu->mode == INSN_MODE_64 ? 8 : 4;
    uint16_t limit = (uint16_t)cpu_read(cpu, in->mem.seg, ea, 2);
    uint64_t base = cpu_read(cpu, in->mem.seg, mask_size(ea + 2, in->adsize), size);
    if (in->opsize == 2 && cpu->mode != INSN_MODE_64) {
        base &= 0xffffff; /* 24 bits, as on the 80286 */
    }
    if (!mmu_canonical_reg(cpu, base)) {
        cpu_raise_error(cpu, EXC_GP, 0);
    }
    *t = (struct cpu_dtable){ .base = base, .limit = limit };
}

void sem_sgdt(struct cpu *cpu, const struct insn *in) { store_table(cpu, in, &cpu->gdtr); }
void sem_sidt(struct cpu *cpu, const struct insn *in) { store_table(cpu, in, &cpu->idtr); }
void sem_lgdt(struct cpu *cpu, const struct insn *in) { load_table(cpu, in, &cpu->gdtr); }
void sem_lidt(struct cpu *cpu, const struct insn *in) { load_table(cpu, in, &cpu->idtr); }

/* -- LDTR, TR
 * ------------------------------------------------------------------------------------------------
 */
void sem_sldt(struct cpu *cpu, const struct insn *in)
{
    seg_need_protected(cpu);
    umip_check(cpu);
    opnd_write(cpu, in, 0, cpu->ldtr.sel);
}

void sem_str(struct cpu *cpu, const struct insn *in)
{
    seg_need_protected(cpu);
    umip_check(cpu);
    opnd_write(cpu, in, 0, cpu->tr.sel);
}

static void read_system(struct cpu *cpu, uint16_t sel, struct seg_desc *d)
{
    if (sel & SEL_TI) {
        seg_fault(cpu, EXC_GP, sel);
    }
    seg_read_or_raise(cpu, sel, d, EXC_GP);
    if (desc_is_segment(d)) {
        seg_fault(cpu, EXC_GP, sel);
    }
}

void sem_lldt(struct cpu *cpu, const struct insn *in)
{
    struct seg_desc d;
    seg_need_protected(cpu);
    cpu_need_cpl0(cpu);
    uint16_t sel = (uint16_t)opnd_read(cpu, in, 0);
    if (sel_is_null(sel)) {
        cpu->ldtr = (struct cpu_seg){ .sel = sel, .attr = SEG_ATTR_NULL };
        return;
    }
    read_system(cpu, sel, &d);
    if (desc_type(&d) != SEG_LDT) {
        seg_fault(cpu, EXC_GP, sel);
    }
    if (!desc_present(&d)) {
        seg_fault(cpu, EXC_NP, sel);
    }
    if (cpu_long_mode(cpu)) {
        seg_read_upper(cpu, sel, &d, EXC_GP);
    }
    cpu->ldtr = seg_make_system(cpu, sel, &d);
}

void sem_ltr(struct cpu *cpu, const struct insn *in)
{
    struct seg_desc d;
    seg_need_protected(cpu);
    cpu_need_cpl0(cpu);
    uint16_t sel = (uint16_t)opnd_read(cpu, in, 0);
    if (sel_is_null(sel)) {
        cpu_raise_error(cpu, EXC_GP, 0);
    }
    read_system(cpu, sel, &d);
    if (desc_type(&d) != SEG_TSS32 && (desc_type(&d) != SEG_TSS16 || cpu_long_mode(cpu))) {
        seg_fault(cpu, EXC_GP, sel);
    }
    if (!desc_present(&d)) {
        seg_fault(cpu, EXC_NP, sel);
    }
    if (cpu_long_mode(cpu)) {
        seg_read_upper(cpu, sel, &d, EXC_GP);
    }
    seg_set_busy(cpu, &d, true);
    cpu->tr = seg_make_system(cpu, sel, &d);
}

/* -- LAR LSL VERR VERW: answers in ZF, no faults of the selector's ----------------------------- */
static bool visible(const struct cpu *cpu, uint16_t sel, const struct seg_desc *d)
{
    return desc_conforming(d) || (desc_dpl(d) >= cpu->cpl && desc_dpl(d) >= (sel & SEL_RPL));
}

static void set_zf(struct cpu *cpu, bool on)
{
    cpu->rflags = on ? cpu->rflags | FLAG_ZF : cpu->rflags & ~FLAG_ZF;
}

static bool find(struct cpu *cpu, uint16_t sel, struct seg_desc *d)
{
    return !sel_is_null(sel) && seg_read(cpu, sel, d) && visible(cpu, sel, d);
}

#define TYPE(t) (1u << (t))
#define LIMIT_TYPES (TYPE(SEG_LDT) | TYPE(SEG_TSS32) | TYPE(SEG_TSS32_BUSY))
#define LIMIT_TYPES_16 (TYPE(SEG_TSS16) | TYPE(SEG_TSS16_BUSY))

/* System types that an instruction accepts; long mode lacks the 16-bit ones and task gates. */
static bool type_allowed(const struct cpu *cpu, const struct seg_desc *d, unsigned types,
                         unsigned legacy)
{
    if (desc_is_segment(d)) {
        return true;
    }
    return (types | (cpu_long_mode(cpu) ? 0 : legacy)) >> desc_type(d) & 1;
}

void sem_lar(struct cpu *cpu, const struct insn *in)
{
    struct seg_desc d;
    seg_need_protected(cpu);
    uint16_t sel = (uint16_t)opnd_read(cpu, in, 1);
    bool ok = find(cpu, sel, &d) &&
              type_allowed(cpu, &d, LIMIT_TYPES | TYPE(SEG_CALL32),
                           LIMIT_TYPES_16 | TYPE(SEG_CALL16) | TYPE(SEG_TASK_GATE));
    set_zf(cpu, ok);
    if (ok) {
        opnd_write(cpu, in, 0, d.lo >> 32 & 0xf0ff00);
    }
}

void sem_lsl(struct cpu *cpu, const struct insn *in)
{
    struct seg_desc d;
    seg_need_protected(cpu);
    uint16_t sel = (uint16_t)opnd_read(cpu, in, 1);
    bool ok = find(cpu, sel, &d) && type_allowed(cpu, &d, LIMIT_TYPES, LIMIT_TYPES_16);
    set_zf(cpu, ok);
    if (ok) {
        opnd_write(cpu, in, 0, seg_make(sel, &d).limit);
    }
}

void sem_verr(struct cpu *cpu, const struct insn *in)
{
    struct seg_desc d;
    seg_need_protected(cpu);
    uint16_t sel = (uint16_t)opnd_read(cpu, in, 0);
    set_zf(cpu, find(cpu, sel, &d) && desc_is_segment(&d) &&
                    (!desc_is_code(&d) || (desc_type(&d) & SEG_TYPE_RW)));
}

void sem_verw(struct cpu *cpu, const struct insn *in)
{
    struct seg_desc d;
    seg_need_protected(cpu);
    uint16_t sel = (uint16_t)opnd_read(cpu, in, 0);
    set_zf(cpu, find(cpu, sel, &d) && desc_writable_data(&d));
}

void sem_arpl(struct cpu *cpu, const struct insn *in)
{
    seg_need_protected(cpu);
    uint16_t dest = (uint16_t)opnd_read(cpu, in, 0);
    uint16_t src = (uint16_t)opnd_read(cpu, in, 1);
    bool raise = (dest & SEL_RPL) < (src & SEL_RPL);
    if (raise) {
        opnd_write(cpu, in, 0, (dest & ~SEL_RPL) | (src & SEL_RPL));
    }
    set_zf(cpu, raise);
}
