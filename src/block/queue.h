/* SPDX-License-Identifier: Apache-2.0
 *
 * Disk requests of devices, done off the vCPU threads: by io_uring where the host allows it and the
 * image is raw, by threads otherwise.
 *
 * Thread: machine lock held for all of these, also in `done`, which runs on the loop.
 */
#ifndef SOSIA_BLOCK_QUEUE_H
#define SOSIA_BLOCK_QUEUE_H

#include "block/block.h"

struct block_queue;
struct loop;

enum block_op { BLOCK_OP_READ, BLOCK_OP_WRITE, BLOCK_OP_FLUSH, BLOCK_OP_DISCARD, BLOCK_OP_ZERO };

/* The caller's until submitted, the queue's until done. READ and WRITE have either a buffer of the
 * caller's own or a vector, whose memory may be a guest's RAM (gmem_views): no byte of it is then
 * looked at twice. */
struct block_request {
    enum block_op op;
    bool may_unmap;  /* ZERO */
    bool fua;        /* WRITE: on the medium when done */
    uint64_t offset; /* bytes */
    uint64_t len;    /* bytes; of the buffer or of the whole vector for READ and WRITE */
    void *buf;
    const struct iovec *iov; /* NULL: buf */
    unsigned iov_count;
    int result; /* 0 or -errno */
    void (*done)(struct block_request *r);
    void *ctx;
    struct block_request *next; /* private to the queue */
};

/* block and loop are borrowed and outlive the queue. */
MUST_CHECK int block_queue_new(struct block_queue **out, struct block *b, struct loop *loop,
                               struct err *e);
/* Drains first. */
void block_queue_free(struct block_queue *q);
/* Requests go to another image from now on. Drained; both images are the caller's. */
void block_queue_set_block(struct block_queue *q, struct block *b);
struct block *block_queue_block(struct block_queue *q);

/* A short read of what the host has in its memory is done at once: waking a thread and the loop
 * costs more than the copy, and the others wait for the machine lock no longer than that. True: it
 * was, result is 0 and done is not called. */
bool block_try(struct block_queue *q, struct block_request *r);
/* done is called later, never from here. */
void block_submit(struct block_queue *q, struct block_request *r);
/* Waits until every request is finished and calls their done functions here: before a reset, a
 * save, an end. The lock stays held. */
void block_queue_drain(struct block_queue *q);

#endif
