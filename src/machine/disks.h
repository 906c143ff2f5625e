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
    struct block *block; /* NULL: this place is free */
    struct block_queue *queue;
    char name[MACHINE_NAME_BYTES];
    bool used;         /* by a drive or a card */
    bool exchanged;    /* another one than the machine was made with is in its drive */
    enum disk_bus bus; /* never DISK_ANY */
    bool readonly;
    bool cdrom;
    bool packed;
    char serial[21];
    char place[64]; /* Open Firmware path, as firmware knows it by; "": on nothing it starts from */
};

struct disks {
    struct disk disk[MACHINE_DISKS_MAX];
    unsigned count; /* places that were ever taken */
};

MUST_CHECK int disks_open(struct disks *d, const struct machine_config *c, struct loop *loop,
                          struct err *e);
/* One more, for nobody yet: -EEXIST: the name is taken. -ENOSPC. It takes the image, on success
 * only. */
MUST_CHECK int disks_add(struct disks *d, const char *name, const struct disk_config *c,
                         struct block *image, struct loop *loop, struct disk **out, struct err *e);
struct disk *disks_find(struct disks *d, const char *name); /* NULL: none */
/* PCI slot and function, and what follows them: "/pci@i0cf8/NAME@SLOT[,FUNCTION]REST". */
void disk_set_place(struct disk *d, const char *name, uint8_t devfn, const char *rest, ...)
    PRINTF_LIKE(4, 5);
/* Nobody uses it. */
void disks_remove(struct disk *disk);
/* The image that a configuration asks for. Machine lock held or not: it may take its time. */
MUST_CHECK int disk_open_image(struct block **out, const struct disk_config *c, struct err *e);
/* Also of some that disks_open gave up on; the devices are gone. */
void disks_close(struct disks *d);

#endif
