/* SPDX-License-Identifier: Apache-2.0
 *
 * The pause, and the end of it. Up to GO the VM is ours, whatever happens. With GO on its way it is
 * whose the ticket is: the target's when it says so; when it says something else or nothing, we go
 * for the ticket ourselves.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "machine/pc.h"
#include "migrate/source.h"
#include "state/state.h"

#define STATE_PIECE (1u << 20)
/* The target may have opened a disk before it found that the ticket was gone. */
#define TAKE_BACK_TRIES 500u
#define TAKE_BACK_WAIT_NS 10000000u

static int send_state(struct channel *c, const struct state_out *o, uint64_t wall_ns,
                      struct err *e)
{
    struct wire_load load = { .wall_ns = wall_ns };
    size_t len;
    const uint8_t *data = state_out_data(o, &len);
    int r = 0;
    load.state_len = len;
    for (size_t at = 0; at < len && r == 0; at += STATE_PIECE) {
        size_t piece = len - at < STATE_PIECE ? len - at : STATE_PIECE;
        r = channel_send(c, MESSAGE_STATE, data + at, piece, e);
    }
    return r < 0 ? r : wire_send_load(c, &load, e);
}

/* All that there is, and the target's word that it has taken it in. */
static int send_rest(struct migration *g, struct err *e)
{
    struct channel *c = g->stream[0].channel;
    struct machine *m = g->machine;
    struct received answer;
    struct timespec wall;
    struct state_out *o = state_out_new();
    machine_save_state(m, o); /* first: what devices finish for that may still write memory */
    clock_gettime(CLOCK_REALTIME, &wall);
    int r = migrate_last_pass(g, e);
    for (unsigned i = 1; i < g->parameters.streams && r == 0; i++) {
        r = channel_send(g->stream[i].channel, MESSAGE_DRAINED, NULL, 0, e);
    }
    if (r == 0) {
        r = send_state(c, o, (uint64_t)wall.tv_sec * 1000000000u + (uint64_t)wall.tv_nsec, e);
    }
    state_out_free(o);
    return r < 0 ? r : channel_expect(c, MESSAGE_LOADED, &answer, e);
}

/* We have the ticket: nobody else will run the VM. A target that lingers has the disks' locks for a
 * moment, but never writes. */
static void take_back(struct machine *m)
{
    const struct timespec wait = { .tv_nsec = TAKE_BACK_WAIT_NS };
    struct err e = { 0 };
    int r = machine_take_disks(m, &e);
    for (unsigned i = 0; i < TAKE_BACK_TRIES && r == -EBUSY; i++) {
        nanosleep(&wait, NULL);
        r = machine_take_disks(m, &e);
    }
    if (r < 0) {
        log_err("%s: the VM goes on here, but cannot write to it", e.msg);
    }
}

/* After GO. said: what came instead of the target's word that it runs. */
static enum owner find_owner(struct migration *g, int said)
{
    if (!g->has_ticket) {
        return said == -ECONNABORTED ? OWNER_SOURCE : OWNER_UNKNOWN;
    }
    int r = ticket_take(&g->ticket);
    return r == 0 ? OWNER_SOURCE : r == -ENOENT ? OWNER_TARGET : OWNER_UNKNOWN;
}

/* It may have been given another disc, or a snapshot may have put overlays in place of its disks:
 * then the target's machine is another one. */
static int check_unchanged(struct migration *g, struct err *e)
{
    int r = machine_check_disks(g->machine, e);
    if (r < 0) {
        return r;
    }
    char *now = snapshot_config_text(g->machine, NULL);
    r = strcmp(now, g->config) == 0 ? 0
                                    : err_set(e, -EBUSY, "the machine was changed meanwhile");
    free(now);
    return r;
}

/* In machine_still. */
static int stand_still(struct machine *m, void *ctx, struct err *e)
{
    struct migration *g = ctx;
    struct wire_go go = { .paused = machine_paused(m) };
    struct received answer;
    uint64_t since = migrate_now_ns();
    int r = check_unchanged(g, e);
    if (r == 0) {
        r = send_rest(g, e);
    }
    if (r == 0) {
        r = machine_yield_disks(m, e);
    }
    if (r < 0) {
        return r;
    }
    wire_look_at_disks(m, &go);
    r = wire_send_go(g->stream[0].channel, &go, e);
    if (r == 0) {
        r = channel_expect(g->stream[0].channel, MESSAGE_RUNS, &answer, e);
    }
    g->owner = r == 0 ? OWNER_TARGET : find_owner(g, r);
    pthread_mutex_lock(&g->lock);
    g->stats.downtime_ns = migrate_now_ns() - since;
    g->stats.unknown = g->owner == OWNER_UNKNOWN;
    pthread_mutex_unlock(&g->lock);
    switch (g->owner) {
    case OWNER_SOURCE:
        take_back(m);
        return r;
    case OWNER_UNKNOWN:
        machine_leave(m);
        return err_prefix(e, r, "it is not known whether the VM runs there");
    case OWNER_TARGET:
        machine_leave(m);
        return 0;
    }
    return r;
}

int migrate_hand_over(struct migration *g, struct err *e)
{
    migrate_set_status(g, MIGRATE_DEVICE);
    return machine_still(g->machine, stand_still, g, e);
}
