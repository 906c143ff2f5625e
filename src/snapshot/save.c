/* SPDX-License-Identifier: Apache-2.0
 *
 * A snapshot is made in three parts. Before: overlays for the disks, the parent's tables. In the
 * pause: devices into the stream, disks into their overlays, and fork(). After: the child, whose
 * memory is the guest's of that moment by copy on write, writes the file, under another name until
 * it is whole.
 *
 * The child lives no longer than the thread that waits for it, so that nothing is left behind by a
 * process that was killed but a file called FILE.part, which the next snapshot replaces.
 */
#include "snapshot/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "machine/freeze.h"
#include "machine/moving.h"
#include "machine/pc.h"
#include "snapshot/image.h"
#include "snapshot/pack.h"
#include "snapshot/part.h"

/* The guest goes first. */
#define CHILD_NICE 5

struct save {
    const struct snapshot_save *how;
    struct freeze freeze;
    struct image image;
    struct state_out *state;
    struct part part;
    pid_t child;
    int pipe;          /* from the child: its struct answer */
    uint64_t still_ns; /* when the machine began to stand still */
};

struct answer {
    int error; /* 0 or -errno */
    uint64_t stored;
};

static uint64_t ns_of(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* -- The state --------------------------------------------------------------------------------- */

static void put_disk(struct state_out *o, unsigned n, const char *path)
{
    struct snapshot_disk d;
    char name[24];
    if (snapshot_look_at_disk(&d, path)) {
        snprintf(name, sizeof name, "file.%u", n);
        state_save(o, name, SNAPSHOT_DISK_VERSION, snapshot_disk_state, &d);
    }
}

char *snapshot_config_text(struct machine *m, const struct freeze *f)
{
    struct sosia_config c = *vmconfig_config(m->config);
    struct sosia_disk disks[SOSIA_DISKS_MAX];
    char model[MACHINE_CPU_SPEC_MAX];
    machine_cpu_spec(m, model);
    c.cpu_model = model;
    for (unsigned i = 0; i < c.disk_count; i++) {
        machine_disk_now(m, i, &disks[i]);
        if (f != NULL && f->disk[i].frozen != NULL) {
            disks[i].path = f->disk[i].frozen;
            disks[i].format = f->disk[i].format;
        }
    }
    c.disks = disks;
    c.screen |= m->pc->has_vga;
    return vmconfig_text(&c);
}

static void put_state(struct machine *m, struct state_out *o, const struct freeze *f)
{
    for (unsigned i = 0; i < f->count; i++) {
        const struct frozen_disk *d = &f->disk[i];
        put_disk(o, i, d->frozen != NULL ? d->frozen : block_path(m->pc->disks.disk[i].block));
    }
    char *text = snapshot_config_text(m, f);
    state_save_blob(o, "config", text, strlen(text));
    free(text);
    machine_save_state(m, o);
}

/* -- The pause --------------------------------------------------------------------------------- */

static void put_wall_time(struct snapfile_header *h) { h->wall_ns = ns_of(CLOCK_REALTIME); }

/* Those who take the snapshot up can do without. */
static void put_translations(struct machine *m, int fd)
{
    struct err e;
    if (fd >= 0 && m->engine_class->bequeath != NULL &&
        m->engine_class->bequeath(m->engine, fd, &e) < 0) {
        log_warn("%s", e.msg);
        (void)!ftruncate(fd, 0);
    }
}

static int by_number(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

/* Nothing but what is to be written, the pipe and the parents is left open: the guest's connections
 * and the locks of its disks must not live on because we do. */
static void close_others(const struct save *s, int to_parent)
{
    int keep[2 + SNAPFILE_CHAIN_MAX] = { s->image.fd, to_parent };
    unsigned count = 2, from = 3;
    for (unsigned i = 0; s->image.parent != NULL && i < s->image.parent->count; i++) {
        keep[count++] = s->image.parent->layer[i].fd;
    }
    qsort(keep, count, sizeof *keep, by_number);
    for (unsigned i = 0; i < count; i++) {
        if ((unsigned)keep[i] > from) {
            close_range(from, (unsigned)keep[i] - 1, 0);
        }
        from = (unsigned)keep[i] + 1;
    }
    close_range(from, ~0u, 0);
}

static _Noreturn void be_the_child(struct save *s, int to_parent, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
        _exit(1);
    }
    close_others(s, to_parent);
    (void)!nice(CHILD_NICE);
    struct answer a = { .error = image_write(&s->image, NULL) };
    a.stored = s->image.header.stored;
    _exit(write(to_parent, &a, sizeof a) == (ssize_t)sizeof a ? 0 : 1);
}

/* In machine_still. */
static int stand_still(struct machine *m, void *ctx, struct err *e)
{
    struct save *s = ctx;
    int ends[2];
    bus_quiesce(m->bus);
    int r = freeze_commit(&s->freeze, m, e);
    if (r < 0) {
        return r;
    }
    put_state(m, s->state, &s->freeze);
    put_translations(m, s->how->translations);
    put_wall_time(&s->image.header);
    size_t len;
    s->image.state = state_out_data(s->state, &len);
    s->image.header.state_len = len;
    if (pipe2(ends, O_CLOEXEC) < 0) {
        return err_set(e, -errno, "%s: %s", s->how->path, strerror(errno));
    }
    pid_t self = getpid();
    s->child = fork();
    if (s->child == 0) {
        be_the_child(s, ends[1], self);
    }
    int error = errno;
    close(ends[1]);
    s->pipe = ends[0];
    return s->child > 0 ? 0
                        : err_set(e, -error, "%s: the host has no room for a copy of memory: %s",
                                  s->how->path, strerror(error));
}

/* -- Before and after -------------------------------------------------------------------------- */

static int open_parent(struct save *s, struct err *e)
{
    const char *path = s->how->parent;
    struct snapfile_header *h = &s->image.header;
    int r = chain_open(&s->image.parent, path, e);
    if (r < 0) {
        return r;
    }
    const struct chain *c = s->image.parent;
    if (c->count == SNAPFILE_CHAIN_MAX) {
        return err_set(e, -ELOOP, "%s: rests on %u others already: merge some", path,
                       SNAPFILE_CHAIN_MAX - 1);
    }
    if (c->layer[0].header.pages != h->pages) {
        return err_set(e, -EINVAL, "%s: of a machine of another size", path);
    }
    struct stat replaced, resting;
    if (stat(s->how->path, &replaced) == 0 && fstat(c->layer[0].fd, &resting) == 0 &&
        replaced.st_ino == resting.st_ino && replaced.st_dev == resting.st_dev) {
        return err_set(e, -EINVAL, "%s: a snapshot cannot take the place of its own parent", path);
    }
    r = part_name_parent(h, s->how->path, path, c->layer[0].header.id, e);
    return r < 0 ? r : chain_load_tables(s->image.parent, e);
}

static int prepare(struct save *s, struct machine *m, struct err *e)
{
    struct snapfile_header *h = &s->image.header;
    const char *path = s->how->path;
    if (machine_elsewhere(m)) {
        return err_set(e, -EBUSY, "%s: the VM is not here", path);
    }
    if (s->how->compress && !pack_built()) {
        return err_set(e, -ENOTSUP, "%s: this build has no zstd to compress with", path);
    }
    h->flags = s->how->compress ? SNAPFILE_ZSTD : 0;
    h->ram_pages = gmem_ram_size(m->mem) >> GMEM_PAGE_BITS;
    h->rom_pages = gmem_rom_pages(m->mem);
    h->pages = h->ram_pages + h->rom_pages;
    s->image.memory = gmem_ram_host(m->mem);
    s->image.sync = !s->how->scratch;
    s->image.table = try_alloc(h->pages, sizeof *s->image.table);
    if (s->image.table == NULL) {
        return err_set(e, -ENOMEM, "%s: no memory for its table", path);
    }
    if (getrandom(h->id, sizeof h->id, 0) != (ssize_t)sizeof h->id) {
        return err_set(e, -EIO, "%s: the host has no random numbers", path);
    }
    int r = part_open(&s->part, path, e);
    s->image.fd = s->part.fd;
    if (r == 0 && s->how->parent != NULL) {
        r = open_parent(s, e);
    }
    if (r == 0) {
        const char *slash = strrchr(path, '/');
        r = freeze_prepare(&s->freeze, m, slash != NULL ? slash + 1 : path, e);
    }
    return r;
}

static int wait_for_child(struct save *s, struct err *e)
{
    struct answer a = { 0 };
    ssize_t n;
    do {
        n = read(s->pipe, &a, sizeof a);
    } while (n < 0 && errno == EINTR);
    while (waitpid(s->child, NULL, 0) < 0 && errno == EINTR) {
    }
    if (n != (ssize_t)sizeof a) {
        return err_set(e, -EIO, "%s: the process that writes it died", s->how->path);
    }
    s->image.header.stored = a.stored;
    return a.error == 0 ? 0 : err_set(e, a.error, "%s: %s", s->how->path, strerror(-a.error));
}

/* Disks first: a snapshot that is there must not refer to what is not. */
static int publish(struct save *s, struct err *e)
{
    for (unsigned i = 0; i < s->freeze.count && !s->how->scratch; i++) {
        const char *frozen = s->freeze.disk[i].frozen;
        int r = frozen != NULL ? part_sync(frozen) : 0;
        if (r == 0 && frozen != NULL) {
            r = part_sync_directory(frozen); /* its second name, and the overlay's */
        }
        if (r < 0) {
            return err_set(e, r, "%s: %s", frozen, strerror(-r));
        }
    }
    return part_publish(&s->part, !s->how->scratch, e);
}

int snapshot_save(struct machine *m, const struct snapshot_save *how,
                  struct snapshot_result *result, struct err *e)
{
    struct save s = { .how = how, .part.fd = -1, .pipe = -1, .state = state_out_new() };
    uint64_t start = ns_of(CLOCK_MONOTONIC);
    int r = prepare(&s, m, e);
    if (r == 0) {
        s.still_ns = ns_of(CLOCK_MONOTONIC); /* from when the first processor may have stopped */
        r = machine_still(m, stand_still, &s, e);
        result->pause_ns = ns_of(CLOCK_MONOTONIC) - s.still_ns;
    }
    if (r == 0) {
        r = wait_for_child(&s, e);
    }
    if (r == 0) {
        r = publish(&s, e);
    }
    result->total_ns = ns_of(CLOCK_MONOTONIC) - start;
    result->bytes = s.image.header.stored * SNAPFILE_PAGE;
    result->memory = s.image.header.pages * SNAPFILE_PAGE;
    freeze_fini(&s.freeze);
    chain_close(s.image.parent);
    state_out_free(s.state);
    part_close(&s.part);
    if (s.pipe >= 0) {
        close(s.pipe);
    }
    free(s.image.table);
    return r;
}
