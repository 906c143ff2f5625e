/* SPDX-License-Identifier: Apache-2.0
 *
 * SCSI commands that move or drop blocks: reads, writes, VERIFY, WRITE SAME, UNMAP (SBC-3).
 */
#include <errno.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "dev/virtio/scsi_internal.h"

#define UNMAP_HEADER 8u
#define UNMAP_RANGE 16u

/* -- Reads and writes -------------------------------------------------------------------------- */
static void io_done(struct block_request *r)
{
    struct scsi_command *c = container_of(r, struct scsi_command, io);
    if (r->result == -ENOSPC) {
        scsi_check(c, KEY_PROTECT, ASC_NO_SPACE);
    } else if (r->result == -EROFS) {
        scsi_check(c, KEY_PROTECT, ASC_READ_ONLY);
    } else if (r->result < 0) {
        scsi_check(c, KEY_MEDIUM_ERROR, r->op == BLOCK_OP_READ ? ASC_READ_ERROR : ASC_WRITE_ERROR);
    } else {
        c->in_len = r->op == BLOCK_OP_READ ? (uint32_t)r->len : 0;
        scsi_good(c);
    }
}

static void unmap_done(struct block_request *r);

enum scsi_motion scsi_motion(const uint8_t *cdb)
{
    switch (cdb[0]) {
    case OP_READ_6:
    case OP_READ_10:
    case OP_READ_12:
    case OP_READ_16:
        return SCSI_READS;
    case OP_WRITE_6:
    case OP_WRITE_10:
    case OP_WRITE_12:
    case OP_WRITE_16:
    case OP_WRITE_VERIFY_10:
        return SCSI_WRITES;
    default:
        return SCSI_MOVES_NOTHING;
    }
}

/* The initiator may have room for more than it asks for. */
static unsigned cut(struct iovec *iov, uint64_t len)
{
    unsigned n = 0;
    for (; len > iov[n].iov_len; n++) {
        len -= iov[n].iov_len;
    }
    iov[n].iov_len = len;
    return n + 1;
}

void scsi_submit(struct scsi_command *c, enum block_op op, uint64_t lba, uint64_t blocks)
{
    c->io = (struct block_request){ .op = op,
                                    .offset = lba * c->unit->block_size,
                                    .len = blocks * c->unit->block_size,
                                    .buf = c->data,
                                    .may_unmap = op == BLOCK_OP_ZERO && (c->cdb[1] & 8),
                                    .done = op == BLOCK_OP_DISCARD ? unmap_done : io_done };
    if (c->iov != NULL && (op == BLOCK_OP_READ || op == BLOCK_OP_WRITE)) {
        c->io.iov = c->iov;
        c->io.iov_count = c->iov_count = cut(c->iov, c->io.len);
    }
    c->io.fua = (op == BLOCK_OP_WRITE || op == BLOCK_OP_ZERO) && (c->fua || !c->unit->write_cache);
    if (block_try(c->unit->disk, &c->io)) {
        io_done(&c->io);
        return;
    }
    block_submit(c->unit->disk, &c->io);
}

struct extent {
    uint64_t lba;
    uint32_t blocks;
    bool fua;
};

static struct extent extent_of(const uint8_t *cdb)
{
    struct extent x = { 0 };
    switch (cdb[0] >> 5) {
    case 0:
        x.lba = load_be32(cdb) & 0x1fffff;
        x.blocks = cdb[4] != 0 ? cdb[4] : 256;
        return x;
    case 4:
        x.lba = load_be64(cdb + 2);
        x.blocks = load_be32(cdb + 10);
        break;
    case 5:
        x.lba = load_be32(cdb + 2);
        x.blocks = load_be32(cdb + 6);
        break;
    default:
        x.lba = load_be32(cdb + 2);
        x.blocks = load_be16(cdb + 7);
        break;
    }
    x.fua = cdb[1] & 8;
    return x;
}

/* True: it fits. Else the command has ended. */
static bool fits(struct scsi_command *c, const struct extent *x)
{
    const struct scsi_unit *u = c->unit;
    if (x->lba > u->blocks || x->blocks > u->blocks - x->lba) {
        scsi_illegal(c, ASC_LBA_RANGE);
        return false;
    }
    return true;
}

void scsi_transfer(struct scsi_command *c, bool write)
{
    struct extent x = extent_of(c->cdb);
    uint64_t bytes = (uint64_t)x.blocks * c->unit->block_size;
    if (write && c->unit->readonly) {
        scsi_check(c, KEY_PROTECT, ASC_READ_ONLY);
        return;
    }
    if (!fits(c, &x)) {
        return;
    }
    if (bytes > (write ? c->out_len : c->in_room)) {
        scsi_illegal(c, ASC_BAD_CDB); /* more than the initiator provided for */
        return;
    }
    if (bytes == 0) {
        scsi_good(c);
        return;
    }
    c->fua = x.fua;
    scsi_submit(c, write ? BLOCK_OP_WRITE : BLOCK_OP_READ, x.lba, x.blocks);
}

void scsi_verify(struct scsi_command *c)
{
    struct extent x = extent_of(c->cdb);
    if (c->cdb[1] & 6) {
        scsi_illegal(c, ASC_BAD_CDB); /* BYTCHK: comparing */
    } else if (fits(c, &x)) {
        scsi_good(c);
    }
}

void scsi_write_same(struct scsi_command *c)
{
    const struct scsi_unit *u = c->unit;
    struct extent x = extent_of(c->cdb);
    bool no_data = c->cdb[0] == OP_WRITE_SAME_16 && (c->cdb[1] & 1);
    if (u->readonly) {
        scsi_check(c, KEY_PROTECT, ASC_READ_ONLY);
        return;
    }
    if (x.blocks == 0 || x.blocks > SCSI_RANGE_BLOCKS_MAX ||
        (!no_data && c->out_len < u->block_size)) {
        scsi_illegal(c, ASC_BAD_CDB);
        return;
    }
    for (uint32_t i = 0; !no_data && i < u->block_size; i++) {
        if (c->data[i] != 0) {
            scsi_illegal(c, ASC_BAD_PARAMETER); /* we said in the block limits: zeroes */
            return;
        }
    }
    if (fits(c, &x)) {
        scsi_submit(c, BLOCK_OP_ZERO, x.lba, x.blocks);
    }
}

static void unmap_next(struct scsi_command *c);

static void unmap_done(struct block_request *r)
{
    struct scsi_command *c = container_of(r, struct scsi_command, io);
    if (r->result < 0) {
        scsi_check(c, KEY_MEDIUM_ERROR, ASC_WRITE_ERROR);
    } else {
        unmap_next(c);
    }
}

static void unmap_next(struct scsi_command *c)
{
    while (c->unmap_at < c->unmap_end) {
        const uint8_t *range = c->data + c->unmap_at;
        struct extent x = { load_be64(range), load_be32(range + 8), false };
        c->unmap_at += UNMAP_RANGE;
        if (!fits(c, &x)) {
            return;
        }
        if (x.blocks != 0) {
            scsi_submit(c, BLOCK_OP_DISCARD, x.lba, x.blocks);
            return;
        }
    }
    scsi_good(c);
}

void scsi_unmap(struct scsi_command *c)
{
    uint32_t len = load_be16(c->cdb + 7);
    if (c->unit->readonly) {
        scsi_check(c, KEY_PROTECT, ASC_READ_ONLY);
        return;
    }
    if (len == 0) {
        scsi_good(c);
        return;
    }
    if (len < UNMAP_HEADER || len > c->out_len) {
        scsi_illegal(c, ASC_BAD_CDB);
        return;
    }
    uint32_t bytes = load_be16(c->data + 2);
    if (bytes > len - UNMAP_HEADER || bytes / UNMAP_RANGE > SCSI_UNMAP_RANGES_MAX) {
        scsi_illegal(c, ASC_BAD_PARAMETER);
        return;
    }
    c->unmap_at = UNMAP_HEADER;
    c->unmap_end = UNMAP_HEADER + (bytes - bytes % UNMAP_RANGE);
    unmap_next(c);
}
