/* SPDX-License-Identifier: Apache-2.0 -- files of kernels and modules, read in pieces */
#include "boot/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bits.h"

#define PIECE MIB(1) /* through a buffer, where guest RAM cannot be read into directly */

int boot_file_open(struct boot_file *f, const char *path, struct err *e)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) {
        return err_set(e, -errno, "%s: %s", path, strerror(errno));
    }
    int r = 0;
    if (fstat(fd, &st) < 0) {
        r = err_set(e, -errno, "%s: %s", path, strerror(errno));
    } else if (S_ISDIR(st.st_mode)) {
        r = err_set(e, -EISDIR, "%s: is a directory", path);
    } else if (!S_ISREG(st.st_mode)) {
        r = err_set(e, -EINVAL, "%s: not a regular file", path);
    } else if (st.st_size == 0) {
        r = err_set(e, -EINVAL, "%s: the file is empty", path);
    }
    if (r < 0) {
        close(fd);
        return r;
    }
    *f = (struct boot_file){ .name = xstrdup(path), .fd = fd, .size = (uint64_t)st.st_size };
    return 0;
}

void boot_file_memory(struct boot_file *f, const char *name, const void *data, uint64_t size)
{
    *f = (struct boot_file){ .name = xstrdup(name), .fd = -1, .data = data, .size = size };
}

void boot_file_close(struct boot_file *f)
{
    if (f->name != NULL && f->fd >= 0) {
        close(f->fd);
    }
    free(f->name);
    *f = (struct boot_file){ .fd = -1 };
}

int boot_file_bad(const struct boot_file *f, struct err *e, const char *fmt, ...)
{
    char why[sizeof e->msg];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    return err_set(e, -EINVAL, "%s: %s", f->name, why);
}

int boot_file_read(struct boot_file *f, uint64_t offset, void *buf, uint64_t len, struct err *e)
{
    if (offset > f->size || len > f->size - offset) {
        return err_set(e, -EINVAL,
                       "%s: truncated: needs %" PRIu64 " bytes at %#" PRIx64
                       ", the file has %" PRIu64,
                       f->name, len, offset, f->size);
    }
    if (f->fd < 0) {
        if (len != 0) {
            memcpy(buf, f->data + offset, len);
        }
        return 0;
    }
    uint8_t *to = buf;
    while (len != 0) {
        ssize_t n = pread(f->fd, to, len, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return err_set(e, -errno, "%s: %s", f->name, strerror(errno));
        }
        if (n == 0) {
            return err_set(e, -EIO, "%s: the file shrank while it was read", f->name);
        }
        to += n;
        offset += (uint64_t)n;
        len -= (uint64_t)n;
    }
    return 0;
}

static int through_buffer(struct boot_file *f, uint64_t offset, struct gmem *mem, gpa_t gpa,
                          uint64_t len, struct err *e)
{
    uint8_t *piece = xzalloc(PIECE);
    int r = 0;
    while (len != 0 && r == 0) {
        uint64_t n = len < PIECE ? len : PIECE;
        r = boot_file_read(f, offset, piece, n, e);
        if (r == 0 && gmem_write(mem, gpa, piece, n) < 0) {
            r = err_set(e, -EFAULT, "%s: no RAM at %#" PRIx64, f->name, gpa);
        }
        offset += n;
        gpa += n;
        len -= n;
    }
    free(piece);
    return r;
}

int boot_file_to_guest(struct boot_file *f, uint64_t offset, struct gmem *mem, gpa_t gpa,
                       uint64_t len, struct err *e)
{
    uint8_t *host = len != 0 ? gmem_ptr(mem, gpa, len) : NULL;
    if (host == NULL) {
        return through_buffer(f, offset, mem, gpa, len, e);
    }
    int r = boot_file_read(f, offset, host, len, e);
    gmem_mark_written(mem, gpa, len);
    return r;
}
