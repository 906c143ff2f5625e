/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/part.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"

char *part_directory(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? xstrdup(".") : xasprintf("%.*s/", (int)(slash - path), path);
}

int part_sync(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int r = fd >= 0 && fsync(fd) == 0 ? 0 : -errno;
    if (fd >= 0) {
        close(fd);
    }
    return r;
}

int part_sync_directory(const char *path)
{
    char *dir = part_directory(path);
    int r = part_sync(dir);
    free(dir);
    return r;
}

/* Who had it open before us may have given it its final name meanwhile: then it is not ours. */
static bool has_name(int fd, const char *path)
{
    struct stat named, open;
    return fstat(fd, &open) == 0 && stat(path, &named) == 0 && open.st_ino == named.st_ino &&
           open.st_dev == named.st_dev;
}

int part_open(struct part *p, const char *path, struct err *e)
{
    *p = (struct part){ .path = xstrdup(path), .part = xasprintf("%s.part", path), .fd = -1 };
    struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    int fd = open(p->part, O_RDWR | O_CREAT | O_CLOEXEC, 0600); /* memory has people's secrets */
    if (fd < 0) {
        return err_set(e, -errno, "%s: %s", p->part, strerror(errno));
    }
    bool busy = fcntl(fd, F_OFD_SETLK, &l) < 0 && (errno == EAGAIN || errno == EACCES);
    if (busy || !has_name(fd, p->part)) {
        close(fd);
        return err_set(e, -EBUSY, "%s: a snapshot is being written there", path);
    }
    p->fd = fd;
    if (ftruncate(fd, 0) < 0) { /* of one that was killed */
        return err_set(e, -errno, "%s: %s", p->part, strerror(errno));
    }
    return 0;
}

int part_publish(struct part *p, bool durable, struct err *e)
{
    if (rename(p->part, p->path) < 0) {
        return err_set(e, -errno, "%s: %s", p->path, strerror(errno));
    }
    close(p->fd);
    p->fd = -1;
    int r = durable ? part_sync_directory(p->path) : 0;
    return r < 0 ? err_set(e, r,
                           "%s: it is written, but a crash of the host could lose it: its "
                           "directory cannot be synced: %s",
                           p->path, strerror(-r))
                 : 0;
}

void part_close(struct part *p)
{
    if (p->fd >= 0) {
        unlink(p->part);
        close(p->fd);
    }
    free(p->path);
    free(p->part);
    *p = (struct part){ .fd = -1 };
}

int part_name_parent(struct snapfile_header *h, const char *path, const char *parent,
                     const uint8_t id[SNAPFILE_ID], struct err *e)
{
    char *dir = part_directory(path), *mine = realpath(dir, NULL);
    char *theirs = realpath(parent, NULL), *slash = theirs != NULL ? strrchr(theirs, '/') : NULL;
    int r = 0;
    memset(h->parent, 0, sizeof h->parent);
    if (mine == NULL || slash == NULL) {
        r = err_set(e, -errno, "%s: %s", mine == NULL ? dir : parent, strerror(errno));
        goto out;
    }
    *slash = '\0';
    if (strcmp(mine, slash == theirs ? "/" : theirs) != 0) {
        r = err_set(e, -EXDEV,
                    "%s: in another directory than %s, which it is to rest on: put both into one",
                    path, parent);
    } else if (strlen(slash + 1) >= sizeof h->parent) {
        r = err_set(e, -ENAMETOOLONG, "%s: too long a name", parent);
    } else {
        snprintf(h->parent, sizeof h->parent, "%s", slash + 1);
        memcpy(h->parent_id, id, SNAPFILE_ID);
    }
out:
    free(dir);
    free(mine);
    free(theirs);
    return r;
}
