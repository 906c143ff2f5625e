/* SPDX-License-Identifier: Apache-2.0
 *
 * The kvm engine's moves of registers: nothing is lost, nothing is half delivered.
 */
// LAYERS: engine/kvm engine cpu mem state base
#include "engine/kvmtest.h"
#include "support/vm.h"

/* -- Vector state ------------------------------------------------------------------------------ */

static void vectors_round_trip(void **state)
{
    (void)state;
    struct vm *vm = vm_new(1, NULL);
    struct cpu *cpu = vm->cpu[0];
    uint64_t rng = 1;
    uint8_t image[KVM_XSAVE_BYTES];
    const bool avx = cpu->model->xcr0_mask & XCOMP_AVX;
    for (unsigned i = 0; i < 16; i++) {
        for (unsigned n = 0; n < (avx ? 4u : 2u); n++) {
            cpu->fpu.zmm[i].u64[n] = test_random(&rng);
        }
    }
    for (unsigned i = FX_ST; i < 160; i++) {
        cpu->fpu.fx[i] = (uint8_t)test_random(&rng);
    }
    fx_put16(cpu, FX_FCW, 0x27f);
    fx_put32(cpu, FX_MXCSR, 0x1fa0);
    const struct cpu_fpu before = cpu->fpu;
    kvm_xsave_put(cpu, image);
    memset(&cpu->fpu, 0xaa, sizeof cpu->fpu);
    kvm_xsave_get(cpu, image);
    assert_memory_equal(cpu->fpu.zmm, before.zmm, sizeof before.zmm);
    assert_memory_equal(cpu->fpu.fx, before.fx, 160);
    assert_memory_equal(cpu->fpu.k, before.k, sizeof before.k);
    /* In their initial state, whatever the bytes say: XSTATE_BV is 0. */
    memset(image + 512, 0, 8);
    kvm_xsave_get(cpu, image);
    assert_int_equal(fx_get16(cpu, FX_FCW), FCW_DEFAULT);
    assert_int_equal(cpu->fpu.zmm[3].u64[0], 0);
    assert_int_equal(fx_get32(cpu, FX_MXCSR), 0x1fa0); /* is never in the initial state */
    vm_free(vm);
}

/* -- State ------------------------------------------------------------------------------------- */

static void scribble(struct cpu *c, uint64_t *rng)
{
    for (unsigned i = 0; i < 16; i++) {
        c->gpr[i] = test_random(rng);
        c->fpu.zmm[i].u64[0] = test_random(rng);
        c->fpu.zmm[i].u64[1] = test_random(rng);
    }
    for (unsigned i = 0; i < 8; i++) {
        for (unsigned n = 0; n < 10; n++) {
            c->fpu.fx[FX_ST + 16 * i + n] = (uint8_t)test_random(rng);
        }
    }
    c->rflags = FLAG_FIXED | (test_random(rng) & FLAGS_ARITH);
    c->cr2 = test_random(rng);
    c->star = test_random(rng);
    c->lstar = test_random(rng) >> 20;
    c->cstar = test_random(rng) >> 20;
    c->sfmask = (uint32_t)test_random(rng);
    c->kernel_gs_base = test_random(rng) >> 20;
    c->sysenter_cs = (uint32_t)test_random(rng);
    c->sysenter_esp = test_random(rng) >> 20;
    c->sysenter_eip = test_random(rng) >> 20;
    c->pat = 0x0007010600070106ull;
    c->seg[SEG_FS].base = test_random(rng) >> 20;
    c->seg[SEG_GS].base = test_random(rng) >> 20;
    c->dr[0] = test_random(rng) >> 20;
    c->dr[3] = test_random(rng) >> 20;
    c->dr[6] = 0xffff0ff1;
    c->nmi_blocked = test_random(rng) & 1;
    c->int_shadow = test_random(rng) & 1 ? CPU_SHADOW_STI : CPU_SHADOW_NONE;
}

static void *saved(struct cpu *c, size_t *len)
{
    struct state_out *o = state_out_new();
    c->tsc_offset = 0;
    cpu_pre_save(c);
    state_save(o, "cpu", CPU_STATE_VERSION, cpu_state, c);
    const uint8_t *data = state_out_data(o, len);
    void *copy = malloc(*len);
    memcpy(copy, data, *len);
    state_out_free(o);
    return copy;
}

static void wipe(struct cpu *c)
{
    memset(c->gpr, 0, sizeof c->gpr);
    memset(c->seg, 0, sizeof c->seg);
    memset(&c->fpu, 0, sizeof c->fpu);
    memset(c->dr, 0, sizeof c->dr);
    c->rip = c->rflags = c->cr0 = c->cr2 = c->cr3 = c->cr4 = c->efer = 0;
    c->gdtr = c->idtr = (struct cpu_dtable){ 0 };
    c->ldtr = c->tr = (struct cpu_seg){ 0 };
    c->star = c->lstar = c->cstar = c->sfmask = c->kernel_gs_base = c->pat = 0;
    c->sysenter_cs = c->sysenter_esp = c->sysenter_eip = 0;
    c->nmi_blocked = false;
    c->int_shadow = 0;
}

/* To the kernel and back: nothing is lost, nothing is changed. */
static void state_round_trip(void **state)
{
    NEED_GUESTS(state);
    struct kvm_vcpu *v = c->engine;
    static const unsigned modes[] = { 16, 32, 64 };
    uint64_t rng = 77;
    for (unsigned i = 0; i < 30; i++) {
        begin(vm, modes[i % 3]);
        scribble(c, &rng);
        c->insn_ip = c->rip;
        size_t before_len, after_len;
        void *before = saved(c, &before_len);
        assert_int_equal(kvm_push(v), 0);
        wipe(c);
        assert_int_equal(kvm_pull(v), 0);
        void *after = saved(c, &after_len);
        assert_int_equal(before_len, after_len);
        assert_memory_equal(before, after, before_len);
        free(before);
        free(after);
    }
}

/* What waits in the kernel undelivered is delivered before anybody looks. */
static void events_are_settled(void **state)
{
    NEED_GUESTS(state);
    struct kvm_vcpu *v = c->engine;
    begin(vm, 64);
    c->rflags |= FLAG_IF;
    assert_int_equal(kvm_memory_update(v->kvm, v), 0);
    assert_int_equal(kvm_push(v), 0);
    struct kvm_vcpu_events ev = { .interrupt = { .injected = 1, .nr = 0x33 } };
    if (ioctl(v->fd, KVM_SET_VCPU_EVENTS, &ev) < 0) {
        skip();
    }
    assert_int_equal(kvm_settle_events(v), 0);
    assert_int_equal(c->rip, VM_HANDLERS + 16 * 0x33);
    assert_false(c->rflags & FLAG_IF);
    begin(vm, 64);
    assert_int_equal(kvm_push(v), 0);
    ev = (struct kvm_vcpu_events){ .exception = { .injected = 1, .nr = EXC_GP,
                                                  .has_error_code = 1, .error_code = 0x18 } };
    assert_int_equal(ioctl(v->fd, KVM_SET_VCPU_EVENTS, &ev), 0);
    assert_int_equal(kvm_settle_events(v), 0);
    assert_int_equal(c->rip, VM_HANDLERS + 16 * EXC_GP);
    uint64_t error;
    memcpy(&error, vm->ram + c->gpr[R_SP], sizeof error);
    assert_int_equal(error, 0x18);
    vm_mode(vm, 0, 64);
}

/* A guest that was promised another rate gets it, or is refused with both rates named. */
static void rate_of_the_counter(void **state)
{
    NEED_GUESTS(state);
    struct kvm *kvm = ((struct kvm_vcpu *)c->engine)->kvm;
    struct err e = { "" };
    uint32_t host = kvm->host_tsc_khz;
    assert_true(host > 100000);
    assert_int_equal(kvm_set_tsc_khz(vm->engine, host, &e), 0);
    assert_int_equal(kvm_set_tsc_khz(vm->engine, host + host / 10000, &e), 0);
    assert_false(kvm->tsc_scaled);
    int r = kvm_set_tsc_khz(vm->engine, host / 2, &e);
    if (r == 0) {
        assert_true(kvm->tsc_scaled);
        assert_int_equal(kvm_set_tsc_khz(vm->engine, host, &e), 0);
    } else {
        assert_int_equal(r, -ENOTSUP);
        assert_non_null(strstr(e.msg, "cannot scale"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_round_trip),
        cmocka_unit_test_setup_teardown(state_round_trip, guest_up, guest_down),
        cmocka_unit_test_setup_teardown(events_are_settled, guest_up, guest_down),
        cmocka_unit_test_setup_teardown(rate_of_the_counter, guest_up, guest_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
