/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of drives and their controllers share (ATA-7, INCITS 397; ATAPI of MMC-3).
 */
#ifndef SOSIA_DEV_PC_IDE_INT_H
#define SOSIA_DEV_PC_IDE_INT_H

#include "dev/pc/ide.h"

#define IDE_SECTOR 512u
#define IDE_CD_SECTOR 2048u
#define IDE_MULTIPLE_MAX 16u

enum ide_status {
    ST_ERR = 0x01,
    ST_DRQ = 0x08,
    ST_DSC = 0x10,
    ST_DF = 0x20,
    ST_DRDY = 0x40,
    ST_BSY = 0x80
};
#define ST_READY (ST_DRDY | ST_DSC)

enum ide_error { ER_ABRT = 0x04, ER_IDNF = 0x10, ER_UNC = 0x40 };

/* Interrupt reason of packet commands, in the sector count register. */
enum ide_reason { REASON_COMMAND = 1, REASON_TO_HOST = 2 };

#define DEVICE_LBA 0x40u
#define DEVICE_SLAVE 0x10u

enum ide_phase {
    PHASE_IDLE,
    PHASE_BUSY, /* the image is at work */
    PHASE_IN,   /* data to the host through the data register */
    PHASE_OUT,
    PHASE_PACKET, /* the twelve bytes of a packet command */
    PHASE_DMA_IN, /* waits for the bus master, or is at it */
    PHASE_DMA_OUT,
    PHASES
};

enum bm_status { BM_ACTIVE = 0x01, BM_ERROR = 0x02, BM_INTERRUPT = 0x04 };
enum bm_command { BM_START = 0x01, BM_TO_MEMORY = 0x08 };

/* Commands of both kinds of drive that are the controller's business. */
enum ide_any_command { CMD_DEVICE_RESET = 0x08, CMD_DIAGNOSTICS = 0x90 };

/* -- ide_drive.c, for controllers */
void ide_drive_init(struct ide_drive *d, const struct ide_drive_config *cfg,
                    const struct ide_drive_host *host, void *controller, unsigned number);
void ide_drive_power_on(struct ide_drive *d);
void ide_drive_reset(struct ide_drive *d); /* software reset */
/* Start a command; the registers hold its parameters. */
void ide_drive_command(struct ide_drive *d, uint8_t command);
void ide_drive_block_done(struct ide_drive *d); /* data came or went up to block_end */
void ide_drive_dma(struct ide_drive *d);        /* the bus master runs */
/* Wait for the request under way, and forget its result. */
void ide_drive_forget(struct ide_drive *d);
/* Finish the command under way as far as it goes without the guest. */
void ide_drive_drain(struct ide_drive *d);
bool ide_drive_valid(const struct ide_drive *d);
extern const struct state_field ide_drive_state[];

/* -- ide_drive.c, for command sets. The command is over: */
void ide_finish(struct ide_drive *d);
void ide_fail(struct ide_drive *d, uint8_t error);
/* Show [at, at + block bytes, at most end) of data with DRQ. */
void ide_show_block(struct ide_drive *d, enum ide_phase phase, uint32_t block);
/* One request on the image; then is called with its result, later. */
void ide_submit(struct ide_drive *d, enum block_op op, uint64_t offset, uint32_t bytes,
                void (*then)(struct ide_drive *d, int result));
void ide_signature(struct ide_drive *d);

/* -- ide_dma.c: the bus master of the IDE function */
void ide_dma_ready(struct ide_drive *d);
bool ide_dma(struct ide_drive *d, uint32_t bytes, enum ide_direction direction);
void ide_dma_done(struct ide_drive *d);
extern const struct region_ops ide_bm_ops;

/* -- ide_ata.c, ide_identify.c: disks */
void ide_ata_command(struct ide_drive *d);
void ide_ata_block_done(struct ide_drive *d);
void ide_ata_dma(struct ide_drive *d);
uint8_t ide_error_of(int result); /* error register for a request's result */
void ide_identify_disk(struct ide_drive *d);
void ide_identify_cd(struct ide_drive *d);

/* -- ide_atapi.c: CD-ROM drives */
void ide_atapi_command(struct ide_drive *d);
void ide_atapi_block_done(struct ide_drive *d);
void ide_atapi_dma(struct ide_drive *d);
void ide_atapi_disc_changed(struct ide_drive *d);

#endif
