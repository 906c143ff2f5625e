/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside of the software TLB: what tlb.c keeps and access.c looks into. Translated code and engines
 * know only struct tlb_entry (cpu.h).
 *
 * One set of tables per address space (PCID), a table per privilege view in each, made when first
 * filled. A view without a table is the shared empty one, which never hits. While alignment checks
 * are active, cpu->tlb is the empty table too, so that every access comes to access.c.
 *
 * Beside the entries there is what only the slow path needs: guest-physical address, span of the
 * mapping (INVLPG of a large page must find all its pieces), what backs the page, and bitmaps of
 * the entries in use, so that a CR3 load touches just those.
 */
#ifndef SOSIA_CPU_TLB_H
#define SOSIA_CPU_TLB_H

#include "cpu/access.h"

#define TLB_SETS 16u /* Linux with page-table isolation uses twelve PCIDs */
#define TLB_WORDS (CPU_TLB_SIZE / 64)

enum tlb_kind {
    TLB_RAM = 1,
    TLB_ROM = 2, /* stores go to the bus */
    TLB_MMIO = 3,
    TLB_KIND = 3,  /* mask */
    TLB_WATCH = 4, /* a data breakpoint lies in the page */
};

struct tlb_table {
    _Alignas(64) struct tlb_entry e[CPU_TLB_SIZE];
    gpa_t gpa[CPU_TLB_SIZE];         /* of the page's first byte */
    uint8_t span_bits[CPU_TLB_SIZE]; /* log2 of the mapping's bytes */
    uint8_t kind[CPU_TLB_SIZE];      /* enum tlb_kind */
    uint64_t local_used[TLB_WORDS];  /* entries filled from non-global mappings ... */
    uint64_t global_used[TLB_WORDS]; /* ... and from global ones */
};

struct tlb_set {
    uint16_t pcid;
    bool bound;     /* holds entries of pcid */
    bool dirty;     /* has been filled since all of it was flushed */
    uint32_t stamp; /* last use */
    uint64_t gen;   /* changes when entries are flushed: cpu->tlb_gen while current */
    struct tlb_table *view[TLB_VIEWS]; /* owned, NULL until needed */
    /* Which large-page regions have pieces here: 2 MiB and 1 GiB units, hashed. */
    uint64_t large_2m[4];
    uint64_t large_1g;
};

struct cpu_tables {
    struct tlb_set *cur;
    uint32_t clock;
    uint64_t gens; /* the last generation given */
    struct tlb_set set[TLB_SETS];
};

static inline unsigned tlb_index(gva_t va)
{
    return (unsigned)(va >> GMEM_PAGE_BITS) & (CPU_TLB_SIZE - 1);
}

/* The entry for the page of va in this view, filled for this kind of access. Raises #PF. */
struct tlb_table *tlb_get(struct cpu *cpu, enum tlb_view view, gva_t va, enum mmu_access access);

/* The page took a store and nobody asks for it any more, or the other way round: set the write tag
 * by the page's flags as they are now. */
void tlb_retag_write(struct cpu *cpu, struct tlb_table *t, gva_t va);

bool tlb_alignment_checked(const struct cpu *cpu);

#endif
