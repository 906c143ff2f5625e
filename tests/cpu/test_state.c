/* SPDX-License-Identifier: Apache-2.0
 *
 * Saved state of a processor: save, load, save gives the same bytes; contradictory state is
 * refused.
 */
// LAYERS: cpu mem state base
#include "support/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "support/vm.h"

static int set_up(void **state)
{
    struct vm *vm = vm_new(2, NULL);
    vm_mode(vm, 0, 64);
    *state = vm;
    return 0;
}

static int tear_down(void **state)
{
    vm_free(*state);
    return 0;
}

static struct state_out *save(const struct cpu *c)
{
    struct state_out *o = state_out_new();
    state_save(o, "cpu.0", CPU_STATE_VERSION, cpu_state, c);
    return o;
}

static int load(struct cpu *c, struct state_out *o)
{
    struct state_in *in;
    struct err e = { "" };
    size_t len;
    const uint8_t *data = state_out_data(o, &len);
    int r = state_in_new(&in, data, len, &e);
    assert_int_equal(r, 0);
    r = state_load(in, "cpu.0", CPU_STATE_VERSION, cpu_state, c, sizeof *c, &e);
    state_in_free(in);
    return r < 0 ? r : cpu_post_load(c, &e);
}

static void fill(struct cpu *c)
{
    uint64_t seed = 42;
    for (unsigned i = 0; i < 16; i++) {
        c->gpr[i] = test_random(&seed);
    }
    for (unsigned i = 0; i < sizeof c->fpu.zmm; i++) {
        ((uint8_t *)c->fpu.zmm)[i] = (uint8_t)test_random(&seed);
    }
    c->rip = 0xffffffff81234567;
    c->rflags = FLAG_FIXED | FLAG_IF | FLAG_CF | FLAG_OF;
    c->lstar = 0xffffffff81000000;
    c->seg[SEG_GS].base = 0xffff888000000000;
    c->tr.sel = 0x40;
    c->dr[7] = 0x402;
    c->dr[0] = 0x1000;
    c->nmi_blocked = true;
    c->pending_dr6 = 0x4000;
    c->tsc_offset = 12345;
    c->mtrr_fix[10] = 0x0606060606060606;
    c->kvm_system_time = 0x5001;
    c->icount = 99;
    c->activity = CPU_HALTED;
}

static void round_trip(void **state)
{
    struct vm *vm = *state;
    fill(vm->cpu[0]);
    struct state_out *first = save(vm->cpu[0]);
    assert_int_equal(load(vm->cpu[1], first), 0);
    struct state_out *second = save(vm->cpu[1]);
    size_t a, b;
    const uint8_t *p = state_out_data(first, &a), *q = state_out_data(second, &b);
    assert_int_equal(a, b);
    assert_memory_equal(p, q, a);
    assert_int_equal(vm->cpu[1]->mode, INSN_MODE_64);
    assert_true(vm->cpu[1]->events & CPU_EV_TRAP); /* breakpoints and a trap wait */
    assert_int_equal(vm->cpu[1]->index, 1);
    state_out_free(first);
    state_out_free(second);
}

static void refused(struct vm *vm, void (*spoil)(struct cpu *))
{
    struct cpu saved = *vm->cpu[0];
    spoil(vm->cpu[0]);
    struct state_out *o = save(vm->cpu[0]);
    *vm->cpu[0] = saved;
    assert_int_equal(load(vm->cpu[1], o), -EINVAL);
    state_out_free(o);
}

static void paging_without_protection(struct cpu *c) { c->cr0 &= ~CR0_PE; }
static void lma_without_paging(struct cpu *c) { c->cr0 &= ~CR0_PG; }
static void long_without_pae(struct cpu *c) { c->cr4 &= ~CR4_PAE; }
static void long_v86(struct cpu *c) { c->rflags |= FLAG_VM; }
static void pcid_without_long(struct cpu *c)
{
    c->efer = 0;
    c->cr0 &= ~CR0_PG;
    c->cr4 |= CR4_PCIDE;
}
static void bad_xcr0(struct cpu *c) { c->xcr0 = 1ull << 62 | 1; }
static void no_x87(struct cpu *c) { c->xcr0 = 2; }
static void bad_mxcsr(struct cpu *c) { memset(c->fpu.fx + FX_MXCSR, 0xff, 4); }
static void bad_base(struct cpu *c) { c->seg[SEG_FS].base = 1ull << 60; }
static void bad_lstar(struct cpu *c) { c->lstar = 1ull << 60; }
static void bad_pat(struct cpu *c) { c->pat = 0x0202020202020202; }
static void bad_activity(struct cpu *c) { c->activity = 77; }
static void bad_shadow(struct cpu *c) { c->int_shadow = 3; }
static void bad_flags(struct cpu *c) { c->rflags = 0; }

static void contradictions(void **state)
{
    struct vm *vm = *state;
    refused(vm, paging_without_protection);
    refused(vm, lma_without_paging);
    refused(vm, long_without_pae);
    refused(vm, long_v86);
    refused(vm, pcid_without_long);
    refused(vm, bad_xcr0);
    refused(vm, no_x87);
    refused(vm, bad_mxcsr);
    refused(vm, bad_base);
    refused(vm, bad_lstar);
    refused(vm, bad_pat);
    refused(vm, bad_activity);
    refused(vm, bad_shadow);
    refused(vm, bad_flags);
}

static void reset_values(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    fill(c);
    cpu_reset(c);
    assert_int_equal(c->rip, 0xfff0);
    assert_int_equal(c->seg[SEG_CS].base, 0xffff0000);
    assert_int_equal(c->seg[SEG_CS].sel, 0xf000);
    assert_int_equal(c->rflags, 2);
    assert_int_equal(c->cr0, 0x60000010);
    assert_int_equal(c->gpr[R_DX], cpu_model_signature(c->model));
    assert_int_equal(c->gpr[R_AX], 0);
    assert_int_equal(c->dr[6], 0xffff0ff0);
    assert_int_equal(c->dr[7], 0x400);
    assert_int_equal(c->pat, 0x0007040600070406);
    assert_int_equal(c->activity, CPU_ACTIVE);
    assert_int_equal(c->mode, INSN_MODE_16);
    cpu_reset(vm->cpu[1]);
    assert_int_equal(vm->cpu[1]->activity, CPU_WAIT_SIPI);
    /* INIT keeps MSRs and vectors */
    fill(c);
    c->pat = 0x0606060606060606;
    cpu_init_signal(c);
    assert_int_equal(c->pat, 0x0606060606060606);
    assert_int_equal(c->lstar, 0xffffffff81000000);
    assert_int_equal(c->efer, 0);
    assert_int_equal(c->rip, 0xfff0);
    assert_int_not_equal(c->fpu.zmm[3].u64[1], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(round_trip, set_up, tear_down),
        cmocka_unit_test_setup_teardown(contradictions, set_up, tear_down),
        cmocka_unit_test_setup_teardown(reset_values, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
