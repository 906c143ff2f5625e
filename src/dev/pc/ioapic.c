/* SPDX-License-Identifier: Apache-2.0
 *
 * Intel 82093AA (data sheet 290566), with the EOI register that later versions have at 0x40 (ICH,
 * 5.9). DEVIATION: the polarity bit is kept but has no effect: lines say "active", not "high".
 */
#include "dev/pc/ioapic.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/log.h"
#include "dev/pc/apic_bus.h"

#define IOAPIC_SIZE 0x1000u
#define IOAPIC_VERSION 0x20u

enum ioapic_mmio { IOREGSEL = 0x00, IOWIN = 0x10, IOEOI = 0x40 };
enum ioapic_reg { REG_ID = 0, REG_VERSION = 1, REG_ARBITRATION = 2, REG_REDIR = 0x10 };

/* A redirection entry, 3.2.4 */
#define RTE_VECTOR 0xffull
#define RTE_DELIVERY(rte) ((unsigned)((rte) >> 8 & 7))
#define RTE_LOGICAL (1ull << 11)
#define RTE_PENDING (1ull << 12)    /* read-only, always idle: delivery is at once */
#define RTE_REMOTE_IRR (1ull << 14) /* read-only */
#define RTE_LEVEL (1ull << 15)
#define RTE_MASKED (1ull << 16)
#define RTE_DEST(rte) ((uint8_t)((rte) >> 56))
#define RTE_WRITABLE (0xff0000000001ffffull & ~(RTE_PENDING | RTE_REMOTE_IRR))

static void deliver(struct ioapic *io, unsigned pin)
{
    uint64_t rte = io->redir[pin];
    struct apic_msg m = {
        .vector = (uint8_t)(rte & RTE_VECTOR),
        .delivery = (uint8_t)RTE_DELIVERY(rte),
        .level = rte & RTE_LEVEL,
    };
    apic_msg_set_dest8(&m, RTE_DEST(rte), rte & RTE_LOGICAL);
    switch (m.delivery) {
    case APIC_FIXED:
    case APIC_LOWEST:
        break;
    case APIC_SMI:
    case APIC_NMI:
    case APIC_INIT:
    case APIC_EXTINT:
        m.level = false; /* have no EOI: edges, whatever is programmed (3.2.4) */
        break;
    default:
        log_guest("ioapic", "reserved delivery mode %u of pin %u", m.delivery, pin);
        return;
    }
    if (apic_bus_deliver(io->apics, &m, NULL) && m.level) {
        io->redir[pin] |= RTE_REMOTE_IRR;
    }
}

/* A level-triggered pin asks as long as it is active and the last interrupt has been ended. */
static void service_level(struct ioapic *io, unsigned pin)
{
    uint64_t rte = io->redir[pin];
    if ((rte & RTE_LEVEL) && !(rte & (RTE_MASKED | RTE_REMOTE_IRR)) && (io->lines & BIT(pin))) {
        deliver(io, pin);
    }
}

static void ioapic_set_irq(void *ctx, int n, int level)
{
    struct ioapic *io = ctx;
    unsigned pin = (unsigned)n;
    uint32_t bit = (uint32_t)BIT(pin);
    bool rises = level && !(io->lines & bit);
    io->lines = level ? io->lines | bit : io->lines & ~bit;
    if (io->divert != NULL) {
        io->divert(io->ctx, pin, level);
    } else if (io->redir[pin] & RTE_LEVEL) {
        service_level(io, pin);
    } else if (rises && !(io->redir[pin] & RTE_MASKED)) {
        deliver(io, pin); /* an edge at a masked pin is lost (3.2.4) */
    }
}

struct irq ioapic_irq(struct ioapic *io, int pin)
{
    if (pin < 0 || pin >= IOAPIC_PINS) {
        return (struct irq){ NULL, NULL, 0 };
    }
    return (struct irq){ ioapic_set_irq, io, pin };
}

void ioapic_eoi(struct ioapic *io, uint8_t vector)
{
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t rte = io->redir[pin];
        if ((rte & RTE_REMOTE_IRR) && (rte & RTE_VECTOR) == vector) {
            io->redir[pin] &= ~RTE_REMOTE_IRR;
            service_level(io, pin);
        }
    }
}

/* -- Registers --------------------------------------------------------------------------------- */
static uint32_t read_reg(const struct ioapic *io)
{
    switch (io->select) {
    case REG_ID:
    case REG_ARBITRATION:
        return (uint32_t)io->id << 24;
    case REG_VERSION:
        return (IOAPIC_PINS - 1) << 16 | IOAPIC_VERSION;
    default:
        break;
    }
    unsigned n = io->select - (unsigned)REG_REDIR;
    if (n >= 2 * IOAPIC_PINS) {
        return 0;
    }
    return (uint32_t)(io->redir[n / 2] >> (n % 2 * 32));
}

static void write_redir(struct ioapic *io, unsigned n, uint32_t v)
{
    unsigned pin = n / 2;
    unsigned shift = n % 2 * 32;
    uint64_t writable = RTE_WRITABLE & 0xffffffffull << shift;
    uint64_t rte = (io->redir[pin] & ~writable) | ((uint64_t)v << shift & writable);
    if (!(rte & RTE_LEVEL)) {
        rte &= ~RTE_REMOTE_IRR; /* only level-triggered entries have one; guests clear it so */
    }
    bool routed = (io->redir[pin] ^ rte) & ~(RTE_MASKED | RTE_REMOTE_IRR);
    io->redir[pin] = rte;
    if (routed && io->routed != NULL) {
        io->routed(io->ctx);
    }
    service_level(io, pin);
}

static void write_reg(struct ioapic *io, uint32_t v)
{
    unsigned n = io->select - (unsigned)REG_REDIR;
    if (n < 2 * IOAPIC_PINS) {
        write_redir(io, n, v);
    } else if (io->select == REG_ID) {
        io->id = v >> 24 & 15;
    } else {
        log_guest("ioapic", "write to register %#x", io->select);
    }
}

static uint64_t ioapic_read(void *dev, uint64_t offset, unsigned size)
{
    struct ioapic *io = dev;
    (void)size;
    switch (offset) {
    case IOREGSEL:
        return io->select;
    case IOWIN:
        return read_reg(io);
    default:
        return 0;
    }
}

static void ioapic_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct ioapic *io = dev;
    if (offset == IOREGSEL) {
        io->select = (uint8_t)value; /* only bits 7:0: a byte will do */
    } else if (size != 4) {
        log_guest("ioapic", "%u-byte write at %#x", size, (unsigned)offset);
    } else if (offset == IOWIN) {
        write_reg(io, (uint32_t)value);
    } else if (offset == IOEOI) {
        ioapic_eoi(io, (uint8_t)value);
    }
}

static const struct region_ops ioapic_ops = { .read = ioapic_read,
                                              .write = ioapic_write,
                                              .sizes = ACCESS_1 | ACCESS_4 };

/* -- All at once ------------------------------------------------------------------------------- */
void ioapic_give(const struct ioapic *io, struct chip_ioapic *out)
{
    *out = (struct chip_ioapic){ .select = io->select, .id = io->id, .lines = io->lines };
    memcpy(out->redir, io->redir, sizeof out->redir);
}

/* The lines are those that came here meanwhile, too. */
void ioapic_take(struct ioapic *io, const struct chip_ioapic *in)
{
    io->select = in->select;
    io->id = in->id & 15;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t rte = in->redir[pin] & (RTE_WRITABLE | RTE_REMOTE_IRR);
        io->redir[pin] = rte & RTE_LEVEL ? rte : rte & ~RTE_REMOTE_IRR;
    }
}

/* -- State ------------------------------------------------------------------------------------- */
static const struct state_field ioapic_state[] = {
    STATE(struct ioapic, select),
    STATE(struct ioapic, id),
    STATE(struct ioapic, lines),
    STATE_ARRAY(struct ioapic, redir),
    STATE_END,
};

/* Inputs are other devices' outputs and keep their levels. */
static void ioapic_reset(void *dev)
{
    struct ioapic *io = dev;
    io->select = 0;
    io->id = 0;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        io->redir[pin] = RTE_MASKED;
    }
}

static int ioapic_post_load(void *dev, struct err *e)
{
    struct ioapic *io = dev;
    bool bad = io->id > 15 || io->lines >> IOAPIC_PINS;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t rte = io->redir[pin];
        bad |= (rte & ~(RTE_WRITABLE | RTE_REMOTE_IRR)) != 0;
        bad |= (rte & RTE_REMOTE_IRR) && !(rte & RTE_LEVEL);
    }
    return bad ? err_set(e, -EINVAL, "impossible redirection entry") : 0;
}

static const struct dev_class ioapic_class = {
    .name = "ioapic",
    .version = 1,
    .state = ioapic_state,
    .size = sizeof(struct ioapic),
    .reset = ioapic_reset,
    .post_load = ioapic_post_load,
};

void ioapic_init(struct ioapic *io, struct bus *b, gpa_t base, struct apic_bus *apics)
{
    *io = (struct ioapic){ .apics = apics };
    dev_register(b, &io->dev, &ioapic_class, "ioapic");
    bus_add_mmio(b, base, IOAPIC_SIZE, &ioapic_ops, io);
    apic_bus_add_ioapic(apics, io);
    ioapic_reset(io);
}

void ioapic_fini(struct ioapic *io) { dev_unregister(&io->dev); }
