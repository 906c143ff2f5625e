/* SPDX-License-Identifier: Apache-2.0
 *
 * Live migration (docs/migration.md): a VM that runs goes on in another sosia process. The source
 * sends memory while the guest runs, then again what it wrote meanwhile, until the rest can be sent
 * in a short pause together with everything else. Until the target says that it runs the VM, or has
 * taken the ticket, the VM is the source's.
 */
#ifndef SOSIA_MIGRATE_MIGRATE_H
#define SOSIA_MIGRATE_MIGRATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct machine;
struct vmconfig;

#define MIGRATE_STREAMS_MAX 16u

/* The parameters of a migration, with QEMU's names and defaults where it has them. */
struct migrate_parameters {
    uint64_t max_bandwidth;          /* bytes per second; 0: all there is */
    unsigned downtime_limit;         /* ms */
    unsigned cpu_throttle_initial;   /* percent */
    unsigned cpu_throttle_increment; /* percent */
    unsigned max_cpu_throttle;       /* percent */
    unsigned streams;                /* connections */
    bool compress;
    const char *tls; /* directory of certificates (tls.h); NULL: in the clear */
    bool auto_converge; /* slow the guest down when it writes too fast */
};
extern const struct migrate_parameters migrate_defaults;
MUST_CHECK int migrate_check(const struct migrate_parameters *p, struct err *e);

enum migrate_status {
    MIGRATE_SETUP,
    MIGRATE_ACTIVE, /* the guest runs, memory is sent */
    MIGRATE_DEVICE, /* it stands */
    MIGRATE_COMPLETED,
    MIGRATE_FAILED,
    MIGRATE_CANCELLING,
    MIGRATE_CANCELLED,
};
bool migrate_over(enum migrate_status status);
const char *migrate_status_name(enum migrate_status status); /* QEMU's words */

struct migrate_stats {
    enum migrate_status status;
    struct err error; /* FAILED */
    bool unknown;     /* FAILED, and it is not known whether the VM runs there */
    uint64_t total_ns, setup_ns, downtime_ns;
    uint64_t total;       /* bytes of memory there are */
    uint64_t remaining;   /* of these to be sent, as far as is known */
    uint64_t transferred; /* bytes over the wire */
    uint64_t zero_pages, whole_pages; /* sent */
    uint64_t bandwidth;   /* bytes per second, of the last pass */
    uint64_t dirty_rate;  /* pages per second that the guest writes */
    unsigned passes;
    unsigned throttle; /* percent */
};

/* -- The source. Thread: [any] but the machine's own, one at a time for one object. */
struct migration;

/* Begins it on a thread of its own. address: unix:PATH or tcp:HOST:PORT. The machine is borrowed
 * until migrate_free. */
MUST_CHECK int migrate_start(struct migration **out, struct machine *m, const char *address,
                             const struct migrate_parameters *p, struct err *e);
void migrate_look(struct migration *g, struct migrate_stats *out);
/* Other limits from now on; streams and compression stay. */
void migrate_change(struct migration *g, const struct migrate_parameters *p);
/* The VM stays here, if it is here still. Returns at once. */
void migrate_cancel(struct migration *g);
/* Returns when it is over. */
void migrate_wait(struct migration *g);
/* Cancels first. NULL is allowed. */
void migrate_free(struct migration *g);
/* A person has made sure that the VM does not run at the target, after a failure that left it open:
 * it is this machine's again, paused. */
MUST_CHECK int migrate_take_back(struct machine *m, struct err *e);

/* -- The target. Thread: one. */
struct incoming;

/* Waits for a source at the address. tls: as in the parameters. listening: told where, once; or
 * NULL. */
MUST_CHECK int incoming_open(struct incoming **out, const char *address, const char *tls,
                             void (*listening)(const char *where), struct err *e);
/* From a source that is connected already: takes the socket, in any case. */
MUST_CHECK int incoming_over(struct incoming **out, int fd, struct err *e);
void incoming_close(struct incoming *in); /* also tells the source, if it still waits */
struct vmconfig *incoming_config(struct incoming *in);
/* Says why there will be no machine. */
void incoming_refuse(struct incoming *in, const char *why);
/* Everything into a new machine of that configuration, made as `incoming`. On success the VM is
 * ours; paused: it was there, too. */
MUST_CHECK int incoming_receive(struct incoming *in, struct machine *m, bool *paused,
                                struct err *e);

#endif
