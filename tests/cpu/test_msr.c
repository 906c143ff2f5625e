/* SPDX-License-Identifier: Apache-2.0
 *
 * MSRs beside what t64_msr.c tries on the engines: what depends on the model, TSC arithmetic, the
 * paravirtual clock on all processors alike, and that no MSR number does harm.
 */
// LAYERS: cpu mem state base
#include "support/test.h"

#include <string.h>

#include "base/bytes.h"
#include "cpu/msr.h"
#include "support/vm.h"

static uint64_t tsc_now;
static uint64_t tsc(void *ctx)
{
    (void)ctx;
    return tsc_now;
}
static uint64_t wall(void *ctx)
{
    (void)ctx;
    return 1700000000ull * 1000000000 + 5;
}

static int set_up(void **state)
{
    struct vm *vm = vm_new(2, NULL);
    vm->world.tsc = tsc;
    vm->world.wall_ns = wall;
    tsc_now = 1000000;
    *state = vm;
    return 0;
}

static int tear_down(void **state)
{
    vm_free(*state);
    return 0;
}

static uint64_t get(struct cpu *c, uint32_t msr)
{
    uint64_t v = 0;
    assert_true(msr_read(c, msr, &v));
    return v;
}

static void by_features(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    uint64_t v;
    assert_true(msr_write(c, MSR_TSC_ADJUST, 0));
    cpu_features_clear(&c->features, CPU_FEATURE_TSC_ADJUST);
    assert_false(msr_write(c, MSR_TSC_ADJUST, 0));
    assert_false(msr_read(c, MSR_TSC_ADJUST, &v));
    assert_true(msr_write(c, MSR_EFER, EFER_NXE));
    cpu_features_clear(&c->features, CPU_FEATURE_NX);
    assert_false(msr_write(c, MSR_EFER, EFER_NXE));
    assert_true(msr_write(c, MSR_XSS, 0));
    assert_false(msr_write(c, MSR_XSS, 0x100));
    cpu_features_clear(&c->features, CPU_FEATURE_RDTSCP);
    assert_true(msr_write(c, MSR_TSC_AUX, 1));
    cpu_features_clear(&c->features, CPU_FEATURE_RDPID);
    assert_false(msr_write(c, MSR_TSC_AUX, 1));
    assert_false(msr_write(c, MSR_MTRR_PHYS, 1ull << vm->model.phys_bits));
    /* 57 address bits let bases through that 48 do not */
    assert_false(msr_write(c, MSR_LSTAR, 0x00ff000000000000));
    cpu_features_set(&c->features, CPU_FEATURE_LA57);
    assert_true(msr_write(c, MSR_LSTAR, 0x00ff000000000000));
    assert_false(msr_write(c, MSR_LSTAR, 0x0100000000000000));
    /* once locked, always locked */
    assert_true(msr_write(c, MSR_FEATURE_CONTROL, 1));
    assert_false(msr_write(c, MSR_FEATURE_CONTROL, 0));
}

static void counter(void **state)
{
    struct cpu *c = ((struct vm *)*state)->cpu[0];
    assert_int_equal(get(c, MSR_TSC), 1000000);
    assert_true(msr_write(c, MSR_TSC, 5));
    tsc_now += 10;
    assert_int_equal(get(c, MSR_TSC), 15);
    assert_int_equal(get(c, MSR_TSC_ADJUST), 5 - 1000000ull);
    assert_true(msr_write(c, MSR_TSC_ADJUST, 0));
    assert_int_equal(get(c, MSR_TSC), 1000010);
    assert_int_equal(c->tsc_offset, 0);
}

static uint64_t guest_ns(struct vm *vm, gpa_t page, uint64_t guest_tsc)
{
    const uint8_t *p = vm->ram + page;
    assert_int_equal(load_le32(p) & 1, 0);
    uint64_t d = guest_tsc - load_le64(p + 8);
    int8_t shift = (int8_t)p[28];
    d = shift < 0 ? d >> -shift : d << shift;
    return load_le64(p + 16) + (uint64_t)((unsigned __int128)d * load_le32(p + 24) >> 32);
}

static void clock(void **state)
{
    struct vm *vm = *state;
    struct cpu *a = vm->cpu[0], *b = vm->cpu[1];
    assert_true(msr_write(a, MSR_KVM_SYSTEM_TIME_NEW, 0x5001));
    tsc_now += 12345;
    assert_true(msr_write(b, MSR_KVM_SYSTEM_TIME, 0x5041));
    assert_int_equal(get(a, MSR_KVM_SYSTEM_TIME), 0x5001);
    tsc_now = 7777777777;
    assert_int_equal(guest_ns(vm, 0x5000, cpu_tsc(a)), guest_ns(vm, 0x5040, cpu_tsc(b)));
    assert_in_range(guest_ns(vm, 0x5000, cpu_tsc(a)), 7777777770, 7777777777); /* 1 GHz */
    assert_true(vm->ram[0x5000 + 29] & 1);                                     /* TSC stable */
    /* a processor that sets its TSC keeps the time */
    uint64_t before = guest_ns(vm, 0x5040, cpu_tsc(b));
    assert_true(msr_write(b, MSR_TSC, 42));
    assert_int_equal(guest_ns(vm, 0x5040, cpu_tsc(b)), before);
    /* it stood still: the flag comes, the others stay */
    kvmclock_note_stop(a);
    assert_int_equal(vm->ram[0x5000 + 29], 3);
    assert_int_equal(vm->ram[0x5040 + 29], 1);
    /* boot time = now - system time */
    assert_true(msr_write(a, MSR_KVM_WALL_CLOCK_NEW, 0x6000));
    uint64_t boot = load_le32(vm->ram + 0x6004) * 1000000000ull + load_le32(vm->ram + 0x6008);
    assert_in_range(boot + 7777777777, 1700000000000000005 - 10, 1700000000000000005 + 10);
    /* pages that are not there do no harm */
    assert_true(msr_write(a, MSR_KVM_SYSTEM_TIME_NEW, 0xffffffffffff0001));
    assert_true(msr_write(a, MSR_KVM_WALL_CLOCK_NEW, 0xfffffffffffffff0));
    assert_true(msr_write(a, MSR_TSC, 1));
    kvmclock_note_stop(a);
}

static void scale(void **state)
{
    (void)state;
    static const uint32_t khz[] = { 1,       1000,    999999,  1000000,   1000001,
                                    2100000, 2499998, 4000000, 4294967295 };
    for (unsigned i = 0; i < sizeof khz / sizeof *khz; i++) {
        uint32_t mul;
        int8_t shift;
        kvmclock_scale(khz[i], &mul, &shift);
        uint64_t ticks = khz[i] * 1000ull; /* one second */
        uint64_t d = shift < 0 ? ticks >> -shift : ticks << shift;
        uint64_t ns = (uint64_t)((unsigned __int128)d * mul >> 32);
        assert_in_range(ns, 999999990, 1000000001);
    }
}

/* Every number, with odd values: true or false, nothing else. */
static void any(void **state)
{
    struct cpu *c = ((struct vm *)*state)->cpu[0];
    uint64_t seed = 7;
    static const uint32_t starts[] = {
        0, 0x4b564d00, 0xc0000000, 0xc0010000, 0xc0011000, 0xffffff00
    };
    for (unsigned s = 0; s < sizeof starts / sizeof *starts; s++) {
        for (uint32_t i = 0; i < 0x1000; i++) {
            uint64_t v;
            uint32_t msr = starts[s] + i;
            (void)!msr_read(c, msr, &v);
            (void)!msr_write(c, msr, test_random(&seed) >> (i % 64));
            (void)!msr_read(c, msr, &v);
        }
    }
    assert_true(pat_valid(c->pat));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = { T(by_features), T(counter), T(clock), T(scale), T(any) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
