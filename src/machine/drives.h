/* SPDX-License-Identifier: Apache-2.0
 *
 * Which disk is which drive: those that hang on the board itself.  Thread: set-up.
 */
#ifndef SOSIA_MACHINE_DRIVES_H
#define SOSIA_MACHINE_DRIVES_H

#include "dev/pc/ide.h"
#include "machine/disks.h"

/* Disks from the primary master on, CD-ROMs from the secondary master on. -ENOSPC: more than four.
 * -ENOTSUP: a bus that nobody has built. */
MUST_CHECK int drives_assign_ide(struct ide_drive_config out[IDE_CHANNELS][IDE_DRIVES],
                                 const struct disks *d, struct err *e);

#endif
