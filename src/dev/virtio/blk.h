/* SPDX-License-Identifier: Apache-2.0
 *
 * Block device (virtio 1.2, 5.2). Thread: machine lock held.
 */
#ifndef SOSIA_DEV_VIRTIO_BLK_H
#define SOSIA_DEV_VIRTIO_BLK_H

#include "dev/virtio/dev.h"

#define VIRTIO_BLK_ID_BYTES 20u

struct block_queue;
struct blk_request;

struct virtio_blk_config {
    struct block_queue *queue; /* borrowed, outlives the device */
    bool readonly;
    const char *serial; /* at most 20 bytes are seen; NULL: none */
    unsigned queues;    /* 1.. */
    struct virtio_options virtio;
};

struct virtio_blk {
    struct virtio v; /* first */
    struct block_queue *disk;
    uint64_t capacity; /* sectors */
    bool readonly;
    char serial[VIRTIO_BLK_ID_BYTES];
    unsigned under_way;       /* requests */
    struct blk_request *idle; /* owned: to be used again */
    uint64_t stalled;         /* queues that wait for requests to finish, bit n */
    /* State */
    bool write_cache; /* what the driver set by CONFIG_WCE */
};

void virtio_blk_init(struct virtio_blk *d, const char *name, struct pci_bus *p, struct bus *b,
                     uint8_t devfn, const struct virtio_blk_config *c);
void virtio_blk_fini(struct virtio_blk *d);
/* The image has another size now. */
void virtio_blk_resized(struct virtio_blk *d);

#endif
