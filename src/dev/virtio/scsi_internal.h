/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of a SCSI unit share.  Thread: machine lock held.
 */
#ifndef SOSIA_DEV_VIRTIO_SCSI_INTERNAL_H
#define SOSIA_DEV_VIRTIO_SCSI_INTERNAL_H

#include "dev/virtio/scsi_target.h"

enum scsi_op {
    OP_TEST_UNIT_READY = 0x00,
    OP_REQUEST_SENSE = 0x03,
    OP_READ_6 = 0x08,
    OP_WRITE_6 = 0x0a,
    OP_INQUIRY = 0x12,
    OP_MODE_SELECT_6 = 0x15,
    OP_MODE_SENSE_6 = 0x1a,
    OP_START_STOP = 0x1b,
    OP_PREVENT = 0x1e,
    OP_READ_CAPACITY = 0x25,
    OP_READ_10 = 0x28,
    OP_WRITE_10 = 0x2a,
    OP_WRITE_VERIFY_10 = 0x2e,
    OP_VERIFY_10 = 0x2f,
    OP_SYNC_10 = 0x35,
    OP_WRITE_SAME_10 = 0x41,
    OP_UNMAP = 0x42,
    OP_READ_TOC = 0x43,
    OP_GET_CONFIGURATION = 0x46,
    OP_GET_EVENT = 0x4a,
    OP_READ_DISC = 0x51,
    OP_MODE_SELECT_10 = 0x55,
    OP_MODE_SENSE_10 = 0x5a,
    OP_READ_16 = 0x88,
    OP_WRITE_16 = 0x8a,
    OP_VERIFY_16 = 0x8f,
    OP_SYNC_16 = 0x91,
    OP_WRITE_SAME_16 = 0x93,
    OP_SERVICE_IN_16 = 0x9e,
    OP_REPORT_LUNS = 0xa0,
    OP_READ_12 = 0xa8,
    OP_WRITE_12 = 0xaa,
    OP_MECHANISM = 0xbd,
};

enum sense_key {
    KEY_NONE = 0,
    KEY_NOT_READY = 2,
    KEY_MEDIUM_ERROR = 3,
    KEY_ILLEGAL = 5,
    KEY_ATTENTION = 6,
    KEY_PROTECT = 7,
};

/* Additional sense code and qualifier */
#define ASC_WRITE_ERROR 0x0c00
#define ASC_READ_ERROR 0x1100
#define ASC_BAD_OPCODE 0x2000
#define ASC_LBA_RANGE 0x2100
#define ASC_BAD_CDB 0x2400
#define ASC_NO_UNIT 0x2500
#define ASC_BAD_PARAMETER 0x2600
#define ASC_READ_ONLY 0x2700
#define ASC_NO_SPACE 0x2707
#define ASC_RESET 0x2900
#define ASC_NO_MEDIUM 0x3a00
#define ASC_LOCKED 0x5302

#define SCSI_UNMAP_RANGES_MAX 256u
#define SCSI_RANGE_BLOCKS_MAX (1u << 21)

/* -- scsi_target.c: the ends of a command */
void scsi_good(struct scsi_command *c);
void scsi_check(struct scsi_command *c, enum sense_key key, unsigned asc);
void scsi_illegal(struct scsi_command *c, unsigned asc);
/* An answer of len bytes, of which the initiator takes what it has room for and asked for. */
void scsi_answer(struct scsi_command *c, const uint8_t *bytes, uint32_t len, uint32_t asked);

/* -- scsi_data.c */
void scsi_submit(struct scsi_command *c, enum block_op op, uint64_t lba, uint64_t blocks);
void scsi_transfer(struct scsi_command *c, bool write);
void scsi_verify(struct scsi_command *c);
void scsi_write_same(struct scsi_command *c);
void scsi_unmap(struct scsi_command *c);

/* -- scsi_cd.c */
void scsi_start_stop(struct scsi_command *c);
void scsi_cd_command(struct scsi_command *c);

#endif
