/* SPDX-License-Identifier: Apache-2.0
 *
 * Entropy device (virtio 1.2, 5.4). Thread: machine lock held.
 */
#ifndef SOSIA_DEV_VIRTIO_RNG_H
#define SOSIA_DEV_VIRTIO_RNG_H

#include "dev/virtio/dev.h"

struct virtio_rng {
    struct virtio v; /* first */
};

void virtio_rng_init(struct virtio_rng *d, struct pci_bus *p, struct bus *b, uint8_t devfn,
                     const struct virtio_options *o);
void virtio_rng_fini(struct virtio_rng *d);

#endif
