/* SPDX-License-Identifier: Apache-2.0
 *
 * Which disk is which drive of the IDE function and of the AHCI card.  Thread: set-up.
 */
#ifndef SOSIA_MACHINE_DRIVES_H
#define SOSIA_MACHINE_DRIVES_H

#include "dev/pc/ahci.h"
#include "dev/pc/ide.h"
#include "machine/disks.h"

/* Disks from the primary master on, CD-ROMs from the secondary master on. -ENOSPC: more than four.
 */
MUST_CHECK int drives_assign_ide(struct ide_drive_config out[IDE_CHANNELS][IDE_DRIVES],
                                 struct disks *d, struct err *e);
/* Ports in the order of the disks; the card is at devfn. -ENOSPC: more than there are. */
MUST_CHECK int drives_assign_ahci(struct ide_drive_config out[AHCI_PORTS], struct disks *d,
                                  uint8_t devfn, struct err *e);

#endif
