/* SPDX-License-Identifier: Apache-2.0
 *
 * x87 and MMX: results and status words in every rounding and precision mode.
 */
#include "rt.h"

struct ext {
    uint8_t bytes[10];
    uint8_t pad[6];
};

/* From a and b in ST1 and ST0 (a in ST0) to what is stored. name, text */
#define OPS(X)                                                                                     \
    X(fadd, "faddp")                                                                               \
    X(fsub, "fsubp")                                                                               \
    X(fsubr, "fsubrp")                                                                             \
    X(fmul, "fmulp")                                                                               \
    X(fdiv, "fdivp")                                                                               \
    X(fdivr, "fdivrp")                                                                             \
    X(fsqrt, "fsqrt; fstp %%st(1)")                                                                \
    X(frndint, "frndint; fstp %%st(1)")                                                            \
    X(fscale, "fscale; fstp %%st(1)")                                                              \
    X(fprem, "fprem; fstp %%st(1)")                                                                \
    X(fprem1, "fprem1; fstp %%st(1)")                                                              \
    X(fxtract, "fxtract; faddp; fstp %%st(1)")                                                     \
    X(fabs, "fabs; fstp %%st(1)")                                                                  \
    X(fchs, "fchs; fstp %%st(1)")                                                                  \
    X(fsin, "fsin; fstp %%st(1)")                                                                  \
    X(fcos, "fcos; fstp %%st(1)")                                                                  \
    X(f2xm1, "f2xm1; fstp %%st(1)")                                                                \
    X(fyl2x, "fyl2x")                                                                              \
    X(fpatan, "fpatan")                                                                            \
    X(fxam, "fxam; fstp %%st(1)")                                                                  \
    X(ftst, "ftst; fstp %%st(1)")                                                                  \
    X(fucom, "fucom; fstp %%st(1)")                                                                \
    X(fcom, "fcom; fstp %%st(1)")                                                                  \
    X(fst32, "fstps 16(%1); flds 16(%1); fstp %%st(1)")                                            \
    X(fst64, "fstpl 16(%1); fldl 16(%1); fstp %%st(1)")                                            \
    X(fist16, "fistps 16(%1); filds 16(%1); fstp %%st(1)")                                         \
    X(fist32, "fistpl 16(%1); fildl 16(%1); fstp %%st(1)")                                         \
    X(fist64, "fistpll 16(%1); fildll 16(%1); fstp %%st(1)")                                       \
    X(fbstp, "fbstp 16(%1); fbld 16(%1); fstp %%st(1)")                                            \
    X(fld1, "fld1; fldpi; faddp; fldl2e; fldl2t; fldlg2; fldln2; faddp; faddp; faddp; faddp;"      \
            "fstp %%st(1); fstp %%st(1)")                                                          \
    X(fcmov, "fucomi %%st(1); fcmovb %%st(1), %%st; fcmovnu %%st(1), %%st; fstp %%st(1)")          \
    X(fxch, "fxch; fstp %%st(1)")

struct state {
    struct ext out;
    uint8_t scratch[16];
    uint16_t fsw;
};

typedef void code(struct state *s, const struct ext *a, const struct ext *b, uint16_t fcw);

#define DEFINE(name, text)                                                                         \
    static void run_##name(struct state *s, const struct ext *a, const struct ext *b,              \
                           uint16_t fcw)                                                           \
    {                                                                                              \
        __asm__ volatile("fninit; fldcw %4; fldt %3; fldt %2; " text "; fnstsw %0; fstpt (%1)"     \
                         : "=m"(s->fsw)                                                            \
                         : "r"(s), "m"(*a), "m"(*b), "m"(fcw)                                      \
                         : "memory", "cc");                                                        \
        __asm__ volatile("fnclex; fninit" ::: "memory");                                           \
    }
OPS(DEFINE)

static const struct {
    const char *name;
    code *run;
} ops[] = {
#define ROW(name, text) { #name, run_##name },
    OPS(ROW)
};

static void operand(struct ext *x, uint64_t *seed)
{
    uint64_t mantissa = rnd(seed), r = rnd(seed);
    uint16_t exponent = (uint16_t)(r >> 16);
    switch (r % 8) {
    case 0:
        exponent &= 0x8000; /* zero, denormal */
        mantissa = r & 64 ? 0 : mantissa >> 1;
        break;
    case 1:
        exponent |= 0x7fff; /* infinity, NaN */
        mantissa = (r & 64 ? 0 : mantissa) | 1ull << 63;
        break;
    case 2:
        mantissa |= 1ull << 63;
        break;
    default: /* near 1, where most results are interesting */
        exponent = (uint16_t)((exponent & 0x8000) | (0x3fff - 12 + exponent % 24));
        mantissa |= 1ull << 63;
    }
    memcpy(x->bytes, &mantissa, 8);
    memcpy(x->bytes + 8, &exponent, 2);
}

static void mmx(void)
{
    uint64_t seed = 77, h = HASH0;
    for (unsigned i = 0; i < 200; i++) {
        uint64_t a = rnd(&seed), b = rnd(&seed), r[8];
        __asm__ volatile("movq %1, %%mm0; movq %2, %%mm1; movq %%mm0, %%mm2; paddusb %%mm1, %%mm2;"
                         "movq %%mm2, (%0); movq %%mm0, %%mm3; pmaddwd %%mm1, %%mm3;"
                         "movq %%mm3, 8(%0); movq %%mm0, %%mm4; packssdw %%mm1, %%mm4;"
                         "movq %%mm4, 16(%0); movq %%mm0, %%mm5; punpckhbw %%mm1, %%mm5;"
                         "movq %%mm5, 24(%0); movq %%mm0, %%mm6; psubsw %%mm1, %%mm6;"
                         "movq %%mm6, 32(%0); movq %%mm0, %%mm7; pcmpgtb %%mm1, %%mm7;"
                         "movq %%mm7, 40(%0); psrlq $13, %%mm0; movq %%mm0, 48(%0);"
                         "pmulhw %%mm1, %%mm0; movq %%mm0, 56(%0); emms"
                         :
                         : "r"(r), "m"(a), "m"(b)
                         : "memory");
        h = hash(h, r, sizeof r);
    }
    say("hash mmx all %X", h);
}

void test_x87(void)
{
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        uint64_t seed = 1234567 + i, h = HASH0;
        for (unsigned n = 0; n < 200; n++) {
            struct ext a = { 0 }, b = { 0 };
            struct state s = { 0 };
            uint16_t fcw = (uint16_t)(0x3f | (rnd(&seed) & 0xc00));
            static const uint16_t precision[] = { 0, 0x200, 0x300 };
            fcw |= precision[(uint32_t)rnd(&seed) % 3];
            operand(&a, &seed);
            operand(&b, &seed);
            ops[i].run(&s, &a, &b, fcw);
            h = hash(h, s.out.bytes, 10);
            h = hash(h, &s.fsw, 2);
        }
        say("hash x87 %s %X", ops[i].name, h);
    }
    if (has("mmx")) {
        mmx();
    }
}
