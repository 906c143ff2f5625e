/* SPDX-License-Identifier: Apache-2.0
 *
 * Freezing the disks of a machine: what they hold now stays as it is, in files that are never
 * written again, and the machine goes on in qcow2 overlays on them. The overlay takes the disk's
 * name, so that a person's name for a disk always shows its latest state; the frozen file gets the
 * name with a tag. At any moment, however it ends, the disk's name leads to a whole image.
 */
#ifndef SOSIA_MACHINE_FREEZE_H
#define SOSIA_MACHINE_FREEZE_H

#include "machine/config.h"

struct machine;

struct frozen_disk {
    char *path;   /* of the disk, symbolic links followed; owned */
    char *frozen; /* what it held; owned; NULL: nothing is done to this disk */
    char *format; /* of that; owned */
    char *overlay; /* where the image was made that takes the disk's place; owned */
    bool committed;
};

struct freeze {
    struct frozen_disk disk[MACHINE_DISKS_MAX];
    unsigned count;
};

/* Everything that takes time. The machine may run; nobody adds or removes disks. tag: part of a
 * file name. */
MUST_CHECK int freeze_prepare(struct freeze *f, struct machine *m, const char *tag, struct err *e);
/* In machine_still, requests drained. On failure all disks that could not change are as before. */
MUST_CHECK int freeze_commit(struct freeze *f, struct machine *m, struct err *e);
/* What was prepared and not committed is taken away. */
void freeze_fini(struct freeze *f);

#endif
