/* SPDX-License-Identifier: Apache-2.0 -- include/sosia.h over snapshots */
#include "sosia.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "block/image.h"
#include "machine/vm.h"
#include "snapshot/snapshot.h"

#define NAMES_MAX 10000u

/* A struct sosia_snapshot is a struct snapshot under its public name. */
static struct snapshot *inner(struct sosia_snapshot *s) { return (struct snapshot *)s; }

static int give(char *error, int r, const struct err *e)
{
    if (r < 0 && error != NULL) {
        snprintf(error, SOSIA_ERROR_BYTES, "%s", e->msg);
    }
    return r;
}

int sosia_vm_snapshot(struct sosia_vm *vm, const char *path,
                      const struct sosia_snapshot_options *options,
                      struct sosia_snapshot_result *result, char *error)
{
    struct err e = { 0 };
    struct snapshot_save how = { .path = path, .translations = -1 };
    struct snapshot_result did = { 0 };
    if (options != NULL) {
        how.parent = options->parent;
        how.compress = options->compress;
        how.scratch = options->scratch;
    }
    int r = snapshot_save(sosia_vm_machine(vm), &how, &did, &e);
    if (result != NULL) {
        *result = (struct sosia_snapshot_result){ did.pause_ns, did.total_ns, did.bytes,
                                                  did.memory };
    }
    return give(error, r, &e);
}

int sosia_snapshot_open(struct sosia_snapshot **out, const char *path, char *error)
{
    struct err e = { 0 };
    struct snapshot *s;
    int r = snapshot_open(&s, path, &e);
    if (r == 0) {
        *out = (struct sosia_snapshot *)s;
    }
    return give(error, r, &e);
}

void sosia_snapshot_translations(struct sosia_snapshot *s, int fd) { inner(s)->translations = fd; }

void sosia_snapshot_close(struct sosia_snapshot *s) { snapshot_close(inner(s)); }

/* Of a disk that the machine writes, and the snapshot needs as it is. */
static bool is_written(const struct sosia_disk *d) { return !d->readonly && !d->cdrom; }

static void cut_off(struct sosia_serial *port)
{
    if (port->kind == SOSIA_SERIAL_FILE || port->kind == SOSIA_SERIAL_UNIX ||
        port->kind == SOSIA_SERIAL_PTY) {
        port->kind = SOSIA_SERIAL_NONE;
    }
}

void snapshot_cut_off(struct vmconfig *v)
{
    struct sosia_config *c = vmconfig_config(v);
    for (unsigned i = 0; i < SOSIA_SERIAL_PORTS; i++) {
        cut_off(&c->serial[i]);
    }
    for (unsigned i = 0; i < c->console_count; i++) {
        cut_off(vmconfig_console(v, i));
    }
    c->restoring = true;
}

void sosia_snapshot_config(struct sosia_snapshot *s, struct sosia_config *config)
{
    struct sosia_config *c = vmconfig_config(inner(s)->config);
    for (unsigned i = 0; i < c->disk_count; i++) {
        struct sosia_disk *d = vmconfig_disk(inner(s)->config, i);
        d->ephemeral = is_written(d) && !inner(s)->kept[i];
    }
    snapshot_cut_off(inner(s)->config);
    *config = *c;
}

/* PREFIX.disk0.qcow2, or the next PREFIX.disk0.N.qcow2 that is free; free() it, NULL: none is. The
 * image gets that name when it is whole. */
static char *name_overlay(const char *part, unsigned n, const char *prefix, struct err *e)
{
    for (unsigned k = 1; k < NAMES_MAX; k++) {
        char *path = k == 1 ? xasprintf("%s.disk%u.qcow2", prefix, n)
                            : xasprintf("%s.disk%u.%u.qcow2", prefix, n, k);
        if (link(part, path) == 0) {
            return path;
        }
        int error = errno;
        free(path);
        if (error != EEXIST) {
            err_set(e, -error, "%s.disk%u: %s", prefix, n, strerror(error));
            return NULL;
        }
    }
    err_set(e, -EEXIST, "%s.disk%u: too many files of that name", prefix, n);
    return NULL;
}

static int make_overlay(struct snapshot *s, unsigned n, const char *prefix, struct err *e)
{
    struct sosia_disk *d = vmconfig_disk(s->config, n);
    char *part = xasprintf("%s.disk%u.%d.part", prefix, n, (int)getpid());
    const struct block_create c = {
        .path = part, .format = "qcow2", .parent = d->path, .parent_format = d->format
    };
    unlink(part); /* of one that was killed, and had our number */
    int r = block_create(&c, e);
    char *path = r == 0 ? name_overlay(part, n, prefix, e) : NULL;
    unlink(part);
    free(part);
    if (path == NULL) {
        return r < 0 ? r : -EIO;
    }
    const char *kept = vmconfig_keep(s->config, path);
    if (kept == NULL) {
        unlink(path);
        r = err_set(e, -E2BIG, "too many disks");
    } else {
        d->path = kept;
        d->format = "qcow2";
        s->kept[n] = true;
    }
    free(path);
    return r;
}

int sosia_snapshot_keep_disks(struct sosia_snapshot *s, const char *prefix, char *error)
{
    struct err e = { 0 };
    const struct sosia_config *c = vmconfig_config(inner(s)->config);
    int r = 0;
    for (unsigned i = 0; i < c->disk_count && r == 0; i++) {
        if (is_written(&c->disks[i]) && !inner(s)->kept[i]) {
            r = make_overlay(inner(s), i, prefix, &e);
        }
    }
    return give(error, r, &e);
}

void sosia_snapshot_drop_disks(struct sosia_snapshot *s)
{
    for (unsigned i = 0; i < SOSIA_DISKS_MAX; i++) {
        if (inner(s)->kept[i]) {
            unlink(vmconfig_disk(inner(s)->config, i)->path);
            inner(s)->kept[i] = false;
        }
    }
}

int sosia_vm_restore(struct sosia_vm *vm, struct sosia_snapshot *s, char *error)
{
    struct err e = { 0 };
    return give(error, snapshot_load(inner(s), sosia_vm_machine(vm), &e), &e);
}
