/* SPDX-License-Identifier: Apache-2.0
 *
 * Shifts and rotates. The host masks the count and decides about the flags that the manual leaves
 * undefined, a count of 0 included (which changes none). */
#include "cpu/opnd.h"
#include "cpu/sem_decls.h"

#define SHIFT_PLAIN(name)                                                                          \
    static uint64_t plain_##name(unsigned size, uint64_t a, uint64_t count, uint32_t *fl)          \
    {                                                                                              \
        return ALU_BY_SIZE(size, alu_##name, a, (uint8_t)count, fl);                               \
    }                                                                                              \
    static uint64_t plain_##name##1(unsigned size, uint64_t a, uint64_t count, uint32_t *fl)       \
    {                                                                                              \
        (void)count;                                                                               \
        return ALU_BY_SIZE(size, alu_##name##1, a, fl);                                            \
    }

/* D0 and D1 are the encodings by one. */
static bool by_one(const struct insn *in) { return in->opcode == 0xd0 || in->opcode == 0xd1; }

#define SHIFT(name)                                                                                \
    SHIFT_PLAIN(name)                                                                              \
    void sem_##name(struct cpu *cpu, const struct insn *in)                                        \
    {                                                                                              \
        if (by_one(in)) {                                                                          \
            rmw_operand(cpu, in, 1, plain_##name##1, NULL);                                        \
        } else {                                                                                   \
            rmw_operand(cpu, in, opnd_read(cpu, in, 1), plain_##name, NULL);                       \
        }                                                                                          \
    }

bool alu_rotate_keeps_of(void)
{
    static _Atomic int known; /* asked once: 1 no, 2 yes */
    int k = atomic_load_explicit(&known, memory_order_relaxed);
    if (k == 0) {
        uint32_t v = 1;
        uint8_t of;
        __asm__("xor %%eax, %%eax\n\trol $31, %0\n\tseto %1" : "+r"(v), "=r"(of) : : "eax", "cc");
        k = of ? 1 : 2;
        atomic_store_explicit(&known, k, memory_order_relaxed);
    }
    return k == 2;
}

static bool rotates_by_imm(const struct insn *in)
{
    return in->opnd[1].kind == OPND_IMM && in->opnd[0].kind == OPND_GPR && alu_rotate_keeps_of();
}

#define ROTATE(name)                                                                               \
    SHIFT_PLAIN(name)                                                                              \
    static uint64_t plain_##name##_imm(unsigned size, uint64_t a, uint64_t count, uint32_t *fl)    \
    {                                                                                              \
        return ALU_BY_SIZE(size, alu_##name##_imm, a, (uint8_t)count, fl);                         \
    }                                                                                              \
    void sem_##name(struct cpu *cpu, const struct insn *in)                                        \
    {                                                                                              \
        if (by_one(in)) {                                                                          \
            rmw_operand(cpu, in, 1, plain_##name##1, NULL);                                        \
        } else if (rotates_by_imm(in)) {                 \
            rmw_operand(cpu, in, (uint64_t)in->imm, plain_##name##_imm, NULL);                     \
        } else {                                                                                   \
            rmw_operand(cpu, in, opnd_read(cpu, in, 1), plain_##name, NULL);                       \
        }                                                                                          \
    }
SHIFT(shl)
SHIFT(shr)
SHIFT(sar)
ROTATE(rol)
ROTATE(ror)
ROTATE(rcl)
ROTATE(rcr)

/* Two further operands: more than rmw_operand carries. */
#define DSHIFT(name)                                                                               \
    void sem_##name(struct cpu *cpu, const struct insn *in)                                        \
    {                                                                                              \
        unsigned size = in->opnd[0].size;                                                          \
        uint64_t b = opnd_read(cpu, in, 1);                                                        \
        uint8_t count = (uint8_t)opnd_read(cpu, in, 2);                                            \
        uint32_t fl = alu_pack(cpu->rflags);                                                       \
        if (in->opnd[0].kind == OPND_GPR) {                                                        \
            uint64_t a = gpr_read(cpu, in->opnd[0].reg, size);                                     \
            a = ALU_BY_SIZE_WDQ(size, alu_##name, a, b, count, &fl);                               \
            gpr_write(cpu, in->opnd[0].reg, size, a);                                              \
        } else {                                                                                   \
            uint64_t off = cpu_effective_address(cpu, in);                                         \
            cpu_probe_write(cpu, in->mem.seg, off, size);                                          \
            uint64_t a = cpu_read(cpu, in->mem.seg, off, size);                                    \
            a = ALU_BY_SIZE_WDQ(size, alu_##name, a, b, count, &fl);                               \
            cpu_write(cpu, in->mem.seg, off, size, a);                                             \
        }                                                                                          \
        cpu->rflags = alu_merge(cpu->rflags, fl);                                                  \
    }
DSHIFT(shld)
DSHIFT(shrd)

/* BMI2: no flags. */
static unsigned vex_count(struct cpu *cpu, const struct insn *in)
{
    return (unsigned)opnd_read(cpu, in, 2) & (in->opnd[0].size == 8 ? 63 : 31);
}

void sem_shlx(struct cpu *cpu, const struct insn *in)
{
    uint64_t v = opnd_read(cpu, in, 1);
    opnd_write(cpu, in, 0, v << vex_count(cpu, in));
}

void sem_shrx(struct cpu *cpu, const struct insn *in)
{
    uint64_t v = opnd_read(cpu, in, 1);
    opnd_write(cpu, in, 0, v >> vex_count(cpu, in));
}

void sem_sarx(struct cpu *cpu, const struct insn *in)
{
    int64_t v = sign_extend(opnd_read(cpu, in, 1), in->opnd[1].size);
    opnd_write(cpu, in, 0, (uint64_t)(v >> vex_count(cpu, in)));
}

void sem_rorx(struct cpu *cpu, const struct insn *in)
{
    uint64_t v = opnd_read(cpu, in, 1);
    unsigned bits = in->opnd[0].size * 8;
    unsigned n = (unsigned)in->imm & (bits - 1);
    opnd_write(cpu, in, 0, n == 0 ? v : v >> n | v << (bits - n));
}
