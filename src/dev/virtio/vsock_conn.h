/* SPDX-License-Identifier: Apache-2.0
 *
 * A connection of virtio-vsock, as the host has it: a Unix socket, the bytes from the guest that
 * its reader has not taken, and how much either side may send (virtio 1.2, 5.10.6.3). Thread:
 * machine lock held.
 */
#ifndef SOSIA_DEV_VIRTIO_VSOCK_CONN_H
#define SOSIA_DEV_VIRTIO_VSOCK_CONN_H

#include "dev/virtio/vsock.h"

#define VSOCK_HDR_BYTES 44u
#define VSOCK_BUF_BYTES 65536u /* of a connection, from the guest to a slow reader */
#define VSOCK_REQUEST_MAX 32u  /* "CONNECT 4294967295\n" */

enum conn_state {
    CONN_ASKING, /* the host's program has not said CONNECT yet */
    CONN_REQUESTED,
    CONN_OPEN,
};

/* Packets that are due to the guest, or-ed */
#define DUE_REQUEST 1u
#define DUE_RESPONSE 2u
#define DUE_CREDIT 4u
#define DUE_SHUTDOWN 8u
#define DUE_RST 16u /* the connection ends with it */

struct vsock_conn {
    struct vsock_conn *next;
    struct virtio_vsock *d;
    enum conn_state state;
    int fd;
    struct loop_fd *watch;
    uint32_t host_port;
    uint32_t guest_port;
    unsigned due;
    bool readable;   /* the host's end has bytes, or its end */
    bool eof;        /* it will send no more */
    bool guest_done; /* the guest will send no more */
    char request[VSOCK_REQUEST_MAX];
    unsigned request_len;
    /* Credit (5.10.6.3) */
    uint32_t peer_buf;  /* the guest's buffer */
    uint32_t peer_fwd;  /* what it has taken out of it */
    uint32_t sent;      /* what we sent it */
    uint32_t forwarded; /* what we have passed on */
    uint32_t told;      /* of that, what the guest knows */
    uint32_t buf_at, buf_len;
    uint8_t buf[VSOCK_BUF_BYTES];
};

/* Takes fd. NULL: too many, or no memory; fd is closed. */
struct vsock_conn *vsock_conn_new(struct virtio_vsock *d, int fd);
void vsock_conn_free(struct vsock_conn *c);
void vsock_conn_free_all(struct virtio_vsock *d);
/* NULL: there is none. */
struct vsock_conn *vsock_conn_find(struct virtio_vsock *d, uint32_t host_port, uint32_t guest_port);

/* Hear again of what we want: more to read when the last was passed on, room when some waits. */
void vsock_conn_watch(struct vsock_conn *c);
/* Pass on what the reader takes. */
void vsock_conn_flush(struct vsock_conn *c);
/* len bytes of a chain, behind its header. False: more than we said that there was room for. */
MUST_CHECK bool vsock_conn_put(struct vsock_conn *c, const struct virtq *q,
                               const struct virtq_chain *ch, uint32_t len);

/* The socket at d->path, where the host's programs ask for the guest's ports. */
MUST_CHECK int vsock_conn_listen(struct virtio_vsock *d, struct err *e);
/* The guest wants to reach a port of ours. A file descriptor, or -1. */
int vsock_conn_reach(const struct virtio_vsock *d, uint32_t port);

/* The device's: give the guest what is due while it has buffers for it. */
void vsock_pump(struct virtio_vsock *d);

#endif
