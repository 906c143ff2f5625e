/* SPDX-License-Identifier: Apache-2.0
 *
 * Generates thunks (see hostexec.h). Register convention inside a thunk, all of them caller-saved
 * in the C calling convention: rdi struct cpu, rsi memory operand, r8 struct hostexec_io; rax and
 * rcx stand for the general registers that ModRM.reg and ModRM.rm name; rdx is PCMPESTRx's.
 * Vector registers keep their numbers. VEX and EVEX code ends with VZEROUPPER, so that C code pays
 * nothing.
 *
 * The instruction is encoded anew from its operands, not patched: what is ignored in the guest's
 * mode (VEX.B outside 64-bit mode, segment and surplus prefixes) does not come along.
 */
#include "cpu/hostexec_int.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

#include "cpu/decode_tables.h"

#define ZMM_OFFSET(n) ((uint32_t)(offsetof(struct cpu, fpu.zmm) + (n) * sizeof(union cpu_vec)))
#define K_OFFSET(n) ((uint32_t)(offsetof(struct cpu, fpu.k) + (n) * sizeof(uint64_t)))
#define GPR_OFFSET(n) ((uint32_t)(offsetof(struct cpu, gpr) + (n) * sizeof(uint64_t)))
#define MXCSR_OFFSET ((uint32_t)(offsetof(struct cpu, fpu.fx) + FX_MXCSR))
#define IO_OFFSET(member) ((uint32_t)offsetof(struct hostexec_io, member))

enum host_reg { H_RAX = 0, H_RCX = 1, H_RDX = 2, H_RSI = 6, H_RDI = 7, H_R8 = 8 };
#define NO_GPR 0xffu

static void put(struct hostexec_code *c, unsigned byte)
{
    assert(c->len < sizeof c->bytes);
    c->bytes[c->len++] = (uint8_t)byte;
}

static void put32(struct hostexec_code *c, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++) {
        put(c, v >> (8 * i) & 0xff);
    }
}

/* ModRM for [base + disp32]; base is rdi or r8 (REX.B is the caller's). */
static void put_mem(struct hostexec_code *c, unsigned reg, enum host_reg base, uint32_t disp)
{
    put(c, 0x80 | (reg & 7) << 3 | (base & 7));
    put32(c, disp);
}

/* mov reg, [rdi + disp] or mov [rdi + disp], reg: 64 bits, reg below 8 */
static void gpr_move(struct hostexec_code *c, unsigned opcode, enum host_reg reg, unsigned guest)
{
    put(c, 0x48);
    put(c, opcode);
    put_mem(c, reg, H_RDI, GPR_OFFSET(guest));
}
static void gpr_load(struct hostexec_code *c, enum host_reg reg, unsigned guest)
{
    gpr_move(c, 0x8b, reg, guest);
}
static void gpr_store(struct hostexec_code *c, enum host_reg reg, unsigned guest)
{
    gpr_move(c, 0x89, reg, guest);
}

/* Two-byte 0F AE group: /digit on [base + disp] */
static void op_0fae(struct hostexec_code *c, unsigned digit, enum host_reg base, uint32_t disp)
{
    if (base >= 8)
        put(c, 0x41);
    put(c, 0x0f);
    put(c, 0xae);
    put_mem(c, digit, base, disp);
}
static void ldmxcsr(struct hostexec_code *c, enum host_reg base, uint32_t disp)
{
    op_0fae(c, 2, base, disp);
}
static void stmxcsr(struct hostexec_code *c, enum host_reg base, uint32_t disp)
{
    op_0fae(c, 3, base, disp);
}

/* fxrstor64 (digit 1) and fxsave64 (digit 0) of io->fx */
static void fx64(struct hostexec_code *c, unsigned digit)
{
    put(c, 0x49);
    put(c, 0x0f);
    put(c, 0xae);
    put_mem(c, digit, H_R8, IO_OFFSET(fx));
}

static void fninit(struct hostexec_code *c)
{
    put(c, 0xdb);
    put(c, 0xe3);
}

static void vzeroupper(struct hostexec_code *c)
{
    put(c, 0xc5);
    put(c, 0xf8);
    put(c, 0x77);
}

static void ret(struct hostexec_code *c) { put(c, 0xc3); }

/* movups between xmm n and the guest's zmm[n]; upper host bits stay (legacy encoding) */
static void sse_move(struct hostexec_code *c, unsigned opcode, unsigned n)
{
    if (n >= 8)
        put(c, 0x44);
    put(c, 0x0f);
    put(c, opcode);
    put_mem(c, n, H_RDI, ZMM_OFFSET(n));
}

/* vmovups ymm n */
static void avx_move(struct hostexec_code *c, unsigned opcode, unsigned n)
{
    put(c, 0xc4);
    put(c, 0x61 | (n >= 8 ? 0 : 0x80));
    put(c, 0x7c);
    put(c, opcode);
    put_mem(c, n, H_RDI, ZMM_OFFSET(n));
}

/* vmovups zmm n */
static void zmm_move(struct hostexec_code *c, unsigned opcode, unsigned n)
{
    put(c, 0x62);
    put(c, 0x61 | (n & 8 ? 0 : 0x80) | (n & 16 ? 0 : 0x10));
    put(c, 0x7c);
    put(c, 0x48);
    put(c, opcode);
    put_mem(c, n, H_RDI, ZMM_OFFSET(n));
}

/* kmovq k n: 0x90 loads, 0x91 stores */
static void k_move(struct hostexec_code *c, unsigned opcode, unsigned n)
{
    put(c, 0xc4);
    put(c, 0xe1);
    put(c, 0xf8);
    put(c, opcode);
    put_mem(c, n, H_RDI, K_OFFSET(n));
}

/* A VEX instruction clears its destination up to the longest vector (SDM 1 14.1.3): the lower half
 * is stored from the ymm register, zeroes included, the upper half here. */
static void clear_upper_half(struct hostexec_code *c, unsigned n)
{
    put(c, 0x31); /* xor eax, eax */
    put(c, 0xc0);
    for (unsigned i = 32; i < 64; i += 8) {
        put(c, 0x48);
        put(c, 0x89);
        put_mem(c, H_RAX, H_RDI, ZMM_OFFSET(n) + i);
    }
}

/* The fields of the instruction's own encoding. */
struct fields {
    unsigned reg; /* ModRM.reg with extension */
    unsigned rm;
    bool mem;
    unsigned vvvv;
    unsigned reg_gpr; /* guest general register named there, or NO_GPR */
    unsigned rm_gpr;
    bool reg_gpr_written, rm_gpr_written;
    bool imm;
    unsigned imm8;
};

static void collect(struct fields *f, const struct insn *in)
{
    const struct insn_row *row = &insn_row[in->row];
    f->reg = in->modrm >> 3 & 7;
    f->rm = in->modrm & 7;
    f->reg_gpr = f->rm_gpr = NO_GPR;
    for (unsigned i = 0; i < in->nopnd; i++) {
        const struct opnd *o = &in->opnd[i];
        if (o->kind == OPND_MEM) {
            f->mem = true;
            continue;
        }
        switch ((enum opnd_how)row->opnd[i].how) {
        case OH_G:
            f->reg = H_RAX;
            f->reg_gpr = o->reg;
            f->reg_gpr_written = o->access & OPND_W;
            break;
        case OH_E:
        case OH_R:
            f->rm = H_RCX;
            f->rm_gpr = o->reg;
            f->rm_gpr_written = o->access & OPND_W;
            break;
        case OH_V:
        case OH_P:
        case OH_K:
            f->reg = o->reg;
            break;
        case OH_W:
        case OH_U:
        case OH_Q:
        case OH_N:
        case OH_T:
        case OH_KE:
            f->rm = o->reg;
            break;
        case OH_H:
        case OH_KH:
            f->vvvv = o->reg;
            break;
        case OH_L:
            f->imm = true;
            f->imm8 = o->reg << 4u | (in->imm & 0xf);
            break;
        case OH_I:
        case OH_IS:
            f->imm = true;
            f->imm8 = in->imm & 0xff;
            break;
        default:
            break;
        }
    }
}

/* Outside 64-bit mode there are no 64-bit general operands, whatever W says. */
static bool general_operand(const struct insn *in)
{
    for (unsigned i = 0; i < in->nopnd; i++) {
        unsigned how = insn_row[in->row].opnd[i].how;
        if (how == OH_E || how == OH_G || how == OH_R)
            return true;
    }
    return false;
}

static bool encoded_w(const struct insn *in, const struct insn_enc *enc, unsigned mode)
{
    if (mode != INSN_MODE_64 && general_operand(in))
        return false;
    if (enc->w == 1 || enc->w == 2)
        return enc->w == 2;
    return (in->flags & INSN_W) && mode == INSN_MODE_64;
}

static void put_opcode_map(struct hostexec_code *c, unsigned map)
{
    if (map == 0)
        return;
    put(c, 0x0f);
    if (map > 1)
        put(c, map == 2 ? 0x38 : 0x3a);
}

/* SDM 2 2.7.1; the memory operand's registers need no extension. */
static void put_evex(struct hostexec_code *c, const struct insn *in, const struct fields *f,
                     unsigned rm, bool w, unsigned pp)
{
    unsigned b = in->evex_b_z_ll & 1;
    unsigned z = in->evex_b_z_ll >> 1 & 1;
    put(c, 0x62);
    put(c, (f->reg & 8 ? 0 : 0x80) | (rm & 16 ? 0 : 0x40) | (rm & 8 ? 0 : 0x20) |
               (f->reg & 16 ? 0 : 0x10) | in->map);
    put(c, (w ? 0x80 : 0) | (~f->vvvv & 0xf) << 3 | 4 | pp);
    put(c, z << 7 | (in->evex_b_z_ll & 0xcu) << 3 | b << 4 | (f->vvvv & 16 ? 0 : 8) | in->evex_aaa);
}

/* The instruction itself, memory operand at [rsi]. */
static void put_instruction(struct hostexec_code *c, const struct insn *in, const struct fields *f,
                            unsigned mode)
{
    static const uint8_t legacy_prefix[4] = { 0, 0x66, 0xf3, 0xf2 };
    const struct insn_enc *enc = &insn_enc[in->row];
    bool w = encoded_w(in, enc, mode);
    unsigned pp = enc->pfx == 0xff || enc->pfx == 0 ? 0 : (unsigned)__builtin_ctz(enc->pfx);
    unsigned rm = f->mem ? H_RSI : f->rm;
    if (enc->space == SPACE_EVEX) {
        put_evex(c, in, f, rm, w, pp);
    } else if (enc->space == SPACE_VEX) {
        put(c, 0xc4);
        put(c, (f->reg < 8 ? 0x80 : 0) | 0x40 | (rm < 8 ? 0x20 : 0) | in->map);
        put(c, (w ? 0x80 : 0) | (~f->vvvv & 0xf) << 3 | (in->flags & INSN_VEX_L ? 4 : 0) | pp);
    } else {
        if (pp)
            put(c, legacy_prefix[pp]);
        unsigned rex = (w ? 8u : 0) | (f->reg >= 8 ? 4u : 0) | (rm >= 8 ? 1u : 0);
        if (rex)
            put(c, 0x40 | rex);
        put_opcode_map(c, in->map);
    }
    put(c, in->opcode);
    if (in->flags & INSN_HAS_MODRM)
        put(c, (f->mem ? 0 : 0xc0) | (f->reg & 7) << 3 | (rm & 7));
    if (f->imm)
        put(c, f->imm8);
    c->fop = (uint16_t)((in->opcode & 7) << 8 | (f->mem ? 0 : 0xc0) | (f->reg & 7) << 3 | (rm & 7));
}

static bool is_pcmpestr(unsigned op)
{
    return op == OP_PCMPESTRI || op == OP_PCMPESTRM || op == OP_VPCMPESTRI || op == OP_VPCMPESTRM;
}
static bool returns_in_ecx(unsigned op)
{
    return op == OP_PCMPESTRI || op == OP_PCMPISTRI || op == OP_VPCMPESTRI || op == OP_VPCMPISTRI;
}
static bool returns_in_xmm0(unsigned op)
{
    return op == OP_PCMPESTRM || op == OP_PCMPISTRM || op == OP_VPCMPESTRM || op == OP_VPCMPISTRM;
}

/* Whole registers always: one may be named twice with different sizes (VPSRLW ymm1, ymm1, xmm1). */
static void vec_load(struct hostexec_code *c, unsigned reg, enum insn_space space)
{
    if (space == SPACE_EVEX)
        zmm_move(c, 0x10, reg);
    else if (space == SPACE_VEX)
        avx_move(c, 0x10, reg);
    else
        sse_move(c, 0x10, reg);
}

static void vec_store(struct hostexec_code *c, unsigned reg, enum insn_space space)
{
    if (space == SPACE_EVEX) {
        zmm_move(c, 0x11, reg);
    } else if (space == SPACE_VEX) {
        avx_move(c, 0x11, reg);
        clear_upper_half(c, reg);
    } else {
        sse_move(c, 0x11, reg);
    }
}

/* CVTPI2PD and CVTPI2PS from memory touch no MMX state (SDM 2 says so of the former; hosts do so
 * with both). */
uint32_t hostexec_attr(const struct insn *in)
{
    uint32_t attr = insn_info[in->row].attr;
    if ((in->op == OP_CVTPI2PD || in->op == OP_CVTPI2PS) && in->opnd[1].kind == OPND_MEM)
        attr &= ~(uint32_t)IA_MMX;
    return attr;
}

void hostexec_generate(struct hostexec_code *c, const struct insn *in, unsigned mode)
{
    const struct insn_info *info = &insn_info[in->row];
    uint32_t attr = hostexec_attr(in);
    enum insn_space space = (enum insn_space)insn_enc[in->row].space;
    bool fx = attr & (IA_X87 | IA_MMX);
    bool fp_exc = attr & IA_FP_EXC;
    struct fields f = { 0 };
    c->len = 0;
    collect(&f, in);
    if (fx)
        fx64(c, 1);
    for (unsigned i = 0; i < in->nopnd; i++) { /* an opmask keeps part of the destination */
        const struct opnd *o = &in->opnd[i];
        if (o->kind == OPND_VEC && ((o->access & OPND_R) || in->evex_aaa != 0))
            vec_load(c, o->reg, space);
        else if (o->kind == OPND_K && (o->access & OPND_R))
            k_move(c, 0x90, o->reg);
    }
    if (in->evex_aaa != 0)
        k_move(c, 0x90, in->evex_aaa);
    if (is_pcmpestr(in->op)) {
        gpr_load(c, H_RAX, R_AX);
        gpr_load(c, H_RDX, R_DX);
    }
    if (f.reg_gpr != NO_GPR)
        gpr_load(c, H_RAX, f.reg_gpr);
    if (f.rm_gpr != NO_GPR)
        gpr_load(c, H_RCX, f.rm_gpr);
    if (info->flags_read) { /* push [r8 + flags]; popfq */
        put(c, 0x41);
        put(c, 0xff);
        put_mem(c, 6, H_R8, IO_OFFSET(flags));
        put(c, 0x9d);
    }
    if (fp_exc)
        ldmxcsr(c, H_RDI, MXCSR_OFFSET);
    put_instruction(c, in, &f, mode);
    if (fp_exc) {
        stmxcsr(c, H_RDI, MXCSR_OFFSET);
        ldmxcsr(c, H_R8, IO_OFFSET(host_mxcsr));
    }
    if (info->flags_written) { /* pushfq; pop [r8 + flags] */
        put(c, 0x9c);
        put(c, 0x41);
        put(c, 0x8f);
        put_mem(c, 0, H_R8, IO_OFFSET(flags));
    }
    if (f.reg_gpr_written)
        gpr_store(c, H_RAX, f.reg_gpr);
    if (f.rm_gpr_written)
        gpr_store(c, H_RCX, f.rm_gpr);
    if (returns_in_ecx(in->op))
        gpr_store(c, H_RCX, R_CX);
    for (unsigned i = 0; i < in->nopnd; i++) {
        const struct opnd *o = &in->opnd[i];
        if (o->kind == OPND_VEC && (o->access & OPND_W))
            vec_store(c, o->reg, space);
        else if (o->kind == OPND_K && (o->access & OPND_W))
            k_move(c, 0x91, o->reg);
    }
    if (returns_in_xmm0(in->op))
        vec_store(c, 0, space);
    if (fx) {
        fx64(c, 0);
        fninit(c);
    }
    if (space != SPACE_LEGACY)
        vzeroupper(c);
    put(c, 0x31); /* xor eax, eax */
    put(c, 0xc0);
    ret(c);
}

void hostexec_generate_exits(uint8_t *out)
{
    struct hostexec_code c = { .len = 0 };
    stmxcsr(&c, H_RDI, MXCSR_OFFSET);
    ldmxcsr(&c, H_R8, IO_OFFSET(host_mxcsr));
    fninit(&c);
    if (__builtin_cpu_supports("avx"))
        vzeroupper(&c);
    ret(&c);
    assert(c.len <= HOSTEXEC_EXIT_X87 - HOSTEXEC_EXIT_SIMD);
    memcpy(out + HOSTEXEC_EXIT_SIMD, c.bytes, c.len);
    c.len = 0;
    fninit(&c);
    ret(&c);
    memcpy(out + HOSTEXEC_EXIT_X87, c.bytes, c.len);
}
