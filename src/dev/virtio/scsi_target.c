/* SPDX-License-Identifier: Apache-2.0
 *
 * SCSI commands of disks and CD/DVD-ROM drives (SPC-4, SBC-3, MMC-5), over a request queue.
 *
 * UNIMPL: reservations, protection information, log pages, audio, raw CD sectors.
 */
#include "dev/virtio/scsi_target.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"

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

#define CACHE_PAGE 0x08
#define CD_PAGE 0x2a
#define ALL_PAGES 0x3f
#define WCE 4u
#define UNMAP_HEADER 8u
#define UNMAP_RANGE 16u
#define UNMAP_RANGES_MAX 256u
#define INLINE_MAX KIB(64) /* see blk.c */
#define RANGE_BLOCKS_MAX (1u << 21)

/* -- Ends -------------------------------------------------------------------------------------- */
static void good(struct scsi_command *c) { c->done(c); }

static void check(struct scsi_command *c, enum sense_key key, unsigned asc)
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

static void illegal(struct scsi_command *c, unsigned asc) { check(c, KEY_ILLEGAL, asc); }

void scsi_no_unit(struct scsi_command *c)
{
    c->in_len = 0;
    c->status = SCSI_GOOD;
    illegal(c, ASC_NO_UNIT);
}

/* An answer of len bytes, of which the initiator takes what it has room for and asked for. */
static void answer(struct scsi_command *c, const uint8_t *bytes, uint32_t len, uint32_t asked)
{
    len = len < asked ? len : asked;
    len = len < c->in_room ? len : c->in_room;
    if (len != 0) {
        memcpy(c->data, bytes, len);
    }
    c->in_len = len;
    good(c);
}

/* -- Reads and writes -------------------------------------------------------------------------- */
static void io_done(struct block_request *r)
{
    struct scsi_command *c = container_of(r, struct scsi_command, io);
    if (r->result == -ENOSPC) {
        check(c, KEY_PROTECT, ASC_NO_SPACE);
    } else if (r->result == -EROFS) {
        check(c, KEY_PROTECT, ASC_READ_ONLY);
    } else if (r->result < 0) {
        check(c, KEY_MEDIUM_ERROR, r->op == BLOCK_OP_READ ? ASC_READ_ERROR : ASC_WRITE_ERROR);
    } else {
        c->in_len = r->op == BLOCK_OP_READ ? (uint32_t)r->len : 0;
        good(c);
    }
}

static void unmap_done(struct block_request *r);

static void submit(struct scsi_command *c, enum block_op op, uint64_t lba, uint64_t blocks)
{
    c->io = (struct block_request){ .op = op,
                                    .offset = lba * c->unit->block_size,
                                    .len = blocks * c->unit->block_size,
                                    .buf = c->data,
                                    .may_unmap = op == BLOCK_OP_ZERO && (c->cdb[1] & 8),
                                    .done = op == BLOCK_OP_DISCARD ? unmap_done : io_done };
    c->io.fua = (op == BLOCK_OP_WRITE || op == BLOCK_OP_ZERO) && (c->fua || !c->unit->write_cache);
    if (op == BLOCK_OP_READ && c->io.len <= INLINE_MAX &&
        block_read_cached(block_queue_block(c->unit->disk), c->io.offset, c->data, c->io.len) ==
            0) {
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
        illegal(c, ASC_LBA_RANGE);
        return false;
    }
    return true;
}

static void transfer(struct scsi_command *c, bool write)
{
    struct extent x = extent_of(c->cdb);
    uint64_t bytes = (uint64_t)x.blocks * c->unit->block_size;
    if (write && c->unit->readonly) {
        check(c, KEY_PROTECT, ASC_READ_ONLY);
        return;
    }
    if (!fits(c, &x)) {
        return;
    }
    if (bytes > (write ? c->out_len : c->in_room)) {
        illegal(c, ASC_BAD_CDB); /* more than the initiator provided for */
        return;
    }
    if (bytes == 0) {
        good(c);
        return;
    }
    c->fua = x.fua;
    submit(c, write ? BLOCK_OP_WRITE : BLOCK_OP_READ, x.lba, x.blocks);
}

static void verify(struct scsi_command *c)
{
    struct extent x = extent_of(c->cdb);
    if (c->cdb[1] & 6) {
        illegal(c, ASC_BAD_CDB); /* BYTCHK: comparing */
    } else if (fits(c, &x)) {
        good(c);
    }
}

static void write_same(struct scsi_command *c)
{
    const struct scsi_unit *u = c->unit;
    struct extent x = extent_of(c->cdb);
    bool no_data = c->cdb[0] == OP_WRITE_SAME_16 && (c->cdb[1] & 1);
    if (u->readonly) {
        check(c, KEY_PROTECT, ASC_READ_ONLY);
        return;
    }
    if (x.blocks == 0 || x.blocks > RANGE_BLOCKS_MAX || (!no_data && c->out_len < u->block_size)) {
        illegal(c, ASC_BAD_CDB);
        return;
    }
    for (uint32_t i = 0; !no_data && i < u->block_size; i++) {
        if (c->data[i] != 0) {
            illegal(c, ASC_BAD_PARAMETER); /* we said in the block limits: zeroes */
            return;
        }
    }
    if (fits(c, &x)) {
        submit(c, BLOCK_OP_ZERO, x.lba, x.blocks);
    }
}

static void unmap_next(struct scsi_command *c);

static void unmap_done(struct block_request *r)
{
    struct scsi_command *c = container_of(r, struct scsi_command, io);
    if (r->result < 0) {
        check(c, KEY_MEDIUM_ERROR, ASC_WRITE_ERROR);
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
            submit(c, BLOCK_OP_DISCARD, x.lba, x.blocks);
            return;
        }
    }
    good(c);
}

static void unmap(struct scsi_command *c)
{
    uint32_t len = load_be16(c->cdb + 7);
    if (c->unit->readonly) {
        check(c, KEY_PROTECT, ASC_READ_ONLY);
        return;
    }
    if (len == 0) {
        good(c);
        return;
    }
    if (len < UNMAP_HEADER || len > c->out_len) {
        illegal(c, ASC_BAD_CDB);
        return;
    }
    uint32_t bytes = load_be16(c->data + 2);
    if (bytes > len - UNMAP_HEADER || bytes / UNMAP_RANGE > UNMAP_RANGES_MAX) {
        illegal(c, ASC_BAD_PARAMETER);
        return;
    }
    c->unmap_at = UNMAP_HEADER;
    c->unmap_end = UNMAP_HEADER + (bytes - bytes % UNMAP_RANGE);
    unmap_next(c);
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
    store_be32(b + 8, SCSI_DATA_MAX / 512); /* maximum transfer */
    store_be32(b + 20, RANGE_BLOCKS_MAX);   /* maximum unmap */
    store_be32(b + 24, UNMAP_RANGES_MAX);
    store_be32(b + 28, 8);                /* granularity */
    store_be64(b + 36, RANGE_BLOCKS_MAX); /* maximum write same */
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
        illegal(c, ASC_BAD_CDB);
        return;
    }
    b[0] = u->cdrom ? 5 : 0;
    answer(c, b, len, asked);
}

static void read_capacity(struct scsi_command *c)
{
    const struct scsi_unit *u = c->unit;
    uint8_t b[8];
    uint64_t last = u->blocks - 1;
    store_be32(b, last < 0xffffffff ? (uint32_t)last : 0xffffffff);
    store_be32(b + 4, u->block_size);
    answer(c, b, sizeof b, sizeof b);
}

static void service_in(struct scsi_command *c)
{
    const struct scsi_unit *u = c->unit;
    uint8_t b[32] = { 0 };
    if ((c->cdb[1] & 31) != 0x10) {
        illegal(c, ASC_BAD_CDB);
        return;
    }
    store_be64(b, u->blocks - 1);
    store_be32(b + 8, u->block_size);
    b[13] = u->block_size == 512 ? 3 : 0; /* 4 KiB underneath */
    b[14] = u->readonly ? 0 : 0x80;       /* unmapping */
    answer(c, b, sizeof b, load_be32(c->cdb + 10));
}

static void report_luns(struct scsi_command *c)
{
    uint8_t b[16] = { 0 };
    store_be32(b, 8); /* one: number 0 */
    answer(c, b, sizeof b, load_be32(c->cdb + 6));
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
        illegal(c, ASC_BAD_CDB);
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
    answer(c, b, head + len, ten ? load_be16(c->cdb + 7) : c->cdb[4]);
}

static void mode_select(struct scsi_command *c, bool ten)
{
    uint32_t len = ten ? load_be16(c->cdb + 7) : c->cdb[4];
    uint32_t head = ten ? 8 : 4;
    if (len > c->out_len) {
        illegal(c, ASC_BAD_CDB);
        return;
    }
    if (len < head) {
        good(c);
        return;
    }
    uint32_t at = head + (ten ? load_be16(c->data + 6) : c->data[3]);
    if (at + 3 <= len && (c->data[at] & 0x3f) == CACHE_PAGE && !c->unit->cdrom) {
        c->unit->write_cache = c->data[at + 2] & WCE;
        submit(c, BLOCK_OP_FLUSH, 0, 0); /* what was cached so far */
        return;
    }
    good(c);
}

/* -- CD ---------------------------------------------------------------------------------------- */
static void put_msf(uint8_t *b, uint32_t lba, bool msf)
{
    if (msf) {
        uint32_t frames = lba + 150;
        b[0] = 0;
        b[1] = (uint8_t)(frames / (75 * 60));
        b[2] = (uint8_t)(frames / 75 % 60);
        b[3] = (uint8_t)(frames % 75);
    } else {
        store_be32(b, lba);
    }
}

static void read_toc(struct scsi_command *c)
{
    uint8_t b[20] = { 0 };
    bool msf = c->cdb[1] & 2;
    uint32_t asked = load_be16(c->cdb + 7);
    unsigned format = c->cdb[2] & 15;
    format = format != 0 ? format : c->cdb[9] >> 6;
    b[2] = b[3] = 1; /* one track, one session */
    if (format == 1) {
        b[1] = 10;
        b[5] = 0x14;
        b[6] = 1;
        put_msf(b + 8, 0, msf);
        answer(c, b, 12, asked);
        return;
    }
    if (format != 0) {
        illegal(c, ASC_BAD_CDB);
        return;
    }
    b[1] = 18;
    b[5] = 0x14; /* data */
    b[6] = 1;
    put_msf(b + 8, 0, msf);
    b[13] = 0x14;
    b[14] = 0xaa; /* lead-out */
    put_msf(b + 16, (uint32_t)c->unit->blocks, msf);
    answer(c, b, sizeof b, asked);
}

static void get_configuration(struct scsi_command *c)
{
    uint8_t b[32] = { 0 };
    bool dvd = c->unit->blocks > 80u * 60 * 75; /* more than a CD holds */
    store_be32(b, 20);
    store_be16(b + 6, c->unit->ejected ? 0 : dvd ? 0x10 : 0x08);
    store_be16(b + 8, 0); /* profile list: both */
    b[10] = 3;
    b[11] = 8;
    store_be16(b + 12, 0x10);
    b[14] = dvd;
    store_be16(b + 16, 0x08);
    b[18] = !dvd;
    answer(c, b, 20, load_be16(c->cdb + 7));
}

static void get_event(struct scsi_command *c)
{
    uint8_t b[8] = { 0 };
    if (!(c->cdb[1] & 1)) {
        illegal(c, ASC_BAD_CDB); /* not polled */
        return;
    }
    store_be16(b, 6);
    b[2] = c->cdb[4] & 0x10 ? 4 : 0x80; /* media events, or none of what was asked for */
    b[3] = 0x10;
    b[5] = c->unit->ejected ? 1 : 2; /* open, or a medium is there */
    answer(c, b, c->cdb[4] & 0x10 ? 8 : 4, load_be16(c->cdb + 7));
}

static void start_stop(struct scsi_command *c)
{
    struct scsi_unit *u = c->unit;
    if (u->cdrom && (c->cdb[4] & 2)) {
        bool eject = !(c->cdb[4] & 1);
        if (eject && u->locked) {
            illegal(c, ASC_LOCKED);
            return;
        }
        u->ejected = eject;
    }
    good(c);
}

static void cd_command(struct scsi_command *c)
{
    static const uint8_t disc[34] = { 0, 32, 0x0e, 1, 1, 1, 1, 0x20 };
    static const uint8_t mechanism[8] = { 0, 0, 0, 0, 0, 1 };
    switch (c->cdb[0]) {
    case OP_READ_TOC:
        read_toc(c);
        break;
    case OP_GET_CONFIGURATION:
        get_configuration(c);
        break;
    case OP_GET_EVENT:
        get_event(c);
        break;
    case OP_READ_DISC:
        answer(c, disc, sizeof disc, load_be16(c->cdb + 7));
        break;
    case OP_MECHANISM:
        answer(c, mechanism, sizeof mechanism, load_be16(c->cdb + 8));
        break;
    default:
        illegal(c, ASC_BAD_OPCODE);
    }
}

/* -- All --------------------------------------------------------------------------------------- */
static void medium_command(struct scsi_command *c)
{
    switch (c->cdb[0]) {
    case OP_TEST_UNIT_READY:
        good(c);
        break;
    case OP_READ_6:
    case OP_READ_10:
    case OP_READ_12:
    case OP_READ_16:
        transfer(c, false);
        break;
    case OP_WRITE_6:
    case OP_WRITE_10:
    case OP_WRITE_12:
    case OP_WRITE_16:
    case OP_WRITE_VERIFY_10:
        transfer(c, true);
        break;
    case OP_VERIFY_10:
    case OP_VERIFY_16:
        verify(c);
        break;
    case OP_SYNC_10:
    case OP_SYNC_16:
        submit(c, BLOCK_OP_FLUSH, 0, 0);
        break;
    case OP_WRITE_SAME_10:
    case OP_WRITE_SAME_16:
        write_same(c);
        break;
    case OP_UNMAP:
        unmap(c);
        break;
    case OP_READ_CAPACITY:
        read_capacity(c);
        break;
    case OP_SERVICE_IN_16:
        service_in(c);
        break;
    default:
        if (c->unit->cdrom) {
            cd_command(c);
        } else {
            illegal(c, ASC_BAD_OPCODE);
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
        answer(c, sense, sizeof sense, c->cdb[4]);
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
        start_stop(c);
        break;
    case OP_PREVENT:
        u->locked = c->cdb[4] & 1;
        good(c);
        break;
    default: {
        uint8_t op = c->cdb[0];
        bool always = op == OP_GET_EVENT || op == OP_GET_CONFIGURATION || op == OP_MECHANISM;
        if ((u->ejected || u->blocks == 0) && !always) {
            check(c, KEY_NOT_READY, ASC_NO_MEDIUM);
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
        check(c, KEY_ATTENTION, ASC_RESET);
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
