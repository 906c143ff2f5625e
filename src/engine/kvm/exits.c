/* SPDX-License-Identifier: Apache-2.0
 *
 * Why KVM_RUN came back (Linux, Documentation/virt/kvm/api.rst, section 5), and what is done then.
 */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/log.h"
#include "engine/kvm/kvm.h"

#define A20 0x100000ull
#define KVM_NO_HYPERCALL 1000 /* Linux, Documentation/virt/kvm/x86/hypercalls.rst: ENOSYS there */

static const char *const names[KVM_EXIT_REASONS] = {
    [KVM_EXIT_UNKNOWN] = "unknown",
    [KVM_EXIT_EXCEPTION] = "exception",
    [KVM_EXIT_IO] = "io",
    [KVM_EXIT_HYPERCALL] = "hypercall",
    [KVM_EXIT_DEBUG] = "debug",
    [KVM_EXIT_HLT] = "hlt",
    [KVM_EXIT_MMIO] = "mmio",
    [KVM_EXIT_IRQ_WINDOW_OPEN] = "irq_window",
    [KVM_EXIT_SHUTDOWN] = "shutdown",
    [KVM_EXIT_FAIL_ENTRY] = "fail_entry",
    [KVM_EXIT_INTR] = "intr",
    [KVM_EXIT_SET_TPR] = "set_tpr",
    [KVM_EXIT_TPR_ACCESS] = "tpr_access",
    [KVM_EXIT_NMI] = "nmi",
    [KVM_EXIT_INTERNAL_ERROR] = "internal_error",
    [KVM_EXIT_WATCHDOG] = "watchdog",
    [KVM_EXIT_SYSTEM_EVENT] = "system_event",
    [KVM_EXIT_IOAPIC_EOI] = "ioapic_eoi",
    [KVM_EXIT_HYPERV] = "hyperv",
    [KVM_EXIT_X86_RDMSR] = "rdmsr",
    [KVM_EXIT_X86_WRMSR] = "wrmsr",
    [KVM_EXIT_DIRTY_RING_FULL] = "dirty_ring_full",
    [KVM_EXIT_X86_BUS_LOCK] = "bus_lock",
    [KVM_EXIT_NOTIFY] = "notify",
};

const char *kvm_exit_name(unsigned reason)
{
    return reason < KVM_EXIT_REASONS ? names[reason] : NULL;
}

/* -- Ports and memory -------------------------------------------------------------------------- */

/* INS and OUTS come with count values one behind the other. */
static enum kvm_verdict port_io(struct kvm_vcpu *v)
{
    struct kvm_run *run = v->run;
    struct cpu *cpu = v->cpu;
    const struct cpu_world *w = cpu->world;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    unsigned size = run->io.size;
    for (uint32_t i = 0; i < run->io.count; i++, data += size) {
        uint32_t value = 0;
        if (run->io.direction == KVM_EXIT_IO_OUT) {
            memcpy(&value, data, size);
            w->port_out(w->ctx, cpu, run->io.port, size, value);
        } else {
            value = w->port_in(w->ctx, cpu, run->io.port, size);
            memcpy(data, &value, size);
        }
    }
    v->unfinished = true;
    return KVM_GO_ON;
}

/* Memory whose slot is away for a moment (memory.c) is still memory. */
static bool memory_after_all(struct kvm_vcpu *v, gpa_t gpa)
{
    struct kvm_run *run = v->run;
    struct gmem *mem = v->kvm->config.mem;
    return run->mmio.is_write ? gmem_write(mem, gpa, run->mmio.data, run->mmio.len) == 0
                              : gmem_read(mem, gpa, run->mmio.data, run->mmio.len) == 0;
}

static enum kvm_verdict mmio(struct kvm_vcpu *v)
{
    struct kvm_run *run = v->run;
    struct cpu *cpu = v->cpu;
    const struct cpu_world *w = cpu->world;
    gpa_t gpa = run->mmio.phys_addr;
    unsigned len = run->mmio.len <= 8 ? run->mmio.len : 8;
    v->unfinished = true;
    v->tpr_stale |= run->mmio.is_write; /* it may be the local APIC's */
    if (w->a20_masked != NULL && w->a20_masked(w->ctx)) {
        gpa &= ~A20;
    }
    if (memory_after_all(v, gpa)) {
        return KVM_GO_ON;
    }
    uint64_t value = 0;
    if (run->mmio.is_write) {
        memcpy(&value, run->mmio.data, len);
        w->mmio_write(w->ctx, cpu, gpa, len, value);
    } else {
        value = w->mmio_read(w->ctx, cpu, gpa, len);
        memcpy(run->mmio.data, &value, len);
    }
    return KVM_GO_ON;
}

static enum kvm_verdict msr(struct kvm_vcpu *v)
{
    kvm_msr_exit(v, v->run->exit_reason == KVM_EXIT_X86_WRMSR);
    v->unfinished = true;
    return KVM_GO_ON;
}

/* -- Everything else --------------------------------------------------------------------------- */

/* The kernel's emulator lacks the instruction, or could not fetch it: the helpers of src/cpu know
 * it, or know what fault it is. */
static enum kvm_verdict internal_error(struct kvm_vcpu *v)
{
    const struct kvm_run *run = v->run;
    if (run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION) {
        v->stats.unemulated++;
        v->by_software = true;
        if (log_get_level() >= LOG_DEBUG) {
            kvm_dump(v);
        }
        return KVM_GO_ON;
    }
    log_err("kvm: cpu %u: internal error %u of the kernel", v->cpu->index, run->internal.suberror);
    for (unsigned i = 0; i < run->internal.ndata && i < ARRAY_LEN(run->internal.data); i++) {
        log_err("kvm: cpu %u: data %u: %#llx", v->cpu->index, i,
                (unsigned long long)run->internal.data[i]);
    }
    kvm_dump(v);
    return KVM_FAILED;
}

static enum kvm_verdict fail_entry(struct kvm_vcpu *v)
{
    log_err("kvm: cpu %u: the processor refuses the guest's state, hardware reason %#llx",
            v->cpu->index,
            (unsigned long long)v->run->fail_entry.hardware_entry_failure_reason);
    kvm_dump(v);
    return KVM_FAILED;
}

static enum kvm_verdict system_event(struct kvm_vcpu *v)
{
    unsigned type = v->run->system_event.type;
    if (type == KVM_SYSTEM_EVENT_RESET || type == KVM_SYSTEM_EVENT_CRASH) {
        log_info("kvm: cpu %u: the guest asks for a reset (system event %u)", v->cpu->index, type);
        return KVM_SHUT_DOWN;
    }
    log_err("kvm: cpu %u: system event %u", v->cpu->index, type);
    return KVM_FAILED;
}

static enum kvm_verdict unexpected(struct kvm_vcpu *v)
{
    const char *name = kvm_exit_name(v->run->exit_reason);
    log_err("kvm: cpu %u: exit %u (%s), which nothing was to cause", v->cpu->index,
            v->run->exit_reason, name != NULL ? name : "not known");
    kvm_dump(v);
    return KVM_FAILED;
}

enum kvm_verdict kvm_handle_exit(struct kvm_vcpu *v)
{
    struct kvm_run *run = v->run;
    if (run->exit_reason < KVM_EXIT_REASONS) {
        v->stats.exits[run->exit_reason]++;
    } else {
        v->stats.other_exits++;
    }
    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        return port_io(v);
    case KVM_EXIT_MMIO:
        return mmio(v);
    case KVM_EXIT_X86_RDMSR:
    case KVM_EXIT_X86_WRMSR:
        return msr(v);
    case KVM_EXIT_HLT:
        v->cpu->activity = CPU_HALTED;
        return KVM_GO_ON;
    case KVM_EXIT_IRQ_WINDOW_OPEN: /* the run loop sees that it is */
    case KVM_EXIT_SET_TPR:         /* kvm_run.cr8 is looked at after every exit */
    case KVM_EXIT_INTR:
    case KVM_EXIT_NMI:        /* the host's */
    case KVM_EXIT_X86_BUS_LOCK: /* asked for by nobody, and harmless */
        return KVM_GO_ON;
    case KVM_EXIT_IOAPIC_EOI:
        if (!kvm_has_lapics(v->kvm)) {
            return unexpected(v);
        }
        v->cpu->world->apic_eoi(v->cpu->world->ctx, v->cpu, run->eoi.vector);
        return KVM_GO_ON;
    case KVM_EXIT_HYPERCALL:
        run->hypercall.ret = (uint64_t)-KVM_NO_HYPERCALL;
        v->unfinished = true;
        return KVM_GO_ON;
    case KVM_EXIT_SHUTDOWN:
        v->cpu->activity = CPU_SHUTDOWN;
        return KVM_SHUT_DOWN;
    case KVM_EXIT_INTERNAL_ERROR:
        return internal_error(v);
    case KVM_EXIT_FAIL_ENTRY:
        return fail_entry(v);
    case KVM_EXIT_SYSTEM_EVENT:
        return system_event(v);
    default:
        return unexpected(v);
    }
}
