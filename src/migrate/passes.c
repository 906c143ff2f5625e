/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "migrate/source.h"

/* Consecutive pages go by one stream, so that of one page's versions the last arrives last. */
#define STRIPE 256u
#define PASSES_MIN 2u
/* A rest that shrinks is worth passes beyond what the limit asks for, but not for ever. */
#define PASSES_SHRINKING 30u
/* The pause has more to it than memory: state is saved, sent and loaded. */
#define PAUSE_BESIDES_MS 20u
#define PACE_NS 50000000u

/* -- Sending ----------------------------------------------------------------------------------- */

/* Wait as long as we are ahead of the bandwidth that is allowed. */
static int pace(struct migration *g, struct err *e)
{
    for (;;) {
        uint64_t limit = migrate_parameters_now(g).max_bandwidth;
        uint64_t passed = migrate_now_ns() - g->pass_start_ns;
        if (migrate_is_cancelled(g)) {
            return err_set(e, -ECANCELED, "cancelled");
        }
        if (limit == 0 || (double)(migrate_sent(g) - g->pass_bytes) / (double)limit <=
                              (double)passed / 1e9) {
            return 0;
        }
        nanosleep(&(struct timespec){ .tv_nsec = PACE_NS }, NULL);
    }
}

static int send_stripe(struct stream *s, uint64_t first, struct err *e)
{
    struct migration *g = s->migration;
    const uint8_t *ram = gmem_ram_host(g->machine->mem);
    uint64_t sent = 0;
    int r = 0;
    for (uint64_t w = first / 64; w < (first + STRIPE) / 64 && w * 64 < g->ram_pages; w++) {
        for (; g->bits[w] != 0 && r == 0; g->bits[w] &= g->bits[w] - 1) {
            uint64_t n = w * 64 + (unsigned)__builtin_ctzll(g->bits[w]);
            r = pages_put(&s->pages, n, ram + n * GMEM_PAGE_SIZE, e);
            sent++;
        }
    }
    atomic_fetch_sub(&g->remaining, sent);
    return r;
}

/* What lies in buffers on the way would have to arrive in the pause, and makes the link look faster
 * than it is. */
static int sync_stream(struct channel *c, struct err *e)
{
    struct received answer;
    int r = channel_send(c, MESSAGE_SYNC, NULL, 0, e);
    return r < 0 ? r : channel_expect(c, MESSAGE_SYNCED, &answer, e);
}

/* A stream's share of the pages that are to be sent. */
static int send_share(struct stream *s, struct err *e)
{
    struct migration *g = s->migration;
    unsigned streams = g->parameters.streams;
    int r = 0;
    for (uint64_t n = (uint64_t)s->number * STRIPE; n < g->ram_pages && r == 0;
         n += (uint64_t)streams * STRIPE) {
        r = g->paced ? pace(g, e) : 0;
        r = r < 0 ? r : send_stripe(s, n, e);
    }
    r = r < 0 ? r : pages_flush(&s->pages, e);
    return r < 0 || !g->paced ? r : sync_stream(s->channel, e);
}

static void *share_main(void *arg)
{
    struct stream *s = arg;
    pthread_setname_np(pthread_self(), "stream");
    s->result = send_share(s, &s->error);
    return NULL;
}

/* By all streams at once. */
static int send_marked(struct migration *g, struct err *e)
{
    unsigned started = 1;
    for (; started < g->parameters.streams; started++) {
        struct stream *s = &g->stream[started];
        if (pthread_create(&s->thread, NULL, share_main, s) != 0) {
            break;
        }
    }
    int r = started == g->parameters.streams ? send_share(&g->stream[0], e)
                                             : err_set(e, -EAGAIN, "no thread for a stream");
    for (unsigned i = 1; i < started; i++) {
        pthread_join(g->stream[i].thread, NULL);
        if (r == 0 && g->stream[i].result < 0) {
            r = g->stream[i].result;
            *e = g->stream[i].error;
        }
    }
    return r;
}

/* -- Pages behind RAM: copies of ROMs and the screen's memory ---------------------------------- */

/* Devices write these by pointer, and nobody keeps book. They are few: they are compared with what
 * was sent of them. */
static int send_roms(struct migration *g, struct err *e)
{
    const uint8_t *rom = gmem_ram_host(g->machine->mem) + g->ram_pages * GMEM_PAGE_SIZE;
    bool first = g->rom == NULL;
    int r = 0;
    if (first) {
        g->rom = try_alloc(g->rom_pages + 1, GMEM_PAGE_SIZE);
        if (g->rom == NULL) {
            return err_set(e, -ENOMEM, "no memory for a copy of the ROMs");
        }
    }
    for (uint64_t n = 0; n < g->rom_pages && r == 0; n++) {
        uint8_t *sent = g->rom + n * GMEM_PAGE_SIZE;
        if (first || memcmp(sent, rom + n * GMEM_PAGE_SIZE, GMEM_PAGE_SIZE) != 0) {
            memcpy(sent, rom + n * GMEM_PAGE_SIZE, GMEM_PAGE_SIZE);
            r = pages_put(&g->stream[0].pages, g->ram_pages + n, sent, e);
        }
    }
    return r;
}

/* -- Passes ------------------------------------------------------------------------------------ */

static void take_written(struct machine *m, void *ctx)
{
    struct migration *g = ctx;
    uint64_t found = machine_take_written(m, g->bits);
    atomic_fetch_add(&g->remaining, found);
}

static int send_pass(struct migration *g, struct err *e)
{
    struct machine_event ev = { .kind = MACHINE_EVENT_MIGRATION_PASS };
    g->pass_start_ns = migrate_now_ns();
    g->pass_bytes = migrate_sent(g);
    pthread_mutex_lock(&g->lock);
    ev.number = ++g->stats.passes;
    pthread_mutex_unlock(&g->lock);
    machine_notify(g->machine, &ev);
    int r = send_roms(g, e);
    return r < 0 ? r : send_marked(g, e);
}

/* When a pass sent less than twice what was written meanwhile, the guest gets less time. */
static void converge(struct migration *g, uint64_t sent, uint64_t written)
{
    const struct migrate_parameters p = migrate_parameters_now(g);
    unsigned percent = g->stats.throttle;
    if (!p.auto_converge || written < sent / 2) {
        return;
    }
    percent = percent == 0 ? p.cpu_throttle_initial : percent + p.cpu_throttle_increment;
    percent = percent < p.max_cpu_throttle ? percent : p.max_cpu_throttle;
    throttle_set(&g->throttle, percent);
    pthread_mutex_lock(&g->lock);
    g->stats.throttle = percent;
    pthread_mutex_unlock(&g->lock);
}

/* What the pass that is over shows. Returns bytes per second. */
static uint64_t measure(struct migration *g, uint64_t written)
{
    double s = (double)(migrate_now_ns() - g->pass_start_ns) / 1e9;
    uint64_t bytes = migrate_sent(g) - g->pass_bytes;
    pthread_mutex_lock(&g->lock);
    if (bytes > (1u << 20) || g->stats.bandwidth == 0) { /* else it says little */
        g->stats.bandwidth = (uint64_t)((double)bytes / (s > 1e-6 ? s : 1e-6));
    }
    g->stats.dirty_rate = (uint64_t)((double)written / (s > 1e-6 ? s : 1e-6));
    uint64_t bandwidth = g->stats.bandwidth;
    pthread_mutex_unlock(&g->lock);
    return bandwidth;
}

int migrate_passes(struct migration *g, struct err *e)
{
    g->paced = true;
    machine_look(g->machine, take_written, g);
    for (unsigned pass = 1;; pass++) {
        uint64_t sent = atomic_load(&g->remaining);
        int r = send_pass(g, e);
        if (r < 0) {
            return r;
        }
        machine_look(g->machine, take_written, g);
        uint64_t left = atomic_load(&g->remaining);
        uint64_t bandwidth = measure(g, left);
        unsigned limit = migrate_parameters_now(g).downtime_limit;
        limit = limit > 2 * PAUSE_BESIDES_MS ? limit - PAUSE_BESIDES_MS : limit / 2;
        bool fits = left * GMEM_PAGE_SIZE <= bandwidth / 1000 * limit;
        bool shrinks = left < sent / 2 && pass < PASSES_SHRINKING;
        if (pass >= PASSES_MIN && fits && !shrinks) {
            return 0;
        }
        if (!fits) {
            converge(g, sent, left);
        }
    }
}

int migrate_last_pass(struct migration *g, struct err *e)
{
    g->paced = false;
    take_written(g->machine, g);
    int r = send_roms(g, e);
    return r < 0 ? r : send_marked(g, e);
}
