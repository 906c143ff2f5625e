/* SPDX-License-Identifier: Apache-2.0
 *
 * What translated code depends on besides its bytes (bt_mode), and the jump cache, whose entries
 * are good for one mode and one generation of address translation (bt_hot.key).
 */
#include "base/bits.h"
#include "cpu/access.h"
#include "engine/bt/bt.h"

#include <string.h>

static bool flat(const struct cpu_seg *s)
{
    return s->base == 0 && s->limit == 0xffffffff && (s->attr & SEG_ATTR_P);
}

/* Data of any kind may be read and written, whatever the offset. */
static bool open_data(const struct cpu_seg *s)
{
    return s->limit == 0xffffffff && (s->attr & SEG_ATTR_P) && (s->attr & 0x1a) == 0x12 &&
           !(s->attr & 4);
}

static uint32_t vector_mode(const struct cpu *cpu)
{
    uint32_t m = 0;
    uint32_t mxcsr = *(const uint32_t *)(const void *)(cpu->fpu.fx + FX_MXCSR);
    bool ts = (cpu->cr0 & CR0_TS) != 0;
    if ((cpu->cr4 & CR4_OSFXSR) && !(cpu->cr0 & CR0_EM) && !ts)
        m |= BT_MODE_SSE;
    if ((cpu->cr4 & CR4_OSXSAVE) && (cpu->xcr0 & 6) == 6 && !ts)
        m |= BT_MODE_AVX;
    if ((cpu->xcr0 & 0xe6) == 0xe6)
        m |= BT_MODE_AVX512;
    if ((mxcsr >> 7 & 0x3f) != 0x3f)
        m |= BT_MODE_FPEXC;
    return m;
}

uint32_t bt_mode_of(const struct cpu *cpu)
{
    uint32_t m = cpu->mode | vector_mode(cpu);
    if (cpu->cpl == 3)
        m |= BT_MODE_USER;
    else if (cpu->cpl != 0)
        m |= BT_MODE_RING12;
    if (cpu->mode == INSN_MODE_64)
        return m | (cpu->cr4 & CR4_SMAP ? BT_MODE_SMAP : 0);
    if (!cpu_protected(cpu) || cpu_v86(cpu))
        return (m & ~(uint32_t)BT_MODE_AVX) | BT_MODE_VM;
    const struct cpu_seg *s = cpu->seg;
    if (s[SEG_SS].attr & SEG_ATTR_DB)
        m |= BT_MODE_STACK32;
    if (flat(&s[SEG_CS]) && (s[SEG_CS].attr & 2) && flat(&s[SEG_SS]) && open_data(&s[SEG_SS]) &&
        flat(&s[SEG_DS]) && open_data(&s[SEG_DS]) && flat(&s[SEG_ES]) && open_data(&s[SEG_ES]))
        m |= BT_MODE_FLAT;
    if (open_data(&s[SEG_FS]))
        m |= BT_MODE_FS;
    if (open_data(&s[SEG_GS]))
        m |= BT_MODE_GS;
    return m;
}

bool bt_jumps_usable(uint32_t mode)
{
    return (mode & BT_MODE_WIDTH) == INSN_MODE_64 ||
           ((mode & BT_MODE_FLAT) && (mode & BT_MODE_WIDTH) == INSN_MODE_32);
}

/* -- Jump cache -------------------------------------------------------------------------------- */

/* No address is ~0: the first byte of an instruction may be there, but no call ends before it. */
static void returns_clear(struct cpu *cpu)
{
    struct bt_return *r = (struct bt_return *)(void *)cpu->engine_table;
    for (unsigned i = 0; i < BT_RETURN_SIZE; i++)
        r[i].va = ~0ull;
}

#define GENS (1ull << (32 - BT_KEY_MODE_BITS))
_Static_assert((BT_KEY_MODE & BT_MODE_GS) && BT_MODE_GS * 2 > BT_KEY_MODE, "mode fits a key");

void bt_update_key(struct cpu *cpu, uint32_t mode)
{
    struct bt_vcpu *v = cpu->engine;
    if (v->seen_global != cpu->tlb_global_gen) {
        v->seen_global = cpu->tlb_global_gen;
        v->super_epoch++;
        v->super_local = false;
    } else if (v->super_local && v->seen_local != cpu->tlb_gen) {
        v->super_epoch++;
    }
    v->seen_local = cpu->tlb_gen;
    bool user = (mode & BT_MODE_USER) != 0;
    uint64_t gen = user ? cpu->tlb_gen : v->super_epoch;
    if (unlikely(gen - v->first_gen[user] >= GENS)) { /* also when it is before the first */
        bt_jumps_clear(v);
        v->first_gen[user] = gen;
    }
    if (unlikely(v->return_gen[user] != gen || v->return_mode[user] != mode)) {
        returns_clear(cpu);
        v->return_gen[user] = gen;
        v->return_mode[user] = mode;
    }
    bt_hot(cpu)->key = (uint32_t)(gen - v->first_gen[user]) << BT_KEY_MODE_BITS | mode;
}

static struct bt_jump *slot_of(struct bt_vcpu *v, uint64_t pc)
{
    return &v->jumps[((pc >> GMEM_PAGE_BITS) ^ pc) & (BT_JUMP_SIZE - 1)];
}

static unsigned page_hash(uint64_t va)
{
    return (unsigned)(((va >> GMEM_PAGE_BITS) * 0x9e3779b97f4a7c15ull) >> 48);
}

static unsigned large_hash(uint64_t va)
{
    return (unsigned)(((va >> 21) * 0x9e3779b97f4a7c15ull) >> 54);
}

/* A page that an address in the jump cache depends on: INVLPG of it must find that, and so must
 * INVLPG of any other piece of the same large page. */
static void note_page(struct cpu *cpu, uint64_t va)
{
    struct bt_vcpu *v = cpu->engine;
    unsigned h = page_hash(va);
    uint64_t span = tlb_page_span(cpu, va);
    v->exec_pages[h / 64] |= 1ull << (h % 64);
    if (span > MIB(4))
        v->exec_huge = true;
    for (uint64_t n = 0; span > GMEM_PAGE_SIZE && n < span && n < MIB(4); n += MIB(2)) {
        h = large_hash(align_down(va, span) + n);
        v->exec_large[h / 64] |= 1ull << (h % 64);
    }
}

void bt_jump_add(struct cpu *cpu, uint64_t pc, const uint8_t *code, bool global, bool split)
{
    struct bt_vcpu *v = cpu->engine;
    uint32_t mode = bt_hot(cpu)->key & BT_KEY_MODE;
    if (!(mode & BT_MODE_USER) && !global && !v->super_local) {
        v->super_local = true;
        v->super_epoch++;
        bt_update_key(cpu, mode);
    }
    note_page(cpu, pc);
    if (split)
        note_page(cpu, pc + GMEM_PAGE_SIZE);
    *slot_of(v, pc) = (struct bt_jump){ .va = pc,
                                        .key = bt_hot(cpu)->key,
                                        .code = (uint32_t)(code - v->bt->cache.exec) };
}

const uint8_t *bt_jump_find(struct cpu *cpu, uint64_t pc)
{
    const struct bt_vcpu *v = cpu->engine;
    const struct bt_jump *j = slot_of(cpu->engine, pc);
    return j->va == pc && j->key == bt_hot(cpu)->key ? v->bt->cache.exec + j->code : NULL;
}

void bt_jumps_clear(struct bt_vcpu *v)
{
    v->stats.jump_clears++;
    for (unsigned i = 0; i < BT_JUMP_SIZE; i++)
        v->jumps[i] = (struct bt_jump){ 0 };
    memset(v->exec_pages, 0, sizeof v->exec_pages);
    memset(v->exec_large, 0, sizeof v->exec_large);
    v->exec_huge = false;
    returns_clear(v->cpu);
}

/* INVLPG and its like: entries of the page must go. Most pages so flushed hold no code. */
void bt_page_flushed(struct cpu *cpu, gva_t va)
{
    struct bt_vcpu *v = cpu->engine;
    unsigned h = page_hash(va);
    unsigned l = large_hash(va);
    returns_clear(cpu); /* it knows addresses that never were in the jump cache */
    if ((v->exec_pages[h / 64] >> (h % 64) & 1) || (v->exec_large[l / 64] >> (l % 64) & 1) ||
        v->exec_huge)
        bt_jumps_clear(v);
}
