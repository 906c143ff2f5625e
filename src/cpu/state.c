/* SPDX-License-Identifier: Apache-2.0
 *
 * What of a processor is saved, and the check of what comes back: a snapshot is hostile until every
 * rule that the instructions keep has been seen to hold. */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "cpu/access.h"
#include "cpu/debug.h"
#include "cpu/except.h"
#include "cpu/fpu.h"
#include "cpu/insn.h"
#include "cpu/model.h"
#include "cpu/msr.h"

static const struct state_field seg_state[] = {
    STATE(struct cpu_seg, base),
    STATE(struct cpu_seg, limit),
    STATE(struct cpu_seg, attr),
    STATE(struct cpu_seg, sel),
    STATE_END,
};

static const struct state_field dtable_state[] = {
    STATE(struct cpu_dtable, base),
    STATE(struct cpu_dtable, limit),
    STATE_END,
};

static const struct state_field fpu_state[] = {
    STATE_BYTES(struct cpu_fpu, fx),
    STATE_BYTES(struct cpu_fpu, zmm),
    STATE_ARRAY(struct cpu_fpu, k),
    STATE_END,
};

static const struct state_field exception_state[] = {
    STATE(struct cpu_exception, vector),   STATE(struct cpu_exception, has_error),
    STATE(struct cpu_exception, software), STATE(struct cpu_exception, external),
    STATE(struct cpu_exception, error),    STATE(struct cpu_exception, cr2),
    STATE(struct cpu_exception, dr6_bits), STATE_END,
};

const struct state_field cpu_state[] = {
    STATE_ARRAY(struct cpu, gpr),
    STATE(struct cpu, rip),
    STATE(struct cpu, rflags),
    STATE(struct cpu, insn_ip),
    STATE(struct cpu, int_shadow),
    STATE(struct cpu, nmi_blocked),
    STATE(struct cpu, step_armed),
    STATE(struct cpu, icount),
    STATE_STRUCTS(struct cpu, seg, seg_state),
    STATE_STRUCT(struct cpu, ldtr, seg_state),
    STATE_STRUCT(struct cpu, tr, seg_state),
    STATE_STRUCT(struct cpu, gdtr, dtable_state),
    STATE_STRUCT(struct cpu, idtr, dtable_state),
    STATE(struct cpu, cr0),
    STATE(struct cpu, cr2),
    STATE(struct cpu, cr3),
    STATE(struct cpu, cr4),
    STATE_ARRAY(struct cpu, dr),
    STATE(struct cpu, efer),
    STATE(struct cpu, xcr0),
    STATE(struct cpu, xss),
    STATE(struct cpu, pkru),
    STATE_ARRAY(struct cpu, pdpte),
    STATE(struct cpu, star),
    STATE(struct cpu, lstar),
    STATE(struct cpu, cstar),
    STATE(struct cpu, sfmask),
    STATE(struct cpu, kernel_gs_base),
    STATE(struct cpu, tsc_aux),
    STATE(struct cpu, sysenter_cs),
    STATE(struct cpu, sysenter_esp),
    STATE(struct cpu, sysenter_eip),
    STATE(struct cpu, pat),
    STATE(struct cpu, tsc_offset),
    STATE(struct cpu, tsc_adjust),
    STATE(struct cpu, misc_enable),
    STATE(struct cpu, spec_ctrl),
    STATE(struct cpu, debugctl),
    STATE(struct cpu, mtrr_def_type),
    STATE_ARRAY(struct cpu, mtrr_fix),
    STATE_ARRAY(struct cpu, mtrr_base),
    STATE_ARRAY(struct cpu, mtrr_mask),
    STATE(struct cpu, mcg_status),
    STATE(struct cpu, mcg_ctl),
    STATE_ARRAY(struct cpu, mc_ctl),
    STATE_ARRAY(struct cpu, mc_status),
    STATE_ARRAY(struct cpu, mc_addr),
    STATE_ARRAY(struct cpu, mc_misc),
    STATE(struct cpu, smbase),
    STATE(struct cpu, feature_control),
    STATE(struct cpu, ucode_rev),
    STATE(struct cpu, kvm_system_time),
    STATE(struct cpu, kvm_wall_clock),
    STATE(struct cpu, kvm_steal_time),
    STATE(struct cpu, kvm_poll_control),
    STATE_STRUCT(struct cpu, fpu, fpu_state),
    STATE(struct cpu, activity),
    STATE(struct cpu, sipi_vector),
    STATE(struct cpu, in_smm),
    STATE_SINCE(2, struct cpu, smm_nmi_blocked),
    STATE(struct cpu, ferr_pending),
    STATE(struct cpu, ignne),
    STATE_STRUCT(struct cpu, exc, exception_state),
    STATE(struct cpu, exc_pending),
    STATE(struct cpu, pending_dr6),
    STATE_SINCE(3, struct cpu, latched),
    STATE_END,
};

static bool control_registers_agree(const struct cpu *cpu)
{
    bool pg = cpu->cr0 & CR0_PG;
    bool lma = cpu->efer & EFER_LMA;
    if (cpu->cr0 >> 32 != 0 || (pg && !(cpu->cr0 & CR0_PE))) {
        return false;
    }
    if (lma != (pg && (cpu->efer & EFER_LME)) || (lma && !(cpu->cr4 & CR4_PAE))) {
        return false;
    }
    if ((cpu->cr4 & (CR4_PCIDE | CR4_LA57)) && !lma) {
        return false;
    }
    return !(lma && (cpu->rflags & FLAG_VM));
}

static bool vectors_allowed(const struct cpu *cpu)
{
    uint64_t mask = cpu->model->xcr0_mask | XCOMP_X87;
    return (cpu->xcr0 & XCOMP_X87) && !(cpu->xcr0 & ~mask) && cpu->xss == 0 &&
           !(fx_get32(cpu, FX_MXCSR) & ~fpu_mxcsr_mask()) &&
           (cpu->pkru == 0 || cpu_has(&cpu->features, CPU_FEATURE_PKU));
}

/* Bases and targets that instructions and MSR writes keep canonical. */
static bool addresses_canonical(const struct cpu *cpu)
{
    const uint64_t regs[] = {
        cpu->gdtr.base,
        cpu->idtr.base,
        cpu->seg[SEG_FS].base,
        cpu->seg[SEG_GS].base,
        cpu->kernel_gs_base,
        cpu->lstar,
        cpu->cstar,
        cpu->sysenter_esp,
        cpu->sysenter_eip,
    };
    for (unsigned i = 0; i < ARRAY_LEN(regs); i++) {
        if (!mmu_canonical_reg(cpu, regs[i])) {
            return false;
        }
    }
    return true;
}

/* Levels are told anew by whoever drives them; the rest of the word is the host's business. */
#define LATCHED (CPU_EV_NMI | CPU_EV_NMI_2 | CPU_EV_SMI | CPU_EV_INIT | CPU_EV_SIPI)

void cpu_pre_save(struct cpu *cpu)
{
    cpu->latched = atomic_load_explicit(&cpu->events, memory_order_seq_cst) & LATCHED;
}

int cpu_post_load(struct cpu *cpu, struct err *e)
{
    if (!control_registers_agree(cpu)) {
        return err_set(e, -EINVAL, "cpu %u: control registers contradict each other", cpu->index);
    }
    if (!vectors_allowed(cpu)) {
        return err_set(e, -EINVAL, "cpu %u: vector state that the CPU model does not have",
                       cpu->index);
    }
    if (!addresses_canonical(cpu) || !pat_valid(cpu->pat)) {
        return err_set(e, -EINVAL, "cpu %u: a system register holds what none can", cpu->index);
    }
    if (cpu->activity > CPU_SHUTDOWN || cpu->icount >> 62 != 0 || cpu->int_shadow > CPU_SHADOW_SS ||
        !(cpu->rflags & FLAG_FIXED) || (cpu->latched & ~(uint32_t)LATCHED) ||
        (cpu->latched & (CPU_EV_NMI | CPU_EV_NMI_2)) == CPU_EV_NMI_2) {
        return err_set(e, -EINVAL, "cpu %u: run state out of range", cpu->index);
    }
    cpu_clear_event(cpu, LATCHED);
    cpu_raise_event(cpu, cpu->latched);
    cpu->dr[4] = cpu->dr[5] = 0;
    cpu->in_delivery = false;
    cpu->insn = NULL;
    tlb_flush_all(cpu);
    cpu_update_mode(cpu);
    cpu_update_trap(cpu);
    return 0;
}
