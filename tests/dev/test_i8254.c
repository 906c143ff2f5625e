/* SPDX-License-Identifier: Apache-2.0 */
// LAYERS: dev/pc bus mem state base
#include "support/dev.h"

#include "dev/pc/i8254.h"
#include "dev/pc/ticks.h"

struct fix {
    struct dev_rig rig;
    struct pit pit;
    struct dev_line irq0;
    uint64_t tick; /* now */
};

static int setup(void **state)
{
    struct fix *f = calloc(1, sizeof *f);
    dev_rig_init(&f->rig);
    struct irq irq = dev_line_irq(&f->irq0);
    pit_init(&f->pit, f->rig.bus, 0x40, f->rig.clock, &irq);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;
    pit_fini(&f->pit);
    dev_rig_fini(&f->rig);
    free(f);
    return 0;
}

/* Let n pulses of CLK go by. */
static void ticks(struct fix *f, uint64_t n)
{
    f->tick += n;
    dev_step(&f->rig, ticks_to_ns(f->tick, PIT_HZ) - clock_now_ns(f->rig.clock));
}

static void control(struct fix *f, uint8_t v) { dev_out8(&f->rig, 0x43, v); }

static void load16(struct fix *f, unsigned n, uint16_t v)
{
    dev_out8(&f->rig, (uint16_t)(0x40 + n), (uint8_t)v);
    dev_out8(&f->rig, (uint16_t)(0x40 + n), (uint8_t)(v >> 8));
}

static uint16_t latched16(struct fix *f, unsigned n)
{
    control(f, (uint8_t)(n << 6));
    unsigned lo = dev_in8(&f->rig, (uint16_t)(0x40 + n));
    return (uint16_t)(lo | dev_in8(&f->rig, (uint16_t)(0x40 + n)) << 8);
}

static uint8_t status(struct fix *f, unsigned n)
{
    control(f, (uint8_t)(0xe0 | 2u << n));
    return dev_in8(&f->rig, (uint16_t)(0x40 + n));
}

static void gate(struct fix *f, int level)
{
    bus_lock(f->rig.bus);
    pit_set_gate2(&f->pit, level);
    bus_unlock(f->rig.bus);
}

static int out2(struct fix *f)
{
    bus_lock(f->rig.bus);
    int out = pit_out2(&f->pit);
    bus_unlock(f->rig.bus);
    return out;
}

static void test_mode0(void **state)
{
    struct fix *f = *state;
    control(f, 0x30);
    assert_int_equal(f->irq0.level, 0);
    f->irq0.rises = 0;
    load16(f, 0, 4);
    ticks(f, 1); /* loads */
    assert_int_equal(latched16(f, 0), 4);
    ticks(f, 3);
    assert_int_equal(latched16(f, 0), 1);
    assert_int_equal(f->irq0.level, 0);
    ticks(f, 1);
    assert_int_equal(f->irq0.level, 1); /* N + 1 pulses after the write */
    assert_int_equal(status(f, 0), 0x80 | 0x30);
    ticks(f, 2);
    assert_int_equal(latched16(f, 0), 0xfffe); /* goes on counting */
    ticks(f, 100000);
    assert_int_equal(f->irq0.rises, 1);
    /* The first byte of a new count stops it, the second starts it. */
    dev_out8(&f->rig, 0x40, 5);
    assert_int_equal(f->irq0.level, 0);
    uint16_t stopped = latched16(f, 0);
    ticks(f, 50);
    assert_int_equal(latched16(f, 0), stopped);
    dev_out8(&f->rig, 0x40, 0);
    ticks(f, 6);
    assert_int_equal(f->irq0.level, 1);
}

static void test_mode0_gate(void **state)
{
    struct fix *f = *state;
    control(f, 0x90); /* counter 2, LSB only */
    dev_out8(&f->rig, 0x42, 10);
    ticks(f, 5); /* loaded though the gate is low */
    assert_int_equal(status(f, 2) & 0x40, 0);
    assert_int_equal(dev_in8(&f->rig, 0x42), 10);
    gate(f, 1);
    ticks(f, 4);
    assert_int_equal(dev_in8(&f->rig, 0x42), 6);
    gate(f, 0);
    ticks(f, 100);
    assert_int_equal(dev_in8(&f->rig, 0x42), 6);
    assert_int_equal(out2(f), 0);
    gate(f, 1);
    ticks(f, 5);
    assert_int_equal(out2(f), 0);
    ticks(f, 1);
    assert_int_equal(out2(f), 1);
}

static void test_mode1(void **state)
{
    struct fix *f = *state;
    control(f, 0xb2);
    load16(f, 2, 6);
    assert_int_equal(out2(f), 1);
    ticks(f, 20);
    assert_int_equal(out2(f), 1);
    assert_int_equal(status(f, 2) & 0x40, 0x40); /* not in the counter yet */
    gate(f, 1);
    assert_int_equal(out2(f), 1);
    ticks(f, 1);
    assert_int_equal(out2(f), 0);
    ticks(f, 5);
    assert_int_equal(out2(f), 0);
    gate(f, 0); /* no effect */
    gate(f, 1); /* triggers again */
    ticks(f, 6);
    assert_int_equal(out2(f), 0);
    ticks(f, 1);
    assert_int_equal(out2(f), 1);
    /* A new count waits for the trigger. */
    gate(f, 0);
    gate(f, 1);
    ticks(f, 1);
    load16(f, 2, 2);
    ticks(f, 5);
    assert_int_equal(out2(f), 0);
    ticks(f, 1);
    assert_int_equal(out2(f), 1);
    gate(f, 0);
    gate(f, 1);
    ticks(f, 3);
    assert_int_equal(out2(f), 1);
}

static void test_mode2(void **state)
{
    struct fix *f = *state;
    control(f, 0x34);
    assert_int_equal(f->irq0.level, 1);
    load16(f, 0, 1000);
    ticks(f, 1);
    f->irq0.rises = 0;
    assert_int_equal(latched16(f, 0), 1000);
    ticks(f, 999);
    assert_int_equal(latched16(f, 0), 1);
    assert_int_equal(status(f, 0) & 0x80, 0); /* OUT low for one pulse */
    ticks(f, 1);
    assert_int_equal(latched16(f, 0), 1000);
    assert_int_equal(f->irq0.rises, 1);
    ticks(f, 10000);
    assert_int_equal(f->irq0.rises, 11);
    /* A new count takes over at the end of the period. */
    ticks(f, 400);
    load16(f, 0, 100);
    assert_int_equal(status(f, 0) & 0x40, 0x40);
    assert_int_equal(latched16(f, 0), 600);
    ticks(f, 599);
    assert_int_equal(f->irq0.rises, 11);
    ticks(f, 1);
    assert_int_equal(f->irq0.rises, 12);
    assert_int_equal(status(f, 0) & 0x40, 0);
    assert_int_equal(latched16(f, 0), 100);
    ticks(f, 1000);
    assert_int_equal(f->irq0.rises, 22);
}

/* The rate a PC's clock interrupt has: 18.2 a second, over a minute */
static void test_rate(void **state)
{
    struct fix *f = *state;
    control(f, 0x34);
    load16(f, 0, 0);
    f->irq0.rises = 0;
    dev_step(&f->rig, 60ull * NS_PER_S);
    assert_int_equal(f->irq0.rises, 60ull * PIT_HZ / 65536);
    control(f, 0x34);
    load16(f, 0, 1193);
    f->irq0.rises = 0;
    dev_step(&f->rig, 10ull * NS_PER_S);
    assert_in_range(f->irq0.rises, 10000, 10002);
}

static void test_mode2_gate(void **state)
{
    struct fix *f = *state;
    control(f, 0xb4);
    load16(f, 2, 100);
    gate(f, 1);
    ticks(f, 41);
    assert_int_equal(latched16(f, 2), 60);
    gate(f, 0);
    assert_int_equal(out2(f), 1);
    ticks(f, 500);
    assert_int_equal(latched16(f, 2), 60);
    gate(f, 1); /* starts anew */
    ticks(f, 1);
    assert_int_equal(latched16(f, 2), 100);
    ticks(f, 99);
    assert_int_equal(out2(f), 0);
    gate(f, 0);
    assert_int_equal(out2(f), 1); /* at once */
}

static void test_mode3(void **state)
{
    struct fix *f = *state;
    gate(f, 1);
    control(f, 0xb6);
    load16(f, 2, 6);
    ticks(f, 1);
    static const struct {
        int out;
        uint16_t count;
    } even[] = { { 1, 6 }, { 1, 4 }, { 1, 2 }, { 0, 6 }, { 0, 4 }, { 0, 2 }, { 1, 6 } };
    for (unsigned i = 0; i < 7; i++) {
        assert_int_equal(out2(f), even[i].out);
        assert_int_equal(latched16(f, 2), even[i].count);
        ticks(f, 1);
    }
    control(f, 0xb6);
    load16(f, 2, 5);
    ticks(f, 1);
    static const struct {
        int out;
        uint16_t count;
    } odd[] = { { 1, 4 }, { 1, 2 }, { 1, 0 }, { 0, 4 }, { 0, 2 }, { 1, 4 } };
    for (unsigned i = 0; i < 6; i++) {
        assert_int_equal(out2(f), odd[i].out);
        assert_int_equal(latched16(f, 2), odd[i].count);
        ticks(f, 1);
    }
    /* A new count takes over at the end of the half. */
    control(f, 0xb6);
    load16(f, 2, 100);
    ticks(f, 11);
    load16(f, 2, 20);
    ticks(f, 39);
    assert_int_equal(out2(f), 1);
    ticks(f, 1);
    assert_int_equal(out2(f), 0);
    assert_int_equal(latched16(f, 2), 20);
    ticks(f, 9);
    assert_int_equal(out2(f), 0);
    ticks(f, 1);
    assert_int_equal(out2(f), 1);
    gate(f, 0);
    assert_int_equal(out2(f), 1);
}

static void test_mode3_irq(void **state)
{
    struct fix *f = *state;
    control(f, 0x36);
    load16(f, 0, 1001);
    ticks(f, 1);
    f->irq0.rises = f->irq0.falls = 0;
    ticks(f, 501);
    assert_int_equal(f->irq0.falls, 1);
    assert_int_equal(f->irq0.level, 0);
    ticks(f, 500);
    assert_int_equal(f->irq0.rises, 1);
    ticks(f, 100100);
    assert_int_equal(f->irq0.rises, 101);
}

static void test_mode4(void **state)
{
    struct fix *f = *state;
    control(f, 0x38);
    load16(f, 0, 3);
    f->irq0.rises = f->irq0.falls = 0;
    ticks(f, 4);
    assert_int_equal(status(f, 0) & 0x80, 0);
    ticks(f, 1);
    assert_int_equal(status(f, 0) & 0x80, 0x80);
    assert_int_equal(f->irq0.rises, 1);
    ticks(f, 200000);
    assert_int_equal(f->irq0.rises, 1);
    load16(f, 0, 10);
    ticks(f, 5);
    load16(f, 0, 10); /* strobes once, N + 1 after the last write */
    ticks(f, 10);
    assert_int_equal(f->irq0.rises, 1);
    ticks(f, 2);
    assert_int_equal(f->irq0.rises, 2);
}

static void test_mode5(void **state)
{
    struct fix *f = *state;
    control(f, 0xba);
    load16(f, 2, 3);
    ticks(f, 100);
    assert_int_equal(out2(f), 1);
    gate(f, 1);
    ticks(f, 3);
    assert_int_equal(out2(f), 1);
    ticks(f, 1);
    assert_int_equal(out2(f), 0);
    ticks(f, 1);
    assert_int_equal(out2(f), 1);
}

static void test_bcd(void **state)
{
    struct fix *f = *state;
    control(f, 0x35);
    load16(f, 0, 0x1000);
    ticks(f, 2);
    assert_int_equal(latched16(f, 0), 0x0999);
    ticks(f, 998);
    assert_int_equal(latched16(f, 0), 0x0001);
    control(f, 0x31);
    load16(f, 0, 0);
    ticks(f, 1);
    assert_int_equal(latched16(f, 0), 0); /* 10000 */
    ticks(f, 1);
    assert_int_equal(latched16(f, 0), 0x9999);
    ticks(f, 9998);
    assert_int_equal(f->irq0.level, 0);
    ticks(f, 1);
    assert_int_equal(f->irq0.level, 1);
    ticks(f, 1);
    assert_int_equal(latched16(f, 0), 0x9999);
}

static void test_bytes_and_latches(void **state)
{
    struct fix *f = *state;
    control(f, 0x10); /* LSB only */
    dev_out8(&f->rig, 0x40, 200);
    ticks(f, 101);
    assert_int_equal(dev_in8(&f->rig, 0x40), 100);
    control(f, 0x20); /* MSB only */
    dev_out8(&f->rig, 0x40, 2);
    ticks(f, 2);
    assert_int_equal(dev_in8(&f->rig, 0x40), 1); /* 0x1ff */
    control(f, 0x30);
    load16(f, 0, 0x1234);
    ticks(f, 1);
    control(f, 0x00);
    ticks(f, 0x34);
    control(f, 0x00); /* already latched: ignored */
    assert_int_equal(dev_in8(&f->rig, 0x40), 0x34);
    assert_int_equal(dev_in8(&f->rig, 0x40), 0x12);
    assert_int_equal(dev_in8(&f->rig, 0x40), 0x00); /* live again */
    assert_int_equal(dev_in8(&f->rig, 0x40), 0x12);
    /* Read-back of status and count: status first */
    control(f, 0xc2);
    ticks(f, 5);
    assert_int_equal(dev_in8(&f->rig, 0x40), 0x30);
    assert_int_equal(dev_in8(&f->rig, 0x40), 0x00);
    assert_int_equal(dev_in8(&f->rig, 0x40), 0x12);
    /* of all counters at once */
    control(f, 0xde);
    control(f, 0xee);
    assert_int_equal(dev_in8(&f->rig, 0x41) & 0x3f, 0x14);
    assert_int_equal(dev_in8(&f->rig, 0x42) & 0x3f, 0x36);
    assert_int_equal(dev_in8(&f->rig, 0x40) & 0x3f, 0x30);
    /* Modes 6 and 7 are 2 and 3, shown as written. */
    control(f, 0x3c);
    assert_int_equal(status(f, 0) & 0x3f, 0x3c);
    assert_int_equal(status(f, 0) & 0x40, 0x40);
    load16(f, 0, 100);
    assert_int_equal(status(f, 0) & 0x40, 0x40);
    ticks(f, 1);
    assert_int_equal(status(f, 0) & 0x40, 0);
    f->irq0.rises = 0;
    ticks(f, 1000);
    assert_int_equal(f->irq0.rises, 10);
}

/* A guest that asks for an edge each 1.7 us gets fewer, and the loop goes on. */
static void test_too_fast(void **state)
{
    struct fix *f = *state;
    for (unsigned count = 1; count < 12; count++) {
        for (unsigned mode = 4; mode <= 6; mode += 2) {
            control(f, (uint8_t)(0x10 | mode));
            dev_out8(&f->rig, 0x40, (uint8_t)count);
            f->irq0.rises = 0;
            dev_step(&f->rig, NS_PER_S / 10);
            assert_in_range(f->irq0.rises, count == 1 ? 0 : 1000, 10000);
            for (unsigned i = 0; i < 2 * count; i++) { /* a restore leaves the line as it was */
                int level = f->irq0.level;
                dev_roundtrip(f->rig.bus, f->rig.clock);
                assert_int_equal(f->irq0.level, level);
                dev_step(&f->rig, NS_PER_S / PIT_HZ);
            }
        }
    }
}

/* The thread that runs timers is so late that the load and the strobe have both gone by. */
static void test_late_loop(void **state)
{
    struct fix *f = *state;
    for (uint8_t mode = 0; mode <= 8; mode += 8) { /* modes 0 and 4 */
        control(f, 0x30 | mode);
        load16(f, 0, 15);
        f->irq0.rises = 0;
        clock_set_now(f->rig.clock, clock_now_ns(f->rig.clock) + 1000000);
        dev_step(&f->rig, 0);
        assert_int_equal(f->irq0.rises, 1);
        dev_step(&f->rig, 1000000);
        assert_int_equal(f->irq0.rises, 1);
    }
    control(f, 0x34);
    load16(f, 0, 2000);
    f->irq0.rises = 0;
    clock_set_now(f->rig.clock, clock_now_ns(f->rig.clock) + 2000000);
    dev_in8(&f->rig, 0x40); /* the guest comes first */
    assert_int_equal(f->irq0.rises, 1);
}

static void test_bad_state(void **state)
{
    struct fix *f = *state;
    size_t len;
    struct err e;
    for (int i = 0; i < 5; i++) {
        struct pit_counter old = f->pit.counter[1];
        struct pit_counter *c = &f->pit.counter[1];
        c->control = i == 0 ? 0xff : i == 1 ? 0x04 : c->control;
        c->count = i == 2 ? 0 : c->count;
        c->cr = i == 3 ? 65537 : c->cr;
        c->start_tick = i == 4 ? c->start_tick + 10000000 : c->start_tick;
        uint8_t *data = dev_save(f->rig.bus, &len);
        assert_int_equal(dev_load(f->rig.bus, data, len, &e), -EINVAL);
        free(data);
        *c = old;
    }
}

static void test_random_traffic(void **state)
{
    struct fix *f = *state;
    uint64_t seed = 0x8254;
    for (int i = 0; i < 100000; i++) {
        uint64_t x = test_random(&seed);
        switch (x & 7) {
        case 0:
            control(f, (uint8_t)(x >> 16));
            break;
        case 1:
        case 2:
            dev_out8(&f->rig, 0x40 + (x >> 8) % 3, x >> 60 ? (uint8_t)(x >> 16) & 31 : 0);
            break;
        case 3:
        case 4:
            dev_in8(&f->rig, 0x40 + (x >> 8 & 3));
            break;
        case 5:
            gate(f, x >> 8 & 1);
            break;
        default:
            dev_step(&f->rig, (x >> 16) % 100000);
            break;
        }
        out2(f);
        if (i % 500 == 0) {
            dev_roundtrip(f->rig.bus, f->rig.clock);
        }
    }
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_mode0),    T(test_mode0_gate), T(test_mode1),     T(test_mode2),
        T(test_rate),     T(test_mode2_gate), T(test_mode3),     T(test_mode3_irq),
        T(test_mode4),    T(test_mode5),      T(test_bcd),       T(test_bytes_and_latches),
        T(test_too_fast), T(test_late_loop),  T(test_bad_state), T(test_random_traffic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
