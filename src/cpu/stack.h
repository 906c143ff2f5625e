/* SPDX-License-Identifier: Apache-2.0
 *
 * The stack as instructions use it: SS, and a pointer of 16, 32 or 64 bits (SDM 1 6.2.3).
 */
#ifndef SOSIA_CPU_STACK_H
#define SOSIA_CPU_STACK_H

#include "cpu/access_fast.h"

static inline uint64_t stack_mask(const struct cpu *cpu)
{
    return cpu->mode == INSN_MODE_64                 ? ~0ull
           : cpu->seg[SEG_SS].attr & SEG_ATTR_DB ? 0xffffffffull
                                                     : 0xffffull;
}

/* rSP becomes sp: a 16-bit stack keeps the upper bits, a 32-bit one clears them. */
static inline void stack_set(struct cpu *cpu, uint64_t sp)
{
    uint64_t mask = stack_mask(cpu);
    cpu->gpr[R_SP] = mask == 0xffff ? (cpu->gpr[R_SP] & ~mask) | (sp & mask) : sp & mask;
}

/* sp is masked here. */
static inline uint64_t stack_read(struct cpu *cpu, uint64_t sp, unsigned size)
{
    return cpu_read(cpu, SEG_SS, sp & stack_mask(cpu), size);
}

static inline void stack_write(struct cpu *cpu, uint64_t sp, unsigned size, uint64_t v)
{
    cpu_write(cpu, SEG_SS, sp & stack_mask(cpu), size, v);
}

static inline void stack_probe(struct cpu *cpu, uint64_t sp, unsigned size)
{
    cpu_probe_write(cpu, SEG_SS, sp & stack_mask(cpu), size);
}

static inline void stack_push(struct cpu *cpu, unsigned size, uint64_t v)
{
    uint64_t sp = cpu->gpr[R_SP] - size;
    stack_write(cpu, sp, size, v);
    stack_set(cpu, sp);
}

#endif
