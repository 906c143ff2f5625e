/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/disks.h"

#include <stdio.h>
#include <string.h>

static int open_one(struct disk *d, const struct disk_config *c, struct loop *loop, struct err *e)
{
    const struct block_options o = {
        .path = c->path,
        .format = c->format,
        .flags = (c->readonly || c->cdrom ? (unsigned)BLOCK_READONLY : 0) |
                 (c->ephemeral ? (unsigned)BLOCK_EPHEMERAL : 0),
    };
    int r = block_open(&d->block, &o, e);
    if (r < 0) {
        return r;
    }
    r = block_queue_new(&d->queue, d->block, loop, e);
    if (r < 0) {
        block_close(d->block);
        d->block = NULL;
    }
    return r;
}

int disks_open(struct disks *d, const struct machine_config *c, struct loop *loop, struct err *e)
{
    for (unsigned i = 0; i < c->disk_count; i++) {
        const struct disk_config *from = &c->disk[i];
        struct disk *disk = &d->disk[i];
        int r = open_one(disk, from, loop, e);
        if (r < 0) {
            return r;
        }
        d->count = i + 1;
        disk->bus = from->bus;
        if (disk->bus == DISK_ANY) {
            /* A kernel that is started directly has its drivers; firmware may know only the old. */
            disk->bus = c->kernel != NULL && !from->cdrom ? DISK_VIRTIO
                        : c->kernel != NULL               ? DISK_SCSI
                                                          : DISK_IDE;
        }
        disk->readonly = block_readonly(disk->block);
        disk->cdrom = from->cdrom;
        disk->packed = from->packed;
        if (from->serial != NULL) {
            snprintf(disk->serial, sizeof disk->serial, "%s", from->serial);
        } else {
            snprintf(disk->serial, sizeof disk->serial, "sosia%u", i);
        }
    }
    return 0;
}

void disks_close(struct disks *d)
{
    for (unsigned i = 0; i < d->count; i++) {
        block_queue_free(d->disk[i].queue);
        block_close(d->disk[i].block);
    }
    d->count = 0;
}
