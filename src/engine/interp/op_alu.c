/* SPDX-License-Identifier: Apache-2.0
 *
 * Handlers of ADD OR ADC SBB AND SUB XOR CMP TEST in every operand form, INC DEC NEG NOT of
 * registers and memory. One function per operation, size, form and way of addressing. */
#include "engine/interp/interp.h"

#define SIZE_8 1
#define SIZE_16 2
#define SIZE_32 4
#define SIZE_64 8
#define TYPE_8 uint8_t
#define TYPE_16 uint16_t
#define TYPE_32 uint32_t
#define TYPE_64 uint64_t

/* -- Operations that write their destination --------------------------------------------------- */
#define WRITER_REG(name, bits)                                                                     \
    static uint32_t name##_rr_##bits(OP_ARGS)                                                      \
    {                                                                                              \
        op_set(cpu, op->dst, SIZE_##bits,                                                          \
               alu_##name##_##bits((TYPE_##bits)op_get(cpu, op->dst, SIZE_##bits),                 \
                                   (TYPE_##bits)op_get(cpu, op->src, SIZE_##bits), &fl));          \
        OP_NEXT;                                                                                   \
    }                                                                                              \
    static uint32_t name##_ri_##bits(OP_ARGS)                                                      \
    {                                                                                              \
        op_set(cpu, op->dst, SIZE_##bits,                                                          \
               alu_##name##_##bits((TYPE_##bits)op_get(cpu, op->dst, SIZE_##bits),                 \
                                   (TYPE_##bits)(int64_t)op->imm, &fl));                           \
        OP_NEXT;                                                                                   \
    }

#define WRITER_MEM(name, bits, kind)                                                               \
    static uint32_t name##_rm_##bits##_##kind(OP_ARGS)                                             \
    {                                                                                              \
        TYPE_##bits v = (TYPE_##bits)op_load(cpu, op, base, fl, kind, SIZE_##bits);                \
        op_set(cpu, op->dst, SIZE_##bits,                                                          \
               alu_##name##_##bits((TYPE_##bits)op_get(cpu, op->dst, SIZE_##bits), v, &fl));       \
        OP_NEXT;                                                                                   \
    }                                                                                              \
    OP_INLINE uint32_t name##_to_mem_##bits##_##kind(OP_ARGS, TYPE_##bits b)                       \
    {                                                                                              \
        gva_t va = op_linear(cpu, op, base, fl, kind, SIZE_##bits, MMU_WRITE);                     \
        void *p = op_rmw_at(cpu, op, base, fl, va, SIZE_##bits);                                   \
        if (likely(p != NULL)) {                                                                   \
            access_store(p, SIZE_##bits,                                                           \
                         alu_##name##_##bits((TYPE_##bits)access_load(p, SIZE_##bits), b, &fl));   \
        } else {                                                                                   \
            uint32_t old = fl;                                                                     \
            TYPE_##bits v = (TYPE_##bits)op_call_read(cpu, op, base, fl, va, SIZE_##bits);         \
            v = alu_##name##_##bits(v, b, &fl);                                                    \
            op_call_write(cpu, op, base, old, va, SIZE_##bits, v);                                 \
        }                                                                                          \
        OP_NEXT;                                                                                   \
    }                                                                                              \
    static uint32_t name##_mr_##bits##_##kind(OP_ARGS)                                             \
    {                                                                                              \
        return name##_to_mem_##bits##_##kind(cpu, op, base, fl,                                    \
                                             (TYPE_##bits)op_get(cpu, op->src, SIZE_##bits));      \
    }                                                                                              \
    static uint32_t name##_mi_##bits##_##kind(OP_ARGS)                                             \
    {                                                                                              \
        return name##_to_mem_##bits##_##kind(cpu, op, base, fl, (TYPE_##bits)(int64_t)op->imm);    \
    }

/* -- CMP and TEST ------------------------------------------------------------------------------ */
#define READER_REG(name, bits)                                                                     \
    static uint32_t name##_rr_##bits(OP_ARGS)                                                      \
    {                                                                                              \
        alu_##name##_##bits((TYPE_##bits)op_get(cpu, op->dst, SIZE_##bits),                        \
                            (TYPE_##bits)op_get(cpu, op->src, SIZE_##bits), &fl);                  \
        OP_NEXT;                                                                                   \
    }                                                                                              \
    static uint32_t name##_ri_##bits(OP_ARGS)                                                      \
    {                                                                                              \
        alu_##name##_##bits((TYPE_##bits)op_get(cpu, op->dst, SIZE_##bits),                        \
                            (TYPE_##bits)(int64_t)op->imm, &fl);                                   \
        OP_NEXT;                                                                                   \
    }

#define READER_MEM(name, bits, kind)                                                               \
    static uint32_t name##_rm_##bits##_##kind(OP_ARGS)                                             \
    {                                                                                              \
        TYPE_##bits v = (TYPE_##bits)op_load(cpu, op, base, fl, kind, SIZE_##bits);                \
        alu_##name##_##bits((TYPE_##bits)op_get(cpu, op->dst, SIZE_##bits), v, &fl);               \
        OP_NEXT;                                                                                   \
    }                                                                                              \
    static uint32_t name##_mr_##bits##_##kind(OP_ARGS)                                             \
    {                                                                                              \
        TYPE_##bits v = (TYPE_##bits)op_load(cpu, op, base, fl, kind, SIZE_##bits);                \
        alu_##name##_##bits(v, (TYPE_##bits)op_get(cpu, op->src, SIZE_##bits), &fl);               \
        OP_NEXT;                                                                                   \
    }                                                                                              \
    static uint32_t name##_mi_##bits##_##kind(OP_ARGS)                                             \
    {                                                                                              \
        TYPE_##bits v = (TYPE_##bits)op_load(cpu, op, base, fl, kind, SIZE_##bits);                \
        alu_##name##_##bits(v, (TYPE_##bits)(int64_t)op->imm, &fl);                                \
        OP_NEXT;                                                                                   \
    }

/* -- INC DEC NEG NOT --------------------------------------------------------------------------- */
#define UNARY_REG(name, bits)                                                                      \
    static uint32_t name##_rr_##bits(OP_ARGS)                                                      \
    {                                                                                              \
        op_set(cpu, op->dst, SIZE_##bits,                                                          \
               alu_##name##_##bits((TYPE_##bits)op_get(cpu, op->dst, SIZE_##bits), &fl));          \
        OP_NEXT;                                                                                   \
    }

#define ALL_KINDS(D, name, bits)                                                                   \
    D(name, bits, EA_BASE) D(name, bits, EA_BASE_INDEX) D(name, bits, EA_RIP) D(name, bits, EA_ANY)
#define ALL_SIZES(R, M, name)                                                                      \
    R(name, 8)                                                                                     \
    R(name, 16) R(name, 32) R(name, 64) ALL_KINDS(M, name, 8) ALL_KINDS(M, name, 16)               \
        ALL_KINDS(M, name, 32) ALL_KINDS(M, name, 64)

ALL_SIZES(WRITER_REG, WRITER_MEM, add)
ALL_SIZES(WRITER_REG, WRITER_MEM, or)
ALL_SIZES(WRITER_REG, WRITER_MEM, adc)
ALL_SIZES(WRITER_REG, WRITER_MEM, sbb)
ALL_SIZES(WRITER_REG, WRITER_MEM, and)
ALL_SIZES(WRITER_REG, WRITER_MEM, sub)
ALL_SIZES(WRITER_REG, WRITER_MEM, xor)
ALL_SIZES(READER_REG, READER_MEM, cmp)
ALL_SIZES(READER_REG, READER_MEM, test)
#define UNARY_SIZES(name)                                                                          \
    UNARY_REG(name, 8) UNARY_REG(name, 16) UNARY_REG(name, 32) UNARY_REG(name, 64)
UNARY_SIZES(inc)
UNARY_SIZES(dec)
UNARY_SIZES(neg)
UNARY_SIZES(not )

/* -- Tables ------------------------------------------------------------------------------------ */
enum form {
    FORM_RR,
    FORM_RI,
    FORM_RM,
    FORM_MR = FORM_RM + EA_KINDS,
    FORM_MI = FORM_MR + EA_KINDS,
    FORMS = FORM_MI + EA_KINDS
};

#define KIND_ROW(name, form, bits)                                                                 \
    name##_##form##_##bits##_EA_BASE, name##_##form##_##bits##_EA_BASE_INDEX,                      \
        name##_##form##_##bits##_EA_RIP, name##_##form##_##bits##_EA_ANY
#define SIZE_ROW(name, bits)                                                                       \
    {                                                                                              \
        name##_rr_##bits, name##_ri_##bits, KIND_ROW(name, rm, bits), KIND_ROW(name, mr, bits),    \
            KIND_ROW(name, mi, bits)                                                               \
    }
#define OP_ROW(name)                                                                               \
    {                                                                                              \
        SIZE_ROW(name, 8), SIZE_ROW(name, 16), SIZE_ROW(name, 32), SIZE_ROW(name, 64)              \
    }
#define UNARY_ROW(name)                                                                            \
    {                                                                                              \
        { name##_rr_8 }, { name##_rr_16 }, { name##_rr_32 }, { name##_rr_64 }                      \
    }

static op_fn *const table[][4][FORMS] = {
    OP_ROW(add),    OP_ROW(or),     OP_ROW(adc),     OP_ROW(sbb),  OP_ROW(and),
    OP_ROW(sub),    OP_ROW(xor),    OP_ROW(cmp),     OP_ROW(test), UNARY_ROW(inc),
    UNARY_ROW(dec), UNARY_ROW(neg), UNARY_ROW(not ),
};

static int operation(unsigned op)
{
    switch (op) {
    case OP_ADD:
        return 0;
    case OP_OR:
        return 1;
    case OP_ADC:
        return 2;
    case OP_SBB:
        return 3;
    case OP_AND:
        return 4;
    case OP_SUB:
        return 5;
    case OP_XOR:
        return 6;
    case OP_CMP:
        return 7;
    case OP_TEST:
        return 8;
    case OP_INC:
        return 9;
    case OP_DEC:
        return 10;
    case OP_NEG:
        return 11;
    case OP_NOT:
        return 12;
    default:
        return -1;
    }
}

op_fn *bind_alu(struct op *op, const struct insn *in, enum insn_mode mode)
{
    int which = operation(in->op);
    if (which < 0 || (in->flags & INSN_LOCK)) {
        return NULL;
    }
    unsigned size = in->opnd[0].size;
    op_fn *const *row = table[which][size == 1 ? 0 : size == 2 ? 1 : size == 4 ? 2 : 3];
    op->imm = (int32_t)in->imm;
    if (in->opnd[0].kind == OPND_MEM) {
        if (in->nopnd == 1) {
            return NULL;
        }
        enum ea_kind kind = bind_address(op, in, mode);
        op->src = bind_reg(&in->opnd[1]);
        return row[(in->opnd[1].kind == OPND_GPR ? FORM_MR : FORM_MI) + kind];
    }
    op->dst = bind_reg(&in->opnd[0]);
    if (in->nopnd == 1) {
        return row[FORM_RR];
    }
    if (in->opnd[1].kind == OPND_MEM) {
        return row[FORM_RM + bind_address(op, in, mode)];
    }
    op->src = bind_reg(&in->opnd[1]);
    return row[in->opnd[1].kind == OPND_GPR ? FORM_RR : FORM_RI];
}
