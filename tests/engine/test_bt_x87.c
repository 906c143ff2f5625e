/* SPDX-License-Identifier: Apache-2.0
 *
 * The x87 registers cleared by FLDZ and FSTP (src/engine/bt/x87.c): the FPU, and the place of a
 * fault, are afterwards what the interpreter leaves, which does one instruction at a time.
 */
// LAYERS: engine/bt engine/interp engine cpu mem state base
#include "support/test.h"

#include <string.h>

#include "base/bits.h"
#include "support/vm.h"

#define RUN 16
#define AT (VM_CODE + 5)

struct start {
    uint16_t fcw, fsw;
    uint8_t ftw;
    bool traps; /* CR0.TS */
    unsigned count; /* of the sixteen instructions that are there */
};

static void run_on(const struct engine_class *cls, const struct start *s, unsigned bits,
                   uint8_t fx[512], uint64_t *rip)
{
    struct vm *vm = vm_new(1, cls);
    struct cpu *c = vm->cpu[0];
    uint8_t code[5 + 2 * RUN + 1] = { 0xb8, 1, 2, 3, 4 }; /* mov eax, imm */
    for (unsigned i = 0; i < RUN; i++) {
        memcpy(code + 5 + 2 * i, i >= s->count ? "\x66\x90" : i < RUN / 2 ? "\xd9\xee" : "\xdd\xd8",
               2);
    }
    code[5 + 2 * RUN] = 0xf4;
    vm_mode(vm, 0, bits);
    vm_poke(vm, VM_CODE, code, sizeof code);
    c->cr4 |= CR4_OSFXSR;
    c->cr0 |= CR0_NE | (s->traps ? CR0_TS : 0);
    cpu_update_mode(c);
    for (unsigned i = 0; i < 8; i++) {
        memset(c->fpu.fx + FX_ST + 16 * i, (int)(0x3f + i), 10);
    }
    memcpy(c->fpu.fx + FX_FCW, &s->fcw, 2);
    memcpy(c->fpu.fx + FX_FSW, &s->fsw, 2);
    c->fpu.fx[FX_FTW] = s->ftw;
    assert_int_equal(vm_run(vm, 0), ENGINE_EXIT_HALT);
    memcpy(fx, c->fpu.fx, 512);
    *rip = vm_vector(vm, 0) < 0 ? c->rip : vm_peek64(vm, c->gpr[R_SP]);
    assert_int_equal(c->gpr[R_AX], 0x04030201);
    if (cls == &bt_engine && s->count == RUN && !s->traps) {
        assert_int_equal(vm_counter(vm, "bt.helper.fstp"), 1);
    }
    vm_free(vm);
}

static void compare(const struct start *s, unsigned bits)
{
    uint8_t want[512], got[512];
    uint64_t want_rip, got_rip;
    run_on(&interp_engine, s, bits, want, &want_rip);
    run_on(&bt_engine, s, bits, got, &got_rip);
    assert_int_equal(got_rip, want_rip);
    assert_memory_equal(got, want, 512);
}

static void any_state(void **state)
{
    (void)state;
    for (unsigned top = 0; top < 8; top++) {
        uint16_t fsw = (uint16_t)(top << 11 | 0x4700); /* C0 to C3 */
        compare(&(struct start){ 0x37f, fsw, 0, false, RUN }, 64);
        compare(&(struct start){ 0x37f, fsw, (uint8_t)(1u << top), false, RUN }, 64); /* is full */
        compare(&(struct start){ 0x37f, fsw & 0x3800, 0xff, false, RUN }, 32);
        compare(&(struct start){ 0x37f, fsw, 0, false, RUN }, 32);
    }
}

/* An exception that is pending, one that comes up on the way, and no FPU. */
static void faults(void **state)
{
    (void)state;
    compare(&(struct start){ 0x37e, 0x8081, 0, false, RUN }, 64);
    compare(&(struct start){ 0x37e, 0, 0x10, false, RUN }, 64);
    compare(&(struct start){ 0x37f, 0, 0, true, RUN }, 64);
}

static void fewer(void **state)
{
    (void)state;
    for (unsigned n = 0; n < RUN; n++) {
        compare(&(struct start){ 0x37f, 0x1800, 0, false, n }, 64);
    }
}

static void one_helper(void **state)
{
    uint8_t fx[512];
    uint64_t rip;
    (void)state;
    run_on(&bt_engine, &(struct start){ 0x37f, 0, 0, false, RUN }, 64, fx, &rip);
    assert_int_equal(rip, AT + 2 * RUN + 1);
    for (unsigned i = 0; i < 8 * 16; i++) {
        assert_int_equal(fx[FX_ST + i], 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_state),
        cmocka_unit_test(faults),
        cmocka_unit_test(fewer),
        cmocka_unit_test(one_helper),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
