/* SPDX-License-Identifier: Apache-2.0
 *
 * The CD-ROM drive: packet commands over ATA (ATA-7 volume 1, 4.9 and 6.24), of SPC-2 and MMC-3
 * what a drive that only reads data discs has.
 * UNIMPL: audio, writing, raw sectors with their error correction, DVD structures.
 */
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "dev/pc/ide_int.h"

enum atapi_ata_command {
    CMD_PACKET = 0xa0,
    CMD_IDENTIFY_PACKET = 0xa1,
    CMD_READ_SECTORS = 0x20,
    CMD_IDENTIFY = 0xec,
    CMD_SET_FEATURES = 0xef,
    CMD_CHECK_POWER = 0xe5,
    CMD_IDLE_NOW = 0xe1,
    CMD_STANDBY_NOW = 0xe0,
};

enum packet_command {
    TEST_UNIT_READY = 0x00,
    REQUEST_SENSE = 0x03,
    INQUIRY = 0x12,
    MODE_SENSE_6 = 0x1a,
    START_STOP = 0x1b,
    PREVENT_REMOVAL = 0x1e,
    READ_CAPACITY = 0x25,
    READ_10 = 0x28,
    SEEK_10 = 0x2b,
    READ_TOC = 0x43,
    GET_CONFIGURATION = 0x46,
    GET_EVENT_STATUS = 0x4a,
    READ_DISC_INFO = 0x51,
    MODE_SENSE_10 = 0x5a,
    READ_12 = 0xa8,
    SET_SPEED = 0xbb,
    MECHANISM_STATUS = 0xbd,
    READ_CD = 0xbe,
};

enum sense_key {
    NO_SENSE = 0,
    NOT_READY = 2,
    MEDIUM_ERROR = 3,
    ILLEGAL_REQUEST = 5,
    UNIT_ATTENTION = 6
};
#define ASC_UNRECOVERED 0x11
#define ASC_INVALID_COMMAND 0x20
#define ASC_OUT_OF_RANGE 0x21
#define ASC_INVALID_FIELD 0x24
#define ASC_MEDIUM_CHANGED 0x28
#define ASC_NO_MEDIUM 0x3a

#define CHUNK_SECTORS (IDE_DATA_BYTES / IDE_CD_SECTOR)
#define LEAD_OUT 0xaau

static bool has_medium(const struct ide_drive *d)
{
    return d->queue != NULL && !d->ejected && d->sectors != 0;
}

/* -- Ends of a command ------------------------------------------------------------------------- */
static void succeed(struct ide_drive *d)
{
    d->sense_key = NO_SENSE;
    d->sense_code = d->sense_qualifier = 0;
    d->count[0] = REASON_COMMAND | REASON_TO_HOST;
    ide_finish(d);
}

static void fail(struct ide_drive *d, enum sense_key key, uint8_t code)
{
    d->sense_key = (uint8_t)key;
    d->sense_code = code;
    d->sense_qualifier = 0;
    d->left = 0;
    d->count[0] = REASON_COMMAND | REASON_TO_HOST;
    ide_fail(d, (uint8_t)(key << 4 | ER_ABRT));
}

static void show(struct ide_drive *d)
{
    uint32_t left = d->end - d->at;
    uint32_t n = left <= d->packet_limit ? left : d->packet_limit & ~1u;
    ide_show_block(d, PHASE_IN, n);
    d->count[0] = REASON_TO_HOST;
    d->mid[0] = (uint8_t)n;
    d->high[0] = (uint8_t)(n >> 8);
    d->host->raise(d);
}

/* len bytes of data are the answer, of which the host allocated so many. */
static void reply(struct ide_drive *d, uint32_t len, uint32_t allocated)
{
    d->at = d->block_end = 0;
    d->end = len < allocated ? len : allocated;
    d->left = 0;
    if (d->end == 0) {
        succeed(d);
    } else if (d->packet_dma) {
        d->phase = PHASE_DMA_IN;
        d->status = ST_READY | ST_DRQ;
        d->count[0] = REASON_TO_HOST;
        d->host->dma_ready(d);
    } else {
        show(d);
    }
}

/* -- Reading sectors --------------------------------------------------------------------------- */
static void fetch(struct ide_drive *d);

static void fetched(struct ide_drive *d, int result)
{
    if (result < 0) {
        fail(d, MEDIUM_ERROR, ASC_UNRECOVERED);
        return;
    }
    uint32_t sectors = d->end / IDE_CD_SECTOR;
    d->lba += sectors;
    d->left -= sectors;
    if (!d->packet_dma) {
        show(d);
        return;
    }
    if (!d->host->dma(d, d->end, IDE_TO_MEMORY)) {
        fail(d, ILLEGAL_REQUEST, ASC_INVALID_FIELD);
    } else if (d->left != 0) {
        fetch(d);
    } else {
        d->host->dma_done(d);
        succeed(d);
    }
}

static void fetch(struct ide_drive *d)
{
    uint32_t n = d->left < CHUNK_SECTORS ? d->left : CHUNK_SECTORS;
    d->at = d->block_end = 0;
    d->end = n * IDE_CD_SECTOR;
    ide_submit(d, BLOCK_OP_READ, d->lba * IDE_CD_SECTOR, d->end, fetched);
}

static void read_sectors(struct ide_drive *d, uint32_t lba, uint32_t count)
{
    if (lba >= d->sectors || count > d->sectors - lba) {
        fail(d, ILLEGAL_REQUEST, ASC_OUT_OF_RANGE);
        return;
    }
    d->lba = lba;
    d->left = count;
    if (count == 0) {
        succeed(d);
    } else if (d->packet_dma) {
        d->at = d->block_end = d->end = 0;
        d->phase = PHASE_DMA_IN;
        d->status = ST_READY | ST_DRQ;
        d->host->dma_ready(d);
    } else {
        fetch(d);
    }
}

void ide_atapi_dma(struct ide_drive *d)
{
    if (d->left != 0) {
        fetch(d);
    } else if (d->host->dma(d, d->end, IDE_TO_MEMORY)) {
        d->host->dma_done(d);
        succeed(d);
    } else {
        fail(d, ILLEGAL_REQUEST, ASC_INVALID_FIELD);
    }
}

/* -- Answers ----------------------------------------------------------------------------------- */
static uint8_t *answer(struct ide_drive *d, size_t len) { return memset(d->data, 0, len); }

static void blank_text(uint8_t *p, size_t size, const char *s)
{
    memset(p, ' ', size);
    memcpy(p, s, strlen(s));
}

static void inquiry(struct ide_drive *d)
{
    if (d->packet[1] & 1) {
        fail(d, ILLEGAL_REQUEST, ASC_INVALID_FIELD); /* no vital product data */
        return;
    }
    uint8_t *p = answer(d, 36);
    p[0] = 5; /* CD-ROM */
    p[1] = 0x80;
    p[3] = 0x21; /* ATAPI response format */
    p[4] = 31;
    blank_text(p + 8, 8, "SOSIA");
    blank_text(p + 16, 16, "CD-ROM");
    blank_text(p + 32, 4, "1.0");
    reply(d, 36, load_be16(d->packet + 3));
}

static void request_sense(struct ide_drive *d)
{
    uint8_t *p = answer(d, 18);
    p[0] = 0x70;
    p[2] = d->sense_key;
    p[7] = 10;
    p[12] = d->sense_code;
    p[13] = d->sense_qualifier;
    reply(d, 18, d->packet[4]);
}

static void read_capacity(struct ide_drive *d)
{
    uint8_t *p = answer(d, 8);
    store_be32(p, (uint32_t)d->sectors - 1);
    store_be32(p + 4, IDE_CD_SECTOR);
    reply(d, 8, 8);
}

static void put_address(uint8_t *p, uint32_t lba, bool msf)
{
    if (!msf) {
        store_be32(p, lba);
        return;
    }
    lba += 150; /* two seconds of lead-in */
    p[1] = (uint8_t)(lba / 75 / 60);
    p[2] = (uint8_t)(lba / 75 % 60);
    p[3] = (uint8_t)(lba % 75);
}

/* MMC-3 5.23: one data track. */
static void read_toc(struct ide_drive *d)
{
    bool msf = d->packet[1] & 2;
    unsigned format = d->packet[2] & 0xf;
    unsigned first = d->packet[6];
    format = format != 0 ? format : d->packet[9] >> 6;
    uint8_t *p = answer(d, 64);
    unsigned n = 4;
    p[2] = p[3] = 1;
    if (format == 1) { /* session information */
        p[n + 1] = 0x14;
        p[n + 2] = 1;
        put_address(p + n + 4, 0, msf);
        n += 8;
    } else if (format == 0 && (first <= 1 || first == LEAD_OUT)) {
        if (first <= 1) {
            p[n + 1] = 0x14; /* data */
            p[n + 2] = 1;
            put_address(p + n + 4, 0, msf);
            n += 8;
        }
        p[n + 1] = 0x14;
        p[n + 2] = LEAD_OUT;
        put_address(p + n + 4, (uint32_t)d->sectors, msf);
        n += 8;
    } else {
        fail(d, ILLEGAL_REQUEST, ASC_INVALID_FIELD);
        return;
    }
    store_be16(p, (uint16_t)(n - 2));
    reply(d, n, load_be16(d->packet + 7));
}

/* MMC-3 5.5: profiles, and the feature of random reading. */
static void get_configuration(struct ide_drive *d)
{
    uint8_t *p = answer(d, 64);
    unsigned n = 8;
    store_be16(p + 6, has_medium(d) ? 0x0008 : 0); /* CD-ROM is the current profile */
    p[n + 2] = 0x03;                               /* feature 0: persistent, current */
    p[n + 3] = 4;
    store_be16(p + n + 4, 0x0008);
    p[n + 6] = has_medium(d);
    n += 8;
    store_be16(p + n, 0x0001); /* core */
    p[n + 2] = 0x03;
    p[n + 3] = 4;
    store_be32(p + n + 4, 2); /* ATAPI */
    n += 8;
    store_be16(p + n, 0x0003); /* removable medium: a tray that can be locked and ejected */
    p[n + 2] = 0x03;
    p[n + 3] = 4;
    p[n + 4] = 0x29;
    n += 8;
    store_be32(p, n - 4);
    reply(d, n, load_be16(d->packet + 7));
}

static void get_event_status(struct ide_drive *d)
{
    if (!(d->packet[1] & 1)) {
        fail(d, ILLEGAL_REQUEST, ASC_INVALID_FIELD); /* polled only */
        return;
    }
    uint8_t *p = answer(d, 8);
    bool media = d->packet[4] & 0x10;
    p[3] = 0x10; /* supported: media */
    if (!media) {
        p[1] = 2;
        p[2] = 0x80; /* no event */
        reply(d, 4, load_be16(d->packet + 7));
        return;
    }
    p[1] = 6;
    p[2] = 4;
    p[5] = (uint8_t)((has_medium(d) ? 2 : 0) | (d->ejected ? 1 : 0));
    reply(d, 8, load_be16(d->packet + 7));
}

static void read_disc_info(struct ide_drive *d)
{
    uint8_t *p = answer(d, 34);
    store_be16(p, 32);
    p[2] = 0x0e; /* complete */
    p[3] = p[4] = p[5] = p[6] = 1;
    p[7] = 0x20;
    reply(d, 34, load_be16(d->packet + 7));
}

/* MMC-3 6.3: error recovery and capabilities. Returns the length past the header. */
static unsigned mode_pages(const struct ide_drive *d, unsigned page, uint8_t *p)
{
    unsigned n = 0;
    if (page == 0x01 || page == 0x3f) {
        p[n] = 0x01;
        p[n + 1] = 6;
        p[n + 3] = 5;
        n += 8;
    }
    if (page == 0x2a || page == 0x3f) {
        p[n] = 0x2a;
        p[n + 1] = 18;
        p[n + 4] = 0x70; /* reads mode 2, multi-session */
        p[n + 6] = (uint8_t)(0x29 | (d->locked ? 2 : 0));
        store_be16(p + n + 8, 706 * 4); /* kB/s */
        store_be16(p + n + 12, 512);
        store_be16(p + n + 14, 706 * 4);
        n += 20;
    }
    return n;
}

static void mode_sense(struct ide_drive *d, unsigned header, uint32_t allocated)
{
    uint8_t *p = answer(d, 64);
    unsigned n = mode_pages(d, d->packet[2] & 0x3f, p + header);
    if (n == 0 || d->packet[2] >> 6 == 3) {
        fail(d, ILLEGAL_REQUEST, n == 0 ? ASC_INVALID_FIELD : 0x39);
        return;
    }
    uint8_t type = has_medium(d) ? 0x01 : 0x70;
    if (header == 4) {
        p[0] = (uint8_t)(header + n - 1);
        p[1] = type;
    } else {
        store_be16(p, (uint16_t)(header + n - 2));
        p[2] = type;
    }
    reply(d, header + n, allocated);
}

static void start_stop(struct ide_drive *d)
{
    enum { START = 1, LOAD_EJECT = 2 };
    if (d->packet[4] & LOAD_EJECT) {
        bool eject = !(d->packet[4] & START);
        if (eject && d->locked) {
            fail(d, NOT_READY, 0x53); /* removal prevented */
            return;
        }
        d->ejected = eject;
    }
    succeed(d);
}

static void read_cd(struct ide_drive *d)
{
    uint32_t count = load_be32(d->packet + 5) & 0xffffff;
    uint8_t fields = d->packet[9] & 0xf8;
    if (fields == 0 || count == 0) {
        succeed(d);
    } else if (fields == 0x10) { /* user data alone */
        read_sectors(d, load_be32(d->packet + 2), count);
    } else {
        fail(d, ILLEGAL_REQUEST, ASC_INVALID_FIELD);
    }
}

static bool needs_medium(uint8_t command)
{
    switch (command) {
    case TEST_UNIT_READY:
    case READ_CAPACITY:
    case READ_10:
    case READ_12:
    case READ_CD:
    case SEEK_10:
    case READ_TOC:
    case READ_DISC_INFO:
        return true;
    default:
        return false;
    }
}

void ide_atapi_disc_changed(struct ide_drive *d)
{
    d->sense_key = UNIT_ATTENTION;
    d->sense_code = ASC_MEDIUM_CHANGED;
    d->sense_qualifier = 0;
}

static void run_packet(struct ide_drive *d)
{
    const uint8_t *k = d->packet;
    /* Until it has been told (MMC-3 4.1.6): whoever asks for the sense has. */
    if (d->sense_key == UNIT_ATTENTION && k[0] != REQUEST_SENSE && k[0] != INQUIRY) {
        fail(d, UNIT_ATTENTION, d->sense_code);
        return;
    }
    if (needs_medium(k[0]) && !has_medium(d)) {
        fail(d, NOT_READY, ASC_NO_MEDIUM);
        return;
    }
    switch (k[0]) {
    case TEST_UNIT_READY:
    case SEEK_10:
    case SET_SPEED:
        succeed(d);
        break;
    case PREVENT_REMOVAL:
        d->locked = k[4] & 1;
        succeed(d);
        break;
    case REQUEST_SENSE:
        request_sense(d);
        break;
    case INQUIRY:
        inquiry(d);
        break;
    case MODE_SENSE_6:
        mode_sense(d, 4, k[4]);
        break;
    case MODE_SENSE_10:
        mode_sense(d, 8, load_be16(k + 7));
        break;
    case START_STOP:
        start_stop(d);
        break;
    case READ_CAPACITY:
        read_capacity(d);
        break;
    case READ_10:
        read_sectors(d, load_be32(k + 2), load_be16(k + 7));
        break;
    case READ_12:
        read_sectors(d, load_be32(k + 2), load_be32(k + 6));
        break;
    case READ_CD:
        read_cd(d);
        break;
    case READ_TOC:
        read_toc(d);
        break;
    case GET_CONFIGURATION:
        get_configuration(d);
        break;
    case GET_EVENT_STATUS:
        get_event_status(d);
        break;
    case READ_DISC_INFO:
        read_disc_info(d);
        break;
    case MECHANISM_STATUS:
        answer(d, 8)[5] = 1; /* one slot */
        reply(d, 8, load_be16(k + 8));
        break;
    default:
        fail(d, ILLEGAL_REQUEST, ASC_INVALID_COMMAND);
        break;
    }
}

/* -- ATA --------------------------------------------------------------------------------------- */
void ide_atapi_block_done(struct ide_drive *d)
{
    if (d->phase == PHASE_PACKET) {
        memcpy(d->packet, d->data, IDE_PACKET_BYTES);
        run_packet(d);
    } else if (d->at < d->end) {
        show(d);
    } else if (d->left != 0) {
        fetch(d);
    } else if (d->command == CMD_IDENTIFY_PACKET) {
        d->phase = PHASE_IDLE;
        d->status = ST_READY;
    } else {
        succeed(d);
    }
}

static void packet(struct ide_drive *d)
{
    uint16_t limit = (uint16_t)(d->mid[0] | d->high[0] << 8);
    d->packet_dma = d->feature & 1;
    d->packet_limit = limit < 2 ? 0xfffe : limit;
    d->left = 0;
    d->at = 0;
    d->end = IDE_PACKET_BYTES;
    ide_show_block(d, PHASE_PACKET, IDE_PACKET_BYTES);
    d->count[0] = REASON_COMMAND;
}

void ide_atapi_command(struct ide_drive *d)
{
    switch (d->command) {
    case CMD_PACKET:
        packet(d);
        break;
    case CMD_IDENTIFY_PACKET:
        ide_identify_cd(d);
        d->left = 0;
        d->at = 0;
        d->packet_limit = IDE_SECTOR;
        d->end = IDE_SECTOR;
        ide_show_block(d, PHASE_IN, IDE_SECTOR);
        d->host->raise(d);
        break;
    case CMD_SET_FEATURES:
        if (d->feature == 0x03) {
            d->transfer_mode = d->count[0];
        }
        ide_finish(d);
        break;
    case CMD_CHECK_POWER:
        d->count[0] = 0xff;
        ide_finish(d);
        break;
    case CMD_IDLE_NOW:
    case CMD_STANDBY_NOW:
        ide_finish(d);
        break;
    case CMD_IDENTIFY: /* says by the signature what it is */
    case CMD_READ_SECTORS:
        ide_signature(d);
        ide_fail(d, ER_ABRT);
        break;
    default:
        ide_fail(d, ER_ABRT);
        break;
    }
}
