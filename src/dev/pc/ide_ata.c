/* SPDX-License-Identifier: Apache-2.0
 *
 * The commands of disks (ATA-7 volume 1, chapter 6).
 * UNIMPL: security, host protected area, queued commands, SMART beyond "all is well".
 */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "dev/pc/ide_int.h"

enum ata_command {
    CMD_DATA_SET_MANAGEMENT = 0x06,
    CMD_RECALIBRATE = 0x10, /* to 0x1f */
    CMD_READ = 0x20,
    CMD_READ_NO_RETRY = 0x21,
    CMD_READ_EXT = 0x24,
    CMD_READ_DMA_EXT = 0x25,
    CMD_READ_NATIVE_MAX_EXT = 0x27,
    CMD_READ_MULTIPLE_EXT = 0x29,
    CMD_READ_LOG_EXT = 0x2f,
    CMD_WRITE = 0x30,
    CMD_WRITE_NO_RETRY = 0x31,
    CMD_WRITE_EXT = 0x34,
    CMD_WRITE_DMA_EXT = 0x35,
    CMD_WRITE_MULTIPLE_EXT = 0x39,
    CMD_WRITE_DMA_FUA_EXT = 0x3d,
    CMD_VERIFY = 0x40,
    CMD_VERIFY_NO_RETRY = 0x41,
    CMD_VERIFY_EXT = 0x42,
    CMD_SEEK = 0x70,
    CMD_SET_TRANSLATION = 0x91,
    CMD_STANDBY_NOW_OLD = 0x94,
    CMD_SLEEP_OLD = 0x99,
    CMD_SMART = 0xb0,
    CMD_READ_MULTIPLE = 0xc4,
    CMD_WRITE_MULTIPLE = 0xc5,
    CMD_SET_MULTIPLE = 0xc6,
    CMD_READ_DMA = 0xc8,
    CMD_READ_DMA_NO_RETRY = 0xc9,
    CMD_WRITE_DMA = 0xca,
    CMD_WRITE_DMA_NO_RETRY = 0xcb,
    CMD_STANDBY_NOW = 0xe0,
    CMD_IDLE = 0xe3,
    CMD_CHECK_POWER = 0xe5,
    CMD_SLEEP = 0xe6,
    CMD_FLUSH = 0xe7,
    CMD_FLUSH_EXT = 0xea,
    CMD_IDENTIFY = 0xec,
    CMD_SET_FEATURES = 0xef,
    CMD_READ_NATIVE_MAX = 0xf8,
};

#define POWER_ACTIVE 0xffu
#define CHUNK_SECTORS (IDE_DATA_BYTES / IDE_SECTOR)
#define TRIM_ENTRY 8u
#define TRIM_PER_SECTOR (IDE_SECTOR / TRIM_ENTRY)

enum address_size { BITS_28, BITS_48 };

/* -- Where ------------------------------------------------------------------------------------- */
static uint64_t address(const struct ide_drive *d, enum address_size size)
{
    uint64_t low = (uint64_t)d->low[0] | (uint64_t)d->mid[0] << 8 | (uint64_t)d->high[0] << 16;
    if (size == BITS_48) {
        return low | (uint64_t)d->low[1] << 24 | (uint64_t)d->mid[1] << 32 |
               (uint64_t)d->high[1] << 40;
    }
    if (d->device & DEVICE_LBA) {
        return low | (uint64_t)(d->device & 0xf) << 24;
    }
    uint64_t cylinder = d->mid[0] | (uint64_t)d->high[0] << 8;
    unsigned head = d->device & 0xf;
    if (d->low[0] == 0 || d->low[0] > d->spt || head >= d->heads) {
        return UINT64_MAX;
    }
    return (cylinder * d->heads + head) * d->spt + d->low[0] - 1u;
}

static void set_address(struct ide_drive *d, uint64_t lba, enum address_size size)
{
    d->low[0] = (uint8_t)lba;
    d->mid[0] = (uint8_t)(lba >> 8);
    d->high[0] = (uint8_t)(lba >> 16);
    if (size == BITS_48) {
        d->low[1] = (uint8_t)(lba >> 24);
        d->mid[1] = (uint8_t)(lba >> 32);
        d->high[1] = (uint8_t)(lba >> 40);
    } else {
        d->device = (uint8_t)((d->device & 0xf0) | (lba >> 24 & 0xf));
    }
}

/* lba and left from the registers; false: they lie beyond the disk. */
static bool locate(struct ide_drive *d, enum address_size size)
{
    uint64_t lba = address(d, size);
    uint32_t n = d->count[0];
    if (size == BITS_48) {
        n |= (uint32_t)d->count[1] << 8;
        n = n != 0 ? n : 0x10000;
    } else {
        n = n != 0 ? n : 0x100;
    }
    if (lba >= d->sectors || n > d->sectors - lba) {
        ide_fail(d, ER_IDNF | ER_ABRT);
        return false;
    }
    d->lba = lba;
    d->left = n;
    return true;
}

uint8_t ide_error_of(int result) { return result == -EIO ? ER_UNC : ER_ABRT; }

/* -- PIO --------------------------------------------------------------------------------------- */
static uint32_t block_bytes(const struct ide_drive *d)
{
    switch (d->command) {
    case CMD_READ_MULTIPLE:
    case CMD_READ_MULTIPLE_EXT:
    case CMD_WRITE_MULTIPLE:
    case CMD_WRITE_MULTIPLE_EXT:
        return d->multiple * IDE_SECTOR;
    default:
        return IDE_SECTOR;
    }
}

static uint32_t chunk(const struct ide_drive *d)
{
    return (d->left < CHUNK_SECTORS ? d->left : CHUNK_SECTORS) * IDE_SECTOR;
}

static void taken(struct ide_drive *d, uint32_t bytes)
{
    d->lba += bytes / IDE_SECTOR;
    d->left -= bytes / IDE_SECTOR;
}

static void pio_read_done(struct ide_drive *d, int result)
{
    if (result < 0) {
        ide_fail(d, ide_error_of(result));
        return;
    }
    taken(d, d->end);
    ide_show_block(d, PHASE_IN, block_bytes(d));
    d->host->raise(d);
}

static void pio_read(struct ide_drive *d)
{
    d->at = d->block_end = 0;
    d->end = chunk(d);
    ide_submit(d, BLOCK_OP_READ, d->lba * IDE_SECTOR, d->end, pio_read_done);
}

static void pio_write(struct ide_drive *d)
{
    d->at = d->block_end = 0;
    d->end = chunk(d) < block_bytes(d) ? chunk(d) : block_bytes(d);
    ide_show_block(d, PHASE_OUT, d->end);
}

static void pio_write_done(struct ide_drive *d, int result)
{
    if (result < 0) {
        ide_fail(d, ide_error_of(result));
        return;
    }
    taken(d, d->end);
    if (d->left == 0) {
        ide_finish(d);
        return;
    }
    pio_write(d);
    d->host->raise(d);
}

void ide_ata_block_done(struct ide_drive *d)
{
    if (d->phase == PHASE_OUT) {
        ide_submit(d, BLOCK_OP_WRITE, d->lba * IDE_SECTOR, d->end, pio_write_done);
    } else if (d->at < d->end) {
        ide_show_block(d, PHASE_IN, block_bytes(d));
        d->host->raise(d);
    } else if (d->left != 0) {
        pio_read(d);
    } else {
        d->phase = PHASE_IDLE;
        d->status = ST_READY;
    }
}

/* -- DMA --------------------------------------------------------------------------------------- */
static void dma_over(struct ide_drive *d)
{
    d->host->dma_done(d);
    ide_finish(d);
}

/* The sectors of this round went over. */
static void dma_go_on(struct ide_drive *d)
{
    taken(d, d->end);
    if (d->left != 0) {
        ide_ata_dma(d);
    } else {
        dma_over(d);
    }
}

static void dma_read_done(struct ide_drive *d, int result)
{
    if (result < 0 || !d->host->dma(d, d->end, IDE_TO_MEMORY)) {
        ide_fail(d, result < 0 ? ide_error_of(result) : ER_ABRT);
        return;
    }
    dma_go_on(d);
}

static void dma_write_done(struct ide_drive *d, int result)
{
    if (result < 0) {
        ide_fail(d, ide_error_of(result));
        return;
    }
    dma_go_on(d);
}

/* Ranges of DATA SET MANAGEMENT one after the other (ATA8-ACS2 7.10): at is the next in data, which
 * holds left sectors of them. */
static void trim_done(struct ide_drive *d, int result)
{
    while (result == 0 && d->at < d->end) {
        uint64_t range = load_le64(d->data + d->at);
        uint64_t first = range & MASK64(48), count = range >> 48;
        d->at += TRIM_ENTRY;
        if (count != 0 && (first >= d->sectors || count > d->sectors - first)) {
            ide_fail(d, ER_IDNF | ER_ABRT);
            return;
        }
        if (count != 0) {
            ide_submit(d, BLOCK_OP_DISCARD, first * IDE_SECTOR, (uint32_t)count * IDE_SECTOR,
                       trim_done);
            return;
        }
    }
    if (result < 0) {
        ide_fail(d, ide_error_of(result));
    } else {
        dma_over(d);
    }
}

static bool is_read(const struct ide_drive *d)
{
    return d->command == CMD_READ_DMA || d->command == CMD_READ_DMA_NO_RETRY ||
           d->command == CMD_READ_DMA_EXT;
}

void ide_ata_dma(struct ide_drive *d)
{
    d->at = d->block_end = 0;
    d->end = chunk(d);
    if (is_read(d)) {
        ide_submit(d, BLOCK_OP_READ, d->lba * IDE_SECTOR, d->end, dma_read_done);
        return;
    }
    if (!d->host->dma(d, d->end, IDE_FROM_MEMORY)) {
        ide_fail(d, ER_ABRT);
    } else if (d->command == CMD_DATA_SET_MANAGEMENT) {
        d->left = 0;
        d->block_end = d->end;
        trim_done(d, 0);
    } else {
        ide_submit(d, BLOCK_OP_WRITE, d->lba * IDE_SECTOR, d->end, dma_write_done);
    }
}

static void start_dma(struct ide_drive *d, enum ide_phase phase)
{
    d->phase = (uint8_t)phase;
    d->status = ST_READY | ST_DRQ;
    d->host->dma_ready(d);
}

/* -- Reading and writing ----------------------------------------------------------------------- */
static void read_command(struct ide_drive *d, enum address_size size)
{
    if (block_bytes(d) == 0) {
        ide_fail(d, ER_ABRT); /* READ MULTIPLE while that is off */
    } else if (locate(d, size)) {
        pio_read(d);
    }
}

static void write_command(struct ide_drive *d, enum address_size size)
{
    if (block_bytes(d) == 0 || d->readonly) {
        ide_fail(d, ER_ABRT);
    } else if (locate(d, size)) {
        pio_write(d);
    }
}

static void read_dma(struct ide_drive *d, enum address_size size)
{
    if (locate(d, size)) {
        start_dma(d, PHASE_DMA_IN);
    }
}

static void write_dma(struct ide_drive *d, enum address_size size)
{
    if (d->readonly) {
        ide_fail(d, ER_ABRT);
    } else if (locate(d, size)) {
        start_dma(d, PHASE_DMA_OUT);
    }
}

static void data_set_management(struct ide_drive *d)
{
    uint32_t n = d->count[0];
    if (!(d->feature & 1) || n == 0 || n > CHUNK_SECTORS || n > d->sectors || d->readonly) {
        ide_fail(d, ER_ABRT);
        return;
    }
    d->lba = 0;
    d->left = n;
    start_dma(d, PHASE_DMA_OUT);
}

/* -- The rest ---------------------------------------------------------------------------------- */
static void flush_done(struct ide_drive *d, int result)
{
    if (result < 0) {
        ide_fail(d, ER_ABRT);
    } else {
        ide_finish(d);
    }
}

/* What is in data is the answer. */
static void show_sector(struct ide_drive *d)
{
    d->left = 0;
    d->at = 0;
    d->end = IDE_SECTOR;
    ide_show_block(d, PHASE_IN, IDE_SECTOR);
    d->host->raise(d);
}

/* ATA8-ACS2 7.27 and A.14: of the directory and the log of queued commands, a page each. */
static void read_log(struct ide_drive *d)
{
    enum { LOG_DIRECTORY = 0x00, LOG_QUEUE_ERROR = 0x10 };
    uint8_t log = d->low[0], sum = 0;
    bool one_page = d->count[0] == 1 && d->count[1] == 0 && d->mid[0] == 0 && d->mid[1] == 0;
    if (!d->sata || !one_page || (log != LOG_DIRECTORY && log != LOG_QUEUE_ERROR)) {
        ide_fail(d, ER_ABRT);
        return;
    }
    memset(d->data, 0, IDE_SECTOR);
    if (log == LOG_DIRECTORY) {
        store_le16(d->data, 1); /* version */
        store_le16(d->data + 2 * LOG_QUEUE_ERROR, 1);
    } else {
        memcpy(d->data, d->queue_log, sizeof d->queue_log);
        for (unsigned i = 0; i < sizeof d->queue_log; i++) {
            sum = (uint8_t)(sum + d->data[i]);
        }
        d->data[IDE_SECTOR - 1] = (uint8_t)-sum;
    }
    show_sector(d);
}

static void verify(struct ide_drive *d, enum address_size size)
{
    if (locate(d, size)) {
        d->left = 0;
        ide_finish(d);
    }
}

static void native_max(struct ide_drive *d, enum address_size size)
{
    uint64_t last = d->sectors - 1;
    if (size == BITS_28 && last > MASK64(28) - 1) {
        last = MASK64(28) - 1;
    }
    set_address(d, last, size);
    ide_finish(d);
}

static void set_multiple(struct ide_drive *d)
{
    uint8_t n = d->count[0];
    if (n > IDE_MULTIPLE_MAX || (n & (n - 1)) != 0) {
        ide_fail(d, ER_ABRT);
        return;
    }
    d->multiple = n;
    ide_finish(d);
}

static void set_translation(struct ide_drive *d)
{
    if (d->count[0] == 0) {
        ide_fail(d, ER_ABRT);
        return;
    }
    d->spt = d->count[0];
    d->heads = (uint8_t)((d->device & 0xf) + 1);
    ide_finish(d);
}

/* ATA-7 volume 1, 6.47. Transfer modes are accepted as they come: there is no timing. */
static void set_features(struct ide_drive *d)
{
    switch (d->feature) {
    case 0x02:
        d->write_cache = true;
        break;
    case 0x82: /* what is cached goes out first */
        d->write_cache = false;
        ide_submit(d, BLOCK_OP_FLUSH, 0, 0, flush_done);
        return;
    case 0x03:
        d->transfer_mode = d->count[0];
        break;
    case 0x05: /* advanced power management, */
    case 0x85:
    case 0x42: /* acoustics, */
    case 0xc2:
    case 0xaa: /* look-ahead, */
    case 0x55:
    case 0x66: /* and what a reset reverts: all without effect */
    case 0xcc:
        break;
    default:
        ide_fail(d, ER_ABRT);
        return;
    }
    ide_finish(d);
}

/* ATA-7 volume 1, 6.53: enabled, and no threshold exceeded. */
static void smart(struct ide_drive *d)
{
    enum { ENABLE = 0xd8, DISABLE = 0xd9, RETURN_STATUS = 0xda, AUTOSAVE = 0xd2 };
    bool key = d->mid[0] == 0x4f && d->high[0] == 0xc2;
    bool known = d->feature == ENABLE || d->feature == DISABLE || d->feature == AUTOSAVE ||
                 d->feature == RETURN_STATUS;
    if (key && known) {
        ide_finish(d); /* the key in the registers stays: it is the answer, too */
    } else {
        ide_fail(d, ER_ABRT);
    }
}

void ide_ata_command(struct ide_drive *d)
{
    switch (d->command) {
    case CMD_READ:
    case CMD_READ_NO_RETRY:
    case CMD_READ_MULTIPLE:
        read_command(d, BITS_28);
        return;
    case CMD_READ_EXT:
    case CMD_READ_MULTIPLE_EXT:
        read_command(d, BITS_48);
        return;
    case CMD_WRITE:
    case CMD_WRITE_NO_RETRY:
    case CMD_WRITE_MULTIPLE:
        write_command(d, BITS_28);
        return;
    case CMD_WRITE_EXT:
    case CMD_WRITE_MULTIPLE_EXT:
        write_command(d, BITS_48);
        return;
    case CMD_READ_DMA:
    case CMD_READ_DMA_NO_RETRY:
        read_dma(d, BITS_28);
        return;
    case CMD_READ_DMA_EXT:
        read_dma(d, BITS_48);
        return;
    case CMD_WRITE_DMA:
    case CMD_WRITE_DMA_NO_RETRY:
        write_dma(d, BITS_28);
        return;
    case CMD_WRITE_DMA_EXT:
    case CMD_WRITE_DMA_FUA_EXT:
        write_dma(d, BITS_48);
        return;
    case CMD_DATA_SET_MANAGEMENT:
        data_set_management(d);
        return;
    case CMD_VERIFY:
    case CMD_VERIFY_NO_RETRY:
        verify(d, BITS_28);
        return;
    case CMD_VERIFY_EXT:
        verify(d, BITS_48);
        return;
    case CMD_READ_NATIVE_MAX:
        native_max(d, BITS_28);
        return;
    case CMD_READ_NATIVE_MAX_EXT:
        native_max(d, BITS_48);
        return;
    case CMD_IDENTIFY:
        ide_identify_disk(d);
        show_sector(d);
        return;
    case CMD_READ_LOG_EXT:
        read_log(d);
        return;
    case CMD_FLUSH:
    case CMD_FLUSH_EXT:
        ide_submit(d, BLOCK_OP_FLUSH, 0, 0, flush_done);
        return;
    case CMD_SET_MULTIPLE:
        set_multiple(d);
        return;
    case CMD_SET_TRANSLATION:
        set_translation(d);
        return;
    case CMD_SET_FEATURES:
        set_features(d);
        return;
    case CMD_SMART:
        smart(d);
        return;
    case CMD_CHECK_POWER:
        d->count[0] = POWER_ACTIVE;
        ide_finish(d);
        return;
    default:
        break;
    }
    bool nothing_to_do = (d->command & 0xf0) == CMD_RECALIBRATE ||
                         (d->command & 0xf0) == CMD_SEEK ||
                         (d->command >= CMD_STANDBY_NOW_OLD && d->command <= CMD_SLEEP_OLD) ||
                         (d->command >= CMD_STANDBY_NOW && d->command <= CMD_IDLE) ||
                         d->command == CMD_SLEEP;
    if (nothing_to_do) {
        ide_finish(d);
    } else {
        ide_fail(d, ER_ABRT);
    }
}
