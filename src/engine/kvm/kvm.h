/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of the kvm engine share. The kernel's interface is documented in Linux,
 * Documentation/virt/kvm/api.rst; section numbers in comments are that file's.
 *
 * Where a processor's registers are: in struct cpu, or in the kernel from the first entry on until
 * somebody asks for them (vcpu.in_kernel). They move all together, at boundaries of instructions
 * with nothing half delivered, so that struct cpu then says the same as under any other engine.
 * What the kernel needs not know stays in struct cpu alone: MSRs that exit (msr.c), the time-stamp
 * counter's offset, activity, latched INIT, SIPI and SMI. System management code is not run by the
 * kernel at all, but by the helpers of src/cpu: it is rare, short, and the same on every host. So
 * is a guest while a debugger waits for one of its breakpoints.
 */
#ifndef SOSIA_ENGINE_KVM_KVM_H
#define SOSIA_ENGINE_KVM_KVM_H

#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "cpu/except.h"
#include "cpu/insn.h"
#include "engine/engine.h"

/* The map of a PC has some dozen ranges; see memory.c for where they are cut. */
#define KVM_SLOTS 600u
#define KVM_MSRS 16u
#define KVM_XSAVE_BYTES 4096u
#define KVM_EXIT_REASONS 40u

/* A range of guest-physical memory as the kernel was told of it; size 0: this number is free. */
struct kvm_slot {
    gpa_t gpa;
    uint64_t size;
    uint64_t host;
    uint32_t flags;
    uint64_t ram_page;
};

/* What the kernel has beyond what is required (probe.c). */
struct kvm_caps {
    bool tsc_offset; /* KVM_VCPU_TSC_OFFSET: exact, and the same on every processor */
    size_t run_bytes;
    size_t xsave_bytes; /* of KVM_GET_XSAVE2; 0: only KVM_GET_XSAVE */
    unsigned coalesced_page; /* of kvm_run; 0: none */
    bool coalesced_ports;
};

struct kvm_stats {
    uint64_t exits[KVM_EXIT_REASONS];
    uint64_t other_exits; /* with numbers beyond */
    uint64_t entries, kicks, interrupts, nmis;
    uint64_t pulls, pushes;
    uint64_t software;     /* instructions done by the helpers of src/cpu */
    uint64_t unemulated;   /* KVM_EXIT_INTERNAL_ERROR: the kernel's emulator lacks it */
    uint64_t slot_updates; /* of the VM, counted by whoever made them */
};

struct kvm_vcpu {
    struct kvm *kvm;
    struct cpu *cpu;
    int fd;
    struct kvm_run *run; /* shared with the kernel */
    bool in_kernel;      /* registers are there, struct cpu is behind */
    bool unfinished;     /* the last exit's instruction ends with the next KVM_RUN */
    bool ready;          /* the kernel would take an interrupt now */
    bool tpr_stale;      /* the guest may have changed its task priority by other ways than CR8 */
    uint8_t cr8;         /* what the kernel was told */
    uint64_t apic_base;  /* the same, when the local APIC is the kernel's */
    bool apic_base_stale;
    bool tsc_known;      /* tsc_offset is what the kernel has */
    uint64_t tsc_offset;
    bool by_software;    /* the kernel cannot do the next instruction */
    struct insn insn;         /* for cpu_do_instruction */
    bool has_thread;
    pthread_t thread; /* where a kick goes */
    _Atomic bool running; /* KVM_RUN may be under way, or is about to be */
    struct kvm_stats stats;
};

struct kvm {
    struct engine_base base;
    struct engine_config config;
    struct kvm_caps caps;
    int dev_fd, vm_fd;
    int signal; /* that kicks */
    struct kvm_vcpu *vcpus;
    uint32_t msrs[KVM_MSRS]; /* those that the kernel holds (msr.c) */
    unsigned msr_count;
    uint32_t host_tsc_khz;
    bool tsc_scaled;             /* the guest's counter is faster or slower than the host's */
    enum engine_irqchip irqchip; /* NONE, SPLIT or FULL */
    bool chips_given;            /* they work; else the machine's do. Machine lock, no vCPU runs */
    pthread_mutex_t slots_lock; /* guards the five below */
    struct kvm_slot slots[KVM_SLOTS];
    struct kvm_slot wanted[KVM_SLOTS];
    bool a20_masked;
    bool log_dirty;
    bool mapped;
    _Atomic uint64_t map_version;               /* of gmem's map and A20 that slots shows */
    pthread_mutex_t coalesced_lock;             /* one reader of the ring at a time */
    struct kvm_coalesced_mmio_ring *coalesced; /* in processor 0's kvm_run; NULL: none */
};

/* -- probe.c. -errno and a line that says what is missing and how to get it. */
MUST_CHECK int kvm_open(int *dev_fd, struct kvm_caps *caps, struct err *e);
void kvm_engine_probe(struct engine_probe *out);
bool kvm_hardware(void);

/* -- cpuid.c */
/* Take away what this kernel does not offer to guests. */
void kvm_limit_features(struct cpu_features *f);
MUST_CHECK int kvm_set_cpuid(struct kvm_vcpu *v, struct err *e);

/* -- memory.c */
/* Bring the slots up to date with the map, if it changed. [vcpu] */
MUST_CHECK int kvm_memory_update(struct kvm *kvm, struct kvm_vcpu *by);
/* Book of written pages, see engine.h. No vCPU runs. */
void kvm_memory_log(struct kvm *kvm, bool on);
void kvm_memory_coalesce(struct kvm *kvm); /* when processor 0 is there */
/* Stores that the kernel has put aside, in their order. */
void kvm_memory_drain(struct kvm_vcpu *v);

/* -- msr.c */
MUST_CHECK int kvm_msr_init(struct kvm *kvm, struct err *e);
MUST_CHECK int kvm_msr_pull(struct kvm_vcpu *v);
MUST_CHECK int kvm_msr_push(struct kvm_vcpu *v);
/* The time-stamp counter's offset, if it is another now. */
MUST_CHECK int kvm_tsc_push(struct kvm_vcpu *v);
/* The verb: see engine.h. */
MUST_CHECK int kvm_set_tsc_khz(struct engine *en, uint32_t khz, struct err *e);
/* The guest's RDMSR or WRMSR came to us. */
void kvm_msr_exit(struct kvm_vcpu *v, bool write);

/* The kernel's structure, with room for its entries. */
union kvm_msr_room {
    struct kvm_msrs head;
    struct {
        uint32_t nmsrs, pad;
        struct kvm_msr_entry entry[KVM_MSRS];
    };
};

/* -- chips.c: the kernel's interrupt controllers. Before there are processors. */
MUST_CHECK int kvm_chips_create(struct kvm *kvm, struct err *e);
const struct engine_chips *kvm_engine_chips(struct engine *en);
static inline bool kvm_has_lapics(const struct kvm *kvm)
{
    return kvm->irqchip >= ENGINE_IRQCHIP_SPLIT;
}

/* -- regs.c: all of a processor's state at once. -errno: the host failed, logged. */
MUST_CHECK int kvm_pull(struct kvm_vcpu *v);
MUST_CHECK int kvm_push(struct kvm_vcpu *v);
/* The task priority as the machine's local APIC has it. */
void kvm_look_at_tpr(struct kvm_vcpu *v);

/* -- xsave.c: x87 and vectors. image: standard format. */
void kvm_xsave_get(struct cpu *cpu, const uint8_t *image);
void kvm_xsave_put(const struct cpu *cpu, uint8_t *image);

/* -- software.c */
/* The kernel's half-delivered events into struct cpu. In no KVM_RUN, nothing unfinished. */
MUST_CHECK int kvm_settle_events(struct kvm_vcpu *v);
/* Is all that this processor does for the helpers of src/cpu now: system management, a debugger
 * (cpu/stop.h) that waits for something, or one for whom the machine keeps its own local APICs? */
bool kvm_helpers_only(const struct kvm_vcpu *v);
/* Run on them: one instruction, or some while kvm_helpers_only. why: what keeps it from running on,
 * or CPU_POLL_RUN or _STEP. */
MUST_CHECK int kvm_software(struct kvm_vcpu *v, enum cpu_poll *why);

/* -- exits.c */
enum kvm_verdict { KVM_GO_ON, KVM_SHUT_DOWN, KVM_FAILED };
enum kvm_verdict kvm_handle_exit(struct kvm_vcpu *v);
const char *kvm_exit_name(unsigned reason); /* NULL: not known */

/* -- dump.c: to the log, registers and code around rip. */
void kvm_dump(struct kvm_vcpu *v);
size_t kvm_engine_stats(struct engine *en, char *buf, size_t size);

/* -- run.c: the verbs */
enum engine_exit kvm_engine_run(struct engine *en, struct cpu *cpu);
void kvm_engine_kick(struct engine *en, struct cpu *cpu);

#endif
