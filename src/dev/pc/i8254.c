/* SPDX-License-Identifier: Apache-2.0
 *
 * Intel 82C54 (data sheet 231244). Counters are not counted down: what the counting element (CE)
 * holds and what OUT is follow from when it was loaded. A count written goes from the count
 * register (CR) into the CE at a later tick, `load_tick`; settle() does what is due.
 *
 * DEVIATION: a count of 1 in modes 2 and 3, which the data sheet forbids, leaves OUT high.
 */
#include "dev/pc/i8254.h"

#include <errno.h>

#include "base/bits.h"
#include "base/log.h"
#include "dev/pc/ticks.h"

enum pit_mode {
    MODE_TERMINAL = 0, /* interrupt on terminal count */
    MODE_ONE_SHOT = 1, /* hardware-retriggerable */
    MODE_RATE = 2,
    MODE_SQUARE = 3,
    MODE_STROBE = 4, /* software-triggered */
    MODE_HW_STROBE = 5
};

enum pit_rw { RW_LATCH = 0, RW_LSB = 1, RW_MSB = 2, RW_BOTH = 3 };

#define SELECT_READ_BACK 3u
#define READ_BACK_NO_COUNT 0x20u
#define READ_BACK_NO_STATUS 0x10u
#define STATUS_OUT 0x80u
#define STATUS_NULL 0x40u

#define MIN_PERIOD_TICKS (MIN_PERIOD_NS * (uint64_t)PIT_HZ / NS_PER_S + 1)

static enum pit_mode mode_of(const struct pit_counter *c)
{
    unsigned m = c->control >> 1 & 7;
    return (enum pit_mode)(m > 5 ? m & 3 : m); /* x10 and x11 */
}

static enum pit_rw rw_of(const struct pit_counter *c) { return (enum pit_rw)(c->control >> 4 & 3); }
static bool is_bcd(const struct pit_counter *c) { return c->control & 1; }

static bool is_periodic(const struct pit_counter *c)
{
    return mode_of(c) == MODE_RATE || mode_of(c) == MODE_SQUARE;
}

static bool is_triggered(const struct pit_counter *c)
{
    return mode_of(c) == MODE_ONE_SHOT || mode_of(c) == MODE_HW_STROBE;
}

static uint64_t now_tick(const struct pit *p)
{
    return ns_to_ticks(clock_now_ns(p->clock), PIT_HZ);
}

/* -- The counting element ---------------------------------------------------------------------- */
static uint64_t elapsed_at(const struct pit_counter *c, uint64_t tick)
{
    return c->counting ? tick - c->start_tick : c->elapsed;
}

/* Mode 3: ticks of the high half (the longer one for odd counts). */
static uint32_t high_ticks(uint32_t count) { return (count + 1) / 2; }

static bool out_at(const struct pit_counter *c, uint64_t tick)
{
    uint64_t e = elapsed_at(c, tick);
    switch (mode_of(c)) {
    case MODE_TERMINAL:
        return c->loaded && e >= c->count;
    case MODE_ONE_SHOT:
        return !c->loaded || e >= c->count;
    case MODE_RATE:
        return !c->loaded || !c->counting || c->count == 1 || e % c->count != c->count - 1;
    case MODE_SQUARE:
        return !c->loaded || !c->counting || c->count == 1 || e % c->count < high_ticks(c->count);
    default:
        return !c->loaded || e != c->count;
    }
}

/* What the CE holds, as a guest reads it. */
static uint16_t value_at(const struct pit_counter *c, uint64_t tick)
{
    uint64_t e = elapsed_at(c, tick);
    uint64_t v;
    switch (mode_of(c)) {
    case MODE_RATE:
        v = c->count - e % c->count;
        break;
    case MODE_SQUARE: {
        /* Counts by two in each half; odd counts are loaded less one. */
        uint64_t half = e % c->count;
        uint32_t high = high_ticks(c->count);
        v = (c->count & ~1u) - 2 * (half < high ? half : half - high);
        break;
    }
    default:
        v = c->count - e; /* goes on after terminal count, modulo the counter's range */
        break;
    }
    if (!is_bcd(c)) {
        return (uint16_t)v;
    }
    /* v is negative after terminal count; 10000 does not divide 2^64 */
    int64_t n = (int64_t)v % 10000;
    unsigned d = (unsigned)(n < 0 ? n + 10000 : n);
    return (uint16_t)(d % 10 | d / 10 % 10 << 4 | d / 100 % 10 << 8 | d / 1000 << 12);
}

/* CR to CE, if that was due at or before tick. */
static void settle(struct pit_counter *c, uint64_t tick)
{
    if (!c->load_pending || (int64_t)(tick - c->load_tick) < 0) {
        return;
    }
    uint64_t start = c->load_tick;
    if (mode_of(c) == MODE_SQUARE && c->loaded && c->counting) {
        /* A new count takes over at the end of a half: of the high one, it begins with its low. */
        uint64_t e = elapsed_at(c, c->load_tick) % c->count;
        if (e == high_ticks(c->count)) {
            start -= high_ticks(c->cr);
        }
    }
    c->count = c->cr;
    c->start_tick = start;
    c->elapsed = 0;
    c->loaded = true;
    c->counting = c->gate || is_triggered(c);
    c->load_pending = false;
    c->null_count = false;
}

static void load_at(struct pit_counter *c, uint64_t tick)
{
    c->load_pending = true;
    c->load_tick = tick;
}

static void freeze(struct pit_counter *c, uint64_t tick)
{
    if (c->counting) {
        c->elapsed = elapsed_at(c, tick);
        c->counting = false;
    }
}

/* -- Counter 0's OUT --------------------------------------------------------------------------- */
/* Ticks from now to the next rise of OUT or, in modes 0, 1 and 3, fall; 0: none to come. Pulses of
 * one tick (modes 2, 4, 5) are driven whole at their end. */
static uint64_t ticks_to_edge(const struct pit_counter *c, uint64_t tick)
{
    if (!c->loaded || !c->counting) {
        return 0;
    }
    uint64_t e = elapsed_at(c, tick);
    uint64_t count = c->count;
    switch (mode_of(c)) {
    case MODE_TERMINAL:
    case MODE_ONE_SHOT:
        return e < count ? count - e : 0;
    case MODE_RATE:
        return count == 1 ? 0 : count - e % count;
    case MODE_SQUARE: {
        uint64_t high = high_ticks(c->count);
        e %= count;
        return count == 1 ? 0 : e < high ? high - e : count - e;
    }
    default:
        return e <= count ? count + 1 - e : 0;
    }
}

/* Periods of counts so small that edges are only driven at each so many of them: MIN_PERIOD_NS.
 * The line is high between those. */
static bool is_too_fast(const struct pit_counter *c)
{
    return is_periodic(c) && c->count > 1 && c->count < MIN_PERIOD_TICKS;
}

/* The tick of the next edge to be driven after `tick`, 0: none. */
static uint64_t edge_after(const struct pit_counter *c, uint64_t tick)
{
    uint64_t next = ticks_to_edge(c, tick);
    if (next != 0 && is_too_fast(c)) {
        uint64_t some = (MIN_PERIOD_TICKS + c->count - 1) / c->count * c->count;
        next = some - elapsed_at(c, tick) % some;
    }
    return next != 0 ? tick + next : 0;
}

static void arm(struct pit *p, uint64_t tick)
{
    const struct pit_counter *c = &p->counter[0];
    p->edge_tick = edge_after(c, tick);
    uint64_t next = p->edge_tick;
    if (c->load_pending && (next == 0 || c->load_tick < next)) {
        next = c->load_tick;
    }
    timer_arm(&p->timer, next == 0 ? TIMER_NEVER : ticks_to_ns(next, PIT_HZ));
}

/* If an edge was due that is a pulse of one tick, or one for many, begin it. */
static void start_pulse(struct pit *p, uint64_t tick)
{
    const struct pit_counter *c = &p->counter[0];
    bool has_pulses = mode_of(c) == MODE_RATE || mode_of(c) == MODE_STROBE ||
                      (c->loaded && is_too_fast(c));
    if (has_pulses && p->edge_tick != 0 && tick >= p->edge_tick) {
        irq_set(&p->irq0, 0);
    }
}

/* Drive counter 0's OUT and see when it will change by itself. Called before a change, too, so that
 * no edge is lost that was due when the guest came before the timer; and the timer may be so late
 * that a load and the edge after it have both gone by. */
static void update(struct pit *p, uint64_t tick)
{
    struct pit_counter *c = &p->counter[0];
    start_pulse(p, tick);
    if (c->load_pending) {
        settle(c, tick);
        p->edge_tick = c->load_pending ? 0 : edge_after(c, c->load_tick);
        start_pulse(p, tick);
    }
    irq_set(&p->irq0, is_too_fast(c) || out_at(c, tick));
    arm(p, tick);
}

static void pit_timer(void *ctx, uint64_t now_ns) { update(ctx, ns_to_ticks(now_ns, PIT_HZ)); }

/* -- Registers --------------------------------------------------------------------------------- */
static uint8_t status_of(const struct pit_counter *c, uint64_t tick)
{
    return (uint8_t)((out_at(c, tick) ? STATUS_OUT : 0) | (c->null_count ? STATUS_NULL : 0) |
                     c->control);
}

static void latch_count(struct pit_counter *c, uint64_t tick)
{
    if (!c->count_latched) { /* held until read */
        c->count_latched = true;
        c->latched_count = value_at(c, tick);
    }
}

static void latch_status(struct pit_counter *c, uint64_t tick)
{
    if (!c->status_latched) {
        c->status_latched = true;
        c->latched_status = status_of(c, tick);
    }
}

static void set_control(struct pit_counter *c, uint8_t control, uint64_t tick)
{
    freeze(c, tick);
    c->control = control;
    c->cr_valid = false;
    c->write_msb = false;
    c->read_msb = false;
    c->null_count = true;
    c->loaded = false;
    c->load_pending = false;
    c->count_latched = false;
    c->status_latched = false;
}

static void write_control(struct pit *p, uint8_t v, uint64_t tick)
{
    unsigned select = v >> 6;
    if (select == SELECT_READ_BACK) {
        for (unsigned i = 0; i < 3; i++) {
            if (!(v & 2u << i)) {
                continue;
            }
            if (!(v & READ_BACK_NO_COUNT)) {
                latch_count(&p->counter[i], tick);
            }
            if (!(v & READ_BACK_NO_STATUS)) {
                latch_status(&p->counter[i], tick);
            }
        }
    } else if ((v >> 4 & 3) == RW_LATCH) {
        latch_count(&p->counter[select], tick);
    } else {
        set_control(&p->counter[select], v & 0x3f, tick);
    }
}

static uint32_t count_from(const struct pit_counter *c, uint16_t v)
{
    if (!is_bcd(c)) {
        return v != 0 ? v : 0x10000;
    }
    uint32_t n = (v & 15u) + (v >> 4 & 15u) * 10 + (v >> 8 & 15u) * 100 + (v >> 12) * 1000u;
    return n != 0 ? n : 10000;
}

/* A whole count is in CR: when does the CE take it? */
static void count_written(struct pit_counter *c, uint16_t v, uint64_t tick)
{
    bool first = !c->cr_valid;
    c->cr = count_from(c, v);
    c->cr_valid = true;
    c->null_count = true;
    switch (mode_of(c)) {
    case MODE_TERMINAL:
        freeze(c, tick);
        c->loaded = false; /* OUT goes low at once */
        load_at(c, tick + 1);
        break;
    case MODE_STROBE:
        load_at(c, tick + 1);
        break;
    case MODE_RATE:
    case MODE_SQUARE:
        if (first || (c->load_pending && !c->loaded)) {
            load_at(c, tick + 1);
        } else if (c->loaded && c->counting) {
            /* At the end of the period, of the half-period in mode 3 */
            uint64_t left = ticks_to_edge(c, tick);
            load_at(c, tick + (left != 0 ? left : 1));
        } /* else the gate is low, its rise loads */
        break;
    default:
        break; /* the trigger loads */
    }
}

static void write_count(struct pit_counter *c, uint8_t v, uint64_t tick)
{
    switch (rw_of(c)) {
    case RW_LSB:
        count_written(c, v, tick);
        break;
    case RW_MSB:
        count_written(c, (uint16_t)(v << 8), tick);
        break;
    default:
        c->write_msb = !c->write_msb;
        if (c->write_msb) {
            c->write_lsb = v;
            if (mode_of(c) == MODE_TERMINAL) { /* the first byte stops the count */
                freeze(c, tick);
                c->loaded = false;
                c->load_pending = false;
            }
        } else {
            count_written(c, (uint16_t)(v << 8 | c->write_lsb), tick);
        }
        break;
    }
}

static uint8_t read_count(struct pit_counter *c, uint64_t tick)
{
    if (c->status_latched) {
        c->status_latched = false;
        return c->latched_status;
    }
    uint16_t v = c->count_latched ? c->latched_count : value_at(c, tick);
    bool msb = rw_of(c) == RW_MSB || (rw_of(c) == RW_BOTH && c->read_msb);
    if (rw_of(c) == RW_BOTH) {
        c->read_msb = !c->read_msb;
    }
    if (!c->read_msb) {
        c->count_latched = false;
    }
    return (uint8_t)(msb ? v >> 8 : v);
}

static void settle_all(struct pit *p, uint64_t tick)
{
    for (int i = 0; i < 3; i++) {
        settle(&p->counter[i], tick);
    }
}

static uint64_t pit_read(void *dev, uint64_t offset, unsigned size)
{
    struct pit *p = dev;
    (void)size;
    if (offset == 3) {
        return 0; /* the control word cannot be read */
    }
    uint64_t tick = now_tick(p);
    update(p, tick);
    settle_all(p, tick);
    return read_count(&p->counter[offset], tick);
}

static void pit_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct pit *p = dev;
    uint64_t tick = now_tick(p);
    (void)size;
    update(p, tick);
    settle_all(p, tick);
    p->edge_tick = 0; /* of what is about to change */
    if (offset == 3) {
        write_control(p, (uint8_t)value, tick);
    } else {
        write_count(&p->counter[offset], (uint8_t)value, tick);
    }
    update(p, tick);
}

static const struct region_ops pit_ops = { .read = pit_read,
                                           .write = pit_write,
                                           .sizes = ACCESS_1 };

/* -- Gate -------------------------------------------------------------------------------------- */
static void set_gate(struct pit_counter *c, bool level, uint64_t tick)
{
    settle(c, tick);
    if (level == c->gate) {
        return;
    }
    c->gate = level;
    if (is_triggered(c)) {
        if (level && c->cr_valid) {
            load_at(c, tick + 1);
        }
    } else if (is_periodic(c)) {
        if (!level) {
            freeze(c, tick); /* OUT goes high at once */
            c->load_pending = c->load_pending && !c->loaded;
        } else if (c->cr_valid) {
            load_at(c, tick + 1);
        }
    } else if (!level) {
        freeze(c, tick);
    } else if (c->loaded) {
        c->start_tick = tick - c->elapsed;
        c->counting = true;
    }
}

void pit_set_gate2(struct pit *p, int level) { set_gate(&p->counter[2], level != 0, now_tick(p)); }

int pit_out2(struct pit *p)
{
    uint64_t tick = now_tick(p);
    settle(&p->counter[2], tick);
    return out_at(&p->counter[2], tick);
}

/* -- State ------------------------------------------------------------------------------------- */
static const struct state_field pit_counter_state[] = {
    STATE(struct pit_counter, control),        STATE(struct pit_counter, gate),
    STATE(struct pit_counter, cr_valid),       STATE(struct pit_counter, cr),
    STATE(struct pit_counter, write_lsb),      STATE(struct pit_counter, write_msb),
    STATE(struct pit_counter, read_msb),       STATE(struct pit_counter, null_count),
    STATE(struct pit_counter, loaded),         STATE(struct pit_counter, counting),
    STATE(struct pit_counter, count),          STATE(struct pit_counter, start_tick),
    STATE(struct pit_counter, elapsed),        STATE(struct pit_counter, load_pending),
    STATE(struct pit_counter, load_tick),      STATE(struct pit_counter, count_latched),
    STATE(struct pit_counter, latched_count),  STATE(struct pit_counter, status_latched),
    STATE(struct pit_counter, latched_status), STATE_END,
};

static const struct state_field pit_state[] = {
    STATE_STRUCTS(struct pit, counter, pit_counter_state),
    STATE_END,
};

/* The data sheet leaves it undefined; this is what PC firmware leaves: the 18.2 Hz tick, memory
 * refresh, a silent speaker. */
static void pit_reset(void *dev)
{
    struct pit *p = dev;
    uint64_t tick = now_tick(p);
    static const struct {
        uint8_t control;
        uint32_t count;
        bool gate;
    } init[3] = {
        { RW_BOTH << 4 | MODE_SQUARE << 1, 0x10000, true },
        { RW_LSB << 4 | MODE_RATE << 1, 18, true },
        { RW_BOTH << 4 | MODE_SQUARE << 1, 0x10000, false },
    };
    for (int i = 0; i < 3; i++) {
        p->counter[i] = (struct pit_counter){
            .control = init[i].control,
            .gate = init[i].gate,
            .cr_valid = true,
            .cr = init[i].count,
            .count = init[i].count,
            .loaded = true,
            .counting = init[i].gate,
            .start_tick = tick,
        };
    }
    p->edge_tick = 0;
    update(p, tick);
}

static void pit_pre_save(void *dev)
{
    struct pit *p = dev;
    settle_all(p, now_tick(p));
}

static int pit_post_load(void *dev, struct err *e)
{
    struct pit *p = dev;
    uint64_t tick = now_tick(p);
    for (int i = 0; i < 3; i++) {
        const struct pit_counter *c = &p->counter[i];
        if ((c->control & 0xc0) || rw_of(c) == RW_LATCH || c->count - 1 > 0xffff ||
            c->cr - 1 > 0xffff) {
            return err_set(e, -EINVAL, "impossible state of counter %d", i);
        }
        /* A load is at most one period away, a start in mode 3 as much before the clock's zero. */
        if ((c->load_pending && (int64_t)(c->load_tick - tick) > 0x10000) ||
            (c->counting && (int64_t)(tick - c->start_tick) < 0)) {
            return err_set(e, -EINVAL, "counter %d counts from the future", i);
        }
    }
    p->edge_tick = 0;
    update(p, tick);
    return 0;
}

static const struct dev_class pit_class = {
    .name = "pit",
    .version = 1,
    .state = pit_state,
    .size = sizeof(struct pit),
    .reset = pit_reset,
    .post_load = pit_post_load,
    .pre_save = pit_pre_save,
};

void pit_init(struct pit *p, struct bus *b, uint16_t base, struct clock *c, const struct irq *irq0)
{
    *p = (struct pit){ .clock = c, .irq0 = *irq0 };
    timer_init(&p->timer, c, pit_timer, p);
    dev_register(b, &p->dev, &pit_class, "pit");
    bus_add_port(b, base, 4, &pit_ops, p);
    pit_reset(p);
}

void pit_fini(struct pit *p)
{
    timer_cancel(&p->timer);
    dev_unregister(&p->dev);
}
