/* SPDX-License-Identifier: Apache-2.0
 *
 * Disassembler: struct insn as text in Intel syntax, in the style of binutils' `objdump -M intel`,
 * with which the tests compare it.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cpu/decode_tables.h"

struct text {
    char *buf;
    size_t size;
    size_t len; /* may exceed size: what would have been written */
};

__attribute__((format(printf, 2, 3))) static void put(struct text *t, const char *fmt, ...)
{
    char *at = t->len < t->size ? t->buf + t->len : NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(at, at ? t->size - t->len : 0, fmt, ap);
    va_end(ap);
    if (n > 0)
        t->len += (size_t)n;
}

static const char *const cc_name[16] = { "o", "no", "b",  "ae", "e", "ne", "be", "a",
                                         "s", "ns", "p",  "np", "l", "ge", "le", "g" };
static const char *const seg_name[6] = { "es", "cs", "ss", "ds", "fs", "gs" };

static void put_gpr(struct text *t, unsigned reg, unsigned size)
{
    static const char name[8][3] = { "ax", "cx", "dx", "bx", "sp", "bp", "si", "di" };
    static const char low[20][4] = { "al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil",
                                     "",   "",   "",   "",   "",    "",    "",    "",
                                     "ah", "ch", "dh", "bh" };
    if (reg >= 16 || (size == 1 && reg < 8))
        put(t, "%s", low[reg % 20]);
    else if (reg >= 8)
        put(t, "r%u%s", reg, size == 8 ? "" : size == 4 ? "d" : size == 2 ? "w" : "b");
    else
        put(t, "%s%s", size == 8 ? "r" : size == 4 ? "e" : "", name[reg]);
}

static const char *pointer_name(const struct insn *in, const struct opnd *o)
{
    if (o->access == 0 && in->op != OP_NOP && in->op != OP_UD1 && in->op != OP_UD0 &&
        in->op != OP_CLFLUSH && in->op != OP_CLFLUSHOPT && in->op != OP_CLWB &&
        in->op != OP_INVLPG)
        return "";
    if (insn_row[in->row].opnd[o - in->opnd].how == OH_O)
        return "";
    switch (o->size) {
    case 1:
        return "BYTE PTR ";
    case 2:
        return "WORD PTR ";
    case 4:
        return "DWORD PTR ";
    case 6:
        return "FWORD PTR ";
    case 8:
        return "QWORD PTR ";
    case 10:
        return "TBYTE PTR ";
    case 16:
        return insn_info[in->row].attr & IA_LOCKABLE ? "OWORD PTR " : "XMMWORD PTR ";
    case 32:
        return "YMMWORD PTR ";
    case 64:
        return "ZMMWORD PTR ";
    default:
        return "";
    }
}

/* Bytes of the index vector register of a VSIB operand: gathers by dword have 4-byte indices. */
static unsigned vsib_index_size(const struct insn *in, unsigned elem)
{
    unsigned vl = in->flags & INSN_EVEX ? 16u << (in->evex_b_z_ll >> 2)
                                        : (in->flags & INSN_VEX_L ? 32 : 16);
    bool qword_index = in->opcode & 1;
    if (qword_index || elem == 4)
        return vl;
    return vl / 2 < 16 ? 16 : vl / 2;
}

static void put_hex(struct text *t, int64_t v)
{
    if (v < 0)
        put(t, "-%#" PRIx64, -(uint64_t)v);
    else
        put(t, v ? "+%#" PRIx64 : "+0x%" PRIx64, (uint64_t)v);
}

static void put_address(struct text *t, const struct insn *in, const struct opnd *o)
{
    const struct insn_mem *m = &in->mem;
    if (m->base == INSN_NO_REG && m->index == INSN_NO_REG) {
        uint64_t mask = in->adsize == 2 ? 0xffff : in->adsize == 4 ? 0xffffffff : ~0ull;
        put(t, "%s:0x%" PRIx64, seg_name[m->seg], (uint64_t)m->disp & mask);
        return;
    }
    if (in->flags & INSN_SEG_OVR)
        put(t, "%s:", seg_name[m->seg]);
    put(t, "[");
    if (m->base == INSN_REG_RIP)
        put(t, "%s", in->adsize == 4 ? "eip" : "rip");
    else if (m->base != INSN_NO_REG)
        put_gpr(t, m->base, in->adsize);
    if (m->index != INSN_NO_REG) {
        if (m->base != INSN_NO_REG)
            put(t, "+");
        if (insn_info[in->row].attr & IA_VSIB) {
            unsigned vs = vsib_index_size(in, o->size);
            put(t, "%cmm%u", vs == 64 ? 'z' : vs == 32 ? 'y' : 'x', m->index);
        } else {
            put_gpr(t, m->index, in->adsize);
        }
        if (in->adsize != 2)
            put(t, "*%u", 1u << m->scale);
    }
    bool no_base = m->base == INSN_NO_REG;
    if (m->base == INSN_REG_RIP)
        put(t, "+0x%" PRIx64, (uint64_t)m->disp);
    else if (no_base || m->disp ||
        ((in->flags & INSN_HAS_MODRM) && in->modrm >> 6))
        put_hex(t, m->disp);
    put(t, "]");
}

/* The rSI or rDI side of a string instruction. */
static void put_string_side(struct text *t, const struct insn *in, const struct opnd *o,
                            unsigned how)
{
    put(t, "%s%s:[", pointer_name(in, o), how == OH_Y ? "es" : seg_name[in->mem.seg]);
    put_gpr(t, how == OH_Y ? 7 : 6, in->adsize);
    put(t, "]");
}

static void put_imm(struct text *t, const struct insn *in, unsigned i)
{
    const struct opnd *o = &in->opnd[i];
    int64_t v = i > 0 && in->opnd[i - 1].kind == OPND_IMM ? in->imm2 : in->imm;
    unsigned size = in->nopnd > 1 && i > 0 && in->opnd[0].kind != OPND_VEC ? in->opnd[0].size : 0;
    if (in->op == OP_PUSH)
        size = in->opsize;
    if (o->size == 1 && insn_row[in->row].opnd[i].how == OH_I)
        size = 1;
    uint64_t mask = size == 1 ? 0xff : size == 2 ? 0xffff : size == 4 ? 0xffffffff : ~0ull;
    if (insn_row[in->row].opnd[i].how == OH_ONE)
        put(t, "1");
    else
        put(t, "0x%" PRIx64, (uint64_t)v & mask);
}

static void put_rel(struct text *t, const struct insn *in, uint64_t ip)
{
    uint64_t target = ip + in->len + (uint64_t)in->imm;
    if (in->opsize == 2)
        target &= 0xffff;
    else if (in->opsize == 4)
        target &= 0xffffffff;
    put(t, "0x%" PRIx64, target);
}

static void put_operand(struct text *t, const struct insn *in, unsigned i, uint64_t ip)
{
    const struct opnd *o = &in->opnd[i];
    unsigned how = insn_row[in->row].opnd[i].how;
    switch ((enum opnd_kind)o->kind) {
    case OPND_GPR:
        put_gpr(t, o->reg, o->size);
        break;
    case OPND_MEM:
        if (how == OH_X || how == OH_Y) {
            put_string_side(t, in, o, how);
            break;
        }
        if (how == OH_MEM_BX) {
            put(t, "BYTE PTR %s:[", seg_name[in->mem.seg]);
            put_gpr(t, in->mem.base, in->adsize);
            put(t, "]");
            break;
        }
        if (in->evex_b_z_ll & 1)
            put(t, "%s BCST ", o->size == 4 ? "DWORD" : "QWORD");
        else
            put(t, "%s", pointer_name(in, o));
        put_address(t, in, o);
        break;
    case OPND_IMM:
        put_imm(t, in, i);
        break;
    case OPND_REL:
        put_rel(t, in, ip);
        break;
    case OPND_SREG:
        put(t, "%s", seg_name[o->reg]);
        break;
    case OPND_CREG:
        put(t, "cr%u", o->reg);
        break;
    case OPND_DREG:
        put(t, "dr%u", o->reg);
        break;
    case OPND_ST:
        if (how == OH_FIX_ST)
            put(t, "st");
        else
            put(t, "st(%u)", o->reg);
        break;
    case OPND_MM:
        put(t, "mm%u", o->reg);
        break;
    case OPND_VEC:
        put(t, "%cmm%u", o->size == 64 ? 'z' : o->size == 32 ? 'y' : 'x', o->reg);
        break;
    case OPND_K:
        put(t, "k%u", o->reg);
        break;
    case OPND_BND:
        put(t, "bnd%u", o->reg);
        break;
    case OPND_FAR:
        put(t, "0x%x:0x%" PRIx64, in->imm2, (uint64_t)in->imm);
        break;
    case OPND_NONE:
        break;
    }
    if (i == 0 && (in->flags & INSN_EVEX)) {
        if (in->evex_aaa)
            put(t, "{k%u}", in->evex_aaa);
        if (in->evex_b_z_ll & 2)
            put(t, "{z}");
    }
}

/* Names that depend on operand or address size. */
static const char *sized_name(const struct insn *in)
{
    static const char *const cbw[3] = { "cbw", "cwde", "cdqe" };
    static const char *const cwd[3] = { "cwd", "cdq", "cqo" };
    static const char *const jcxz[3] = { "jcxz", "jecxz", "jrcxz" };
    unsigned log_op = in->opsize == 8 ? 2 : in->opsize == 4;
    switch (in->op) {
    case OP_CBW:
        return cbw[log_op];
    case OP_CWD:
        return cwd[log_op];
    case OP_JCXZ:
        return jcxz[in->adsize == 8 ? 2 : in->adsize == 4];
    case OP_MOV:
        if ((in->opcode & 0xf8) == 0xb8 && in->map == 0 && in->opsize == 8)
            return "movabs";
        if ((in->opcode & 0xfc) == 0xa0 && in->map == 0 && in->adsize == 8)
            return "movabs";
        return NULL;
    default:
        return NULL;
    }
}

static void put_mnemonic(struct text *t, const struct insn *in)
{
    const struct insn_info *info = &insn_info[in->row];
    bool compares = in->op == OP_CMPS || in->op == OP_SCAS;
    if (in->flags & INSN_LOCK)
        put(t, "lock ");
    if ((info->attr & IA_STRING) && (in->flags & INSN_REP))
        put(t, compares ? "repz " : "rep ");
    else if ((info->attr & IA_STRING) && (in->flags & INSN_REPNE))
        put(t, "repnz ");
    const char *name = sized_name(in);
    put(t, "%s", name ? name : info->mnemonic);
    if (in->op == OP_JCC || in->op == OP_SETCC || in->op == OP_CMOVCC)
        put(t, "%s", cc_name[in->cc]);
    /* 64-bit forms of the save-area instructions and far returns have their own names. */
    if ((in->flags & INSN_W) && (in->op == OP_IRET || in->op == OP_RETF || in->op == OP_SYSRET ||
                                 in->op == OP_SYSEXIT))
        put(t, "q");
    if ((in->flags & INSN_W) &&
        (in->op == OP_FXSAVE || in->op == OP_FXRSTOR || in->op == OP_XSAVE || in->op == OP_XRSTOR ||
         in->op == OP_XSAVEC || in->op == OP_XSAVEOPT || in->op == OP_XSAVES ||
         in->op == OP_XRSTORS))
        put(t, "64");
}

/* Static rounding or suppressed exceptions: written before an immediate. */
static void put_rounding(struct text *t, const struct insn *in)
{
    static const char *const name[4] = { "rn", "rd", "ru", "rz" };
    if (insn_row[in->row].flags & RD_EVEX_ER)
        put(t, ",{%s-sae}", name[in->evex_b_z_ll >> 2]);
    else
        put(t, ",{sae}");
}

size_t insn_format(char *buf, size_t size, const struct insn *in, uint64_t ip)
{
    struct text t = { .buf = buf, .size = size };
    if (size > 0)
        buf[0] = 0;
    put_mnemonic(&t, in);
    bool rounding = (in->evex_b_z_ll & 1) && in->modrm >= 0xc0;
    for (unsigned i = 0; i < in->nopnd; i++) {
        unsigned how = insn_row[in->row].opnd[i].how;
        if (rounding && in->opnd[i].kind == OPND_IMM) {
            put_rounding(&t, in);
            rounding = false;
        }
        if (how == OH_MEM_DI || how == OH_MEM_AX) /* not written in assembly language */
            continue;
        put(&t, i ? "," : " ");
        put_operand(&t, in, i, ip);
    }
    if (rounding)
        put_rounding(&t, in);
    return t.len;
}
