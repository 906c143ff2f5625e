/* SPDX-License-Identifier: Apache-2.0
 *
 * A SCSI logical unit over a disk image: a disk (SPC-4, SBC-3) or a CD/DVD-ROM drive (MMC-5). It
 * knows no transport. Thread: machine lock held, also in done.
 */
#ifndef SOSIA_DEV_VIRTIO_SCSI_TARGET_H
#define SOSIA_DEV_VIRTIO_SCSI_TARGET_H

#include "block/queue.h"
#include "state/state.h"

#define SCSI_CDB_MAX 32u
#define SCSI_SENSE_BYTES 18u
#define SCSI_DATA_MAX (16u << 20) /* bytes of one command */

enum scsi_status { SCSI_GOOD = 0x00, SCSI_CHECK_CONDITION = 0x02 };

struct scsi_unit {
    struct block_queue *disk; /* borrowed */
    bool cdrom;
    bool readonly;
    char serial[21];
    uint32_t block_size;
    uint64_t blocks;
    /* State */
    bool attention;   /* a reset has not been reported */
    bool write_cache; /* WCE */
    bool locked;      /* the tray */
    bool ejected;
};

struct scsi_command {
    struct scsi_unit *unit;
    uint8_t cdb[SCSI_CDB_MAX];
    /* Both the transport's. What a read or write of blocks moves lies in the initiator's memory, if
     * the transport can show that; all else in data: from the initiator, or for it. */
    struct iovec *iov; /* NULL: there, too */
    unsigned iov_count;
    uint8_t *data;
    uint32_t out_len; /* bytes that it sent */
    uint32_t in_room; /* bytes that it takes; data has room for the larger of both */
    uint32_t in_len;  /* bytes that there are for it */
    enum scsi_status status;
    uint8_t sense[SCSI_SENSE_BYTES]; /* with CHECK CONDITION */
    void (*done)(struct scsi_command *c);
    struct block_request io;
    bool fua; /* this write is to be on the medium when it ends */
    /* UNMAP with several ranges */
    uint32_t unmap_at, unmap_end;
};

void scsi_unit_init(struct scsi_unit *u, struct block_queue *disk, bool cdrom, bool readonly,
                    const char *serial);
/* Power on, bus reset, or a task management function. */
void scsi_unit_reset(struct scsi_unit *u);
/* Is it a read or a write of blocks, which may have a vector? */
enum scsi_motion { SCSI_MOVES_NOTHING, SCSI_READS, SCSI_WRITES };
enum scsi_motion scsi_motion(const uint8_t *cdb);
/* Calls done, now or later. */
void scsi_execute(struct scsi_command *c);
/* With status and sense for a command that reaches no unit. */
void scsi_no_unit(struct scsi_command *c);

extern const struct state_field scsi_unit_state[];

#endif
