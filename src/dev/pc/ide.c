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

static void raise_irq(struct ide_drive *d)
{
    struct ide_channel *c = d->controller;
    d->irq = true;
    if (d == selected(c) && !(c->control & CONTROL_NIEN)) {
        c->bm_status |= BM_INTERRUPT;
    }
    update_irq(c);
}

static void run_command(struct ide_channel *c, uint8_t command)
{
    struct ide_drive *d = selected(c);
    c->control &= (uint8_t)~CONTROL_HOB;
    if (command == CMD_DIAGNOSTICS && !empty(c)) {
        for (unsigned n = 0; n < IDE_DRIVES; n++) {
            ide_drive_reset(&c->drive[n]);
        }
        c->selected = 0;
        raise_irq(&c->drive[0]);
        return;
    }
    if (!present(d)) {
        return;
    }
    if (command == CMD_DEVICE_RESET && d->kind == IDE_CD) {
        ide_drive_reset(d);
        return;
    }
    if (d->status & (ST_BSY | ST_DRQ)) {
        log_guest("ide", "command %#x while %#x is in progress", command, d->command);
        return;
    }
    d->irq = false;
    update_irq(c);
    ide_drive_command(d, command);
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
        ide_drive_block_done(d);
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
        ide_drive_block_done(d);
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
        ide_drive_reset(&c->drive[n]);
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

static const struct state_field channel_state[] = {
    STATE_STRUCTS(struct ide_channel, drive, ide_drive_state),
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
            ide_drive_power_on(&c->drive[m]);
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
        ide_drive_drain(&i->channel[n / IDE_DRIVES].drive[n % IDE_DRIVES]);
    }
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
            ide_drive_forget(&c->drive[m]); /* requests of the life before */
        }
        if (c->selected >= IDE_DRIVES || !ide_drive_valid(&c->drive[0]) ||
            !ide_drive_valid(&c->drive[1])) {
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

static const struct ide_drive_host host = {
    .raise = raise_irq,
    .dma_ready = ide_dma_ready,
    .dma = ide_dma,
    .dma_done = ide_dma_done,
};

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
            ide_drive_init(&c->drive[m], &drives[n][m], &host, c, m);
        }
    }
    ide_reset(i);
}

void ide_fini(struct ide *i)
{
    for (unsigned n = 0; n < IDE_CHANNELS * IDE_DRIVES; n++) {
        ide_drive_forget(&i->channel[n / IDE_DRIVES].drive[n % IDE_DRIVES]);
    }
    pci_func_fini(&i->pci);
    dev_unregister(&i->pci.dev);
}
