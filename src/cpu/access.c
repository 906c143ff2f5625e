/* SPDX-License-Identifier: Apache-2.0
 *
 * Guest-virtual accesses: segmentation (SDM 3 5.3), the slow path behind the software TLB, MMIO,
 * pages whose writes somebody wants to know of, data breakpoints, alignment checks. */
#include "cpu/access.h"

#include <string.h>

#include "base/bits.h"
#include "cpu/access_fast.h"
#include "cpu/debug.h"
#include "cpu/except.h"
#include "cpu/tlb.h"

/* -- Segments ---------------------------------------------------------------------------------- */
uint64_t cpu_effective_address(const struct cpu *cpu, const struct insn *in)
{
    const struct insn_mem *m = &in->mem;
    uint64_t a = (uint64_t)m->disp;
    if (m->base == INSN_REG_RIP) {
        a += cpu->rip;
    } else if (m->base != INSN_NO_REG) {
        a += cpu->gpr[m->base];
    }
    if (m->index != INSN_NO_REG) {
        a += cpu->gpr[m->index] << m->scale;
    }
    return in->adsize == 8 ? a : in->adsize == 4 ? (uint32_t)a : (uint16_t)a;
}

static _Noreturn void raise_segment(struct cpu *cpu, unsigned seg)
{
    cpu_raise_error(cpu, seg == SEG_SS ? EXC_SS : EXC_GP, 0);
}

static bool type_allows(const struct cpu *cpu, const struct cpu_seg *s, enum mmu_access access)
{
    if (!cpu_protected(cpu) || cpu_v86(cpu)) {
        return true; /* real and virtual-8086 mode know no types */
    }
    if (s->attr & SEG_ATTR_NULL) {
        return false;
    }
    bool code = s->attr & 8;
    bool rw = s->attr & 2; /* code: readable, data: writable */
    return access == MMU_WRITE ? !code && rw : access == MMU_READ ? !code || rw : true;
}

static bool in_limit(const struct cpu_seg *s, uint64_t off, unsigned size)
{
    uint64_t last = off + size - 1;
    if ((s->attr & 0xc) == 4) { /* expand-down data */
        return off > s->limit && last <= (s->attr & SEG_ATTR_DB ? 0xffffffffu : 0xffffu);
    }
    return last <= s->limit;
}

gva_t cpu_linear(struct cpu *cpu, unsigned seg, uint64_t off, unsigned size, enum mmu_access access)
{
    const struct cpu_seg *s = &cpu->seg[seg];
    if (cpu->mode == INSN_MODE_64) {
        gva_t va = seg >= SEG_FS ? s->base + off : off;
        if (!mmu_canonical(cpu, va) || !mmu_canonical(cpu, va + size - 1)) {
            raise_segment(cpu, seg);
        }
        return va;
    }
    if (!type_allows(cpu, s, access) || !in_limit(s, off, size)) {
        raise_segment(cpu, seg);
    }
    return (uint32_t)(s->base + off);
}

/* -- One page ---------------------------------------------------------------------------------- */
static void *host_of(const struct tlb_table *t, gva_t va)
{
    return (void *)(uintptr_t)(va + t->e[tlb_index(va)].addend);
}

static gpa_t gpa_of(const struct tlb_table *t, gva_t va)
{
    return t->gpa[tlb_index(va)] + va % GMEM_PAGE_SIZE;
}

/* The bus takes naturally aligned pieces of a power-of-two size. */
static unsigned piece(gpa_t gpa, unsigned len)
{
    unsigned n = len >= 8 ? 8 : len >= 4 ? 4 : len >= 2 ? 2 : 1;
    if (n == len) {
        return n; /* an access as the guest made it: split only by the bus */
    }
    while (gpa % n != 0) {
        n /= 2;
    }
    return n;
}

static void mmio_read(struct cpu *cpu, gpa_t gpa, uint8_t *buf, unsigned len)
{
    while (len != 0) {
        unsigned n = piece(gpa, len);
        uint64_t v = cpu->world->mmio_read(cpu->world->ctx, cpu, gpa, n);
        memcpy(buf, &v, n);
        buf += n;
        gpa += n;
        len -= n;
    }
}

static void mmio_write(struct cpu *cpu, gpa_t gpa, const uint8_t *buf, unsigned len)
{
    while (len != 0) {
        unsigned n = piece(gpa, len);
        uint64_t v = 0;
        memcpy(&v, buf, n);
        cpu->world->mmio_write(cpu->world->ctx, cpu, gpa, n, v);
        buf += n;
        gpa += n;
        len -= n;
    }
}

static void copy_in(void *buf, const void *host, unsigned len)
{
    if (len <= 8 && (len & (len - 1)) == 0) {
        uint64_t v = access_load(host, len);
        memcpy(buf, &v, len);
    } else {
        memcpy(buf, host, len);
    }
}

static void copy_out(void *host, const void *buf, unsigned len)
{
    if (len <= 8 && (len & (len - 1)) == 0) {
        uint64_t v = 0;
        memcpy(&v, buf, len);
        access_store(host, len, v);
    } else {
        memcpy(host, buf, len);
    }
}

/* t holds the page; [va, va+len) lies in it. */
static void page_read(struct cpu *cpu, struct tlb_table *t, gva_t va, void *buf, unsigned len)
{
    uint8_t kind = t->kind[tlb_index(va)];
    if ((kind & TLB_KIND) == TLB_MMIO) {
        mmio_read(cpu, gpa_of(t, va), buf, len);
    } else {
        copy_in(buf, host_of(t, va), len);
    }
    if (kind & TLB_WATCH) {
        cpu_watch_check(cpu, va, len, false);
    }
}

static uint64_t ram_page(const struct cpu *cpu, const void *host)
{
    return (uint64_t)((const uint8_t *)host - gmem_ram_host(cpu->mem)) >> GMEM_PAGE_BITS;
}

/* Store first, then tell: who is told looks at the new bytes. */
static void page_write(struct cpu *cpu, struct tlb_table *t, gva_t va, const void *buf,
                       unsigned len)
{
    uint8_t kind = t->kind[tlb_index(va)];
    gpa_t gpa = gpa_of(t, va);
    if ((kind & TLB_KIND) != TLB_RAM) {
        mmio_write(cpu, gpa, buf, len);
    } else {
        uint8_t *host = host_of(t, va);
        copy_out(host, buf, len);
        /* Pairs with who sets a flag and then reads the page: one of the two sees the other. */
        atomic_thread_fence(memory_order_seq_cst);
        _Atomic uint8_t *flags = &gmem_page_flags(cpu->mem)[ram_page(cpu, host)];
        uint8_t now = atomic_load_explicit(flags, memory_order_seq_cst);
        if (now & GMEM_PAGE_CODE) {
            cpu->world->code_written(cpu->world->ctx, cpu, gpa, len);
        }
        if (now & (uint8_t)~GMEM_PAGE_CODE) {
            gmem_mark_written(cpu->mem, gpa, len);
        }
        if (!(kind & TLB_WATCH)) {
            tlb_retag_write(cpu, t, va);
        }
    }
    if (kind & TLB_WATCH) {
        cpu_watch_check(cpu, va, len, true);
    }
}

/* -- Any range of one or two pages ----------------------------------------------------------------
 * Linear addresses wrap at 4 GiB outside 64-bit mode (SDM 3 3.3.5 says it is undefined to rely on
 * it; processors do wrap). */
static gva_t second_page(const struct cpu *cpu, gva_t va)
{
    gva_t next = align_down(va, GMEM_PAGE_SIZE) + GMEM_PAGE_SIZE;
    return cpu_long_mode(cpu) && cpu->mode == INSN_MODE_64 ? next : (uint32_t)next;
}

static void range_read(struct cpu *cpu, enum tlb_view view, gva_t va, void *buf, unsigned len)
{
    unsigned first = GMEM_PAGE_SIZE - (unsigned)(va % GMEM_PAGE_SIZE);
    struct tlb_table *t = tlb_get(cpu, view, va, MMU_READ);
    if (likely(len <= first)) {
        page_read(cpu, t, va, buf, len);
        return;
    }
    gva_t next = second_page(cpu, va);
    t = tlb_get(cpu, view, next, MMU_READ);
    page_read(cpu, t, va, buf, first);
    page_read(cpu, t, next, (uint8_t *)buf + first, len - first);
}

static void range_write(struct cpu *cpu, enum tlb_view view, gva_t va, const void *buf,
                        unsigned len)
{
    unsigned first = GMEM_PAGE_SIZE - (unsigned)(va % GMEM_PAGE_SIZE);
    struct tlb_table *t = tlb_get(cpu, view, va, MMU_WRITE);
    if (likely(len <= first)) {
        page_write(cpu, t, va, buf, len);
        return;
    }
    /* Two neighbouring pages never share an entry: the index takes the low page-number bits. */
    gva_t next = second_page(cpu, va);
    t = tlb_get(cpu, view, next, MMU_WRITE);
    page_write(cpu, t, va, buf, first);
    page_write(cpu, t, next, (const uint8_t *)buf + first, len - first);
}

static void check_canonical(struct cpu *cpu, gva_t va, unsigned size, unsigned seg)
{
    if (cpu->mode == INSN_MODE_64 &&
        unlikely(!mmu_canonical(cpu, va) || !mmu_canonical(cpu, va + size - 1))) {
        raise_segment(cpu, seg);
    }
}

/* Pages first: a page fault comes before an alignment check (SDM 3 table 6-2). */
static void check_alignment(struct cpu *cpu, gva_t va, unsigned size, enum mmu_access access)
{
    if (likely(!tlb_alignment_checked(cpu)) || (va & (size - 1)) == 0 || (size & (size - 1)) != 0) {
        return;
    }
    unsigned first = GMEM_PAGE_SIZE - (unsigned)(va % GMEM_PAGE_SIZE);
    (void)tlb_get(cpu, cpu->view, va, access);
    if (size > first) {
        (void)tlb_get(cpu, cpu->view, second_page(cpu, va), access);
    }
    cpu_raise_error(cpu, EXC_AC, 0);
}

uint64_t access_read_slow(struct cpu *cpu, gva_t va, unsigned size, unsigned seg)
{
    uint64_t v = 0;
    check_canonical(cpu, va, size, seg);
    check_alignment(cpu, va, size, MMU_READ);
    range_read(cpu, cpu->view, va, &v, size);
    return v;
}

void access_write_slow(struct cpu *cpu, gva_t va, unsigned size, uint64_t value, unsigned seg)
{
    check_canonical(cpu, va, size, seg);
    check_alignment(cpu, va, size, MMU_WRITE);
    range_write(cpu, cpu->view, va, &value, size);
}

void *access_rmw_slow(struct cpu *cpu, gva_t va, unsigned size, unsigned seg)
{
    check_canonical(cpu, va, size, seg);
    check_alignment(cpu, va, size, MMU_WRITE);
    struct tlb_table *t = tlb_get(cpu, cpu->view, va, MMU_WRITE);
    unsigned i = tlb_index(va);
    if (size > GMEM_PAGE_SIZE - va % GMEM_PAGE_SIZE) {
        (void)tlb_get(cpu, cpu->view, second_page(cpu, va), MMU_WRITE);
        return NULL;
    }
    if (t->kind[i] != TLB_RAM) {
        return NULL; /* MMIO, ROM, or watched */
    }
    uint8_t *host = host_of(t, va);
    uint8_t flags = atomic_load_explicit(&gmem_page_flags(cpu->mem)[ram_page(cpu, host)],
                                         memory_order_seq_cst);
    if (flags & GMEM_PAGE_CODE) {
        return NULL; /* must be told after the store */
    }
    if (flags != 0) {
        /* Before the store, which is as good: whoever re-arms flushes this TLB and waits for it. */
        gmem_mark_written(cpu->mem, gpa_of(t, va), size);
    }
    tlb_retag_write(cpu, t, va);
    return host;
}

/* -- By segment and offset --------------------------------------------------------------------- */
uint64_t cpu_read(struct cpu *cpu, unsigned seg, uint64_t off, unsigned size)
{
    switch (size) {
    case 1:
        return access_read(cpu, seg, off, 1);
    case 2:
        return access_read(cpu, seg, off, 2);
    case 4:
        return access_read(cpu, seg, off, 4);
    default:
        return access_read(cpu, seg, off, 8);
    }
}

void cpu_write(struct cpu *cpu, unsigned seg, uint64_t off, unsigned size, uint64_t value)
{
    switch (size) {
    case 1:
        access_write(cpu, seg, off, 1, value);
        break;
    case 2:
        access_write(cpu, seg, off, 2, value);
        break;
    case 4:
        access_write(cpu, seg, off, 4, value);
        break;
    default:
        access_write(cpu, seg, off, 8, value);
        break;
    }
}

void cpu_read_bytes(struct cpu *cpu, unsigned seg, uint64_t off, void *buf, unsigned len)
{
    gva_t va = cpu_linear(cpu, seg, off, len, MMU_READ);
    const struct tlb_entry *e = access_entry(cpu, va);
    if (likely(((va + (len - 1)) & ACCESS_PAGE_MASK) == e->tag_read)) {
        copy_in(buf, (const void *)(uintptr_t)(va + e->addend), len);
        return;
    }
    check_alignment(cpu, va, len, MMU_READ);
    range_read(cpu, cpu->view, va, buf, len);
}

void cpu_write_bytes(struct cpu *cpu, unsigned seg, uint64_t off, const void *buf, unsigned len)
{
    gva_t va = cpu_linear(cpu, seg, off, len, MMU_WRITE);
    const struct tlb_entry *e = access_entry(cpu, va);
    if (likely(((va + (len - 1)) & ACCESS_PAGE_MASK) == e->tag_write)) {
        copy_out((void *)(uintptr_t)(va + e->addend), buf, len);
        return;
    }
    check_alignment(cpu, va, len, MMU_WRITE);
    range_write(cpu, cpu->view, va, buf, len);
}

void cpu_probe_write(struct cpu *cpu, unsigned seg, uint64_t off, unsigned len)
{
    gva_t va = cpu_linear(cpu, seg, off, len, MMU_WRITE);
    check_alignment(cpu, va, len, MMU_WRITE);
    (void)tlb_get(cpu, cpu->view, va, MMU_WRITE);
    if (len > GMEM_PAGE_SIZE - va % GMEM_PAGE_SIZE) {
        (void)tlb_get(cpu, cpu->view, second_page(cpu, va), MMU_WRITE);
    }
}

void *cpu_host_rmw(struct cpu *cpu, unsigned seg, uint64_t off, unsigned size)
{
    return access_rmw(cpu, seg, off, size);
}

/* -- Implicit supervisor accesses: AC does not lift SMAP for them (SDM 3 4.6) ------------------ */
static enum tlb_view system_view(const struct cpu *cpu)
{
    return cpu->cr4 & CR4_SMAP ? TLB_VIEW_SUPER_SMAP : TLB_VIEW_SUPER;
}

uint64_t cpu_view_read(struct cpu *cpu, enum tlb_view view, gva_t va, unsigned size)
{
    uint64_t v = 0;
    range_read(cpu, view, va, &v, size);
    return v;
}

void cpu_view_write(struct cpu *cpu, enum tlb_view view, gva_t va, unsigned size, uint64_t value)
{
    range_write(cpu, view, va, &value, size);
}

uint64_t cpu_sys_read(struct cpu *cpu, gva_t va, unsigned size)
{
    return cpu_view_read(cpu, system_view(cpu), va, size);
}

void cpu_sys_write(struct cpu *cpu, gva_t va, unsigned size, uint64_t value)
{
    cpu_view_write(cpu, system_view(cpu), va, size, value);
}

/* -- Instruction fetch ------------------------------------------------------------------------- */
const uint8_t *cpu_fetch_page(struct cpu *cpu, gva_t va, gpa_t *gpa)
{
    struct tlb_table *t = tlb_get(cpu, cpu->view, va, MMU_EXEC);
    *gpa = gpa_of(t, va);
    return (t->kind[tlb_index(va)] & TLB_KIND) == TLB_MMIO ? NULL : host_of(t, va);
}

/* Would fetching from va fault? Fills the TLB when not. */
static bool fetch_allowed(struct cpu *cpu, gva_t va)
{
    struct mmu_page m;
    uint32_t error;
    return mmu_translate(cpu, va, MMU_EXEC, cpu->view, &m, &error) == 0;
}

unsigned cpu_fetch(struct cpu *cpu, gva_t va, uint8_t *buf, unsigned want)
{
    unsigned first = GMEM_PAGE_SIZE - (unsigned)(va % GMEM_PAGE_SIZE);
    struct tlb_table *t = tlb_get(cpu, cpu->view, va, MMU_EXEC);
    unsigned n = want < first ? want : first;
    bool mmio = (t->kind[tlb_index(va)] & TLB_KIND) == TLB_MMIO;
    if (mmio) {
        mmio_read(cpu, gpa_of(t, va), buf, n);
    } else {
        memcpy(buf, host_of(t, va), n);
    }
    gva_t next = second_page(cpu, va);
    if (want <= first || !mmu_canonical(cpu, next) || !fetch_allowed(cpu, next)) {
        return n;
    }
    t = tlb_get(cpu, cpu->view, next, MMU_EXEC);
    if ((t->kind[tlb_index(next)] & TLB_KIND) == TLB_MMIO) {
        mmio_read(cpu, gpa_of(t, next), buf + first, want - first);
    } else {
        memcpy(buf + first, host_of(t, next), want - first);
    }
    return want;
}
