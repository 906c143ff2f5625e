/* SPDX-License-Identifier: Apache-2.0
 *
 * The few privileged and flag instructions that kernels execute all the time, without a helper:
 * CLI STI PUSHF SWAPGS STAC CLAC at CPL 0 in 64-bit mode.
 */
#include "engine/bt/translate.h"

static void rflags_op(struct translation *t, unsigned ext, uint32_t imm)
{
    struct emit *e = &t->e;
    emit_xg(e, 0x81, ext, CPU_OFF(rflags)); /* op dword [rflags], imm32 */
    emit4(e, imm);
}
#define OP_OR_EXT 1u
#define OP_AND_EXT 4u

/* The instruction after STI runs before interrupts are looked at again: it is in this block. An
 * interrupt that was put aside while they were masked is for the helper. */
static bool sti(struct translation *t)
{
    struct emit *e = &t->e;
    if (t->i + 1 >= t->count)
        return false;
    uint32_t site = bt_site_new(t);
    bt_flags_release(t);
    emit_xg(e, 0x80, 7, HOT_OFF(intr_deferred)); /* cmp byte [intr_deferred], 0 */
    emit1(e, 0);
    bt_cold_new(t, COLD_HELPER, emit_jcc_fwd(e, CC_NE))->site = site;
    rflags_op(t, OP_OR_EXT, (uint32_t)FLAG_IF);
    bt_site_end(t, site);
    return true;
}

static void load_byte(struct emit *e, unsigned reg, int32_t at)
{
    emit_rex(e, false, reg, 0, 0); /* movzx reg, byte [at] */
    emit1(e, 0x0f);
    emit_xg(e, 0xb6, reg, at);
}

/* RFLAGS as PUSHF shows it, into bt_hot.tmp2. */
static void whole_rflags(struct translation *t)
{
    struct emit *e = &t->e;
    t->in_t0 = NULL;
    load_byte(e, T1, HOT_OFF(flags));
    emit_rr(e, 0xc1, false, 4, T1); /* shl T1d, 11: OF */
    emit1(e, 11);
    load_byte(e, T0, HOT_OFF(flags) + 1);
    emit_ri(e, 4, false, T0, 0xd5);
    emit_rr(e, 0x09, false, T0, T1);
    emit_rg(e, 0x8b, false, T0, CPU_OFF(rflags));
    emit_ri(e, 4, false, T0, (int32_t) ~(uint32_t)(FLAGS_ARITH | FLAG_RF | FLAG_VM));
    emit_rr(e, 0x09, false, T0, T1);
    emit_rg(e, 0x89, true, T1, HOT_OFF(tmp2));
}

static bool pushf(struct translation *t, const struct insn *in)
{
    if (in->opsize != 8)
        return false;
    uint32_t site = bt_site_new(t);
    bt_flags_save(t);
    t->flags = FLAGS_MEM;
    whole_rflags(t);
    bt_emit_push_tmp2(t, site);
    return true;
}

static void swapgs(struct translation *t)
{
    struct emit *e = &t->e;
    int32_t gs = CPU_OFF(seg[SEG_GS].base);
    emit_rg(e, 0x8b, true, T0, gs);
    emit_rg(e, 0x8b, true, T1, CPU_OFF(kernel_gs_base));
    emit_rg(e, 0x89, true, T1, gs);
    emit_rg(e, 0x89, true, T0, CPU_OFF(kernel_gs_base));
}

/* Only what cpu_update_mode would do for AC at CPL 0: another view of memory. */
static void set_ac(struct translation *t, bool on)
{
    struct emit *e = &t->e;
    unsigned view = on || !(t->mode & BT_MODE_SMAP) ? TLB_VIEW_SUPER : TLB_VIEW_SUPER_SMAP;
    bt_flags_release(t);
    bt_groups_end(t);
    rflags_op(t, on ? OP_OR_EXT : OP_AND_EXT, on ? (uint32_t)FLAG_AC : ~(uint32_t)FLAG_AC);
    emit_rg(e, 0x8b, true, T0, CPU_OFF(tlb_view) + (int32_t)(view * sizeof(struct tlb_entry *)));
    emit_rg(e, 0x89, true, T0, CPU_OFF(tlb));
    emit_xg(e, 0xc6, 0, CPU_OFF(view)); /* mov byte [view], imm8 */
    emit1(e, (uint8_t)view);
    if (!on) { /* it may have been a user page */
        emit_mov_imm(e, T0, BT_NO_STACK);
        emit_rg(e, 0x89, true, T0, HOT_OFF(stack_page));
        emit_rg(e, 0x8b, true, T0, HOT_OFF(no_stack_addend));
        emit_rg(e, 0x89, true, T0, HOT_OFF(stack_addend));
    }
}

bool bt_system_op(uint32_t mode, const struct insn *in)
{
    if ((mode & BT_MODE_WIDTH) != INSN_MODE_64)
        return false;
    switch (in->op) {
    case OP_PUSHF:
        return true;
    case OP_CLI:
    case OP_STI:
    case OP_SWAPGS:
    case OP_STAC:
    case OP_CLAC:
        return !(mode & (BT_MODE_USER | BT_MODE_RING12));
    default:
        return false;
    }
}

bool bt_emit_system(struct translation *t)
{
    const struct insn *in = &t->insn[t->i];
    if (!bt_system_op(t->mode, in))
        return false;
    switch (in->op) {
    case OP_CLI:
        bt_flags_release(t);
        rflags_op(t, OP_AND_EXT, ~(uint32_t)FLAG_IF);
        return true;
    case OP_STI:
        return sti(t);
    case OP_PUSHF:
        return pushf(t, in);
    case OP_SWAPGS:
        swapgs(t);
        return true;
    default:
        set_ac(t, in->op == OP_STAC);
        return true;
    }
}
