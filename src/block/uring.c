/* SPDX-License-Identifier: Apache-2.0 */
#include "block/uring.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"

#ifdef HAVE_LIBURING
#include <liburing.h>

#define ENTRIES 128u
#define INLINE_MAX 65536u /* more is not copied on the thread that asks, which may be a vCPU's */

struct uring {
    struct io_uring ring;
    int event_fd; /* borrowed */
    unsigned busy;
};

struct uring *uring_new(int event_fd)
{
    struct uring *u = xzalloc(sizeof *u);
    if (io_uring_queue_init(ENTRIES, &u->ring, 0) < 0) {
        free(u);
        return NULL;
    }
    u->event_fd = event_fd;
    if (io_uring_register_eventfd(&u->ring, event_fd) < 0) {
        uring_free(u);
        return NULL;
    }
    return u;
}

void uring_free(struct uring *u)
{
    if (u != NULL) {
        io_uring_queue_exit(&u->ring);
        free(u);
    }
}

/* What the kernel does not take now is offered again at the loop's next turn. */
static void hand_over(struct uring *u)
{
    if (io_uring_submit(&u->ring) < 0) {
        uint64_t one = 1;
        ssize_t n = write(u->event_fd, &one, sizeof one);
        (void)n;
    }
}

bool uring_submit(struct uring *u, int fd, struct block_request *r)
{
    struct io_uring_sqe *sqe = u->busy < ENTRIES ? io_uring_get_sqe(&u->ring) : NULL;
    if (sqe == NULL) {
        return false;
    }
    if (r->op == BLOCK_OP_READ && r->iov != NULL) {
        io_uring_prep_readv(sqe, fd, r->iov, r->iov_count, r->offset);
    } else if (r->op == BLOCK_OP_READ) {
        io_uring_prep_read(sqe, fd, r->buf, (unsigned)r->len, r->offset);
    } else if (r->iov != NULL) {
        io_uring_prep_writev(sqe, fd, r->iov, r->iov_count, r->offset);
    } else {
        io_uring_prep_write(sqe, fd, r->buf, (unsigned)r->len, r->offset);
    }
    if (r->len > INLINE_MAX) {
        io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
    }
    io_uring_sqe_set_data(sqe, r);
    u->busy++;
    hand_over(u);
    return true;
}

struct block_request *uring_next(struct uring *u, bool wait, int *result)
{
    struct io_uring_cqe *cqe = NULL;
    if (u->busy == 0) {
        return NULL;
    }
    do {
        if (io_uring_sq_ready(&u->ring) != 0) {
            hand_over(u);
        }
        if (io_uring_peek_cqe(&u->ring, &cqe) != 0 && wait) {
            int r = io_uring_wait_cqe(&u->ring, &cqe);
            (void)r; /* a signal: again */
        }
    } while (wait && cqe == NULL);
    if (cqe == NULL) {
        return NULL;
    }
    struct block_request *r = io_uring_cqe_get_data(cqe);
    *result = cqe->res;
    io_uring_cqe_seen(&u->ring, cqe);
    u->busy--;
    return r;
}

#else

struct uring *uring_new(int event_fd)
{
    (void)event_fd;
    return NULL;
}

void uring_free(struct uring *u) { (void)u; }

bool uring_submit(struct uring *u, int fd, struct block_request *r)
{
    (void)u, (void)fd, (void)r;
    return false;
}

struct block_request *uring_next(struct uring *u, bool wait, int *result)
{
    (void)u, (void)wait, (void)result;
    return NULL;
}

#endif
