/* SPDX-License-Identifier: Apache-2.0
 *
 * A file layer that fails on demand, for one source file of a test program: it defines the calls
 * that sosia changes files with, which come before the C library's. Operations on the file system
 * that faults_arm was given are counted, in forked children too, and from the n-th on they fail.
 */
#ifndef SOSIA_TESTS_SUPPORT_FAULTS_H
#define SOSIA_TESTS_SUPPORT_FAULTS_H

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum fault {
    FAULT_NONE,        /* count */
    FAULT_FULL,        /* from the n-th on nothing can grow: ENOSPC */
    FAULT_EIO,         /* the n-th fails */
    FAULT_SHORT,       /* the n-th moves half of its bytes; what cannot be short is done */
    FAULT_KILL,        /* the n-th kills this process, the one that armed, and itself */
    FAULT_KILL_WRITER, /* the n-th, when it is a child's, kills the child */
};

/* What an operation is, for who is to choose. */
enum fault_op { FAULT_OP_READ = 1, FAULT_OP_WRITE = 2, FAULT_OP_SYNC = 4, FAULT_OP_NAME = 8 };

struct faults {
    _Atomic bool armed;
    _Atomic unsigned count; /* of operations since */
    enum fault kind;
    unsigned ops; /* that count: enum fault_op */
    unsigned n;   /* from 1 */
    pid_t pid;    /* that armed it */
    dev_t dev;    /* the file system */
};

static struct faults *faults_shared; /* with children */

/* ops: which are counted. n: from 1. */
static inline void faults_arm(const char *where, enum fault kind, unsigned ops, unsigned n)
{
    struct stat st;
    if (faults_shared == NULL) {
        faults_shared = mmap(NULL, sizeof *faults_shared, PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    }
    struct faults *f = faults_shared;
    f->kind = kind;
    f->ops = ops;
    f->n = n;
    f->pid = getpid();
    f->dev = stat(where, &st) == 0 ? st.st_dev : 0;
    atomic_store(&f->count, 0);
    atomic_store(&f->armed, true);
}

/* Returns how many there were. */
static inline unsigned faults_disarm(void)
{
    atomic_store(&faults_shared->armed, false);
    return atomic_load(&faults_shared->count);
}

#define FAULTS_REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static inline void faults_die(struct faults *f)
{
    if (f->kind == FAULT_KILL) {
        kill(f->pid, SIGKILL);
    } else if (getpid() == f->pid) {
        return;
    }
    raise(SIGKILL);
}

/* What is to happen to this operation: 0, or the errno it fails with, or -1: it is to be short. */
static inline int faults_judge(enum fault_op op, bool grows)
{
    struct faults *f = faults_shared;
    if ((f->ops & op) == 0) {
        return 0;
    }
    unsigned i = atomic_fetch_add(&f->count, 1) + 1;
    switch (f->kind) {
    case FAULT_FULL:
        return i >= f->n && grows ? ENOSPC : 0;
    case FAULT_EIO:
        return i == f->n ? EIO : 0;
    case FAULT_SHORT:
        return i == f->n && (op & (FAULT_OP_READ | FAULT_OP_WRITE)) ? -1 : 0;
    case FAULT_KILL:
    case FAULT_KILL_WRITER:
        if (i == f->n) {
            faults_die(f);
        }
        return 0;
    default:
        return 0;
    }
}

static inline int faults_of_fd(int fd, enum fault_op op, bool grows)
{
    struct stat st;
    if (faults_shared == NULL || !atomic_load(&faults_shared->armed) || fstat(fd, &st) < 0 ||
        st.st_dev != faults_shared->dev || !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode))) {
        return 0;
    }
    return faults_judge(op, grows);
}

/* Of a name that is to be made, moved or removed: its directory says where. */
static inline int faults_of_path(const char *path, bool grows)
{
    char dir[1024];
    struct stat st;
    if (faults_shared == NULL || !atomic_load(&faults_shared->armed)) {
        return 0;
    }
    snprintf(dir, sizeof dir, "%s", path);
    char *slash = strrchr(dir, '/');
    strcpy(slash != NULL ? slash + 1 : dir, ".");
    if (stat(dir, &st) < 0 || st.st_dev != faults_shared->dev) {
        return 0;
    }
    return faults_judge(FAULT_OP_NAME, grows);
}

/* For `result f(fd, ..., len)`: a short one has half the length. */
#define FAULTS_MOVE(name, op, fd, len, call)                                                       \
    int faults_r = faults_of_fd(fd, op, op == FAULT_OP_WRITE);                                     \
    if (faults_r > 0) {                                                                            \
        errno = faults_r;                                                                          \
        return -1;                                                                                 \
    }                                                                                              \
    len = faults_r < 0 && len > 1 ? len / 2 : len;                                                 \
    return FAULTS_REAL(name) call

#define FAULTS_DO(name, judged, call)                                                              \
    int faults_r = judged;                                                                         \
    if (faults_r > 0) {                                                                            \
        errno = faults_r;                                                                          \
        return -1;                                                                                 \
    }                                                                                              \
    return FAULTS_REAL(name) call

ssize_t pwrite(int fd, const void *buf, size_t len, off_t at)
{
    FAULTS_MOVE(pwrite, FAULT_OP_WRITE, fd, len, (fd, buf, len, at));
}

ssize_t write(int fd, const void *buf, size_t len)
{
    FAULTS_MOVE(write, FAULT_OP_WRITE, fd, len, (fd, buf, len));
}

ssize_t pread(int fd, void *buf, size_t len, off_t at)
{
    FAULTS_MOVE(pread, FAULT_OP_READ, fd, len, (fd, buf, len, at));
}

int ftruncate(int fd, off_t len)
{
    FAULTS_DO(ftruncate, faults_of_fd(fd, FAULT_OP_SYNC, true), (fd, len));
}

int fsync(int fd) { FAULTS_DO(fsync, faults_of_fd(fd, FAULT_OP_SYNC, false), (fd)); }

int fdatasync(int fd) { FAULTS_DO(fdatasync, faults_of_fd(fd, FAULT_OP_SYNC, false), (fd)); }

int rename(const char *from, const char *to)
{
    FAULTS_DO(rename, faults_of_path(to, false), (from, to));
}

int link(const char *from, const char *to)
{
    FAULTS_DO(link, faults_of_path(to, true), (from, to));
}

int unlink(const char *path) { FAULTS_DO(unlink, faults_of_path(path, false), (path)); }

int open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    bool makes = (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE;
    mode_t mode = makes ? va_arg(args, mode_t) : 0;
    va_end(args);
    FAULTS_DO(open, (flags & O_CREAT) != 0 ? faults_of_path(path, true) : 0, (path, flags, mode));
}

#endif
