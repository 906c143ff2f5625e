/* SPDX-License-Identifier: Apache-2.0
 *
 * The messages whose fields both ends name (docs/migration.md). All numbers are little-endian; what
 * arrives is checked here.
 */
#ifndef SOSIA_MIGRATE_WIRE_H
#define SOSIA_MIGRATE_WIRE_H

#include "migrate/channel.h"
#include "migrate/ticket.h"
#include "sosia.h"
#include "snapshot/snapshot.h"

#define WIRE_VERSION 1u
#define WIRE_ID 16u

struct wire_hello {
    uint8_t id[WIRE_ID]; /* of this migration: further connections name it */
    uint64_t ram_pages, rom_pages;
    uint32_t streams;
    struct ticket ticket;
    const char *config; /* not terminated */
    uint32_t config_len;
};
MUST_CHECK int wire_send_hello(struct channel *c, const struct wire_hello *h, struct err *e);
/* config points into the message. */
MUST_CHECK int wire_take_hello(struct wire_hello *h, const struct received *m, struct err *e);

struct wire_load {
    uint64_t wall_ns; /* when the machine stood still */
    uint64_t state_len;
};
MUST_CHECK int wire_send_load(struct channel *c, const struct wire_load *l, struct err *e);
MUST_CHECK int wire_take_load(struct wire_load *l, const struct received *m, struct err *e);

/* What the disks were when the source had let go of them. */
struct wire_go {
    bool paused; /* the VM was, before it moved */
    struct snapshot_disk disk[SOSIA_DISKS_MAX];
    uint32_t disks;
};
MUST_CHECK int wire_send_go(struct channel *c, const struct wire_go *g, struct err *e);
MUST_CHECK int wire_take_go(struct wire_go *g, const struct received *m, struct err *e);
/* The disks of a machine as they are; zeroes for what is no file. */
struct machine;
void wire_look_at_disks(struct machine *m, struct wire_go *g);

/* A number alone: READY (may the target take the ticket?), STREAM (after the id: which one). */
MUST_CHECK int wire_send_ready(struct channel *c, bool ticket, struct err *e);
MUST_CHECK int wire_take_ready(const struct received *m, bool *ticket, struct err *e);
MUST_CHECK int wire_send_stream(struct channel *c, const uint8_t id[WIRE_ID], uint32_t number,
                                struct err *e);
MUST_CHECK int wire_take_stream(const struct received *m, const uint8_t id[WIRE_ID],
                                uint32_t *number, struct err *e);

#endif
