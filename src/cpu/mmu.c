/* SPDX-License-Identifier: Apache-2.0
 *
 * Paging (SDM 3 chapter 4): no paging, 32-bit with PSE and PSE-36, PAE, 4-level, 5-level.
 *
 * A walk collects the permissions of all levels, decides, and only then sets accessed and dirty
 * flags, each by compare-and-swap; a lost race starts the walk again. */
#include "cpu/mmu.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "cpu/model.h"

#define PKEY_SHIFT 59u

#define MAX_LEVELS 5u

/* One entry used by a walk. */
struct step {
    gpa_t gpa;
    uint64_t entry;
    uint8_t size; /* 4 or 8 bytes */
};

struct walk {
    struct step step[MAX_LEVELS];
    unsigned steps;
    uint64_t all; /* AND of the entries: U, W */
    uint64_t any; /* OR of the entries: NX */
    gpa_t gpa;    /* of the 4 KiB page */
    uint64_t span;
    uint64_t leaf;
    bool nx_enabled;
    uint64_t a20;            /* mask for every physical address */
    struct gmem_range range; /* where the last entry was */
};

enum walk_result { WALK_OK, WALK_NOT_PRESENT, WALK_RESERVED };

bool mmu_canonical(const struct cpu *cpu, gva_t va)
{
    unsigned shift = cpu->cr4 & CR4_LA57 ? 7 : 16;
    return (uint64_t)((int64_t)(va << shift) >> shift) == va;
}

bool mmu_canonical_reg(const struct cpu *cpu, uint64_t va)
{
    unsigned shift = cpu_has(&cpu->features, CPU_FEATURE_LA57) ? 7 : 16;
    return (uint64_t)((int64_t)(va << shift) >> shift) == va;
}

static uint64_t a20_mask(const struct cpu *cpu)
{
    const struct cpu_world *w = cpu->world;
    return w->a20_masked != NULL && w->a20_masked(w->ctx) ? ~(1ull << 20) : ~0ull;
}

/* Host address of a table entry; NULL when no memory is there. Tables lie near each other: the
 * range of the last entry is tried first. */
static const uint8_t *entry_host(struct cpu *cpu, struct walk *w, gpa_t gpa)
{
    if (gpa - w->range.gpa >= w->range.size && !gmem_find(cpu->mem, gpa, &w->range)) {
        w->range.size = 0;
        return NULL;
    }
    return w->range.host + (gpa - w->range.gpa);
}

static uint64_t read_entry(struct cpu *cpu, struct walk *w, gpa_t gpa, unsigned size)
{
    const uint8_t *host = entry_host(cpu, w, gpa);
    if (unlikely(host == NULL)) {
        return MASK64(size * 8); /* nobody drives the bus */
    }
    /* A single load: other processors and the walk itself update entries by compare-and-swap. */
    return size == 8 ? __atomic_load_n((const uint64_t *)host, __ATOMIC_RELAXED)
                     : __atomic_load_n((const uint32_t *)host, __ATOMIC_RELAXED);
}

static uint64_t take(struct cpu *cpu, struct walk *w, gpa_t gpa, unsigned size)
{
    gpa &= w->a20;
    uint64_t e = read_entry(cpu, w, gpa, size);
    w->step[w->steps++] = (struct step){ .gpa = gpa, .entry = e, .size = (uint8_t)size };
    w->all &= e;
    w->any |= e;
    return e;
}

/* -- 32-bit paging (SDM 3 4.3) ----------------------------------------------------------------- */
static enum walk_result walk_32(struct cpu *cpu, struct walk *w, gva_t va)
{
    uint64_t e = take(cpu, w, (cpu->cr3 & 0xfffff000) | (va >> 22 & 0x3ff) << 2, 4);
    if (!(e & PTE_P)) {
        return WALK_NOT_PRESENT;
    }
    if ((e & PTE_PS) && (cpu->cr4 & CR4_PSE)) {
        /* PSE-36: bits 20:13 are address bits 39:32, as far as the processor has them. */
        unsigned high = 0;
        if (cpu_has(&cpu->features, CPU_FEATURE_PSE36)) {
            high = cpu->model->phys_bits < 40 ? cpu->model->phys_bits - 32u : 8;
        }
        if (bits64(e, 21, 13) >> high != 0) {
            return WALK_RESERVED;
        }
        w->leaf = e;
        w->span = MIB(4);
        w->gpa = (e & 0xffc00000) | (bits64(e, 21, 13) & MASK64(high)) << 32 | (va & 0x3ff000);
        return WALK_OK;
    }
    e = take(cpu, w, (e & 0xfffff000) | (va >> 12 & 0x3ff) << 2, 4);
    if (!(e & PTE_P)) {
        return WALK_NOT_PRESENT;
    }
    w->leaf = e;
    w->span = GMEM_PAGE_SIZE;
    w->gpa = e & 0xfffff000;
    return WALK_OK;
}

/* -- PAE, 4-level and 5-level paging (SDM 3 4.4, 4.5)
 * -------------------------------------------------- level: 1 page table .. 5 PML5. */
static enum walk_result walk_64(struct cpu *cpu, struct walk *w, gva_t va, gpa_t table,
                                unsigned level, uint64_t reserved)
{
    bool big_pages_1g = cpu_has(&cpu->features, CPU_FEATURE_PDPE1GB);
    for (;; level--) {
        unsigned shift = 3 + 9 * level;
        uint64_t e = take(cpu, w, table | (va >> shift & 0x1ff) << 3, 8);
        if (unlikely(!(e & PTE_P))) {
            return WALK_NOT_PRESENT;
        }
        if (unlikely(e & reserved)) {
            return WALK_RESERVED;
        }
        bool leaf = level == 1;
        if (level > 1 && (e & PTE_PS)) {
            if (level > 3 || (level == 3 && !big_pages_1g)) {
                return WALK_RESERVED;
            }
            if (e & (MASK64(shift) & ~MASK64(13))) { /* bit 12 is PAT */
                return WALK_RESERVED;
            }
            leaf = true;
        }
        if (leaf) {
            w->leaf = e;
            w->span = 1ull << shift;
            w->gpa = (e & PTE_ADDR & ~(w->span - 1)) | (va & (w->span - 1) & ~0xfffull);
            return WALK_OK;
        }
        table = e & PTE_ADDR;
    }
}

static enum walk_result walk(struct cpu *cpu, struct walk *w, gva_t va)
{
    w->steps = 0;
    w->all = ~0ull;
    w->any = 0;
    if (!(cpu->cr4 & CR4_PAE)) {
        w->nx_enabled = false;
        return walk_32(cpu, w, va);
    }
    w->nx_enabled = cpu->efer & EFER_NXE;
    uint64_t reserved = (PTE_ADDR & ~MASK64(cpu->model->phys_bits)) | (w->nx_enabled ? 0 : PTE_NX);
    if (cpu->efer & EFER_LMA) {
        gpa_t table = cpu->cr3 & PTE_ADDR & MASK64(cpu->model->phys_bits);
        return walk_64(cpu, w, va, table, cpu->cr4 & CR4_LA57 ? 5 : 4, reserved);
    }
    uint64_t pdpte = cpu->pdpte[va >> 30 & 3];
    if (!(pdpte & PTE_P)) {
        return WALK_NOT_PRESENT;
    }
    /* PAE entries have no ignored bits above the address (SDM 3 tables 4-9 to 4-11). */
    return walk_64(cpu, w, va, pdpte & PTE_ADDR, 2, reserved | (MASK64(63) & ~MASK64(52)));
}

bool mmu_load_pdptes(struct cpu *cpu, uint64_t cr3)
{
    uint64_t reserved = ~MASK64(cpu->model->phys_bits) | 0x1e6;
    struct walk w = { .a20 = a20_mask(cpu) };
    uint64_t pdpte[4];
    for (unsigned i = 0; i < 4; i++) {
        pdpte[i] = read_entry(cpu, &w, ((cr3 & 0xffffffe0) + 8 * i) & w.a20, 8);
        if ((pdpte[i] & PTE_P) && (pdpte[i] & reserved)) {
            return false;
        }
    }
    memcpy(cpu->pdpte, pdpte, sizeof pdpte);
    return true;
}

/* -- Permissions (SDM 3 4.6) ------------------------------------------------------------------- */
struct rights {
    bool read, write, exec;
    bool pkey_read, pkey_write; /* what the protection key alone forbids */
};

static struct rights rights_of(const struct cpu *cpu, const struct walk *w, enum tlb_view view)
{
    struct rights r = { 0 };
    bool user_page = w->all & PTE_U;
    bool user = view == TLB_VIEW_USER;
    bool nx = w->nx_enabled && (w->any & PTE_NX);

    r.read = user ? user_page : !(user_page && view == TLB_VIEW_SUPER_SMAP);
    r.write = r.read && ((w->all & PTE_W) || (!user && !(cpu->cr0 & CR0_WP)));
    r.exec = !nx && (user ? user_page : !(user_page && (cpu->cr4 & CR4_SMEP)));
    if ((cpu->cr4 & CR4_PKE) && user_page && (cpu->efer & EFER_LMA)) {
        uint32_t key = cpu->pkru >> (w->leaf >> PKEY_SHIFT & 0xf) * 2;
        r.pkey_read = key & 1;
        r.pkey_write = (key & 1) || ((key & 2) && (user || (cpu->cr0 & CR0_WP)));
        r.read = r.read && !r.pkey_read;
        r.write = r.write && !r.pkey_write;
    }
    return r;
}

static bool allowed(const struct rights *r, enum mmu_access access)
{
    return access == MMU_READ ? r->read : access == MMU_WRITE ? r->write : r->exec;
}

static uint32_t error_code(const struct cpu *cpu, enum mmu_access access, enum tlb_view view)
{
    uint32_t e = view == TLB_VIEW_USER ? PF_U : 0;
    if (access == MMU_WRITE) {
        e |= PF_W;
    }
    if (access == MMU_EXEC &&
        ((cpu->cr4 & CR4_SMEP) || ((cpu->cr4 & CR4_PAE) && (cpu->efer & EFER_NXE)))) {
        e |= PF_I;
    }
    return e;
}

/* -- Accessed and dirty flags (SDM 3 4.8) ------------------------------------------------------ */
/* False: an entry changed under the walk. Tables in ROM keep what they have. */
static bool set_flags(struct cpu *cpu, struct walk *w, enum mmu_access access)
{
    if (likely((w->all & PTE_A) && (access != MMU_WRITE || (w->leaf & PTE_D)))) {
        return true;
    }
    for (unsigned i = 0; i < w->steps; i++) {
        struct step *s = &w->step[i];
        uint64_t want = s->entry | PTE_A;
        if (i == w->steps - 1 && access == MMU_WRITE) {
            want |= PTE_D;
        }
        if (likely(want == s->entry)) {
            continue;
        }
        int r = s->size == 8 ? gmem_cas64(cpu->mem, s->gpa, s->entry, want)
                             : gmem_cas32(cpu->mem, s->gpa, (uint32_t)s->entry, (uint32_t)want);
        if (r == -EAGAIN) {
            return false;
        }
        if (r == 0) {
            s->entry = want;
        }
    }
    w->leaf = w->step[w->steps - 1].entry;
    return true;
}

static int translate_flat(const struct cpu *cpu, gva_t va, struct mmu_page *out)
{
    *out = (struct mmu_page){
        .gpa = align_down((uint32_t)va, GMEM_PAGE_SIZE) & a20_mask(cpu),
        .span = GMEM_PAGE_SIZE,
        .read = true,
        .write = true,
        .exec = true,
        .user = true,
    };
    return 0;
}

int mmu_translate(struct cpu *cpu, gva_t va, enum mmu_access access, enum tlb_view view,
                  struct mmu_page *out, uint32_t *error)
{
    if (!(cpu->cr0 & CR0_PG)) {
        return translate_flat(cpu, va, out);
    }
    struct walk w;
    w.range.size = 0;
    w.range.gpa = 0;
    w.a20 = a20_mask(cpu);
    for (;;) {
        enum walk_result res = walk(cpu, &w, va);
        if (unlikely(res != WALK_OK)) {
            *error = error_code(cpu, access, view) | (res == WALK_RESERVED ? PF_P | PF_RSVD : 0);
            return -EFAULT;
        }
        struct rights r = rights_of(cpu, &w, view);
        if (unlikely(!allowed(&r, access))) {
            *error = error_code(cpu, access, view) | PF_P;
            if ((access == MMU_READ && r.pkey_read) || (access == MMU_WRITE && r.pkey_write)) {
                *error |= PF_PK;
            }
            return -EFAULT;
        }
        if (unlikely(!set_flags(cpu, &w, access))) {
            continue;
        }
        *out = (struct mmu_page){
            .gpa = w.gpa & w.a20,
            .span = w.span,
            .read = r.read,
            .write = r.write && (w.leaf & PTE_D),
            .exec = r.exec,
            .global = (w.leaf & PTE_G) && (cpu->cr4 & CR4_PGE),
            .user = w.all & PTE_U,
        };
        return 0;
    }
}

int mmu_peek(struct cpu *cpu, gva_t va, gpa_t *gpa)
{
    if (!(cpu->cr0 & CR0_PG)) {
        *gpa = (uint32_t)va & a20_mask(cpu);
        return 0;
    }
    struct walk w = { .a20 = a20_mask(cpu) };
    if (walk(cpu, &w, va) != WALK_OK) {
        return -EFAULT;
    }
    *gpa = (w.gpa & w.a20) | va % GMEM_PAGE_SIZE;
    return 0;
}
