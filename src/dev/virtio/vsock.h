/* SPDX-License-Identifier: Apache-2.0
 *
 * Sockets between guest and host (virtio 1.2, 5.10). The host's side are Unix sockets: a program
 * connects to PATH and sends "CONNECT port\n" to reach a port of the guest; a guest that connects
 * to port N of the host (CID 2) reaches who listens at PATH_N. Thread: machine lock held.
 */
#ifndef SOSIA_DEV_VIRTIO_VSOCK_H
#define SOSIA_DEV_VIRTIO_VSOCK_H

#include "dev/virtio/dev.h"

struct loop;
struct loop_fd;
struct vsock_conn;

#define VSOCK_CONNS_MAX 256u
#define VSOCK_RESETS_MAX 64u

struct vsock_reset {
    uint32_t host_port;
    uint32_t guest_port;
};

struct virtio_vsock {
    struct virtio v; /* first */
    struct loop *loop;
    char *path;
    int listen_fd;
    struct loop_fd *listen_watch;
    uint64_t cid;
    struct vsock_conn *conns; /* owned */
    unsigned conn_count;
    uint32_t next_port;                         /* for connections that the host begins */
    struct vsock_reset reset[VSOCK_RESETS_MAX]; /* for connections that do not exist */
    unsigned resets;
    bool lost; /* a load has cut the connections off: to be told */
};

/* cid: 3 and up. e: the socket cannot be made. */
MUST_CHECK int virtio_vsock_init(struct virtio_vsock *d, struct pci_bus *p, struct bus *b,
                                 uint8_t devfn, struct loop *loop, const char *path, uint64_t cid,
                                 const struct virtio_options *o, struct err *e);
void virtio_vsock_fini(struct virtio_vsock *d);

#endif
