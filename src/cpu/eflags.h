/* SPDX-License-Identifier: Apache-2.0
 *
 * Who may change which flag, by POPF, IRET, CLI and STI (SDM 3 20.3, 20.4).  Thread: [vcpu].
 */
#ifndef SOSIA_CPU_EFLAGS_H
#define SOSIA_CPU_EFLAGS_H

#include "cpu/except.h"

/* Anybody may change these. */
#define FLAGS_USER (FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT | FLAG_AC | FLAG_ID)

static inline unsigned eflags_iopl(const struct cpu *cpu)
{
    return (unsigned)((cpu->rflags & FLAG_IOPL) >> 12);
}

/* Flags that POPF and IRET may change at this CPL, outside virtual-8086 mode. */
static inline uint64_t eflags_writable(const struct cpu *cpu)
{
    return FLAGS_USER | (cpu->cpl <= eflags_iopl(cpu) ? FLAG_IF : 0) |
           (cpu->cpl == 0 ? FLAG_IOPL : 0);
}

/* A 16-bit image leaves the upper flags as they are. */
static inline uint64_t eflags_widen(const struct cpu *cpu, uint64_t image, unsigned size)
{
    return size == 2 ? (cpu->rflags & ~0xffffull) | (image & 0xffff) : image;
}

/* POPF and IRET of 16 bits in virtual-8086 mode with VME and IOPL < 3: IF of the image is VIF.
 * #GP(0) when the task would be interruptible with an interrupt pending, or single-stepping. */
static inline void eflags_load_vme(struct cpu *cpu, uint64_t image)
{
    if ((image & FLAG_TF) || ((image & FLAG_IF) && (cpu->rflags & FLAG_VIP))) {
        cpu_raise_error(cpu, EXC_GP, 0);
    }
    const uint64_t mask = (FLAGS_USER & 0xffff) | FLAG_VIF;
    uint64_t value = image | (image & FLAG_IF ? FLAG_VIF : 0);
    cpu->rflags = (cpu->rflags & ~mask) | (value & mask) | FLAG_FIXED;
}

#endif
