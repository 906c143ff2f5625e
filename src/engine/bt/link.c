/* SPDX-License-Identifier: Apache-2.0
 *
 * Chaining: making an exit of one block go straight to another block.
 */
#include "engine/bt/bt.h"
#include "engine/bt/emit.h"

static void patch_jump(struct bt_exit *x, const uint8_t *code)
{
    uint64_t rel = (uint32_t)(int32_t)(code - x->patch_end);
    uint64_t word = __atomic_load_n(x->patch, __ATOMIC_RELAXED);
    word &= ~(0xffffffffull << x->patch_shift);
    word |= rel << x->patch_shift;
    __atomic_store_n(x->patch, word, __ATOMIC_SEQ_CST);
}

/* The first instruction of a block is one of nine bytes, eight-aligned: replace it by a jump in one
 * store. */
void bt_patch_entry(struct bt *bt, struct bt_block *b, const uint8_t *to)
{
    uint8_t patch[8] = { 0xe9, 0, 0, 0, 0, 0x90, 0x90, 0x90 };
    int32_t rel = (int32_t)(to - (b->code + 5));
    uint64_t word;
    memcpy(patch + 1, &rel, 4);
    memcpy(&word, patch, 8);
    __atomic_store_n((uint64_t *)(void *)bt_writable(bt, b->code), word, __ATOMIC_SEQ_CST);
}

/* A block that depends on the mapping of two pages is reached only through the jump cache, which
 * knows both: code of the exit's own that looks there. */
static const uint8_t *make_lookup(struct bt *bt, uint32_t exit)
{
    struct bt_cache *c = &bt->cache;
    if (!bt_cache_room(bt))
        return NULL;
    struct emit e = { c->write + c->used, c->write + c->size, c->exec - c->write };
    const uint8_t *code = emit_here(&e);
    bt_emit_lookup_exit(bt, &e, exit);
    c->used = (size_t)(e.p - c->write);
    return code;
}

void bt_link_exit(struct bt *bt, struct cpu *cpu, uint32_t exit, const struct bt_block *b)
{
    struct bt_exit *x = &bt->cache.exits[exit];
    if (b->dead || b->mode != x->mode)
        return;
    if (x->entry_of != NULL) { /* links to a dead block find its successor */
        struct bt_block *old = x->entry_of;
        if (old->dead && !b->split && old->pc == b->pc && old->host == b->host)
            bt_patch_entry(bt, old, b->code);
        return;
    }
    if (b->split) {
        const uint8_t *lookup = x->patch != NULL ? make_lookup(bt, exit) : NULL;
        if (lookup != NULL)
            patch_jump(x, lookup);
        return;
    }
    if (x->patch != NULL) {
        patch_jump(x, b->code);
        bt->stats.links++;
        return;
    }
    if (x->link == NULL)
        return;
    const struct tlb_entry *e = &cpu->tlb[b->pc >> GMEM_PAGE_BITS & (CPU_TLB_SIZE - 1)];
    if (e->tag_exec != (b->pc & ~0xfffull))
        return;
    /* Another vCPU may be between its checks and its jump: code changes only to a block of the same
     * bytes, unless there is nobody else. */
    struct bt_link *l = x->link;
    if (l->addend != ~0ull && l->addend != e->addend && bt->config.cpu_count > 1)
        return;
    __atomic_store_n(&l->code, b->code, __ATOMIC_SEQ_CST);
    __atomic_store_n(&l->addend, e->addend, __ATOMIC_SEQ_CST);
    bt->stats.links++;
}
