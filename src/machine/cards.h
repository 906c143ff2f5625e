/* SPDX-License-Identifier: Apache-2.0
 *
 * What is plugged into the board's PCI slots, from slot 3 up in this order: network cards, disk
 * controllers, the other virtio devices. Thread: set-up, or machine lock held.
 */
#ifndef SOSIA_MACHINE_CARDS_H
#define SOSIA_MACHINE_CARDS_H

#include "dev/pc/ahci.h"
#include "dev/pc/e1000.h"
#include "dev/pc/nvme.h"
#include "dev/virtio/balloon.h"
#include "dev/virtio/blk.h"
#include "dev/virtio/console.h"
#include "dev/virtio/input.h"
#include "dev/virtio/net.h"
#include "dev/virtio/rng.h"
#include "dev/virtio/scsi.h"
#include "dev/virtio/vsock.h"
#include "machine/disks.h"
#include "machine/netdevs.h"
#include "machine/serial.h"

#define CARDS_FIRST_SLOT 3u
#define CARDS_SLOTS 32u

struct machine;

enum card_kind { CARD_VIRTIO_BLK, CARD_NVME, CARD_VIRTIO_NET, CARD_E1000 };

/* A card that can be put in and taken out while the machine runs. */
struct card {
    enum card_kind kind;
    uint8_t slot;
    bool hot; /* it came while the machine ran */
    char id[MACHINE_NAME_BYTES];
    struct disk *disk;     /* borrowed; of a disk */
    struct netdev *netdev; /* borrowed; of a network card */
    union {
        struct virtio_blk *blk; /* owned; one of these */
        struct nvme *nvme;
        struct virtio_net *net;
        struct e1000 *e1000;
    };
};

/* What to put in. */
struct card_config {
    enum card_kind kind;
    const char *id;
    const char *dev_name; /* section of the state; NULL: made of kind and slot */
    unsigned slot;        /* 0: the first that is free */
    bool packed;
    struct disk *disk;
    struct netdev *netdev;
    bool has_mac; /* else one is made of the slot */
    uint8_t mac[NET_MAC_BYTES];
    unsigned queues; /* 0: as is usual */
};

struct cards {
    struct machine *machine;
    struct pci_bus *pci;            /* borrowed */
    struct card *card[CARDS_SLOTS]; /* owned; by slot */
    struct ahci *ahci;        /* owned; NULL: nothing is on it */
    struct virtio_scsi *scsi; /* owned; NULL: nothing is on it */
    struct virtio_rng *rng;   /* owned; so are these */
    struct virtio_input *tablet;
    struct virtio_balloon *balloon;
    struct virtio_vsock *vsock;
    struct virtio_console *console;
    struct serial port[MACHINE_CONSOLES_MAX]; /* its ports' far ends */
    unsigned ports;
};

MUST_CHECK int cards_init(struct cards *k, struct machine *m, struct pci_bus *p,
                          const struct machine_config *c, struct disks *d, struct netdevs *n,
                          struct err *e);
/* Also of some that cards_init gave up on. */
void cards_fini(struct cards *k);

/* The disk or network is used by nobody else. -EBUSY: the slot is taken, -ENOSPC: all are, -EINVAL:
 * there is no such slot. */
MUST_CHECK int cards_plug(struct cards *k, const struct card_config *c, struct card **out,
                          struct err *e);
void cards_unplug(struct cards *k, unsigned slot);
/* NULL: none. */
struct card *cards_with_disk(struct cards *k, const struct disk *disk);
/* Is it a disk, or a network card? */
bool cards_is_disk(enum card_kind kind);
struct card *cards_find(struct cards *k, const char *id);

#endif
