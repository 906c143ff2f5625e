/* SPDX-License-Identifier: Apache-2.0 */
// LAYERS: dev/pc bus mem state base
#include "support/dev.h"

#include "dev/pc/pflash.h"

#define BASE 0xffc00000u
#define SIZE 0x8000u

struct fix {
    struct dev_rig rig;
    struct gmem *mem;
    struct pflash *flash;
    uint8_t file[SIZE];
    unsigned writes;
};

static void changed(void *ctx, uint32_t offset, const void *data, uint32_t len)
{
    struct fix *f = ctx;
    assert_true(offset < SIZE && len <= SIZE - offset);
    memcpy(f->file + offset, data, len);
    f->writes++;
}

static int setup(void **state)
{
    struct fix *f = calloc(1, sizeof *f);
    struct err e = { 0 };
    assert_int_equal(gmem_new(&f->mem, 1 << 20, 0xc0000000, &e), 0);
    f->rig.bus = bus_new(f->mem);
    f->rig.clock = clock_new_fake();
    f->flash = calloc(1, sizeof *f->flash);
    memset(f->file, 0xff, SIZE);
    f->file[0x10] = 0x5a;
    assert_int_equal(pflash_init(f->flash, f->rig.bus, BASE, f->file, SIZE, &e), 0);
    f->flash->changed = changed;
    f->flash->ctx = f;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;
    pflash_fini(f->flash);
    dev_rig_fini(&f->rig);
    gmem_free(f->mem);
    free(f->flash);
    free(f);
    return 0;
}

static void out(struct fix *f, uint32_t offset, uint8_t v)
{
    bus_mmio_write(f->rig.bus, BASE + offset, 1, v);
}

/* As a processor reads: ROM where the map shows it, else the device. */
static uint8_t in(struct fix *f, uint32_t offset)
{
    uint8_t v;
    if (gmem_read(f->mem, BASE + offset, &v, 1) == 0) {
        return v;
    }
    return (uint8_t)bus_mmio_read(f->rig.bus, BASE + offset, 1);
}

static void program(struct fix *f, uint32_t offset, uint8_t v)
{
    out(f, offset, 0x10);
    out(f, offset, v);
}

/* How OVMF tells flash from RAM and ROM. */
static void test_detection(void **state)
{
    struct fix *f = *state;
    assert_int_equal(in(f, 0x10), 0x5a);
    out(f, 0x10, 0x50);
    assert_int_equal(in(f, 0x10), 0x5a);
    out(f, 0x10, 0x70);
    assert_int_equal(in(f, 0x10), 0x00);
    out(f, 0x10, 0xff);
    assert_int_equal(in(f, 0x10), 0x5a);
    out(f, 0, 0x90);
    assert_int_equal(in(f, 0), 0x89);
    out(f, 0, 0x98);
    assert_int_equal(in(f, 0x10), 'Q');
    assert_int_equal(in(f, 0x27), 15);
    assert_int_equal(in(f, 0x2d), SIZE / PFLASH_BLOCK - 1);
    out(f, 0, 0xff);
}

static void test_program_and_erase(void **state)
{
    struct fix *f = *state;
    program(f, 0x1234, 0xf0);
    assert_int_equal(in(f, 0), 0x80); /* status, ready */
    program(f, 0x1234, 0x3c);         /* bits are only cleared */
    program(f, 0x1235, 0x11);
    assert_int_equal(f->writes, 0);
    out(f, 0, 0xff);
    assert_int_equal(in(f, 0x1234), 0x30);
    assert_int_equal(f->writes, 1); /* once for all */
    assert_int_equal(f->file[0x1234], 0x30);
    assert_int_equal(f->file[0x1235], 0x11);
    out(f, 0x1fff, 0x20);
    out(f, 0x1fff, 0xd0);
    out(f, 0, 0xff);
    assert_int_equal(in(f, 0x1234), 0xff);
    assert_int_equal(in(f, 0x10), 0x5a); /* another block */
    assert_int_equal(f->file[0x1234], 0xff);
    out(f, 0, 0x20); /* not confirmed */
    out(f, 0, 0x00);
    assert_int_equal(in(f, 0) & 0x30, 0x30);
    out(f, 0, 0xff);
    assert_int_equal(in(f, 0x10), 0x5a);
}

static void test_buffer(void **state)
{
    struct fix *f = *state;
    out(f, 0x100, 0xe8);
    assert_int_equal(in(f, 0x100), 0x80);
    out(f, 0x100, 3);
    for (unsigned i = 0; i < 4; i++) {
        out(f, 0x100 + i, (uint8_t)(0x40 + i));
    }
    out(f, 0x100, 0xd0);
    out(f, 0, 0xff);
    assert_int_equal(in(f, 0x103), 0x43);
}

static void test_reset_keeps_contents(void **state)
{
    struct fix *f = *state;
    program(f, 0x40, 0x12);
    bus_lock(f->rig.bus);
    bus_reset(f->rig.bus);
    bus_unlock(f->rig.bus);
    assert_int_equal(in(f, 0x40), 0x12);
    assert_int_equal(f->file[0x40], 0x12);
}

static void test_random_traffic(void **state)
{
    static const uint8_t commands[] = { 0x10, 0x20, 0x40, 0x50, 0x60, 0x70,
                                        0x90, 0x98, 0xd0, 0xe8, 0xff, 0x00 };
    struct fix *f = *state;
    uint64_t seed = 7;
    for (unsigned i = 0; i < 4000; i++) {
        uint64_t x = test_random(&seed);
        uint8_t v = x & 1 ? commands[(x >> 8) % sizeof commands] : (uint8_t)(x >> 16);
        out(f, (uint32_t)(x >> 24) % SIZE, v);
        (void)in(f, (uint32_t)(x >> 40) % SIZE);
        if (i % 512 == 0) {
            dev_roundtrip(f->rig.bus, f->rig.clock);
        }
    }
}

static void test_bad_size(void **state)
{
    struct fix *f = *state;
    struct pflash *other = calloc(1, sizeof *other);
    struct err e = { 0 };
    assert_int_equal(pflash_init(other, f->rig.bus, 0xff000000, f->file, 100, &e), -EINVAL);
    free(other);
}

#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_detection),      T(test_program_and_erase), T(test_buffer), T(test_bad_size),
        T(test_random_traffic), T(test_reset_keeps_contents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
