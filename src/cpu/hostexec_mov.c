/* SPDX-License-Identifier: Apache-2.0
 *
 * Moves that need no thunk: C helpers chosen per encoding, since copy loops of kernels and of libc
 * consist of little else. Each does all that the instruction does, the checks of CR0, CR4 and XCR0
 * included.
 */
#include "cpu/access_fast.h"
#include "cpu/fpu.h"
#include "cpu/hostexec_int.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

enum alignment { ANY, ALIGNED };
enum encoding { LEGACY, VEX };

static ALWAYS_INLINE uint32_t attr_of(enum encoding e) { return e == VEX ? IA_AVX : IA_SSE; }

/* The operand's offset; #GP if it is not aligned as it must be. */
static ALWAYS_INLINE uint64_t operand(struct cpu *cpu, const struct insn *in, unsigned size,
                                      enum alignment a)
{
    uint64_t off = cpu_effective_address(cpu, in);
    if (a == ALIGNED) {
        unsigned seg = in->mem.seg;
        uint64_t base = seg >= SEG_FS || cpu->mode != INSN_MODE_64 ? cpu->seg[seg].base : 0;
        if (unlikely((base + off) & (size - 1)))
            cpu_raise_error(cpu, EXC_GP, 0);
    }
    return off;
}

static ALWAYS_INLINE void read_vec(struct cpu *cpu, const struct insn *in, uint64_t off, void *to,
                                   unsigned size)
{
    gva_t va = access_linear(cpu, in->mem.seg, off, size, MMU_READ);
    const struct tlb_entry *e = access_entry(cpu, va);
    if (likely(((va + (size - 1)) & ACCESS_PAGE_MASK) == e->tag_read))
        memcpy(to, (const void *)(uintptr_t)(va + e->addend), size);
    else
        cpu_read_bytes(cpu, in->mem.seg, off, to, size);
}

static ALWAYS_INLINE void write_vec(struct cpu *cpu, const struct insn *in, uint64_t off,
                                    const void *from, unsigned size)
{
    gva_t va = access_linear(cpu, in->mem.seg, off, size, MMU_WRITE);
    const struct tlb_entry *e = access_entry(cpu, va);
    if (likely(((va + (size - 1)) & ACCESS_PAGE_MASK) == e->tag_write))
        memcpy((void *)(uintptr_t)(va + e->addend), from, size);
    else
        cpu_write_bytes(cpu, in->mem.seg, off, from, size);
}

/* Whole vectors, 16 or 32 bytes. */
static ALWAYS_INLINE void load(struct cpu *cpu, const struct insn *in, unsigned size,
                               enum alignment a, enum encoding e)
{
    if (unlikely(!fpu_check(cpu, attr_of(e))))
        return;
    union cpu_vec *d = &cpu->fpu.zmm[in->opnd[0].reg];
    union cpu_vec v;
    read_vec(cpu, in, operand(cpu, in, size, a), &v, size);
    memcpy(d, &v, size);
    if (e == VEX)
        memset(d->u8 + size, 0, sizeof *d - size);
}

static ALWAYS_INLINE void store(struct cpu *cpu, const struct insn *in, unsigned size,
                                enum alignment a, enum encoding e)
{
    if (unlikely(!fpu_check(cpu, attr_of(e))))
        return;
    write_vec(cpu, in, operand(cpu, in, size, a), &cpu->fpu.zmm[in->opnd[1].reg], size);
}

static ALWAYS_INLINE void copy(struct cpu *cpu, const struct insn *in, unsigned size,
                               enum encoding e)
{
    if (unlikely(!fpu_check(cpu, attr_of(e))))
        return;
    union cpu_vec *d = &cpu->fpu.zmm[in->opnd[0].reg];
    union cpu_vec v = cpu->fpu.zmm[in->opnd[1].reg];
    memcpy(d, &v, size);
    if (e == VEX)
        memset(d->u8 + size, 0, sizeof *d - size);
}

/* MOVSS, MOVSD, MOVD, MOVQ from memory clear the rest of the 16 bytes, of the register with VEX. */
static ALWAYS_INLINE void load_scalar(struct cpu *cpu, const struct insn *in, unsigned size,
                                      enum encoding e)
{
    if (unlikely(!fpu_check(cpu, attr_of(e))))
        return;
    uint64_t v = access_read(cpu, in->mem.seg, cpu_effective_address(cpu, in), size);
    union cpu_vec *d = &cpu->fpu.zmm[in->opnd[0].reg];
    d->u64[0] = v;
    d->u64[1] = 0;
    if (e == VEX)
        memset(d->u8 + 16, 0, sizeof *d - 16);
}

static ALWAYS_INLINE void store_scalar(struct cpu *cpu, const struct insn *in, unsigned size,
                                       enum encoding e)
{
    if (unlikely(!fpu_check(cpu, attr_of(e))))
        return;
    const union cpu_vec *s = &cpu->fpu.zmm[in->opnd[1].reg];
    access_write(cpu, in->mem.seg, cpu_effective_address(cpu, in), size,
                 size == 4 ? s->u32[0] : s->u64[0]);
}

/* MOVD and MOVQ between general and vector registers. */
static ALWAYS_INLINE void from_gpr(struct cpu *cpu, const struct insn *in, enum encoding e)
{
    if (unlikely(!fpu_check(cpu, attr_of(e))))
        return;
    uint64_t v = cpu->gpr[in->opnd[1].reg];
    union cpu_vec *d = &cpu->fpu.zmm[in->opnd[0].reg];
    d->u64[0] = in->opnd[1].size == 8 ? v : (uint32_t)v;
    d->u64[1] = 0;
    if (e == VEX)
        memset(d->u8 + 16, 0, sizeof *d - 16);
}

static ALWAYS_INLINE void to_gpr(struct cpu *cpu, const struct insn *in, enum encoding e)
{
    if (unlikely(!fpu_check(cpu, attr_of(e))))
        return;
    const union cpu_vec *s = &cpu->fpu.zmm[in->opnd[1].reg];
    cpu->gpr[in->opnd[0].reg] = in->opnd[0].size == 8 ? s->u64[0] : s->u32[0];
}

/* MOVQ xmm, xmm: the lower half, the upper one cleared. */
static ALWAYS_INLINE void copy_low(struct cpu *cpu, const struct insn *in, enum encoding e)
{
    if (unlikely(!fpu_check(cpu, attr_of(e))))
        return;
    union cpu_vec *d = &cpu->fpu.zmm[in->opnd[0].reg];
    d->u64[0] = cpu->fpu.zmm[in->opnd[1].reg].u64[0];
    d->u64[1] = 0;
    if (e == VEX)
        memset(d->u8 + 16, 0, sizeof *d - 16);
}

#define HELPER(name, call)                                                                         \
    static void name(struct cpu *cpu, const struct insn *in) { call; }
HELPER(load16, load(cpu, in, 16, ANY, LEGACY))
HELPER(load16_aligned, load(cpu, in, 16, ALIGNED, LEGACY))
HELPER(vload16, load(cpu, in, 16, ANY, VEX))
HELPER(vload16_aligned, load(cpu, in, 16, ALIGNED, VEX))
HELPER(vload32, load(cpu, in, 32, ANY, VEX))
HELPER(vload32_aligned, load(cpu, in, 32, ALIGNED, VEX))
HELPER(store16, store(cpu, in, 16, ANY, LEGACY))
HELPER(store16_aligned, store(cpu, in, 16, ALIGNED, LEGACY))
HELPER(vstore16, store(cpu, in, 16, ANY, VEX))
HELPER(vstore16_aligned, store(cpu, in, 16, ALIGNED, VEX))
HELPER(vstore32, store(cpu, in, 32, ANY, VEX))
HELPER(vstore32_aligned, store(cpu, in, 32, ALIGNED, VEX))
HELPER(copy16, copy(cpu, in, 16, LEGACY))
HELPER(vcopy16, copy(cpu, in, 16, VEX))
HELPER(vcopy32, copy(cpu, in, 32, VEX))
HELPER(load4, load_scalar(cpu, in, 4, LEGACY))
HELPER(load8, load_scalar(cpu, in, 8, LEGACY))
HELPER(vload4, load_scalar(cpu, in, 4, VEX))
HELPER(vload8, load_scalar(cpu, in, 8, VEX))
HELPER(store4, store_scalar(cpu, in, 4, LEGACY))
HELPER(store8, store_scalar(cpu, in, 8, LEGACY))
HELPER(vstore4, store_scalar(cpu, in, 4, VEX))
HELPER(vstore8, store_scalar(cpu, in, 8, VEX))
HELPER(gpr_to_xmm, from_gpr(cpu, in, LEGACY))
HELPER(vgpr_to_xmm, from_gpr(cpu, in, VEX))
HELPER(xmm_to_gpr, to_gpr(cpu, in, LEGACY))
HELPER(vxmm_to_gpr, to_gpr(cpu, in, VEX))
HELPER(movq_xmm, copy_low(cpu, in, LEGACY))
HELPER(vmovq_xmm, copy_low(cpu, in, VEX))
#undef HELPER

enum shape { REG_REG, REG_MEM, MEM_REG };

/* [vector 16, 32][aligned][shape] */
static sem_fn *whole(const struct insn *in, bool vex, bool aligned, enum shape shape)
{
    static sem_fn *const legacy[2][3] = { { copy16, load16, store16 },
                                          { copy16, load16_aligned, store16_aligned } };
    static sem_fn *const xmm[2][3] = { { vcopy16, vload16, vstore16 },
                                       { vcopy16, vload16_aligned, vstore16_aligned } };
    static sem_fn *const ymm[2][3] = { { vcopy32, vload32, vstore32 },
                                       { vcopy32, vload32_aligned, vstore32_aligned } };
    if (!vex)
        return legacy[aligned][shape];
    return in->flags & INSN_VEX_L ? ymm[aligned][shape] : xmm[aligned][shape];
}

static sem_fn *scalar(bool vex, unsigned size, enum shape shape)
{
    if (shape == REG_MEM)
        return vex ? size == 4 ? vload4 : vload8 : size == 4 ? load4 : load8;
    return vex ? size == 4 ? vstore4 : vstore8 : size == 4 ? store4 : store8;
}

sem_fn *hostexec_direct(const struct insn *in)
{
    bool vex = in->flags & INSN_VEX;
    if (in->flags & INSN_EVEX || in->nopnd != 2)
        return NULL;
    unsigned d = in->opnd[0].kind;
    unsigned s = in->opnd[1].kind;
    if (d == OPND_MM || s == OPND_MM)
        return NULL;
    enum shape shape = d == OPND_MEM ? MEM_REG : s == OPND_MEM ? REG_MEM : REG_REG;
    unsigned mem_size = d == OPND_MEM ? in->opnd[0].size : in->opnd[1].size;
    bool aligned = insn_info[in->row].attr & IA_ALIGN;
    switch (in->op) {
    case OP_MOVUPS:
    case OP_MOVUPD:
    case OP_MOVDQU:
    case OP_MOVAPS:
    case OP_MOVAPD:
    case OP_MOVDQA:
    case OP_MOVNTPS:
    case OP_MOVNTPD:
    case OP_MOVNTDQ:
    case OP_MOVNTDQA:
    case OP_LDDQU:
    case OP_VMOVUPS:
    case OP_VMOVUPD:
    case OP_VMOVDQU:
    case OP_VMOVAPS:
    case OP_VMOVAPD:
    case OP_VMOVDQA:
    case OP_VMOVNTPS:
    case OP_VMOVNTPD:
    case OP_VMOVNTDQ:
    case OP_VMOVNTDQA:
    case OP_VLDDQU:
        return whole(in, vex, aligned, shape);
    case OP_MOVSS:
    case OP_MOVSD:
    case OP_VMOVSS:
    case OP_VMOVSD:
        return shape == REG_REG ? NULL : scalar(vex, mem_size, shape);
    case OP_MOVD:
    case OP_VMOVD:
    case OP_MOVQ:
    case OP_VMOVQ:
        if (shape != REG_REG)
            return scalar(vex, mem_size, shape);
        if (d == OPND_GPR)
            return vex ? vxmm_to_gpr : xmm_to_gpr;
        if (s == OPND_GPR)
            return vex ? vgpr_to_xmm : gpr_to_xmm;
        return vex ? vmovq_xmm : movq_xmm;
    default:
        return NULL;
    }
}
