/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/virtio/vsock_conn.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/loop.h"
#include "base/unixsock.h"

#define EPHEMERAL_PORT 0x40000000u

static void conn_event(void *ctx, int fd, unsigned events);

struct vsock_conn *vsock_conn_new(struct virtio_vsock *d, int fd)
{
    struct vsock_conn *c = d->conn_count < VSOCK_CONNS_MAX ? try_alloc(1, sizeof *c) : NULL;
    if (c == NULL) {
        close(fd);
        return NULL;
    }
    c->d = d;
    c->fd = fd;
    c->watch = loop_fd_add(d->loop, fd, LOOP_READ, conn_event, c);
    if (c->watch == NULL) {
        close(fd);
        free(c);
        return NULL;
    }
    c->next = d->conns;
    d->conns = c;
    d->conn_count++;
    return c;
}

void vsock_conn_free(struct vsock_conn *c)
{
    struct virtio_vsock *d = c->d;
    struct vsock_conn **at = &d->conns;
    while (*at != c) {
        at = &(*at)->next;
    }
    *at = c->next;
    d->conn_count--;
    loop_fd_del(c->watch);
    close(c->fd);
    free(c);
}

void vsock_conn_free_all(struct virtio_vsock *d)
{
    while (d->conns != NULL) {
        vsock_conn_free(d->conns);
    }
    d->resets = 0;
}

struct vsock_conn *vsock_conn_find(struct virtio_vsock *d, uint32_t host_port, uint32_t guest_port)
{
    for (struct vsock_conn *c = d->conns; c != NULL; c = c->next) {
        if (c->state != CONN_ASKING && c->host_port == host_port && c->guest_port == guest_port) {
            return c;
        }
    }
    return NULL;
}

void vsock_conn_watch(struct vsock_conn *c)
{
    bool read = !c->readable && !c->eof;
    loop_fd_set(c->watch,
                (read ? (unsigned)LOOP_READ : 0) | (c->buf_len != 0 ? (unsigned)LOOP_WRITE : 0));
}

/* -- Bytes to the host ------------------------------------------------------------------------- */
void vsock_conn_flush(struct vsock_conn *c)
{
    while (c->buf_len != 0) {
        uint32_t run = VSOCK_BUF_BYTES - c->buf_at < c->buf_len ? VSOCK_BUF_BYTES - c->buf_at
                                                                : c->buf_len;
        ssize_t n = send(c->fd, c->buf + c->buf_at, run, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0) {
            if (errno != EAGAIN && errno != EINTR) {
                c->due |= DUE_RST;
                c->buf_len = 0;
            }
            break;
        }
        c->buf_at = (c->buf_at + (uint32_t)n) % VSOCK_BUF_BYTES;
        c->buf_len -= (uint32_t)n;
        c->forwarded += (uint32_t)n;
    }
    if (c->forwarded - c->told >= VSOCK_BUF_BYTES / 4) {
        c->due |= DUE_CREDIT;
    }
    if (c->guest_done && c->buf_len == 0) {
        shutdown(c->fd, SHUT_WR);
    }
}

bool vsock_conn_put(struct vsock_conn *c, const struct virtq *q, const struct virtq_chain *ch,
                    uint32_t len)
{
    if (len > VSOCK_BUF_BYTES - c->buf_len) {
        return false;
    }
    uint32_t from = VSOCK_HDR_BYTES;
    while (len != 0) {
        uint32_t at = (c->buf_at + c->buf_len) % VSOCK_BUF_BYTES;
        uint32_t run = VSOCK_BUF_BYTES - at < len ? VSOCK_BUF_BYTES - at : len;
        if (virtq_read(q, ch, from, c->buf + at, run) < 0) {
            return false;
        }
        c->buf_len += run;
        from += run;
        len -= run;
    }
    vsock_conn_flush(c);
    return true;
}

/* "CONNECT port\n", perhaps in pieces. False: that is no request. */
static bool take_request_text(struct vsock_conn *c)
{
    while (c->request_len < VSOCK_REQUEST_MAX - 1) {
        char ch;
        ssize_t n = recv(c->fd, &ch, 1, MSG_DONTWAIT);
        if (n <= 0) {
            return n < 0 && (errno == EAGAIN || errno == EINTR);
        }
        if (ch != '\n') {
            c->request[c->request_len++] = ch;
            continue;
        }
        char *end;
        c->request[c->request_len] = '\0';
        if (strncmp(c->request, "CONNECT ", 8) != 0 || c->request[8] < '0' || c->request[8] > '9') {
            return false;
        }
        errno = 0;
        unsigned long port = strtoul(c->request + 8, &end, 10);
        if (*end != '\0' || errno != 0 || port > UINT32_MAX) {
            return false;
        }
        c->guest_port = (uint32_t)port;
        do {
            c->host_port = EPHEMERAL_PORT + c->d->next_port++ % EPHEMERAL_PORT;
        } while (vsock_conn_find(c->d, c->host_port, c->guest_port) != NULL);
        c->state = CONN_REQUESTED;
        c->due |= DUE_REQUEST;
        return true;
    }
    return false;
}

static void conn_event(void *ctx, int fd, unsigned events)
{
    struct vsock_conn *c = ctx;
    struct virtio_vsock *d = c->d;
    (void)fd;
    if (c->state == CONN_ASKING) {
        if (!take_request_text(c)) {
            vsock_conn_free(c);
            return;
        }
    } else {
        c->readable |= (events & (LOOP_READ | LOOP_HUP)) != 0;
        if (events & LOOP_WRITE) {
            vsock_conn_flush(c);
        }
    }
    if (c->state == CONN_REQUESTED) {
        c->readable = false;
        loop_fd_set(c->watch, 0); /* until the guest answers */
    } else {
        vsock_conn_watch(c);
    }
    vsock_pump(d);
}

static void on_connect(void *ctx, int fd, unsigned events)
{
    struct virtio_vsock *d = ctx;
    (void)events;
    int client = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (client >= 0) {
        vsock_conn_new(d, client);
    }
}

int vsock_conn_reach(const struct virtio_vsock *d, uint32_t port)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int n = snprintf(a.sun_path, sizeof a.sun_path, "%s_%u", d->path, port);
    if (n < 0 || (size_t)n >= sizeof a.sun_path) {
        return -1;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&a, sizeof a) < 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

int vsock_conn_listen(struct virtio_vsock *d, struct err *e)
{
    int fd = unix_listen(d->path, 0777, 16, e);
    if (fd < 0) {
        return fd;
    }
    d->listen_fd = fd;
    d->listen_watch = loop_fd_add(d->loop, fd, LOOP_READ, on_connect, d);
    return d->listen_watch != NULL ? 0 : err_set(e, -errno, "%s: %s", d->path, strerror(errno));
}
