/* SPDX-License-Identifier: Apache-2.0 */
// LAYERS: dev/pc bus mem state base
#include "support/dev.h"

#include "dev/pc/irq_or.h"
#include "dev/pc/port92.h"

struct fix {
    struct dev_rig rig;
    struct port92 port;
    struct dev_line a20;
    struct dev_line reset;
};

static int setup(void **state)
{
    struct fix *f = calloc(1, sizeof *f);
    dev_rig_init(&f->rig);
    struct irq a20 = dev_line_irq(&f->a20);
    struct irq reset = dev_line_irq(&f->reset);
    port92_init(&f->port, f->rig.bus, &a20, &reset);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;
    port92_fini(&f->port);
    dev_rig_fini(&f->rig);
    free(f);
    return 0;
}

static void test_a20(void **state)
{
    struct fix *f = *state;
    assert_int_equal(dev_in8(&f->rig, 0x92), 0);
    dev_out8(&f->rig, 0x92, 0x02);
    assert_int_equal(f->a20.level, 1);
    assert_int_equal(dev_in8(&f->rig, 0x92), 0x02);
    dev_roundtrip(f->rig.bus, f->rig.clock);
    assert_int_equal(f->a20.level, 1);
    dev_out8(&f->rig, 0x92, 0x00);
    assert_int_equal(f->a20.level, 0);
    assert_int_equal(f->reset.rises, 0);
}

static void test_reset(void **state)
{
    struct fix *f = *state;
    dev_out8(&f->rig, 0x92, 0x03);
    assert_int_equal(f->reset.rises, 1);
    dev_out8(&f->rig, 0x92, 0x03); /* a level, not an edge */
    assert_int_equal(f->reset.rises, 1);
    bus_lock(f->rig.bus);
    bus_reset(f->rig.bus);
    bus_unlock(f->rig.bus);
    assert_int_equal(dev_in8(&f->rig, 0x92), 0);
    assert_int_equal(f->a20.level, 0);
}

static void test_irq_or(void **state)
{
    struct irq_or o;
    struct dev_line line = { 0 };
    struct irq out = dev_line_irq(&line);
    (void)state;
    irq_or_init(&o, &out);
    struct irq a = irq_or_input(&o, 0);
    struct irq b = irq_or_input(&o, IRQ_OR_INPUTS - 1);
    irq_set(&a, 1);
    irq_set(&b, 1);
    irq_set(&a, 0);
    assert_int_equal(line.level, 1);
    irq_set(&b, 0);
    assert_int_equal(line.level, 0);
    assert_int_equal(line.rises, 1);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a20),
        TEST(test_reset),
        cmocka_unit_test(test_irq_or),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
