/* SPDX-License-Identifier: Apache-2.0
 *
 * Model-specific registers (SDM 4): what Linux, memtest86+, SeaBIOS, OVMF and Windows-class guests
 * touch. Any other is #GP(0).  Thread: [vcpu].
 */
#ifndef SOSIA_CPU_MSR_H
#define SOSIA_CPU_MSR_H

#include "cpu/cpu.h"

enum msr_index {
    MSR_TSC = 0x10,
    MSR_KVM_WALL_CLOCK = 0x11,  /* old number */
    MSR_KVM_SYSTEM_TIME = 0x12, /* old number */
    MSR_PLATFORM_ID = 0x17,
    MSR_APIC_BASE = 0x1b,
    MSR_FEATURE_CONTROL = 0x3a,
    MSR_TSC_ADJUST = 0x3b,
    MSR_SPEC_CTRL = 0x48,
    MSR_PRED_CMD = 0x49,
    MSR_UCODE_WRITE = 0x79,
    MSR_UCODE_REV = 0x8b,
    MSR_SMBASE = 0x9e,
    MSR_PLATFORM_INFO = 0xce,
    MSR_MTRR_CAP = 0xfe,
    MSR_ARCH_CAPABILITIES = 0x10a,
    MSR_BBL_CR_CTL3 = 0x11e,
    MSR_SYSENTER_CS = 0x174,
    MSR_SYSENTER_ESP = 0x175,
    MSR_SYSENTER_EIP = 0x176,
    MSR_MCG_CAP = 0x179,
    MSR_MCG_STATUS = 0x17a,
    MSR_MCG_CTL = 0x17b,
    MSR_PERF_STATUS = 0x198,
    MSR_PERF_CTL = 0x199,
    MSR_MISC_ENABLE = 0x1a0,
    MSR_DEBUGCTL = 0x1d9,
    MSR_MTRR_PHYS = 0x200, /* base, mask of 8 */
    MSR_MTRR_FIX64K = 0x250,
    MSR_MTRR_FIX16K = 0x258,
    MSR_MTRR_FIX4K = 0x268,
    MSR_PAT = 0x277,
    MSR_MTRR_DEF_TYPE = 0x2ff,
    MSR_MC0_CTL = 0x400, /* ctl, status, addr, misc of 4 banks */
    MSR_TSC_DEADLINE = 0x6e0,
    MSR_X2APIC = 0x800,
    MSR_X2APIC_END = 0x8ff,
    MSR_XSS = 0xda0,
    MSR_KVM_WALL_CLOCK_NEW = 0x4b564d00,
    MSR_KVM_SYSTEM_TIME_NEW = 0x4b564d01,
};
#define MSR_EFER 0xc0000080u
#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u
#define MSR_CSTAR 0xc0000083u
#define MSR_SFMASK 0xc0000084u
#define MSR_FS_BASE 0xc0000100u
#define MSR_GS_BASE 0xc0000101u
#define MSR_KERNEL_GS_BASE 0xc0000102u
#define MSR_TSC_AUX 0xc0000103u

#define MC_BANKS 4u

/* false: #GP(0) */
MUST_CHECK bool msr_read(struct cpu *cpu, uint32_t msr, uint64_t *value);
MUST_CHECK bool msr_write(struct cpu *cpu, uint32_t msr, uint64_t value);
void msr_reset(struct cpu *cpu);

/* IA32_EFER with its rules; LMA is not writable. */
MUST_CHECK bool msr_write_efer(struct cpu *cpu, uint64_t value);

/* Memory types (mtrr.c). */
bool mtrr_is(uint32_t msr);
MUST_CHECK bool mtrr_read(const struct cpu *cpu, uint32_t msr, uint64_t *value);
MUST_CHECK bool mtrr_write(struct cpu *cpu, uint32_t msr, uint64_t value);
bool pat_valid(uint64_t value);

/* This vCPU's time-stamp counter. */
uint64_t cpu_tsc(const struct cpu *cpu);

/* KVM's paravirtual clock (kvmclock.c). */
MUST_CHECK bool kvmclock_read(const struct cpu *cpu, uint32_t msr, uint64_t *value);
MUST_CHECK bool kvmclock_write(struct cpu *cpu, uint32_t msr, uint64_t value);
bool kvmclock_is(uint32_t msr);
/* The TSC was set: the clock page follows. */
void kvmclock_refresh(struct cpu *cpu);
/* The guest's time went on while it stood still: its watchdogs are not to blame it. Paused. */
void kvmclock_note_stop(struct cpu *cpu);
/* Scale of pvclock: nanoseconds = ((tsc << shift, or >> -shift) * mul) >> 32. */
void kvmclock_scale(uint32_t tsc_khz, uint32_t *mul, int8_t *shift);

#endif
