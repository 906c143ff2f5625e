/* SPDX-License-Identifier: Apache-2.0
 *
 * epoll for file descriptors, a timerfd for the clock's next deadline, an eventfd for other
 * threads. A file that epoll refuses because it is always ready (a regular file as standard input)
 * is treated as poll(2) does: ready every turn.
 */
#include "base/loop.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"

#define EVENTS_PER_TURN 64

struct loop_fd {
    struct loop *loop;
    int fd;
    unsigned events;
    bool in_epoll;
    bool always_ready; /* epoll answered EPERM */
    bool dead;         /* deleted: freed at the end of a turn */
    loop_fd_fn *fn;
    void *ctx;
    struct loop_fd *next;
};

struct posted {
    loop_call_fn *fn;
    void *ctx;
    struct posted *next;
};

struct loop {
    struct clock *clock;   /* borrowed */
    pthread_mutex_t *lock; /* borrowed: held around every callback */
    int epoll_fd;
    int timer_fd;
    int event_fd;
    struct loop_fd *fds;
    bool in_turn;
    atomic_bool stop;

    pthread_mutex_t post_lock; /* guards the two below */
    struct posted *post_head;
    struct posted **post_tail;
};

static void lock(struct loop *l)
{
    if (l->lock != NULL) {
        int r = pthread_mutex_lock(l->lock);
        assert(r == 0);
        (void)r;
    }
}

static void unlock(struct loop *l)
{
    if (l->lock != NULL) {
        int r = pthread_mutex_unlock(l->lock);
        assert(r == 0);
        (void)r;
    }
}

static void wake(struct loop *l)
{
    uint64_t one = 1;
    ssize_t n = write(l->event_fd, &one, sizeof one); /* EAGAIN: already full, so awake */
    (void)n;
}

/* Sleep until deadline at most. timerfd_settime is thread-safe: a vCPU that arms an earlier timer
 * shortens the sleep without waking the loop. */
static void set_wakeup(struct loop *l, uint64_t deadline_ns)
{
    struct itimerspec its = { 0 }; /* all zero disarms */
    if (deadline_ns != TIMER_NEVER && clock_runs(l->clock)) {
        uint64_t now = clock_now_ns(l->clock);
        uint64_t delta = deadline_ns > now ? deadline_ns - now : 1;
        its.it_value.tv_sec = (time_t)(delta / 1000000000u);
        its.it_value.tv_nsec = (long)(delta % 1000000000u);
    }
    timerfd_settime(l->timer_fd, 0, &its, NULL);
}

static void on_rearm(void *ctx)
{
    struct loop *l = ctx;
    set_wakeup(l, clock_next_deadline(l->clock));
}

static int watch_internal(struct loop *l, int *fd_slot)
{
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = fd_slot };
    return epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, *fd_slot, &ev) < 0 ? -errno : 0;
}

int loop_new(struct loop **out, struct clock *clock, pthread_mutex_t *lock)
{
    struct loop *l = xzalloc(sizeof *l);
    l->clock = clock;
    l->lock = lock;
    l->post_tail = &l->post_head;
    pthread_mutex_init(&l->post_lock, NULL);
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    l->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    l->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    int r = -errno;
    if (l->epoll_fd >= 0 && l->timer_fd >= 0 && l->event_fd >= 0) {
        r = watch_internal(l, &l->timer_fd);
        if (r == 0) {
            r = watch_internal(l, &l->event_fd);
        }
    }
    if (r < 0) {
        loop_free(l);
        return r;
    }
    if (clock != NULL) {
        clock_set_rearm(clock, on_rearm, l);
    }
    *out = l;
    return 0;
}

static void close_if_open(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
}

void loop_free(struct loop *l)
{
    if (l == NULL) {
        return;
    }
    if (l->clock != NULL) {
        clock_set_rearm(l->clock, NULL, NULL);
    }
    while (l->fds != NULL) {
        struct loop_fd *f = l->fds;
        l->fds = f->next;
        free(f);
    }
    while (l->post_head != NULL) {
        struct posted *p = l->post_head;
        l->post_head = p->next;
        free(p);
    }
    close_if_open(l->epoll_fd);
    close_if_open(l->timer_fd);
    close_if_open(l->event_fd);
    pthread_mutex_destroy(&l->post_lock);
    free(l);
}

/* -- File descriptors -------------------------------------------------------------------------- */
/* Make epoll agree with f->events. With no events wanted the fd leaves epoll altogether, which
 * would otherwise report a hang-up for ever. */
static int update_epoll(struct loop_fd *f)
{
    struct epoll_event ev = { .data.ptr = f };
    ev.events = (f->events & LOOP_READ ? (uint32_t)EPOLLIN : 0) |
                (f->events & LOOP_WRITE ? (uint32_t)EPOLLOUT : 0);
    if (f->always_ready) {
        return 0;
    }
    int op = f->in_epoll ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (f->events == 0) {
        if (!f->in_epoll) {
            return 0;
        }
        op = EPOLL_CTL_DEL;
    }
    if (epoll_ctl(f->loop->epoll_fd, op, f->fd, &ev) < 0) {
        if (errno == EPERM && op == EPOLL_CTL_ADD) {
            f->always_ready = true;
            return 0;
        }
        return -errno;
    }
    f->in_epoll = op != EPOLL_CTL_DEL;
    return 0;
}

struct loop_fd *loop_fd_add(struct loop *l, int fd, unsigned events, loop_fd_fn *fn, void *ctx)
{
    struct loop_fd *f = xzalloc(sizeof *f);
    f->loop = l;
    f->fd = fd;
    f->events = events;
    f->fn = fn;
    f->ctx = ctx;
    int r = update_epoll(f);
    if (r < 0) {
        free(f);
        errno = -r;
        return NULL;
    }
    f->next = l->fds;
    l->fds = f;
    wake(l); /* an always-ready file shortens the present sleep */
    return f;
}

void loop_fd_set(struct loop_fd *f, unsigned events)
{
    if (f->events != events) {
        f->events = events;
        int r = update_epoll(f);
        assert(r == 0); /* the fd is open and known: nothing can fail but a caller's early close */
        (void)r;
        if (f->always_ready && events != 0) {
            wake(f->loop);
        }
    }
}

void loop_fd_del(struct loop_fd *f)
{
    if (f == NULL) {
        return;
    }
    assert(!f->dead);
    f->events = 0;
    update_epoll(f);
    f->dead = true; /* an event that epoll_wait has returned already may still name it */
}

static void bury_dead(struct loop *l)
{
    struct loop_fd **at = &l->fds;
    while (*at != NULL) {
        struct loop_fd *f = *at;
        if (f->dead) {
            *at = f->next;
            free(f);
        } else {
            at = &f->next;
        }
    }
}

/* -- Calls from other threads ------------------------------------------------------------------ */
void loop_post(struct loop *l, loop_call_fn *fn, void *ctx)
{
    struct posted *p = xzalloc(sizeof *p);
    p->fn = fn;
    p->ctx = ctx;
    pthread_mutex_lock(&l->post_lock);
    *l->post_tail = p;
    l->post_tail = &p->next;
    pthread_mutex_unlock(&l->post_lock);
    wake(l);
}

static void run_posted(struct loop *l)
{
    pthread_mutex_lock(&l->post_lock);
    struct posted *p = l->post_head;
    l->post_head = NULL;
    l->post_tail = &l->post_head;
    pthread_mutex_unlock(&l->post_lock);
    while (p != NULL) {
        struct posted *next = p->next;
        p->fn(p->ctx);
        free(p);
        p = next;
    }
}

/* -- Turning ----------------------------------------------------------------------------------- */
static void drain(int fd)
{
    uint64_t count;
    ssize_t n = read(fd, &count, sizeof count);
    (void)n;
}

static void dispatch(struct loop_fd *f, uint32_t epoll_events)
{
    unsigned events = (epoll_events & EPOLLIN ? LOOP_READ : 0u) |
                      (epoll_events & EPOLLOUT ? LOOP_WRITE : 0u) |
                      (epoll_events & (EPOLLHUP | EPOLLERR) ? LOOP_HUP : 0u);
    /* An earlier callback of this turn may have muted it. */
    events &= f->events | (f->events != 0 ? LOOP_HUP : 0u);
    if (!f->dead && events != 0) {
        f->fn(f->ctx, f->fd, events);
    }
}

static bool any_always_ready(const struct loop *l)
{
    for (const struct loop_fd *f = l->fds; f != NULL; f = f->next) {
        if (f->always_ready && f->events != 0) {
            return true;
        }
    }
    return false;
}

static void run_timers(struct loop *l)
{
    if (l->clock != NULL) {
        set_wakeup(l, clock_run_due(l->clock));
    }
}

void loop_turn(struct loop *l, int timeout_ms)
{
    lock(l);
    run_timers(l);
    if (any_always_ready(l)) {
        timeout_ms = 0;
    }
    unlock(l);

    struct epoll_event ev[EVENTS_PER_TURN];
    int n = epoll_wait(l->epoll_fd, ev, EVENTS_PER_TURN, timeout_ms);

    lock(l);
    assert(!l->in_turn);
    l->in_turn = true;
    for (int i = 0; i < n; i++) {
        if (ev[i].data.ptr == &l->timer_fd || ev[i].data.ptr == &l->event_fd) {
            drain(*(int *)ev[i].data.ptr);
        } else {
            dispatch(ev[i].data.ptr, ev[i].events);
        }
    }
    for (struct loop_fd *f = l->fds; f != NULL; f = f->next) {
        if (f->always_ready) {
            dispatch(f, EPOLLIN | EPOLLOUT);
        }
    }
    run_posted(l);
    run_timers(l);
    bury_dead(l);
    l->in_turn = false;
    unlock(l);
}

void loop_run(struct loop *l)
{
    while (!atomic_load(&l->stop)) {
        loop_turn(l, -1);
    }
    atomic_store(&l->stop, false);
}

void loop_stop(struct loop *l)
{
    atomic_store(&l->stop, true);
    wake(l);
}
