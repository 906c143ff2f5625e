/* SPDX-License-Identifier: Apache-2.0
 *
 * The kvm engine's life: a VM, its processors and the verbs that need no file of their own.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/alloc.h"
#include "cpu/model.h"
#include "engine/kvm/kvm.h"

/* Intel processors without unrestricted guests need four pages where no guest looks; they lie below
 * the flash. */
#define IDENTITY_MAP 0xfeffc000ull
#define TSS_PAGES 0xfeffd000ull

static void destroy(struct engine *en)
{
    struct kvm *kvm = (struct kvm *)en;
    for (unsigned i = 0; kvm->vcpus != NULL && i < kvm->config.cpu_count; i++) {
        struct kvm_vcpu *v = &kvm->vcpus[i];
        kvm->config.cpus[i]->engine = NULL;
        if (v->run != NULL) {
            munmap(v->run, kvm->caps.run_bytes);
        }
        if (v->fd >= 0) {
            close(v->fd);
        }
    }
    free(kvm->vcpus);
    if (kvm->vm_fd >= 0) {
        close(kvm->vm_fd);
    }
    if (kvm->dev_fd >= 0) {
        close(kvm->dev_fd);
    }
    pthread_mutex_destroy(&kvm->slots_lock);
    pthread_mutex_destroy(&kvm->coalesced_lock);
    free(kvm);
}

static int create_vm(struct kvm *kvm, struct err *e)
{
    uint64_t identity = IDENTITY_MAP;
    do {
        kvm->vm_fd = ioctl(kvm->dev_fd, KVM_CREATE_VM, 0);
    } while (kvm->vm_fd < 0 && errno == EINTR);
    if (kvm->vm_fd < 0) {
        return err_set(e, -errno, "KVM_CREATE_VM: %s", strerror(errno));
    }
    if (ioctl(kvm->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity) < 0 ||
        ioctl(kvm->vm_fd, KVM_SET_TSS_ADDR, TSS_PAGES) < 0) {
        return err_set(e, -errno, "KVM_SET_TSS_ADDR: %s", strerror(errno));
    }
    /* Else user mode gets #UD for what the kernel's emulator lacks. */
    const struct kvm_enable_cap exits = {
        .cap = KVM_CAP_EXIT_ON_EMULATION_FAILURE, .args[0] = 1
    };
    (void)!ioctl(kvm->vm_fd, KVM_ENABLE_CAP, &exits); /* from 5.15 on */
    int r = kvm_chips_create(kvm, e);
    return r < 0 ? r : kvm_msr_init(kvm, e);
}

static int create_vcpu(struct kvm_vcpu *v, struct err *e)
{
    struct kvm *kvm = v->kvm;
    v->fd = ioctl(kvm->vm_fd, KVM_CREATE_VCPU, (unsigned long)v->cpu->apic_id);
    if (v->fd < 0) {
        return err_set(e, -errno, "processor %u: %s", v->cpu->index, strerror(errno));
    }
    void *run = mmap(NULL, kvm->caps.run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
    if (run == MAP_FAILED) {
        return err_set(e, -errno, "processor %u: kvm_run: %s", v->cpu->index, strerror(errno));
    }
    v->run = run;
    struct kvm_device_attr attr = { .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET };
    kvm->caps.tsc_offset = ioctl(v->fd, KVM_HAS_DEVICE_ATTR, &attr) == 0;
    int khz = ioctl(v->fd, KVM_GET_TSC_KHZ, 0);
    kvm->host_tsc_khz = khz > 0 ? (uint32_t)khz : v->cpu->model->tsc_khz;
    return kvm_set_cpuid(v, e);
}

static int create(struct engine **out, const struct engine_config *config, struct err *e)
{
    if (config->virtual_time) {
        return err_set(e, -ENOTSUP,
                       "virtual time counts instructions, which this engine cannot: take bt or "
                       "interp");
    }
    struct kvm *kvm = xzalloc(sizeof *kvm);
    kvm->base.cls = &kvm_engine;
    kvm->config = *config;
    kvm->dev_fd = kvm->vm_fd = -1;
    kvm->signal = SIGRTMIN;
    kvm->irqchip = ENGINE_IRQCHIP_NONE;
    pthread_mutex_init(&kvm->slots_lock, NULL);
    pthread_mutex_init(&kvm->coalesced_lock, NULL);
    int r = kvm_open(&kvm->dev_fd, &kvm->caps, e);
    if (r == 0) {
        r = create_vm(kvm, e);
    }
    kvm->vcpus = xcalloc(config->cpu_count, sizeof *kvm->vcpus);
    for (unsigned i = 0; i < config->cpu_count; i++) {
        kvm->vcpus[i].kvm = kvm;
        kvm->vcpus[i].cpu = config->cpus[i];
        kvm->vcpus[i].fd = -1;
        config->cpus[i]->engine = &kvm->vcpus[i];
    }
    for (unsigned i = 0; i < config->cpu_count && r == 0; i++) {
        r = create_vcpu(&kvm->vcpus[i], e);
    }
    if (r < 0) {
        destroy((struct engine *)kvm);
        return r;
    }
    kvm_memory_coalesce(kvm);
    *out = (struct engine *)kvm;
    return 0;
}

/* Everything moves or nothing: who asks, asks rarely. */
static void sync_state(struct engine *en, struct cpu *cpu, unsigned groups, bool written)
{
    struct kvm_vcpu *v = cpu->engine;
    (void)en;
    (void)groups;
    (void)written; /* registers that came to struct cpu go back before the next entry anyhow */
    if (kvm_pull(v) < 0) {
        v->in_kernel = false; /* logged; there is nothing better than what struct cpu has */
    }
    v->tsc_known = false;
}

/* The kernel knows of changes to memory, and of the map's by its version. */
static void invalidate(struct engine *en, gpa_t gpa, uint64_t len)
{
    (void)en;
    (void)gpa;
    (void)len;
}

static void log_writes(struct engine *en, bool on) { kvm_memory_log((struct kvm *)en, on); }

const struct engine_class kvm_engine = {
    .name = "kvm",
    .probe = kvm_engine_probe,
    .create = create,
    .destroy = destroy,
    .limit = kvm_limit_features,
    .run = kvm_engine_run,
    .kick = kvm_engine_kick,
    .sync = sync_state,
    .invalidate = invalidate,
    .log_writes = log_writes,
    .set_tsc_khz = kvm_set_tsc_khz,
    .chips = kvm_engine_chips,
    .stats = kvm_engine_stats,
};
