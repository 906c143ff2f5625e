/* SPDX-License-Identifier: Apache-2.0
 *
 * The few pieces of host code that every block shares: getting in and out of translated code, and
 * calling C from it. Made once, at the start of the code cache.
 *
 * RSP points into struct cpu while translated code runs (reg.h). A stub that was called finds its
 * return address just below and steps over it first, so that fields have their usual places; it
 * stays where it is. C code runs on the thread's own stack.
 */
#include "base/bits.h"
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

/* Blocks want to know where they are. */
static void reload_for_landing(struct emit *e)
{
    reload(e);
    emit_rg(e, 0x8b, true, T1, CPU_OFF(rip));
}

/* A called stub begins and ends so. */
static void step_over_return(struct emit *e)
{
    emit_lea(e, true, H_SP, (struct host_mem){ H_SP, H_NONE, 0, 8 });
}

static void return_from_stub(struct emit *e)
{
    emit_lea(e, true, H_SP, (struct host_mem){ H_SP, H_NONE, 0, -8 });
    emit1(e, 0xc3);
}

/* fn(cpu, ...): the other arguments are in place. Expects spilled registers; destroys rbp. */
static void call_c(struct emit *e, uintptr_t fn)
{
    emit_lea(e, true, H_DI, cpu_mem(-BT_ANCHOR));
    emit_mov_rr(e, true, H_BP, H_SP);
    emit_rg(e, 0x8b, true, H_SP, HOT_OFF(host_rsp));
    emit_mov_imm(e, H_AX, fn);
    emit1(e, 0xff); /* call rax */
    emit1(e, 0xd0);
    emit_mov_rr(e, true, H_SP, H_BP);
}

/* Back to C with rax as the result. */
static void epilogue(struct emit *e)
{
    emit_rg(e, 0x8b, true, H_SP, HOT_OFF(host_rsp));
    emit_ri(e, 0, true, H_SP, 8);
    for (unsigned i = 6; i-- > 0;)
        pop(e, callee_saved[i]);
    emit1(e, 0xc3);
}

static void jump_resume(struct emit *e) { emit_xg(e, 0xff, 4, HOT_OFF(resume)); }

/* Flags from bt_hot.flags to the host's; destroys rax. */
static void flags_to_host(struct emit *e)
{
    emit1(e, 0x0f); /* movzx eax, word [flags] */
    emit_xg(e, 0xb7, H_AX, HOT_OFF(flags));
    emit1(e, 0x04); /* add al, 0x7f: OF */
    emit1(e, 0x7f);
    emit1(e, 0x9e); /* sahf */
}

/* Vector registers and MXCSR of the struct cpu at rdi. */
static void vectors(struct bt *bt, struct emit *e, bool load)
{
    unsigned count = bt->host_avx512 ? 32 : 16;
    for (unsigned i = 0; i < count; i++) {
        int32_t off = (int32_t)(offsetof(struct cpu, fpu.zmm) + i * sizeof(union cpu_vec));
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
        emit_modrm_mem(e, i, (struct host_mem){ H_DI, H_NONE, 0, off });
    }
    for (unsigned i = 0; bt->host_avx512 && i < 8; i++) { /* kmovq */
        emit1(e, 0xc4);
        emit1(e, 0xe1);
        emit1(e, 0xf8);
        emit1(e, load ? 0x90 : 0x91);
        emit_modrm_mem(
            e, i,
            (struct host_mem){ H_DI, H_NONE, 0, (int32_t)(offsetof(struct cpu, fpu.k) + i * 8) });
    }
}

/* Past displacements that EVEX would scale. */
_Static_assert(offsetof(struct cpu, fpu.zmm) > 127, "32-bit displacement");

static void mxcsr(struct emit *e, unsigned ext, size_t off)
{
    emit1(e, 0x0f);
    emit1(e, 0xae);
    emit_modrm_mem(e, ext, (struct host_mem){ H_DI, H_NONE, 0, (int32_t)off });
}
#define LDMXCSR 2u
#define STMXCSR 3u
#define HOT(member) (offsetof(struct cpu, engine_hot) + offsetof(struct bt_hot, member))

static void set_fp_loaded(struct emit *e, uint8_t v)
{
    emit1(e, 0xc6); /* mov byte [rdi + fp_loaded], v */
    emit_modrm_mem(e, 0, (struct host_mem){ H_DI, H_NONE, 0, (int32_t)HOT(fp_loaded) });
    emit1(e, v);
}

/* void (struct cpu *), all other general registers kept */
static void make_fp_load_c(struct bt *bt, struct emit *e)
{
    vectors(bt, e, true);
    mxcsr(e, LDMXCSR, offsetof(struct cpu, fpu.fx) + FX_MXCSR);
    set_fp_loaded(e, 1);
    emit1(e, 0xc3);
}

/* Called from translated code. */
static void make_fp_load(struct bt *bt, struct emit *e)
{
    step_over_return(e);
    emit_rg(e, 0x89, true, H_DI, HOT_OFF(tmp));
    emit_lea(e, true, H_DI, cpu_mem(-BT_ANCHOR));
    vectors(bt, e, true);
    mxcsr(e, LDMXCSR, offsetof(struct cpu, fpu.fx) + FX_MXCSR);
    set_fp_loaded(e, 1);
    emit_rg(e, 0x8b, true, H_DI, HOT_OFF(tmp));
    return_from_stub(e);
}

/* void (struct cpu *) */
static void make_fp_save(struct bt *bt, struct emit *e)
{
    vectors(bt, e, false);
    mxcsr(e, STMXCSR, offsetof(struct cpu, fpu.fx) + FX_MXCSR);
    mxcsr(e, LDMXCSR, HOT(host_mxcsr));
    set_fp_loaded(e, 0);
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
    emit_rm(e, 0x89, true, H_SP, (struct host_mem){ H_DI, H_NONE, 0, (int32_t)HOT(host_rsp) });
    emit_lea(e, true, H_SP, (struct host_mem){ H_DI, H_NONE, 0, BT_ANCHOR });
    emit_mov_rr(e, true, T0, H_SI);
    reload_for_landing(e);
    emit_rr(e, 0xff, false, 4, T0); /* jmp r14 */
}

static void make_leave(struct emit *e)
{
    spill(e);
    emit_mov_rr(e, false, H_AX, T0);
    epilogue(e);
}

/* -- Where a linear address is in the code cache ----------------------------------------------- */

/* T1: rip, and stays so. Falls through with the code in T0 when the jump cache has it; else to
 * `miss`, bound by the caller. Destroys flags. */
static void look_up(struct emit *e, uint8_t *miss[2])
{
    struct host_mem va = { T0, H_NONE, 0, (int32_t)offsetof(struct bt_jump, va) };
    struct host_mem key = { T0, H_NONE, 0, (int32_t)offsetof(struct bt_jump, key) };
    struct host_mem code = { T0, H_NONE, 0, (int32_t)offsetof(struct bt_jump, code) };
    emit_mov_rr(e, true, T0, T1);
    emit_rr(e, 0xc1, true, 5, T0); /* shr T0, 12 */
    emit1(e, GMEM_PAGE_BITS);
    emit_rr(e, 0x31, false, T1, T0); /* xor T0d, T1d */
    emit_ri(e, 4, false, T0, BT_JUMP_SIZE - 1);
    emit_rr(e, 0xc1, false, 4, T0); /* shl T0d, 4 */
    emit1(e, 4);
    emit_rg(e, 0x03, true, T0, HOT_OFF(jump_cache));
    emit_rm(e, 0x3b, true, T1, va);
    miss[0] = emit_jcc_fwd(e, CC_NE);
    emit_rg(e, 0x8b, false, T1, HOT_OFF(key));
    emit_rm(e, 0x3b, false, T1, key);
    emit_rm(e, 0x8b, true, T1, va);
    miss[1] = emit_jcc_fwd(e, CC_NE);
    emit_rm(e, 0x8b, false, T0, code);
    emit_rg(e, 0x03, true, T0, HOT_OFF(exec));
}
_Static_assert(sizeof(struct bt_jump) == 16, "index shift");

/* T1: rip. The code in T0, registers as they were; falls through spilled when there is none. */
static uint8_t *find_in_c(struct emit *e)
{
    emit_rg(e, 0x89, true, T1, CPU_OFF(rip));
    spill(e);
    emit_mov_rr(e, true, H_SI, T1);
    call_c(e, (uintptr_t)bt_find_code);
    emit_mov_rr(e, true, T0, H_AX);
    emit_rr(e, 0x85, true, H_AX, H_AX);
    return emit_jcc_fwd(e, CC_NE);
}

static void make_lookup(struct emit *e)
{
    uint8_t *miss[2];
    step_over_return(e);
    look_up(e, miss);
    return_from_stub(e);
    emit_bind(e, miss[0]);
    emit_bind(e, miss[1]);
    uint8_t *found = find_in_c(e);
    emit_rg(e, 0x8b, true, H_AX, -8); /* the return address, */
    emit_rm(e, 0x8b, false, H_AX, (struct host_mem){ H_AX, H_NONE, 0, 3 }); /* and the site */
    emit_rr(e, 0xc1, true, 4, H_AX);                                        /* shl rax, 32 */
    emit1(e, 32);
    epilogue(e);
    emit_bind(e, found);
    reload_for_landing(e);
    return_from_stub(e);
}

static void make_go(struct emit *e)
{
    uint8_t *miss[2];
    look_up(e, miss);
    emit_rr(e, 0xff, false, 4, T0); /* jmp r14 */
    emit_bind(e, miss[0]);
    emit_bind(e, miss[1]);
    uint8_t *found = find_in_c(e);
    emit_mov_imm(e, H_AX, BT_EXIT_INDIRECT);
    epilogue(e);
    emit_bind(e, found);
    reload_for_landing(e);
    emit_rr(e, 0xff, false, 4, T0);
}

/* -- C, for what translated code cannot do ----------------------------------------------------- */

/* The helper took the state: leave for good, or take it back. T0: site. Expects spilled registers.
 * Falls through when translated code goes on. */
static void helper_call(struct emit *e)
{
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
    step_over_return(e);
    spill(e);
    helper_call(e);
    emit_rr(e, 0x85, false, H_AX, H_AX);
    uint8_t *elsewhere = emit_jcc_fwd(e, CC_NE);
    reload(e);
    return_from_stub(e);
    emit_bind(e, elsewhere); /* not back to the caller */
    reload_for_landing(e);
    jump_resume(e);
}

/* T0: site, T1: address. On a hit returns the addend in T0; otherwise the instruction is done by
 * its helper and control goes to site->resume, flags in the host's. */
static void fill(struct emit *e)
{
    spill(e);
    emit_mov_rr(e, true, H_BX, T0);
    emit_mov_rr(e, true, H_SI, T1);
    emit_mov_rr(e, false, H_DX, T0);
    call_c(e, (uintptr_t)bt_fill);
    emit_mov_rr(e, true, T0, H_AX);
    emit_rr(e, 0x85, false, H_DX, H_DX);
    uint8_t *slow = emit_jcc_fwd(e, CC_E);
    reload(e);
    return_from_stub(e);
    emit_bind(e, slow);
    emit_mov_rr(e, false, T0, H_BX);
    helper_call(e);
    flags_to_host(e);
    reload_for_landing(e); /* or to the next instruction, which does not care */
    jump_resume(e);
}

static void make_fill(struct emit *e)
{
    step_over_return(e);
    fill(e);
}

/* T1: address; rax is in bt_hot.tmp. Its page becomes the stack page when the TLB has it for
 * writing, and the stub returns with the addend in T0. Otherwise, through the jump returned, T1 is
 * the page and rax its TLB entry. */
static uint8_t *stack_from_tlb(struct emit *e)
{
    struct host_mem entry = { H_AX, H_NONE, 0, (int32_t)offsetof(struct tlb_entry, tag_write) };
    emit_mov_rr(e, true, H_AX, T1);
    emit_rr(e, 0xc1, true, 5, H_AX); /* shr rax, 7 */
    emit1(e, 7);
    emit_ri(e, 4, false, H_AX, (CPU_TLB_SIZE - 1) * (int32_t)sizeof(struct tlb_entry));
    emit_ri(e, 4, true, T1, -4096);
    emit_rg(e, 0x03, true, H_AX, CPU_OFF(tlb));
    emit_rm(e, 0x3b, true, T1, entry);
    uint8_t *not_writable = emit_jcc_fwd(e, CC_NE);
    entry.disp = (int32_t)offsetof(struct tlb_entry, addend);
    emit_rm(e, 0x8b, true, T0, entry);
    emit_rg(e, 0x89, true, T0, HOT_OFF(stack_addend));
    emit_rg(e, 0x89, true, T1, HOT_OFF(stack_page));
    emit_rg(e, 0x8b, true, H_AX, HOT_OFF(tmp));
    return_from_stub(e);
    return not_writable;
}

/* T0: site, T1: address of a stack access. The page is in the TLB, for writing: it becomes the
 * stack page. For reading only: serve this access. Else as make_fill. A misaligned access may
 * cross. */
static void make_stack(struct emit *e)
{
    struct host_mem entry = { H_AX, H_NONE, 0, 0 };
    step_over_return(e);
    emit_rg(e, 0x89, true, H_AX, HOT_OFF(tmp));
    emit_rg(e, 0x89, true, T1, HOT_OFF(resume));
    emit_rr(e, 0xf7, false, 0, T1); /* test T1d, 7 */
    emit4(e, 7);
    uint8_t *unaligned = emit_jcc_fwd(e, CC_NE);
    uint8_t *not_writable = stack_from_tlb(e);
    emit_bind(e, not_writable);
    emit_rr(e, 0x85, false, T0, T0);       /* test T0d, T0d: a write? */
    uint8_t *write = emit_jcc_fwd(e, 0x8); /* js */
    entry.disp = (int32_t)offsetof(struct tlb_entry, tag_read);
    emit_rm(e, 0x3b, true, T1, entry);
    uint8_t *not_readable = emit_jcc_fwd(e, CC_NE);
    entry.disp = (int32_t)offsetof(struct tlb_entry, addend);
    emit_rm(e, 0x8b, true, T0, entry);
    emit_rg(e, 0x8b, true, H_AX, HOT_OFF(tmp));
    return_from_stub(e);
    emit_bind(e, unaligned);
    emit_bind(e, write);
    emit_bind(e, not_readable);
    emit_rg(e, 0x8b, true, T1, HOT_OFF(resume));
    emit_rg(e, 0x8b, true, H_AX, HOT_OFF(tmp));
    fill(e);
}

/* T0: bytes and kind, T1: address. The addend in T0; or none: return behind the jump that follows.
 * */
static void fill_group(struct emit *e)
{
    spill(e);
    emit_mov_rr(e, true, H_SI, T1);
    emit_mov_rr(e, false, H_DX, T0);
    call_c(e, (uintptr_t)bt_fill_group);
    emit_mov_rr(e, true, T0, H_AX);
    emit_rr(e, 0x85, false, H_DX, H_DX);
    uint8_t *none = emit_jcc_fwd(e, CC_E);
    reload(e);
    return_from_stub(e);
    emit_bind(e, none);
    reload(e);
    emit_rex(e, true, 0, 0, 0); /* add qword [rsp - 8], 5 */
    emit_xg(e, 0x83, 0, -8);
    emit1(e, 5);
    return_from_stub(e);
}

static void make_group(struct emit *e)
{
    step_over_return(e);
    fill_group(e);
}

/* Most often the stack has moved to the next page, which the TLB has. */
static void make_group_stack(struct emit *e)
{
    step_over_return(e);
    emit_rg(e, 0x89, true, H_AX, HOT_OFF(tmp));
    emit_mov_rr(e, true, H_AX, T1);
    emit_ri(e, 4, false, H_AX, GMEM_PAGE_SIZE - 1);
    emit_rr(e, 0x01, false, T0, H_AX);
    emit_ri(e, 7, false, H_AX, GMEM_PAGE_SIZE);
    uint8_t *crosses = emit_jcc_fwd(e, CC_A);
    emit_rg(e, 0x89, true, T1, HOT_OFF(resume));
    uint8_t *missing = stack_from_tlb(e);
    emit_bind(e, missing);
    emit_rg(e, 0x8b, true, T1, HOT_OFF(resume));
    emit_bind(e, crosses);
    emit_rg(e, 0x8b, true, H_AX, HOT_OFF(tmp));
    emit_ri(e, 1, false, T0, (int32_t)(BT_SITE_WRITE | BT_GROUP_STACK)); /* or */
    fill_group(e);
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
    STUB(lookup, &e);
    STUB(go, &e);
    STUB(helper, &e);
    STUB(fill, &e);
    STUB(stack, &e);
    STUB(group, &e);
    STUB(group_stack, &e);
    STUB(fp_load, bt, &e);
    STUB(fp_load_c, bt, &e);
    STUB(fp_save, bt, &e);
#undef STUB
    /* Of all code only the stubs know addresses of this process: heirs have pages of their own for
     * them. */
    c->stubs_end = c->used = align_up((size_t)(e.p - c->write), KIB(4));
    c->cold_used = c->cold_first;
}
