/* SPDX-License-Identifier: Apache-2.0
 *
 * Handlers of near branches and of the stack: PUSH POP CALL RET LEAVE. The usual operand sizes of
 * 64-bit and 32-bit code; the rest is generic. Branches end the block. */
#include "engine/interp/interp.h"
#include "cpu/stack.h"

/* -- Branches ---------------------------------------------------------------------------------- */
OP_INLINE bool surely_64(const struct cpu *cpu, uint64_t base, uint64_t target)
{
    (void)cpu;
    return (target ^ base) >> 47 == 0; /* canonical as base is */
}

OP_INLINE bool surely_32(const struct cpu *cpu, uint64_t base, uint64_t target)
{
    (void)base;
    return target <= cpu->seg[SEG_CS].limit;
}

/* To a target that is not in the instruction. */
#define GO(bits, size)                                                                             \
    OP_INLINE uint32_t go_##bits(OP_ARGS, uint##bits##_t target)                                   \
    {                                                                                              \
        if (unlikely(!surely_##bits(cpu, base, target))) {                                         \
            op_call_target(cpu, op, base, fl, target);                                             \
        }                                                                                          \
        return chain_##bits(cpu, target, NULL, fl);                                                \
    }
#define MODES(D) D(64, 8) D(32, 4)
MODES(GO)

/* To the target of a direct branch. */
OP_INLINE uint32_t take_64(OP_ARGS)
{
    uint64_t target = base + (uint64_t)(int64_t)op->rel;
    if (unlikely(!surely_64(cpu, base, target))) {
        op_call_target(cpu, op, base, fl, target);
    }
    return chain_known(cpu, target, &op->taken, fl);
}

OP_INLINE uint32_t take_32(OP_ARGS)
{
    return go_32(cpu, op, base, fl, (uint32_t)(base + (uint64_t)(int64_t)op->rel));
}

#define JUMP(bits, size)                                                                           \
    static uint32_t jmp_##bits(OP_ARGS) { return take_##bits(cpu, op, base, fl); }                 \
    static uint32_t jmp_r_##bits(OP_ARGS)                                                          \
    {                                                                                              \
        return go_##bits(cpu, op, base, fl, (uint##bits##_t)op_get(cpu, op->src, size));           \
    }                                                                                              \
    static uint32_t jmp_m_##bits(OP_ARGS)                                                          \
    {                                                                                              \
        return go_##bits(cpu, op, base, fl,                                                        \
                         (uint##bits##_t)op_load(cpu, op, base, fl, EA_ANY, size));                \
    }
MODES(JUMP)

#define ALL_CC(D)                                                                                  \
    D(0) D(1) D(2) D(3) D(4) D(5) D(6) D(7) D(8) D(9) D(10) D(11) D(12) D(13) D(14) D(15)
#define JCC(cc)                                                                                    \
    static uint32_t jcc_64_##cc(OP_ARGS)                                                           \
    {                                                                                              \
        if (alu_cond(fl, cc)) {                                                                    \
            return take_64(cpu, op, base, fl);                                                     \
        }                                                                                          \
        return chain_known(cpu, base + op->next, &op->onward, fl);                                 \
    }                                                                                              \
    static uint32_t jcc_32_##cc(OP_ARGS)                                                           \
    {                                                                                              \
        if (alu_cond(fl, cc)) {                                                                    \
            return take_32(cpu, op, base, fl);                                                     \
        }                                                                                          \
        return chain_32(cpu, (uint32_t)(base + op->next), NULL, fl);                               \
    }
ALL_CC(JCC)
#define JCC_ROW(cc) { jcc_64_##cc, jcc_32_##cc },
static op_fn *const jcc_table[16][2] = { ALL_CC(JCC_ROW) };

/* -- Stack ----------------------------------------------------------------------------------------
 * In 64-bit mode flat and 64 bits wide; elsewhere SS and its B bit. */
OP_INLINE void push_64(OP_ARGS, uint64_t v)
{
    gva_t va = cpu->gpr[R_SP] - 8;
    const struct tlb_entry *e = access_entry(cpu, va);
    if (likely(((va + 7) & ACCESS_PAGE_MASK) == e->tag_write)) {
        access_store((void *)(uintptr_t)(va + e->addend), 8, v);
    } else {
        op_call_push(cpu, op, base, fl, va, 8, v);
    }
    cpu->gpr[R_SP] = va;
}

OP_INLINE void push_32(OP_ARGS, uint64_t v)
{
    uint64_t sp = cpu->gpr[R_SP] - 4;
    gva_t va = op_seg_linear(cpu, op, base, fl, SEG_SS, sp & stack_mask(cpu), 4, MMU_WRITE);
    const struct tlb_entry *e = access_entry(cpu, va);
    if (likely(((va + 3) & ACCESS_PAGE_MASK) == e->tag_write)) {
        access_store((void *)(uintptr_t)(va + e->addend), 4, v);
    } else {
        op_call_push(cpu, op, base, fl, va, 4, v);
    }
    stack_set(cpu, sp);
}

/* For instructions whose op->seg is SS. */
OP_INLINE uint64_t top_64(OP_ARGS) { return op_load_at(cpu, op, base, fl, cpu->gpr[R_SP], 8); }

OP_INLINE uint64_t top_32(OP_ARGS)
{
    uint64_t sp = cpu->gpr[R_SP] & stack_mask(cpu);
    gva_t va = op_seg_linear(cpu, op, base, fl, SEG_SS, sp, 4, MMU_READ);
    return op_load_at(cpu, op, base, fl, va, 4);
}

OP_INLINE void drop_64(struct cpu *cpu, unsigned bytes) { cpu->gpr[R_SP] += bytes; }
OP_INLINE void drop_32(struct cpu *cpu, unsigned bytes) { stack_set(cpu, cpu->gpr[R_SP] + bytes); }

#define STACK(bits, size)                                                                          \
    static uint32_t push_r_##bits(OP_ARGS)                                                         \
    {                                                                                              \
        push_##bits(cpu, op, base, fl, cpu->gpr[op->src]);                                         \
        OP_NEXT;                                                                                   \
    }                                                                                              \
    static uint32_t push_i_##bits(OP_ARGS)                                                         \
    {                                                                                              \
        push_##bits(cpu, op, base, fl, (uint64_t)(int64_t)op->imm);                                \
        OP_NEXT;                                                                                   \
    }                                                                                              \
    static uint32_t push_m_##bits(OP_ARGS)                                                         \
    {                                                                                              \
        push_##bits(cpu, op, base, fl, op_load(cpu, op, base, fl, EA_ANY, size));                  \
        OP_NEXT;                                                                                   \
    }                                                                                              \
    static uint32_t pop_r_##bits(OP_ARGS)                                                          \
    {                                                                                              \
        uint64_t v = top_##bits(cpu, op, base, fl);                                                \
        drop_##bits(cpu, size);                                                                    \
        op_set(cpu, op->dst, size, v);                                                             \
        OP_NEXT;                                                                                   \
    }                                                                                              \
    /* The return address is stored before the target is looked at. */                            \
    OP_INLINE void push_return_##bits(OP_ARGS, uint64_t target)                                    \
    {                                                                                              \
        uint64_t sp = cpu->gpr[R_SP];                                                              \
        push_##bits(cpu, op, base, fl, base + op->next);                                           \
        if (unlikely(!surely_##bits(cpu, base, target))) {                                         \
            uint64_t pushed = cpu->gpr[R_SP];                                                      \
            cpu->gpr[R_SP] = sp; /* should it fault */                                             \
            op_call_target(cpu, op, base, fl, target);                                             \
            cpu->gpr[R_SP] = pushed;                                                               \
        }                                                                                          \
    }                                                                                              \
    OP_INLINE uint32_t call_to_##bits(OP_ARGS, uint##bits##_t target)                              \
    {                                                                                              \
        push_return_##bits(cpu, op, base, fl, target);                                             \
        return chain_##bits(cpu, target, NULL, fl);                                                \
    }                                                                                              \
    static uint32_t call_r_##bits(OP_ARGS)                                                         \
    {                                                                                              \
        return call_to_##bits(cpu, op, base, fl, (uint##bits##_t)op_get(cpu, op->src, size));      \
    }                                                                                              \
    static uint32_t call_m_##bits(OP_ARGS)                                                         \
    {                                                                                              \
        return call_to_##bits(cpu, op, base, fl,                                                   \
                              (uint##bits##_t)op_load(cpu, op, base, fl, EA_ANY, size));           \
    }                                                                                              \
    static uint32_t ret_##bits(OP_ARGS)                                                            \
    {                                                                                              \
        uint64_t target = top_##bits(cpu, op, base, fl);                                           \
        if (unlikely(!surely_##bits(cpu, base, target))) {                                         \
            op_call_target(cpu, op, base, fl, target);                                             \
        }                                                                                          \
        drop_##bits(cpu, size + (unsigned)op->imm);                                                \
        return chain_##bits(cpu, target, NULL, fl);                                                \
    }
MODES(STACK)

static uint32_t call_64(OP_ARGS)
{
    uint64_t target = base + (uint64_t)(int64_t)op->rel;
    push_return_64(cpu, op, base, fl, target);
    return chain_known(cpu, target, &op->taken, fl);
}

static uint32_t call_32(OP_ARGS)
{
    return call_to_32(cpu, op, base, fl, (uint32_t)(base + (uint64_t)(int64_t)op->rel));
}

static uint32_t leave_64(OP_ARGS)
{
    uint64_t bp = cpu->gpr[R_BP];
    cpu->gpr[R_BP] = op_load_at(cpu, op, base, fl, bp, 8);
    cpu->gpr[R_SP] = bp + 8;
    OP_NEXT;
}

/* -- Choice ------------------------------------------------------------------------------------ */
static op_fn *by_operand(struct op *op, const struct insn *in, enum insn_mode mode, op_fn *reg,
                         op_fn *mem)
{
    if (in->opnd[0].kind == OPND_MEM) {
        (void)bind_address(op, in, mode);
        return mem;
    }
    op->src = bind_reg(&in->opnd[0]);
    return reg;
}

static op_fn *bind_push(struct op *op, const struct insn *in, enum insn_mode mode, bool wide)
{
    if (in->opnd[0].kind == OPND_IMM) {
        op->imm = (int32_t)in->imm;
        return wide ? push_i_64 : push_i_32;
    }
    return by_operand(op, in, mode, wide ? push_r_64 : push_r_32, wide ? push_m_64 : push_m_32);
}

static op_fn *bind_direct(struct op *op, const struct insn *in, bool wide)
{
    int64_t rel = in->imm + op->next;
    if (rel != (int32_t)rel) {
        return NULL;
    }
    op->rel = (int32_t)rel;
    op->taken = op->onward = (struct block *)(uintptr_t)&block_nowhere;
    return in->op == OP_JCC   ? jcc_table[in->cc][!wide]
           : in->op == OP_JMP ? (wide ? jmp_64 : jmp_32)
                              : (wide ? call_64 : call_32);
}

op_fn *bind_flow(struct op *op, const struct insn *in, enum insn_mode mode)
{
    bool wide = mode == INSN_MODE_64;
    if (in->opsize != (wide ? 8 : 4)) {
        return NULL;
    }
    if (in->op == OP_JMP || in->op == OP_JCC || in->op == OP_CALL) {
        return bind_direct(op, in, wide);
    }
    op->seg = SEG_SS;
    switch (in->op) {
    case OP_JMP_IND:
        return by_operand(op, in, mode, wide ? jmp_r_64 : jmp_r_32, wide ? jmp_m_64 : jmp_m_32);
    case OP_CALL_IND:
        return by_operand(op, in, mode, wide ? call_r_64 : call_r_32, wide ? call_m_64 : call_m_32);
    case OP_RET:
        op->imm = in->nopnd != 0 ? (uint16_t)in->imm : 0;
        return wide ? ret_64 : ret_32;
    case OP_PUSH: return bind_push(op, in, mode, wide);
    case OP_POP:
        op->dst = bind_reg(&in->opnd[0]);
        return in->opnd[0].kind != OPND_GPR ? NULL : wide ? pop_r_64 : pop_r_32;
    case OP_LEAVE: return wide ? leave_64 : NULL;
    default: return NULL;
    }
}
