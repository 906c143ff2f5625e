/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/freeze.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "block/image.h"
#include "machine/machine.h"
#include "machine/pc.h"
#include "machine/vmconfig.h"

#define NAMES_MAX 1000u

/* A second name for the file: "disk.qcow2.TAG", "disk.qcow2.TAG.2"... */
static int link_frozen(struct frozen_disk *d, const char *tag, struct err *e)
{
    for (unsigned n = 1; n < NAMES_MAX; n++) {
        char *name = n == 1 ? xasprintf("%s.%s", d->path, tag)
                            : xasprintf("%s.%s.%u", d->path, tag, n);
        if (link(d->path, name) == 0) {
            d->frozen = name;
            return 0;
        }
        int r = -errno;
        free(name);
        if (r != -EEXIST) {
            return err_set(e, r, "%s: cannot be given a second name in its directory: %s", d->path,
                           strerror(-r));
        }
    }
    return err_set(e, -EEXIST, "%s: too many snapshots called %s", d->path, tag);
}

static int prepare_one(struct frozen_disk *d, struct block *b, const char *tag, struct err *e)
{
    struct stat st;
    const char *format = block_format(b);
    if (strcmp(format, "overlay") == 0) {
        return err_set(e, -ENOTSUP,
                       "%s: ephemeral: what was written goes with the machine, so that no snapshot "
                       "can refer to it",
                       block_path(b));
    }
    d->path = realpath(block_path(b), NULL);
    if (d->path == NULL || stat(d->path, &st) < 0 || !S_ISREG(st.st_mode)) {
        return err_set(e, -ENOTSUP, "%s: only disks that are files can be frozen", block_path(b));
    }
    d->format = xstrdup(format);
    int r = block_flush(b); /* most of what the one at the pause would have to do */
    if (r < 0) {
        return err_set(e, r, "%s: %s", d->path, strerror(-r));
    }
    r = link_frozen(d, tag, e);
    if (r < 0) {
        return r;
    }
    char *overlay = xasprintf("%s.%s.new", d->path, tag);
    unlink(overlay); /* of one that was killed; the lock of the image is ours */
    const char *slash = strrchr(d->frozen, '/');
    const struct block_create c = {
        .path = overlay,
        .format = "qcow2",
        .size = block_size(b),
        .parent = slash != NULL ? slash + 1 : d->frozen,
        .parent_format = d->format,
    };
    r = block_create(&c, e);
    if (r == 0) {
        d->overlay = overlay;
        (void)!chmod(overlay, st.st_mode & 07777);
        return 0;
    }
    free(overlay);
    return r;
}

int freeze_prepare(struct freeze *f, struct machine *m, const char *tag, struct err *e)
{
    const struct disks *all = &m->pc->disks;
    int r = 0;
    memset(f, 0, sizeof *f);
    if (all->count != vmconfig_config(m->config)->disk_count) {
        return err_set(e, -ENOTSUP, "disks were added since the machine was made: a snapshot of "
                                    "that is not built yet");
    }
    f->count = all->count;
    for (unsigned i = 0; i < all->count && r == 0; i++) {
        if (all->disk[i].block == NULL) {
            r = err_set(e, -ENOTSUP, "a disk was taken away since the machine was made: a snapshot "
                                     "of that is not built yet");
        } else if (!all->disk[i].readonly) {
            r = prepare_one(&f->disk[i], all->disk[i].block, tag, e);
        }
    }
    if (r < 0) {
        freeze_fini(f);
    }
    return r;
}

static int commit_one(struct frozen_disk *d, struct disk *disk, struct err *e)
{
    struct block *old = disk->block, *new;
    const struct block_options o = { .path = d->path, .format = "qcow2" };
    struct err ignored;
    int r = block_yield(old, e);
    if (r < 0) {
        return r;
    }
    if (rename(d->overlay, d->path) < 0) {
        r = err_set(e, -errno, "%s: %s", d->path, strerror(errno));
    } else {
        r = block_open(&new, &o, e);
        if (r < 0 && rename(d->frozen, d->path) == 0) {
            free(d->frozen); /* as is the second name; the overlay went with the first rename */
            d->frozen = NULL;
        }
    }
    if (r < 0) {
        /* Somebody may have taken it meanwhile: it is not theirs to write, so go on without. */
        int lost = block_reclaim(old, &ignored);
        (void)lost;
        return r;
    }
    block_queue_set_block(disk->queue, new);
    disk->block = new;
    block_close(old);
    d->committed = true;
    return 0;
}

int freeze_commit(struct freeze *f, struct machine *m, struct err *e)
{
    int r = 0;
    for (unsigned i = 0; i < f->count && r == 0; i++) {
        if (f->disk[i].frozen != NULL) {
            r = commit_one(&f->disk[i], &m->pc->disks.disk[i], e);
        }
    }
    return r;
}

void freeze_fini(struct freeze *f)
{
    for (unsigned i = 0; i < f->count; i++) {
        struct frozen_disk *d = &f->disk[i];
        if (d->overlay != NULL && !d->committed) {
            unlink(d->overlay);
        }
        if (d->frozen != NULL && !d->committed) {
            unlink(d->frozen);
        }
        free(d->path);
        free(d->frozen);
        free(d->format);
        free(d->overlay);
    }
    memset(f, 0, sizeof *f);
}
