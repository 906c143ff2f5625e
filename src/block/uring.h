/* SPDX-License-Identifier: Apache-2.0
 *
 * Reads and writes of raw images by io_uring, in a build that has liburing and on a host that
 * allows it. Thread: the one that has the machine lock, for all of these.
 */
#ifndef SOSIA_BLOCK_URING_H
#define SOSIA_BLOCK_URING_H

#include <stdbool.h>

#include "block/queue.h"

struct uring;

/* event_fd is borrowed and becomes readable when something is done. NULL: not here. */
struct uring *uring_new(int event_fd);
void uring_free(struct uring *u); /* nothing is in flight */
/* READ or WRITE. False: no room, do it otherwise. */
bool uring_submit(struct uring *u, int fd, struct block_request *r);
/* The next that is done, with what the kernel said in *result: bytes or -errno. NULL: none; with
 * wait, none is in flight. */
struct block_request *uring_next(struct uring *u, bool wait, int *result);

#endif
