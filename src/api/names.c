/* SPDX-License-Identifier: Apache-2.0 */
#include "api/names.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/unixsock.h"

#define SUFFIX ".sock"
#define BACKLOG 8

int api_name_check(const char *name, struct err *e)
{
    size_t len = strlen(name);
    bool good = len != 0 && len <= API_NAME_MAX && isalnum((unsigned char)name[0]);
    for (size_t i = 0; i < len && good; i++) {
        good = isalnum((unsigned char)name[i]) || strchr("-_.", name[i]) != NULL;
    }
    return good ? 0
                : err_set(e, -EINVAL,
                          "'%s' is no name for a VM: use up to %u letters, digits, '-', '_' and "
                          "'.', a letter or digit first",
                          name, API_NAME_MAX);
}

/* -- The directory ----------------------------------------------------------------------------- */
/* Made when it is missing. In /tmp anybody may have been faster: it must be ours, and closed. */
static int open_dir(char dir[API_PATH_MAX], struct err *e)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    bool given = runtime != NULL && runtime[0] == '/';
    int n = given ? snprintf(dir, API_PATH_MAX, "%s/sosia", runtime)
                  : snprintf(dir, API_PATH_MAX, "/tmp/sosia-%u", (unsigned)getuid());
    if (n < 0 || (size_t)n >= API_PATH_MAX) {
        return err_set(e, -ENAMETOOLONG, "XDG_RUNTIME_DIR is too long for a socket's path");
    }
    if (mkdir(dir, 0700) < 0 && errno != EEXIST) {
        return err_set(e, -errno, "%s: %s", dir, strerror(errno));
    }
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return err_set(e, -errno, "%s: %s", dir, strerror(errno));
    }
    struct stat st;
    if (fstat(fd, &st) < 0 || st.st_uid != getuid() || (st.st_mode & 077) != 0) {
        close(fd);
        return err_set(e, -EPERM, "%s: must belong to you and be closed to others (mode 0700)",
                       dir);
    }
    return fd;
}

static int path_of(char path[API_PATH_MAX], const char *dir, const char *name, struct err *e)
{
    int n = snprintf(path, API_PATH_MAX, "%s/%s" SUFFIX, dir, name);
    return n >= 0 && (size_t)n < API_PATH_MAX
               ? 0
               : err_set(e, -ENAMETOOLONG, "%s/%s" SUFFIX ": too long for a socket's path", dir,
                         name);
}

int api_name_path(char path[API_PATH_MAX], const char *name, struct err *e)
{
    char dir[API_PATH_MAX];
    int r = api_name_check(name, e);
    if (r < 0) {
        return r;
    }
    int fd = open_dir(dir, e);
    if (fd < 0) {
        return fd;
    }
    close(fd);
    return path_of(path, dir, name, e);
}

int api_name_listen(char path[API_PATH_MAX], const char *name, struct err *e)
{
    char dir[API_PATH_MAX];
    int r = api_name_check(name, e);
    if (r < 0) {
        return r;
    }
    int lock = open_dir(dir, e);
    if (lock < 0) {
        return lock;
    }
    /* Two that find the same dead socket must not both replace it. */
    flock(lock, LOCK_EX);
    r = path_of(path, dir, name, e);
    if (r == 0) {
        r = unix_listen(path, 0600, BACKLOG, e);
    }
    close(lock);
    return r == -EADDRINUSE ? err_set(e, r, "a VM called '%s' is running already", name) : r;
}

/* -- All --------------------------------------------------------------------------------------- */
static int is_socket_name(const struct dirent *d)
{
    size_t len = strlen(d->d_name);
    size_t suffix = sizeof SUFFIX - 1;
    return len > suffix && strcmp(d->d_name + len - suffix, SUFFIX) == 0;
}

static pid_t peer_of(int fd)
{
    struct ucred peer = { .pid = -1 };
    socklen_t len = sizeof peer;
    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len);
    return peer.pid;
}

/* A connection to a VM that answers, else < 0; the socket of a dead one is removed. */
static int connect_or_remove(const char *dir, const char *name)
{
    char path[API_PATH_MAX];
    int fd = path_of(path, dir, name, NULL) == 0 ? unix_connect(path, NULL) : -EINVAL;
    if (fd == -ECONNREFUSED) {
        unlink(path);
    }
    return fd;
}

int api_names(api_name_fn *fn, void *ctx, struct err *e)
{
    char dir[API_PATH_MAX];
    struct dirent **list = NULL;
    int lock = open_dir(dir, e);
    if (lock < 0) {
        return lock;
    }
    flock(lock, LOCK_EX); /* none that is just being made is taken for dead */
    int count = scandir(dir, &list, is_socket_name, alphasort);
    int r = count < 0 ? err_set(e, -errno, "%s: %s", dir, strerror(errno)) : 0;
    int *fd = xcalloc(count > 0 ? (size_t)count : 0, sizeof *fd);
    for (int i = 0; i < count; i++) {
        char *name = list[i]->d_name;
        name[strlen(name) - (sizeof SUFFIX - 1)] = '\0';
        fd[i] = connect_or_remove(dir, name);
    }
    close(lock);
    for (int i = 0; i < count; i++) {
        if (fd[i] >= 0) {
            fn(ctx, list[i]->d_name, fd[i], peer_of(fd[i]));
        }
        free(list[i]);
    }
    free(list);
    free(fd);
    return r;
}

/* -- One --------------------------------------------------------------------------------------- */
struct by_pid {
    pid_t pid;
    int fd;
};

static void take_pid(void *ctx, const char *name, int fd, pid_t pid)
{
    struct by_pid *want = ctx;
    (void)name;
    if (pid == want->pid && want->fd < 0) {
        want->fd = fd;
    } else {
        close(fd);
    }
}

int api_name_connect(const char *which, struct err *e)
{
    char path[API_PATH_MAX];
    if (strchr(which, '/') != NULL) {
        return unix_connect(which, e);
    }
    int r = api_name_path(path, which, e);
    if (r < 0) {
        return r;
    }
    int fd = unix_connect(path, e);
    if (fd == -ECONNREFUSED || fd == -ENOENT) {
        struct by_pid want = { .pid = (pid_t)atoi(which), .fd = -1 };
        bool number = which[strspn(which, "0123456789")] == '\0';
        r = number ? api_names(take_pid, &want, e) : 0;
        fd = want.fd >= 0 ? want.fd
                          : err_set(e, r < 0 ? r : -ENOENT,
                                    "no VM called '%s' is running (sosia ls shows them)", which);
    }
    return fd;
}
