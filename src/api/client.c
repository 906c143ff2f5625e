/* SPDX-License-Identifier: Apache-2.0 */
#include "api/client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "api/names.h"
#include "base/alloc.h"

#define LINE_MAX_BYTES (64u << 20) /* whoever is at the other end */

struct api_client {
    int fd;
    char *buf; /* owned */
    size_t len, cap;
    size_t taken; /* bytes of the line that was returned last */
};

bool api_client_is_ours(const struct api_client *c)
{
    struct ucred peer;
    socklen_t len = sizeof peer;
    return getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && peer.uid == geteuid();
}

/* -- Lines ------------------------------------------------------------------------------------- */
static int receive_more(struct api_client *c, struct err *e)
{
    if (c->len == c->cap) {
        if (c->cap == LINE_MAX_BYTES) {
            return err_set(e, -EMSGSIZE, "the VM's answer has no end");
        }
        c->cap = c->cap != 0 ? 2 * c->cap : 65536;
        c->buf = xrealloc(c->buf, c->cap);
    }
    ssize_t n;
    do { /* with a timeout on it, a call is not restarted by the kernel (signal(7)) */
        n = recv(c->fd, c->buf + c->len, c->cap - c->len, 0);
    } while (n < 0 && errno == EINTR);
    if (n > 0) {
        c->len += (size_t)n;
        return 0;
    }
    if (n == 0) {
        return err_set(e, -ECONNRESET, "the VM has hung up");
    }
    return errno == EAGAIN ? err_set(e, -ETIMEDOUT, "the VM does not answer")
                           : err_set(e, -errno, "%s", strerror(errno));
}

/* The next line as JSON; NULL with e. */
static json_t *receive(struct api_client *c, struct err *e)
{
    char *end;
    if (c->taken != 0) {
        c->len -= c->taken;
        memmove(c->buf, c->buf + c->taken, c->len);
        c->taken = 0;
    }
    while (c->len == 0 || (end = memchr(c->buf, '\n', c->len)) == NULL) {
        if (receive_more(c, e) < 0) {
            return NULL;
        }
    }
    c->taken = (size_t)(end - c->buf) + 1;
    json_t *j = json_loadb(c->buf, c->taken, 0, NULL);
    if (!json_is_object(j)) {
        err_set(e, -EPROTO, "that socket speaks another language");
        json_decref(j);
        return NULL;
    }
    return j;
}

static int send_all(int fd, const char *text, struct err *e)
{
    for (size_t left = strlen(text); left != 0;) {
        ssize_t n = send(fd, text, left, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return err_set(e, -errno, "%s", strerror(errno));
        }
        text += n;
        left -= (size_t)n;
    }
    return 0;
}

/* -- Calls ------------------------------------------------------------------------------------- */
/* What is neither answer nor error is an event, and for others. */
static int wait_for_answer(struct api_client *c, json_t **result, struct err *e)
{
    for (;;) {
        json_t *j = receive(c, e);
        if (j == NULL) {
            return -EIO;
        }
        json_t *value = json_object_get(j, "return");
        const json_t *error = json_object_get(j, "error");
        if (value != NULL && result != NULL) {
            *result = json_incref(value);
        }
        if (error != NULL) {
            const char *desc = json_string_value(json_object_get(error, "desc"));
            err_set(e, -EREMOTEIO, "%s", desc != NULL ? desc : "the VM refuses");
        }
        json_decref(j);
        if (value != NULL || error != NULL) {
            return value != NULL ? 0 : -EREMOTEIO;
        }
    }
}

int api_client_call(struct api_client *c, const char *command, json_t *args, json_t **result,
                    struct err *e)
{
    json_t *request = json_pack("{s:s, s:o*}", "execute", command, "arguments", args);
    char *text = json_dumps(request, 0);
    json_decref(request);
    if (text == NULL) {
        return err_set(e, -EINVAL, "%s: an argument is no UTF-8 text", command);
    }
    int r = send_all(c->fd, text, e);
    free(text);
    return r == 0 ? wait_for_answer(c, result, e) : r;
}

int api_client_new(struct api_client **out, int fd, unsigned timeout_s, struct err *e)
{
    struct api_client *c = xzalloc(sizeof *c);
    const struct timeval patience = { .tv_sec = timeout_s };
    c->fd = fd;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    json_t *greeting = receive(c, e);
    int r = greeting != NULL ? api_client_call(c, "qmp_capabilities", NULL, NULL, e) : -EIO;
    json_decref(greeting);
    if (r < 0) {
        api_client_close(c);
        return r;
    }
    *out = c;
    return 0;
}

int api_client_open(struct api_client **out, const char *which, unsigned timeout_s, struct err *e)
{
    int fd = api_name_connect(which, e);
    return fd >= 0 ? api_client_new(out, fd, timeout_s, e) : fd;
}

void api_client_close(struct api_client *c)
{
    if (c != NULL) {
        close(c->fd);
        free(c->buf);
        free(c);
    }
}
