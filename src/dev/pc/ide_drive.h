/* SPDX-License-Identifier: Apache-2.0
 *
 * A drive with its command set, ATA disk or ATAPI CD-ROM (ATA-7, INCITS 397; MMC-3), as the IDE
 * channels and the AHCI ports share it.  Thread: machine lock held.
 */
#ifndef SOSIA_DEV_PC_IDE_DRIVE_H
#define SOSIA_DEV_PC_IDE_DRIVE_H

#include <stdbool.h>
#include <stdint.h>

#include "block/queue.h"
#include "state/state.h"

#define IDE_DATA_BYTES 0x10000u /* what a drive's buffer holds */
#define IDE_PACKET_BYTES 12u

enum ide_kind { IDE_NONE, IDE_DISK, IDE_CD };

struct ide_drive;

enum ide_direction { IDE_TO_MEMORY, IDE_FROM_MEMORY };

/* What a controller does for its drives. */
struct ide_drive_host {
    void (*raise)(struct ide_drive *d); /* INTRQ */
    /* A transfer is ready: ide_drive_dma now, or when the guest starts the bus master. */
    void (*dma_ready)(struct ide_drive *d);
    /* Copy between data and the guest's memory. False: there is no place for so much, or it leads
     * nowhere; the bus master has stopped then. */
    bool (*dma)(struct ide_drive *d, uint32_t bytes, enum ide_direction direction);
    void (*dma_done)(struct ide_drive *d);
    /* Optional: a request ended, and what follows from it has been done. */
    void (*advanced)(struct ide_drive *d);
};

/* Pairs of task file registers: [0] written last, [1] before that (48-bit commands). */
struct ide_drive {
    /* State: */
    uint8_t status, error, feature, device;
    uint8_t count[2], low[2], mid[2], high[2];
    uint8_t command;    /* in progress or last */
    uint8_t phase;      /* enum ide_phase */
    uint8_t multiple;   /* sectors of a block, SET MULTIPLE MODE; 0: off */
    uint8_t heads, spt; /* translation in force; sectors count from 1 */
    uint8_t transfer_mode;
    bool write_cache;
    bool irq;                    /* INTRQ asserted, whatever nIEN lets through */
    uint64_t lba;                /* of the command: next sector */
    uint32_t left;               /* sectors not yet in the buffer, or not yet taken */
    uint32_t at, block_end, end; /* in data: position, end of the DRQ block, end of what is valid */
    uint8_t packet[IDE_PACKET_BYTES];
    bool packet_dma;
    uint16_t packet_limit; /* bytes of a DRQ block */
    uint8_t sense_key, sense_code, sense_qualifier;
    bool locked, ejected;
    uint8_t queue_log[16]; /* SATA: which queued command failed, as READ LOG EXT tells it */
    uint8_t data[IDE_DATA_BYTES];
    /* Not state: */
    enum ide_kind kind;
    struct block_queue *queue; /* borrowed; NULL: an empty CD-ROM drive */
    uint64_t sectors;          /* of 512 bytes, or a CD's of 2048 */
    bool readonly;
    bool sata; /* with queued commands, if it is a disk */
    char serial[21];
    const struct ide_drive_host *host;
    void *controller;
    unsigned number;         /* 1: the slave */
    struct block_request rq; /* one at a time */
    bool in_flight;
    bool cancelled; /* its result is for nobody any more */
    void (*then)(struct ide_drive *d, int result);
};

/* A CD-ROM drive gets another disc, and its tray is closed. What was being read ends. */
void ide_drive_change_disc(struct ide_drive *d, struct block_queue *queue);
/* Its tray opens. -EBUSY: the guest has locked it; with force it opens all the same. */
int ide_drive_open_tray(struct ide_drive *d, bool force);

struct ide_drive_config {
    enum ide_kind kind;
    struct block_queue *queue; /* borrowed; NULL with IDE_CD: no medium */
    bool readonly;
    const char *serial;
};

#endif
