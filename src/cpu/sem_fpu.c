/* SPDX-License-Identifier: Apache-2.0
 *
 * FPU access checks, and the x87 and MXCSR control instructions (SDM 1 chapters 8 and 10, SDM 3
 * chapters 2.5, 9 and 13).
 *
 * The x87 environment has no code and data selectors here: the CPU announces ZERO_FCS_FDS, and FCS
 * and FDS read as zero (SDM 2 CPUID leaf 7, EBX bit 13).
 */
#include "cpu/access.h"
#include "cpu/fpu.h"

uint32_t fpu_mxcsr_mask(void)
{
    static _Atomic uint32_t known; /* a constant of the host, asked once */
    uint32_t mask = atomic_load_explicit(&known, memory_order_relaxed);
    if (likely(mask != 0))
        return mask;
    _Alignas(16) uint8_t image[512] = { 0 };
    __asm__ volatile("fxsave %0" : "=m"(image));
    memcpy(&mask, image + 28, sizeof mask);
    mask = mask ? mask : 0xffbf; /* SDM 1 11.6.6 */
    atomic_store_explicit(&known, mask, memory_order_relaxed);
    return mask;
}

/* Load FIP and FDP into the host's FPU with FSW, and look at the image that it then saves. */
static void reload(uint64_t pointer, uint16_t fcw, uint16_t fsw, uint8_t seen[512])
{
    _Alignas(16) uint8_t own[512];
    _Alignas(16) uint8_t probe[512] = { 0 };
    _Alignas(16) uint8_t after[512] = { 0 };
    uint32_t mxcsr = MXCSR_DEFAULT;
    memcpy(probe + FX_FCW, &fcw, sizeof fcw);
    memcpy(probe + FX_FSW, &fsw, sizeof fsw);
    memcpy(probe + FX_FIP, &pointer, sizeof pointer);
    memcpy(probe + FX_FDP, &pointer, sizeof pointer);
    memcpy(probe + FX_MXCSR, &mxcsr, sizeof mxcsr);
    __asm__ volatile("fxsave64 %0\n\tfxrstor64 %2\n\tfxsave64 %1\n\tfxrstor64 %0"
                     : "=m"(own), "+m"(after)
                     : "m"(probe));
    memcpy(seen, after, sizeof after);
}

/* How many bits of the address at `off` the host keeps; the rest is the sign. */
static unsigned width_of(unsigned off)
{
    static const unsigned widths[] = { 48, 57 };
    for (unsigned i = 0; i < ARRAY_LEN(widths); i++) {
        uint8_t seen[512];
        uint64_t v;
        reload(1ull << (widths[i] - 1), FCW_DEFAULT & ~1u, FSW_ES | FSW_B | 1, seen);
        memcpy(&v, seen + off, sizeof v);
        if (v >> 63)
            return widths[i];
    }
    return 64;
}

struct fpu_pointers fpu_host_pointers(void)
{
    static _Atomic uint32_t known; /* a constant of the host, asked once */
    uint32_t k = atomic_load_explicit(&known, memory_order_relaxed);
    if (unlikely(k == 0)) {
        uint8_t seen[512];
        reload(1, FCW_DEFAULT, 0, seen);
        k = width_of(FX_FIP) | width_of(FX_FDP) << 8 | (seen[FX_FIP] ? 0 : 1u << 16);
        atomic_store_explicit(&known, k, memory_order_relaxed);
    }
    return (struct fpu_pointers){
        .fip_bits = k & 0xff, .fdp_bits = k >> 8 & 0xff, .only_pending = k >> 16
    };
}

/* -- Checks */

static void drop_ferr(struct cpu *cpu)
{
    cpu->ignne = false;
    if (cpu->ferr_pending) {
        cpu->ferr_pending = false;
        cpu->world->ferr(cpu->world->ctx, cpu, 0);
    }
}

void fpu_ignne(struct cpu *cpu)
{
    drop_ferr(cpu);
    cpu->ignne = fpu_summary(cpu);
}

void fpu_update_summary(struct cpu *cpu)
{
    uint16_t fsw = fx_get16(cpu, FX_FSW) & (uint16_t) ~(FSW_ES | FSW_B);
    bool pending = fpu_summary(cpu);
    fx_put16(cpu, FX_FSW, pending ? (uint16_t)(fsw | FSW_ES | FSW_B) : fsw);
    if (!pending && unlikely(cpu->ignne || cpu->ferr_pending))
        drop_ferr(cpu);
}

/* A waiting instruction with an unmasked error pending: #MF, or with CR0.NE = 0 the PC's way:
 * FERR# goes to IRQ 13 and the CPU freezes until the interrupt is taken or IGNNE# is asserted
 * (SDM 1 8.7.2). */
static bool pending_error(struct cpu *cpu)
{
    if (cpu->cr0 & CR0_NE)
        cpu_raise(cpu, EXC_MF);
    if (cpu->ignne)
        return true;
    if (!cpu->ferr_pending) {
        cpu->ferr_pending = true;
        cpu->world->ferr(cpu->world->ctx, cpu, 1);
    }
    cpu->rip = cpu->insn_ip;
    return false;
}

bool fpu_check_slow(struct cpu *cpu, uint32_t attr)
{
    if (attr & IA_AVX) {
        const uint64_t need = fpu_components(attr);
        if (!cpu_protected(cpu) || cpu_v86(cpu) || !(cpu->cr4 & CR4_OSXSAVE) ||
            (cpu->xcr0 & need) != need)
            cpu_raise(cpu, EXC_UD);
    }
    if ((attr & (IA_SSE | IA_MMX)) && (cpu->cr0 & CR0_EM))
        cpu_raise(cpu, EXC_UD);
    if ((attr & IA_SSE) && !(cpu->cr4 & CR4_OSFXSR))
        cpu_raise(cpu, EXC_UD);
    if ((cpu->cr0 & CR0_TS) || ((attr & IA_X87) && (cpu->cr0 & CR0_EM)))
        cpu_raise(cpu, EXC_NM);
    if ((attr & (IA_X87 | IA_MMX)) && !(attr & IA_X87_NOWAIT) && fpu_summary(cpu))
        return pending_error(cpu);
    return true;
}

/* -- x87 control */

void fpu_set_top(struct cpu *cpu, unsigned top)
{
    uint8_t st[8][16];
    unsigned fsw = fx_get16(cpu, FX_FSW);
    unsigned turn = (top - (fsw >> FSW_TOP_SHIFT)) & 7;
    if (turn == 0)
        return;
    memcpy(st, cpu->fpu.fx + FX_ST, sizeof st);
    for (unsigned i = 0; i < 8; i++) {
        memcpy(cpu->fpu.fx + FX_ST + 16 * i, st[(i + turn) & 7], 16);
    }
    fx_put16(cpu, FX_FSW, (uint16_t)((fsw & ~(7u << FSW_TOP_SHIFT)) | top << FSW_TOP_SHIFT));
}

void fpu_enter_mmx(struct cpu *cpu)
{
    fpu_set_top(cpu, 0);
    cpu->fpu.fx[FX_FTW] = 0xff;
}

void fpu_init_x87(struct cpu *cpu)
{
    fpu_set_top(cpu, 0);
    fx_put16(cpu, FX_FCW, FCW_DEFAULT);
    fx_put16(cpu, FX_FSW, 0);
    cpu->fpu.fx[FX_FTW] = 0;
    fx_put16(cpu, FX_FOP, 0);
    fx_put64(cpu, FX_FIP, 0);
    fx_put64(cpu, FX_FDP, 0);
    fpu_update_summary(cpu);
}

void fpu_reset(struct cpu *cpu)
{
    memset(&cpu->fpu, 0, sizeof cpu->fpu);
    fx_put16(cpu, FX_FCW, 0x40);
    cpu->fpu.fx[FX_FTW] = 0xff; /* FTW 5555h: all zero, not empty */
    fx_put32(cpu, FX_MXCSR, MXCSR_DEFAULT);
}

void sem_fninit(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    if (fpu_check(cpu, IA_X87 | IA_X87_NOWAIT))
        fpu_init_x87(cpu);
}

void sem_fnclex(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    if (!fpu_check(cpu, IA_X87 | IA_X87_NOWAIT))
        return;
    fx_put16(cpu, FX_FSW, fx_get16(cpu, FX_FSW) & 0x7f00);
    fpu_update_summary(cpu);
}

void sem_fnstsw_ax(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    if (fpu_check(cpu, IA_X87 | IA_X87_NOWAIT))
        cpu->gpr[R_AX] = (cpu->gpr[R_AX] & ~0xffffull) | fx_get16(cpu, FX_FSW);
}

/* WAIT ignores CR0.EM and honours TS only with MP (SDM 3 2.5). */
void sem_fwait(struct cpu *cpu, const struct insn *in)
{
    (void)in;
    if ((cpu->cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS))
        cpu_raise(cpu, EXC_NM);
    if (fpu_summary(cpu))
        pending_error(cpu);
}

/* -- Environment (SDM 1 8.1.10, figures 8-9 to 8-12) */

uint16_t fpu_full_tags(const struct cpu *cpu)
{
    unsigned top = fx_get16(cpu, FX_FSW) >> FSW_TOP_SHIFT & 7;
    unsigned tags = 0;
    for (unsigned phys = 0; phys < 8; phys++) {
        unsigned tag = 3;
        if (cpu->fpu.fx[FX_FTW] >> phys & 1) {
            unsigned st = (phys - top) & 7;
            uint64_t significand = fx_get64(cpu, FX_ST + 16 * st);
            unsigned exponent = fx_get16(cpu, FX_ST + 16 * st + 8) & 0x7fff;
            if (exponent == 0)
                tag = significand == 0 ? 1 : 2;
            else
                tag = exponent == 0x7fff || !(significand >> 63) ? 2 : 0;
        }
        tags |= tag << (2 * phys);
    }
    return (uint16_t)tags;
}

static uint8_t abridged_tags(uint16_t tags)
{
    unsigned a = 0;
    for (unsigned i = 0; i < 8; i++) {
        a |= ((tags >> (2 * i) & 3) != 3) << i;
    }
    return (uint8_t)a;
}

/* Real-address and virtual-8086 mode have a format of their own, with linear addresses. */
static bool real_format(const struct cpu *cpu) { return !cpu_protected(cpu) || cpu_v86(cpu); }

static void put16(uint8_t *p, unsigned v)
{
    uint16_t x = (uint16_t)v;
    memcpy(p, &x, sizeof x);
}
static void put32(uint8_t *p, uint32_t v) { memcpy(p, &v, sizeof v); }
static uint16_t get16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
static uint32_t get32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Returns the number of bytes: 14 or 28. */
static unsigned store_env(const struct cpu *cpu, unsigned opsize, uint8_t *p)
{
    uint32_t fip = (uint32_t)fx_get64(cpu, FX_FIP);
    uint32_t fdp = (uint32_t)fx_get64(cpu, FX_FDP);
    unsigned fop = fx_get16(cpu, FX_FOP) & 0x7ff;
    bool real = real_format(cpu);
    if (opsize == 2) {
        put16(p, fx_get16(cpu, FX_FCW));
        put16(p + 2, fx_get16(cpu, FX_FSW));
        put16(p + 4, fpu_full_tags(cpu));
        put16(p + 6, fip);
        put16(p + 8, real ? (fip >> 4 & 0xf000) | fop : 0);
        put16(p + 10, fdp);
        put16(p + 12, real ? fdp >> 4 & 0xf000 : 0);
        return 14;
    }
    put32(p, 0xffff0000u | fx_get16(cpu, FX_FCW));
    put32(p + 4, 0xffff0000u | fx_get16(cpu, FX_FSW));
    put32(p + 8, 0xffff0000u | fpu_full_tags(cpu));
    if (real) {
        put32(p + 12, 0xffff0000u | (fip & 0xffff));
        put32(p + 16, (fip >> 16) << 12 | fop);
        put32(p + 20, 0xffff0000u | (fdp & 0xffff));
        put32(p + 24, (fdp >> 16) << 12);
    } else {
        put32(p + 12, fip);
        put32(p + 16, fop << 16);
        put32(p + 20, fdp);
        put32(p + 24, 0xffff0000u);
    }
    return 28;
}

static void load_env(struct cpu *cpu, unsigned opsize, const uint8_t *p)
{
    bool real = real_format(cpu);
    unsigned step = opsize == 2 ? 2 : 4;
    uint32_t fip;
    uint32_t fdp;
    unsigned fop = 0;
    if (opsize == 2) {
        fip = get16(p + 6);
        fdp = get16(p + 10);
        if (real) {
            fip |= (get16(p + 8) & 0xf000u) << 4;
            fdp |= (get16(p + 12) & 0xf000u) << 4;
            fop = get16(p + 8) & 0x7ff;
        }
    } else if (real) {
        fip = get16(p + 12) | (get32(p + 16) >> 12) << 16;
        fdp = get16(p + 20) | (get32(p + 24) >> 12) << 16;
        fop = get32(p + 16) & 0x7ff;
    } else {
        fip = get32(p + 12);
        fdp = get32(p + 20);
        fop = get32(p + 16) >> 16 & 0x7ff;
    }
    fx_put16(cpu, FX_FCW, (get16(p) & 0x1f3f) | 0x40);
    fpu_set_top(cpu, get16(p + step) >> FSW_TOP_SHIFT & 7);
    fx_put16(cpu, FX_FSW, get16(p + step));
    cpu->fpu.fx[FX_FTW] = abridged_tags(get16(p + 2 * step));
    fx_put16(cpu, FX_FOP, (uint16_t)fop);
    fx_put64(cpu, FX_FIP, fip);
    fx_put64(cpu, FX_FDP, fdp);
    fpu_update_summary(cpu);
}

void sem_fnstenv(struct cpu *cpu, const struct insn *in)
{
    uint8_t env[28];
    if (!fpu_check(cpu, IA_X87 | IA_X87_NOWAIT))
        return;
    unsigned len = store_env(cpu, in->opsize, env);
    cpu_write_bytes(cpu, in->mem.seg, cpu_effective_address(cpu, in), env, len);
    fx_put16(cpu, FX_FCW, fx_get16(cpu, FX_FCW) | FX_EXCEPTIONS); /* all masked afterwards */
    fpu_update_summary(cpu);
}

void sem_fldenv(struct cpu *cpu, const struct insn *in)
{
    uint8_t env[28];
    if (!fpu_check(cpu, IA_X87))
        return;
    cpu_read_bytes(cpu, in->mem.seg, cpu_effective_address(cpu, in), env,
                   in->opsize == 2 ? 14 : 28);
    load_env(cpu, in->opsize, env);
}

void sem_fnsave(struct cpu *cpu, const struct insn *in)
{
    uint8_t image[108];
    if (!fpu_check(cpu, IA_X87 | IA_X87_NOWAIT))
        return;
    unsigned len = store_env(cpu, in->opsize, image);
    for (unsigned i = 0; i < 8; i++) {
        memcpy(image + len + 10 * i, cpu->fpu.fx + FX_ST + 16 * i, 10);
    }
    cpu_write_bytes(cpu, in->mem.seg, cpu_effective_address(cpu, in), image, len + 80);
    fpu_init_x87(cpu);
}

void sem_frstor(struct cpu *cpu, const struct insn *in)
{
    uint8_t image[108];
    if (!fpu_check(cpu, IA_X87))
        return;
    unsigned len = in->opsize == 2 ? 14 : 28;
    cpu_read_bytes(cpu, in->mem.seg, cpu_effective_address(cpu, in), image, len + 80);
    load_env(cpu, in->opsize, image);
    for (unsigned i = 0; i < 8; i++) {
        memset(cpu->fpu.fx + FX_ST + 16 * i, 0, 16);
        memcpy(cpu->fpu.fx + FX_ST + 16 * i, image + len + 10 * i, 10);
    }
}

/* -- MXCSR */

void sem_ldmxcsr(struct cpu *cpu, const struct insn *in)
{
    if (!fpu_check(cpu, insn_info[in->row].attr))
        return;
    uint32_t v = (uint32_t)cpu_read(cpu, in->mem.seg, cpu_effective_address(cpu, in), 4);
    if (v & ~fpu_mxcsr_mask())
        cpu_raise_error(cpu, EXC_GP, 0);
    fx_put32(cpu, FX_MXCSR, v);
}

void sem_stmxcsr(struct cpu *cpu, const struct insn *in)
{
    if (!fpu_check(cpu, insn_info[in->row].attr))
        return;
    cpu_write(cpu, in->mem.seg, cpu_effective_address(cpu, in), 4, fx_get32(cpu, FX_MXCSR));
}
