/* SPDX-License-Identifier: Apache-2.0
 *
 * The target: it makes the machine that the source describes, takes in memory and state, and runs
 * nothing before it was told to go and has the ticket. All that arrives is hostile.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "machine/machine.h"
#include "machine/moving.h"
#include "machine/pc.h"
#include "machine/vmconfig.h"
#include "migrate/migrate.h"
#include "migrate/pages.h"
#include "migrate/wire.h"
#include "snapshot/file.h"
#include "snapshot/snapshot.h"

struct further { /* connection that brings memory */
    struct incoming *in;
    struct channel *channel; /* owned */
    pthread_t thread;
    int result;
    struct err error;
};

struct incoming {
    int listener;
    char *tls;  /* owned: directory of certificates; NULL: in the clear */
    char *path; /* owned: of the listening socket, to be removed; NULL: none */
    struct channel *channel;
    struct wire_hello hello;
    struct vmconfig *config;
    struct machine *machine; /* borrowed, while receiving */
    struct further further[MIGRATE_STREAMS_MAX];
    unsigned furthers; /* whose threads run */
    uint8_t *unpacked; /* owned: of the main connection */
    uint8_t *state;    /* owned */
    uint64_t state_len, state_room;
};

/* -- Opening ----------------------------------------------------------------------------------- */

static int take_hello(struct incoming *in, struct err *e)
{
    struct received m;
    int r = channel_expect(in->channel, MESSAGE_HELLO, &m, e);
    if (r == 0) {
        r = wire_take_hello(&in->hello, &m, e);
    }
    if (r == 0 && (in->hello.streams < 1 || in->hello.streams > MIGRATE_STREAMS_MAX)) {
        r = err_set(e, -EPROTO, "%u streams: 1 to %u are possible", in->hello.streams,
                    MIGRATE_STREAMS_MAX);
    }
    if (r == 0) {
        r = vmconfig_parse(&in->config, in->hello.config, in->hello.config_len, e);
    }
    in->hello.config = NULL; /* was the message's */
    return r;
}

/* r: of getting a connection. */
static int begin(struct incoming **out, struct incoming *in, int r, struct err *e)
{
    if (r == 0) {
        r = take_hello(in, e);
        if (r < 0) {
            incoming_refuse(in, e->msg);
        }
    }
    if (r < 0) {
        incoming_close(in);
        return r;
    }
    *out = in;
    return 0;
}

/* A connection, by TLS if that was asked for. timeout_s 0: for ever. */
static int accept_one(struct incoming *in, struct channel **out, unsigned timeout_s, struct err *e)
{
    struct channel *c;
    int r = channel_accept(&c, in->listener, timeout_s, e);
    if (r < 0) {
        return r;
    }
    r = in->tls != NULL ? channel_secure(c, TLS_SERVER, in->tls, e) : 0;
    if (r < 0) {
        channel_free(c);
        return r;
    }
    *out = c;
    return 0;
}

int incoming_open(struct incoming **out, const char *address, const char *tls,
                  void (*listening)(const char *where), struct err *e)
{
    char where[CHANNEL_WHERE_BYTES];
    struct incoming *in = xzalloc(sizeof *in);
    in->listener = channel_listen(address, where, e);
    int r = in->listener < 0 ? in->listener : 0;
    if (r == 0) {
        in->path = strncmp(address, "unix:", 5) == 0 ? xstrdup(address + 5) : NULL;
        if (listening != NULL) {
            listening(where);
        }
        in->tls = tls != NULL ? xstrdup(tls) : NULL;
        r = accept_one(in, &in->channel, 0, e);
    }
    return begin(out, in, r, e);
}

int incoming_over(struct incoming **out, int fd, struct err *e)
{
    struct incoming *in = xzalloc(sizeof *in);
    in->listener = -1;
    in->channel = channel_over(fd);
    return begin(out, in, 0, e);
}

void incoming_close(struct incoming *in)
{
    if (in == NULL) {
        return;
    }
    channel_free(in->channel);
    if (in->listener >= 0) {
        close(in->listener);
    }
    if (in->path != NULL) {
        unlink(in->path);
    }
    vmconfig_free(in->config);
    free(in->path);
    free(in->tls);
    free(in->unpacked);
    free(in->state);
    free(in);
}

struct vmconfig *incoming_config(struct incoming *in) { return in->config; }

void incoming_refuse(struct incoming *in, const char *why)
{
    if (in->channel != NULL) {
        channel_fail(in->channel, why);
    }
}

/* -- Further connections ----------------------------------------------------------------------- */

static uint64_t page_count(const struct incoming *in)
{
    return in->hello.ram_pages + in->hello.rom_pages;
}

/* What may come on any connection. */
static int take_memory(struct incoming *in, struct channel *c, const struct received *m,
                       uint8_t *unpacked, struct err *e)
{
    switch (m->type) {
    case MESSAGE_PAGES:
    case MESSAGE_PACKED:
        return pages_take(in->machine->mem, page_count(in), m, unpacked, e);
    case MESSAGE_SYNC:
        return channel_send(c, MESSAGE_SYNCED, NULL, 0, e);
    default:
        return err_set(e, -EPROTO, "message %u while memory is received", m->type);
    }
}

static int drain(struct further *f, struct err *e)
{
    struct incoming *in = f->in;
    struct received m;
    int r;
    uint8_t *unpacked = xzalloc(CHANNEL_PAYLOAD_MAX);
    do {
        r = channel_receive(f->channel, &m, e);
        if (r == 0 && m.type != MESSAGE_DRAINED) {
            r = take_memory(in, f->channel, &m, unpacked, e);
        }
    } while (r == 0 && m.type != MESSAGE_DRAINED);
    free(unpacked);
    return r;
}

static void *drain_main(void *arg)
{
    struct further *f = arg;
    pthread_setname_np(pthread_self(), "stream");
    f->result = drain(f, &f->error);
    if (f->result < 0) {
        channel_cut(f->in->channel); /* whoever waits there finds out */
    }
    return NULL;
}

static int accept_further(struct incoming *in, struct err *e)
{
    struct received m;
    uint32_t number;
    struct further *f = &in->further[in->furthers];
    int r = in->listener < 0 ? err_set(e, -ENOTSUP, "there is one connection only")
                             : accept_one(in, &f->channel, CHANNEL_PATIENCE_S, e);
    if (r < 0) {
        return r;
    }
    f->in = in;
    r = channel_expect(f->channel, MESSAGE_STREAM, &m, e);
    if (r == 0) {
        r = wire_take_stream(&m, in->hello.id, &number, e);
    }
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int error = r == 0 ? pthread_create(&f->thread, NULL, drain_main, f) : 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (error != 0) {
        r = err_set(e, -error, "no thread for a stream: %s", strerror(error));
    }
    if (r < 0) {
        channel_free(f->channel);
        return r;
    }
    in->furthers++;
    return 0;
}

/* All that they bring is in memory; or, cut, they give up. */
static int join_further(struct incoming *in, bool cut, struct err *e)
{
    int r = 0;
    for (unsigned i = 0; i < in->furthers; i++) {
        struct further *f = &in->further[i];
        if (cut) {
            channel_cut(f->channel);
        }
        pthread_join(f->thread, NULL);
        channel_free(f->channel);
        if (f->result < 0 && r == 0) {
            r = f->result;
            *e = f->error;
        }
    }
    in->furthers = 0;
    return r;
}

/* -- What arrives ------------------------------------------------------------------------------ */

static int check_machine(struct incoming *in, struct err *e)
{
    const struct gmem *mem = in->machine->mem;
    if (in->hello.ram_pages != gmem_ram_size(mem) >> GMEM_PAGE_BITS) {
        return err_set(e, -EINVAL, "the VM has %llu MiB of memory, this machine %llu",
                       (unsigned long long)(in->hello.ram_pages >> 8),
                       (unsigned long long)(gmem_ram_size(mem) >> 20));
    }
    if (in->hello.rom_pages != gmem_rom_pages(mem)) {
        return err_set(e, -EINVAL,
                       "the VM has %llu pages of firmware and video memory, this machine %llu: "
                       "install the same firmware",
                       (unsigned long long)in->hello.rom_pages,
                       (unsigned long long)gmem_rom_pages(mem));
    }
    return 0;
}

static int add_state(struct incoming *in, const struct received *m, struct err *e)
{
    if (m->len > SNAPFILE_STATE_MAX - in->state_len) {
        return err_set(e, -EPROTO, "more than %llu MiB of state", SNAPFILE_STATE_MAX >> 20);
    }
    if (in->state_len + m->len > in->state_room) {
        in->state_room = 2 * (in->state_len + m->len);
        uint8_t *larger = try_alloc(1, in->state_room);
        if (larger == NULL) {
            return err_set(e, -ENOMEM, "no memory for the state");
        }
        if (in->state_len != 0) {
            memcpy(larger, in->state, in->state_len);
        }
        free(in->state);
        in->state = larger;
    }
    if (m->len != 0) {
        memcpy(in->state + in->state_len, m->data, m->len);
    }
    in->state_len += m->len;
    return 0;
}

static int load(struct incoming *in, const struct wire_load *l, struct err *e)
{
    struct machine *m = in->machine;
    struct state_in *state = NULL;
    int r = join_further(in, false, e);
    if (r == 0 && l->state_len != in->state_len) {
        r = err_set(e, -EPROTO, "%llu bytes of state, not %llu",
                    (unsigned long long)in->state_len, (unsigned long long)l->state_len);
    }
    if (r == 0) {
        r = state_in_new(&state, in->state, in->state_len, e);
    }
    if (r < 0) {
        return r;
    }
    bus_lock(m->bus);
    r = machine_load_state(m, state, e);
    machine_memory_changed(m);
    if (r == 0) {
        snapshot_step_time(m, l->wall_ns);
    }
    bus_unlock(m->bus);
    state_in_free(state);
    return r;
}

/* Nobody has ended it here meanwhile. */
static int check_alive(struct incoming *in, struct err *e)
{
    struct machine_end end;
    return machine_get_end(in->machine, &end) < 0 ? 0 : err_set(e, -ESHUTDOWN, "%s", end.text);
}

/* Up to the last byte that the VM needs. */
static int take_all(struct incoming *in, struct err *e)
{
    struct received m;
    struct wire_load l;
    int r;
    do {
        r = channel_receive(in->channel, &m, e);
        r = r < 0 ? r : check_alive(in, e);
        if (r < 0) {
            break;
        }
        switch (m.type) {
        case MESSAGE_STATE:
            r = add_state(in, &m, e);
            break;
        case MESSAGE_LOAD:
            r = wire_take_load(&l, &m, e);
            break;
        default:
            r = take_memory(in, in->channel, &m, in->unpacked, e);
        }
    } while (r == 0 && m.type != MESSAGE_LOAD);
    return r < 0 ? r : load(in, &l, e);
}

/* -- Taking over ------------------------------------------------------------------------------- */

static int take_disks(struct incoming *in, const struct wire_go *go, struct err *e)
{
    struct machine *m = in->machine;
    struct wire_go here = { 0 };
    bus_lock(m->bus);
    int r = machine_take_disks(m, e);
    wire_look_at_disks(m, &here);
    for (uint32_t i = 0; i < here.disks && r == 0; i++) {
        if (i >= go->disks || memcmp(&go->disk[i], &here.disk[i], sizeof here.disk[i]) != 0) {
            r = err_set(e, -EINVAL, "%s is not the file that the source has let go of",
                        block_path(m->pc->disks.disk[i].block));
        }
    }
    bus_unlock(m->bus);
    return r;
}

static int take_over(struct incoming *in, bool *paused, struct err *e)
{
    struct received m;
    struct wire_go go;
    int r = channel_expect(in->channel, MESSAGE_GO, &m, e);
    if (r == 0) {
        r = wire_take_go(&go, &m, e);
    }
    if (r == 0) {
        r = take_disks(in, &go, e);
    }
    if (r == 0) {
        r = check_alive(in, e);
    }
    if (r == 0 && in->hello.ticket.path[0] != '\0') {
        r = ticket_take(&in->hello.ticket);
        if (r < 0) {
            err_set(e, r, r == -ENOENT ? "too late: the VM goes on at its source"
                                       : "the ticket cannot be taken, so that the VM stays at its "
                                         "source");
        }
    }
    if (r < 0) {
        return r;
    }
    /* It is ours, whether they hear it or not. */
    *paused = go.paused;
    struct err unheard = { 0 };
    if (channel_send(in->channel, MESSAGE_RUNS, NULL, 0, &unheard) < 0) {
        log_info("%s; the VM runs here", unheard.msg);
    }
    machine_arrive(in->machine);
    return 0;
}

int incoming_receive(struct incoming *in, struct machine *m, bool *paused, struct err *e)
{
    in->machine = m;
    in->unpacked = xzalloc(CHANNEL_PAYLOAD_MAX);
    bool ticket = in->hello.ticket.path[0] != '\0' && ticket_reachable(&in->hello.ticket);
    if (!ticket) {
        in->hello.ticket.path[0] = '\0';
    }
    int r = check_machine(in, e);
    if (r == 0) {
        r = wire_send_ready(in->channel, ticket, e);
    }
    for (unsigned i = 1; i < in->hello.streams && r == 0; i++) {
        r = accept_further(in, e);
    }
    if (r == 0) {
        r = take_all(in, e);
    }
    struct err cut;
    if (r < 0 && join_further(in, true, &cut) < 0 && r == -ECONNRESET) {
        *e = cut; /* ours was the consequence */
    }
    if (r == 0) {
        r = channel_send(in->channel, MESSAGE_LOADED, NULL, 0, e);
    }
    if (r == 0) {
        r = take_over(in, paused, e);
    }
    return r;
}
