/* SPDX-License-Identifier: Apache-2.0
 *
 * CPU features as a bit set: what CPUID announces, the decoder accepts and the helpers implement.
 * The CPUID layout of each bit, and the models made of them, are in cpu/model.c.
 */
#ifndef SOSIA_CPU_FEATURES_H
#define SOSIA_CPU_FEATURES_H

#include <stdbool.h>
#include <stdint.h>

/* Leaf of what no CPUID bit shows. */
#define CPU_FEATURE_NO_LEAF 0xffffffffu

/* name in the enum, name on the command line and in Linux' /proc/cpuinfo, leaf, subleaf, register
 * (0 EAX 1 EBX 2 ECX 3 EDX), bit. AMD: the vendor's ways, where the two differ; CPUID shows it as
 * the vendor, which is always the host's. */
#define CPU_FEATURE_LIST(X)                                                                        \
    X(FPU, "fpu", 1, 0, 3, 0)                                                                      \
    X(VME, "vme", 1, 0, 3, 1)                                                                      \
    X(DE, "de", 1, 0, 3, 2)                                                                        \
    X(PSE, "pse", 1, 0, 3, 3)                                                                      \
    X(TSC, "tsc", 1, 0, 3, 4)                                                                      \
    X(MSR, "msr", 1, 0, 3, 5)                                                                      \
    X(PAE, "pae", 1, 0, 3, 6)                                                                      \
    X(MCE, "mce", 1, 0, 3, 7)                                                                      \
    X(CX8, "cx8", 1, 0, 3, 8)                                                                      \
    X(APIC, "apic", 1, 0, 3, 9)                                                                    \
    X(SEP, "sep", 1, 0, 3, 11)                                                                     \
    X(MTRR, "mtrr", 1, 0, 3, 12)                                                                   \
    X(PGE, "pge", 1, 0, 3, 13)                                                                     \
    X(MCA, "mca", 1, 0, 3, 14)                                                                     \
    X(CMOV, "cmov", 1, 0, 3, 15)                                                                   \
    X(PAT, "pat", 1, 0, 3, 16)                                                                     \
    X(PSE36, "pse36", 1, 0, 3, 17)                                                                 \
    X(CLFSH, "clflush", 1, 0, 3, 19)                                                               \
    X(MMX, "mmx", 1, 0, 3, 23)                                                                     \
    X(FXSR, "fxsr", 1, 0, 3, 24)                                                                   \
    X(SSE, "sse", 1, 0, 3, 25)                                                                     \
    X(SSE2, "sse2", 1, 0, 3, 26)                                                                   \
    X(SSE3, "sse3", 1, 0, 2, 0)                                                                    \
    X(PCLMULQDQ, "pclmulqdq", 1, 0, 2, 1)                                                          \
    X(MONITOR, "monitor", 1, 0, 2, 3)                                                              \
    X(SSSE3, "ssse3", 1, 0, 2, 9)                                                                  \
    X(FMA, "fma", 1, 0, 2, 12)                                                                     \
    X(CX16, "cx16", 1, 0, 2, 13)                                                                   \
    X(PCID, "pcid", 1, 0, 2, 17)                                                                   \
    X(SSE41, "sse4_1", 1, 0, 2, 19)                                                                \
    X(SSE42, "sse4_2", 1, 0, 2, 20)                                                                \
    X(X2APIC, "x2apic", 1, 0, 2, 21)                                                               \
    X(MOVBE, "movbe", 1, 0, 2, 22)                                                                 \
    X(POPCNT, "popcnt", 1, 0, 2, 23)                                                               \
    X(TSC_DEADLINE, "tsc_deadline_timer", 1, 0, 2, 24)                                             \
    X(AES, "aes", 1, 0, 2, 25)                                                                     \
    X(XSAVE, "xsave", 1, 0, 2, 26)                                                                 \
    X(AVX, "avx", 1, 0, 2, 28)                                                                     \
    X(F16C, "f16c", 1, 0, 2, 29)                                                                   \
    X(RDRAND, "rdrand", 1, 0, 2, 30)                                                               \
    X(HYPERVISOR, "hypervisor", 1, 0, 2, 31)                                                       \
    X(FSGSBASE, "fsgsbase", 7, 0, 1, 0)                                                            \
    X(TSC_ADJUST, "tsc_adjust", 7, 0, 1, 1)                                                        \
    X(BMI1, "bmi1", 7, 0, 1, 3)                                                                    \
    X(AVX2, "avx2", 7, 0, 1, 5)                                                                    \
    X(FDP_EXCPTN, "fdp_excptn_only", 7, 0, 1, 6)                                                   \
    X(SMEP, "smep", 7, 0, 1, 7)                                                                    \
    X(BMI2, "bmi2", 7, 0, 1, 8)                                                                    \
    X(ERMS, "erms", 7, 0, 1, 9)                                                                    \
    X(INVPCID, "invpcid", 7, 0, 1, 10)                                                             \
    X(ZERO_FCS_FDS, "zero_fcs_fds", 7, 0, 1, 13)                                                   \
    X(AVX512F, "avx512f", 7, 0, 1, 16)                                                             \
    X(AVX512DQ, "avx512dq", 7, 0, 1, 17)                                                           \
    X(RDSEED, "rdseed", 7, 0, 1, 18)                                                               \
    X(ADX, "adx", 7, 0, 1, 19)                                                                     \
    X(SMAP, "smap", 7, 0, 1, 20)                                                                   \
    X(AVX512IFMA, "avx512ifma", 7, 0, 1, 21)                                                       \
    X(CLFLUSHOPT, "clflushopt", 7, 0, 1, 23)                                                       \
    X(CLWB, "clwb", 7, 0, 1, 24)                                                                   \
    X(AVX512CD, "avx512cd", 7, 0, 1, 28)                                                           \
    X(SHA, "sha_ni", 7, 0, 1, 29)                                                                  \
    X(AVX512BW, "avx512bw", 7, 0, 1, 30)                                                           \
    X(AVX512VL, "avx512vl", 7, 0, 1, 31)                                                           \
    X(AVX512VBMI, "avx512vbmi", 7, 0, 2, 1)                                                        \
    X(UMIP, "umip", 7, 0, 2, 2)                                                                    \
    X(PKU, "pku", 7, 0, 2, 3)                                                                      \
    X(AVX512VBMI2, "avx512_vbmi2", 7, 0, 2, 6)                                                     \
    X(GFNI, "gfni", 7, 0, 2, 8)                                                                    \
    X(VAES, "vaes", 7, 0, 2, 9)                                                                    \
    X(VPCLMULQDQ, "vpclmulqdq", 7, 0, 2, 10)                                                       \
    X(AVX512VNNI, "avx512_vnni", 7, 0, 2, 11)                                                      \
    X(AVX512BITALG, "avx512_bitalg", 7, 0, 2, 12)                                                  \
    X(AVX512VPOPCNTDQ, "avx512_vpopcntdq", 7, 0, 2, 14)                                            \
    X(LA57, "la57", 7, 0, 2, 16)                                                                   \
    X(RDPID, "rdpid", 7, 0, 2, 22)                                                                 \
    X(MOVDIRI, "movdiri", 7, 0, 2, 27)                                                             \
    X(FSRM, "fsrm", 7, 0, 3, 4)                                                                    \
    X(SPEC_CTRL, "spec_ctrl", 7, 0, 3, 26)                                                         \
    X(ARCH_CAPABILITIES, "arch_capabilities", 7, 0, 3, 29)                                         \
    X(AVX512BF16, "avx512_bf16", 7, 1, 0, 5)                                                       \
    X(XSAVEOPT, "xsaveopt", 0xd, 1, 0, 0)                                                          \
    X(XSAVEC, "xsavec", 0xd, 1, 0, 1)                                                              \
    X(XGETBV1, "xgetbv1", 0xd, 1, 0, 2)                                                            \
    X(XSAVES, "xsaves", 0xd, 1, 0, 3)                                                              \
    X(LAHF_LM, "lahf_lm", 0x80000001, 0, 2, 0)                                                     \
    X(CR8_LEGACY, "cr8_legacy", 0x80000001, 0, 2, 4)                                               \
    X(LZCNT, "abm", 0x80000001, 0, 2, 5)                                                           \
    X(PREFETCHW, "3dnowprefetch", 0x80000001, 0, 2, 8)                                             \
    X(SYSCALL, "syscall", 0x80000001, 0, 3, 11)                                                    \
    X(NX, "nx", 0x80000001, 0, 3, 20)                                                              \
    X(PDPE1GB, "pdpe1gb", 0x80000001, 0, 3, 26)                                                    \
    X(RDTSCP, "rdtscp", 0x80000001, 0, 3, 27)                                                      \
    X(LM, "lm", 0x80000001, 0, 3, 29)                                                              \
    X(INVTSC, "constant_tsc", 0x80000007, 0, 3, 8)                                                 \
    X(ARAT, "arat", 6, 0, 0, 2)                                                                    \
    X(AMD, "amd", CPU_FEATURE_NO_LEAF, 0, 0, 0)

enum cpu_feature {
    CPU_FEATURE_NONE, /* always present: what an i486 with CPUID has */
#define X(id, name, leaf, sub, reg, bit) CPU_FEATURE_##id,
    CPU_FEATURE_LIST(X)
#undef X
    CPU_FEATURE_COUNT
};

struct cpu_features {
    uint64_t bits[(CPU_FEATURE_COUNT + 63) / 64];
};

static inline bool cpu_has(const struct cpu_features *f, enum cpu_feature id)
{
    return id == CPU_FEATURE_NONE || (f->bits[id / 64] >> (id % 64) & 1);
}

static inline void cpu_features_set(struct cpu_features *f, enum cpu_feature id)
{
    f->bits[id / 64] |= 1ull << (id % 64);
}

static inline void cpu_features_clear(struct cpu_features *f, enum cpu_feature id)
{
    f->bits[id / 64] &= ~(1ull << (id % 64));
}

#endif
