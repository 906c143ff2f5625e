/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of the AHCI controller share (AHCI 1.3.1; FIS layouts: Serial ATA 3.2, 10.5).
 */
#ifndef SOSIA_DEV_PC_AHCI_INT_H
#define SOSIA_DEV_PC_AHCI_INT_H

#include "base/bits.h"
#include "dev/pc/ahci.h"

#define AHCI_SLOTS 32u
#define AHCI_HEADER_BYTES 32u
#define AHCI_FIS_BYTES 64u

enum ahci_is {
    IS_DHRS = 1u << 0, /* register FIS with an interrupt */
    IS_PSS = 1u << 1,  /* PIO set-up */
    IS_SDBS = 1u << 3, /* set device bits */
    IS_DPS = 1u << 5,
    IS_PCS = 1u << 6,   /* shows SERR.X */
    IS_PRCS = 1u << 22, /* shows SERR.N */
    IS_OFS = 1u << 24,  /* more data than the table has place for */
    IS_IFS = 1u << 27,
    IS_HBFS = 1u << 29, /* memory that is not there */
    IS_TFES = 1u << 30,
};

enum ahci_cmd {
    CMD_ST = 1u << 0,
    CMD_SUD = 1u << 1,
    CMD_POD = 1u << 2,
    CMD_CLO = 1u << 3,
    CMD_FRE = 1u << 4,
    CMD_CCS_SHIFT = 8,
    CMD_FR = 1u << 14,
    CMD_CR = 1u << 15,
    CMD_ATAPI = 1u << 24,
    CMD_DLAE = 1u << 25,
};

/* The head of a command list's entry, and where its table begins (4.2.2). */
struct ahci_command {
    gpa_t header;
    gpa_t table;
    uint16_t entries;            /* regions behind the table */
    uint8_t fis[AHCI_FIS_BYTES]; /* a copy */
};

enum fis_type { FIS_H2D = 0x27, FIS_D2H = 0x34, FIS_PIO_SETUP = 0x5f, FIS_SET_BITS = 0xa1 };
enum fis_place { PLACE_PIO_SETUP = 0x20, PLACE_D2H = 0x40, PLACE_SET_BITS = 0x58 };
#define FIS_INTERRUPT 0x40u

/* -- ahci.c */
/* Interrupts follow from what has happened: once at the end of each call from outside. */
void ahci_update(struct ahci *h);

/* -- ahci_port.c */
void ahci_port_init(struct ahci_port *p, struct ahci *h, unsigned n,
                    const struct ide_drive_config *drive);
/* Power-on, or the controller's reset: the addresses stay then. */
void ahci_port_reset(struct ahci_port *p);
/* SATA's hardware reset: the drive introduces itself again. */
void ahci_port_comreset(struct ahci_port *p);
/* Whatever is under way is finished, and its results are nobody's. */
void ahci_port_forget(struct ahci_port *p);
/* The same, and the drive is idle then. */
void ahci_port_stop(struct ahci_port *p);
void ahci_port_greet(struct ahci_port *p);
/* Take what waits in CI, as far as that goes now. */
void ahci_port_run(struct ahci_port *p);
/* The port stands still until the guest clears ST. */
void ahci_port_halt(struct ahci_port *p, enum ahci_is why);
void ahci_port_post(struct ahci_port *p, enum fis_place place, const uint8_t *fis, unsigned len);
void ahci_port_post_d2h(struct ahci_port *p, bool interrupt);
/* Copy up to len bytes to or from the regions; -EFAULT: not memory, else how many there were. */
int64_t ahci_prd_copy(struct ahci_port *p, struct ahci_prd *prd, uint8_t *data, uint32_t len,
                      enum ide_direction direction);
void ahci_prd_start(struct ahci_prd *prd, const struct ahci_command *c);

/* -- ahci_ncq.c */
bool ahci_is_queued(const struct ahci_port *p, uint8_t command);
/* False: it must wait until others are done. */
bool ahci_queue(struct ahci_port *p, unsigned slot, const struct ahci_command *c);

#endif
