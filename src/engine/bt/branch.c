/* SPDX-License-Identifier: Apache-2.0
 *
 * Control flow and the stack. A jump to a known address is linked by patching it (link.c); an
 * indirect one looks into the vCPU's jump cache.
 */
#include "engine/bt/translate.h"

uint32_t bt_exit_new(struct translation *t, uint64_t target)
{
    struct bt_cache *c = &t->bt->cache;
    uint32_t n = c->exit_count++;
    bool same_page = target >> GMEM_PAGE_BITS == t->pc >> GMEM_PAGE_BITS && !t->block->split;
    c->exits[n] = (struct bt_exit){ .target = target,
                                    .block = bt_number(c, t->block),
                                    .same_page = same_page };
    return n;
}

/* Linking works where an offset in CS is a linear address. */
static bool linkable(const struct translation *t) { return t->mode64 || (t->mode & BT_MODE_FLAT); }

static uint64_t wrap_ip(const struct translation *t, uint64_t ip)
{
    return t->mode64 ? ip : (uint32_t)ip;
}

static void set_patch(struct translation *t, uint32_t exit, uint8_t *rel32)
{
    struct bt_cache *c = &t->bt->cache;
    c->exits[exit].patch = (uint32_t)(rel32 - c->write);
}

/* Pad so that the rel32 behind `prefix` opcode bytes lies in one aligned 8-byte word. */
static void align_rel32(struct emit *e, unsigned prefix)
{
    static const uint8_t nops[4][4] = {
        { 0x90 }, { 0x66, 0x90 }, { 0x0f, 0x1f, 0x00 }, { 0x0f, 0x1f, 0x40, 0x00 }
    };
    unsigned at = ((uintptr_t)e->p + prefix) & 7;
    if (at > 4)
        emit_bytes(e, nops[8 - at - 1], 8 - at);
}

static void cold_exit(struct translation *t, uint8_t *from, uint32_t exit)
{
    bt_cold_new(t, COLD_EXIT, from)->exit = exit;
}

/* Leave for a known address; flags that are live there are in memory. */
void bt_emit_exit(struct translation *t, uint64_t target)
{
    struct emit *e = &t->e;
    target = wrap_ip(t, target);
    uint32_t exit = bt_exit_new(t, target);
    if (linkable(t))
        align_rel32(e, 1);
    uint8_t *rel = emit_jmp_fwd(e);
    if (linkable(t))
        set_patch(t, exit, rel);
    cold_exit(t, rel, exit);
}

/* T1 holds the target: jump cache, else C, which wants to know whose target it is. Flags are in
 * memory. */
void bt_emit_indirect(struct translation *t, uint32_t site)
{
    struct emit *e = &t->e;
    emit_call(e, t->bt->stubs.lookup);
    emit_rr(e, 0xff, false, 4, T0); /* jmp r14: three bytes, */
    emit4(e, site);                 /* then what the stub looks for when there is no such code */
}

/* -- Stack ------------------------------------------------------------------------------------- */

static unsigned slot_size(const struct translation *t) { return t->mode64 ? 8 : 4; }

static bool plain_stack(const struct translation *t)
{
    return t->mode64 || ((t->mode & BT_MODE_FLAT) && (t->mode & BT_MODE_STACK32));
}

static struct ea stack_ea(const struct translation *t, int32_t disp)
{
    return (struct ea){
        .base = R_SP, .index = INSN_NO_REG, .disp = disp, .narrow = !t->mode64, .simple = t->mode64
    };
}

static void add_sp(struct translation *t, int32_t n)
{
    emit_lea(&t->e, t->mode64, H_13, (struct host_mem){ H_13, H_NONE, 0, n });
    bt_group_moved(t, R_SP, n);
}

static void check_push(struct translation *t, struct ea *ea, uint32_t site)
{
    *ea = stack_ea(t, -(int32_t)slot_size(t));
    bt_mem_check(t, ea, slot_size(t), MMU_WRITE, false, site);
}

/* A constant onto the stack. */
static void push_constant(struct translation *t, uint64_t v, uint32_t site)
{
    struct emit *e = &t->e;
    struct ea ea;
    check_push(t, &ea, site);
    bool fits = !t->mode64 || (int64_t)v == (int32_t)v;
    struct host_mem m = bt_mem_operand(t, &ea, !fits);
    if (fits) {
        emit_rm(e, 0xc7, t->mode64, 0, m);
        emit4(e, (uint32_t)v);
    } else {
        emit_mov_imm(e, T1, v);
        emit_rm(e, 0x89, true, T1, m);
    }
    add_sp(t, -(int32_t)slot_size(t));
}

static void push_return_address(struct translation *t, uint32_t site)
{
    uint64_t va = wrap_ip(t, t->ip[t->i + 1]);
    struct ea ea;
    if (!t->sliding) {
        push_constant(t, va, site);
        return;
    }
    check_push(t, &ea, site);
    struct host_mem m = bt_mem_operand(t, &ea, true);
    emit_slid(&t->e, true, T1, (int32_t)va);
    emit_rm(&t->e, 0x89, true, T1, m);
    add_sp(t, -8);
}

/* bt_hot.tmp2 onto the stack; the site's instruction is complete then. */
void bt_emit_push_tmp2(struct translation *t, uint32_t site)
{
    struct emit *e = &t->e;
    struct ea ea;
    check_push(t, &ea, site);
    struct host_mem m = bt_mem_operand(t, &ea, true);
    emit_rg(e, 0x8b, true, T1, HOT_OFF(tmp2));
    emit_rm(e, 0x89, t->mode64, T1, m);
    add_sp(t, -(int32_t)slot_size(t));
    bt_site_end(t, site);
}

static bool push_insn(struct translation *t, const struct insn *in)
{
    struct emit *e = &t->e;
    const struct opnd *o = &in->opnd[0];
    uint32_t site = bt_site_new(t);
    struct ea ea;
    if (o->kind == OPND_IMM) {
        push_constant(t, (uint64_t)in->imm, site);
    } else if (o->kind == OPND_GPR) {
        check_push(t, &ea, site);
        unsigned h = host_of(o->reg);
        struct host_mem m = bt_mem_operand(t, &ea, h == H_NONE);
        if (h == H_NONE) {
            emit_rg(e, 0x8b, true, T1, gpr_off(o->reg));
            h = T1;
        }
        emit_rm(e, 0x89, t->mode64, h, m);
        add_sp(t, -(int32_t)slot_size(t));
        t->keeps_t0 = true;
    } else {
        struct ea src;
        if (!bt_ea_of(t, in, &src) || !bt_mem_check(t, &src, slot_size(t), MMU_READ, false, site))
            return false;
        emit_rm(e, 0x8b, t->mode64, T1, bt_mem_operand(t, &src, false));
        emit_rg(e, 0x89, true, T1, HOT_OFF(tmp2));
        bt_emit_push_tmp2(t, site);
    }
    bt_site_end(t, site);
    return true;
}

/* The top of the stack into T1. */
static void read_top(struct translation *t, uint32_t site)
{
    struct ea ea = stack_ea(t, 0);
    bt_mem_check(t, &ea, slot_size(t), MMU_READ, false, site);
    emit_rm(&t->e, 0x8b, t->mode64, T1, bt_mem_operand(t, &ea, false));
}

static bool pop_insn(struct translation *t, const struct insn *in)
{
    struct emit *e = &t->e;
    if (in->opnd[0].kind != OPND_GPR)
        return false;
    unsigned guest = in->opnd[0].reg;
    uint32_t site = bt_site_new(t);
    struct ea ea = stack_ea(t, 0);
    bt_mem_check(t, &ea, slot_size(t), MMU_READ, false, site);
    unsigned h = host_of(guest);
    emit_rm(e, 0x8b, t->mode64, h == H_NONE ? T1 : h, bt_mem_operand(t, &ea, false));
    if (h == H_NONE)
        emit_rg(e, 0x89, true, T1, gpr_off(guest));
    if (guest != R_SP)
        add_sp(t, (int32_t)slot_size(t));
    t->keeps_t0 = true;
    bt_site_end(t, site);
    return true;
}

static bool leave_insn(struct translation *t)
{
    struct emit *e = &t->e;
    uint32_t site = bt_site_new(t);
    struct ea ea = {
        .base = R_BP, .index = INSN_NO_REG, .narrow = !t->mode64, .simple = t->mode64
    };
    bt_mem_check(t, &ea, slot_size(t), MMU_READ, false, site);
    emit_rm(e, 0x8b, t->mode64, T1, bt_mem_operand(t, &ea, false));
    emit_lea(e, t->mode64, H_13, (struct host_mem){ H_BP, H_NONE, 0, (int32_t)slot_size(t) });
    emit_mov_rr(e, t->mode64, H_BP, T1);
    bt_site_end(t, site);
    return true;
}

bool bt_emit_stack(struct translation *t)
{
    const struct insn *in = &t->insn[t->i];
    if (!plain_stack(t) || in->opsize != slot_size(t))
        return false;
    switch (in->op) {
    case OP_PUSH:
        return push_insn(t, in);
    case OP_POP:
        return pop_insn(t, in);
    case OP_LEAVE:
        return leave_insn(t);
    default:
        return false;
    }
}

/* -- Branches ---------------------------------------------------------------------------------- */

/* Before the jump of a call: its return address, and an exit to there, into the return cache. */
static void remember_return(struct translation *t)
{
    struct emit *e = &t->e;
    uint64_t va = wrap_ip(t, t->ip[t->i + 1]);
    unsigned index = (unsigned)va & (BT_RETURN_SIZE - 1);
    if (!linkable(t))
        return;
    if (t->sliding) {
        emit_slid(e, true, T0, (int32_t)va);
        emit_rg(e, 0x89, true, T0, RETURN_OFF(index, va));
    } else if ((int64_t)va == (int32_t)va) {
        emit_rm(e, 0xc7, true, 0, cpu_mem(RETURN_OFF(index, va)));
        emit4(e, (uint32_t)va);
    } else {
        emit_mov_imm(e, T0, va);
        emit_rg(e, 0x89, true, T0, RETURN_OFF(index, va));
    }
    emit_rex(e, true, T0, 0, 0); /* lea T0, [rip -> the exit, off the path] */
    emit1(e, 0x8d);
    emit1(e, (uint8_t)(0x05 | (T0 & 7) << 3));
    emit4(e, 0);
    bt_cold_new(t, COLD_RETURN, e->p - 4)->exit = bt_exit_new(t, va);
    emit_rg(e, 0x89, true, T0, RETURN_OFF(index, code));
}

/* An exit that is not on the straight path. Flags are in memory. */
void bt_emit_cold_exit(struct translation *t, uint32_t exit)
{
    struct emit *e = &t->e;
    align_rel32(e, 1);
    emit1(e, 0xe9);
    emit4(e, 0);
    set_patch(t, exit, e->p - 4);
    emit_bind(e, e->p - 4);
    emit_mov_imm(e, T0, exit);
    emit_jmp(e, t->bt->stubs.leave);
}

static void call_direct(struct translation *t, uint64_t target)
{
    bt_flags_release(t);
    push_return_address(t, bt_site_new(t));
    remember_return(t);
    bt_emit_exit(t, target);
}

/* Target of an indirect branch into T1. */
static bool load_target(struct translation *t, const struct insn *in, uint32_t site)
{
    struct emit *e = &t->e;
    const struct opnd *o = &in->opnd[0];
    if (o->kind == OPND_GPR) {
        unsigned h = host_of(o->reg);
        if (h == H_NONE)
            emit_rg(e, 0x8b, true, T1, gpr_off(o->reg));
        else
            emit_mov_rr(e, t->mode64, T1, h);
        return true;
    }
    struct ea ea;
    if (!bt_ea_of(t, in, &ea) || !bt_mem_check(t, &ea, slot_size(t), MMU_READ, false, site))
        return false;
    emit_rm(e, 0x8b, t->mode64, T1, bt_mem_operand(t, &ea, false));
    return true;
}

static bool jump_indirect(struct translation *t, const struct insn *in)
{
    uint32_t site = bt_site_new(t);
    bt_flags_release(t);
    if (!load_target(t, in, site))
        return false;
    bt_emit_indirect(t, site);
    return true;
}

static bool call_indirect(struct translation *t, const struct insn *in)
{
    struct emit *e = &t->e;
    uint32_t site = bt_site_new(t);
    bt_flags_release(t);
    if (!load_target(t, in, site))
        return false;
    emit_rg(e, 0x89, true, T1, HOT_OFF(tmp2));
    push_return_address(t, site);
    remember_return(t);
    emit_rg(e, 0x8b, true, T1, HOT_OFF(tmp2));
    bt_emit_indirect(t, site);
    return true;
}

static void return_near(struct translation *t, const struct insn *in)
{
    uint32_t site = bt_site_new(t);
    bt_flags_release(t);
    read_top(t, site);
    add_sp(t, (int32_t)(slot_size(t) + (in->nopnd ? (uint16_t)in->imm : 0)));
    if (linkable(t)) {
        struct emit *e = &t->e;
        struct host_mem entry = { H_SP, T0, 0, RETURN_OFF(0, va) };
        emit_mov_rr(e, false, T0, T1);
        emit_rr(e, 0xc1, false, 4, T0); /* shl T0d, 4 */
        emit1(e, 4);
        emit_ri(e, 4, false, T0, (BT_RETURN_SIZE - 1) * (int32_t)sizeof(struct bt_return));
        emit_rm(e, 0x3b, true, T1, entry);
        uint8_t *unknown = emit_jcc_fwd(e, CC_NE);
        entry.disp = RETURN_OFF(0, code);
        emit_rm(e, 0xff, false, 4, entry); /* jmp [entry.code] */
        emit_bind(e, unknown);
    }
    bt_emit_indirect(t, site);
}
_Static_assert(sizeof(struct bt_return) == 16, "index shift");

/* Save what the target needs; the host's flags stay as they are for the branch itself. */
static void save_for_target(struct translation *t)
{
    if (t->flags == FLAGS_HOST && t->live_taken[t->i])
        bt_flags_save(t);
}

static void jcc(struct translation *t, const struct insn *in, uint64_t target)
{
    struct emit *e = &t->e;
    bt_flags_load(t);
    save_for_target(t);
    uint32_t exit = bt_exit_new(t, wrap_ip(t, target));
    t->keeps_t0 = true;
    if (linkable(t))
        align_rel32(e, 2);
    uint8_t *rel = emit_jcc_fwd(e, in->cc);
    if (linkable(t))
        set_patch(t, exit, rel);
    cold_exit(t, rel, exit);
}

/* LOOP and JCXZ: no flags involved. */
static bool count_branch(struct translation *t, const struct insn *in, uint64_t target)
{
    struct emit *e = &t->e;
    if (in->adsize == 2 || in->op == OP_LOOPE || in->op == OP_LOOPNE)
        return false;
    save_for_target(t);
    if (in->op == OP_LOOP)
        emit_lea(e, in->adsize == 8, H_CX, (struct host_mem){ H_CX, H_NONE, 0, -1 });
    if (in->adsize == 4)
        emit1(e, 0x67);
    emit1(e, 0xe3); /* jrcxz */
    emit1(e, 5);
    uint8_t *nonzero = emit_jmp_fwd(e);
    if (in->op == OP_LOOP) {
        uint8_t *zero = emit_jmp_fwd(e); /* rcx is 0: fall through */
        emit_bind(e, nonzero);
        bt_emit_exit(t, target);
        emit_bind(e, zero);
    } else {
        bt_emit_exit(t, target);
        emit_bind(e, nonzero);
    }
    return true;
}

bool bt_emit_branch(struct translation *t)
{
    const struct insn *in = &t->insn[t->i];
    uint64_t target = t->ip[t->i + 1] + (uint64_t)in->imm;
    bool narrow = in->opsize == 2; /* IP is truncated to 16 bits */
    if (narrow || (t->mode & BT_MODE_WIDTH) == INSN_MODE_16)
        return false;
    switch (insn_info[in->row].branch) {
    case BR_JMP:
        bt_flags_release(t);
        bt_emit_exit(t, target);
        return true;
    case BR_JCC:
        if (in->op != OP_JCC)
            return count_branch(t, in, target);
        jcc(t, in, target);
        return true;
    case BR_CALL:
        if (!plain_stack(t))
            return false;
        call_direct(t, target);
        return true;
    case BR_RET:
        if (!plain_stack(t))
            return false;
        return_near(t, in);
        return true;
    case BR_JMP_IND:
        return plain_stack(t) && jump_indirect(t, in);
    case BR_CALL_IND:
        return plain_stack(t) && call_indirect(t, in);
    default:
        return false;
    }
}
