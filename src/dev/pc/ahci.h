/* SPDX-License-Identifier: Apache-2.0
 *
 * A SATA controller as the ICH9's (Intel 316972, chapter 15) in AHCI mode: AHCI 1.3.1 with six
 * ports, 32 slots each, native command queuing, INTx and MSI.  Thread: machine lock held.
 */
#ifndef SOSIA_DEV_PC_AHCI_H
#define SOSIA_DEV_PC_AHCI_H

#include "bus/bus.h"
#include "bus/pci.h"
#include "dev/pc/ide_drive.h"

#define AHCI_PORTS 6u

struct ahci;

/* Where in a table of physical regions a transfer is. */
struct ahci_prd {
    gpa_t next;       /* entry */
    uint32_t entries; /* from next on */
    gpa_t address;    /* what is left of the region in use */
    uint32_t left;
    uint32_t moved; /* bytes so far */
};

struct ahci_port {
    /* State; registers keep their names, two of 32 bits are one of 64: */
    uint64_t clb, fb;
    uint32_t is, ie, cmd, tfd, sig, sctl, serr, sact, ci;
    uint8_t slot;  /* taken last, or at work */
    bool halted;   /* an error; until ST is cleared */
    bool greeting; /* the drive's signature waits for FIS reception */
    bool srst;     /* the drive is held in software reset */
    struct ide_drive drive;
    /* Not state; nothing is at work while the machine is saved: */
    struct ahci *hba;
    unsigned number;
    bool working;  /* the drive, on an unqueued command; and with these: */
    bool reported; /* it asked for an interrupt at the end */
    struct ahci_prd prd;
    uint8_t acmd[16]; /* the packet command */
    unsigned queued;  /* commands under way */
    uint64_t bytes;   /* in their buffers */
    bool forgetting;  /* what ends now is for nobody any more */
};

struct ahci {
    struct pci_func pci; /* first */
    /* State: */
    uint32_t ghc, is;
    struct ahci_port port[AHCI_PORTS];
    /* Not state: */
    struct gmem *mem; /* borrowed */
};

/* drives[port]; IDE_NONE: nothing is plugged in. */
void ahci_init(struct ahci *h, const char *name, struct pci_bus *p, struct bus *b, uint8_t devfn,
               const struct ide_drive_config drives[AHCI_PORTS]);
void ahci_fini(struct ahci *h);

#endif
