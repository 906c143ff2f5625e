/* SPDX-License-Identifier: Apache-2.0
 *
 * Instruction decoder: prefixes (SDM 2 section 2.1), REX (2.2), VEX (2.3), EVEX (2.7), and the
 * walk of the generated decision trees to the row. Operands are in decode_opnd.c.
 */
#include "cpu/decode.h"

#include <string.h>

enum prefix_class {
    PC_NONE, PC_ES, PC_CS, PC_SS, PC_DS, PC_FS, PC_GS, PC_66, PC_67, PC_LOCK, PC_REPNE, PC_REP
};

static const uint8_t prefix_class[256] = {
    [0x26] = PC_ES, [0x2e] = PC_CS, [0x36] = PC_SS, [0x3e] = PC_DS, [0x64] = PC_FS,
    [0x65] = PC_GS, [0x66] = PC_66, [0x67] = PC_67, [0xf0] = PC_LOCK, [0xf2] = PC_REPNE,
    [0xf3] = PC_REP,
};

/* Consume the legacy prefixes and REX; then d->pos is at the opcode byte, which is available. */
static enum insn_status take_prefixes(struct decoder *d)
{
    struct insn *in = d->out;
    unsigned flags = 0;
    for (;;) {
        if (d->pos >= d->avail)
            return decode_short(d);
        uint8_t b = d->bytes[d->pos];
        unsigned c = prefix_class[b];
        if (c == PC_NONE) {
            if (d->mode != INSN_MODE_64 || (b & 0xf0) != 0x40)
                break;
            d->rex = b & 0xf; /* effective only if the opcode follows at once */
            flags |= INSN_REX;
            d->pos++;
            continue;
        }
        d->pos++;
        d->rex = 0;
        flags &= ~(unsigned)INSN_REX;
        switch (c) {
        case PC_66:
            flags |= INSN_OPSIZE;
            break;
        case PC_67:
            flags |= INSN_ADSIZE;
            break;
        case PC_LOCK:
            flags |= INSN_LOCK;
            break;
        case PC_REPNE: /* the last of F2 and F3 counts */
            flags = (flags & ~(unsigned)INSN_REP) | INSN_REPNE;
            break;
        case PC_REP:
            flags = (flags & ~(unsigned)INSN_REPNE) | INSN_REP;
            break;
        default: /* in 64-bit mode ES CS SS DS are null prefixes */
            if (d->mode != INSN_MODE_64 || c >= PC_FS) {
                in->mem.seg = (uint8_t)(c - PC_ES);
                flags |= INSN_SEG_OVR;
            }
        }
    }
    in->flags = (uint16_t)flags;
    d->pfx = flags & INSN_REP ? 2 : flags & INSN_REPNE ? 3 : flags & INSN_OPSIZE ? 1 : 0;
    return INSN_OK;
}

/* C4, C5 and 62 are VEX and EVEX in 64-bit mode, else when ModRM.mod of LES, LDS or BOUND would
 * be 11b. Returns 1 when the byte at pos begins one, 0 when not, or a status. */
static int is_vex(const struct decoder *d, uint8_t b)
{
    if (b != 0xc4 && b != 0xc5 && b != 0x62)
        return 0;
    if (d->mode == INSN_MODE_64)
        return 1;
    if (d->pos + 1 >= d->avail)
        return decode_short(d);
    return d->bytes[d->pos + 1] >= 0xc0;
}

static enum insn_status take_vex(struct decoder *d, uint8_t first)
{
    struct insn *in = d->out;
    if ((in->flags & (INSN_REX | INSN_OPSIZE | INSN_REP | INSN_REPNE | INSN_LOCK)) ||
        (first == 0x62 && !cpu_has(d->features, CPU_FEATURE_AVX512F))) {
        d->pos += d->mode == INSN_MODE_64 ? 1 : 2; /* is_vex() looked at ModRM, too */
        return INSN_UD;
    }
    unsigned n = first == 0xc5 ? 1 : first == 0xc4 ? 2 : 3; /* payload bytes */
    if (d->pos + 1 + n > d->avail)
        return decode_short(d);
    const uint8_t *p = d->bytes + d->pos + 1;
    d->pos += 1 + n;
    uint8_t last = p[first == 0xc5 ? 0 : 1]; /* W|R vvvv L pp */
    d->space = SPACE_VEX;
    d->rex = p[0] & 0x80 ? 0 : REX_R;
    in->map = 1;
    if (first != 0xc5) {
        d->rex |= (p[0] & 0x40 ? 0 : REX_X) | (p[0] & 0x20 ? 0 : REX_B) |
                  (last & 0x80 ? REX_W : 0);
        in->map = p[0] & 0x1f;
    }
    in->vvvv = ~last >> 3 & 0xf;
    d->vlen = last >> 2 & 1;
    in->flags |= INSN_VEX;
    if (first == 0x62) {
        if ((p[0] & 8) || !(last & 4))
            return INSN_UD;
        d->space = SPACE_EVEX;
        d->evex = p[2];
        d->rex_hi = (p[0] & 0x10 ? 0 : 1) | (p[2] & 8 ? 0 : 2);
        in->map = p[0] & 7;
        in->vvvv |= (d->rex_hi & 2) << 3;
        d->vlen = p[2] >> 5 & 3;
        in->flags = (uint16_t)((in->flags & ~INSN_VEX) | INSN_EVEX);
        in->evex_aaa = p[2] & 7;
        in->evex_b_z_ll = (uint8_t)((p[2] >> 4 & 1) | (p[2] >> 6 & 2) | (p[2] >> 3 & 0xc));
    }
    d->vvvv = in->vvvv;
    if (d->mode != INSN_MODE_64 && cpu_has(d->features, CPU_FEATURE_AMD))
        d->vvvv &= 0xf; /* V' is ignored, even where no register is meant */
    if (d->mode != INSN_MODE_64) { /* eight registers: the high bits are ignored */
        d->rex &= REX_W;
        d->rex_hi = 0;
        in->vvvv &= 7;
    }
    d->pfx = last & 3;
    if (in->map < 1 || in->map > 3)
        return INSN_UD;
    return d->pos >= d->avail ? decode_short(d) : INSN_OK;
}

static enum insn_status take_opcode(struct decoder *d)
{
    struct insn *in = d->out;
    uint8_t b = d->bytes[d->pos];
    int vex = is_vex(d, b);
    if (vex < 0)
        return vex;
    if (vex) {
        enum insn_status s = take_vex(d, b);
        if (s != INSN_OK)
            return s;
        b = d->bytes[d->pos];
    } else if (b == 0x0f) {
        if (++d->pos >= d->avail)
            return decode_short(d);
        b = d->bytes[d->pos];
        in->map = 1;
        if (b == 0x38 || b == 0x3a) {
            in->map = b == 0x38 ? 2 : 3;
            if (++d->pos >= d->avail)
                return decode_short(d);
            b = d->bytes[d->pos];
        }
    }
    d->pos++;
    in->opcode = b;
    return INSN_OK;
}

/* VEX.L or EVEX.L'L; with static rounding or SAE the length is 512 and L'L is the rounding mode. */
static enum insn_status vector_length(struct decoder *d)
{
    if (d->space == SPACE_EVEX && (d->evex & 0x10)) {
        enum insn_status s = decode_modrm(d);
        if (s != INSN_OK)
            return s;
        if (d->modrm >= 0xc0) {
            d->vlen = 2;
        }
    }
    return INSN_OK;
}

/* Values of the dimensions in one word, so that a step of the walk is a shift and a mask. */
static const struct {
    uint8_t shift;
    uint8_t mask;
} dim_field[] = {
    [DIM_PFX] = { 0, 3 },  [DIM_M64] = { 2, 1 },  [DIM_W] = { 3, 1 },
    [DIM_REXB] = { 4, 1 }, [DIM_EVB] = { 5, 1 },  [DIM_L] = { 6, 3 },
    [DIM_RM] = { 8, 7 },   [DIM_REG] = { 11, 7 }, [DIM_MOD] = { 14, 1 },
};

static unsigned pack_dims(const struct decoder *d)
{
    unsigned rex = d->rex;
    return d->pfx | (unsigned)(d->mode == INSN_MODE_64) << 2 | (rex & REX_W) | (rex & REX_B) << 4 |
           (d->evex >> 4 & 1u) << 5 | (unsigned)d->vlen << 6;
}

static enum insn_status find_row(struct decoder *d, unsigned *row)
{
    unsigned ref = insn_root[d->space * 4u + d->out->map][d->out->opcode];
    unsigned dims = ref & TREE_NODE ? pack_dims(d) : 0;
    while (ref & TREE_NODE) {
        const uint16_t *node = &insn_node[ref & (TREE_NODE - 1)];
        enum tree_dim dim = node[0] & 0xff;
        unsigned v;
        if (dim == DIM_FEAT) {
            v = cpu_has(d->features, (enum cpu_feature)(node[0] >> 8));
        } else {
            if (dim >= DIM_NEEDS_MODRM) {
                enum insn_status s = dim == DIM_L ? vector_length(d) : decode_modrm(d);
                if (s != INSN_OK)
                    return s;
                dims = pack_dims(d) | (d->modrm & 0x3fu) << 8 | (d->modrm >= 0xc0u) << 14;
            }
            v = dims >> dim_field[dim].shift & dim_field[dim].mask;
        }
        ref = node[1 + v];
    }
    if (ref == 0)
        return INSN_UD;
    *row = ref - 1;
    return INSN_OK;
}

static void set_sizes(struct decoder *d, unsigned flags)
{
    struct insn *in = d->out;
    bool o66 = in->flags & INSN_OPSIZE;
    bool a67 = in->flags & INSN_ADSIZE;
    if (d->mode == INSN_MODE_64) {
        in->adsize = a67 ? 4 : 8;
        if (flags & RD_F64) /* Intel ignores the prefix, AMD does not */
            in->opsize = o66 && !(d->rex & REX_W) && cpu_has(d->features, CPU_FEATURE_AMD) ? 2 : 8;
        else if (d->rex & REX_W)
            in->opsize = 8;
        else if (o66)
            in->opsize = 2;
        else
            in->opsize = flags & RD_D64 ? 8 : 4;
    } else {
        bool is32 = d->mode == INSN_MODE_32;
        in->adsize = is32 != a67 ? 4 : 2;
        in->opsize = is32 != o66 ? 4 : 2;
    }
}

/* EVEX.b without a memory operand is static rounding or SAE. AMD ignores it where it would be a
 * broadcast with one: then L'L is the length again. */
static enum insn_status check_evex_b(struct decoder *d, unsigned index)
{
    const struct insn_row *row = &insn_row[index];
    if (!(d->evex & 0x10))
        return INSN_OK;
    if (d->modrm < 0xc0)
        return row->bcst != 0 ? INSN_OK : INSN_UD;
    if (row->flags & (RD_EVEX_ER | RD_EVEX_SAE))
        return INSN_OK;
    if (row->bcst == 0 || !cpu_has(d->features, CPU_FEATURE_AMD))
        return INSN_UD;
    d->evex &= (uint8_t)~0x10;
    d->out->evex_b_z_ll &= (uint8_t)~1;
    d->vlen = d->evex >> 5 & 3;
    return (insn_enc[index].l >> d->vlen & 1) &&
                   (d->vlen == 2 || cpu_has(d->features, CPU_FEATURE_AVX512VL))
               ? INSN_OK
               : INSN_UD;
}

/* AMD ignores EVEX.z where opmasks have no part in the instruction. */
static bool ignores_z(const struct decoder *d, const struct insn_row *row)
{
    const struct insn *in = d->out;
    for (unsigned i = 0; i < in->nopnd; i++) {
        if (in->opnd[i].kind == OPND_K)
            return false;
    }
    return !(row->flags & RD_EVEX_K) && cpu_has(d->features, CPU_FEATURE_AMD);
}

/* SDM 2 2.7.11: which EVEX.z and aaa a row accepts. */
static enum insn_status check_evex(struct decoder *d, const struct insn_row *row)
{
    unsigned aaa = d->evex & 7;
    bool b = d->evex & 0x10;
    if (ignores_z(d, row)) {
        d->evex &= 0x7f;
        d->out->evex_b_z_ll &= (uint8_t)~2;
    }
    bool z = d->evex & 0x80;
    bool reg = d->have_modrm && d->modrm >= 0xc0;
    if ((d->evex >> 5 & 3) == 3 && !(b && reg))
        return INSN_UD;
    if (aaa && !(row->flags & RD_EVEX_K))
        return INSN_UD;
    if (z && (!(row->flags & RD_EVEX_Z) || !aaa))
        return INSN_UD;
    if (z && d->out->opnd[0].kind == OPND_MEM)
        return INSN_UD;
    if (!aaa && (row->flags & RD_EVEX_KREQ))
        return INSN_UD;
    return INSN_OK;
}

/* What Intel's processors take and AMD's do not. */
static bool amd_refuses(const struct decoder *d)
{
    const struct insn *in = d->out;
    switch (in->op) {
    case OP_NOP: /* PREFETCH and its kin, register form */
        return in->opcode == 0x0d && in->map == 1 && d->modrm >= 0xc0;
    case OP_VPEXTRD: /* W is not ignored outside 64-bit mode */
    case OP_VPINSRD:
        return (d->rex & REX_W) && d->mode != INSN_MODE_64;
    default:
        return false;
    }
}

static enum insn_status decode_row(struct decoder *d, unsigned index)
{
    struct insn *in = d->out;
    const struct insn_row *row = &insn_row[index];
    in->row = (uint16_t)index;
    in->op = row->op;
    set_sizes(d, row->flags);
    if ((row->flags & RD_NO_VVVV) && (row->flags & RD_VSIB ? d->vvvv & 0xf : d->vvvv))
        return INSN_UD;
    if (row->flags & RD_CC)
        in->cc = in->opcode & 0xf;
    if (row->flags & RD_PFX)
        in->flags &= (uint16_t)~(INSN_REP | INSN_REPNE);
    if (row->flags & RD_MODRM) {
        enum insn_status s = decode_modrm(d);
        if (s != INSN_OK)
            return s;
        in->modrm = d->modrm;
        in->flags |= INSN_HAS_MODRM;
        if (d->modrm < 0xc0 && !(row->flags & RD_MOV_CR)) {
            s = decode_memory(d, row->flags);
            if (s != INSN_OK)
                return s;
        }
    }
    if (d->rex & REX_W)
        in->flags |= INSN_W;
    if (d->space == SPACE_EVEX && check_evex_b(d, index) != INSN_OK)
        return INSN_UD;
    if (d->space != SPACE_LEGACY) {
        enum insn_status s = vector_length(d);
        if (s != INSN_OK)
            return s;
        if (d->vlen == 1)
            in->flags |= INSN_VEX_L;
    }
    enum insn_status s = decode_operands(d, row);
    if (s != INSN_OK)
        return s;
    if (d->space == SPACE_EVEX && (s = check_evex(d, row)) != INSN_OK)
        return s;
    if ((in->flags & INSN_LOCK) && !(row->flags & RD_MOV_CR) &&
        !((row->flags & RD_LOCK) && in->opnd[0].kind == OPND_MEM))
        return INSN_UD;
    if (cpu_has(d->features, CPU_FEATURE_AMD) && amd_refuses(d))
        return INSN_UD;
    return INSN_OK;
}

enum insn_status insn_decode(struct insn *out, const uint8_t *bytes, size_t avail,
                             enum insn_mode mode, const struct cpu_features *f)
{
    memset(out, 0, sizeof *out);
    struct decoder d = {
        .bytes = bytes,
        .avail = avail < INSN_MAX_LEN ? (unsigned)avail : INSN_MAX_LEN,
        .features = f,
        .out = out,
        .mode = (uint8_t)mode,
    };
    out->mem.base = INSN_NO_REG;
    out->mem.index = INSN_NO_REG;
    out->mem.seg = 3; /* DS */
    unsigned row = 0;
    enum insn_status s = take_prefixes(&d);
    if (s == INSN_OK)
        s = take_opcode(&d);
    if (s == INSN_OK)
        s = find_row(&d, &row);
    if (s == INSN_OK)
        s = decode_row(&d, row);
    out->len = (uint8_t)d.pos;
    if (avail > INSN_MAX_LEN) { /* two whole words and a mask beat a copy of variable length */
        uint64_t w[2];
        memcpy(w, bytes, sizeof w);
        w[0] &= d.pos >= 8 ? ~0ull : (1ull << d.pos * 8) - 1;
        w[1] &= d.pos < 8 ? 0 : (1ull << (d.pos - 8) * 8) - 1;
        memcpy(out->bytes, w, sizeof w);
    } else if (d.pos) {
        memcpy(out->bytes, bytes, d.pos);
    }
    return s;
}
