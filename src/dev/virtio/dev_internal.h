/* SPDX-License-Identifier: Apache-2.0
 *
 * What the transport (pci.c) asks of a device (dev.c).  Thread: machine lock held.
 */
#ifndef SOSIA_DEV_VIRTIO_DEV_INTERNAL_H
#define SOSIA_DEV_VIRTIO_DEV_INTERNAL_H

#include "dev/virtio/dev.h"

/* From here on the accepted features stay what they are. */
#define VIRTIO_FEATURES_FINAL (VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK)

/* ISR, which reading clears. */
uint8_t virtio_take_isr(struct virtio *v);
/* The vector, or VIRTQ_NO_VECTOR when there is no such one. */
uint16_t virtio_checked_vector(const struct virtio *v, uint64_t vector);
/* What the accepted features mean for the queues. */
void virtio_apply_features(struct virtio *v);
struct virtq *virtio_selected(struct virtio *v); /* NULL: there is no such queue */
void virtio_reset(struct virtio *v);
/* The driver writes the status: 0 resets. */
void virtio_set_status(struct virtio *v, uint8_t status);
uint64_t virtio_config_read(struct virtio *v, uint64_t offset, unsigned size);
void virtio_config_write(struct virtio *v, uint64_t offset, unsigned size, uint64_t value);
/* Timer: queues that were left for others to have their turn. */
void virtio_go_on(void *ctx, uint64_t now_ns);

#endif
