/* SPDX-License-Identifier: Apache-2.0 */
// LAYERS: dev/pc bus mem state base
#include "support/dev.h"

#include "dev/pc/test_dev.h"

struct fix {
    struct dev_rig rig;
    struct test_dev t;
    struct dev_line line[TEST_DEV_LINES];
};

static int setup(void **state)
{
    struct fix *f = calloc(1, sizeof *f);
    struct irq irq[TEST_DEV_LINES];
    dev_rig_init(&f->rig);
    for (unsigned n = 0; n < TEST_DEV_LINES; n++) {
        irq[n] = dev_line_irq(&f->line[n]);
    }
    test_dev_init(&f->t, f->rig.bus, irq);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;
    test_dev_fini(&f->t);
    dev_rig_fini(&f->rig);
    free(f);
    return 0;
}

static void test_ports(void **state)
{
    struct fix *f = *state;
    dev_out32(&f->rig, 0xe0, 0x12345678);
    assert_int_equal(dev_in32(&f->rig, 0xe0), 0x12345678);
    assert_int_equal(dev_in16(&f->rig, 0xe2), 0x1234);
    dev_out8(&f->rig, 0xe1, 0xff);
    assert_int_equal(dev_in32(&f->rig, 0xe0), 0x1234ff78);
    dev_out32(&f->rig, 0xe4, 0x1000);
    assert_int_equal(dev_in32(&f->rig, 0xe4), 0);
}

static void test_lines(void **state)
{
    struct fix *f = *state;
    dev_out8(&f->rig, 0x200e, 1);
    assert_int_equal(f->line[14].level, 1);
    dev_roundtrip(f->rig.bus, f->rig.clock);
    assert_int_equal(f->line[14].level, 1);
    dev_out8(&f->rig, 0x200e, 0);
    assert_int_equal(f->line[14].level, 0);
    assert_int_equal(f->line[13].rises, 0);
    bus_port_write(f->rig.bus, 0x2003, 2, 0x0101); /* two lines */
    assert_int_equal(f->line[3].level + f->line[4].level, 2);
}

static void test_memory(void **state)
{
    struct fix *f = *state;
    struct bus *b = f->rig.bus;
    bus_mmio_write(b, 0xff000001, 8, 0x1122334455667788);
    assert_int_equal(bus_mmio_read(b, 0xff000001, 8), 0x1122334455667788);
    assert_int_equal(bus_mmio_read(b, 0xff000003, 2), 0x5566);
    bus_mmio_write(b, 0xff00ffff, 1, 0x5a);
    assert_int_equal(bus_mmio_read(b, 0xff00ffff, 1), 0x5a);
    assert_int_equal(bus_mmio_read(b, 0xff00fffe, 4), 0xffff5a00); /* half of it past the end */
    dev_roundtrip(b, f->rig.clock);
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
    const struct CMUnitTest tests[] = { T(test_ports), T(test_lines), T(test_memory) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
