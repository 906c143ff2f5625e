/* SPDX-License-Identifier: Apache-2.0
 *
 * FPU state: access checks common to all FP and SIMD instructions, views of the FXSAVE image, and
 * the operations that other parts of the CPU need.  Thread: [vcpu].
 */
#ifndef SOSIA_CPU_FPU_H
#define SOSIA_CPU_FPU_H

#include <string.h>

#include "base/bits.h"
#include "cpu/except.h"
#include "cpu/sem.h"

/* XSAVE state components (SDM 1 13.1) */
#define XCOMP_X87 0x1ull
#define XCOMP_SSE 0x2ull
#define XCOMP_AVX 0x4ull
#define XCOMP_AVX512 0xe0ull
#define XCOMP_OPMASK 0x20ull
#define XCOMP_ZMM_HI 0x40ull
#define XCOMP_HI16_ZMM 0x80ull
#define XCOMP_PKRU 0x200ull

#define FSW_ES 0x80u
#define FSW_B 0x8000u
#define FSW_TOP_SHIFT 11u
#define FX_EXCEPTIONS 0x3fu
#define MXCSR_DEFAULT 0x1f80u
#define FCW_DEFAULT 0x37fu

static inline uint16_t fx_get16(const struct cpu *cpu, unsigned off)
{
    uint16_t v;
    memcpy(&v, cpu->fpu.fx + off, sizeof v);
    return v;
}
static inline uint32_t fx_get32(const struct cpu *cpu, unsigned off)
{
    uint32_t v;
    memcpy(&v, cpu->fpu.fx + off, sizeof v);
    return v;
}
static inline uint64_t fx_get64(const struct cpu *cpu, unsigned off)
{
    uint64_t v;
    memcpy(&v, cpu->fpu.fx + off, sizeof v);
    return v;
}
static inline void fx_put16(struct cpu *cpu, unsigned off, uint16_t v)
{
    memcpy(cpu->fpu.fx + off, &v, sizeof v);
}
static inline void fx_put32(struct cpu *cpu, unsigned off, uint32_t v)
{
    memcpy(cpu->fpu.fx + off, &v, sizeof v);
}
static inline void fx_put64(struct cpu *cpu, unsigned off, uint64_t v)
{
    memcpy(cpu->fpu.fx + off, &v, sizeof v);
}

/* MXCSR bits that exist: the host's MXCSR_MASK, since it executes the guest's arithmetic. */
uint32_t fpu_mxcsr_mask(void);

/* FOP, FIP and FDP as this host's FXSAVE, FXRSTOR and XSAVE family treat them, and so the guest's,
 * which has the same vendor. */
struct fpu_pointers {
    uint8_t fip_bits; /* of a 64-bit address this many are kept, and sign-extended; 64: all */
    uint8_t fdp_bits;
    bool only_pending; /* saved as 0 unless an unmasked exception is pending (AMD: APM 3, FXSAVE) */
};
struct fpu_pointers fpu_host_pointers(void);

/* Two-bit tags of the eight physical registers from the abridged ones and the contents. */
uint16_t fpu_full_tags(const struct cpu *cpu);
/* Change TOP while the physical registers stay where they are: the image holds them as ST(i). */
void fpu_set_top(struct cpu *cpu, unsigned top);
/* What every MMX instruction but EMMS does: all registers valid, TOP 0 (SDM 1 9.5.1). */
void fpu_enter_mmx(struct cpu *cpu);
/* FNINIT's state (SDM 2). Registers keep their content. */
void fpu_init_x87(struct cpu *cpu);
/* x87 and vectors as after RESET# (SDM 3 table 10-1): for cpu_reset. */
void fpu_reset(struct cpu *cpu);

/* An unmasked exception is pending: what FSW.ES says. */
static inline bool fpu_summary(const struct cpu *cpu)
{
    return (fx_get16(cpu, FX_FSW) & ~fx_get16(cpu, FX_FCW) & FX_EXCEPTIONS) != 0;
}

/* Recompute FSW.ES and FSW.B from the flags and masks, after a load of FCW or FSW. */
void fpu_update_summary(struct cpu *cpu);

/* XCR0 and XINUSE, for XGETBV with ECX 1 (SDM 1 13.2, 13.6). */
uint64_t fpu_xinuse(const struct cpu *cpu);

/* What the attributes of an FP or SIMD row demand of CR0, CR4, XCR0, and pending x87 errors:
 * raises #UD, #NM or #MF. Returns false when the instruction must not execute now: CR0.NE = 0,
 * FERR# is asserted and the CPU waits for the interrupt (rip is back on the instruction). */
bool fpu_check_slow(struct cpu *cpu, uint32_t attr);

/* What must be enabled in XCR0 for VEX and EVEX (SDM 1 14.3, 15.4). */
static inline uint64_t fpu_components(uint32_t attr)
{
    return XCOMP_SSE | XCOMP_AVX | (attr & IA_AVX512 ? XCOMP_AVX512 : 0);
}

static inline bool fpu_check(struct cpu *cpu, uint32_t attr)
{
    if (likely((attr & (IA_SSE | IA_MMX | IA_X87)) == IA_SSE)) {
        if (likely(!(cpu->cr0 & (CR0_EM | CR0_TS)) && (cpu->cr4 & CR4_OSFXSR)))
            return true;
    } else if (attr & IA_AVX) {
        const uint64_t need = fpu_components(attr);
        if (likely(!(cpu->cr0 & CR0_TS) && (cpu->cr4 & CR4_OSXSAVE) && (cpu->cr0 & CR0_PE) &&
                   (cpu->xcr0 & need) == need && !cpu_v86(cpu)))
            return true;
    }
    return fpu_check_slow(cpu, attr);
}

/* Called by the machine when the guest writes port 0xf0: FERR# off, IGNNE# on (SDM 3 9.7). */
void fpu_ignne(struct cpu *cpu);

sem_fn sem_fldenv, sem_fnstenv, sem_frstor, sem_fnsave, sem_fnstsw_ax, sem_fnclex, sem_fninit;
sem_fn sem_fwait, sem_ldmxcsr, sem_stmxcsr, sem_fxsave, sem_fxrstor;
sem_fn sem_xsave, sem_xrstor, sem_xsaveopt, sem_xsavec, sem_xsaves, sem_xrstors;

#endif
