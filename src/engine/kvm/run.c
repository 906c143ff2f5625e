/* SPDX-License-Identifier: Apache-2.0
 *
 * A processor's run loop: what waits is looked at before each entry, KVM_RUN runs guest code,
 * exits.c sees to its exits. While local APICs are the machine's own a vector comes by
 * cpu_world.irq_ack and goes in by KVM_INTERRUPT. A local APIC of the kernel's (chips.c) delivers
 * by itself, and a halted processor then sleeps in KVM_RUN.
 *
 * A kick is a signal that is blocked all the time but in KVM_RUN (KVM_SET_SIGNAL_MASK). So it
 * needs no handler, and none is missed: one that comes between the look at the events and the entry
 * ends KVM_RUN at once.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "base/log.h"
#include "cpu/access.h"
#include "engine/kvm/kvm.h"

#define KVM_SIGSET_BYTES 8u /* of the kernel's sigset_t, which the C library's begins with */

static uint32_t events_of(const struct cpu *cpu)
{
    return atomic_load_explicit(&cpu->events, memory_order_seq_cst);
}

/* -- KVM_RUN ----------------------------------------------------------------------------------- */

static void drain_signals(const struct kvm_vcpu *v)
{
    const struct timespec now = { 0 };
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, v->kvm->signal);
    while (sigtimedwait(&set, NULL, &now) > 0) {
    }
}

/* One KVM_RUN and what its exit asks for. */
static enum kvm_verdict enter(struct kvm_vcpu *v)
{
    struct kvm_run *run = v->run;
    v->unfinished = false;
    v->stats.entries++;
    int r = ioctl(v->fd, KVM_RUN, 0);
    int error = errno;
    if (r < 0 && error != EINTR && error != EAGAIN) {
        log_err("kvm: cpu %u: KVM_RUN: %s", v->cpu->index, strerror(error));
        return KVM_FAILED;
    }
    if (r < 0) {
        v->stats.kicks++;
        drain_signals(v);
    }
    kvm_memory_drain(v);
    v->ready = run->ready_for_interrupt_injection;
    if (run->cr8 != v->cr8 && !kvm_has_lapics(v->kvm)) {
        v->cr8 = (uint8_t)run->cr8;
        v->cpu->world->cr8_set(v->cpu->world->ctx, v->cpu, v->cr8);
    }
    return r < 0 ? KVM_GO_ON : kvm_handle_exit(v);
}

/* Instructions that exited to us end here, and nothing else runs. Each round brings one forward. */
static enum kvm_verdict finish(struct kvm_vcpu *v)
{
    enum kvm_verdict verdict = KVM_GO_ON;
    v->run->immediate_exit = 1;
    while (v->unfinished && verdict == KVM_GO_ON) {
        verdict = enter(v);
    }
    v->run->immediate_exit = 0;
    return verdict;
}

/* An instruction boundary with nothing under way in the kernel. */
static enum kvm_verdict settle(struct kvm_vcpu *v)
{
    enum kvm_verdict verdict = finish(v);
    return verdict == KVM_GO_ON && kvm_settle_events(v) < 0 ? KVM_FAILED : verdict;
}

/* -- Before an entry --------------------------------------------------------------------------- */

static bool needs_software(const struct kvm_vcpu *v)
{
    const struct cpu *cpu = v->cpu;
    return v->by_software || kvm_helpers_only(v) || (events_of(cpu) & CPU_EV_SMI) ||
           (!v->in_kernel && (cpu->step_armed || cpu->pending_dr6 != 0));
}

static bool interrupts_on(const struct kvm_vcpu *v)
{
    return v->in_kernel ? v->run->if_flag : (v->cpu->rflags & FLAG_IF) != 0;
}

/* What ends a HLT. */
static void wake_up(struct kvm_vcpu *v)
{
    uint32_t ev = events_of(v->cpu);
    if (v->cpu->activity == CPU_HALTED && !v->cpu->in_smm &&
        ((ev & CPU_EV_NMI) || ((ev & CPU_EV_INTR) && interrupts_on(v)))) {
        v->cpu->activity = CPU_ACTIVE;
    }
}

static enum kvm_verdict give_nmi(struct kvm_vcpu *v)
{
    if (!(events_of(v->cpu) & CPU_EV_NMI)) {
        return KVM_GO_ON;
    }
    cpu_take_nmi(v->cpu);
    v->cpu->interrupts++;
    v->stats.nmis++;
    if (ioctl(v->fd, KVM_NMI) < 0) {
        log_err("kvm: cpu %u: KVM_NMI: %s", v->cpu->index, strerror(errno));
        return KVM_FAILED;
    }
    return KVM_GO_ON;
}

/* Beside a local APIC of the kernel's KVM_INTERRUPT would keep the vector where nobody can see
 * whether it was delivered, should the processor be stopped before. */
static int inject(struct kvm_vcpu *v, uint8_t vector)
{
    struct kvm_interrupt irq = { .irq = vector };
    struct kvm_vcpu_events ev;
    const struct kvm_mp_state runs = { .mp_state = KVM_MP_STATE_RUNNABLE };
    if (!kvm_has_lapics(v->kvm)) {
        return ioctl(v->fd, KVM_INTERRUPT, &irq);
    }
    if (ioctl(v->fd, KVM_GET_VCPU_EVENTS, &ev) < 0) {
        return -1;
    }
    ev.interrupt.injected = 1;
    ev.interrupt.nr = vector;
    ev.interrupt.soft = 0;
    return ioctl(v->fd, KVM_SET_VCPU_EVENTS, &ev) < 0 ? -1
                                                      : ioctl(v->fd, KVM_SET_MP_STATE, &runs);
}

static enum kvm_verdict give_interrupt(struct kvm_vcpu *v)
{
    const struct cpu_world *w = v->cpu->world;
    if ((events_of(v->cpu) & CPU_EV_INTR) && v->ready) {
        int vector = w->irq_ack(w->ctx, v->cpu);
        if (vector >= 0) {
            v->ready = false;
            v->cpu->interrupts++;
            v->stats.interrupts++;
            if (inject(v, (uint8_t)vector) < 0) {
                log_err("kvm: cpu %u: interrupt %d: %s", v->cpu->index, vector, strerror(errno));
                return KVM_FAILED;
            }
        }
    }
    v->run->request_interrupt_window = (events_of(v->cpu) & CPU_EV_INTR) != 0;
    return KVM_GO_ON;
}

/* The registers go to the kernel, if they are not there, and what waits with them. */
static enum kvm_verdict prepare(struct kvm_vcpu *v)
{
    if (kvm_memory_update(v->kvm, v) < 0 || kvm_push(v) < 0) {
        return KVM_FAILED;
    }
    if (v->tpr_stale) {
        kvm_look_at_tpr(v);
    }
    enum kvm_verdict verdict = give_nmi(v);
    return verdict == KVM_GO_ON ? give_interrupt(v) : verdict;
}

/* INIT and SIPI change registers. */
static enum kvm_verdict start_up(struct kvm_vcpu *v)
{
    enum kvm_verdict verdict = settle(v);
    if (verdict == KVM_GO_ON && kvm_pull(v) < 0) {
        verdict = KVM_FAILED;
    }
    if (verdict == KVM_GO_ON) {
        cpu_startup(v->cpu);
    }
    return verdict;
}

/* The kernel shows in CPUID whether there is a local APIC, by its base. */
static enum kvm_verdict tell_apic_base(struct kvm_vcpu *v)
{
    enum kvm_verdict verdict = settle(v);
    v->apic_base_stale = false;
    return verdict == KVM_GO_ON && kvm_pull(v) < 0 ? KVM_FAILED : verdict;
}

static enum kvm_verdict run_software(struct kvm_vcpu *v, enum cpu_poll *why)
{
    enum kvm_verdict verdict = settle(v);
    v->by_software = false;
    return verdict == KVM_GO_ON && kvm_software(v, why) < 0 ? KVM_FAILED : verdict;
}

/* True: guest code runs on; false: *exit says why not. */
static bool look(struct kvm_vcpu *v, enum engine_exit *exit)
{
    struct cpu *cpu = v->cpu;
    enum kvm_verdict verdict = KVM_GO_ON;
    enum cpu_poll why = CPU_POLL_RUN;
    if (events_of(cpu) & (CPU_EV_TLB | CPU_EV_CODE)) {
        cpu_clear_event(cpu, CPU_EV_TLB | CPU_EV_CODE);
        tlb_flush_all(cpu); /* for the helpers; prepare() looks at the map by itself */
    }
    if ((events_of(cpu) & (CPU_EV_INIT | CPU_EV_SIPI)) && !cpu->in_smm) {
        verdict = start_up(v);
    }
    if (verdict == KVM_GO_ON && v->apic_base_stale) {
        verdict = tell_apic_base(v);
    }
    if (verdict == KVM_GO_ON && cpu->activity <= CPU_HALTED && needs_software(v)) {
        verdict = run_software(v, &why);
    }
    wake_up(v);
    if (verdict == KVM_FAILED) {
        *exit = ENGINE_EXIT_ERROR;
    } else if (verdict == KVM_SHUT_DOWN || cpu->activity == CPU_SHUTDOWN) {
        *exit = ENGINE_EXIT_SHUTDOWN;
    } else if ((events_of(cpu) & CPU_EV_KICK) || why == CPU_POLL_KICK) {
        *exit = settle(v) == KVM_FAILED ? ENGINE_EXIT_ERROR : ENGINE_EXIT_KICK;
    } else if (why == CPU_POLL_DEBUG) {
        *exit = ENGINE_EXIT_DEBUG;
    } else if (cpu->activity != CPU_ACTIVE && (!kvm_has_lapics(v->kvm) || kvm_helpers_only(v))) {
        *exit = ENGINE_EXIT_HALT;
    } else {
        return true;
    }
    return false;
}

/* -- The verbs --------------------------------------------------------------------------------- */

/* The thread that is to run v: it takes the signal in KVM_RUN and nowhere else. */
static int adopt_thread(struct kvm_vcpu *v)
{
    union {
        struct kvm_signal_mask head;
        uint8_t room[sizeof(struct kvm_signal_mask) + KVM_SIGSET_BYTES];
    } mask = { .head.len = KVM_SIGSET_BYTES };
    sigset_t kick, set;
    if (v->has_thread && pthread_equal(v->thread, pthread_self())) {
        return 0;
    }
    sigemptyset(&kick);
    sigaddset(&kick, v->kvm->signal);
    pthread_sigmask(SIG_BLOCK, &kick, &set);
    sigdelset(&set, v->kvm->signal);
    memcpy(mask.head.sigset, &set, KVM_SIGSET_BYTES);
    if (ioctl(v->fd, KVM_SET_SIGNAL_MASK, &mask) < 0) {
        log_err("kvm: cpu %u: KVM_SET_SIGNAL_MASK: %s", v->cpu->index, strerror(errno));
        return -EIO;
    }
    v->thread = pthread_self();
    v->has_thread = true;
    return 0;
}

enum engine_exit kvm_engine_run(struct engine *en, struct cpu *cpu)
{
    struct kvm_vcpu *v = cpu->engine;
    enum engine_exit exit = ENGINE_EXIT_ERROR;
    enum kvm_verdict verdict = adopt_thread(v) < 0 ? KVM_FAILED : KVM_GO_ON;
    (void)en;
    /* Whoever raises an event from here on sends a signal; what was raised before is seen. */
    atomic_store(&v->running, true);
    if (verdict == KVM_GO_ON && v->in_kernel && kvm_tsc_push(v) < 0) {
        verdict = KVM_FAILED; /* the machine may have stood meanwhile */
    }
    while (verdict == KVM_GO_ON && look(v, &exit)) {
        if (needs_software(v)) { /* more of it */
            continue;
        }
        verdict = prepare(v);
        if (verdict == KVM_GO_ON) {
            verdict = enter(v);
        }
    }
    atomic_store(&v->running, false);
    return verdict == KVM_SHUT_DOWN ? ENGINE_EXIT_SHUTDOWN
           : verdict == KVM_FAILED  ? ENGINE_EXIT_ERROR
                                    : exit;
}

void kvm_engine_kick(struct engine *en, struct cpu *cpu)
{
    struct kvm_vcpu *v = cpu->engine;
    (void)en;
    if (v != NULL && atomic_load(&v->running) && !pthread_equal(v->thread, pthread_self())) {
        pthread_kill(v->thread, v->kvm->signal);
    }
}
