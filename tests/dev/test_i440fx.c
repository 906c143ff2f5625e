/* SPDX-License-Identifier: Apache-2.0 */
// LAYERS: dev/pc bus mem state base
#include "support/dev.h"

#include "base/bits.h"
#include "dev/pc/i440fx.h"

#define RAM (4u << 20)

struct fix {
    struct dev_rig rig;
    struct gmem *mem;
    struct i440fx host;
    unsigned map_changes;
};

static void on_map(void *ctx)
{
    struct fix *f = ctx;
    f->map_changes++;
}

static int setup(void **state)
{
    struct fix *f = calloc(1, sizeof *f);
    struct err e;
    struct irq none[4] = { 0 };
    assert_int_equal(gmem_new(&f->mem, RAM, 0xc0000000, &e), 0);
    gmem_set_map_hook(f->mem, on_map, f);
    f->rig.bus = bus_new(f->mem);
    f->rig.clock = clock_new_fake();
    i440fx_init(&f->host, f->rig.bus, none, NULL, NULL);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;
    i440fx_fini(&f->host);
    dev_rig_fini(&f->rig);
    gmem_free(f->mem);
    free(f);
    return 0;
}

static void select_reg(struct fix *f, uint32_t bdf, unsigned reg)
{
    dev_out32(&f->rig, 0xcf8, 0x80000000u | bdf << 8 | (reg & 0xfc));
}

static void config_out8(struct fix *f, unsigned reg, uint8_t v)
{
    select_reg(f, 0, reg);
    dev_out8(&f->rig, (uint16_t)(0xcfc + (reg & 3)), v);
}

static uint8_t config_in8(struct fix *f, unsigned reg)
{
    select_reg(f, 0, reg);
    return dev_in8(&f->rig, (uint16_t)(0xcfc + (reg & 3)));
}

static enum gmem_kind kind_at(struct fix *f, gpa_t gpa)
{
    struct gmem_range r;
    return gmem_find(f->mem, gpa, &r) ? r.kind : GMEM_NONE;
}

static void test_identity(void **state)
{
    struct fix *f = *state;
    select_reg(f, 0, 0);
    assert_int_equal(dev_in32(&f->rig, 0xcfc), 0x12378086);
    assert_int_equal(dev_in16(&f->rig, 0xcfe), 0x1237);
    assert_int_equal(dev_in8(&f->rig, 0xcfd), 0x80);
    select_reg(f, 0, 8);
    assert_int_equal(dev_in32(&f->rig, 0xcfc), 0x06000002);
}

static void test_address_register(void **state)
{
    struct fix *f = *state;
    dev_out32(&f->rig, 0xcf8, 0xffffffff);
    assert_int_equal(dev_in32(&f->rig, 0xcf8), 0xfffffffc);
    dev_out32(&f->rig, 0xcf8, 0x80000000);
    /* Only whole writes count: this is how mechanism 1 is told from mechanism 2. */
    dev_out8(&f->rig, 0xcf8, 0x55);
    dev_out16(&f->rig, 0xcfa, 0x5555);
    assert_int_equal(dev_in32(&f->rig, 0xcf8), 0x80000000);
    dev_out32(&f->rig, 0xcf8, 0); /* not enabled */
    assert_int_equal(dev_in32(&f->rig, 0xcfc), 0xffffffff);
    select_reg(f, PCI_DEVFN(5, 0), 0);
    assert_int_equal(dev_in32(&f->rig, 0xcfc), 0xffffffff);
    select_reg(f, 1 << 8, 0);
    assert_int_equal(dev_in32(&f->rig, 0xcfc), 0xffffffff);
}

static void test_attributes(void **state)
{
    static const struct {
        unsigned reg;
        unsigned shift;
        gpa_t start;
        uint64_t size;
    } rows[] = {
        { 0x5a, 0, 0xc0000, 0x4000 },  { 0x5a, 4, 0xc4000, 0x4000 }, { 0x5b, 0, 0xc8000, 0x4000 },
        { 0x5b, 4, 0xcc000, 0x4000 },  { 0x5c, 0, 0xd0000, 0x4000 }, { 0x5c, 4, 0xd4000, 0x4000 },
        { 0x5d, 0, 0xd8000, 0x4000 },  { 0x5d, 4, 0xdc000, 0x4000 }, { 0x5e, 0, 0xe0000, 0x4000 },
        { 0x5e, 4, 0xe4000, 0x4000 },  { 0x5f, 0, 0xe8000, 0x4000 }, { 0x5f, 4, 0xec000, 0x4000 },
        { 0x59, 4, 0xf0000, 0x10000 },
    };
    static const enum gmem_kind kinds[4] = { GMEM_NONE, GMEM_ROM, GMEM_NONE, GMEM_RAM };
    struct fix *f = *state;
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        for (unsigned attr = 0; attr < 4; attr++) {
            config_out8(f, rows[i].reg, (uint8_t)(attr << rows[i].shift));
            assert_int_equal(config_in8(f, rows[i].reg), attr << rows[i].shift);
            for (gpa_t a = 0xc0000; a < 0x100000; a += 0x1000) {
                bool inside = a >= rows[i].start && a < rows[i].start + rows[i].size;
                assert_int_equal(kind_at(f, a), inside ? kinds[attr] : GMEM_NONE);
            }
        }
        config_out8(f, rows[i].reg, 0);
    }
    assert_int_equal(kind_at(f, 0x9ffff), GMEM_RAM);
    assert_int_equal(kind_at(f, 0x100000), GMEM_RAM);
}

static void test_shadow(void **state)
{
    struct fix *f = *state;
    uint8_t byte = 0x5a;
    assert_int_equal(kind_at(f, 0xf0000), GMEM_NONE);
    f->map_changes = 0;
    i440fx_open_shadow(&f->host);
    assert_int_equal(f->map_changes, 1); /* in one piece */
    assert_int_equal(gmem_write(f->mem, 0xf0000, &byte, 1), 0);
    assert_int_equal(config_in8(f, 0x59), 0x30);
    assert_int_equal(kind_at(f, 0xa0000), GMEM_NONE);
    config_out8(f, 0x59, 0x10);
    assert_int_equal(gmem_write(f->mem, 0xf0000, &byte, 1), -14);
    byte = 0;
    assert_int_equal(gmem_read(f->mem, 0xf0000, &byte, 1), 0);
    assert_int_equal(byte, 0x5a);
    bus_lock(f->rig.bus);
    bus_reset(f->rig.bus);
    bus_unlock(f->rig.bus);
    assert_int_equal(kind_at(f, 0xf0000), GMEM_NONE);
}

static void test_smram(void **state)
{
    struct fix *f = *state;
    assert_int_equal(config_in8(f, 0x72), 0x02);
    config_out8(f, 0x72, 0x4a);
    assert_int_equal(kind_at(f, 0xa0000), GMEM_RAM);
    assert_int_equal(kind_at(f, 0xbffff), GMEM_RAM);
    config_out8(f, 0x72, 0x0a); /* closed but for SMM */
    assert_int_equal(kind_at(f, 0xa0000), GMEM_NONE);
    i440fx_set_smm(&f->host, true);
    assert_int_equal(kind_at(f, 0xa0000), GMEM_RAM);
    i440fx_set_smm(&f->host, false);
    assert_int_equal(kind_at(f, 0xbffff), GMEM_NONE);
    config_out8(f, 0x72, 0x02); /* no SMRAM at all */
    i440fx_set_smm(&f->host, true);
    assert_int_equal(kind_at(f, 0xa0000), GMEM_NONE);
    i440fx_set_smm(&f->host, false);
    config_out8(f, 0x72, 0x1a); /* locked, and so closed until reset */
    assert_int_equal(kind_at(f, 0xa0000), GMEM_NONE);
    config_out8(f, 0x72, 0x4a);
    assert_int_equal(config_in8(f, 0x72), 0x1a);
    assert_int_equal(kind_at(f, 0xa0000), GMEM_NONE);
    dev_roundtrip(f->rig.bus, f->rig.clock);
    config_out8(f, 0x72, 0x4a);
    assert_int_equal(config_in8(f, 0x72), 0x1a);
}

static void test_save_load_save(void **state)
{
    struct fix *f = *state;
    uint64_t seed = 99;
    for (int i = 0; i < 1000; i++) {
        uint64_t r = test_random(&seed);
        enum gmem_kind before[0x60];
        config_out8(f, (unsigned)(r & 0xff), (uint8_t)(r >> 8));
        if (i % 8 != 0) {
            continue;
        }
        for (unsigned n = 0; n < 0x60; n++) {
            before[n] = kind_at(f, 0xa0000 + n * 0x1000);
        }
        dev_roundtrip(f->rig.bus, f->rig.clock);
        for (unsigned n = 0; n < 0x60; n++) {
            assert_int_equal(kind_at(f, 0xa0000 + n * 0x1000), before[n]);
        }
    }
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_identity), TEST(test_address_register), TEST(test_attributes), TEST(test_shadow),
        TEST(test_smram),    TEST(test_save_load_save),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
