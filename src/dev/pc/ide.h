/* SPDX-License-Identifier: Apache-2.0
 *
 * The IDE function of the 82371SB (PIIX3, 290550, chapter 2.3 and 2.7): two channels in their
 * legacy places, each with up to two drives, and a bus master.  Thread: machine lock held.
 */
#ifndef SOSIA_DEV_PC_IDE_H
#define SOSIA_DEV_PC_IDE_H

#include "bus/bus.h"
#include "bus/irq.h"
#include "bus/pci.h"
#include "dev/pc/ide_drive.h"

#define IDE_CHANNELS 2u
#define IDE_DRIVES 2u             /* of a channel */

struct ide_channel {
    /* State: */
    struct ide_drive drive[IDE_DRIVES];
    uint8_t selected;
    uint8_t control;   /* device control register */
    uint8_t bm_command, bm_status;
    uint32_t bm_table; /* of physical region descriptors */
    uint32_t prd_at;   /* next descriptor */
    uint32_t prd_addr, prd_left; /* what is left of the one in use */
    bool prd_last;
    /* Not state: */
    struct ide *ide;
    unsigned number;
    struct irq irq_line;
    struct region *command_ports, *control_ports;
};

struct ide {
    struct pci_func pci; /* first: slot 1 function 1 */
    struct ide_channel channel[IDE_CHANNELS];
    struct gmem *mem; /* borrowed */
};

/* drives[channel][master or slave]; irq: lines 14 and 15. */
void ide_init(struct ide *i, struct bus *b, struct pci_bus *pci, const struct irq irq[IDE_CHANNELS],
              const struct ide_drive_config drives[IDE_CHANNELS][IDE_DRIVES]);
void ide_fini(struct ide *i);
/* What firmware does: both channels decode their ports. */
void ide_firmware_setup(struct ide *i);

#endif
