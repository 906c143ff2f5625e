/* SPDX-License-Identifier: Apache-2.0
 *
 * Handlers of shifts and rotates of registers, IMUL, and BT with registers. */
#include "engine/interp/interp.h"

#define SIZE_8 1
#define SIZE_16 2
#define SIZE_32 4
#define SIZE_64 8
#define TYPE_8 uint8_t
#define TYPE_16 uint16_t
#define TYPE_32 uint32_t
#define TYPE_64 uint64_t

/* _i_: by an immediate; _k_: the same where the host keeps OF. */
#define SHIFT(name, keep_name, bits)                                                               \
    static uint32_t name##_1_##bits(OP_ARGS)                                                       \
    {                                                                                              \
        op_set(cpu, op->dst, SIZE_##bits,                                                          \
               alu_##name##1_##bits((TYPE_##bits)op_get(cpu, op->dst, SIZE_##bits), &fl));         \
        OP_NEXT;                                                                                   \
    }                                                                                              \
    static uint32_t name##_i_##bits(OP_ARGS)                                                       \
    {                                                                                              \
        op_set(cpu, op->dst, SIZE_##bits,                                                          \
               alu_##name##_##bits((TYPE_##bits)op_get(cpu, op->dst, SIZE_##bits),                 \
                                   (uint8_t)op->imm, &fl));                                        \
        OP_NEXT;                                                                                   \
    }                                                                                              \
    static uint32_t name##_k_##bits(OP_ARGS)                                                       \
    {                                                                                              \
        op_set(cpu, op->dst, SIZE_##bits,                                                          \
               alu_##keep_name##_##bits((TYPE_##bits)op_get(cpu, op->dst, SIZE_##bits),            \
                                        (uint8_t)op->imm, &fl));                                   \
        OP_NEXT;                                                                                   \
    }                                                                                              \
    static uint32_t name##_cl_##bits(OP_ARGS)                                                      \
    {                                                                                              \
        op_set(cpu, op->dst, SIZE_##bits,                                                          \
               alu_##name##_##bits((TYPE_##bits)op_get(cpu, op->dst, SIZE_##bits),                 \
                                   (uint8_t)cpu->gpr[R_CX], &fl));                                 \
        OP_NEXT;                                                                                   \
    }
#define SHIFT_SIZES(name, keep_name)                                                               \
    SHIFT(name, keep_name, 8)                                                                      \
    SHIFT(name, keep_name, 16) SHIFT(name, keep_name, 32) SHIFT(name, keep_name, 64)
SHIFT_SIZES(rol, rol_imm)
SHIFT_SIZES(ror, ror_imm)
SHIFT_SIZES(shl, shl)
SHIFT_SIZES(shr, shr)
SHIFT_SIZES(sar, sar)

#define SHIFT_FORMS(name, bits)                                                                    \
    {                                                                                              \
        name##_1_##bits, name##_i_##bits, name##_k_##bits, name##_cl_##bits                        \
    }
#define SHIFT_ROW(name)                                                                            \
    {                                                                                              \
        SHIFT_FORMS(name, 8), SHIFT_FORMS(name, 16), SHIFT_FORMS(name, 32), SHIFT_FORMS(name, 64)  \
    }
static op_fn *const shift_table[5][4][4] = {
    SHIFT_ROW(rol), SHIFT_ROW(ror), SHIFT_ROW(shl), SHIFT_ROW(shr), SHIFT_ROW(sar),
};

static unsigned size_index(unsigned size)
{
    return size == 1 ? 0 : size == 2 ? 1 : size == 4 ? 2 : 3;
}

static op_fn *bind_shift_reg(struct op *op, const struct insn *in, unsigned which)
{
    if (in->opnd[0].kind != OPND_GPR) {
        return NULL;
    }
    unsigned form = in->opcode == 0xd0 || in->opcode == 0xd1 ? 0
                    : in->opnd[1].kind != OPND_IMM           ? 3
                    : alu_rotate_keeps_of()                  ? 2
                                                             : 1;
    op->dst = bind_reg(&in->opnd[0]);
    op->imm = (int32_t)in->imm;
    return shift_table[which][size_index(in->opnd[0].size)][form];
}

/* -- IMUL -------------------------------------------------------------------------------------- */
#define IMUL(bits)                                                                                 \
    static uint32_t imul_rr_##bits(OP_ARGS)                                                        \
    {                                                                                              \
        op_set(cpu, op->dst, SIZE_##bits,                                                          \
               alu_imul_##bits((TYPE_##bits)op_get(cpu, op->dst, SIZE_##bits),                     \
                               (TYPE_##bits)op_get(cpu, op->src, SIZE_##bits), &fl));              \
        OP_NEXT;                                                                                   \
    }                                                                                              \
    static uint32_t imul_rri_##bits(OP_ARGS)                                                       \
    {                                                                                              \
        op_set(cpu, op->dst, SIZE_##bits,                                                          \
               alu_imul_##bits((TYPE_##bits)(int64_t)op->imm,                                      \
                               (TYPE_##bits)op_get(cpu, op->src, SIZE_##bits), &fl));              \
        OP_NEXT;                                                                                   \
    }                                                                                              \
    static uint32_t imul_rm_##bits(OP_ARGS)                                                        \
    {                                                                                              \
        TYPE_##bits v = (TYPE_##bits)op_load(cpu, op, base, fl, EA_ANY, SIZE_##bits);              \
        op_set(cpu, op->dst, SIZE_##bits,                                                          \
               alu_imul_##bits((TYPE_##bits)op_get(cpu, op->dst, SIZE_##bits), v, &fl));           \
        OP_NEXT;                                                                                   \
    }
IMUL(32)
IMUL(64)

static op_fn *bind_imul(struct op *op, const struct insn *in, enum insn_mode mode)
{
    bool wide = in->opnd[0].size == 8;
    if (in->opnd[0].size < 4) {
        return NULL;
    }
    op->dst = bind_reg(&in->opnd[0]);
    op->imm = (int32_t)in->imm;
    if (in->opnd[1].kind == OPND_MEM) {
        if (in->nopnd == 3) {
            return NULL;
        }
        (void)bind_address(op, in, mode);
        return wide ? imul_rm_64 : imul_rm_32;
    }
    op->src = bind_reg(&in->opnd[1]);
    if (in->nopnd == 3) {
        return wide ? imul_rri_64 : imul_rri_32;
    }
    return wide ? imul_rr_64 : imul_rr_32;
}

/* -- BT of a register -------------------------------------------------------------------------- */
#define BT(bits)                                                                                   \
    static uint32_t bt_rr_##bits(OP_ARGS)                                                          \
    {                                                                                              \
        alu_bt_##bits((TYPE_##bits)op_get(cpu, op->dst, SIZE_##bits),                              \
                      (TYPE_##bits)op_get(cpu, op->src, SIZE_##bits), &fl);                        \
        OP_NEXT;                                                                                   \
    }                                                                                              \
    static uint32_t bt_ri_##bits(OP_ARGS)                                                          \
    {                                                                                              \
        alu_bt_##bits((TYPE_##bits)op_get(cpu, op->dst, SIZE_##bits), (TYPE_##bits)op->imm, &fl);  \
        OP_NEXT;                                                                                   \
    }
BT(32)
BT(64)

static op_fn *bind_bt(struct op *op, const struct insn *in)
{
    bool wide = in->opnd[0].size == 8;
    if (in->opnd[0].kind != OPND_GPR || in->opnd[0].size < 4) {
        return NULL;
    }
    op->dst = bind_reg(&in->opnd[0]);
    op->src = bind_reg(&in->opnd[1]);
    op->imm = (int32_t)in->imm;
    if (in->opnd[1].kind == OPND_GPR) {
        return wide ? bt_rr_64 : bt_rr_32;
    }
    return wide ? bt_ri_64 : bt_ri_32;
}

op_fn *bind_shift(struct op *op, const struct insn *in, enum insn_mode mode)
{
    switch (in->op) {
    case OP_ROL:
        return bind_shift_reg(op, in, 0);
    case OP_ROR:
        return bind_shift_reg(op, in, 1);
    case OP_SHL:
        return bind_shift_reg(op, in, 2);
    case OP_SHR:
        return bind_shift_reg(op, in, 3);
    case OP_SAR:
        return bind_shift_reg(op, in, 4);
    case OP_IMUL:
        return bind_imul(op, in, mode);
    case OP_BT:
        return bind_bt(op, in);
    default:
        return NULL;
    }
}
