/* SPDX-License-Identifier: Apache-2.0
 *
 * Input device (virtio 1.2, 5.8): a tablet, whose pointer is where it is put. Thread: machine lock
 * held.
 */
#ifndef SOSIA_DEV_VIRTIO_INPUT_H
#define SOSIA_DEV_VIRTIO_INPUT_H

#include "dev/virtio/dev.h"

#define VIRTIO_INPUT_MAX 0x7fff /* the right edge, and the lower one */

enum virtio_input_button {
    VIRTIO_INPUT_LEFT = 1,
    VIRTIO_INPUT_RIGHT = 2,
    VIRTIO_INPUT_MIDDLE = 4,
    VIRTIO_INPUT_SIDE = 8,
    VIRTIO_INPUT_EXTRA = 16,
};

struct virtio_input_place {
    uint16_t x, y; /* to VIRTIO_INPUT_MAX */
    uint8_t buttons;
};

struct virtio_input {
    struct virtio v; /* first */
    /* State */
    uint8_t select, subsel; /* what the configuration shows */
    struct virtio_input_place is, told; /* told: as the driver knows it */
    int32_t wheel;                      /* clicks away from the user, not told yet */
    bool open; /* events were told that no SYN_REPORT closed */
};

void virtio_input_init(struct virtio_input *d, struct pci_bus *p, struct bus *b, uint8_t devfn,
                       const struct virtio_options *o);
void virtio_input_fini(struct virtio_input *d);

/* Somebody listens. */
bool virtio_input_ready(const struct virtio_input *d);
/* The pointer is there now, the wheel was turned by so many clicks towards the user. */
void virtio_input_put(struct virtio_input *d, const struct virtio_input_place *to, int wheel);

#endif
