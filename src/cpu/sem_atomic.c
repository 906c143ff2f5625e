/* SPDX-License-Identifier: Apache-2.0
 *
 * XCHG XADD CMPXCHG CMPXCHG8B CMPXCHG16B. With LOCK, and XCHG with memory always, they are the
 * host's own locked instructions on the guest's memory. */
#include "cpu/opnd.h"
#include "cpu/sem_decls.h"

enum atomic_how { HOW_HOST_LOCKED, HOW_PLAIN, HOW_EXCLUSIVE };

/* Sets *p for HOW_HOST_LOCKED. HOW_EXCLUSIVE: cpu_exclusive_begin was called. Faults first. */
static enum atomic_how atomic_begin(struct cpu *cpu, const struct insn *in, uint64_t off,
                                    unsigned size, bool lock, void **p)
{
    *p = cpu_host_rmw(cpu, in->mem.seg, off, size);
    if (likely(*p != NULL && !(lock && rmw_splits_line(*p, size)))) {
        return HOW_HOST_LOCKED;
    }
    cpu_probe_write(cpu, in->mem.seg, off, size);
    if (!lock) {
        return HOW_PLAIN;
    }
    cpu_exclusive_begin(cpu);
    return HOW_EXCLUSIVE;
}

static void atomic_end(struct cpu *cpu, enum atomic_how how)
{
    if (how == HOW_EXCLUSIVE) {
        cpu_exclusive_end(cpu);
    }
}

void sem_xchg(struct cpu *cpu, const struct insn *in)
{
    unsigned size = in->opnd[0].size;
    if (in->opnd[0].kind == OPND_GPR && in->opnd[1].kind == OPND_GPR) {
        uint64_t a = gpr_read(cpu, in->opnd[0].reg, size);
        uint64_t b = gpr_read(cpu, in->opnd[1].reg, size);
        gpr_write(cpu, in->opnd[0].reg, size, b);
        gpr_write(cpu, in->opnd[1].reg, size, a);
        return;
    }
    unsigned reg = in->opnd[in->opnd[0].kind == OPND_GPR ? 0 : 1].reg;
    uint64_t v = gpr_read(cpu, reg, size);
    uint64_t off = cpu_effective_address(cpu, in);
    void *p;
    enum atomic_how how = atomic_begin(cpu, in, off, size, true, &p);
    uint64_t old;
    if (likely(how == HOW_HOST_LOCKED)) {
        old = ALU_BY_SIZE(size, lock_xchg, p, v);
    } else {
        old = cpu_read(cpu, in->mem.seg, off, size);
        cpu_write(cpu, in->mem.seg, off, size, v);
    }
    atomic_end(cpu, how);
    gpr_write(cpu, reg, size, old);
}

void sem_xadd(struct cpu *cpu, const struct insn *in)
{
    unsigned size = in->opnd[0].size;
    unsigned reg = in->opnd[1].reg;
    uint64_t b = gpr_read(cpu, reg, size);
    uint32_t fl = alu_pack(cpu->rflags);
    uint64_t old;
    if (in->opnd[0].kind == OPND_GPR) {
        old = gpr_read(cpu, in->opnd[0].reg, size);
        uint64_t sum = ALU_BY_SIZE(size, alu_add, old, b, &fl);
        /* Both the same register: the sum stays. */
        gpr_write(cpu, reg, size, old);
        gpr_write(cpu, in->opnd[0].reg, size, sum);
        cpu->rflags = alu_merge(cpu->rflags, fl);
        return;
    }
    uint64_t off = cpu_effective_address(cpu, in);
    void *p;
    enum atomic_how how = atomic_begin(cpu, in, off, size, in->flags & INSN_LOCK, &p);
    if (likely(how == HOW_HOST_LOCKED)) {
        old = ALU_BY_SIZE(size, lock_xadd, p, b, &fl);
    } else {
        old = cpu_read(cpu, in->mem.seg, off, size);
        cpu_write(cpu, in->mem.seg, off, size, ALU_BY_SIZE(size, alu_add, old, b, &fl));
    }
    atomic_end(cpu, how);
    gpr_write(cpu, reg, size, old);
    cpu->rflags = alu_merge(cpu->rflags, fl);
}

/* Memory is written in either case, so that it must be writable (SDM 2, CMPXCHG). Of the two
 * registers only the one that gets a new value loses its upper half to a 32-bit operand. */
void sem_cmpxchg(struct cpu *cpu, const struct insn *in)
{
    unsigned size = in->opnd[0].size;
    uint64_t expect = gpr_read(cpu, R_AX, size);
    uint64_t desired = gpr_read(cpu, in->opnd[1].reg, size);
    uint32_t fl = alu_pack(cpu->rflags);
    uint64_t old;
    if (in->opnd[0].kind == OPND_GPR) {
        unsigned reg = in->opnd[0].reg;
        old = gpr_read(cpu, reg, size);
        ALU_BY_SIZE(size, alu_cmp, expect, old, &fl);
        if (old == expect) {
            gpr_write(cpu, reg, size, desired);
        }
    } else {
        uint64_t off = cpu_effective_address(cpu, in);
        void *p;
        enum atomic_how how = atomic_begin(cpu, in, off, size, in->flags & INSN_LOCK, &p);
        if (likely(how == HOW_HOST_LOCKED)) {
            old = ALU_BY_SIZE(size, lock_cmpxchg, p, expect, desired, &fl);
        } else {
            old = cpu_read(cpu, in->mem.seg, off, size);
            ALU_BY_SIZE(size, alu_cmp, expect, old, &fl);
            cpu_write(cpu, in->mem.seg, off, size, old == expect ? desired : old);
        }
        atomic_end(cpu, how);
    }
    if (old != expect) {
        gpr_write(cpu, R_AX, size, old);
    }
    cpu->rflags = alu_merge(cpu->rflags, fl);
}

void sem_cmpxchg8b(struct cpu *cpu, const struct insn *in)
{
    uint64_t expect = (cpu->gpr[R_DX] << 32) | (uint32_t)cpu->gpr[R_AX];
    uint64_t desired = (cpu->gpr[R_CX] << 32) | (uint32_t)cpu->gpr[R_BX];
    uint64_t off = cpu_effective_address(cpu, in);
    void *p;
    enum atomic_how how = atomic_begin(cpu, in, off, 8, in->flags & INSN_LOCK, &p);
    uint64_t old;
    if (likely(how == HOW_HOST_LOCKED)) {
        uint32_t ignored = 0;
        old = lock_cmpxchg_64(p, expect, desired, &ignored);
    } else {
        old = cpu_read(cpu, in->mem.seg, off, 8);
        cpu_write(cpu, in->mem.seg, off, 8, old == expect ? desired : old);
    }
    atomic_end(cpu, how);
    if (old == expect) {
        cpu->rflags |= FLAG_ZF;
    } else {
        cpu->rflags &= ~FLAG_ZF;
        cpu->gpr[R_AX] = (uint32_t)old;
        cpu->gpr[R_DX] = old >> 32;
    }
}

static alu_u128 host_cmpxchg16b(void *p, alu_u128 expect, alu_u128 desired)
{
    uint64_t lo = (uint64_t)expect;
    uint64_t hi = (uint64_t)(expect >> 64);
    __asm__ volatile("lock cmpxchg16b %2"
                     : "+a"(lo), "+d"(hi), "+m"(*(alu_u128 *)p)
                     : "b"((uint64_t)desired), "c"((uint64_t)(desired >> 64))
                     : "cc", "memory");
    return (alu_u128)hi << 64 | lo;
}

void sem_cmpxchg16b(struct cpu *cpu, const struct insn *in)
{
    alu_u128 expect = (alu_u128)cpu->gpr[R_DX] << 64 | cpu->gpr[R_AX];
    alu_u128 desired = (alu_u128)cpu->gpr[R_CX] << 64 | cpu->gpr[R_BX];
    uint64_t off = cpu_effective_address(cpu, in);
    if ((off + (in->mem.seg >= SEG_FS ? cpu->seg[in->mem.seg].base : 0)) & 15) {
        cpu_raise_error(cpu, EXC_GP, 0); /* before the address is looked at: 64-bit mode only */
    }
    void *p;
    enum atomic_how how = atomic_begin(cpu, in, off, 16, true, &p);
    alu_u128 old;
    if (likely(how == HOW_HOST_LOCKED)) {
        old = host_cmpxchg16b(p, expect, desired);
    } else {
        cpu_read_bytes(cpu, in->mem.seg, off, &old, 16);
        alu_u128 v = old == expect ? desired : old;
        cpu_write_bytes(cpu, in->mem.seg, off, &v, 16);
    }
    atomic_end(cpu, how);
    if (old == expect) {
        cpu->rflags |= FLAG_ZF;
    } else {
        cpu->rflags &= ~FLAG_ZF;
        cpu->gpr[R_AX] = (uint64_t)old;
        cpu->gpr[R_DX] = (uint64_t)(old >> 64);
    }
}
