/* SPDX-License-Identifier: Apache-2.0
 *
 * CPU models. Three questions per feature: is it in the psABI level; do the software engines do it
 * by themselves (system features, general-register instructions) or only on a host that has it
 * (SIMD); and what does it rest on. */
#include "cpu/model.h"

#include <cpuid.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"

#define F(id) CPU_FEATURE_##id
#define HYGON_ECX 0x656e6975u /* CPUID 0 ECX: AMD's processors under another name */

struct feature_row {
    const char *name;
    uint32_t leaf;
    uint8_t subleaf, reg, bit;
};
static const struct feature_row rows[CPU_FEATURE_COUNT] = {
#define X(id, name, leaf, sub, reg, bit) [F(id)] = { name, leaf, sub, reg, bit },
    CPU_FEATURE_LIST(X)
#undef X
};

/* What every model has: the system side, and instructions whose helpers need no host feature. */
static const uint8_t always[] = {
    F(FPU),          F(VME),        F(DE),
    F(PSE),          F(TSC),        F(MSR),
    F(PAE),          F(MCE),        F(CX8),
    F(APIC),         F(SEP),        F(MTRR),
    F(PGE),          F(MCA),        F(CMOV),
    F(PAT),          F(PSE36),      F(CLFSH),
    F(MMX),          F(FXSR),       F(SSE),
    F(SSE2),         F(PCID),       F(X2APIC),
    F(TSC_DEADLINE), F(XSAVE),      F(HYPERVISOR),
    F(FSGSBASE),     F(TSC_ADJUST), F(SMEP),
    F(ERMS),         F(INVPCID),    F(ZERO_FCS_FDS),
    F(SMAP),         F(UMIP),       F(PKU),
    F(RDPID),        F(XSAVEOPT),   F(XSAVEC),
    F(XGETBV1),      F(XSAVES),     F(LAHF_LM),
    F(SYSCALL),      F(NX),         F(PDPE1GB),
    F(RDTSCP),       F(LM),         F(INVTSC),
    F(ARAT),         F(SPEC_CTRL),  F(ARCH_CAPABILITIES),
};
/* psABI levels, each on top of the one before (x86-64 psABI, 3.1.1). */
static const uint8_t level_2[] = { F(CX16), F(POPCNT), F(SSE3), F(SSSE3), F(SSE41), F(SSE42) };
static const uint8_t level_3[] = {
    F(AVX), F(AVX2), F(BMI1), F(BMI2), F(F16C), F(FMA), F(LZCNT), F(MOVBE),
};
static const uint8_t level_4[] = {
    F(AVX512F), F(AVX512BW), F(AVX512CD), F(AVX512DQ), F(AVX512VL),
};
/* Beyond the levels: given from level 2 on when the host has them. Kernels that see AES or PCLMUL
 * use SSE4.1 with them. */
static const uint8_t extras[] = {
    F(AES),  F(PCLMULQDQ), F(RDRAND),    F(RDSEED), F(ADX),        F(CLFLUSHOPT),
    F(CLWB), F(SHA),       F(PREFETCHW), F(FSRM),   F(FDP_EXCPTN),
};
/* By name only, whatever the host is. */
static const uint8_t on_request[] = { F(MONITOR), F(LA57), F(CR8_LEGACY) };

/* Done in C, so that the host need not have them. */
static const uint8_t in_c[] = {
    F(CX16),       F(POPCNT), F(MOVBE),     F(RDRAND), F(RDSEED),  F(ADX),
    F(CLFLUSHOPT), F(CLWB),   F(PREFETCHW), F(FSRM),   F(MOVDIRI),
};
/* Executed by the host's own instructions, by the helpers of BMI and LZCNT, too (sem_bit.c). */
static const uint8_t on_host[] = {
    F(SSE3), F(SSSE3), F(SSE41),      F(SSE42), F(AVX),       F(AVX2),
    F(F16C), F(FMA),   F(AES),        F(SHA),   F(PCLMULQDQ), F(GFNI),
    F(VAES), F(BMI1),  F(VPCLMULQDQ), F(BMI2),  F(LZCNT),     F(FDP_EXCPTN),
};
static const uint8_t on_host_avx512[] = {
    F(AVX512F),    F(AVX512DQ),    F(AVX512IFMA), F(AVX512CD),     F(AVX512BW),        F(AVX512VL),
    F(AVX512VBMI), F(AVX512VBMI2), F(AVX512VNNI), F(AVX512BITALG), F(AVX512VPOPCNTDQ),
    F(AVX512BF16),
};

struct need {
    uint8_t feature, needs;
};
static const struct need needs[] = {
    { F(SSE), F(FXSR) },
    { F(SSE2), F(SSE) },
    { F(SSE3), F(SSE2) },
    { F(SSSE3), F(SSE3) },
    { F(SSE41), F(SSSE3) },
    { F(SSE42), F(SSE41) },
    { F(AES), F(SSE2) },
    { F(PCLMULQDQ), F(SSE2) },
    { F(SHA), F(SSE2) },
    { F(AVX), F(XSAVE) },
    { F(AVX), F(SSE42) },
    { F(AVX2), F(AVX) },
    { F(F16C), F(AVX) },
    { F(FMA), F(AVX) },
    { F(VAES), F(AVX) },
    { F(VPCLMULQDQ), F(AVX) },
    { F(GFNI), F(SSE2) },
    { F(XSAVEOPT), F(XSAVE) },
    { F(XSAVEC), F(XSAVE) },
    { F(XGETBV1), F(XSAVE) },
    { F(XSAVES), F(XSAVEC) },
    { F(PKU), F(XSAVE) },
    { F(AVX512F), F(AVX2) },
    { F(AVX512F), F(FMA) },
    { F(AVX512DQ), F(AVX512F) },
    { F(AVX512IFMA), F(AVX512F) },
    { F(AVX512CD), F(AVX512F) },
    { F(AVX512BW), F(AVX512F) },
    { F(AVX512VL), F(AVX512F) },
    { F(AVX512VBMI), F(AVX512BW) },
    { F(AVX512VBMI2), F(AVX512BW) },
    { F(AVX512VNNI), F(AVX512F) },
    { F(AVX512BITALG), F(AVX512BW) },
    { F(AVX512VPOPCNTDQ), F(AVX512F) },
    { F(AVX512BF16), F(AVX512BW) },
    { F(X2APIC), F(APIC) },
    { F(TSC_DEADLINE), F(APIC) },
    { F(LA57), F(LM) },
    { F(PDPE1GB), F(LM) },
    { F(LM), F(PAE) },
    { F(SYSCALL), F(LM) },
    { F(FSGSBASE), F(LM) },
    { F(PCID), F(LM) },
    { F(PKU), F(LM) },
    { F(NX), F(PAE) },
};

/* Without these nothing that the house runs would work, nor the engines' own assumptions. */
static const uint8_t required[] = {
    F(FPU), F(TSC), F(MSR), F(CX8), F(FXSR), F(MMX), F(SSE), F(SSE2)
};

const char *cpu_feature_name(enum cpu_feature f)
{
    return f < CPU_FEATURE_COUNT && rows[f].name != NULL ? rows[f].name : "none";
}

static void set_list(struct cpu_features *f, const uint8_t *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        cpu_features_set(f, list[i]);
    }
}

static bool in_list(const uint8_t *list, size_t n, enum cpu_feature id)
{
    return memchr(list, id, n) != NULL;
}

/* -- The host ---------------------------------------------------------------------------------- */
static bool host_cpuid(const struct feature_row *r)
{
    uint32_t v[4] = { 0 };
    if (!__get_cpuid_count(r->leaf, r->subleaf, &v[0], &v[1], &v[2], &v[3])) {
        return false;
    }
    return v[r->reg] >> r->bit & 1;
}

static bool host_is_amd(void)
{
    uint32_t a = 0, b = 0, c = 0, d = 0;
    __get_cpuid(0, &a, &b, &c, &d);
    return c == signature_AMD_ecx || c == HYGON_ECX;
}

/* Vector state that the host's system does not save must not be used. */
static uint64_t host_xcr0(void)
{
    uint32_t a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) {
        return 3;
    }
    uint32_t lo = 0, hi = 0;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return lo | (uint64_t)hi << 32;
}

static void host_list(struct cpu_features *out, const uint8_t *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (host_cpuid(&rows[list[i]])) {
            cpu_features_set(out, list[i]);
        }
    }
}

static void drop_unsupported(struct cpu_features *f)
{
    for (bool again = true; again;) {
        again = false;
        for (size_t i = 0; i < ARRAY_LEN(needs); i++) {
            if (cpu_has(f, needs[i].feature) && !cpu_has(f, needs[i].needs)) {
                cpu_features_clear(f, needs[i].feature);
                again = true;
            }
        }
    }
}

void cpu_model_host_features(struct cpu_features *out)
{
    memset(out, 0, sizeof *out);
    set_list(out, always, sizeof always);
    set_list(out, in_c, sizeof in_c);
    host_list(out, on_host, sizeof on_host);
    uint64_t xcr0 = host_xcr0();
    if ((xcr0 & 0xe6) == 0xe6 && host_cpuid(&rows[F(AVX512BW)])) { /* opmasks move as 64 bits */
        host_list(out, on_host_avx512, sizeof on_host_avx512);
    }
    if ((xcr0 & 6) != 6) {
        cpu_features_clear(out, F(AVX));
    }
    if (host_is_amd()) {
        cpu_features_set(out, F(AMD));
    }
    drop_unsupported(out);
}

static void brand_of_host(struct cpu_model *m)
{
    uint32_t v[12] = { 0 };
    if ((uint32_t)__get_cpuid_max(0x80000000, NULL) >= 0x80000004) {
        for (unsigned i = 0; i < 3; i++) {
            __cpuid(0x80000002 + i, v[4 * i], v[4 * i + 1], v[4 * i + 2], v[4 * i + 3]);
        }
    }
    memcpy(m->brand, v, sizeof v);
    m->brand[48] = 0;
}

static void identity_of_host(struct cpu_model *m)
{
    uint32_t a = 0, b = 0, c = 0, d = 0;
    __get_cpuid(0, &a, &b, &c, &d);
    memcpy(m->vendor, &b, 4);
    memcpy(m->vendor + 4, &d, 4);
    memcpy(m->vendor + 8, &c, 4);
    __get_cpuid(1, &a, &b, &c, &d);
    unsigned family = a >> 8 & 0xf;
    m->family = (uint8_t)(family == 15 ? 15 + (a >> 20 & 0xff) : family);
    m->model = (uint8_t)((a >> 4 & 0xf) | (family == 6 || family == 15 ? a >> 12 & 0xf0 : 0));
    m->stepping = a & 0xf;
    m->phys_bits = 40;
    if (__get_cpuid(0x80000008, &a, &b, &c, &d)) {
        m->phys_bits = (uint8_t)(a & 0xff);
    }
    /* More than 1 TiB is not to be had (mem/gmem.h); UEFI firmware maps all that can be named. */
    m->phys_bits = m->phys_bits < 36 ? 36 : m->phys_bits > 40 ? 40 : m->phys_bits;
    brand_of_host(m);
}

uint32_t cpu_model_signature(const struct cpu_model *m)
{
    uint32_t family = m->family < 15 ? m->family : 15;
    uint32_t extended = m->family < 15 ? 0 : m->family - 15u;
    return m->stepping | (m->model & 0xfu) << 4 | family << 8 | (m->model & 0xf0u) << 12 |
           extended << 20;
}

/* -- Parsing ----------------------------------------------------------------------------------- */
static void level_features(struct cpu_features *f, unsigned level, const struct cpu_features *host)
{
    memset(f, 0, sizeof *f);
    for (size_t i = 0; i < sizeof always; i++) {
        if (cpu_has(host, always[i])) {
            cpu_features_set(f, always[i]);
        }
    }
    if (cpu_has(host, F(AMD))) {
        cpu_features_set(f, F(AMD));
    }
    if (level >= 2) {
        set_list(f, level_2, sizeof level_2);
        for (size_t i = 0; i < sizeof extras; i++) {
            /* only what the host itself has: a guest may later run on it directly */
            if (cpu_has(host, extras[i]) && host_cpuid(&rows[extras[i]])) {
                cpu_features_set(f, extras[i]);
            }
        }
    }
    if (level >= 3) {
        set_list(f, level_3, sizeof level_3);
    }
    if (level >= 4) {
        set_list(f, level_4, sizeof level_4);
    }
}

/* A feature of the level that this host cannot do, or CPU_FEATURE_NONE. */
static enum cpu_feature missing(const struct cpu_features *want, const struct cpu_features *have)
{
    for (unsigned i = 1; i < CPU_FEATURE_COUNT; i++) {
        if (cpu_has(want, i) && !cpu_has(have, i) && !in_list(on_request, sizeof on_request, i)) {
            return i;
        }
    }
    return CPU_FEATURE_NONE;
}

static int base_model(struct cpu_model *m, const char *name, const struct cpu_features *host,
                      struct err *e)
{
    unsigned level = 0;
    if (name[0] == 0) {
        for (level = 3; level > 1; level--) {
            level_features(&m->features, level, host);
            if (missing(&m->features, host) == CPU_FEATURE_NONE) {
                break;
            }
        }
    } else if (strcmp(name, "host") == 0) {
        m->features = *host;
        for (size_t i = 0; i < sizeof in_c; i++) {
            if (!host_cpuid(&rows[in_c[i]])) {
                cpu_features_clear(&m->features, in_c[i]);
            }
        }
        drop_unsupported(&m->features);
        snprintf(m->name, sizeof m->name, "host");
        return 0;
    } else if (strncmp(name, "x86-64-v", 8) == 0 && name[8] >= '1' && name[8] <= '4' &&
               name[9] == 0) {
        level = (unsigned)(name[8] - '0');
    } else {
        return err_set(e, -EINVAL, "unknown CPU model '%s' (x86-64-v1 to x86-64-v4, or host)",
                       name);
    }
    level_features(&m->features, level, host);
    enum cpu_feature lack = missing(&m->features, host);
    if (lack != CPU_FEATURE_NONE) {
        return err_set(e, -ENOTSUP, "CPU model x86-64-v%u needs %s, which is not available here",
                       level, cpu_feature_name(lack));
    }
    snprintf(m->name, sizeof m->name, "x86-64-v%u", level);
    return 0;
}

static enum cpu_feature find_feature(const char *name)
{
    for (unsigned i = 1; i < CPU_FEATURE_COUNT; i++) {
        if (rows[i].leaf != CPU_FEATURE_NO_LEAF && strcmp(rows[i].name, name) == 0) {
            return i;
        }
    }
    return CPU_FEATURE_NONE;
}

static int apply_feature(struct cpu_model *m, const char *word,
                         const struct cpu_features *available, struct cpu_features *asked,
                         struct err *e)
{
    if (word[0] != '+' && word[0] != '-') {
        return err_set(e, -EINVAL, "CPU feature '%s' must start with + or -", word);
    }
    enum cpu_feature id = find_feature(word + 1);
    if (id == CPU_FEATURE_NONE) {
        return err_set(e, -EINVAL, "unknown CPU feature '%s'", word + 1);
    }
    if (word[0] == '-') {
        if (in_list(required, sizeof required, id)) {
            return err_set(e, -ENOTSUP, "CPU feature %s cannot be switched off", word + 1);
        }
        cpu_features_clear(&m->features, id);
        cpu_features_clear(asked, id);
        return 0;
    }
    if (!cpu_has(available, id)) {
        return err_set(e, -ENOTSUP, "CPU feature %s is not available here", word + 1);
    }
    cpu_features_set(&m->features, id);
    cpu_features_set(asked, id);
    return 0;
}

static uint64_t xcr0_of(const struct cpu_features *f)
{
    if (!cpu_has(f, F(XSAVE))) {
        return 0;
    }
    return 3 | (cpu_has(f, F(AVX)) ? 4 : 0) | (cpu_has(f, F(AVX512F)) ? 0xe0 : 0) |
           (cpu_has(f, F(PKU)) ? 0x200 : 0);
}

int cpu_model_parse(struct cpu_model *out, const char *spec, unsigned cpus, uint32_t tsc_khz,
                    void (*limit)(struct cpu_features *f), struct err *e)
{
    struct cpu_model m = { .cpus = cpus, .tsc_khz = tsc_khz };
    struct cpu_features host;
    struct cpu_features asked = { 0 };
    char words[CPU_MODEL_SPEC_MAX];
    if (cpus == 0 || tsc_khz == 0) {
        return err_set(e, -EINVAL, "a CPU model needs at least one CPU and a TSC frequency");
    }
    if ((size_t)snprintf(words, sizeof words, "%s", spec) >= sizeof words) {
        return err_set(e, -EINVAL, "CPU model of %zu characters", strlen(spec));
    }
    cpu_model_host_features(&host);
    struct cpu_features available = host;
    set_list(&available, on_request, sizeof on_request);
    if (limit != NULL) {
        limit(&host);
        limit(&available);
        drop_unsupported(&host);
    }
    identity_of_host(&m);

    char *rest = words;
    int r = base_model(&m, strsep(&rest, ","), &host, e);
    while (r == 0 && rest != NULL) {
        r = apply_feature(&m, strsep(&rest, ","), &available, &asked, e);
    }
    if (r < 0) {
        return r;
    }
    drop_unsupported(&m.features);
    for (unsigned i = 1; i < CPU_FEATURE_COUNT; i++) {
        if (cpu_has(&asked, i) && !cpu_has(&m.features, i)) {
            return err_set(e, -EINVAL, "CPU feature %s needs another that is off",
                           cpu_feature_name(i));
        }
    }
    m.virt_bits = cpu_has(&m.features, F(LA57)) ? 57 : 48;
    m.xcr0_mask = xcr0_of(&m.features);
    *out = m;
    return 0;
}

void cpu_model_spec(const struct cpu_model *m, char out[CPU_MODEL_SPEC_MAX])
{
    struct cpu_features base;
    struct cpu_features full = m->features; /* whose vendor, not the host's, is the base's */
    set_list(&full, always, sizeof always);
    level_features(&base, 1, &full);
    size_t len = (size_t)snprintf(out, CPU_MODEL_SPEC_MAX, "x86-64-v1");
    for (unsigned i = 1; i < CPU_FEATURE_COUNT; i++) {
        if (cpu_has(&base, i) != cpu_has(&m->features, i) && len < CPU_MODEL_SPEC_MAX) {
            len += (size_t)snprintf(out + len, CPU_MODEL_SPEC_MAX - len, ",%c%s",
                                    cpu_has(&m->features, i) ? '+' : '-', cpu_feature_name(i));
        }
    }
}
