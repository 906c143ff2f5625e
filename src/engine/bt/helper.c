/* SPDX-License-Identifier: Apache-2.0
 *
 * C that translated code calls, through the stubs. On entry the general registers are in struct
 * cpu; the vector registers may still be the guest's, on the host's: bt_fill must not touch them
 * (this file is compiled for general registers only), bt_call_helper puts them away first.
 */
#include "base/bits.h"
#include "cpu/access.h"
#include "cpu/step.h"
#include "engine/bt/bt.h"

#define HOST_FLAGS 0xd5u /* SF ZF AF PF CF as LAHF has them */

void bt_flags_to_cpu(struct cpu *cpu)
{
    uint16_t f = bt_hot(cpu)->flags;
    cpu->rflags = (cpu->rflags & ~FLAGS_ARITH) | (f >> 8 & HOST_FLAGS) | (f & 1 ? FLAG_OF : 0);
}

void bt_flags_from_cpu(struct cpu *cpu)
{
    bt_hot(cpu)->flags = (uint16_t)((cpu->rflags & HOST_FLAGS) << 8 | 0x200 |
                                    (cpu->rflags & FLAG_OF ? 1 : 0));
}

void bt_fp_save(struct cpu *cpu)
{
    struct bt_vcpu *v = cpu->engine;
    if (bt_hot(cpu)->fp_loaded)
        ((void (*)(struct cpu *))(uintptr_t)v->bt->stubs.fp_save)(cpu);
}

static void fp_load(struct cpu *cpu)
{
    struct bt_vcpu *v = cpu->engine;
    ((void (*)(struct cpu *))(uintptr_t)v->bt->stubs.fp_load_c)(cpu);
}

void bt_intr_undefer(struct cpu *cpu)
{
    struct bt_hot *hot = bt_hot(cpu);
    if (unlikely(hot->intr_deferred) && (cpu->rflags & FLAG_IF)) {
        hot->intr_deferred = 0;
        cpu_raise_event(cpu, CPU_EV_INTR);
    }
}

/* Translation or protection of the stack's page may have changed. */
void bt_stack_forget(struct cpu *cpu)
{
    bt_hot(cpu)->stack_page = BT_NO_STACK;
    bt_hot(cpu)->stack_addend = bt_hot(cpu)->no_stack_addend;
}

enum { GO_ON = 0, LEAVE = 1, RESUME = 2 };

/* After a branch or a change of mode: straight to the code at rip, when it is known. */
static uint64_t go_to_rip(struct cpu *cpu)
{
    uint32_t mode = bt_mode_of(cpu);
    if (!bt_jumps_usable(mode))
        return LEAVE;
    bt_update_key(cpu, mode);
    const uint8_t *code = bt_jump_find(cpu, cpu->rip);
    if (code == NULL)
        return LEAVE;
    bt_hot(cpu)->resume = (uintptr_t)code;
    return RESUME;
}

/* Where the exec TLB has the page of va; 0: it does not. */
static uint64_t code_mapping(const struct cpu *cpu, uint64_t va)
{
    const struct tlb_entry *e = &cpu->tlb[va >> GMEM_PAGE_BITS & (CPU_TLB_SIZE - 1)];
    return e->tag_exec == (va & ~0xfffull) ? e->addend : 0;
}

uint64_t bt_call_helper(struct cpu *cpu, uint32_t number)
{
    struct bt_vcpu *v = cpu->engine;
    bt_fp_save(cpu);
    const struct bt_call *s = bt_call_of(v, number & ~BT_SITE_WRITE);
    bt_flags_to_cpu(cpu);
    cpu->insn = &s->insn;
    uint64_t slide = s->mode & BT_MODE_SLIDING ? bt_hot(cpu)->slide : 0;
    uint64_t next = s->next + slide;
    cpu->insn_ip = s->ip + slide;
    cpu->rip = next;
    v->stats.helpers[s->insn.op]++;
    cpu->icount += s->uncounted;
    v->counted = v->bt->config.virtual_time;
    uint64_t va = cpu->insn_ip + (cpu->mode == INSN_MODE_64 ? 0 : cpu->seg[SEG_CS].base);
    uint64_t mapping = s->ends_block ? code_mapping(cpu, va) : 0;
    s->fn(cpu, &s->insn);
    if (unlikely(v->counted)) {
        v->counted = false;
        cpu->icount -= cpu_goes_on(cpu, &s->insn);
    }
    bt_stack_forget(cpu);
    bt_flags_from_cpu(cpu);
    bt_intr_undefer(cpu);
    if (unlikely(cpu->activity != CPU_ACTIVE) ||
        atomic_load_explicit(&cpu->events, memory_order_relaxed) != 0)
        return LEAVE;
    if (s->branch)
        return go_to_rip(cpu);
    if (unlikely(cpu->rip != next))
        return LEAVE;
    if (s->leaves)
        return go_to_rip(cpu);
    if (s->ends_block) {
        uint32_t mode = bt_mode_of(cpu);
        if (mode != (s->mode & BT_KEY_MODE) || mapping == 0 || code_mapping(cpu, va) != mapping)
            return go_to_rip(cpu); /* the next instruction may be another one now */
        bt_update_key(cpu, mode);
    }
    if (s->fp_live)
        fp_load(cpu);
    bt_hot(cpu)->resume = (uintptr_t)(v->bt->cache.exec + s->resume);
    cpu->icount -= s->uncounted;
    return GO_ON;
}

/* The mode is that of the block which looks: nothing has changed it since. */
const uint8_t *bt_find_code(struct cpu *cpu, uint64_t rip)
{
    struct bt_vcpu *v = cpu->engine;
    uint32_t mode = bt_hot(cpu)->key & BT_KEY_MODE;
    struct bt_code_at at = { .pc = rip, .mode = mode };
    at.bytes = tlb_code_at(cpu, rip, &at.gpa);
    if (at.bytes == NULL)
        return NULL;
    v->stats.finds++;
    const struct bt_block *b = bt_cache_find(v->bt, &at, 0);
    if (b == NULL && (mode & BT_MODE_USER)) {
        at.mode |= BT_MODE_SLIDING;
        b = bt_cache_find(v->bt, &at, 0);
    }
    if (b == NULL || b->split)
        return NULL;
    bool global = tlb_page_global(cpu, rip);
    if (!(mode & BT_MODE_USER) && !global && !v->super_local)
        return NULL; /* bt_jump_add would change the key, and may clear caches by libc's means */
    const uint8_t *landing = bt_landing(&v->bt->cache, b);
    bt_jump_add(cpu, rip, landing, global, false);
    return landing;
}

static struct bt_fill_result slow_access(struct bt_vcpu *v, enum bt_slow_reason why)
{
    v->stats.slow[why]++;
    return (struct bt_fill_result){ 0, 0 };
}

struct bt_fill_result bt_fill(struct cpu *cpu, uint64_t va, uint32_t number)
{
    struct bt_vcpu *v = cpu->engine;
    const struct bt_site *s = bt_site_at(&v->bt->cache, number & ~BT_SITE_WRITE);
    bool write = (number & BT_SITE_WRITE) != 0;
    uint64_t page = va & ~0xfffull;
    bool plain = ((va + s->size - 1) & ~0xfffull) == page && !(s->aligned && (va & (s->size - 1u)));
    *(write ? &v->stats.fills_write : &v->stats.fills_read) += 1;
    if (!plain)
        return slow_access(v, BT_SLOW_CROSSING);
    if (!tlb_fill_quiet(cpu, va, write ? MMU_WRITE : MMU_READ))
        return slow_access(v, BT_SLOW_FAULT);
    const struct tlb_entry *e = &cpu->tlb[va >> GMEM_PAGE_BITS & (CPU_TLB_SIZE - 1)];
    if ((write ? e->tag_write : e->tag_read) != page)
        return slow_access(v, BT_SLOW_SPECIAL);
    return (struct bt_fill_result){ e->addend, 1 };
}

struct bt_fill_result bt_fill_group(struct cpu *cpu, uint64_t va, uint32_t what)
{
    const struct tlb_entry *e = &cpu->tlb[va >> GMEM_PAGE_BITS & (CPU_TLB_SIZE - 1)];
    uint64_t page = va & ~0xfffull;
    bool write = (what & BT_SITE_WRITE) != 0;
    struct bt_fill_result none = { 0, 0 };
    if (((va + (what & 0xffff) - 1) & ~0xfffull) != page)
        return none;
    if ((write ? e->tag_write : e->tag_read) != page &&
        (!tlb_fill_quiet(cpu, va, write ? MMU_WRITE : MMU_READ) ||
         (write ? e->tag_write : e->tag_read) != page))
        return none;
    if (what & BT_GROUP_STACK) {
        bt_hot(cpu)->stack_page = page;
        bt_hot(cpu)->stack_addend = e->addend;
    }
    return (struct bt_fill_result){ e->addend, 1 };
}
