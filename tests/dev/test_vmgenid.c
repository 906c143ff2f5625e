/* SPDX-License-Identifier: Apache-2.0 */
// LAYERS: dev/pc bus mem state base
#include "support/dev.h"

#include "dev/pc/vmgenid.h"

#define BASE 0xfef00000u

struct fix {
    struct dev_rig rig;
    struct vmgenid id;
};

static int setup(void **state)
{
    struct fix *f = calloc(1, sizeof *f);
    struct err e;
    dev_rig_init(&f->rig);
    vmgenid_init(&f->id, f->rig.bus, BASE);
    assert_int_equal(vmgenid_renew(&f->id, &e), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;
    vmgenid_fini(&f->id);
    dev_rig_fini(&f->rig);
    free(f);
    return 0;
}

static void read_id(struct fix *f, uint8_t id[VMGENID_BYTES], unsigned size)
{
    for (unsigned at = 0; at < VMGENID_BYTES; at += size) {
        uint64_t v = bus_mmio_read(f->rig.bus, BASE + at, size);
        memcpy(id + at, &v, size);
    }
}

static void test_read_in_every_size(void **state)
{
    struct fix *f = *state;
    uint8_t id[VMGENID_BYTES];
    for (unsigned size = 1; size <= 8; size *= 2) {
        read_id(f, id, size);
        assert_memory_equal(id, f->id.guid, sizeof id);
    }
    uint64_t last = bus_mmio_read(f->rig.bus, BASE + VMGENID_BYTES - 1, 2);
    assert_int_equal(last, f->id.guid[VMGENID_BYTES - 1]); /* behind it are zeroes */
    assert_int_equal(bus_mmio_read(f->rig.bus, BASE + VMGENID_PAGE - 8, 8), 0);
}

static void test_writes_are_lost(void **state)
{
    struct fix *f = *state;
    uint8_t before[VMGENID_BYTES], after[VMGENID_BYTES];
    read_id(f, before, 8);
    bus_mmio_write(f->rig.bus, BASE, 8, ~0ull);
    bus_mmio_write(f->rig.bus, BASE + 15, 4, 0);
    read_id(f, after, 8);
    assert_memory_equal(before, after, sizeof before);
}

static void test_renew(void **state)
{
    struct fix *f = *state;
    struct err e;
    uint8_t before[VMGENID_BYTES], after[VMGENID_BYTES];
    read_id(f, before, 8);
    bus_lock(f->rig.bus);
    bus_reset(f->rig.bus);
    bus_unlock(f->rig.bus);
    read_id(f, after, 8);
    assert_memory_equal(before, after, sizeof before); /* a reset makes no new machine */
    assert_int_equal(vmgenid_renew(&f->id, &e), 0);
    read_id(f, after, 8);
    assert_memory_not_equal(before, after, sizeof before);
}

static void test_state(void **state)
{
    struct fix *f = *state;
    uint8_t before[VMGENID_BYTES];
    read_id(f, before, 8);
    dev_roundtrip(f->rig.bus, f->rig.clock);
    assert_memory_equal(f->id.guid, before, sizeof before);
}

/* Streams of builds that had no such device. */
static void test_no_section(void **state)
{
    struct fix *f = *state;
    struct state_out *o = state_out_new();
    struct state_in *in;
    struct err e;
    size_t len;
    uint8_t before[VMGENID_BYTES];
    read_id(f, before, 8);
    const uint8_t *data = state_out_data(o, &len);
    assert_int_equal(state_in_new(&in, data, len, &e), 0);
    bus_lock(f->rig.bus);
    assert_int_equal(bus_load(f->rig.bus, in, &e), 0);
    bus_unlock(f->rig.bus);
    assert_memory_equal(f->id.guid, before, sizeof before);
    state_in_free(in);
    state_out_free(o);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_read_in_every_size), TEST(test_writes_are_lost), TEST(test_renew),
        TEST(test_state),              TEST(test_no_section),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
