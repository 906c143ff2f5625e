/* SPDX-License-Identifier: Apache-2.0
 *
 * IA_HOST operations done in C because their memory accesses depend on register contents: masked
 * moves touch only the elements selected, gathers complete element by element and can be continued
 * after a fault (SDM 2 VMASKMOV, VGATHERDPS). And VZEROUPPER, VZEROALL, V{LD,ST}MXCSR.
 */
#include "cpu/access.h"
#include "cpu/fpu.h"
#include "cpu/hostexec_int.h"

/* Store the elements of `size` bytes whose mask has its top bit set; all checked before any. */
static void store_masked(struct cpu *cpu, const struct insn *in, uint64_t off, const uint8_t *data,
                         const uint8_t *mask, unsigned len, unsigned size)
{
    unsigned seg = in->mem.seg;
    for (unsigned i = 0; i < len; i += size) {
        if (mask[i + size - 1] & 0x80)
            cpu_probe_write(cpu, seg, off + i, size);
    }
    for (unsigned i = 0; i < len; i += size) {
        if (mask[i + size - 1] & 0x80) {
            uint64_t v = 0;
            memcpy(&v, data + i, size);
            cpu_write(cpu, seg, off + i, size, v);
        }
    }
}

/* MASKMOVQ and MASKMOVDQU check every half of 8 bytes whatever the mask says (SDM 2 leaves it to
 * the implementation): Intel the upper one first, AMD the lower. */
static void store_bytes(struct cpu *cpu, const struct insn *in, uint64_t off, const uint8_t *data,
                        const uint8_t *mask, unsigned len)
{
    for (unsigned half = 0; half < len; half += 8) {
        cpu_probe_write(cpu, in->mem.seg, off + (cpu_is_amd(cpu) ? half : len - 8 - half), 8);
    }
    store_masked(cpu, in, off, data, mask, len, 1);
}

/* MM(i) is physical register i, ST(i) once TOP is 0. */
static void maskmovq(struct cpu *cpu, const struct insn *in)
{
    if (!fpu_check(cpu, insn_info[in->row].attr))
        return;
    fpu_enter_mmx(cpu); /* even if the store faults */
    store_bytes(cpu, in, cpu_effective_address(cpu, in), cpu->fpu.fx + FX_ST + 16 * in->opnd[0].reg,
                cpu->fpu.fx + FX_ST + 16 * in->opnd[1].reg, 8);
}

static void maskmovdqu(struct cpu *cpu, const struct insn *in)
{
    if (!fpu_check(cpu, insn_info[in->row].attr))
        return;
    store_bytes(cpu, in, cpu_effective_address(cpu, in), cpu->fpu.zmm[in->opnd[0].reg].u8,
                cpu->fpu.zmm[in->opnd[1].reg].u8, 16);
}

static void vmaskmov(struct cpu *cpu, const struct insn *in, unsigned size)
{
    if (!fpu_check(cpu, insn_info[in->row].attr))
        return;
    uint64_t off = cpu_effective_address(cpu, in);
    const uint8_t *mask = cpu->fpu.zmm[in->opnd[1].reg].u8;
    bool to_memory = in->opnd[0].kind == OPND_MEM;
    for (unsigned i = 0; i < in->opnd[0].size && !cpu_is_amd(cpu); i += size) {
        /* with Intel segment violations go first, with AMD each element is checked in full */
        if (mask[i + size - 1] & 0x80)
            cpu_linear(cpu, in->mem.seg, off + i, size, to_memory ? MMU_WRITE : MMU_READ);
    }
    if (to_memory) {
        store_masked(cpu, in, off, cpu->fpu.zmm[in->opnd[2].reg].u8, mask, in->opnd[0].size, size);
        return;
    }
    union cpu_vec v = { .u64 = { 0 } };
    for (unsigned i = 0; i < in->opnd[0].size; i += size) {
        if (mask[i + size - 1] & 0x80) {
            uint64_t e = cpu_read(cpu, in->mem.seg, off + i, size);
            memcpy(v.u8 + i, &e, size);
        }
    }
    cpu->fpu.zmm[in->opnd[0].reg] = v;
}

static void vmaskmov32(struct cpu *cpu, const struct insn *in) { vmaskmov(cpu, in, 4); }
static void vmaskmov64(struct cpu *cpu, const struct insn *in) { vmaskmov(cpu, in, 8); }

/* Each mask element becomes all ones or all zeroes, what is beyond the last one zero. */
static void normalise_mask(union cpu_vec *mask, unsigned count, unsigned size)
{
    for (unsigned i = 0; i < count; i++) {
        uint8_t *m = mask->u8 + i * size;
        memset(m, m[size - 1] & 0x80 ? 0xff : 0, size);
    }
    memset(mask->u8 + count * size, 0, sizeof *mask - count * size);
}

/* AVX2 gather: index elements of isize bytes, data elements of dsize. After a fault the mask tells
 * which elements remain; what else of mask and destination has changed by then depends on the
 * vendor. */
static void gather(struct cpu *cpu, const struct insn *in, unsigned isize, unsigned dsize)
{
    if (!fpu_check(cpu, insn_info[in->row].attr))
        return;
    if (in->flags & INSN_EVEX) {
        hostexec_gather(cpu, in, isize, dsize);
        return;
    }
    union cpu_vec *dest = &cpu->fpu.zmm[in->opnd[0].reg];
    union cpu_vec *mask = &cpu->fpu.zmm[in->opnd[2].reg];
    const union cpu_vec *index = &cpu->fpu.zmm[in->mem.index];
    unsigned length = in->flags & INSN_VEX_L ? 32 : 16;
    unsigned count = length / (isize > dsize ? isize : dsize);
    uint64_t base = in->mem.base == INSN_NO_REG ? 0 : cpu->gpr[in->mem.base];
    if (!cpu_is_amd(cpu))
        normalise_mask(mask, length / dsize, dsize);
    for (unsigned i = 0; i < count; i++) {
        uint8_t *m = mask->u8 + i * dsize;
        if (!(m[dsize - 1] & 0x80)) {
            memset(m, 0, dsize);
            continue;
        }
        int64_t x = isize == 4 ? (int32_t)index->u32[i] : (int64_t)index->u64[i];
        uint64_t off = base + ((uint64_t)x << in->mem.scale) + (uint64_t)in->mem.disp;
        if (in->adsize == 4)
            off = (uint32_t)off;
        uint64_t e = cpu_read(cpu, in->mem.seg, off, dsize);
        memcpy(dest->u8 + i * dsize, &e, dsize);
        if (!cpu_is_amd(cpu))
            memset(dest->u8 + length, 0, sizeof *dest - length);
        memset(m, 0, dsize);
    }
    memset(dest->u8 + count * dsize, 0, sizeof *dest - count * dsize);
    memset(mask, 0, sizeof *mask);
}

static void gather_dd(struct cpu *cpu, const struct insn *in) { gather(cpu, in, 4, 4); }
static void gather_dq(struct cpu *cpu, const struct insn *in) { gather(cpu, in, 4, 8); }
static void gather_qd(struct cpu *cpu, const struct insn *in) { gather(cpu, in, 8, 4); }
static void gather_qq(struct cpu *cpu, const struct insn *in) { gather(cpu, in, 8, 8); }

static void vzero(struct cpu *cpu, const struct insn *in)
{
    if (!fpu_check(cpu, insn_info[in->row].attr))
        return;
    unsigned keep = in->op == OP_VZEROUPPER ? 16 : 0;
    unsigned count = cpu->mode == INSN_MODE_64 ? 16 : 8;
    for (unsigned i = 0; i < count; i++) {
        memset(cpu->fpu.zmm[i].u8 + keep, 0, 64 - keep);
    }
}

sem_fn *hostexec_special(const struct insn *in)
{
    switch (in->op) {
    case OP_MASKMOVQ:
        return maskmovq;
    case OP_MASKMOVDQU:
    case OP_VMASKMOVDQU:
        return maskmovdqu;
    case OP_VMASKMOVPS:
    case OP_VPMASKMOVD:
        return vmaskmov32;
    case OP_VMASKMOVPD:
    case OP_VPMASKMOVQ:
        return vmaskmov64;
    case OP_VGATHERDPS:
    case OP_VPGATHERDD:
        return gather_dd;
    case OP_VGATHERDPD:
    case OP_VPGATHERDQ:
        return gather_dq;
    case OP_VGATHERQPS:
    case OP_VPGATHERQD:
        return gather_qd;
    case OP_VGATHERQPD:
    case OP_VPGATHERQQ:
        return gather_qq;
    case OP_VZEROUPPER:
    case OP_VZEROALL:
        return vzero;
    case OP_VLDMXCSR:
        return sem_ldmxcsr;
    case OP_VSTMXCSR:
        return sem_stmxcsr;
    default:
        return hostexec_scatter(in);
    }
}
