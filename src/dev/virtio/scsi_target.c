/* SPDX-License-Identifier: Apache-2.0
 *
 * SCSI commands of disks and CD/DVD-ROM drives (SPC-4, SBC-3, MMC-5), over a request queue.
 *
 * UNIMPL: reservations, protection information, log pages, audio, raw CD sectors.
 */
#include "dev/virtio/scsi_target.h"

#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "dev/virtio/scsi_internal.h"

#define CACHE_PAGE 0x08
#define CD_PAGE 0x2a
#define ALL_PAGES 0x3f
#define WCE 4u

/* -- Ends -------------------------------------------------------------------------------------- */
void scsi_good(struct scsi_command *c) { c->done(c); }

void scsi_check(struct scsi_command *c, enum sense_key key, unsigned asc)
{
    memset(c->sense, 0, sizeof c->sense);
    c->sense[0] = 0x70; /* current, fixed format (SPC-4 4.5.3) */
    c->sense[2] = (uint8_t)key;
    c->sense[7] = SCSI_SENSE_BYTES - 8;
    c->sense[12] = (uint8_t)(asc >> 8);
    c->sense[13] = (uint8_t)asc;
    c->status = SCSI_CHECK_CONDITION;
    c->in_len = 0;
    c->done(c);
}

void scsi_illegal(struct scsi_command *c, unsigned asc) { scsi_check(c, KEY_ILLEGAL, asc); }

void scsi_no_unit(struct scsi_command *c)
{
    c->in_len = 0;
    c->status = SCSI_GOOD;
    scsi_illegal(c, ASC_NO_UNIT);
}

/* An answer of len bytes, of which the initiator takes what it has room for and asked for. */
void scsi_answer(struct scsi_command *c, const uint8_t *bytes, uint32_t len, uint32_t asked)
{
    len = len < asked ? len : asked;
    len = len < c->in_room ? len : c->in_room;
    if (len != 0) {
        memcpy(c->data, bytes, len);
    }
    c->in_len = len;
    scsi_good(c);
}

/* -- What it is -------------------------------------------------------------------------------- */
static void pad_text(uint8_t *to, const char *text, size_t size)
{
    size_t len = strlen(text);
    memset(to, ' ', size);
    memcpy(to, text, len < size ? len : size);
}

static uint32_t vpd_limits(uint8_t *b)
{
    store_be16(b + 2, 0x3c);
    store_be32(b + 8, SCSI_DATA_MAX / 512);    /* maximum transfer */
    store_be32(b + 20, SCSI_RANGE_BLOCKS_MAX); /* maximum unmap */
    store_be32(b + 24, SCSI_UNMAP_RANGES_MAX);
    store_be32(b + 28, 8);                     /* granularity */
    store_be64(b + 36, SCSI_RANGE_BLOCKS_MAX); /* maximum write same */
    return 0x40;
}

static uint32_t vpd(const struct scsi_unit *u, uint8_t page, uint8_t *b)
{
    static const uint8_t pages_disk[] = { 0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2 };
    unsigned pages = u->cdrom ? 3 : sizeof pages_disk;
    size_t serial = strlen(u->serial);
    switch (page) {
    case 0x00:
        b[3] = (uint8_t)pages;
        memcpy(b + 4, pages_disk, pages);
        return 4 + pages;
    case 0x80:
        b[3] = (uint8_t)serial;
        memcpy(b + 4, u->serial, serial);
        return (uint32_t)(4 + serial);
    case 0x83:
        b[3] = (uint8_t)(4 + 8 + serial);
        b[4] = 2; /* ASCII */
        b[5] = 1; /* of the logical unit, T10 vendor id */
        b[7] = (uint8_t)(8 + serial);
        pad_text(b + 8, "sosia", 8);
        memcpy(b + 16, u->serial, serial);
        return (uint32_t)(16 + serial);
    case 0xb0:
        return u->cdrom ? 0 : vpd_limits(b);
    case 0xb1:
        store_be16(b + 2, 0x3c);
        store_be16(b + 4, 1); /* does not rotate */
        return u->cdrom ? 0 : 0x40;
    case 0xb2:
        store_be16(b + 2, 4);
        b[5] = 0xe0; /* UNMAP, WRITE SAME (16) and (10) with it */
        b[6] = 2;    /* thin */
        return u->cdrom ? 0 : 8;
    default:
        return 0;
    }
}

static void inquiry(struct scsi_command *c)
{
    const struct scsi_unit *u = c->unit;
    uint8_t b[96] = { 0 };
    uint32_t asked = load_be16(c->cdb + 3);
    uint32_t len;
    if (c->cdb[1] & 1) {
        b[1] = c->cdb[2];
        len = vpd(u, c->cdb[2], b);
    } else if (c->cdb[2] != 0) {
        len = 0;
    } else {
        b[1] = u->cdrom ? 0x80 : 0;
        b[2] = 6; /* SPC-4 */
        b[3] = 0x12;
        b[4] = 31;
        b[7] = 2; /* command queueing */
        pad_text(b + 8, "sosia", 8);
        pad_text(b + 16, u->cdrom ? "virtual CD-ROM" : "virtual disk", 16);
        pad_text(b + 32, "1.0", 4);
        len = 36;
    }
    if (len == 0) {
        scsi_illegal(c, ASC_BAD_CDB);
        return;
    }
    b[0] = u->cdrom ? 5 : 0;
    scsi_answer(c, b, len, asked);
}

static void read_capacity(struct scsi_command *c)
{
    const struct scsi_unit *u = c->unit;
    uint8_t b[8];
    uint64_t last = u->blocks - 1;
    store_be32(b, last < 0xffffffff ? (uint32_t)last : 0xffffffff);
    store_be32(b + 4, u->block_size);
    scsi_answer(c, b, sizeof b, sizeof b);
}

static void service_in(struct scsi_command *c)
{
    const struct scsi_unit *u = c->unit;
    uint8_t b[32] = { 0 };
    if ((c->cdb[1] & 31) != 0x10) {
        scsi_illegal(c, ASC_BAD_CDB);
        return;
    }
    store_be64(b, u->blocks - 1);
    store_be32(b + 8, u->block_size);
    b[13] = u->block_size == 512 ? 3 : 0; /* 4 KiB underneath */
    b[14] = u->readonly ? 0 : 0x80;       /* unmapping */
    scsi_answer(c, b, sizeof b, load_be32(c->cdb + 10));
}

static void report_luns(struct scsi_command *c)
{
    uint8_t b[16] = { 0 };
    store_be32(b, 8); /* one: number 0 */
    scsi_answer(c, b, sizeof b, load_be32(c->cdb + 6));
}

/* -- Mode pages -------------------------------------------------------------------------------- */
static uint32_t mode_page(const struct scsi_unit *u, uint8_t page, uint8_t control, uint8_t *b)
{
    bool all = page == ALL_PAGES;
    uint32_t len = 0;
    if (!u->cdrom && (all || page == CACHE_PAGE)) {
        b[0] = CACHE_PAGE;
        b[1] = 18;
        b[2] = control == 1 || u->write_cache ? WCE : 0; /* 1: what may be changed */
        len += 20;
    }
    if (u->cdrom && (all || page == CD_PAGE)) {
        b[len] = CD_PAGE;
        b[len + 1] = 20;
        if (control != 1) {
            b[len + 2] = 0x3b; /* reads CD-R, CD-RW, DVD */
            b[len + 6] = 0x29; /* tray, ejects, locks */
            store_be16(b + len + 8, 706);
            store_be16(b + len + 14, 706);
        }
        len += 22;
    }
    return len;
}

static void mode_sense(struct scsi_command *c, bool ten)
{
    const struct scsi_unit *u = c->unit;
    uint8_t b[64] = { 0 };
    uint32_t head = ten ? 8 : 4;
    uint32_t len = mode_page(u, c->cdb[2] & 0x3f, c->cdb[2] >> 6, b + head);
    if (len == 0) {
        scsi_illegal(c, ASC_BAD_CDB);
        return;
    }
    uint8_t flags = u->cdrom ? 0 : (uint8_t)((u->readonly ? 0x80 : 0) | 0x10); /* WP, DPOFUA */
    if (ten) {
        store_be16(b, (uint16_t)(head + len - 2));
        b[3] = flags;
    } else {
        b[0] = (uint8_t)(head + len - 1);
        b[2] = flags;
    }
    scsi_answer(c, b, head + len, ten ? load_be16(c->cdb + 7) : c->cdb[4]);
}

static void mode_select(struct scsi_command *c, bool ten)
{
    uint32_t len = ten ? load_be16(c->cdb + 7) : c->cdb[4];
    uint32_t head = ten ? 8 : 4;
    if (len > c->out_len) {
        scsi_illegal(c, ASC_BAD_CDB);
        return;
    }
    if (len < head) {
        scsi_good(c);
        return;
    }
    uint32_t at = head + (ten ? load_be16(c->data + 6) : c->data[3]);
    if (at + 3 <= len && (c->data[at] & 0x3f) == CACHE_PAGE && !c->unit->cdrom) {
        c->unit->write_cache = c->data[at + 2] & WCE;
        scsi_submit(c, BLOCK_OP_FLUSH, 0, 0); /* what was cached so far */
        return;
    }
    scsi_good(c);
}

/* -- All --------------------------------------------------------------------------------------- */
static void medium_command(struct scsi_command *c)
{
    switch (c->cdb[0]) {
    case OP_TEST_UNIT_READY:
        scsi_good(c);
        break;
    case OP_READ_6:
    case OP_READ_10:
    case OP_READ_12:
    case OP_READ_16:
        scsi_transfer(c, false);
        break;
    case OP_WRITE_6:
    case OP_WRITE_10:
    case OP_WRITE_12:
    case OP_WRITE_16:
    case OP_WRITE_VERIFY_10:
        scsi_transfer(c, true);
        break;
    case OP_VERIFY_10:
    case OP_VERIFY_16:
        scsi_verify(c);
        break;
    case OP_SYNC_10:
    case OP_SYNC_16:
        scsi_submit(c, BLOCK_OP_FLUSH, 0, 0);
        break;
    case OP_WRITE_SAME_10:
    case OP_WRITE_SAME_16:
        scsi_write_same(c);
        break;
    case OP_UNMAP:
        scsi_unmap(c);
        break;
    case OP_READ_CAPACITY:
        read_capacity(c);
        break;
    case OP_SERVICE_IN_16:
        service_in(c);
        break;
    default:
        if (c->unit->cdrom) {
            scsi_cd_command(c);
        } else {
            scsi_illegal(c, ASC_BAD_OPCODE);
        }
    }
}

/* Commands that work without a medium. */
static void unit_command(struct scsi_command *c)
{
    uint8_t sense[SCSI_SENSE_BYTES] = { 0x70, [7] = SCSI_SENSE_BYTES - 8 };
    struct scsi_unit *u = c->unit;
    switch (c->cdb[0]) {
    case OP_REQUEST_SENSE:
        scsi_answer(c, sense, sizeof sense, c->cdb[4]);
        break;
    case OP_MODE_SENSE_6:
    case OP_MODE_SENSE_10:
        mode_sense(c, c->cdb[0] == OP_MODE_SENSE_10);
        break;
    case OP_MODE_SELECT_6:
    case OP_MODE_SELECT_10:
        mode_select(c, c->cdb[0] == OP_MODE_SELECT_10);
        break;
    case OP_START_STOP:
        scsi_start_stop(c);
        break;
    case OP_PREVENT:
        u->locked = c->cdb[4] & 1;
        scsi_good(c);
        break;
    default: {
        uint8_t op = c->cdb[0];
        bool always = op == OP_GET_EVENT || op == OP_GET_CONFIGURATION || op == OP_MECHANISM;
        if ((u->ejected || u->blocks == 0) && !always) {
            scsi_check(c, KEY_NOT_READY, ASC_NO_MEDIUM);
        } else {
            medium_command(c);
        }
    }
    }
}

void scsi_execute(struct scsi_command *c)
{
    struct scsi_unit *u = c->unit;
    c->status = SCSI_GOOD;
    c->in_len = 0;
    if (c->cdb[0] == OP_INQUIRY) {
        inquiry(c);
    } else if (c->cdb[0] == OP_REPORT_LUNS) {
        report_luns(c);
    } else if (u->attention && c->cdb[0] != OP_REQUEST_SENSE) {
        u->attention = false;
        scsi_check(c, KEY_ATTENTION, ASC_RESET);
    } else {
        unit_command(c);
    }
}

void scsi_unit_reset(struct scsi_unit *u)
{
    u->attention = true;
    u->write_cache = true;
    u->locked = false;
    u->ejected = false;
}

void scsi_unit_init(struct scsi_unit *u, struct block_queue *disk, bool cdrom, bool readonly,
                    const char *serial)
{
    *u = (struct scsi_unit){ .disk = disk, .cdrom = cdrom, .readonly = readonly || cdrom };
    snprintf(u->serial, sizeof u->serial, "%s", serial);
    u->block_size = cdrom ? 2048 : 512;
    u->blocks = block_size(block_queue_block(disk)) / u->block_size;
    scsi_unit_reset(u);
}

const struct state_field scsi_unit_state[] = {
    STATE(struct scsi_unit, attention),
    STATE(struct scsi_unit, write_cache),
    STATE(struct scsi_unit, locked),
    STATE(struct scsi_unit, ejected),
    STATE_END,
};
