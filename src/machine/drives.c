/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/drives.h"

#include <errno.h>
#include <string.h>

#define IDE_PLACES (IDE_CHANNELS * IDE_DRIVES)

static struct ide_drive_config drive(const struct disk *d)
{
    return (struct ide_drive_config){
        .kind = d->cdrom ? IDE_CD : IDE_DISK,
        .queue = d->queue,
        .readonly = d->readonly,
        .serial = d->serial,
    };
}

int drives_assign_ide(struct ide_drive_config out[IDE_CHANNELS][IDE_DRIVES], struct disks *d,
                      struct err *e)
{
    static const uint8_t disk_order[IDE_PLACES] = { 0, 1, 2, 3 };
    static const uint8_t cd_order[IDE_PLACES] = { 2, 3, 1, 0 };
    memset(out, 0, IDE_CHANNELS * sizeof out[0]);
    for (unsigned i = 0; i < d->count; i++) {
        struct disk *disk = &d->disk[i];
        if (disk->bus != DISK_IDE) {
            continue;
        }
        const uint8_t *order = disk->cdrom ? cd_order : disk_order;
        unsigned n = 0;
        while (n < IDE_PLACES &&
               out[order[n] / IDE_DRIVES][order[n] % IDE_DRIVES].kind != IDE_NONE) {
            n++;
        }
        if (n == IDE_PLACES) {
            return err_set(e, -ENOSPC, "more than %u IDE drives", IDE_PLACES);
        }
        out[order[n] / IDE_DRIVES][order[n] % IDE_DRIVES] = drive(disk);
        disk_set_place(disk, "ide", PCI_DEVFN(1, 1), "/drive@%x/disk@%x", order[n] / IDE_DRIVES,
                       order[n] % IDE_DRIVES);
    }
    return 0;
}

int drives_assign_ahci(struct ide_drive_config out[AHCI_PORTS], struct disks *d, uint8_t devfn,
                       struct err *e)
{
    unsigned n = 0;
    memset(out, 0, AHCI_PORTS * sizeof out[0]);
    for (unsigned i = 0; i < d->count; i++) {
        if (d->disk[i].bus != DISK_AHCI) {
            continue;
        }
        if (n == AHCI_PORTS) {
            return err_set(e, -ENOSPC, "more than %u AHCI drives", AHCI_PORTS);
        }
        disk_set_place(&d->disk[i], "sata", devfn, "/drive@%x/disk@0", n);
        out[n++] = drive(&d->disk[i]);
    }
    return 0;
}

int drives_assign_floppies(struct fdc_config *out, struct disks *d, struct err *e)
{
    unsigned n = 0;
    for (unsigned i = 0; i < d->count; i++) {
        struct disk *disk = &d->disk[i];
        if (disk->bus != DISK_FLOPPY) {
            continue;
        }
        if (n == FDC_DRIVES) {
            return err_set(e, -ENOSPC, "there can be %u floppy drives", FDC_DRIVES);
        }
        if (fdc_geometry_of(block_size(disk->block)) == NULL) {
            return err_set(e, -EFBIG, "%s: %llu bytes are more than a floppy disk of 2880 KiB has",
                           block_path(disk->block), (unsigned long long)block_size(disk->block));
        }
        disk_set_place(disk, "isa", PCI_DEVFN(1, 0), "/fdc@03f0/floppy@%x", n);
        out->drive[n].queue = disk->queue;
        out->drive[n].readonly = disk->readonly;
        n++;
    }
    return 0;
}
