/* SPDX-License-Identifier: Apache-2.0
 *
 * FXSAVE and FXRSTOR (SDM 1 10.5), and the XSAVE family (SDM 1 chapter 13): standard and compacted
 * format, init optimisation. The modified optimisation of XSAVEOPT and XSAVES is not made (it is
 * optional, SDM 1 13.9). Supervisor components: none yet, IA32_XSS holds 0.
 */
#include "cpu/access.h"
#include "cpu/fpu.h"

#define XSAVE_HEADER 512u
#define XSAVE_EXTENDED 576u
#define XSAVE_MAX 2752u /* standard format up to PKRU, rounded up */
#define XCOMP_COMPACT (1ull << 63)
#define FX_MXCSR_MASK 28u
#define FX_XMM 160u

/* Components beyond x87 and SSE; offsets of the standard format (CPUID leaf 0DH). */
struct component {
    uint64_t bit;
    uint16_t offset;
    uint16_t size;
};
static const struct component components[] = {
    { XCOMP_AVX, 576, 256 },        { XCOMP_OPMASK, 1088, 64 }, { XCOMP_ZMM_HI, 1152, 512 },
    { XCOMP_HI16_ZMM, 1664, 1024 }, { XCOMP_PKRU, 2688, 8 },
};

static unsigned vector_count(const struct cpu *cpu) { return cpu->mode == INSN_MODE_64 ? 16 : 8; }

static uint64_t load64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
static void store64(uint8_t *p, uint64_t v) { memcpy(p, &v, sizeof v); }

/* -- Legacy region */

static void put_x87(const struct cpu *cpu, uint8_t *p, bool wide)
{
    memcpy(p, cpu->fpu.fx, FX_MXCSR);
    p[FX_FTW + 1] = 0;
    if (fpu_host_pointers().only_pending && !fpu_summary(cpu)) {
        memset(p + FX_FOP, 0, 2);
        memset(p + FX_FIP, 0, 16); /* and FDP */
    }
    if (!wide) { /* FCS and FDS, which are 0, and reserved fields */
        memset(p + FX_FIP + 4, 0, 4);
        memset(p + FX_FDP + 4, 0, 4);
    }
    for (unsigned i = 0; i < 8; i++) {
        memcpy(p + FX_ST + 16 * i, cpu->fpu.fx + FX_ST + 16 * i, 10);
        memset(p + FX_ST + 16 * i + 10, 0, 6);
    }
}

static void sign_extend(struct cpu *cpu, unsigned off, unsigned bits)
{
    unsigned shift = 64 - bits;
    fx_put64(cpu, off, (uint64_t)((int64_t)(fx_get64(cpu, off) << shift) >> shift));
}

static void get_x87(struct cpu *cpu, const uint8_t *p, bool wide)
{
    memcpy(cpu->fpu.fx, p, FX_MXCSR);
    fx_put16(cpu, FX_FCW, (fx_get16(cpu, FX_FCW) & 0x1f3f) | 0x40);
    cpu->fpu.fx[FX_FTW + 1] = 0;
    fx_put16(cpu, FX_FOP, fx_get16(cpu, FX_FOP) & 0x7ff);
    if (!wide) {
        memset(cpu->fpu.fx + FX_FIP + 4, 0, 4);
        memset(cpu->fpu.fx + FX_FDP + 4, 0, 4);
    }
    struct fpu_pointers host = fpu_host_pointers();
    sign_extend(cpu, FX_FIP, host.fip_bits);
    sign_extend(cpu, FX_FDP, host.fdp_bits);
    for (unsigned i = 0; i < 8; i++) {
        memcpy(cpu->fpu.fx + FX_ST + 16 * i, p + FX_ST + 16 * i, 10);
        memset(cpu->fpu.fx + FX_ST + 16 * i + 10, 0, 6);
    }
    fpu_update_summary(cpu);
}

static void init_x87(struct cpu *cpu)
{
    fpu_init_x87(cpu);
    memset(cpu->fpu.fx + FX_ST, 0, 128);
}

static void put_mxcsr(const struct cpu *cpu, uint8_t *p)
{
    uint32_t mxcsr = fx_get32(cpu, FX_MXCSR);
    uint32_t mask = fpu_mxcsr_mask();
    memcpy(p + FX_MXCSR, &mxcsr, sizeof mxcsr);
    memcpy(p + FX_MXCSR_MASK, &mask, sizeof mask);
}

static void check_mxcsr(struct cpu *cpu, const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p + FX_MXCSR, sizeof v);
    if (v & ~fpu_mxcsr_mask())
        cpu_raise_error(cpu, EXC_GP, 0);
}

static void put_xmm(const struct cpu *cpu, uint8_t *p)
{
    for (unsigned i = 0; i < vector_count(cpu); i++) {
        memcpy(p + FX_XMM + 16 * i, &cpu->fpu.zmm[i], 16);
    }
}

static void get_xmm(struct cpu *cpu, const uint8_t *p)
{
    for (unsigned i = 0; i < vector_count(cpu); i++) {
        memcpy(&cpu->fpu.zmm[i], p + FX_XMM + 16 * i, 16);
    }
}

/* Offset of an area that must be aligned, by linear address. */
static uint64_t area_offset(struct cpu *cpu, const struct insn *in, unsigned align)
{
    uint64_t off = cpu_effective_address(cpu, in);
    unsigned seg = in->mem.seg;
    uint64_t base = seg >= SEG_FS || cpu->mode != INSN_MODE_64 ? cpu->seg[seg].base : 0;
    if ((base + off) & (align - 1))
        cpu_raise_error(cpu, EXC_GP, 0);
    return off;
}

static bool wide_pointers(const struct cpu *cpu, const struct insn *in)
{
    return cpu->mode == INSN_MODE_64 && (in->flags & INSN_W);
}

void sem_fxsave(struct cpu *cpu, const struct insn *in)
{
    uint8_t image[512] = { 0 };
    if (cpu->cr0 & (CR0_EM | CR0_TS))
        cpu_raise(cpu, EXC_NM);
    uint64_t off = area_offset(cpu, in, 16);
    bool sse = cpu->cr4 & CR4_OSFXSR;
    put_x87(cpu, image, wide_pointers(cpu, in));
    put_mxcsr(cpu, image);
    if (sse)
        put_xmm(cpu, image);
    cpu_write_bytes(cpu, in->mem.seg, off, image, FX_XMM + (sse ? 16 * vector_count(cpu) : 0));
}

void sem_fxrstor(struct cpu *cpu, const struct insn *in)
{
    uint8_t image[512];
    if (cpu->cr0 & (CR0_EM | CR0_TS))
        cpu_raise(cpu, EXC_NM);
    uint64_t off = area_offset(cpu, in, 16);
    cpu_read_bytes(cpu, in->mem.seg, off, image, sizeof image);
    check_mxcsr(cpu, image);
    get_x87(cpu, image, wide_pointers(cpu, in));
    memcpy(cpu->fpu.fx + FX_MXCSR, image + FX_MXCSR, 4);
    if (cpu->cr4 & CR4_OSFXSR)
        get_xmm(cpu, image);
}

/* -- XSAVE */

static bool all_zero(const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (p[i])
            return false;
    }
    return true;
}

static bool x87_in_use(const struct cpu *cpu)
{
    return fx_get16(cpu, FX_FCW) != FCW_DEFAULT || !all_zero(cpu->fpu.fx + FX_FSW, FX_MXCSR - 2) ||
           !all_zero(cpu->fpu.fx + FX_ST, 128);
}

/* Are bytes [from, to) of vectors first..last-1 in their initial state? */
static bool vectors_zero(const struct cpu *cpu, unsigned first, unsigned last, unsigned from,
                         unsigned to)
{
    for (unsigned i = first; i < last; i++) {
        if (!all_zero(cpu->fpu.zmm[i].u8 + from, to - from))
            return false;
    }
    return true;
}

/* XINUSE (SDM 1 13.6) of the components asked for. */
static uint64_t in_use(const struct cpu *cpu, uint64_t which)
{
    uint64_t r = 0;
    if ((which & XCOMP_X87) && x87_in_use(cpu))
        r |= XCOMP_X87;
    if ((which & XCOMP_SSE) && !vectors_zero(cpu, 0, 16, 0, 16))
        r |= XCOMP_SSE;
    if ((which & XCOMP_AVX) && !vectors_zero(cpu, 0, 16, 16, 32))
        r |= XCOMP_AVX;
    if ((which & XCOMP_OPMASK) && !all_zero((const uint8_t *)cpu->fpu.k, sizeof cpu->fpu.k))
        r |= XCOMP_OPMASK;
    if ((which & XCOMP_ZMM_HI) && !vectors_zero(cpu, 0, 16, 32, 64))
        r |= XCOMP_ZMM_HI;
    if ((which & XCOMP_HI16_ZMM) && !vectors_zero(cpu, 16, 32, 0, 64))
        r |= XCOMP_HI16_ZMM;
    if ((which & XCOMP_PKRU) && cpu->pkru)
        r |= XCOMP_PKRU;
    return r;
}

uint64_t fpu_xinuse(const struct cpu *cpu)
{
    uint64_t r = in_use(cpu, cpu->xcr0);
    if (fx_get32(cpu, FX_MXCSR) != MXCSR_DEFAULT)
        r |= XCOMP_SSE & cpu->xcr0;
    return r;
}

/* Outside 64-bit mode only registers 0..7 are saved and restored (SDM 1 13.5). */
static void put_component(const struct cpu *cpu, uint64_t bit, uint8_t *p)
{
    unsigned count = vector_count(cpu);
    if (bit == XCOMP_AVX) {
        for (unsigned i = 0; i < count; i++) {
            memcpy(p + 16 * i, cpu->fpu.zmm[i].u8 + 16, 16);
        }
    } else if (bit == XCOMP_OPMASK) {
        memcpy(p, cpu->fpu.k, 64);
    } else if (bit == XCOMP_ZMM_HI) {
        for (unsigned i = 0; i < count; i++) {
            memcpy(p + 32 * i, cpu->fpu.zmm[i].u8 + 32, 32);
        }
    } else if (bit == XCOMP_HI16_ZMM) {
        if (count == 16)
            memcpy(p, &cpu->fpu.zmm[16], 1024);
    } else {
        store64(p, cpu->pkru);
    }
}

static void set_pkru(struct cpu *cpu, uint32_t pkru)
{
    if (cpu->pkru == pkru)
        return;
    cpu->pkru = pkru;
    tlb_flush_all(cpu); /* translations carry the keys' rights */
}

/* p NULL: initial state. */
static void get_component(struct cpu *cpu, uint64_t bit, const uint8_t *p)
{
    static const uint8_t zero[1024];
    unsigned count = vector_count(cpu);
    p = p != NULL ? p : zero;
    if (bit == XCOMP_AVX) {
        for (unsigned i = 0; i < count; i++) {
            memcpy(cpu->fpu.zmm[i].u8 + 16, p + 16 * i, 16);
        }
    } else if (bit == XCOMP_OPMASK) {
        memcpy(cpu->fpu.k, p, 64);
    } else if (bit == XCOMP_ZMM_HI) {
        for (unsigned i = 0; i < count; i++) {
            memcpy(cpu->fpu.zmm[i].u8 + 32, p + 32 * i, 32);
        }
    } else if (bit == XCOMP_HI16_ZMM) {
        if (count == 16)
            memcpy(&cpu->fpu.zmm[16], p, 1024);
    } else {
        set_pkru(cpu, (uint32_t)load64(p));
    }
}

/* Where a component lies; layout: XCOMP_BV of the compacted format, 0 for the standard one. */
static unsigned component_offset(unsigned index, uint64_t layout)
{
    if (!(layout & XCOMP_COMPACT))
        return components[index].offset;
    unsigned off = XSAVE_EXTENDED;
    for (unsigned i = 0; i < index; i++) {
        if (layout & components[i].bit)
            off += components[i].size;
    }
    return off;
}

static uint64_t requested(const struct cpu *cpu, uint64_t enabled)
{
    uint64_t mask = (cpu->gpr[R_DX] << 32) | (uint32_t)cpu->gpr[R_AX];
    return mask & enabled;
}

/* Common checks; the offset of the area. */
static uint64_t xsave_begin(struct cpu *cpu, const struct insn *in)
{
    if (!(cpu->cr4 & CR4_OSXSAVE))
        cpu_raise(cpu, EXC_UD);
    if (cpu->cr0 & CR0_TS)
        cpu_raise(cpu, EXC_NM);
    return area_offset(cpu, in, 64);
}

/* One piece of the area: all pieces are probed before any is written. */
struct piece {
    uint16_t off;
    uint16_t len;
};

struct pieces {
    struct piece at[12];
    unsigned count;
};

static void add_piece(struct pieces *s, unsigned off, unsigned len)
{
    s->at[s->count++] = (struct piece){ .off = (uint16_t)off, .len = (uint16_t)len };
}

/* Fill area with the components of `save`, noting what is to be written. with_mxcsr: apart from the
 * SSE component, as the standard format has it. */
static void build(const struct cpu *cpu, uint8_t *area, struct pieces *pieces, uint64_t save,
                  uint64_t layout, bool wide, bool with_mxcsr)
{
    if (save & XCOMP_X87) {
        put_x87(cpu, area, wide);
        add_piece(pieces, 0, FX_MXCSR);
        add_piece(pieces, FX_ST, 128);
    }
    if (with_mxcsr) {
        put_mxcsr(cpu, area);
        add_piece(pieces, FX_MXCSR, 8);
    }
    if (save & XCOMP_SSE) {
        put_xmm(cpu, area);
        add_piece(pieces, FX_XMM, 16 * vector_count(cpu));
    }
    for (unsigned i = 0; i < ARRAY_LEN(components); i++) {
        const struct component *c = &components[i];
        unsigned off = component_offset(i, layout);
        unsigned len = c->size;
        if (!(save & c->bit))
            continue;
        if (vector_count(cpu) == 8 && (c->bit & (XCOMP_AVX | XCOMP_ZMM_HI)))
            len /= 2;
        if (vector_count(cpu) == 8 && c->bit == XCOMP_HI16_ZMM)
            continue;
        put_component(cpu, c->bit, area + off);
        add_piece(pieces, off, len);
    }
}

static void write_pieces(struct cpu *cpu, const struct insn *in, uint64_t off, const uint8_t *area,
                         const struct pieces *s)
{
    for (unsigned i = 0; i < s->count; i++) {
        cpu_probe_write(cpu, in->mem.seg, off + s->at[i].off, s->at[i].len);
    }
    for (unsigned i = 0; i < s->count; i++) {
        cpu_write_bytes(cpu, in->mem.seg, off + s->at[i].off, area + s->at[i].off, s->at[i].len);
    }
}

/* XSAVE and XSAVEOPT (SDM 1 13.7, 13.9). */
static void save_standard(struct cpu *cpu, const struct insn *in, bool optimise)
{
    uint8_t area[XSAVE_MAX];
    struct pieces pieces = { .count = 0 };
    uint64_t off = xsave_begin(cpu, in);
    uint64_t rfbm = requested(cpu, cpu->xcr0);
    uint64_t inuse = in_use(cpu, rfbm);
    build(cpu, area, &pieces, optimise ? rfbm & inuse : rfbm, 0, wide_pointers(cpu, in),
          rfbm & (XCOMP_SSE | XCOMP_AVX));
    cpu_probe_write(cpu, in->mem.seg, off + XSAVE_HEADER, 8);
    uint64_t old = cpu_read(cpu, in->mem.seg, off + XSAVE_HEADER, 8);
    store64(area + XSAVE_HEADER, (old & ~rfbm) | inuse);
    add_piece(&pieces, XSAVE_HEADER, 8);
    write_pieces(cpu, in, off, area, &pieces);
}

/* XSAVEC and XSAVES (SDM 1 13.10, 13.11). */
static void save_compact(struct cpu *cpu, const struct insn *in, uint64_t enabled)
{
    uint8_t area[XSAVE_MAX];
    struct pieces pieces = { .count = 0 };
    uint64_t off = xsave_begin(cpu, in);
    uint64_t rfbm = requested(cpu, enabled);
    uint64_t inuse = in_use(cpu, rfbm);
    uint64_t layout = rfbm | XCOMP_COMPACT;
    if ((rfbm & XCOMP_SSE) && fx_get32(cpu, FX_MXCSR) != MXCSR_DEFAULT)
        inuse |= XCOMP_SSE;
    build(cpu, area, &pieces, inuse, layout, wide_pointers(cpu, in), inuse & XCOMP_SSE);
    store64(area + XSAVE_HEADER, inuse);
    store64(area + XSAVE_HEADER + 8, layout);
    add_piece(&pieces, XSAVE_HEADER, 16);
    write_pieces(cpu, in, off, area, &pieces);
}

void sem_xsave(struct cpu *cpu, const struct insn *in) { save_standard(cpu, in, false); }

void sem_xsaveopt(struct cpu *cpu, const struct insn *in) { save_standard(cpu, in, true); }

void sem_xsavec(struct cpu *cpu, const struct insn *in) { save_compact(cpu, in, cpu->xcr0); }

void sem_xsaves(struct cpu *cpu, const struct insn *in)
{
    if (cpu->cpl != 0)
        cpu_raise_error(cpu, EXC_GP, 0);
    save_compact(cpu, in, cpu->xcr0 | cpu->xss);
}

/* XRSTOR and XRSTORS (SDM 1 13.8, 13.12). */
static void restore(struct cpu *cpu, const struct insn *in, uint64_t enabled, bool supervisor)
{
    uint8_t area[XSAVE_MAX];
    uint64_t off = xsave_begin(cpu, in);
    uint64_t rfbm = requested(cpu, enabled);
    cpu_read_bytes(cpu, in->mem.seg, off + XSAVE_HEADER, area + XSAVE_HEADER, 64);
    uint64_t bv = load64(area + XSAVE_HEADER);
    uint64_t layout = load64(area + XSAVE_HEADER + 8);
    bool compact = layout & XCOMP_COMPACT;
    if (compact) {
        if ((layout & ~XCOMP_COMPACT & ~enabled) || (bv & ~layout) || (bv & XCOMP_COMPACT) ||
            !all_zero(area + XSAVE_HEADER + 16, 48))
            cpu_raise_error(cpu, EXC_GP, 0);
    } else if (supervisor || (bv & ~enabled) || !all_zero(area + XSAVE_HEADER + 8, 16)) {
        cpu_raise_error(cpu, EXC_GP, 0);
    }
    uint64_t load = rfbm & bv;
    bool mxcsr = compact ? (load & XCOMP_SSE) != 0 : (rfbm & (XCOMP_SSE | XCOMP_AVX)) != 0;
    if ((load & (XCOMP_X87 | XCOMP_SSE)) || mxcsr)
        cpu_read_bytes(cpu, in->mem.seg, off, area, FX_XMM + 256);
    for (unsigned i = 0; i < ARRAY_LEN(components); i++) {
        unsigned at = component_offset(i, layout);
        if (load & components[i].bit)
            cpu_read_bytes(cpu, in->mem.seg, off + at, area + at, components[i].size);
    }
    if (mxcsr)
        check_mxcsr(cpu, area);
    /* Nothing faults from here on. */
    if (load & XCOMP_X87)
        get_x87(cpu, area, wide_pointers(cpu, in));
    else if (rfbm & XCOMP_X87)
        init_x87(cpu);
    if (mxcsr)
        memcpy(cpu->fpu.fx + FX_MXCSR, area + FX_MXCSR, 4);
    else if (rfbm & XCOMP_SSE)
        fx_put32(cpu, FX_MXCSR, MXCSR_DEFAULT);
    if (load & XCOMP_SSE) {
        get_xmm(cpu, area);
    } else if (rfbm & XCOMP_SSE) {
        for (unsigned i = 0; i < vector_count(cpu); i++) {
            memset(&cpu->fpu.zmm[i], 0, 16);
        }
    }
    for (unsigned i = 0; i < ARRAY_LEN(components); i++) {
        uint64_t bit = components[i].bit;
        if (rfbm & bit)
            get_component(cpu, bit, load & bit ? area + component_offset(i, layout) : NULL);
    }
}

void sem_xrstor(struct cpu *cpu, const struct insn *in) { restore(cpu, in, cpu->xcr0, false); }

void sem_xrstors(struct cpu *cpu, const struct insn *in)
{
    if (cpu->cpl != 0)
        cpu_raise_error(cpu, EXC_GP, 0);
    restore(cpu, in, cpu->xcr0 | cpu->xss, true);
}
