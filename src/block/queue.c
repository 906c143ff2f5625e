/* SPDX-License-Identifier: Apache-2.0
 *
 * Worker threads take requests in order of arrival and finish them in any; an eventfd brings the
 * finished ones back to the loop. Reads and writes of a raw image go to the kernel's ring instead,
 * where there is one; what it does not do completely, a thread does again.
 */
#include "block/queue.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/loop.h"
#include "block/internal.h"
#include "block/uring.h"

#define WORKERS_MAX 8u
#define TRY_MAX KIB(64)

struct request_list {
    struct block_request *head;
    struct block_request *tail;
};

struct block_queue {
    struct block *block;    /* borrowed */
    struct loop_fd *wakeup; /* on event_fd */
    struct uring *uring;    /* NULL: threads do it all */
    int event_fd;

    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t work;  /* waiting grew, or quit */
    pthread_cond_t idle;  /* busy fell to 0 */
    struct request_list waiting;
    struct request_list finished;
    unsigned busy; /* submitted, not in finished yet */
    unsigned workers;
    bool quit;
    pthread_t threads[WORKERS_MAX];
};

static void push(struct request_list *l, struct block_request *r)
{
    r->next = NULL;
    if (l->head == NULL) {
        l->head = r;
    } else {
        l->tail->next = r;
    }
    l->tail = r;
}

static struct block_request *pop(struct request_list *l)
{
    struct block_request *r = l->head;
    if (r != NULL) {
        l->head = r->next;
    }
    return r;
}

static int perform(struct block *b, const struct block_request *r)
{
    int result;
    switch (r->op) {
    case BLOCK_OP_READ:
        return r->iov != NULL ? block_readv(b, r->offset, r->iov, (int)r->iov_count)
                              : block_read(b, r->offset, r->buf, r->len);
    case BLOCK_OP_WRITE:
        result = r->iov != NULL ? block_writev(b, r->offset, r->iov, (int)r->iov_count)
                                : block_write(b, r->offset, r->buf, r->len);
        return result == 0 && r->fua ? block_flush(b) : result;
    case BLOCK_OP_FLUSH:
        return block_flush(b);
    case BLOCK_OP_DISCARD:
        return block_discard(b, r->offset, r->len);
    case BLOCK_OP_ZERO:
        result = block_write_zeroes(b, r->offset, r->len, r->may_unmap);
        return result == 0 && r->fua ? block_flush(b) : result;
    }
    return -EINVAL;
}

static void *worker(void *ctx)
{
    struct block_queue *q = ctx;
    pthread_mutex_lock(&q->lock);
    for (;;) {
        struct block_request *r = pop(&q->waiting);
        if (r == NULL) {
            if (q->quit) {
                break;
            }
            pthread_cond_wait(&q->work, &q->lock);
            continue;
        }
        pthread_mutex_unlock(&q->lock);
        r->result = perform(q->block, r);
        pthread_mutex_lock(&q->lock);
        if (q->finished.head == NULL) {
            uint64_t one = 1;
            ssize_t n = write(q->event_fd, &one, sizeof one); /* EAGAIN: already full, so awake */
            (void)n;
        }
        push(&q->finished, r);
        if (--q->busy == 0) {
            pthread_cond_broadcast(&q->idle);
        }
    }
    pthread_mutex_unlock(&q->lock);
    return NULL;
}

static void to_threads(struct block_queue *q, struct block_request *r);

/* What the ring has done. */
static bool reap(struct block_queue *q, bool wait)
{
    bool any = false;
    int n;
    struct block_request *r;
    while (q->uring != NULL && (r = uring_next(q->uring, wait && !any, &n)) != NULL) {
        any = true;
        if (n < 0 || (uint64_t)n != r->len) {
            to_threads(q, r); /* cut short, or cannot be done this way: they have the last word */
            continue;
        }
        r->result = 0;
        pthread_mutex_lock(&q->lock);
        push(&q->finished, r);
        pthread_mutex_unlock(&q->lock);
    }
    return any;
}

/* Calls the done functions of what is finished now; those may submit again. */
static bool deliver(struct block_queue *q)
{
    reap(q, false);
    pthread_mutex_lock(&q->lock);
    struct request_list done = q->finished;
    q->finished.head = NULL;
    pthread_mutex_unlock(&q->lock);
    bool any = done.head != NULL;
    for (struct block_request *r = pop(&done); r != NULL; r = pop(&done)) {
        r->done(r);
    }
    return any;
}

static void on_finished(void *ctx, int fd, unsigned events)
{
    uint64_t count;
    (void)events;
    ssize_t n = read(fd, &count, sizeof count); /* EAGAIN: a drain was faster */
    (void)n;
    deliver(ctx);
}

/* Signals are the business of the threads that wait for them. */
static int start_worker(struct block_queue *q)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = -pthread_create(&q->threads[q->workers], NULL, worker, q);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r == 0) {
        q->workers++;
    }
    return r;
}

int block_queue_new(struct block_queue **out, struct block *b, struct loop *loop, struct err *e)
{
    struct block_queue *q = xzalloc(sizeof *q);
    q->block = b;
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->work, NULL);
    pthread_cond_init(&q->idle, NULL);
    int r = 0;
    q->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (q->event_fd < 0) {
        r = -errno;
    } else {
        q->wakeup = loop_fd_add(loop, q->event_fd, LOOP_READ, on_finished, q);
        r = q->wakeup == NULL ? -errno : start_worker(q);
    }
    if (r == 0) {
        q->uring = block_raw_fd(b, NULL) >= 0 ? uring_new(q->event_fd) : NULL;
    }
    if (r < 0) {
        block_queue_free(q);
        return err_set(e, r, "%s: no thread for disk requests: %s", block_path(b), strerror(-r));
    }
    *out = q;
    return 0;
}

void block_queue_free(struct block_queue *q)
{
    if (q == NULL) {
        return;
    }
    block_queue_drain(q);
    pthread_mutex_lock(&q->lock);
    q->quit = true;
    pthread_cond_broadcast(&q->work);
    pthread_mutex_unlock(&q->lock);
    for (unsigned i = 0; i < q->workers; i++) {
        pthread_join(q->threads[i], NULL);
    }
    if (q->wakeup != NULL) {
        loop_fd_del(q->wakeup);
    }
    if (q->event_fd >= 0) {
        close(q->event_fd);
    }
    uring_free(q->uring);
    pthread_cond_destroy(&q->work);
    pthread_cond_destroy(&q->idle);
    pthread_mutex_destroy(&q->lock);
    free(q);
}

void block_queue_set_block(struct block_queue *q, struct block *b)
{
    pthread_mutex_lock(&q->lock);
    q->block = b;
    pthread_mutex_unlock(&q->lock);
}

struct block *block_queue_block(struct block_queue *q) { return q->block; }

static void to_threads(struct block_queue *q, struct block_request *r)
{
    pthread_mutex_lock(&q->lock);
    push(&q->waiting, r);
    q->busy++;
    pthread_cond_signal(&q->work);
    if (q->workers < WORKERS_MAX && q->busy > q->workers) {
        /* Without another thread the ones there are will come to it. */
        int failed = start_worker(q);
        (void)failed;
    }
    pthread_mutex_unlock(&q->lock);
}

bool block_try(struct block_queue *q, struct block_request *r)
{
    struct iovec buf = { r->buf, r->len };
    const struct iovec *iov = r->iov != NULL ? r->iov : &buf;
    int count = r->iov != NULL ? (int)r->iov_count : 1;
    r->result = 0;
    return r->op == BLOCK_OP_READ && r->len <= TRY_MAX &&
           block_readv_cached(q->block, r->offset, iov, count) == 0;
}

void block_submit(struct block_queue *q, struct block_request *r)
{
    int fd = q->uring != NULL ? block_raw_fd(q->block, r) : -1;
    if (fd < 0 || !uring_submit(q->uring, fd, r)) {
        to_threads(q, r);
    }
}

void block_queue_drain(struct block_queue *q)
{
    do {
        while (reap(q, true)) {
        }
        pthread_mutex_lock(&q->lock);
        while (q->busy != 0) {
            pthread_cond_wait(&q->idle, &q->lock);
        }
        pthread_mutex_unlock(&q->lock);
    } while (deliver(q));
}
