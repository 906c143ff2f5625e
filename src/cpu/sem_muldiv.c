/* SPDX-License-Identifier: Apache-2.0
 *
 * MUL IMUL DIV IDIV MULX. Division is checked in C first, since the host would trap; the division
 * itself is the host's for the sake of the flags. */
#include "cpu/opnd.h"
#include "cpu/sem_decls.h"

typedef __int128 i128;

/* rDX:rAX (AX for bytes) = rAX * operand. */
#define DEF_MUL(bits, T, suf, mod, name, insn)                                                     \
    static void name##_##bits(T *lo, T *hi, T b, uint32_t *fl)                                     \
    {                                                                                              \
        uint64_t a = *lo;                                                                          \
        uint64_t d = 0;                                                                            \
        uint32_t ax = *fl;                                                                         \
        __asm__("movl %k[fx], %%eax\n\taddb $0x7f, %%al\n\tsahf\n\tmov %[in], %%rax\n\t" insn suf  \
                " %" mod "[b]\n\tmov %%rax, %[out]\n\tlahf\n\tseto %%al\n\t"                       \
                "movl %%eax, %k[fx]"                                                               \
                : [out] "=&r"(a), "+&d"(d), [fx] "+&r"(ax)                                         \
                : [in] "r"(a), [b] "r"(b)                                                          \
                : "cc", "rax");                                                                    \
        *lo = (T)a;                                                                                \
        *hi = (T)(bits == 8 ? a >> 8 : d);                                                         \
        *fl = ax;                                                                                  \
    }
ALU_SIZES(DEF_MUL, mul, "mul")
ALU_SIZES(DEF_MUL, imul1, "imul")

#define WIDE_MULTIPLY(name)                                                                        \
    void sem_##name(struct cpu *cpu, const struct insn *in)                                        \
    {                                                                                              \
        uint32_t fl = alu_pack(cpu->rflags);                                                       \
        uint64_t b = opnd_read(cpu, in, 0);                                                        \
        switch (in->opnd[0].size) {                                                                \
        case 1: {                                                                                  \
            uint8_t lo = (uint8_t)cpu->gpr[R_AX], hi;                                              \
            name##_8(&lo, &hi, (uint8_t)b, &fl);                                                   \
            gpr_write(cpu, R_AX, 2, (uint64_t)hi << 8 | lo);                                       \
            break;                                                                                 \
        }                                                                                          \
        case 2: {                                                                                  \
            uint16_t lo = (uint16_t)cpu->gpr[R_AX], hi;                                            \
            name##_16(&lo, &hi, (uint16_t)b, &fl);                                                 \
            gpr_write(cpu, R_AX, 2, lo);                                                           \
            gpr_write(cpu, R_DX, 2, hi);                                                           \
            break;                                                                                 \
        }                                                                                          \
        case 4: {                                                                                  \
            uint32_t lo = (uint32_t)cpu->gpr[R_AX], hi;                                            \
            name##_32(&lo, &hi, (uint32_t)b, &fl);                                                 \
            cpu->gpr[R_AX] = lo;                                                                   \
            cpu->gpr[R_DX] = hi;                                                                   \
            break;                                                                                 \
        }                                                                                          \
        default: {                                                                                 \
            uint64_t lo = cpu->gpr[R_AX], hi;                                                      \
            name##_64(&lo, &hi, b, &fl);                                                           \
            cpu->gpr[R_AX] = lo;                                                                   \
            cpu->gpr[R_DX] = hi;                                                                   \
            break;                                                                                 \
        }                                                                                          \
        }                                                                                          \
        cpu->rflags = alu_merge(cpu->rflags, fl);                                                  \
    }
WIDE_MULTIPLY(mul)
WIDE_MULTIPLY(imul1)

void sem_imul(struct cpu *cpu, const struct insn *in)
{
    unsigned size = in->opnd[0].size;
    uint64_t b = opnd_read(cpu, in, 1);
    uint64_t a = in->nopnd == 3 ? (uint64_t)in->imm : opnd_read(cpu, in, 0);
    uint32_t fl = alu_pack(cpu->rflags);
    gpr_write(cpu, in->opnd[0].reg, size, ALU_BY_SIZE_WDQ(size, alu_imul, a, b, &fl));
    cpu->rflags = alu_merge(cpu->rflags, fl);
}

void sem_mulx(struct cpu *cpu, const struct insn *in)
{
    unsigned size = in->opnd[0].size;
    alu_u128 r = (alu_u128)gpr_read(cpu, R_DX, size) * opnd_read(cpu, in, 2);
    /* Both destinations the same: the high half stays (SDM 2). */
    opnd_write(cpu, in, 1, (uint64_t)r);
    opnd_write(cpu, in, 0, (uint64_t)(r >> (size * 8)));
}

/* -- Division ---------------------------------------------------------------------------------- */
#define DEF_DIV(bits, T, suf, mod, name, insn)                                                     \
    static void name##_##bits(uint64_t *lo, uint64_t *hi, T b, uint32_t *fl)                       \
    {                                                                                              \
        uint64_t a = *lo;                                                                          \
        uint64_t d = *hi;                                                                          \
        uint32_t ax = *fl;                                                                         \
        __asm__("movl %k[fx], %%eax\n\taddb $0x7f, %%al\n\tsahf\n\tmov %[in], %%rax\n\t" insn suf  \
                " %" mod "[b]\n\tmov %%rax, %[out]\n\tlahf\n\tseto %%al\n\t"                       \
                "movl %%eax, %k[fx]"                                                               \
                : [out] "=&r"(a), "+&d"(d), [fx] "+&r"(ax)                                         \
                : [in] "r"(a), [b] "r"(b)                                                          \
                : "cc", "rax");                                                                    \
        *lo = a;                                                                                   \
        *hi = d;                                                                                   \
        *fl = ax;                                                                                  \
    }
ALU_SIZES(DEF_DIV, div, "div")
ALU_SIZES(DEF_DIV, idiv, "idiv")

static alu_u128 dividend(const struct cpu *cpu, unsigned size)
{
    if (size == 1) {
        return (uint16_t)cpu->gpr[R_AX];
    }
    return (alu_u128)gpr_read(cpu, R_DX, size) << (size * 8) | gpr_read(cpu, R_AX, size);
}

static bool div_overflows(alu_u128 n, uint64_t d, unsigned size)
{
    return (uint64_t)(n >> (size * 8)) >= d; /* d == 0 too */
}

static bool idiv_overflows(alu_u128 n, uint64_t d, unsigned size)
{
    unsigned bits = size * 8;
    int64_t sd = sign_extend(d, size);
    i128 sn = size == 8 ? (i128)n : (i128)sign_extend((uint64_t)n, size * 2);
    alu_u128 un = sn < 0 ? -(alu_u128)sn : (alu_u128)sn;
    uint64_t ud = sd < 0 ? -(uint64_t)sd : (uint64_t)sd;
    if ((un >> bits) >= ud) {
        return true;
    }
    uint64_t q = (uint64_t)(un / ud);
    uint64_t limit = 1ull << (bits - 1);
    return (sn < 0) != (sd < 0) ? q > limit : q >= limit;
}

#define DIVIDE(name)                                                                               \
    void sem_##name(struct cpu *cpu, const struct insn *in)                                        \
    {                                                                                              \
        unsigned size = in->opnd[0].size;                                                          \
        uint64_t b = opnd_read(cpu, in, 0);                                                        \
        if (name##_overflows(dividend(cpu, size), b, size)) {                                      \
            cpu_raise(cpu, EXC_DE);                                                                \
        }                                                                                          \
        uint64_t lo = cpu->gpr[R_AX];                                                              \
        uint64_t hi = cpu->gpr[R_DX];                                                              \
        uint32_t fl = alu_pack(cpu->rflags);                                                       \
        ALU_BY_SIZE(size, name, &lo, &hi, b, &fl);                                                 \
        cpu->rflags = alu_merge(cpu->rflags, fl);                                                  \
        gpr_write(cpu, R_AX, size == 1 ? 2 : size, lo);                                            \
        if (size != 1) {                                                                           \
            gpr_write(cpu, R_DX, size, hi);                                                        \
        }                                                                                          \
    }
DIVIDE(div)
DIVIDE(idiv)
