/* SPDX-License-Identifier: Apache-2.0
 *
 * A tap interface of the host's kernel (its Documentation/networking/tuntap). Opening one takes
 * CAP_NET_ADMIN, or an interface that was made for this user before. Frames carry the kernel's
 * virtio header, so that checksums and large segments are left to whoever is best at them.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/loop.h"
#include "net/net.h"

#define FRAMES_PER_TURN 64

struct tap {
    struct net net; /* first */
    int fd;
    struct loop_fd *watch;
    uint8_t frame[NET_FRAME_MAX];
};

static void on_readable(void *ctx, int fd, unsigned events)
{
    struct tap *t = ctx;
    (void)events;
    for (unsigned i = 0; i < FRAMES_PER_TURN && net_room(&t->net); i++) {
        struct net_offload o;
        struct iovec iov[2] = { { &o, sizeof o }, { t->frame, sizeof t->frame } };
        ssize_t n = readv(fd, iov, 2);
        if (n <= (ssize_t)sizeof o) {
            return;
        }
        net_deliver(&t->net, &o, t->frame, (size_t)n - sizeof o);
    }
    if (!net_room(&t->net)) {
        loop_fd_set(t->watch, 0); /* the kernel keeps the rest */
    }
}

static void tap_ready(struct net *n)
{
    struct tap *t = container_of(n, struct tap, net);
    loop_fd_set(t->watch, LOOP_READ);
}

/* A full queue of the kernel's drops, as a wire does. */
static void tap_send(struct net *n, const struct net_offload *o, uint8_t *frame, size_t len)
{
    struct tap *t = container_of(n, struct tap, net);
    struct net_offload header = *o;
    header.flags &= NET_CSUM_PARTIAL;
    struct iovec iov[2] = { { &header, sizeof header }, { frame, len } };
    ssize_t r = writev(t->fd, iov, 2);
    (void)r;
}

static void tap_card_changed(struct net *n)
{
    struct tap *t = container_of(n, struct tap, net);
    unsigned caps = n->card_caps;
    unsigned long flags = (caps & NET_CAP_CSUM ? TUN_F_CSUM : 0) |
                          (caps & NET_CAP_TSO4 ? TUN_F_TSO4 : 0) |
                          (caps & NET_CAP_TSO6 ? TUN_F_TSO6 : 0) |
                          (caps & NET_CAP_ECN ? TUN_F_TSO_ECN : 0);
    int r = ioctl(t->fd, TUNSETOFFLOAD, flags);
    (void)r; /* then the kernel does the work */
}

static void tap_free(struct net *n)
{
    struct tap *t = container_of(n, struct tap, net);
    loop_fd_del(t->watch);
    close(t->fd);
    free(t);
}

static const struct net_class tap_class = {
    .name = "tap",
    .caps = NET_CAP_CSUM | NET_CAP_TSO4 | NET_CAP_TSO6 | NET_CAP_ECN,
    .send = tap_send,
    .card_changed = tap_card_changed,
    .ready = tap_ready,
    .free = tap_free,
};

static int open_tap(const char *interface, struct err *e)
{
    struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
    if (interface != NULL) {
        if (strlen(interface) >= sizeof ifr.ifr_name) {
            return err_set(e, -EINVAL, "tap %s: too long for an interface's name", interface);
        }
        strcpy(ifr.ifr_name, interface);
    }
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        return err_set(e, -errno, "/dev/net/tun: %s", strerror(errno));
    }
    int header = sizeof(struct net_offload);
    if (ioctl(fd, TUNSETIFF, &ifr) < 0 || ioctl(fd, TUNSETVNETHDRSZ, &header) < 0) {
        int error = errno;
        close(fd);
        return err_set(e, -error, "tap %s: %s", interface != NULL ? interface : "",
                       strerror(error));
    }
    return fd;
}

int net_tap_new(struct net **out, const char *interface, struct loop *loop, struct err *e)
{
    int fd = open_tap(interface, e);
    if (fd < 0) {
        return fd;
    }
    struct tap *t = xzalloc(sizeof *t);
    net_init(&t->net, &tap_class);
    t->fd = fd;
    t->watch = loop_fd_add(loop, fd, LOOP_READ, on_readable, t);
    if (t->watch == NULL) {
        int error = errno;
        close(fd);
        free(t);
        return err_set(e, -error, "tap: %s", strerror(error));
    }
    tap_card_changed(&t->net);
    *out = &t->net;
    return 0;
}
