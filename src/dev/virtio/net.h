/* SPDX-License-Identifier: Apache-2.0
 *
 * Network card (virtio 1.2, 5.1). Thread: machine lock held.
 */
#ifndef SOSIA_DEV_VIRTIO_NET_H
#define SOSIA_DEV_VIRTIO_NET_H

#include "dev/virtio/dev.h"
#include "net/net.h"

#define VIRTIO_NET_PAIRS_MAX 16u
#define VIRTIO_NET_MACS_MAX 64u
#define VIRTIO_NET_FLOWS 256u

struct virtio_net_config {
    struct net *net; /* borrowed, outlives the device */
    uint8_t mac[NET_MAC_BYTES];
    unsigned pairs; /* of queues, 1.. */
    struct virtio_options virtio;
};

/* What passes to the guest: the control queue's part of the state. */
struct virtio_net_filter {
    bool promiscuous;
    bool all_multicast;
    bool all_unicast;
    bool no_multicast;
    bool no_unicast;
    bool no_broadcast;
    bool table_overflow; /* more multicast addresses than fit: all pass */
    uint8_t macs;
    uint8_t mac[VIRTIO_NET_MACS_MAX][NET_MAC_BYTES];
    uint64_t vlan[4096 / 64];
};

struct virtio_net {
    struct virtio v; /* first */
    struct net *net;
    uint8_t hardware_mac[NET_MAC_BYTES];
    unsigned pairs_max;
    uint8_t flow[VIRTIO_NET_FLOWS]; /* queue pair that last sent, by hash */
    uint8_t frame[NET_FRAME_MAX];
    /* State */
    uint8_t mac[NET_MAC_BYTES];
    uint16_t pairs; /* in use */
    bool announce;  /* the guest is asked to say where it is */
    uint64_t guest_offloads;
    struct virtio_net_filter filter;
};

void virtio_net_init(struct virtio_net *d, const char *name, struct pci_bus *p, struct bus *b,
                     uint8_t devfn, const struct virtio_net_config *c);
void virtio_net_fini(struct virtio_net *d);
/* After the machine moved: have the guest tell its neighbours. */
void virtio_net_announce(struct virtio_net *d);

#endif
