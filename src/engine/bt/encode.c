/* SPDX-License-Identifier: Apache-2.0
 *
 * The bytes of an instruction that is emitted as itself, its operands where a plan says. One
 * emitter serves all ModRM encodings: legacy, VEX and EVEX, general and vector (SDM 2 chapter 2).
 */
#include "engine/bt/encode.h"

static uint8_t mandatory_prefix(const struct insn *in, const struct insn_row *row, bool mode64)
{
    if (!(row->flags & RD_PFX))
        return 0;
    uint8_t last = 0;
    for (unsigned i = 0; i < in->len; i++) { /* the last of F2 and F3 counts */
        uint8_t b = in->bytes[i];
        if (b == 0xf2 || b == 0xf3)
            last = b;
        else if (mode64 && (b & 0xf0) == 0x40) /* a REX that prefixes follow is ignored */
            continue;
        else if (b != 0x66 && b != 0x67 && b != 0x2e && b != 0x36 && b != 0x3e && b != 0x26 &&
                 b != 0x64 && b != 0x65 && b != 0xf0)
            break;
    }
    return last;
}

/* VEX prefix of the original: its last byte has pp and L. */
static uint8_t vex_last(const struct insn *in)
{
    unsigned op = in->flags & INSN_HAS_MODRM ? in->modrm_off - 1u : in->len - 1u;
    return in->bytes[op - 1];
}

/* VEX.W outside 64-bit mode is ignored where it would make a general operand 64 bits. */
static bool vex_w(const struct insn *in, const struct bt_plan *p)
{
    if (!p->mode64 && (in->op == OP_VPCMPESTRI || in->op == OP_VPCMPESTRM))
        return false; /* EAX and EDX are implied */
    for (unsigned k = 0; k < in->nopnd && !p->mode64; k++) {
        unsigned how = p->row->opnd[k].how;
        if (how == OH_E || how == OH_G || how == OH_R || how == OH_B)
            return false;
    }
    return (in->flags & INSN_W) != 0;
}

static void emit_vex(struct emit *e, const struct insn *in, const struct bt_plan *p, unsigned x,
                     unsigned b)
{
    uint8_t last = vex_last(in) & 0x07; /* L pp */
    emit1(e, 0xc4);
    emit1(e, (uint8_t)((p->reg_host & 8 ? 0 : 0x80) | (x & 8 ? 0 : 0x40) | (b & 8 ? 0 : 0x20) |
                       in->map));
    emit1(e, (uint8_t)((vex_w(in, p) ? 0x80 : 0) | (~p->vvvv_host & 15) << 3 | last));
}

/* The prefix of the original with other registers (SDM 2 2.7.1). */
static void emit_evex(struct emit *e, const struct insn *in, const struct bt_plan *p, unsigned x,
                      unsigned b)
{
    uint8_t pp = in->bytes[in->modrm_off - 3] & 3;
    unsigned bcst = in->evex_b_z_ll & 1;
    unsigned z = in->evex_b_z_ll >> 1 & 1;
    if (p->mem_opnd < 0)
        x = p->rm_host >> 1; /* vector registers above 15 */
    emit1(e, 0x62);
    emit1(e, (uint8_t)((p->reg_host & 8 ? 0 : 0x80) | (x & 8 ? 0 : 0x40) | (b & 8 ? 0 : 0x20) |
                       (p->reg_host & 16 ? 0 : 0x10) | in->map));
    emit1(e, (uint8_t)((vex_w(in, p) ? 0x80 : 0) | (~p->vvvv_host & 15) << 3 | 4 | pp));
    emit1(e, (uint8_t)(z << 7 | (in->evex_b_z_ll & 0xcu) << 3 | bcst << 4 |
                       (p->vvvv_host & 16 ? 0 : 8) | in->evex_aaa));
}

static void emit_legacy(struct emit *e, const struct insn *in, const struct bt_plan *p, unsigned x,
                        unsigned b)
{
    uint8_t pfx = mandatory_prefix(in, p->row, p->mode64);
    if ((in->flags & INSN_LOCK) && p->mem_opnd >= 0)
        emit1(e, 0xf0);
    if (in->flags & INSN_OPSIZE)
        emit1(e, 0x66);
    if (pfx)
        emit1(e, pfx);
    unsigned r = in->flags & INSN_HAS_MODRM ? p->reg_host : 0;
    uint8_t rex = (uint8_t)((in->flags & INSN_W ? 8 : 0) | (r >> 3 & 1) << 2 | (x >> 3 & 1) << 1 |
                            (b >> 3 & 1));
    if (rex || p->rex_needed)
        emit1(e, 0x40 | rex);
    if (in->map >= 1)
        emit1(e, 0x0f);
    if (in->map >= 2)
        emit1(e, in->map == 2 ? 0x38 : 0x3a);
}

/* EVEX counts an 8-bit displacement in operands of n bytes. */
static void emit_modrm_evex(struct emit *e, unsigned reg, struct host_mem m, int32_t n)
{
    if (m.disp % n == 0 && m.disp / n == (int8_t)(m.disp / n)) {
        m.disp /= n;
        emit_modrm_mem(e, reg, m);
    } else {
        emit_modrm_mod(e, reg, m, 2);
    }
}

void bt_encode(struct emit *e, const struct insn *in, const struct bt_plan *p,
               struct host_mem mem)
{
    bool has_mem = p->mem_opnd >= 0;
    unsigned x = has_mem && mem.index != H_NONE ? mem.index : 0;
    unsigned b = has_mem                      ? mem.base
                 : in->flags & INSN_HAS_MODRM ? p->rm_host
                 : p->z_host != H_NONE        ? p->z_host
                                              : 0;
    uint8_t opcode = in->opcode;
    if (in->flags & INSN_EVEX)
        emit_evex(e, in, p, x, b);
    else if (in->flags & INSN_VEX)
        emit_vex(e, in, p, x, b);
    else
        emit_legacy(e, in, p, x, b);
    if (opcode == 0x82 && in->map == 0)
        opcode = 0x80; /* alias that 64-bit mode lacks */
    if (p->z_host != H_NONE)
        opcode = (uint8_t)((opcode & ~7) | (p->z_host & 7));
    emit1(e, opcode);
    if (in->flags & INSN_HAS_MODRM) {
        if (has_mem && (in->flags & INSN_EVEX))
            emit_modrm_evex(e, p->reg_host, mem, in->opnd[p->mem_opnd].size);
        else if (has_mem)
            emit_modrm_mem(e, p->reg_host, mem);
        else
            emit1(e, (uint8_t)(0xc0 | (p->reg_host & 7) << 3 | (p->rm_host & 7)));
    }
    emit_bytes(e, in->bytes + in->len - p->imm_bytes, p->imm_bytes);
    if (p->is4 && !p->mode64)
        e->p[-1] &= 0x7f; /* there are eight registers: bit 7 is ignored */
}
