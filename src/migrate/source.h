/* SPDX-License-Identifier: Apache-2.0
 *
 * What the parts of the source share: its life (source.c), the passes over memory (passes.c), the
 * hand-over (handover.c). Thread: the migration's own, unless said otherwise.
 */
#ifndef SOSIA_MIGRATE_SOURCE_H
#define SOSIA_MIGRATE_SOURCE_H

#include <pthread.h>
#include <stdatomic.h>

#include "machine/machine.h"
#include "machine/moving.h"
#include "migrate/migrate.h"
#include "migrate/pages.h"
#include "migrate/throttle.h"
#include "migrate/wire.h"

/* Whose the VM is. */
enum owner { OWNER_SOURCE, OWNER_TARGET, OWNER_UNKNOWN };

struct stream {
    struct migration *migration;
    unsigned number;
    struct channel *channel; /* owned; changes under migration.lock */
    struct pages_out pages;
    pthread_t thread;
    struct err error; /* when the thread ended with < 0 */
    int result;
};

struct migration {
    struct machine *machine; /* borrowed */
    char *address;           /* owned */
    char *tls;               /* owned: parameters.tls */
    char *config;            /* owned: as the target was told */
    pthread_t thread;
    bool joined;
    uint64_t start_ns;
    struct stream stream[MIGRATE_STREAMS_MAX]; /* the first is the main one */
    uint8_t id[WIRE_ID];
    struct ticket ticket;
    bool has_ticket; /* the target can reach it */
    enum owner owner;
    struct throttle throttle;

    uint64_t ram_pages, rom_pages;
    uint64_t *bits;   /* of RAM pages: to be sent */
    uint8_t *rom;     /* pages behind RAM as they were sent; NULL: not yet */
    _Atomic uint64_t remaining; /* pages */
    bool paced;                 /* max_bandwidth counts */
    uint64_t pass_start_ns, pass_bytes; /* of this pass: its begin, bytes sent before it */

    pthread_mutex_t lock; /* guards the four below */
    pthread_cond_t changed; /* over, or cancelled */
    struct migrate_parameters parameters; /* streams and compress never change */
    struct migrate_stats stats;
    bool cancelled;
};

/* -- source.c */
uint64_t migrate_now_ns(void);
void migrate_set_status(struct migration *g, enum migrate_status status);
bool migrate_is_cancelled(struct migration *g);
struct migrate_parameters migrate_parameters_now(struct migration *g); /* [any] */
uint64_t migrate_sent(struct migration *g); /* bytes */

/* -- passes.c */
/* All of memory while the guest runs, until what is left is little. */
MUST_CHECK int migrate_passes(struct migration *g, struct err *e);
/* The rest, in machine_still. */
MUST_CHECK int migrate_last_pass(struct migration *g, struct err *e);

/* -- handover.c */
/* The pause, and whose the VM is after it. */
MUST_CHECK int migrate_hand_over(struct migration *g, struct err *e);

#endif
