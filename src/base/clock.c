/* SPDX-License-Identifier: Apache-2.0
 *
 * Timers sit in a binary heap ordered by deadline, then by order of arming, so that two runs with
 * the same events fire in the same order.
 */
#include "base/clock.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "base/alloc.h"

/* A guest can ask for timers that are always due; after this many the loop gets a turn. */
#define MAX_FIRED_PER_RUN 1024u

struct clock {
    uint64_t (*source)(void *ctx); /* host nanoseconds */
    void *ctx;
    _Atomic uint64_t fake_ns; /* the source of a fake clock */
    bool fake;

    /* now = frozen_ns while paused, source - base_ns otherwise. Read by any thread: a sequence
     * count, odd while the three change, makes readers take them together. */
    _Atomic uint32_t seq;
    _Atomic uint64_t base_ns;
    _Atomic uint64_t frozen_ns;
    _Atomic bool paused;

    struct timer **heap; /* owned; the timers are borrowed */
    uint32_t count;
    uint32_t capacity;
    uint64_t next_order;

    void (*rearm)(void *ctx);
    void *rearm_ctx;
    bool running_due; /* run_due returns the next deadline itself: no rearm call */
};

static uint64_t host_monotonic(void *ctx)
{
    (void)ctx;
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t fake_source(void *ctx)
{
    struct clock *c = ctx;
    return atomic_load_explicit(&c->fake_ns, memory_order_acquire);
}

struct clock *clock_new(uint64_t (*source)(void *ctx), void *ctx)
{
    struct clock *c = xzalloc(sizeof *c);
    c->source = source != NULL ? source : host_monotonic;
    c->ctx = ctx;
    atomic_init(&c->base_ns, c->source(c->ctx));
    return c;
}

struct clock *clock_new_fake(void)
{
    struct clock *c = xzalloc(sizeof *c);
    c->source = fake_source;
    c->ctx = c;
    c->fake = true;
    return c;
}

void clock_free(struct clock *c)
{
    if (c != NULL) {
        free(c->heap);
        free(c);
    }
}

/* -- Now ----------------------------------------------------------------------------------------
 * Data loads are acquire and data stores release, so that the count's own accesses stay outside
 * of them on both sides. */
uint64_t clock_now_ns(struct clock *c)
{
    for (;;) {
        uint32_t seq = atomic_load_explicit(&c->seq, memory_order_acquire);
        if (seq & 1) {
            continue;
        }
        bool paused = atomic_load_explicit(&c->paused, memory_order_acquire);
        uint64_t frozen = atomic_load_explicit(&c->frozen_ns, memory_order_acquire);
        uint64_t base = atomic_load_explicit(&c->base_ns, memory_order_acquire);
        uint64_t now = paused ? frozen : c->source(c->ctx) - base;
        if (atomic_load_explicit(&c->seq, memory_order_acquire) == seq) {
            return now;
        }
    }
}

/* Change the three. The host's time is read while readers wait: one that read it before would
 * otherwise have seen a time later than the one that is frozen here. */
static void set_time(struct clock *c, bool paused, const uint64_t *now_ns)
{
    uint32_t seq = atomic_fetch_add_explicit(&c->seq, 1, memory_order_seq_cst);
    uint64_t host = c->source(c->ctx);
    uint64_t now = host - atomic_load_explicit(&c->base_ns, memory_order_relaxed);
    if (atomic_load_explicit(&c->paused, memory_order_relaxed)) {
        now = atomic_load_explicit(&c->frozen_ns, memory_order_relaxed);
    }
    if (now_ns != NULL) {
        now = *now_ns;
    }
    atomic_store_explicit(&c->frozen_ns, now, memory_order_release);
    atomic_store_explicit(&c->base_ns, host - now, memory_order_release);
    atomic_store_explicit(&c->paused, paused, memory_order_release);
    atomic_store_explicit(&c->seq, seq + 2, memory_order_release);
}

static bool is_paused(struct clock *c)
{
    return atomic_load_explicit(&c->paused, memory_order_relaxed);
}

bool clock_runs(struct clock *c) { return !c->fake && !is_paused(c); }

static void call_rearm(struct clock *c)
{
    if (c->rearm != NULL && !c->running_due) {
        c->rearm(c->rearm_ctx);
    }
}

void clock_pause(struct clock *c)
{
    if (!is_paused(c)) {
        set_time(c, true, NULL);
    }
}

void clock_resume(struct clock *c)
{
    if (is_paused(c)) {
        set_time(c, false, NULL);
        call_rearm(c);
    }
}

void clock_set_now(struct clock *c, uint64_t now_ns)
{
    set_time(c, is_paused(c), &now_ns);
    call_rearm(c);
}

void clock_set_rearm(struct clock *c, void (*rearm)(void *ctx), void *ctx)
{
    c->rearm = rearm;
    c->rearm_ctx = ctx;
}

/* -- The heap ---------------------------------------------------------------------------------- */
static bool before(const struct timer *a, const struct timer *b)
{
    return a->deadline_ns != b->deadline_ns ? a->deadline_ns < b->deadline_ns : a->order < b->order;
}

static void place(struct clock *c, uint32_t i, struct timer *t)
{
    c->heap[i] = t;
    t->heap_index = i;
}

static void sift_up(struct clock *c, uint32_t i, struct timer *t)
{
    for (; i > 0 && before(t, c->heap[(i - 1) / 2]); i = (i - 1) / 2) {
        place(c, i, c->heap[(i - 1) / 2]);
    }
    place(c, i, t);
}

static void sift_down(struct clock *c, uint32_t i, struct timer *t)
{
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= c->count) {
            break;
        }
        if (child + 1 < c->count && before(c->heap[child + 1], c->heap[child])) {
            child++;
        }
        if (!before(c->heap[child], t)) {
            break;
        }
        place(c, i, c->heap[child]);
        i = child;
    }
    place(c, i, t);
}

static void heap_remove(struct clock *c, struct timer *t)
{
    uint32_t i = t->heap_index;
    assert(i < c->count && c->heap[i] == t);
    struct timer *last = c->heap[--c->count];
    if (last != t) {
        if (i > 0 && before(last, c->heap[(i - 1) / 2])) {
            sift_up(c, i, last);
        } else {
            sift_down(c, i, last);
        }
    }
    t->deadline_ns = TIMER_NEVER;
}

/* -- Timers ------------------------------------------------------------------------------------ */
void timer_init(struct timer *t, struct clock *c, timer_fn *fn, void *ctx)
{
    *t = (struct timer){ .clock = c, .fn = fn, .ctx = ctx, .deadline_ns = TIMER_NEVER };
}

void timer_arm(struct timer *t, uint64_t deadline_ns)
{
    struct clock *c = t->clock;
    uint64_t earliest = clock_next_deadline(c);
    timer_cancel(t);
    if (deadline_ns == TIMER_NEVER) {
        return;
    }
    if (c->count == c->capacity) {
        c->capacity = c->capacity != 0 ? 2 * c->capacity : 16;
        c->heap = xrealloc(c->heap, c->capacity * sizeof *c->heap);
    }
    t->deadline_ns = deadline_ns;
    t->order = c->next_order++;
    sift_up(c, c->count++, t);
    if (deadline_ns < earliest) {
        call_rearm(c);
    }
}

void timer_cancel(struct timer *t)
{
    if (timer_armed(t)) {
        heap_remove(t->clock, t);
    }
}

uint64_t clock_next_deadline(struct clock *c)
{
    return c->count != 0 ? c->heap[0]->deadline_ns : TIMER_NEVER;
}

static void fire_due(struct clock *c)
{
    assert(!c->running_due);
    c->running_due = true;
    uint64_t now = clock_now_ns(c);
    for (unsigned fired = 0; fired < MAX_FIRED_PER_RUN && clock_next_deadline(c) <= now; fired++) {
        struct timer *t = c->heap[0];
        heap_remove(c, t);
        t->fn(t->ctx, now);
    }
    c->running_due = false;
}

uint64_t clock_run_due(struct clock *c)
{
    if (is_paused(c)) {
        return TIMER_NEVER; /* a paused machine's state stands still; resume calls rearm */
    }
    fire_due(c);
    return is_paused(c) ? TIMER_NEVER : clock_next_deadline(c);
}

void clock_stop(struct clock *c)
{
    if (!is_paused(c)) {
        clock_pause(c);
        fire_due(c);
    }
}

void clock_step(struct clock *c, uint64_t delta_ns)
{
    assert(c->fake);
    uint64_t end = clock_now_ns(c) + delta_ns;
    while (!is_paused(c) && clock_next_deadline(c) <= end) {
        struct timer *t = c->heap[0];
        uint64_t now = clock_now_ns(c);
        if (t->deadline_ns > now) {
            atomic_fetch_add_explicit(&c->fake_ns, t->deadline_ns - now, memory_order_release);
            now = t->deadline_ns;
        }
        heap_remove(c, t);
        t->fn(t->ctx, now);
    }
    uint64_t now = clock_now_ns(c);
    if (!is_paused(c) && end > now) {
        atomic_fetch_add_explicit(&c->fake_ns, end - now, memory_order_release);
    }
}
