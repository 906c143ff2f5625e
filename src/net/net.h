/* SPDX-License-Identifier: Apache-2.0
 *
 * A network card's cable: a card (virtio-net, e1000) at one end, a backend (user NAT, tap, passt)
 * at the other. Frames are Ethernet frames without preamble and checksum. A frame may come with
 * work that is left to do: a checksum to fill in, a large segment to cut up; each end says what it
 * takes.
 *
 * What the guest sends and what comes from the network is hostile alike.
 * Thread: machine lock held for all calls; receive is called on the loop, or from within send.
 */
#ifndef SOSIA_NET_NET_H
#define SOSIA_NET_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct clock;
struct loop;

#define NET_FRAME_MAX (65536u + 64u) /* bytes: an IP packet of 64 KiB, Ethernet and VLAN headers */
#define NET_ETH_HEADER 14u
#define NET_MAC_BYTES 6u

enum net_offload_flag {
    NET_CSUM_PARTIAL = 1, /* the sum from csum_start on goes to csum_start + csum_offset */
    NET_CSUM_VALID = 2,   /* somebody has checked it */
};

enum net_gso {
    NET_GSO_NONE = 0,
    NET_GSO_TCP4 = 1,
    NET_GSO_UDP = 3,
    NET_GSO_TCP6 = 4,
    NET_GSO_ECN = 0x80
};

/* virtio_net_hdr and the kernel's vnet_hdr begin with the same ten bytes. */
struct net_offload {
    uint8_t flags;    /* enum net_offload_flag */
    uint8_t gso_type; /* enum net_gso */
    uint16_t hdr_len;
    uint16_t gso_size; /* payload of each segment to make */
    uint16_t csum_start;
    uint16_t csum_offset;
};

/* What an end takes, or-ed. */
enum net_cap {
    NET_CAP_CSUM = 1u << 0, /* NET_CSUM_PARTIAL */
    NET_CAP_TSO4 = 1u << 1,
    NET_CAP_TSO6 = 1u << 2,
    NET_CAP_ECN = 1u << 3,
};

/* The card's side. */
struct net_card {
    void *ctx;
    /* False: there is no room, the card calls net_ready later. */
    bool (*receive)(void *ctx, const struct net_offload *o, const uint8_t *frame, size_t len);
    void (*link_changed)(void *ctx, bool up); /* may be NULL */
};

struct net;

struct net_class {
    const char *name;
    unsigned caps; /* what send takes */
    void (*send)(struct net *n, const struct net_offload *o, uint8_t *frame, size_t len);
    /* The card takes these now (n->card_caps), may be NULL. */
    void (*card_changed)(struct net *n);
    /* The card has room again: NULL when the backend only uses net_deliver. */
    void (*ready)(struct net *n);
    void (*free)(struct net *n);
};

struct net_frame;

/* First member of every backend. */
struct net {
    const struct net_class *cls;
    struct net_card card;
    unsigned card_caps;
    unsigned caps; /* of cls, less what the host does not give */
    bool link_up;
    bool card_full;
    /* Frames that wait for the card, owned. */
    struct net_frame *first;
    struct net_frame *last;
    size_t queued_bytes;
    uint64_t dropped;
};

/* -- For the card */
void net_attach(struct net *n, const struct net_card *card);
void net_detach(struct net *n);
/* frame is the callee's to change. */
void net_send(struct net *n, const struct net_offload *o, uint8_t *frame, size_t len);
void net_set_card_caps(struct net *n, unsigned caps);
void net_ready(struct net *n);
void net_set_link(struct net *n, bool up); /* the cable is plugged in, or not: anybody */
void net_free(struct net *n);              /* NULL is allowed */

/* -- For backends */
void net_init(struct net *n, const struct net_class *cls);
/* A frame for the card; queued when it has no room, dropped when the queue is full. */
void net_deliver(struct net *n, const struct net_offload *o, const uint8_t *frame, size_t len);
/* Is there room in the queue? A backend that can wait waits. */
bool net_room(const struct net *n);

/* -- packet.c: the work that was left to do, for ends that do not take it */
uint16_t net_sum(const uint8_t *data, size_t len, uint32_t start); /* folded, not inverted */
/* Fill in a partial checksum. False: the header lies. */
bool net_finish_csum(const struct net_offload *o, uint8_t *frame, size_t len);
/* A TCP frame to be cut into segments of mss bytes of payload: lengths and the sum of the pseudo
 * header as NET_GSO wants them. False: not TCP over IP. */
bool net_prepare_gso(struct net_offload *o, uint8_t *frame, size_t len, uint16_t mss);
/* Cut a large segment up and call fn for each piece, checksums filled in. False: not TCP over
 * IP. */
typedef void net_segment_fn(void *ctx, uint8_t *frame, size_t len);
bool net_segment(const struct net_offload *o, const uint8_t *frame, size_t len, net_segment_fn *fn,
                 void *ctx);

/* -- Backends. On success *out is set. */
struct net_forward {
    bool udp;
    uint32_t host_addr; /* IPv4, host order */
    uint16_t host_port;
    uint16_t guest_port;
};

struct net_user_options {
    bool restricted; /* nothing but DHCP, DNS and forwards */
    const char *hostname;
    const struct net_forward *forwards;
    unsigned forward_count;
};

bool net_user_built(void); /* with libslirp */
MUST_CHECK int net_user_new(struct net **out, const struct net_user_options *o, struct loop *loop,
                            struct clock *clock, struct err *e);
/* interface NULL: the kernel picks a name. */
MUST_CHECK int net_tap_new(struct net **out, const char *interface, struct loop *loop,
                           struct err *e);
/* path: passt's socket; NULL: start one. */
MUST_CHECK int net_passt_new(struct net **out, const char *path, const struct net_user_options *o,
                             struct loop *loop, struct err *e);

#endif
