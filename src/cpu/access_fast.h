/* SPDX-License-Identifier: Apache-2.0
 *
 * The hit paths of cpu/access.h, inline: segment and software TLB in a handful of instructions.
 * Everything unusual goes to the *_slow functions, which raise or do the access.  Thread: [vcpu].
 *
 * In 64-bit mode no canonical check is made here: the TLB holds only canonical pages.
 */
#ifndef SOSIA_CPU_ACCESS_FAST_H
#define SOSIA_CPU_ACCESS_FAST_H

#include "base/bits.h"
#include "cpu/access.h"

/* One load or store instruction each, at any alignment: guests rely on aligned accesses being
 * single, and other vCPUs and devices change memory under us. */
struct access_u16 {
    uint16_t v;
} __attribute__((packed, may_alias));
struct access_u32 {
    uint32_t v;
} __attribute__((packed, may_alias));
struct access_u64 {
    uint64_t v;
} __attribute__((packed, may_alias));

static inline __attribute__((always_inline)) uint64_t access_load(const void *p, unsigned size)
{
    switch (size) {
    case 1:
        return *(const volatile uint8_t *)p;
    case 2:
        return ((const volatile struct access_u16 *)p)->v;
    case 4:
        return ((const volatile struct access_u32 *)p)->v;
    default:
        return ((const volatile struct access_u64 *)p)->v;
    }
}

static inline __attribute__((always_inline)) void access_store(void *p, unsigned size, uint64_t v)
{
    switch (size) {
    case 1:
        *(volatile uint8_t *)p = (uint8_t)v;
        break;
    case 2:
        ((volatile struct access_u16 *)p)->v = (uint16_t)v;
        break;
    case 4:
        ((volatile struct access_u32 *)p)->v = (uint32_t)v;
        break;
    default:
        ((volatile struct access_u64 *)p)->v = v;
        break;
    }
}

#define ACCESS_PAGE_MASK (~(gva_t)(GMEM_PAGE_SIZE - 1))

static inline __attribute__((always_inline)) gva_t access_linear(struct cpu *cpu, unsigned seg,
                                                                 uint64_t off, unsigned size,
                                                                 enum mmu_access access)
{
    const struct cpu_seg *s = &cpu->seg[seg];
    if (likely(cpu->mode == INSN_MODE_64)) {
        return seg >= SEG_FS ? s->base + off : off;
    }
    /* writable data, not expand-down, not null: valid for all */
    if (likely((s->attr & (SEG_ATTR_NULL | SEG_ATTR_S | 0xe)) == (SEG_ATTR_S | 2) &&
               off + (size - 1) <= s->limit)) {
        return (uint32_t)(s->base + off);
    }
    return cpu_linear(cpu, seg, off, size, access);
}

static inline __attribute__((always_inline)) struct tlb_entry *access_entry(struct cpu *cpu,
                                                                            gva_t va)
{
    return &cpu->tlb[(va >> GMEM_PAGE_BITS) & (CPU_TLB_SIZE - 1)];
}

static inline __attribute__((always_inline)) uint64_t access_read(struct cpu *cpu, unsigned seg,
                                                                  uint64_t off, unsigned size)
{
    gva_t va = access_linear(cpu, seg, off, size, MMU_READ);
    const struct tlb_entry *e = access_entry(cpu, va);
    if (likely(((va + (size - 1)) & ACCESS_PAGE_MASK) == e->tag_read)) {
        return access_load((const void *)(uintptr_t)(va + e->addend), size);
    }
    return access_read_slow(cpu, va, size, seg);
}

static inline __attribute__((always_inline)) void access_write(struct cpu *cpu, unsigned seg,
                                                               uint64_t off, unsigned size,
                                                               uint64_t v)
{
    gva_t va = access_linear(cpu, seg, off, size, MMU_WRITE);
    const struct tlb_entry *e = access_entry(cpu, va);
    if (likely(((va + (size - 1)) & ACCESS_PAGE_MASK) == e->tag_write)) {
        access_store((void *)(uintptr_t)(va + e->addend), size, v);
        return;
    }
    access_write_slow(cpu, va, size, v, seg);
}

/* cpu_host_rmw, inline. */
static inline __attribute__((always_inline)) void *access_rmw(struct cpu *cpu, unsigned seg,
                                                              uint64_t off, unsigned size)
{
    gva_t va = access_linear(cpu, seg, off, size, MMU_WRITE);
    const struct tlb_entry *e = access_entry(cpu, va);
    if (likely(((va + (size - 1)) & ACCESS_PAGE_MASK) == e->tag_write)) {
        return (void *)(uintptr_t)(va + e->addend);
    }
    return access_rmw_slow(cpu, va, size, seg);
}

/* Something waits that cpu_poll_events would act on now. An interrupt that IF keeps out stays in
 * `events` for as long as the controller holds it up, and must not cost anything. */
static inline bool access_must_poll(const struct cpu *cpu)
{
    uint32_t ev = atomic_load_explicit(&cpu->events, memory_order_relaxed);
    return unlikely(ev != 0) && !(ev == CPU_EV_INTR && !(cpu->rflags & FLAG_IF));
}

#endif
