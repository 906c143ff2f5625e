/* SPDX-License-Identifier: Apache-2.0
 *
 * Intel 8237A (data sheet 231466) twice, as the PIIX3 has them (290550, 2.5.1), with the page
 * registers of the PC AT. Devices come to the controller: nothing moves but in dma_transfer, so
 * demand, single and block mode differ in nothing but who may ask by software.
 *
 * DEVIATION: a reset leaves channel 4 as firmware does, in cascade mode and unmasked.
 * UNIMPL: memory to memory (absent from the PIIX3), the sense of DREQ and DACK, priorities (each
 * device moves what it wants at once), aliases of the registers.
 */
#include "dev/pc/i8237.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/log.h"

enum dma_reg {
    REG_COMMAND = 8, /* read: status */
    REG_REQUEST = 9,
    REG_MASK = 10,
    REG_MODE = 11,
    REG_CLEAR_POINTER = 12,
    REG_MASTER_CLEAR = 13, /* read: temporary register */
    REG_CLEAR_MASK = 14,
    REG_ALL_MASK = 15,
};

#define COMMAND_MEMORY_TO_MEMORY 0x01u
#define COMMAND_DISABLE 0x04u
#define MODE_TRANSFER 0x0cu
#define MODE_WRITE 0x04u /* to memory */
#define MODE_READ 0x08u
#define MODE_AUTO_INIT 0x10u
#define MODE_DECREMENT 0x20u
#define MODE_KIND 0xc0u
#define MODE_BLOCK 0x80u
#define MODE_CASCADE 0xc0u
#define ALL_MASKED 0x0fu
#define CASCADE_CHIP 1u
#define CASCADE_CHANNEL 0u

/* -- Cycles ------------------------------------------------------------------------------------ */
static bool listens(const struct dma_chip *c, unsigned n)
{
    return !(c->command & COMMAND_DISABLE) && !(c->mask & BIT(n));
}

/* Requests of the first chip go through channel 4 of the second. */
static bool cascaded(const struct dma *d, unsigned chip)
{
    const struct dma_chip *second = &d->chip[CASCADE_CHIP];
    return chip == CASCADE_CHIP ||
           (listens(second, CASCADE_CHANNEL) &&
            (second->channel[CASCADE_CHANNEL].mode & MODE_KIND) == MODE_CASCADE);
}

static bool granted(const struct dma *d, unsigned chip, unsigned n)
{
    const struct dma_chip *c = &d->chip[chip];
    return (c->dreq & BIT(n)) && listens(c, n) && cascaded(d, chip) &&
           (c->channel[n].mode & MODE_KIND) != MODE_CASCADE;
}

/* Where the page register of a channel is, from port 0x80 up. */
static uint8_t page_of(const struct dma *d, unsigned chip, unsigned n)
{
    static const uint8_t at[DMA_CHIPS][DMA_CHIP_CHANNELS] = {
        { 0x7, 0x3, 0x1, 0x2 },
        { 0xf, 0xb, 0x9, 0xa },
    };
    return d->page[at[chip][n]];
}

/* Words have their address without its lowest bit, which the page gives up for it. */
static gpa_t address_of(const struct dma *d, unsigned chip, unsigned n)
{
    uint16_t address = d->chip[chip].channel[n].address;
    gpa_t page = page_of(d, chip, n);
    return chip == 0 ? page << 16 | address : (page & 0xfe) << 16 | (gpa_t)address << 1;
}

/* One cycle over; true: it was the last. */
static bool count_down(struct dma_chip *c, unsigned n)
{
    struct dma_channel *ch = &c->channel[n];
    ch->address = (uint16_t)(ch->mode & MODE_DECREMENT ? ch->address - 1 : ch->address + 1);
    ch->count--;
    if (ch->count != 0xffff) {
        return false;
    }
    c->done |= (uint8_t)BIT(n);
    c->software &= (uint8_t)~BIT(n);
    if (ch->mode & MODE_AUTO_INIT) {
        ch->address = ch->base_address;
        ch->count = ch->base_count;
    } else {
        c->mask |= (uint8_t)BIT(n);
    }
    return true;
}

static void move(struct dma *d, unsigned chip, unsigned n, enum dma_cycle cycle, uint8_t *data)
{
    unsigned size = chip + 1;
    unsigned programmed = d->chip[chip].channel[n].mode & MODE_TRANSFER;
    gpa_t at = address_of(d, chip, n);
    if (cycle == DMA_TO_MEMORY && programmed == MODE_WRITE) {
        int r = gmem_write(d->mem, at, data, size); /* where there is no RAM, data vanishes */
        (void)r;
    } else if (cycle == DMA_FROM_MEMORY &&
               (programmed != MODE_READ || gmem_read(d->mem, at, data, size) < 0)) {
        memset(data, 0xff, size);
    }
}

uint32_t dma_transfer(struct dma *d, unsigned channel, enum dma_cycle cycle, uint8_t *data,
                      uint32_t len, bool *ended)
{
    unsigned chip = channel / DMA_CHIP_CHANNELS, n = channel % DMA_CHIP_CHANNELS;
    uint32_t moved = 0;
    *ended = false;
    if (!granted(d, chip, n)) {
        return 0;
    }
    while (moved < len && !*ended) {
        move(d, chip, n, cycle, data + moved);
        moved += chip + 1;
        *ended = count_down(&d->chip[chip], n);
    }
    return moved;
}

void dma_set_request(struct dma *d, unsigned channel, bool on)
{
    struct dma_chip *c = &d->chip[channel / DMA_CHIP_CHANNELS];
    uint8_t bit = (uint8_t)BIT(channel % DMA_CHIP_CHANNELS);
    c->dreq = (uint8_t)(on ? c->dreq | bit : c->dreq & ~bit);
}

/* A channel in block mode that software asked for runs to its end, masked or not. Nobody answers
 * its cycles, so all that is seen of them is the count. */
static void run_software_request(struct dma *d, unsigned chip, unsigned n)
{
    struct dma_chip *c = &d->chip[chip];
    if ((c->software & BIT(n)) && !(c->command & COMMAND_DISABLE) && cascaded(d, chip) &&
        (c->channel[n].mode & MODE_KIND) == MODE_BLOCK) {
        while (!count_down(c, n)) {
        }
    }
}

/* -- Registers --------------------------------------------------------------------------------- */
static void master_clear(struct dma_chip *c)
{
    c->command = c->done = c->software = 0;
    c->high_byte = false;
    c->mask = ALL_MASKED;
}

static void write_byte(uint16_t *reg, bool high, uint8_t v)
{
    *reg = (uint16_t)(high ? (*reg & 0xff) | v << 8 : (*reg & 0xff00) | v);
}

static void write_channel(struct dma_chip *c, unsigned reg, uint8_t v)
{
    struct dma_channel *ch = &c->channel[reg / 2];
    bool is_count = reg & 1;
    write_byte(is_count ? &ch->base_count : &ch->base_address, c->high_byte, v);
    write_byte(is_count ? &ch->count : &ch->address, c->high_byte, v);
    c->high_byte = !c->high_byte;
}

static uint8_t read_channel(struct dma_chip *c, unsigned reg)
{
    const struct dma_channel *ch = &c->channel[reg / 2];
    uint16_t v = reg & 1 ? ch->count : ch->address;
    bool high = c->high_byte;
    c->high_byte = !high;
    return (uint8_t)(high ? v >> 8 : v);
}

static void write_control(struct dma *d, unsigned chip, unsigned reg, uint8_t v)
{
    struct dma_chip *c = &d->chip[chip];
    unsigned n = v & 3;
    bool set = v & 4;
    switch (reg) {
    case REG_COMMAND:
        c->command = v;
        if (v & COMMAND_MEMORY_TO_MEMORY) {
            log_guest("dma", "memory to memory is not there");
        }
        break;
    case REG_REQUEST:
        c->software = (uint8_t)(set ? c->software | BIT(n) : c->software & ~BIT(n));
        run_software_request(d, chip, n);
        break;
    case REG_MASK:
        c->mask = (uint8_t)(set ? c->mask | BIT(n) : c->mask & ~BIT(n));
        break;
    case REG_MODE:
        c->channel[n].mode = v & 0xfc;
        break;
    case REG_CLEAR_POINTER:
        c->high_byte = false;
        break;
    case REG_MASTER_CLEAR:
        master_clear(c);
        break;
    case REG_CLEAR_MASK:
        c->mask = 0;
        break;
    default:
        c->mask = v & ALL_MASKED;
        break;
    }
}

static uint8_t read_control(struct dma_chip *c, unsigned reg)
{
    uint8_t v;
    switch (reg) {
    case REG_COMMAND:
        v = (uint8_t)((c->dreq | c->software) << 4 | c->done);
        c->done = 0;
        return v;
    case REG_MASTER_CLEAR:
        return 0; /* nothing went from memory to memory */
    case REG_ALL_MASK:
        return c->mask;
    default:
        return 0xff;
    }
}

/* The second chip's registers are two ports apart. */
static uint64_t dma_read(void *dev, uint64_t offset, unsigned size)
{
    const struct dma_port *p = dev;
    struct dma_chip *c = &p->dma->chip[p->chip];
    unsigned reg = (unsigned)offset >> p->chip;
    (void)size;
    return reg < REG_COMMAND ? read_channel(c, reg) : read_control(c, reg);
}

static void dma_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    const struct dma_port *p = dev;
    unsigned reg = (unsigned)offset >> p->chip;
    (void)size;
    if (reg < REG_COMMAND) {
        write_channel(&p->dma->chip[p->chip], reg, (uint8_t)value);
    } else {
        write_control(p->dma, p->chip, reg, (uint8_t)value);
    }
}

/* Those that belong to no channel are storage. */
static uint64_t page_read(void *dev, uint64_t offset, unsigned size)
{
    const struct dma *d = dev;
    (void)size;
    return d->page[offset];
}

static void page_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct dma *d = dev;
    (void)size;
    d->page[offset] = (uint8_t)value;
}

static const struct region_ops dma_ops = {
    .read = dma_read,
    .write = dma_write,
    .sizes = ACCESS_1,
};
static const struct region_ops page_ops = {
    .read = page_read,
    .write = page_write,
    .sizes = ACCESS_1,
};

/* -- State ------------------------------------------------------------------------------------- */
static const struct state_field channel_state[] = {
    STATE(struct dma_channel, base_address),
    STATE(struct dma_channel, base_count),
    STATE(struct dma_channel, address),
    STATE(struct dma_channel, count),
    STATE(struct dma_channel, mode),
    STATE_END,
};

static const struct state_field chip_state[] = {
    STATE_STRUCTS(struct dma_chip, channel, channel_state),
    STATE(struct dma_chip, command),
    STATE(struct dma_chip, mask),
    STATE(struct dma_chip, done),
    STATE(struct dma_chip, dreq),
    STATE(struct dma_chip, software),
    STATE(struct dma_chip, high_byte),
    STATE_END,
};

static const struct state_field dma_state[] = {
    STATE_STRUCTS(struct dma, chip, chip_state),
    STATE_BYTES(struct dma, page),
    STATE_END,
};

static void dma_reset(void *dev)
{
    struct dma *d = dev;
    memset(d->chip, 0, sizeof d->chip);
    memset(d->page, 0, sizeof d->page);
    for (unsigned i = 0; i < DMA_CHIPS; i++) {
        master_clear(&d->chip[i]);
    }
    d->chip[CASCADE_CHIP].channel[CASCADE_CHANNEL].mode = MODE_CASCADE;
    d->chip[CASCADE_CHIP].mask &= (uint8_t)~BIT(CASCADE_CHANNEL);
}

static int dma_post_load(void *dev, struct err *e)
{
    const struct dma *d = dev;
    for (unsigned i = 0; i < DMA_CHIPS; i++) {
        const struct dma_chip *c = &d->chip[i];
        if ((c->mask | c->done | c->dreq | c->software) > ALL_MASKED) {
            return err_set(e, -EINVAL, "impossible state of the DMA controller");
        }
    }
    return 0;
}

static const struct dev_class dma_class = {
    .name = "dma",
    .version = 1,
    .state = dma_state,
    .size = sizeof(struct dma),
    .reset = dma_reset,
    .post_load = dma_post_load,
};

void dma_init(struct dma *d, struct bus *b)
{
    static const uint16_t base[DMA_CHIPS] = { 0x00, 0xc0 };
    *d = (struct dma){ .mem = bus_mem(b) };
    dev_register(b, &d->dev, &dma_class, "dma");
    for (unsigned i = 0; i < DMA_CHIPS; i++) {
        d->port[i] = (struct dma_port){ d, i };
        bus_add_port(b, base[i], 16u << i, &dma_ops, &d->port[i]);
    }
    bus_add_port(b, 0x80, DMA_PAGES, &page_ops, d);
    dma_reset(d);
}

void dma_fini(struct dma *d) { dev_unregister(&d->dev); }
