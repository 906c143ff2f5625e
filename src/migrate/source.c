/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/source.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#include "base/alloc.h"
#include "machine/pc.h"
#include "snapshot/pack.h"

const struct migrate_parameters migrate_defaults = {
    .downtime_limit = 100,
    .cpu_throttle_initial = 20,
    .cpu_throttle_increment = 10,
    .max_cpu_throttle = 99,
    .streams = 1,
};

int migrate_check(const struct migrate_parameters *p, struct err *e)
{
    if (p->streams < 1 || p->streams > MIGRATE_STREAMS_MAX) {
        return err_set(e, -EINVAL, "%u streams: 1 to %u are possible", p->streams,
                       MIGRATE_STREAMS_MAX);
    }
    if (p->downtime_limit > 2000000) {
        return err_set(e, -EINVAL, "a downtime of %u ms: 2000000 is the most", p->downtime_limit);
    }
    if (p->cpu_throttle_initial < 1 || p->cpu_throttle_initial > 99 ||
        p->cpu_throttle_increment < 1 || p->cpu_throttle_increment > 99 ||
        p->max_cpu_throttle < p->cpu_throttle_initial || p->max_cpu_throttle > 99) {
        return err_set(e, -EINVAL, "throttling: percentages from 1 to 99, the maximum not below "
                                   "the initial one");
    }
    if (p->compress && !pack_built()) {
        return err_set(e, -ENOTSUP, "this build has no zstd to compress with");
    }
    if (p->tls != NULL && !tls_built()) {
        return err_set(e, -ENOTSUP, "this build has no GnuTLS");
    }
    return 0;
}

bool migrate_over(enum migrate_status status)
{
    return status == MIGRATE_COMPLETED || status == MIGRATE_FAILED || status == MIGRATE_CANCELLED;
}

uint64_t migrate_now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* -- What others see --------------------------------------------------------------------------- */

const char *migrate_status_name(enum migrate_status status)
{
    static const char *const names[] = {
        [MIGRATE_SETUP] = "setup",         [MIGRATE_ACTIVE] = "active",
        [MIGRATE_DEVICE] = "device",       [MIGRATE_COMPLETED] = "completed",
        [MIGRATE_FAILED] = "failed",       [MIGRATE_CANCELLING] = "cancelling",
        [MIGRATE_CANCELLED] = "cancelled",
    };
    return names[status];
}

void migrate_set_status(struct migration *g, enum migrate_status status)
{
    pthread_mutex_lock(&g->lock);
    if (!g->cancelled || migrate_over(status)) {
        g->stats.status = status;
    }
    if (migrate_over(status)) {
        g->stats.total_ns = migrate_now_ns() - g->start_ns;
        pthread_cond_broadcast(&g->changed);
    }
    pthread_mutex_unlock(&g->lock);
    machine_notify(g->machine, &(struct machine_event){ .kind = MACHINE_EVENT_MIGRATION,
                                                        .status = migrate_status_name(status) });
}

bool migrate_is_cancelled(struct migration *g)
{
    pthread_mutex_lock(&g->lock);
    bool cancelled = g->cancelled;
    pthread_mutex_unlock(&g->lock);
    return cancelled;
}

struct migrate_parameters migrate_parameters_now(struct migration *g)
{
    pthread_mutex_lock(&g->lock);
    struct migrate_parameters p = g->parameters;
    pthread_mutex_unlock(&g->lock);
    return p;
}

void migrate_change(struct migration *g, const struct migrate_parameters *p)
{
    pthread_mutex_lock(&g->lock);
    unsigned streams = g->parameters.streams;
    bool compress = g->parameters.compress;
    g->parameters = *p;
    g->parameters.streams = streams;
    g->parameters.compress = compress;
    g->parameters.tls = g->tls;
    pthread_mutex_unlock(&g->lock);
}

/* Channels stay as long as their migration. */
uint64_t migrate_sent(struct migration *g)
{
    uint64_t sent = 0;
    for (unsigned i = 0; i < g->parameters.streams; i++) {
        sent += g->stream[i].channel != NULL ? channel_sent(g->stream[i].channel) : 0;
    }
    return sent;
}

void migrate_look(struct migration *g, struct migrate_stats *out)
{
    pthread_mutex_lock(&g->lock);
    *out = g->stats;
    if (!migrate_over(out->status)) {
        out->total_ns = migrate_now_ns() - g->start_ns;
    }
    out->transferred = migrate_sent(g);
    for (unsigned i = 0; i < g->parameters.streams; i++) {
        out->zero_pages += atomic_load(&g->stream[i].pages.zero);
        out->whole_pages += atomic_load(&g->stream[i].pages.whole);
    }
    pthread_mutex_unlock(&g->lock);
    out->total = (g->ram_pages + g->rom_pages) * GMEM_PAGE_SIZE;
    out->remaining = atomic_load(&g->remaining) * GMEM_PAGE_SIZE;
}

/* -- Setting up -------------------------------------------------------------------------------- */

static int connect_stream(struct migration *g, unsigned n, struct err *e)
{
    struct channel *c;
    int r = channel_connect(&c, g->address, e);
    if (r < 0) {
        return r;
    }
    pthread_mutex_lock(&g->lock);
    g->stream[n].channel = c;
    bool cancelled = g->cancelled;
    pthread_mutex_unlock(&g->lock);
    g->stream[n].migration = g;
    g->stream[n].number = n;
    pages_out_init(&g->stream[n].pages, c, g->parameters.compress);
    if (cancelled) {
        return err_set(e, -ECANCELED, "cancelled");
    }
    return g->tls != NULL ? channel_secure(c, TLS_CLIENT, g->tls, e) : 0;
}

/* A file of the storage that the target must reach; NULL: the VM writes to none. Machine lock. */
static const char *shared_file(const struct machine *m)
{
    const struct disks *all = &m->pc->disks;
    struct stat st;
    for (unsigned i = 0; i < all->count; i++) {
        const char *path = block_path(all->disk[i].block);
        if (!all->disk[i].readonly && stat(path, &st) == 0 && S_ISREG(st.st_mode)) {
            return path;
        }
    }
    return NULL;
}

/* The machine in words, and the ticket. *shared: its storage is the disks'. */
static int describe(struct migration *g, bool *shared, struct err *e)
{
    struct machine *m = g->machine;
    bus_lock(m->bus);
    int r = machine_check_disks(m, e);
    if (r == 0) {
        const char *beside = shared_file(m);
        *shared = beside != NULL;
        g->config = snapshot_config_text(m, NULL);
        r = ticket_make(&g->ticket, beside, e);
    }
    bus_unlock(m->bus);
    return r;
}

static int greet(struct migration *g, bool shared, struct err *e)
{
    struct received answer;
    struct wire_hello hello = {
        .ram_pages = g->ram_pages,
        .rom_pages = g->rom_pages,
        .streams = g->parameters.streams,
        .ticket = g->ticket,
        .config = g->config,
        .config_len = (uint32_t)strlen(g->config),
    };
    memcpy(hello.id, g->id, sizeof hello.id);
    int r = wire_send_hello(g->stream[0].channel, &hello, e);
    if (r == 0) {
        r = channel_expect(g->stream[0].channel, MESSAGE_READY, &answer, e);
    }
    if (r == 0) {
        r = wire_take_ready(&answer, &g->has_ticket, e);
    }
    if (r == 0 && shared && !g->has_ticket) {
        r = err_set(e, -ENOTSUP, "the target cannot see or remove %s: disks must be on storage "
                                 "that both reach by the same path", g->ticket.path);
    }
    return r;
}

static int set_up(struct migration *g, struct err *e)
{
    bool shared = false;
    g->bits = try_alloc((g->ram_pages + 63) / 64, sizeof *g->bits);
    if (g->bits == NULL) {
        return err_set(e, -ENOMEM, "no memory for a map of memory");
    }
    if (getrandom(g->id, sizeof g->id, 0) != (ssize_t)sizeof g->id) {
        return err_set(e, -EIO, "the host has no random numbers");
    }
    int r = describe(g, &shared, e);
    if (r == 0) {
        r = connect_stream(g, 0, e);
    }
    if (r == 0) {
        r = greet(g, shared, e);
    }
    for (unsigned i = 1; i < g->parameters.streams && r == 0; i++) {
        r = connect_stream(g, i, e);
        if (r == 0) {
            r = wire_send_stream(g->stream[i].channel, g->id, i, e);
        }
    }
    pthread_mutex_lock(&g->lock);
    g->stats.setup_ns = migrate_now_ns() - g->start_ns;
    pthread_mutex_unlock(&g->lock);
    return r;
}

/* -- Its life ---------------------------------------------------------------------------------- */

static void ignore_written(struct machine *m, void *ctx)
{
    (void)ctx;
    machine_ignore_written(m);
}

static int do_it(struct migration *g, struct err *e)
{
    int r = set_up(g, e);
    if (r == 0) {
        migrate_set_status(g, MIGRATE_ACTIVE);
        r = migrate_passes(g, e);
        if (r == 0) {
            r = migrate_hand_over(g, e);
        }
        throttle_fini(&g->throttle);
        machine_look(g->machine, ignore_written, NULL);
    } else {
        throttle_fini(&g->throttle);
    }
    return r;
}

static void *migrate_main(void *arg)
{
    struct migration *g = arg;
    struct err e = { 0 };
    pthread_setname_np(pthread_self(), "migrate");
    int r = do_it(g, &e);
    if (r < 0 && g->owner == OWNER_SOURCE && g->stream[0].channel != NULL) {
        channel_fail(g->stream[0].channel, e.msg);
    }
    for (unsigned i = 0; i < g->parameters.streams; i++) {
        if (g->stream[i].channel != NULL) {
            channel_cut(g->stream[i].channel);
        }
    }
    if (g->owner == OWNER_SOURCE || !g->has_ticket) { /* nobody else will go for it */
        ticket_drop(&g->ticket);
    }
    bool cancelled = r < 0 && g->owner == OWNER_SOURCE && migrate_is_cancelled(g);
    pthread_mutex_lock(&g->lock);
    g->stats.error = e;
    pthread_mutex_unlock(&g->lock);
    migrate_set_status(g, r == 0      ? MIGRATE_COMPLETED
                          : cancelled ? MIGRATE_CANCELLED
                                      : MIGRATE_FAILED);
    return NULL;
}

int migrate_start(struct migration **out, struct machine *m, const char *address,
                  const struct migrate_parameters *p, struct err *e)
{
    int r = migrate_check(p, e);
    if (r < 0) {
        return r;
    }
    if (machine_elsewhere(m)) {
        return err_set(e, -EBUSY, "the VM is not here");
    }
    struct migration *g = xzalloc(sizeof *g);
    g->machine = m;
    g->address = xstrdup(address);
    g->parameters = *p;
    g->tls = p->tls != NULL ? xstrdup(p->tls) : NULL;
    g->parameters.tls = g->tls;
    g->start_ns = migrate_now_ns();
    g->ram_pages = gmem_ram_size(m->mem) >> GMEM_PAGE_BITS;
    g->rom_pages = gmem_rom_pages(m->mem);
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->changed, NULL);
    throttle_init(&g->throttle, m);
    migrate_set_status(g, MIGRATE_SETUP);
    sigset_t all, old;
    sigfillset(&all); /* signals are for the program's own threads */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    r = pthread_create(&g->thread, NULL, migrate_main, g);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r != 0) {
        throttle_fini(&g->throttle);
        g->joined = true;
        migrate_free(g);
        return err_set(e, -r, "cannot start a thread: %s", strerror(r));
    }
    *out = g;
    return 0;
}

void migrate_cancel(struct migration *g)
{
    pthread_mutex_lock(&g->lock);
    if (!migrate_over(g->stats.status)) {
        g->cancelled = true;
        g->stats.status = MIGRATE_CANCELLING;
        for (unsigned i = 0; i < g->parameters.streams; i++) {
            if (g->stream[i].channel != NULL) {
                channel_cut(g->stream[i].channel);
            }
        }
    }
    pthread_mutex_unlock(&g->lock);
}

void migrate_wait(struct migration *g)
{
    pthread_mutex_lock(&g->lock);
    while (!migrate_over(g->stats.status)) {
        pthread_cond_wait(&g->changed, &g->lock);
    }
    pthread_mutex_unlock(&g->lock);
}

void migrate_free(struct migration *g)
{
    if (g == NULL) {
        return;
    }
    if (!g->joined) {
        migrate_cancel(g);
        pthread_join(g->thread, NULL);
    }
    for (unsigned i = 0; i < MIGRATE_STREAMS_MAX; i++) {
        pages_out_fini(&g->stream[i].pages);
        channel_free(g->stream[i].channel);
    }
    pthread_cond_destroy(&g->changed);
    pthread_mutex_destroy(&g->lock);
    free(g->address);
    free(g->config);
    free(g->tls);
    free(g->bits);
    free(g->rom);
    free(g);
}

int migrate_take_back(struct machine *m, struct err *e)
{
    bus_lock(m->bus);
    int r = machine_take_disks(m, e);
    bus_unlock(m->bus);
    if (r == 0) {
        machine_arrive(m);
    }
    return r;
}
