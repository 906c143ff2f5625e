/* SPDX-License-Identifier: Apache-2.0 */
// LAYERS: dev/pc bus mem state base
#include "support/dev.h"

#include "dev/pc/hpet.h"
#include "dev/pc/ticks.h"

#define BASE 0xfed00000u
#define TICK_NS 10u
#define T(n) (0x100u + 0x20u * (n))
#define COMPARATOR 8u
#define FSB 16u

/* Timer configuration */
#define LEVEL 2u
#define ENABLE 4u
#define PERIODIC 8u
#define VALUE_SET 0x40u
#define NARROW 0x100u
#define ROUTE(n) ((n) << 9)
#define FSB_ENABLE 0x4000u

struct fix {
    struct dev_rig rig;
    struct hpet hpet;
    struct dev_line irq0;
    struct dev_line irq8;
    struct dev_line pin[HPET_PINS];
    uint64_t msi_address;
    uint32_t msi_data;
    unsigned msis;
};

static void msi(void *ctx, uint64_t address, uint32_t data)
{
    struct fix *f = ctx;
    f->msi_address = address;
    f->msi_data = data;
    f->msis++;
}

static int setup(void **state)
{
    struct fix *f = calloc(1, sizeof *f);
    dev_rig_init(&f->rig);
    struct hpet_config cfg = {
        .clock = f->rig.clock,
        .legacy = { dev_line_irq(&f->irq0), dev_line_irq(&f->irq8) },
        .routes = 0xf00000,
        .msi = msi,
        .msi_ctx = f,
    };
    for (unsigned i = 0; i < HPET_PINS; i++) {
        cfg.pin[i] = dev_line_irq(&f->pin[i]);
    }
    hpet_init(&f->hpet, f->rig.bus, BASE, &cfg);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;
    hpet_fini(&f->hpet);
    dev_rig_fini(&f->rig);
    free(f);
    return 0;
}

static uint64_t get(struct fix *f, unsigned reg)
{
    return bus_mmio_read(f->rig.bus, BASE + reg, 8);
}
static void set(struct fix *f, unsigned reg, uint64_t v)
{
    bus_mmio_write(f->rig.bus, BASE + reg, 8, v);
}
static uint32_t get32(struct fix *f, unsigned reg)
{
    return (uint32_t)bus_mmio_read(f->rig.bus, BASE + reg, 4);
}
static void set32(struct fix *f, unsigned reg, uint32_t v)
{
    bus_mmio_write(f->rig.bus, BASE + reg, 4, v);
}
static void ticks(struct fix *f, uint64_t n) { dev_step(&f->rig, n * TICK_NS); }

static void test_capabilities(void **state)
{
    struct fix *f = *state;
    assert_int_equal(get(f, 0), 0x009896808086a201);
    assert_int_equal(get32(f, 4), HPET_PERIOD_FS);
    assert_int_equal(get(f, T(0)), 0x00f0000000008030);
    assert_int_equal(get(f, T(3)), 0);
    set(f, 0, 0);
    assert_int_equal(get32(f, 0), 0x8086a201);
}

static void test_counter(void **state)
{
    struct fix *f = *state;
    ticks(f, 100);
    assert_int_equal(get(f, 0xf0), 0);
    set32(f, 0xf0, 0xfffffff0);
    set32(f, 0xf4, 1);
    assert_int_equal(get(f, 0xf0), 0x1fffffff0);
    set(f, 0x10, 1);
    ticks(f, 0x20);
    assert_int_equal(get(f, 0xf0), 0x200000010);
    assert_int_equal(get32(f, 0xf4), 2);
    set(f, 0xf0, 0); /* not while it counts */
    assert_int_equal(get(f, 0xf0), 0x200000010);
    dev_roundtrip(f->rig.bus, f->rig.clock);
    assert_int_equal(get(f, 0xf0), 0x200000010);
    set(f, 0x10, 0);
    ticks(f, 1000);
    assert_int_equal(get(f, 0xf0), 0x200000010);
}

static void test_one_shot(void **state)
{
    struct fix *f = *state;
    set(f, 0x10, 1);
    set(f, T(0), ENABLE | ROUTE(20));
    set(f, T(0) + COMPARATOR, 1000);
    ticks(f, 999);
    assert_int_equal(f->pin[20].rises, 0);
    ticks(f, 1);
    assert_int_equal(f->pin[20].rises, 1);
    ticks(f, 100000);
    assert_int_equal(f->pin[20].rises, 1);
    set(f, T(0) + COMPARATOR, get(f, 0xf0) + 50);
    ticks(f, 50);
    assert_int_equal(f->pin[20].rises, 2); /* an edge each time, though nobody lowers the line */
    set(f, T(0) + COMPARATOR, get(f, 0xf0) + 50);
    set(f, 0x10, 0); /* halted: the match never comes */
    ticks(f, 1000);
    set(f, 0x10, 1);
    ticks(f, 49);
    assert_int_equal(f->pin[20].rises, 2);
    ticks(f, 1);
    assert_int_equal(f->pin[20].rises, 3);
}

/* In 32-bit mode it matches once each time round. */
static void test_32bit(void **state)
{
    struct fix *f = *state;
    set(f, 0xf0, 0x5fffffff0);
    set(f, T(1), ENABLE | NARROW | ROUTE(21));
    set(f, T(1) + COMPARATOR, 0xffffffff00000010);
    assert_int_equal(get(f, T(1) + COMPARATOR), 0x10);
    set(f, 0x10, 1);
    ticks(f, 0x20);
    assert_int_equal(f->pin[21].rises, 1);
    ticks(f, 0xffffffff);
    assert_int_equal(f->pin[21].rises, 1);
    ticks(f, 1);
    assert_int_equal(f->pin[21].rises, 2);
    dev_roundtrip(f->rig.bus, f->rig.clock);
}

static void test_periodic(void **state)
{
    struct fix *f = *state;
    set(f, 0x10, 1);
    ticks(f, 12345);
    set(f, T(2), ENABLE | PERIODIC | VALUE_SET | ROUTE(22));
    set(f, T(2) + COMPARATOR, 22345);
    assert_int_equal(get(f, T(2)) & VALUE_SET, 0); /* clears itself */
    set(f, T(2) + COMPARATOR, 5000);
    assert_int_equal(get(f, T(2) + COMPARATOR), 22345);
    ticks(f, 9999);
    assert_int_equal(f->pin[22].rises, 0);
    ticks(f, 1);
    assert_int_equal(f->pin[22].rises, 1);
    assert_int_equal(get(f, T(2) + COMPARATOR), 27345);
    for (unsigned i = 2; i < 100; i++) {
        ticks(f, 5000);
        assert_int_equal(f->pin[22].rises, i);
        dev_roundtrip(f->rig.bus, f->rig.clock);
        f->pin[22].rises = i;
    }
    /* A period of nothing, and of one tick: time goes on. */
    set(f, T(2) + COMPARATOR, 0);
    ticks(f, 100000);
    set(f, T(2), ENABLE | PERIODIC | VALUE_SET | ROUTE(22));
    set(f, T(2) + COMPARATOR, get(f, 0xf0) + 1);
    set(f, T(2) + COMPARATOR, 1);
    f->pin[22].rises = 0;
    ticks(f, 1000000);
    assert_in_range(f->pin[22].rises, 500, 1001);
}

static void test_level(void **state)
{
    struct fix *f = *state;
    set(f, 0x10, 1);
    set(f, T(0), ENABLE | LEVEL | ROUTE(23));
    set(f, T(0) + COMPARATOR, 100);
    ticks(f, 100);
    assert_int_equal(f->pin[23].level, 1);
    assert_int_equal(get(f, 0x20), 1);
    set(f, 0x20, 2);
    assert_int_equal(f->pin[23].level, 1);
    dev_roundtrip(f->rig.bus, f->rig.clock);
    assert_int_equal(f->pin[23].level, 1);
    set(f, 0x10, 0); /* no interrupts without the enable */
    assert_int_equal(f->pin[23].level, 0);
    set(f, 0x10, 1);
    assert_int_equal(f->pin[23].level, 1);
    set(f, 0x20, 1);
    assert_int_equal(f->pin[23].level, 0);
    assert_int_equal(get(f, 0x20), 0);
    /* The status comes without the interrupt enable, too. */
    set(f, T(0), LEVEL | ROUTE(23));
    set(f, T(0) + COMPARATOR, get(f, 0xf0) + 10);
    ticks(f, 10);
    assert_int_equal(get(f, 0x20), 1);
    assert_int_equal(f->pin[23].level, 0);
}

static void test_legacy(void **state)
{
    struct fix *f = *state;
    struct irq pit = hpet_legacy_in(&f->hpet, 0);
    struct irq rtc = hpet_legacy_in(&f->hpet, 1);
    irq_set(&pit, 1);
    assert_int_equal(f->irq0.level, 1);
    irq_set(&pit, 0);
    irq_set(&rtc, 1);
    assert_int_equal(f->irq8.level, 1);
    set(f, 0x10, 3);
    assert_int_equal(f->irq8.level, 0); /* the RTC is cut off */
    f->irq0.rises = f->irq8.rises = 0;
    irq_set(&pit, 1);
    assert_int_equal(f->irq0.rises, 0);
    set(f, T(0), ENABLE | ROUTE(20));
    set(f, T(0) + COMPARATOR, get(f, 0xf0) + 10);
    set(f, T(1), ENABLE | ROUTE(21));
    set(f, T(1) + COMPARATOR, get(f, 0xf0) + 20);
    ticks(f, 10);
    assert_int_equal(f->irq0.rises, 1);
    assert_int_equal(f->irq8.rises, 0);
    ticks(f, 10);
    assert_int_equal(f->irq8.rises, 1);
    assert_int_equal(f->pin[20].rises + f->pin[21].rises, 0); /* the route does not count */
    set(f, 0x10, 1);
    assert_int_equal(f->irq8.level, 1); /* what the RTC drives */
    assert_int_equal(f->irq0.level, 1);
    irq_set(&pit, 0);
    assert_int_equal(f->irq0.level, 0);
}

static void test_fsb(void **state)
{
    struct fix *f = *state;
    set(f, 0x10, 1);
    set(f, T(1) + FSB, 0xfee0100000004050);
    assert_int_equal(get32(f, T(1) + FSB), 0x4050);
    set(f, T(1), ENABLE | FSB_ENABLE | ROUTE(21));
    set(f, T(1) + COMPARATOR, 77);
    ticks(f, 77);
    assert_int_equal(f->msis, 1);
    assert_int_equal(f->msi_address, 0xfee01000);
    assert_int_equal(f->msi_data, 0x4050);
    assert_int_equal(f->pin[21].rises, 0);
}

static void test_routes(void **state)
{
    struct fix *f = *state;
    set(f, T(0), ROUTE(21));
    assert_int_equal(get(f, T(0)) >> 9 & 31, 21);
    set(f, T(0), ROUTE(3)); /* not one of its capabilities */
    assert_int_equal(get(f, T(0)) >> 9 & 31, 21);
    set(f, T(0), ROUTE(31));
    assert_int_equal(get(f, T(0)) >> 9 & 31, 21);
}

static void test_late_loop(void **state)
{
    struct fix *f = *state;
    set(f, 0x10, 1);
    set(f, T(0), ENABLE | ROUTE(20));
    set(f, T(0) + COMPARATOR, 100);
    clock_set_now(f->rig.clock, 5000);
    assert_int_equal(get(f, 0xf0), 500);
    assert_int_equal(f->pin[20].rises, 1);
}

static void test_random_traffic(void **state)
{
    struct fix *f = *state;
    uint64_t seed = 0x8be7;
    for (int i = 0; i < 50000; i++) {
        uint64_t x = test_random(&seed);
        unsigned reg = (unsigned)(x >> 8) % 0x60 * 4;
        uint64_t v = x & 0x80 ? x >> 40 : x;
        switch (x & 7) {
        case 0:
            set32(f, reg, (uint32_t)v);
            break;
        case 1:
            set(f, T(x >> 8 & 3) + (unsigned)(x >> 10 & 1) * COMPARATOR, v);
            break;
        case 2:
            set(f, T(x >> 8 & 3) + COMPARATOR, get(f, 0xf0) + (x >> 50));
            break;
        case 3:
            get32(f, reg);
            break;
        case 4:
            set(f, 0x10, 1 | (x >> 8 & 3));
            break;
        default:
            ticks(f, (x >> 8) % 10000);
            break;
        }
        if (i % 200 == 0) {
            dev_roundtrip(f->rig.bus, f->rig.clock);
        }
    }
}

int main(void)
{
#define U(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
    const struct CMUnitTest tests[] = {
        U(test_capabilities), U(test_counter),   U(test_one_shot),       U(test_32bit),
        U(test_periodic),     U(test_level),     U(test_legacy),         U(test_fsb),
        U(test_routes),       U(test_late_loop), U(test_random_traffic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
