/* SPDX-License-Identifier: Apache-2.0
 *
 * Arithmetic flags: which are needed where, and moving them between the host's RFLAGS and
 * bt_hot.flags. A flag that is overwritten before it is read is dead; the TLB check may destroy it.
 */
#include "engine/bt/translate.h"

#define ARITH ((uint32_t)FLAGS_ARITH)
#define LOOKAHEAD 12u

static bool observes_all(uint32_t mode, const struct insn_info *info, const struct insn *in)
{
    if (bt_system_op(mode, in))
        return false;
    return info->branch == BR_FAR || (info->attr & IA_ENDS_BLOCK) || in->op == OP_INVALID;
}

/* Flags after which their former values do not matter. Undefined ones of AND, SHL and their like
 * are made anew by processors; those of BT, IMUL and others may be what they were, and are taken
 * so. */
static uint32_t killed(const struct insn *in)
{
    uint32_t written = insn_flags_written(in);
    switch (in->op) {
    case OP_AND:
    case OP_OR:
    case OP_XOR:
    case OP_TEST:
        return written;
    case OP_SHL:
    case OP_SHR:
    case OP_SAR: /* by a constant: insn_flags_read has those that a count of 0 keeps */
        return written;
    default:
        return written & ~insn_info[in->row].flags_undefined;
    }
}

static uint32_t live_before(uint32_t mode, const struct insn *in, uint32_t live)
{
    const struct insn_info *info = &insn_info[in->row];
    if (observes_all(mode, info, in))
        return ARITH;
    return ((live & ~killed(in)) | insn_flags_read(in)) & ARITH;
}

/* A change of these bytes changes what we concluded: the block must go with them. */
static void saw(struct translation *t, unsigned first, unsigned end)
{
    struct bt_block *b = t->block;
    b->seen_first = first < b->seen_first ? (uint16_t)first : b->seen_first;
    b->seen_end = end > b->seen_end ? (uint16_t)end : b->seen_end;
}

/* Which flags does the code at target need? Only bytes of our own page are looked at: a change
 * there drops this block too. Unknown means all. */
uint32_t bt_flags_live_at(struct translation *t, uint64_t target)
{
    uint32_t needed = 0;
    uint32_t open = ARITH;
    if (t->page == NULL || target >> GMEM_PAGE_BITS != t->pc >> GMEM_PAGE_BITS)
        return ARITH;
    unsigned off = target & (GMEM_PAGE_SIZE - 1);
    for (unsigned n = 0; n < LOOKAHEAD; n++) {
        struct insn in;
        if (insn_decode(&in, t->page + off, GMEM_PAGE_SIZE - off, t->mode & BT_MODE_WIDTH,
                        &t->cpu->features) != INSN_OK)
            return needed | open;
        saw(t, off, off + in.len);
        const struct insn_info *info = &insn_info[in.row];
        if (observes_all(t->mode, info, &in))
            return needed | open;
        needed |= insn_flags_read(&in) & open;
        open &= ~killed(&in);
        if (open == 0)
            return needed;
        off += in.len;
        if (info->branch == BR_JMP && in.opsize != 2) {
            uint64_t to = (target & ~(uint64_t)(GMEM_PAGE_SIZE - 1)) + off + (uint64_t)in.imm;
            if (to >> GMEM_PAGE_BITS != t->pc >> GMEM_PAGE_BITS)
                return needed | open;
            off = to & (GMEM_PAGE_SIZE - 1);
        } else if (info->branch != BR_NONE) {
            return needed | open;
        }
        if (off >= GMEM_PAGE_SIZE)
            return needed | open;
    }
    return needed | open;
}

void bt_flags_analyse(struct translation *t)
{
    unsigned n = t->count;
    const struct insn *last = &t->insn[n - 1];
    const struct insn_info *info = &insn_info[last->row];
    uint32_t live = ARITH;
    bool narrow = last->opsize == 2; /* IP is truncated to 16 bits: the helper finds the target */
    if (narrow && info->branch != BR_NONE)
        live = ARITH;
    else if (info->branch == BR_JMP || info->branch == BR_CALL)
        live = bt_flags_live_at(t, t->ip[n] + (uint64_t)last->imm);
    else if (info->branch == BR_NONE || info->branch == BR_JCC)
        live = bt_flags_live_at(t, t->ip[n]);
    t->live[n] = live;
    for (unsigned i = n; i-- > 0;) {
        const struct insn *in = &t->insn[i];
        if (insn_info[in->row].branch == BR_JCC) {
            t->live_taken[i] = in->opsize == 2
                                   ? ARITH
                                   : bt_flags_live_at(t, t->ip[i + 1] + (uint64_t)in->imm);
            live |= t->live_taken[i];
        }
        live = live_before(t->mode, in, live);
        t->live[i] = live;
    }
    if (t->counts) { /* whoever compares sees dead flags, too, in the frames of interrupts */
        for (unsigned i = 0; i <= n; i++)
            t->live[i] = ARITH;
        for (unsigned i = 0; i < n; i++)
            t->live_taken[i] = ARITH;
    }
}

static void rax_to_tmp(struct emit *e) { emit_rg(e, 0x89, true, H_AX, HOT_OFF(tmp)); }
static void rax_from_tmp(struct emit *e) { emit_rg(e, 0x8b, true, H_AX, HOT_OFF(tmp)); }

/* T1 is free wherever flags are saved: it happens before addresses are made. */
void bt_flags_save(struct translation *t)
{
    struct emit *e = &t->e;
    if (t->flags != FLAGS_HOST)
        return;
    emit_mov_rr(e, true, T1, H_AX);
    emit1(e, 0x9f); /* lahf */
    emit1(e, 0x0f); /* seto al */
    emit1(e, 0x90);
    emit1(e, 0xc0);
    emit1(e, 0x66); /* mov [flags], ax */
    emit_rg(e, 0x89, false, H_AX, HOT_OFF(flags));
    emit_mov_rr(e, true, H_AX, T1);
    t->flags = FLAGS_BOTH;
}

void bt_flags_load(struct translation *t)
{
    struct emit *e = &t->e;
    if (t->flags != FLAGS_MEM)
        return;
    rax_to_tmp(e);
    emit1(e, 0x0f); /* movzx eax, word [flags] */
    emit_xg(e, 0xb7, H_AX, HOT_OFF(flags));
    emit1(e, 0x04); /* add al, 0x7f */
    emit1(e, 0x7f);
    emit1(e, 0x9e); /* sahf */
    rax_from_tmp(e);
    t->flags = FLAGS_BOTH;
}

void bt_flags_release(struct translation *t)
{
    if (t->flags == FLAGS_HOST && t->live[t->i] != 0)
        bt_flags_save(t);
    t->flags = FLAGS_MEM;
}

void bt_flags_written(struct translation *t) { t->flags = FLAGS_HOST; }
