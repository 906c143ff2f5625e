/* SPDX-License-Identifier: Apache-2.0
 *
 * virtio-vsock (virtio 1.2, 5.10), stream sockets: the packets. Credit keeps either side from
 * sending more than the other has room for.
 *
 * UNIMPL: SEQPACKET.
 */
#include "dev/virtio/vsock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/bytes.h"
#include "base/loop.h"
#include "dev/virtio/vsock_conn.h"

#define QUEUE_RX 0u
#define QUEUE_TX 1u
#define QUEUE_EVENT 2u
#define HOST_CID 2u
#define PACKET_DATA_MAX 65536u
#define TYPE_STREAM 1u
#define SHUTDOWN_RECEIVE 1u
#define SHUTDOWN_SEND 2u

enum vsock_op {
    OP_REQUEST = 1,
    OP_RESPONSE,
    OP_RST,
    OP_SHUTDOWN,
    OP_RW,
    OP_CREDIT_UPDATE,
    OP_CREDIT_REQUEST
};

static struct virtio_vsock *vsock_of(struct virtio *v)
{
    return container_of(v, struct virtio_vsock, v);
}

/* -- To the guest ------------------------------------------------------------------------------ */
struct packet {
    uint32_t host_port;
    uint32_t guest_port;
    uint16_t op;
    uint32_t flags;
    uint32_t forwarded;
    uint32_t len;
};

static void encode(const struct virtio_vsock *d, const struct packet *p, uint8_t *h)
{
    store_le64(h, HOST_CID);
    store_le64(h + 8, d->cid);
    store_le32(h + 16, p->host_port);
    store_le32(h + 20, p->guest_port);
    store_le32(h + 24, p->len);
    store_le16(h + 28, TYPE_STREAM);
    store_le16(h + 30, p->op);
    store_le32(h + 32, p->flags);
    store_le32(h + 36, VSOCK_BUF_BYTES);
    store_le32(h + 40, p->forwarded);
}

/* Into the buffer in v->chain. */
static void give(struct virtio_vsock *d, const struct packet *p, const uint8_t *data)
{
    struct virtio *v = &d->v;
    const struct virtq *q = &v->queue[QUEUE_RX];
    uint8_t h[VSOCK_HDR_BYTES];
    encode(d, p, h);
    int r = virtq_write(q, v->chain, 0, h, sizeof h);
    if (r == 0 && p->len != 0) {
        r = virtq_write(q, v->chain, VSOCK_HDR_BYTES, data, p->len);
    }
    if (r < 0) {
        virtio_break(v, "a receive buffer too small for a header, or outside of memory");
        return;
    }
    virtio_push(v, QUEUE_RX, VSOCK_HDR_BYTES + p->len);
}

static uint32_t credit(const struct vsock_conn *c)
{
    uint32_t under_way = c->sent - c->peer_fwd;
    return under_way < c->peer_buf ? c->peer_buf - under_way : 0;
}

/* The next packet of a connection in p. False: none is due. */
static bool next_packet(struct vsock_conn *c, struct packet *p, uint8_t *data, uint32_t room)
{
    *p = (struct packet){ .host_port = c->host_port, .guest_port = c->guest_port };
    static const struct {
        unsigned due;
        uint16_t op;
    } order[] = { { DUE_RST, OP_RST },
                  { DUE_REQUEST, OP_REQUEST },
                  { DUE_RESPONSE, OP_RESPONSE },
                  { DUE_CREDIT, OP_CREDIT_UPDATE } };
    for (unsigned i = 0; i < ARRAY_LEN(order); i++) {
        if (c->due & order[i].due) {
            c->due &= ~order[i].due;
            p->op = order[i].op;
            return true;
        }
    }
    uint32_t max = room < credit(c) ? room : credit(c);
    if (c->state == CONN_OPEN && c->readable && !c->eof && max != 0) {
        ssize_t n = recv(c->fd, data, max, MSG_DONTWAIT);
        if (n > 0) {
            p->op = OP_RW;
            p->len = (uint32_t)n;
            c->sent += (uint32_t)n;
            return true;
        }
        c->readable = false;
        if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
            c->eof = true;
            c->due |= DUE_SHUTDOWN;
        }
    }
    if (c->due & DUE_SHUTDOWN) {
        c->due &= ~DUE_SHUTDOWN;
        p->op = OP_SHUTDOWN;
        p->flags = SHUTDOWN_SEND;
        return true;
    }
    return false;
}

static bool is_due(const struct vsock_conn *c)
{
    return c->state != CONN_ASKING &&
           (c->due != 0 || (c->state == CONN_OPEN && c->readable && !c->eof && credit(c) != 0));
}

/* False: it has ended. */
static bool pump_conn(struct vsock_conn *c, uint8_t *data, uint32_t data_max)
{
    struct virtio_vsock *d = c->d;
    struct virtio *v = &d->v;
    while (is_due(c) && virtio_pop(v, QUEUE_RX)) {
        uint32_t room = v->chain->in_len > VSOCK_HDR_BYTES ? v->chain->in_len - VSOCK_HDR_BYTES : 0;
        struct packet p;
        if (!next_packet(c, &p, data, room < data_max ? room : data_max)) {
            virtq_unpop(&v->queue[QUEUE_RX], v->chain);
            break;
        }
        p.forwarded = c->told = c->forwarded;
        give(d, &p, data);
        if (p.op == OP_RST) {
            vsock_conn_free(c);
            return false;
        }
    }
    return true;
}

void vsock_pump(struct virtio_vsock *d)
{
    struct virtio *v = &d->v;
    uint8_t data[PACKET_DATA_MAX];
    bool more;
    do {
        while (d->resets != 0 && virtio_pop(v, QUEUE_RX)) {
            const struct vsock_reset *r = &d->reset[--d->resets];
            const struct packet p = { r->host_port, r->guest_port, OP_RST, 0, 0, 0 };
            give(d, &p, NULL);
        }
        more = d->resets != 0;
        for (struct vsock_conn *c = d->conns, *next; c != NULL; c = next) {
            next = c->next;
            if (pump_conn(c, data, sizeof data) && c->state == CONN_OPEN) {
                more |= is_due(c);
                vsock_conn_watch(c);
            }
        }
    } while (!virtio_await(v, QUEUE_RX) && more);
    virtio_interrupt(v, QUEUE_RX);
}

/* -- From the guest ---------------------------------------------------------------------------- */
static void refuse(struct virtio_vsock *d, uint32_t host_port, uint32_t guest_port)
{
    if (d->resets < VSOCK_RESETS_MAX) {
        d->reset[d->resets++] = (struct vsock_reset){ host_port, guest_port };
    }
}

static void take_connect(struct virtio_vsock *d, uint32_t host_port, uint32_t guest_port,
                         const uint8_t *h)
{
    int fd = vsock_conn_reach(d, host_port);
    struct vsock_conn *c = fd >= 0 ? vsock_conn_new(d, fd) : NULL;
    if (c == NULL) {
        refuse(d, host_port, guest_port);
        return;
    }
    c->state = CONN_OPEN;
    c->host_port = host_port;
    c->guest_port = guest_port;
    c->peer_buf = load_le32(h + 36);
    c->peer_fwd = load_le32(h + 40);
    c->due = DUE_RESPONSE;
}

static void accepted(struct vsock_conn *c)
{
    char text[32];
    c->state = CONN_OPEN;
    int n = snprintf(text, sizeof text, "OK %u\n", c->host_port);
    if (send(c->fd, text, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL) != n) {
        c->due |= DUE_RST;
    }
    vsock_conn_watch(c);
}

static void take_op(struct vsock_conn *c, unsigned op, const uint8_t *h)
{
    struct virtio *v = &c->d->v;
    switch (op) {
    case OP_RESPONSE:
        if (c->state == CONN_REQUESTED) {
            accepted(c);
        }
        break;
    case OP_RW:
        if (c->state != CONN_OPEN || c->guest_done ||
            !vsock_conn_put(c, &v->queue[QUEUE_TX], v->chain, load_le32(h + 24))) {
            c->due |= DUE_RST;
        }
        break;
    case OP_SHUTDOWN: {
        uint32_t flags = load_le32(h + 32);
        c->eof |= (flags & SHUTDOWN_RECEIVE) != 0;
        c->guest_done |= (flags & SHUTDOWN_SEND) != 0;
        vsock_conn_flush(c);
        if (c->eof && c->guest_done) {
            c->due |= DUE_RST; /* what the driver waits for to let go of it */
        }
        break;
    }
    case OP_CREDIT_REQUEST:
        c->due |= DUE_CREDIT;
        break;
    default: /* CREDIT_UPDATE: the header had it */
        break;
    }
}

static void take_packet(struct virtio_vsock *d, const uint8_t *h)
{
    uint32_t guest_port = load_le32(h + 16);
    uint32_t host_port = load_le32(h + 20);
    unsigned op = load_le16(h + 30);
    struct vsock_conn *c = vsock_conn_find(d, host_port, guest_port);
    bool ours = load_le64(h) == d->cid && load_le64(h + 8) == HOST_CID &&
                load_le16(h + 28) == TYPE_STREAM;
    if (ours && c == NULL && op == OP_REQUEST) {
        take_connect(d, host_port, guest_port, h);
    } else if (!ours || c == NULL) {
        if (op != OP_RST) {
            refuse(d, host_port, guest_port);
        }
    } else if (op == OP_RST) {
        vsock_conn_free(c);
    } else {
        c->peer_buf = load_le32(h + 36);
        c->peer_fwd = load_le32(h + 40);
        take_op(c, op, h);
    }
}

static void take_packets(struct virtio_vsock *d)
{
    struct virtio *v = &d->v;
    do {
        while (virtio_next(v, QUEUE_TX)) {
            uint8_t h[VSOCK_HDR_BYTES];
            const struct virtq_used used = { v->chain->id, v->chain->descs, 0 };
            if (v->chain->out_len < VSOCK_HDR_BYTES ||
                virtq_read(&v->queue[QUEUE_TX], v->chain, 0, h, sizeof h) < 0) {
                virtio_break(v, "a packet without header");
                return;
            }
            take_packet(d, h);
            virtio_push_all(v, QUEUE_TX, &used, 1);
        }
    } while (!virtio_await(v, QUEUE_TX));
    virtio_interrupt(v, QUEUE_TX);
}

static void tell_lost(struct virtio_vsock *d)
{
    struct virtio *v = &d->v;
    if (d->lost && virtio_pop(v, QUEUE_EVENT)) {
        uint8_t event[4] = { 0 }; /* TRANSPORT_RESET */
        d->lost = false;
        if (virtq_write(&v->queue[QUEUE_EVENT], v->chain, 0, event, sizeof event) < 0) {
            virtio_break(v, "an event buffer that is too small, or outside of memory");
            return;
        }
        virtio_push(v, QUEUE_EVENT, sizeof event);
        virtio_interrupt(v, QUEUE_EVENT);
    }
}

static void vsock_notify(struct virtio *v, unsigned n)
{
    struct virtio_vsock *d = vsock_of(v);
    if (n == QUEUE_TX) {
        take_packets(d);
    } else if (n == QUEUE_EVENT) {
        tell_lost(d);
    }
    vsock_pump(d);
}

/* -- The device -------------------------------------------------------------------------------- */
static void vsock_config_fill(struct virtio *v) { store_le64(v->config, vsock_of(v)->cid); }

static void vsock_stop(struct virtio *v)
{
    vsock_conn_free_all(vsock_of(v));
    vsock_of(v)->lost = false;
}

static const struct state_field vsock_state[] = {
    STATE_STRUCT(struct virtio_vsock, v, virtio_state),
    STATE_END,
};

/* The connections were with programs on the old host. */
static int vsock_post_load(void *dev, struct err *e)
{
    struct virtio_vsock *d = dev;
    vsock_conn_free_all(d);
    d->lost = virtio_running(&d->v);
    return virtio_post_load(dev, e);
}

static const struct dev_class vsock_dev_class = {
    .name = "virtio-vsock",
    .version = 1,
    .state = vsock_state,
    .size = sizeof(struct virtio_vsock),
    .reset = virtio_hard_reset,
    .post_load = vsock_post_load,
};

static const struct virtio_class vsock_class = {
    .dev = &vsock_dev_class,
    .type = 19,
    .pci_class = 0x078000,
    .config_size = 8,
    .config_fill = vsock_config_fill,
    .notify = vsock_notify,
    .stop = vsock_stop,
};

int virtio_vsock_init(struct virtio_vsock *d, struct pci_bus *p, struct bus *b, uint8_t devfn,
                      struct loop *loop, const char *path, uint64_t cid,
                      const struct virtio_options *o, struct err *e)
{
    *d = (struct virtio_vsock){ .loop = loop, .path = xstrdup(path), .listen_fd = -1, .cid = cid };
    int r = vsock_conn_listen(d, e);
    if (r < 0) {
        virtio_vsock_fini(d);
        return err_prefix(e, r, "vsock");
    }
    virtio_init(&d->v, &vsock_class, "virtio-vsock", p, b, devfn, o, 0, 3);
    return 0;
}

void virtio_vsock_fini(struct virtio_vsock *d)
{
    if (d->path == NULL) {
        return;
    }
    vsock_conn_free_all(d);
    loop_fd_del(d->listen_watch);
    if (d->listen_fd >= 0) {
        close(d->listen_fd);
        unlink(d->path);
    }
    free(d->path);
    d->path = NULL;
    virtio_fini(&d->v);
}
