/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory operands of AVX-512 that depend on the opmask (SDM 2 2.7.6 and the instructions' own
 * pages). Elements that it leaves out are neither read nor written, and do not fault. And gathers
 * and scatters: element by element, each clearing its bit of the opmask when it is done, so that
 * the instruction can go on after a fault.
 */
#include "cpu/access_fast.h"
#include "cpu/fpu.h"
#include "cpu/hostexec_int.h"

/* Bit i: element i of the memory operand is accessed. */
static uint64_t elements(const struct cpu *cpu, const struct insn *in, unsigned size)
{
    unsigned count = size / in->evex_elem;
    uint64_t k = in->evex_aaa != 0 ? cpu->fpu.k[in->evex_aaa] : ~0ull;
    uint64_t bits = k & MASK64(in->evex_bits);
    if (in->evex_packed)
        return MASK64((unsigned)__builtin_popcountll(bits));
    uint64_t r = 0;
    for (unsigned i = 0; i < in->evex_bits; i += count)
        r |= bits >> i & MASK64(count);
    return r;
}

bool hostexec_any_element(const struct cpu *cpu, const struct insn *in, unsigned size)
{
    return elements(cpu, in, size) != 0;
}

void *hostexec_plain(struct cpu *cpu, const struct insn *in, uint64_t off, unsigned size,
                     enum mmu_access access)
{
    if (cpu->mode != INSN_MODE_64) /* segments have limits, which elements are checked against */
        return NULL;
    gva_t va = access_linear(cpu, in->mem.seg, off, size, access);
    const struct tlb_entry *e = access_entry(cpu, va);
    gva_t last = (va + size - 1) & ACCESS_PAGE_MASK;
    if (last != (access == MMU_WRITE ? e->tag_write : e->tag_read))
        return NULL;
    return (void *)(uintptr_t)(va + e->addend);
}

void hostexec_read_elements(struct cpu *cpu, const struct insn *in, uint64_t off, uint8_t *buf,
                            unsigned size)
{
    uint64_t which = elements(cpu, in, size);
    memset(buf, 0, size);
    for (unsigned i = 0; which != 0; i++, which >>= 1) {
        unsigned at = i * in->evex_elem;
        if (!(which & 1))
            continue;
        uint64_t v = cpu_read(cpu, in->mem.seg, hostexec_wrap(in, off + at), in->evex_elem);
        memcpy(buf + at, &v, in->evex_elem);
    }
}

void hostexec_probe_elements(struct cpu *cpu, const struct insn *in, uint64_t off, unsigned size)
{
    uint64_t which = elements(cpu, in, size);
    if (in->evex_whole) {
        cpu_probe_write(cpu, in->mem.seg, off, size);
        return;
    }
    for (unsigned i = 0; which != 0; i++, which >>= 1) {
        if (which & 1)
            cpu_probe_write(cpu, in->mem.seg, hostexec_wrap(in, off + i * in->evex_elem),
                            in->evex_elem);
    }
}

void hostexec_write_elements(struct cpu *cpu, const struct insn *in, uint64_t off,
                             const uint8_t *buf, unsigned size)
{
    hostexec_probe_elements(cpu, in, off, size);
    uint64_t which = elements(cpu, in, size);
    for (unsigned i = 0; which != 0; i++, which >>= 1) {
        unsigned at = i * in->evex_elem;
        uint64_t v = 0;
        if (!(which & 1))
            continue;
        memcpy(&v, buf + at, in->evex_elem);
        cpu_write(cpu, in->mem.seg, hostexec_wrap(in, off + at), in->evex_elem, v);
    }
}

/* -- Gathers and scatters */

static unsigned vector_length(const struct insn *in) { return 16u << (in->evex_b_z_ll >> 2); }

/* Indices of isize bytes and data of dsize: as many as the longer ones leave room for. */
static unsigned count_of(const struct insn *in, unsigned isize, unsigned dsize)
{
    return vector_length(in) / (isize > dsize ? isize : dsize);
}

static void clear_from(union cpu_vec *v, unsigned at) { memset(v->u8 + at, 0, sizeof *v - at); }

static uint64_t element_offset(const struct cpu *cpu, const struct insn *in, unsigned i,
                               unsigned isize)
{
    const union cpu_vec *index = &cpu->fpu.zmm[in->mem.index];
    uint64_t base = in->mem.base == INSN_NO_REG ? 0 : cpu->gpr[in->mem.base];
    int64_t x = isize == 4 ? (int32_t)index->u32[i] : (int64_t)index->u64[i];
    return hostexec_wrap(in, base + ((uint64_t)x << in->mem.scale) + (uint64_t)in->mem.disp);
}

void hostexec_gather(struct cpu *cpu, const struct insn *in, unsigned isize, unsigned dsize)
{
    union cpu_vec *dest = &cpu->fpu.zmm[in->opnd[0].reg];
    uint64_t *mask = &cpu->fpu.k[in->evex_aaa];
    unsigned count = count_of(in, isize, dsize);
    for (unsigned i = 0; i < count; i++) {
        if (!(*mask >> i & 1))
            continue;
        uint64_t v = cpu_read(cpu, in->mem.seg, element_offset(cpu, in, i, isize), dsize);
        memcpy(dest->u8 + i * dsize, &v, dsize);
        clear_from(dest, vector_length(in)); /* seen on AMD when the next one faults */
        *mask &= ~(1ull << i);
    }
    clear_from(dest, count * dsize);
    *mask = 0;
}

static void scatter(struct cpu *cpu, const struct insn *in, unsigned isize, unsigned dsize)
{
    if (!fpu_check(cpu, insn_info[in->row].attr))
        return;
    const union cpu_vec *data = &cpu->fpu.zmm[in->opnd[1].reg];
    uint64_t *mask = &cpu->fpu.k[in->evex_aaa];
    unsigned count = count_of(in, isize, dsize);
    for (unsigned i = 0; i < count; i++) {
        uint64_t v = 0;
        if (!(*mask >> i & 1))
            continue;
        memcpy(&v, data->u8 + i * dsize, dsize);
        cpu_write(cpu, in->mem.seg, element_offset(cpu, in, i, isize), dsize, v);
        *mask &= ~(1ull << i);
    }
    *mask = 0;
}

static void scatter_dd(struct cpu *cpu, const struct insn *in) { scatter(cpu, in, 4, 4); }
static void scatter_dq(struct cpu *cpu, const struct insn *in) { scatter(cpu, in, 4, 8); }
static void scatter_qd(struct cpu *cpu, const struct insn *in) { scatter(cpu, in, 8, 4); }
static void scatter_qq(struct cpu *cpu, const struct insn *in) { scatter(cpu, in, 8, 8); }

sem_fn *hostexec_scatter(const struct insn *in)
{
    switch (in->op) {
    case OP_VSCATTERDPS:
    case OP_VPSCATTERDD:
        return scatter_dd;
    case OP_VSCATTERDPD:
    case OP_VPSCATTERDQ:
        return scatter_dq;
    case OP_VSCATTERQPS:
    case OP_VPSCATTERQD:
        return scatter_qd;
    case OP_VSCATTERQPD:
    case OP_VPSCATTERQQ:
        return scatter_qq;
    default:
        return NULL;
    }
}
