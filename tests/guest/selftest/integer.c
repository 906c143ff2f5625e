/* SPDX-License-Identifier: Apache-2.0
 *
 * Integer instructions, results and defined flags, over random and edge operands.
 */
#include "rt.h"

#define ROUNDS 200
#define CF 1u
#define PF 4u
#define AF 16u
#define ZF 64u
#define SF 128u
#define OF 2048u
#define ALL (CF | PF | AF | ZF | SF | OF)

struct regs {
    word a, b, c, d;
    word flags;
};

typedef void code(struct regs *r);

#ifdef __x86_64__
#define RUN(text)                                                                                  \
    __asm__ volatile("pushq %4; popfq; " text "; pushfq; popq %4"                                  \
                     : "+a"(r->a), "+b"(r->b), "+c"(r->c), "+d"(r->d), "+r"(r->flags)              \
                     :                                                                             \
                     : "cc", "memory")
#else
#define RUN(text)                                                                                  \
    __asm__ volatile("pushl %4; popfl; " text "; pushfl; popl %4"                                  \
                     : "+a"(r->a), "+b"(r->b), "+c"(r->c), "+d"(r->d), "+S"(r->flags)              \
                     :                                                                             \
                     : "cc", "memory", "edi")
#endif

#define CODE(name, text)                                                                           \
    static void name(struct regs *r) { RUN(text); }

/* name, flags that are defined, feature or NULL, text */
#define OPS32(X)                                                                                   \
    X(add8, ALL, NULL, "addb %%bl, %%al")                                                          \
    X(add8h, ALL, NULL, "addb %%bh, %%ah")                                                         \
    X(add16, ALL, NULL, "addw %%bx, %%ax")                                                         \
    X(add32, ALL, NULL, "addl %%ebx, %%eax")                                                       \
    X(adc8, ALL, NULL, "adcb %%bl, %%al")                                                          \
    X(adc16, ALL, NULL, "adcw %%bx, %%ax")                                                         \
    X(adc32, ALL, NULL, "adcl %%ebx, %%eax")                                                       \
    X(sub8, ALL, NULL, "subb %%bl, %%al")                                                          \
    X(sub16, ALL, NULL, "subw %%bx, %%ax")                                                         \
    X(sub32, ALL, NULL, "subl %%ebx, %%eax")                                                       \
    X(sbb8, ALL, NULL, "sbbb %%bl, %%al")                                                          \
    X(sbb16, ALL, NULL, "sbbw %%bx, %%ax")                                                         \
    X(sbb32, ALL, NULL, "sbbl %%ebx, %%eax")                                                       \
    X(cmp8, ALL, NULL, "cmpb %%bl, %%ah")                                                          \
    X(cmp32, ALL, NULL, "cmpl %%ebx, %%eax")                                                       \
    X(and32, ALL & ~AF, NULL, "andl %%ebx, %%eax")                                                 \
    X(or16, ALL & ~AF, NULL, "orw %%bx, %%ax")                                                     \
    X(xor8, ALL & ~AF, NULL, "xorb %%bh, %%al")                                                    \
    X(test32, ALL & ~AF, NULL, "testl %%ebx, %%eax")                                               \
    X(inc8, ALL, NULL, "incb %%al")                                                                \
    X(inc32, ALL, NULL, "incl %%eax")                                                              \
    X(dec16, ALL, NULL, "decw %%ax")                                                               \
    X(dec32, ALL, NULL, "decl %%eax")                                                              \
    X(neg8, ALL, NULL, "negb %%al")                                                                \
    X(neg32, ALL, NULL, "negl %%eax")                                                              \
    X(not32, ALL, NULL, "notl %%eax")                                                              \
    X(shl32, CF | PF | ZF | SF, NULL,                                                              \
      "andb $31, %%cl; incb %%cl; andb $31, %%cl; shll %%cl, %%eax")                               \
    X(shl1, ALL & ~AF, NULL, "shll %%eax")                                                         \
    X(shr16, PF | ZF | SF, NULL, "orb $1, %%cl; andb $15, %%cl; shrw %%cl, %%ax")                  \
    X(shr1, ALL & ~AF, NULL, "shrb %%al")                                                          \
    X(sar32, CF | PF | ZF | SF, NULL, "orb $1, %%cl; sarl %%cl, %%eax")                            \
    X(rol8, CF, NULL, "orb $1, %%cl; rolb %%cl, %%al")                                             \
    X(rol32, CF, NULL, "rolb $3, %%bh; roll %%cl, %%eax")                                          \
    X(ror16, CF, NULL, "orb $1, %%cl; rorw %%cl, %%ax")                                            \
    X(rcl8, CF, NULL, "rclb %%cl, %%al")                                                           \
    X(rcl32, CF, NULL, "rcll %%cl, %%eax")                                                         \
    X(rcr16, CF, NULL, "rcrw %%cl, %%ax")                                                          \
    X(rcr32, CF, NULL, "rcrl %%cl, %%eax")                                                         \
    X(shld32, CF | PF | ZF | SF, NULL, "orb $1, %%cl; shldl %%cl, %%ebx, %%eax")                   \
    X(shrd32, CF | PF | ZF | SF, NULL, "orb $1, %%cl; shrdl %%cl, %%ebx, %%eax")                   \
    X(mul8, CF | OF, NULL, "mulb %%bl")                                                            \
    X(mul16, CF | OF, NULL, "mulw %%bx")                                                           \
    X(mul32, CF | OF, NULL, "mull %%ebx")                                                          \
    X(imul8, CF | OF, NULL, "imulb %%bl")                                                          \
    X(imul32, CF | OF, NULL, "imull %%ebx")                                                        \
    X(imul2, CF | OF, NULL, "imull %%ebx, %%eax")                                                  \
    X(imul3, CF | OF, NULL, "imulw $-77, %%bx, %%ax")                                              \
    X(div8, 0, NULL, "orb $0x80, %%bl; movb $0, %%ah; divb %%bl")                                  \
    X(div16, 0, NULL, "orw $1, %%bx; xorl %%edx, %%edx; divw %%bx")                                \
    X(div32, 0, NULL, "orl $0x80000000, %%ebx; shrl %%edx; divl %%ebx")                            \
    X(idiv32, 0, NULL, "orl $2, %%ebx; andl $0x7fffffff, %%ebx; cltd; idivl %%ebx")                \
    X(bsf32, ZF, NULL, "orl $0x80000000, %%ebx; bsfl %%ebx, %%eax")                                \
    X(bsr16, ZF, NULL, "orw $1, %%bx; bsrw %%bx, %%ax")                                            \
    X(bt32, CF, NULL, "btl %%ebx, %%eax")                                                          \
    X(bts16, CF, NULL, "btsw %%bx, %%ax")                                                          \
    X(btr32, CF, NULL, "btrl $29, %%eax")                                                          \
    X(btc32, CF, NULL, "btcl %%ebx, %%eax")                                                        \
    X(bswap, ALL, NULL, "bswapl %%eax")                                                            \
    X(xadd32, ALL, NULL, "xaddl %%ebx, %%eax")                                                     \
    X(cmpxchg32, ALL, NULL, "cmpxchgl %%ecx, %%ebx")                                               \
    X(xchg16, ALL, NULL, "xchgw %%bx, %%ax")                                                       \
    X(movzx, ALL, NULL, "movzbl %%bh, %%eax")                                                      \
    X(movsx, ALL, NULL, "movswl %%bx, %%eax")                                                      \
    X(cbw, ALL, NULL, "cbtw; cwtl; cwtd; cltd")                                                    \
    X(lahf, ALL, NULL, "lahf")                                                                     \
    X(sahf, ALL, NULL, "sahf")                                                                     \
    X(cmc, ALL, NULL, "cmc; setc %%bl; stc; setc %%bh; clc")                                       \
    X(setcc, ALL, NULL, "seta %%al; setg %%ah; setle %%bl; setp %%bh; sets %%cl; setno %%ch")      \
    X(cmov, ALL, "cmov", "cmoval %%ebx, %%eax; cmovpw %%cx, %%bx; cmovll %%edx, %%ecx")            \
    X(jcc, ALL, NULL,                                                                              \
      "jbe 1f; incb %%al; 1: jge 2f; incb %%bl; 2: jnp 3f; incb %%cl; 3: jo 4f; incb %%dl; 4:")    \
    X(loop, ALL, NULL, "movzbl %%cl, %%ecx; incl %%ecx; 1: leal 3(%%eax,%%ebx,2), %%eax; loop 1b") \
    X(movbe, ALL, "movbe", "push %%" REG_B "; movbel (%%" REG_SP "), %%eax; pop %%" REG_B)         \
    X(popcnt, ALL, "popcnt", "popcntl %%ebx, %%eax; popcntw %%cx, %%dx")                           \
    X(lzcnt, CF | ZF, "abm", "lzcntl %%ebx, %%eax")                                                \
    X(tzcnt, CF | ZF, "bmi1", "tzcntl %%ebx, %%eax")                                               \
    X(andn, SF | ZF | CF | OF, "bmi1", "andnl %%ebx, %%ecx, %%eax")                                \
    X(bextr, ZF | CF | OF, "bmi1", "bextrl %%ebx, %%ecx, %%eax")                                   \
    X(blsi, SF | ZF | CF | OF, "bmi1", "blsil %%ebx, %%eax")                                       \
    X(blsr, SF | ZF | CF | OF, "bmi1", "blsrl %%ebx, %%eax")                                       \
    X(blsmsk, SF | ZF | CF | OF, "bmi1", "blsmskl %%ebx, %%eax")                                   \
    X(bzhi, SF | ZF | CF | OF, "bmi2", "bzhil %%ecx, %%ebx, %%eax")                                \
    X(mulx, ALL, "bmi2", "mulxl %%ebx, %%eax, %%ecx")                                              \
    X(pdep, ALL, "bmi2", "pdepl %%ebx, %%ecx, %%eax")                                              \
    X(pext, ALL, "bmi2", "pextl %%ebx, %%ecx, %%eax")                                              \
    X(rorx, ALL, "bmi2", "rorxl $7, %%ebx, %%eax")                                                 \
    X(shlx, ALL, "bmi2", "shlxl %%ecx, %%ebx, %%eax; sarxl %%ecx, %%edx, %%ebx")                   \
    X(adcx, ALL, "adx", "adcxl %%ebx, %%eax; adoxl %%ecx, %%edx")                                  \
    X(crc32, ALL, "sse4_2", "crc32b %%bl, %%eax; crc32l %%ecx, %%eax")

#ifdef __x86_64__
#define REG_B "rbx"
#define REG_SP "rsp"
#define OPS_MODE(X)                                                                                \
    X(add64, ALL, NULL, "addq %%rbx, %%rax")                                                       \
    X(adc64, ALL, NULL, "adcq %%rbx, %%rax")                                                       \
    X(sub64, ALL, NULL, "subq %%rbx, %%rax")                                                       \
    X(sbb64, ALL, NULL, "sbbq %%rbx, %%rax")                                                       \
    X(and64, ALL & ~AF, NULL, "andq %%rbx, %%rax")                                                 \
    X(neg64, ALL, NULL, "negq %%rax")                                                              \
    X(shl64, CF | PF | ZF | SF, NULL, "orb $1, %%cl; shlq %%cl, %%rax")                            \
    X(sar64, CF | PF | ZF | SF, NULL, "orb $1, %%cl; sarq %%cl, %%rax")                            \
    X(rcl64, CF, NULL, "rclq %%cl, %%rax")                                                         \
    X(shld64, CF | PF | ZF | SF, NULL, "orb $1, %%cl; shldq %%cl, %%rbx, %%rax")                   \
    X(mul64, CF | OF, NULL, "mulq %%rbx")                                                          \
    X(imul64, CF | OF, NULL, "imulq %%rbx")                                                        \
    X(imul264, CF | OF, NULL, "imulq %%rbx, %%rax")                                                \
    X(div64, 0, NULL, "btsq $63, %%rbx; shrq %%rdx; divq %%rbx")                                   \
    X(idiv64, 0, NULL, "orq $2, %%rbx; btrq $63, %%rbx; cqto; idivq %%rbx")                        \
    X(movsxd, ALL, NULL, "movslq %%ebx, %%rax; cltq; cqto")                                        \
    X(bt64, CF, NULL, "btq %%rbx, %%rax")                                                          \
    X(bswap64, ALL, NULL, "bswapq %%rax")                                                          \
    X(cmpxchg64, ALL, NULL, "cmpxchgq %%rcx, %%rbx")                                               \
    X(mulx64, ALL, "bmi2", "mulxq %%rbx, %%rax, %%rcx")                                            \
    X(pdep64, ALL, "bmi2", "pdepq %%rbx, %%rcx, %%rax")                                            \
    X(popcnt64, ALL, "popcnt", "popcntq %%rbx, %%rax")                                             \
    X(crc3264, ALL, "sse4_2", "crc32q %%rcx, %%rax")                                               \
    X(cx16, ZF, "cx16",                                                                            \
      "subq $64, %%rsp; andq $-16, %%rsp; movq %%rsp, %%r9; movq %%rax, (%%r9);"                   \
      "movq %%rdx, 8(%%r9); btq $0, %%rbx; sbbq $0, (%%r9); lock cmpxchg16b (%%r9);"               \
      "movq (%%r9), %%rbx; movq 8(%%r9), %%rcx")
#else
#define REG_B "ebx"
#define REG_SP "esp"
#define OPS_MODE(X)                                                                                \
    X(daa, CF | PF | AF | ZF | SF, NULL, "daa")                                                    \
    X(das, CF | PF | AF | ZF | SF, NULL, "das")                                                    \
    X(aaa, CF | AF, NULL, "aaa")                                                                   \
    X(aas, CF | AF, NULL, "aas")                                                                   \
    X(aam, PF | ZF | SF, NULL, "aam")                                                              \
    X(aad, PF | ZF | SF, NULL, "aad")                                                              \
    X(pusha, ALL, NULL,                                                                            \
      "xorl %%edi, %%edi; movl %%esp, %%edi; pusha; addl $16, %%esp; pop %%eax; pop %%ecx;"        \
      "xchgl %%esp, %%edi; xorl %%edi, %%edi")                                                     \
    X(salc, ALL, NULL, ".byte 0xd6")                                                               \
    X(enter, ALL, NULL, "enter $16, $0; leave")
#endif

#define DEFINE(name, flags, feature, text) CODE(run_##name, text)
OPS32(DEFINE)
#ifdef __x86_64__
/* cx16 moves the stack: it must be put back before the flags are pushed. */
#undef RUN
#define RUN(text)                                                                                  \
    __asm__ volatile("movq %%rsp, %%r10; pushq %4; popfq; " text                                   \
                     "; pushfq; popq %4; movq %%r10, %%rsp"                                        \
                     : "+a"(r->a), "+b"(r->b), "+c"(r->c), "+d"(r->d), "+r"(r->flags)              \
                     :                                                                             \
                     : "cc", "memory", "r9", "r10")
#endif
OPS_MODE(DEFINE)

static const struct {
    const char *name;
    const char *feature;
    code *run;
    unsigned flags;
} ops[] = {
#define ROW(name, flags, feature, text) { #name, feature, run_##name, flags },
    OPS32(ROW) OPS_MODE(ROW)
};

static word operand(uint64_t *seed)
{
    static const uint64_t edges[] = { 0,
                                      1,
                                      0x7f,
                                      0x80,
                                      0xff,
                                      0x7fff,
                                      0x8000,
                                      0xffff,
                                      0x7fffffff,
                                      0x80000000,
                                      0xffffffff,
                                      0x7fffffffffffffff,
                                      0x8000000000000000,
                                      ~0ull };
    uint64_t x = rnd(seed);
    unsigned pick = (uint32_t)(x >> 8);
    return (word)((uint32_t)x % 3 == 0 ? edges[pick % (sizeof edges / sizeof edges[0])]
                                       : rnd(seed));
}

static void strings(void)
{
    static uint8_t a[4200], b[4200];
    uint64_t seed = 5, h = HASH0;
    for (size_t i = 0; i < sizeof a; i++) {
        a[i] = (uint8_t)rnd(&seed);
    }
    for (unsigned round = 0; round < 64; round++) {
        size_t n = (uint32_t)rnd(&seed) % 1000, from = (uint32_t)rnd(&seed) % 2000,
               to = (uint32_t)rnd(&seed) % 2000;
        const uint8_t *s = a + from;
        uint8_t *d = b + to;
        word count = n;
        uint8_t zf = 0;
        switch (round % 8) {
        case 0:
            __asm__ volatile("rep movsb" : "+S"(s), "+D"(d), "+c"(count) : : "memory");
            break;
        case 1:
            count = n / 4;
            __asm__ volatile("rep movsl" : "+S"(s), "+D"(d), "+c"(count) : : "memory");
            break;
        case 2:
            __asm__ volatile("rep stosw" : "+D"(d), "+c"(count) : "a"(round * 257) : "memory");
            break;
        case 3:
            __asm__ volatile("repe cmpsb; sete %3"
                             : "+S"(s), "+D"(d), "+c"(count), "=q"(zf)
                             :
                             : "memory", "cc");
            break;
        case 4:
            __asm__ volatile("repne scasb; sete %2"
                             : "+D"(d), "+c"(count), "=q"(zf)
                             : "a"(a[round])
                             : "memory", "cc");
            break;
        case 5: /* overlapping, forwards: copies a pattern along */
            d = b + 100;
            s = b + 97;
            __asm__ volatile("rep movsb" : "+S"(s), "+D"(d), "+c"(count) : : "memory");
            break;
        case 6: /* backwards */
            d = b + 2100;
            s = a + 2000;
            __asm__ volatile("std; rep movsw; cld"
                             : "+S"(s), "+D"(d), "+c"(count)
                             :
                             : "memory", "cc");
            break;
        case 7:
            count = n / 4;
            __asm__ volatile("repe scasl; sete %2"
                             : "+D"(d), "+c"(count), "=q"(zf)
                             : "a"(0)
                             : "memory", "cc");
            break;
        }
        h = hash(h, b, sizeof b);
        word left[3] = { count, zf, (word)(d - b) };
        for (unsigned i = 0; i < 3; i++) {
            uint32_t x = (uint32_t)left[i];
            h = hash(h, &x, 4);
        }
    }
    say("hash int strings %X", h);
}

void test_integer(void)
{
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        if (ops[i].feature != NULL && !has(ops[i].feature)) {
            continue;
        }
        uint64_t seed = 88172645463325252ull + i, h = HASH0;
        for (unsigned n = 0; n < ROUNDS; n++) {
            struct regs r = { operand(&seed), operand(&seed), operand(&seed), operand(&seed), 0 };
            r.flags = 0x202 | (rnd(&seed) & ALL);
            ops[i].run(&r);
            r.flags &= ops[i].flags;
            h = hash(h, &r, sizeof r);
        }
        say("hash int %s %X", ops[i].name, h);
    }
    strings();
}
