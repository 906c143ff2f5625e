/* SPDX-License-Identifier: Apache-2.0
 *
 * Bytes from the guest go to a callback or a file at once, to sockets and terminals through a
 * bounded ring that the loop empties. Bytes for the guest wait in a ring while its FIFO is full.
 */
#include "machine/serial.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/unixsock.h"

/* -- Input: ring to uart -------------------------------------------------------------------- */

static size_t ring_room(const struct serial *s) { return SERIAL_INPUT - s->input_len; }

static void feed(struct serial *s)
{
    while (s->input_len != 0 && s->to_guest != NULL) {
        size_t run = SERIAL_INPUT - s->input_at;
        if (run > s->input_len) {
            run = s->input_len;
        }
        size_t taken = s->to_guest(s->dev, s->n, s->input + s->input_at, run);
        s->input_at = (s->input_at + taken) % SERIAL_INPUT;
        s->input_len -= taken;
        if (taken < run) {
            return;
        }
    }
}

/* Bytes are refused only when the ring is full and the uart takes none. */
size_t serial_input(struct serial *s, const uint8_t *data, size_t len)
{
    size_t taken = 0;
    while (taken < len && ring_room(s) != 0) {
        while (taken < len && ring_room(s) != 0) {
            s->input[(s->input_at + s->input_len++) % SERIAL_INPUT] = data[taken++];
        }
        feed(s);
    }
    s->input_short = taken < len;
    return taken;
}

/* -- Sockets and terminals, on the loop ------------------------------------------------------- */

static void hang_up(struct serial *s)
{
    loop_fd_del(s->watch);
    s->watch = NULL;
    close(s->fd);
    s->fd = -1;
    s->output_len = 0;
    if (s->listen_watch != NULL) {
        loop_fd_set(s->listen_watch, LOOP_READ);
    }
}

/* What we want to hear of: input while there is room for it, output while some waits. */
static void watch_again(struct serial *s)
{
    if (s->watch != NULL) {
        unsigned events = (ring_room(s) != 0 ? LOOP_READ : 0) | (s->output_len ? LOOP_WRITE : 0);
        loop_fd_set(s->watch, events);
    }
}

static bool would_block(int error)
{
    return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

static void drain(struct serial *s)
{
    while (s->output_len != 0 && s->fd >= 0) {
        size_t run = SERIAL_OUTPUT - s->output_at;
        if (run > s->output_len) {
            run = s->output_len;
        }
        ssize_t n = s->kind == SERIAL_UNIX
                        ? send(s->fd, s->output + s->output_at, run, MSG_NOSIGNAL | MSG_DONTWAIT)
                        : write(s->fd, s->output + s->output_at, run);
        if (n < 0) {
            if (!would_block(errno)) {
                hang_up(s);
            }
            return;
        }
        s->output_at = (s->output_at + (size_t)n) % SERIAL_OUTPUT;
        s->output_len -= (size_t)n;
    }
}

static void on_fd(void *ctx, int fd, unsigned events)
{
    struct serial *s = ctx;
    if (events & (LOOP_READ | LOOP_HUP)) {
        uint8_t buf[4096];
        size_t want = ring_room(s) < sizeof buf ? ring_room(s) : sizeof buf;
        ssize_t n = want != 0 ? read(fd, buf, want) : -1;
        if (n == 0 || (n < 0 && want != 0 && !would_block(errno))) {
            hang_up(s);
            return;
        }
        if (n > 0) {
            serial_input(s, buf, (size_t)n);
        }
    }
    if (events & LOOP_WRITE) {
        drain(s);
    }
    watch_again(s);
}

static void on_connect(void *ctx, int fd, unsigned events)
{
    (void)events;
    struct serial *s = ctx;
    int client = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (client < 0) {
        return;
    }
    struct loop_fd *watch = loop_fd_add(s->loop, client, LOOP_READ, on_fd, s);
    if (watch == NULL) {
        close(client);
        return;
    }
    s->fd = client;
    s->watch = watch;
    loop_fd_set(s->listen_watch, 0); /* one at a time: others wait in the queue */
}

static void serial_turn(void *ctx)
{
    struct serial *s = ctx;
    s->posted = false;
    drain(s);
    watch_again(s);
}

static void post_turn(struct serial *s)
{
    if (!s->posted) {
        s->posted = true;
        loop_post(s->loop, serial_turn, s);
    }
}

/* -- The uart's side, on a vCPU thread ----------------------------------------------------------
 */

static void to_callback(void *ctx, const uint8_t *data, size_t len)
{
    struct serial *s = ctx;
    s->callbacks->serial_output(s->callbacks->ctx, s->n, data, len);
}

static void to_file(void *ctx, const uint8_t *data, size_t len)
{
    struct serial *s = ctx;
    while (len != 0 && s->fd >= 0) {
        ssize_t n = write(s->fd, data, len);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            log_err("serial port %u: %s: %s", s->n, s->path, strerror(errno));
            close(s->fd);
            s->fd = -1;
            return;
        }
        data += n;
        len -= (size_t)n;
    }
}

static void to_ring(void *ctx, const uint8_t *data, size_t len)
{
    struct serial *s = ctx;
    if (s->fd < 0) {
        return; /* nobody is connected: lost, as on a cable without a far end */
    }
    for (size_t i = 0; i < len && s->output_len < SERIAL_OUTPUT; i++) {
        s->output[(s->output_at + s->output_len++) % SERIAL_OUTPUT] = data[i];
    }
    post_turn(s);
}

static void on_room(void *ctx)
{
    struct serial *s = ctx;
    feed(s);
    if (s->watch != NULL) {
        post_turn(s);
    }
    if (s->input_short && ring_room(s) >= SERIAL_INPUT / 2) {
        s->input_short = false;
        if (s->callbacks->serial_room != NULL) {
            s->callbacks->serial_room(s->callbacks->ctx, s->n);
        }
    }
}

struct char_backend serial_backend(struct serial *s)
{
    struct char_backend b = { .input_ready = on_room, .ctx = s };
    switch (s->kind) {
    case SERIAL_CALLBACK:
        b.write = s->callbacks->serial_output != NULL ? to_callback : NULL;
        break;
    case SERIAL_FILE:
        b.write = to_file;
        break;
    case SERIAL_UNIX:
    case SERIAL_PTY:
        b.write = to_ring;
        break;
    case SERIAL_ABSENT:
    case SERIAL_NONE:
        break;
    }
    return b;
}

/* -- Opening ----------------------------------------------------------------------------------- */

static int open_file(struct serial *s, struct err *e)
{
    s->fd = open(s->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0666);
    if (s->fd < 0) {
        return err_set(e, -errno, "%s: %s", s->path, strerror(errno));
    }
    return 0;
}

static int open_unix(struct serial *s, struct err *e)
{
    int fd = unix_listen(s->path, 0777, 1, e);
    if (fd < 0) {
        return fd;
    }
    s->listen_fd = fd;
    s->listen_watch = loop_fd_add(s->loop, fd, LOOP_READ, on_connect, s);
    return s->listen_watch != NULL ? 0 : err_set(e, -errno, "%s: %s", s->path, strerror(errno));
}

static int open_pty(struct serial *s, struct err *e)
{
    char name[64];
    struct termios raw;
    s->fd = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (s->fd < 0 || grantpt(s->fd) < 0 || unlockpt(s->fd) < 0 ||
        ptsname_r(s->fd, name, sizeof name) != 0) {
        return err_set(e, -errno, "no pseudo-terminal: %s", strerror(errno));
    }
    s->path = xstrdup(name);
    s->far_fd = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (s->far_fd < 0 || tcgetattr(s->far_fd, &raw) < 0) {
        return err_set(e, -errno, "%s: %s", name, strerror(errno));
    }
    cfmakeraw(&raw); /* or it would echo the guest's output back at it */
    tcsetattr(s->far_fd, TCSANOW, &raw);
    s->watch = loop_fd_add(s->loop, s->fd, LOOP_READ, on_fd, s);
    return s->watch != NULL ? 0 : err_set(e, -errno, "%s: %s", name, strerror(errno));
}

int serial_init(struct serial *s, unsigned n, const struct serial_config *c,
                const struct machine_callbacks *callbacks, struct loop *loop, struct err *e)
{
    memset(s, 0, sizeof *s);
    s->kind = c->kind;
    s->n = n;
    s->callbacks = callbacks;
    s->loop = loop;
    s->listen_fd = s->fd = s->far_fd = -1;
    s->input = xzalloc(SERIAL_INPUT);
    int r = 0;
    switch (c->kind) {
    case SERIAL_FILE:
        s->path = xstrdup(c->path);
        r = open_file(s, e);
        break;
    case SERIAL_UNIX:
        s->output = xzalloc(SERIAL_OUTPUT);
        s->path = xstrdup(c->path);
        r = open_unix(s, e);
        break;
    case SERIAL_PTY:
        s->output = xzalloc(SERIAL_OUTPUT);
        r = open_pty(s, e);
        break;
    case SERIAL_ABSENT:
    case SERIAL_NONE:
    case SERIAL_CALLBACK:
        break;
    }
    return r < 0 ? err_prefix(e, r, "serial port %u", n) : 0;
}

void serial_fini(struct serial *s)
{
    if (s->fd >= 0 && s->output_len != 0) {
        drain(s); /* the guest's last words */
    }
    if (s->watch != NULL) {
        loop_fd_del(s->watch);
    }
    if (s->listen_watch != NULL) {
        loop_fd_del(s->listen_watch);
    }
    if (s->listen_fd >= 0) {
        close(s->listen_fd);
        unlink(s->path);
    }
    if (s->fd >= 0) {
        close(s->fd);
    }
    if (s->far_fd >= 0) {
        close(s->far_fd);
    }
    free(s->path);
    free(s->input);
    free(s->output);
}
