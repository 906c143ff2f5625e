/* SPDX-License-Identifier: Apache-2.0
 *
 * Integer arithmetic by the host's own instructions, so that results and flags, those included that
 * the manual leaves undefined, are exactly what this processor gives.
 *
 * Flags travel through AX: LAHF and SETO take them out (SDM 2: AH = SF ZF 0 AF 0 PF 1 CF), and
 * ADD AL,7Fh (overflows when AL is 1) with SAHF puts them in. Both are a couple of cycles where
 * PUSHF and POPF are tens. An operation that may leave a flag as it was gets the guest's flags in.
 *
 * Between operations the six arithmetic flags stay in that form (alu_pack, alu_merge): every
 * function takes them by pointer and replaces them. Bits above 15 mean nothing.
 */
#ifndef SOSIA_CPU_ALU_H
#define SOSIA_CPU_ALU_H

#include <stdint.h>

#include "cpu/cpu.h"

typedef unsigned __int128 alu_u128;

#define ALU_CF 0x100u
#define ALU_PF 0x400u
#define ALU_AF 0x1000u
#define ALU_ZF 0x4000u
#define ALU_SF 0x8000u
#define ALU_OF 0x1u

static inline uint32_t alu_pack(uint64_t rflags)
{
    return (uint32_t)((rflags & 0xd5) << 8 | ((rflags >> 11) & 1));
}

static inline uint64_t alu_merge(uint64_t rflags, uint32_t fl)
{
    return (rflags & ~FLAGS_ARITH) | ((fl >> 8) & 0xd5) | ((uint64_t)(fl & 1) << 11);
}

#define ALU_GET "\n\tlahf\n\tseto %%al"
#define ALU_PUT "addb $0x7f, %%al\n\tsahf\n\t"

/* Size-specific names have the operand's bits: alu_add_8 ... alu_add_64. */
#define ALU_SIZES(D, ...)                                                                          \
    D(8, uint8_t, "b", "b", __VA_ARGS__)                                                           \
    D(16, uint16_t, "w", "w", __VA_ARGS__)                                                         \
    D(32, uint32_t, "l", "k", __VA_ARGS__)                                                         \
    D(64, uint64_t, "q", "q", __VA_ARGS__)
#define ALU_SIZES_WDQ(D, ...)                                                                      \
    D(16, uint16_t, "w", "w", __VA_ARGS__)                                                         \
    D(32, uint32_t, "l", "k", __VA_ARGS__)                                                         \
    D(64, uint64_t, "q", "q", __VA_ARGS__)

/* -- Two operands, no flags in ----------------------------------------------------------------- */
#define ALU_DEF_BINARY(bits, T, suf, mod, name, insn)                                              \
    static inline T alu_##name##_##bits(T a, T b, uint32_t *fl)                                    \
    {                                                                                              \
        uint16_t ax;                                                                               \
        __asm__(insn suf " %" mod "2, %" mod "0" ALU_GET : "+r"(a), "=&a"(ax) : "r"(b) : "cc");    \
        *fl = ax;                                                                                  \
        return a;                                                                                  \
    }                                                                                              \
    static inline void lock_##name##_##bits(void *p, T b, uint32_t *fl)                            \
    {                                                                                              \
        uint16_t ax;                                                                               \
        __asm__ volatile("lock " insn suf " %" mod "2, %0" ALU_GET                                 \
                         : "+m"(*(T *)p), "=&a"(ax) : "r"(b) : "cc", "memory");                    \
        *fl = ax;                                                                                  \
    }
ALU_SIZES(ALU_DEF_BINARY, add, "add")
ALU_SIZES(ALU_DEF_BINARY, sub, "sub")
ALU_SIZES(ALU_DEF_BINARY, and, "and")
ALU_SIZES(ALU_DEF_BINARY, or, "or")
ALU_SIZES(ALU_DEF_BINARY, xor, "xor")

#define ALU_DEF_COMPARE(bits, T, suf, mod, name, insn)                                             \
    static inline void alu_##name##_##bits(T a, T b, uint32_t *fl)                                 \
    {                                                                                              \
        uint16_t ax;                                                                               \
        __asm__(insn suf " %" mod "2, %" mod "1" ALU_GET : "=&a"(ax) : "r"(a), "r"(b) : "cc");     \
        *fl = ax;                                                                                  \
    }
ALU_SIZES(ALU_DEF_COMPARE, cmp, "cmp")
ALU_SIZES(ALU_DEF_COMPARE, test, "test")

/* -- Two operands, carry in -------------------------------------------------------------------- */
#define ALU_DEF_CARRY(bits, T, suf, mod, name, insn)                                               \
    static inline T alu_##name##_##bits(T a, T b, uint32_t *fl)                                    \
    {                                                                                              \
        uint16_t ax;                                                                               \
        __asm__("btl $8, %k3\n\t" insn suf " %" mod "2, %" mod "0" ALU_GET                         \
                : "+r"(a), "=&a"(ax) : "r"(b), "r"(*fl) : "cc");                                   \
        *fl = ax;                                                                                  \
        return a;                                                                                  \
    }                                                                                              \
    static inline void lock_##name##_##bits(void *p, T b, uint32_t *fl)                            \
    {                                                                                              \
        uint16_t ax;                                                                               \
        __asm__ volatile("btl $8, %k3\n\tlock " insn suf " %" mod "2, %0" ALU_GET                  \
                         : "+m"(*(T *)p), "=&a"(ax) : "r"(b), "r"(*fl)                             \
                         : "cc", "memory");                                                        \
        *fl = ax;                                                                                  \
    }
ALU_SIZES(ALU_DEF_CARRY, adc, "adc")
ALU_SIZES(ALU_DEF_CARRY, sbb, "sbb")

/* -- One operand (INC and DEC keep CF) --------------------------------------------------------- */
#define ALU_DEF_UNARY(bits, T, suf, mod, name, insn)                                               \
    static inline T alu_##name##_##bits(T a, uint32_t *fl)                                         \
    {                                                                                              \
        uint32_t ax = *fl;                                                                         \
        __asm__(ALU_PUT insn suf " %" mod "0" ALU_GET : "+r"(a), "+&a"(ax) : : "cc");              \
        *fl = ax;                                                                                  \
        return a;                                                                                  \
    }                                                                                              \
    static inline void lock_##name##_##bits(void *p, uint32_t *fl)                                 \
    {                                                                                              \
        uint32_t ax = *fl;                                                                         \
        __asm__ volatile(ALU_PUT "lock " insn suf " %0" ALU_GET                                    \
                         : "+m"(*(T *)p), "+&a"(ax) : : "cc", "memory");                           \
        *fl = ax;                                                                                  \
    }
ALU_SIZES(ALU_DEF_UNARY, inc, "inc")
ALU_SIZES(ALU_DEF_UNARY, dec, "dec")
ALU_SIZES(ALU_DEF_UNARY, neg, "neg")
ALU_SIZES(ALU_DEF_UNARY, not, "not")

/* -- Shifts and rotates by a count ------------------------------------------------------------- */
#define ALU_DEF_SHIFT(bits, T, suf, mod, name, insn)                                               \
    static inline T alu_##name##_##bits(T a, uint8_t count, uint32_t *fl)                          \
    {                                                                                              \
        uint32_t ax = *fl;                                                                         \
        __asm__(ALU_PUT insn suf " %%cl, %" mod "0" ALU_GET                                        \
                : "+r"(a), "+&a"(ax) : "c"(count) : "cc");                                         \
        *fl = ax;                                                                                  \
        return a;                                                                                  \
    }
ALU_SIZES(ALU_DEF_SHIFT, rol, "rol")
ALU_SIZES(ALU_DEF_SHIFT, ror, "ror")
ALU_SIZES(ALU_DEF_SHIFT, rcl, "rcl")
ALU_SIZES(ALU_DEF_SHIFT, rcr, "rcr")
ALU_SIZES(ALU_DEF_SHIFT, shl, "shl")
ALU_SIZES(ALU_DEF_SHIFT, shr, "shr")
ALU_SIZES(ALU_DEF_SHIFT, sar, "sar")

/* The by-one encodings: a count of one in CL is not always the same operation (OF). */
#define ALU_DEF_SHIFT1(bits, T, suf, mod, name, insn)                                              \
    static inline T alu_##name##1_##bits(T a, uint32_t *fl)                                        \
    {                                                                                              \
        uint32_t ax = *fl;                                                                         \
        __asm__(ALU_PUT insn suf " %" mod "0" ALU_GET : "+r"(a), "+&a"(ax) : : "cc");              \
        *fl = ax;                                                                                  \
        return a;                                                                                  \
    }
ALU_SIZES(ALU_DEF_SHIFT1, rol, "rol")
ALU_SIZES(ALU_DEF_SHIFT1, ror, "ror")
ALU_SIZES(ALU_DEF_SHIFT1, rcl, "rcl")
ALU_SIZES(ALU_DEF_SHIFT1, rcr, "rcr")
ALU_SIZES(ALU_DEF_SHIFT1, shl, "shl")
ALU_SIZES(ALU_DEF_SHIFT1, shr, "shr")
ALU_SIZES(ALU_DEF_SHIFT1, sar, "sar")

/* C0 and C1 of a register where the host does it so (alu_rotate_keeps_of): OF is left alone unless
 * the masked count is 1. */
#define ALU_DEF_ROTATE_IMM(bits, T, suf, mod, name, unused)                                        \
    static inline T alu_##name##_imm_##bits(T a, uint8_t count, uint32_t *fl)                      \
    {                                                                                              \
        uint32_t old = *fl;                                                                        \
        a = alu_##name##_##bits(a, count, fl);                                                     \
        if ((count & (bits == 64 ? 63 : 31)) != 1) {                                               \
            *fl = (*fl & ~ALU_OF) | (old & ALU_OF);                                                \
        }                                                                                          \
        return a;                                                                                  \
    }
ALU_SIZES(ALU_DEF_ROTATE_IMM, rol, )
ALU_SIZES(ALU_DEF_ROTATE_IMM, ror, )
ALU_SIZES(ALU_DEF_ROTATE_IMM, rcl, )
ALU_SIZES(ALU_DEF_ROTATE_IMM, rcr, )

/* Does a rotate of a register by an immediate other than 1 leave OF alone, while one by CL does
 * not? The manuals leave it undefined; Intel's processors do. A constant of the host. */
bool alu_rotate_keeps_of(void);

#define ALU_DEF_DSHIFT(bits, T, suf, mod, name, insn)                                              \
    static inline T alu_##name##_##bits(T a, T b, uint8_t count, uint32_t *fl)                     \
    {                                                                                              \
        uint32_t ax = *fl;                                                                         \
        __asm__(ALU_PUT insn suf " %%cl, %" mod "2, %" mod "0" ALU_GET                             \
                : "+r"(a), "+&a"(ax) : "r"(b), "c"(count) : "cc");                                 \
        *fl = ax;                                                                                  \
        return a;                                                                                  \
    }
ALU_SIZES_WDQ(ALU_DEF_DSHIFT, shld, "shld")
ALU_SIZES_WDQ(ALU_DEF_DSHIFT, shrd, "shrd")

/* -- Bit tests: bit is within the operand ------------------------------------------------------ */
#define ALU_DEF_BITOP(bits, T, suf, mod, name, insn)                                               \
    static inline T alu_##name##_##bits(T a, T bit, uint32_t *fl)                                  \
    {                                                                                              \
        uint32_t ax = *fl;                                                                         \
        __asm__(ALU_PUT insn suf " %" mod "2, %" mod "0" ALU_GET                                   \
                : "+r"(a), "+&a"(ax) : "r"(bit) : "cc");                                           \
        *fl = ax;                                                                                  \
        return a;                                                                                  \
    }
ALU_SIZES_WDQ(ALU_DEF_BITOP, bt, "bt")
ALU_SIZES_WDQ(ALU_DEF_BITOP, bts, "bts")
ALU_SIZES_WDQ(ALU_DEF_BITOP, btr, "btr")
ALU_SIZES_WDQ(ALU_DEF_BITOP, btc, "btc")

#define ALU_DEF_LOCK_BITOP(bits, T, suf, mod, name, insn)                                          \
    static inline void lock_##name##_##bits(void *p, T bit, uint32_t *fl)                          \
    {                                                                                              \
        uint32_t ax = *fl;                                                                         \
        __asm__ volatile(ALU_PUT "lock " insn suf " %" mod "2, %0" ALU_GET                         \
                         : "+m"(*(T *)p), "+&a"(ax) : "r"(bit) : "cc", "memory");                  \
        *fl = ax;                                                                                  \
    }
ALU_SIZES_WDQ(ALU_DEF_LOCK_BITOP, bts, "bts")
ALU_SIZES_WDQ(ALU_DEF_LOCK_BITOP, btr, "btr")
ALU_SIZES_WDQ(ALU_DEF_LOCK_BITOP, btc, "btc")

/* -- Destination and source, flags in and out -------------------------------------------------- */
#define ALU_DEF_DSTSRC(bits, T, suf, mod, name, insn)                                              \
    static inline T alu_##name##_##bits(T a, T b, uint32_t *fl)                                    \
    {                                                                                              \
        uint32_t ax = *fl;                                                                         \
        __asm__(ALU_PUT insn suf " %" mod "2, %" mod "0" ALU_GET                                   \
                : "+r"(a), "+&a"(ax) : "r"(b) : "cc");                                             \
        *fl = ax;                                                                                  \
        return a;                                                                                  \
    }
ALU_SIZES_WDQ(ALU_DEF_DSTSRC, imul, "imul")

/* -- Atomic exchange forms --------------------------------------------------------------------- */
#define ALU_DEF_XCHG(bits, T, suf, mod, unused)                                                    \
    static inline T lock_xchg_##bits(void *p, T v)                                                 \
    {                                                                                              \
        __asm__ volatile("xchg" suf " %" mod "0, %1" : "+r"(v), "+m"(*(T *)p) : : "memory");       \
        return v;                                                                                  \
    }                                                                                              \
    static inline T lock_xadd_##bits(void *p, T v, uint32_t *fl)                                   \
    {                                                                                              \
        uint16_t ax;                                                                               \
        __asm__ volatile("lock xadd" suf " %" mod "0, %1" ALU_GET                                  \
                         : "+r"(v), "+m"(*(T *)p), "=&a"(ax) : : "cc", "memory");                  \
        *fl = ax;                                                                                  \
        return v;                                                                                  \
    }                                                                                              \
    /* Returns what was in memory; it was replaced when that equals expect. */                     \
    static inline T lock_cmpxchg_##bits(void *p, T expect, T desired, uint32_t *fl)                \
    {                                                                                              \
        uint16_t ax;                                                                               \
        T old = expect;                                                                            \
        __asm__ volatile("lock cmpxchg" suf " %" mod "2, %1"                                       \
                         : "+a"(old), "+m"(*(T *)p) : "r"(desired) : "cc", "memory");              \
        __asm__("cmp" suf " %" mod "2, %" mod "1" ALU_GET                                          \
                : "=&a"(ax) : "r"(expect), "r"(old) : "cc");                                       \
        *fl = ax;                                                                                  \
        return old;                                                                                \
    }
ALU_SIZES(ALU_DEF_XCHG, )

/* Dispatch on an operand size of 1, 2, 4 or 8 bytes. */
#define ALU_BY_SIZE(size, call, ...)                                                               \
    ((size) == 1   ? call##_8(__VA_ARGS__)                                                         \
     : (size) == 2 ? call##_16(__VA_ARGS__)                                                        \
     : (size) == 4 ? call##_32(__VA_ARGS__)                                                        \
                   : call##_64(__VA_ARGS__))
#define ALU_BY_SIZE_WDQ(size, call, ...)                                                           \
    ((size) == 2   ? call##_16(__VA_ARGS__)                                                        \
     : (size) == 4 ? call##_32(__VA_ARGS__)                                                        \
                   : call##_64(__VA_ARGS__))

/* Condition codes (SDM 1 appendix B). */
static inline __attribute__((always_inline)) bool alu_cond(uint32_t fl, unsigned cc)
{
    bool r;
    switch (cc >> 1) {
    case 0: r = fl & ALU_OF; break;
    case 1: r = fl & ALU_CF; break;
    case 2: r = fl & ALU_ZF; break;
    case 3: r = fl & (ALU_CF | ALU_ZF); break;
    case 4: r = fl & ALU_SF; break;
    case 5: r = fl & ALU_PF; break;
    case 6: r = (fl >> 15 ^ fl) & 1; break;
    default: r = (fl & ALU_ZF) || ((fl >> 15 ^ fl) & 1); break;
    }
    return r != (cc & 1);
}

#endif
