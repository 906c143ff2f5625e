/* SPDX-License-Identifier: Apache-2.0
 *
 * Life of a logical processor: power-on, RESET#, INIT (SDM 3 table 10-1), and what follows from its
 * control registers. */
#include "cpu/cpu.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "cpu/access.h"
#include "cpu/debug.h"
#include "cpu/except.h"
#include "cpu/fpu.h"
#include "cpu/hostexec.h"
#include "cpu/insn.h"
#include "cpu/model.h"
#include "cpu/msr.h"
#include "cpu/seg.h"

#define PAT_RESET 0x0007040600070406ull

/* CR0.PE = 0 and everything that depends on it: common to RESET# and INIT. */
static void enter_real(struct cpu *cpu)
{
    memset(cpu->gpr, 0, sizeof cpu->gpr);
    cpu->gpr[R_DX] = cpu_model_signature(cpu->model);
    cpu->rip = cpu->insn_ip = 0xfff0;
    cpu->rflags = FLAG_FIXED;
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        cpu->seg[i] = (struct cpu_seg){ .limit = 0xffff, .attr = SEG_ATTR_REAL };
    }
    cpu->seg[SEG_CS].sel = 0xf000;
    cpu->seg[SEG_CS].base = 0xffff0000;
    cpu->ldtr = (struct cpu_seg){ .limit = 0xffff, .attr = SEG_ATTR_P | SEG_LDT };
    cpu->tr = (struct cpu_seg){ .limit = 0xffff, .attr = SEG_ATTR_P | SEG_TSS32_BUSY };
    cpu->gdtr = cpu->idtr = (struct cpu_dtable){ .limit = 0xffff };
    cpu->cr2 = cpu->cr3 = cpu->cr4 = 0;
    memset(cpu->pdpte, 0, sizeof cpu->pdpte);
    memset(cpu->dr, 0, sizeof cpu->dr);
    cpu->dr[6] = DR6_FIXED;
    cpu->dr[7] = DR7_FIXED;
    cpu->efer = 0;

    cpu->activity = cpu->index == 0 ? CPU_ACTIVE : CPU_WAIT_SIPI;
    cpu->int_shadow = CPU_SHADOW_NONE;
    cpu->nmi_blocked = false;
    cpu->in_delivery = false;
    cpu->step_armed = false;
    cpu->exc_pending = false;
    cpu->pending_dr6 = 0;
    cpu->in_smm = cpu->smm_nmi_blocked = false;
}

void cpu_init_signal(struct cpu *cpu)
{
    uint64_t caching = cpu->cr0 & (CR0_CD | CR0_NW);
    enter_real(cpu);
    cpu->cr0 = CR0_ET | caching;
    tlb_flush_all(cpu);
    cpu_update_mode(cpu);
}

void cpu_reset(struct cpu *cpu)
{
    enter_real(cpu);
    cpu->cr0 = CR0_ET | CR0_CD | CR0_NW;
    cpu->xcr0 = 1;
    cpu->xss = 0;
    cpu->pkru = 0;
    cpu->pat = PAT_RESET;
    cpu->smbase = 0x30000;
    cpu->ferr_pending = false;
    cpu->ignne = false;
    msr_reset(cpu);
    fpu_reset(cpu);
    cpu_clear_event(cpu, CPU_EV_INTR | CPU_EV_NMI | CPU_EV_NMI_2 | CPU_EV_SMI | CPU_EV_INIT |
                             CPU_EV_SIPI | CPU_EV_TRAP);
    tlb_flush_all(cpu);
    cpu_update_mode(cpu);
}

void cpu_raise_nmi(struct cpu *cpu)
{
    uint32_t old = atomic_load_explicit(&cpu->events, memory_order_relaxed);
    uint32_t raised;
    do {
        raised = (old & CPU_EV_NMI) && !cpu->nmi_blocked ? CPU_EV_NMI_2 : CPU_EV_NMI;
    } while (!atomic_compare_exchange_weak_explicit(&cpu->events, &old, old | raised,
                                                    memory_order_seq_cst, memory_order_relaxed));
    if (!(old & CPU_EV_NMI) && cpu->wake != NULL) {
        cpu->wake(cpu->wake_ctx, cpu);
    }
}

void cpu_take_nmi(struct cpu *cpu)
{
    uint32_t old = atomic_load_explicit(&cpu->events, memory_order_relaxed);
    uint32_t taken;
    do {
        taken = old & CPU_EV_NMI_2 ? CPU_EV_NMI_2 : CPU_EV_NMI;
    } while (!atomic_compare_exchange_weak_explicit(&cpu->events, &old, old & ~taken,
                                                    memory_order_seq_cst, memory_order_relaxed));
}

int cpu_init(struct cpu *cpu, unsigned index, const struct cpu_model *model,
             const struct cpu_world *world, struct gmem *mem, struct err *e)
{
    if (index >= model->cpus) {
        return err_set(e, -EINVAL, "cpu %u: the model has %u", index, model->cpus);
    }
    memset(cpu, 0, sizeof *cpu);
    cpu->index = index;
    cpu->apic_id = index;
    cpu->model = model;
    cpu->features = model->features;
    cpu->world = world;
    cpu->mem = mem;
    cpu->ucode_rev = 1ull << 32;
    cpu->icount_limit = UINT64_MAX;
    cpu_reset(cpu);
    return 0;
}

void cpu_fini(struct cpu *cpu)
{
    tlb_fini(cpu);
    hostexec_fini(cpu);
}

void cpu_update_mode(struct cpu *cpu)
{
    uint32_t cs = cpu->seg[SEG_CS].attr;
    if ((cpu->efer & EFER_LMA) && (cs & SEG_ATTR_L)) {
        cpu->mode = INSN_MODE_64;
    } else {
        cpu->mode = cs & SEG_ATTR_DB ? INSN_MODE_32 : INSN_MODE_16;
    }
    if (!(cpu->cr0 & CR0_PE)) {
        cpu->cpl = 0;
    } else if (cpu->rflags & FLAG_VM) {
        cpu->cpl = 3;
    } else {
        cpu->cpl = (uint8_t)seg_dpl(&cpu->seg[SEG_SS]); /* SS carries the CPL, null or not */
    }
    if (cpu->cpl == 3) {
        cpu->view = TLB_VIEW_USER;
    } else {
        bool barred = (cpu->cr4 & CR4_SMAP) && !(cpu->rflags & FLAG_AC);
        cpu->view = barred ? TLB_VIEW_SUPER_SMAP : TLB_VIEW_SUPER;
    }
    tlb_switch(cpu);
}
