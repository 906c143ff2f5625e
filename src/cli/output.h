/* SPDX-License-Identifier: Apache-2.0
 *
 * Guest console output to standard output, by a thread of its own, so that a slow reader stops
 * neither the guest's other business nor the keys that quit.
 */
#ifndef SOSIA_CLI_OUTPUT_H
#define SOSIA_CLI_OUTPUT_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define OUTPUT_BYTES (4u << 20)

struct output {
    pthread_t thread;
    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t changed;
    uint8_t *ring;
    size_t at, len;
    bool writing; /* the thread is inside write(2) */
    bool quit;
    int error; /* errno of a failed write: nothing is written any more */
    int event_fd; /* borrowed: tells of a failure */
};

MUST_CHECK int output_init(struct output *o, int event_fd, struct err *e);
/* Waits while the ring is full and its reader still reads. [any] */
void output_put(struct output *o, const void *data, size_t len);
/* Everything is written, or nothing moved for patience_ms. */
void output_drain(struct output *o, int patience_ms);
int output_error(struct output *o);
/* What is not written by now is lost. False: the thread is stuck in a write, and *o must stay. */
bool output_fini(struct output *o);

#endif
