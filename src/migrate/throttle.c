/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/throttle.h"

#include <string.h>
#include <time.h>

#include "base/log.h"
#include "machine/machine.h"

#define RUN_MS 10u /* at a time; how long they stand follows from that */

void throttle_init(struct throttle *t, struct machine *m)
{
    pthread_condattr_t monotonic;
    memset(t, 0, sizeof *t);
    t->machine = m;
    pthread_mutex_init(&t->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&t->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

/* False: it is over. Lock held. */
static bool rest(struct throttle *t, unsigned ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)ms * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    while (!t->quit && pthread_cond_timedwait(&t->changed, &t->lock, &until) == 0) {
    }
    return !t->quit;
}

static void *throttle_main(void *arg)
{
    struct throttle *t = arg;
    pthread_setname_np(pthread_self(), "throttle");
    pthread_mutex_lock(&t->lock);
    do {
        machine_hold(t->machine, HOLD_THROTTLE);
        bool go_on = rest(t, RUN_MS * t->percent / (100 - t->percent));
        machine_release(t->machine, HOLD_THROTTLE);
        if (!go_on) {
            break;
        }
    } while (rest(t, RUN_MS));
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

void throttle_set(struct throttle *t, unsigned percent)
{
    pthread_mutex_lock(&t->lock);
    t->percent = percent;
    pthread_mutex_unlock(&t->lock);
    if (!t->started) {
        t->started = pthread_create(&t->thread, NULL, throttle_main, t) == 0;
        if (!t->started) {
            log_warn("no thread to slow the VM down with");
        }
    }
}

void throttle_fini(struct throttle *t)
{
    pthread_mutex_lock(&t->lock);
    t->quit = true;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->lock);
    if (t->started) {
        pthread_join(t->thread, NULL);
    }
    pthread_cond_destroy(&t->changed);
    pthread_mutex_destroy(&t->lock);
}
