/* SPDX-License-Identifier: Apache-2.0
 *
 * CPUID (SDM 2, CPUID): leaves made from the model's feature set. */
#include <string.h>

#include "base/bits.h"
#include "cpu/model.h"
#include "cpu/msr.h"

#define MAX_BASIC 0x16u
#define MAX_EXTENDED 0x80000008u
#define MAX_EXTENDED_AMD 0x80000021u
#define MAX_PV 0x40000010u

#define APIC_BASE_ENABLE (1ull << 11)

/* KVM PV features (Linux, Documentation/virt/kvm/x86/cpuid.rst) */
#define KVM_CLOCKSOURCE BIT(0)
#define KVM_NOP_IO_DELAY BIT(1)
#define KVM_CLOCKSOURCE2 BIT(3)
#define KVM_CLOCKSOURCE_STABLE BIT(24)

struct feature_bit {
    uint32_t leaf;
    uint8_t subleaf, reg, bit;
};
static const struct feature_bit feature_bits[CPU_FEATURE_COUNT] = {
#define X(id, name, leaf, sub, reg, bit) [CPU_FEATURE_##id] = { leaf, sub, reg, bit },
    CPU_FEATURE_LIST(X)
#undef X
};

static void add_features(const struct cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    for (unsigned i = 1; i < CPU_FEATURE_COUNT; i++) {
        const struct feature_bit *b = &feature_bits[i];
        if (b->leaf == leaf && b->subleaf == subleaf && cpu_has(&cpu->features, i)) {
            out[b->reg] |= 1u << b->bit;
        }
    }
}

/* Bits of an APIC id that number the cores of the one package. */
static unsigned core_bits(const struct cpu *cpu)
{
    return cpu->model->cpus > 1 ? 32u - (unsigned)__builtin_clz(cpu->model->cpus - 1) : 0;
}

static bool apic_enabled(const struct cpu *cpu)
{
    const struct cpu_world *w = cpu->world;
    uint64_t base;
    return w->apic_msr_read == NULL ||
           !w->apic_msr_read(w->ctx, (struct cpu *)(uintptr_t)cpu, MSR_APIC_BASE, &base) ||
           (base & APIC_BASE_ENABLE);
}

static void leaf_1(const struct cpu *cpu, uint32_t out[4])
{
    unsigned logical = 1u << core_bits(cpu);
    out[0] = cpu_model_signature(cpu->model);
    out[1] = 8u << 8 | (logical < 256 ? logical : 255) << 16 | (cpu->apic_id & 0xff) << 24;
    add_features(cpu, 1, 0, out);
    out[2] |= cpu->cr4 & CR4_OSXSAVE ? 1u << 27 : 0;
    out[3] |= cpu->model->cpus > 1 ? 1u << 28 : 0; /* HTT: more than one logical processor */
    if (!apic_enabled(cpu)) {
        out[3] &= ~(1u << 9);
    }
}

/* Deterministic cache parameters: plausible, so that guests size their algorithms well. */
static void leaf_4(const struct cpu *cpu, uint32_t subleaf, uint32_t out[4])
{
    static const struct {
        uint8_t type, level, ways;
        uint16_t sets;
    } caches[] = { { 1, 1, 8, 64 }, { 2, 1, 8, 64 }, { 3, 2, 16, 1024 }, { 3, 3, 16, 16384 } };
    if (subleaf >= ARRAY_LEN(caches) || cpu_is_amd(cpu)) {
        return;
    }
    unsigned cores = 1u << core_bits(cpu);
    unsigned sharing = caches[subleaf].level == 3 ? cores : 1;
    out[0] = caches[subleaf].type | (uint32_t)caches[subleaf].level << 5 | 1u << 8 |
             ((sharing - 1) & 0xfff) << 14 | ((cores < 64 ? cores : 64) - 1) << 26;
    out[1] = 63 | (caches[subleaf].ways - 1u) << 22;
    out[2] = caches[subleaf].sets - 1u;
}

static void leaf_b(const struct cpu *cpu, uint32_t subleaf, uint32_t out[4])
{
    out[2] = subleaf & 0xff;
    out[3] = cpu->apic_id;
    if (subleaf == 0) { /* threads of a core */
        out[1] = 1;
        out[2] |= 1u << 8;
    } else if (subleaf == 1) { /* cores of the package */
        out[0] = core_bits(cpu);
        out[1] = cpu->model->cpus;
        out[2] |= 2u << 8;
    }
}

/* -- Leaf 0xD ---------------------------------------------------------------------------------- */
bool cpu_xsave_component(unsigned index, uint32_t *offset, uint32_t *size)
{
    switch (index) {
    case 2:
        *offset = 576;
        *size = 256;
        return true;
    case 5:
        *offset = 1088;
        *size = 64;
        return true;
    case 6:
        *offset = 1152;
        *size = 512;
        return true;
    case 7:
        *offset = 1664;
        *size = 1024;
        return true;
    case 9:
        *offset = 2688;
        *size = 8;
        return true;
    default:
        return false;
    }
}

static uint32_t standard_size(uint64_t mask)
{
    uint32_t end = 576;
    for (unsigned i = 2; i < 63; i++) {
        uint32_t offset;
        uint32_t size;
        if ((mask >> i & 1) && cpu_xsave_component(i, &offset, &size) && offset + size > end) {
            end = offset + size;
        }
    }
    return end;
}

static uint32_t compacted_size(uint64_t mask)
{
    uint32_t end = 576;
    for (unsigned i = 2; i < 63; i++) {
        uint32_t offset;
        uint32_t size;
        if ((mask >> i & 1) && cpu_xsave_component(i, &offset, &size)) {
            end += size;
        }
    }
    return end;
}

static void leaf_d(const struct cpu *cpu, uint32_t subleaf, uint32_t out[4])
{
    uint64_t mask = cpu->model->xcr0_mask;
    if (!cpu_has(&cpu->features, CPU_FEATURE_XSAVE)) {
        return;
    }
    if (subleaf == 0) {
        out[0] = (uint32_t)mask;
        out[1] = standard_size(cpu->xcr0);
        out[2] = standard_size(mask);
        out[3] = (uint32_t)(mask >> 32);
    } else if (subleaf == 1) {
        add_features(cpu, 0xd, 1, out);
        if (cpu_has(&cpu->features, CPU_FEATURE_XSAVEC)) {
            out[1] = compacted_size(cpu->xcr0 | cpu->xss);
        }
    } else if (subleaf < 63 && (mask >> subleaf & 1)) {
        uint32_t offset = 0;
        uint32_t size = 0;
        (void)cpu_xsave_component(subleaf, &offset, &size);
        out[0] = size;
        out[1] = offset;
    }
}

/* -- Paravirtual leaves ------------------------------------------------------------------------ */
static void leaf_pv(const struct cpu *cpu, uint32_t leaf, uint32_t out[4])
{
    switch (leaf) {
    case 0x40000000:
        out[0] = MAX_PV;
        memcpy(&out[1], "KVMKVMKVM\0\0\0", 12);
        break;
    case 0x40000001:
        out[0] = KVM_CLOCKSOURCE | KVM_NOP_IO_DELAY | KVM_CLOCKSOURCE2 | KVM_CLOCKSOURCE_STABLE;
        break;
    case 0x40000010: /* kHz of the TSC and of the APIC timer */
        out[0] = cpu->model->tsc_khz;
        out[1] = CPU_APIC_TIMER_HZ / 1000;
        break;
    default:
        break;
    }
}

/* -- Extended leaves --------------------------------------------------------------------------- */
static uint32_t max_extended(const struct cpu *cpu)
{
    return cpu_is_amd(cpu) ? MAX_EXTENDED_AMD : MAX_EXTENDED;
}

/* Extended feature identification 2 (APM 3 appendix E.4.17). For SRSO and TSA holds what cpu/msr.c
 * says of IA32_ARCH_CAPABILITIES: an engine that runs guest code on the processor itself must show
 * what the host does. */
static void leaf_80000021(uint32_t out[4])
{
    out[0] = BIT(2) /* LFENCE waits for what is before it */ |
             BIT(6) /* loading a null selector clears the base */ | BIT(29) /* SRSO_NO */;
    out[2] = BIT(1) /* TSA_SQ_NO */ | BIT(2) /* TSA_L1_NO */;
}

static void leaf_extended(const struct cpu *cpu, uint32_t leaf, uint32_t out[4])
{
    const struct cpu_model *m = cpu->model;
    switch (leaf) {
    case 0x80000000:
        out[0] = max_extended(cpu);
        if (cpu_is_amd(cpu)) {
            memcpy(&out[1], m->vendor, 4);
            memcpy(&out[3], m->vendor + 4, 4);
            memcpy(&out[2], m->vendor + 8, 4);
        }
        break;
    case 0x80000001:
        if (cpu_is_amd(cpu)) { /* repeats bits of leaf 1 */
            uint32_t basic[4] = { 0 };
            leaf_1(cpu, basic);
            out[0] = basic[0];
            out[3] = basic[3] & 0x0183f3ff;
        }
        add_features(cpu, leaf, 0, out);
        break;
    case 0x80000002:
    case 0x80000003:
    case 0x80000004:
        memcpy(out, m->brand + 16 * (leaf - 0x80000002), 16);
        break;
    case 0x80000005:
        if (cpu_is_amd(cpu)) { /* L1: 32 KiB, 8 ways, 64-byte lines */
            out[2] = out[3] = 32u << 24 | 8u << 16 | 1u << 8 | 64;
        }
        break;
    case 0x80000006:
        out[2] = 1024u << 16 | 8u << 12 | 1u << 8 | 64; /* L2: 1 MiB, 16 ways */
        if (cpu_is_amd(cpu)) {                          /* L3: 16 MiB, 16 ways */
            out[3] = 32u << 18 | 8u << 12 | 1u << 8 | 64;
        }
        break;
    case 0x80000007:
        add_features(cpu, leaf, 0, out);
        break;
    case 0x80000008:
        out[0] = m->phys_bits | (uint32_t)m->virt_bits << 8;
        if (cpu_is_amd(cpu)) {
            out[1] = BIT(2); /* FXSAVE and FXRSTOR always handle the x87 pointers (cpu/fpu.h) */
            out[2] = ((m->cpus - 1) & 0xff) | core_bits(cpu) << 12;
        }
        break;
    case MAX_EXTENDED_AMD:
        leaf_80000021(out);
        break;
    default:
        break;
    }
}

/* TSC = crystal * EBX / EAX. Linux multiplies the crystal's kHz with EBX in 32 bits: so this is the
 * best fraction with a numerator that leaves room for that, by continued fractions. It is right to
 * some millionths. */
static void leaf_15(uint32_t tsc_khz, uint32_t out[4])
{
    const uint32_t crystal_khz = CPU_APIC_TIMER_HZ / 1000;
    const uint64_t limit = UINT32_MAX / crystal_khz;
    uint64_t a = tsc_khz, b = crystal_khz;
    uint64_t num[2] = { 0, 1 }, den[2] = { 1, 0 }; /* the last two convergents */
    while (b != 0) {
        uint64_t times = a / b;
        uint64_t room = num[1] != 0 ? (limit - num[0]) / num[1] : times;
        bool last = times > room;
        if (last && 2 * room <= times) {
            break; /* what fits is no better than what there is */
        }
        times = last ? room : times;
        uint64_t n = times * num[1] + num[0];
        uint64_t d = times * den[1] + den[0];
        num[0] = num[1], num[1] = n;
        den[0] = den[1], den[1] = d;
        uint64_t rest = a % b;
        a = b;
        b = last ? 0 : rest;
    }
    out[0] = (uint32_t)den[1];
    out[1] = (uint32_t)num[1];
    out[2] = CPU_APIC_TIMER_HZ;
}

static void leaf_basic(const struct cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    const struct cpu_model *m = cpu->model;
    switch (leaf) {
    case 0:
        out[0] = MAX_BASIC;
        memcpy(&out[1], m->vendor, 4);
        memcpy(&out[3], m->vendor + 4, 4);
        memcpy(&out[2], m->vendor + 8, 4);
        break;
    case 1:
        leaf_1(cpu, out);
        break;
    case 2:
        if (!cpu_is_amd(cpu)) { /* no descriptor bytes: leaf 4 tells, prefetch is 64 bytes */
            out[0] = 0x00feff01;
            out[1] = 0xf0;
        }
        break;
    case 4:
        leaf_4(cpu, subleaf, out);
        break;
    case 5:
        if (cpu_has(&cpu->features, CPU_FEATURE_MONITOR)) {
            out[0] = out[1] = 64;
            out[2] = 3; /* MWAIT extensions: interrupts break it even when masked */
        }
        break;
    case 7:
        add_features(cpu, 7, subleaf, out);
        if (subleaf == 0) {
            out[0] = cpu_has(&cpu->features, CPU_FEATURE_AVX512BF16); /* last subleaf */
            out[2] |= cpu->cr4 & CR4_PKE ? 1u << 4 : 0; /* OSPKE */
        }
        break;
    case 0xb:
        leaf_b(cpu, subleaf, out);
        break;
    case 0xd:
        leaf_d(cpu, subleaf, out);
        break;
    case 0x15:
        leaf_15(m->tsc_khz, out);
        break;
    case 0x16: /* MHz: base, maximum, bus */
        out[0] = out[1] = m->tsc_khz / 1000;
        out[2] = 100;
        break;
    default:
        add_features(cpu, leaf, subleaf, out);
        break;
    }
}

void cpu_cpuid(const struct cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    memset(out, 0, 16);
    if (leaf >= 0x80000000 && leaf <= max_extended(cpu)) {
        leaf_extended(cpu, leaf, out);
    } else if (leaf >= 0x40000000 && leaf <= 0x400000ff) {
        leaf_pv(cpu, leaf, out);
    } else if (leaf <= MAX_BASIC) {
        leaf_basic(cpu, leaf, subleaf, out);
    } else if (!cpu_is_amd(cpu)) {
        leaf_basic(cpu, MAX_BASIC, subleaf,
                   out); /* beyond the end: the highest basic leaf (SDM 2) */
    }
}
