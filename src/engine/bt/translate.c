/* SPDX-License-Identifier: Apache-2.0
 *
 * One block: decode guest instructions up to a branch that must be taken, a change of mode or the
 * end of the page (a conditional branch is left when taken and passed when not), find out which
 * flags live where, emit, then emit what is off the straight path.
 *
 * A block begins with the poll of cpu->events, whose five bytes are also what is overwritten when
 * the block dies.
 */
#include "engine/bt/translate.h"

#include <stdlib.h>

#include "cpu/except.h"
#include "cpu/stop.h"

struct cold *bt_cold_new(struct translation *t, enum cold_kind kind, uint8_t *from)
{
    assert(t->cold_count < BT_COLD_MAX);
    struct cold *c = &t->cold[t->cold_count++];
    *c = (struct cold){ .kind = kind, .from = from };
    return c;
}

/* The whole instruction by its semantic helper. */
uint32_t bt_emit_helper(struct translation *t)
{
    struct emit *e = &t->e;
    bt_flags_release(t);
    bt_groups_end(t);
    uint32_t site = bt_site_new(t);
    emit_mov_imm(e, T0, site);
    emit_call(e, t->bt->stubs.helper);
    bt_site_end(t, site);
    return site;
}

/* -- Decoding ---------------------------------------------------------------------------------- */

static bool ends(uint32_t mode, const struct insn *in)
{
    const struct insn_info *info = &insn_info[in->row];
    return in->op == OP_INVALID || (info->branch != BR_NONE && info->branch != BR_JCC) ||
           bt_ends_block(mode, in);
}

static void decode(struct translation *t, const struct bt_code_at *at)
{
    const uint8_t *p = at->split ? t->bytes : t->page + (at->pc & (GMEM_PAGE_SIZE - 1));
    size_t avail = at->split ? at->split_count : GMEM_PAGE_SIZE - (at->pc & (GMEM_PAGE_SIZE - 1));
    unsigned limit = at->split ? 1 : BT_BLOCK_INSNS;
    size_t pos = 0;
    t->ip[0] = t->pc;
    while (t->count < limit) {
        struct insn *in = &t->insn[t->count];
        enum insn_status s = insn_decode(in, p + pos, avail - pos, at->mode & BT_MODE_WIDTH,
                                         &t->cpu->features);
        if (s == INSN_NEED_MORE && t->count > 0)
            break;
        if (s != INSN_OK)
            bt_make_invalid(in, s == INSN_TOO_LONG);
        pos += in->len;
        t->ip[++t->count] = t->pc + pos;
        if (ends(at->mode, in) || pos >= avail ||
            (t->cpu->stops != NULL && cpu_break_in(t->cpu->stops, t->ip[t->count], 1)))
            break;
    }
}

/* -- Emission ---------------------------------------------------------------------------------- */

/* May memory and stack operands of this block be emitted natively at all? */
static bool native_mode(const struct translation *t)
{
    return t->mode64 || ((t->mode & BT_MODE_FLAT) && (t->mode & BT_MODE_WIDTH) == INSN_MODE_32);
}

static void emit_one(struct translation *t)
{
    const struct insn *in = &t->insn[t->i];
    const struct insn_info *info = &insn_info[in->row];
    if (info->branch != BR_NONE)
        bt_count_up_to(t, t->i + 1);
    if (in->op != OP_INVALID && native_mode(t)) {
        if (info->branch != BR_NONE
                ? bt_emit_branch(t)
                : bt_emit_stack(t) || bt_emit_system(t) || bt_emit_string(t) || bt_emit_x87(t) ||
                      bt_emit_native(t))
            return;
    }
    bt_emit_helper(t);
}

/* From a look-up: T1 is rip. Returns where it begins. */
static const uint8_t *emit_landing(struct translation *t)
{
    struct emit *e = &t->e;
    while ((uintptr_t)(e->p + 12) & 7)
        emit1(e, 0xcc);
    const uint8_t *landing = emit_here(e);
    emit_lea(e, true, T1, (struct host_mem){ T1, H_NONE, 0, -(int32_t)t->pc });
    emit_rg(e, 0x89, true, T1, HOT_OFF(slide));
    return landing;
}

static void emit_entry(struct translation *t)
{
    struct emit *e = &t->e;
    const struct bt_cache *c = &t->bt->cache;
    const uint8_t *landing = t->sliding ? emit_landing(t) : NULL;
    while ((uintptr_t)e->p & 7)
        emit1(e, 0xcc);
    t->block->code = (uint32_t)(e->p - c->write);
    if (landing != NULL)
        t->block->landing = (uint8_t)(emit_here(e) - landing);
    emit_xg(e, 0x83, 7, CPU_OFF(events)); /* cmp dword [events], 0 */
    emit1(e, 0);
    uint32_t exit = bt_exit_new(t, t->pc - t->block->cs_base);
    c->exits[exit].entry = true;
    bt_cold_new(t, COLD_EXIT, emit_jcc_fwd(e, CC_NE))->exit = exit; /* cold[0]: see kill_block */
    bt_count_limit(t, exit);
}

static void emit_cold(struct translation *t)
{
    struct emit *e = &t->e;
    struct bt *bt = t->bt;
    t->block->cold = (uint32_t)(e->p - bt->cache.write);
    for (unsigned i = 0; i < t->cold_count; i++) {
        struct cold *c = &t->cold[i];
        emit_bind(e, c->from);
        switch (c->kind) {
        case COLD_EXIT:
            emit_mov_imm(e, T0, c->exit);
            emit_jmp(e, bt->stubs.leave);
            break;
        case COLD_RETURN: /* T1 is where to */
            if (t->sliding) {
                int32_t at = (int32_t)bt->cache.exits[c->exit].target;
                emit_lea(e, true, T1, (struct host_mem){ T1, H_NONE, 0, -at });
                emit_rg(e, 0x89, true, T1, HOT_OFF(slide));
            }
            bt_emit_cold_exit(t, c->exit);
            break;
        case COLD_GROUP:
            bt_ea_emit(t, &c->ea, T1);
            emit_mov_imm(e, T0, c->site);
            emit_call(e, c->ea.base == R_SP ? bt->stubs.group_stack : bt->stubs.group);
            emit_jmp(e, c->back);
            bt_count_add(t, c->uncounted);
            bt_emit_cold_exit(t, c->exit);
            break;
        case COLD_FP_LOAD:
            emit_call(e, bt->stubs.fp_load);
            emit_jmp(e, c->back);
            break;
        case COLD_FILL:
        case COLD_STACK:
            bt_ea_emit(t, &c->ea, T1);
            emit_mov_imm(e, T0, c->site);
            emit_call(e, c->kind == COLD_STACK ? bt->stubs.stack : bt->stubs.fill);
            emit_jmp(e, c->back);
            break;
        case COLD_HELPER:
            emit_mov_imm(e, T0, c->site);
            emit_call(e, bt->stubs.helper);
            t->flags = FLAGS_MEM;
            bt_flags_load(t);
            emit_jmp(e, bt->cache.exec + bt_site_at(&bt->cache, c->site)->resume);
            break;
        }
    }
}

struct bt_block *bt_translate(struct bt *bt, struct cpu *cpu, const struct bt_code_at *at)
{
    struct bt_cache *c = &bt->cache;
    struct translation tr;
    struct translation *t = &tr;
    /* The arrays are filled as far as count says. */
    memset(t, 0, offsetof(struct translation, insn));
    t->flags = FLAGS_MEM;
    t->fp_known = false;
    t->cold_count = 0;
    t->next_group = 0;
    t->in_t0 = NULL;
    bt_groups_end(t);
    t->page = NULL;
    t->bt = bt;
    t->cpu = cpu;
    t->mode = at->mode;
    t->mode64 = (at->mode & BT_MODE_WIDTH) == INSN_MODE_64;
    t->sliding = (at->mode & BT_MODE_SLIDING) != 0;
    t->counts = bt->config.virtual_time;
    t->pc = t->sliding ? at->pc - at->slide : at->pc;
    if (at->split) {
        memcpy(t->bytes, at->split_bytes, at->split_count);
    } else { /* other vCPUs may write it meanwhile: check and use one version of it */
        memcpy(t->bytes, at->bytes - (at->pc & (GMEM_PAGE_SIZE - 1)), GMEM_PAGE_SIZE);
        t->page = t->bytes;
    }
    t->e = (struct emit){ c->write + c->used, c->write + c->size, c->exec - c->write };
    struct bt_block *b = &c->blocks[c->block_count++];
    *b = (struct bt_block){ .pc = t->pc,
                            .gpa_page = (uint32_t)(at->gpa >> GMEM_PAGE_BITS),
                            .page = bt_page_of(c, at->bytes),
                            .mode = at->mode,
                            .cs_base = t->mode64 ? 0 : (uint32_t)cpu->seg[SEG_CS].base };
    if (at->split) {
        b->split = true;
        b->gpa_page2 = (uint32_t)(at->gpa2 >> GMEM_PAGE_BITS);
        b->page2 = bt_page_of(c, at->bytes2);
    }
    t->block = b;
    decode(t, at);
    b->size = (uint16_t)(t->ip[t->count] - t->pc);
    b->seen_first = (uint16_t)(at->pc & (GMEM_PAGE_SIZE - 1));
    b->seen_end = (uint16_t)(b->seen_first + b->size);
    bt_flags_analyse(t);
    bt_groups_prepare(t);
    emit_entry(t);
    for (t->i = 0; t->i < t->count; t->i++) {
        uint32_t site = c->site_used;
        t->keeps_t0 = false;
        emit_one(t);
        if (!t->keeps_t0)
            t->in_t0 = NULL;
        bt_groups_after(t, site);
    }
    const struct insn *last = &t->insn[t->count - 1];
    if (last->op != OP_INVALID) {
        enum insn_branch br = insn_info[last->row].branch;
        if (br == BR_NONE || br == BR_JCC) {
            bt_flags_release(t);
            bt_count_up_to(t, t->count);
            bt_emit_exit(t, t->ip[t->count] - b->cs_base);
        }
    }
    c->used = (size_t)(t->e.p - c->write);
    t->e.p = c->write + c->cold_used;
    emit_cold(t);
    c->cold_used = (size_t)(t->e.p - c->write);
    assert(c->used <= c->cold_first && c->cold_used <= c->size);
    bt->stats.blocks++;
    bt->stats.sliding_blocks += t->sliding;
    bt->stats.insns += t->count;
    bt_cache_add(bt, b);
    if (unlikely(bt->dump != NULL))
        bt_dump_block(bt, b, t->insn, t->count);
    if (unlikely(bt->perf_map != NULL))
        bt_perf_map_block(bt, b);
    return b;
}
