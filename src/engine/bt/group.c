/* SPDX-License-Identifier: Apache-2.0
 *
 * One check for several accesses. Code that touches [rbx+8], then [rbx+16] and [rbx+40], is in one
 * page nearly always; so are the pushes of a function's entry. The first such access of a block
 * checks the span of all that follow, as far as the base register changes only by constants; the
 * others use the addend of that check. When the span is not in one page, or the page is not plain
 * memory, the block goes on in a variant of itself that starts at this instruction and checks
 * every access alone (BT_MODE_SINGLE).
 *
 * An addend stays good to the end of the block, because mappings change only between blocks and in
 * helpers: instructions done by their helper end all groups, and an access that had to be done by
 * its helper leaves the block when groups are open (bt_site.leaves).
 */
#include "engine/bt/translate.h"

#define SPAN_MAX 512
#define FAR_DISP (1 << 30)
#define NO_OPERAND 0xffu

struct span {
    int32_t lo, hi; /* from the base register's value at the first access */
    unsigned members;
    bool write;
};

/* -- What an instruction does to a register ---------------------------------------------------- */

/* Adds a constant to all of it, and does nothing else to it. */
static bool moves_by(const struct insn *in, unsigned reg, int32_t *n)
{
    const struct opnd *d = &in->opnd[0];
    if (in->nopnd == 0 || d->kind != OPND_GPR || d->reg != reg || d->size != 8)
        return false;
    if (in->op == OP_LEA) {
        const struct insn_mem *m = &in->mem;
        *n = (int32_t)m->disp;
        return m->base == reg && m->index == INSN_NO_REG && in->adsize == 8;
    }
    if ((in->op != OP_ADD && in->op != OP_SUB) || in->opnd[1].kind != OPND_IMM ||
        in->imm != (int32_t)in->imm || in->imm < -FAR_DISP || in->imm > FAR_DISP)
        return false;
    *n = in->op == OP_ADD ? (int32_t)in->imm : -(int32_t)in->imm;
    return true;
}

/* Registers that are written without being an operand of the row: for all but these ops, operands
 * tell. PUSH, POP, CALL, RET move RSP in ways that are followed elsewhere. */
static bool writes_unnamed(const struct insn *in)
{
    switch (in->op) {
    case OP_MUL:
    case OP_IMUL1:
    case OP_DIV:
    case OP_IDIV:
    case OP_CWD:
    case OP_CBW:
    case OP_CMPXCHG:
    case OP_LEAVE:
    case OP_LAHF:
    case OP_MOVS:
    case OP_STOS:
    case OP_LODS:
    case OP_PCMPESTRI:
    case OP_PCMPISTRI:
    case OP_VPCMPESTRI:
    case OP_VPCMPISTRI:
        return true;
    default: /* LOOP counts in RCX */
        return insn_info[in->row].branch == BR_JCC && in->op != OP_JCC;
    }
}

/* Bit n: general register n may be written. */
static uint16_t registers_written(const struct insn *in)
{
    uint16_t mask = 0;
    if (writes_unnamed(in))
        return 0xffff;
    for (unsigned k = 0; k < in->nopnd; k++) {
        const struct opnd *o = &in->opnd[k];
        unsigned r = o->size == 1 && o->reg >= 16 ? o->reg - 16u : o->reg;
        if (o->kind == OPND_GPR && (o->access & OPND_W))
            mask |= (uint16_t)(1u << r);
    }
    return mask;
}

/* The operand that may be one of a group. */
static uint8_t operand_of(const struct insn *in)
{
    const struct insn_mem *m = &in->mem;
    for (unsigned k = 0; k < in->nopnd; k++) {
        const struct opnd *o = &in->opnd[k];
        if (o->kind == OPND_MEM && m->base < 16 && m->index == INSN_NO_REG && m->seg < SEG_FS &&
            in->adsize == 8 && o->access != 0 && o->size != 0 && o->size <= 64 &&
            !bt_masked(in) && !(insn_info[in->row].attr & (IA_ALIGN | IA_STRING)))
            return (uint8_t)k;
    }
    return NO_OPERAND;
}

void bt_groups_prepare(struct translation *t)
{
    for (unsigned i = 0; i < t->count; i++) {
        t->writes[i] = registers_written(&t->insn[i]);
        t->group_opnd[i] = operand_of(&t->insn[i]);
    }
}

/* -- The span of a group ----------------------------------------------------------------------- */

static void include(struct span *s, int64_t at, unsigned size, bool write)
{
    int64_t lo = at < s->lo ? at : s->lo;
    int64_t hi = at + size > s->hi ? at + size : s->hi;
    if (hi - lo > SPAN_MAX)
        return;
    s->lo = (int32_t)lo;
    s->hi = (int32_t)hi;
    s->members++;
    s->write |= write;
}

static void look_ahead(const struct translation *t, unsigned base, struct span *s)
{
    int64_t moved = 0;
    for (unsigned i = t->i; i < t->count; i++) {
        const struct insn *in = &t->insn[i];
        uint8_t k = t->group_opnd[i];
        if (i != t->i && k != NO_OPERAND && in->mem.base == base)
            include(s, moved + in->mem.disp, in->opnd[k].size, (in->opnd[k].access & OPND_W) != 0);
        bool writes = (t->writes[i] >> base & 1) != 0;
        if (base != R_SP && !writes)
            continue;
        enum insn_branch br = insn_info[in->row].branch;
        int32_t n;
        if (base == R_SP && (in->op == OP_PUSH || br == BR_CALL || br == BR_CALL_IND)) {
            moved -= 8;
            if (i != t->i)
                include(s, moved, 8, true);
        } else if (base == R_SP && (in->op == OP_POP || br == BR_RET)) {
            if (i != t->i)
                include(s, moved, 8, false);
            moved += 8;
        } else if (writes && moves_by(in, base, &n)) {
            moved += n;
            continue;
        }
        if (writes || moved < -FAR_DISP || moved > FAR_DISP)
            return;
    }
}

/* -- Emission ---------------------------------------------------------------------------------- */

static int32_t addend_off(const struct translation *t, const struct group *g)
{
    return g->base == R_SP ? HOT_OFF(stack_addend) : HOT_OFF(group) + (int32_t)((g - t->group) * 8);
}

static struct group *group_of(struct translation *t, unsigned base)
{
    for (unsigned k = 0; k <= BT_GROUPS; k++) {
        if (t->group[k].open && t->group[k].base == base)
            return &t->group[k];
    }
    return NULL;
}

/* The stack's has a place of its own, because its addend has. */
static struct group *free_group(struct translation *t, unsigned base)
{
    if (base == R_SP)
        return &t->group[BT_GROUPS];
    for (unsigned k = 0; k < BT_GROUPS; k++) {
        if (!t->group[k].open)
            return &t->group[k];
    }
    return &t->group[t->next_group++ % BT_GROUPS];
}

static struct cold *group_cold(struct translation *t, uint8_t *from, const struct ea *ea,
                               uint32_t what)
{
    struct cold *c = bt_cold_new(t, COLD_GROUP, from);
    c->ea = *ea;
    c->site = what;
    c->exit = bt_exit_new(t, t->ip[t->i] - t->block->cs_base);
    c->uncounted = bt_uncounted(t, t->i);
    t->bt->cache.exits[c->exit].single = true;
    return c;
}

/* Distance from the page's start: the span ends in the page when it is small enough, and another
 * page makes a large number of it. */
static void check_stack_span(struct translation *t, const struct ea *ea, unsigned len)
{
    struct emit *e = &t->e;
    emit_lea(e, true, T1, (struct host_mem){ H_13, H_NONE, 0, ea->disp });
    emit_rg(e, 0x33, true, T1, HOT_OFF(stack_page));
    emit_ri(e, 7, true, T1, (int32_t)(GMEM_PAGE_SIZE - len));
    struct cold *c = group_cold(t, emit_jcc_fwd(e, CC_A), ea, len);
    emit_rg(e, 0x8b, true, T0, HOT_OFF(stack_addend));
    c->back = emit_here(e);
}

static void check_span(struct translation *t, const struct ea *ea, unsigned len, bool write)
{
    struct emit *e = &t->e;
    struct host_mem addend = { T0, H_NONE, 0, (int32_t)offsetof(struct tlb_entry, addend) };
    uint8_t *miss = bt_tlb_compare(t, ea, len, write ? MMU_WRITE : MMU_READ, /*aligned*/ false);
    struct cold *c = group_cold(t, miss, ea, len | (write ? BT_SITE_WRITE : 0));
    emit_rm(e, 0x8b, true, T0, addend);
    c->back = emit_here(e);
}

static bool begin(struct translation *t, const struct ea *ea, unsigned size, bool write)
{
    struct span s = { .lo = ea->disp, .hi = ea->disp + (int32_t)size, .write = write };
    look_ahead(t, ea->base, &s);
    if (s.members == 0)
        return false;
    struct group *g = free_group(t, ea->base);
    struct ea whole = *ea;
    unsigned len = (unsigned)(s.hi - s.lo);
    whole.disp = s.lo;
    if (t->in_t0 == g)
        t->in_t0 = NULL;
    *g = (struct group){ .open = true, .base = ea->base, .write = s.write, .lo = s.lo, .hi = s.hi };
    bt_flags_release(t);
    if (ea->base == R_SP) {
        check_stack_span(t, &whole, len);
    } else {
        check_span(t, &whole, len, s.write);
        emit_rg(&t->e, 0x89, true, T0, addend_off(t, g));
    }
    t->in_t0 = g;
    return true;
}

/* T0 is anything else from here on. */
static bool alone(struct translation *t)
{
    t->in_t0 = NULL;
    return false;
}

/* T0 becomes the addend of this access without a check of its own, or with one for others too. */
bool bt_group_check(struct translation *t, const struct ea *ea, unsigned size, bool write)
{
    if ((t->mode & BT_MODE_SINGLE) || ea->constant || ea->narrow || ea->seg_base != 0 ||
        ea->base >= 16 || ea->index != INSN_NO_REG || ea->disp < -FAR_DISP || ea->disp > FAR_DISP)
        return alone(t);
    struct group *g = group_of(t, ea->base);
    if (g == NULL)
        return begin(t, ea, size, write) || alone(t);
    if (ea->disp >= g->lo && ea->disp + (int32_t)size <= g->hi && (g->write || !write)) {
        if (t->in_t0 != g)
            emit_rg(&t->e, 0x8b, true, T0, addend_off(t, g));
        t->in_t0 = g;
        return true;
    }
    if (g->base == R_SP)
        g->open = false; /* its check may make another page the stack's */
    return alone(t);
}

/* RSP was moved by the instruction being emitted. */
void bt_group_moved(struct translation *t, unsigned base, int32_t n)
{
    struct group *g = group_of(t, base);
    if (g != NULL) {
        g->lo -= n;
        g->hi -= n;
    }
}

void bt_groups_end(struct translation *t)
{
    for (unsigned k = 0; k <= BT_GROUPS; k++)
        t->group[k].open = false;
    t->in_t0 = NULL;
}

void bt_groups_after(struct translation *t, uint32_t first_site)
{
    const struct insn *in = &t->insn[t->i];
    struct bt_cache *c = &t->bt->cache;
    bool some = false;
    for (unsigned k = 0; k <= BT_GROUPS; k++) {
        struct group *g = &t->group[k];
        int32_t n;
        if (!g->open)
            continue;
        if (t->writes[t->i] >> g->base & 1) {
            g->open = moves_by(in, g->base, &n);
            if (g->open)
                bt_group_moved(t, g->base, n);
        }
        if (t->in_t0 == g && !g->open)
            t->in_t0 = NULL;
        if (g->lo < -FAR_DISP || g->hi > FAR_DISP)
            g->open = false;
        some |= g->open;
    }
    for (uint32_t n = first_site; some && n < c->site_used; n += bt_site_words(bt_site_at(c, n)))
        bt_site_at(c, n)->leaves = true;
}
