/* SPDX-License-Identifier: Apache-2.0
 *
 * CPU models: x86-64-v1..v4, host, and named features on and off; CPUID leaves that tell exactly
 * what works.
 */
#ifndef SOSIA_CPU_MODEL_H
#define SOSIA_CPU_MODEL_H

#include "cpu/features.h"
#include "base/err.h"

struct cpu_model {
    char name[32];
    struct cpu_features features;
    char vendor[13];
    char brand[49];
    uint8_t family;
    uint8_t model;
    uint8_t stepping;
    uint8_t phys_bits;
    uint8_t virt_bits;
    unsigned cpus;      /* vCPUs, for topology leaves */
    uint32_t tsc_khz;   /* announced in 0x15, 0x16 and the PV leaves */
    uint64_t xcr0_mask; /* XSAVE components offered */
};

/* spec: "", "x86-64-v3", "host,-avx2,+pcid", ... A feature that neither the host nor the helpers
 * can do is refused with a message naming it. limit: what the engine cannot show guests is taken
 * away by it before; may be NULL. */
MUST_CHECK int cpu_model_parse(struct cpu_model *out, const char *spec, unsigned cpus,
                               uint32_t tsc_khz, void (*limit)(struct cpu_features *f),
                               struct err *e);
/* The spec that makes the same features on any host that can: "x86-64-v1,+avx,...". */
#define CPU_MODEL_SPEC_MAX 2048u
void cpu_model_spec(const struct cpu_model *m, char out[CPU_MODEL_SPEC_MAX]);
/* What the software engines can offer on this host. */
void cpu_model_host_features(struct cpu_features *out);
const char *cpu_feature_name(enum cpu_feature f);

/* Leaf 1 EAX: family, model, stepping; also in EDX after reset. */
uint32_t cpu_model_signature(const struct cpu_model *m);
/* Standard-format layout of an XSAVE component 2..63; false: not a component. */
bool cpu_xsave_component(unsigned index, uint32_t *offset, uint32_t *size);

/* Frequency of the local APIC's timer, which leaf 0x15 gives as the core crystal's and leaf
 * 0x40000010 as the bus': whoever makes the APIC uses the same. The lower it is, the better a
 * fraction of it says what the TSC's frequency is. */
#define CPU_APIC_TIMER_HZ 25000000u

struct cpu;
/* CPUID as seen by this vCPU now (OSXSAVE, OSPKE, APIC bits are dynamic). */
void cpu_cpuid(const struct cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);

#endif
