/* SPDX-License-Identifier: Apache-2.0 -- looking into frames, for backends */
#ifndef SOSIA_NET_PACKET_H
#define SOSIA_NET_PACKET_H

#include "net/net.h"

/* Where a TCP frame's parts are, from the start of the frame. */
struct net_tcp {
    size_t ip;
    size_t tcp;
    size_t payload;
    bool v6;
};

/* False: not TCP, or a fragment, or headers that lie. */
bool net_parse_tcp(const uint8_t *frame, size_t len, struct net_tcp *t);
/* Lengths and checksums of a frame that was put together or changed. */
void net_tcp_finish(uint8_t *frame, size_t len, const struct net_tcp *t);
/* Leave only the pseudo header's sum, as NET_CSUM_PARTIAL has it. */
void net_tcp_pseudo(uint8_t *frame, size_t len, const struct net_tcp *t);
/* A SYN of a guest on a medium of 1500 bytes, whose card takes large segments: say that its
 * maximum segment is as large as IP allows. True: changed, to be finished. */
bool net_tcp_raise_mss(uint8_t *frame, const struct net_tcp *t, unsigned card_caps);
/* Cut an IPv4 packet into fragments of frames of at most frame_max bytes; anything else is
 * dropped. */
void net_fragment(const uint8_t *frame, size_t len, size_t frame_max, net_segment_fn *fn,
                  void *ctx);

#endif
