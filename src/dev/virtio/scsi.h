/* SPDX-License-Identifier: Apache-2.0
 *
 * SCSI host (virtio 1.2, 5.6): one unit 0 per target. Thread: machine lock held.
 */
#ifndef SOSIA_DEV_VIRTIO_SCSI_H
#define SOSIA_DEV_VIRTIO_SCSI_H

#include "dev/virtio/dev.h"
#include "dev/virtio/scsi_target.h"

#define VIRTIO_SCSI_TARGETS 16u

struct virtio_scsi {
    struct virtio v; /* first */
    unsigned targets;
    uint64_t bytes;   /* of requests under way */
    uint64_t stalled; /* queues that wait for them, bit n */
    /* State */
    uint32_t sense_size;
    uint32_t cdb_size;
    struct scsi_unit unit[VIRTIO_SCSI_TARGETS];
};

/* Then virtio_scsi_add for each target, before the machine runs. */
void virtio_scsi_init(struct virtio_scsi *d, struct pci_bus *p, struct bus *b, uint8_t devfn,
                      unsigned queues, const struct virtio_options *o);
void virtio_scsi_add(struct virtio_scsi *d, struct block_queue *disk, bool cdrom, bool readonly,
                     const char *serial);
void virtio_scsi_fini(struct virtio_scsi *d);

#endif
