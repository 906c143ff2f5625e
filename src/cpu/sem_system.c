/* SPDX-License-Identifier: Apache-2.0
 *
 * CPUID, time, MSRs, XCR0, PKRU, TLB and cache control, HLT, hypercalls, random numbers. */
#include <string.h>
#include <sys/random.h>

#include "cpu/fpu.h"
#include "cpu/model.h"
#include "cpu/msr.h"
#include "cpu/opnd.h"
#include "cpu/seg.h"
#include "cpu/sem_decls.h"

static _Noreturn void gp(struct cpu *cpu) { cpu_raise_error(cpu, EXC_GP, 0); }

/* EDX:EAX, upper halves cleared. */
static void put_pair(struct cpu *cpu, uint64_t v)
{
    cpu->gpr[R_AX] = (uint32_t)v;
    cpu->gpr[R_DX] = v >> 32;
}

static uint64_t get_pair(const struct cpu *cpu)
{
    return (uint32_t)cpu->gpr[R_AX] | cpu->gpr[R_DX] << 32;
}

void sem_cpuid(struct cpu *cpu, const struct insn *in)
{
    uint32_t out[4];
    (void)in;
    cpu_cpuid(cpu, (uint32_t)cpu->gpr[R_AX], (uint32_t)cpu->gpr[R_CX], out);
    cpu->gpr[R_AX] = out[0];
    cpu->gpr[R_BX] = out[1];
    cpu->gpr[R_CX] = out[2];
    cpu->gpr[R_DX] = out[3];
}

/* -- Time -------------------------------------------------------------------------------------- */
static void check_tsd(struct cpu *cpu)
{
    if ((cpu->cr4 & CR4_TSD) && cpu->cpl != 0) {
        gp(cpu);
    }
}

void sem_rdtsc(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    check_tsd(cpu);
    put_pair(cpu, cpu_tsc(cpu));
}

void sem_rdtscp(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    check_tsd(cpu);
    put_pair(cpu, cpu_tsc(cpu));
    cpu->gpr[R_CX] = (uint32_t)cpu->tsc_aux;
}

void sem_rdpid(struct cpu *cpu, const struct insn *in)
{
    gpr_write(cpu, in->opnd[0].reg, in->opnd[0].size, cpu->tsc_aux);
}

/* There are no performance counters: any index is wrong. */
void sem_rdpmc(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    gp(cpu);
}

/* -- MSRs
 * ------------------------------------------------------------------------------------------------
 */
void sem_rdmsr(struct cpu *cpu, const struct insn *in)
{
    uint64_t v;
    (void)in;
    cpu_need_cpl0(cpu);
    if (!msr_read(cpu, (uint32_t)cpu->gpr[R_CX], &v)) {
        gp(cpu);
    }
    put_pair(cpu, v);
}

void sem_wrmsr(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    cpu_need_cpl0(cpu);
    if (!msr_write(cpu, (uint32_t)cpu->gpr[R_CX], get_pair(cpu))) {
        gp(cpu);
    }
}

/* -- XCR0, PKRU -------------------------------------------------------------------------------- */
static void need_osxsave(struct cpu *cpu)
{
    if (!(cpu->cr4 & CR4_OSXSAVE)) {
        cpu_raise(cpu, EXC_UD);
    }
}

void sem_xgetbv(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    need_osxsave(cpu);
    uint32_t index = (uint32_t)cpu->gpr[R_CX];
    if (index == 1 && cpu_has(&cpu->features, CPU_FEATURE_XGETBV1)) {
        put_pair(cpu, fpu_xinuse(cpu));
    } else if (index == 0) {
        put_pair(cpu, cpu->xcr0);
    } else {
        gp(cpu);
    }
}

static bool xcr0_valid(const struct cpu *cpu, uint64_t v)
{
    if (!(v & XCOMP_X87) || (v & ~cpu->model->xcr0_mask)) {
        return false;
    }
    if ((v & XCOMP_AVX) && !(v & XCOMP_SSE)) {
        return false;
    }
    uint64_t avx512 = v & XCOMP_AVX512;
    return avx512 == 0 || (avx512 == XCOMP_AVX512 && (v & XCOMP_AVX));
}

void sem_xsetbv(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    need_osxsave(cpu);
    cpu_need_cpl0(cpu);
    uint64_t v = get_pair(cpu);
    if ((uint32_t)cpu->gpr[R_CX] != 0 || !xcr0_valid(cpu, v)) {
        gp(cpu);
    }
    cpu->xcr0 = v;
}

static void need_pke(struct cpu *cpu)
{
    if (!(cpu->cr4 & CR4_PKE)) {
        cpu_raise(cpu, EXC_UD);
    }
    if ((uint32_t)cpu->gpr[R_CX] != 0) {
        gp(cpu);
    }
}

void sem_rdpkru(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    need_pke(cpu);
    put_pair(cpu, cpu->pkru);
}

void sem_wrpkru(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    need_pke(cpu);
    if ((uint32_t)cpu->gpr[R_DX] != 0) {
        gp(cpu);
    }
    if (cpu->pkru != (uint32_t)cpu->gpr[R_AX]) {
        cpu->pkru = (uint32_t)cpu->gpr[R_AX];
        tlb_flush_all(cpu); /* entries hold rights with the key applied */
    }
}

/* -- SMAP -------------------------------------------------------------------------------------- */
static void set_ac(struct cpu *cpu, uint64_t ac)
{
    if (cpu->cpl != 0) {
        cpu_raise(cpu, EXC_UD);
    }
    cpu->rflags = (cpu->rflags & ~FLAG_AC) | ac;
    cpu_update_mode(cpu);
}

void sem_clac(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    set_ac(cpu, 0);
}

void sem_stac(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    set_ac(cpu, FLAG_AC);
}

/* -- TLB and caches ---------------------------------------------------------------------------- */
void sem_invlpg(struct cpu *cpu, const struct insn *in)
{
    cpu_need_cpl0(cpu);
    uint64_t off = cpu_effective_address(cpu, in);
    if (cpu->mode == INSN_MODE_64) {
        gva_t va = in->mem.seg >= SEG_FS ? cpu->seg[in->mem.seg].base + off : off;
        if (mmu_canonical(cpu, va)) { /* else it does nothing */
            tlb_flush_page(cpu, va);
        }
    } else {
        tlb_flush_page(cpu, (uint32_t)(cpu->seg[in->mem.seg].base + off));
    }
}

void sem_invpcid(struct cpu *cpu, const struct insn *in)
{
    cpu_need_cpl0(cpu);
    uint64_t type = gpr_read(cpu, in->opnd[0].reg, in->opnd[0].size);
    uint64_t ea = cpu_effective_address(cpu, in);
    uint64_t pcid = cpu_read(cpu, in->mem.seg, ea, 8);
    uint64_t va = cpu_read(cpu, in->mem.seg, mask_size(ea + 8, in->adsize), 8);
    bool one_pcid = type <= 1;
    if (type > 3 || pcid >> 12 != 0 || (one_pcid && pcid != 0 && !(cpu->cr4 & CR4_PCIDE)) ||
        (type == 0 && !mmu_canonical(cpu, va))) {
        gp(cpu);
    }
    switch (type) {
    case 0:
        tlb_flush_page_pcid(cpu, va, (uint16_t)pcid);
        break;
    case 1:
        tlb_flush_asid(cpu, (uint16_t)pcid);
        break;
    default:
        tlb_flush_all(cpu);
        break; /* 3 may keep global entries, but need not */
    }
}

/* Caches are not modelled. */
void sem_wbinvd(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    cpu_need_cpl0(cpu);
}

void sem_invd(struct cpu *cpu, const struct insn *in) { sem_wbinvd(cpu, in); }

/* -- Waiting ----------------------------------------------------------------------------------- */
void sem_hlt(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    cpu_need_cpl0(cpu);
    cpu->activity = CPU_HALTED;
}

static void monitor_check(struct cpu *cpu)
{
    if (cpu->cpl != 0) {
        cpu_raise(cpu, EXC_UD);
    }
}

void sem_monitor(struct cpu *cpu, const struct insn *in)
{
    monitor_check(cpu);
    if ((uint32_t)cpu->gpr[R_CX] != 0) {
        gp(cpu);
    }
    (void)cpu_read(cpu, in->mem.seg, cpu_effective_address(cpu, in), 1);
}

/* A store by anybody would end the wait, and stores are not watched: it ends at once, as it may. */
void sem_mwait(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    monitor_check(cpu);
    if ((uint32_t)cpu->gpr[R_CX] > 1) {
        gp(cpu);
    }
}

/* -- KVM hypercalls: none is offered (Linux, Documentation/virt/kvm/x86/hypercalls.rst) -------- */
#define KVM_EPERM 1
#define KVM_ENOSYS 1000

void sem_vmcall(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    int64_t r = cpu->cpl != 0 ? -KVM_EPERM : -KVM_ENOSYS;
    cpu->gpr[R_AX] = cpu->mode == INSN_MODE_64 ? (uint64_t)r : (uint32_t)r;
}

void sem_vmmcall(struct cpu *cpu, const struct insn *in) { sem_vmcall(cpu, in); }

/* -- Random numbers ---------------------------------------------------------------------------- */
static void random_number(struct cpu *cpu, const struct insn *in)
{
    uint64_t v = 0;
    bool ok = getrandom(&v, sizeof v, GRND_NONBLOCK) == (ssize_t)sizeof v;
    gpr_write(cpu, in->opnd[0].reg, in->opnd[0].size, ok ? v : 0);
    cpu->rflags = (cpu->rflags & ~FLAGS_ARITH) | (ok ? FLAG_CF : 0);
}

void sem_rdrand(struct cpu *cpu, const struct insn *in) { random_number(cpu, in); }
void sem_rdseed(struct cpu *cpu, const struct insn *in) { random_number(cpu, in); }
