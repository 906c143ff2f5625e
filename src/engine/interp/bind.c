/* SPDX-License-Identifier: Apache-2.0
 *
 * Choosing an instruction's handler, and the generic handlers that call the semantic helpers. */
#include "cpu/except.h"
#include "cpu/hostexec.h"
#include "engine/interp/interp.h"

/* -- Generic handlers -------------------------------------------------------------------------- */
OP_INLINE void enter_helper(OP_ARGS)
{
    cpu->rflags = alu_merge(cpu->rflags, fl);
    cpu->insn_ip = base + op->ip;
    cpu->rip = base + op->next;
    cpu->insn = op->in;
}

OP_INLINE void after_helper(struct cpu *cpu)
{
    if (unlikely(block_must_leave(cpu))) {
        block_leave(cpu->engine);
    }
}

static uint32_t generic(OP_ARGS)
{
    enter_helper(cpu, op, base, fl);
    op->sem(cpu, op->in);
    fl = alu_pack(cpu->rflags);
    after_helper(cpu);
    OP_NEXT;
}

static uint32_t host(OP_ARGS)
{
    enter_helper(cpu, op, base, fl);
    hostexec_run(cpu, op->in, op->bound);
    fl = alu_pack(cpu->rflags);
    after_helper(cpu);
    OP_NEXT;
}

/* The instruction ends its block: rip is where the helper wants to go on. */
static uint32_t generic_last(OP_ARGS)
{
    enter_helper(cpu, op, base, fl);
    if (cpu->mode != INSN_MODE_64) {
        cpu->rip = (uint32_t)cpu->rip;
    }
    op->sem(cpu, op->in);
    return alu_pack(cpu->rflags);
}

static uint32_t privileged_last(OP_ARGS)
{
    enter_helper(cpu, op, base, fl);
    if (cpu->cpl != 0) {
        if (op->in->op == OP_CLAC || op->in->op == OP_STAC) {
            cpu_raise(cpu, EXC_UD); /* these alone (SDM 2) */
        }
        cpu_raise_error(cpu, EXC_GP, 0);
    }
    op->sem(cpu, op->in);
    return alu_pack(cpu->rflags);
}

/* A repeated string instruction that stopped half-way has not retired. */
static uint32_t repeated(OP_ARGS)
{
    fl = generic_last(cpu, op, base, fl);
    if (cpu->rip == cpu->insn_ip) {
        cpu->icount--;
    }
    return fl;
}

/* An x87 instruction waiting for FERR# to be dealt with repeats itself: the block must end. */
static uint32_t host_waiting(OP_ARGS)
{
    enter_helper(cpu, op, base, fl);
    hostexec_run(cpu, op->in, op->bound);
    fl = alu_pack(cpu->rflags);
    if (unlikely(cpu->rip == cpu->insn_ip)) {
        return op_leave(cpu, op, base, fl);
    }
    after_helper(cpu);
    OP_NEXT;
}

/* -- Ends of blocks ---------------------------------------------------------------------------- */
static uint32_t end_64(OP_ARGS) { return chain_known(cpu, base + op->next, &op->onward, fl); }

static uint32_t end_32(OP_ARGS)
{
    return chain_32(cpu, (uint32_t)(base + op->next), NULL, fl);
}

void bind_block_end(struct op *op, enum insn_mode mode)
{
    op->fn = mode == INSN_MODE_64 ? end_64 : end_32;
    op->onward = (struct block *)(uintptr_t)&block_nowhere;
}

/* In place of every handler of a block that is to be left: op has not been executed. */
uint32_t op_leave(OP_ARGS)
{
    const struct interp_cpu *ic = cpu->engine;
    cpu->rip = base + op->ip;
    cpu->icount -= ic->running->count - (uint64_t)(op - ic->running->op);
    return fl;
}

/* -- Operands ---------------------------------------------------------------------------------- */
uint8_t bind_reg(const struct opnd *o)
{
    if (o->size != 1) {
        return o->reg;
    }
    return (uint8_t)(o->reg >= 16 ? (o->reg - 16) * 8 + 1 : o->reg * 8);
}

enum ea_kind bind_address(struct op *op, const struct insn *in, enum insn_mode mode)
{
    const struct insn_mem *m = &in->mem;
    op->disp = m->disp;
    op->areg = m->base;
    op->xreg = m->index;
    op->scale = m->scale;
    op->seg = m->seg;
    op->adsize = in->adsize;
    if (m->base == INSN_REG_RIP) {
        op->disp += op->next; /* counted from the block's first byte */
    }
    if (mode != INSN_MODE_64 || in->adsize != 8 || (m->seg >= SEG_FS && in->op != OP_LEA)) {
        return EA_ANY;
    }
    if (m->base == INSN_REG_RIP) {
        return EA_RIP;
    }
    if (m->base == INSN_NO_REG) {
        return EA_ANY;
    }
    return m->index == INSN_NO_REG ? EA_BASE : EA_BASE_INDEX;
}

/* -- Choice ------------------------------------------------------------------------------------ */
static op_fn *bind_fast(struct op *op, const struct insn *in, enum insn_mode mode)
{
    static op_fn *(*const binders[])(struct op *, const struct insn *, enum insn_mode) = {
        bind_move, bind_alu, bind_flow, bind_shift,
    };
    for (unsigned i = 0; i < ARRAY_LEN(binders); i++) {
        op_fn *fn = binders[i](op, in, mode);
        if (fn != NULL) {
            return fn;
        }
    }
    return NULL;
}

static op_fn *bind_host(struct cpu *cpu, struct op *op)
{
    const struct hostexec_op *bound = hostexec_bind(cpu, op->in);
    if (bound == NULL) {
        op->sem = sem_host;
        return generic;
    }
    if (bound->direct != NULL) {
        op->sem = bound->direct;
        return generic;
    }
    op->bound = bound;
    return insn_info[op->in->row].attr & (IA_X87 | IA_MMX) ? host_waiting : host;
}

static bool is_repeated(const struct insn *in)
{
    return (insn_info[in->row].attr & IA_STRING) && (in->flags & (INSN_REP | INSN_REPNE));
}

bool insn_ends_block(const struct insn *in)
{
    const struct insn_info *info = &insn_info[in->row];
    return info->branch != BR_NONE || (info->attr & (IA_ENDS_BLOCK | IA_PRIV)) || is_repeated(in);
}

void bind_op(struct cpu *cpu, struct op *op, const struct insn *in, struct insn **keep,
             enum insn_mode mode)
{
    uint32_t attr = insn_info[in->row].attr;
    op->fn = bind_fast(op, in, mode);
    if (op->fn != NULL) {
        return;
    }
    **keep = *in;
    op->in = (*keep)++;
    op->sem = sem_table[in->op];
    if (attr & IA_HOST) {
        op->fn = bind_host(cpu, op);
    } else if (attr & IA_PRIV) {
        op->fn = privileged_last;
    } else {
        op->fn = is_repeated(in) ? repeated : insn_ends_block(in) ? generic_last : generic;
    }
}
