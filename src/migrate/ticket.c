/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/ticket.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define INFIX ".migrate-"
#define ID_DIGITS 32u

int ticket_make(struct ticket *t, const char *beside, struct err *e)
{
    uint64_t id[2];
    char file[PATH_MAX];
    t->path[0] = '\0';
    if (getrandom(id, sizeof id, 0) != (ssize_t)sizeof id) {
        return err_set(e, -EIO, "the host has no random numbers");
    }
    if (beside != NULL && realpath(beside, file) == NULL) {
        return err_set(e, -errno, "%s: %s", beside, strerror(errno));
    }
    if (beside == NULL) {
        const char *dir = getenv("XDG_RUNTIME_DIR");
        snprintf(file, sizeof file, "%s/sosia", dir != NULL && dir[0] == '/' ? dir : "/tmp");
    }
    int n = snprintf(t->path, sizeof t->path, "%s" INFIX "%016" PRIx64 "%016" PRIx64, file, id[0],
                     id[1]);
    int fd = n < (int)sizeof t->path ? open(t->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600)
                                     : -1;
    if (fd < 0) {
        int r = n < (int)sizeof t->path ? -errno : -ENAMETOOLONG;
        err_set(e, r, "%s: %s", file, strerror(-r));
        t->path[0] = '\0';
        return r;
    }
    close(fd);
    return 0;
}

/* Whoever sends us a name might like us to remove some file of ours. */
static bool is_ticket_name(const char *path)
{
    size_t len = strlen(path), tail = strlen(INFIX) + ID_DIGITS;
    return path[0] == '/' && len > tail &&
           strncmp(path + len - tail, INFIX, strlen(INFIX)) == 0 &&
           strspn(path + len - ID_DIGITS, "0123456789abcdef") == ID_DIGITS;
}

bool ticket_reachable(const struct ticket *t)
{
    struct stat file, dir;
    char parent[TICKET_PATH_MAX];
    snprintf(parent, sizeof parent, "%s", t->path);
    char *slash = strrchr(parent, '/');
    if (!is_ticket_name(t->path) || lstat(t->path, &file) < 0 || !S_ISREG(file.st_mode) ||
        file.st_size != 0) {
        return false;
    }
    slash[slash == parent] = '\0';
    return stat(parent, &dir) == 0 && access(parent, W_OK | X_OK) == 0 &&
           (!(dir.st_mode & S_ISVTX) || file.st_uid == geteuid() || geteuid() == 0);
}

int ticket_take(const struct ticket *t) { return unlink(t->path) == 0 ? 0 : -errno; }

void ticket_drop(struct ticket *t)
{
    if (t->path[0] != '\0') {
        unlink(t->path);
        t->path[0] = '\0';
    }
}
