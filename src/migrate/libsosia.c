/* SPDX-License-Identifier: Apache-2.0 -- include/sosia.h over migration */
#include "sosia.h"

#include <errno.h>
#include <stdio.h>

#include "machine/machine.h"
#include "machine/vm.h"
#include "machine/vmconfig.h"
#include "migrate/migrate.h"
#include "snapshot/snapshot.h"

/* A struct sosia_incoming is a struct incoming under its public name. */
static struct incoming *inner(struct sosia_incoming *in) { return (struct incoming *)in; }

static int give(char *error, int r, const struct err *e)
{
    if (r < 0 && error != NULL) {
        snprintf(error, SOSIA_ERROR_BYTES, "%s", e->msg);
    }
    return r;
}

void sosia_migrate_options_init(struct sosia_migrate_options *o)
{
    *o = (struct sosia_migrate_options){ .streams = migrate_defaults.streams,
                                         .downtime_ms = migrate_defaults.downtime_limit };
}

int sosia_vm_migrate(struct sosia_vm *vm, const char *address,
                     const struct sosia_migrate_options *options,
                     struct sosia_migrate_result *result, char *error)
{
    struct err e = { 0 };
    struct migrate_parameters p = migrate_defaults;
    struct migration *g;
    struct migrate_stats stats;
    p.auto_converge = true;
    if (options != NULL) {
        p.streams = options->streams;
        p.compress = options->compress;
        p.max_bandwidth = options->max_bandwidth;
        p.downtime_limit = options->downtime_ms;
        p.tls = options->tls;
    }
    int r = migrate_start(&g, sosia_vm_machine(vm), address, &p, &e);
    if (r < 0) {
        return give(error, r, &e);
    }
    migrate_wait(g);
    migrate_look(g, &stats);
    migrate_free(g);
    if (result != NULL) {
        *result = (struct sosia_migrate_result){ stats.total_ns, stats.downtime_ns,
                                                 stats.transferred, stats.passes, stats.unknown };
    }
    return stats.status == MIGRATE_COMPLETED ? 0 : give(error, -ECANCELED, &stats.error);
}

int sosia_incoming_open(struct sosia_incoming **out, const char *address, const char *tls,
                        void (*listening)(const char *where), char *error)
{
    struct err e = { 0 };
    struct incoming *in;
    int r = incoming_open(&in, address, tls, listening, &e);
    if (r == 0) {
        *out = (struct sosia_incoming *)in;
    }
    return give(error, r, &e);
}

void sosia_incoming_config(struct sosia_incoming *in, struct sosia_config *config)
{
    struct sosia_config *c = vmconfig_config(incoming_config(inner(in)));
    snapshot_cut_off(incoming_config(inner(in)));
    c->incoming = true;
    *config = *c;
}

int sosia_vm_receive(struct sosia_vm *vm, struct sosia_incoming *in, bool *paused, char *error)
{
    struct err e = { 0 };
    return give(error, incoming_receive(inner(in), sosia_vm_machine(vm), paused, &e), &e);
}

void sosia_incoming_close(struct sosia_incoming *in, const char *why)
{
    if (in != NULL && why != NULL) {
        incoming_refuse(inner(in), why);
    }
    incoming_close(inner(in));
}
