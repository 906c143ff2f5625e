/* SPDX-License-Identifier: Apache-2.0
 *
 * Flags of one decoded instruction: the row's columns refined by condition code, REP prefix and
 * shift count.
 */
#include "cpu/insn.h"

#define CF 0x001u
#define PF 0x004u
#define ZF 0x040u
#define SF 0x080u
#define OF 0x800u
#define ARITH 0x8d5u

static uint32_t condition_flags(unsigned cc)
{
    static const uint16_t reads[8] = { OF, CF, ZF, CF | ZF, SF, PF, SF | OF, SF | OF | ZF };
    return reads[cc >> 1];
}

/* The count of a shift or rotate by immediate, masked as the CPU does; -1 when it is in CL. */
static int shift_count(const struct insn *in)
{
    const struct opnd *count = &in->opnd[in->nopnd - 1];
    if (count->kind != OPND_IMM)
        return -1;
    return (int)(in->imm & (in->opnd[0].size == 8 ? 63 : 31));
}

static bool is_rotate(unsigned op)
{
    return op == OP_ROL || op == OP_ROR || op == OP_RCL || op == OP_RCR;
}

static bool is_shift(unsigned op)
{
    return is_rotate(op) || op == OP_SHL || op == OP_SHR || op == OP_SAR || op == OP_SHLD ||
           op == OP_SHRD;
}

/* With REP and a zero count no comparison is made and the flags stay. */
static bool may_compare_nothing(const struct insn *in)
{
    return (in->op == OP_CMPS || in->op == OP_SCAS) && (in->flags & (INSN_REP | INSN_REPNE));
}

uint32_t insn_flags_read(const struct insn *in)
{
    const struct insn_info *info = &insn_info[in->row];
    if (in->op == OP_JCC || in->op == OP_SETCC || in->op == OP_CMOVCC)
        return condition_flags(in->cc);
    if (may_compare_nothing(in))
        return info->flags_read | ARITH;
    if (is_shift(in->op) && shift_count(in) > 0) {
        uint32_t carry = in->op == OP_RCL || in->op == OP_RCR ? CF : 0;
        /* OF after rotating by more than one is undefined; processors keep it */
        return is_rotate(in->op) && shift_count(in) != 1 ? carry | OF : carry;
    }
    return info->flags_read;
}

uint32_t insn_flags_written(const struct insn *in)
{
    const struct insn_info *info = &insn_info[in->row];
    if (is_shift(in->op) && shift_count(in) == 0)
        return 0;
    return info->flags_written | info->flags_undefined;
}
