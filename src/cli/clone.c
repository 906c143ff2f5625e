/* SPDX-License-Identifier: Apache-2.0
 *
 * `sosia clone`: several VMs of one. Each is a process that restores the same snapshot, whose
 * memory and disks they share until they write, with an identity of its own. All are made ready
 * before the first one runs: when one cannot be, or we are killed, none is left.
 *
 * Two kinds of pipes: by one of its own each clone says what is wrong, then nothing or a NUL for
 * "ready"; from one that all share each takes a byte for "run", or finds its end.
 */
#include "cli/clone.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/crc32c.h"
#include "cli/control.h"
#include "cli/run.h"

#define CLONES_MAX 1000u
#define NUMBER "{n}" /* in options: the clone's */

struct clone_options {
    const char *source;
    const char *prefix;
    unsigned count;
    char **rest; /* owned list: options of sosia restore */
    unsigned rest_count;
};

/* One of them, in its own process. */
struct clone {
    unsigned number; /* from 1 */
    char *name;      /* owned */
    char *vsock;     /* owned; or NULL */
    int ready_fd;
    int go_fd;
    int translations; /* < 0: none */
};

/* -- In a clone: its identity ------------------------------------------------------------------ */
/* Ports that the source had are the source's: clone N has those N above. */
static int move_forwards(struct run_options *o, struct sosia_net *net, unsigned n, struct err *e)
{
    const struct sosia_forward *from = net->forwards;
    if (net->forward_count > OPTIONS_FORWARDS_MAX - o->forward_count) {
        return err_set(e, -EINVAL, "there can be %d forwarded ports", OPTIONS_FORWARDS_MAX);
    }
    net->forwards = &o->forward[o->forward_count];
    for (unsigned i = 0; i < net->forward_count; i++) {
        if (from[i].host_port + n > UINT16_MAX) {
            return err_set(e, -ERANGE, "no host port for the %u of the source: use --net",
                           from[i].host_port);
        }
        o->forward[o->forward_count] = from[i];
        o->forward[o->forward_count++].host_port += (uint16_t)n;
    }
    return 0;
}

/* Locally administered, and the same for the same name. */
static void make_mac(struct sosia_net *net, const char *name, unsigned index)
{
    uint32_t hash = crc32c(index, name, strlen(name));
    net->has_mac = true;
    net->mac[0] = 0x52;
    net->mac[1] = 0x56;
    for (unsigned i = 0; i < 4; i++) {
        net->mac[2 + i] = (uint8_t)(hash >> 8 * i);
    }
}

static int take_identity(void *ctx, struct run_options *o, const char **prefix, struct err *e)
{
    struct clone *c = ctx;
    int r = 0;
    o->name = *prefix = c->name;
    sosia_snapshot_translations(o->snapshot, c->translations);
    if (o->config.vsock != NULL) {
        o->config.vsock = c->vsock = xasprintf("%s.%s", o->config.vsock, c->name);
    }
    for (unsigned i = 0; i < o->config.net_count && r == 0; i++) {
        if (!o->nets_given) {
            r = move_forwards(o, &o->net[i], c->number, e);
        }
        if (!o->nets_given || !o->net[i].has_mac) {
            make_mac(&o->net[i], c->name, i);
        }
    }
    return r;
}

/* From here on nobody reads what we say. */
static bool wait_for_go(void *ctx)
{
    struct clone *c = ctx;
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    char byte = '\0';
    fflush(stderr);
    bool go = null >= 0 && write(c->ready_fd, &byte, 1) == 1 && dup2(null, STDERR_FILENO) >= 0;
    close(null);
    close(c->ready_fd);
    if (c->translations >= 0) {
        close(c->translations);
    }
    return go && read(c->go_fd, &byte, 1) == 1;
}

static char *with_number(const char *text, unsigned n)
{
    char *out = xstrdup(text), *at;
    while ((at = strstr(out, NUMBER)) != NULL) {
        char *next = xasprintf("%.*s%u%s", (int)(at - out), out, n, at + strlen(NUMBER));
        free(out);
        out = next;
    }
    return out;
}

/* In a session of its own, away from the terminal. */
static bool leave_terminal(struct clone *c)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    setsid();
    return null >= 0 && dup2(null, STDIN_FILENO) >= 0 && dup2(null, STDOUT_FILENO) >= 0 &&
           dup2(c->ready_fd, STDERR_FILENO) >= 0;
}

static int clone_process(struct clone *c, const struct clone_options *o, const char *snapshot)
{
    const struct run_hooks hooks = { .prepare = take_identity, .go = wait_for_go, .ctx = c };
    int argc = 0;
    char **argv = xcalloc(o->rest_count + 3, sizeof *argv);
    argv[argc++] = xstrdup("restore");
    argv[argc++] = xstrdup(snapshot);
    for (unsigned i = 0; i < o->rest_count; i++) {
        argv[argc++] = with_number(o->rest[i], c->number);
    }
    int status = leave_terminal(c) ? run_hooked(argc, argv, &hooks) : 1;
    for (int i = 0; i < argc; i++) {
        free(argv[i]);
    }
    free(argv);
    free(c->vsock);
    return status;
}

/* -- In the process that makes them ------------------------------------------------------------ */
struct family {
    unsigned count; /* that were started */
    int translations; /* of the VM they are made of: a sealed file in memory; < 0: none */
    sigset_t signals; /* that were blocked before; the others wait until the files are tidied up */
    pid_t pid[CLONES_MAX];
    int ready_fd[CLONES_MAX];
    int go_fd[2];
};

static char *name_of(const struct clone_options *o, unsigned i)
{
    return xasprintf("%s-%u", o->prefix, i + 1);
}

static int spawn(struct family *f, const struct clone_options *o, const char *snapshot,
                 struct err *e)
{
    int ready[2];
    if (pipe2(ready, O_CLOEXEC) < 0) {
        return err_set(e, -errno, "pipe: %s", strerror(errno));
    }
    pid_t pid = fork();
    if (pid == 0) {
        sigprocmask(SIG_SETMASK, &f->signals, NULL);
        close(f->go_fd[1]);
        close(ready[0]);
        for (unsigned i = 0; i < f->count; i++) {
            close(f->ready_fd[i]);
        }
        struct clone c = { .number = f->count + 1,
                           .name = name_of(o, f->count),
                           .ready_fd = ready[1],
                           .go_fd = f->go_fd[0],
                           .translations = f->translations };
        int status = clone_process(&c, o, snapshot);
        free(c.name);
        exit(status);
    }
    close(ready[1]);
    if (pid < 0) {
        close(ready[0]);
        return err_set(e, -errno, "fork: %s", strerror(errno));
    }
    f->pid[f->count] = pid;
    f->ready_fd[f->count++] = ready[0];
    return 0;
}

/* Until it is ready, or has ended, and then what it said last is why. */
static int await(int fd, const char *name, struct err *e)
{
    static const char prefix[] = "sosia: ";
    char text[1024];
    size_t len = 0;
    ssize_t n;
    while ((n = read(fd, text + len, sizeof text - 1 - len)) > 0) {
        len += (size_t)n;
        if (memchr(text, '\0', len) != NULL) {
            fputs(text, stderr);
            return 0;
        }
        if (len == sizeof text - 1) {
            fwrite(text, 1, len, stderr);
            len = 0;
        }
    }
    len -= len != 0 && text[len - 1] == '\n';
    text[len] = '\0';
    const char *line = strrchr(text, '\n');
    const char *why = line != NULL ? line + 1 : text;
    fwrite(text, 1, (size_t)(why - text), stderr);
    why += strncmp(why, prefix, strlen(prefix)) == 0 ? strlen(prefix) : 0;
    return err_set(e, -ECHILD, "%s: %s, so none is made", name, *why != '\0' ? why : "it ended");
}

/* Whether they run or not, we know no more of them afterwards. */
static int decide(struct family *f, bool go, struct err *e)
{
    char bytes[CLONES_MAX] = { 0 };
    int r = 0;
    if (go && write(f->go_fd[1], bytes, f->count) != (ssize_t)f->count) {
        r = err_set(e, -EIO, "the clones cannot be started: %s", strerror(errno));
    }
    close(f->go_fd[1]);
    close(f->go_fd[0]);
    for (unsigned i = 0; i < f->count; i++) {
        close(f->ready_fd[i]);
        if (!go) {
            waitpid(f->pid[i], NULL, 0); /* its files are gone then */
        }
    }
    return r;
}

static int make_all(struct family *f, const struct clone_options *o, const char *snapshot,
                    struct err *e)
{
    if (pipe2(f->go_fd, O_CLOEXEC) < 0) {
        return err_set(e, -errno, "pipe: %s", strerror(errno));
    }
    int r = 0;
    fflush(NULL); /* else each clone writes it again */
    for (unsigned i = 0; i < o->count && r == 0; i++) {
        r = spawn(f, o, snapshot, e);
    }
    for (unsigned i = 0; i < o->count && r == 0; i++) {
        char *name = name_of(o, i);
        r = await(f->ready_fd[i], name, e);
        free(name);
    }
    sigset_t waiting;
    sigpending(&waiting);
    if (r == 0 && !sigisemptyset(&waiting)) {
        r = err_set(e, -EINTR, "interrupted");
    }
    int decided = decide(f, r == 0, e);
    return r < 0 ? r : decided;
}

/* -- The command line -------------------------------------------------------------------------- */
static int parse_count(const char *text, unsigned *count, struct err *e)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || n == 0 || n > CLONES_MAX) {
        return err_set(e, -EINVAL, "-n: '%s' is not a number of clones, 1 to %u", text,
                       CLONES_MAX);
    }
    *count = (unsigned)n;
    return 0;
}

static int parse(struct clone_options *o, int argc, char **argv, struct err *e)
{
    int r = 0;
    o->source = argc > 1 && argv[1][0] != '-' ? argv[1] : NULL;
    for (int i = 2; i < argc && r == 0; i++) {
        bool count = strcmp(argv[i], "-n") == 0 || strcmp(argv[i], "--count") == 0;
        if ((count || strcmp(argv[i], "--name-prefix") == 0) && i + 1 == argc) {
            r = err_set(e, -EINVAL, "option %s needs an argument", argv[i]);
        } else if (count) {
            r = parse_count(argv[++i], &o->count, e);
        } else if (strcmp(argv[i], "--name-prefix") == 0) {
            o->prefix = argv[++i];
        } else if (strcmp(argv[i], "--name") == 0) {
            r = err_set(e, -EINVAL, "clones have names of their own: use --name-prefix");
        } else {
            o->rest[o->rest_count++] = argv[i];
        }
    }
    if (r == 0 && (o->source == NULL || o->count == 0)) {
        r = err_set(e, -EINVAL, "of what, and how many? sosia clone SOURCE -n N "
                                "[--name-prefix P] [options of restore]");
    }
    if (r == 0 && o->prefix == NULL) {
        const char *slash = strrchr(o->source, '/');
        o->prefix = slash != NULL ? slash + 1 : o->source;
    }
    if (r == 0 && strchr(o->prefix, '/') != NULL) {
        r = err_set(e, -EINVAL, "--name-prefix: '%s' is no name for a VM", o->prefix);
    }
    return r;
}

/* Translations are executed, so from here on nobody may write them. */
static void seal_translations(struct family *f)
{
    int seals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    if (f->translations >= 0 && fcntl(f->translations, F_ADD_SEALS, seals) < 0) {
        close(f->translations);
        f->translations = -1;
    }
}

static int clone_running(struct family *f, const struct clone_options *o, struct err *e)
{
    char *scratch = xasprintf("%s.clones-%d", o->prefix, (int)getpid());
    f->translations = memfd_create("sosia-translations", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int r = control_scratch_snapshot(o->source, scratch, f->translations, e);
    if (r == 0) {
        seal_translations(f);
        r = make_all(f, o, scratch, e);
        unlink(scratch); /* those that run have it mapped */
    }
    if (f->translations >= 0) {
        close(f->translations);
    }
    free(scratch);
    return r;
}

static int clone_source(const struct clone_options *o, struct err *e)
{
    struct family *f = xzalloc(sizeof *f);
    struct stat st;
    sigset_t ending;
    int r;
    sigemptyset(&ending);
    sigaddset(&ending, SIGINT);
    sigaddset(&ending, SIGTERM);
    sigaddset(&ending, SIGHUP);
    sigprocmask(SIG_BLOCK, &ending, &f->signals);
    if (stat(o->source, &st) == 0 && S_ISREG(st.st_mode)) {
        f->translations = -1;
        r = make_all(f, o, o->source, e);
    } else {
        r = clone_running(f, o, e);
    }
    for (unsigned i = 0; i < f->count && r == 0; i++) {
        char *name = name_of(o, i);
        printf("%-20s %8d\n", name, (int)f->pid[i]);
        free(name);
    }
    fflush(stdout);
    sigprocmask(SIG_SETMASK, &f->signals, NULL);
    free(f);
    return r;
}

int clone_main(int argc, char **argv)
{
    struct clone_options o = { .rest = xcalloc((size_t)argc, sizeof *o.rest) };
    struct err e = { 0 };
    int r = parse(&o, argc, argv, &e);
    if (r == 0) {
        r = clone_source(&o, &e);
    }
    if (r < 0) {
        fprintf(stderr, "sosia: clone: %s\n", e.msg);
    }
    free(o.rest);
    return r < 0 ? 1 : 0;
}
