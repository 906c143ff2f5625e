/* SPDX-License-Identifier: Apache-2.0
 *
 * What a virtio device is made of, apart from what it does: the PCI function, status and feature
 * negotiation, queues, interrupts (virtio 1.2, chapters 2 to 4). A device file gives a
 * virtio_class and calls these functions; dev.c and the transport, pci.c, do the rest.
 *
 * Thread: machine lock held.
 */
#ifndef SOSIA_DEV_VIRTIO_DEV_H
#define SOSIA_DEV_VIRTIO_DEV_H

#include "base/clock.h"
#include "bus/pci.h"
#include "dev/virtio/queue.h"

#define VIRTIO_QUEUES_MAX 40u
#define VIRTIO_CONFIG_MAX 136u /* bytes of device configuration */

enum virtio_status {
    VIRTIO_ACKNOWLEDGE = 1u,
    VIRTIO_DRIVER = 2u,
    VIRTIO_DRIVER_OK = 4u,
    VIRTIO_FEATURES_OK = 8u,
    VIRTIO_NEEDS_RESET = 64u,
    VIRTIO_FAILED = 128u,
};

/* Feature bits of every device (virtio 1.2, 6) */
#define VIRTIO_F_ANY_LAYOUT BIT(27) /* legacy */
#define VIRTIO_F_INDIRECT_DESC BIT(28)
#define VIRTIO_F_EVENT_IDX BIT(29)
#define VIRTIO_F_VERSION_1 BIT(32)
#define VIRTIO_F_RING_PACKED BIT(34)

struct virtio;

struct virtio_class {
    const struct dev_class *dev; /* reset, post_load: those below, or the device's that call them */
    uint16_t type;               /* virtio 1.2, 5 */
    uint16_t transitional_id;    /* PCI device id of its legacy form; 0: it has none */
    uint32_t pci_class;
    unsigned config_size;
    /* Bring v->config up to date. */
    void (*config_fill)(struct virtio *v);
    /* The driver writes 1, 2 or 4 bytes, within config_size. NULL: read-only. */
    void (*config_write)(struct virtio *v, unsigned offset, unsigned size, uint32_t value);
    /* There are buffers in queue n: take them. The driver is ready. */
    void (*notify)(struct virtio *v, unsigned n);
    /* The driver said DRIVER_OK, features are final. May be NULL. */
    void (*start)(struct virtio *v);
    /* Before the queues are reset: finish or forget what is under way. May be NULL. */
    void (*stop)(struct virtio *v);
};

/* What the person who makes the machine says of any device. */
struct virtio_options {
    bool modern_only;    /* no legacy interface */
    bool packed;         /* offer packed rings */
    struct clock *clock; /* to go on later with a queue that never gets empty; NULL: kicks do */
};

struct virtio {
    struct pci_func pci; /* first */
    struct pci_msix msix;
    const struct virtio_class *cls;
    struct virtq_chain *chain; /* owned: where pops go */
    unsigned queue_count;
    uint64_t offered; /* features */
    uint8_t config[VIRTIO_CONFIG_MAX];
    uint8_t pci_cfg_cap; /* offset of the window into the BARs */
    bool transitional;
    unsigned budget;    /* buffers that a notify may still take */
    uint64_t postponed; /* queues to go on with, bit n */
    struct timer again; /* that does */
    /* State */
    uint8_t status;
    uint8_t isr;
    bool legacy;        /* the driver came by the legacy interface */
    uint8_t generation; /* of the configuration */
    uint16_t config_vector;
    uint16_t queue_select;
    uint32_t offered_select;
    uint32_t accepted_select;
    uint64_t accepted; /* features */
    struct virtq queue[VIRTIO_QUEUES_MAX];
};

/* name: of the section, unique in the machine. The device is *v and what follows it. */
void virtio_init(struct virtio *v, const struct virtio_class *cls, const char *name,
                 struct pci_bus *p, struct bus *b, uint8_t devfn, const struct virtio_options *o,
                 uint64_t features, unsigned queues);
void virtio_set_queue_size(struct virtio *v, unsigned n, unsigned size);
void virtio_fini(struct virtio *v);

/* For dev_class: reset by RESET#, and after a load. dev is a struct virtio. */
void virtio_hard_reset(void *dev);
MUST_CHECK int virtio_post_load(void *dev, struct err *e);

static inline bool virtio_has(const struct virtio *v, uint64_t feature)
{
    return (v->accepted & feature) != 0;
}
/* The driver is ready for us. */
bool virtio_running(const struct virtio *v);

/* The next buffer of queue n in v->chain; false: none, or the ring is broken. */
bool virtio_pop(struct virtio *v, unsigned n);
/* The same for loops in notify: false also when they took so much that others must have their
 * turn. A loop ends with virtio_await, which asks for notifications again; false: a buffer came in
 * between, unannounced. */
bool virtio_next(struct virtio *v, unsigned n);
bool virtio_await(struct virtio *v, unsigned n);
/* Give back what is in v->chain. */
void virtio_push(struct virtio *v, unsigned n, uint32_t written);
void virtio_push_all(struct virtio *v, unsigned n, const struct virtq_used *used, unsigned count);
/* After pushes, once per batch. */
void virtio_interrupt(struct virtio *v, unsigned n);
/* The driver broke the rules: NEEDS_RESET, nothing more is taken from its queues. */
void virtio_break(struct virtio *v, const char *why);
/* The device changed its configuration by itself. */
void virtio_config_changed(struct virtio *v);
/* Run notify for a queue, as a device does that can go on again. */
void virtio_kick(struct virtio *v, unsigned n);

/* STATE_STRUCT(T, v, virtio_state) */
extern const struct state_field virtio_state[];

#endif
