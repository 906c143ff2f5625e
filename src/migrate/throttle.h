/* SPDX-License-Identifier: Apache-2.0
 *
 * Slowing a VM down that writes its memory faster than it can be sent: all its processors stand for
 * a share of each few milliseconds.
 *
 * Thread: [any], one at a time.
 */
#ifndef SOSIA_MIGRATE_THROTTLE_H
#define SOSIA_MIGRATE_THROTTLE_H

#include <pthread.h>
#include <stdbool.h>

struct machine;

struct throttle {
    struct machine *machine;
    pthread_t thread;
    bool started;
    pthread_mutex_t lock; /* guards the two below, with changed */
    pthread_cond_t changed;
    unsigned percent; /* of the time that they stand, below 100 */
    bool quit;
};

void throttle_init(struct throttle *t, struct machine *m);
void throttle_set(struct throttle *t, unsigned percent);
/* They run as before. */
void throttle_fini(struct throttle *t);

#endif
