/* SPDX-License-Identifier: Apache-2.0
 *
 * The control socket's clients. What a client does not read waits here up to a bound: replies then
 * wait unread commands at the client's end, and events end the connection.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/api.h"
#include "api/events.h"
#include "api/frame.h"
#include "api/names.h"
#include "api/qmp.h"
#include "base/alloc.h"
#include "base/loop.h"
#include "base/unixsock.h"
#include "machine/events.h"

enum {
    CLIENTS_MAX = 32,
    BACKLOG = 8,
    OUT_PAUSE = 1 << 20, /* bytes not read: no more commands are taken */
    OUT_MAX = 4 << 20,   /* bytes not read: the client is given up */
    LAST_WORDS_MS = 500,
};

struct client {
    struct api *api;
    int fd;
    struct loop_fd *watch;
    struct frame frame;
    struct qmp qmp;
    char *out; /* owned */
    size_t out_at, out_len, out_cap;
    bool ending; /* nothing is read any more; closed when all is sent */
    struct client *next;
};

struct listener {
    int fd;
    struct loop_fd *watch;
    char path[API_PATH_MAX];
};

struct api {
    struct machine *machine; /* borrowed */
    char *name;              /* owned; or NULL */
    struct loop *loop;
    pthread_t thread;
    bool thread_started;
    struct machine_listener events;
    struct listener listener[2];
    unsigned listeners;
    struct client *clients; /* owned */
    unsigned client_count;
    struct api_migration migration;
};

const char *api_vm_name(const struct api *a) { return a->name; }
struct api_migration *api_migration(struct api *a) { return &a->migration; }

/* -- Clients ----------------------------------------------------------------------------------- */
static void listen_again(struct api *a)
{
    for (unsigned i = 0; i < a->listeners; i++) {
        loop_fd_set(a->listener[i].watch, a->client_count < CLIENTS_MAX ? LOOP_READ : 0);
    }
}

static void free_client(struct client *c)
{
    struct api *a = c->api;
    struct client **at = &a->clients;
    while (*at != c) {
        at = &(*at)->next;
    }
    *at = c->next;
    a->client_count--;
    loop_fd_del(c->watch);
    close(c->fd);
    frame_fini(&c->frame);
    free(c->out);
    free(c);
}

static void watch_again(struct client *c)
{
    bool reads = !c->ending && c->out_len < OUT_PAUSE;
    loop_fd_set(c->watch, (reads ? LOOP_READ : 0) | (c->out_len != 0 ? LOOP_WRITE : 0));
}

/* False: there is nobody any more. */
static bool flush(struct client *c)
{
    while (c->out_len != 0) {
        ssize_t n = send(c->fd, c->out + c->out_at, c->out_len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0) {
            return errno == EAGAIN || errno == EINTR;
        }
        c->out_at += (size_t)n;
        c->out_len -= (size_t)n;
    }
    c->out_at = 0;
    return true;
}

/* Takes the line. */
static void put_line(struct client *c, char *line)
{
    size_t len = strlen(line);
    if (c->out_at != 0) {
        memmove(c->out, c->out + c->out_at, c->out_len);
        c->out_at = 0;
    }
    if (c->out_len + len > c->out_cap) {
        c->out_cap = 2 * (c->out_len + len);
        c->out = xrealloc(c->out, c->out_cap);
    }
    memcpy(c->out + c->out_len, line, len);
    c->out_len += len;
    free(line);
}

static void take_bytes(struct client *c, const uint8_t *data, size_t len)
{
    const uint8_t *end = data + len;
    for (;;) {
        switch (frame_take(&c->frame, &data, end)) {
        case FRAME_MORE:
            return;
        case FRAME_TEXT:
            put_line(c, qmp_answer(&c->qmp, c->frame.text, c->frame.len));
            break;
        case FRAME_TOO_LONG:
            put_line(c, qmp_error_line("JSON parse error, a message is too long"));
            c->ending = true;
            return;
        case FRAME_TOO_DEEP:
            put_line(c, qmp_error_line("JSON parse error, a message is nested too deeply"));
            c->ending = true;
            return;
        }
    }
}

static void on_client(void *ctx, int fd, unsigned events)
{
    struct client *c = ctx;
    uint8_t buf[4096];
    if ((events & (LOOP_READ | LOOP_HUP)) && !c->ending) {
        ssize_t n = recv(fd, buf, sizeof buf, MSG_DONTWAIT);
        if (n > 0) {
            take_bytes(c, buf, (size_t)n);
        } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
            c->ending = true; /* it may still read what it asked for */
        }
    }
    if (!flush(c) || (c->ending && c->out_len == 0)) {
        struct api *a = c->api;
        free_client(c);
        listen_again(a);
        return;
    }
    watch_again(c);
}

static void on_connect(void *ctx, int fd, unsigned events)
{
    struct api *a = ctx;
    (void)events;
    int client = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (client < 0) {
        return;
    }
    struct client *c = xzalloc(sizeof *c);
    c->watch = loop_fd_add(a->loop, client, LOOP_READ, on_client, c);
    if (c->watch == NULL) {
        close(client);
        free(c);
        return;
    }
    c->api = a;
    c->fd = client;
    c->qmp = (struct qmp){ .api = a, .machine = a->machine };
    c->next = a->clients;
    a->clients = c;
    a->client_count++;
    put_line(c, qmp_greeting());
    watch_again(c);
    listen_again(a); /* others wait in the queue when there are too many */
}

/* -- Events ------------------------------------------------------------------------------------ */
struct posted_event {
    struct api *api;
    struct machine_event event;
    struct timespec when;
};

static void send_event(void *ctx)
{
    struct posted_event *p = ctx;
    char *line = qmp_line(api_event(&p->event, &p->when));
    for (struct client *c = p->api->clients; c != NULL; c = c->next) {
        if (c->qmp.ready && !c->ending) {
            put_line(c, xstrdup(line));
            c->ending = c->out_len > OUT_MAX;
            watch_again(c);
        }
    }
    free(line);
    free(p);
}

/* [any]: noted with the time that it is, sent by our thread. */
static void on_event(void *ctx, const struct machine_event *ev)
{
    struct api *a = ctx;
    if (api_event_name(ev->kind) == NULL) {
        return; /* none of the protocol's */
    }
    if ((ev->kind == MACHINE_EVENT_MIGRATION || ev->kind == MACHINE_EVENT_MIGRATION_PASS) &&
        !atomic_load(&a->migration.events)) {
        return; /* nobody wanted to know */
    }
    struct posted_event *p = xzalloc(sizeof *p);
    p->api = a;
    p->event = *ev;
    clock_gettime(CLOCK_REALTIME, &p->when);
    loop_post(a->loop, send_event, p);
}

/* -- Making and freeing ------------------------------------------------------------------------ */
static void *api_main(void *arg)
{
    struct api *a = arg;
    pthread_setname_np(pthread_self(), "api");
    loop_run(a->loop);
    return NULL;
}

static int listen_on(struct api *a, const char *name, const char *path, struct err *e)
{
    struct listener *l = &a->listener[a->listeners];
    int fd;
    if (name != NULL) {
        fd = api_name_listen(l->path, name, e);
    } else {
        snprintf(l->path, sizeof l->path, "%s", path);
        fd = unix_listen(path, 0600, BACKLOG, e);
    }
    if (fd < 0) {
        return fd;
    }
    l->fd = fd;
    l->watch = loop_fd_add(a->loop, fd, LOOP_READ, on_connect, a);
    a->listeners++;
    return l->watch != NULL ? 0 : err_set(e, -errno, "%s: %s", l->path, strerror(errno));
}

static int start(struct api *a, struct err *e)
{
    sigset_t all, old;
    sigfillset(&all); /* signals are for the program's own threads */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = pthread_create(&a->thread, NULL, api_main, a);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    a->thread_started = r == 0;
    return r == 0 ? 0 : err_set(e, -r, "cannot start a thread: %s", strerror(r));
}

int api_new(struct api **out, struct machine *m, const struct api_config *c, struct err *e)
{
    struct api *a = xzalloc(sizeof *a);
    a->machine = m;
    a->migration.parameters = migrate_defaults;
    a->name = c->name != NULL ? xstrdup(c->name) : NULL;
    int r = loop_new(&a->loop, NULL, NULL);
    if (r < 0) {
        err_set(e, r, "no event loop: %s", strerror(-r));
    }
    if (r == 0 && c->name != NULL) {
        r = listen_on(a, c->name, NULL, e);
    }
    if (r == 0 && c->path != NULL) {
        r = listen_on(a, NULL, c->path, e);
    }
    if (r == 0) {
        r = start(a, e);
    }
    if (r < 0) {
        api_free(a);
        return r;
    }
    a->events = (struct machine_listener){ .fn = on_event, .ctx = a };
    machine_listen(m, &a->events);
    *out = a;
    return 0;
}

/* What is written already is to be read: how the machine ended, above all. */
static void say_last_words(struct client *c)
{
    struct pollfd p = { .fd = c->fd, .events = POLLOUT };
    while (flush(c) && c->out_len != 0 && poll(&p, 1, LAST_WORDS_MS) > 0) {
    }
}

void api_free(struct api *a)
{
    if (a == NULL) {
        return;
    }
    if (a->thread_started) {
        loop_stop(a->loop);
        pthread_join(a->thread, NULL);
    }
    migrate_free(a->migration.running);
    machine_unlisten(a->machine, &a->events);
    if (a->thread_started) {
        loop_turn(a->loop, 0); /* what was posted after its last turn */
    }
    while (a->clients != NULL) {
        say_last_words(a->clients);
        free_client(a->clients);
    }
    for (unsigned i = 0; i < a->listeners; i++) {
        loop_fd_del(a->listener[i].watch);
        close(a->listener[i].fd);
        unlink(a->listener[i].path);
    }
    loop_free(a->loop);
    free(a->name);
    free(a->migration.tls);
    free(a);
}

bool api_built(void) { return true; }
