/* SPDX-License-Identifier: Apache-2.0
 *
 * What drives say of themselves: IDENTIFY DEVICE and IDENTIFY PACKET DEVICE (ATA-7 volume 1, 6.16
 * and 6.17).
 */
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "dev/pc/ide_int.h"

#define LBA28_MAX 0x0fffffffu
#define UDMA_MODES 0x3fu /* 0 to 5 */

static void word(struct ide_drive *d, unsigned n, unsigned v)
{
    store_le16(d->data + 2 * n, (uint16_t)v);
}

/* Texts are padded with blanks, and the bytes of each word are swapped. */
static void text(struct ide_drive *d, unsigned n, unsigned words, const char *s)
{
    uint8_t *p = d->data + 2 * n;
    size_t len = strlen(s);
    for (unsigned i = 0; i < 2 * words; i++) {
        p[i ^ 1] = i < len ? (uint8_t)s[i] : ' ';
    }
}

static void transfer_modes(struct ide_drive *d)
{
    word(d, 49, 0x0300);                /* LBA and DMA */
    word(d, 53, 0x0006);                /* words 64..70 and 88 are valid */
    word(d, 63, 0x0007);                /* multiword DMA 0 to 2 */
    word(d, 64, 0x0003);                /* PIO 3 and 4 */
    for (unsigned n = 65; n <= 68; n++) {
        word(d, n, 120); /* ns of a cycle */
    }
    unsigned mode = d->transfer_mode & 7;
    bool ultra = (d->transfer_mode & 0xf8) == 0x40;
    bool multiword = (d->transfer_mode & 0xf8) == 0x20;
    word(d, 63, 0x0007 | (multiword && mode <= 2 ? 0x100u << mode : 0));
    word(d, 88, UDMA_MODES | (ultra && mode <= 5 ? 0x100u << mode : 0));
    word(d, 93, d->sata ? 0 : d->number == 0 ? 0x600b : 0x6b00); /* 80 wires */
}

#define SATA_SPEEDS 0x000eu /* 1.5, 3 and 6 Gb/s */
#define SATA_QUEUES 0x0100u

static void serial_transport(struct ide_drive *d, unsigned capabilities)
{
    if (d->sata) {
        word(d, 76, capabilities);
        word(d, 222, 0x107f); /* serial, up to SATA 3.0 */
    }
}

void ide_identify_disk(struct ide_drive *d)
{
    uint64_t cylinders = d->sectors / (16 * 63);
    uint64_t translated = d->sectors / ((uint64_t)d->heads * d->spt);
    uint32_t lba28 = d->sectors < LBA28_MAX ? (uint32_t)d->sectors : LBA28_MAX;
    memset(d->data, 0, IDE_SECTOR);
    word(d, 0, 0x0040); /* fixed */
    word(d, 1, cylinders < 16383 ? (unsigned)cylinders : 16383);
    word(d, 3, 16);
    word(d, 6, 63);
    text(d, 10, 10, d->serial);
    text(d, 23, 4, "1.0");
    text(d, 27, 20, "SOSIA HARDDISK");
    word(d, 47, 0x8000 | IDE_MULTIPLE_MAX);
    word(d, 48, 1); /* 32-bit accesses of the data register */
    transfer_modes(d);
    word(d, 53, 0x0007);
    translated = translated < 0xffff ? translated : 0xffff;
    word(d, 54, (unsigned)translated);
    word(d, 55, d->heads);
    word(d, 56, d->spt);
    store_le32(d->data + 2 * 57, (uint32_t)(translated * d->heads * d->spt));
    word(d, 59, d->multiple != 0 ? 0x100u | d->multiple : 0);
    store_le32(d->data + 2 * 60, lba28);
    word(d, 75, d->sata ? 31 : 0); /* queue depth - 1 */
    serial_transport(d, SATA_SPEEDS | SATA_QUEUES);
    word(d, 80, 0x00f0);          /* ATA-4 to ATA-7 */
    word(d, 82, 0x0021 | 1 << 14); /* SMART, write cache, NOP */
    word(d, 83, 0x7400);          /* FLUSH CACHE (EXT), 48 bits */
    unsigned logs = d->sata ? 0x20 : 0;
    word(d, 84, 0x4040 | logs);   /* WRITE DMA FUA EXT */
    word(d, 85, 0x4001 | (d->write_cache ? 0x20u : 0));
    word(d, 86, 0x3400);
    word(d, 87, 0x4040 | logs);
    store_le64(d->data + 2 * 100, d->sectors);
    word(d, 105, IDE_DATA_BYTES / IDE_SECTOR); /* sectors of DATA SET MANAGEMENT ranges */
    /* TRIM; what is read from trimmed sectors is not promised (word 69): discarding is a hint to
     * images, and another image may be put below a running drive. */
    word(d, 169, d->readonly ? 0 : 1);
}

void ide_identify_cd(struct ide_drive *d)
{
    memset(d->data, 0, IDE_SECTOR);
    word(d, 0, 0x8580); /* packet device, CD-ROM, removable, DRQ within 50 us, 12 bytes */
    text(d, 10, 10, d->serial);
    text(d, 23, 4, "1.0");
    text(d, 27, 20, "SOSIA CD-ROM");
    word(d, 48, 1);
    transfer_modes(d);
    serial_transport(d, SATA_SPEEDS);
    word(d, 80, 0x00f0);
    word(d, 82, 0x4010); /* packet, NOP */
    word(d, 83, 0x4000);
    word(d, 84, 0x4000);
    word(d, 85, 0x4010);
    word(d, 87, 0x4000);
}
