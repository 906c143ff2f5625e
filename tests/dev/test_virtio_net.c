// SPDX-License-Identifier: Apache-2.0
// LAYERS: dev/virtio dev/pc bus mem state block net base
/* virtio-net: headers, mergeable buffers, filters, the control queue. */
#include "dev/netdev.h"
#include "dev/virtio.h"

#include "dev/virtio/net.h"

#define GUEST_CSUM BIT(1)
#define GUEST_TSO4 BIT(7)
#define MRG BIT(15)
#define CTRL (BIT(17) | BIT(18) | BIT(19) | BIT(20) | BIT(23) | BIT(2))
#define MQ BIT(22)
#define PAIRS 2u
#define CONTROL (2 * PAIRS)

struct fix {
    struct vt t;
    struct test_net net;
    struct virtio_net card;
};

static int setup(void **state)
{
    struct fix *f = calloc(1, sizeof *f);
    vt_rig_init(&f->t);
    net_init(&f->net.net, &test_net_class);
    const struct virtio_net_config c = { .net = &f->net.net,
                                         .mac = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 },
                                         .pairs = PAIRS,
                                         .virtio = { .packed = true } };
    virtio_net_init(&f->card, "virtio-net.0", f->t.pci, f->t.rig.bus, PCI_DEVFN(3, 0), &c);
    vt_map(&f->t, &f->card.v);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;
    virtio_net_fini(&f->card);
    net_free(&f->net.net);
    vt_rig_fini(&f->t);
    free(f);
    return 0;
}

static void transmit(struct fix *f, uint64_t ring)
{
    struct vt *t = &f->t;
    uint8_t frame[4096], header[12] = { 1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0 };
    vt_start(t, BIT(0) | BIT(11) | ring, 2);
    size_t len = test_tcp_frame(frame, 3000);
    vt_put(t, VT_DATA, header, 12);
    vt_put(t, VT_DATA + 100, frame, len);
    const struct vt_seg seg[3] = { { VT_DATA, 12, false },
                                   { VT_DATA + 100, 54, false },
                                   { VT_DATA + 154, 3000, false } };
    for (unsigned i = 0; i < 50; i++) {
        vt_do(t, 1, seg, 3);
        assert_int_equal(f->net.sent, i + 1);
        assert_int_equal(f->net.len, len);
        assert_memory_equal(f->net.frame, frame, len);
        assert_int_equal(f->net.offload.gso_size, 1460);
        assert_int_equal(f->net.offload.gso_type, NET_GSO_TCP4);
        assert_int_equal(f->net.offload.csum_start, 34);
    }
    dev_roundtrip(t->rig.bus, t->rig.clock);
    f->net.sent = 0;
}

static void test_transmit(void **state) { transmit(*state, 0); }
static void test_transmit_packed(void **state) { transmit(*state, VIRTIO_F_RING_PACKED); }

static void deliver(struct fix *f, const struct net_offload *o, const uint8_t *frame, size_t len)
{
    bus_lock(f->t.rig.bus);
    net_deliver(&f->net.net, o, frame, len);
    bus_unlock(f->t.rig.bus);
}

static void receive(struct fix *f, uint64_t ring)
{
    struct vt *t = &f->t;
    uint8_t frame[4096], back[4200];
    const struct net_offload o = { 1, NET_GSO_TCP4, 54, 1460, 34, 16 };
    vt_start(t, MRG | GUEST_CSUM | GUEST_TSO4 | ring, 2);
    assert_int_equal(f->net.net.card_caps, NET_CAP_CSUM | NET_CAP_TSO4);
    size_t len = test_tcp_frame(frame, 3000);
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i < 3; i++) {
            const struct vt_seg seg = { VT_DATA + 4096 * i, 1536, true };
            vt_add(t, 0, &seg, 1);
        }
        vt_kick(t, 0);
        deliver(f, &o, frame, len);
        size_t done = 0;
        for (unsigned i = 0; i < 2; i++) {
            uint16_t id;
            uint32_t used = 0;
            assert_true(vt_used(t, 0, 1, &id, &used));
            vt_get(t, VT_DATA + 4096 * i, back + done, used);
            done += used;
        }
        assert_int_equal(done, len + 12);
        const uint8_t header[12] = { 1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 2, 0 };
        assert_memory_equal(back, header, 12);
        assert_memory_equal(back + 12, frame, len);
        static const struct net_offload none;
        uint16_t id;
        uint32_t used = 0;
        deliver(f, &none, frame, 60); /* the third buffer */
        assert_true(vt_used(t, 0, 1, &id, &used));
        assert_int_equal(used, 72);
        dev_roundtrip(t->rig.bus, t->rig.clock);
    }
}

static void test_receive(void **state) { receive(*state, 0); }
static void test_receive_packed(void **state) { receive(*state, VIRTIO_F_RING_PACKED); }

/* Without buffers a frame waits for some. */
static void test_no_room(void **state)
{
    struct fix *f = *state;
    struct vt *t = &f->t;
    static const struct net_offload none;
    uint8_t frame[1000] = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 };
    uint16_t id;
    uint32_t len;
    vt_start(t, MRG, 2);
    deliver(f, &none, frame, 1000);
    deliver(f, &none, frame, 100);
    assert_int_equal(f->net.net.queued_bytes, 1100);
    for (unsigned i = 0; i < 3; i++) {
        const struct vt_seg seg = { VT_DATA, 600, true };
        vt_add(t, 0, &seg, 1);
        vt_kick(t, 0);
        assert_int_equal(f->net.net.queued_bytes, i == 0 ? 1100 : i == 1 ? 100 : 0);
    }
    assert_true(vt_used(t, 0, 1, &id, &len) && len == 600);
    assert_true(vt_used(t, 0, 1, &id, &len) && len == 412);
    assert_true(vt_used(t, 0, 1, &id, &len) && len == 112);
    assert_int_equal(f->net.net.dropped, 0);
}

static uint8_t command(struct vt *t, unsigned n, uint8_t cls, uint8_t cmd, const void *data,
                       size_t len)
{
    uint8_t b[512] = { cls, cmd }, ack = 0x55;
    memcpy(b + 2, data, len);
    vt_put(t, VT_DATA, b, len + 2);
    vt_put(t, VT_DATA + 1000, &ack, 1);
    const struct vt_seg seg[2] = { { VT_DATA, (uint32_t)(len + 2), false },
                                   { VT_DATA + 1000, 1, true } };
    assert_int_equal(vt_do(t, n, seg, 2), 1);
    vt_get(t, VT_DATA + 1000, &ack, 1);
    return ack;
}

/* Does the guest get this frame? */
static bool gets(struct fix *f, const uint8_t *frame)
{
    static const struct net_offload none;
    const struct vt_seg seg = { VT_DATA + 0x8000, 2000, true };
    uint16_t id;
    uint32_t len;
    if (f->t.q[0].avail == f->t.q[0].used_seen) {
        vt_add(&f->t, 0, &seg, 1);
        vt_kick(&f->t, 0);
    }
    deliver(f, &none, frame, 60);
    return vt_used(&f->t, 0, 1, &id, &len);
}

static void test_filters(void **state)
{
    struct fix *f = *state;
    struct vt *t = &f->t;
    const uint8_t on = 1, off = 0;
    const uint8_t other[60] = { 2, 2, 2, 2, 2, 2 }, many[60] = { 1, 0, 0x5e, 0, 0, 1 };
    const uint8_t all[60] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
    uint8_t mine[60] = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 };
    vt_start(t, CTRL, 3);
    assert_true(gets(f, other)); /* promiscuous until told */
    assert_int_equal(command(t, 2, 0, 0, &off, 1), 0);
    assert_false(gets(f, other));
    assert_false(gets(f, many));
    assert_true(gets(f, all));
    assert_true(gets(f, mine));
    assert_int_equal(command(t, 2, 0, 1, &on, 1), 0);
    assert_true(gets(f, many));
    assert_int_equal(command(t, 2, 0, 1, &off, 1), 0);
    const uint8_t table[20] = { 1, 0, 0, 0, 2, 2, 2, 2, 2, 2, 1, 0, 0, 0, 1, 0, 0x5e, 0, 0, 1 };
    assert_int_equal(command(t, 2, 1, 0, table, 20), 0);
    assert_true(gets(f, other));
    assert_true(gets(f, many));
    assert_int_equal(command(t, 2, 1, 0, table, 19), 1);
    assert_int_equal(command(t, 2, 0, 5, &on, 1), 0);
    assert_false(gets(f, all));
    mine[12] = 0x81;
    mine[15] = 7;
    assert_false(gets(f, mine)); /* VLAN 7 */
    const uint16_t vlan = 7, none = 4096;
    assert_int_equal(command(t, 2, 2, 0, &vlan, 2), 0);
    assert_true(gets(f, mine));
    assert_int_equal(command(t, 2, 2, 1, &vlan, 2), 0);
    assert_false(gets(f, mine));
    assert_int_equal(command(t, 2, 2, 0, &none, 2), 1);
    const uint8_t mac[6] = { 2, 2, 2, 2, 2, 3 };
    assert_int_equal(command(t, 2, 1, 1, mac, 6), 0);
    assert_int_equal(vt_dev_config(t, 0, 4), 0x02020202);
    dev_roundtrip(t->rig.bus, t->rig.clock);
    assert_int_equal(command(t, 2, 9, 0, mac, 6), 1);
    vt_start(t, CTRL, 3); /* a reset forgets all */
    assert_int_equal(vt_dev_config(t, 0, 4), 0x12005452);
    assert_true(gets(f, other));
}

static void test_queue_pairs(void **state)
{
    struct fix *f = *state;
    struct vt *t = &f->t;
    uint8_t frame[100], header[12] = { 0 };
    static const struct net_offload none;
    vt_start(t, CTRL | MQ | MRG, CONTROL + 1);
    assert_int_equal(vt_dev_config(t, 8, 2), PAIRS);
    uint16_t pairs = 3;
    assert_int_equal(command(t, CONTROL, 4, 0, &pairs, 2), 1);
    pairs = 2;
    assert_int_equal(command(t, CONTROL, 4, 0, &pairs, 2), 0);
    size_t len = test_tcp_frame(frame, 10);
    vt_put(t, VT_DATA, header, 12);
    vt_put(t, VT_DATA + 12, frame, len);
    const struct vt_seg out = { VT_DATA, (uint32_t)len + 12, false };
    vt_do(t, 3, &out, 1); /* the flow is the second pair's now */
    const struct vt_seg in = { VT_DATA, 2000, true };
    vt_add(t, 0, &in, 1);
    vt_add(t, 2, &in, 1);
    deliver(f, &none, frame, len);
    uint16_t id;
    uint32_t used;
    assert_true(vt_used(t, 2, 1, &id, &used));
    assert_false(vt_used(t, 0, 1, &id, &used));
    dev_roundtrip(t->rig.bus, t->rig.clock);
}

static void test_link(void **state)
{
    struct fix *f = *state;
    struct vt *t = &f->t;
    vt_start(t, BIT(16), 2);
    assert_int_equal(vt_dev_config(t, 6, 2), 1);
    bus_lock(t->rig.bus);
    net_set_link(&f->net.net, false);
    bus_unlock(t->rig.bus);
    assert_int_equal(vt_dev_config(t, 6, 2), 0);
    assert_int_equal(t->msi_data, 0x40);
}

/* Frames with more work left than the driver takes never reach it. */
static void test_offloads_checked(void **state)
{
    struct fix *f = *state;
    struct vt *t = &f->t;
    uint8_t frame[4096];
    uint16_t id;
    uint32_t used;
    const struct net_offload gso = { 1, NET_GSO_TCP4, 54, 1460, 34, 16 };
    const struct vt_seg in = { VT_DATA, 4096, true };
    vt_start(t, MRG | GUEST_CSUM, 2);
    vt_add(t, 0, &in, 1);
    deliver(f, &gso, frame, test_tcp_frame(frame, 3000));
    assert_false(vt_used(t, 0, 1, &id, &used));
    const struct net_offload odd = { 0, 77, 0, 0, 0, 0 };
    deliver(f, &odd, frame, 100);
    assert_false(vt_used(t, 0, 1, &id, &used));
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_transmit),         TEST(test_transmit_packed),
        TEST(test_receive),          TEST(test_receive_packed),
        TEST(test_no_room),          TEST(test_filters),
        TEST(test_queue_pairs),      TEST(test_link),
        TEST(test_offloads_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
