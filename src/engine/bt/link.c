/* SPDX-License-Identifier: Apache-2.0
 *
 * Chaining: making an exit of one block go straight to another block.
 */
#include "engine/bt/bt.h"
#include "engine/bt/reg.h"

static void patch_jump(struct bt_cache *c, const struct bt_exit *x, const uint8_t *code)
{
    uint64_t *at = bt_code_word(c, x->patch);
    unsigned shift = (x->patch & 7) * 8;
    uint64_t rel = (uint32_t)(int32_t)(code - (c->exec + x->patch + 4));
    uint64_t word = __atomic_load_n(at, __ATOMIC_RELAXED);
    word &= ~(0xffffffffull << shift);
    word |= rel << shift;
    __atomic_store_n(at, word, __ATOMIC_SEQ_CST);
}

/* The first instruction of a block has five bytes and is eight-aligned: replace it by a jump in one
 * store, which leaves the next instruction alone: a vCPU may be about to execute that. */
void bt_patch_entry(struct bt *bt, struct bt_block *b, const uint8_t *to)
{
    uint64_t *at = bt_code_word(&bt->cache, b->code);
    uint8_t patch[8];
    int32_t rel = (int32_t)(to - (bt->cache.exec + b->code + 5));
    uint64_t word = __atomic_load_n(at, __ATOMIC_RELAXED);
    memcpy(patch, &word, 8);
    patch[0] = 0xe9;
    memcpy(patch + 1, &rel, 4);
    memcpy(&word, patch, 8);
    __atomic_store_n(at, word, __ATOMIC_SEQ_CST);
}

/* Code of its own that looks the address up: for blocks that depend on the mapping of two pages,
 * which only the jump cache knows, and for checked entries that do not fit. pc is less the slide
 * when sliding. */
static void emit_go(struct bt *bt, struct emit *e, uint64_t pc, bool sliding)
{
    if (sliding)
        emit_slid(e, true, T1, (int32_t)pc);
    else
        emit_mov_imm(e, T1, pc);
    emit_jmp(e, bt->stubs.go);
}

static const uint8_t *make_go(struct bt *bt, uint64_t pc, bool sliding)
{
    struct bt_cache *c = &bt->cache;
    struct emit e = { c->write + c->cold_used, c->write + c->size, c->exec - c->write };
    const uint8_t *code = emit_here(&e);
    emit_go(bt, &e, pc, sliding);
    c->cold_used = (size_t)(e.p - c->write);
    return code;
}

/* The end of a checked entry: on to the block, or, where the jumps in `other` go, a look-up. */
static const uint8_t *end_checked(struct bt *bt, struct bt_block *b, struct emit e,
                                  const uint8_t *entry, uint8_t *const other[2])
{
    struct bt_cache *c = &bt->cache;
    emit_jmp(&e, c->exec + b->code);
    c->used = (size_t)(e.p - c->write);
    e.p = c->write + c->cold_used;
    emit_bind(&e, other[0]);
    emit_bind(&e, other[1]);
    emit_go(bt, &e, b->pc, (b->mode & BT_MODE_SLIDING) != 0);
    c->cold_used = (size_t)(e.p - c->write);
    b->checked = (uint32_t)(entry - c->exec);
    return entry;
}

/* A jump from another guest page is taken only while the exec TLB maps the block's page to where it
 * is from, so links need no undoing when mappings change. The check belongs to the target: exits to
 * it are plain jumps. NULL: the page is not in the TLB. */
static const uint8_t *checked_entry(struct bt *bt, struct cpu *cpu, struct bt_block *b)
{
    struct bt_cache *c = &bt->cache;
    uint64_t page = b->pc & ~0xfffull;
    unsigned index = (unsigned)(b->pc >> GMEM_PAGE_BITS) & (CPU_TLB_SIZE - 1);
    const struct tlb_entry *entry = &cpu->tlb[index];
    if (b->checked != 0)
        return c->exec + b->checked;
    if (entry->tag_exec != page)
        return NULL;
    struct emit e = { c->write + c->used, c->write + c->cold_first, c->exec - c->write };
    struct host_mem tag = { T0, H_NONE, 0, (int32_t)(index * sizeof *entry) };
    struct host_mem addend = tag;
    tag.disp += (int32_t)offsetof(struct tlb_entry, tag_exec);
    addend.disp += (int32_t)offsetof(struct tlb_entry, addend);
    const uint8_t *code = emit_here(&e);
    uint8_t *other[2];
    emit_rg(&e, 0x8b, true, T0, CPU_OFF(tlb));
    emit_mov_imm(&e, T1, page);
    emit_rm(&e, 0x3b, true, T1, tag);
    other[0] = emit_jcc_fwd(&e, CC_NE);
    emit_mov_imm(&e, T1, entry->addend - (uintptr_t)c->ram);
    emit_rg(&e, 0x03, true, T1, HOT_OFF(ram));
    emit_rm(&e, 0x3b, true, T1, addend);
    other[1] = emit_jcc_fwd(&e, CC_NE);
    return end_checked(bt, b, e, code, other);
}

/* The same for a sliding block, which finds out where its page is mapped now. */
static const uint8_t *checked_entry_slid(struct bt *bt, struct bt_block *b)
{
    struct bt_cache *c = &bt->cache;
    struct host_mem tag = { T0, H_NONE, 0, (int32_t)offsetof(struct tlb_entry, tag_exec) };
    struct host_mem addend = { T0, H_NONE, 0, (int32_t)offsetof(struct tlb_entry, addend) };
    int32_t page = (int32_t)(b->pc & ~0xfffull);
    if (b->checked != 0)
        return c->exec + b->checked;
    struct emit e = { c->write + c->used, c->write + c->cold_first, c->exec - c->write };
    const uint8_t *code = emit_here(&e);
    uint8_t *other[2];
    emit_slid(&e, true, T1, page);
    emit_tlb_entry(&e, bt->host_bmi2);
    emit_rm(&e, 0x3b, true, T1, tag);
    other[0] = emit_jcc_fwd(&e, CC_NE);
    emit_rm(&e, 0x03, true, T1, addend);
    emit_mov_imm(&e, T0, (uint64_t)b->page << GMEM_PAGE_BITS);
    emit_rg(&e, 0x03, true, T0, HOT_OFF(ram));
    emit_rr(&e, 0x39, true, T0, T1); /* cmp T1, T0 */
    other[1] = emit_jcc_fwd(&e, CC_NE);
    return end_checked(bt, b, e, code, other);
}

void bt_link_exit(struct bt *bt, struct cpu *cpu, uint32_t exit, struct bt_block *b)
{
    struct bt_cache *c = &bt->cache;
    const struct bt_exit *x = &c->exits[exit];
    uint32_t mode = bt_exit_mode(c, x);
    bool sliding = (mode & BT_MODE_SLIDING) != 0;
    if (b->dead || ((b->mode ^ mode) & ~(uint32_t)BT_MODE_SLIDING) != 0)
        return;
    if (x->entry) { /* links to a dead block find its successor */
        struct bt_block *old = &c->blocks[x->block];
        if (old->dead && !b->split && old->mode == b->mode && old->pc == b->pc &&
            old->page == b->page)
            bt_patch_entry(bt, old, c->exec + b->code);
        return;
    }
    if (x->patch == 0 || !bt_cache_room(bt))
        return;
    /* From addresses as they are to sliding ones, or from one count to another: by look-up. */
    bool other_count = b->mode != mode || (sliding && b->pc != x->target);
    const uint8_t *to = b->split || other_count ? make_go(bt, x->target, sliding)
                        : x->same_page          ? c->exec + b->code
                        : sliding               ? checked_entry_slid(bt, b)
                                                : checked_entry(bt, cpu, b);
    if (to == NULL)
        return;
    patch_jump(c, x, to);
    bt->stats.links++;
}
