/* SPDX-License-Identifier: Apache-2.0
 *
 * Checksums and segmentation in software (RFC 1071; what virtio 1.2 5.1.6.2 and the 8254x manual
 * leave to the device).
 */
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "net/packet.h"

#define ETH_VLAN 0x8100u
#define ETH_IP4 0x0800u
#define ETH_IP6 0x86ddu
#define IP_TCP 6u
#define IP4_HEADER 20u
#define IP4_MORE 0x2000u
#define IP6_HEADER 40u
#define TCP_HEADER 20u
#define TCP_CSUM 16u
#define TCP_FIN 0x01u
#define TCP_SYN 0x02u
#define TCP_PSH 0x08u
#define TCP_CWR 0x80u
#define TCP_OPT_END 0u
#define TCP_OPT_NOP 1u
#define TCP_OPT_MSS 2u
#define MSS_LARGE 65400u

/* Sums of 64 bits at a time with end-around carry are sums of 16 bits, too. */
uint16_t net_sum(const uint8_t *data, size_t len, uint32_t start)
{
    uint64_t sum = 0;
    uint64_t carry = 0;
    for (; len >= 32; data += 32, len -= 32) {
        for (unsigned i = 0; i < 4; i++) {
            uint64_t v = load_le64(data + 8 * i);
            carry += ckd_add(&sum, sum, v);
        }
    }
    for (; len >= 8; data += 8, len -= 8) {
        carry += ckd_add(&sum, sum, load_le64(data));
    }
    uint8_t rest[8] = { 0 };
    memcpy(rest, data, len);
    carry += ckd_add(&sum, sum, load_le64(rest));
    uint64_t folded = (sum & 0xffffffff) + (sum >> 32) + carry;
    folded = (folded & 0xffff) + (folded >> 16 & 0xffff) + (folded >> 32);
    /* Little-endian words were summed: turned once, they are the network's. */
    folded = (folded & 0xffff) + (folded >> 16);
    folded = (folded & 0xffff) + (folded >> 16);
    uint32_t total = __builtin_bswap16((uint16_t)folded) + start;
    while (total >> 16 != 0) {
        total = (total & 0xffff) + (total >> 16);
    }
    return (uint16_t)total;
}

bool net_finish_csum(const struct net_offload *o, uint8_t *frame, size_t len)
{
    size_t at = (size_t)o->csum_start + o->csum_offset;
    if (o->csum_start >= len || at + 2 > len) {
        return false;
    }
    uint16_t sum = (uint16_t)~net_sum(frame + o->csum_start, len - o->csum_start, 0);
    store_be16(frame + at, sum != 0 ? sum : 0xffff);
    return true;
}

/* -- TCP --------------------------------------------------------------------------------------- */
bool net_parse_tcp(const uint8_t *f, size_t len, struct net_tcp *t)
{
    size_t at = 12;
    if (len < NET_ETH_HEADER) {
        return false;
    }
    while (load_be16(f + at) == ETH_VLAN && at + 6 <= len && at < 20) {
        at += 4;
    }
    uint16_t type = load_be16(f + at);
    t->ip = at + 2;
    t->v6 = type == ETH_IP6;
    if (type == ETH_IP4 && len >= t->ip + IP4_HEADER) {
        t->tcp = t->ip + 4u * (f[t->ip] & 15u);
        bool fragment = load_be16(f + t->ip + 6) & 0x3fff;
        if (f[t->ip + 9] != IP_TCP || t->tcp < t->ip + IP4_HEADER || fragment) {
            return false;
        }
    } else if (type == ETH_IP6 && len >= t->ip + IP6_HEADER) {
        t->tcp = t->ip + IP6_HEADER;
        if (f[t->ip + 6] != IP_TCP) {
            return false;
        }
    } else {
        return false;
    }
    if (len < t->tcp + TCP_HEADER) {
        return false;
    }
    t->payload = t->tcp + 4u * (f[t->tcp + 12] >> 4);
    return t->payload >= t->tcp + TCP_HEADER && t->payload <= len;
}

static uint16_t pseudo_sum(const uint8_t *f, size_t len, const struct net_tcp *t)
{
    uint32_t start = IP_TCP + (uint32_t)(len - t->tcp);
    const uint8_t *ip = f + t->ip;
    return t->v6 ? net_sum(ip + 8, 32, start) : net_sum(ip + 12, 8, start);
}

static void finish_ip4(uint8_t *ip, size_t header, size_t len)
{
    store_be16(ip + 2, (uint16_t)len);
    store_be16(ip + 10, 0);
    store_be16(ip + 10, (uint16_t)~net_sum(ip, header, 0));
}

void net_tcp_finish(uint8_t *f, size_t len, const struct net_tcp *t)
{
    if (t->v6) {
        store_be16(f + t->ip + 4, (uint16_t)(len - t->ip - IP6_HEADER));
    } else {
        finish_ip4(f + t->ip, t->tcp - t->ip, len - t->ip);
    }
    store_be16(f + t->tcp + TCP_CSUM, 0);
    uint16_t sum = (uint16_t)~net_sum(f + t->tcp, len - t->tcp, pseudo_sum(f, len, t));
    store_be16(f + t->tcp + TCP_CSUM, sum);
}

bool net_prepare_gso(struct net_offload *o, uint8_t *f, size_t len, uint16_t mss)
{
    struct net_tcp t;
    if (mss == 0 || !net_parse_tcp(f, len, &t) || len - t.ip > 0xffff) {
        return false;
    }
    *o = (struct net_offload){ .flags = NET_CSUM_PARTIAL,
                               .gso_type = t.v6 ? NET_GSO_TCP6 : NET_GSO_TCP4,
                               .gso_size = mss,
                               .hdr_len = (uint16_t)t.payload,
                               .csum_start = (uint16_t)t.tcp,
                               .csum_offset = TCP_CSUM };
    if (t.v6) {
        store_be16(f + t.ip + 4, (uint16_t)(len - t.ip - IP6_HEADER));
    } else {
        finish_ip4(f + t.ip, t.tcp - t.ip, len - t.ip);
    }
    net_tcp_pseudo(f, len, &t);
    return true;
}

void net_tcp_pseudo(uint8_t *f, size_t len, const struct net_tcp *t)
{
    store_be16(f + t->tcp + TCP_CSUM, pseudo_sum(f, len, t));
}

bool net_tcp_raise_mss(uint8_t *f, const struct net_tcp *t, unsigned card_caps)
{
    unsigned need = NET_CAP_CSUM | (t->v6 ? NET_CAP_TSO6 : NET_CAP_TSO4);
    unsigned usual = t->v6 ? 1440 : 1460;
    if (!(f[t->tcp + 13] & TCP_SYN) || (card_caps & need) != need) {
        return false;
    }
    for (size_t at = t->tcp + TCP_HEADER; at < t->payload;) {
        unsigned kind = f[at];
        if (kind == TCP_OPT_NOP) {
            at++;
            continue;
        }
        size_t size = at + 1 < t->payload ? f[at + 1] : 0;
        if (kind == TCP_OPT_END || size < 2 || at + size > t->payload) {
            return false;
        }
        if (kind == TCP_OPT_MSS && size == 4) {
            if (load_be16(f + at + 2) != usual) {
                return false; /* a path with a narrower part that segments must fit */
            }
            store_be16(f + at + 2, MSS_LARGE);
            return true;
        }
        at += size;
    }
    return false;
}

/* -- Segmentation ------------------------------------------------------------------------------ */
bool net_segment(const struct net_offload *o, const uint8_t *frame, size_t len, net_segment_fn *fn,
                 void *ctx)
{
    uint8_t piece[NET_FRAME_MAX];
    struct net_tcp t;
    if (o->gso_size == 0 || len > sizeof piece || !net_parse_tcp(frame, len, &t)) {
        return false;
    }
    uint32_t seq = load_be32(frame + t.tcp + 4);
    uint16_t ip_id = load_be16(frame + t.ip + 4);
    uint8_t flags = frame[t.tcp + 13];
    size_t total = len - t.payload;
    size_t done = 0;
    for (unsigned n = 0; n == 0 || done < total; n++) {
        size_t part = total - done < o->gso_size ? total - done : o->gso_size;
        memcpy(piece, frame, t.payload);
        memcpy(piece + t.payload, frame + t.payload + done, part);
        store_be32(piece + t.tcp + 4, seq + (uint32_t)done);
        if (!t.v6) {
            store_be16(piece + t.ip + 4, (uint16_t)(ip_id + n));
        }
        uint8_t clear = done + part < total ? TCP_FIN | TCP_PSH : 0;
        clear |= n != 0 ? TCP_CWR : 0;
        piece[t.tcp + 13] = flags & (uint8_t)~clear;
        done += part;
        net_tcp_finish(piece, t.payload + part, &t);
        fn(ctx, piece, t.payload + part);
    }
    return true;
}

void net_fragment(const uint8_t *frame, size_t len, size_t frame_max, net_segment_fn *fn, void *ctx)
{
    uint8_t piece[NET_FRAME_MAX];
    if (len < NET_ETH_HEADER + IP4_HEADER || len > sizeof piece ||
        load_be16(frame + 12) != ETH_IP4) {
        return;
    }
    size_t header = 4u * (frame[NET_ETH_HEADER] & 15u);
    size_t start = NET_ETH_HEADER + header;
    if (header < IP4_HEADER || start >= len || start + 8 > frame_max) {
        return;
    }
    uint16_t old = load_be16(frame + NET_ETH_HEADER + 6);
    size_t step = align_down(frame_max - start, 8);
    for (size_t at = start; at < len; at += step) {
        size_t part = len - at < step ? len - at : step;
        bool more = at + part < len || (old & IP4_MORE);
        memcpy(piece, frame, start);
        memcpy(piece + start, frame + at, part);
        uint16_t offset = (uint16_t)((old & 0x1fff) + (at - start) / 8);
        store_be16(piece + NET_ETH_HEADER + 6, (uint16_t)(offset | (more ? IP4_MORE : 0)));
        finish_ip4(piece + NET_ETH_HEADER, header, header + part);
        fn(ctx, piece, start + part);
    }
}
