/* SPDX-License-Identifier: Apache-2.0
 *
 * Which disk is which drive of the board: IDE, AHCI, floppy.  Thread: set-up.
 */
#ifndef SOSIA_MACHINE_DRIVES_H
#define SOSIA_MACHINE_DRIVES_H

#include "dev/pc/ahci.h"
#include "dev/pc/fdc.h"
#include "dev/pc/ide.h"
#include "machine/disks.h"

/* Disks from the primary master on, CD-ROMs from the secondary master on. -ENOSPC: more than four.
 */
MUST_CHECK int drives_assign_ide(struct ide_drive_config out[IDE_CHANNELS][IDE_DRIVES],
                                 struct disks *d, struct err *e);
/* Ports in the order of the disks; the card is at devfn. -ENOSPC: more than there are. */
MUST_CHECK int drives_assign_ahci(struct ide_drive_config out[AHCI_PORTS], struct disks *d,
                                  uint8_t devfn, struct err *e);
/* Drives A: and B:. -ENOSPC: more than two. -EFBIG: not a floppy disk. */
MUST_CHECK int drives_assign_floppies(struct fdc_config *out, struct disks *d, struct err *e);

#endif
