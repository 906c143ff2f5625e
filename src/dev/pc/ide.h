/* SPDX-License-Identifier: Apache-2.0
 *
 * The IDE function of the 82371SB (PIIX3, 290550, chapter 2.3 and 2.7): two channels in their
 * legacy places, each with up to two drives, and a bus master.  Thread: machine lock held.
 */
#ifndef SOSIA_DEV_PC_IDE_H
#define SOSIA_DEV_PC_IDE_H

#include "block/queue.h"
#include "bus/bus.h"
#include "bus/irq.h"
#include "bus/pci.h"

#define IDE_CHANNELS 2u
#define IDE_DRIVES 2u             /* of a channel */
#define IDE_DATA_BYTES 0x10000u   /* what a drive's buffer holds */
#define IDE_PACKET_BYTES 12u

enum ide_kind { IDE_NONE, IDE_DISK, IDE_CD };

struct ide_channel;

/* Pairs of task file registers: [0] written last, [1] before that (48-bit commands). */
struct ide_drive {
    /* State: */
    uint8_t status, error, feature, device;
    uint8_t count[2], low[2], mid[2], high[2];
    uint8_t command;      /* in progress or last */
    uint8_t phase;        /* enum ide_phase */
    uint8_t multiple;     /* sectors of a block, SET MULTIPLE MODE; 0: off */
    uint8_t heads, spt;   /* translation in force; sectors count from 1 */
    uint8_t transfer_mode;
    bool write_cache;
    bool irq;             /* INTRQ asserted, whatever nIEN lets through */
    uint64_t lba;         /* of the command: next sector */
    uint32_t left;        /* sectors not yet in the buffer, or not yet taken */
    uint32_t at, block_end, end; /* in data: position, end of the DRQ block, end of what is valid */
    uint8_t packet[IDE_PACKET_BYTES];
    bool packet_dma;
    uint16_t packet_limit; /* bytes of a DRQ block */
    uint8_t sense_key, sense_code, sense_qualifier;
    bool locked, ejected;
    uint8_t data[IDE_DATA_BYTES];
    /* Not state: */
    enum ide_kind kind;
    struct block_queue *queue; /* borrowed; NULL: an empty CD-ROM drive */
    uint64_t sectors;          /* of 512 bytes, or a CD's of 2048 */
    bool readonly;
    char serial[21];
    struct ide_channel *channel;
    unsigned number;
    struct block_request rq; /* one at a time */
    bool in_flight;
    bool cancelled; /* its result is for nobody any more */
    void (*then)(struct ide_drive *d, int result);
};

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

struct ide_drive_config {
    enum ide_kind kind;
    struct block_queue *queue; /* borrowed; NULL with IDE_CD: no medium */
    bool readonly;
    const char *serial;
};

/* drives[channel][master or slave]; irq: lines 14 and 15. */
void ide_init(struct ide *i, struct bus *b, struct pci_bus *pci, const struct irq irq[IDE_CHANNELS],
              const struct ide_drive_config drives[IDE_CHANNELS][IDE_DRIVES]);
void ide_fini(struct ide *i);
/* What firmware does: both channels decode their ports. */
void ide_firmware_setup(struct ide *i);

#endif
