/* SPDX-License-Identifier: Apache-2.0
 *
 * Operands: ModRM and SIB memory forms (SDM 2 section 2.1.5), registers, immediates, and the exact
 * size of each.
 */
#include "cpu/decode.h"

#include <string.h>

#define SEG_ES 0
#define SEG_SS 2
#define REG_BP 5
#define REG_SP 4
#define REG_SI 6
#define REG_DI 7

/* Read n bytes, sign-extended; *status tells. The caller knows n is 1, 2, 4 or 8. */
static enum insn_status take_signed(struct decoder *d, unsigned n, int64_t *value)
{
    if (d->pos + n > d->avail)
        return decode_short(d);
    const uint8_t *p = d->bytes + d->pos;
    d->pos += n;
    if (n == 1) {
        *value = (int8_t)p[0];
    } else if (n == 2) {
        int16_t v;
        memcpy(&v, p, sizeof v);
        *value = v;
    } else if (n == 4) {
        int32_t v;
        memcpy(&v, p, sizeof v);
        *value = v;
    } else {
        memcpy(value, p, sizeof *value);
    }
    return INSN_OK;
}

static enum insn_status take_disp(struct decoder *d, unsigned n)
{
    d->disp8 = n == 1;
    return take_signed(d, n, &d->out->mem.disp);
}

static void default_segment(struct decoder *d)
{
    struct insn *in = d->out;
    if (!(in->flags & INSN_SEG_OVR) && (in->mem.base == REG_BP || in->mem.base == REG_SP))
        in->mem.seg = SEG_SS;
}

/* SDM 2 table 2-1. */
static enum insn_status memory16(struct decoder *d)
{
    static const uint8_t base[8] = { 3, 3, 5, 5, 6, 7, 5, 3 };
    static const uint8_t index[8] = { 6,           7,           6,           7,
                                      INSN_NO_REG, INSN_NO_REG, INSN_NO_REG, INSN_NO_REG };
    struct insn *in = d->out;
    unsigned mod = d->modrm >> 6;
    unsigned rm = d->modrm & 7;
    if (mod == 0 && rm == 6)
        return take_disp(d, 2);
    in->mem.base = base[rm];
    in->mem.index = index[rm];
    default_segment(d);
    return mod == 0 ? INSN_OK : take_disp(d, mod);
}

enum insn_status decode_memory(struct decoder *d, enum row_flag flags)
{
    struct insn *in = d->out;
    if (in->adsize == 2)
        return flags & RD_VSIB ? INSN_UD : memory16(d);
    unsigned mod = d->modrm >> 6;
    unsigned rm = d->modrm & 7;
    if (rm == 4) {
        if (d->pos >= d->avail)
            return decode_short(d);
        uint8_t sib = d->bytes[d->pos++];
        unsigned index = (sib >> 3 & 7) | (d->rex & REX_X) << 2;
        in->mem.scale = sib >> 6;
        if (flags & RD_VSIB)
            in->mem.index = (uint8_t)(index | (d->rex_hi & 2) << 3);
        else if (index != 4)
            in->mem.index = (uint8_t)index;
        if ((sib & 7) == 5 && mod == 0)
            return take_disp(d, 4);
        in->mem.base = (uint8_t)((sib & 7) | (d->rex & REX_B) << 3);
    } else if (flags & RD_VSIB) {
        return INSN_UD;
    } else if (rm == 5 && mod == 0) {
        if (d->mode == INSN_MODE_64)
            in->mem.base = INSN_REG_RIP;
        return take_disp(d, 4);
    } else {
        in->mem.base = (uint8_t)(rm | (d->rex & REX_B) << 3);
    }
    default_segment(d);
    return mod == 0 ? INSN_OK : take_disp(d, mod == 1 ? 1 : 4);
}

static unsigned size_of(const struct decoder *d, unsigned sz)
{
    static const uint8_t fixed[SZ_V] = {
        [SZ_B] = 1, [SZ_W] = 2, [SZ_D] = 4, [SZ_Q] = 8, [SZ_DQ] = 16, [SZ_QQ] = 32, [SZ_OQ] = 64,
    };
    unsigned opsize = d->out->opsize;
    if (sz == SZ_V)
        return opsize;
    if (sz < SZ_V)
        return fixed[sz];
    switch (sz) {
    case SZ_T:
        return 10;
    case SZ_Z:
        return opsize < 4 ? opsize : 4;
    case SZ_Y:
        return (d->rex & REX_W) && d->mode == INSN_MODE_64 ? 8 : 4;
    case SZ_N:
        return d->mode == INSN_MODE_64 ? 8 : 4;
    case SZ_X:
        return 16u << d->vlen;
    case SZ_H:
        return 8u << d->vlen;
    case SZ_F:
        return 4u << d->vlen;
    case SZ_E:
        return 2u << d->vlen;
    case SZ_P: /* AMD has no 64-bit offsets */
        return opsize == 8 && cpu_has(d->features, CPU_FEATURE_AMD) ? 6 : opsize + 2;
    case SZ_S:
        return d->mode == INSN_MODE_64 ? 10 : 6;
    case SZ_A:
        return 2 * opsize;
    case SZ_ENV:
        return opsize == 2 ? 14 : 28;
    case SZ_ST:
        return opsize == 2 ? 94 : 108;
    default:
        return 0;
    }
}

/* How many bits of the opmask count. */
static unsigned mask_bits(const struct decoder *d, const struct opnd_spec *spec,
                          const struct insn_row *row)
{
    if (insn_enc[row - insn_row].l == 0xff) /* scalar */
        return 1;
    bool broadcast = spec->msize < SZ_V && !(spec->access & OPND_W);
    return (broadcast ? 16u << d->vlen : size_of(d, spec->msize)) / row->elem;
}

static void set_mem(struct decoder *d, struct opnd *o, const struct opnd_spec *spec,
                    const struct insn_row *row)
{
    unsigned size = size_of(d, spec->msize);
    if (d->space == SPACE_EVEX) {
        if ((d->evex & 0x10) && row->bcst)
            size = row->bcst;
        if (d->disp8) /* SDM 2 2.7.5: disp8*N, N being the bytes accessed, or one element */
            d->out->mem.disp *= row->flags & RD_EVEX_T1S ? row->elem : size;
        if (row->elem != 0) {
            d->out->evex_elem = row->elem;
            d->out->evex_bits = (uint8_t)mask_bits(d, spec, row);
            d->out->evex_packed = (row->flags & RD_EVEX_T1S) != 0;
            d->out->evex_whole = (row->flags & RD_EVEX_NF) != 0;
        }
    }
    o->kind = OPND_MEM;
    o->size = (uint8_t)size;
}

static void set_gpr(const struct decoder *d, struct opnd *o, unsigned reg, unsigned size)
{
    o->kind = OPND_GPR;
    o->size = (uint8_t)size;
    if (size == 1 && reg - 4 < 4 && !(d->out->flags & INSN_REX) && d->space == SPACE_LEGACY)
        reg += 12; /* AH CH DH BH */
    o->reg = (uint8_t)reg;
}

static void set_vec(struct opnd *o, unsigned reg, unsigned size)
{
    o->kind = OPND_VEC;
    o->reg = (uint8_t)reg;
    o->size = (uint8_t)(size < 16 ? 16 : size);
}

static void set_reg(struct opnd *o, enum opnd_kind kind, unsigned reg, unsigned size)
{
    o->kind = (uint8_t)kind;
    o->reg = (uint8_t)reg;
    o->size = (uint8_t)size;
}

/* Memory addressed by a fixed register. MOVS and CMPS have two: insn.mem is the rSI side. */
static void set_implied_mem(struct decoder *d, struct opnd *o, unsigned base, unsigned size,
                            const struct insn_row *row)
{
    struct insn_mem *mem = &d->out->mem;
    o->kind = OPND_MEM;
    o->size = (uint8_t)size;
    if (base != REG_DI || row->opnd[0].how == OH_P || row->opnd[0].how == OH_V) {
        mem->base = (uint8_t)base;
    } else if (mem->base == INSN_NO_REG && row->opnd[0].how != OH_X &&
               row->opnd[1].how != OH_X) {
        mem->base = REG_DI;
        mem->seg = SEG_ES; /* not overridable */
    }
}

static enum insn_status set_imm(struct decoder *d, struct opnd *o, const struct opnd_spec *spec)
{
    struct insn *in = d->out;
    unsigned size = size_of(d, spec->size);
    int64_t v;
    enum insn_status s = take_signed(d, size, &v);
    if (s != INSN_OK)
        return s;
    if (spec->how == OH_I)
        v = size == 1 ? (uint8_t)v : (uint16_t)v;
    set_reg(o, spec->how == OH_J ? OPND_REL : OPND_IMM, 0, size);
    if (o > in->opnd && o[-1].kind == OPND_IMM)
        in->imm2 = (uint16_t)v;
    else
        in->imm = v;
    return INSN_OK;
}

/* ptr16:16 and ptr16:32. */
static enum insn_status set_far(struct decoder *d, struct opnd *o)
{
    struct insn *in = d->out;
    int64_t sel;
    enum insn_status s = take_signed(d, in->opsize, &in->imm);
    if (s == INSN_OK)
        s = take_signed(d, 2, &sel);
    if (s != INSN_OK)
        return s;
    in->imm &= in->opsize == 2 ? 0xffff : 0xffffffff;
    in->imm2 = (uint16_t)sel;
    set_reg(o, OPND_FAR, 0, in->opsize + 2u);
    return INSN_OK;
}

/* MOV to and from CR and DR: 0, 2, 3, 4, 8 and 0..7 exist. */
static enum insn_status set_creg(struct decoder *d, struct opnd *o, enum opnd_kind kind)
{
    unsigned reg = (d->modrm >> 3 & 7) | (d->rex & REX_R) << 1;
    if (d->out->flags & INSN_LOCK) { /* AMD: LOCK MOV CR0 is MOV CR8 in any mode */
        if (kind != OPND_CREG || reg != 0 || !cpu_has(d->features, CPU_FEATURE_CR8_LEGACY))
            return INSN_UD;
        reg = 8;
    }
    if (!((kind == OPND_CREG ? 0x11du : 0xffu) >> reg & 1))
        return INSN_UD;
    set_reg(o, kind, reg, size_of(d, SZ_N));
    return INSN_OK;
}

/* There are eight opmask registers. A fourth bit in VEX is ignored by AMD. */
static bool ignores_k_high(const struct decoder *d)
{
    return d->space == SPACE_VEX && cpu_has(d->features, CPU_FEATURE_AMD);
}

static enum insn_status decode_operand(struct decoder *d, struct opnd *o,
                                       const struct opnd_spec *spec, const struct insn_row *row)
{
    struct insn *in = d->out;
    unsigned rm = d->modrm & 7;
    unsigned reg = d->modrm >> 3 & 7;
    unsigned rm_ext = rm | (d->rex & REX_B) << 3;
    unsigned reg_ext = reg | (d->rex & REX_R) << 1;
    bool mem = d->modrm < 0xc0;
    o->access = spec->access;
    if (spec->how == OH_G && !(d->rex_hi & 1)) { /* most operands: spare them the jump table */
        set_gpr(d, o, reg_ext, size_of(d, spec->size));
        return INSN_OK;
    }
    if (spec->how == OH_E) {
        if (mem)
            set_mem(d, o, spec, row);
        else
            set_gpr(d, o, rm_ext, size_of(d, spec->size));
        return INSN_OK;
    }
    switch ((enum opnd_how)spec->how) {
    case OH_E:
    case OH_G:
        return INSN_UD; /* EVEX.R' with a general register */
    case OH_R:
        set_gpr(d, o, rm_ext, size_of(d, spec->size));
        return INSN_OK;
    case OH_M:
        set_mem(d, o, spec, row);
        return INSN_OK;
    case OH_Z:
        set_gpr(d, o, (in->opcode & 7) | (d->rex & REX_B) << 3, size_of(d, spec->size));
        return INSN_OK;
    case OH_B:
        set_gpr(d, o, in->vvvv, size_of(d, spec->size));
        return INSN_OK;
    case OH_I:
    case OH_IS:
    case OH_J:
        return set_imm(d, o, spec);
    case OH_O: {
        enum insn_status s = take_signed(d, in->adsize, &in->mem.disp);
        in->mem.disp &= in->adsize == 8 ? -1ll : in->adsize == 4 ? 0xffffffffll : 0xffffll;
        set_reg(o, OPND_MEM, 0, size_of(d, spec->msize));
        return s;
    }
    case OH_A:
        return set_far(d, o);
    case OH_X:
        set_implied_mem(d, o, REG_SI, size_of(d, spec->msize), row);
        return INSN_OK;
    case OH_Y:
        set_implied_mem(d, o, REG_DI, size_of(d, spec->msize), row);
        return INSN_OK;
    case OH_MEM_BX:
    case OH_MEM_DI:
    case OH_MEM_AX:
        set_implied_mem(d, o, spec->reg, size_of(d, spec->msize), row);
        return INSN_OK;
    case OH_S:
        set_reg(o, OPND_SREG, reg, 2);
        return reg > 5 ? INSN_UD : INSN_OK;
    case OH_C:
        return set_creg(d, o, OPND_CREG);
    case OH_D:
        return set_creg(d, o, OPND_DREG);
    case OH_T:
        set_reg(o, OPND_ST, rm, 10);
        return INSN_OK;
    case OH_P:
        set_reg(o, OPND_MM, reg, 8);
        return INSN_OK;
    case OH_Q:
        if (mem)
            set_mem(d, o, spec, row);
        else
            set_reg(o, OPND_MM, rm, 8);
        return INSN_OK;
    case OH_N:
        set_reg(o, OPND_MM, rm, 8);
        return INSN_OK;
    case OH_V:
        set_vec(o, reg_ext | (d->rex_hi & 1) << 4, size_of(d, spec->size));
        return INSN_OK;
    case OH_W:
        if (mem) {
            set_mem(d, o, spec, row);
            return INSN_OK;
        }
        /* fall through */
    case OH_U:
        if (d->space == SPACE_EVEX)
            rm_ext |= (d->rex & REX_X) << 3;
        set_vec(o, rm_ext, size_of(d, spec->size));
        return INSN_OK;
    case OH_H:
        set_vec(o, in->vvvv, size_of(d, spec->size));
        return INSN_OK;
    case OH_L: {
        if (d->pos >= d->avail)
            return decode_short(d);
        unsigned imm = d->bytes[d->pos++];
        set_vec(o, imm >> 4 & (d->mode == INSN_MODE_64 ? 15 : 7), size_of(d, spec->size));
        in->imm = (int64_t)imm;
        return INSN_OK;
    }
    case OH_K:
        if ((d->rex_hi & 1 || d->rex & REX_R) && !ignores_k_high(d))
            return INSN_UD;
        set_reg(o, OPND_K, reg, size_of(d, spec->size));
        return INSN_OK;
    case OH_KE:
        if (mem)
            set_mem(d, o, spec, row);
        else
            set_reg(o, OPND_K, rm, size_of(d, spec->size));
        return INSN_OK;
    case OH_KH:
        if (in->vvvv > 7 && !ignores_k_high(d))
            return INSN_UD;
        set_reg(o, OPND_K, in->vvvv & 7, size_of(d, spec->size));
        return INSN_OK;
    case OH_FIX_GPR:
        set_reg(o, OPND_GPR, spec->reg, size_of(d, spec->size));
        return INSN_OK;
    case OH_FIX_SREG:
        set_reg(o, OPND_SREG, spec->reg, 2);
        return INSN_OK;
    case OH_FIX_ST:
        set_reg(o, OPND_ST, spec->reg, 10);
        return INSN_OK;
    case OH_FIX_VEC:
        set_vec(o, spec->reg, 16);
        return INSN_OK;
    case OH_ONE:
        in->imm = 1;
        set_reg(o, OPND_IMM, 0, 1);
        return INSN_OK;
    }
    return INSN_UD;
}

/* AVX2 gathers: destination, index and mask must be three registers (SDM 2 2.3.12). */
static bool vsib_overlap(const struct decoder *d)
{
    const struct insn *in = d->out;
    unsigned dest = in->opnd[0].reg;
    if (d->space == SPACE_EVEX)
        return in->opnd[0].kind == OPND_VEC && dest == in->mem.index;
    return dest == in->mem.index || dest == in->vvvv || in->vvvv == in->mem.index;
}

enum insn_status decode_operands(struct decoder *d, const struct insn_row *row)
{
    struct insn *in = d->out;
    for (unsigned i = 0; i < row->nopnd; i++) {
        enum insn_status s = decode_operand(d, &in->opnd[i], &row->opnd[i], row);
        if (s != INSN_OK)
            return s;
        in->nopnd = (uint8_t)(i + 1);
    }
    if ((row->flags & RD_VSIB) && vsib_overlap(d))
        return INSN_UD;
    return INSN_OK;
}
