/* SPDX-License-Identifier: Apache-2.0
 *
 * passt (https://passt.top): a process of its own that translates between the guest's frames and
 * sockets, without privileges. Frames go over a stream socket, each behind its length in four
 * bytes, most significant first. Either somebody runs one and we get its socket's name, or we
 * start one that ends with us.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/bytes.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/unixsock.h"
#include "net/packet.h"

#define LENGTH_BYTES 4u
#define IN_BYTES (4 * NET_FRAME_MAX)
#define OUT_BYTES (16 * NET_FRAME_MAX)
#define PASST_FD 3
#define ARGS_MAX (8u + 2u * 64u)

extern char **environ;

struct passt {
    struct net net; /* first */
    int fd;
    pid_t child; /* 0: somebody else's */
    struct loop_fd *watch;
    size_t in_len;
    size_t out_at;
    size_t out_len;
    uint8_t in[IN_BYTES];
    uint8_t out[OUT_BYTES];
};

static void watch_again(struct passt *p)
{
    if (p->watch != NULL) {
        loop_fd_set(p->watch, (net_room(&p->net) ? (unsigned)LOOP_READ : 0) |
                                  (p->out_len != 0 ? (unsigned)LOOP_WRITE : 0));
    }
}

static void hang_up(struct passt *p)
{
    if (p->watch != NULL) {
        log_warn("network: passt went away");
        loop_fd_del(p->watch);
        p->watch = NULL;
        p->out_len = 0;
        net_set_link(&p->net, false);
    }
}

/* -- To the guest ------------------------------------------------------------------------------ */
static void take_frames(struct passt *p)
{
    static const struct net_offload none;
    size_t at = 0;
    while (p->in_len - at >= LENGTH_BYTES) {
        uint32_t len = load_be32(p->in + at);
        if (len > NET_FRAME_MAX) {
            hang_up(p); /* the stream has lost its step */
            return;
        }
        if (p->in_len - at - LENGTH_BYTES < len) {
            break;
        }
        net_deliver(&p->net, &none, p->in + at + LENGTH_BYTES, len);
        at += LENGTH_BYTES + len;
    }
    memmove(p->in, p->in + at, p->in_len - at);
    p->in_len -= at;
}

static void flush(struct passt *p)
{
    while (p->out_len != 0) {
        ssize_t n = send(p->fd, p->out + p->out_at, p->out_len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0) {
            if (errno != EAGAIN && errno != EINTR) {
                hang_up(p);
            }
            return;
        }
        p->out_at += (size_t)n;
        p->out_len -= (size_t)n;
    }
    p->out_at = 0;
}

static void on_fd(void *ctx, int fd, unsigned events)
{
    struct passt *p = ctx;
    if (events & (LOOP_READ | LOOP_HUP)) {
        ssize_t n = read(fd, p->in + p->in_len, sizeof p->in - p->in_len);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
            hang_up(p);
            return;
        }
        p->in_len += n > 0 ? (size_t)n : 0;
        take_frames(p);
    }
    if (events & LOOP_WRITE) {
        flush(p);
    }
    watch_again(p);
}

static void passt_ready(struct net *n) { watch_again(container_of(n, struct passt, net)); }

/* -- From the guest ---------------------------------------------------------------------------- */
static void put_frame(void *ctx, uint8_t *frame, size_t len)
{
    struct passt *p = ctx;
    if (p->watch == NULL) {
        return;
    }
    if (OUT_BYTES - p->out_at - p->out_len < LENGTH_BYTES + len) {
        memmove(p->out, p->out + p->out_at, p->out_len);
        p->out_at = 0;
        if (OUT_BYTES - p->out_len < LENGTH_BYTES + len) {
            return; /* lost, as on any full wire */
        }
    }
    uint8_t *to = p->out + p->out_at + p->out_len;
    store_be32(to, (uint32_t)len);
    memcpy(to + LENGTH_BYTES, frame, len);
    p->out_len += LENGTH_BYTES + len;
    flush(p);
    watch_again(p);
}

static void passt_send(struct net *n, const struct net_offload *o, uint8_t *frame, size_t len)
{
    struct passt *p = container_of(n, struct passt, net);
    struct net_tcp t;
    if (o->gso_type != NET_GSO_NONE) {
        if (!net_parse_tcp(frame, len, &t) || len - t.ip > 0xffff) {
            net_segment(o, frame, len, put_frame, p);
            return;
        }
        net_tcp_finish(frame, len, &t);
    } else if ((o->flags & NET_CSUM_PARTIAL) && !net_finish_csum(o, frame, len)) {
        return;
    }
    put_frame(p, frame, len);
}

static void passt_free(struct net *n)
{
    struct passt *p = container_of(n, struct passt, net);
    loop_fd_del(p->watch);
    if (p->fd >= 0) {
        close(p->fd);
    }
    if (p->child > 0) {
        kill(p->child, SIGTERM);
        waitpid(p->child, NULL, 0);
    }
    free(p);
}

static const struct net_class passt_class = {
    .name = "passt",
    .caps = NET_CAP_CSUM | NET_CAP_TSO4 | NET_CAP_TSO6 | NET_CAP_ECN,
    .send = passt_send,
    .ready = passt_ready,
    .free = passt_free,
};

/* -- Making ------------------------------------------------------------------------------------ */
static char *forward_text(const struct net_forward *f)
{
    char addr[INET_ADDRSTRLEN];
    const struct in_addr a = { htonl(f->host_addr) };
    inet_ntop(AF_INET, &a, addr, sizeof addr);
    return xasprintf("%s/%u:%u", addr, f->host_port, f->guest_port);
}

static int spawn(int far, const struct net_user_options *o, pid_t *child)
{
    char fd_text[12];
    char *args[ARGS_MAX + 1] = { "passt", "--foreground", "--quiet", "--fd", fd_text };
    unsigned fixed = 5;
    unsigned count = fixed;
    snprintf(fd_text, sizeof fd_text, "%d", PASST_FD);
    for (unsigned i = 0; i < o->forward_count && count + 2 <= ARGS_MAX; i++) {
        args[count++] = o->forwards[i].udp ? "-u" : "-t";
        args[count++] = forward_text(&o->forwards[i]);
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, far, PASST_FD);
    int r = -posix_spawnp(child, "passt", &actions, NULL, args, environ);
    posix_spawn_file_actions_destroy(&actions);
    for (unsigned i = fixed + 1; i < count; i += 2) {
        free(args[i]);
    }
    return r;
}

static int start(struct passt *p, const struct net_user_options *o, struct err *e)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        return err_set(e, -errno, "passt: %s", strerror(errno));
    }
    /* What does not fit is lost and comes again: room for more than one window. */
    const int room = 4 << 20;
    (void)setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    if (pair[1] == PASST_FD) { /* dup2 to itself would leave it to be closed */
        int moved = fcntl(pair[1], F_DUPFD_CLOEXEC, PASST_FD + 1);
        close(pair[1]);
        pair[1] = moved;
    }
    int r = spawn(pair[1], o, &p->child);
    close(pair[1]);
    if (r < 0) {
        p->child = 0;
        close(pair[0]);
        return err_set(e, r, "passt does not start (package passt): %s", strerror(-r));
    }
    return pair[0];
}

int net_passt_new(struct net **out, const char *path, const struct net_user_options *o,
                  struct loop *loop, struct err *e)
{
    struct passt *p = xzalloc(sizeof *p);
    net_init(&p->net, &passt_class);
    p->fd = path != NULL ? unix_connect(path, e) : start(p, o, e);
    int r = p->fd < 0 ? p->fd : 0;
    if (r == 0) {
        fcntl(p->fd, F_SETFL, fcntl(p->fd, F_GETFL) | O_NONBLOCK);
        p->watch = loop_fd_add(loop, p->fd, LOOP_READ, on_fd, p);
        r = p->watch != NULL ? 0 : err_set(e, -errno, "passt: %s", strerror(errno));
    }
    if (r < 0) {
        passt_free(&p->net);
        return r;
    }
    *out = &p->net;
    return 0;
}
