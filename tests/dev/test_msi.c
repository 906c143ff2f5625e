/* SPDX-License-Identifier: Apache-2.0 */
// LAYERS: dev/pc bus mem state base
#include "dev/apic.h"

static int setup(void **state)
{
    apic_rig_setup(state);
    struct apic_rig *a = *state;
    apic_enable_all(a);
    for (unsigned i = 0; i < APICS; i++) {
        apic_set(a, i, 0xd0, 0x01000000u << i);
    }
    return 0;
}

static void test_physical(void **state)
{
    struct apic_rig *a = *state;
    msi_send(&a->apics, 0xfee02000, 0x4045);
    for (unsigned i = 0; i < APICS; i++) {
        assert_int_equal(lapic_ack(&a->cpu[i].lapic), i == 2 ? 0x45 : -1);
    }
    msi_send(&a->apics, 0xfeeff008, 0x56);
    for (unsigned i = 0; i < APICS; i++) {
        assert_int_equal(lapic_ack(&a->cpu[i].lapic), 0x56);
    }
}

static void test_logical(void **state)
{
    struct apic_rig *a = *state;
    msi_send(&a->apics, 0xfee0a004, 0x45); /* fixed, no hint: all of them */
    assert_int_equal(lapic_ack(&a->cpu[1].lapic), 0x45);
    assert_int_equal(lapic_ack(&a->cpu[3].lapic), 0x45);
    msi_send(&a->apics, 0xfee0a00c, 0x146); /* lowest priority: one of them */
    assert_int_equal(a->cpu[1].intr + a->cpu[3].intr, 0);
    apic_set(a, 1, 0xb0, 0);
    apic_set(a, 3, 0xb0, 0);
    assert_int_equal(a->cpu[1].intr + a->cpu[3].intr, 1);
    lapic_ack(&a->cpu[1].lapic);
    lapic_ack(&a->cpu[3].lapic);
    msi_send(&a->apics, 0xfee0f00c, 0x77); /* the hint alone chooses one */
    unsigned got = 0;
    for (unsigned i = 0; i < APICS; i++) {
        got += lapic_ack(&a->cpu[i].lapic) == 0x77;
    }
    assert_int_equal(got, 1);
}

static void test_modes(void **state)
{
    struct apic_rig *a = *state;
    msi_send(&a->apics, 0xfee01000, 0x400);
    assert_int_equal(a->cpu[1].nmis, 1);
    msi_send(&a->apics, 0xfee01000, 0x200);
    assert_int_equal(a->cpu[1].smis, 1);
    msi_send(&a->apics, 0xfee01000, 0x500);
    assert_int_equal(a->cpu[1].inits, 1);
    msi_send(&a->apics, 0xfee01000, 0x600); /* reserved */
    assert_int_equal(a->cpu[1].sipis, 0);
    msi_send(&a->apics, 0xfee02000, 0xc061);
    assert_true(apic_bit(a, 2, 0x180, 0x61));
    msi_send(&a->apics, 0xfee02000, 0x8062); /* de-assert */
    assert_false(apic_bit(a, 2, 0x200, 0x62));
    msi_send(&a->apics, 0xfed00000, 0x63); /* no interrupt address */
    msi_send(&a->apics, 0x1fee00000, 0x63);
    assert_false(apic_bit(a, 0, 0x200, 0x63));
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, setup, apic_rig_teardown)
    const struct CMUnitTest tests[] = { T(test_physical), T(test_logical), T(test_modes) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
