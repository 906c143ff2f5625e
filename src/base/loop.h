/* SPDX-License-Identifier: Apache-2.0
 *
 * One thread's event loop: file descriptors (epoll), the VM's clock timers, and calls posted from
 * other threads. Callbacks run with `lock` held (the machine lock, see bus/bus.h), so a device
 * sees at most one caller at a time.
 */
#ifndef SOSIA_BASE_LOOP_H
#define SOSIA_BASE_LOOP_H

#include <pthread.h>
#include <stdint.h>

#include "base/err.h"

struct clock;
struct loop;
struct loop_fd;

enum loop_event { LOOP_READ = 1, LOOP_WRITE = 2, LOOP_HUP = 4 };
typedef void loop_fd_fn(void *ctx, int fd, unsigned events);
typedef void loop_call_fn(void *ctx);

/* clock and lock are borrowed and may be NULL. */
MUST_CHECK int loop_new(struct loop **out, struct clock *clock, pthread_mutex_t *lock);
void loop_free(struct loop *l);

/* [loop], before the loop runs, or with its lock held. The fd stays the caller's to close, after
 * loop_fd_del. A file that cannot be polled (a regular file) counts as always ready. events 0
 * mutes, hang-ups too. NULL with errno when the host refuses. */
struct loop_fd *loop_fd_add(struct loop *l, int fd, unsigned events, loop_fd_fn *fn, void *ctx);
void loop_fd_set(struct loop_fd *f, unsigned events);
void loop_fd_del(struct loop_fd *f);

void loop_post(struct loop *l, loop_call_fn *fn, void *ctx); /* [any]: runs soon on the loop */
/* Until loop_stop, which is for [any] thread. */
void loop_run(struct loop *l);
void loop_stop(struct loop *l);
/* One turn for programs with a loop of their own and for tests: wait at most timeout_ms. */
void loop_turn(struct loop *l, int timeout_ms);

#endif
