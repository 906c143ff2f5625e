/* SPDX-License-Identifier: Apache-2.0 */
// LAYERS: dev/pc bus mem state base
#include "support/dev.h"

#include "dev/pc/port61.h"
#include "dev/pc/ticks.h"

struct fix {
    struct dev_rig rig;
    struct pit pit;
    struct port61 port;
    struct dev_line nmi;
    struct dev_line speaker;
};

static int setup(void **state)
{
    struct fix *f = calloc(1, sizeof *f);
    dev_rig_init(&f->rig);
    struct irq none = { NULL, NULL, 0 };
    pit_init(&f->pit, f->rig.bus, 0x40, f->rig.clock, &none);
    struct port61_config cfg = {
        .pit = &f->pit,
        .nmi = dev_line_irq(&f->nmi),
        .speaker = dev_line_irq(&f->speaker),
    };
    port61_init(&f->port, f->rig.bus, &cfg);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;
    port61_fini(&f->port);
    pit_fini(&f->pit);
    dev_rig_fini(&f->rig);
    free(f);
    return 0;
}

/* What guests do to measure the TSC: mode 0 on counter 2, wait for OUT2. */
static void test_calibration(void **state)
{
    struct fix *f = *state;
    struct dev_rig *r = &f->rig;
    dev_out8(r, 0x61, (dev_in8(r, 0x61) & ~2) | 1);
    dev_out8(r, 0x43, 0xb0);
    uint16_t count = PIT_HZ / 20; /* 50 ms */
    dev_out8(r, 0x42, (uint8_t)count);
    dev_out8(r, 0x42, (uint8_t)(count >> 8));
    dev_step(r, NS_PER_S / 20 - 100000);
    assert_int_equal(dev_in8(r, 0x61) & 0x20, 0);
    dev_step(r, 110000);
    assert_int_equal(dev_in8(r, 0x61) & 0x20, 0x20);
}

static void test_gate_and_speaker(void **state)
{
    struct fix *f = *state;
    struct dev_rig *r = &f->rig;
    dev_out8(r, 0x43, 0x90);
    dev_out8(r, 0x42, 100);
    dev_step(r, 1000000);
    assert_int_equal(dev_in8(r, 0x61) & 0x2f, 0); /* the gate holds it */
    dev_out8(r, 0x61, 0xff);
    assert_int_equal(dev_in8(r, 0x61) & 0xcf, 0x0f); /* upper bits are read-only */
    assert_int_equal(f->speaker.level, 1);
    dev_step(r, 1000000);
    assert_int_equal(dev_in8(r, 0x61) & 0x20, 0x20);
    dev_out8(r, 0x61, 1);
    assert_int_equal(f->speaker.level, 0);
}

static void test_refresh_toggles(void **state)
{
    struct fix *f = *state;
    unsigned changes = 0;
    uint8_t last = dev_in8(&f->rig, 0x61) & 0x10;
    for (int i = 0; i < 10000; i++) {
        dev_step(&f->rig, 1000);
        uint8_t now = dev_in8(&f->rig, 0x61) & 0x10;
        changes += now != last;
        last = now;
    }
    assert_in_range(changes, 660, 666); /* 10 ms / 15.085 us */
}

static void test_iochk(void **state)
{
    struct fix *f = *state;
    port61_raise_iochk(&f->port);
    assert_int_equal(f->nmi.level, 1);
    assert_int_equal(dev_in8(&f->rig, 0x61) & 0x40, 0x40);
    dev_roundtrip(f->rig.bus, f->rig.clock);
    dev_out8(&f->rig, 0x61, 0x08);
    assert_int_equal(f->nmi.level, 0);
    port61_raise_iochk(&f->port);
    assert_int_equal(f->nmi.level, 0);
    dev_out8(&f->rig, 0x61, 0);
    assert_int_equal(dev_in8(&f->rig, 0x61) & 0x40, 0);
}

static void test_random_traffic(void **state)
{
    struct fix *f = *state;
    uint64_t seed = 0x61;
    for (int i = 0; i < 20000; i++) {
        uint64_t x = test_random(&seed);
        if (x & 1) {
            dev_out8(&f->rig, x & 2 ? 0x61 : 0x42, (uint8_t)(x >> 8));
        } else {
            dev_step(&f->rig, (x >> 8) % 50000);
        }
        dev_in8(&f->rig, 0x61);
        if (i % 500 == 0) {
            dev_roundtrip(f->rig.bus, f->rig.clock);
        }
    }
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_calibration), T(test_gate_and_speaker), T(test_refresh_toggles),
        T(test_iochk),       T(test_random_traffic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
