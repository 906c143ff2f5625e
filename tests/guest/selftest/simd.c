/* SPDX-License-Identifier: Apache-2.0
 *
 * SSE to AVX2, FMA, F16C, AES, SHA: results, and the exception flags in MXCSR.
 */
#include "rt.h"

#define ROUNDS 60

struct vectors {
    uint8_t a[32], b[32], c[32], r[32]; /* offsets 0 32 64 96 */
    uint32_t mxcsr;                     /* 128 */
    uint64_t integer;                   /* 136 */
};

typedef void code(struct vectors *v);

/* Operands in register 0 (also the result), 1 and 2. */
#define SSE(text)                                                                                  \
    __asm__ volatile("ldmxcsr 128(%0); movups (%0), %%xmm0; movups 32(%0), %%xmm1;"                \
                     "movups 64(%0), %%xmm2; " text "; movups %%xmm0, 96(%0); stmxcsr 128(%0)"     \
                     :                                                                             \
                     : "r"(v)                                                                      \
                     : "memory", "cc", "eax", "ecx", "edx")
#define AVX(text)                                                                                  \
    __asm__ volatile("vldmxcsr 128(%0); vmovups (%0), %%ymm0; vmovups 32(%0), %%ymm1;"             \
                     "vmovups 64(%0), %%ymm2; " text                                               \
                     "; vmovups %%ymm0, 96(%0); vstmxcsr 128(%0); vzeroupper"                      \
                     :                                                                             \
                     : "r"(v)                                                                      \
                     : "memory", "cc", "eax", "ecx", "edx")

/* feature, how, name, text */
#define S2(X, f, op) X(f, SSE, op, #op " %%xmm1, %%xmm0")
#define I2(X, f, op, imm) X(f, SSE, op, #op " $" #imm ", %%xmm1, %%xmm0")
#define V3(X, f, op) X(f, AVX, op, #op " %%ymm1, %%ymm0, %%ymm0")
#define V2(X, f, op) X(f, AVX, op, #op " %%ymm1, %%ymm0")
#define X3(X, f, op) X(f, AVX, op, #op " %%xmm1, %%xmm0, %%xmm0")
#define F3(X, f, op) X(f, AVX, op, #op " %%ymm2, %%ymm1, %%ymm0")
#define G3(X, f, op) X(f, AVX, op, #op " %%xmm2, %%xmm1, %%xmm0")

#define ALL_OPS(X)                                                                                 \
    S2(X, sse, addps) S2(X, sse, addss) S2(X, sse, subps) S2(X, sse, mulps) S2(X, sse, mulss)      \
    S2(X, sse, divps) S2(X, sse, divss) S2(X, sse, sqrtps) S2(X, sse, sqrtss) S2(X, sse, minps)    \
    S2(X, sse, maxss) S2(X, sse, rcpps) S2(X, sse, rsqrtss) S2(X, sse, andnps) S2(X, sse, xorps)   \
    S2(X, sse, unpckhps) I2(X, sse, shufps, 0x6c) I2(X, sse, cmpps, 2) I2(X, sse, cmpss, 4)        \
    X(sse, SSE, comiss, "comiss %%xmm1, %%xmm0; setc %%al; setp %%ah; setz %%cl;"                  \
      "movzbl %%cl, %%ecx;"\
                        "movw %%ax, 136(%0); movl %%ecx, 140(%0)")                                 \
    X(sse, SSE, cvtss2si, "cvtss2si %%xmm1, %%eax; movl %%eax, 136(%0)")                           \
    X(sse, SSE, cvttss2si, "cvttss2si %%xmm1, %%eax; movl %%eax, 136(%0)")                         \
    X(sse, SSE, cvtsi2ss, "cvtsi2ssl 32(%0), %%xmm0")                                              \
    X(sse, SSE, movmskps, "movmskps %%xmm1, %%eax; movl %%eax, 136(%0)")                           \
    X(sse, SSE, movhlps, "movhlps %%xmm1, %%xmm0; movhps 64(%0), %%xmm1; movlhps %%xmm1, %%xmm0")  \
    S2(X, sse2, addpd) S2(X, sse2, addsd) S2(X, sse2, subpd) S2(X, sse2, mulpd)                    \
    S2(X, sse2, divpd) S2(X, sse2, divsd) S2(X, sse2, sqrtpd) S2(X, sse2, sqrtsd)                  \
    S2(X, sse2, minpd) S2(X, sse2, maxsd) S2(X, sse2, cvtps2pd) S2(X, sse2, cvtpd2ps)              \
    S2(X, sse2, cvtsd2ss) S2(X, sse2, cvtss2sd) S2(X, sse2, cvtdq2ps) S2(X, sse2, cvtps2dq)        \
    S2(X, sse2, cvttps2dq) S2(X, sse2, cvtdq2pd) S2(X, sse2, cvtpd2dq) S2(X, sse2, cvttpd2dq)      \
    S2(X, sse2, paddb) S2(X, sse2, paddusw) S2(X, sse2, paddsb) S2(X, sse2, psubq)                 \
    S2(X, sse2, psubusb) S2(X, sse2, pmullw) S2(X, sse2, pmulhw) S2(X, sse2, pmulhuw)              \
    S2(X, sse2, pmuludq) S2(X, sse2, pmaddwd) S2(X, sse2, psadbw) S2(X, sse2, pavgb)               \
    S2(X, sse2, pminub) S2(X, sse2, pmaxsw) S2(X, sse2, pcmpeqd) S2(X, sse2, pcmpgtw)              \
    S2(X, sse2, packssdw) S2(X, sse2, packuswb) S2(X, sse2, punpcklbw) S2(X, sse2, punpckhqdq)     \
    S2(X, sse2, pand) S2(X, sse2, pandn) S2(X, sse2, pxor) I2(X, sse2, pshufd, 0x1b)               \
    I2(X, sse2, pshufhw, 0x39) I2(X, sse2, pshuflw, 0x72) I2(X, sse2, shufpd, 1)                   \
    I2(X, sse2, cmppd, 6) I2(X, sse2, cmpsd, 1)                                                    \
    X(sse2, SSE, pslld, "psrlq $60, %%xmm1; pslld %%xmm1, %%xmm0; psrad $3, %%xmm0")               \
    X(sse2, SSE, pslldq, "pslldq $5, %%xmm0; psrldq $2, %%xmm0; psrlw $1, %%xmm0")                 \
    X(sse2, SSE, pmovmskb, "pmovmskb %%xmm1, %%eax; movl %%eax, 136(%0)")                          \
    X(sse2, SSE, pinsrw, "pinsrw $3, 32(%0), %%xmm0; pextrw $5, %%xmm0, %%eax;"                    \
      "movl %%eax, 136(%0)")\
    X(sse2, SSE, ucomisd, "ucomisd %%xmm1, %%xmm0; setc %%al; setp %%ah; movw %%ax, 136(%0)")      \
    X(sse2, SSE, cvttsd2si, "cvttsd2si %%xmm1, %%eax; movl %%eax, 136(%0)")                        \
    X(sse2, SSE, movq, "movq %%xmm1, %%xmm0; movd %%xmm1, %%eax; movl %%eax, 136(%0)")             \
    S2(X, sse3, addsubps) S2(X, sse3, addsubpd) S2(X, sse3, haddps) S2(X, sse3, hsubpd)            \
    S2(X, sse3, movshdup) S2(X, sse3, movddup)                                                     \
    X(sse3, SSE, fisttp, "fninit; fldl 32(%0); fisttpll 136(%0)")                                  \
    S2(X, ssse3, pshufb) S2(X, ssse3, phaddw) S2(X, ssse3, phsubd) S2(X, ssse3, pmaddubsw)         \
    S2(X, ssse3, pmulhrsw) S2(X, ssse3, psignb) S2(X, ssse3, pabsw) I2(X, ssse3, palignr, 11)      \
    S2(X, sse4_1, pmulld) S2(X, sse4_1, pmuldq) S2(X, sse4_1, pminsb) S2(X, sse4_1, pmaxud)        \
    S2(X, sse4_1, packusdw) S2(X, sse4_1, pmovsxbw) S2(X, sse4_1, pmovzxwq)                        \
    S2(X, sse4_1, phminposuw) S2(X, sse4_1, pcmpeqq) S2(X, sse4_1, pblendvb)                       \
    I2(X, sse4_1, roundps, 3) I2(X, sse4_1, roundsd, 9) I2(X, sse4_1, dpps, 0x7b)                  \
    I2(X, sse4_1, dppd, 0x31) I2(X, sse4_1, mpsadbw, 5) I2(X, sse4_1, blendps, 6)                  \
    I2(X, sse4_1, insertps, 0x9c)                                                                  \
    X(sse4_1, SSE, ptest, "ptest %%xmm1, %%xmm0; setz %%al; setc %%ah; movw %%ax, 136(%0)")        \
    X(sse4_1, SSE, extractps, "extractps $2, %%xmm1, 136(%0); pinsrb $9, 36(%0), %%xmm0")          \
    S2(X, sse4_2, pcmpgtq)                                                                         \
    X(sse4_2, SSE, pcmpestri, "movl $9, %%eax; movl $14, %%edx; pcmpestri $12, %%xmm1, %%xmm0;"    \
                              "movl %%ecx, 136(%0)")                                               \
    X(sse4_2, SSE, pcmpistrm, "pcmpistrm $0x4a, %%xmm1, %%xmm0")                                   \
    S2(X, aes, aesenc) S2(X, aes, aesdeclast) S2(X, aes, aesimc)                                   \
    I2(X, aes, aeskeygenassist, 0x1b) I2(X, pclmul, pclmulqdq, 0x11)                               \
    S2(X, sha_ni, sha1msg1) S2(X, sha_ni, sha1nexte) S2(X, sha_ni, sha256msg2)                     \
    I2(X, sha_ni, sha1rnds4, 2)                                                                    \
    X(sha_ni, SSE, sha256rnds2, "sha256rnds2 %%xmm1, %%xmm2; movups %%xmm2, %%xmm0")               \
    V3(X, avx, vaddps) V3(X, avx, vsubpd) V3(X, avx, vmulpd) V3(X, avx, vdivps) X3(X, avx, vaddsd) \
    X3(X, avx, vdivss) V2(X, avx, vsqrtpd) V2(X, avx, vrcpps) V3(X, avx, vminps)                   \
    V3(X, avx, vmaxpd) V3(X, avx, vandnpd) V3(X, avx, vhaddps) V3(X, avx, vaddsubpd)               \
    V3(X, avx, vunpcklpd) V3(X, avx, vpermilps) X3(X, avx, vpaddd) X3(X, avx, vpshufb)             \
    V2(X, avx, vcvtdq2ps) V2(X, avx, vcvttps2dq)                                                   \
    X(avx, AVX, vcvtpd2ps, "vcvtpd2psy %%ymm1, %%xmm0")                                            \
    X(avx, AVX, vcmpps, "vcmpps $0x1d, %%ymm1, %%ymm0, %%ymm0")                                    \
    X(avx, AVX, vcmpsd, "vcmpsd $0x0b, %%xmm1, %%xmm0, %%xmm0")                                    \
    X(avx, AVX, vperm2f128, "vperm2f128 $0x31, %%ymm1, %%ymm0, %%ymm0")                            \
    X(avx, AVX, vinsertf128, "vinsertf128 $1, %%xmm1, %%ymm0, %%ymm0;"                             \
      "vextractf128 $1, %%ymm0, 64(%0)")\
    X(avx, AVX, vblendvpd, "vblendvpd %%ymm2, %%ymm1, %%ymm0, %%ymm0")                             \
    X(avx, AVX, vbroadcastss, "vbroadcastss 36(%0), %%ymm0; vbroadcastf128 64(%0), %%ymm1;"        \
                              "vxorps %%ymm1, %%ymm0, %%ymm0")                                     \
    X(avx, AVX, vmaskmovps, "vmaskmovps 32(%0), %%ymm2, %%ymm0; vmaskmovps %%ymm1, %%ymm0, 64(%0)")\
    X(avx, AVX, vroundpd, "vroundpd $2, %%ymm1, %%ymm0")                                           \
    X(avx, AVX, vdpps, "vdpps $0xf3, %%ymm1, %%ymm0, %%ymm0")                                      \
    X(avx, AVX, vtestps, "vtestps %%ymm1, %%ymm0; setz %%al; setc %%ah; movw %%ax, 136(%0)")       \
    X(avx, AVX, vmovmskpd, "vmovmskpd %%ymm1, %%eax; movl %%eax, 136(%0); vzeroall")               \
    V3(X, avx2, vpaddq) V3(X, avx2, vpsubusw) V3(X, avx2, vpmullw) V3(X, avx2, vpmaddubsw)         \
    V3(X, avx2, vpshufb) V3(X, avx2, vpacksswb) V3(X, avx2, vpunpckhdq) V3(X, avx2, vpsllvd)       \
    V3(X, avx2, vpsravd) V3(X, avx2, vpsrlvq) V3(X, avx2, vpermd) V3(X, avx2, vpermps)             \
    V3(X, avx2, vphaddd) V3(X, avx2, vpsignw) V3(X, avx2, vpminud) V3(X, avx2, vpcmpgtq)           \
    X(avx2, AVX, vpmovsxbd, "vpmovsxbd %%xmm1, %%ymm0")                                            \
    X(avx2, AVX, vpermq, "vpermq $0x4e, %%ymm1, %%ymm0; vpalignr $7, %%ymm1, %%ymm0, %%ymm0")      \
    X(avx2, AVX, vperm2i128, "vperm2i128 $0x83, %%ymm1, %%ymm0, %%ymm0")                           \
    X(avx2, AVX, vpblendvb, "vpblendvb %%ymm2, %%ymm1, %%ymm0, %%ymm0")                            \
    X(avx2, AVX, vpmovmskb, "vpmovmskb %%ymm1, %%eax; movl %%eax, 136(%0)")                        \
    X(avx2, AVX, vpbroadcastb, "vpbroadcastb %%xmm1, %%ymm0; vpaddb %%ymm2, %%ymm0, %%ymm0")       \
    X(avx2, AVX, vpmaskmovd, "vpmaskmovd 32(%0), %%ymm2, %%ymm0")                                  \
    X(avx2, AVX, vpgatherdd, "vpsrld $30, %%ymm1, %%ymm1;"                                         \
      "vpgatherdd %%ymm2, (%0,%%ymm1,4), %%ymm0")\
    X(avx2, AVX, vgatherdpd, "vpsrld $30, %%xmm1, %%xmm1;"                                         \
      "vgatherdpd %%ymm2, (%0,%%xmm1,8), %%ymm0")\
    X(avx2, AVX, vmpsadbw, "vmpsadbw $0x2a, %%ymm1, %%ymm0, %%ymm0")                               \
    F3(X, fma, vfmadd132ps) F3(X, fma, vfmadd213pd) F3(X, fma, vfmadd231ps)                        \
    F3(X, fma, vfmsub231pd) F3(X, fma, vfnmadd213ps) F3(X, fma, vfnmsub132pd)                      \
    F3(X, fma, vfmaddsub213ps) F3(X, fma, vfmsubadd231pd) G3(X, fma, vfmadd231ss)                  \
    G3(X, fma, vfnmadd231sd)                                                                       \
    X(f16c, AVX, vcvtph2ps, "vcvtph2ps %%xmm1, %%ymm0")                                            \
    X(f16c, AVX, vcvtps2ph, "vcvtps2ph $4, %%ymm1, 64(%0)")

#define DEFINE(feature, how, op, text)                                                             \
    static void run_##feature##_##op(struct vectors *v) { how(text); }
ALL_OPS(DEFINE)

static const struct {
    const char *feature;
    const char *name;
    code *run;
} ops[] = {
#define ROW(feature, how, op, text) {#feature, #op, run_##feature##_##op},
    ALL_OPS(ROW)};

/* Bits that make sense as floats, doubles and integers: edges of each among random ones. */
static void fill(uint8_t *p, uint64_t *seed)
{
    static const uint32_t singles[] = {0,          0x80000000, 0x3f800000, 0xbfc00000, 0x7f800000,
                                       0xff800000, 0x7fc00000, 0x7f800001, 1,          0x807fffff,
                                       0x00800000, 0x7f7fffff, 0x4f000000, 0xcf000000, 0x3effffff};
    static const uint64_t doubles[] = {0x3ff0000000000000, 0xc008000000000000, 0x7ff0000000000000,
                                       0x7ff8000000000000, 0x7ff0000000000001, 1,
                                       0x000fffffffffffff, 0x7fefffffffffffff, 0x41e0000000000000,
                                       0xc3e0000000000000, 0x3fdfffffffffffff, 0x36a0000000000000};
    uint32_t kind = (uint32_t)rnd(seed);
    for (unsigned i = 0; i < 32; i += 8) {
        uint64_t x = rnd(seed);
        uint32_t pick = (uint32_t)rnd(seed);
        if (kind % 3 == 1) {
            x = singles[pick % 15] | (uint64_t)singles[(pick >> 8) % 15] << 32;
        } else if (kind % 3 == 2) {
            x = pick & 0x10000 ? doubles[pick % 12] : (x & 0x800fffffffffffff) |
                0x3f80000000000000 |
                                                          (uint64_t)(pick & 7) << 52;
        }
        memcpy(p + i, &x, 8);
    }
}

void test_simd(void)
{
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        if (!has(ops[i].feature)) {
            continue;
        }
        uint64_t seed = 99991 + i, h = HASH0;
        for (unsigned n = 0; n < ROUNDS; n++) {
            struct vectors v;
            memset(&v, 0, sizeof v);
            fill(v.a, &seed);
            fill(v.b, &seed);
            fill(v.c, &seed);
            /* All exceptions masked; rounding, flush to zero, denormals are zero at random. */
            v.mxcsr = 0x1f80 | (rnd(&seed) & 0xe040);
            ops[i].run(&v);
            h = hash(h, &v, sizeof v);
        }
        say("hash %s %s %X", ops[i].feature, ops[i].name, h);
    }
}
