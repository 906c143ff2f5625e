/* SPDX-License-Identifier: Apache-2.0
 *
 * Segment descriptors and segment registers (SDM 3 chapters 3 and 5). */
#include "cpu/seg.h"

#include "base/bits.h"
#include "cpu/access.h"
#include "cpu/except.h"

/* While an event is delivered, faults say so in EXT, except for INT n, INT3 and INTO (SDM 3 6.13).
 */
void seg_fault(struct cpu *cpu, enum cpu_vector vector, uint16_t sel)
{
    cpu_raise_error(cpu, vector, (sel & ~SEL_RPL) | except_ext(cpu));
}

void seg_need_protected(struct cpu *cpu)
{
    if (!cpu_protected(cpu) || cpu_v86(cpu)) {
        cpu_raise(cpu, EXC_UD);
    }
}

void cpu_need_cpl0(struct cpu *cpu)
{
    if (cpu->cpl != 0) {
        cpu_raise_error(cpu, EXC_GP, 0);
    }
}

/* -- Descriptors in memory --------------------------------------------------------------------- */
bool seg_read(struct cpu *cpu, uint16_t sel, struct seg_desc *out)
{
    unsigned off = sel & ~7u;
    uint64_t base;
    if (sel & SEL_TI) {
        if ((cpu->ldtr.attr & SEG_ATTR_NULL) || off + 7 > cpu->ldtr.limit) {
            return false;
        }
        base = cpu->ldtr.base;
    } else {
        if (off + 7 > cpu->gdtr.limit) {
            return false;
        }
        base = cpu->gdtr.base;
    }
    out->addr = cpu_long_mode(cpu) ? base + off : (uint32_t)(base + off);
    out->lo = cpu_sys_read(cpu, out->addr, 8);
    out->hi = 0;
    return true;
}

void seg_read_or_raise(struct cpu *cpu, uint16_t sel, struct seg_desc *out, enum cpu_vector vector)
{
    if (!seg_read(cpu, sel, out)) {
        seg_fault(cpu, vector, sel);
    }
}

void seg_read_upper(struct cpu *cpu, uint16_t sel, struct seg_desc *d, enum cpu_vector vector)
{
    uint64_t limit = sel & SEL_TI ? cpu->ldtr.limit : cpu->gdtr.limit;
    if ((sel & ~7u) + 15 > limit) {
        seg_fault(cpu, vector, sel);
    }
    d->hi = cpu_sys_read(cpu, d->addr + 8, 8);
    if (d->hi >> 40 & 0x1f) {
        seg_fault(cpu, vector, sel);
    }
}

void seg_set_accessed(struct cpu *cpu, struct seg_desc *d)
{
    uint64_t bit = (uint64_t)SEG_TYPE_ACCESSED << 40;
    if (!(d->lo & bit)) {
        d->lo |= bit;
        cpu_sys_write(cpu, d->addr + 5, 1, d->lo >> 40 & 0xff);
    }
}

void seg_set_busy(struct cpu *cpu, struct seg_desc *d, bool busy)
{
    d->lo = (d->lo & ~(2ull << 40)) | (busy ? 2ull << 40 : 0);
    cpu_sys_write(cpu, d->addr + 5, 1, d->lo >> 40 & 0xff);
}

/* -- Hidden parts ------------------------------------------------------------------------------ */
struct cpu_seg seg_make(uint16_t sel, const struct seg_desc *d)
{
    uint32_t limit = (uint32_t)((d->lo & 0xffff) | (d->lo >> 32 & 0xf0000));
    uint32_t attr = d->lo >> 40 & 0xf0ff;
    return (struct cpu_seg){
        .base = (d->lo >> 16 & 0xffffff) | (d->lo >> 32 & 0xff000000),
        .limit = attr & SEG_ATTR_G ? limit << 12 | 0xfff : limit,
        .attr = attr,
        .sel = sel,
    };
}

struct cpu_seg seg_make_system(const struct cpu *cpu, uint16_t sel, const struct seg_desc *d)
{
    struct cpu_seg s = seg_make(sel, d);
    if (cpu_long_mode(cpu)) {
        s.base |= d->hi << 32;
    }
    return s;
}

/* Real mode changes base and selector only, so that limits from protected mode stay. */
void seg_load_real(struct cpu *cpu, unsigned seg, uint16_t sel)
{
    struct cpu_seg *s = &cpu->seg[seg];
    s->sel = sel;
    s->base = (uint32_t)sel << 4;
    s->attr = (s->attr & (SEG_ATTR_G | SEG_ATTR_DB)) | SEG_ATTR_REAL;
}

void seg_set_v86(struct cpu *cpu, unsigned seg, uint16_t sel)
{
    cpu->seg[seg] = (struct cpu_seg){
        .sel = sel,
        .base = (uint32_t)sel << 4,
        .limit = 0xffff,
        .attr = SEG_ATTR_V86,
    };
}

void seg_set_null(struct cpu *cpu, unsigned seg, uint16_t sel, unsigned dpl)
{
    struct cpu_seg *s = &cpu->seg[seg];
    *s = (struct cpu_seg){ .sel = sel, .attr = SEG_ATTR_NULL | dpl << SEG_ATTR_DPL_SHIFT };
}

/* -- Loading ----------------------------------------------------------------------------------- */
struct cpu_seg seg_check_stack(struct cpu *cpu, uint16_t sel, unsigned cpl, enum cpu_vector vector)
{
    struct seg_desc d;
    if (sel_is_null(sel)) {
        cpu_raise_error(cpu, vector, except_ext(cpu));
    }
    seg_read_or_raise(cpu, sel, &d, vector);
    if ((sel & SEL_RPL) != cpl || desc_dpl(&d) != cpl || !desc_writable_data(&d)) {
        seg_fault(cpu, vector, sel);
    }
    if (!desc_present(&d)) {
        seg_fault(cpu, EXC_SS, sel);
    }
    seg_set_accessed(cpu, &d);
    return seg_make(sel, &d);
}

static void load_stack(struct cpu *cpu, uint16_t sel)
{
    if (sel_is_null(sel) && cpu_code64(cpu) && cpu->cpl != 3 && (sel & SEL_RPL) == cpu->cpl) {
        seg_set_null(cpu, SEG_SS, sel, cpu->cpl);
        return;
    }
    cpu->seg[SEG_SS] = seg_check_stack(cpu, sel, cpu->cpl, EXC_GP);
}

static void load_data(struct cpu *cpu, unsigned seg, uint16_t sel)
{
    struct seg_desc d;
    if (sel_is_null(sel)) {
        seg_set_null(cpu, seg, sel, 0);
        return;
    }
    seg_read_or_raise(cpu, sel, &d, EXC_GP);
    if (!desc_is_segment(&d) || (desc_is_code(&d) && !(desc_type(&d) & SEG_TYPE_RW))) {
        seg_fault(cpu, EXC_GP, sel);
    }
    if (!desc_conforming(&d) && (desc_dpl(&d) < (sel & SEL_RPL) || desc_dpl(&d) < cpu->cpl)) {
        seg_fault(cpu, EXC_GP, sel);
    }
    if (!desc_present(&d)) {
        seg_fault(cpu, EXC_NP, sel);
    }
    seg_set_accessed(cpu, &d);
    cpu->seg[seg] = seg_make(sel, &d);
}

void seg_load(struct cpu *cpu, unsigned seg, uint16_t sel)
{
    if (cpu_v86(cpu)) {
        seg_set_v86(cpu, seg, sel);
    } else if (!cpu_protected(cpu)) {
        seg_load_real(cpu, seg, sel);
    } else if (seg == SEG_SS) {
        load_stack(cpu, sel);
    } else {
        load_data(cpu, seg, sel);
    }
}

void seg_drop_inner(struct cpu *cpu)
{
    static const uint8_t data[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };
    for (unsigned i = 0; i < ARRAY_LEN(data); i++) {
        const struct cpu_seg *s = &cpu->seg[data[i]];
        if (s->attr & SEG_ATTR_NULL) {
            if (s->sel & SEL_RPL) { /* a null selector keeps no RPL across the return */
                cpu->seg[data[i]].sel = 0;
            }
            continue;
        }
        bool conforming = (s->attr & (SEG_TYPE_CODE | SEG_TYPE_CONFORMING)) ==
                          (SEG_TYPE_CODE | SEG_TYPE_CONFORMING);
        if (seg_dpl(s) < cpu->cpl && !conforming) {
            /* The base stays: in 64-bit mode FS and GS are used with a null selector. */
            uint64_t base = s->base;
            seg_set_null(cpu, data[i], 0, 0);
            cpu->seg[data[i]].base = cpu_long_mode(cpu) ? base : 0;
        }
    }
}

void seg_set_cs(struct cpu *cpu, uint16_t sel, const struct seg_desc *d, unsigned cpl)
{
    cpu->seg[SEG_CS] = seg_make((sel & ~SEL_RPL) | (uint16_t)cpl, d);
}
