/* SPDX-License-Identifier: Apache-2.0
 *
 * Bit tests, scans, counts and the BMI, ADX and CRC32 operations. Those that leave flags undefined
 * run on the host, which has them: the model offers BMI and LZCNT only then. */
#include "cpu/opnd.h"
#include "cpu/sem_decls.h"

/* -- BT family: with a register offset and memory, the bit may lie anywhere (SDM 2, BT) -------- */
struct bit_place {
    uint64_t off; /* of the operand-sized unit holding the bit */
    unsigned bit;
};

static struct bit_place find_bit(struct cpu *cpu, const struct insn *in)
{
    unsigned size = in->opnd[0].size;
    uint64_t n = opnd_read(cpu, in, 1);
    struct bit_place p = { 0, (unsigned)n & (size * 8 - 1) };
    if (in->opnd[0].kind == OPND_MEM) {
        p.off = cpu_effective_address(cpu, in);
        if (in->opnd[1].kind == OPND_GPR) {
            unsigned unit_bits = size == 2 ? 4 : size == 4 ? 5 : 6;
            p.off += (uint64_t)(sign_extend(n, size) >> unit_bits) * size;
            p.off = mask_size(p.off, in->adsize);
        }
    }
    return p;
}

void sem_bt(struct cpu *cpu, const struct insn *in)
{
    unsigned size = in->opnd[0].size;
    struct bit_place p = find_bit(cpu, in);
    uint64_t v = in->opnd[0].kind == OPND_GPR ? gpr_read(cpu, in->opnd[0].reg, size)
                                              : cpu_read(cpu, in->mem.seg, p.off, size);
    uint32_t fl = alu_pack(cpu->rflags);
    ALU_BY_SIZE_WDQ(size, alu_bt, v, p.bit, &fl);
    cpu->rflags = alu_merge(cpu->rflags, fl);
}

#define BIT_CHANGE(name)                                                                           \
    static uint64_t plain_##name(unsigned size, uint64_t a, uint64_t bit, uint32_t *fl)            \
    {                                                                                              \
        return ALU_BY_SIZE_WDQ(size, alu_##name, a, bit, fl);                                      \
    }                                                                                              \
    static void locked_##name(unsigned size, void *p, uint64_t bit, uint32_t *fl)                  \
    {                                                                                              \
        ALU_BY_SIZE_WDQ(size, lock_##name, p, bit, fl);                                            \
    }                                                                                              \
    void sem_##name(struct cpu *cpu, const struct insn *in)                                        \
    {                                                                                              \
        struct bit_place p = find_bit(cpu, in);                                                    \
        if (in->opnd[0].kind == OPND_GPR) {                                                        \
            rmw_operand(cpu, in, p.bit, plain_##name, NULL);                                       \
            return;                                                                                \
        }                                                                                          \
        uint32_t fl = alu_pack(cpu->rflags);                                                       \
        rmw_memory(cpu, in, p.off, in->opnd[0].size, p.bit, &fl, plain_##name, locked_##name);     \
        cpu->rflags = alu_merge(cpu->rflags, fl);                                                  \
    }
BIT_CHANGE(bts)
BIT_CHANGE(btr)
BIT_CHANGE(btc)

/* -- Scans and counts -------------------------------------------------------------------------- */
/* On the whole register: a zero source leaves the destination; whether a 32-bit scan then clears
 * its upper half, the host shows. */
#define DEF_SCAN(bits, T, suf, mod, name, insn)                                                    \
    static uint64_t name##_##bits(uint64_t old, T v, uint32_t *fl)                                 \
    {                                                                                              \
        uint32_t ax = *fl;                                                                         \
        __asm__(ALU_PUT insn suf " %" mod "2, %" mod "0" ALU_GET                                   \
                : "+r"(old), "+&a"(ax) : "r"(v) : "cc");                                           \
        *fl = ax;                                                                                  \
        return old;                                                                                \
    }
ALU_SIZES_WDQ(DEF_SCAN, scan_forward, "bsf")
ALU_SIZES_WDQ(DEF_SCAN, scan_reverse, "bsr")

void sem_bsf(struct cpu *cpu, const struct insn *in)
{
    uint64_t v = opnd_read(cpu, in, 1);
    uint64_t *reg = &cpu->gpr[in->opnd[0].reg & 15];
    uint32_t fl = alu_pack(cpu->rflags);
    *reg = ALU_BY_SIZE_WDQ(in->opnd[0].size, scan_forward, *reg, v, &fl);
    cpu->rflags = alu_merge(cpu->rflags, fl);
}

void sem_bsr(struct cpu *cpu, const struct insn *in)
{
    uint64_t v = opnd_read(cpu, in, 1);
    uint64_t *reg = &cpu->gpr[in->opnd[0].reg & 15];
    uint32_t fl = alu_pack(cpu->rflags);
    *reg = ALU_BY_SIZE_WDQ(in->opnd[0].size, scan_reverse, *reg, v, &fl);
    cpu->rflags = alu_merge(cpu->rflags, fl);
}

ALU_SIZES_WDQ(ALU_DEF_DSTSRC, tzcnt, "tzcnt")
ALU_SIZES_WDQ(ALU_DEF_DSTSRC, lzcnt, "lzcnt")

#define COUNT(name)                                                                                \
    void sem_##name(struct cpu *cpu, const struct insn *in)                                        \
    {                                                                                              \
        unsigned size = in->opnd[0].size;                                                          \
        uint64_t b = opnd_read(cpu, in, 1);                                                        \
        uint64_t a = 0;                                                                            \
        uint32_t fl = alu_pack(cpu->rflags);                                                       \
        a = ALU_BY_SIZE_WDQ(size, alu_##name, a, b, &fl);                                          \
        cpu->rflags = alu_merge(cpu->rflags, fl);                                                  \
        gpr_write(cpu, in->opnd[0].reg, size, a);                                                  \
    }
COUNT(tzcnt)
COUNT(lzcnt)

void sem_popcnt(struct cpu *cpu, const struct insn *in)
{
    uint64_t v = opnd_read(cpu, in, 1);
    opnd_write(cpu, in, 0, (uint64_t)__builtin_popcountll(v));
    cpu->rflags = (cpu->rflags & ~FLAGS_ARITH) | (v == 0 ? FLAG_ZF : 0);
}

void sem_bswap(struct cpu *cpu, const struct insn *in)
{
    const struct opnd *o = &in->opnd[0];
    uint64_t v = cpu->gpr[o->reg];
    if (o->size == 2) {
        v = 0; /* undefined; processors clear the word */
    } else {
        v = o->size == 8 ? __builtin_bswap64(v) : __builtin_bswap32((uint32_t)v);
    }
    gpr_write(cpu, o->reg, o->size, v);
}

/* -- BMI1, BMI2 -------------------------------------------------------------------------------- */
#define DEF_BMI2OP(bits, T, suf, mod, name, insn)                                                  \
    static T name##_##bits(T a, T b, uint32_t *fl)                                                 \
    {                                                                                              \
        uint32_t ax = *fl;                                                                         \
        T r;                                                                                       \
        __asm__(ALU_PUT insn " %" mod "[b], %" mod "[a], %" mod "[r]" ALU_GET                      \
                : [r] "=&r"(r), "+&a"(ax) : [a] "r"(a), [b] "r"(b) : "cc");                        \
        *fl = ax;                                                                                  \
        return r;                                                                                  \
    }
#define DEF_BMI1OP(bits, T, suf, mod, name, insn)                                                  \
    static T name##_##bits(T a, uint32_t *fl)                                                      \
    {                                                                                              \
        uint32_t ax = *fl;                                                                         \
        T r;                                                                                       \
        __asm__(ALU_PUT insn " %" mod "[a], %" mod "[r]" ALU_GET                                   \
                : [r] "=&r"(r), "+&a"(ax) : [a] "r"(a) : "cc");                                    \
        *fl = ax;                                                                                  \
        return r;                                                                                  \
    }
#define ALU_SIZES_DQ(D, ...)                                                                       \
    D(32, uint32_t, "l", "k", __VA_ARGS__)                                                         \
    D(64, uint64_t, "q", "q", __VA_ARGS__)

/* AT&T order: the operand that Intel writes last comes first. */
ALU_SIZES_DQ(DEF_BMI2OP, bmi_andn, "andn")
ALU_SIZES_DQ(DEF_BMI1OP, bmi_blsr, "blsr")
ALU_SIZES_DQ(DEF_BMI1OP, bmi_blsmsk, "blsmsk")
ALU_SIZES_DQ(DEF_BMI1OP, bmi_blsi, "blsi")
ALU_SIZES_DQ(DEF_BMI2OP, bmi_bextr, "bextr")
ALU_SIZES_DQ(DEF_BMI2OP, bmi_bzhi, "bzhi")

#define BMI_BINARY(name)                                                                           \
    void sem_##name(struct cpu *cpu, const struct insn *in)                                        \
    {                                                                                              \
        uint64_t a = opnd_read(cpu, in, 1);                                                        \
        uint64_t b = opnd_read(cpu, in, 2);                                                        \
        uint32_t fl = alu_pack(cpu->rflags);                                                       \
        opnd_write(cpu, in, 0, in->opnd[0].size == 8                                               \
                                   ? bmi_##name##_64(a, b, &fl)                                    \
                                   : bmi_##name##_32((uint32_t)a, (uint32_t)b, &fl));              \
        cpu->rflags = alu_merge(cpu->rflags, fl);                                                  \
    }
BMI_BINARY(andn)
BMI_BINARY(bextr)
BMI_BINARY(bzhi)

#define BMI_UNARY(name)                                                                            \
    void sem_##name(struct cpu *cpu, const struct insn *in)                                        \
    {                                                                                              \
        uint64_t a = opnd_read(cpu, in, 1);                                                        \
        uint32_t fl = alu_pack(cpu->rflags);                                                       \
        opnd_write(cpu, in, 0, in->opnd[0].size == 8                                               \
                                   ? bmi_##name##_64(a, &fl)                                       \
                                   : bmi_##name##_32((uint32_t)a, &fl));                           \
        cpu->rflags = alu_merge(cpu->rflags, fl);                                                  \
    }
BMI_UNARY(blsr)
BMI_UNARY(blsmsk)
BMI_UNARY(blsi)

void sem_pext(struct cpu *cpu, const struct insn *in)
{
    uint64_t v = opnd_read(cpu, in, 1);
    uint64_t r = 0;
    unsigned k = 0;
    for (uint64_t mask = opnd_read(cpu, in, 2); mask != 0; mask &= mask - 1) {
        r |= (v >> __builtin_ctzll(mask) & 1) << k++;
    }
    opnd_write(cpu, in, 0, r);
}

void sem_pdep(struct cpu *cpu, const struct insn *in)
{
    uint64_t v = opnd_read(cpu, in, 1);
    uint64_t r = 0;
    for (uint64_t mask = opnd_read(cpu, in, 2); mask != 0; mask &= mask - 1) {
        r |= (v & 1) << __builtin_ctzll(mask);
        v >>= 1;
    }
    opnd_write(cpu, in, 0, r);
}

/* -- ADX: add with one flag as the carry ------------------------------------------------------- */
static void add_with(struct cpu *cpu, const struct insn *in, uint64_t flag)
{
    unsigned bits = in->opnd[0].size * 8;
    alu_u128 r = (alu_u128)opnd_read(cpu, in, 0) + opnd_read(cpu, in, 1) + !!(cpu->rflags & flag);
    opnd_write(cpu, in, 0, (uint64_t)r);
    cpu->rflags = (cpu->rflags & ~flag) | (r >> bits & 1 ? flag : 0);
}

void sem_adcx(struct cpu *cpu, const struct insn *in) { add_with(cpu, in, FLAG_CF); }
void sem_adox(struct cpu *cpu, const struct insn *in) { add_with(cpu, in, FLAG_OF); }

/* CRC-32C, bit-reflected 11EDC6F41h (SDM 2, CRC32). */
void sem_crc32(struct cpu *cpu, const struct insn *in)
{
    uint32_t crc = (uint32_t)cpu->gpr[in->opnd[0].reg];
    uint64_t v = opnd_read(cpu, in, 1);
    switch (in->opnd[1].size) {
    case 1: __asm__("crc32b %1, %0" : "+r"(crc) : "r"((uint8_t)v)); break;
    case 2: __asm__("crc32w %1, %0" : "+r"(crc) : "r"((uint16_t)v)); break;
    case 4: __asm__("crc32l %1, %0" : "+r"(crc) : "r"((uint32_t)v)); break;
    default: {
        uint64_t wide = crc;
        __asm__("crc32q %1, %0" : "+r"(wide) : "r"(v));
        crc = (uint32_t)wide;
        break;
    }
    }
    cpu->gpr[in->opnd[0].reg] = crc;
}
