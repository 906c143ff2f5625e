/* SPDX-License-Identifier: Apache-2.0 */
#include "display/vnc_listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

static int parse(union address *a, socklen_t *len, const char *text, uint16_t port)
{
    *a = (union address){ .v4.sin_family = AF_INET };
    if (inet_pton(AF_INET, text, &a->v4.sin_addr) == 1) {
        a->v4.sin_port = htons(port);
        *len = sizeof a->v4;
        return 0;
    }
    *a = (union address){ .v6.sin6_family = AF_INET6 };
    if (inet_pton(AF_INET6, text, &a->v6.sin6_addr) == 1) {
        a->v6.sin6_port = htons(port);
        *len = sizeof a->v6;
        return 0;
    }
    return -EINVAL;
}

static bool is_loopback(const union address *a)
{
    return a->any.sa_family == AF_INET ? ntohl(a->v4.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET
                                       : IN6_IS_ADDR_LOOPBACK(&a->v6.sin6_addr);
}

static void describe(char where[VNC_WHERE_BYTES], const union address *a)
{
    char text[INET6_ADDRSTRLEN];
    if (a->any.sa_family == AF_INET) {
        inet_ntop(AF_INET, &a->v4.sin_addr, text, sizeof text);
        snprintf(where, VNC_WHERE_BYTES, "%s:%u", text, ntohs(a->v4.sin_port));
    } else {
        inet_ntop(AF_INET6, &a->v6.sin6_addr, text, sizeof text);
        snprintf(where, VNC_WHERE_BYTES, "[%s]:%u", text, ntohs(a->v6.sin6_port));
    }
}

int vnc_listen(const struct vnc_config *c, char where[VNC_WHERE_BYTES], struct err *e)
{
    const char *text = c->address != NULL ? c->address : "127.0.0.1";
    const int on = 1;
    union address a;
    socklen_t len;
    if (parse(&a, &len, text, c->port) < 0) {
        return err_set(e, -EINVAL, "vnc: '%s' is no numeric IPv4 or IPv6 address", text);
    }
    if (!is_loopback(&a) && c->password_file == NULL) {
        return err_set(e, -EACCES, "vnc: others can reach %s: give password=FILE, too", text);
    }
    int fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return err_set(e, -errno, "vnc: no socket: %s", strerror(errno));
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (a.any.sa_family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    }
    if (bind(fd, &a.any, len) < 0 || listen(fd, 8) < 0 || getsockname(fd, &a.any, &len) < 0) {
        int error = errno;
        close(fd);
        return err_set(e, -error, "vnc: %s port %u: %s", text, c->port, strerror(error));
    }
    describe(where, &a);
    return fd;
}

int vnc_read_password(const char *path, char out[VNC_PASSWORD_MAX + 1], struct err *e)
{
    char line[64] = "";
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        return err_set(e, -errno, "vnc: %s: %s", path, strerror(errno));
    }
    bool read = fgets(line, sizeof line, f) != NULL;
    fclose(f);
    line[strcspn(line, "\r\n")] = '\0';
    if (!read || line[0] == '\0') {
        return err_set(e, -EINVAL, "vnc: %s: no password in its first line", path);
    }
    if (strlen(line) > VNC_PASSWORD_MAX) {
        return err_set(e, -EINVAL, "vnc: %s: VNC's passwords have at most %u characters", path,
                       VNC_PASSWORD_MAX);
    }
    memcpy(out, line, strlen(line) + 1);
    return 0;
}
