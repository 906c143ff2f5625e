/* SPDX-License-Identifier: Apache-2.0
 *
 * Console with several ports (virtio 1.2, 5.3): port 0 is a console (hvc0), the others are named
 * byte streams. Thread: machine lock held.
 */
#ifndef SOSIA_DEV_VIRTIO_CONSOLE_H
#define SOSIA_DEV_VIRTIO_CONSOLE_H

#include "dev/virtio/dev.h"

#define VIRTIO_CONSOLE_PORTS 4u
#define VIRTIO_CONSOLE_MESSAGES 32u

struct virtio_console_backend {
    /* Bytes from the guest; takes all. NULL: nobody listens. */
    void (*write)(void *ctx, const uint8_t *data, size_t len);
    /* There is room for input again. May be NULL. */
    void (*input_ready)(void *ctx);
    void *ctx;
    const char *name; /* of ports but the first; borrowed for init */
};

struct virtio_console_message {
    uint32_t port;
    uint16_t event;
    uint16_t value;
};

struct virtio_console_port {
    struct virtio_console_backend backend;
    char name[32];
    /* State */
    bool host_open;  /* somebody is at our end */
    bool guest_open; /* a program of the guest's has it open */
    bool ready;      /* the driver knows it */
};

struct virtio_console {
    struct virtio v; /* first */
    unsigned ports;
    uint16_t columns, rows;
    /* State */
    struct virtio_console_port port[VIRTIO_CONSOLE_PORTS];
    struct virtio_console_message message[VIRTIO_CONSOLE_MESSAGES]; /* that wait for a buffer */
    uint32_t messages;
};

void virtio_console_init(struct virtio_console *d, struct pci_bus *p, struct bus *b, uint8_t devfn,
                         const struct virtio_console_backend *ports, unsigned count,
                         const struct virtio_options *o);
void virtio_console_fini(struct virtio_console *d);
/* Bytes for the guest: how many were taken. After fewer than len comes input_ready. */
size_t virtio_console_input(struct virtio_console *d, unsigned port, const uint8_t *data,
                            size_t len);
/* Somebody connected to our end of a port, or went away. */
void virtio_console_set_open(struct virtio_console *d, unsigned port, bool open);

#endif
