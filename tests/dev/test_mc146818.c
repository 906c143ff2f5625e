/* SPDX-License-Identifier: Apache-2.0 */
// LAYERS: dev/pc bus mem state base
#include "support/dev.h"

#include "dev/pc/mc146818.h"
#include "dev/pc/ticks.h"

#define EPOCH_2024_02_28_235950 1709164790ull /* a Wednesday, before a leap day */

struct fix {
    struct dev_rig rig;
    struct rtc rtc;
    struct dev_line irq8;
    struct dev_line nmi_mask;
    uint64_t wall_base_ns;
};

static uint64_t wall(void *ctx)
{
    struct fix *f = ctx;
    return f->wall_base_ns + clock_now_ns(f->rig.clock);
}

static int setup(void **state)
{
    struct fix *f = calloc(1, sizeof *f);
    dev_rig_init(&f->rig);
    f->wall_base_ns = EPOCH_2024_02_28_235950 * NS_PER_S;
    struct rtc_config cfg = {
        .clock = f->rig.clock,
        .wall_ns = wall,
        .wall_ctx = f,
        .irq8 = dev_line_irq(&f->irq8),
        .nmi_mask = dev_line_irq(&f->nmi_mask),
    };
    rtc_init(&f->rtc, f->rig.bus, &cfg);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;
    rtc_fini(&f->rtc);
    dev_rig_fini(&f->rig);
    free(f);
    return 0;
}

static uint8_t get(struct fix *f, uint8_t reg)
{
    dev_out8(&f->rig, 0x70, reg);
    return dev_in8(&f->rig, 0x71);
}

static void set(struct fix *f, uint8_t reg, uint8_t v)
{
    dev_out8(&f->rig, 0x70, reg);
    dev_out8(&f->rig, 0x71, v);
}

/* century, year, month, day, hour, minute, second as the registers show them */
static void assert_time(struct fix *f, const uint8_t expect[7])
{
    static const uint8_t reg[7] = { 0x32, 9, 8, 7, 4, 2, 0 };
    for (int i = 0; i < 7; i++) {
        assert_int_equal(get(f, reg[i]), expect[i]);
    }
}
#define ASSERT_TIME(f, ...) assert_time(f, (const uint8_t[7]){ __VA_ARGS__ })

static void seconds(struct fix *f, uint64_t n) { dev_step(&f->rig, n * NS_PER_S); }

static void test_wall_time(void **state)
{
    struct fix *f = *state;
    ASSERT_TIME(f, 0x20, 0x24, 0x02, 0x28, 0x23, 0x59, 0x50);
    assert_int_equal(get(f, 6), 4); /* Wednesday */
    seconds(f, 9);
    ASSERT_TIME(f, 0x20, 0x24, 0x02, 0x28, 0x23, 0x59, 0x59);
    seconds(f, 1);
    ASSERT_TIME(f, 0x20, 0x24, 0x02, 0x29, 0x00, 0x00, 0x00);
    assert_int_equal(get(f, 6), 5);
    seconds(f, 86400);
    ASSERT_TIME(f, 0x20, 0x24, 0x03, 0x01, 0x00, 0x00, 0x00);
    seconds(f, 306 * 86400ull);
    ASSERT_TIME(f, 0x20, 0x25, 0x01, 0x01, 0x00, 0x00, 0x00);
}

static void test_formats(void **state)
{
    struct fix *f = *state;
    set(f, 0x0b, 0x06);
    ASSERT_TIME(f, 20, 24, 2, 28, 23, 59, 50);
    set(f, 0x0b, 0x04);
    assert_int_equal(get(f, 4), 11 | 0x80);
    seconds(f, 10);
    assert_int_equal(get(f, 4), 12); /* midnight is 12 AM */
    seconds(f, 12 * 3600);
    assert_int_equal(get(f, 4), 12 | 0x80);
    set(f, 0x0b, 0x00);
    seconds(f, 3600);
    assert_int_equal(get(f, 4), 0x01 | 0x80);
    assert_int_equal(get(f, 7), 0x29);
}

static void test_set(void **state)
{
    struct fix *f = *state;
    dev_step(&f->rig, 300000000); /* the phase within the second stays */
    set(f, 0x0b, 0x82);
    static const uint8_t pairs[][2] = { { 0, 0x58 }, { 2, 0x59 }, { 4, 0x23 },   { 7, 0x31 },
                                        { 8, 0x12 }, { 9, 0x99 }, { 0x32, 0x19 } };
    for (unsigned i = 0; i < 7; i++) {
        set(f, pairs[i][0], pairs[i][1]);
    }
    seconds(f, 10); /* stands still */
    ASSERT_TIME(f, 0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x58);
    dev_roundtrip(f->rig.bus, f->rig.clock);
    set(f, 0x0b, 0x02);
    ASSERT_TIME(f, 0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x58);
    dev_step(&f->rig, 699000000);
    assert_int_equal(get(f, 0), 0x58);
    dev_step(&f->rig, 2000000);
    assert_int_equal(get(f, 0), 0x59);
    seconds(f, 1);
    ASSERT_TIME(f, 0x20, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00);
    assert_int_equal(get(f, 6), 7); /* a Saturday */
    dev_roundtrip(f->rig.bus, f->rig.clock);
    /* Reset does not touch it. */
    bus_lock(f->rig.bus);
    bus_reset(f->rig.bus);
    bus_unlock(f->rig.bus);
    ASSERT_TIME(f, 0x20, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00);
    /* A byte written while it runs */
    set(f, 8, 0x07);
    ASSERT_TIME(f, 0x20, 0x00, 0x07, 0x01, 0x00, 0x00, 0x00);
}

/* From divider reset to the first update it is half a second. */
static void test_divider(void **state)
{
    struct fix *f = *state;
    dev_step(&f->rig, 123456789);
    set(f, 0x0a, 0x70);
    assert_int_equal(get(f, 0x0a), 0x70);
    seconds(f, 5);
    assert_int_equal(get(f, 0), 0x50);
    set(f, 0x0a, 0x26);
    dev_step(&f->rig, 499999000);
    assert_int_equal(get(f, 0), 0x50);
    dev_step(&f->rig, 2000);
    assert_int_equal(get(f, 0), 0x51);
}

static void test_uip(void **state)
{
    struct fix *f = *state;
    assert_int_equal(get(f, 0x0a), 0x26);
    dev_step(&f->rig, 990000000);
    assert_int_equal(get(f, 0x0a), 0x26);
    dev_step(&f->rig, 9800000); /* 200 us before */
    assert_int_equal(get(f, 0x0a), 0xa6);
    set(f, 0x0b, 0x82);
    assert_int_equal(get(f, 0x0a), 0x26);
    set(f, 0x0b, 0x02);
    dev_step(&f->rig, 300000);
    assert_int_equal(get(f, 0x0a), 0x26);
    assert_int_equal(get(f, 0), 0x51);
}

static void test_update_ended(void **state)
{
    struct fix *f = *state;
    seconds(f, 1);
    assert_int_equal(get(f, 0x0c) & 0x10, 0x10); /* the flag needs no enable */
    assert_int_equal(get(f, 0x0c) & 0x10, 0);
    assert_int_equal(f->irq8.rises, 0);
    set(f, 0x0b, 0x12);
    for (unsigned i = 1; i <= 5; i++) {
        seconds(f, 1);
        assert_int_equal(f->irq8.rises, i);
        assert_int_equal(get(f, 0x0c) & 0x90, 0x90);
        assert_int_equal(f->irq8.level, 0);
    }
    seconds(f, 3);
    assert_int_equal(f->irq8.rises, 6); /* not read: stays up */
    assert_int_equal(f->irq8.level, 1);
    dev_roundtrip(f->rig.bus, f->rig.clock);
    assert_int_equal(f->irq8.level, 1);
    set(f, 0x0b, 0x92); /* SET clears UIE */
    assert_int_equal(get(f, 0x0b), 0x82);
    assert_int_equal(f->irq8.level, 0);
}

static void test_alarm(void **state)
{
    struct fix *f = *state;
    set(f, 1, 0x05);
    set(f, 3, 0x00);
    set(f, 5, 0x00);
    set(f, 0x0b, 0x22);
    seconds(f, 14);
    assert_int_equal(f->irq8.level, 0);
    seconds(f, 1); /* 00:00:05 */
    assert_int_equal(f->irq8.level, 1);
    assert_int_equal(get(f, 0x0c) & 0xa0, 0xa0);
    seconds(f, 86399);
    assert_int_equal(f->irq8.level, 0);
    seconds(f, 1);
    assert_int_equal(f->irq8.level, 1);
    get(f, 0x0c);
    set(f, 3, 0xc0); /* each hour's each minute, at second 5 */
    set(f, 5, 0xff);
    f->irq8.rises = 0;
    for (int i = 0; i < 600; i++) {
        seconds(f, 1);
        get(f, 0x0c);
    }
    assert_int_equal(f->irq8.rises, 10);
    /* Missed while nobody looked, without the enable */
    set(f, 0x0b, 0x02);
    get(f, 0x0c);
    f->wall_base_ns += 3600ull * NS_PER_S;
    assert_int_equal(get(f, 0x0c) & 0x20, 0x20);
    f->wall_base_ns += 1000000000ull * NS_PER_S;
    assert_int_equal(get(f, 0x0c) & 0x20, 0x20);
}

static void test_periodic(void **state)
{
    struct fix *f = *state;
    static const struct {
        uint8_t rs;
        unsigned hz;
    } rates[] = { { 1, 256 }, { 2, 128 }, { 3, 8192 }, { 6, 1024 }, { 10, 64 }, { 15, 2 } };
    for (unsigned i = 0; i < 6; i++) {
        set(f, 0x0a, 0x20 | rates[i].rs);
        set(f, 0x0b, 0x42);
        get(f, 0x0c);
        unsigned got = 0;
        for (unsigned slice = 0; slice < 20000; slice++) {
            dev_step(&f->rig, 50000);
            if (f->irq8.level) {
                assert_int_equal(get(f, 0x0c) & 0xc0, 0xc0);
                got++;
            }
        }
        assert_in_range(got, rates[i].hz - 1, rates[i].hz + 1);
    }
    set(f, 0x0a, 0x20);
    get(f, 0x0c);
    seconds(f, 2);
    assert_int_equal(get(f, 0x0c) & 0x40, 0);
}

static void test_cmos_and_nmi(void **state)
{
    struct fix *f = *state;
    rtc_set_cmos(&f->rtc, 0x10, 0x44);
    rtc_set_cmos(&f->rtc, 0x0b, 0xff); /* is no CMOS byte */
    rtc_set_cmos(&f->rtc, 200, 0xff);
    assert_int_equal(get(f, 0x10), 0x44);
    assert_int_equal(get(f, 0x0b), 0x02);
    assert_int_equal(get(f, 0x0d), 0x80);
    set(f, 0x0d, 0);
    assert_int_equal(get(f, 0x0d), 0x80);
    set(f, 0x7f, 0x5a);
    bus_lock(f->rig.bus);
    bus_reset(f->rig.bus);
    bus_unlock(f->rig.bus);
    assert_int_equal(get(f, 0x7f), 0x5a);
    assert_int_equal(f->nmi_mask.level, 0);
    dev_out8(&f->rig, 0x70, 0x90);
    assert_int_equal(f->nmi_mask.level, 1);
    assert_int_equal(dev_in8(&f->rig, 0x71), 0x44);
    dev_out8(&f->rig, 0x70, 0x10);
    assert_int_equal(f->nmi_mask.level, 0);
}

static void test_random_traffic(void **state)
{
    struct fix *f = *state;
    uint64_t seed = 0x146818;
    for (int i = 0; i < 100000; i++) {
        uint64_t x = test_random(&seed);
        switch (x & 3) {
        case 0:
            set(f, x & 0x40 ? 0x32 : x >> 8 & 15, (uint8_t)(x >> 16));
            break;
        case 1:
            get(f, x >> 8 & 127);
            break;
        case 2:
            dev_step(&f->rig, (x >> 16) % (x & 4 ? 3 * NS_PER_S : 100000u));
            break;
        default:
            f->wall_base_ns += x & 0xf0 ? 0 : (x >> 16) % (86400ull * NS_PER_S);
            break;
        }
        if (i % 500 == 0) {
            dev_roundtrip(f->rig.bus, f->rig.clock);
        }
    }
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_wall_time),    T(test_formats),        T(test_set),   T(test_divider),
        T(test_uip),          T(test_update_ended),   T(test_alarm), T(test_periodic),
        T(test_cmos_and_nmi), T(test_random_traffic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
