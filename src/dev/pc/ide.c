/* SPDX-License-Identifier: Apache-2.0
 *
 * The PIIX3's IDE function and the registers of its drives (ATA-7 volume 2, parallel transport).
 * DEVIATION: both channels decode their ports after a reset; OVMF never switches them on.
 * UNIMPL: timing; both drives answer at once, and transfers take what the image takes.
 */
#include "dev/pc/ide.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/log.h"
#include "dev/pc/ide_int.h"

enum ide_config { REG_IDETIM = 0x40, REG_SIDETIM = 0x44 };
#define IDETIM_DECODE 0x8000u
#define BM_BAR 4u
#define BM_PORTS 16u

enum ide_reg { REG_DATA, REG_ERROR, REG_COUNT, REG_LOW, REG_MID, REG_HIGH, REG_DEVICE, REG_STATUS };
enum ide_control { CONTROL_NIEN = 0x02, CONTROL_SRST = 0x04, CONTROL_HOB = 0x80 };
enum ide_any_command { CMD_DEVICE_RESET = 0x08, CMD_DIAGNOSTICS = 0x90 };

static struct ide_drive *selected(struct ide_channel *c) { return &c->drive[c->selected]; }

static bool present(const struct ide_drive *d) { return d->kind != IDE_NONE; }

static bool empty(const struct ide_channel *c)
{
    return !present(&c->drive[0]) && !present(&c->drive[1]);
}

/* -- Interrupts -------------------------------------------------------------------------------- */
static void update_irq(struct ide_channel *c)
{
    irq_set(&c->irq_line, selected(c)->irq && !(c->control & CONTROL_NIEN));
}

void ide_raise(struct ide_drive *d)
{
    struct ide_channel *c = d->channel;
    d->irq = true;
    if (d == selected(c) && !(c->control & CONTROL_NIEN)) {
        c->bm_status |= BM_INTERRUPT;
    }
    update_irq(c);
}

/* -- Commands ---------------------------------------------------------------------------------- */
void ide_finish(struct ide_drive *d)
{
    d->phase = PHASE_IDLE;
    d->status = ST_READY;
    ide_raise(d);
}

void ide_fail(struct ide_drive *d, uint8_t error)
{
    d->phase = PHASE_IDLE;
    d->status = ST_READY | ST_ERR;
    d->error = error;
    ide_raise(d);
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

/* Wait for what is under way, and forget it. */
static void cancel(struct ide_drive *d)
{
    if (d->in_flight) {
        d->cancelled = true;
        block_queue_drain(d->queue);
        d->in_flight = false;
    }
    d->phase = PHASE_IDLE;
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

static void reset_drive(struct ide_drive *d)
{
    cancel(d);
    d->irq = false;
    d->feature = d->command = 0;
    d->count[1] = d->low[1] = d->mid[1] = d->high[1] = 0;
    d->multiple = IDE_MULTIPLE_MAX;
    d->at = d->block_end = d->end = 0;
    d->left = 0;
    ide_signature(d);
}

static void run_command(struct ide_channel *c, uint8_t command)
{
    struct ide_drive *d = selected(c);
    c->control &= (uint8_t)~CONTROL_HOB;
    if (command == CMD_DIAGNOSTICS && !empty(c)) {
        for (unsigned n = 0; n < IDE_DRIVES; n++) {
            reset_drive(&c->drive[n]);
        }
        c->selected = 0;
        ide_raise(&c->drive[0]);
        return;
    }
    if (!present(d)) {
        return;
    }
    if (command == CMD_DEVICE_RESET && d->kind == IDE_CD) {
        reset_drive(d);
        return;
    }
    if (d->status & (ST_BSY | ST_DRQ)) {
        log_guest("ide", "command %#x while %#x is in progress", command, d->command);
        return;
    }
    d->command = command;
    d->irq = false;
    update_irq(c);
    d->error = 0;
    d->status = ST_READY;
    if (d->kind == IDE_CD) {
        ide_atapi_command(d);
    } else {
        ide_ata_command(d);
    }
}

/* -- Task file --------------------------------------------------------------------------------- */
static void put(uint8_t reg[2], uint8_t value)
{
    reg[1] = reg[0];
    reg[0] = value;
}

/* Both drives hear what is written (ATA-7 volume 2, 9.1). */
static void write_reg(struct ide_channel *c, unsigned reg, uint8_t v)
{
    if (reg == REG_STATUS) {
        run_command(c, v);
        return;
    }
    for (unsigned n = 0; n < IDE_DRIVES; n++) {
        struct ide_drive *d = &c->drive[n];
        switch (reg) {
        case REG_ERROR:
            d->feature = v;
            break;
        case REG_COUNT:
            put(d->count, v);
            break;
        case REG_LOW:
            put(d->low, v);
            break;
        case REG_MID:
            put(d->mid, v);
            break;
        case REG_HIGH:
            put(d->high, v);
            break;
        default:
            d->device = v;
            break;
        }
    }
    c->control &= (uint8_t)~CONTROL_HOB;
    if (reg == REG_DEVICE) {
        c->selected = (v & DEVICE_SLAVE) != 0;
        update_irq(c);
    }
}

static uint8_t read_reg(struct ide_channel *c, unsigned reg)
{
    struct ide_drive *d = selected(c);
    unsigned old = (c->control & CONTROL_HOB) != 0;
    /* The other drive answers for one that is missing. On an empty cable BSY is pulled down, and
     * nobody waits for it. */
    if (!present(d) && (reg != REG_DEVICE || empty(c))) {
        return 0;
    }
    switch (reg) {
    case REG_ERROR:
        return d->error;
    case REG_COUNT:
        return d->count[old];
    case REG_LOW:
        return d->low[old];
    case REG_MID:
        return d->mid[old];
    case REG_HIGH:
        return d->high[old];
    case REG_DEVICE:
        return d->device | 0xa0;
    default:
        d->irq = false;
        update_irq(c);
        return d->status;
    }
}

/* -- Data register ----------------------------------------------------------------------------- */
static void block_done(struct ide_drive *d)
{
    if (d->kind == IDE_CD) {
        ide_atapi_block_done(d);
    } else {
        ide_ata_block_done(d);
    }
}

static uint64_t read_data(struct ide_drive *d, unsigned size)
{
    uint64_t v = 0;
    if (d->phase != PHASE_IN) {
        return MASK64(8 * size);
    }
    for (unsigned i = 0; i < size && d->at < d->block_end; i++) {
        v |= (uint64_t)d->data[d->at++] << 8 * i;
    }
    if (d->at == d->block_end) {
        block_done(d);
    }
    return v;
}

static void write_data(struct ide_drive *d, unsigned size, uint64_t v)
{
    if (d->phase != PHASE_OUT && d->phase != PHASE_PACKET) {
        return;
    }
    for (unsigned i = 0; i < size && d->at < d->block_end; i++) {
        d->data[d->at++] = (uint8_t)(v >> 8 * i);
    }
    if (d->at == d->block_end) {
        block_done(d);
    }
}

static uint64_t command_read(void *dev, uint64_t offset, unsigned size)
{
    struct ide_channel *c = dev;
    if (offset == REG_DATA && !empty(c)) {
        return read_data(selected(c), size);
    }
    uint64_t v = 0;
    for (unsigned i = 0; i < size; i++) {
        v |= (uint64_t)read_reg(c, (unsigned)(offset + i) & 7) << 8 * i;
    }
    return v;
}

static void command_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct ide_channel *c = dev;
    if (offset == REG_DATA) {
        write_data(selected(c), size, value);
        return;
    }
    for (unsigned i = 0; i < size; i++) {
        write_reg(c, (unsigned)(offset + i) & 7, (uint8_t)(value >> 8 * i));
    }
}

static uint64_t control_read(void *dev, uint64_t offset, unsigned size)
{
    struct ide_channel *c = dev;
    (void)offset;
    (void)size;
    return present(selected(c)) ? selected(c)->status : 0;
}

static void control_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct ide_channel *c = dev;
    (void)offset;
    (void)size;
    uint8_t risen = (uint8_t)value & ~c->control;
    uint8_t fallen = c->control & ~(uint8_t)value;
    c->control = (uint8_t)value & (CONTROL_NIEN | CONTROL_SRST | CONTROL_HOB);
    for (unsigned n = 0; n < IDE_DRIVES && ((risen | fallen) & CONTROL_SRST); n++) {
        reset_drive(&c->drive[n]);
        if (risen & CONTROL_SRST) {
            c->drive[n].status = ST_BSY;
        }
    }
    if (risen & CONTROL_SRST) {
        c->selected = 0;
    }
    update_irq(c);
}

static const struct region_ops command_ops = {
    .read = command_read,
    .write = command_write,
    .sizes = ACCESS_1 | ACCESS_2 | ACCESS_4,
};
static const struct region_ops control_ops = {
    .read = control_read,
    .write = control_write,
    .sizes = ACCESS_1,
};

/* -- The PCI function -------------------------------------------------------------------------- */
static void update_decode(struct ide *i)
{
    bool io = load_le16(i->pci.config + PCI_COMMAND) & PCI_COMMAND_IO;
    for (unsigned n = 0; n < IDE_CHANNELS; n++) {
        bool on = io && (load_le16(i->pci.config + REG_IDETIM + 2 * n) & IDETIM_DECODE);
        region_enable(i->channel[n].command_ports, on);
        region_enable(i->channel[n].control_ports, on);
    }
}

static void config_written(struct pci_func *f, unsigned offset, unsigned size)
{
    (void)offset;
    (void)size;
    update_decode(container_of(f, struct ide, pci));
}

void ide_firmware_setup(struct ide *i)
{
    i->pci.config[PCI_COMMAND] |= PCI_COMMAND_IO;
    update_decode(i);
}

static const struct state_field drive_state[] = {
    STATE(struct ide_drive, status),          STATE(struct ide_drive, error),
    STATE(struct ide_drive, feature),         STATE(struct ide_drive, device),
    STATE_ARRAY(struct ide_drive, count),     STATE_ARRAY(struct ide_drive, low),
    STATE_ARRAY(struct ide_drive, mid),       STATE_ARRAY(struct ide_drive, high),
    STATE(struct ide_drive, command),         STATE(struct ide_drive, phase),
    STATE(struct ide_drive, multiple),        STATE(struct ide_drive, heads),
    STATE(struct ide_drive, spt),             STATE(struct ide_drive, transfer_mode),
    STATE(struct ide_drive, write_cache),     STATE(struct ide_drive, irq),
    STATE(struct ide_drive, lba),             STATE(struct ide_drive, left),
    STATE(struct ide_drive, at),              STATE(struct ide_drive, block_end),
    STATE(struct ide_drive, end),             STATE_ARRAY(struct ide_drive, packet),
    STATE(struct ide_drive, packet_dma),      STATE(struct ide_drive, packet_limit),
    STATE(struct ide_drive, sense_key),       STATE(struct ide_drive, sense_code),
    STATE(struct ide_drive, sense_qualifier), STATE(struct ide_drive, locked),
    STATE(struct ide_drive, ejected),         STATE_BYTES(struct ide_drive, data),
    STATE_END,
};

static const struct state_field channel_state[] = {
    STATE_STRUCTS(struct ide_channel, drive, drive_state),
    STATE(struct ide_channel, selected),
    STATE(struct ide_channel, control),
    STATE(struct ide_channel, bm_command),
    STATE(struct ide_channel, bm_status),
    STATE(struct ide_channel, bm_table),
    STATE(struct ide_channel, prd_at),
    STATE(struct ide_channel, prd_addr),
    STATE(struct ide_channel, prd_left),
    STATE(struct ide_channel, prd_last),
    STATE_END,
};

static const struct state_field ide_state[] = {
    STATE_STRUCT(struct ide, pci, pci_func_state),
    STATE_STRUCTS(struct ide, channel, channel_state),
    STATE_END,
};

static void ide_reset(void *dev)
{
    struct ide *i = dev;
    pci_func_reset(&i->pci);
    store_le16(i->pci.config + PCI_STATUS, 0x0280);
    store_le16(i->pci.config + REG_IDETIM, IDETIM_DECODE);
    store_le16(i->pci.config + REG_IDETIM + 2, IDETIM_DECODE);
    for (unsigned n = 0; n < IDE_CHANNELS; n++) {
        struct ide_channel *c = &i->channel[n];
        c->selected = c->control = c->bm_command = 0;
        c->bm_status = 0;
        c->bm_table = c->prd_at = c->prd_addr = c->prd_left = 0;
        c->prd_last = false;
        for (unsigned m = 0; m < IDE_DRIVES; m++) {
            struct ide_drive *d = &c->drive[m];
            d->device = 0;
            reset_drive(d);
            d->heads = 16;
            d->spt = 63;
            d->transfer_mode = 0;
            d->write_cache = true;
            d->sense_key = d->sense_code = d->sense_qualifier = 0;
            d->locked = d->ejected = d->packet_dma = false;
        }
        update_irq(c);
    }
    update_decode(i);
}

/* Requests under way are finished, with all that follows from them, before a save. */
static void ide_quiesce(void *dev)
{
    struct ide *i = dev;
    for (unsigned n = 0; n < IDE_CHANNELS * IDE_DRIVES; n++) {
        struct ide_drive *d = &i->channel[n / IDE_DRIVES].drive[n % IDE_DRIVES];
        while (d->in_flight) {
            block_queue_drain(d->queue);
        }
    }
}

static bool drive_valid(const struct ide_drive *d)
{
    return d->phase < PHASES && d->phase != PHASE_BUSY && d->at <= d->block_end &&
           d->block_end <= d->end && d->end <= IDE_DATA_BYTES && d->heads >= 1 &&
           d->heads <= 16 && d->spt >= 1 && d->multiple <= IDE_MULTIPLE_MAX &&
           (present(d) || d->phase == PHASE_IDLE) && d->lba <= d->sectors &&
           d->left <= d->sectors - d->lba;
}

static int ide_post_load(void *dev, struct err *e)
{
    struct ide *i = dev;
    int r = pci_post_load(&i->pci, e);
    if (r < 0) {
        return r;
    }
    for (unsigned n = 0; n < IDE_CHANNELS; n++) {
        struct ide_channel *c = &i->channel[n];
        for (unsigned m = 0; m < IDE_DRIVES; m++) {
            struct ide_drive *d = &c->drive[m];
            if (d->in_flight) { /* of the life before */
                d->cancelled = true;
                block_queue_drain(d->queue);
                d->in_flight = false;
            }
        }
        if (c->selected >= IDE_DRIVES || !drive_valid(&c->drive[0]) || !drive_valid(&c->drive[1])) {
            return err_set(e, -EINVAL, "impossible state");
        }
        update_irq(c);
    }
    update_decode(i);
    return 0;
}

static const struct dev_class ide_class = {
    .name = "ide",
    .version = 1,
    .state = ide_state,
    .size = sizeof(struct ide),
    .reset = ide_reset,
    .post_load = ide_post_load,
    .quiesce = ide_quiesce,
};

static void init_drive(struct ide_drive *d, const struct ide_drive_config *cfg)
{
    d->kind = cfg->kind;
    d->queue = cfg->queue;
    d->readonly = cfg->readonly;
    if (cfg->serial != NULL) {
        size_t n = strnlen(cfg->serial, sizeof d->serial - 1);
        memcpy(d->serial, cfg->serial, n);
    }
    if (d->queue != NULL) {
        unsigned sector = d->kind == IDE_CD ? IDE_CD_SECTOR : IDE_SECTOR;
        d->sectors = block_size(block_queue_block(d->queue)) / sector;
    }
}

void ide_init(struct ide *i, struct bus *b, struct pci_bus *pci, const struct irq irq[IDE_CHANNELS],
              const struct ide_drive_config drives[IDE_CHANNELS][IDE_DRIVES])
{
    static const uint16_t command_base[] = { 0x1f0, 0x170 }, control_base[] = { 0x3f6, 0x376 };
    memset(i, 0, sizeof *i);
    i->mem = bus_mem(b);
    pci_func_init(&i->pci, pci, PCI_DEVFN(1, 1), 0x8086, 0x7010, 0x010180, 0);
    store_le16(i->pci.writable + PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MASTER);
    i->pci.writable[PCI_INTERRUPT_LINE] = 0;
    store_le32(i->pci.writable + REG_IDETIM, 0xffffffff);
    i->pci.writable[REG_SIDETIM] = 0xff;
    i->pci.config_written = config_written;
    dev_register(b, &i->pci.dev, &ide_class, "ide");
    pci_add_bar(&i->pci, BM_BAR, PCI_BAR_IO, BM_PORTS, &ide_bm_ops, i);
    for (unsigned n = 0; n < IDE_CHANNELS; n++) {
        struct ide_channel *c = &i->channel[n];
        c->ide = i;
        c->number = n;
        c->irq_line = irq[n];
        c->command_ports = bus_add_port(b, command_base[n], 8, &command_ops, c);
        c->control_ports = bus_add_port(b, control_base[n], 1, &control_ops, c);
        for (unsigned m = 0; m < IDE_DRIVES; m++) {
            c->drive[m].channel = c;
            c->drive[m].number = m;
            init_drive(&c->drive[m], &drives[n][m]);
        }
    }
    ide_reset(i);
}

void ide_fini(struct ide *i)
{
    for (unsigned n = 0; n < IDE_CHANNELS * IDE_DRIVES; n++) {
        cancel(&i->channel[n / IDE_DRIVES].drive[n % IDE_DRIVES]);
    }
    pci_func_fini(&i->pci);
    dev_unregister(&i->pci.dev);
}
