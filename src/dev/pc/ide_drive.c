/* SPDX-License-Identifier: Apache-2.0
 *
 * What all drives have, on whichever controller: the course of a command, its requests to the
 * image, resets and state (ATA-7, INCITS 397).
 */
#include <errno.h>
#include <string.h>

#include "dev/pc/ide_int.h"

static bool present(const struct ide_drive *d) { return d->kind != IDE_NONE; }

/* -- Commands ---------------------------------------------------------------------------------- */
void ide_finish(struct ide_drive *d)
{
    d->phase = PHASE_IDLE;
    d->status = ST_READY;
    d->host->raise(d);
}

void ide_fail(struct ide_drive *d, uint8_t error)
{
    d->phase = PHASE_IDLE;
    d->status = ST_READY | ST_ERR;
    d->error = error;
    d->host->raise(d);
}

void ide_show_block(struct ide_drive *d, enum ide_phase phase, uint32_t block)
{
    uint32_t left = d->end - d->at;
    d->block_end = d->at + (block < left ? block : left);
    d->phase = (uint8_t)phase;
    d->status = ST_READY | ST_DRQ;
}

static void request_done(struct block_request *r)
{
    struct ide_drive *d = r->ctx;
    d->in_flight = false;
    if (!d->cancelled) {
        d->then(d, r->result);
        if (d->host->advanced != NULL) {
            d->host->advanced(d);
        }
    }
}

void ide_submit(struct ide_drive *d, enum block_op op, uint64_t offset, uint32_t bytes,
                void (*then)(struct ide_drive *d, int result))
{
    d->phase = PHASE_BUSY;
    d->status = ST_BSY;
    d->then = then;
    d->in_flight = true;
    d->cancelled = false;
    d->rq = (struct block_request){
        .op = op,
        .fua = op == BLOCK_OP_WRITE && !d->write_cache,
        .offset = offset,
        .len = bytes,
        .buf = d->data,
        .done = request_done,
        .ctx = d,
    };
    block_submit(d->queue, &d->rq);
}

void ide_drive_forget(struct ide_drive *d)
{
    if (d->in_flight) {
        d->cancelled = true;
        block_queue_drain(d->queue);
        d->in_flight = false;
    }
}

void ide_drive_drain(struct ide_drive *d)
{
    while (d->in_flight) {
        block_queue_drain(d->queue);
    }
}

/* What a reset leaves in the registers (ATA-7 volume 1, 5.18). */
void ide_signature(struct ide_drive *d)
{
    d->count[0] = d->low[0] = 1;
    d->mid[0] = d->kind == IDE_CD ? 0x14 : 0;
    d->high[0] = d->kind == IDE_CD ? 0xeb : 0;
    d->device &= DEVICE_SLAVE;
    d->error = 1; /* diagnostics passed */
    d->status = d->kind == IDE_CD ? 0 : ST_READY;
}

void ide_drive_reset(struct ide_drive *d)
{
    ide_drive_forget(d);
    d->phase = PHASE_IDLE;
    d->irq = false;
    d->feature = d->command = 0;
    d->count[1] = d->low[1] = d->mid[1] = d->high[1] = 0;
    d->multiple = IDE_MULTIPLE_MAX;
    d->at = d->block_end = d->end = 0;
    d->left = 0;
    ide_signature(d);
}

void ide_drive_power_on(struct ide_drive *d)
{
    d->device = 0;
    ide_drive_reset(d);
    d->heads = 16;
    d->spt = 63;
    d->transfer_mode = 0;
    d->write_cache = true;
    d->sense_key = d->sense_code = d->sense_qualifier = 0;
    d->locked = d->ejected = d->packet_dma = false;
    memset(d->queue_log, 0, sizeof d->queue_log);
    d->queue_log[0] = 0x80; /* none */
}

void ide_drive_command(struct ide_drive *d, uint8_t command)
{
    d->command = command;
    d->error = 0;
    d->status = ST_READY;
    if (d->kind == IDE_CD) {
        ide_atapi_command(d);
    } else {
        ide_ata_command(d);
    }
}

void ide_drive_block_done(struct ide_drive *d)
{
    if (d->kind == IDE_CD) {
        ide_atapi_block_done(d);
    } else {
        ide_ata_block_done(d);
    }
}

void ide_drive_dma(struct ide_drive *d)
{
    if (d->kind == IDE_CD) {
        ide_atapi_dma(d);
    } else {
        ide_ata_dma(d);
    }
}

/* -- Discs of a CD-ROM drive ------------------------------------------------------------------- */
static void count_sectors(struct ide_drive *d)
{
    unsigned sector = d->kind == IDE_CD ? IDE_CD_SECTOR : IDE_SECTOR;
    d->sectors = block_size(block_queue_block(d->queue)) / sector;
}

void ide_drive_change_disc(struct ide_drive *d, struct block_queue *queue)
{
    ide_drive_drain(d);
    d->queue = queue;
    count_sectors(d);
    d->lba = 0;
    d->left = 0;
    d->ejected = false;
    ide_atapi_disc_changed(d);
}

int ide_drive_open_tray(struct ide_drive *d, bool force)
{
    if (d->locked && !force) {
        return -EBUSY;
    }
    ide_drive_drain(d);
    d->left = 0;
    d->ejected = true;
    return 0;
}

/* -- State, set-up ----------------------------------------------------------------------------- */
const struct state_field ide_drive_state[] = {
    STATE(struct ide_drive, status),
    STATE(struct ide_drive, error),
    STATE(struct ide_drive, feature),
    STATE(struct ide_drive, device),
    STATE_ARRAY(struct ide_drive, count),
    STATE_ARRAY(struct ide_drive, low),
    STATE_ARRAY(struct ide_drive, mid),
    STATE_ARRAY(struct ide_drive, high),
    STATE(struct ide_drive, command),
    STATE(struct ide_drive, phase),
    STATE(struct ide_drive, multiple),
    STATE(struct ide_drive, heads),
    STATE(struct ide_drive, spt),
    STATE(struct ide_drive, transfer_mode),
    STATE(struct ide_drive, write_cache),
    STATE(struct ide_drive, irq),
    STATE(struct ide_drive, lba),
    STATE(struct ide_drive, left),
    STATE(struct ide_drive, at),
    STATE(struct ide_drive, block_end),
    STATE(struct ide_drive, end),
    STATE_ARRAY(struct ide_drive, packet),
    STATE(struct ide_drive, packet_dma),
    STATE(struct ide_drive, packet_limit),
    STATE(struct ide_drive, sense_key),
    STATE(struct ide_drive, sense_code),
    STATE(struct ide_drive, sense_qualifier),
    STATE(struct ide_drive, locked),
    STATE(struct ide_drive, ejected),
    STATE_BYTES(struct ide_drive, data),
    STATE_ARRAY(struct ide_drive, queue_log),
    STATE_END,
};

bool ide_drive_valid(const struct ide_drive *d)
{
    return d->phase < PHASES && d->phase != PHASE_BUSY && d->at <= d->block_end &&
           d->block_end <= d->end && d->end <= IDE_DATA_BYTES && d->heads >= 1 && d->heads <= 16 &&
           d->spt >= 1 && d->multiple <= IDE_MULTIPLE_MAX &&
           (present(d) || d->phase == PHASE_IDLE) && d->lba <= d->sectors &&
           d->left <= d->sectors - d->lba;
}

void ide_drive_init(struct ide_drive *d, const struct ide_drive_config *cfg,
                    const struct ide_drive_host *host, void *controller, unsigned number)
{
    d->host = host;
    d->controller = controller;
    d->number = number;
    d->kind = cfg->kind;
    d->queue = cfg->queue;
    d->readonly = cfg->readonly;
    if (cfg->serial != NULL) {
        size_t n = strnlen(cfg->serial, sizeof d->serial - 1);
        memcpy(d->serial, cfg->serial, n);
    }
    if (d->queue != NULL) {
        count_sectors(d);
    }
}
