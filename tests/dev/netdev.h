/* SPDX-License-Identifier: Apache-2.0 -- a network for tests of cards: it keeps what it is sent */
#ifndef SOSIA_TESTS_DEV_NETDEV_H
#define SOSIA_TESTS_DEV_NETDEV_H

#include <string.h>

#include "net/net.h"

struct test_net {
    struct net net; /* first */
    unsigned sent;
    struct net_offload offload;
    size_t len;
    uint8_t frame[NET_FRAME_MAX];
};

static inline void test_net_send(struct net *n, const struct net_offload *o, uint8_t *frame,
                                 size_t len)
{
    struct test_net *t = (struct test_net *)n;
    t->sent++;
    t->offload = *o;
    t->len = len;
    memcpy(t->frame, frame, len);
}

static inline void test_net_free(struct net *n) { (void)n; }

static const struct net_class test_net_class = {
    .name = "test",
    .caps = NET_CAP_CSUM | NET_CAP_TSO4 | NET_CAP_TSO6,
    .send = test_net_send,
    .free = test_net_free,
};

/* A TCP segment of IPv4 without checksums; returns its length. */
static inline size_t test_tcp_frame(uint8_t *f, size_t payload)
{
    static const uint8_t head[54] = {
        0x52, 0x54, 0,    0x12, 0x34, 0x56, 0x52, 0x55, 10, 0, 2, 2, 8,    0, /* Ethernet */
        0x45, 0,    0,    40,   0,    1,    0x40, 0,    64, 6, 0, 0, 10,   0,
        2,    2,    10,   0,    2,    15, /* IP */
        0,    80,   0x9c, 0x40, 0,    0,    0,    1,    0,  0, 0, 0, 0x50, 0x18,
        0x10, 0,    0,    0,    0,    0,
    };
    memcpy(f, head, sizeof head);
    for (size_t i = 0; i < payload; i++) {
        f[sizeof head + i] = (uint8_t)(i * 3);
    }
    f[16] = (uint8_t)((40 + payload) >> 8);
    f[17] = (uint8_t)(40 + payload);
    return sizeof head + payload;
}

#endif
