/* SPDX-License-Identifier: Apache-2.0
 *
 * virtio-net (virtio 1.2, 5.1): checksum and segmentation offloads both ways, mergeable receive
 * buffers, the control queue (receive mode, addresses, VLANs, announcement, queue pairs, offloads).
 *
 * UNIMPL: RSS and hash reports (flows go to the queue pair that last sent one), UFO and USO, RSC,
 * notification coalescing, standby.
 */
#include "dev/virtio/net.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"

/* Feature bits (5.1.3) */
#define NET_F_CSUM BIT(0)
#define NET_F_GUEST_CSUM BIT(1)
#define NET_F_CTRL_GUEST_OFFLOADS BIT(2)
#define NET_F_MAC BIT(5)
#define NET_F_GUEST_TSO4 BIT(7)
#define NET_F_GUEST_TSO6 BIT(8)
#define NET_F_GUEST_ECN BIT(9)
#define NET_F_HOST_TSO4 BIT(11)
#define NET_F_HOST_TSO6 BIT(12)
#define NET_F_HOST_ECN BIT(13)
#define NET_F_MRG_RXBUF BIT(15)
#define NET_F_STATUS BIT(16)
#define NET_F_CTRL_VQ BIT(17)
#define NET_F_CTRL_RX BIT(18)
#define NET_F_CTRL_VLAN BIT(19)
#define NET_F_CTRL_RX_EXTRA BIT(20)
#define NET_F_GUEST_ANNOUNCE BIT(21)
#define NET_F_MQ BIT(22)
#define NET_F_CTRL_MAC_ADDR BIT(23)
#define GUEST_OFFLOADS (NET_F_GUEST_CSUM | NET_F_GUEST_TSO4 | NET_F_GUEST_TSO6 | NET_F_GUEST_ECN)

/* Device configuration (5.1.4) */
enum net_config { CONFIG_MAC = 0, CONFIG_STATUS = 6, CONFIG_PAIRS = 8, CONFIG_SIZE = 10 };
#define STATUS_LINK_UP 1u
#define STATUS_ANNOUNCE 2u

/* struct virtio_net_hdr: that of net.h and, but for old drivers, the number of buffers */
#define HDR_LEGACY 10u
#define HDR_MODERN 12u
#define HDR_BUFFERS 10u
#define MERGE_MAX 64u /* buffers of one frame */
#define FIRST_SEGS 16u

/* Control queue (5.1.6.5) */
enum ctrl_class { CTRL_RX, CTRL_MAC, CTRL_VLAN, CTRL_ANNOUNCE, CTRL_MQ, CTRL_OFFLOADS };
#define CTRL_OK 0u
#define CTRL_ERR 1u
#define CTRL_DATA_MAX 4096u

#define ETH_VLAN 0x8100u

static struct virtio_net *net_of(struct virtio *v) { return container_of(v, struct virtio_net, v); }

static unsigned header_size(const struct virtio *v)
{
    return virtio_has(v, NET_F_MRG_RXBUF | VIRTIO_F_VERSION_1) ? HDR_MODERN : HDR_LEGACY;
}

/* The control queue is behind all pairs, or behind the first for a driver without MQ (5.1.2). */
static unsigned control_queue(const struct virtio_net *d)
{
    return virtio_has(&d->v, NET_F_MQ) ? 2 * d->pairs_max : 2;
}

static bool has_control(const struct virtio_net *d) { return virtio_has(&d->v, NET_F_CTRL_VQ); }

/* -- Flows: a frame comes in where its connection's frames went out ---------------------------- */
static unsigned flow_hash(const uint8_t *frame, size_t len)
{
    uint32_t h = 0;
    uint16_t type = load_be16(frame + 12);
    const uint8_t *ip = frame + NET_ETH_HEADER;
    if (type == 0x0800 && len >= NET_ETH_HEADER + 24) {
        h = load_le32(ip + 12) ^ load_le32(ip + 16);
        if ((ip[9] == 6 || ip[9] == 17) && (ip[0] & 15) == 5) {
            h ^= (uint32_t)load_le16(ip + 20) ^ load_le16(ip + 22);
        }
    } else if (type == 0x86dd && len >= NET_ETH_HEADER + 44) {
        for (unsigned i = 8; i < 40; i += 4) {
            h ^= load_le32(ip + i);
        }
        h ^= (uint32_t)load_le16(ip + 40) ^ load_le16(ip + 42);
    }
    h *= 0x9e3779b1u; /* the golden ratio: mixes low bits into high ones */
    return h >> 24;
}

/* -- From the guest ---------------------------------------------------------------------------- */
static bool read_frame(struct virtio_net *d, unsigned n, struct net_offload *o, size_t *len)
{
    struct virtio *v = &d->v;
    const struct virtq *q = &v->queue[n];
    uint8_t header[HDR_MODERN];
    unsigned size = header_size(v);
    if (v->chain->out_len < size || virtq_read(q, v->chain, 0, header, size) < 0) {
        virtio_break(v, "a frame without header");
        return false;
    }
    *len = v->chain->out_len - size;
    if (*len > sizeof d->frame) {
        *len = 0; /* longer than any frame: lost */
    }
    if (virtq_read(q, v->chain, size, d->frame, *len) < 0) {
        virtio_break(v, "a frame outside of memory");
        return false;
    }
    memcpy(o, header, HDR_LEGACY);
    o->flags &= virtio_has(v, NET_F_CSUM) ? NET_CSUM_PARTIAL : 0;
    if (!virtio_has(v, NET_F_HOST_TSO4 | NET_F_HOST_TSO6)) {
        o->gso_type = NET_GSO_NONE;
    }
    return true;
}

static void transmit(struct virtio_net *d, unsigned n)
{
    struct virtio *v = &d->v;
    struct virtq *q = &v->queue[n];
    do {
        virtq_ask_notify(q, false);
        while (virtio_next(v, n)) {
            struct net_offload o;
            size_t len;
            const struct virtq_used used = { v->chain->id, v->chain->descs, 0 };
            if (!read_frame(d, n, &o, &len)) {
                return;
            }
            if (d->pairs > 1 && len >= NET_ETH_HEADER) {
                d->flow[flow_hash(d->frame, len)] = (uint8_t)(n / 2);
            }
            net_send(d->net, &o, d->frame, len); /* may bring an answer at once */
            virtio_push_all(v, n, &used, 1);
        }
    } while (!virtio_await(v, n));
    virtio_interrupt(v, n);
}

/* -- To the guest ------------------------------------------------------------------------------ */
static bool vlan_passes(const struct virtio_net *d, const uint8_t *frame, size_t len)
{
    if (!virtio_has(&d->v, NET_F_CTRL_VLAN) || load_be16(frame + 12) != ETH_VLAN || len < 16) {
        return true;
    }
    unsigned id = load_be16(frame + 14) & 0xfff;
    return d->filter.vlan[id / 64] >> id % 64 & 1;
}

static bool in_table(const struct virtio_net_filter *f, const uint8_t *mac)
{
    for (unsigned i = 0; i < f->macs; i++) {
        if (memcmp(f->mac[i], mac, NET_MAC_BYTES) == 0) {
            return true;
        }
    }
    return false;
}

static bool passes(const struct virtio_net *d, const uint8_t *frame, size_t len)
{
    static const uint8_t broadcast[NET_MAC_BYTES] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
    const struct virtio_net_filter *f = &d->filter;
    if (f->promiscuous) {
        return true;
    }
    if (!vlan_passes(d, frame, len)) {
        return false;
    }
    if (memcmp(frame, broadcast, sizeof broadcast) == 0) {
        return !f->no_broadcast;
    }
    if (frame[0] & 1) {
        return !f->no_multicast && (f->all_multicast || f->table_overflow || in_table(f, frame));
    }
    return !f->no_unicast &&
           (f->all_unicast || memcmp(frame, d->mac, sizeof d->mac) == 0 || in_table(f, frame));
}

/* What the driver can be given of the work that is left; false: a frame that it must not see. */
static bool make_header(struct virtio_net *d, const struct net_offload *o, uint8_t *header)
{
    struct net_offload h = *o;
    uint64_t takes = d->guest_offloads;
    uint64_t need = 0;
    switch (o->gso_type & ~NET_GSO_ECN) {
    case NET_GSO_NONE:
        break;
    case NET_GSO_TCP4:
        need = NET_F_GUEST_TSO4;
        break;
    case NET_GSO_TCP6:
        need = NET_F_GUEST_TSO6;
        break;
    default:
        return false;
    }
    if ((o->flags & NET_CSUM_PARTIAL) || need != 0) {
        need |= NET_F_GUEST_CSUM;
    }
    if ((takes & need) != need) {
        return false; /* what it took has changed since */
    }
    if (!(takes & NET_F_GUEST_CSUM)) {
        h.flags = 0;
    }
    memcpy(header, &h, HDR_LEGACY);
    store_le16(header + HDR_BUFFERS, 1);
    return true;
}

enum give { GIVEN, NO_ROOM, LOST };

struct delivery {
    const uint8_t *header;
    unsigned header_len;
    const uint8_t *frame;
    size_t len;
    size_t done; /* of header and frame together */
};

/* As much as fits into the buffer in v->chain. */
static int fill_chain(const struct virtq *q, const struct virtq_chain *c, struct delivery *y)
{
    uint32_t at = 0;
    int r = 0;
    if (y->done == 0) {
        r = virtq_write(q, c, 0, y->header, y->header_len);
        at = y->header_len;
        y->done = y->header_len;
    }
    size_t from = y->done - y->header_len;
    size_t part = y->len - from;
    part = part < c->in_len - at ? part : c->in_len - at;
    if (r == 0) {
        r = virtq_write(q, c, at, y->frame + from, part);
    }
    y->done += part;
    return r;
}

static void unpop_all(struct virtq *q, const struct virtq_used *used, unsigned count)
{
    while (count-- != 0) {
        const struct virtq_chain c = { .id = used[count].id, .descs = used[count].descs };
        virtq_unpop(q, &c);
    }
}

static enum give give(struct virtio_net *d, unsigned n, struct delivery *y)
{
    struct virtio *v = &d->v;
    struct virtq *q = &v->queue[n];
    struct virtq_used used[MERGE_MAX];
    struct virtq_seg first[FIRST_SEGS];
    unsigned first_segs = 0;
    unsigned max = virtio_has(v, NET_F_MRG_RXBUF) ? MERGE_MAX : 1;
    unsigned count = 0;
    while (y->done < y->header_len + y->len) {
        if (count == max) {
            unpop_all(q, used, count);
            return LOST;
        }
        if (!virtio_pop(v, n)) {
            unpop_all(q, used, count);
            return virtio_running(v) ? NO_ROOM : LOST;
        }
        const struct virtq_chain *c = v->chain;
        size_t before = y->done;
        if (c->in_len < y->header_len || fill_chain(q, c, y) < 0) {
            virtio_break(v, "a receive buffer that is too small, or outside of memory");
            return LOST;
        }
        if (count == 0) {
            first_segs = c->ins < FIRST_SEGS ? c->ins : FIRST_SEGS;
            memcpy(first, c->seg + c->outs, first_segs * sizeof *first);
        }
        used[count++] = (struct virtq_used){ c->id, c->descs, (uint32_t)(y->done - before) };
    }
    if (count > 1) {
        uint8_t buffers[2];
        store_le16(buffers, (uint16_t)count);
        if (virtq_write_segs(q, first, first_segs, HDR_BUFFERS, buffers, sizeof buffers) < 0) {
            virtio_break(v, "a receive buffer with a header in crumbs");
            return LOST;
        }
    }
    virtio_push_all(v, n, used, count);
    virtio_interrupt(v, n);
    return GIVEN;
}

static bool net_receive(void *ctx, const struct net_offload *o, const uint8_t *frame, size_t len)
{
    struct virtio_net *d = ctx;
    struct virtio *v = &d->v;
    uint8_t header[HDR_MODERN];
    if (!virtio_running(v) || !passes(d, frame, len) || !make_header(d, o, header)) {
        return true; /* not for this guest */
    }
    unsigned n = 0;
    if (d->pairs > 1) {
        unsigned pair = d->flow[flow_hash(frame, len)];
        n = pair < d->pairs ? 2 * pair : 0;
    }
    struct virtq *q = &v->queue[n];
    if (!q->enabled) {
        return true;
    }
    for (bool asked = false;; asked = true) {
        struct delivery y = { header, header_size(v), frame, len, 0 };
        enum give g = give(d, n, &y);
        if (g != NO_ROOM) {
            return true;
        }
        if (asked) {
            return false;
        }
        virtq_ask_notify(q, true);
    }
}

static void net_link_changed(void *ctx, bool up)
{
    struct virtio_net *d = ctx;
    (void)up;
    virtio_config_changed(&d->v);
}

/* -- Control ----------------------------------------------------------------------------------- */
static void update_caps(struct virtio_net *d)
{
    uint64_t o = virtio_running(&d->v) ? d->guest_offloads : 0;
    net_set_card_caps(d->net, (o & NET_F_GUEST_CSUM ? NET_CAP_CSUM : 0) |
                                  (o & NET_F_GUEST_TSO4 ? NET_CAP_TSO4 : 0) |
                                  (o & NET_F_GUEST_TSO6 ? NET_CAP_TSO6 : 0) |
                                  (o & NET_F_GUEST_ECN ? NET_CAP_ECN : 0));
}

static bool control_rx(struct virtio_net *d, unsigned cmd, const uint8_t *data, size_t len)
{
    struct virtio_net_filter *f = &d->filter;
    bool *const flag[] = { &f->promiscuous,  &f->all_multicast, &f->all_unicast,
                           &f->no_multicast, &f->no_unicast,    &f->no_broadcast };
    if (cmd >= ARRAY_LEN(flag) || len != 1) {
        return false;
    }
    *flag[cmd] = data[0] != 0;
    return true;
}

/* Two tables: unicast, then multicast addresses. */
static bool control_mac_table(struct virtio_net *d, const uint8_t *data, size_t len)
{
    struct virtio_net_filter fresh = d->filter;
    fresh.macs = 0;
    fresh.table_overflow = false;
    for (unsigned table = 0; table < 2; table++) {
        if (len < 4) {
            return false;
        }
        uint64_t count = load_le32(data);
        data += 4;
        len -= 4;
        if (count * NET_MAC_BYTES > len) {
            return false;
        }
        for (uint64_t i = 0; i < count; i++, data += NET_MAC_BYTES, len -= NET_MAC_BYTES) {
            if (fresh.macs == VIRTIO_NET_MACS_MAX) {
                if (table == 0) {
                    fresh.all_unicast = true;
                }
                fresh.table_overflow = true;
                continue;
            }
            memcpy(fresh.mac[fresh.macs++], data, NET_MAC_BYTES);
        }
    }
    if (len != 0) {
        return false;
    }
    d->filter = fresh;
    return true;
}

static bool control_mac(struct virtio_net *d, unsigned cmd, const uint8_t *data, size_t len)
{
    if (cmd == 1 && len == NET_MAC_BYTES) {
        memcpy(d->mac, data, NET_MAC_BYTES);
        return true;
    }
    return cmd == 0 && control_mac_table(d, data, len);
}

static bool control_vlan(struct virtio_net *d, unsigned cmd, const uint8_t *data, size_t len)
{
    if (cmd > 1 || len != 2 || load_le16(data) >= 4096) {
        return false;
    }
    unsigned id = load_le16(data);
    uint64_t *word = &d->filter.vlan[id / 64];
    *word = cmd == 0 ? *word | BIT(id % 64) : *word & ~BIT(id % 64);
    return true;
}

static bool control_mq(struct virtio_net *d, unsigned cmd, const uint8_t *data, size_t len)
{
    if (cmd != 0 || len != 2 || !virtio_has(&d->v, NET_F_MQ)) {
        return false;
    }
    uint16_t pairs = load_le16(data);
    if (pairs < 1 || pairs > d->pairs_max) {
        return false;
    }
    d->pairs = pairs;
    return true;
}

static bool control_offloads(struct virtio_net *d, unsigned cmd, const uint8_t *data, size_t len)
{
    if (cmd != 0 || len != 8 || !virtio_has(&d->v, NET_F_CTRL_GUEST_OFFLOADS)) {
        return false;
    }
    uint64_t offloads = load_le64(data);
    if ((offloads & ~(d->v.accepted & GUEST_OFFLOADS)) != 0) {
        return false;
    }
    d->guest_offloads = offloads;
    update_caps(d);
    return true;
}

static bool control_announce(struct virtio_net *d, unsigned cmd)
{
    bool asked = cmd == 0 && d->announce;
    d->announce = false;
    return asked;
}

static bool command(struct virtio_net *d, const uint8_t *data, size_t len)
{
    unsigned cmd = data[1];
    const uint8_t *rest = data + 2;
    len -= 2;
    switch (data[0]) {
    case CTRL_RX:
        return control_rx(d, cmd, rest, len);
    case CTRL_MAC:
        return control_mac(d, cmd, rest, len);
    case CTRL_VLAN:
        return control_vlan(d, cmd, rest, len);
    case CTRL_ANNOUNCE:
        return control_announce(d, cmd);
    case CTRL_MQ:
        return control_mq(d, cmd, rest, len);
    case CTRL_OFFLOADS:
        return control_offloads(d, cmd, rest, len);
    default:
        return false;
    }
}

/* False: the device is broken. */
static bool control_one(struct virtio_net *d, unsigned n)
{
    struct virtio *v = &d->v;
    const struct virtq_chain *c = v->chain;
    uint8_t data[CTRL_DATA_MAX];
    size_t len = c->out_len < sizeof data ? c->out_len : sizeof data;
    if (len < 2 || c->in_len < 1 || virtq_read(&v->queue[n], c, 0, data, len) < 0) {
        virtio_break(v, "a command without header or answer");
        return false;
    }
    uint8_t ack = c->out_len <= sizeof data && command(d, data, len) ? CTRL_OK : CTRL_ERR;
    if (virtq_write(&v->queue[n], c, 0, &ack, 1) < 0) {
        virtio_break(v, "an answer outside of memory");
        return false;
    }
    virtio_push(v, n, 1);
    return true;
}

static void control(struct virtio_net *d, unsigned n)
{
    do {
        while (virtio_next(&d->v, n)) {
            if (!control_one(d, n)) {
                return;
            }
        }
    } while (!virtio_await(&d->v, n));
    virtio_interrupt(&d->v, n);
}

static void net_notify(struct virtio *v, unsigned n)
{
    struct virtio_net *d = net_of(v);
    if (has_control(d) && n == control_queue(d)) {
        control(d, n);
    } else if (n >= 2 * d->pairs_max) {
        return;
    } else if (n % 2 != 0) {
        transmit(d, n);
    } else {
        virtq_ask_notify(&v->queue[n], false); /* until there is no room again */
        net_ready(d->net);
    }
}

/* -- Configuration ----------------------------------------------------------------------------- */
static void net_config_fill(struct virtio *v)
{
    struct virtio_net *d = net_of(v);
    memcpy(v->config + CONFIG_MAC, d->mac, NET_MAC_BYTES);
    store_le16(v->config + CONFIG_STATUS, (uint16_t)((d->net->link_up ? STATUS_LINK_UP : 0) |
                                                     (d->announce ? STATUS_ANNOUNCE : 0)));
    store_le16(v->config + CONFIG_PAIRS, (uint16_t)d->pairs_max);
}

/* Drivers without CTRL_MAC_ADDR set the address here (5.1.4.2). */
static void net_config_write(struct virtio *v, unsigned offset, unsigned size, uint32_t value)
{
    struct virtio_net *d = net_of(v);
    if (virtio_has(v, VIRTIO_F_VERSION_1 | NET_F_CTRL_MAC_ADDR)) {
        return;
    }
    for (unsigned i = 0; i < size && offset + i < NET_MAC_BYTES; i++) {
        d->mac[offset + i] = (uint8_t)(value >> 8 * i);
    }
}

static void forget(struct virtio_net *d)
{
    memcpy(d->mac, d->hardware_mac, sizeof d->mac);
    memset(&d->filter, 0, sizeof d->filter);
    d->filter.promiscuous = true; /* until the driver says what it wants */
    d->pairs = 1;
    d->announce = false;
    d->guest_offloads = 0;
}

static void net_start(struct virtio *v)
{
    struct virtio_net *d = net_of(v);
    d->guest_offloads = v->accepted & GUEST_OFFLOADS;
    update_caps(d);
}

static void net_stop(struct virtio *v)
{
    struct virtio_net *d = net_of(v);
    forget(d);
    net_set_card_caps(d->net, 0);
}

void virtio_net_announce(struct virtio_net *d)
{
    if (virtio_has(&d->v, NET_F_GUEST_ANNOUNCE) && has_control(d)) {
        d->announce = true;
        virtio_config_changed(&d->v);
    }
}

/* -- State ------------------------------------------------------------------------------------- */
static const struct state_field filter_state[] = {
    STATE(struct virtio_net_filter, promiscuous),
    STATE(struct virtio_net_filter, all_multicast),
    STATE(struct virtio_net_filter, all_unicast),
    STATE(struct virtio_net_filter, no_multicast),
    STATE(struct virtio_net_filter, no_unicast),
    STATE(struct virtio_net_filter, no_broadcast),
    STATE(struct virtio_net_filter, table_overflow),
    STATE(struct virtio_net_filter, macs),
    STATE_BYTES(struct virtio_net_filter, mac),
    STATE_ARRAY(struct virtio_net_filter, vlan),
    STATE_END,
};

static const struct state_field net_state[] = {
    STATE_STRUCT(struct virtio_net, v, virtio_state),
    STATE_BYTES(struct virtio_net, mac),
    STATE(struct virtio_net, pairs),
    STATE(struct virtio_net, announce),
    STATE(struct virtio_net, guest_offloads),
    STATE_STRUCT(struct virtio_net, filter, filter_state),
    STATE_END,
};

static int net_post_load(void *dev, struct err *e)
{
    struct virtio_net *d = dev;
    if (d->filter.macs > VIRTIO_NET_MACS_MAX || d->pairs < 1 || d->pairs > d->pairs_max) {
        return err_set(e, -EINVAL, "state has %u addresses and %u queue pairs", d->filter.macs,
                       d->pairs);
    }
    int r = virtio_post_load(dev, e);
    if (r == 0 && (d->guest_offloads & ~(d->v.accepted & GUEST_OFFLOADS)) != 0) {
        r = err_set(e, -EINVAL, "state has offloads that were not negotiated");
    }
    if (r == 0) {
        update_caps(d);
    }
    return r;
}

static const struct dev_class net_dev_class = {
    .name = "virtio-net",
    .version = 1,
    .state = net_state,
    .size = sizeof(struct virtio_net),
    .reset = virtio_hard_reset,
    .post_load = net_post_load,
};

static const struct virtio_class net_class = {
    .dev = &net_dev_class,
    .type = 1,
    .transitional_id = 0x1000,
    .pci_class = 0x020000,
    .config_size = CONFIG_SIZE,
    .config_fill = net_config_fill,
    .config_write = net_config_write,
    .notify = net_notify,
    .start = net_start,
    .stop = net_stop,
};

void virtio_net_init(struct virtio_net *d, const char *name, struct pci_bus *p, struct bus *b,
                     uint8_t devfn, const struct virtio_net_config *c)
{
    memset(d, 0, sizeof *d);
    d->net = c->net;
    d->pairs_max = c->pairs;
    memcpy(d->hardware_mac, c->mac, sizeof d->hardware_mac);
    forget(d);
    unsigned caps = c->net->caps;
    uint64_t features = NET_F_MAC | NET_F_MRG_RXBUF | NET_F_STATUS | NET_F_CTRL_VQ | NET_F_CTRL_RX |
                        NET_F_CTRL_VLAN | NET_F_CTRL_RX_EXTRA | NET_F_GUEST_ANNOUNCE |
                        NET_F_CTRL_MAC_ADDR | NET_F_CTRL_GUEST_OFFLOADS | GUEST_OFFLOADS |
                        (caps & NET_CAP_CSUM ? NET_F_CSUM : 0) |
                        (caps & NET_CAP_TSO4 ? NET_F_HOST_TSO4 : 0) |
                        (caps & NET_CAP_TSO6 ? NET_F_HOST_TSO6 : 0) |
                        (caps & NET_CAP_ECN ? NET_F_HOST_ECN : 0) | (c->pairs > 1 ? NET_F_MQ : 0);
    virtio_init(&d->v, &net_class, name, p, b, devfn, &c->virtio, features, 2 * c->pairs + 1);
    const struct net_card card = { d, net_receive, net_link_changed };
    net_attach(c->net, &card);
}

void virtio_net_fini(struct virtio_net *d)
{
    if (d->v.chain != NULL) {
        net_detach(d->net);
        virtio_fini(&d->v);
    }
}
