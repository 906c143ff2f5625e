/* SPDX-License-Identifier: Apache-2.0
 *
 * The PCI transport (virtio 1.2, 4.1): a modern function with its five capabilities, or a
 * transitional one that has the legacy port interface (4.1.4.10) too. MSI-X with a vector of its
 * own for each queue, INTx without.
 *
 * BAR 0: legacy ports. BAR 1: MSI-X. BAR 4: common configuration, interrupt status, device
 * configuration and notifications, a page each.
 *
 * UNIMPL: NOTIFICATION_DATA, RING_RESET, shared memory regions.
 */
#include "dev/virtio/dev.h"

#include <assert.h>
#include <limits.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/bytes.h"
#include "dev/virtio/dev_internal.h"

#define VIRTIO_VENDOR 0x1af4
#define MODERN_ID_BASE 0x1040
#define MODERN_BAR 4u
#define MODERN_BAR_SIZE KIB(16)
#define LEGACY_BAR_SIZE 128u
#define NOTIFY_MULTIPLIER 4u

enum modern_page {
    PAGE_COMMON = 0x0000,
    PAGE_ISR = 0x1000,
    PAGE_DEVICE = 0x2000,
    PAGE_NOTIFY = 0x3000
};

enum cfg_type { CFG_COMMON = 1, CFG_NOTIFY = 2, CFG_ISR = 3, CFG_DEVICE = 4, CFG_PCI = 5 };

/* struct virtio_pci_cap */
enum cap_field {
    CAP_LEN = 2,
    CAP_TYPE = 3,
    CAP_BAR = 4,
    CAP_OFFSET = 8,
    CAP_LENGTH = 12,
    CAP_EXTRA = 16
};

/* struct virtio_pci_common_cfg */
enum common_reg {
    COMMON_OFFERED_SELECT = 0x00,
    COMMON_OFFERED = 0x04,
    COMMON_ACCEPTED_SELECT = 0x08,
    COMMON_ACCEPTED = 0x0c,
    COMMON_CONFIG_VECTOR = 0x10,
    COMMON_QUEUES = 0x12,
    COMMON_STATUS = 0x14,
    COMMON_GENERATION = 0x15,
    COMMON_QUEUE_SELECT = 0x16,
    COMMON_QUEUE_SIZE = 0x18,
    COMMON_QUEUE_VECTOR = 0x1a,
    COMMON_QUEUE_ENABLE = 0x1c,
    COMMON_QUEUE_NOTIFY = 0x1e,
    COMMON_QUEUE_DESC = 0x20,
    COMMON_QUEUE_DRIVER = 0x28,
    COMMON_QUEUE_DEVICE = 0x30,
    COMMON_SIZE = 0x38,
};

enum legacy_reg {
    LEGACY_OFFERED = 0,
    LEGACY_ACCEPTED = 4,
    LEGACY_QUEUE_PAGE = 8,
    LEGACY_QUEUE_SIZE = 12,
    LEGACY_QUEUE_SELECT = 14,
    LEGACY_NOTIFY = 16,
    LEGACY_STATUS = 18,
    LEGACY_ISR = 19,
    LEGACY_CONFIG_VECTOR = 20, /* while MSI-X is on; else the device's configuration */
    LEGACY_QUEUE_VECTOR = 22,
};

#define LEGACY_FEATURES 0xffffffffull

/* -- Common configuration (4.1.4.3) ------------------------------------------------------------ */
static uint64_t queue_reg(const struct virtq *q, uint16_t select, unsigned reg)
{
    if (q == NULL) {
        return 0;
    }
    switch (reg) {
    case COMMON_QUEUE_SIZE:
        return q->size;
    case COMMON_QUEUE_VECTOR:
        return q->vector;
    case COMMON_QUEUE_ENABLE:
        return q->enabled;
    case COMMON_QUEUE_NOTIFY:
        return select;
    case COMMON_QUEUE_DESC:
        return q->desc;
    case COMMON_QUEUE_DRIVER:
        return q->driver;
    case COMMON_QUEUE_DEVICE:
        return q->device;
    default:
        return 0;
    }
}

static uint64_t common_reg(struct virtio *v, unsigned reg)
{
    switch (reg) {
    case COMMON_OFFERED_SELECT:
        return v->offered_select;
    case COMMON_OFFERED:
        return v->offered_select < 2 ? (uint32_t)(v->offered >> 32 * v->offered_select) : 0;
    case COMMON_ACCEPTED_SELECT:
        return v->accepted_select;
    case COMMON_ACCEPTED:
        return v->accepted_select < 2 ? (uint32_t)(v->accepted >> 32 * v->accepted_select) : 0;
    case COMMON_CONFIG_VECTOR:
        return v->config_vector;
    case COMMON_QUEUES:
        return v->queue_count;
    case COMMON_STATUS:
        return v->status;
    case COMMON_GENERATION:
        return v->generation;
    case COMMON_QUEUE_SELECT:
        return v->queue_select;
    default:
        return queue_reg(virtio_selected(v), v->queue_select, reg);
    }
}

/* The register that an access begins in: those of 8 bytes take two of 4. */
static unsigned common_base(uint64_t offset)
{
    if (offset >= COMMON_QUEUE_DESC) {
        return (unsigned)align_down(offset, 8);
    }
    if (offset < COMMON_CONFIG_VECTOR) {
        return (unsigned)align_down(offset, 4);
    }
    if (offset == COMMON_STATUS || offset == COMMON_GENERATION) {
        return (unsigned)offset;
    }
    return (unsigned)align_down(offset, 2);
}

static uint64_t common_read(struct virtio *v, uint64_t offset, unsigned size)
{
    unsigned base = common_base(offset);
    uint64_t value = common_reg(v, base) >> 8 * (offset - base);
    return value & MASK64(8 * size);
}

static void set_half(uint64_t *address, unsigned shift, uint64_t value)
{
    *address = (*address & ~(0xffffffffull << shift)) | (value & 0xffffffff) << shift;
}

static void queue_write(struct virtio *v, struct virtq *q, unsigned base, unsigned shift,
                        uint64_t value)
{
    if (base == COMMON_QUEUE_VECTOR) {
        q->vector = virtio_checked_vector(v, value);
        return;
    }
    if (q->enabled) {
        return; /* only before it is enabled (4.1.4.3.2) */
    }
    switch (base) {
    case COMMON_QUEUE_SIZE:
        q->size = (uint16_t)value;
        break;
    case COMMON_QUEUE_ENABLE:
        if (value == 1 && !virtq_enable(q)) {
            virtio_break(v, "a queue of an impossible size");
        }
        break;
    case COMMON_QUEUE_DESC:
        set_half(&q->desc, shift, value);
        break;
    case COMMON_QUEUE_DRIVER:
        set_half(&q->driver, shift, value);
        break;
    case COMMON_QUEUE_DEVICE:
        set_half(&q->device, shift, value);
        break;
    default:
        break;
    }
}

static void common_write(struct virtio *v, uint64_t offset, unsigned size, uint64_t value)
{
    unsigned base = common_base(offset);
    unsigned shift = 8 * (unsigned)(offset - base);
    bool wide = base >= COMMON_QUEUE_DESC;
    if ((wide || base < COMMON_CONFIG_VECTOR) ? size != 4 : shift != 0) {
        return; /* only whole fields are written, 64-bit ones by halves (4.1.3.1) */
    }
    switch (base) {
    case COMMON_OFFERED_SELECT:
        v->offered_select = (uint32_t)value;
        break;
    case COMMON_ACCEPTED_SELECT:
        v->accepted_select = (uint32_t)value;
        break;
    case COMMON_ACCEPTED:
        if (v->accepted_select < 2 && !(v->status & VIRTIO_FEATURES_FINAL)) {
            set_half(&v->accepted, 32 * v->accepted_select, value);
        }
        break;
    case COMMON_CONFIG_VECTOR:
        v->config_vector = virtio_checked_vector(v, value);
        break;
    case COMMON_STATUS:
        virtio_set_status(v, (uint8_t)value);
        break;
    case COMMON_QUEUE_SELECT:
        v->queue_select = (uint16_t)value;
        break;
    default:
        if (virtio_selected(v) != NULL) {
            virtio_apply_features(v); /* a packed queue may have any size */
            queue_write(v, virtio_selected(v), base, shift, value);
        }
    }
}

/* -- BAR 4 ------------------------------------------------------------------------------------- */
static uint64_t modern_read(void *dev, uint64_t offset, unsigned size)
{
    struct virtio *v = dev;
    uint64_t at = offset & 0xfff;
    switch (offset & ~0xfffull) {
    case PAGE_COMMON:
        return at < COMMON_SIZE ? common_read(v, at, size) : 0;
    case PAGE_ISR:
        return at == 0 ? virtio_take_isr(v) : 0;
    case PAGE_DEVICE:
        return virtio_config_read(v, at, size);
    default:
        return 0;
    }
}

static void modern_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct virtio *v = dev;
    uint64_t at = offset & 0xfff;
    switch (offset & ~0xfffull) {
    case PAGE_COMMON:
        if (at < COMMON_SIZE) {
            common_write(v, at, size, value);
        }
        break;
    case PAGE_DEVICE:
        virtio_config_write(v, at, size, value);
        break;
    case PAGE_NOTIFY:
        virtio_kick(v, (unsigned)(at / NOTIFY_MULTIPLIER));
        break;
    default:
        break;
    }
}

static const struct region_ops modern_ops = {
    .read = modern_read,
    .write = modern_write,
    .sizes = ACCESS_1 | ACCESS_2 | ACCESS_4,
};

/* -- Legacy ports (4.1.4.10) ------------------------------------------------------------------- */
static unsigned legacy_config_start(const struct virtio *v)
{
    return pci_msix_enabled(&v->pci) ? 24 : 20;
}

static uint64_t legacy_reg(struct virtio *v, unsigned reg)
{
    const struct virtq *q = virtio_selected(v);
    switch (reg) {
    case LEGACY_OFFERED:
        return v->offered & LEGACY_FEATURES;
    case LEGACY_ACCEPTED:
        return v->accepted & LEGACY_FEATURES;
    case LEGACY_QUEUE_PAGE:
        return q != NULL && q->enabled ? q->desc >> GMEM_PAGE_BITS : 0;
    case LEGACY_QUEUE_SIZE:
        return q != NULL ? q->size : 0;
    case LEGACY_QUEUE_SELECT:
        return v->queue_select;
    case LEGACY_STATUS:
        return v->status;
    case LEGACY_ISR:
        return virtio_take_isr(v);
    case LEGACY_CONFIG_VECTOR:
        return v->config_vector;
    case LEGACY_QUEUE_VECTOR:
        return q != NULL ? q->vector : VIRTQ_NO_VECTOR;
    default:
        return 0;
    }
}

static uint64_t legacy_read(void *dev, uint64_t offset, unsigned size)
{
    struct virtio *v = dev;
    unsigned start = legacy_config_start(v);
    if (offset >= start) {
        return virtio_config_read(v, offset - start, size);
    }
    return legacy_reg(v, (unsigned)offset) & MASK64(8 * size);
}

static void legacy_queue_page(struct virtio *v, struct virtq *q, uint32_t page)
{
    if (page == 0) {
        virtio_reset(v); /* how a legacy driver lets go of its queues */
        return;
    }
    virtq_set_legacy_page(q, page);
    virtq_enable(q);
}

static void legacy_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct virtio *v = dev;
    struct virtq *q = virtio_selected(v);
    unsigned start = legacy_config_start(v);
    if (offset >= start) {
        virtio_config_write(v, offset - start, size, value);
        return;
    }
    switch (offset) {
    case LEGACY_ACCEPTED:
        if (!(v->status & VIRTIO_FEATURES_FINAL)) {
            v->accepted = value & v->offered & LEGACY_FEATURES;
            virtio_apply_features(v);
        }
        break;
    case LEGACY_QUEUE_PAGE:
        if (q != NULL) {
            legacy_queue_page(v, q, (uint32_t)value);
        }
        break;
    case LEGACY_QUEUE_SELECT:
        v->queue_select = (uint16_t)value;
        break;
    case LEGACY_NOTIFY:
        virtio_kick(v, value & 0xffff);
        break;
    case LEGACY_STATUS:
        if (v->status == 0) {
            v->legacy = (value & 0xff) != 0;
        }
        virtio_set_status(v, (uint8_t)value);
        break;
    case LEGACY_CONFIG_VECTOR:
        v->config_vector = virtio_checked_vector(v, value);
        break;
    case LEGACY_QUEUE_VECTOR:
        if (q != NULL) {
            q->vector = virtio_checked_vector(v, value);
        }
        break;
    default:
        break;
    }
}

static const struct region_ops legacy_ops = {
    .read = legacy_read,
    .write = legacy_write,
    .sizes = ACCESS_1 | ACCESS_2 | ACCESS_4,
};

/* -- The window in configuration space (4.1.4.9) ----------------------------------------------- */
struct window {
    uint32_t offset;
    uint32_t len;
    bool valid;
};

static struct window window(const struct virtio *v)
{
    const uint8_t *cap = v->pci.config + v->pci_cfg_cap;
    struct window w = { load_le32(cap + CAP_OFFSET), load_le32(cap + CAP_LENGTH), false };
    w.valid = cap[CAP_BAR] == MODERN_BAR && (w.len == 1 || w.len == 2 || w.len == 4) &&
              w.offset % w.len == 0 && w.offset < MODERN_BAR_SIZE;
    return w;
}

static bool touches_window(const struct virtio *v, unsigned offset, unsigned size)
{
    unsigned data = v->pci_cfg_cap + CAP_EXTRA;
    return offset < data + 4 && data < offset + size;
}

static void window_reading(struct pci_func *f, unsigned offset, unsigned size)
{
    struct virtio *v = container_of(f, struct virtio, pci);
    if (touches_window(v, offset, size)) {
        struct window w = window(v);
        if (w.valid) {
            uint64_t value = modern_read(v, w.offset, w.len);
            store_le32(f->config + v->pci_cfg_cap + CAP_EXTRA, (uint32_t)value);
        }
    }
}

static void window_written(struct pci_func *f, unsigned offset, unsigned size)
{
    struct virtio *v = container_of(f, struct virtio, pci);
    if (touches_window(v, offset, size)) {
        struct window w = window(v);
        uint32_t value = load_le32(f->config + v->pci_cfg_cap + CAP_EXTRA);
        if (w.valid) {
            modern_write(v, w.offset, w.len, value & MASK64(8 * w.len));
        }
    }
}

/* -- Making ------------------------------------------------------------------------------------ */
static uint8_t add_cap(struct virtio *v, enum cfg_type type, uint32_t offset, uint32_t len,
                       unsigned extra)
{
    uint8_t size = (uint8_t)(CAP_EXTRA + extra);
    uint8_t at = pci_add_cap(&v->pci, PCI_CAP_VENDOR, size);
    uint8_t *cap = v->pci.config + at;
    cap[CAP_LEN] = size;
    cap[CAP_TYPE] = (uint8_t)type;
    cap[CAP_BAR] = type == CFG_PCI ? 0 : MODERN_BAR;
    store_le32(cap + CAP_OFFSET, offset);
    store_le32(cap + CAP_LENGTH, len);
    return at;
}

static void add_caps(struct virtio *v)
{
    v->pci_cfg_cap = add_cap(v, CFG_PCI, 0, 0, 4);
    uint8_t *writable = v->pci.writable + v->pci_cfg_cap;
    writable[CAP_BAR] = 0xff;
    store_le32(writable + CAP_OFFSET, 0xffffffff);
    store_le32(writable + CAP_LENGTH, 0xffffffff);
    store_le32(writable + CAP_EXTRA, 0xffffffff);
    if (v->cls->config_size != 0) {
        add_cap(v, CFG_DEVICE, PAGE_DEVICE, 0x1000, 0);
    }
    uint8_t at = add_cap(v, CFG_NOTIFY, PAGE_NOTIFY, 0x1000, 4);
    store_le32(v->pci.config + at + CAP_EXTRA, NOTIFY_MULTIPLIER);
    add_cap(v, CFG_ISR, PAGE_ISR, 0x1000, 0);
    add_cap(v, CFG_COMMON, PAGE_COMMON, 0x1000, 0);
}

void virtio_init(struct virtio *v, const struct virtio_class *cls, const char *name,
                 struct pci_bus *p, struct bus *b, uint8_t devfn, const struct virtio_options *o,
                 uint64_t features, unsigned queues)
{
    assert(queues >= 1 && queues <= VIRTIO_QUEUES_MAX && cls->config_size <= VIRTIO_CONFIG_MAX);
    v->cls = cls;
    v->chain = xzalloc(sizeof *v->chain);
    v->queue_count = queues;
    v->budget = UINT_MAX;
    v->transitional = cls->transitional_id != 0 && !o->modern_only;
    v->offered = features | VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX |
                 (v->transitional ? VIRTIO_F_ANY_LAYOUT : 0) |
                 (o->packed ? VIRTIO_F_RING_PACKED : 0);
    uint16_t id = v->transitional ? cls->transitional_id : (uint16_t)(MODERN_ID_BASE + cls->type);
    pci_func_init(&v->pci, p, devfn, VIRTIO_VENDOR, id, cls->pci_class, v->transitional ? 0 : 1);
    store_le16(v->pci.config + PCI_SUBSYSTEM_VENDOR, VIRTIO_VENDOR);
    store_le16(v->pci.config + PCI_SUBSYSTEM, v->transitional ? cls->type : (uint16_t)(0x1100));
    v->pci.config[PCI_INTERRUPT_PIN] = 1;
    v->pci.config_reading = window_reading;
    v->pci.config_written = window_written;
    if (v->transitional) {
        pci_add_bar(&v->pci, 0, PCI_BAR_IO, LEGACY_BAR_SIZE, &legacy_ops, v);
    }
    pci_add_bar(&v->pci, MODERN_BAR, PCI_BAR_MEM32, MODERN_BAR_SIZE, &modern_ops, v);
    add_caps(v);
    pci_add_msix(&v->pci, &v->msix, queues + 1, 1);
    for (unsigned n = 0; n < VIRTIO_QUEUES_MAX; n++) {
        virtq_init(&v->queue[n], bus_mem(b), VIRTQ_SIZE_MAX);
    }
    if (o->clock != NULL) {
        timer_init(&v->again, o->clock, virtio_go_on, v);
    }
    virtio_reset(v);
    dev_register(b, &v->pci.dev, cls->dev, name);
}

void virtio_set_queue_size(struct virtio *v, unsigned n, unsigned size)
{
    v->queue[n].size_max = v->queue[n].size = (uint16_t)size;
}

void virtio_fini(struct virtio *v)
{
    if (v->chain == NULL) {
        return; /* never made */
    }
    if (v->again.clock != NULL) {
        timer_cancel(&v->again);
    }
    pci_func_fini(&v->pci);
    dev_unregister(&v->pci.dev);
    free(v->chain);
    v->chain = NULL;
}
