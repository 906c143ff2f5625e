/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/output.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"

static void *writer(void *arg)
{
    struct output *o = arg;
    pthread_setname_np(pthread_self(), "output");
    pthread_mutex_lock(&o->lock);
    for (;;) {
        while (o->len == 0 && !o->quit) {
            pthread_cond_wait(&o->changed, &o->lock);
        }
        if (o->quit) {
            break;
        }
        size_t run = OUTPUT_BYTES - o->at < o->len ? OUTPUT_BYTES - o->at : o->len;
        const uint8_t *from = o->ring + o->at;
        o->writing = true;
        pthread_mutex_unlock(&o->lock);
        ssize_t n = write(STDOUT_FILENO, from, run < 65536 ? run : 65536);
        int error = errno;
        pthread_mutex_lock(&o->lock);
        o->writing = false;
        if (n > 0) {
            o->at = (o->at + (size_t)n) % OUTPUT_BYTES;
            o->len -= (size_t)n;
        } else if (n < 0 && error == EAGAIN) {
            /* Somebody else made our terminal non-blocking. */
            pthread_mutex_unlock(&o->lock);
            nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
            pthread_mutex_lock(&o->lock);
        } else if (n < 0 && error != EINTR) {
            o->error = error;
            o->len = 0;
            const uint64_t one = 1;
            ssize_t w = write(o->event_fd, &one, sizeof one);
            (void)w;
        }
        pthread_cond_broadcast(&o->changed);
    }
    pthread_mutex_unlock(&o->lock);
    return NULL;
}

int output_init(struct output *o, int event_fd, struct err *e)
{
    memset(o, 0, sizeof *o);
    o->event_fd = event_fd;
    o->ring = xzalloc(OUTPUT_BYTES);
    pthread_mutex_init(&o->lock, NULL);
    pthread_cond_init(&o->changed, NULL);
    int r = pthread_create(&o->thread, NULL, writer, o);
    if (r != 0) {
        free(o->ring);
        return err_set(e, -r, "cannot start a thread: %s", strerror(r));
    }
    return 0;
}

static struct timespec deadline(int ms)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_sec += ms / 1000;
    t.tv_nsec += ms % 1000 * 1000000L;
    if (t.tv_nsec >= 1000000000L) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000L;
    }
    return t;
}

void output_put(struct output *o, const void *data, size_t len)
{
    const uint8_t *bytes = data;
    pthread_mutex_lock(&o->lock);
    while (len != 0 && o->error == 0 && !o->quit) {
        if (o->len == OUTPUT_BYTES) {
            /* A reader that is merely slow gets everything; one that stopped loses it. */
            struct timespec until = deadline(100);
            if (pthread_cond_timedwait(&o->changed, &o->lock, &until) != 0) {
                break;
            }
            continue;
        }
        size_t end = (o->at + o->len) % OUTPUT_BYTES;
        size_t run = OUTPUT_BYTES - o->len < OUTPUT_BYTES - end ? OUTPUT_BYTES - o->len
                                                                : OUTPUT_BYTES - end;
        run = run < len ? run : len;
        memcpy(o->ring + end, bytes, run);
        o->len += run;
        bytes += run;
        len -= run;
        pthread_cond_broadcast(&o->changed);
    }
    pthread_mutex_unlock(&o->lock);
}

void output_drain(struct output *o, int patience_ms)
{
    pthread_mutex_lock(&o->lock);
    while ((o->len != 0 || o->writing) && o->error == 0) {
        size_t before = o->len;
        struct timespec until = deadline(patience_ms);
        int r = pthread_cond_timedwait(&o->changed, &o->lock, &until);
        if (r != 0 && o->len == before) {
            break;
        }
    }
    pthread_mutex_unlock(&o->lock);
}

int output_error(struct output *o)
{
    pthread_mutex_lock(&o->lock);
    int error = o->error;
    pthread_mutex_unlock(&o->lock);
    return error;
}

bool output_fini(struct output *o)
{
    pthread_mutex_lock(&o->lock);
    o->quit = true;
    bool stuck = o->writing;
    pthread_cond_broadcast(&o->changed);
    pthread_mutex_unlock(&o->lock);
    if (stuck) {
        /* Inside a write that nobody may ever read: the process ends without it. */
        pthread_detach(o->thread);
        return false;
    }
    pthread_join(o->thread, NULL);
    pthread_mutex_destroy(&o->lock);
    pthread_cond_destroy(&o->changed);
    free(o->ring);
    return true;
}
