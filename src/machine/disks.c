/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/disks.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int disk_open_image(struct block **out, const struct disk_config *c, struct err *e)
{
    const struct block_options o = {
        .path = c->path,
        .format = c->format,
        .flags = (c->readonly || c->cdrom ? (unsigned)BLOCK_READONLY : 0) |
                 (c->ephemeral ? (unsigned)BLOCK_EPHEMERAL : 0) |
                 (c->foreign ? (unsigned)(BLOCK_READONLY | BLOCK_NO_LOCK) : 0),
    };
    return block_open(out, &o, e);
}

struct disk *disks_find(struct disks *d, const char *name)
{
    for (unsigned i = 0; i < d->count; i++) {
        if (d->disk[i].block != NULL && strcmp(d->disk[i].name, name) == 0) {
            return &d->disk[i];
        }
    }
    return NULL;
}

int disks_add(struct disks *d, const char *name, const struct disk_config *c, struct block *image,
              struct loop *loop, struct disk **out, struct err *e)
{
    unsigned i = 0;
    while (i < d->count && d->disk[i].block != NULL) {
        i++;
    }
    if (i == MACHINE_DISKS_MAX) {
        return err_set(e, -ENOSPC, "there can be %u disks", MACHINE_DISKS_MAX);
    }
    if (disks_find(d, name) != NULL) {
        return err_set(e, -EEXIST, "Duplicate nodes with node-name='%s'", name);
    }
    struct disk *disk = &d->disk[i];
    *disk = (struct disk){ .bus = c->bus, .cdrom = c->cdrom, .packed = c->packed };
    int r = block_queue_new(&disk->queue, image, loop, e);
    if (r < 0) {
        return r;
    }
    disk->block = image;
    disk->readonly = c->foreign ? c->readonly || c->cdrom : block_readonly(image);
    snprintf(disk->name, sizeof disk->name, "%s", name);
    if (c->serial != NULL) {
        snprintf(disk->serial, sizeof disk->serial, "%s", c->serial);
    } else {
        snprintf(disk->serial, sizeof disk->serial, "sosia%u", i);
    }
    if (i == d->count) {
        d->count++;
    }
    *out = disk;
    return 0;
}

int disks_open(struct disks *d, const struct machine_config *c, struct loop *loop, struct err *e)
{
    for (unsigned i = 0; i < c->disk_count; i++) {
        struct disk_config copy = c->disk[i], *from = &copy;
        struct block *image;
        struct disk *disk;
        char name[MACHINE_NAME_BYTES];
        from->foreign = c->incoming && !from->readonly && !from->cdrom;
        int r = disk_open_image(&image, from, e);
        if (r < 0) {
            return r;
        }
        snprintf(name, sizeof name, "disk%u", i);
        r = disks_add(d, name, from, image, loop, &disk, e);
        if (r < 0) {
            block_close(image);
            return r;
        }
        disk->used = true;
        if (disk->bus == DISK_ANY) {
            /* A kernel that is started directly has its drivers; firmware may know only the old. */
            disk->bus = c->kernel != NULL && !from->cdrom ? DISK_VIRTIO
                        : c->kernel != NULL               ? DISK_SCSI
                                                          : DISK_IDE;
        }
    }
    return 0;
}

void disk_set_place(struct disk *d, const char *name, uint8_t devfn, const char *rest, ...)
{
    va_list args;
    int n = snprintf(d->place, sizeof d->place, "/pci@i0cf8/%s@%x", name, devfn >> 3);
    if (devfn & 7) {
        n += snprintf(d->place + n, sizeof d->place - (size_t)n, ",%x", devfn & 7u);
    }
    va_start(args, rest);
    vsnprintf(d->place + n, sizeof d->place - (size_t)n, rest, args);
    va_end(args);
}

void disks_remove(struct disk *disk)
{
    if (disk->block != NULL) {
        block_queue_free(disk->queue);
        block_close(disk->block);
    }
    *disk = (struct disk){ .block = NULL };
}

void disks_close(struct disks *d)
{
    for (unsigned i = 0; i < d->count; i++) {
        disks_remove(&d->disk[i]);
    }
    d->count = 0;
}
