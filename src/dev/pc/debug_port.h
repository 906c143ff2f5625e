/* SPDX-License-Identifier: Apache-2.0
 *
 * Ports that test programs and firmware use to talk to whoever runs them: the exit port, the
 * debug console, and the power-on self-test code.  Thread: machine lock held.
 */
#ifndef SOSIA_DEV_PC_DEBUG_PORT_H
#define SOSIA_DEV_PC_DEBUG_PORT_H

#include "bus/bus.h"
#include "dev/pc/char.h"

struct exit_port {
    struct region *region;
    void (*exit)(void *ctx, uint32_t status);
    void *ctx;
};

/* A write of V, of any size, to the port (four bytes long) ends the VM with status V<<1 | 1. The
 * callback may not free the bus. */
void exit_port_init(struct exit_port *p, struct bus *b, uint16_t port,
                    void (*exit)(void *ctx, uint32_t status), void *ctx);
void exit_port_fini(struct exit_port *p);

struct debugcon {
    struct region *region;
    struct char_backend backend;
};

/* Bytes written go out; reads return 0xe9, which tells that somebody is there. */
void debugcon_init(struct debugcon *d, struct bus *b, uint16_t port,
                   const struct char_backend *backend);
void debugcon_fini(struct debugcon *d);

/* Port 0x80: the last code is kept. Linux writes here to wait a microsecond. */
struct post_port {
    struct dev dev;
    uint8_t code;
};

void post_port_init(struct post_port *p, struct bus *b);
void post_port_fini(struct post_port *p);

#endif
