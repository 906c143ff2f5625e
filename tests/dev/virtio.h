/* SPDX-License-Identifier: Apache-2.0
 *
 * A virtio driver for tests: it negotiates, sets up split or packed queues in guest memory, adds
 * buffers and collects them, all over the bus.
 */
#ifndef SOSIA_TESTS_DEV_VIRTIO_H
#define SOSIA_TESTS_DEV_VIRTIO_H

#include "support/dev.h"

#include "base/bits.h"
#include "base/bytes.h"
#include "base/loop.h"
#include "bus/pci.h"
#include "dev/virtio/dev.h"

#define VT_BAR 0xe0000000ull
#define VT_PORTS 0xc000u
#define VT_MSIX 0xe0010000ull
#define VT_RAM MIB(4)
#define VT_SIZE 16u /* entries of each queue */
#define VT_RINGS 0x10000ull
#define VT_RING_STEP 0x2000ull
#define VT_DATA 0x100000ull
#define VT_QUEUES 8u

struct vt_queue {
    gpa_t desc, driver, device;
    uint16_t avail; /* split: index; packed: place */
    uint16_t used_seen;
    bool avail_wrap, used_wrap;
    unsigned free_desc; /* split: the next to use, in turn */
};

struct vt {
    struct dev_rig rig;
    struct gmem *mem;
    struct pci_bus *pci;
    struct loop *loop;
    struct dev_line line[4];
    struct virtio *v;
    bool packed;
    uint64_t features;
    uint32_t msis;
    uint32_t msi_data;
    struct vt_queue q[VT_QUEUES];
};

static inline void vt_msi(void *ctx, uint64_t address, uint32_t data)
{
    struct vt *t = ctx;
    assert_int_equal(address, 0xfee00000);
    t->msis++;
    t->msi_data = data;
}

static inline void vt_rig_init(struct vt *t)
{
    struct err e;
    memset(t, 0, sizeof *t);
    assert_int_equal(gmem_new(&t->mem, VT_RAM, 0xc0000000, &e), 0);
    t->rig.bus = bus_new(t->mem);
    t->rig.clock = clock_new_fake();
    assert_int_equal(loop_new(&t->loop, t->rig.clock, bus_lock_of(t->rig.bus)), 0);
    struct irq irq[4];
    for (unsigned i = 0; i < 4; i++) {
        irq[i] = dev_line_irq(&t->line[i]);
    }
    t->pci = pci_bus_new(t->rig.bus, irq, vt_msi, t);
}

/* After the device's fini. */
static inline void vt_rig_fini(struct vt *t)
{
    pci_bus_free(t->pci);
    loop_free(t->loop);
    dev_rig_fini(&t->rig);
    gmem_free(t->mem);
}

static inline void vt_config(struct vt *t, unsigned reg, unsigned size, uint32_t value)
{
    bus_lock(t->rig.bus);
    pci_config_write(t->pci, 0, t->v->pci.devfn, reg, size, value);
    bus_unlock(t->rig.bus);
}

static inline uint32_t vt_config_read(struct vt *t, unsigned reg, unsigned size)
{
    bus_lock(t->rig.bus);
    uint32_t value = pci_config_read(t->pci, 0, t->v->pci.devfn, reg, size);
    bus_unlock(t->rig.bus);
    return value;
}

/* What firmware does: BARs and decoding. */
static inline void vt_map(struct vt *t, struct virtio *v)
{
    t->v = v;
    vt_config(t, PCI_BAR0, 4, VT_PORTS);
    vt_config(t, PCI_BAR0 + 4, 4, VT_MSIX);
    vt_config(t, PCI_BAR0 + 16, 4, VT_BAR);
    vt_config(t, PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

static inline uint64_t vt_read(struct vt *t, unsigned offset, unsigned size)
{
    return bus_mmio_read(t->rig.bus, VT_BAR + offset, size);
}
static inline void vt_write(struct vt *t, unsigned offset, unsigned size, uint64_t value)
{
    bus_mmio_write(t->rig.bus, VT_BAR + offset, size, value);
}
static inline uint64_t vt_dev_config(struct vt *t, unsigned offset, unsigned size)
{
    return vt_read(t, 0x2000 + offset, size);
}
static inline uint8_t vt_status(struct vt *t) { return (uint8_t)vt_read(t, 0x14, 1); }
static inline void vt_set_status(struct vt *t, uint8_t s) { vt_write(t, 0x14, 1, s); }

static inline uint64_t vt_offered(struct vt *t)
{
    vt_write(t, 0, 4, 0);
    uint64_t low = vt_read(t, 4, 4);
    vt_write(t, 0, 4, 1);
    return low | vt_read(t, 4, 4) << 32;
}

static inline void vt_queue_setup(struct vt *t, unsigned n)
{
    struct vt_queue *q = &t->q[n];
    gpa_t at = VT_RINGS + n * VT_RING_STEP;
    *q = (struct vt_queue){ at, at + 0x1000, at + 0x1800, 0, 0, true, true, 0 };
    assert_int_equal(gmem_zero(t->mem, at, VT_RING_STEP), 0);
    vt_write(t, 0x16, 2, n);
    assert_true(vt_read(t, 0x18, 2) >= VT_SIZE);
    vt_write(t, 0x18, 2, VT_SIZE);
    vt_write(t, 0x1a, 2, n + 1);
    vt_write(t, 0x20, 4, (uint32_t)q->desc);
    vt_write(t, 0x24, 4, q->desc >> 32);
    vt_write(t, 0x28, 4, (uint32_t)q->driver);
    vt_write(t, 0x2c, 4, q->driver >> 32);
    vt_write(t, 0x30, 4, (uint32_t)q->device);
    vt_write(t, 0x34, 4, q->device >> 32);
    vt_write(t, 0x1c, 2, 1);
    assert_int_equal(vt_read(t, 0x1c, 2), 1);
}

/* Reset, negotiation, queues, MSI-X with vector n + 1 for queue n. */
static inline void vt_start(struct vt *t, uint64_t features, unsigned queues)
{
    vt_set_status(t, 0);
    assert_int_equal(vt_status(t), 0);
    vt_set_status(t, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
    t->features = features | VIRTIO_F_VERSION_1;
    t->packed = features & VIRTIO_F_RING_PACKED;
    vt_write(t, 8, 4, 0);
    vt_write(t, 0xc, 4, (uint32_t)t->features);
    vt_write(t, 8, 4, 1);
    vt_write(t, 0xc, 4, t->features >> 32);
    vt_set_status(t, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
    assert_true(vt_status(t) & VIRTIO_FEATURES_OK);
    vt_config(t, t->v->msix.cap + 2u, 2, 0x8000);
    for (unsigned n = 0; n <= queues; n++) {
        bus_mmio_write(t->rig.bus, VT_MSIX + 16 * n, 4, 0xfee00000);
        bus_mmio_write(t->rig.bus, VT_MSIX + 16 * n + 8, 4, 0x40 + n);
        bus_mmio_write(t->rig.bus, VT_MSIX + 16 * n + 12, 4, 0);
    }
    vt_write(t, 0x10, 2, 0);
    for (unsigned n = 0; n < queues; n++) {
        vt_queue_setup(t, n);
    }
    vt_set_status(t, 15);
    assert_int_equal(vt_status(t), 15);
}

static inline void vt_put(struct vt *t, gpa_t at, const void *data, size_t len)
{
    assert_int_equal(gmem_write(t->mem, at, data, len), 0);
}
static inline void vt_get(struct vt *t, gpa_t at, void *data, size_t len)
{
    assert_int_equal(gmem_read(t->mem, at, data, len), 0);
}
static inline uint16_t vt_get16(struct vt *t, gpa_t at)
{
    uint16_t v;
    vt_get(t, at, &v, 2);
    return v;
}
static inline void vt_put16(struct vt *t, gpa_t at, uint16_t v) { vt_put(t, at, &v, 2); }

struct vt_seg {
    gpa_t gpa;
    uint32_t len;
    bool in;
};

static inline void vt_put_desc(struct vt *t, gpa_t at, const struct vt_seg *s, uint16_t flags,
                               uint16_t link)
{
    uint8_t raw[16];
    store_le64(raw, s->gpa);
    store_le32(raw + 8, s->len);
    store_le16(raw + (t->packed ? 14 : 12), flags);
    store_le16(raw + (t->packed ? 12 : 14), link);
    vt_put(t, at, raw, 16);
}

static inline uint16_t vt_add_split(struct vt *t, unsigned n, const struct vt_seg *seg,
                                    unsigned count)
{
    struct vt_queue *q = &t->q[n];
    uint16_t head = (uint16_t)(q->free_desc % VT_SIZE);
    for (unsigned i = 0; i < count; i++) {
        unsigned at = q->free_desc++ % VT_SIZE;
        bool last = i + 1 == count;
        vt_put_desc(t, q->desc + 16 * at, &seg[i], (uint16_t)((seg[i].in ? 2 : 0) | (last ? 0 : 1)),
                    (uint16_t)((at + 1) % VT_SIZE));
    }
    vt_put16(t, q->driver + 4 + 2 * (q->avail % VT_SIZE), head);
    vt_put16(t, q->driver + 2, ++q->avail);
    return head;
}

static inline uint16_t vt_add_packed(struct vt *t, unsigned n, const struct vt_seg *seg,
                                     unsigned count)
{
    struct vt_queue *q = &t->q[n];
    uint16_t id = (uint16_t)(0x100 + q->free_desc++);
    gpa_t first = q->desc + 16 * q->avail;
    uint16_t first_flags = 0;
    for (unsigned i = 0; i < count; i++) {
        uint16_t flags = (uint16_t)((seg[i].in ? 2 : 0) | (i + 1 == count ? 0 : 1) |
                                    (q->avail_wrap ? 0x80 : 0x8000));
        if (i == 0) {
            first_flags = flags;
            flags = (uint16_t)(flags ^ 0x8080); /* not yet */
        }
        vt_put_desc(t, q->desc + 16 * q->avail, &seg[i], flags, id);
        if (++q->avail == VT_SIZE) {
            q->avail = 0;
            q->avail_wrap = !q->avail_wrap;
        }
    }
    vt_put16(t, first + 14, first_flags);
    return id;
}

static inline uint16_t vt_add(struct vt *t, unsigned n, const struct vt_seg *seg, unsigned count)
{
    return t->packed ? vt_add_packed(t, n, seg, count) : vt_add_split(t, n, seg, count);
}

static inline void vt_kick(struct vt *t, unsigned n) { vt_write(t, 0x3000 + 4 * n, 2, n); }

/* The next used entry; descs: places the buffer had in a packed ring. */
static inline bool vt_used(struct vt *t, unsigned n, unsigned descs, uint16_t *id, uint32_t *len)
{
    struct vt_queue *q = &t->q[n];
    uint8_t raw[16];
    if (!t->packed) {
        if (vt_get16(t, q->device + 2) == q->used_seen) {
            return false;
        }
        vt_get(t, q->device + 4 + 8 * (q->used_seen++ % VT_SIZE), raw, 8);
        *id = (uint16_t)load_le32(raw);
        *len = load_le32(raw + 4);
        return true;
    }
    vt_get(t, q->desc + 16 * q->used_seen, raw, 16);
    uint16_t flags = load_le16(raw + 14);
    if (!!(flags & 0x80) != q->used_wrap || !!(flags & 0x8000) != q->used_wrap) {
        return false;
    }
    *id = load_le16(raw + 12);
    *len = load_le32(raw + 8);
    q->used_seen = (uint16_t)(q->used_seen + descs);
    if (q->used_seen >= VT_SIZE) {
        q->used_seen = (uint16_t)(q->used_seen - VT_SIZE);
        q->used_wrap = !q->used_wrap;
    }
    return true;
}

/* One buffer from kick to used entry, with the loop's turns that it takes. */
static inline uint32_t vt_do(struct vt *t, unsigned n, const struct vt_seg *seg, unsigned count)
{
    uint16_t want = vt_add(t, n, seg, count);
    uint16_t id;
    uint32_t len;
    vt_kick(t, n);
    for (unsigned i = 0; !vt_used(t, n, count, &id, &len); i++) {
        assert_true(i < 1000);
        loop_turn(t->loop, 10);
    }
    assert_int_equal(id, want);
    return len;
}

#endif
