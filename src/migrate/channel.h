/* SPDX-License-Identifier: Apache-2.0
 *
 * A connection between two sosia processes, and the messages on it (docs/migration.md): a type, a
 * length, a checksum, that many bytes. What arrives is hostile; it comes out of here with a known
 * type and no more bytes than that type may have.
 *
 * Thread: one sends and one receives at a time; channel_cut is for [any].
 */
#ifndef SOSIA_MIGRATE_CHANNEL_H
#define SOSIA_MIGRATE_CHANNEL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"
#include "migrate/tls.h"

enum message {
    MESSAGE_HELLO = 1, /* source: what machine it is */
    MESSAGE_READY,     /* target: it has been made */
    MESSAGE_PAGES,     /* source: memory */
    MESSAGE_PACKED,    /* the same, compressed */
    MESSAGE_SYNC,      /* source: answer when all before this is in memory */
    MESSAGE_SYNCED,    /* target: it is */
    MESSAGE_STATE,     /* source: the next bytes of the state stream */
    MESSAGE_LOAD,      /* source: that was all; load it */
    MESSAGE_LOADED,    /* target: everything is here */
    MESSAGE_GO,        /* source: run, if the ticket is still there */
    MESSAGE_RUNS,      /* target: it was, and is not any more */
    MESSAGE_FAILED,    /* either: a line that says why it gives up */
    MESSAGE_STREAM,    /* source: the first on a further connection; which one it is */
    MESSAGE_DRAINED,   /* source: the last on it */
    MESSAGE_END
};

#define CHANNEL_PAGES_MAX 256u /* in one message */
#define CHANNEL_PAYLOAD_MAX ((CHANNEL_PAGES_MAX + 1) * 4096u + (1u << 20))
#define CHANNEL_PATIENCE_S 30u /* for the next byte */

struct channel;

/* "unix:PATH", "tcp:HOST:PORT" (numeric, IPv6 in brackets). */
MUST_CHECK int channel_connect(struct channel **out, const char *address, struct err *e);
/* A listening socket. where: what to connect to, for people. */
#define CHANNEL_WHERE_BYTES 128u
MUST_CHECK int channel_listen(const char *address, char where[CHANNEL_WHERE_BYTES], struct err *e);
/* timeout_s 0: for ever. */
MUST_CHECK int channel_accept(struct channel **out, int listener, unsigned timeout_s,
                              struct err *e);
/* Over a connected stream socket, which it takes. */
struct channel *channel_over(int fd);
/* TLS from here on (tls.h), by the certificates in dir. */
MUST_CHECK int channel_secure(struct channel *c, enum tls_role role, const char *dir,
                              struct err *e);
void channel_free(struct channel *c); /* NULL is allowed */
/* Whoever waits in it, here or at the other end, finds the connection closed. */
void channel_cut(struct channel *c);

/* All of it or an error. */
MUST_CHECK int channel_send(struct channel *c, enum message type, const void *data, size_t len,
                            struct err *e);
/* The next message. Its payload is the channel's until the next call. A FAILED of the other end is
 * -ECONNABORTED with its words in e. */
struct received {
    enum message type;
    const uint8_t *data;
    uint32_t len;
};
MUST_CHECK int channel_receive(struct channel *c, struct received *out, struct err *e);
/* The next message is to be this one. */
MUST_CHECK int channel_expect(struct channel *c, enum message type, struct received *out,
                              struct err *e);
/* Tell the other end, if it still listens. */
void channel_fail(struct channel *c, const char *why);
/* Bytes sent so far. [any] */
uint64_t channel_sent(const struct channel *c);

#endif
