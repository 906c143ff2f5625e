/* SPDX-License-Identifier: Apache-2.0
 *
 * Native command queuing: READ and WRITE FPDMA QUEUED (ATA8-ACS2 7.32 and 7.66; AHCI 1.3.1, 5.6.4).
 * Up to 32 are with the image at once, each with a buffer of ours.
 */
#include <stdlib.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "dev/pc/ahci_int.h"
#include "dev/pc/ide_int.h"

enum queued_command { CMD_READ_FPDMA = 0x60, CMD_WRITE_FPDMA = 0x61 };
#define BYTES_MAX MIB(32) /* in buffers of a port; a single one may always go */
#define DEVICE_FUA 0x80u

struct queued {
    struct block_request io; /* first */
    struct ahci_port *port;
    struct ahci_prd prd;
    uint8_t tag;
};

bool ahci_is_queued(const struct ahci_port *p, uint8_t command)
{
    return p->drive.kind == IDE_DISK && (command == CMD_READ_FPDMA || command == CMD_WRITE_FPDMA);
}

static void post_bits(struct ahci_port *p, uint8_t status, uint8_t error, uint32_t done)
{
    uint8_t fis[8] = { FIS_SET_BITS, FIS_INTERRUPT, status & 0x77, error };
    store_le32(fis + 4, done);
    p->tfd = status | (uint32_t)error << 8;
    p->sact &= ~done;
    ahci_port_post(p, PLACE_SET_BITS, fis, sizeof fis);
    p->is |= IS_SDBS;
}

/* The drive gives up all that is queued, and keeps for READ LOG EXT which command it was. */
static void fail(struct ahci_port *p, unsigned tag, uint8_t error, uint64_t lba)
{
    uint8_t *log = p->drive.queue_log;
    log[0] = (uint8_t)tag;
    log[2] = ST_READY | ST_ERR;
    log[3] = error;
    for (unsigned i = 0; i < 3; i++) {
        log[4 + i] = (uint8_t)(lba >> 8 * i);
        log[8 + i] = (uint8_t)(lba >> (24 + 8 * i));
    }
    post_bits(p, ST_READY | ST_ERR, error, 0);
    ahci_port_halt(p, IS_TFES);
}

static void finish(struct ahci_port *p, struct queued *q)
{
    uint64_t lba = q->io.offset / IDE_SECTOR;
    if (q->io.result < 0) {
        fail(p, q->tag, ide_error_of(q->io.result), lba);
        return;
    }
    if (q->io.op == BLOCK_OP_READ) {
        int64_t n = ahci_prd_copy(p, &q->prd, q->io.buf, (uint32_t)q->io.len, IDE_TO_MEMORY);
        if (n < 0) {
            ahci_port_halt(p, IS_HBFS);
            return;
        }
        if ((uint64_t)n < q->io.len) {
            p->is |= IS_OFS;
            fail(p, q->tag, ER_ABRT, lba);
            return;
        }
    }
    post_bits(p, ST_READY, 0, 1u << q->tag);
}

static void done(struct block_request *io)
{
    struct queued *q = container_of(io, struct queued, io);
    struct ahci_port *p = q->port;
    p->queued--;
    p->bytes -= io->len;
    if (!p->forgetting && !p->halted) {
        finish(p, q);
        ahci_port_run(p);
        ahci_update(p->hba);
    }
    free(io->buf);
    free(q);
}

/* False: no memory, or the guest's is too short, or not there. */
static bool submit(struct ahci_port *p, struct queued *q, const struct ahci_command *c)
{
    ahci_prd_start(&q->prd, c);
    if (q->io.op == BLOCK_OP_WRITE) {
        int64_t n = ahci_prd_copy(p, &q->prd, q->io.buf, (uint32_t)q->io.len, IDE_FROM_MEMORY);
        if (n < 0 || (uint64_t)n < q->io.len) {
            p->is |= n < 0 ? IS_HBFS : IS_OFS;
            return false;
        }
    }
    p->queued++;
    p->bytes += q->io.len;
    block_submit(p->drive.queue, &q->io);
    return true;
}

bool ahci_queue(struct ahci_port *p, unsigned slot, const struct ahci_command *c)
{
    struct ide_drive *d = &p->drive;
    const uint8_t *fis = c->fis;
    bool write = fis[2] == CMD_WRITE_FPDMA;
    uint64_t lba = load_le32(fis + 4) & 0xffffff;
    lba |= (uint64_t)(load_le32(fis + 8) & 0xffffff) << 24;
    uint32_t sectors = fis[3] | (uint32_t)fis[11] << 8;
    sectors = sectors != 0 ? sectors : 0x10000;
    uint64_t bytes = (uint64_t)sectors * IDE_SECTOR;
    if (p->bytes != 0 && p->bytes + bytes > BYTES_MAX) {
        return false;
    }
    p->slot = (uint8_t)slot;
    if (lba >= d->sectors || sectors > d->sectors - lba) {
        fail(p, slot, ER_IDNF | ER_ABRT, lba);
        return true;
    }
    bool allowed = fis[12] >> 3 == slot && (p->sact >> slot & 1) && !(write && d->readonly);
    struct queued *q = allowed ? malloc(sizeof *q) : NULL;
    void *buf = q != NULL ? malloc(bytes) : NULL;
    if (buf != NULL) {
        *q = (struct queued){
            .io = { .op = write ? BLOCK_OP_WRITE : BLOCK_OP_READ,
                    .fua = write && ((fis[7] & DEVICE_FUA) || !d->write_cache),
                    .offset = lba * IDE_SECTOR,
                    .len = bytes,
                    .buf = buf,
                    .done = done },
            .port = p,
            .tag = (uint8_t)slot,
        };
    }
    if (buf == NULL || !submit(p, q, c)) {
        free(buf);
        free(q);
        fail(p, slot, ER_ABRT, lba);
        return true;
    }
    p->ci &= ~(1u << slot); /* released: the drive is ready for the next */
    d->status = ST_READY;
    d->error = 0;
    ahci_port_post_d2h(p, false);
    return true;
}
