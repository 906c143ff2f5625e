// SPDX-License-Identifier: Apache-2.0
// LAYERS: dev/virtio dev/pc bus mem state block net base
/* The transport and the queues, with the entropy device as the simplest one behind them. */
#include "dev/virtio.h"

#include "dev/virtio/rng.h"

struct fix {
    struct vt t;
    struct virtio_rng rng;
};

static int setup(void **state)
{
    struct fix *f = calloc(1, sizeof *f);
    vt_rig_init(&f->t);
    const struct virtio_options o = { .packed = true };
    virtio_rng_init(&f->rng, f->t.pci, f->t.rig.bus, PCI_DEVFN(3, 0), &o);
    vt_map(&f->t, &f->rng.v);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;
    virtio_rng_fini(&f->rng);
    vt_rig_fini(&f->t);
    free(f);
    return 0;
}

#define BASIC (VIRTIO_F_INDIRECT_DESC)

static void test_identity(void **state)
{
    struct vt *t = &((struct fix *)*state)->t;
    assert_int_equal(vt_config_read(t, 0, 4), 0x10051af4);
    assert_int_equal(vt_config_read(t, PCI_SUBSYSTEM, 2), 4);
    assert_int_equal(vt_config_read(t, PCI_REVISION, 1), 0);
    unsigned types = 0;
    for (unsigned cap = vt_config_read(t, PCI_CAP_POINTER, 1); cap != 0;
         cap = vt_config_read(t, cap + 1, 1)) {
        if (vt_config_read(t, cap, 1) == PCI_CAP_VENDOR) {
            types |= 1u << vt_config_read(t, cap + 3, 1);
        }
    }
    assert_int_equal(types,
                     1u << 1 | 1u << 2 | 1u << 3 | 1u << 5); /* no configuration of its own */
    assert_true(vt_offered(t) & VIRTIO_F_VERSION_1);
}

static void test_negotiation(void **state)
{
    struct vt *t = &((struct fix *)*state)->t;
    vt_set_status(t, 3);
    vt_set_status(t, 11); /* without VERSION_1 */
    assert_int_equal(vt_status(t), 3);
    vt_write(t, 8, 4, 1);
    vt_write(t, 0xc, 4, 1);
    vt_write(t, 8, 4, 0);
    vt_write(t, 0xc, 4, 1); /* no such feature */
    vt_set_status(t, 11);
    assert_int_equal(vt_status(t), 3);
    vt_write(t, 0xc, 4, 0);
    vt_set_status(t, 11);
    assert_int_equal(vt_status(t), 11);
    vt_write(t, 0xc, 4, 1u << 28); /* too late */
    assert_int_equal(vt_read(t, 0xc, 4), 0);
    vt_set_status(t, 0);
    assert_int_equal(vt_status(t), 0);
}

static void test_common_registers(void **state)
{
    struct vt *t = &((struct fix *)*state)->t;
    assert_int_equal(vt_read(t, 0x12, 2), 1);
    assert_int_equal(vt_read(t, 0x10, 2), 0xffff);
    vt_write(t, 0x10, 2, 1);
    assert_int_equal(vt_read(t, 0x10, 2), 1);
    vt_write(t, 0x10, 2, 2); /* there are two vectors */
    assert_int_equal(vt_read(t, 0x10, 2), 0xffff);
    assert_int_equal(vt_read(t, 0x18, 2), 256);
    vt_write(t, 0x16, 2, 1);
    assert_int_equal(vt_read(t, 0x18, 2), 0); /* no second queue */
    vt_write(t, 0x16, 2, 0);
    vt_write(t, 0x20, 4, 0x12345000);
    vt_write(t, 0x24, 4, 0x9);
    assert_int_equal(vt_read(t, 0x20, 8), 0x912345000);
    assert_int_equal(vt_read(t, 0x22, 2), 0x1234);
    vt_write(t, 0x18, 2, 24); /* a split queue's size is a power of two */
    vt_write(t, 0x1c, 2, 1);
    assert_int_equal(vt_read(t, 0x1c, 2), 0);
    assert_true(vt_status(t) & VIRTIO_NEEDS_RESET);
}

static void draw(struct vt *t, uint64_t features)
{
    vt_start(t, features, 1);
    for (unsigned i = 0; i < 100; i++) {
        const struct vt_seg seg[3] = { { VT_DATA, 5, true },
                                       { VT_DATA + 100, 11, true },
                                       { VT_DATA + 200, 1 + i, true } };
        uint8_t zero[300] = { 0 }, got[300];
        vt_put(t, VT_DATA, zero, 300);
        uint32_t msis = t->msis;
        assert_int_equal(vt_do(t, 0, seg, 1 + i % 3), i % 3 == 0 ? 5 : i % 3 == 1 ? 16 : 17 + i);
        if (!(features & VIRTIO_F_EVENT_IDX)) {
            assert_int_equal(t->msis, msis + 1);
            assert_int_equal(t->msi_data, 0x41);
        }
        vt_get(t, VT_DATA, got, 300);
        assert_memory_not_equal(got, zero, 5);
        assert_memory_equal(got + 5, zero, 95);
        dev_roundtrip(t->rig.bus, t->rig.clock);
    }
}

static void test_split(void **state) { draw(&((struct fix *)*state)->t, BASIC); }
static void test_packed(void **state)
{
    draw(&((struct fix *)*state)->t, BASIC | VIRTIO_F_RING_PACKED);
}

static void test_event_index_split(void **state)
{
    struct vt *t = &((struct fix *)*state)->t;
    const struct vt_seg seg = { VT_DATA, 8, true };
    vt_start(t, VIRTIO_F_EVENT_IDX, 1);
    gpa_t used_event = t->q[0].driver + 4 + 2 * VT_SIZE;
    gpa_t avail_event = t->q[0].device + 4 + 8 * VT_SIZE;
    for (unsigned i = 0; i < 70000; i++) {
        uint16_t at = t->q[0].avail;
        vt_put16(t, used_event, (uint16_t)(at + (i % 2)));
        uint32_t msis = t->msis;
        vt_do(t, 0, &seg, 1);
        assert_int_equal(t->msis, msis + (i % 2 == 0)); /* that one, or the one after */
        assert_int_equal(vt_get16(t, avail_event), (uint16_t)(at + 1));
    }
}

static void test_event_index_packed(void **state)
{
    struct vt *t = &((struct fix *)*state)->t;
    const struct vt_seg seg = { VT_DATA, 8, true };
    vt_start(t, VIRTIO_F_EVENT_IDX | VIRTIO_F_RING_PACKED, 1);
    for (unsigned i = 0; i < 1000; i++) {
        uint16_t place = (uint16_t)((t->q[0].avail + i % 2) % VT_SIZE);
        bool wrap = t->q[0].avail_wrap ^ (t->q[0].avail + i % 2 >= VT_SIZE);
        uint16_t event[2] = { (uint16_t)(place | (wrap ? 0x8000 : 0)), 2 };
        vt_put(t, t->q[0].driver, event, 4);
        uint32_t msis = t->msis;
        vt_do(t, 0, &seg, 1);
        assert_int_equal(t->msis, msis + (i % 2 == 0));
        uint16_t asked = vt_get16(t, t->q[0].device);
        assert_int_equal(asked & 0x7fff, t->q[0].avail);
        assert_int_equal(asked >> 15, t->q[0].avail_wrap);
    }
}

static void test_no_interrupt_wanted(void **state)
{
    struct vt *t = &((struct fix *)*state)->t;
    const struct vt_seg seg = { VT_DATA, 8, true };
    vt_start(t, 0, 1);
    vt_put16(t, t->q[0].driver, 1);
    vt_do(t, 0, &seg, 1);
    assert_int_equal(t->msis, 0);
    vt_start(t, VIRTIO_F_RING_PACKED, 1);
    const uint16_t off[2] = { 0, 1 };
    vt_put(t, t->q[0].driver, off, 4);
    vt_do(t, 0, &seg, 1);
    assert_int_equal(t->msis, 0);
}

/* An indirect table with a chain in it. */
static void test_indirect(void **state)
{
    struct vt *t = &((struct fix *)*state)->t;
    for (unsigned packed = 0; packed < 2; packed++) {
        vt_start(t, BASIC | (packed ? VIRTIO_F_RING_PACKED : 0), 1);
        const struct vt_seg part[2] = { { VT_DATA, 3, true }, { VT_DATA + 64, 6, true } };
        gpa_t table = VT_DATA + 0x1000;
        vt_put_desc(t, table, &part[0], 3, 1);
        vt_put_desc(t, table + 16, &part[1], 2, 0);
        const struct vt_seg seg = { table, 32, false };
        vt_add(t, 0, &seg, 1);
        vt_put16(t, t->q[0].desc + (packed ? 14 : 12), packed ? 0x84 : 4);
        vt_kick(t, 0);
        uint16_t id;
        uint32_t len;
        assert_true(vt_used(t, 0, 1, &id, &len));
        assert_int_equal(len, 9);
    }
}

/* -- Drivers that break the rules -------------------------------------------------------------- */
static void broken(struct vt *t, unsigned line)
{
    uint32_t msis = t->msis;
    vt_kick(t, 0);
    if (!(vt_status(t) & VIRTIO_NEEDS_RESET)) {
        fail_msg("line %u: not noticed", line);
    }
    assert_int_equal(t->msis, msis + 1);
    assert_int_equal(t->msi_data, 0x40); /* a configuration change */
    dev_roundtrip(t->rig.bus, t->rig.clock);
    vt_kick(t, 0); /* and nothing happens */
    assert_int_equal(t->msis, msis + 1);
}
#define BROKEN(t) broken(t, __LINE__)

static void test_hostile_split(void **state)
{
    struct vt *t = &((struct fix *)*state)->t;
    const struct vt_seg ok = { VT_DATA, 8, true };
    vt_start(t, BASIC, 1);
    vt_put16(t, t->q[0].driver + 2, VT_SIZE + 1); /* the index jumps */
    BROKEN(t);
    vt_start(t, BASIC, 1);
    vt_add(t, 0, &ok, 1);
    vt_put16(t, t->q[0].driver + 4, VT_SIZE); /* no such descriptor */
    BROKEN(t);
    vt_start(t, BASIC, 1);
    vt_add(t, 0, &ok, 1);
    vt_put_desc(t, t->q[0].desc, &ok, 3, 0); /* a loop */
    BROKEN(t);
    vt_start(t, BASIC, 1);
    vt_add(t, 0, &ok, 1);
    vt_put_desc(t, t->q[0].desc, &ok, 3, VT_SIZE); /* a next one outside */
    BROKEN(t);
    const struct vt_seg order[2] = { { VT_DATA, 8, true }, { VT_DATA, 8, false } };
    vt_start(t, BASIC, 1);
    vt_add(t, 0, order, 2); /* to read behind to write */
    BROKEN(t);
    const struct vt_seg far = { VT_RAM - 4, 8, true };
    vt_start(t, BASIC, 1);
    vt_add(t, 0, &far, 1);
    BROKEN(t);
    const struct vt_seg wraps = { UINT64_MAX - 3, 8, true };
    vt_start(t, BASIC, 1);
    vt_add(t, 0, &wraps, 1);
    BROKEN(t);
    const struct vt_seg huge[2] = { { VT_DATA, 0xffffffff, true }, { VT_DATA, 8, true } };
    vt_start(t, BASIC, 1);
    vt_add(t, 0, huge, 2);
    BROKEN(t);
}

static void indirect(struct vt *t, uint64_t features, const struct vt_seg *seg, uint16_t flags)
{
    vt_start(t, features, 1);
    vt_add(t, 0, seg, 1);
    vt_put16(t, t->q[0].desc + (t->packed ? 14 : 12), (uint16_t)(flags | (t->packed ? 0x80 : 0)));
}

static void test_hostile_indirect(void **state)
{
    struct vt *t = &((struct fix *)*state)->t;
    for (unsigned packed = 0; packed < 2; packed++) {
        uint64_t ring = packed ? VIRTIO_F_RING_PACKED : 0;
        const struct vt_seg odd = { VT_DATA, 17, false };
        const struct vt_seg none = { VT_DATA, 0, false };
        const struct vt_seg many = { VT_DATA, 16 * 1024, false };
        const struct vt_seg far = { VT_RAM - 8, 16, false };
        const struct vt_seg one = { VT_DATA, 16, false };
        indirect(t, BASIC | ring, &odd, 4);
        BROKEN(t);
        indirect(t, BASIC | ring, &none, 4);
        BROKEN(t);
        indirect(t, BASIC | ring, &many, 4);
        BROKEN(t);
        indirect(t, BASIC | ring, &far, 4);
        BROKEN(t);
        indirect(t, ring, &one, 4); /* not negotiated */
        BROKEN(t);
        indirect(t, BASIC | ring, &one, 5); /* and a next one */
        BROKEN(t);
        indirect(t, BASIC | ring, &one, 4);
        vt_put_desc(t, VT_DATA, &one, 4, 0); /* one in the other */
        BROKEN(t);
    }
    const struct vt_seg two = { VT_DATA, 32, false };
    const struct vt_seg part = { VT_DATA + 64, 1, true };
    indirect(t, BASIC, &two, 4);
    vt_put_desc(t, VT_DATA, &part, 3, 1);
    vt_put_desc(t, VT_DATA + 16, &part, 3, 0);
    BROKEN(t);
    indirect(t, BASIC, &two, 4);
    vt_put_desc(t, VT_DATA, &part, 3, 2);
    BROKEN(t);
}

static void test_hostile_packed(void **state)
{
    struct vt *t = &((struct fix *)*state)->t;
    vt_start(t, VIRTIO_F_RING_PACKED, 1);
    const struct vt_seg seg = { VT_DATA, 8, true };
    for (unsigned i = 0; i < VT_SIZE; i++) {
        vt_put_desc(t, t->q[0].desc + 16 * i, &seg, 0x83, 0); /* without end */
    }
    BROKEN(t);
}

/* Rings that are not in memory. */
static void test_hostile_rings(void **state)
{
    struct vt *t = &((struct fix *)*state)->t;
    for (unsigned part = 0; part < 3; part++) {
        vt_start(t, 0, 0);
        vt_set_status(t, 0);
        vt_start(t, 0, 1);
        const struct vt_seg seg = { VT_DATA, 8, true };
        vt_add(t, 0, &seg, 1);
        struct virtq *q = &t->v->queue[0];
        *(part == 0 ? &q->desc : part == 1 ? &q->driver : &q->device) = 0xfee00000;
        BROKEN(t);
    }
}

static void test_random_rings(void **state)
{
    struct vt *t = &((struct fix *)*state)->t;
    uint64_t seed = 1;
    for (unsigned round = 0; round < 400; round++) {
        uint64_t features = (round & 1 ? VIRTIO_F_RING_PACKED : 0) |
                            (round & 2 ? VIRTIO_F_EVENT_IDX : 0) | BASIC;
        vt_start(t, features, 1);
        for (unsigned i = 0; i < 40; i++) {
            uint64_t r = test_random(&seed);
            uint8_t raw[16];
            store_le64(raw, r % 4 ? VT_DATA + r % 0x1000 : r);
            store_le32(raw + 8, (uint32_t)(r >> 40) & (r & 8 ? 0xfff : 0xffffffff));
            store_le32(raw + 12, (uint32_t)test_random(&seed) & (r & 16 ? 0x800f8007 : 0xffffffff));
            vt_put(t, t->q[0].desc + 16 * (r >> 8) % 256, raw, 16);
            vt_put16(t, t->q[0].driver + 4 + 2 * (r >> 20) % 16, (uint16_t)(r >> 30) % 17);
            if (!t->packed) {
                vt_put16(t, t->q[0].driver + 2, (uint16_t)(i + (r >> 50) % 3));
            }
            vt_kick(t, 0);
        }
        dev_roundtrip(t->rig.bus, t->rig.clock);
    }
}

/* -- The legacy interface ---------------------------------------------------------------------- */
static void test_legacy(void **state)
{
    struct vt *t = &((struct fix *)*state)->t;
    struct dev_rig *r = &t->rig;
    dev_out8(r, VT_PORTS + 18, 0);
    dev_out8(r, VT_PORTS + 18, 3);
    assert_int_equal(dev_in32(r, VT_PORTS) & 0x38000000, 0x38000000);
    dev_out32(r, VT_PORTS + 4, 0);
    dev_out16(r, VT_PORTS + 14, 0);
    assert_int_equal(dev_in16(r, VT_PORTS + 12), 256);
    dev_out32(r, VT_PORTS + 8, 0x20);
    assert_int_equal(dev_in32(r, VT_PORTS + 8), 0x20);
    dev_out8(r, VT_PORTS + 18, 7);
    const struct vt_seg seg = { VT_DATA, 8, true };
    vt_put_desc(t, 0x20000, &seg, 2, 0);
    vt_put16(t, 0x21000 + 4, 0);
    vt_put16(t, 0x21000 + 2, 1);
    dev_out16(r, VT_PORTS + 16, 0);
    assert_int_equal(vt_get16(t, 0x22000 + 2), 1);
    /* INTx, as MSI-X is off: slot 3, INTA# */
    struct dev_line *line = &t->line[pci_intx_route(PCI_DEVFN(3, 0), 1)];
    assert_int_equal(line->level, 1);
    dev_roundtrip(r->bus, r->clock);
    assert_int_equal(line->level, 1);
    assert_int_equal(dev_in8(r, VT_PORTS + 19), 1);
    assert_int_equal(line->level, 0);
    assert_int_equal(dev_in8(r, VT_PORTS + 19), 0);
    dev_out32(r, VT_PORTS + 8, 0); /* lets go */
    assert_int_equal(dev_in8(r, VT_PORTS + 18), 0);
}

/* BAR 4 through the window in configuration space. */
static void test_window(void **state)
{
    struct vt *t = &((struct fix *)*state)->t;
    unsigned cap = t->v->pci_cfg_cap;
    assert_int_equal(vt_config_read(t, cap + 3, 1), 5);
    vt_config(t, cap + 4, 1, 4);
    vt_config(t, cap + 8, 4, 0x14);
    vt_config(t, cap + 12, 4, 1);
    vt_config(t, cap + 16, 1, 3);
    assert_int_equal(vt_status(t), 3);
    assert_int_equal(vt_config_read(t, cap + 16, 1), 3);
    vt_config(t, cap + 8, 4, 0x12);
    vt_config(t, cap + 12, 4, 2);
    assert_int_equal(vt_config_read(t, cap + 16, 2), 1);
    vt_config(t, cap + 8, 4, 0x4000); /* behind the BAR: nothing */
    vt_config(t, cap + 16, 2, 0xffff);
    vt_config(t, cap + 12, 4, 3);
    vt_config(t, cap + 8, 4, 0x14);
    vt_config(t, cap + 16, 4, 0);
    assert_int_equal(vt_status(t), 3);
}

static void test_reset(void **state)
{
    struct vt *t = &((struct fix *)*state)->t;
    vt_start(t, BASIC, 1);
    bus_lock(t->rig.bus);
    bus_reset(t->rig.bus);
    bus_unlock(t->rig.bus);
    assert_int_equal(vt_config_read(t, PCI_COMMAND, 2), 0);
    vt_map(t, t->v);
    assert_int_equal(vt_status(t), 0);
    draw(t, BASIC);
}

/* States that no driver could have made. */
static void test_hostile_state(void **state)
{
    struct vt *t = &((struct fix *)*state)->t;
    struct err e;
    size_t len;
    vt_start(t, BASIC, 1);
    struct virtio good = *t->v;
    for (unsigned i = 0; i < 6; i++) {
        uint8_t *was = dev_save(t->rig.bus, &len);
        switch (i) {
        case 0:
            t->v->queue[0].size = 17;
            break;
        case 1:
            t->v->queue[0].vector = 2;
            break;
        case 2:
            t->v->queue[1].enabled = true;
            break;
        case 3:
            t->v->config_vector = 7;
            break;
        case 4:
            t->v->accepted |= BIT(50);
            break;
        default:
            t->v->queue[0].size = 512;
            break;
        }
        size_t bad_len;
        uint8_t *bad = dev_save(t->rig.bus, &bad_len);
        assert_int_equal(dev_load(t->rig.bus, bad, bad_len, &e), -EINVAL);
        free(bad);
        t->v->accepted = good.accepted;
        assert_int_equal(dev_load(t->rig.bus, was, len, &e), 0);
        free(was);
    }
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_identity),
        TEST(test_negotiation),
        TEST(test_common_registers),
        TEST(test_split),
        TEST(test_packed),
        TEST(test_event_index_split),
        TEST(test_event_index_packed),
        TEST(test_no_interrupt_wanted),
        TEST(test_indirect),
        TEST(test_hostile_split),
        TEST(test_hostile_indirect),
        TEST(test_hostile_packed),
        TEST(test_hostile_rings),
        TEST(test_random_rings),
        TEST(test_legacy),
        TEST(test_window),
        TEST(test_reset),
        TEST(test_hostile_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
