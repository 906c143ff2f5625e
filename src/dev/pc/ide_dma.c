/* SPDX-License-Identifier: Apache-2.0
 *
 * The bus master of the IDE function (290550 2.7; "Programming Interface for Bus Master IDE
 * Controller", revision 1.0): registers, and the walk along physical region descriptors.
 */
#include <string.h>

#include "base/bytes.h"
#include "dev/pc/ide_int.h"

enum bm_reg { BM_COMMAND = 0, BM_STATUS = 2, BM_TABLE = 4 };
#define BM_CHANNEL_PORTS 8u
#define STATUS_WRITABLE 0x60u /* drive 0 and 1 capable of DMA: for software alone */
#define STATUS_W1C (BM_ERROR | BM_INTERRUPT)
#define PRD_BYTES 8u
#define PRD_LAST 0x80000000u

static bool running(const struct ide_channel *c)
{
    return (c->bm_command & BM_START) && (c->bm_status & BM_ACTIVE) &&
           pci_bus_master(&c->ide->pci);
}

void ide_dma_ready(struct ide_drive *d)
{
    if (running(d->controller)) {
        ide_drive_dma(d);
    }
}

void ide_dma_done(struct ide_drive *d)
{
    struct ide_channel *c = d->controller;
    /* A table with more to it leaves the engine active: it wants more from the drive. */
    if (c->prd_last && c->prd_left == 0) {
        c->bm_status &= (uint8_t)~BM_ACTIVE;
    }
}

/* -- Descriptors ------------------------------------------------------------------------------- */
/* The next region; false: there is none. */
static bool next_region(struct ide_channel *c)
{
    uint8_t prd[PRD_BYTES];
    if (c->prd_last || gmem_read(c->ide->mem, c->prd_at, prd, sizeof prd) < 0) {
        return false;
    }
    /* The table does not cross a 64 KiB boundary. */
    c->prd_at = (c->prd_at & 0xffff0000) | ((c->prd_at + PRD_BYTES) & 0xffff);
    c->prd_addr = load_le32(prd) & ~1u;
    uint32_t count = load_le32(prd + 4);
    c->prd_left = (count & 0xfffe) != 0 ? count & 0xfffe : 0x10000;
    c->prd_last = (count & PRD_LAST) != 0;
    return true;
}

bool ide_dma(struct ide_drive *d, uint32_t bytes, enum ide_direction direction)
{
    struct ide_channel *c = d->controller;
    struct gmem *mem = c->ide->mem;
    bool good = running(c);
    for (uint32_t at = 0; at < bytes && good;) {
        if (c->prd_left == 0 && !next_region(c)) {
            good = false;
            break;
        }
        uint32_t n = c->prd_left < bytes - at ? c->prd_left : bytes - at;
        /* Where there is no RAM, data vanishes and zeroes are read. */
        if (direction == IDE_TO_MEMORY) {
            int r = gmem_write(mem, c->prd_addr, d->data + at, n);
            (void)r;
        } else if (gmem_read(mem, c->prd_addr, d->data + at, n) < 0) {
            memset(d->data + at, 0, n);
        }
        at += n;
        c->prd_addr += n;
        c->prd_left -= n;
    }
    if (!good) {
        c->bm_status &= (uint8_t)~BM_ACTIVE;
    }
    return good;
}

/* -- Registers --------------------------------------------------------------------------------- */
static void write_command(struct ide_channel *c, uint8_t v)
{
    uint8_t old = c->bm_command;
    c->bm_command = v & (BM_START | BM_TO_MEMORY);
    if (~old & v & BM_START) {
        c->prd_at = c->bm_table;
        c->prd_left = 0;
        c->prd_last = false;
        c->bm_status |= BM_ACTIVE;
        struct ide_drive *d = &c->drive[c->selected];
        if ((d->phase == PHASE_DMA_IN || d->phase == PHASE_DMA_OUT) && running(c)) {
            ide_drive_dma(d);
        }
    } else if (old & ~v & BM_START) {
        c->bm_status &= (uint8_t)~BM_ACTIVE;
    }
}

static uint64_t bm_read(void *dev, uint64_t offset, unsigned size)
{
    struct ide *i = dev;
    const struct ide_channel *c = &i->channel[offset / BM_CHANNEL_PORTS];
    uint8_t regs[BM_CHANNEL_PORTS] = { [BM_COMMAND] = c->bm_command, [BM_STATUS] = c->bm_status };
    uint64_t v = 0;
    store_le32(regs + BM_TABLE, c->bm_table);
    memcpy(&v, regs + offset % BM_CHANNEL_PORTS, size);
    return v;
}

static void bm_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct ide *i = dev;
    struct ide_channel *c = &i->channel[offset / BM_CHANNEL_PORTS];
    for (unsigned n = 0; n < size; n++) {
        unsigned reg = (unsigned)(offset + n) % BM_CHANNEL_PORTS;
        uint8_t v = (uint8_t)(value >> 8 * n);
        if (reg == BM_COMMAND) {
            write_command(c, v);
        } else if (reg == BM_STATUS) {
            c->bm_status &= (uint8_t)~((v & STATUS_W1C) | STATUS_WRITABLE);
            c->bm_status |= v & STATUS_WRITABLE;
        } else if (reg >= BM_TABLE) {
            unsigned shift = 8 * (reg - BM_TABLE);
            c->bm_table = (c->bm_table & ~(0xffu << shift)) | (uint32_t)v << shift;
            c->bm_table &= ~3u;
        }
    }
}

const struct region_ops ide_bm_ops = {
    .read = bm_read,
    .write = bm_write,
    .sizes = ACCESS_1 | ACCESS_2 | ACCESS_4,
};
