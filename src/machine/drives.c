/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/drives.h"

#include <errno.h>
#include <string.h>

#define IDE_PLACES (IDE_CHANNELS * IDE_DRIVES)

int drives_assign_ide(struct ide_drive_config out[IDE_CHANNELS][IDE_DRIVES], const struct disks *d,
                      struct err *e)
{
    static const uint8_t disk_order[IDE_PLACES] = { 0, 1, 2, 3 };
    static const uint8_t cd_order[IDE_PLACES] = { 2, 3, 1, 0 };
    memset(out, 0, IDE_CHANNELS * sizeof out[0]);
    for (unsigned i = 0; i < d->count; i++) {
        const struct disk *disk = &d->disk[i];
        if (disk->bus == DISK_AHCI || disk->bus == DISK_NVME) {
            return err_set(e, -ENOTSUP, "disks on %s are not built yet",
                           disk->bus == DISK_AHCI ? "ahci" : "nvme");
        }
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
        out[order[n] / IDE_DRIVES][order[n] % IDE_DRIVES] = (struct ide_drive_config){
            .kind = disk->cdrom ? IDE_CD : IDE_DISK,
            .queue = disk->queue,
            .readonly = disk->readonly,
            .serial = disk->serial,
        };
    }
    return 0;
}
