/* SPDX-License-Identifier: Apache-2.0
 *
 * What is plugged into the board's PCI slots, from slot 3 up in this order: network cards, disk
 * controllers, the other virtio devices. Thread: set-up, or machine lock held.
 */
#ifndef SOSIA_MACHINE_CARDS_H
#define SOSIA_MACHINE_CARDS_H

#include "dev/pc/e1000.h"
#include "dev/virtio/balloon.h"
#include "dev/virtio/blk.h"
#include "dev/virtio/console.h"
#include "dev/virtio/net.h"
#include "dev/virtio/rng.h"
#include "dev/virtio/scsi.h"
#include "dev/virtio/vsock.h"
#include "machine/disks.h"
#include "machine/serial.h"

#define CARDS_FIRST_SLOT 3u
#define CARDS_SLOTS 32u

struct machine;

struct nic {
    struct net *net;           /* owned */
    struct virtio_net *virtio; /* owned; this, */
    struct e1000 *e1000;       /* owned; or that */
};

struct cards {
    struct machine *machine;
    unsigned slot;                     /* the next free one */
    struct nic *nic[MACHINE_NICS_MAX]; /* owned */
    unsigned nic_count;
    struct virtio_blk *blk[MACHINE_DISKS_MAX]; /* owned */
    unsigned blk_count;
    struct virtio_scsi *scsi; /* owned; NULL: nothing is on it */
    struct virtio_rng *rng;   /* owned; so are these */
    struct virtio_balloon *balloon;
    struct virtio_vsock *vsock;
    struct virtio_console *console;
    struct serial port[MACHINE_CONSOLES_MAX]; /* its ports' far ends */
    unsigned ports;
};

MUST_CHECK int cards_init(struct cards *k, struct machine *m, struct pci_bus *p,
                          const struct machine_config *c, const struct disks *d, struct err *e);
/* Also of some that cards_init gave up on. */
void cards_fini(struct cards *k);

#endif
