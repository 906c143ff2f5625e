// SPDX-License-Identifier: Apache-2.0
// LAYERS: dev/virtio dev/pc bus mem state block net base
/* The tablet: what its configuration tells, events in the driver's buffers, none lost, state. */
#include "dev/virtio.h"

#include "dev/virtio/input.h"

struct fix {
    struct vt t;
    struct virtio_input tablet;
};

static const struct virtio_options options = { .packed = true };

static int setup(void **state)
{
    struct fix *f = calloc(1, sizeof *f);
    vt_rig_init(&f->t);
    virtio_input_init(&f->tablet, f->t.pci, f->t.rig.bus, PCI_DEVFN(3, 0), &options);
    vt_map(&f->t, &f->tablet.v);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;
    virtio_input_fini(&f->tablet);
    vt_rig_fini(&f->t);
    free(f);
    return 0;
}

static void put(struct fix *f, unsigned x, unsigned y, unsigned buttons, int wheel)
{
    const struct virtio_input_place to = { (uint16_t)x, (uint16_t)y, (uint8_t)buttons };
    bus_lock(f->t.rig.bus);
    virtio_input_put(&f->tablet, &to, wheel);
    bus_unlock(f->t.rig.bus);
}

static void give(struct fix *f, unsigned count, uint32_t len)
{
    for (unsigned i = 0; i < count; i++) {
        const struct vt_seg seg = { VT_DATA + 16 * (f->t.q[0].free_desc % VT_SIZE), len, true };
        vt_add(&f->t, 0, &seg, 1);
    }
    vt_kick(&f->t, 0);
}

/* The next event, as type << 16 | code, and its value. */
static void event(struct fix *f, uint32_t what, uint32_t value)
{
    uint8_t raw[8];
    uint16_t id = 0;
    uint32_t len = 0;
    assert_true(vt_used(&f->t, 0, 1, &id, &len));
    assert_int_equal(len, 8);
    vt_get(&f->t, VT_DATA + 16 * (id % VT_SIZE), raw, sizeof raw);
    assert_int_equal(load_le16(raw) << 16 | load_le16(raw + 2), what);
    assert_int_equal(load_le32(raw + 4), value);
}

static void no_event(struct fix *f)
{
    uint16_t id;
    uint32_t len;
    assert_false(vt_used(&f->t, 0, 1, &id, &len));
}

enum { X = 3 << 16, Y = 3 << 16 | 1, LEFT = 1 << 16 | 0x110, WHEEL = 2 << 16 | 8, SYN = 0 };

static unsigned length_of(struct fix *f, unsigned select, unsigned subsel)
{
    vt_write(&f->t, 0x2000, 1, select);
    vt_write(&f->t, 0x2001, 1, subsel);
    return (unsigned)vt_dev_config(&f->t, 2, 1);
}

static void test_config(void **state)
{
    struct fix *f = *state;
    vt_start(&f->t, 0, 2);
    assert_int_equal(length_of(f, 1, 0), strlen("sosia virtio tablet"));
    assert_int_equal(vt_dev_config(&f->t, 8, 4), 'i' << 24 | 's' << 16 | 'o' << 8 | 's');
    assert_int_equal(length_of(f, 1, 1), 0);
    assert_int_equal(vt_dev_config(&f->t, 8, 4), 0);
    assert_int_equal(length_of(f, 3, 0), 8);
    assert_int_equal(length_of(f, 0x11, 1), 35);
    assert_int_equal(vt_dev_config(&f->t, 8 + 34, 1), 0x1f);
    assert_int_equal(length_of(f, 0x11, 2), 2);
    assert_int_equal(vt_dev_config(&f->t, 8, 2), 1 << 8);
    assert_int_equal(length_of(f, 0x11, 3), 1);
    assert_int_equal(vt_dev_config(&f->t, 8, 1), 3);
    assert_int_equal(length_of(f, 0x11, 4), 0);
    assert_int_equal(length_of(f, 0x12, 1), 20);
    assert_int_equal(vt_dev_config(&f->t, 8, 4), 0);
    assert_int_equal(vt_dev_config(&f->t, 12, 4), 0x7fff);
    assert_int_equal(length_of(f, 0x12, 2), 0);
    dev_roundtrip(f->t.rig.bus, f->t.rig.clock);
}

static void run_events(struct fix *f, uint64_t features)
{
    assert_false(virtio_input_ready(&f->tablet));
    vt_start(&f->t, features, 2);
    assert_true(virtio_input_ready(&f->tablet));
    give(f, 8, 8);
    put(f, 100, 200, 1, 0);
    event(f, X, 100);
    event(f, Y, 200);
    event(f, LEFT, 1);
    event(f, SYN, 0);
    no_event(f);
    assert_int_equal(f->t.msi_data, 0x41);
    put(f, 100, 200, 1, 0); /* nothing changed */
    no_event(f);
    put(f, 100, 0xffff, 0, 2); /* four buffers are left */
    event(f, Y, 0x7fff);
    event(f, LEFT, 0);
    event(f, WHEEL, (uint32_t)-2);
    event(f, SYN, 0);
}

static void test_events(void **state) { run_events(*state, 0); }
static void test_events_packed(void **state) { run_events(*state, VIRTIO_F_RING_PACKED); }

/* Without buffers the latest place is kept, and told when there are some. */
static void test_no_room(void **state)
{
    struct fix *f = *state;
    vt_start(&f->t, 0, 2);
    give(f, 1, 8);
    put(f, 1, 2, 0, 1);
    event(f, X, 1);
    no_event(f);
    dev_roundtrip(f->t.rig.bus, f->t.rig.clock);
    for (unsigned i = 0; i < 100; i++) {
        put(f, i, 3, 0, 1);
    }
    give(f, 5, 8);
    event(f, X, 99);
    event(f, Y, 3);
    event(f, WHEEL, (uint32_t)-101);
    event(f, SYN, 0);
    no_event(f);
    put(f, 99, 3, 0, INT32_MIN);
    put(f, 99, 3, 0, INT32_MAX);
    no_event(f);
}

static void test_hostile(void **state)
{
    struct fix *f = *state;
    vt_start(&f->t, 0, 2);
    give(f, 1, 7); /* too small */
    put(f, 1, 2, 0, 0);
    assert_true(vt_status(&f->t) & VIRTIO_NEEDS_RESET);
    assert_false(virtio_input_ready(&f->tablet));
    vt_start(&f->t, 0, 2);
    const struct vt_seg lights = { VT_DATA, 8, false };
    assert_int_equal(vt_do(&f->t, 1, &lights, 1), 0);
    vt_write(&f->t, 0x2000, 4, 0xffffffff);
    assert_int_equal(vt_dev_config(&f->t, 2, 1), 0);
    give(f, 4, 8);
    put(f, 1, 0, 0xff, 0); /* what was told before the reset is told again */
    event(f, X, 1);
    event(f, LEFT, 1);
}

#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = { T(test_config), T(test_events), T(test_events_packed),
                                        T(test_no_room), T(test_hostile) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
