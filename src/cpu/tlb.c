/* SPDX-License-Identifier: Apache-2.0
 *
 * Software TLB: tables, filling, flushing (SDM 3 4.10). See cpu/tlb.h. */
#include "cpu/tlb.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "cpu/debug.h"
#include "cpu/except.h"
#include "cpu/stop.h"

/* EMPTY_N(i): N entries from i on. */
#define EMPTY_1(i) { CPU_TLB_INVALID(i), CPU_TLB_INVALID(i), CPU_TLB_INVALID(i), 0 }
#define EMPTY_4(i) EMPTY_1(i), EMPTY_1((i) + 1), EMPTY_1((i) + 2), EMPTY_1((i) + 3)
#define EMPTY_16(i) EMPTY_4(i), EMPTY_4((i) + 4), EMPTY_4((i) + 8), EMPTY_4((i) + 12)
#define EMPTY_64(i) EMPTY_16(i), EMPTY_16((i) + 16), EMPTY_16((i) + 32), EMPTY_16((i) + 48)
#define EMPTY_256(i) EMPTY_64(i), EMPTY_64((i) + 64), EMPTY_64((i) + 128), EMPTY_64((i) + 192)
#define EMPTY_1K(i) EMPTY_256(i), EMPTY_256((i) + 256), EMPTY_256((i) + 512), EMPTY_256((i) + 768)
static const struct tlb_entry empty_table[CPU_TLB_SIZE] __attribute__((aligned(64))) = {
    EMPTY_1K(0), EMPTY_1K(1024), EMPTY_1K(2048), EMPTY_1K(3072)
};
_Static_assert(CPU_TLB_SIZE == 4096, "empty_table");

/* Never written through: a table is made before an entry is filled. */
static struct tlb_entry *empty_entries(void) { return (struct tlb_entry *)(uintptr_t)empty_table; }

static struct tlb_table *table_new(void)
{
    struct tlb_table *t = aligned_alloc(64, sizeof *t);
    if (t == NULL) {
        abort(); /* as xzalloc does */
    }
    memset(t, 0, sizeof *t);
    memcpy(t->e, empty_table, sizeof t->e);
    return t;
}

/* -- Selection --------------------------------------------------------------------------------- */
bool tlb_alignment_checked(const struct cpu *cpu)
{
    return (cpu->rflags & FLAG_AC) && cpu->cpl == 3 && (cpu->cr0 & CR0_AM);
}

static uint16_t current_pcid(const struct cpu *cpu)
{
    return cpu->cr4 & CR4_PCIDE ? cpu->cr3 & 0xfff : 0;
}

static void point(struct cpu *cpu)
{
    struct tlb_set *s = cpu->tables->cur;
    for (unsigned v = 0; v < TLB_VIEWS; v++) {
        cpu->tlb_view[v] = s->view[v] != NULL ? s->view[v]->e : empty_entries();
    }
    cpu->tlb = tlb_alignment_checked(cpu) ? empty_entries() : cpu->tlb_view[cpu->view];
    cpu->tlb_gen = s->gen;
}

/* What was mapped in s may be mapped otherwise from now on. */
static void renew(struct cpu *cpu, struct tlb_set *s)
{
    s->gen = ++cpu->tables->gens;
    if (s == cpu->tables->cur) {
        cpu->tlb_gen = s->gen;
    }
}

static void clear_entries(struct tlb_table *t, uint64_t used[TLB_WORDS])
{
    for (unsigned w = 0; w < TLB_WORDS; w++) {
        uint64_t bits = used[w];
        used[w] = 0;
        while (bits != 0) {
            unsigned i = w * 64 + (unsigned)__builtin_ctzll(bits);
            struct tlb_entry *e = &t->e[i];
            e->tag_read = e->tag_write = e->tag_exec = CPU_TLB_INVALID(i);
            bits &= bits - 1;
        }
    }
}

static void flush_set(struct tlb_set *s)
{
    if (!s->dirty) {
        return;
    }
    for (unsigned v = 0; v < TLB_VIEWS; v++) {
        if (s->view[v] != NULL) {
            clear_entries(s->view[v], s->view[v]->local_used);
            clear_entries(s->view[v], s->view[v]->global_used);
        }
    }
    memset(s->large_2m, 0, sizeof s->large_2m);
    s->large_1g = 0;
    s->dirty = false;
}

static void flush_set_local(struct tlb_set *s)
{
    for (unsigned v = 0; s->dirty && v < TLB_VIEWS; v++) {
        if (s->view[v] != NULL) {
            clear_entries(s->view[v], s->view[v]->local_used);
        }
    }
}

static struct tlb_set *find_set(struct cpu_tables *t, uint16_t pcid)
{
    for (unsigned i = 0; i < TLB_SETS; i++) {
        if (t->set[i].bound && t->set[i].pcid == pcid) {
            return &t->set[i];
        }
    }
    return NULL;
}

static struct tlb_set *bind_set(struct cpu_tables *t, uint16_t pcid)
{
    struct tlb_set *s = find_set(t, pcid);
    if (s != NULL) {
        return s;
    }
    s = &t->set[0];
    for (unsigned i = 0; i < TLB_SETS && s->bound; i++) {
        if (!t->set[i].bound || t->set[i].stamp < s->stamp) {
            s = &t->set[i];
        }
    }
    flush_set(s);
    s->gen = ++t->gens;
    s->bound = true;
    s->pcid = pcid;
    return s;
}

void tlb_switch(struct cpu *cpu)
{
    if (cpu->tables == NULL) {
        cpu->tables = xzalloc(sizeof *cpu->tables);
    }
    struct cpu_tables *t = cpu->tables;
    uint16_t pcid = current_pcid(cpu);
    if (t->cur == NULL || t->cur->pcid != pcid || !t->cur->bound) {
        t->cur = bind_set(t, pcid);
        t->cur->stamp = ++t->clock;
    }
    point(cpu);
}

void tlb_fini(struct cpu *cpu)
{
    if (cpu->tables != NULL) {
        for (unsigned i = 0; i < TLB_SETS; i++) {
            for (unsigned v = 0; v < TLB_VIEWS; v++) {
                free(cpu->tables->set[i].view[v]);
            }
        }
        free(cpu->tables);
        cpu->tables = NULL;
    }
}

/* -- Filling ----------------------------------------------------------------------------------- */
static unsigned large_hash(uint64_t unit)
{
    return (unsigned)((unit * 0x9e3779b97f4a7c15ull) >> 56);
}

static void note_large(struct tlb_set *s, gva_t va, uint64_t span)
{
    if (span >= GIB(1)) {
        s->large_1g |= 1ull << (large_hash(va >> 30) & 63);
        return;
    }
    /* 2 MiB, or both halves of 4 MiB */
    for (gva_t unit = align_down(va, span); unit - align_down(va, span) < span; unit += MIB(2)) {
        unsigned h = large_hash(unit >> 21);
        s->large_2m[h / 64] |= 1ull << (h % 64);
    }
}

static bool maybe_large(const struct tlb_set *s, gva_t va)
{
    unsigned h = large_hash(va >> 21);
    return (s->large_2m[h / 64] >> (h % 64) & 1) ||
           (s->large_1g >> (large_hash(va >> 30) & 63) & 1);
}

static bool covers(gva_t tag, gva_t page)
{
    return tag == page || tag == CPU_TLB_SLOW(page);
}

static uint8_t ram_flags(const struct cpu *cpu, const struct tlb_entry *e, gva_t page)
{
    uint64_t n = (uint64_t)((uint8_t *)(uintptr_t)(page + e->addend) - gmem_ram_host(cpu->mem)) >>
                 GMEM_PAGE_BITS;
    return atomic_load_explicit(&gmem_page_flags(cpu->mem)[n], memory_order_seq_cst);
}

void tlb_retag_write(struct cpu *cpu, struct tlb_table *t, gva_t va)
{
    unsigned i = tlb_index(va);
    struct tlb_entry *e = &t->e[i];
    gva_t page = align_down(va, GMEM_PAGE_SIZE);
    if (!covers(e->tag_write, page) || t->kind[i] != TLB_RAM) {
        return; /* flushed meanwhile, or slow for good */
    }
    e->tag_write = ram_flags(cpu, e, page) != 0 ? CPU_TLB_SLOW(page) : page;
}

static gva_t tag_of(gva_t page, bool allowed, bool slow)
{
    return !allowed ? CPU_TLB_INVALID(tlb_index(page)) : slow ? CPU_TLB_SLOW(page) : page;
}

static void fill(struct cpu *cpu, struct tlb_table *t, gva_t page, const struct mmu_page *m)
{
    unsigned i = tlb_index(page);
    struct tlb_entry *e = &t->e[i];
    uint64_t bit = 1ull << (i % 64);
    struct gmem_range r;
    bool mapped = gmem_find(cpu->mem, m->gpa, &r);

    t->gpa[i] = m->gpa;
    t->span_bits[i] = (uint8_t)(63 - __builtin_clzll(m->span));
    bool slow = false;
    bool slow_write = false;
    if (!mapped) {
        t->kind[i] = TLB_MMIO;
        e->addend = 0;
        slow = true;
    } else {
        t->kind[i] = r.kind == GMEM_RAM ? TLB_RAM : TLB_ROM;
        e->addend = (uint64_t)(uintptr_t)(r.host + (m->gpa - r.gpa)) - page;
        slow_write = r.kind != GMEM_RAM || ram_flags(cpu, e, page) != 0;
    }
    bool stops = cpu->stops != NULL && cpu_break_in(cpu->stops, page, GMEM_PAGE_SIZE);
    e->tag_exec = tag_of(page, m->exec, slow || stops);
    if (cpu_watch_page(cpu, page)) {
        t->kind[i] |= TLB_WATCH;
        slow = true;
    }
    e->tag_read = tag_of(page, m->read, slow);
    e->tag_write = tag_of(page, m->write, slow || slow_write);

    struct tlb_set *s = cpu->tables->cur;
    s->dirty = true;
    if (m->global) {
        t->global_used[i / 64] |= bit;
        t->local_used[i / 64] &= ~bit;
    } else {
        t->local_used[i / 64] |= bit;
        t->global_used[i / 64] &= ~bit;
    }
    if (m->span > GMEM_PAGE_SIZE) {
        note_large(s, page, m->span);
    }
}

bool tlb_fill_quiet(struct cpu *cpu, gva_t va, enum mmu_access access)
{
    struct tlb_table *t = cpu->tables->cur->view[cpu->view];
    struct mmu_page m;
    uint32_t error;
    if (t == NULL || cpu->tlb != t->e || !mmu_canonical(cpu, va) ||
        mmu_translate(cpu, va, access, cpu->view, &m, &error) < 0) {
        return false;
    }
    cpu->tlb_misses++;
    fill(cpu, t, align_down(va, GMEM_PAGE_SIZE), &m);
    return true;
}

bool tlb_page_global(const struct cpu *cpu, gva_t va)
{
    const struct tlb_table *t = cpu->tables->cur->view[cpu->view];
    unsigned i = tlb_index(va);
    return t != NULL && covers(t->e[i].tag_exec, align_down(va, GMEM_PAGE_SIZE)) &&
           (t->global_used[i / 64] >> (i % 64) & 1);
}

const uint8_t *tlb_code_at(const struct cpu *cpu, gva_t va, gpa_t *gpa)
{
    const struct tlb_table *t = cpu->tables->cur->view[cpu->view];
    unsigned i = tlb_index(va);
    if (t == NULL || !covers(t->e[i].tag_exec, align_down(va, GMEM_PAGE_SIZE)))
        return NULL;
    *gpa = t->gpa[i] + (va & (GMEM_PAGE_SIZE - 1));
    return (const uint8_t *)(uintptr_t)(va + t->e[i].addend);
}

uint64_t tlb_page_span(const struct cpu *cpu, gva_t va)
{
    const struct tlb_table *t = cpu->tables->cur->view[cpu->view];
    return t != NULL ? 1ull << t->span_bits[tlb_index(va)] : GMEM_PAGE_SIZE;
}

struct tlb_table *tlb_get(struct cpu *cpu, enum tlb_view view, gva_t va, enum mmu_access access)
{
    gva_t page = align_down(va, GMEM_PAGE_SIZE);
    struct tlb_set *s = cpu->tables->cur;
    struct tlb_table *t = s->view[view];
    if (likely(t != NULL)) {
        const struct tlb_entry *e = &t->e[tlb_index(va)];
        gva_t tag = access == MMU_READ    ? e->tag_read
                    : access == MMU_WRITE ? e->tag_write
                                          : e->tag_exec;
        if (covers(tag, page)) {
            return t;
        }
    }
    struct mmu_page m;
    uint32_t error = 0;
    cpu->tlb_misses++;
    if (unlikely(mmu_translate(cpu, va, access, view, &m, &error) < 0)) {
        cpu_raise_pf(cpu, va, error);
    }
    if (unlikely(t == NULL)) {
        t = s->view[view] = table_new();
        point(cpu);
    }
    fill(cpu, t, page, &m);
    return t;
}

/* -- Flushing ---------------------------------------------------------------------------------- */
void tlb_flush_all(struct cpu *cpu)
{
    cpu->tlb_flushes++;
    for (unsigned i = 0; cpu->tables != NULL && i < TLB_SETS; i++) {
        flush_set(&cpu->tables->set[i]);
        renew(cpu, &cpu->tables->set[i]);
    }
    cpu->tlb_global_gen++;
}

void tlb_flush_local(struct cpu *cpu)
{
    cpu->tlb_flushes++;
    if (cpu->tables != NULL && cpu->tables->cur != NULL) {
        flush_set_local(cpu->tables->cur);
        renew(cpu, cpu->tables->cur);
    }
}

void tlb_flush_asid(struct cpu *cpu, uint16_t pcid)
{
    cpu->tlb_flushes++;
    struct tlb_set *s = cpu->tables != NULL ? find_set(cpu->tables, pcid) : NULL;
    if (s != NULL) {
        flush_set_local(s);
        renew(cpu, s);
    }
}

static void drop(struct tlb_table *t, unsigned i)
{
    struct tlb_entry *e = &t->e[i];
    e->tag_read = e->tag_write = e->tag_exec = CPU_TLB_INVALID(i);
    t->local_used[i / 64] &= ~(1ull << (i % 64));
    t->global_used[i / 64] &= ~(1ull << (i % 64));
}

static gva_t entry_page(const struct tlb_table *t, unsigned i)
{
    const struct tlb_entry *e = &t->e[i];
    gva_t tag = e->tag_read != CPU_TLB_INVALID(i)    ? e->tag_read
                : e->tag_write != CPU_TLB_INVALID(i) ? e->tag_write
                                                     : e->tag_exec;
    return tlb_index(tag) == i ? tag : CPU_TLB_SLOW(tag);
}

enum flush_scope { FLUSH_LOCAL, FLUSH_GLOBAL_TOO };

/* All pieces of the mapping that va is in: of a large page any of them may be cached. */
static void flush_page_in_table(struct tlb_table *t, gva_t va, enum flush_scope scope, bool large)
{
    gva_t page = align_down(va, GMEM_PAGE_SIZE);
    unsigned i = tlb_index(va);
    bool is_global = t->global_used[i / 64] >> (i % 64) & 1;
    if (entry_page(t, i) == page && (scope == FLUSH_GLOBAL_TOO || !is_global)) {
        drop(t, i);
    }
    if (!large) {
        return;
    }
    for (unsigned w = 0; w < TLB_WORDS; w++) {
        uint64_t bits = t->local_used[w] | (scope == FLUSH_GLOBAL_TOO ? t->global_used[w] : 0);
        for (; bits != 0; bits &= bits - 1) {
            i = w * 64 + (unsigned)__builtin_ctzll(bits);
            if ((entry_page(t, i) ^ va) >> t->span_bits[i] == 0) {
                drop(t, i);
            }
        }
    }
}

static void flush_page_in_set(struct tlb_set *s, gva_t va, enum flush_scope scope)
{
    if (!s->dirty) {
        return;
    }
    bool large = maybe_large(s, va);
    for (unsigned v = 0; v < TLB_VIEWS; v++) {
        if (s->view[v] != NULL) {
            flush_page_in_table(s->view[v], va, scope, large);
        }
    }
}

void tlb_flush_page(struct cpu *cpu, gva_t va)
{
    for (unsigned i = 0; cpu->tables != NULL && i < TLB_SETS; i++) {
        /* In other address spaces only the global ones need go (SDM 3 4.10.4.1); more is allowed.
         */
        flush_page_in_set(&cpu->tables->set[i], va, FLUSH_GLOBAL_TOO);
    }
    if (cpu->page_flushed != NULL) {
        cpu->page_flushed(cpu, va);
    }
}

void tlb_flush_page_pcid(struct cpu *cpu, gva_t va, uint16_t pcid)
{
    struct tlb_set *s = cpu->tables != NULL ? find_set(cpu->tables, pcid) : NULL;
    if (s != NULL) {
        flush_page_in_set(s, va, FLUSH_LOCAL);
        renew(cpu, s);
    }
}

/* -- Code pages -------------------------------------------------------------------------------- */
static void protect_in_table(struct tlb_table *t, gpa_t page)
{
    for (unsigned i = 0; i < CPU_TLB_SIZE; i += 8) {
        bool hit = false;
        for (unsigned j = 0; j < 8; j++) {
            hit |= t->gpa[i + j] == page;
        }
        for (unsigned j = i; hit && j < i + 8; j++) {
            gva_t *tag = &t->e[j].tag_write;
            if (t->gpa[j] == page && tlb_index(*tag) == j) {
                *tag = CPU_TLB_SLOW(*tag);
            }
        }
    }
}

void tlb_protect_code(struct cpu *cpu, gpa_t gpa)
{
    for (unsigned i = 0; i < TLB_SETS; i++) {
        struct tlb_set *s = &cpu->tables->set[i];
        for (unsigned v = 0; s->dirty && v < TLB_VIEWS; v++) {
            if (s->view[v] != NULL) {
                protect_in_table(s->view[v], align_down(gpa, GMEM_PAGE_SIZE));
            }
        }
    }
}
