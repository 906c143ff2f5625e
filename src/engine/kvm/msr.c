/* SPDX-License-Identifier: Apache-2.0
 *
 * Model-specific registers. The kernel holds those that the processor itself works with while guest
 * code runs; every other comes to us (KVM_CAP_X86_USER_SPACE_MSR, KVM_X86_SET_MSR_FILTER), and
 * src/cpu/msr.c answers as it does for the other engines. So memory types, machine checks, the
 * paravirtual clock, IA32_TSC_ADJUST and the like are the same everywhere, and are in struct cpu
 * without being fetched.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <x86intrin.h>

#include "base/bits.h"
#include "base/log.h"
#include "cpu/msr.h"
#include "engine/kvm/kvm.h"

#define MSR_FLUSH_CMD 0x10bu

/* -- Those that the kernel holds and we move --------------------------------------------------- */

static const struct {
    uint32_t index;
    size_t offset;
} held[] = {
    { MSR_SYSENTER_CS, offsetof(struct cpu, sysenter_cs) },
    { MSR_SYSENTER_ESP, offsetof(struct cpu, sysenter_esp) },
    { MSR_SYSENTER_EIP, offsetof(struct cpu, sysenter_eip) },
    { MSR_STAR, offsetof(struct cpu, star) },
    { MSR_LSTAR, offsetof(struct cpu, lstar) },
    { MSR_CSTAR, offsetof(struct cpu, cstar) },
    { MSR_SFMASK, offsetof(struct cpu, sfmask) },
    { MSR_KERNEL_GS_BASE, offsetof(struct cpu, kernel_gs_base) },
    { MSR_PAT, offsetof(struct cpu, pat) },
    { MSR_TSC_AUX, offsetof(struct cpu, tsc_aux) },
    { MSR_SPEC_CTRL, offsetof(struct cpu, spec_ctrl) },
    { MSR_XSS, offsetof(struct cpu, xss) },
};
_Static_assert(ARRAY_LEN(held) <= KVM_MSRS, "KVM_MSRS");

/* Does the guest have it at all? The kernel refuses what its CPUID does not show. */
static bool offered(const struct cpu *cpu, uint32_t index)
{
    const struct cpu_features *f = &cpu->features;
    switch (index) {
    case MSR_STAR:
    case MSR_LSTAR:
    case MSR_CSTAR:
    case MSR_SFMASK:
    case MSR_KERNEL_GS_BASE:
        return cpu_has(f, CPU_FEATURE_LM);
    case MSR_TSC_AUX:
        return cpu_has(f, CPU_FEATURE_RDTSCP) || cpu_has(f, CPU_FEATURE_RDPID);
    case MSR_SPEC_CTRL:
        return cpu_has(f, CPU_FEATURE_SPEC_CTRL);
    case MSR_XSS:
        return cpu_has(f, CPU_FEATURE_XSAVES);
    default:
        return true;
    }
}

static bool listed(const struct kvm_msr_list *list, uint32_t index)
{
    for (unsigned i = 0; i < list->nmsrs; i++) {
        if (list->indices[i] == index) {
            return true;
        }
    }
    return false;
}

/* The kernel's structure, with room for its entries. */
union msr_list {
    struct kvm_msr_list head;
    uint32_t room[1 + 1024];
};

static uint64_t *held_value(struct cpu *cpu, uint32_t index)
{
    for (unsigned i = 0; i < ARRAY_LEN(held); i++) {
        if (held[i].index == index) {
            return (uint64_t *)((char *)cpu + held[i].offset);
        }
    }
    return NULL;
}

/* -- The filter -------------------------------------------------------------------------------- */

/* Of the lower MSRs the kernel keeps these, and those of `held`. */
static const uint32_t kept_low[] = {
    MSR_SPEC_CTRL, MSR_PRED_CMD, MSR_FLUSH_CMD,
    MSR_ARCH_CAPABILITIES, /* what the processor leaks is the host's to say, not cpu/msr.c's */
    MSR_SYSENTER_CS, MSR_SYSENTER_ESP, MSR_SYSENTER_EIP, MSR_PAT,
};
#define LOW_MSRS 0x700u  /* up to the x2APIC's, which cannot be filtered and fail by themselves */
#define PV_MSRS 0x100u
#define AMD_MSRS 0x2000u
#define AMD_MSR 0xc0010000u

static void set_bit(uint8_t *map, uint32_t n) { map[n / 8] |= (uint8_t)(1u << n % 8); }

static int set_filter(struct kvm *kvm)
{
    static uint8_t none[AMD_MSRS / 8]; /* never written */
    uint8_t low[LOW_MSRS / 8] = { 0 };
    uint8_t one = 1;
    for (unsigned i = 0; i < ARRAY_LEN(kept_low); i++) {
        set_bit(low, kept_low[i]);
    }
    if (kvm_has_lapics(kvm)) {
        set_bit(low, MSR_APIC_BASE);
        set_bit(low, MSR_TSC_DEADLINE);
    }
    const uint32_t both = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE;
    struct kvm_msr_filter filter = {
        .flags = KVM_MSR_FILTER_DEFAULT_ALLOW,
        /* The first range that has it decides. Reading the counter is the kernel's. */
        .ranges = {
            { .flags = KVM_MSR_FILTER_READ, .base = MSR_TSC, .nmsrs = 1, .bitmap = &one },
            { .flags = both, .base = 0, .nmsrs = LOW_MSRS, .bitmap = low },
            { .flags = both, .base = MSR_KVM_WALL_CLOCK_NEW, .nmsrs = PV_MSRS, .bitmap = none },
            { .flags = both, .base = AMD_MSR, .nmsrs = AMD_MSRS, .bitmap = none },
        },
    };
    return ioctl(kvm->vm_fd, KVM_X86_SET_MSR_FILTER, &filter);
}

int kvm_msr_init(struct kvm *kvm, struct err *e)
{
    union msr_list list = { .head.nmsrs = ARRAY_LEN(list.room) };
    struct kvm_enable_cap exits = {
        .cap = KVM_CAP_X86_USER_SPACE_MSR,
        .args[0] = KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN |
                   KVM_MSR_EXIT_REASON_FILTER,
    };
    if (ioctl(kvm->dev_fd, KVM_GET_MSR_INDEX_LIST, &list) < 0 ||
        ioctl(kvm->vm_fd, KVM_ENABLE_CAP, &exits) < 0 || set_filter(kvm) < 0) {
        return err_set(e, -errno, "MSRs cannot be set up: %s", strerror(errno));
    }
    for (unsigned i = 0; i < ARRAY_LEN(held); i++) {
        if (listed(&list.head, held[i].index) && offered(kvm->config.cpus[0], held[i].index)) {
            kvm->msrs[kvm->msr_count++] = held[i].index;
        }
    }
    return 0;
}

/* -- Moving ------------------------------------------------------------------------------------ */

int kvm_msr_pull(struct kvm_vcpu *v)
{
    const struct kvm *kvm = v->kvm;
    union kvm_msr_room m = { .head.nmsrs = kvm->msr_count };
    for (unsigned i = 0; i < kvm->msr_count; i++) {
        m.entry[i].index = kvm->msrs[i];
    }
    int n = ioctl(v->fd, KVM_GET_MSRS, &m);
    if (n != (int)kvm->msr_count) {
        log_err("kvm: cpu %u: MSR %#x cannot be read", v->cpu->index,
                n >= 0 ? kvm->msrs[n] : kvm->msrs[0]);
        return -EIO;
    }
    for (unsigned i = 0; i < kvm->msr_count; i++) {
        *held_value(v->cpu, kvm->msrs[i]) = m.entry[i].data;
    }
    return 0;
}

/* Two measurements of one host differ by less, and guests tolerate more. */
#define SAME_RATE_PPM 300u

int kvm_set_tsc_khz(struct engine *en, uint32_t khz, struct err *e)
{
    struct kvm *kvm = (struct kvm *)en;
    uint64_t host = kvm->host_tsc_khz;
    uint64_t differ = khz > host ? khz - host : host - khz;
    bool same = differ * 1000000 <= host * SAME_RATE_PPM;
    if (same && !kvm->tsc_scaled) {
        return 0;
    }
    if (ioctl(kvm->dev_fd, KVM_CHECK_EXTENSION, (unsigned long)KVM_CAP_TSC_CONTROL) <= 0) {
        return err_set(e, -ENOTSUP,
                       "the guest was promised a time stamp counter of %u kHz, this host's has "
                       "%llu kHz, and its processor cannot scale it: take engine bt or interp",
                       khz, (unsigned long long)host);
    }
    for (unsigned i = 0; i < kvm->config.cpu_count; i++) {
        if (ioctl(kvm->vcpus[i].fd, KVM_SET_TSC_KHZ, (unsigned long)khz) < 0) {
            return err_set(e, -errno, "a time stamp counter of %u kHz: %s", khz, strerror(errno));
        }
        kvm->vcpus[i].tsc_known = false;
    }
    kvm->tsc_scaled = true;
    return 0;
}

/* A scaled counter has no offset that we could know exactly. Then, and before kernels had
 * KVM_VCPU_TSC_OFFSET (5.16), the counter itself is written, and the kernel guesses whether
 * processors are to agree. */
int kvm_tsc_push(struct kvm_vcpu *v)
{
    const struct cpu *cpu = v->cpu;
    const struct cpu_world *w = cpu->world;
    uint64_t world = w->tsc_offset != NULL ? w->tsc_offset(w->ctx) : w->tsc(w->ctx) - __rdtsc();
    uint64_t offset = world + cpu->tsc_offset;
    if (v->tsc_known && v->tsc_offset == offset) {
        return 0;
    }
    struct kvm_device_attr attr = {
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)&offset
    };
    union kvm_msr_room m = { .nmsrs = 1, .entry[0].index = MSR_TSC };
    m.entry[0].data =
        v->kvm->tsc_scaled ? w->tsc(w->ctx) + cpu->tsc_offset : __rdtsc() + offset;
    bool by_offset = v->kvm->caps.tsc_offset && !v->kvm->tsc_scaled;
    bool done = by_offset ? ioctl(v->fd, KVM_SET_DEVICE_ATTR, &attr) == 0
                          : ioctl(v->fd, KVM_SET_MSRS, &m) == 1;
    if (!done) {
        log_err("kvm: cpu %u: the time stamp counter cannot be set: %s", cpu->index,
                strerror(errno));
        return -EIO;
    }
    v->tsc_offset = offset;
    v->tsc_known = true;
    return 0;
}

int kvm_msr_push(struct kvm_vcpu *v)
{
    const struct kvm *kvm = v->kvm;
    union kvm_msr_room m = { .head.nmsrs = kvm->msr_count };
    for (unsigned i = 0; i < kvm->msr_count; i++) {
        m.entry[i] = (struct kvm_msr_entry){
            .index = kvm->msrs[i], .data = *held_value(v->cpu, kvm->msrs[i])
        };
    }
    int n = ioctl(v->fd, KVM_SET_MSRS, &m);
    if (n != (int)kvm->msr_count) {
        log_err("kvm: cpu %u: MSR %#x cannot be set to %#llx", v->cpu->index,
                n >= 0 ? kvm->msrs[n] : kvm->msrs[0],
                (unsigned long long)(n >= 0 ? m.entry[n].data : 0));
        return -EIO;
    }
    return kvm_tsc_push(v);
}

/* -- The guest's own --------------------------------------------------------------------------- */

/* What the kernel holds it has judged already, and found wrong. */
static bool kernel_knows(const struct kvm_vcpu *v, uint32_t index)
{
    for (unsigned i = 0; i < v->kvm->msr_count; i++) {
        if (v->kvm->msrs[i] == index) {
            return true;
        }
    }
    return index == MSR_EFER || index == MSR_FS_BASE || index == MSR_GS_BASE;
}

void kvm_msr_exit(struct kvm_vcpu *v, bool write)
{
    struct kvm_run *run = v->run;
    struct cpu *cpu = v->cpu;
    uint64_t value = run->msr.data;
    bool ok = !kernel_knows(v, run->msr.index);
    if (ok) {
        ok = write ? msr_write(cpu, run->msr.index, value) : msr_read(cpu, run->msr.index, &value);
    }
    run->msr.error = !ok;
    run->msr.data = value;
    if (write && ok && (run->msr.index == MSR_TSC || run->msr.index == MSR_TSC_ADJUST) &&
        kvm_tsc_push(v) < 0) {
        v->tsc_known = false; /* logged; the next push tries again */
    }
    v->tpr_stale = true; /* an x2APIC's TPR among others */
    v->apic_base_stale |= write && run->msr.index == MSR_APIC_BASE;
}
