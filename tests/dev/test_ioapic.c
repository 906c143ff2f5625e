/* SPDX-License-Identifier: Apache-2.0 */
// LAYERS: dev/pc bus mem state base
#include "dev/apic.h"

#define MASKED 0x10000u
#define LEVEL 0x8000u
#define REMOTE_IRR 0x4000u

static int setup(void **state)
{
    apic_rig_setup(state);
    apic_enable_all(*state);
    return 0;
}

static void test_registers(void **state)
{
    struct apic_rig *a = *state;
    assert_int_equal(ioapic_get(a, 1), 0x00170020);
    ioapic_set(a, 1, 0);
    assert_int_equal(ioapic_get(a, 1), 0x00170020);
    ioapic_set(a, 0, 0xffffffff);
    assert_int_equal(ioapic_get(a, 0), 0x0f000000);
    assert_int_equal(ioapic_get(a, 2), 0x0f000000);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        assert_int_equal(ioapic_get(a, (uint8_t)(0x10 + 2 * pin)), MASKED);
    }
    ioapic_set(a, 0x10, 0xffffffff);
    ioapic_set(a, 0x11, 0xffffffff);
    assert_int_equal(ioapic_get(a, 0x10),
                     0x1afff); /* delivery status and remote IRR are not ours */
    assert_int_equal(ioapic_get(a, 0x11), 0xff000000);
    assert_int_equal(ioapic_get(a, 0x40), 0);
    ioapic_set(a, 0xff, 0);
    bus_mmio_write(a->rig.bus, 0xfec00000, 1, 0x10); /* the index may be a byte */
    assert_int_equal(bus_mmio_read(a->rig.bus, 0xfec00000, 4), 0x10);
    bus_mmio_write(a->rig.bus, 0xfec00010, 1, 0x55); /* the window may not */
    assert_int_equal(ioapic_get(a, 0x10), 0x1afff);
}

static void test_edge(void **state)
{
    struct apic_rig *a = *state;
    ioapic_route(a, 4, 1, 0x44);
    ioapic_line(a, 4, 1);
    assert_int_equal(lapic_ack(&a->cpu[1].lapic), 0x44);
    apic_set(a, 1, 0xb0, 0);
    ioapic_line(a, 4, 1);
    assert_int_equal(a->cpu[1].intr, 0);
    ioapic_line(a, 4, 0);
    ioapic_line(a, 4, 1);
    assert_int_equal(lapic_ack(&a->cpu[1].lapic), 0x44);
    assert_false(apic_bit(a, 1, 0x180, 0x44));
    apic_set(a, 1, 0xb0, 0);
    /* Edges at a masked pin are lost. */
    ioapic_set(a, 0x18, MASKED | 0x44);
    ioapic_line(a, 4, 0);
    ioapic_line(a, 4, 1);
    ioapic_set(a, 0x18, 0x44);
    assert_int_equal(a->cpu[1].intr, 0);
}

static void test_level(void **state)
{
    struct apic_rig *a = *state;
    ioapic_route(a, 10, 2, LEVEL | 0x5a);
    ioapic_line(a, 10, 1);
    assert_int_equal(ioapic_get(a, 0x24), LEVEL | REMOTE_IRR | 0x5a);
    assert_int_equal(lapic_ack(&a->cpu[2].lapic), 0x5a);
    assert_true(apic_bit(a, 2, 0x180, 0x5a));
    assert_int_equal(a->cpu[2].intr, 0);
    apic_set(a, 2, 0xb0, 0);
    assert_int_equal(a->cpu[2].intr, 1); /* still active */
    ioapic_line(a, 10, 0);
    assert_int_equal(lapic_ack(&a->cpu[2].lapic), 0x5a);
    apic_set(a, 2, 0xb0, 0);
    assert_int_equal(ioapic_get(a, 0x24), LEVEL | 0x5a);
    assert_int_equal(a->cpu[2].intr, 0);
    /* Masked while active: comes when unmasked. */
    ioapic_set(a, 0x24, MASKED | LEVEL | 0x5a);
    ioapic_line(a, 10, 1);
    assert_int_equal(a->cpu[2].intr, 0);
    ioapic_set(a, 0x24, LEVEL | 0x5a);
    assert_int_equal(a->cpu[2].intr, 1);
    /* Made edge-triggered and level again, remote IRR is gone: how old kernels end it. */
    ioapic_line(a, 10, 0);
    ioapic_set(a, 0x24, MASKED | 0x5a);
    ioapic_set(a, 0x24, MASKED | LEVEL | 0x5a);
    assert_int_equal(ioapic_get(a, 0x24), MASKED | LEVEL | 0x5a);
}

static void test_eoi_register(void **state)
{
    struct apic_rig *a = *state;
    apic_set(a, 0, 0xf0, 0x11ff); /* no broadcasts */
    ioapic_route(a, 5, 0, LEVEL | 0x61);
    ioapic_line(a, 5, 1);
    ioapic_line(a, 5, 0);
    lapic_ack(&a->cpu[0].lapic);
    apic_set(a, 0, 0xb0, 0);
    assert_int_equal(ioapic_get(a, 0x1a), LEVEL | REMOTE_IRR | 0x61);
    bus_mmio_write(a->rig.bus, 0xfec00040, 4, 0x62);
    assert_int_equal(ioapic_get(a, 0x1a), LEVEL | REMOTE_IRR | 0x61);
    bus_mmio_write(a->rig.bus, 0xfec00040, 4, 0x61);
    assert_int_equal(ioapic_get(a, 0x1a), LEVEL | 0x61);
}

/* Two pins with one vector: each has its own remote IRR, one EOI ends both. */
static void test_shared_vector(void **state)
{
    struct apic_rig *a = *state;
    ioapic_route(a, 6, 0, LEVEL | 0x70);
    ioapic_route(a, 7, 0, LEVEL | 0x70);
    ioapic_line(a, 6, 1);
    ioapic_line(a, 7, 1);
    assert_int_equal(lapic_ack(&a->cpu[0].lapic), 0x70);
    ioapic_line(a, 6, 0);
    apic_set(a, 0, 0xb0, 0);
    assert_int_equal(ioapic_get(a, 0x1c), LEVEL | 0x70);
    assert_int_equal(ioapic_get(a, 0x1e), LEVEL | REMOTE_IRR | 0x70);
    assert_int_equal(a->cpu[0].intr, 1);
}

static void test_deliveries(void **state)
{
    struct apic_rig *a = *state;
    ioapic_route(a, 1, 1, 0x400);
    ioapic_line(a, 1, 1);
    assert_int_equal(a->cpu[1].nmis, 1);
    ioapic_route(a, 2, 1, LEVEL | 0x200);
    ioapic_line(a, 2, 1);
    assert_int_equal(a->cpu[1].smis, 1);
    assert_int_equal(ioapic_get(a, 0x14), LEVEL | 0x200); /* no remote IRR: there is no EOI */
    ioapic_route(a, 3, 1, 0x500);
    ioapic_line(a, 3, 1);
    assert_int_equal(a->cpu[1].inits, 1);
    a->cpu[0].extint_vector = 0x21;
    ioapic_route(a, 0, 0, 0x700);
    ioapic_line(a, 0, 1);
    assert_int_equal(lapic_ack(&a->cpu[0].lapic), 0x21);
    assert_int_equal(a->cpu[0].intr, 0);
    for (unsigned i = 0; i < APICS; i++) {
        apic_set(a, i, 0xd0, 0x01000000u << i);
        apic_set(a, i, 0xf0, 0x1ff);
        apic_set(a, i, 0x80, i == 3 ? 0 : 0x20);
    }
    ioapic_route(a, 8, 0x0e, 0x900 | 0x88); /* lowest priority, logical */
    ioapic_line(a, 8, 1);
    assert_int_equal(lapic_ack(&a->cpu[3].lapic), 0x88);
    ioapic_route(a, 9, 0x05, 0x800 | 0x99);
    ioapic_line(a, 9, 1);
    for (unsigned i = 0; i < APICS; i++) {
        assert_int_equal(a->cpu[i].intr, i == 0 || i == 2);
    }
    ioapic_route(a, 11, 0, 0x300 | 0x99); /* reserved */
    ioapic_line(a, 11, 1);
}

static void test_nobody_there(void **state)
{
    struct apic_rig *a = *state;
    ioapic_route(a, 12, 9, LEVEL | 0x40);
    ioapic_line(a, 12, 1);
    assert_int_equal(ioapic_get(a, 0x28), LEVEL | 0x40);
    ioapic_route(a, 12, 1, LEVEL | 0x40); /* goes out when the route is good */
    assert_int_equal(a->cpu[1].intr, 1);
}

static void test_bad_state(void **state)
{
    struct apic_rig *a = *state;
    size_t len;
    struct err e;
    a->ioapic.redir[3] = 1ull << 40;
    uint8_t *data = dev_save(a->rig.bus, &len);
    assert_int_equal(dev_load(a->rig.bus, data, len, &e), -EINVAL);
    free(data);
}

static void test_random_traffic(void **state)
{
    struct apic_rig *a = *state;
    uint64_t seed = 0x82093;
    for (int i = 0; i < 100000; i++) {
        uint64_t x = test_random(&seed);
        switch (x & 3) {
        case 0:
            ioapic_set(a, x >> 8 & 63, (uint32_t)(x >> 32) & (x & 128 ? 0xff0fbfff : ~0u));
            break;
        case 1:
            ioapic_line(a, (x >> 8) % IOAPIC_PINS, x >> 16 & 1);
            break;
        case 2:
            ioapic_get(a, x >> 8 & 63);
            break;
        default:
            lapic_ack(&a->cpu[x >> 8 & 3].lapic);
            apic_set(a, x >> 8 & 3, 0xb0, 0);
            apic_set(a, x >> 10 & 3, 0xf0, 0x1ff);
            break;
        }
        if (i % 500 == 0) {
            dev_roundtrip(a->rig.bus, a->rig.clock);
        }
    }
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, setup, apic_rig_teardown)
    const struct CMUnitTest tests[] = {
        T(test_registers),    T(test_edge),          T(test_level),
        T(test_eoi_register), T(test_shared_vector), T(test_deliveries),
        T(test_nobody_there), T(test_bad_state),     T(test_random_traffic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
