/* SPDX-License-Identifier: Apache-2.0
 *
 * What the helpers of src/cpu do for this engine, because the kernel does not: deliver an event
 * that it had begun to deliver (so that no state is half in the kernel), single instructions that
 * its emulator lacks, system-management mode, and guests with breakpoints of a debugger outside.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/log.h"
#include "cpu/except.h"
#include "cpu/smm.h"
#include "cpu/step.h"
#include "cpu/stop.h"
#include "engine/kvm/kvm.h"

/* So many instructions between looks at what waits elsewhere. */
#define BURST 10000u

bool kvm_helpers_only(const struct kvm_vcpu *v)
{
    const struct cpu *cpu = v->cpu;
    const struct cpu_stops *s = cpu->stops;
    return cpu->in_smm || cpu->stop_step != CPU_STEP_OFF || cpu->stop_why != CPU_STOP_NONE ||
           (s != NULL && s->break_count + s->watch_count != 0) ||
           (kvm_has_lapics(v->kvm) && !v->kvm->chips_given);
}

/* -- Events that were being delivered ------------------------------------------------------------
 * The kernel took them, and had an exit, or was asked to come back, before the handler began.
 * INT n, INT3 and INTO are not delivered: rip is still on the instruction, which does it again. */

enum pending { PENDING_NONE, PENDING_FAULT, PENDING_EXTERNAL };

static enum pending pending_event(const struct kvm_vcpu_events *ev, struct cpu_exception *x)
{
    if (ev->exception.injected || ev->exception.pending) {
        *x = (struct cpu_exception){
            .vector = ev->exception.nr,
            .has_error = ev->exception.has_error_code,
            .error = ev->exception.error_code,
        };
        return x->vector == EXC_BP || x->vector == EXC_OF ? PENDING_NONE : PENDING_FAULT;
    }
    if (ev->interrupt.injected && !ev->interrupt.soft) {
        *x = (struct cpu_exception){ .vector = ev->interrupt.nr, .external = true };
        return PENDING_EXTERNAL;
    }
    if (ev->nmi.injected) {
        *x = (struct cpu_exception){ .vector = EXC_NMI, .external = true };
        return PENDING_EXTERNAL;
    }
    return PENDING_NONE;
}

static void deliver(struct cpu *cpu, enum pending kind, const struct cpu_exception *x)
{
    if (setjmp(cpu->unwind) == 0) {
        cpu->insn_ip = cpu->rip;
        if (kind == PENDING_EXTERNAL) {
            cpu_deliver_event(cpu, x);
            return;
        }
        cpu->exc = *x;
        cpu->exc.cr2 = cpu->cr2; /* the kernel has loaded CR2 and DR6 */
        cpu->exc_pending = true;
    }
    cpu_deliver_exception(cpu); /* may unwind to the same place */
}

int kvm_settle_events(struct kvm_vcpu *v)
{
    struct kvm_vcpu_events ev;
    struct cpu_exception x;
    if (!v->in_kernel) {
        return 0;
    }
    if (ioctl(v->fd, KVM_GET_VCPU_EVENTS, &ev) < 0) {
        log_err("kvm: cpu %u: KVM_GET_VCPU_EVENTS: %s", v->cpu->index, strerror(errno));
        return -EIO;
    }
    enum pending kind = pending_event(&ev, &x);
    if (kind == PENDING_NONE) {
        return 0;
    }
    int r = kvm_pull(v);
    if (r == 0) {
        if (x.vector == EXC_NMI && kind == PENDING_EXTERNAL) {
            v->cpu->nmi_blocked = true;
        }
        deliver(v->cpu, kind, &x);
    }
    return r;
}

/* -- Instructions --------------------------------------------------------------------------------
 */

int kvm_software(struct kvm_vcpu *v, enum cpu_poll *why)
{
    struct cpu *cpu = v->cpu;
    int r = kvm_pull(v);
    if (r < 0) {
        return r;
    }
    volatile unsigned left = kvm_helpers_only(v) || cpu_smi_due(cpu) ? BURST : 1;
    if (setjmp(cpu->unwind) != 0) {
        cpu_deliver_exception(cpu);
        left = left > 0 ? left - 1 : 0;
    }
    *why = CPU_POLL_RUN;
    while (left > 0) {
        *why = cpu_poll_events(cpu);
        if (*why != CPU_POLL_RUN && *why != CPU_POLL_STEP) {
            return 0;
        }
        v->stats.software++;
        cpu_do_instruction(cpu, &v->insn);
        left = kvm_helpers_only(v) ? left - 1 : 0;
    }
    return 0;
}
