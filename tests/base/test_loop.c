/* SPDX-License-Identifier: Apache-2.0 */
// LAYERS: base
#include "support/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/loop.h"

struct watcher {
    struct loop *loop;
    struct loop_fd *self;
    struct watcher *victim; /* deleted from inside the callback */
    unsigned events;
    unsigned calls;
    char last;
};

static void on_fd(void *ctx, int fd, unsigned events)
{
    struct watcher *w = ctx;
    w->calls++;
    w->events |= events;
    if (events & LOOP_READ) {
        ssize_t n = read(fd, &w->last, 1);
        (void)n;
    }
    if (w->victim != NULL) {
        loop_fd_del(w->victim->self);
        w->victim->victim = NULL;
        w->victim = NULL;
    }
}

static void watch(struct watcher *w, struct loop *l, int fd, unsigned events)
{
    memset(w, 0, sizeof *w);
    w->loop = l;
    w->self = loop_fd_add(l, fd, events, on_fd, w);
    assert_non_null(w->self);
}

static void pipes_are_read_muted_and_hung_up(void **state)
{
    (void)state;
    struct loop *l;
    int fds[2];
    struct watcher w;
    assert_int_equal(loop_new(&l, NULL, NULL), 0);
    assert_int_equal(pipe(fds), 0);
    watch(&w, l, fds[0], LOOP_READ);
    loop_turn(l, 0);
    assert_int_equal(w.calls, 0);
    assert_int_equal(write(fds[1], "xy", 2), 2);
    loop_turn(l, 1000);
    assert_int_equal(w.calls, 1);
    assert_int_equal(w.last, 'x');
    loop_fd_set(w.self, 0);
    loop_turn(l, 0);
    assert_int_equal(w.calls, 1);
    loop_fd_set(w.self, LOOP_READ);
    loop_turn(l, 1000);
    assert_int_equal(w.last, 'y');
    close(fds[1]);
    loop_turn(l, 1000);
    assert_true(w.events & LOOP_HUP);
    loop_fd_set(w.self, 0); /* muted: a hang-up does not spin */
    unsigned calls = w.calls;
    loop_turn(l, 0);
    assert_int_equal(w.calls, calls);
    loop_fd_del(w.self);
    loop_turn(l, 0);
    close(fds[0]);
    loop_free(l);
}

static void a_callback_deletes_another(void **state)
{
    (void)state;
    struct loop *l;
    int a[2], b[2];
    struct watcher wa, wb;
    assert_int_equal(loop_new(&l, NULL, NULL), 0);
    assert_int_equal(pipe(a), 0);
    assert_int_equal(pipe(b), 0);
    watch(&wa, l, a[0], LOOP_READ);
    watch(&wb, l, b[0], LOOP_READ);
    wa.victim = &wb;
    wb.victim = &wa;
    assert_int_equal(write(a[1], "x", 1), 1);
    assert_int_equal(write(b[1], "x", 1), 1);
    loop_turn(l, 1000);
    loop_turn(l, 0);
    assert_int_equal(wa.calls + wb.calls, 1); /* whichever came first silenced the other */
    loop_free(l);
    close(a[0]);
    close(a[1]);
    close(b[0]);
    close(b[1]);
}

static void regular_files_are_always_ready(void **state)
{
    (void)state;
    struct loop *l;
    FILE *f = tmpfile();
    assert_non_null(f);
    assert_int_equal(write(fileno(f), "abc", 3), 3);
    lseek(fileno(f), 0, SEEK_SET);
    struct watcher w;
    assert_int_equal(loop_new(&l, NULL, NULL), 0);
    watch(&w, l, fileno(f), LOOP_READ);
    loop_turn(l, 5000);
    loop_turn(l, 5000);
    assert_int_equal(w.calls, 2);
    assert_int_equal(w.last, 'b');
    loop_fd_del(w.self);
    loop_free(l);
    fclose(f);
}

static void bad_fd_is_refused(void **state)
{
    (void)state;
    struct loop *l;
    assert_int_equal(loop_new(&l, NULL, NULL), 0);
    assert_null(loop_fd_add(l, 4000, LOOP_READ, on_fd, NULL));
    loop_free(l);
}

static void stop_loop(void *ctx, uint64_t now_ns)
{
    (void)now_ns;
    loop_stop(ctx);
}

static void timers_wake_the_loop(void **state)
{
    (void)state;
    struct clock *c = clock_new(NULL, NULL);
    struct loop *l;
    struct timer t;
    assert_int_equal(loop_new(&l, c, NULL), 0);
    timer_init(&t, c, stop_loop, l);
    timer_arm(&t, clock_now_ns(c) + 20000000);
    loop_run(l);
    uint64_t now = clock_now_ns(c);
    assert_true(now >= 20000000);
    assert_true(now < 5000000000u);
    loop_free(l);
    clock_free(c);
}

struct poster {
    struct loop *loop;
    struct clock *clock;
    pthread_mutex_t *lock;
    struct timer timer;
    int posted[1000];
    unsigned count;
};

struct call {
    struct poster *p;
    int n;
};
static struct call calls[1000];

static void on_post(void *ctx)
{
    struct call *call = ctx;
    assert_int_not_equal(pthread_mutex_trylock(call->p->lock), 0); /* the loop holds it */
    call->p->posted[call->p->count++] = call->n;
}

static void *post_then_arm(void *arg)
{
    struct poster *p = arg;
    for (int i = 0; i < 1000; i++) {
        calls[i] = (struct call){ p, i };
        loop_post(p->loop, on_post, &calls[i]);
    }
    /* The loop sleeps without a deadline by now, or soon: arming from here must reach it. */
    struct timespec ts = { .tv_nsec = 20000000 };
    nanosleep(&ts, NULL);
    pthread_mutex_lock(p->lock);
    timer_arm(&p->timer, clock_now_ns(p->clock) + 1000000);
    pthread_mutex_unlock(p->lock);
    return NULL;
}

static void other_threads_post_and_arm(void **state)
{
    (void)state;
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static struct poster p;
    p = (struct poster){ .clock = clock_new(NULL, NULL), .lock = &lock };
    assert_int_equal(loop_new(&p.loop, p.clock, &lock), 0);
    timer_init(&p.timer, p.clock, stop_loop, p.loop);
    pthread_t thread;
    pthread_create(&thread, NULL, post_then_arm, &p);
    loop_run(p.loop);
    pthread_join(thread, NULL);
    assert_int_equal(p.count, 1000);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(p.posted[i], i);
    }
    loop_free(p.loop);
    clock_free(p.clock);
}

static void a_fake_clock_does_not_spin(void **state)
{
    (void)state;
    struct clock *c = clock_new_fake();
    struct loop *l;
    struct timer t;
    assert_int_equal(loop_new(&l, c, NULL), 0);
    timer_init(&t, c, stop_loop, l);
    timer_arm(&t, 10);
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    loop_turn(l, 30);
    clock_gettime(CLOCK_MONOTONIC, &b);
    assert_true((b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000 >= 20);
    assert_true(timer_armed(&t));
    loop_free(l);
    clock_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pipes_are_read_muted_and_hung_up),
        cmocka_unit_test(a_callback_deletes_another),
        cmocka_unit_test(regular_files_are_always_ready),
        cmocka_unit_test(bad_fd_is_refused),
        cmocka_unit_test(timers_wake_the_loop),
        cmocka_unit_test(other_threads_post_and_arm),
        cmocka_unit_test(a_fake_clock_does_not_spin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
