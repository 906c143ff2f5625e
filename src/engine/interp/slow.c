/* SPDX-License-Identifier: Apache-2.0
 *
 * Where handlers leave their fast path: flags and instruction pointers go to struct cpu, since the
 * access may fault or reach a device. */
#include "cpu/except.h"
#include "engine/interp/interp.h"

static void make_whole(struct cpu *cpu, const struct op *op, uint64_t base, uint32_t fl)
{
    cpu->rflags = alu_merge(cpu->rflags, fl);
    cpu->insn_ip = base + op->ip;
    cpu->rip = base + op->next;
}

static void after_access(struct cpu *cpu)
{
    if (block_must_leave(cpu)) {
        block_leave(cpu->engine);
    }
}

uint64_t op_read_slow(struct cpu *cpu, const struct op *op, uint64_t base, uint32_t fl, gva_t va,
                      unsigned size)
{
    make_whole(cpu, op, base, fl);
    uint64_t v = access_read_slow(cpu, va, size, op->seg);
    after_access(cpu);
    return v;
}

void op_write_slow(struct cpu *cpu, const struct op *op, uint64_t base, uint32_t fl, gva_t va,
                   uint64_t v, unsigned size)
{
    make_whole(cpu, op, base, fl);
    access_write_slow(cpu, va, size, v, op->seg);
    after_access(cpu);
}

/* A push of an instruction whose memory operand is elsewhere. */
void op_push_slow(struct cpu *cpu, const struct op *op, uint64_t base, uint32_t fl, gva_t va,
                  uint64_t v, unsigned size)
{
    make_whole(cpu, op, base, fl);
    access_write_slow(cpu, va, size, v, SEG_SS);
    after_access(cpu);
}

/* A branch target that is not surely canonical, or beyond the code segment. */
void op_target_slow(struct cpu *cpu, const struct op *op, uint64_t base, uint32_t fl,
                    uint64_t target)
{
    make_whole(cpu, op, base, fl);
    if (cpu->mode == INSN_MODE_64 ? !mmu_canonical(cpu, target) : target > cpu->seg[SEG_CS].limit) {
        cpu_raise_error(cpu, EXC_GP, 0);
    }
}

void *op_rmw_slow(struct cpu *cpu, const struct op *op, uint64_t base, uint32_t fl, gva_t va,
                  unsigned size)
{
    make_whole(cpu, op, base, fl);
    return access_rmw_slow(cpu, va, size, op->seg);
}

gva_t op_linear_slow(struct cpu *cpu, const struct op *op, uint64_t base, uint32_t fl, uint64_t off,
                     uint32_t what)
{
    make_whole(cpu, op, base, fl);
    return cpu_linear(cpu, what & 0xff, off, what >> 8 & 0xff, (enum mmu_access)(what >> 16));
}
