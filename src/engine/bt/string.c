/* SPDX-License-Identifier: Apache-2.0
 *
 * MOVS, STOS and LODS without REP: boot loaders copy with them. With REP, or downwards, they are
 * their helper's.
 */
#include "engine/bt/translate.h"

/* [rSI] or [rDI]; segments are flat here. */
static struct ea string_ea(const struct translation *t, unsigned base)
{
    return (struct ea){
        .base = (uint8_t)base, .index = INSN_NO_REG, .narrow = !t->mode64, .simple = t->mode64
    };
}

static void advance(struct translation *t, unsigned reg, unsigned n)
{
    uint8_t h = (uint8_t)host_of(reg);
    emit_lea(&t->e, t->mode64, h, (struct host_mem){ h, H_NONE, 0, (int32_t)n });
}

/* MOV between a register and memory, of 1, 2, 4 or 8 bytes. */
static void move(struct translation *t, bool store, unsigned size, unsigned reg, struct host_mem m)
{
    struct emit *e = &t->e;
    if (size == 2)
        emit1(e, 0x66);
    emit_rm(e, (uint8_t)((store ? 0x88 : 0x8a) | (size > 1)), size == 8, reg, m);
}

static bool load(struct translation *t, unsigned size, unsigned reg, uint32_t site)
{
    struct ea ea = string_ea(t, R_SI);
    if (!bt_mem_check(t, &ea, size, MMU_READ, false, site))
        return false;
    move(t, false, size, reg, bt_mem_operand(t, &ea, false));
    return true;
}

static bool store_tmp2(struct translation *t, unsigned size, uint32_t site)
{
    struct ea ea = string_ea(t, R_DI);
    if (!bt_mem_check(t, &ea, size, MMU_WRITE, false, site))
        return false;
    struct host_mem m = bt_mem_operand(t, &ea, true);
    emit_rg(&t->e, 0x8b, true, T1, HOT_OFF(tmp2));
    move(t, true, size, T1, m);
    return true;
}

bool bt_emit_string(struct translation *t)
{
    struct emit *e = &t->e;
    const struct insn *in = &t->insn[t->i];
    bool from = in->op == OP_MOVS || in->op == OP_LODS;
    bool to = in->op == OP_MOVS || in->op == OP_STOS;
    if ((!from && !to) || (in->flags & (INSN_REP | INSN_REPNE)) ||
        in->adsize != (t->mode64 ? 8 : 4) || (from && in->mem.seg != SEG_DS))
        return false;
    unsigned size = in->opnd[0].size;
    uint32_t site = bt_site_new(t);
    bt_flags_release(t);
    emit_xg(e, 0xf6, 0, CPU_OFF(rflags) + 1); /* test byte [rflags + 1], DF */
    emit1(e, (uint8_t)(FLAG_DF >> 8));
    bt_cold_new(t, COLD_HELPER, emit_jcc_fwd(e, CC_NE))->site = site;
    if (in->op == OP_LODS) {
        if (!load(t, size, H_AX, site))
            return false;
    } else {
        if (from && !load(t, size, T1, site))
            return false;
        emit_rg(e, 0x89, true, from ? T1 : H_AX, HOT_OFF(tmp2));
        if (!store_tmp2(t, size, site))
            return false;
    }
    if (from)
        advance(t, R_SI, size);
    if (to)
        advance(t, R_DI, size);
    bt_site_end(t, site);
    bt_groups_end(t);
    return true;
}
