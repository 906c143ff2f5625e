/* SPDX-License-Identifier: Apache-2.0 */
// LAYERS: base
#include "support/test.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/bits.h"
#include "base/clock.h"

#define MANY 500u

struct firing {
    struct timer t;
    int id;
    uint64_t period_ns; /* 0: one shot */
};

struct record {
    int id[4096];
    uint64_t now[4096];
    unsigned count;
};

static struct record rec;

static void note(void *ctx, uint64_t now_ns)
{
    struct firing *f = ctx;
    assert_true(rec.count < ARRAY_LEN(rec.id));
    rec.id[rec.count] = f->id;
    rec.now[rec.count++] = now_ns;
    if (f->period_ns != 0) {
        timer_arm(&f->t, now_ns + f->period_ns);
    }
}

static void start(struct firing *f, struct clock *c, int id)
{
    f->id = id;
    f->period_ns = 0;
    timer_init(&f->t, c, note, f);
    rec.count = 0;
}

static void steps_in_deadline_order(void **state)
{
    (void)state;
    struct clock *c = clock_new_fake();
    struct firing a, b, d;
    start(&a, c, 1);
    start(&b, c, 2);
    start(&d, c, 3);
    timer_arm(&a.t, 300);
    timer_arm(&b.t, 100);
    timer_arm(&d.t, 200);
    assert_int_equal(clock_next_deadline(c), 100);
    clock_step(c, 99);
    assert_int_equal(rec.count, 0);
    clock_step(c, 1);
    assert_int_equal(rec.count, 1);
    clock_step(c, 1000);
    assert_int_equal(rec.count, 3);
    assert_int_equal(rec.id[1], 3);
    assert_int_equal(rec.now[1], 200);
    assert_int_equal(rec.id[2], 1);
    assert_int_equal(rec.now[2], 300);
    assert_int_equal(clock_now_ns(c), 1100);
    assert_true(clock_next_deadline(c) == TIMER_NEVER);
    clock_free(c);
}

static void equal_deadlines_fire_as_armed(void **state)
{
    (void)state;
    struct clock *c = clock_new_fake();
    static struct firing f[50];
    for (int i = 0; i < 50; i++) {
        start(&f[i], c, i);
    }
    for (int i = 0; i < 50; i++) {
        timer_arm(&f[(i * 7) % 50].t, 10);
    }
    clock_step(c, 10);
    assert_int_equal(rec.count, 50);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(rec.id[i], (i * 7) % 50);
    }
    clock_free(c);
}

static void periodic_sees_each_deadline(void **state)
{
    (void)state;
    struct clock *c = clock_new_fake();
    struct firing f;
    start(&f, c, 1);
    f.period_ns = 10;
    timer_arm(&f.t, 10);
    clock_step(c, 105);
    assert_int_equal(rec.count, 10);
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(rec.now[i], 10 * (i + 1));
    }
    timer_cancel(&f.t);
    timer_cancel(&f.t);
    assert_false(timer_armed(&f.t));
    clock_step(c, 1000);
    assert_int_equal(rec.count, 10);
    clock_free(c);
}

/* The heap against a plain search, under random arming, moving and cancelling. */
static void heap_matches_a_model(void **state)
{
    (void)state;
    struct clock *c = clock_new_fake();
    static struct firing f[MANY];
    uint64_t seed = 42;
    for (unsigned i = 0; i < MANY; i++) {
        start(&f[i], c, (int)i);
    }
    for (unsigned round = 0; round < 20000; round++) {
        struct firing *one = &f[test_random(&seed) % MANY];
        if (test_random(&seed) % 3 == 0) {
            timer_cancel(&one->t);
        } else {
            timer_arm(&one->t, clock_now_ns(c) + test_random(&seed) % 1000);
        }
        uint64_t least = TIMER_NEVER;
        for (unsigned i = 0; i < MANY; i++) {
            least = f[i].t.deadline_ns < least ? f[i].t.deadline_ns : least;
        }
        assert_true(clock_next_deadline(c) == least);
        if (round % 16 == 0) {
            rec.count = 0;
            clock_step(c, test_random(&seed) % 50);
            for (unsigned i = 1; i < rec.count; i++) {
                assert_true(rec.now[i - 1] <= rec.now[i]);
            }
        }
    }
    clock_free(c);
}

static void paused_time_stands_still(void **state)
{
    (void)state;
    struct clock *c = clock_new_fake();
    struct firing f;
    start(&f, c, 1);
    timer_arm(&f.t, 100);
    clock_step(c, 50);
    clock_pause(c);
    clock_pause(c);
    clock_step(c, 1000);
    assert_int_equal(clock_now_ns(c), 50);
    assert_int_equal(rec.count, 0);
    assert_true(clock_run_due(c) == TIMER_NEVER);
    clock_set_now(c, 60);
    assert_int_equal(clock_now_ns(c), 60);
    clock_resume(c);
    assert_int_equal(clock_now_ns(c), 60);
    clock_step(c, 40);
    assert_int_equal(rec.count, 1);
    assert_int_equal(rec.now[0], 100);
    clock_free(c);
}

static uint64_t host_ns;
static uint64_t test_source(void *ctx)
{
    (void)ctx;
    return host_ns;
}

static void stopping_fires_what_is_due(void **state)
{
    (void)state;
    host_ns = 0;
    struct clock *c = clock_new(test_source, NULL);
    struct firing f, g;
    start(&f, c, 1);
    start(&g, c, 2);
    timer_arm(&f.t, 100);
    timer_arm(&g.t, 201);
    host_ns = 200; /* and no clock_run_due since 100 */
    clock_stop(c);
    assert_int_equal(rec.count, 1);
    assert_int_equal(rec.now[0], 200);
    host_ns = 300;
    clock_stop(c);
    assert_int_equal(rec.count, 1);
    assert_int_equal(clock_now_ns(c), 200);
    clock_resume(c);
    host_ns = 301;
    assert_true(clock_run_due(c) == TIMER_NEVER);
    assert_int_equal(rec.count, 2);
    clock_free(c);
}

static unsigned rearmed;
static void count_rearm(void *ctx)
{
    (void)ctx;
    rearmed++;
}

static void real_clock_excludes_pauses_and_rearms(void **state)
{
    (void)state;
    host_ns = 1000000;
    struct clock *c = clock_new(test_source, NULL);
    struct firing f, g;
    start(&f, c, 1);
    start(&g, c, 2);
    rearmed = 0;
    clock_set_rearm(c, count_rearm, NULL);
    assert_int_equal(clock_now_ns(c), 0);
    assert_true(clock_runs(c));
    host_ns += 500;
    assert_int_equal(clock_now_ns(c), 500);
    clock_pause(c);
    assert_false(clock_runs(c));
    host_ns += 10000;
    assert_int_equal(clock_now_ns(c), 500);
    clock_resume(c);
    assert_int_equal(rearmed, 1);
    assert_int_equal(clock_now_ns(c), 500);

    timer_arm(&f.t, 1000);
    assert_int_equal(rearmed, 2);
    timer_arm(&g.t, 2000); /* later than the earliest: no need to wake anybody */
    assert_int_equal(rearmed, 2);
    timer_arm(&g.t, 700);
    assert_int_equal(rearmed, 3);
    assert_int_equal(clock_run_due(c), 700);
    host_ns += 300;
    assert_int_equal(clock_run_due(c), 1000);
    assert_int_equal(rec.count, 1);
    assert_int_equal(rec.now[0], 800);
    f.period_ns = 50; /* re-arms from inside: run_due returns it, no rearm call */
    host_ns += 250;
    assert_int_equal(clock_run_due(c), 1100);
    assert_int_equal(rearmed, 3);
    clock_free(c);
}

static void always_due(void *ctx, uint64_t now_ns)
{
    struct firing *f = ctx;
    rec.count++;
    timer_arm(&f->t, now_ns);
}

static void a_run_is_bounded(void **state)
{
    (void)state;
    struct clock *c = clock_new(test_source, NULL);
    struct firing f;
    start(&f, c, 1);
    timer_init(&f.t, c, always_due, &f);
    timer_arm(&f.t, 0);
    assert_int_equal(clock_run_due(c), 0);
    assert_true(rec.count > 0 && rec.count <= 100000);
    clock_free(c);
}

static _Atomic bool stop_reading;
static void *read_clock(void *arg)
{
    struct clock *c = arg;
    uint64_t last = 0;
    while (!atomic_load(&stop_reading)) {
        uint64_t now = clock_now_ns(c);
        if (now < last || now > 1000000000000ull) {
            return (void *)1; /* backwards, or below zero and wrapped */
        }
        last = now;
    }
    return NULL;
}

static void now_is_monotonic_across_pauses(void **state)
{
    (void)state;
    struct clock *c = clock_new(NULL, NULL);
    pthread_t thread;
    atomic_store(&stop_reading, false);
    assert_int_equal(pthread_create(&thread, NULL, read_clock, c), 0);
    for (int i = 0; i < 20000; i++) {
        clock_pause(c);
        clock_resume(c);
    }
    atomic_store(&stop_reading, true);
    void *wrong;
    pthread_join(thread, &wrong);
    assert_null(wrong);
    clock_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_in_deadline_order),
        cmocka_unit_test(equal_deadlines_fire_as_armed),
        cmocka_unit_test(periodic_sees_each_deadline),
        cmocka_unit_test(heap_matches_a_model),
        cmocka_unit_test(paused_time_stands_still),
        cmocka_unit_test(stopping_fires_what_is_due),
        cmocka_unit_test(real_clock_excludes_pauses_and_rearms),
        cmocka_unit_test(a_run_is_bounded),
        cmocka_unit_test(now_is_monotonic_across_pauses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
