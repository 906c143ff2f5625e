/* SPDX-License-Identifier: Apache-2.0
 *
 * ADD OR ADC SBB AND SUB XOR CMP TEST, INC DEC NEG NOT (SDM 2). */
#include "cpu/opnd.h"
#include "cpu/sem_decls.h"

#define BINARY(name)                                                                               \
    static uint64_t plain_##name(unsigned size, uint64_t a, uint64_t b, uint32_t *fl)              \
    {                                                                                              \
        return ALU_BY_SIZE(size, alu_##name, (a), (b), fl);                                        \
    }                                                                                              \
    static void locked_##name(unsigned size, void *p, uint64_t b, uint32_t *fl)                    \
    {                                                                                              \
        ALU_BY_SIZE(size, lock_##name, p, b, fl);                                                  \
    }                                                                                              \
    void sem_##name(struct cpu *cpu, const struct insn *in)                                        \
    {                                                                                              \
        rmw_operand(cpu, in, opnd_read(cpu, in, 1), plain_##name, locked_##name);                  \
    }
BINARY(add)
BINARY(or)
BINARY(adc)
BINARY(sbb)
BINARY(and)
BINARY(sub)
BINARY(xor)

#define COMPARE(name)                                                                              \
    void sem_##name(struct cpu *cpu, const struct insn *in)                                        \
    {                                                                                              \
        unsigned size = in->opnd[0].size;                                                          \
        uint64_t a = opnd_read(cpu, in, 0);                                                        \
        uint64_t b = opnd_read(cpu, in, 1);                                                        \
        uint32_t fl = 0;                                                                           \
        ALU_BY_SIZE(size, alu_##name, a, b, &fl);                                                  \
        cpu->rflags = alu_merge(cpu->rflags, fl);                                                  \
    }
COMPARE(cmp)
COMPARE(test)

#define UNARY(name)                                                                                \
    static uint64_t plain_##name(unsigned size, uint64_t a, uint64_t b, uint32_t *fl)              \
    {                                                                                              \
        (void)b;                                                                                   \
        return ALU_BY_SIZE(size, alu_##name, a, fl);                                               \
    }                                                                                              \
    static void locked_##name(unsigned size, void *p, uint64_t b, uint32_t *fl)                    \
    {                                                                                              \
        (void)b;                                                                                   \
        ALU_BY_SIZE(size, lock_##name, p, fl);                                                     \
    }                                                                                              \
    void sem_##name(struct cpu *cpu, const struct insn *in)                                        \
    {                                                                                              \
        rmw_operand(cpu, in, 0, plain_##name, locked_##name);                                      \
    }
UNARY(inc)
UNARY(dec)
UNARY(neg)

/* NOT changes no flag; putting the flags in and out again leaves them. */
UNARY(not)
