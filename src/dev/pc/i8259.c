/* SPDX-License-Identifier: Apache-2.0
 *
 * Intel 8259A (data sheet 231468), twice, as wired in a PC; ELCR of the 82371SB (PIIX3, 290550).
 * UNIMPL: MCS-80 mode (ICW4 uPM=0) delivers vectors as in 8086 mode; buffered mode has no effect;
 * ICW1 LTIM is replaced by ELCR, as in the PIIX.
 */
#include "dev/pc/i8259.h"

#include <errno.h>

#include "base/bits.h"
#include "base/log.h"

#define CASCADE_IR 2u
#define NONE (-1)

/* IRQ0, 1, 2, 8 and 13 are always edge-triggered (PIIX3 2.5.7) */
static const uint8_t elcr_writable[2] = { 0xf8, 0xde };

enum pic_icw1 { ICW1_IC4 = 0x01, ICW1_SNGL = 0x02, ICW1_MARK = 0x10 };
enum pic_icw4 { ICW4_UPM = 0x01, ICW4_AEOI = 0x02, ICW4_SFNM = 0x10 };
enum pic_ocw3 {
    OCW3_RIS = 0x01,
    OCW3_RR = 0x02,
    OCW3_POLL = 0x04,
    OCW3_MARK = 0x08,
    OCW3_SMM = 0x20,
    OCW3_ESMM = 0x40
};
/* OCW2: R, SL, EOI */
enum pic_ocw2 {
    OCW2_ROTATE_AEOI_CLEAR = 0,
    OCW2_EOI = 1,
    OCW2_NOP = 2,
    OCW2_SPECIFIC_EOI = 3,
    OCW2_ROTATE_AEOI_SET = 4,
    OCW2_ROTATE_EOI = 5,
    OCW2_SET_PRIORITY = 6,
    OCW2_ROTATE_SPECIFIC_EOI = 7
};

/* -- Priorities -------------------------------------------------------------------------------- */
/* The bit of highest priority in set, 8 for none; *rank: its rank, 0 being the highest. */
static unsigned highest(const struct pic_chip *c, uint8_t set, unsigned *rank)
{
    for (*rank = 0; *rank < 8; ++*rank) {
        unsigned ir = (c->lowest + 1u + *rank) & 7;
        if (set & BIT(ir)) {
            return ir;
        }
    }
    return 8;
}

/* The request that INT stands for, NONE when INT is low. */
static int request(const struct pic_chip *c)
{
    unsigned want_rank;
    unsigned want = highest(c, c->irr & (uint8_t)~c->imr, &want_rank);
    if (want == 8) {
        return NONE;
    }
    uint8_t busy = c->isr;
    if (c->special_mask) {
        busy &= (uint8_t)~c->imr; /* masked levels no longer hold others back */
    }
    if (c->nested && !c->slave) {
        busy &= (uint8_t)~BIT(CASCADE_IR) | (want == CASCADE_IR ? 0 : BIT(CASCADE_IR));
    }
    unsigned busy_rank;
    highest(c, busy, &busy_rank);
    return want_rank < busy_rank ? (int)want : NONE;
}

static void set_line(struct pic_chip *c, unsigned ir, bool level);

/* INT of the slave is an input of the master, whose INT goes out. */
static void update(struct pic *p)
{
    set_line(&p->chip[0], CASCADE_IR, request(&p->chip[1]) != NONE);
    irq_set(&p->intr, pic_pending(p));
}

bool pic_pending(const struct pic *p) { return request(&p->chip[0]) != NONE; }

/* The request latch follows the input: a request that is withdrawn before INTA is gone, and the
 * acknowledge finds IR7 (data sheet, "Edge and level triggered modes"). */
static void set_line(struct pic_chip *c, unsigned ir, bool level)
{
    uint8_t bit = (uint8_t)BIT(ir);
    bool was = c->lines & bit;
    c->lines = level ? c->lines | bit : c->lines & (uint8_t)~bit;
    if (!level) {
        c->irr &= (uint8_t)~bit;
    } else if (!was || (c->elcr & bit)) {
        c->irr |= bit;
    }
}

static void pic_set_irq(void *ctx, int n, int level)
{
    struct pic *p = ctx;
    if (p->divert != NULL) {
        struct pic_chip *c = &p->chip[n / 8];
        uint8_t bit = (uint8_t)BIT(n % 8);
        c->lines = level ? c->lines | bit : c->lines & (uint8_t)~bit;
        p->divert(p->ctx, (unsigned)n, level);
        return;
    }
    set_line(&p->chip[n / 8], (unsigned)n % 8, level != 0);
    update(p);
}

struct irq pic_irq(struct pic *p, int n)
{
    if (n == CASCADE_IR || n < 0 || n >= PIC_LINES) {
        return (struct irq){ NULL, NULL, 0 };
    }
    return (struct irq){ pic_set_irq, p, n };
}

/* -- Acknowledge ------------------------------------------------------------------------------- */
static void end_of_interrupt(struct pic_chip *c, unsigned ir, bool rotate)
{
    c->isr &= (uint8_t)~BIT(ir);
    if (rotate) {
        c->lowest = (uint8_t)ir;
    }
}

/* Take the request into service; 7 without an in-service bit when there is none (spurious). */
static unsigned acknowledge(struct pic_chip *c)
{
    int ir = request(c);
    if (ir == NONE) {
        return 7;
    }
    uint8_t bit = (uint8_t)BIT(ir);
    c->isr |= bit;
    if (!(c->elcr & bit)) {
        c->irr &= (uint8_t)~bit;
    }
    return (unsigned)ir;
}

/* After the last INTA cycle */
static void acknowledged(struct pic_chip *c, unsigned ir)
{
    if (c->auto_eoi && (c->isr & BIT(ir))) {
        end_of_interrupt(c, ir, c->rotate_auto_eoi);
    }
}

int pic_ack(struct pic *p)
{
    struct pic_chip *master = &p->chip[0];
    struct pic_chip *slave = &p->chip[1];
    unsigned ir = acknowledge(master);
    int vector = master->base + (int)ir;
    if (ir == CASCADE_IR && !master->single) {
        unsigned slave_ir = acknowledge(slave);
        vector = slave->base + (int)slave_ir;
        acknowledged(slave, slave_ir);
        /* Its INT drops between acknowledges, so that the next request is an edge. */
        set_line(master, CASCADE_IR, false);
    }
    acknowledged(master, ir);
    update(p);
    return vector;
}

/* -- Registers --------------------------------------------------------------------------------- */
/* ICW1, data sheet "Initialization command words", a to f. */
static void start_init(struct pic_chip *c, uint8_t icw1)
{
    c->irr = c->lines & c->elcr; /* edges must come anew */
    c->imr = 0;
    c->isr = 0;
    c->lowest = 7;
    c->special_mask = false;
    c->read_isr = false;
    c->poll = false;
    c->auto_eoi = false;
    c->rotate_auto_eoi = false;
    c->nested = false;
    c->icw4_wanted = icw1 & ICW1_IC4;
    c->single = icw1 & ICW1_SNGL;
    c->icw_next = 2;
}

static void write_icw(struct pic_chip *c, uint8_t v)
{
    switch (c->icw_next) {
    case 2:
        c->base = v & 0xf8;
        c->icw_next = !c->single ? 3 : c->icw4_wanted ? 4 : 0;
        break;
    case 3: /* the cascade is wired: what the guest says of it has no effect */
        c->icw_next = c->icw4_wanted ? 4 : 0;
        break;
    default:
        if (!(v & ICW4_UPM)) {
            log_guest("pic", "MCS-80 mode asked for");
        }
        c->auto_eoi = v & ICW4_AEOI;
        c->nested = v & ICW4_SFNM;
        c->icw_next = 0;
        break;
    }
}

static void write_ocw2(struct pic_chip *c, uint8_t v)
{
    unsigned level = v & 7;
    unsigned rank;
    uint8_t ends = c->isr;
    if (c->special_mask) {
        ends &= (uint8_t)~c->imr; /* a non-specific EOI does not clear what is masked */
    }
    unsigned first = highest(c, ends, &rank);
    switch (v >> 5) {
    case OCW2_ROTATE_AEOI_CLEAR:
    case OCW2_ROTATE_AEOI_SET:
        c->rotate_auto_eoi = v >> 5 == OCW2_ROTATE_AEOI_SET;
        break;
    case OCW2_EOI:
    case OCW2_ROTATE_EOI:
        if (first < 8) {
            end_of_interrupt(c, first, v >> 5 == OCW2_ROTATE_EOI);
        }
        break;
    case OCW2_SPECIFIC_EOI:
    case OCW2_ROTATE_SPECIFIC_EOI:
        end_of_interrupt(c, level, v >> 5 == OCW2_ROTATE_SPECIFIC_EOI);
        break;
    case OCW2_SET_PRIORITY:
        c->lowest = (uint8_t)level;
        break;
    default:
        break;
    }
}

static void write_ocw3(struct pic_chip *c, uint8_t v)
{
    if (v & OCW3_POLL) {
        c->poll = true;
    }
    if (v & OCW3_RR) {
        c->read_isr = v & OCW3_RIS;
    }
    if (v & OCW3_ESMM) {
        c->special_mask = v & OCW3_SMM;
    }
}

static void pic_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct pic_chip *c = dev;
    uint8_t v = (uint8_t)value;
    (void)size;
    if (offset == 1) {
        if (c->icw_next != 0) {
            write_icw(c, v);
        } else {
            c->imr = v;
        }
    } else if (v & ICW1_MARK) {
        start_init(c, v);
    } else if (v & OCW3_MARK) {
        write_ocw3(c, v);
    } else {
        write_ocw2(c, v);
    }
    update(c->pic);
}

/* A read after OCW3 P=1 is an acknowledge: bit 7 and the level, or 0. */
static uint8_t read_poll(struct pic_chip *c)
{
    c->poll = false;
    if (request(c) == NONE) {
        return 0;
    }
    unsigned ir = acknowledge(c);
    acknowledged(c, ir);
    update(c->pic);
    return (uint8_t)(0x80 | ir);
}

static uint64_t pic_read(void *dev, uint64_t offset, unsigned size)
{
    struct pic_chip *c = dev;
    (void)size;
    if (c->poll) {
        return read_poll(c);
    }
    if (offset == 1) {
        return c->imr;
    }
    return c->read_isr ? c->isr : c->irr;
}

static uint64_t elcr_read(void *dev, uint64_t offset, unsigned size)
{
    struct pic *p = dev;
    (void)size;
    return p->chip[offset].elcr;
}

static void elcr_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct pic *p = dev;
    struct pic_chip *c = &p->chip[offset];
    (void)size;
    c->elcr = (uint8_t)value & elcr_writable[offset];
    c->irr |= c->lines & c->elcr;
    update(p);
}

static const struct region_ops pic_ops = { .read = pic_read,
                                           .write = pic_write,
                                           .sizes = ACCESS_1 };
static const struct region_ops elcr_ops = { .read = elcr_read,
                                            .write = elcr_write,
                                            .sizes = ACCESS_1 };

/* -- All at once ------------------------------------------------------------------------------- */
void pic_give(const struct pic *p, struct chip_pic out[2])
{
    for (int i = 0; i < 2; i++) {
        const struct pic_chip *c = &p->chip[i];
        out[i] = (struct chip_pic){ .lines = c->lines,
                                    .irr = c->irr,
                                    .imr = c->imr,
                                    .isr = c->isr,
                                    .elcr = c->elcr,
                                    .base = c->base,
                                    .lowest = c->lowest,
                                    .icw_next = c->icw_next,
                                    .icw4_wanted = c->icw4_wanted,
                                    .auto_eoi = c->auto_eoi,
                                    .rotate_auto_eoi = c->rotate_auto_eoi,
                                    .nested = c->nested,
                                    .special_mask = c->special_mask,
                                    .read_isr = c->read_isr,
                                    .poll = c->poll };
    }
}

/* The lines are those that came here meanwhile, too. What a register of ours cannot hold is left
 * out. */
void pic_take(struct pic *p, const struct chip_pic in[2])
{
    for (int i = 0; i < 2; i++) {
        struct pic_chip *c = &p->chip[i];
        c->imr = in[i].imr;
        c->isr = in[i].isr;
        c->elcr = in[i].elcr & elcr_writable[i];
        c->irr = (in[i].irr & c->lines) | (c->lines & c->elcr);
        c->base = in[i].base & 0xf8;
        c->lowest = in[i].lowest & 7;
        c->icw_next = in[i].icw_next >= 2 && in[i].icw_next <= 4 ? in[i].icw_next : 0;
        c->icw4_wanted = in[i].icw4_wanted;
        c->auto_eoi = in[i].auto_eoi;
        c->rotate_auto_eoi = in[i].rotate_auto_eoi;
        c->nested = in[i].nested;
        c->special_mask = in[i].special_mask;
        c->read_isr = in[i].read_isr;
        c->poll = in[i].poll;
    }
    update(p);
}

/* -- State ------------------------------------------------------------------------------------- */
static const struct state_field pic_chip_state[] = {
    STATE(struct pic_chip, lines),
    STATE(struct pic_chip, irr),
    STATE(struct pic_chip, imr),
    STATE(struct pic_chip, isr),
    STATE(struct pic_chip, elcr),
    STATE(struct pic_chip, base),
    STATE(struct pic_chip, lowest),
    STATE(struct pic_chip, icw_next),
    STATE(struct pic_chip, icw4_wanted),
    STATE(struct pic_chip, single),
    STATE(struct pic_chip, auto_eoi),
    STATE(struct pic_chip, rotate_auto_eoi),
    STATE(struct pic_chip, nested),
    STATE(struct pic_chip, special_mask),
    STATE(struct pic_chip, read_isr),
    STATE(struct pic_chip, poll),
    STATE_END,
};

static const struct state_field pic_state[] = {
    STATE_STRUCTS(struct pic, chip, pic_chip_state),
    STATE_END,
};

/* The data sheet leaves the power-on state open: masked is the one that surprises nobody. Inputs
 * are other devices' outputs and keep their levels. */
static void pic_reset(void *dev)
{
    struct pic *p = dev;
    for (int i = 0; i < 2; i++) {
        struct pic_chip *c = &p->chip[i];
        c->elcr = 0;
        start_init(c, 0);
        c->icw_next = 0;
        c->imr = 0xff;
        c->base = 0;
    }
    update(p);
}

static int pic_post_load(void *dev, struct err *e)
{
    struct pic *p = dev;
    for (int i = 0; i < 2; i++) {
        struct pic_chip *c = &p->chip[i];
        if (c->lowest > 7 || c->icw_next == 1 || c->icw_next > 4 || (c->base & 7) ||
            (c->elcr & ~elcr_writable[i]) || (c->irr & ~c->lines) ||
            (c->lines & c->elcr & ~c->irr)) {
            return err_set(e, -EINVAL, "impossible state of chip %d", i);
        }
    }
    update(p);
    return 0;
}

static const struct dev_class pic_class = {
    .name = "pic",
    .version = 1,
    .state = pic_state,
    .size = sizeof(struct pic),
    .reset = pic_reset,
    .post_load = pic_post_load,
};

void pic_init(struct pic *p, struct bus *b, const struct irq *intr)
{
    *p = (struct pic){ .intr = *intr };
    for (int i = 0; i < 2; i++) {
        p->chip[i].pic = p;
        p->chip[i].slave = i == 1;
    }
    dev_register(b, &p->dev, &pic_class, "pic");
    bus_add_port(b, 0x20, 2, &pic_ops, &p->chip[0]);
    bus_add_port(b, 0xa0, 2, &pic_ops, &p->chip[1]);
    bus_add_port(b, 0x4d0, 2, &elcr_ops, p);
    pic_reset(p);
}

void pic_fini(struct pic *p) { dev_unregister(&p->dev); }
