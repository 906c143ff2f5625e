/* SPDX-License-Identifier: Apache-2.0
 *
 * TCP by addresses that a person wrote (tcp(7)). Thread: [any].
 */
#ifndef SOSIA_BASE_TCPSOCK_H
#define SOSIA_BASE_TCPSOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define TCP_WHERE_BYTES 64u

struct tcp_bound {
    char where[TCP_WHERE_BYTES]; /* for people: "127.0.0.1:5900", "[::1]:5900" */
    uint16_t port;               /* the one that was free, if 0 was asked for */
};

/* address: numeric, IPv4 or IPv6. */
MUST_CHECK int tcp_is_loopback(const char *address, bool *loopback, struct err *e);
/* A listening socket, blocking. */
MUST_CHECK int tcp_listen(const char *address, uint16_t port, int backlog, struct tcp_bound *out,
                          struct err *e);
/* [HOST:]PORT, the host's brackets taken off; without one, host stays as it is. -EINVAL. */
#define TCP_HOST_BYTES 64u
MUST_CHECK int tcp_split(const char *text, char host[TCP_HOST_BYTES], uint16_t *port);
/* A connected socket, blocking. */
MUST_CHECK int tcp_connect(const char *address, uint16_t port, unsigned timeout_s, struct err *e);

#endif
