/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory balloon (virtio 1.2, 5.5). Thread: machine lock held.
 */
#ifndef SOSIA_DEV_VIRTIO_BALLOON_H
#define SOSIA_DEV_VIRTIO_BALLOON_H

#include "dev/virtio/dev.h"

#define VIRTIO_BALLOON_STATS 16u

struct virtio_balloon {
    struct virtio v; /* first */
    /* State */
    uint32_t target_pages; /* that the driver is to give us */
    uint32_t actual_pages; /* that it says it has given */
    bool stats_held;       /* the driver's buffer for statistics is with us */
    uint16_t stats_id;
    uint16_t stats_descs;
    uint64_t stats[VIRTIO_BALLOON_STATS]; /* by tag (5.5.6.4); UINT64_MAX: not told */
};

void virtio_balloon_init(struct virtio_balloon *d, struct pci_bus *p, struct bus *b, uint8_t devfn,
                         const struct virtio_options *o);
void virtio_balloon_fini(struct virtio_balloon *d);
/* How much memory the guest is to keep, of what it has. */
void virtio_balloon_set_target(struct virtio_balloon *d, uint64_t bytes);
uint64_t virtio_balloon_actual(const struct virtio_balloon *d); /* bytes that it keeps */
/* Ask the driver for new statistics; they come into stats later. */
void virtio_balloon_ask_stats(struct virtio_balloon *d);

#endif
