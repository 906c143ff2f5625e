/* SPDX-License-Identifier: Apache-2.0 */
#include "base/unixsock.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int set_path(struct sockaddr_un *a, const char *path, struct err *e)
{
    *a = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof a->sun_path) {
        return err_set(e, -ENAMETOOLONG, "%s: too long for a socket's path", path);
    }
    strcpy(a->sun_path, path);
    return 0;
}

/* fd may be -1: the call before this one failed. */
static int give_up(int fd, const char *path, struct err *e)
{
    int error = errno;
    if (fd >= 0) {
        close(fd);
    }
    return err_set(e, -error, "%s: %s", path, strerror(error));
}

int unix_connect(const char *path, struct err *e)
{
    struct sockaddr_un a;
    int r = set_path(&a, path, e);
    if (r < 0) {
        return r;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&a, sizeof a) < 0) {
        return give_up(fd, path, e);
    }
    return fd;
}

static bool is_stale(const char *path)
{
    struct stat st;
    if (lstat(path, &st) < 0 || !S_ISSOCK(st.st_mode)) {
        return false;
    }
    int fd = unix_connect(path, NULL);
    if (fd >= 0) {
        close(fd);
    }
    return fd == -ECONNREFUSED;
}

int unix_listen(const char *path, mode_t mode, int backlog, struct err *e)
{
    struct sockaddr_un a;
    int r = set_path(&a, path, e);
    if (r < 0) {
        return r;
    }
    if (is_stale(path)) {
        unlink(path);
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    /* The file that bind makes gets the mode of the socket: there is no moment with another. */
    if (fd < 0 || fchmod(fd, mode) < 0 || bind(fd, (const struct sockaddr *)&a, sizeof a) < 0) {
        return give_up(fd, path, e);
    }
    if (listen(fd, backlog) < 0) {
        unlink(path);
        return give_up(fd, path, e);
    }
    return fd;
}
