/* SPDX-License-Identifier: Apache-2.0 -- who carries the bytes between GDB and a machine */
#include "api/gdb.h"

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "api/gdb_session.h"
#include "base/alloc.h"
#include "base/log.h"
#include "base/tcpsock.h"
#include "base/unixsock.h"
#include "machine/events.h"

#define SEND_SECONDS 5 /* a debugger that reads nothing for so long is given up */

struct gdb {
    struct machine *machine; /* borrowed */
    enum gdb_arch arch;
    char where[PATH_MAX]; /* also what is removed at the end, if is_path */
    bool is_path;
    int listen_fd;
    int event_fd; /* written when the machine stopped or ended, or we are to quit */
    struct machine_listener listener;
    pthread_t thread;
    bool started;
    _Atomic bool quit;
    /* The rest is the thread's. */
    int peer;                    /* -1: none */
    struct gdb_session *session; /* with the peer */
    bool lost;                   /* the peer does not read */
    bool runs_then; /* the machine is to run when the peer goes: it did before, or was let go */
};

static void wake(struct gdb *g)
{
    const uint64_t one = 1;
    ssize_t n = write(g->event_fd, &one, sizeof one);
    (void)n;
}

/* [any] */
static void on_event(void *ctx, const struct machine_event *ev)
{
    if (ev->kind == MACHINE_EVENT_DEBUG || ev->kind == MACHINE_EVENT_SHUTDOWN) {
        wake(ctx);
    }
}

/* -- The peer ---------------------------------------------------------------------------------- */

static void send_bytes(void *ctx, const char *data, size_t len)
{
    struct gdb *g = ctx;
    while (len != 0 && !g->lost) {
        ssize_t n = send(g->peer, data, len, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR) {
            g->lost = true;
        } else if (n > 0) {
            data += n;
            len -= (size_t)n;
        }
    }
}

static void say_good_bye(struct gdb *g)
{
    if (g->peer < 0) {
        return;
    }
    struct machine *m = g->machine;
    machine_debug_stop(m);
    machine_debug_detach(m);
    if (g->runs_then) {
        machine_resume(m);
    }
    gdb_session_free(g->session);
    g->session = NULL;
    close(g->peer);
    g->peer = -1;
}

static void welcome(struct gdb *g)
{
    const struct timeval patience = { .tv_sec = SEND_SECONDS };
    const int on = 1;
    int fd = accept4(g->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) {
        return;
    }
    if (machine_debug_attach(g->machine) < 0) {
        close(fd);
        return;
    }
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* a Unix socket declines */
    g->peer = fd;
    g->lost = false;
    g->runs_then = !machine_paused(g->machine);
    machine_debug_stop(g->machine);
    g->session = gdb_session_new(g->machine, g->arch, send_bytes, g);
}

/* What is left to do for a byte. */
static void act(struct gdb *g, enum gdb_next next)
{
    struct machine *m = g->machine;
    switch (next) {
    case GDB_STAY:
        break;
    case GDB_GO:
        g->runs_then = true;
        machine_debug_go(m, g->session->how);
        break;
    case GDB_STOP:
        machine_debug_stop(m);
        gdb_session_stopped(g->session, NULL);
        break;
    case GDB_DETACH:
        g->runs_then = true;
        say_good_bye(g);
        break;
    case GDB_KILL:
        machine_request_end(m, MACHINE_STOPPED, 0, "stopped by the debugger");
        say_good_bye(g);
        break;
    case GDB_CLOSE:
        log_warn("gdb: what came is no debugger's; the connection is closed");
        say_good_bye(g);
        break;
    }
}

static void hear(struct gdb *g)
{
    uint8_t bytes[4096];
    ssize_t n = recv(g->peer, bytes, sizeof bytes, 0);
    if (n <= 0 && (n == 0 || errno != EINTR)) {
        say_good_bye(g);
        return;
    }
    for (ssize_t i = 0; i < n && g->peer >= 0; i++) {
        act(g, gdb_session_byte(g->session, bytes[i]));
    }
}

/* The machine stopped, perhaps, or it ended. */
static void look(struct gdb *g)
{
    struct machine *m = g->machine;
    struct machine_end end;
    struct machine_stop stop;
    if (g->peer < 0) {
        return;
    }
    if (machine_get_end(m, &end) == 0) {
        gdb_session_ended(g->session, end.status);
        say_good_bye(g);
    } else if (!g->session->stands) {
        machine_debug_stop(m);
        if (machine_debug_next(m, &stop)) {
            gdb_session_stopped(g->session, &stop);
        } else {
            machine_debug_go(m, g->session->how);
        }
    }
}

static void *gdb_main(void *arg)
{
    struct gdb *g = arg;
    pthread_setname_np(pthread_self(), "gdb");
    while (!g->quit) {
        struct pollfd fds[] = {
            { .fd = g->event_fd, .events = POLLIN },
            { .fd = g->peer >= 0 ? -1 : g->listen_fd, .events = POLLIN },
            { .fd = g->peer, .events = POLLIN },
        };
        if (poll(fds, 3, -1) < 0) {
            continue;
        }
        uint64_t count;
        if (fds[0].revents != 0 && read(g->event_fd, &count, sizeof count) > 0) {
            look(g);
        }
        if (fds[1].revents != 0) {
            welcome(g);
        }
        if (fds[2].revents != 0 && g->peer >= 0) {
            hear(g);
        }
        if (g->lost) {
            g->lost = false;
            say_good_bye(g);
        }
    }
    look(g); /* how it ended */
    say_good_bye(g);
    return NULL;
}

/* -- Making and freeing ------------------------------------------------------------------------ */

/* [HOST:]PORT, or a path. */
static int listen_at(struct gdb *g, const char *address, struct err *e)
{
    char host[TCP_HOST_BYTES] = "127.0.0.1";
    uint16_t port;
    if (strchr(address, '/') != NULL) {
        g->is_path = true;
        snprintf(g->where, sizeof g->where, "%s", address);
        return unix_listen(address, 0600, 1, e);
    }
    if (tcp_split(address, host, &port) < 0) {
        return err_set(e, -EINVAL, "'%s' is not PORT, HOST:PORT or a path with a slash", address);
    }
    struct tcp_bound bound;
    int fd = tcp_listen(host, port, 1, &bound, e);
    if (fd >= 0) {
        snprintf(g->where, sizeof g->where, "%s", bound.where);
    }
    return fd;
}

static int start(struct gdb *g, const char *address, struct err *e)
{
    static const char i386[] = ",arch=i386";
    char text[PATH_MAX];
    size_t len = strlen(address);
    if (len >= sizeof text) {
        return err_set(e, -ENAMETOOLONG, "the address is too long");
    }
    memcpy(text, address, len + 1);
    if (len > sizeof i386 - 1 && strcmp(text + len - (sizeof i386 - 1), i386) == 0) {
        text[len - (sizeof i386 - 1)] = '\0';
        g->arch = GDB_I386;
    }
    g->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (g->event_fd < 0) {
        return err_set(e, -errno, "%s", strerror(errno));
    }
    g->listen_fd = listen_at(g, text, e);
    if (g->listen_fd < 0) {
        return g->listen_fd;
    }
    g->listener = (struct machine_listener){ .fn = on_event, .ctx = g };
    machine_listen(g->machine, &g->listener);
    int r = pthread_create(&g->thread, NULL, gdb_main, g);
    g->started = r == 0;
    return r == 0 ? 0 : err_set(e, -r, "no thread: %s", strerror(r));
}

int gdb_new(struct gdb **out, struct machine *m, const char *address, struct err *e)
{
    struct gdb *g = xzalloc(sizeof *g);
    g->machine = m;
    g->listen_fd = g->event_fd = g->peer = -1;
    int r = start(g, address, e);
    if (r < 0) {
        gdb_free(g);
        return err_prefix(e, r, "gdb");
    }
    *out = g;
    return 0;
}

void gdb_free(struct gdb *g)
{
    if (g == NULL) {
        return;
    }
    if (g->started) {
        g->quit = true;
        wake(g);
        pthread_join(g->thread, NULL);
    }
    if (g->listener.fn != NULL) {
        machine_unlisten(g->machine, &g->listener);
    }
    if (g->listen_fd >= 0) {
        close(g->listen_fd);
        if (g->is_path) {
            unlink(g->where);
        }
    }
    if (g->event_fd >= 0) {
        close(g->event_fd);
    }
    free(g);
}

const char *gdb_where(const struct gdb *g) { return g->where; }
