/* SPDX-License-Identifier: Apache-2.0
 *
 * The few pieces of host code that every block shares: getting in and out of translated code, and
 * calling C from it. Made once, at the start of the code cache.
 *
 * Stack while translated code runs: RSP is 16-byte aligned; a stub that was called finds its return
 * address there.
 */
#include "engine/bt/bt.h"
#include "engine/bt/reg.h"

static const uint8_t callee_saved[6] = { H_BX, H_BP, H_12, H_13, H_14, H_15 };

static void push(struct emit *e, unsigned reg)
{
    emit_rex(e, false, 0, 0, reg);
    emit1(e, (uint8_t)(0x50 | (reg & 7)));
}

static void pop(struct emit *e, unsigned reg)
{
    emit_rex(e, false, 0, 0, reg);
    emit1(e, (uint8_t)(0x58 | (reg & 7)));
}

static void registers(struct emit *e, uint8_t mov)
{
    for (unsigned g = 0; g < 16; g++) {
        if (host_of(g) != H_NONE)
            emit_rg(e, mov, true, host_of(g), gpr_off(g));
    }
}

static void spill(struct emit *e) { registers(e, 0x89); }
static void reload(struct emit *e) { registers(e, 0x8b); }

static void call_c(struct emit *e, uintptr_t fn)
{
    emit_mov_imm(e, H_AX, fn);
    emit1(e, 0xff); /* call rax */
    emit1(e, 0xd0);
}

/* Back to C with eax as the result. */
static void epilogue(struct emit *e)
{
    emit_rg(e, 0x8b, true, H_SP, HOT_OFF(host_rsp));
    emit_ri(e, 0, true, H_SP, 8);
    for (unsigned i = 6; i-- > 0;)
        pop(e, callee_saved[i]);
    emit1(e, 0xc3);
}

static void jump_resume(struct emit *e)
{
    emit1(e, 0x65); /* jmp gs:[resume] */
    emit1(e, 0xff);
    emit_modrm_mem(e, 4, (struct host_mem){ H_NONE, H_NONE, 0, (int32_t)HOT_OFF(resume) });
}

/* Flags from bt_hot.flags to the host's; destroys rax. */
static void flags_to_host(struct emit *e)
{
    emit1(e, 0x65); /* movzx eax, word gs:[flags] */
    emit1(e, 0x0f);
    emit1(e, 0xb7);
    emit_modrm_mem(e, H_AX, (struct host_mem){ H_NONE, H_NONE, 0, (int32_t)HOT_OFF(flags) });
    emit1(e, 0x04); /* add al, 0x7f: OF */
    emit1(e, 0x7f);
    emit1(e, 0x9e); /* sahf */
}

/* Vector registers and MXCSR: 0x10 loads, 0x11 stores (both MOVUPS family). */
static void vectors(struct bt *bt, struct emit *e, bool load)
{
    unsigned count = bt->host_avx512 ? 32 : 16;
    for (unsigned i = 0; i < count; i++) {
        int32_t off = (int32_t)(offsetof(struct cpu, fpu.zmm) + i * sizeof(union cpu_vec));
        emit1(e, 0x65);
        if (bt->host_avx512) { /* vmovdqu64 zmm */
            emit1(e, 0x62);
            emit1(e, (uint8_t)(0x61 | (i & 8 ? 0 : 0x80) | (i & 16 ? 0 : 0x10)));
            emit1(e, 0xfe);
            emit1(e, 0x48);
            emit1(e, load ? 0x6f : 0x7f);
        } else if (bt->host_avx) { /* vmovdqu ymm */
            emit1(e, 0xc5);
            emit1(e, (uint8_t)((i & 8 ? 0 : 0x80) | 0x7e));
            emit1(e, load ? 0x6f : 0x7f);
        } else {
            emit_rex(e, false, i, 0, 0);
            emit1(e, 0x0f);
            emit1(e, load ? 0x10 : 0x11);
        }
        emit_modrm_mem(e, i, (struct host_mem){ H_NONE, H_NONE, 0, off });
    }
    for (unsigned i = 0; bt->host_avx512 && i < 8; i++) { /* kmovq */
        emit1(e, 0x65);
        emit1(e, 0xc4);
        emit1(e, 0xe1);
        emit1(e, 0xf8);
        emit1(e, load ? 0x90 : 0x91);
        emit_modrm_mem(
            e, i,
            (struct host_mem){ H_NONE, H_NONE, 0, (int32_t)(offsetof(struct cpu, fpu.k) + i * 8) });
    }
}

static void mxcsr(struct emit *e, unsigned ext, uint32_t off)
{
    emit1(e, 0x65);
    emit1(e, 0x0f);
    emit1(e, 0xae);
    emit_modrm_mem(e, ext, (struct host_mem){ H_NONE, H_NONE, 0, (int32_t)off });
}
#define LDMXCSR 2u
#define STMXCSR 3u

static void make_fp_load(struct bt *bt, struct emit *e)
{
    vectors(bt, e, true);
    mxcsr(e, LDMXCSR, (uint32_t)offsetof(struct cpu, fpu.fx) + FX_MXCSR);
    emit1(e, 0x65); /* mov byte gs:[fp_loaded], 1 */
    emit1(e, 0xc6);
    emit_modrm_mem(e, 0, (struct host_mem){ H_NONE, H_NONE, 0, (int32_t)HOT_OFF(fp_loaded) });
    emit1(e, 1);
    emit1(e, 0xc3);
}

/* Called from C with GS set. */
static void make_fp_save(struct bt *bt, struct emit *e)
{
    vectors(bt, e, false);
    mxcsr(e, STMXCSR, (uint32_t)offsetof(struct cpu, fpu.fx) + FX_MXCSR);
    mxcsr(e, LDMXCSR, HOT_OFF(host_mxcsr));
    emit1(e, 0x65);
    emit1(e, 0xc6);
    emit_modrm_mem(e, 0, (struct host_mem){ H_NONE, H_NONE, 0, (int32_t)HOT_OFF(fp_loaded) });
    emit1(e, 0);
    if (bt->host_avx) { /* vzeroupper: C is legacy SSE */
        emit1(e, 0xc5);
        emit1(e, 0xf8);
        emit1(e, 0x77);
    }
    emit1(e, 0xc3);
}

static void make_enter(struct emit *e)
{
    for (unsigned i = 0; i < 6; i++)
        push(e, callee_saved[i]);
    emit_ri(e, 5, true, H_SP, 8);
    emit_rg(e, 0x89, true, H_SP, HOT_OFF(host_rsp));
    emit_mov_rr(e, true, T0, H_SI);
    reload(e);
    emit_rr(e, 0xff, false, 4, T0); /* jmp r14 */
}

static void make_leave(struct emit *e)
{
    spill(e);
    emit_mov_rr(e, false, H_AX, T0);
    epilogue(e);
}

static void make_indirect_miss(struct emit *e)
{
    emit_rg(e, 0x89, true, T1, CPU_OFF(rip));
    spill(e);
    emit_mov_rr(e, true, H_AX, T0);
    emit_rr(e, 0xc1, true, 4, H_AX); /* shl rax, 32 */
    emit1(e, 32);
    epilogue(e);
}

/* The helper took the state: leave for good, or take it back. T0: site. Expects spilled registers
 * and the stack aligned. Falls through when translated code goes on. */
static void helper_call(struct emit *e)
{
    emit_rg(e, 0x8b, true, H_DI, HOT_OFF(self));
    emit_mov_rr(e, false, H_SI, T0);
    call_c(e, (uintptr_t)bt_call_helper);
    emit_ri(e, 7, false, H_AX, 1);
    uint8_t *go_on = emit_jcc_fwd(e, CC_NE);
    emit_mov_imm(e, H_AX, BT_EXIT_STATE);
    epilogue(e);
    emit_bind(e, go_on);
}

static void make_helper(struct emit *e)
{
    spill(e);
    emit_ri(e, 5, true, H_SP, 8);
    helper_call(e);
    emit_ri(e, 0, true, H_SP, 8);
    emit_rr(e, 0x85, false, H_AX, H_AX);
    uint8_t *elsewhere = emit_jcc_fwd(e, CC_NE);
    reload(e);
    emit1(e, 0xc3);
    emit_bind(e, elsewhere);
    emit_ri(e, 0, true, H_SP, 8); /* not back to the caller */
    reload(e);
    jump_resume(e);
}

/* T0: site, T1: address. On a hit returns the addend in T0; otherwise the instruction is done by
 * its helper and control goes to site->resume, flags in the host's. */
static void make_fill(struct emit *e)
{
    spill(e);
    emit_ri(e, 5, true, H_SP, 8);
    emit_mov_rr(e, true, H_BX, T0);
    emit_rg(e, 0x8b, true, H_DI, HOT_OFF(self));
    emit_mov_rr(e, true, H_SI, T1);
    emit_mov_rr(e, false, H_DX, T0);
    call_c(e, (uintptr_t)bt_fill);
    emit_mov_rr(e, true, T0, H_AX);
    emit_rr(e, 0x85, false, H_DX, H_DX);
    uint8_t *slow = emit_jcc_fwd(e, CC_E);
    emit_ri(e, 0, true, H_SP, 8);
    reload(e);
    emit1(e, 0xc3);
    emit_bind(e, slow);
    emit_mov_rr(e, false, T0, H_BX);
    helper_call(e);
    emit_ri(e, 0, true, H_SP, 16); /* the return address too */
    flags_to_host(e);
    reload(e);
    jump_resume(e);
}

/* T0: site, T1: address of a stack access. The page is in the TLB, for writing: it becomes the
 * stack page. For reading only: serve this access. Else as make_fill. A misaligned access may
 * cross. */
static void make_stack(struct bt *bt, struct emit *e)
{
    struct host_mem entry = { H_AX, H_NONE, 0, 0 };
    emit_rg(e, 0x89, true, H_AX, HOT_OFF(tmp));
    emit_rg(e, 0x89, true, T1, HOT_OFF(resume));
    emit_rr(e, 0xf7, false, 0, T1); /* test T1d, 7 */
    emit4(e, 7);
    uint8_t *unaligned = emit_jcc_fwd(e, CC_NE);
    emit_mov_rr(e, true, H_AX, T1);
    emit_rr(e, 0xc1, true, 5, H_AX); /* shr rax, 7 */
    emit1(e, 7);
    emit_ri(e, 4, false, H_AX, (CPU_TLB_SIZE - 1) * (int32_t)sizeof(struct tlb_entry));
    emit_ri(e, 4, true, T1, -4096);
    emit_rg(e, 0x03, true, H_AX, CPU_OFF(tlb));
    entry.disp = (int32_t)offsetof(struct tlb_entry, tag_write);
    emit_rm(e, 0x3b, true, T1, entry);
    uint8_t *not_writable = emit_jcc_fwd(e, CC_NE);
    entry.disp = (int32_t)offsetof(struct tlb_entry, addend);
    emit_rm(e, 0x8b, true, T0, entry);
    emit_rg(e, 0x89, true, T0, HOT_OFF(stack_addend));
    emit_rg(e, 0x89, true, T1, HOT_OFF(stack_page));
    emit_rg(e, 0x8b, true, H_AX, HOT_OFF(tmp));
    emit1(e, 0xc3);
    emit_bind(e, not_writable);
    emit_rr(e, 0x85, false, T0, T0);       /* test T0d, T0d: a write? */
    uint8_t *write = emit_jcc_fwd(e, 0x8); /* js */
    entry.disp = (int32_t)offsetof(struct tlb_entry, tag_read);
    emit_rm(e, 0x3b, true, T1, entry);
    uint8_t *not_readable = emit_jcc_fwd(e, CC_NE);
    entry.disp = (int32_t)offsetof(struct tlb_entry, addend);
    emit_rm(e, 0x8b, true, T0, entry);
    emit_rg(e, 0x8b, true, H_AX, HOT_OFF(tmp));
    emit1(e, 0xc3);
    emit_bind(e, unaligned);
    emit_bind(e, write);
    emit_bind(e, not_readable);
    emit_rg(e, 0x8b, true, T1, HOT_OFF(resume));
    emit_rg(e, 0x8b, true, H_AX, HOT_OFF(tmp));
    emit_jmp(e, bt->stubs.fill);
}

void bt_make_stubs(struct bt *bt)
{
    struct bt_cache *c = &bt->cache;
    struct emit e = { c->write, c->write + c->size, c->exec - c->write };
#define STUB(name, ...)                                                                            \
    while (((uintptr_t)e.p & 15) != 0)                                                             \
        emit1(&e, 0xcc);                                                                           \
    bt->stubs.name = emit_here(&e);                                                                \
    make_##name(__VA_ARGS__)
    STUB(enter, &e);
    STUB(leave, &e);
    STUB(indirect_miss, &e);
    STUB(helper, &e);
    STUB(fill, &e);
    STUB(stack, bt, &e);
    STUB(fp_load, bt, &e);
    STUB(fp_save, bt, &e);
#undef STUB
    c->stubs_end = c->used = (size_t)(e.p - c->write);
}
