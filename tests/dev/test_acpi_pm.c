/* SPDX-License-Identifier: Apache-2.0 */
// LAYERS: dev/pc bus mem state base
#include "support/dev.h"

#include "dev/pc/acpi_pm.h"
#include "dev/pc/ticks.h"

struct fix {
    struct dev_rig rig;
    struct acpi_pm pm;
    struct dev_line sci;
    struct dev_line smi;
    unsigned power_offs;
};

static void power_off(void *ctx)
{
    struct fix *f = ctx;
    f->power_offs++;
}

static int setup_bits(void **state, bool timer_32bit)
{
    struct fix *f = calloc(1, sizeof *f);
    dev_rig_init(&f->rig);
    struct acpi_pm_config cfg = {
        .clock = f->rig.clock,
        .sci = dev_line_irq(&f->sci),
        .smi = dev_line_irq(&f->smi),
        .base = ACPI_PM_BASE,
        .timer_32bit = timer_32bit,
        .power_off = power_off,
        .ctx = f,
    };
    acpi_pm_init(&f->pm, f->rig.bus, &cfg);
    *state = f;
    return 0;
}

static int setup(void **state) { return setup_bits(state, false); }
static int setup32(void **state) { return setup_bits(state, true); }

static int teardown(void **state)
{
    struct fix *f = *state;
    acpi_pm_fini(&f->pm);
    dev_rig_fini(&f->rig);
    free(f);
    return 0;
}

static void test_smi(void **state)
{
    struct fix *f = *state;
    dev_out8(&f->rig, 0xb2, 1);
    acpi_pm_enable_apm_smi(&f->pm, true);
    dev_out8(&f->rig, 0xb2, 2);
    assert_int_equal(f->smi.rises, 0); /* SMI_EN is clear */
    dev_out32(&f->rig, 0x628, 0x01000001);
    assert_int_equal(dev_in32(&f->rig, 0x628), 0x01000001);
    dev_out8(&f->rig, 0xb2, 3);
    assert_int_equal(f->smi.rises, 1);
    assert_int_equal(f->smi.level, 0);
    assert_int_equal(dev_in8(&f->rig, 0xb2), 3);
    dev_out8(&f->rig, 0xb3, 4); /* the status port is only a byte to keep */
    assert_int_equal(f->smi.rises, 1);
    acpi_pm_enable_apm_smi(&f->pm, false);
    dev_out8(&f->rig, 0xb2, 3);
    assert_int_equal(f->smi.rises, 1);
}

static void test_timer(void **state)
{
    struct fix *f = *state;
    assert_int_equal(dev_in32(&f->rig, 0x608), 0);
    dev_step(&f->rig, NS_PER_S);
    assert_int_equal(dev_in32(&f->rig, 0x608), 3579545);
    assert_int_equal(dev_in16(&f->rig, 0x608), 3579545 & 0xffff);
    assert_int_equal(dev_in8(&f->rig, 0x609), 3579545 >> 8 & 0xff);
    dev_step(&f->rig, 4 * (uint64_t)NS_PER_S);
    assert_int_equal(dev_in32(&f->rig, 0x608), 5 * 3579545 & 0xffffff);
    dev_out32(&f->rig, 0x608, 0); /* read-only */
    assert_int_equal(dev_in32(&f->rig, 0x608), 5 * 3579545 & 0xffffff);
}

static void test_timer_32(void **state)
{
    struct fix *f = *state;
    dev_step(&f->rig, 1000 * (uint64_t)NS_PER_S);
    assert_int_equal(dev_in32(&f->rig, 0x608), 1000u * 3579545u);
    dev_out8(&f->rig, 0xb2, ACPI_PM_ENABLE);
    dev_out16(&f->rig, 0x600, 0xffff);
    dev_out16(&f->rig, 0x602, 1);
    dev_step(&f->rig, 190 * (uint64_t)NS_PER_S);
    assert_int_equal(f->sci.level, 0);
    dev_step(&f->rig, 10 * (uint64_t)NS_PER_S); /* 2^32 ticks are 1199.9 s */
    assert_int_equal(f->sci.level, 1);
}

static void test_carry(void **state)
{
    struct fix *f = *state;
    dev_step(&f->rig, 2300000000);
    assert_int_equal(dev_in16(&f->rig, 0x600), 0);
    dev_step(&f->rig, 50000000); /* 2^23 ticks: 2.343 s */
    assert_int_equal(dev_in16(&f->rig, 0x600), 1);
    dev_out16(&f->rig, 0x600, 1);
    assert_int_equal(dev_in16(&f->rig, 0x600), 0);
    assert_int_equal(f->sci.rises, 0);
    dev_out8(&f->rig, 0xb2, ACPI_PM_ENABLE);
    assert_int_equal(dev_in16(&f->rig, 0x604) & 1, 1);
    dev_out16(&f->rig, 0x602, 1);
    for (unsigned i = 1; i <= 5; i++) {
        dev_step(&f->rig, 2343502500);
        assert_int_equal(f->sci.rises, i);
        dev_roundtrip(f->rig.bus, f->rig.clock);
        f->sci.rises = i;
        dev_out16(&f->rig, 0x600, 1);
        assert_int_equal(f->sci.level, 0);
    }
}

static void test_power_button(void **state)
{
    struct fix *f = *state;
    assert_false(acpi_pm_press_power_button(&f->pm));
    assert_int_equal(dev_in16(&f->rig, 0x600), 0x100);
    dev_out16(&f->rig, 0x600, 0x100);
    dev_out8(&f->rig, 0xb2, ACPI_PM_ENABLE);
    dev_out8(&f->rig, 0x603, 0x01); /* by bytes, too */
    assert_int_equal(dev_in16(&f->rig, 0x602), 0x100);
    assert_true(acpi_pm_press_power_button(&f->pm));
    assert_int_equal(f->sci.level, 1);
    assert_int_equal(dev_in32(&f->rig, 0x600), 0x01000100);
    dev_out8(&f->rig, 0x600, 0xff);
    assert_int_equal(f->sci.level, 1);
    dev_out8(&f->rig, 0x601, 0x01);
    assert_int_equal(f->sci.level, 0);
    acpi_pm_press_power_button(&f->pm);
    dev_out8(&f->rig, 0xb2, ACPI_PM_DISABLE);
    assert_int_equal(f->sci.level, 0);
    assert_int_equal(dev_in16(&f->rig, 0x604), 0);
}

static void test_gpe(void **state)
{
    struct fix *f = *state;
    dev_out8(&f->rig, 0xb2, ACPI_PM_ENABLE);
    acpi_pm_raise_gpe(&f->pm, 3);
    assert_int_equal(dev_in16(&f->rig, 0x60c), 8);
    assert_int_equal(f->sci.level, 0);
    dev_out16(&f->rig, 0x60e, 8);
    assert_int_equal(f->sci.level, 1);
    dev_out32(&f->rig, 0x60c, 0x00080008);
    assert_int_equal(f->sci.level, 0);
    assert_int_equal(dev_in16(&f->rig, 0x60e), 8);
}

static void test_soft_off(void **state)
{
    struct fix *f = *state;
    dev_out16(&f->rig, 0x604, 0x2000 | 1 << 10); /* not offered */
    assert_int_equal(f->power_offs, 0);
    assert_int_equal(dev_in16(&f->rig, 0x604), 1 << 10); /* SLP_EN reads 0 */
    dev_out16(&f->rig, 0x604, 0);
    assert_int_equal(f->power_offs, 0);
    dev_out16(&f->rig, 0x604, 0x2000);
    assert_int_equal(f->power_offs, 1);
}

static void test_moved(void **state)
{
    struct fix *f = *state;
    acpi_pm_set_base(&f->pm, 0xb000, true);
    dev_out16(&f->rig, 0xb002, 0x100);
    assert_int_equal(dev_in16(&f->rig, 0xb002), 0x100);
    assert_int_equal(dev_in16(&f->rig, 0x602), 0xffff);
    acpi_pm_set_base(&f->pm, 0xb000, false);
    assert_int_equal(dev_in16(&f->rig, 0xb002), 0xffff);
    dev_out8(&f->rig, 0xb3, 0x12);
    assert_int_equal(dev_in8(&f->rig, 0xb3), 0x12);
}

static void test_random_traffic(void **state)
{
    struct fix *f = *state;
    uint64_t seed = 0xac91;
    for (int i = 0; i < 50000; i++) {
        uint64_t x = test_random(&seed);
        uint16_t port = x & 0x100 ? 0xb2 + (x >> 12 & 1) : 0x600 + (x >> 12) % 18;
        switch (x & 3) {
        case 0:
            bus_port_write(f->rig.bus, port, 1u << (x >> 4) % 3, (uint32_t)(x >> 32));
            break;
        case 1:
            bus_port_read(f->rig.bus, port, 1u << (x >> 4) % 3);
            break;
        case 2:
            dev_step(&f->rig, (x >> 8) % (4ull * NS_PER_S));
            break;
        default:
            dev_out8(&f->rig, 0xb2, x & 4 ? ACPI_PM_ENABLE : ACPI_PM_DISABLE);
            acpi_pm_raise_gpe(&f->pm, x >> 4 & 15);
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
        T(test_smi),
        T(test_timer),
        cmocka_unit_test_setup_teardown(test_timer_32, setup32, teardown),
        T(test_carry), T(test_power_button),
        T(test_gpe),   T(test_soft_off),
        T(test_moved), T(test_random_traffic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
