/* SPDX-License-Identifier: Apache-2.0 */
#include "block/hostfile.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "block/vector.h"

struct hostfile {
    int fd;
    bool readonly;
    bool device;
    dev_t dev;
    ino_t ino;
    atomic_int sync_error; /* the first failure of a sync */
};

/* Permissions of QEMU's scheme that matter between programs. */
enum { PERM_READ = 0, PERM_WRITE = 1, PERM_RESIZE = 3 };
#define LOCK_HELD(perm) (100 + (perm))
#define LOCK_DENIED(perm) (200 + (perm))

static int lock_byte(int fd, int command, off_t at, short type, bool *free)
{
    struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_start = at, .l_len = 1 };
    if (fcntl(fd, command, &l) < 0) {
        return -errno;
    }
    if (free != NULL) {
        *free = l.l_type == F_UNLCK;
    }
    return 0;
}

/* Announce first, look afterwards: of two that start together at least one sees the other. */
static int take_lock(int fd, bool readonly, const char *path, struct err *e)
{
    static const off_t announce[] = { LOCK_HELD(PERM_READ), LOCK_DENIED(PERM_WRITE),
                                      LOCK_DENIED(PERM_RESIZE), LOCK_HELD(PERM_WRITE),
                                      LOCK_HELD(PERM_RESIZE) };
    static const off_t look[] = { LOCK_HELD(PERM_WRITE), LOCK_HELD(PERM_RESIZE),
                                  LOCK_DENIED(PERM_READ), LOCK_DENIED(PERM_WRITE),
                                  LOCK_DENIED(PERM_RESIZE) };
    size_t announced = readonly ? 3 : 5;
    size_t looked = readonly ? 3 : 5;
    for (size_t i = 0; i < announced; i++) {
        int r = lock_byte(fd, F_OFD_SETLK, announce[i], F_RDLCK, NULL);
        if (r == -EINVAL || r == -ENOLCK || r == -EOPNOTSUPP) {
            return 0; /* a file system without locks */
        }
        if (r < 0) {
            return err_set(e, -EBUSY, "%s: in use by another VM", path);
        }
    }
    for (size_t i = 0; i < looked; i++) {
        bool free = true;
        int r = lock_byte(fd, F_OFD_GETLK, look[i], F_WRLCK, &free);
        if (r == 0 && !free) {
            return err_set(e, -EBUSY, "%s: in use by another VM", path);
        }
    }
    return 0;
}

static int wrap(struct hostfile **out, int fd, unsigned flags, const char *path, struct err *e)
{
    struct stat st;
    if (fstat(fd, &st) < 0) {
        int r = err_set(e, -errno, "%s: %s", path, strerror(errno));
        close(fd);
        return r;
    }
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
        close(fd);
        return err_set(e, -EINVAL, "%s: neither a file nor a block device", path);
    }
    if (!(flags & HOSTFILE_NO_LOCK)) {
        int r = take_lock(fd, flags & HOSTFILE_READONLY, path, e);
        if (r < 0) {
            close(fd);
            return r;
        }
    }
    struct hostfile *f = xzalloc(sizeof *f);
    f->fd = fd;
    f->readonly = flags & HOSTFILE_READONLY;
    f->device = S_ISBLK(st.st_mode);
    f->dev = f->device ? st.st_rdev : st.st_dev;
    f->ino = f->device ? 0 : st.st_ino;
    *out = f;
    return 0;
}

int hostfile_open(struct hostfile **out, const char *path, unsigned flags, struct err *e)
{
    /* O_NONBLOCK: a FIFO given by mistake must not hang us; it means nothing to files. */
    int mode = O_CLOEXEC | O_NONBLOCK | (flags & HOSTFILE_READONLY ? O_RDONLY : O_RDWR);
    if (flags & HOSTFILE_CREATE) {
        mode |= O_CREAT | O_EXCL;
    }
    int fd = open(path, mode, 0666);
    if (fd < 0) {
        return err_set(e, -errno, "%s: %s", path, strerror(errno));
    }
    return wrap(out, fd, flags, path, e);
}

int hostfile_temporary(struct hostfile **out, struct err *e)
{
    const char *dir = getenv("TMPDIR");
    if (dir == NULL || dir[0] == '\0') {
        dir = "/var/tmp";
    }
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) {
        char *name = xasprintf("%s/sosia-XXXXXX", dir);
        fd = mkostemp(name, O_CLOEXEC);
        if (fd >= 0) {
            unlink(name);
        }
        free(name);
    }
    if (fd < 0) {
        return err_set(e, -errno, "temporary file in %s: %s", dir, strerror(errno));
    }
    return wrap(out, fd, HOSTFILE_NO_LOCK, dir, e);
}

void hostfile_close(struct hostfile *f)
{
    if (f != NULL) {
        close(f->fd);
        free(f);
    }
}

void hostfile_unlock(struct hostfile *f)
{
    struct flock all = { .l_type = F_UNLCK, .l_whence = SEEK_SET };
    fcntl(f->fd, F_OFD_SETLK, &all);
}

int hostfile_lock(struct hostfile *f, const char *path, struct err *e)
{
    return take_lock(f->fd, f->readonly, path, e);
}

bool hostfile_readonly(const struct hostfile *f) { return f->readonly; }
bool hostfile_is_device(const struct hostfile *f) { return f->device; }
int hostfile_fd(const struct hostfile *f) { return f->fd; }

void hostfile_identity(const struct hostfile *f, dev_t *dev, ino_t *ino)
{
    *dev = f->dev;
    *ino = f->ino;
}

int hostfile_size(struct hostfile *f, uint64_t *size)
{
    if (f->device) {
        return ioctl(f->fd, BLKGETSIZE64, size) < 0 ? -errno : 0;
    }
    struct stat st;
    if (fstat(f->fd, &st) < 0) {
        return -errno;
    }
    *size = (uint64_t)st.st_size;
    return 0;
}

int hostfile_allocated(struct hostfile *f, uint64_t *bytes)
{
    if (f->device) {
        return hostfile_size(f, bytes);
    }
    struct stat st;
    if (fstat(f->fd, &st) < 0) {
        return -errno;
    }
    *bytes = (uint64_t)st.st_blocks * 512;
    return 0;
}

static bool range_fits(uint64_t offset, uint64_t len)
{
    return offset <= INT64_MAX && len <= INT64_MAX - offset;
}

int hostfile_read(struct hostfile *f, uint64_t offset, void *buf, size_t len)
{
    uint8_t *p = buf;
    if (!range_fits(offset, len)) {
        return -EINVAL;
    }
    while (len > 0) {
        ssize_t n = pread(f->fd, p, len, (off_t)offset);
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            return -errno;
        }
        if (n == 0) {
            memset(p, 0, len);
            return 0;
        }
        p += n;
        offset += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}

int hostfile_write(struct hostfile *f, uint64_t offset, const void *buf, size_t len)
{
    const uint8_t *p = buf;
    if (f->readonly) {
        return -EROFS;
    }
    if (!range_fits(offset, len)) {
        return -EFBIG;
    }
    while (len > 0) {
        ssize_t n = pwrite(f->fd, p, len, (off_t)offset);
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            return -errno;
        }
        if (n == 0) {
            return -ENOSPC; /* a block device at its end */
        }
        p += n;
        offset += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}

/* A short transfer is finished piece by piece: it is rare, and the element it ended in is where
 * the vector would have to be cut. */
static int finish_vector(struct hostfile *f, uint64_t offset, const struct iovec *iov, int count,
                         size_t done, bool write)
{
    for (int i = 0; i < count; i++) {
        size_t skip = done < iov[i].iov_len ? done : iov[i].iov_len;
        uint8_t *p = (uint8_t *)iov[i].iov_base + skip;
        int r = write ? hostfile_write(f, offset + skip, p, iov[i].iov_len - skip)
                      : hostfile_read(f, offset + skip, p, iov[i].iov_len - skip);
        if (r < 0) {
            return r;
        }
        done -= skip;
        offset += iov[i].iov_len;
    }
    return 0;
}

int hostfile_readv(struct hostfile *f, uint64_t offset, const struct iovec *iov, int count)
{
    ssize_t n = preadv(f->fd, iov, count, (off_t)offset);
    return finish_vector(f, offset, iov, count, n < 0 ? 0 : (size_t)n, false);
}

/* A part of it in the cache is as good as none: the whole is read again. */
int hostfile_readv_cached(struct hostfile *f, uint64_t offset, const struct iovec *iov, int count)
{
    ssize_t n = preadv2(f->fd, iov, count, (off_t)offset, RWF_NOWAIT);
    return n == (ssize_t)vector_bytes(iov, count) ? 0 : -EAGAIN;
}

int hostfile_writev(struct hostfile *f, uint64_t offset, const struct iovec *iov, int count)
{
    if (f->readonly) {
        return -EROFS;
    }
    ssize_t n = pwritev(f->fd, iov, count, (off_t)offset);
    return finish_vector(f, offset, iov, count, n < 0 ? 0 : (size_t)n, true);
}

int hostfile_sync(struct hostfile *f)
{
    int before = atomic_load(&f->sync_error);
    if (before != 0 || f->readonly) {
        return before;
    }
    if (fdatasync(f->fd) < 0) {
        int r = -errno;
        atomic_store(&f->sync_error, r);
        return r;
    }
    return 0;
}

int hostfile_truncate(struct hostfile *f, uint64_t size)
{
    if (f->readonly) {
        return -EROFS;
    }
    if (size > INT64_MAX) {
        return -EFBIG;
    }
    if (f->device) {
        uint64_t now;
        int r = hostfile_size(f, &now);
        return r < 0 ? r : size <= now ? 0 : -ENOSPC;
    }
    return ftruncate(f->fd, (off_t)size) < 0 ? -errno : 0;
}

int hostfile_punch(struct hostfile *f, uint64_t offset, uint64_t len)
{
    if (f->readonly) {
        return -EROFS;
    }
    if (!range_fits(offset, len)) {
        return -EINVAL;
    }
    if (len == 0) {
        return 0;
    }
    return fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)len) <
                   0
               ? -errno
               : 0;
}

static int write_zeroes(struct hostfile *f, uint64_t offset, uint64_t len)
{
    static const uint8_t zeroes[65536];
    while (len > 0) {
        size_t n = len < sizeof zeroes ? (size_t)len : sizeof zeroes;
        int r = hostfile_write(f, offset, zeroes, n);
        if (r < 0) {
            return r;
        }
        offset += n;
        len -= n;
    }
    return 0;
}

int hostfile_zero(struct hostfile *f, uint64_t offset, uint64_t len, bool may_unmap)
{
    if (f->readonly) {
        return -EROFS;
    }
    if (!range_fits(offset, len)) {
        return -EINVAL;
    }
    if (len == 0) {
        return 0;
    }
    uint64_t size;
    int r = hostfile_size(f, &size);
    if (r < 0) {
        return r;
    }
    if (!f->device && offset + len > size) {
        if (offset < size) {
            r = hostfile_zero(f, offset, size - offset, may_unmap);
        }
        return r < 0 ? r : hostfile_truncate(f, offset + len);
    }
    if (may_unmap && hostfile_punch(f, offset, len) == 0) {
        return 0;
    }
    if (fallocate(f->fd, FALLOC_FL_ZERO_RANGE, (off_t)offset, (off_t)len) == 0) {
        return 0;
    }
    return write_zeroes(f, offset, len);
}

int hostfile_reserve(struct hostfile *f, uint64_t offset, uint64_t len)
{
    if (f->readonly) {
        return -EROFS;
    }
    if (!range_fits(offset, len)) {
        return -EFBIG;
    }
    if (f->device) {
        return hostfile_truncate(f, offset + len);
    }
    return len == 0 ? 0 : -posix_fallocate(f->fd, (off_t)offset, (off_t)len);
}

int hostfile_extent(struct hostfile *f, uint64_t offset, uint64_t len, bool *data, uint64_t *run)
{
    *data = true;
    *run = len;
    if (!range_fits(offset, len) || len == 0) {
        return -EINVAL;
    }
    off_t at = lseek(f->fd, (off_t)offset, SEEK_DATA);
    if (at < 0) {
        if (errno == ENXIO) {
            *data = false; /* nothing from here to the end */
        }
        return 0; /* a host that cannot tell: everything is data */
    }
    if ((uint64_t)at > offset) {
        *data = false;
        *run = (uint64_t)at - offset < len ? (uint64_t)at - offset : len;
        return 0;
    }
    at = lseek(f->fd, (off_t)offset, SEEK_HOLE);
    if (at > (off_t)offset && (uint64_t)at - offset < len) {
        *run = (uint64_t)at - offset;
    }
    return 0;
}
