/* SPDX-License-Identifier: Apache-2.0
 *
 * Model-specific registers (SDM 4, AMD APM 2 appendix A). Unknown ones are #GP(0). */
#include "cpu/msr.h"

#include <string.h>

#include "base/bits.h"
#include "cpu/access.h"
#include "cpu/except.h"
#include "cpu/model.h"

/* IA32_MISC_ENABLE: fast strings; no branch trace, no PEBS; and the writable ones. */
#define MISC_FAST_STRINGS 0x1ull
#define MISC_FIXED 0x1800ull
#define MISC_WRITABLE 0x450009ull
#define FEATURE_CONTROL_LOCK 0x1ull
#define DEBUGCTL_KNOWN 0x3ull       /* LBR and BTF are kept, but do nothing (debug.c) */
#define MCG_CAP (MC_BANKS | 0x100u) /* IA32_MCG_CTL is there */

uint64_t cpu_tsc(const struct cpu *cpu)
{
    return cpu->world->tsc(cpu->world->ctx) + cpu->tsc_offset;
}

void msr_reset(struct cpu *cpu)
{
    cpu->star = cpu->lstar = cpu->cstar = cpu->sfmask = cpu->kernel_gs_base = cpu->tsc_aux = 0;
    cpu->sysenter_cs = cpu->sysenter_esp = cpu->sysenter_eip = 0;
    cpu->tsc_offset = cpu->tsc_adjust = 0;
    cpu->misc_enable = MISC_FIXED | MISC_FAST_STRINGS;
    cpu->spec_ctrl = cpu->debugctl = 0;
    cpu->mtrr_def_type = 0;
    memset(cpu->mtrr_fix, 0, sizeof cpu->mtrr_fix);
    memset(cpu->mtrr_base, 0, sizeof cpu->mtrr_base);
    memset(cpu->mtrr_mask, 0, sizeof cpu->mtrr_mask);
    cpu->mcg_status = 0;
    cpu->mcg_ctl = 0;
    memset(cpu->mc_ctl, 0, sizeof cpu->mc_ctl);
    memset(cpu->mc_status, 0, sizeof cpu->mc_status);
    memset(cpu->mc_addr, 0, sizeof cpu->mc_addr);
    memset(cpu->mc_misc, 0, sizeof cpu->mc_misc);
    cpu->feature_control = 0;
    cpu->kvm_system_time = cpu->kvm_wall_clock = 0;
    cpu->kvm_steal_time = cpu->kvm_poll_control = 0;
}

bool msr_write_efer(struct cpu *cpu, uint64_t value)
{
    uint64_t known = EFER_LMA;
    known |= cpu_has(&cpu->features, CPU_FEATURE_SYSCALL) ? EFER_SCE : 0;
    known |= cpu_has(&cpu->features, CPU_FEATURE_LM) ? EFER_LME : 0;
    known |= cpu_has(&cpu->features, CPU_FEATURE_NX) ? EFER_NXE : 0;
    if (value & ~known) {
        return false;
    }
    if ((cpu->cr0 & CR0_PG) && ((value ^ cpu->efer) & EFER_LME)) {
        return false;
    }
    uint64_t changed = value ^ cpu->efer;
    cpu->efer = (value & ~EFER_LMA) | (cpu->efer & EFER_LMA);
    if (changed & EFER_NXE) {
        tlb_flush_all(cpu);
    }
    cpu_update_mode(cpu);
    return true;
}

/* -- Machine check: nothing ever fails, so that everything reads as the reset left it ---------- */
static bool is_mc_bank(uint32_t msr)
{
    return msr >= MSR_MC0_CTL && msr < MSR_MC0_CTL + 4 * MC_BANKS;
}

static uint64_t *mc_register(struct cpu *cpu, uint32_t msr)
{
    unsigned bank = (msr - MSR_MC0_CTL) / 4;
    switch (msr % 4) {
    case 0:
        return &cpu->mc_ctl[bank];
    case 1:
        return &cpu->mc_status[bank];
    case 2:
        return &cpu->mc_addr[bank];
    default:
        return &cpu->mc_misc[bank];
    }
}

static bool mc_write(struct cpu *cpu, uint32_t msr, uint64_t value)
{
    /* Controls take any mask; the others only 0 (SDM 3 15.3.2). */
    if (msr % 4 != 0 && value != 0) {
        return false;
    }
    *mc_register(cpu, msr) = value;
    return true;
}

/* -- AMD processors: what their guests touch without asking CPUID ------------------------------ */
static bool amd_known(uint32_t msr)
{
    switch (msr) {
    case 0xc0010010: /* SYSCFG */
    case 0xc0010015: /* HWCR */
    case 0xc001001f: /* NB_CFG */
    case 0xc0010055: /* interrupt pending */
    case 0xc0010111: /* SMBASE */
    case 0xc0010112: /* SMM address */
    case 0xc0010113: /* SMM mask */
    case 0xc0010114: /* VM_CR */
    case 0xc0010117: /* VM_HSAVE_PA */
    case 0xc0010140: /* OSVW */
    case 0xc0010141:
    case 0xc0011020: /* LS_CFG */
    case 0xc0011022: /* DC_CFG */
    case 0xc0011023:
    case 0xc0011029: /* DE_CFG */
    case 0xc001102a: /* BU_CFG2 */
        return true;
    default:
        return false;
    }
}

/* HWCR.TscFreqSel: the TSC runs at the P0 frequency; Linux complains when it is clear. */
static uint64_t amd_read(uint32_t msr) { return msr == 0xc0010015 ? 1ull << 24 : 0; }

/* IA32_ARCH_CAPABILITIES (SDM 4). Under the software engines no guest instruction reads memory
 * before its permissions were checked in software, so that the hardware's leaks through faulting
 * loads do not exist, and indirect branches go through the engine's own lookup: page-table
 * isolation, buffer clearing and retpolines would cost the guest much and give it nothing. An
 * engine that runs guest code on the processor itself must show the host's value instead. */
#define ARCH_CAP_NOT_AFFECTED                                                                      \
    (BIT(0) /* RDCL_NO */ | BIT(1) /* IBRS_ALL */ | BIT(3) /* SKIP_L1DFL_VMENTRY */ |              \
     BIT(4) /* SSB_NO */ | BIT(5) /* MDS_NO */ | BIT(6) /* IF_PSCHANGE_MC_NO */ |                  \
     BIT(8) /* TAA_NO */ | BIT(13) /* SBDR_SSDP_NO */ | BIT(14) /* FBSDP_NO */ |                   \
     BIT(15) /* PSDP_NO */ | BIT(20) /* BHI_NO */ | BIT(24) /* PBRSB_NO */ |                       \
     BIT(26) /* GDS_NO */ | BIT(27) /* RFDS_NO */ | BIT(62) /* ITS_NO */)
#define SPEC_CTRL_KNOWN 7ull /* IBRS, STIBP, SSBD */

/* -- Read -------------------------------------------------------------------------------------- */
static uint64_t platform_info(const struct cpu *cpu)
{
    return (uint64_t)(cpu->model->tsc_khz / 100000 & 0xff) << 8; /* ratio to 100 MHz */
}

static bool read_plain(struct cpu *cpu, uint32_t msr, uint64_t *v)
{
    switch (msr) {
    case 0x0: /* P5 machine check */
    case 0x1:
    case MSR_PLATFORM_ID:
    case MSR_PERF_CTL:
        *v = 0;
        break;
    case MSR_TSC:
        *v = cpu_tsc(cpu);
        break;
    case MSR_FEATURE_CONTROL:
        *v = cpu->feature_control;
        break;
    case MSR_UCODE_REV:
        *v = cpu->ucode_rev;
        break;
    case MSR_PLATFORM_INFO:
    case MSR_PERF_STATUS:
        *v = platform_info(cpu);
        break;
    case MSR_BBL_CR_CTL3:
        *v = 0xbe702111;
        break; /* second-level cache on, not configurable */
    case MSR_SYSENTER_CS:
        *v = cpu->sysenter_cs;
        break;
    case MSR_SYSENTER_ESP:
        *v = cpu->sysenter_esp;
        break;
    case MSR_SYSENTER_EIP:
        *v = cpu->sysenter_eip;
        break;
    case MSR_MCG_CAP:
        *v = MCG_CAP;
        break;
    case MSR_MCG_STATUS:
        *v = cpu->mcg_status;
        break;
    case MSR_MCG_CTL:
        *v = cpu->mcg_ctl;
        break;
    case MSR_MISC_ENABLE:
        *v = cpu->misc_enable;
        break;
    case MSR_DEBUGCTL:
        *v = cpu->debugctl;
        break;
    case MSR_PAT:
        *v = cpu->pat;
        break;
    case MSR_EFER:
        *v = cpu->efer;
        break;
    case MSR_STAR:
        *v = cpu->star;
        break;
    case MSR_LSTAR:
        *v = cpu->lstar;
        break;
    case MSR_CSTAR:
        *v = cpu->cstar;
        break;
    case MSR_SFMASK:
        *v = cpu->sfmask;
        break;
    case MSR_FS_BASE:
        *v = cpu->seg[SEG_FS].base;
        break;
    case MSR_GS_BASE:
        *v = cpu->seg[SEG_GS].base;
        break;
    case MSR_KERNEL_GS_BASE:
        *v = cpu->kernel_gs_base;
        break;
    default:
        return false;
    }
    return true;
}

bool msr_read(struct cpu *cpu, uint32_t msr, uint64_t *v)
{
    const struct cpu_world *w = cpu->world;
    const struct cpu_features *f = &cpu->features;
    if (read_plain(cpu, msr, v)) {
        return true;
    }
    switch (msr) {
    case MSR_TSC_ADJUST:
        *v = cpu->tsc_adjust;
        return cpu_has(f, CPU_FEATURE_TSC_ADJUST);
    case MSR_TSC_AUX:
        *v = cpu->tsc_aux;
        return cpu_has(f, CPU_FEATURE_RDTSCP) || cpu_has(f, CPU_FEATURE_RDPID);
    case MSR_SPEC_CTRL:
        *v = cpu->spec_ctrl;
        return cpu_has(f, CPU_FEATURE_SPEC_CTRL);
    case MSR_ARCH_CAPABILITIES:
        *v = ARCH_CAP_NOT_AFFECTED;
        return cpu_has(f, CPU_FEATURE_ARCH_CAPABILITIES);
    case MSR_XSS:
        *v = cpu->xss;
        return cpu_has(f, CPU_FEATURE_XSAVES);
    case MSR_SMBASE:
        *v = cpu->smbase;
        return cpu->in_smm;
    case MSR_TSC_DEADLINE:
        return cpu_has(f, CPU_FEATURE_TSC_DEADLINE) && w->apic_msr_read(w->ctx, cpu, msr, v);
    case MSR_APIC_BASE:
        return w->apic_msr_read(w->ctx, cpu, msr, v);
    default:
        break;
    }
    if (msr >= MSR_X2APIC && msr <= MSR_X2APIC_END) {
        return cpu_has(f, CPU_FEATURE_X2APIC) && w->apic_msr_read(w->ctx, cpu, msr, v);
    }
    if (mtrr_is(msr)) {
        return mtrr_read(cpu, msr, v);
    }
    if (is_mc_bank(msr)) {
        *v = *mc_register(cpu, msr);
        return true;
    }
    if (kvmclock_is(msr)) {
        return kvmclock_read(cpu, msr, v);
    }
    if (cpu_is_amd(cpu) && amd_known(msr)) {
        *v = amd_read(msr);
        return true;
    }
    return false;
}

/* -- Write ------------------------------------------------------------------------------------- */
static bool put_canonical(const struct cpu *cpu, uint64_t *reg, uint64_t value)
{
    if (!mmu_canonical_reg(cpu, value)) {
        return false;
    }
    *reg = value;
    return true;
}

static bool write_tsc(struct cpu *cpu, uint64_t delta)
{
    cpu->tsc_offset += delta;
    cpu->tsc_adjust += delta; /* IA32_TSC_ADJUST follows writes of the TSC (SDM 3 17.17.3) */
    kvmclock_refresh(cpu);
    if (cpu->world->tsc_moved != NULL) {
        cpu->world->tsc_moved(cpu->world->ctx, cpu);
    }
    return true;
}

static bool write_plain(struct cpu *cpu, uint32_t msr, uint64_t v)
{
    switch (msr) {
    case MSR_TSC:
        return write_tsc(cpu, v - cpu_tsc(cpu));
    case MSR_UCODE_WRITE:
    case MSR_PERF_CTL:
    case 0x0:
    case 0x1:
        return true;
    case MSR_UCODE_REV:
        return true; /* written with 0 before CPUID; the revision stays */
    case MSR_FEATURE_CONTROL:
        if ((cpu->feature_control & FEATURE_CONTROL_LOCK) || (v & ~FEATURE_CONTROL_LOCK)) {
            return false;
        }
        cpu->feature_control = v;
        return true;
    case MSR_SYSENTER_CS:
        cpu->sysenter_cs = (uint32_t)v;
        return true;
    case MSR_SYSENTER_ESP:
        return put_canonical(cpu, &cpu->sysenter_esp, v);
    case MSR_SYSENTER_EIP:
        return put_canonical(cpu, &cpu->sysenter_eip, v);
    case MSR_MCG_STATUS:
        return v == 0; /* nothing ever sets it */
    case MSR_MCG_CTL:
        if (v != 0 && v != ~0ull) {
            return false;
        }
        cpu->mcg_ctl = v;
        return true;
    case MSR_MISC_ENABLE:
        cpu->misc_enable = (v & MISC_WRITABLE) | MISC_FIXED;
        return true;
    case MSR_DEBUGCTL:
        if (v & ~DEBUGCTL_KNOWN) {
            return false;
        }
        cpu->debugctl = v;
        return true;
    case MSR_PAT:
        if (!pat_valid(v)) {
            return false;
        }
        cpu->pat = v;
        return true;
    case MSR_EFER:
        return msr_write_efer(cpu, v);
    case MSR_STAR:
        cpu->star = v;
        return true;
    case MSR_LSTAR:
        return put_canonical(cpu, &cpu->lstar, v);
    case MSR_CSTAR:
        return put_canonical(cpu, &cpu->cstar, v);
    case MSR_SFMASK:
        cpu->sfmask = (uint32_t)v;
        return true;
    case MSR_FS_BASE:
        return put_canonical(cpu, &cpu->seg[SEG_FS].base, v);
    case MSR_GS_BASE:
        return put_canonical(cpu, &cpu->seg[SEG_GS].base, v);
    case MSR_KERNEL_GS_BASE:
        return put_canonical(cpu, &cpu->kernel_gs_base, v);
    default:
        return false;
    }
}

static bool is_plain_writable(uint32_t msr)
{
    switch (msr) {
    case MSR_TSC:
    case MSR_UCODE_WRITE:
    case MSR_PERF_CTL:
    case 0x0:
    case 0x1:
    case MSR_UCODE_REV:
    case MSR_FEATURE_CONTROL:
    case MSR_SYSENTER_CS:
    case MSR_SYSENTER_ESP:
    case MSR_SYSENTER_EIP:
    case MSR_MCG_STATUS:
    case MSR_MCG_CTL:
    case MSR_MISC_ENABLE:
    case MSR_DEBUGCTL:
    case MSR_PAT:
    case MSR_EFER:
    case MSR_STAR:
    case MSR_LSTAR:
    case MSR_CSTAR:
    case MSR_SFMASK:
    case MSR_FS_BASE:
    case MSR_GS_BASE:
    case MSR_KERNEL_GS_BASE:
        return true;
    default:
        return false;
    }
}

static bool write_featured(struct cpu *cpu, uint32_t msr, uint64_t v)
{
    const struct cpu_world *w = cpu->world;
    const struct cpu_features *f = &cpu->features;
    switch (msr) {
    case MSR_SPEC_CTRL:
        if (!cpu_has(f, CPU_FEATURE_SPEC_CTRL) || (v & ~SPEC_CTRL_KNOWN)) {
            return false;
        }
        cpu->spec_ctrl = v;
        return true;
    case MSR_PRED_CMD:
        return cpu_has(f, CPU_FEATURE_SPEC_CTRL) && (v & ~1ull) == 0;
    case MSR_TSC_ADJUST:
        return cpu_has(f, CPU_FEATURE_TSC_ADJUST) && write_tsc(cpu, v - cpu->tsc_adjust);
    case MSR_TSC_AUX:
        if (v >> 32 != 0 || (!cpu_has(f, CPU_FEATURE_RDTSCP) && !cpu_has(f, CPU_FEATURE_RDPID))) {
            return false;
        }
        cpu->tsc_aux = v;
        return true;
    case MSR_XSS:
        return cpu_has(f, CPU_FEATURE_XSAVES) && v == 0; /* no supervisor components */
    case MSR_TSC_DEADLINE:
        return cpu_has(f, CPU_FEATURE_TSC_DEADLINE) && w->apic_msr_write(w->ctx, cpu, msr, v);
    case MSR_APIC_BASE:
        return w->apic_msr_write(w->ctx, cpu, msr, v);
    default:
        break;
    }
    if (msr >= MSR_X2APIC && msr <= MSR_X2APIC_END) {
        return cpu_has(f, CPU_FEATURE_X2APIC) && w->apic_msr_write(w->ctx, cpu, msr, v);
    }
    if (mtrr_is(msr)) {
        return mtrr_write(cpu, msr, v);
    }
    if (is_mc_bank(msr)) {
        return mc_write(cpu, msr, v);
    }
    if (kvmclock_is(msr)) {
        return kvmclock_write(cpu, msr, v);
    }
    return cpu_is_amd(cpu) && amd_known(msr);
}

bool msr_write(struct cpu *cpu, uint32_t msr, uint64_t v)
{
    return is_plain_writable(msr) ? write_plain(cpu, msr, v) : write_featured(cpu, msr, v);
}
