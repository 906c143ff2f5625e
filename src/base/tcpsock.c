/* SPDX-License-Identifier: Apache-2.0 */
#include "base/tcpsock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

static int parse(union address *a, socklen_t *len, const char *text, uint16_t port, struct err *e)
{
    *a = (union address){ .v4.sin_family = AF_INET };
    if (inet_pton(AF_INET, text, &a->v4.sin_addr) == 1) {
        a->v4.sin_port = htons(port);
        *len = sizeof a->v4;
        return 0;
    }
    *a = (union address){ .v6.sin6_family = AF_INET6 };
    if (inet_pton(AF_INET6, text, &a->v6.sin6_addr) == 1) {
        a->v6.sin6_port = htons(port);
        *len = sizeof a->v6;
        return 0;
    }
    return err_set(e, -EINVAL, "'%s' is no numeric IPv4 or IPv6 address", text);
}

int tcp_is_loopback(const char *address, bool *loopback, struct err *e)
{
    union address a;
    socklen_t len;
    int r = parse(&a, &len, address, 0, e);
    *loopback = r == 0 &&
                (a.any.sa_family == AF_INET ? ntohl(a.v4.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET
                                            : IN6_IS_ADDR_LOOPBACK(&a.v6.sin6_addr));
    return r;
}

static void describe(struct tcp_bound *out, const union address *a)
{
    char text[INET6_ADDRSTRLEN];
    if (a->any.sa_family == AF_INET) {
        inet_ntop(AF_INET, &a->v4.sin_addr, text, sizeof text);
        out->port = ntohs(a->v4.sin_port);
        snprintf(out->where, sizeof out->where, "%s:%u", text, out->port);
    } else {
        inet_ntop(AF_INET6, &a->v6.sin6_addr, text, sizeof text);
        out->port = ntohs(a->v6.sin6_port);
        snprintf(out->where, sizeof out->where, "[%s]:%u", text, out->port);
    }
}

int tcp_listen(const char *address, uint16_t port, int backlog, struct tcp_bound *out,
               struct err *e)
{
    const int on = 1;
    union address a;
    socklen_t len;
    int r = parse(&a, &len, address, port, e);
    if (r < 0) {
        return r;
    }
    int fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return err_set(e, -errno, "no socket: %s", strerror(errno));
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (a.any.sa_family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    }
    if (bind(fd, &a.any, len) < 0 || listen(fd, backlog) < 0 || getsockname(fd, &a.any, &len) < 0) {
        int error = errno;
        close(fd);
        return err_set(e, -error, "%s port %u: %s", address, port, strerror(error));
    }
    describe(out, &a);
    return fd;
}

int tcp_split(const char *text, char host[TCP_HOST_BYTES], uint16_t *port)
{
    const char *colon = strrchr(text, ':');
    const char *digits = colon != NULL ? colon + 1 : text;
    char *end;
    errno = 0;
    unsigned long n = strtoul(digits, &end, 10);
    if (*digits < '0' || *digits > '9' || *end != '\0' || errno != 0 || n > UINT16_MAX) {
        return -EINVAL;
    }
    if (colon != NULL && colon != text) {
        bool bracketed = text[0] == '[' && colon[-1] == ']';
        snprintf(host, TCP_HOST_BYTES, "%.*s", (int)(colon - text) - 2 * bracketed,
                 text + bracketed);
    }
    *port = (uint16_t)n;
    return 0;
}

/* A connection that is under way, until then. */
static int wait_connected(int fd, unsigned timeout_s)
{
    struct pollfd p = { .fd = fd, .events = POLLOUT };
    int error = 0, n;
    socklen_t len = sizeof error;
    do {
        n = poll(&p, 1, (int)timeout_s * 1000);
    } while (n < 0 && errno == EINTR);
    if (n <= 0) {
        return n == 0 ? ETIMEDOUT : errno;
    }
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 ? errno : error;
}

int tcp_connect(const char *address, uint16_t port, unsigned timeout_s, struct err *e)
{
    union address a;
    socklen_t len;
    int r = parse(&a, &len, address, port, e);
    if (r < 0) {
        return r;
    }
    int fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return err_set(e, -errno, "no socket: %s", strerror(errno));
    }
    int error = connect(fd, &a.any, len) == 0 ? 0
                : errno == EINPROGRESS        ? wait_connected(fd, timeout_s)
                                              : errno;
    if (error == 0 && fcntl(fd, F_SETFL, 0) < 0) {
        error = errno;
    }
    if (error != 0) {
        close(fd);
        return err_set(e, -error, "%s port %u: %s", address, port, strerror(error));
    }
    return fd;
}
