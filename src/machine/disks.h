/* SPDX-License-Identifier: Apache-2.0
 *
 * The disk images of a machine, opened, with a request queue each. Which chip they hang on is the
 * board's business. Thread: set-up, or machine lock held.
 */
#ifndef SOSIA_MACHINE_DISKS_H
#define SOSIA_MACHINE_DISKS_H

#include "block/queue.h"
#include "machine/config.h"

struct disk {
    struct block *block;
    struct block_queue *queue;
    enum disk_bus bus; /* never DISK_ANY */
    bool readonly;
    bool cdrom;
    bool packed;
    char serial[21];
};

struct disks {
    struct disk disk[MACHINE_DISKS_MAX];
    unsigned count;
};

MUST_CHECK int disks_open(struct disks *d, const struct machine_config *c, struct loop *loop,
                          struct err *e);
/* Also of some that disks_open gave up on; the devices are gone. */
void disks_close(struct disks *d);

#endif
