/* SPDX-License-Identifier: Apache-2.0
 *
 * Handlers of MOV MOVZX MOVSX MOVSXD LEA XCHG CBW CWD SETcc CMOVcc. */
#include "engine/interp/interp.h"

#define ALL_KINDS(D, ...)                                                                          \
    D(EA_BASE, __VA_ARGS__)                                                                        \
    D(EA_BASE_INDEX, __VA_ARGS__) D(EA_RIP, __VA_ARGS__) D(EA_ANY, __VA_ARGS__)

/* -- MOV; sizes in bytes ----------------------------------------------------------------------- */
#define MOV_REG(size)                                                                              \
    static uint32_t mov_rr_##size(OP_ARGS)                                                         \
    {                                                                                              \
        op_set(cpu, op->dst, size, op_get(cpu, op->src, size));                                    \
        OP_NEXT;                                                                                   \
    }                                                                                              \
    static uint32_t mov_ri_##size(OP_ARGS)                                                         \
    {                                                                                              \
        op_set(cpu, op->dst, size, (uint64_t)op->disp);                                            \
        OP_NEXT;                                                                                   \
    }
#define MOV_MEM(kind, size)                                                                        \
    static uint32_t mov_rm_##size##_##kind(OP_ARGS)                                                \
    {                                                                                              \
        op_set(cpu, op->dst, size, op_load(cpu, op, base, fl, kind, size));                        \
        OP_NEXT;                                                                                   \
    }                                                                                              \
    static uint32_t mov_mr_##size##_##kind(OP_ARGS)                                                \
    {                                                                                              \
        op_store(cpu, op, base, fl, kind, size, op_get(cpu, op->src, size));                       \
        OP_NEXT;                                                                                   \
    }                                                                                              \
    static uint32_t mov_mi_##size##_##kind(OP_ARGS)                                                \
    {                                                                                              \
        op_store(cpu, op, base, fl, kind, size, (uint64_t)(int64_t)op->imm);                       \
        OP_NEXT;                                                                                   \
    }
MOV_REG(1)
MOV_REG(2) MOV_REG(4) MOV_REG(8) ALL_KINDS(MOV_MEM, 1) ALL_KINDS(MOV_MEM, 2) ALL_KINDS(MOV_MEM, 4)
    ALL_KINDS(MOV_MEM, 8)

        enum mov_form {
            MOV_RR,
            MOV_RI,
            MOV_RM,
            MOV_MR = MOV_RM + EA_KINDS,
            MOV_MI = MOV_MR + EA_KINDS,
            MOV_FORMS = MOV_MI + EA_KINDS
        };
#define KIND_ROW(name) name##_EA_BASE, name##_EA_BASE_INDEX, name##_EA_RIP, name##_EA_ANY
#define MOV_ROW(size)                                                                              \
    {                                                                                              \
        mov_rr_##size, mov_ri_##size, KIND_ROW(mov_rm_##size), KIND_ROW(mov_mr_##size),            \
            KIND_ROW(mov_mi_##size)                                                                \
    }
static op_fn *const mov_table[4][MOV_FORMS] = { MOV_ROW(1), MOV_ROW(2), MOV_ROW(4), MOV_ROW(8) };

static unsigned size_index(unsigned size)
{
    return size == 1 ? 0 : size == 2 ? 1 : size == 4 ? 2 : 3;
}

static op_fn *bind_mov(struct op *op, const struct insn *in, enum insn_mode mode)
{
    op_fn *const *row = mov_table[size_index(in->opnd[0].size)];
    op->imm = (int32_t)in->imm;
    if (in->opnd[0].kind == OPND_MEM) {
        op->src = bind_reg(&in->opnd[1]);
        enum ea_kind kind = bind_address(op, in, mode);
        return row[(in->opnd[1].kind == OPND_GPR ? MOV_MR : MOV_MI) + kind];
    }
    op->dst = bind_reg(&in->opnd[0]);
    if (in->opnd[1].kind == OPND_MEM) {
        return row[MOV_RM + bind_address(op, in, mode)];
    }
    op->src = bind_reg(&in->opnd[1]);
    op->disp = in->imm;
    return row[in->opnd[1].kind == OPND_GPR ? MOV_RR : MOV_RI];
}

/* -- MOVZX MOVSX MOVSXD: name, signed source type, sizes --------------------------------------- */
#define EXTEND_REG(name, T, from, to)                                                              \
    static uint32_t name##_rr_##from##_##to(OP_ARGS)                                               \
    {                                                                                              \
        op_set(cpu, op->dst, to, (uint64_t)(int64_t)(T)op_get(cpu, op->src, from));                \
        OP_NEXT;                                                                                   \
    }
#define EXTEND_MEM(kind, name, T, from, to)                                                        \
    static uint32_t name##_rm_##from##_##to##_##kind(OP_ARGS)                                      \
    {                                                                                              \
        op_set(cpu, op->dst, to, (uint64_t)(int64_t)(T)op_load(cpu, op, base, fl, kind, from));    \
        OP_NEXT;                                                                                   \
    }
#define EXTEND(name, T, from, to)                                                                  \
    EXTEND_REG(name, T, from, to) ALL_KINDS(EXTEND_MEM, name, T, from, to)
EXTEND(movzx, uint8_t, 1, 2)
EXTEND(movzx, uint8_t, 1, 4)
EXTEND(movzx, uint16_t, 2, 4)
EXTEND(movsx, int8_t, 1, 2)
EXTEND(movsx, int8_t, 1, 4)
EXTEND(movsx, int8_t, 1, 8)
EXTEND(movsx, int16_t, 2, 4)
EXTEND(movsx, int16_t, 2, 8)
EXTEND(movsx, int32_t, 4, 8)

#define EXTEND_ROW(op, name, from, to)                                                             \
    {                                                                                              \
        op, from, to, { name##_rr_##from##_##to, KIND_ROW(name##_rm_##from##_##to) }               \
    }
static const struct {
    uint16_t op;
    uint8_t from;
    uint8_t to;
    op_fn *fn[1 + EA_KINDS];
} extend_table[] = {
    EXTEND_ROW(OP_MOVZX, movzx, 1, 2),  EXTEND_ROW(OP_MOVZX, movzx, 1, 4),
    EXTEND_ROW(OP_MOVZX, movzx, 2, 4),  EXTEND_ROW(OP_MOVSX, movsx, 1, 2),
    EXTEND_ROW(OP_MOVSX, movsx, 1, 4),  EXTEND_ROW(OP_MOVSX, movsx, 1, 8),
    EXTEND_ROW(OP_MOVSX, movsx, 2, 4),  EXTEND_ROW(OP_MOVSX, movsx, 2, 8),
    EXTEND_ROW(OP_MOVSXD, movsx, 4, 8),
};

static op_fn *bind_extend(struct op *op, const struct insn *in, enum insn_mode mode)
{
    unsigned to = in->opnd[0].size;
    if (in->op == OP_MOVZX && to == 8) {
        to = 4; /* the upper half is zero either way */
    }
    for (unsigned i = 0; i < ARRAY_LEN(extend_table); i++) {
        if (extend_table[i].op != in->op || extend_table[i].from != in->opnd[1].size ||
            extend_table[i].to != to) {
            continue;
        }
        op->dst = bind_reg(&in->opnd[0]);
        if (in->opnd[1].kind == OPND_MEM) {
            return extend_table[i].fn[1 + bind_address(op, in, mode)];
        }
        op->src = bind_reg(&in->opnd[1]);
        return extend_table[i].fn[0];
    }
    return NULL;
}

/* -- LEA --------------------------------------------------------------------------------------- */
#define LEA(kind, size)                                                                            \
    static uint32_t lea_##size##_##kind(OP_ARGS)                                                   \
    {                                                                                              \
        op_set(cpu, op->dst, size, op_offset(cpu, op, base, kind));                                \
        OP_NEXT;                                                                                   \
    }
ALL_KINDS(LEA, 4)
ALL_KINDS(LEA, 8) static op_fn *const lea_table[2][EA_KINDS] = { { KIND_ROW(lea_4) },
                                                                 { KIND_ROW(lea_8) } };

static op_fn *bind_lea(struct op *op, const struct insn *in, enum insn_mode mode)
{
    if (in->opnd[0].size < 4) {
        return NULL;
    }
    op->dst = bind_reg(&in->opnd[0]);
    return lea_table[in->opnd[0].size == 8][bind_address(op, in, mode)];
}

/* -- Registers only ---------------------------------------------------------------------------- */
#define XCHG(size)                                                                                 \
    static uint32_t xchg_##size(OP_ARGS)                                                           \
    {                                                                                              \
        uint64_t a = op_get(cpu, op->dst, size);                                                   \
        op_set(cpu, op->dst, size, op_get(cpu, op->src, size));                                    \
        op_set(cpu, op->src, size, a);                                                             \
        OP_NEXT;                                                                                   \
    }
XCHG(1)
XCHG(2) XCHG(4) XCHG(8)

#define EXTEND_AX(size, half, T)                                                                   \
    static uint32_t cbw_##size(OP_ARGS)                                                            \
    {                                                                                              \
        op_set(cpu, R_AX, size, (uint64_t)(int64_t)(T)op_get(cpu, R_AX, half));                    \
        OP_NEXT;                                                                                   \
    }
    EXTEND_AX(4, 2, int16_t) EXTEND_AX(8, 4, int32_t)

#define EXTEND_DX(size, T)                                                                         \
    static uint32_t cwd_##size(OP_ARGS)                                                            \
    {                                                                                              \
        op_set(cpu, R_DX, size, (uint64_t)((int64_t)(T)op_get(cpu, R_AX, size) >> 63));            \
        OP_NEXT;                                                                                   \
    }
        EXTEND_DX(4, int32_t) EXTEND_DX(8, int64_t)

            static uint32_t nop(OP_ARGS)
{
    OP_NEXT;
}

/* -- Conditions -------------------------------------------------------------------------------- */
#define ALL_CC(D)                                                                                  \
    D(0) D(1) D(2) D(3) D(4) D(5) D(6) D(7) D(8) D(9) D(10) D(11) D(12) D(13) D(14) D(15)
#define CONDITIONAL(cc)                                                                            \
    static uint32_t setcc_r_##cc(OP_ARGS)                                                          \
    {                                                                                              \
        op_set(cpu, op->dst, 1, alu_cond(fl, cc));                                                 \
        OP_NEXT;                                                                                   \
    }                                                                                              \
    static uint32_t cmov_rr_4_##cc(OP_ARGS)                                                        \
    {                                                                                              \
        op_set(cpu, op->dst, 4, op_get(cpu, alu_cond(fl, cc) ? op->src : op->dst, 4));             \
        OP_NEXT;                                                                                   \
    }                                                                                              \
    static uint32_t cmov_rr_8_##cc(OP_ARGS)                                                        \
    {                                                                                              \
        op_set(cpu, op->dst, 8, op_get(cpu, alu_cond(fl, cc) ? op->src : op->dst, 8));             \
        OP_NEXT;                                                                                   \
    }                                                                                              \
    static uint32_t cmov_rm_4_##cc(OP_ARGS)                                                        \
    {                                                                                              \
        uint64_t v = op_load(cpu, op, base, fl, EA_ANY, 4);                                        \
        op_set(cpu, op->dst, 4, alu_cond(fl, cc) ? v : op_get(cpu, op->dst, 4));                   \
        OP_NEXT;                                                                                   \
    }                                                                                              \
    static uint32_t cmov_rm_8_##cc(OP_ARGS)                                                        \
    {                                                                                              \
        uint64_t v = op_load(cpu, op, base, fl, EA_ANY, 8);                                        \
        op_set(cpu, op->dst, 8, alu_cond(fl, cc) ? v : op_get(cpu, op->dst, 8));                   \
        OP_NEXT;                                                                                   \
    }
ALL_CC(CONDITIONAL)
#define CONDITIONAL_ROW(cc)                                                                        \
    { setcc_r_##cc, cmov_rr_4_##cc, cmov_rr_8_##cc, cmov_rm_4_##cc, cmov_rm_8_##cc },
static op_fn *const conditional_table[16][5] = { ALL_CC(CONDITIONAL_ROW) };

static op_fn *bind_cmov(struct op *op, const struct insn *in, enum insn_mode mode)
{
    unsigned wide = in->opnd[0].size == 8;
    if (in->opnd[0].size < 4) {
        return NULL;
    }
    op->dst = bind_reg(&in->opnd[0]);
    if (in->opnd[1].kind == OPND_MEM) {
        (void)bind_address(op, in, mode);
        return conditional_table[in->cc][3 + wide];
    }
    op->src = bind_reg(&in->opnd[1]);
    return conditional_table[in->cc][1 + wide];
}

static op_fn *bind_xchg(struct op *op, const struct insn *in)
{
    static op_fn *const table[] = { xchg_1, xchg_2, xchg_4, xchg_8 };
    if (in->opnd[0].kind != OPND_GPR || in->opnd[1].kind != OPND_GPR) {
        return NULL;
    }
    op->dst = bind_reg(&in->opnd[0]);
    op->src = bind_reg(&in->opnd[1]);
    return table[size_index(in->opnd[0].size)];
}

op_fn *bind_move(struct op *op, const struct insn *in, enum insn_mode mode)
{
    switch (in->op) {
    case OP_MOV:
        return bind_mov(op, in, mode);
    case OP_MOVZX:
    case OP_MOVSX:
    case OP_MOVSXD:
        return bind_extend(op, in, mode);
    case OP_LEA:
        return bind_lea(op, in, mode);
    case OP_XCHG:
        return bind_xchg(op, in);
    case OP_CBW:
        return in->opsize == 8 ? cbw_8 : in->opsize == 4 ? cbw_4 : NULL;
    case OP_CWD:
        return in->opsize == 8 ? cwd_8 : in->opsize == 4 ? cwd_4 : NULL;
    case OP_NOP:
        return nop;
    case OP_CMOVCC:
        return bind_cmov(op, in, mode);
    case OP_SETCC:
        op->dst = bind_reg(&in->opnd[0]);
        return in->opnd[0].kind == OPND_GPR ? conditional_table[in->cc][0] : NULL;
    default:
        return NULL;
    }
}
