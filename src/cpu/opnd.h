/* SPDX-License-Identifier: Apache-2.0
 *
 * Operands of the integer helpers: registers, immediates, memory; read-modify-write of memory,
 * plain and locked. Used by sem_*.c only.
 */
#ifndef SOSIA_CPU_OPND_H
#define SOSIA_CPU_OPND_H

#include "cpu/access_fast.h"
#include "cpu/alu.h"
#include "cpu/except.h"
#include "cpu/sem.h"

static inline uint64_t gpr_read(const struct cpu *cpu, unsigned reg, unsigned size)
{
    switch (size) {
    case 1:
        return reg >= 16 ? (uint8_t)(cpu->gpr[reg - 16] >> 8) : (uint8_t)cpu->gpr[reg];
    case 2:
        return (uint16_t)cpu->gpr[reg];
    case 4:
        return (uint32_t)cpu->gpr[reg];
    default:
        return cpu->gpr[reg];
    }
}

static inline void gpr_write(struct cpu *cpu, unsigned reg, unsigned size, uint64_t v)
{
    switch (size) {
    case 1:
        if (reg >= 16) {
            cpu->gpr[reg - 16] = (cpu->gpr[reg - 16] & ~0xff00ull) | (v & 0xff) << 8;
        } else {
            cpu->gpr[reg] = (cpu->gpr[reg] & ~0xffull) | (v & 0xff);
        }
        break;
    case 2:
        cpu->gpr[reg] = (cpu->gpr[reg] & ~0xffffull) | (v & 0xffff);
        break;
    case 4:
        cpu->gpr[reg] = (uint32_t)v;
        break;
    default:
        cpu->gpr[reg] = v;
        break;
    }
}

static inline uint64_t mask_size(uint64_t v, unsigned size) { return v & MASK64(size * 8); }

static inline int64_t sign_extend(uint64_t v, unsigned size)
{
    unsigned shift = 64 - size * 8;
    return (int64_t)(v << shift) >> shift;
}

static inline uint64_t opnd_read(struct cpu *cpu, const struct insn *in, unsigned i)
{
    const struct opnd *o = &in->opnd[i];
    switch (o->kind) {
    case OPND_GPR:
        return gpr_read(cpu, o->reg, o->size);
    case OPND_MEM:
        return cpu_read(cpu, in->mem.seg, cpu_effective_address(cpu, in), o->size);
    default:
        return (uint64_t)in->imm;
    }
}

static inline void opnd_write(struct cpu *cpu, const struct insn *in, unsigned i, uint64_t v)
{
    const struct opnd *o = &in->opnd[i];
    if (o->kind == OPND_GPR) {
        gpr_write(cpu, o->reg, o->size, v);
    } else {
        cpu_write(cpu, in->mem.seg, cpu_effective_address(cpu, in), o->size, v);
    }
}

/* A locked access that crosses a cache line is very slow on the host, and forbidden on some. */
static inline bool rmw_splits_line(const void *p, unsigned size)
{
    return ((uintptr_t)p & 63) + size > 64;
}

typedef uint64_t rmw_plain_fn(unsigned size, uint64_t a, uint64_t b, uint32_t *fl);
typedef void rmw_locked_fn(unsigned size, void *p, uint64_t b, uint32_t *fl);

/* Memory at seg:off becomes plain(memory, b). locked: the atomic form, NULL when there is none. */
static inline __attribute__((always_inline)) void rmw_memory(struct cpu *cpu, const struct insn *in,
                                                             uint64_t off, unsigned size,
                                                             uint64_t b, uint32_t *fl,
                                                             rmw_plain_fn *plain,
                                                             rmw_locked_fn *locked)
{
    bool lock = locked != NULL && (in->flags & INSN_LOCK);
    unsigned seg = in->mem.seg;
    void *p = cpu_host_rmw(cpu, seg, off, size);
    if (likely(p != NULL && !lock)) {
        access_store(p, size, plain(size, access_load(p, size), b, fl));
        return;
    }
    if (likely(p != NULL && !rmw_splits_line(p, size))) {
        locked(size, p, b, fl);
        return;
    }
    cpu_probe_write(cpu, seg, off, size);
    if (lock) {
        cpu_exclusive_begin(cpu);
    }
    cpu_write(cpu, seg, off, size, plain(size, cpu_read(cpu, seg, off, size), b, fl));
    if (lock) {
        cpu_exclusive_end(cpu);
    }
}

/* Operand 0, register or memory, becomes plain(operand 0, b). */
static inline __attribute__((always_inline)) void rmw_operand(struct cpu *cpu,
                                                              const struct insn *in, uint64_t b,
                                                              rmw_plain_fn *plain,
                                                              rmw_locked_fn *locked)
{
    const struct opnd *o = &in->opnd[0];
    uint32_t fl = alu_pack(cpu->rflags);
    if (o->kind == OPND_GPR) {
        gpr_write(cpu, o->reg, o->size, plain(o->size, gpr_read(cpu, o->reg, o->size), b, &fl));
    } else {
        rmw_memory(cpu, in, cpu_effective_address(cpu, in), o->size, b, &fl, plain, locked);
    }
    cpu->rflags = alu_merge(cpu->rflags, fl);
}

#endif
