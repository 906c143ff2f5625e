/* SPDX-License-Identifier: Apache-2.0
 *
 * A processor's registers between struct cpu and the kernel: KVM_{GET,SET}_REGS, _SREGS2,
 * _DEBUGREGS, _XCRS, _XSAVE, _VCPU_EVENTS and MSRs, in the order in which each may rest on
 * those before. KVM_{GET,SET}_MP_STATE matters when local APICs are the kernel's: else a halted or
 * waiting processor is one that is not run.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/log.h"
#include "cpu/access.h"
#include "cpu/fpu.h"
#include "cpu/model.h"
#include "cpu/msr.h"
#include "cpu/seg.h"
#include "engine/kvm/kvm.h"

static int failed(const struct kvm_vcpu *v, const char *what)
{
    int r = -errno;
    log_err("kvm: cpu %u: %s: %s", v->cpu->index, what, strerror(-r));
    return r;
}

/* -- General registers ------------------------------------------------------------------------- */

static void regs_get(struct cpu *cpu, const struct kvm_regs *r)
{
    const uint64_t gpr[16] = {
        r->rax, r->rcx, r->rdx, r->rbx, r->rsp, r->rbp, r->rsi, r->rdi,
        r->r8,  r->r9,  r->r10, r->r11, r->r12, r->r13, r->r14, r->r15,
    };
    memcpy(cpu->gpr, gpr, sizeof gpr);
    cpu->rip = cpu->insn_ip = r->rip;
    cpu->rflags = r->rflags | FLAG_FIXED;
}

static void regs_put(const struct cpu *cpu, struct kvm_regs *r)
{
    const uint64_t *g = cpu->gpr;
    *r = (struct kvm_regs){
        .rax = g[R_AX], .rcx = g[R_CX], .rdx = g[R_DX], .rbx = g[R_BX],
        .rsp = g[R_SP], .rbp = g[R_BP], .rsi = g[R_SI], .rdi = g[R_DI],
        .r8 = g[R_8],   .r9 = g[R_9],   .r10 = g[R_10], .r11 = g[R_11],
        .r12 = g[R_12], .r13 = g[R_13], .r14 = g[R_14], .r15 = g[R_15],
        .rip = cpu->rip, .rflags = cpu->rflags,
    };
}

/* -- Segments and control registers ------------------------------------------------------------ */

static struct cpu_seg seg_get(const struct kvm_segment *s)
{
    uint32_t attr = (uint32_t)(s->type & 15) | (uint32_t)(s->s & 1) << 4 |
                    (uint32_t)(s->dpl & 3) << 5 | (uint32_t)(s->present & 1) << 7 |
                    (uint32_t)(s->avl & 1) << 12 | (uint32_t)(s->l & 1) << 13 |
                    (uint32_t)(s->db & 1) << 14 | (uint32_t)(s->g & 1) << 15;
    /* AMD processors know no unusable segments, only such as are not present. */
    attr |= s->unusable || !s->present ? SEG_ATTR_NULL : 0;
    return (struct cpu_seg){
        .base = s->base, .limit = s->limit, .attr = attr, .sel = s->selector
    };
}

static struct kvm_segment seg_put(const struct cpu_seg *s)
{
    bool usable = !(s->attr & SEG_ATTR_NULL);
    return (struct kvm_segment){
        .base = s->base,
        .limit = s->limit,
        .selector = s->sel,
        .type = s->attr & 15,
        .s = s->attr >> 4 & 1,
        .dpl = s->attr >> 5 & 3,
        .present = usable && (s->attr >> 7 & 1),
        .avl = s->attr >> 12 & 1,
        .l = s->attr >> 13 & 1,
        .db = s->attr >> 14 & 1,
        .g = s->attr >> 15 & 1,
        .unusable = !usable,
    };
}

static void sregs_get(struct cpu *cpu, const struct kvm_sregs2 *s)
{
    const struct kvm_segment *const seg[SEG_COUNT] = { &s->es, &s->cs, &s->ss,
                                                       &s->ds, &s->fs, &s->gs };
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        cpu->seg[i] = seg_get(seg[i]);
    }
    cpu->ldtr = seg_get(&s->ldt);
    cpu->tr = seg_get(&s->tr);
    cpu->gdtr = (struct cpu_dtable){ .base = s->gdt.base, .limit = s->gdt.limit };
    cpu->idtr = (struct cpu_dtable){ .base = s->idt.base, .limit = s->idt.limit };
    cpu->cr0 = s->cr0;
    cpu->cr2 = s->cr2;
    cpu->cr3 = s->cr3;
    cpu->cr4 = s->cr4;
    cpu->efer = s->efer;
    if (s->flags & KVM_SREGS2_FLAGS_PDPTRS_VALID) {
        memcpy(cpu->pdpte, s->pdptrs, sizeof cpu->pdpte);
    }
}

static uint64_t apic_base_of(struct cpu *cpu)
{
    uint64_t base = 0;
    if (cpu->world->apic_msr_read != NULL) {
        (void)!cpu->world->apic_msr_read(cpu->world->ctx, cpu, MSR_APIC_BASE, &base);
    }
    return base;
}

static void sregs_put(struct kvm_vcpu *v, struct kvm_sregs2 *s)
{
    struct cpu *cpu = v->cpu;
    *s = (struct kvm_sregs2){
        .es = seg_put(&cpu->seg[SEG_ES]),
        .cs = seg_put(&cpu->seg[SEG_CS]),
        .ss = seg_put(&cpu->seg[SEG_SS]),
        .ds = seg_put(&cpu->seg[SEG_DS]),
        .fs = seg_put(&cpu->seg[SEG_FS]),
        .gs = seg_put(&cpu->seg[SEG_GS]),
        .ldt = seg_put(&cpu->ldtr),
        .tr = seg_put(&cpu->tr),
        .gdt = { .base = cpu->gdtr.base, .limit = cpu->gdtr.limit },
        .idt = { .base = cpu->idtr.base, .limit = cpu->idtr.limit },
        .cr0 = cpu->cr0,
        .cr2 = cpu->cr2,
        .cr3 = cpu->cr3,
        .cr4 = cpu->cr4,
        .cr8 = v->cr8,
        .efer = cpu->efer,
        .apic_base = kvm_has_lapics(v->kvm) ? v->apic_base : apic_base_of(cpu),
    };
    if ((cpu->cr0 & CR0_PG) && (cpu->cr4 & CR4_PAE) && !(cpu->efer & EFER_LMA)) {
        s->flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
        memcpy(s->pdptrs, cpu->pdpte, sizeof s->pdptrs);
    }
}

static int sregs_pull(struct kvm_vcpu *v)
{
    struct kvm_sregs2 s = { 0 };
    if (ioctl(v->fd, KVM_GET_SREGS2, &s) < 0) {
        return failed(v, "KVM_GET_SREGS2");
    }
    sregs_get(v->cpu, &s);
    if (kvm_has_lapics(v->kvm)) {
        v->cr8 = (uint8_t)s.cr8;
        v->apic_base = s.apic_base;
    }
    return 0;
}

static int sregs_push(struct kvm_vcpu *v)
{
    struct kvm_sregs2 s;
    sregs_put(v, &s);
    return ioctl(v->fd, KVM_SET_SREGS2, &s) < 0 ? failed(v, "KVM_SET_SREGS2") : 0;
}

/* -- Vectors, XCR0, debug registers ------------------------------------------------------------ */

static int xsave_pull(struct kvm_vcpu *v)
{
    _Alignas(64) uint8_t image[KVM_XSAVE_BYTES];
    unsigned long get = v->kvm->caps.xsave_bytes != 0 ? KVM_GET_XSAVE2 : KVM_GET_XSAVE;
    if (ioctl(v->fd, get, image) < 0) {
        return failed(v, "KVM_GET_XSAVE");
    }
    kvm_xsave_get(v->cpu, image);
    return 0;
}

static int xsave_push(struct kvm_vcpu *v)
{
    _Alignas(64) uint8_t image[KVM_XSAVE_BYTES];
    kvm_xsave_put(v->cpu, image);
    return ioctl(v->fd, KVM_SET_XSAVE, image) < 0 ? failed(v, "KVM_SET_XSAVE") : 0;
}

static int xcrs_pull(struct kvm_vcpu *v)
{
    struct kvm_xcrs x = { 0 };
    if (v->cpu->model->xcr0_mask == 0) {
        return 0;
    }
    if (ioctl(v->fd, KVM_GET_XCRS, &x) < 0) {
        return failed(v, "KVM_GET_XCRS");
    }
    for (unsigned i = 0; i < x.nr_xcrs && i < KVM_MAX_XCRS; i++) {
        if (x.xcrs[i].xcr == 0) {
            v->cpu->xcr0 = x.xcrs[i].value;
        }
    }
    return 0;
}

static int xcrs_push(struct kvm_vcpu *v)
{
    struct kvm_xcrs x = { .nr_xcrs = 1, .xcrs[0] = { .xcr = 0, .value = v->cpu->xcr0 } };
    if (v->cpu->model->xcr0_mask == 0) {
        return 0;
    }
    return ioctl(v->fd, KVM_SET_XCRS, &x) < 0 ? failed(v, "KVM_SET_XCRS") : 0;
}

static int debug_pull(struct kvm_vcpu *v)
{
    struct kvm_debugregs d;
    if (ioctl(v->fd, KVM_GET_DEBUGREGS, &d) < 0) {
        return failed(v, "KVM_GET_DEBUGREGS");
    }
    memcpy(v->cpu->dr, d.db, sizeof d.db);
    v->cpu->dr[6] = d.dr6;
    v->cpu->dr[7] = d.dr7;
    return 0;
}

static int debug_push(struct kvm_vcpu *v)
{
    struct kvm_debugregs d = { .dr6 = v->cpu->dr[6], .dr7 = v->cpu->dr[7] };
    memcpy(d.db, v->cpu->dr, sizeof d.db);
    return ioctl(v->fd, KVM_SET_DEBUGREGS, &d) < 0 ? failed(v, "KVM_SET_DEBUGREGS") : 0;
}

/* -- Events ------------------------------------------------------------------------------------ */

static int events_pull(struct kvm_vcpu *v)
{
    struct kvm_vcpu_events ev = { 0 };
    if (ioctl(v->fd, KVM_GET_VCPU_EVENTS, &ev) < 0) {
        return failed(v, "KVM_GET_VCPU_EVENTS");
    }
    struct cpu *cpu = v->cpu;
    cpu->nmi_blocked = ev.nmi.masked;
    cpu->int_shadow = ev.interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS ? CPU_SHADOW_SS
                      : ev.interrupt.shadow & KVM_X86_SHADOW_INT_STI  ? CPU_SHADOW_STI
                                                                      : CPU_SHADOW_NONE;
    for (unsigned n = ev.nmi.pending; n > 0; n--) { /* we gave them; they wait again */
        cpu_raise_nmi(cpu);
    }
    return 0;
}

static int events_push(struct kvm_vcpu *v)
{
    const struct cpu *cpu = v->cpu;
    struct kvm_vcpu_events ev = {
        .flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW,
        .nmi.masked = cpu->nmi_blocked,
        .interrupt.shadow = cpu->int_shadow == CPU_SHADOW_SS    ? KVM_X86_SHADOW_INT_MOV_SS
                            : cpu->int_shadow == CPU_SHADOW_STI ? KVM_X86_SHADOW_INT_STI
                                                                : 0,
    };
    return ioctl(v->fd, KVM_SET_VCPU_EVENTS, &ev) < 0 ? failed(v, "KVM_SET_VCPU_EVENTS") : 0;
}

/* -- Halted, waiting --------------------------------------------------------------------------- */

/* Also brings an INIT or SIPI that has come to its effect, which is on all registers. */
static int mp_state_pull(struct kvm_vcpu *v)
{
    struct kvm_mp_state mp;
    if (!kvm_has_lapics(v->kvm) || v->cpu->activity == CPU_SHUTDOWN) {
        return 0;
    }
    if (ioctl(v->fd, KVM_GET_MP_STATE, &mp) < 0) {
        return failed(v, "KVM_GET_MP_STATE");
    }
    v->cpu->activity = mp.mp_state == KVM_MP_STATE_HALTED ? CPU_HALTED
                       : mp.mp_state == KVM_MP_STATE_UNINITIALIZED ||
                               mp.mp_state == KVM_MP_STATE_INIT_RECEIVED
                           ? CPU_WAIT_SIPI
                           : CPU_ACTIVE;
    return 0;
}

/* From here on the kernel knows when it sleeps, and for us it runs. */
static int mp_state_push(struct kvm_vcpu *v)
{
    if (!kvm_has_lapics(v->kvm)) {
        return 0;
    }
    const struct kvm_mp_state mp = {
        .mp_state = v->cpu->activity == CPU_HALTED      ? KVM_MP_STATE_HALTED
                    : v->cpu->activity == CPU_WAIT_SIPI ? KVM_MP_STATE_INIT_RECEIVED
                                                        : KVM_MP_STATE_RUNNABLE
    };
    if (ioctl(v->fd, KVM_SET_MP_STATE, &mp) < 0) {
        return failed(v, "KVM_SET_MP_STATE");
    }
    v->cpu->activity = CPU_ACTIVE;
    return 0;
}

/* -- All --------------------------------------------------------------------------------------- */

int kvm_pull(struct kvm_vcpu *v)
{
    struct kvm_regs regs;
    if (!v->in_kernel) {
        return 0;
    }
    int r = mp_state_pull(v);
    if (r == 0 && ioctl(v->fd, KVM_GET_REGS, &regs) < 0) {
        r = failed(v, "KVM_GET_REGS");
    }
    if (r < 0) {
        return r;
    }
    regs_get(v->cpu, &regs);
    r = sregs_pull(v);
    r = r < 0 ? r : xsave_pull(v);
    r = r < 0 ? r : xcrs_pull(v);
    r = r < 0 ? r : debug_pull(v);
    r = r < 0 ? r : kvm_msr_pull(v);
    r = r < 0 ? r : events_pull(v);
    if (r < 0) {
        return r;
    }
    v->stats.pulls++;
    v->in_kernel = false;
    v->ready = false;
    tlb_flush_all(v->cpu); /* its entries are of before the guest ran in the kernel */
    cpu_update_mode(v->cpu);
    return 0;
}

void kvm_look_at_tpr(struct kvm_vcpu *v)
{
    const struct cpu_world *w = v->cpu->world;
    if (!kvm_has_lapics(v->kvm)) {
        v->cr8 = w->cr8_get != NULL ? w->cr8_get(w->ctx, v->cpu) : 0;
        v->run->cr8 = v->cr8;
    }
    v->tpr_stale = false;
}

int kvm_push(struct kvm_vcpu *v)
{
    struct kvm_regs regs;
    struct cpu *cpu = v->cpu;
    if (v->in_kernel) {
        return 0;
    }
    kvm_look_at_tpr(v);
    regs_put(cpu, &regs);
    int r = xcrs_push(v);
    r = r < 0 ? r : sregs_push(v);
    r = r < 0 ? r : xsave_push(v);
    r = r < 0 ? r : kvm_msr_push(v);
    if (r == 0 && ioctl(v->fd, KVM_SET_REGS, &regs) < 0) {
        r = failed(v, "KVM_SET_REGS");
    }
    r = r < 0 ? r : events_push(v);
    r = r < 0 ? r : debug_push(v);
    r = r < 0 ? r : mp_state_push(v);
    v->stats.pushes++;
    v->ready = false;
    v->in_kernel = r == 0;
    return r;
}
