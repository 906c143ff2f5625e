/* SPDX-License-Identifier: Apache-2.0
 *
 * Network without privileges: libslirp plays a router with DHCP, DNS and NAT at 10.0.2.2 (IPv6:
 * fec0::2) and turns the guest's connections into sockets of this process. Its sockets are watched
 * by the machine's loop.
 *
 * Large segments pass whole in both directions. The guest's come from TSO. For those to the guest,
 * the MSS that the guest offers is raised before libslirp sees it, so that it makes segments of up
 * to 64 KiB; a card that takes such gets them with the real segment size beside.
 *
 * The host's services listen on 127.0.0.1 as before: a guest reaches them by 10.0.2.2.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <slirp/libslirp.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/loop.h"
#include "net/net.h"
#include "net/packet.h"

#define MTU_LARGE 65521u /* the most that libslirp takes */
#define NS_PER_MS 1000000ull
#define ETH_FRAME 1514u

/* A socket of libslirp's that the loop watches. */
struct user_fd {
    unsigned wanted;  /* SLIRP_POLL_*, as the last fill said */
    unsigned revents; /* what the loop saw since */
    struct loop_fd *watch;
};

struct user {
    struct net net; /* first */
    Slirp *slirp;
    struct loop *loop;   /* borrowed */
    struct clock *clock; /* borrowed */
    struct timer timer;  /* libslirp's own deadlines */
    struct user_fd *fds; /* by number */
    size_t fd_space;
};

struct user_timer {
    struct timer timer;
    struct user *user;
    SlirpTimerCb fn;
    void *ctx;
};

/* -- Sockets ----------------------------------------------------------------------------------- */
static unsigned loop_events(unsigned slirp_events)
{
    return (slirp_events & SLIRP_POLL_IN ? (unsigned)LOOP_READ : 0) |
           (slirp_events & SLIRP_POLL_OUT ? (unsigned)LOOP_WRITE : 0);
}

static int add_poll(int fd, int events, void *ctx)
{
    struct user *u = ctx;
    if ((size_t)fd >= u->fd_space) {
        size_t space = u->fd_space != 0 ? u->fd_space : 64;
        while (space <= (size_t)fd) {
            space *= 2;
        }
        u->fds = xrealloc(u->fds, space * sizeof *u->fds);
        memset(u->fds + u->fd_space, 0, (space - u->fd_space) * sizeof *u->fds);
        u->fd_space = space;
    }
    u->fds[fd].wanted |= (unsigned)events;
    return fd;
}

static void on_fd(void *ctx, int fd, unsigned events);

/* Ask libslirp what it waits for, and make the loop and our timer wait for that. */
static void refill(struct user *u)
{
    uint32_t timeout_ms = UINT32_MAX;
    for (size_t fd = 0; fd < u->fd_space; fd++) {
        u->fds[fd].wanted = 0;
    }
    slirp_pollfds_fill(u->slirp, &timeout_ms, add_poll, u);
    for (size_t fd = 0; fd < u->fd_space; fd++) {
        struct user_fd *f = &u->fds[fd];
        unsigned events = loop_events(f->wanted);
        if (f->watch != NULL) {
            loop_fd_set(f->watch, events);
        } else if (events != 0) {
            f->watch = loop_fd_add(u->loop, (int)fd, events, on_fd, u);
        }
    }
    if (timeout_ms == UINT32_MAX) {
        timer_cancel(&u->timer);
    } else {
        timer_arm(&u->timer, clock_now_ns(u->clock) + timeout_ms * NS_PER_MS);
    }
}

static int get_revents(int fd, void *ctx)
{
    struct user *u = ctx;
    unsigned revents = 0;
    if (fd >= 0 && (size_t)fd < u->fd_space) {
        revents = u->fds[fd].revents;
        u->fds[fd].revents = 0;
    }
    return (int)revents;
}

static void turn(struct user *u)
{
    slirp_pollfds_poll(u->slirp, 0, get_revents, u);
    refill(u);
}

static void on_fd(void *ctx, int fd, unsigned events)
{
    struct user *u = ctx;
    u->fds[fd].revents = (events & LOOP_READ ? (unsigned)SLIRP_POLL_IN : 0) |
                         (events & LOOP_WRITE ? (unsigned)SLIRP_POLL_OUT : 0) |
                         (events & LOOP_HUP ? (unsigned)SLIRP_POLL_HUP : 0);
    turn(u);
}

static void on_timer(void *ctx, uint64_t now_ns)
{
    (void)now_ns;
    turn(ctx);
}

/* Called before libslirp closes a socket: its number may come again for another one. */
static void cb_unregister(int fd, void *ctx)
{
    struct user *u = ctx;
    if (fd >= 0 && (size_t)fd < u->fd_space) {
        loop_fd_del(u->fds[fd].watch);
        u->fds[fd] = (struct user_fd){ 0 };
    }
}

static void cb_register(int fd, void *ctx)
{
    (void)fd; /* the next fill names it */
    (void)ctx;
}

/* -- libslirp's other wishes ------------------------------------------------------------------- */
static void cb_error(const char *msg, void *ctx)
{
    (void)ctx;
    log_guest("user network", "%s", msg);
}

static int64_t cb_clock(void *ctx)
{
    struct user *u = ctx;
    return (int64_t)clock_now_ns(u->clock);
}

static void timer_fired(void *ctx, uint64_t now_ns)
{
    struct user_timer *t = ctx;
    (void)now_ns;
    t->fn(t->ctx);
    refill(t->user);
}

static void *cb_timer_new(SlirpTimerCb fn, void *fn_ctx, void *ctx)
{
    struct user *u = ctx;
    struct user_timer *t = xzalloc(sizeof *t);
    timer_init(&t->timer, u->clock, timer_fired, t);
    t->user = u;
    t->fn = fn;
    t->ctx = fn_ctx;
    return t;
}

static void cb_timer_free(void *timer, void *ctx)
{
    struct user_timer *t = timer;
    (void)ctx;
    if (t != NULL) {
        timer_cancel(&t->timer);
        free(t);
    }
}

static void cb_timer_mod(void *timer, int64_t expire_ms, void *ctx)
{
    struct user_timer *t = timer;
    (void)ctx;
    timer_arm(&t->timer, (uint64_t)(expire_ms > 0 ? expire_ms : 0) * NS_PER_MS);
}

/* Whatever calls libslirp asks it again afterwards. */
static void cb_notify(void *ctx) { (void)ctx; }

/* -- To the guest ------------------------------------------------------------------------------ */
static void deliver_piece(void *ctx, uint8_t *frame, size_t len)
{
    const struct net_offload plain = { .flags = NET_CSUM_VALID };
    net_deliver(ctx, &plain, frame, len);
}

/* Larger than the card's medium carries: TCP goes with the size to cut it into. */
static void deliver_large(struct user *u, const uint8_t *frame, size_t len)
{
    struct net_tcp t;
    if (!net_parse_tcp(frame, len, &t)) {
        net_fragment(frame, len, ETH_FRAME, deliver_piece, &u->net);
        return;
    }
    struct net_offload o = { .gso_type = t.v6 ? NET_GSO_TCP6 : NET_GSO_TCP4,
                             .gso_size = (uint16_t)(ETH_FRAME - t.payload),
                             .hdr_len = (uint16_t)t.payload };
    unsigned need = NET_CAP_CSUM | (t.v6 ? NET_CAP_TSO6 : NET_CAP_TSO4);
    if ((u->net.card_caps & need) != need) {
        net_segment(&o, frame, len, deliver_piece, &u->net);
        return;
    }
    o.flags = NET_CSUM_PARTIAL;
    o.csum_start = (uint16_t)t.tcp;
    o.csum_offset = 16;
    /* libslirp's own copy: it needs it no more. */
    net_tcp_pseudo((uint8_t *)(uintptr_t)frame, len, &t);
    net_deliver(&u->net, &o, frame, len);
}

static ssize_t cb_send(const void *buf, size_t len, void *ctx)
{
    struct user *u = ctx;
    if (len > ETH_FRAME) {
        deliver_large(u, buf, len);
    } else {
        const struct net_offload plain = { .flags = NET_CSUM_VALID };
        net_deliver(&u->net, &plain, buf, len);
    }
    return (ssize_t)len;
}

/* -- From the guest ---------------------------------------------------------------------------- */
static void send_piece(void *ctx, uint8_t *frame, size_t len)
{
    struct user *u = ctx;
    slirp_input(u->slirp, frame, (int)len);
}

static void user_send(struct net *n, const struct net_offload *o, uint8_t *frame, size_t len)
{
    struct user *u = container_of(n, struct user, net);
    struct net_tcp t;
    bool tcp = net_parse_tcp(frame, len, &t);
    if (o->gso_type != NET_GSO_NONE) {
        if (!tcp || len - t.ip > 0xffff) {
            net_segment(o, frame, len, send_piece, u);
            refill(u);
            return;
        }
        net_tcp_finish(frame, len, &t);
    } else if (tcp && net_tcp_raise_mss(frame, &t, u->net.card_caps)) {
        net_tcp_finish(frame, len, &t);
    } else if ((o->flags & NET_CSUM_PARTIAL) && !net_finish_csum(o, frame, len)) {
        return;
    }
    slirp_input(u->slirp, frame, (int)len);
    refill(u);
}

static void user_free(struct net *n)
{
    struct user *u = container_of(n, struct user, net);
    slirp_cleanup(u->slirp);
    timer_cancel(&u->timer);
    for (size_t fd = 0; fd < u->fd_space; fd++) {
        loop_fd_del(u->fds[fd].watch);
    }
    free(u->fds);
    free(u);
}

static const struct net_class user_class = {
    .name = "user",
    .caps = NET_CAP_CSUM | NET_CAP_TSO4 | NET_CAP_TSO6 | NET_CAP_ECN,
    .send = user_send,
    .free = user_free,
};

/* -- Making ------------------------------------------------------------------------------------ */
static const SlirpCb callbacks = {
    .send_packet = cb_send,
    .guest_error = cb_error,
    .clock_get_ns = cb_clock,
    .timer_new = cb_timer_new,
    .timer_free = cb_timer_free,
    .timer_mod = cb_timer_mod,
    .register_poll_fd = cb_register,
    .unregister_poll_fd = cb_unregister,
    .notify = cb_notify,
};

static int add_forwards(struct user *u, const struct net_user_options *o, struct err *e)
{
    const struct in_addr guest = { htonl(0x0a00020f) };
    for (unsigned i = 0; i < o->forward_count; i++) {
        const struct net_forward *f = &o->forwards[i];
        const struct in_addr host = { htonl(f->host_addr) };
        if (slirp_add_hostfwd(u->slirp, f->udp, host, f->host_port, guest, f->guest_port) < 0) {
            int error = errno != 0 ? errno : EADDRINUSE;
            return err_set(e, -error, "cannot forward %s port %u: %s", f->udp ? "UDP" : "TCP",
                           f->host_port, strerror(error));
        }
    }
    return 0;
}

bool net_user_built(void) { return true; }

int net_user_new(struct net **out, const struct net_user_options *o, struct loop *loop,
                 struct clock *clock, struct err *e)
{
    struct user *u = xzalloc(sizeof *u);
    net_init(&u->net, &user_class);
    u->loop = loop;
    u->clock = clock;
    timer_init(&u->timer, clock, on_timer, u);
    SlirpConfig c = { .version = 1,
                      .restricted = o->restricted,
                      .in_enabled = true,
                      .vnetwork = { htonl(0x0a000200) },
                      .vnetmask = { htonl(0xffffff00) },
                      .vhost = { htonl(0x0a000202) },
                      .vdhcp_start = { htonl(0x0a00020f) },
                      .vnameserver = { htonl(0x0a000203) },
                      .in6_enabled = true,
                      .vprefix_len = 64,
                      .vhostname = o->hostname,
                      .if_mtu = MTU_LARGE,
                      .if_mru = MTU_LARGE };
    inet_pton(AF_INET6, "fec0::", &c.vprefix_addr6);
    inet_pton(AF_INET6, "fec0::2", &c.vhost6);
    inet_pton(AF_INET6, "fec0::3", &c.vnameserver6);
    u->slirp = slirp_new(&c, &callbacks, u);
    if (u->slirp == NULL) {
        free(u);
        return err_set(e, -ENOMEM, "libslirp does not start");
    }
    int r = add_forwards(u, o, e);
    if (r < 0) {
        user_free(&u->net);
        return r;
    }
    refill(u);
    *out = &u->net;
    return 0;
}
