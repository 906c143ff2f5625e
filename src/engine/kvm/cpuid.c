/* SPDX-License-Identifier: Apache-2.0
 *
 * CPUID: the CPU model's leaves, as the other engines show them (cpu/cpuid.c). What a model may
 * have is limited first to what KVM_GET_SUPPORTED_CPUID and the host's layout of the XSAVE
 * area allow; and what a leaf says of the processor's own leaks is the host's.
 */
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "cpu/fpu.h"
#include "cpu/model.h"
#include "engine/kvm/kvm.h"

#define ENTRIES 256u
#define LEAF_PV 0x40000000u
#define LEAF_EXTENDED 0x80000000u
#define LEAF_AMD_2 0x80000021u

/* The kernel's structure, with room for its entries. */
union table {
    struct kvm_cpuid2 head;
    struct {
        uint32_t nent, padding;
        struct kvm_cpuid_entry2 entry[ENTRIES];
    };
};

static union table *supported(int dev_fd)
{
    union table *t = xzalloc(sizeof *t);
    t->head.nent = ENTRIES;
    if (ioctl(dev_fd, KVM_GET_SUPPORTED_CPUID, t) < 0) {
        free(t);
        return NULL;
    }
    return t;
}

static const struct kvm_cpuid_entry2 *find(const union table *t, uint32_t leaf, uint32_t subleaf)
{
    for (unsigned i = 0; i < t->head.nent; i++) {
        const struct kvm_cpuid_entry2 *e = &t->entry[i];
        if (e->function == leaf &&
            (e->index == subleaf || !(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX))) {
            return e;
        }
    }
    return NULL;
}

/* -- Limits ------------------------------------------------------------------------------------ */

struct feature_row {
    uint32_t leaf;
    uint8_t subleaf, reg, bit;
};
static const struct feature_row rows[CPU_FEATURE_COUNT] = {
#define X(id, name, leaf, sub, reg, bit) [CPU_FEATURE_##id] = { leaf, sub, reg, bit },
    CPU_FEATURE_LIST(X)
#undef X
};

/* Not the kernel's to give: we emulate them, they are ours to say, or they are what the processor
 * has, whatever is shown (ZERO_FCS_FDS, FDP_EXCPTN). */
static bool ours(enum cpu_feature f)
{
    switch (f) {
    case CPU_FEATURE_HYPERVISOR:
    case CPU_FEATURE_X2APIC:
    case CPU_FEATURE_TSC_DEADLINE:
    case CPU_FEATURE_TSC_ADJUST:
    case CPU_FEATURE_ZERO_FCS_FDS:
    case CPU_FEATURE_FDP_EXCPTN:
    case CPU_FEATURE_MTRR:
    case CPU_FEATURE_MCE:
    case CPU_FEATURE_MCA:
    case CPU_FEATURE_APIC:
    case CPU_FEATURE_INVTSC:
    case CPU_FEATURE_ARAT:
    case CPU_FEATURE_AMD:
        return true;
    default:
        return false;
    }
}

static bool kernel_has(const union table *t, const struct feature_row *r)
{
    const struct kvm_cpuid_entry2 *e = find(t, r->leaf, r->subleaf);
    if (e == NULL) {
        return false;
    }
    const uint32_t regs[4] = { e->eax, e->ebx, e->ecx, e->edx };
    return regs[r->reg] >> r->bit & 1;
}

/* Guests execute XSAVE on the host's processor: its layout must be the one that CPUID shows. */
static bool same_layout(const union table *t, unsigned component)
{
    const struct kvm_cpuid_entry2 *e = find(t, 0xd, component);
    uint32_t offset;
    uint32_t size;
    return e != NULL && cpu_xsave_component(component, &offset, &size) && e->ebx == offset &&
           e->eax == size;
}

void kvm_limit_features(struct cpu_features *f)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    union table *t = fd >= 0 ? supported(fd) : NULL;
    if (fd >= 0) {
        close(fd);
    }
    if (t == NULL) {
        return; /* create says what is wrong */
    }
    for (unsigned i = 1; i < CPU_FEATURE_COUNT; i++) {
        if (!ours(i) && !kernel_has(t, &rows[i])) {
            cpu_features_clear(f, i);
        }
    }
    if (!same_layout(t, 2)) {
        cpu_features_clear(f, CPU_FEATURE_AVX);
    }
    if (!same_layout(t, 5) || !same_layout(t, 6) || !same_layout(t, 7)) {
        cpu_features_clear(f, CPU_FEATURE_AVX512F);
    }
    if (!same_layout(t, 9)) {
        cpu_features_clear(f, CPU_FEATURE_PKU);
    }
    free(t);
}

/* -- The guest's table ------------------------------------------------------------------------- */

static void add(union table *t, const struct cpu *cpu, uint32_t leaf, uint32_t subleaf,
                bool has_subleaves)
{
    uint32_t v[4];
    if (t->head.nent == ENTRIES) {
        return;
    }
    cpu_cpuid(cpu, leaf, subleaf, v);
    t->entry[t->head.nent++] = (struct kvm_cpuid_entry2){
        .function = leaf,
        .index = subleaf,
        .flags = has_subleaves ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
        .eax = v[0],
        .ebx = v[1],
        .ecx = v[2],
        .edx = v[3],
    };
}

static unsigned subleaves(uint32_t leaf)
{
    switch (leaf) {
    case 4:
        return 5; /* the last one says that there are no more */
    case 7:
        return 2;
    case 0xb:
        return 3;
    case 0xd:
        return 64;
    default:
        return 0;
    }
}

static void add_range(union table *t, const struct cpu *cpu, uint32_t first)
{
    uint32_t top[4];
    cpu_cpuid(cpu, first, 0, top);
    for (uint32_t leaf = first; leaf <= top[0]; leaf++) {
        unsigned n = subleaves(leaf);
        for (unsigned i = 0; i < n; i++) {
            uint32_t v[4];
            cpu_cpuid(cpu, leaf, i, v);
            if (leaf != 0xd || i < 2 || v[0] != 0) {
                add(t, cpu, leaf, i, true);
            }
        }
        if (n == 0) {
            add(t, cpu, leaf, 0, false);
        }
    }
}

/* What AMD's leaf 0x80000021 claims of the software engines must be true of the processor. */
static void limit_amd(union table *t, const union table *host)
{
    const struct kvm_cpuid_entry2 *h = find(host, LEAF_AMD_2, 0);
    for (unsigned i = 0; i < t->head.nent; i++) {
        struct kvm_cpuid_entry2 *e = &t->entry[i];
        if (e->function == LEAF_AMD_2) {
            e->eax &= h != NULL ? h->eax : 0;
            e->ecx &= h != NULL ? h->ecx : 0;
        }
    }
}

int kvm_set_cpuid(struct kvm_vcpu *v, struct err *e)
{
    union table *host = supported(v->kvm->dev_fd);
    union table *t = xzalloc(sizeof *t);
    int r = 0;
    if (host == NULL) {
        r = err_set(e, -errno, "KVM_GET_SUPPORTED_CPUID: %s", strerror(errno));
    } else {
        add_range(t, v->cpu, 0);
        add_range(t, v->cpu, LEAF_PV);
        add_range(t, v->cpu, LEAF_EXTENDED);
        limit_amd(t, host);
        if (ioctl(v->fd, KVM_SET_CPUID2, t) < 0) {
            r = err_set(e, -errno, "the kernel refuses the CPU model: %s", strerror(errno));
        }
    }
    free(host);
    free(t);
    return r;
}
