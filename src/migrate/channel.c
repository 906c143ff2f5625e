/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/channel.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/tcpsock.h"
#include "base/unixsock.h"

/* type:u32 length:u32 crc:u32, the last of the eight bytes before it and the payload. */
#define HEADER 12u

struct channel {
    int fd;
    struct tls *tls; /* owned; NULL: in the clear */
    uint8_t *payload; /* owned: of the message that was received */
    uint32_t room;
    _Atomic uint64_t sent;
};

/* The most that a message of this type carries. */
static uint32_t limit_of(uint32_t type)
{
    switch (type) {
    case MESSAGE_HELLO:
    case MESSAGE_PAGES:
    case MESSAGE_PACKED:
    case MESSAGE_STATE:
        return CHANNEL_PAYLOAD_MAX;
    default:
        return 4096;
    }
}

/* -- Connections ------------------------------------------------------------------------------- */

struct channel *channel_over(int fd)
{
    const struct timeval patience = { .tv_sec = CHANNEL_PATIENCE_S };
    const int on = 1;
    struct channel *c = xzalloc(sizeof *c);
    c->fd = fd;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* Unix sockets have no such thing */
    return c;
}

/* Without a host: this one. */
static int split(const char *text, char host[TCP_HOST_BYTES], uint16_t *port, struct err *e)
{
    return tcp_split(text, host, port) == 0
               ? 0
               : err_set(e, -EINVAL, "'tcp:%s' is not tcp:HOST:PORT", text);
}

static int unknown_address(const char *address, struct err *e)
{
    return err_set(e, -EINVAL, "'%s' is neither unix:PATH nor tcp:HOST:PORT", address);
}

int channel_connect(struct channel **out, const char *address, struct err *e)
{
    char host[TCP_HOST_BYTES] = "127.0.0.1";
    uint16_t port;
    int fd;
    if (strncmp(address, "unix:", 5) == 0) {
        fd = unix_connect(address + 5, e);
    } else if (strncmp(address, "tcp:", 4) == 0) {
        fd = split(address + 4, host, &port, e);
        fd = fd < 0 ? fd : tcp_connect(host, port, CHANNEL_PATIENCE_S, e);
    } else {
        fd = unknown_address(address, e);
    }
    if (fd < 0) {
        return fd;
    }
    *out = channel_over(fd);
    return 0;
}

int channel_listen(const char *address, char where[CHANNEL_WHERE_BYTES], struct err *e)
{
    char host[TCP_HOST_BYTES] = "127.0.0.1";
    uint16_t port;
    if (strncmp(address, "unix:", 5) == 0) {
        snprintf(where, CHANNEL_WHERE_BYTES, "%s", address);
        return unix_listen(address + 5, 0600, 1, e);
    }
    if (strncmp(address, "tcp:", 4) != 0) {
        return unknown_address(address, e);
    }
    struct tcp_bound bound;
    int fd = split(address + 4, host, &port, e);
    fd = fd < 0 ? fd : tcp_listen(host, port, 1, &bound, e);
    if (fd >= 0) {
        snprintf(where, CHANNEL_WHERE_BYTES, "tcp:%s", bound.where);
    }
    return fd;
}

int channel_accept(struct channel **out, int listener, unsigned timeout_s, struct err *e)
{
    struct pollfd p = { .fd = listener, .events = POLLIN };
    int fd, n;
    do {
        n = poll(&p, 1, timeout_s == 0 ? -1 : (int)timeout_s * 1000);
        fd = n > 0 ? accept4(listener, NULL, NULL, SOCK_CLOEXEC) : -1;
    } while ((n < 0 && errno == EINTR) ||
             (n > 0 && fd < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)));
    if (fd < 0) {
        return n == 0 ? err_set(e, -ETIMEDOUT, "nobody connects")
                      : err_set(e, -errno, "no connection: %s", strerror(errno));
    }
    *out = channel_over(fd);
    return 0;
}

int channel_secure(struct channel *c, enum tls_role role, const char *dir, struct err *e)
{
    return tls_new(&c->tls, c->fd, role, dir, e);
}

void channel_free(struct channel *c)
{
    if (c != NULL) {
        tls_free(c->tls);
        close(c->fd);
        free(c->payload);
        free(c);
    }
}

void channel_cut(struct channel *c) { shutdown(c->fd, SHUT_RDWR); }

uint64_t channel_sent(const struct channel *c) { return atomic_load(&c->sent); }

/* -- Bytes ------------------------------------------------------------------------------------- */

static int lost(int error, struct err *e)
{
    if (error == EAGAIN || error == EWOULDBLOCK) {
        return err_set(e, -ETIMEDOUT, "nothing moved on the connection for %u seconds",
                       CHANNEL_PATIENCE_S);
    }
    return err_set(e, -error, "the connection was lost: %s", strerror(error));
}

static ssize_t errno_of(ssize_t n) { return n < 0 ? -errno : n; }

static int put(struct channel *c, const void *data, size_t len, int flags, struct err *e)
{
    const uint8_t *at = data;
    while (len != 0) {
        ssize_t n = c->tls != NULL ? tls_send(c->tls, at, len)
                                   : errno_of(send(c->fd, at, len, MSG_NOSIGNAL | flags));
        if (n < 0 && n != -EINTR) {
            return lost((int)-n, e);
        }
        if (n > 0) {
            at += n;
            len -= (size_t)n;
            atomic_fetch_add(&c->sent, (uint64_t)n);
        }
    }
    return 0;
}

static int get(struct channel *c, void *data, size_t len, struct err *e)
{
    uint8_t *at = data;
    while (len != 0) {
        ssize_t n = c->tls != NULL ? tls_receive(c->tls, at, len)
                                   : errno_of(recv(c->fd, at, len, 0));
        if (n == 0) {
            return err_set(e, -ECONNRESET, "the other end has gone");
        }
        if (n < 0 && n != -EINTR) {
            return lost((int)-n, e);
        }
        if (n > 0) {
            at += n;
            len -= (size_t)n;
        }
    }
    return 0;
}

/* -- Messages ---------------------------------------------------------------------------------- */

int channel_send(struct channel *c, enum message type, const void *data, size_t len, struct err *e)
{
    uint8_t header[HEADER];
    store_le32(header, type);
    store_le32(header + 4, (uint32_t)len);
    store_le32(header + 8, crc32c(crc32c(0, header, 8), data, len));
    int r = put(c, header, sizeof header, len != 0 ? MSG_MORE : 0, e);
    return r < 0 ? r : put(c, data, len, 0, e);
}

static int make_room(struct channel *c, uint32_t len, struct err *e)
{
    if (len <= c->room) {
        return 0;
    }
    free(c->payload);
    c->room = 0;
    c->payload = try_alloc(1, len);
    if (c->payload == NULL) {
        return err_set(e, -ENOMEM, "no memory for a message of %u bytes", len);
    }
    c->room = len;
    return 0;
}

/* Their words, for our terminal. */
static int quote(const struct received *m, struct err *e)
{
    char text[sizeof e->msg - 32];
    size_t n = 0;
    for (; n < m->len && n < sizeof text - 1; n++) {
        text[n] = m->data[n] >= 0x20 && m->data[n] != 0x7f ? (char)m->data[n] : '?';
    }
    text[n] = '\0';
    return err_set(e, -ECONNABORTED, "the other end says: %s", text);
}

int channel_receive(struct channel *c, struct received *out, struct err *e)
{
    uint8_t header[HEADER];
    int r = get(c, header, sizeof header, e);
    if (r < 0) {
        return r;
    }
    uint32_t type = load_le32(header), len = load_le32(header + 4);
    if (type == 0 || type >= MESSAGE_END || len > limit_of(type)) {
        return err_set(e, -EPROTO, "the other end speaks another protocol");
    }
    r = make_room(c, len, e);
    if (r == 0) {
        r = get(c, c->payload, len, e);
    }
    if (r < 0) {
        return r;
    }
    if (crc32c(crc32c(0, header, 8), c->payload, len) != load_le32(header + 8)) {
        return err_set(e, -EBADMSG, "a message was damaged on the way");
    }
    *out = (struct received){ (enum message)type, c->payload, len };
    return type == MESSAGE_FAILED ? quote(out, e) : 0;
}

int channel_expect(struct channel *c, enum message type, struct received *out, struct err *e)
{
    int r = channel_receive(c, out, e);
    if (r == 0 && out->type != type) {
        r = err_set(e, -EPROTO, "the other end sent message %u where %u was to come", out->type,
                    type);
    }
    return r;
}

void channel_fail(struct channel *c, const char *why)
{
    struct err ignored;
    size_t len = strlen(why);
    if (channel_send(c, MESSAGE_FAILED, why, len < 4096 ? len : 4096, &ignored) < 0) {
        return; /* it will see that we are gone */
    }
}
