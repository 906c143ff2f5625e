/* SPDX-License-Identifier: Apache-2.0
 *
 * From the near branch that ends a block to the next block, without the run loop. */
#include "engine/interp/interp.h"

const struct block block_nowhere;

static inline __attribute__((always_inline)) uint32_t chain(struct cpu *cpu, uint64_t rip,
                                                            struct block **cache, uint32_t fl,
                                                            enum insn_mode mode)
{
    struct interp_cpu *ic = cpu->engine;
    cpu->rip = rip;
    if (unlikely(cpu->icount >= ic->limit ||
                 atomic_load_explicit(&cpu->events, memory_order_acquire) != 0)) {
        return fl;
    }
    struct block *b = block_find(ic, cpu, rip, mode);
    if (unlikely(b == NULL)) {
        return fl;
    }
    /* While this page is the one mapped here, so is the target's. */
    if (cache != NULL && mode == INSN_MODE_64 && ((rip ^ ic->base) & ACCESS_PAGE_MASK) == 0) {
        *cache = b;
    }
    cpu->icount += b->count;
    return block_enter(ic, cpu, b, rip, fl);
}

uint32_t chain_64(struct cpu *cpu, uint64_t rip, struct block **cache, uint32_t fl)
{
    return chain(cpu, rip, cache, fl, INSN_MODE_64);
}

uint32_t chain_32(struct cpu *cpu, uint64_t rip, struct block **cache, uint32_t fl)
{
    return chain(cpu, rip, cache, fl, cpu->mode == INSN_MODE_32 ? INSN_MODE_32 : INSN_MODE_16);
}
