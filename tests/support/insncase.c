/* SPDX-License-Identifier: Apache-2.0
 *
 * See insncase.h.
 */
#include "support/insncase.h"

#include <string.h>

#include "support/insnvalues.h"

#define FLAG_ARITH 0x8d5u
#define FLAG_DF_BIT 0x400u

/* An opmask of few bits, of many, or any. */
static uint64_t random_opmask(struct rng *r)
{
    switch (rng_below(r, 4)) {
    case 0:
        return 1ull << rng_below(r, 64) | 1ull << rng_below(r, 16);
    case 1:
        return ~(1ull << rng_below(r, 64) | 1ull << rng_below(r, 16));
    default:
        return rng_edge64(r);
    }
}

/* What AVX-512 adds, from numbers of its own: cases of before stay what they were. */
static void fill_avx512(struct insn_case *c)
{
    struct rng own = { c->seed * 2 + 0x5eed };
    struct insn_state *s = &c->in;
    for (unsigned i = 0; i < 32; i++) {
        for (unsigned at = i < 16 ? 32 : 0; at < 64; at += 16)
            rng_fill16(&own, s->zmm[i] + at);
    }
    for (unsigned i = 0; i < 8; i++)
        s->k[i] = random_opmask(&own);
}

static void fill_registers(struct rng *r, const struct insn_case_env *env, struct insn_case *c)
{
    struct insn_state *s = &c->in;
    memset(s, 0, sizeof *s);
    for (unsigned i = 0; i < 16; i++) {
        s->gpr[i] = rng_edge64(r);
    }
    s->rflags = 0x202 | (rng_next(r) & FLAG_ARITH) | (rng_one_in(r, 4) ? FLAG_DF_BIT : 0);
    for (unsigned i = 0; i < 16; i++) {
        rng_fill16(r, s->zmm[i]);
        rng_fill16(r, s->zmm[i] + 16);
    }
    if (rng_one_in(r, 8)) { /* comparisons want equal operands now and then */
        memcpy(s->zmm[rng_below(r, 16)], s->zmm[rng_below(r, 16)], 16);
        s->gpr[rng_below(r, 16)] = s->gpr[rng_below(r, 16)];
    }
    if (cpu_has(&env->features, CPU_FEATURE_AVX512F))
        fill_avx512(c);
    rng_fill_x87(r, s->fx);
    uint64_t stack = c->mode == IS_MODE_16 ? 0 : IS_STACK;
    s->gpr[4] = stack + 0x200 + 8 * rng_below(r, 0x180);
    if (rng_one_in(r, 16))
        s->gpr[4] = stack +
                    (rng_one_in(r, 2)        ? 0
                     : c->mode == IS_MODE_16 ? 0xee0
                                             : 0xfe0) +
                    rng_below(r, 33);
    s->gpr[5] = stack + 0x200 + 8 * rng_below(r, 0x180);
    if (c->mode != IS_MODE_64) {
        for (unsigned i = 0; i < 16; i++) {
            s->gpr[i] = i < 8 ? (uint32_t)s->gpr[i] : 0;
        }
    }
}

/* -- Addresses */

/* Base of a segment as the host has set it up. */
static uint64_t segment_base(const struct insn_case_env *env, enum is_mode mode, unsigned seg)
{
    if (mode == IS_MODE_64)
        return seg == 4 ? env->fs_base : 0;
    if (mode == IS_MODE_32)
        return 0;
    return seg == 1 ? IS_CODE : seg == 2 ? IS_STACK : IS_DATA;
}

/* Anywhere in and around the data region. */
static uint64_t pick_target(struct rng *r, const struct insn_case *c, unsigned size)
{
    if (size == 0)
        size = 64;
    switch (rng_below(r, 24)) {
    case 0: /* across the two pages */
        return IS_DATA + 0x1000 - rng_below(r, size) - (rng_one_in(r, 4) ? 1 : 0);
    case 1: /* into the absent one */
        return IS_DATA_ABSENT - rng_below(r, size + 1);
    case 2:
        return IS_DATA_RDONLY + 64 * rng_below(r, 32);
    case 3: /* out of the absent one, into the read-only one */
        return IS_DATA_RDONLY - 1 - rng_below(r, size);
    case 4:
        if (c->mode == IS_MODE_64 && rng_one_in(r, 4)) /* not canonical, or close to it */
            return rng_one_in(r, 2) /* not the page that means none to bt (BT_NO_STACK) */
                       ? 0x7fffffffffffull - rng_below(r, 64)
                       : 0x8000000000001000ull + rng_next(r) % 0x1000;
        /* fall through */
    case 5:
    case 6:
        return IS_DATA + 0x100 + rng_below(r, 0x1c00);
    default:
        return IS_DATA + 0x100 + 64 * rng_below(r, 0x1c00 / 64);
    }
}

/* Where an operand of `size` bytes shall lie: what the segment can reach. */
static uint64_t pick_in_segment(struct rng *r, const struct insn_case *c, unsigned seg,
                                unsigned size)
{
    if (c->mode == IS_MODE_16 && seg == 2)
        return IS_STACK + (rng_one_in(r, 8) ? IS_LIMIT_SS16 - rng_below(r, 40)
                                            : 0x100 + 4 * rng_below(r, 0x300));
    if (c->mode == IS_MODE_16 && seg == 1)
        return IS_CODE + 0x400 + rng_below(r, 0x800);
    if (c->mode == IS_MODE_16 && rng_one_in(r, 16))
        return IS_DATA + IS_LIMIT_DS16 - rng_below(r, 40);
    return pick_target(r, c, size);
}

static uint64_t inverse(uint64_t odd)
{
    uint64_t x = odd;
    for (unsigned i = 0; i < 6; i++) {
        x *= 2 - odd * x;
    }
    return x;
}

static bool patch_disp(struct insn_case *c, struct insn *in, size_t at, uint64_t disp)
{
    size_t pos = in->modrm_off + 1u;
    if (in->adsize == 2) {
        put16(c->code + at + pos, (unsigned)disp);
        return true;
    }
    if ((in->modrm & 7) == 4)
        pos++;
    put32(c->code + at + pos, (uint32_t)disp);
    return true;
}

/* 16-bit addressing: only the low halves of the registers count. */
static bool aim16(struct rng *r, struct insn_case *c, struct insn *in, size_t at, uint64_t offset)
{
    const struct insn_mem *m = &in->mem;
    uint64_t *gpr = c->in.gpr;
    if (offset > 0xffff)
        return false;
    if (m->base == INSN_NO_REG) {
        if (in->flags & INSN_HAS_MODRM)
            return patch_disp(c, in, at, offset);
        put16(c->code + at + in->len - 2, (unsigned)offset);
        return true;
    }
    offset -= (uint64_t)m->disp;
    if (m->index != INSN_NO_REG) {
        if (rng_one_in(r, 2))
            gpr[m->index] = rng_below(r, 64);
        offset -= gpr[m->index];
    }
    gpr[m->base] = (gpr[m->base] & ~0xffffull) | (offset & 0xffff);
    return true;
}

/* Small indices, now and then a large one. */
static void aim_indices(struct rng *r, struct insn_case *c, const struct insn *in)
{
    const char *name = insn_info[in->row].mnemonic;
    uint8_t *index = c->in.zmm[in->mem.index & 31];
    unsigned length = in->flags & INSN_EVEX ? 64 : 32;
    bool quads = name[strlen(name) - 2] == 'q';
    for (unsigned i = 0; i < length; i += quads ? 8 : 4) {
        uint32_t v = rng_one_in(r, 16) ? (uint32_t)rng_edge64(r) : rng_below(r, 256) - 64;
        put32(index + i, v);
        if (quads)
            put32(index + i + 4, rng_one_in(r, 16) ? 1 : v >> 31 ? ~0u : 0);
    }
}

/* Registers (or the displacement) so that in's ModRM operand lies at target. */
static bool aim(struct rng *r, const struct insn_case_env *env, struct insn_case *c,
                struct insn *in, size_t at, uint64_t target)
{
    const struct insn_mem *m = &in->mem;
    uint64_t *gpr = c->in.gpr;
    uint64_t seg_base = segment_base(env, c->mode, m->seg);
    uint64_t offset = target - seg_base;
    if (in->adsize == 2)
        return aim16(r, c, in, at, offset);
    if (seg_base && (insn_info[in->row].attr & IA_VSIB)) /* would reach our own memory */
        return false;
    if (in->adsize == 4 && offset >> 32)
        return false;
    if (m->base == INSN_REG_RIP) {
        int64_t d = (int64_t)(offset - (is_code_base(c->mode) + c->offset + at + in->len));
        return d == (int32_t)d && patch_disp(c, in, at, (uint64_t)d);
    }
    offset -= (uint64_t)m->disp;
    bool has_index = m->index != INSN_NO_REG;
    if (insn_info[in->row].attr & IA_VSIB) {
        aim_indices(r, c, in);
        has_index = false;
    }
    if (m->base == INSN_NO_REG && !has_index) {
        uint64_t d = target - seg_base;
        if (insn_info[in->row].attr & IA_VSIB)
            return patch_disp(c, in, at, d);
        if (d != (uint64_t)(int64_t)(int32_t)d && in->adsize == 8)
            return false;
        if (!(in->flags & INSN_HAS_MODRM)) { /* moffs */
            if (in->adsize == 8)
                put64(c->code + at + in->len - 8, d);
            else
                put32(c->code + at + in->len - 4, (uint32_t)d);
            return true;
        }
        return patch_disp(c, in, at, d);
    }
    uint64_t high = in->adsize == 4 && c->mode == IS_MODE_64 ? rng_next(r) << 32 : 0;
    if (!has_index) {
        gpr[m->base] = offset;
    } else if (m->base == INSN_NO_REG) {
        gpr[m->index] = offset >> m->scale;
    } else if (m->base == m->index) {
        gpr[m->base] = m->scale == 0 ? offset / 2 : offset * inverse(1 + (1ull << m->scale));
    } else {
        if (rng_one_in(r, 2))
            gpr[m->index] = rng_below(r, 64);
        gpr[m->base] = offset - (gpr[m->index] << m->scale);
    }
    for (unsigned i = 0; i < 2; i++) {
        unsigned reg = i == 0 ? m->base : has_index ? m->index : INSN_NO_REG;
        if (reg == INSN_NO_REG || in->adsize != 4)
            continue;
        gpr[reg] = (uint32_t)gpr[reg] | (reg == 4 ? 0 : high);
    }
    return true;
}

/* -- Which instructions, and what each needs */

/* Leaves the sandbox, or answers with something of the machine's own. */
static bool host_only(const struct insn *in)
{
    switch (in->op) {
    case OP_SYSCALL:
    case OP_SYSRET:
    case OP_SYSENTER:
    case OP_SYSEXIT:
    case OP_IRET:
    case OP_CALLF:
    case OP_CALLF_IND:
    case OP_JMPF:
    case OP_JMPF_IND:
    case OP_RETF:
    case OP_MOV_SREG:
    case OP_POP_SREG:
    case OP_PUSH_SREG:
    case OP_LES:
    case OP_LDS:
    case OP_LSS:
    case OP_LFS:
    case OP_LGS:
    case OP_WRFSBASE:
    case OP_WRGSBASE:
    case OP_RDFSBASE:
    case OP_RDGSBASE:
    case OP_WRPKRU:
    case OP_RDPKRU:
    case OP_RDTSC:
    case OP_RDTSCP:
    case OP_RDRAND:
    case OP_RDSEED:
    case OP_RDPID:
    case OP_RDPMC:
    case OP_CPUID:
    case OP_XGETBV:
    case OP_SGDT:
    case OP_SIDT:
    case OP_SLDT:
    case OP_STR:
    case OP_SMSW:
    case OP_LAR:
    case OP_LSL:
    case OP_VERR:
    case OP_VERW:
    case OP_VMCALL:
    case OP_VMMCALL:
    case OP_INT1:
    case OP_UD0: /* whether ModRM is fetched is the model's affair */
        return true;
    case OP_INT:
        return in->imm == 0x80;
    default:
        return false;
    }
}

static void poke(struct insn_case *c, uint64_t va, uint64_t value, unsigned size)
{
    for (unsigned i = 0; i < size; i++) {
        int off = is_image_offset(va + i);
        if (off >= 0 && (off < 0x2000 || off >= 0x3000))
            c->mem[off] = (uint8_t)(value >> (8 * i));
    }
}

static uint64_t code_target(struct rng *r, const struct insn_case *c)
{
    return is_code_base(c->mode) + 0x400 + rng_below(r, 0x800);
}

/* Linear address of the stack's top. */
static uint64_t stack_top(const struct insn_case *c)
{
    return c->mode == IS_MODE_16 ? IS_STACK + (c->in.gpr[4] & 0xffff) : c->in.gpr[4];
}

/* A plausible FXSAVE or XSAVE image at va. */
static void poke_area(struct rng *r, struct insn_case *c, uint64_t va, bool header)
{
    uint8_t fx[160];
    rng_fill_x87(r, fx);
    if (rng_one_in(r, 8))
        put16(fx, (unsigned)rng_next(r));
    if (rng_one_in(r, 8))
        put16(fx + 2, (unsigned)rng_next(r));
    if (rng_one_in(r, 32))
        put32(fx + 24, (uint32_t)rng_next(r));
    for (unsigned i = 0; i < sizeof fx; i++) {
        poke(c, va + i, fx[i], 1);
    }
    if (!header)
        return;
    bool compact = rng_one_in(r, 2);
    uint64_t comp = rng_one_in(r, 2) ? 7 : rng_next(r) & 7;
    uint64_t bv = rng_next(r) & 7;
    if (compact && !rng_one_in(r, 8))
        bv &= comp;
    if (rng_one_in(r, 16))
        bv |= rng_one_in(r, 2) ? 1ull << 62 : 1ull << 12;
    if (rng_one_in(r, 16))
        comp |= rng_one_in(r, 2) ? 1ull << 62 : 1ull << 12;
    poke(c, va + 512, bv, 8);
    poke(c, va + 520, compact ? comp | 1ull << 63 : rng_one_in(r, 16) ? comp : 0, 8);
    for (unsigned i = 16; i < 64; i += 8) {
        poke(c, va + 512 + i, rng_one_in(r, 64), 8);
    }
}

static void set_gpr_low(struct insn_case *c, unsigned reg, uint64_t v, unsigned size)
{
    if (size == 8)
        c->in.gpr[reg] = v;
    else
        c->in.gpr[reg] = (c->in.gpr[reg] & ~((1ull << (8 * size)) - 1)) |
                         (v & ((1ull << (8 * size)) - 1));
}

static void prepare_string(struct rng *r, struct insn_case *c, const struct insn *in)
{
    unsigned size = in->opnd[0].kind == OPND_MEM ? in->opnd[0].size : in->opnd[1].size;
    uint64_t si = pick_target(r, c, size);
    uint64_t di = pick_target(r, c, size);
    uint64_t count = rng_one_in(r, 8) ? rng_below(r, 2000) : rng_below(r, 40);
    uint64_t base = c->mode == IS_MODE_16 ? IS_DATA : 0;
    set_gpr_low(c, 6, si - base, in->adsize);
    set_gpr_low(c, 7, di - base, in->adsize);
    set_gpr_low(c, 1, count, in->adsize);
    if (rng_one_in(r, 2)) { /* equal runs for CMPS, SCAS */
        for (unsigned i = 0; i < 256; i++) {
            poke(c, si - 128 + i, 0x41, 1);
            poke(c, di - 128 + i, 0x41, 1);
        }
        if (rng_one_in(r, 2))
            c->in.gpr[0] = 0x4141414141414141;
    }
}

/* Bit offsets of BT and its family reach into memory on both sides. */
static void prepare_bit_offset(struct rng *r, struct insn_case *c, const struct insn *in)
{
    int64_t bit = (int64_t)rng_below(r, 2048) - 1024;
    if (in->opnd[1].reg != in->mem.base && in->opnd[1].reg != in->mem.index)
        set_gpr_low(c, in->opnd[1].reg, (uint64_t)bit, in->opnd[1].size);
}

static bool bit_offset_safe(const struct insn_case *c, const struct insn *in)
{
    int64_t v = (int64_t)c->in.gpr[in->opnd[1].reg];
    if (in->opnd[1].size == 4)
        v = (int32_t)v;
    else if (in->opnd[1].size == 2)
        v = (int16_t)v;
    return v >= -0x40000 && v < 0x40000;
}

static bool prepare_special(struct rng *r, struct insn_case *c, struct insn *in, uint64_t target)
{
    switch (in->op) {
    case OP_BT:
    case OP_BTS:
    case OP_BTR:
    case OP_BTC:
        if (in->opnd[0].kind == OPND_MEM && in->opnd[1].kind == OPND_GPR) {
            prepare_bit_offset(r, c, in);
            return bit_offset_safe(c, in);
        }
        return true;
    case OP_POPF:
        for (unsigned i = 1; i < 3; i++) { /* not TF, NT, AC: those are for other tests */
            int off = is_image_offset(stack_top(c) + i);
            if (off >= 0)
                c->mem[off] &= i == 1 ? 0xbe : 0xfb;
        }
        return true;
    case OP_RET:
        poke(c, stack_top(c), code_target(r, c), c->mode == IS_MODE_64 ? 8 : 4);
        return true;
    case OP_CALL_IND:
    case OP_JMP_IND:
        if (in->opnd[0].kind == OPND_MEM)
            poke(c, target, code_target(r, c), in->opsize);
        else
            c->in.gpr[in->opnd[0].reg] = code_target(r, c);
        return in->opnd[0].kind == OPND_MEM ||
               in->opnd[0].reg != 4; /* a CALL would push onto code */
    case OP_LOOP:
    case OP_LOOPE:
    case OP_LOOPNE: /* may jump to itself */
        c->in.gpr[1] = rng_below(r, 1000);
        return true;
    case OP_MOVBE: /* across the end of canonical addresses the host says #PF here, #GP elsewhere */
        return target < 0x7fffffff0000;
    case OP_FXRSTOR:
        poke_area(r, c, target, false);
        return true;
    case OP_XRSTOR:
        poke_area(r, c, target, true);
        /* fall through */
    case OP_XSAVE:
    case OP_XSAVEOPT:
    case OP_XSAVEC:
        c->in.gpr[0] &= 7;
        c->in.gpr[2] &= 0xffffffff00000000ull;
        return true;
    case OP_LDMXCSR:
    case OP_VLDMXCSR:
        poke(c, target, rng_one_in(r, 8) ? rng_next(r) : rng_mxcsr(r), 4);
        return true;
    case OP_CMPXCHG8B:
    case OP_CMPXCHG16B:
        if (rng_one_in(r, 2) && is_image_offset(target) >= 0) {
            memcpy(&c->in.gpr[0], c->mem + is_image_offset(target), in->op == OP_CMPXCHG8B ? 4 : 8);
        }
        return true;
    case OP_DIV:
    case OP_IDIV:
        if (rng_one_in(r, 2)) /* most random dividends overflow */
            c->in.gpr[2] = rng_one_in(r, 2) ? 0 : (uint64_t)((int64_t)c->in.gpr[0] >> 63);
        return true;
    default:
        return true;
    }
}

uint64_t insn_case_address(const struct insn_case *c, const struct insn_case_env *env,
                           const struct insn *in, size_t at)
{
    const struct insn_mem *m = &in->mem;
    uint64_t a = (uint64_t)m->disp;
    if (m->base == INSN_REG_RIP)
        a += is_code_base(c->mode) + c->offset + at + in->len;
    else if (m->base != INSN_NO_REG)
        a += c->in.gpr[m->base];
    if (m->index != INSN_NO_REG)
        a += c->in.gpr[m->index] << m->scale;
    if (in->adsize < 8)
        a &= in->adsize == 4 ? 0xffffffff : 0xffff;
    return a + segment_base(env, c->mode, m->seg);
}

/* These fault like loads, though they give no value. */
static bool flushes_line(const struct insn *in)
{
    return in->op == OP_CLFLUSH || in->op == OP_CLFLUSHOPT || in->op == OP_CLWB;
}

/* Registers and memory for one decoded instruction at c->code + at. */
static bool prepare(struct rng *r, const struct insn_case_env *env, struct insn_case *c,
                    struct insn *in, size_t at)
{
    uint32_t attr = insn_info[in->row].attr;
    uint64_t target = 0;
    if (host_only(in) || (!IS_WILD_READS && (attr & IA_VSIB)))
        return false;
    if (in->op == OP_XLAT) {
        target = pick_in_segment(r, c, in->mem.seg, 1) - segment_base(env, c->mode, in->mem.seg);
        if (in->adsize == 2 && c->mode != IS_MODE_16)
            return false;
        if (in->mem.seg == 4 && c->mode == IS_MODE_64 && in->adsize != 8)
            return false;
        set_gpr_low(c, 3, target - (c->in.gpr[0] & 0xff), in->adsize);
        return true;
    }
    if ((attr & IA_STRING) || in->op == OP_MASKMOVQ || in->op == OP_MASKMOVDQU ||
        in->op == OP_VMASKMOVDQU) {
        if ((in->adsize == 2 && c->mode != IS_MODE_16) ||
            (in->mem.seg == 4 && c->mode == IS_MODE_64))
            return false;
        prepare_string(r, c, in);
        return true;
    }
    for (unsigned i = 0; i < in->nopnd; i++) {
        if (in->opnd[i].kind != OPND_MEM)
            continue;
        if (in->opnd[i].access == 0 && (attr & IA_NOMEM) && !flushes_line(in))
            continue;
        target = pick_in_segment(r, c, in->mem.seg, in->opnd[i].size);
        if (in->opnd[i].size == 0 && !rng_one_in(r, 8)) /* FXSAVE, XSAVE: room for the area */
            target = IS_DATA + 64 * rng_below(r, 64);
        if (!aim(r, env, c, in, at, target))
            return false;
    }
    if (!prepare_special(r, c, in, target))
        return false;
    /* The last step may have changed an address register: never leave the test regions. */
    return target == 0 || (attr & IA_VSIB) || in->mem.base == INSN_REG_RIP ||
           (in->mem.base == INSN_NO_REG && in->mem.index == INSN_NO_REG) ||
           insn_case_address(c, env, in, at) == target;
}

static enum insn_mode decode_mode(enum is_mode mode)
{
    return mode == IS_MODE_64 ? INSN_MODE_64 : mode == IS_MODE_32 ? INSN_MODE_32 : INSN_MODE_16;
}

static bool is_prefix(uint8_t b, enum is_mode mode)
{
    switch (b) {
    case 0x26:
    case 0x2e:
    case 0x36:
    case 0x3e:
    case 0x64:
    case 0x65:
    case 0x66:
    case 0x67:
    case 0xf0:
    case 0xf2:
    case 0xf3:
        return true;
    default:
        return mode == IS_MODE_64 && (b & 0xf0) == 0x40;
    }
}

/* Encodings that the host may have and the guest does not: results differ by design. */
static bool unknown_to_guest(const struct insn_case_env *env, const uint8_t *code, size_t len,
                             enum is_mode mode)
{
    bool avx512 = cpu_has(&env->features, CPU_FEATURE_AVX512F);
    size_t i = 0;
    while (i < len && is_prefix(code[i], mode))
        i++;
    if (i + 4 >= len)
        return true;
    uint8_t a = code[i];
    uint8_t b = code[i + 1];
    if (a == 0x62 && avx512) /* AVX512_FP16; VP2INTERSECT, 4FMAPS, 4VNNIW */
        return (b & 7) > 3 || (code[i + 2] & 3) == 3;
    if (a == 0x62 || ((a == 0xc6 || a == 0xc7) && b == 0xf8)) /* XABORT, XBEGIN */
        return true;
    if (a == 0xc4 || a == 0xc5) { /* opmask instructions, part of AVX-512; CLWB ignores VEX */
        uint8_t op = code[i + (a == 0xc4 ? 3 : 2)];
        if (avx512)
            return op == 0xae;
        return op == 0xae || (op >= 0x41 && op <= 0x4b) || (op >= 0x90 && op <= 0x99) ||
               (op >= 0x30 && op <= 0x33);
    }
    if (a == 0x8f && (b & 0x38)) /* XOP */
        return true;
    if (a != 0x0f)
        return false;
    if ((b == 0x20 || b == 0x22) && memchr(code, 0xf0, i) != NULL) /* MOV CR8 in AMD's other way */
        return true;
    return b == 0x01 || b == 0x1a || b == 0x1b || b == 0x05 || b == 0x34 || b == 0x00 ||
           b == 0x0d || b == 0x0e || b == 0x0f || b == 0x37 || b == 0xff || b == 0xb9 ||
           b == 0xae || b == 0xc7 || b == 0x2b || b == 0x78 || b == 0x79; /* SSE4A */
}

bool insn_case_single(struct insn_case *c, const struct insn_case_env *env, enum is_mode mode,
                      const uint8_t *code, size_t len, uint64_t seed)
{
    struct rng r = { seed * 2 + 1 };
    struct insn in;
    rng_next(&r);
    c->mode = mode;
    c->seed = seed;
    c->offset = 0x100 + rng_below(&r, 64);
    c->len = len;
    memcpy(c->code, code, len);
    fill_registers(&r, env, c);
    rng_fill_memory(&r, c->mem);
    c->in.rip = is_code_base(mode) + c->offset;
    enum insn_status s = insn_decode(&in, c->code, len, decode_mode(mode), &env->features);
    if (s != INSN_OK) /* the bytes after the code are INT3 */
        return s == INSN_UD && !unknown_to_guest(env, code, len, mode);
    c->len = in.len;
    if (!prepare(&r, env, c, &in, 0))
        return false;
    if (mode != IS_MODE_64) {
        for (unsigned i = 0; i < 8; i++) {
            c->in.gpr[i] = (uint32_t)c->in.gpr[i];
        }
    }
    return true;
}

/* -- Blocks */

static bool writes_stack_pointer(const struct insn *in)
{
    for (unsigned i = 0; i < in->nopnd; i++) {
        if (in->opnd[i].kind == OPND_GPR && (in->opnd[i].access & OPND_W) &&
            (in->opnd[i].reg == 4 || in->opnd[i].reg == 5))
            return true;
    }
    return false;
}

/* OF after RCL and RCR by more than 1 is undefined, and on the host depends on what ran before. */
static bool undefined_overflow(const struct insn *in)
{
    return (in->op == OP_RCL || in->op == OP_RCR) && (in->opnd[1].kind != OPND_IMM || in->imm != 1);
}

/* Seen on Zen 4: an EVEX instruction with X set, which general registers ignore, reads RSP as it
 * was before the PUSH or POP that came before. */
static bool misreads_rsp(const struct insn *in)
{
    for (unsigned i = 0; i < in->nopnd && (in->flags & INSN_EVEX); i++) {
        if (in->opnd[i].kind == OPND_GPR && in->opnd[i].reg == 4)
            return true;
    }
    return false;
}

static bool fits_block(const struct insn *in)
{
    const struct insn_info *info = &insn_info[in->row];
    if (misreads_rsp(in))
        return false;
    if (info->branch != BR_NONE || (info->attr & (IA_STRING | IA_PRIV | IA_VSIB)) || host_only(in))
        return false;
    if (writes_stack_pointer(in) || undefined_overflow(in) || flushes_line(in))
        return false;
    switch (in->op) {
    case OP_XLAT:
    case OP_MASKMOVQ:
    case OP_MASKMOVDQU:
    case OP_VMASKMOVDQU:
    case OP_ENTER:
    case OP_LEAVE:
    case OP_POPF:
    case OP_POPA:
    case OP_PUSHA:
    case OP_IN:
    case OP_OUT:
    case OP_CLI:
    case OP_STI:
    case OP_XRSTOR:
    case OP_XSAVE:
    case OP_XSAVEC:
    case OP_XSAVEOPT:
        return false;
    default:
        break;
    }
    for (unsigned i = 0; i < in->nopnd; i++) {
        if (in->opnd[i].kind == OPND_MEM && in->opnd[i].access != 0) {
            if (in->mem.index != INSN_NO_REG ||
                (in->mem.base != INSN_NO_REG && in->mem.base != INSN_REG_RIP))
                return false;
            if (in->opnd[0].kind == OPND_MEM && in->opnd[1].kind == OPND_GPR &&
                (in->op == OP_BT || in->op == OP_BTS || in->op == OP_BTR || in->op == OP_BTC))
                return false;
        }
    }
    return true;
}

bool insn_case_block(struct insn_case *c, const struct insn_case_env *env, enum is_mode mode,
                     unsigned count, uint64_t seed)
{
    struct rng r = { seed * 2 + 1 };
    rng_next(&r);
    c->mode = mode;
    c->seed = seed;
    c->offset = 0x100 + rng_below(&r, 64);
    c->len = 0;
    fill_registers(&r, env, c);
    rng_fill_memory(&r, c->mem);
    c->in.rip = is_code_base(mode) + c->offset;
    for (unsigned tries = 0; tries < 200 && count > 0; tries++) {
        struct insn in;
        uint8_t code[INSN_MAX_LEN];
        unsigned row = rng_below(&r, insn_info_count);
        if (c->len + INSN_MAX_LEN > INSN_CASE_CODE_MAX)
            break;
        size_t n = insn_sample(row, decode_mode(mode), &r.s, code);
        if (n == 0)
            continue;
        if (insn_decode(&in, code, n, decode_mode(mode), &env->features) != INSN_OK ||
            !fits_block(&in))
            continue;
        memcpy(c->code + c->len, code, n);
        if (!prepare(&r, env, c, &in, c->len))
            continue;
        c->len += n;
        count--;
    }
    if (mode != IS_MODE_64) {
        for (unsigned i = 0; i < 8; i++) {
            c->in.gpr[i] = (uint32_t)c->in.gpr[i];
        }
    }
    return c->len > 0;
}
