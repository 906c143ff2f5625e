/* SPDX-License-Identifier: Apache-2.0
 *
 * IA-PC HPET specification 1.0a. The counter follows from the clock while it is enabled.
 *
 * A match is equality of counter and comparator. Edges are driven as low, then high, and the line
 * stays high until the next, so that a controller that samples later finds it.
 */
#include "dev/pc/hpet.h"

#include <errno.h>

#include "base/bits.h"
#include "base/log.h"
#include "dev/pc/ticks.h"

#define HPET_SIZE 0x400u
#define HPET_HZ 100000000u
#define TIMER_STRIDE 0x20u

enum hpet_reg {
    REG_CAP = 0x000,
    REG_CONFIG = 0x010,
    REG_STATUS = 0x020,
    REG_COUNTER = 0x0f0,
    REG_TIMERS = 0x100
};
enum hpet_timer_reg { TIMER_CONFIG = 0x00, TIMER_COMPARATOR = 0x08, TIMER_FSB = 0x10 };

#define CAP_REVISION 1u
#define CAP_64BIT (1u << 13)
#define CAP_LEGACY (1u << 15)
#define CAP_VENDOR 0x8086u

#define CONFIG_ENABLE 1u
#define CONFIG_LEGACY 2u

/* Timer configuration, 2.3.8 */
#define TN_LEVEL (1u << 1)
#define TN_INT_ENABLE (1u << 2)
#define TN_PERIODIC (1u << 3)
#define TN_PERIODIC_CAP (1u << 4)
#define TN_64BIT_CAP (1u << 5)
#define TN_VALUE_SET (1u << 6)
#define TN_32BIT (1u << 8)
#define TN_ROUTE(cfg) ((unsigned)((cfg) >> 9 & 31))
#define TN_FSB_ENABLE (1u << 14)
#define TN_FSB_CAP (1u << 15)
#define TN_WRITABLE                                                                                \
    (TN_LEVEL | TN_INT_ENABLE | TN_PERIODIC | TN_VALUE_SET | TN_32BIT | 31u << 9 | TN_FSB_ENABLE)

static unsigned index_of(const struct hpet_timer *t) { return (unsigned)(t - t->hpet->timer); }
static uint64_t width_mask(const struct hpet_timer *t)
{
    return t->config & TN_32BIT ? ~0u : ~0ull;
}
static bool enabled(const struct hpet *h) { return h->config & CONFIG_ENABLE; }

static bool in_legacy(const struct hpet_timer *t)
{
    return (t->hpet->config & CONFIG_LEGACY) && index_of(t) < 2;
}

static uint64_t counter_at(const struct hpet *h, uint64_t now_ns)
{
    return enabled(h) ? h->counter + ns_to_ticks(now_ns - h->base_ns, HPET_HZ) : h->counter;
}

/* -- Interrupts -------------------------------------------------------------------------------- */
static bool uses_msi(const struct hpet_timer *t)
{
    return (t->config & TN_FSB_ENABLE) && t->hpet->msi != NULL && !in_legacy(t);
}

static void drive(const struct irq *line, int *level, int wanted)
{
    if (*level != wanted) {
        *level = wanted;
        irq_set(line, wanted);
    }
}

static bool asserts_level(const struct hpet_timer *t)
{
    return enabled(t->hpet) && (t->config & TN_INT_ENABLE) && (t->config & TN_LEVEL) &&
           !uses_msi(t) && (t->hpet->status & BIT(index_of(t)));
}

static bool is_routed(const struct hpet_timer *t, unsigned pin)
{
    return !in_legacy(t) && !uses_msi(t) && TN_ROUTE(t->config) == pin;
}

/* An edge-triggered timer leaves its line high; nobody holds it up once it is routed elsewhere. */
static int pin_wants(const struct hpet *h, unsigned pin)
{
    int level = 0;
    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        const struct hpet_timer *t = &h->timer[i];
        if (is_routed(t, pin) && enabled(h) && (t->config & TN_INT_ENABLE)) {
            level |= t->config & TN_LEVEL ? asserts_level(t) : h->pin_level[pin];
        }
    }
    return level;
}

/* Drive all lines from the registers: what is held by level, what was left high by edges. */
static void update(struct hpet *h)
{
    for (unsigned pin = 0; pin < HPET_PINS; pin++) {
        drive(&h->pin[pin], &h->pin_level[pin], pin_wants(h, pin));
    }
    for (unsigned i = 0; i < 2; i++) {
        const struct hpet_timer *t = &h->timer[i];
        int wanted = h->legacy_in[i];
        if (h->config & CONFIG_LEGACY) {
            bool on = enabled(h) && (t->config & TN_INT_ENABLE);
            wanted = !on ? 0 : t->config & TN_LEVEL ? asserts_level(t) : h->legacy_level[i];
        }
        drive(&h->legacy[i], &h->legacy_level[i], wanted);
    }
}

static void edge(const struct irq *line, int *level)
{
    drive(line, level, 0);
    drive(line, level, 1);
}

static void fire(struct hpet_timer *t)
{
    struct hpet *h = t->hpet;
    unsigned i = index_of(t);
    unsigned pin = TN_ROUTE(t->config);
    if (t->config & TN_LEVEL) {
        h->status |= BIT(i);
    }
    if (!(t->config & TN_INT_ENABLE)) {
        return;
    }
    if (uses_msi(t)) {
        h->msi(h->msi_ctx, t->fsb >> 32, (uint32_t)t->fsb);
    } else if (t->config & TN_LEVEL) {
        update(h);
    } else if (in_legacy(t)) {
        edge(&h->legacy[i], &h->legacy_level[i]);
    } else if (pin < HPET_PINS) {
        edge(&h->pin[pin], &h->pin_level[pin]);
    }
}

static void legacy_in(void *ctx, int n, int level)
{
    struct hpet *h = ctx;
    h->legacy_in[n] = level != 0;
    if (!(h->config & CONFIG_LEGACY)) {
        drive(&h->legacy[n], &h->legacy_level[n], level != 0);
    }
}

struct irq hpet_legacy_in(struct hpet *h, int n) { return (struct irq){ legacy_in, h, n != 0 }; }

/* -- Matches ----------------------------------------------------------------------------------- */
enum match { MATCH_NOW, MATCH_LATER }; /* when the two are equal at this moment */

static void arm(struct hpet_timer *t, enum match equal)
{
    struct hpet *h = t->hpet;
    uint64_t now = clock_now_ns(h->clock);
    uint64_t mask = width_mask(t);
    if (!enabled(h)) {
        timer_cancel(&t->timer);
        return;
    }
    uint64_t counter = counter_at(h, now);
    uint64_t ticks = (t->comparator - counter) & mask;
    if (ticks == 0 && equal == MATCH_LATER) {
        ticks = mask == UINT64_MAX ? mask : mask + 1; /* once round */
    }
    uint64_t counted = counter - h->counter;
    uint64_t at = counted + ticks < ticks ? UINT64_MAX : counted + ticks;
    timer_arm(&t->timer, deadline_after(h->base_ns, ticks_to_ns(at, HPET_HZ)));
}

/* A periodic comparator moves on by whole periods to beyond the counter, past a minimum. */
static void advance(struct hpet_timer *t, uint64_t now_ns)
{
    uint64_t mask = width_mask(t);
    if (!(t->config & TN_PERIODIC) || (t->period & mask) == 0) {
        return;
    }
    uint64_t period = t->period & mask;
    uint64_t late = (counter_at(t->hpet, now_ns) - t->comparator) & mask;
    const uint64_t floor = MIN_PERIOD_NS * (uint64_t)HPET_HZ / NS_PER_S;
    if (period < floor) {
        late += floor;
    }
    t->comparator = (t->comparator + (late / period + 1) * period) & mask;
}

static void hpet_timer(void *ctx, uint64_t now_ns)
{
    struct hpet_timer *t = ctx;
    advance(t, now_ns);
    arm(t, MATCH_LATER);
    fire(t);
}

/* The guest looks, and the thread that runs timers may be late. */
static void poll(struct hpet *h)
{
    uint64_t now = clock_now_ns(h->clock);
    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        struct hpet_timer *t = &h->timer[i];
        if (timer_armed(&t->timer) && t->timer.deadline_ns <= now) {
            timer_cancel(&t->timer);
            hpet_timer(t, now);
        }
    }
}

/* -- Registers --------------------------------------------------------------------------------- */
static uint64_t read_timer(const struct hpet *h, const struct hpet_timer *t, unsigned reg)
{
    /* Route capabilities are those of the board, whatever the timer. */
    uint64_t routes = 0;
    switch (reg) {
    case TIMER_CONFIG:
        for (unsigned pin = 0; pin < HPET_PINS; pin++) {
            routes |= h->pin[pin].set != NULL ? BIT(pin) : 0;
        }
        return t->config | TN_PERIODIC_CAP | TN_64BIT_CAP | (h->msi != NULL ? TN_FSB_CAP : 0) |
               routes << 32;
    case TIMER_COMPARATOR:
        return t->comparator & width_mask(t);
    case TIMER_FSB:
        return t->fsb;
    default:
        return 0;
    }
}

static uint64_t read_reg(const struct hpet *h, unsigned reg)
{
    if (reg >= REG_TIMERS) {
        unsigned n = (reg - REG_TIMERS) / TIMER_STRIDE;
        return n < HPET_TIMERS ? read_timer(h, &h->timer[n], reg % TIMER_STRIDE) : 0;
    }
    switch (reg) {
    case REG_CAP:
        return (uint64_t)HPET_PERIOD_FS << 32 | CAP_VENDOR << 16 | CAP_LEGACY | CAP_64BIT |
               (HPET_TIMERS - 1) << 8 | CAP_REVISION;
    case REG_CONFIG:
        return h->config;
    case REG_STATUS:
        return h->status;
    case REG_COUNTER:
        return counter_at(h, clock_now_ns(h->clock));
    default:
        return 0;
    }
}

static void write_timer_config(struct hpet_timer *t, uint64_t v)
{
    const uint64_t route = 31u << 9;
    if (TN_ROUTE(v) >= HPET_PINS || t->hpet->pin[TN_ROUTE(v)].set == NULL) {
        v = (v & ~route) | (t->config & route); /* reads back as it was: not accepted (2.3.8) */
    }
    t->config = v & TN_WRITABLE & (t->hpet->msi != NULL ? ~0u : ~TN_FSB_ENABLE);
    if (!(t->config & TN_PERIODIC)) {
        t->config &= ~(uint64_t)TN_VALUE_SET;
    }
    if (!(t->config & TN_LEVEL)) {
        t->hpet->status &= ~BIT(index_of(t)); /* 2.3.6: always 0 for edge-triggered timers */
    }
    if (t->config & TN_32BIT) {
        t->comparator &= width_mask(t);
        t->period &= width_mask(t);
    }
    update(t->hpet);
    arm(t, MATCH_LATER);
}

/* bits: which the guest wrote, all or one half. In periodic mode a write sets the period, and the
 * comparator too when VAL_SET says so, once (2.3.9.2.2). */
static void write_comparator(struct hpet_timer *t, uint64_t v, uint64_t bits)
{
    bool periodic = t->config & TN_PERIODIC;
    bits &= width_mask(t);
    if (!periodic || (t->config & TN_VALUE_SET)) {
        t->comparator = (t->comparator & ~bits) | (v & bits);
    }
    if (periodic) {
        t->period = (t->period & ~bits) | (v & bits);
    }
    t->config &= ~(uint64_t)TN_VALUE_SET;
    arm(t, MATCH_NOW);
}

static void write_timer(struct hpet_timer *t, unsigned reg, uint64_t v, uint64_t bits)
{
    switch (reg) {
    case TIMER_CONFIG:
        write_timer_config(t, (t->config & ~bits) | (v & bits));
        break;
    case TIMER_COMPARATOR:
        write_comparator(t, v, bits);
        break;
    case TIMER_FSB:
        t->fsb = (t->fsb & ~bits) | (v & bits);
        break;
    default:
        break;
    }
}

static void write_config(struct hpet *h, uint64_t v)
{
    uint64_t now = clock_now_ns(h->clock);
    bool was = enabled(h);
    h->counter = counter_at(h, now);
    h->base_ns = now;
    h->config = v & (CONFIG_ENABLE | CONFIG_LEGACY);
    update(h);
    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        arm(&h->timer[i], was ? MATCH_LATER : MATCH_NOW);
    }
}

static void write_reg(struct hpet *h, unsigned reg, uint64_t v, uint64_t bits)
{
    if (reg >= REG_TIMERS) {
        unsigned n = (reg - REG_TIMERS) / TIMER_STRIDE;
        if (n < HPET_TIMERS) {
            write_timer(&h->timer[n], reg % TIMER_STRIDE, v, bits);
        }
        return;
    }
    switch (reg) {
    case REG_CONFIG:
        write_config(h, (h->config & ~bits) | (v & bits));
        break;
    case REG_STATUS:
        h->status &= ~(v & bits);
        update(h);
        break;
    case REG_COUNTER:
        if (enabled(h)) {
            log_guest("hpet", "counter written while it counts");
        } else {
            h->counter = (h->counter & ~bits) | (v & bits);
        }
        break;
    default:
        break;
    }
}

static uint64_t hpet_read(void *dev, uint64_t offset, unsigned size)
{
    struct hpet *h = dev;
    unsigned reg = (unsigned)offset & ~7u;
    (void)size;
    poll(h);
    return read_reg(h, reg) >> (offset & 4 ? 32 : 0);
}

static void hpet_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct hpet *h = dev;
    unsigned shift = offset & 4 ? 32 : 0;
    poll(h);
    write_reg(h, (unsigned)offset & ~7u, value << shift, MASK64(8 * size) << shift);
}

static const struct region_ops hpet_ops = { .read = hpet_read,
                                            .write = hpet_write,
                                            .sizes = ACCESS_4 | ACCESS_8 };

/* -- State ------------------------------------------------------------------------------------- */
static const struct state_field hpet_timer_state[] = {
    STATE(struct hpet_timer, config),
    STATE(struct hpet_timer, comparator),
    STATE(struct hpet_timer, period),
    STATE(struct hpet_timer, fsb),
    STATE_END,
};

static const struct state_field hpet_state[] = {
    STATE(struct hpet, config),
    STATE(struct hpet, status),
    STATE(struct hpet, counter),
    STATE(struct hpet, base_ns),
    STATE_STRUCTS(struct hpet, timer, hpet_timer_state),
    STATE_ARRAY(struct hpet, legacy_in),
    STATE_ARRAY(struct hpet, pin_level),
    STATE_ARRAY(struct hpet, legacy_level),
    STATE_END,
};

static void hpet_reset(void *dev)
{
    struct hpet *h = dev;
    h->config = 0;
    h->status = 0;
    h->counter = 0;
    h->base_ns = 0;
    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        struct hpet_timer *t = &h->timer[i];
        timer_cancel(&t->timer);
        t->config = 0;
        t->comparator = ~0ull; /* 2.3.9: as far away as can be */
        t->period = 0;
        t->fsb = 0;
    }
    update(h);
}

static int hpet_post_load(void *dev, struct err *e)
{
    struct hpet *h = dev;
    bool bad = (h->config & ~(uint64_t)(CONFIG_ENABLE | CONFIG_LEGACY)) ||
               h->status >> HPET_TIMERS || h->base_ns > clock_now_ns(h->clock);
    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        struct hpet_timer *t = &h->timer[i];
        bad |= (t->config & ~(uint64_t)TN_WRITABLE) != 0;
        bad |= ((t->comparator | t->period) & ~width_mask(t)) != 0;
    }
    for (unsigned pin = 0; pin < HPET_PINS; pin++) {
        bad |= h->pin_level[pin] != 0 && h->pin_level[pin] != 1;
    }
    for (unsigned i = 0; i < 2; i++) {
        bad |= h->legacy_level[i] != 0 && h->legacy_level[i] != 1;
    }
    if (bad) {
        return err_set(e, -EINVAL, "impossible state");
    }
    for (unsigned pin = 0; pin < HPET_PINS; pin++) {
        irq_set(&h->pin[pin], h->pin_level[pin]);
    }
    for (unsigned i = 0; i < 2; i++) {
        irq_set(&h->legacy[i], h->legacy_level[i]);
    }
    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        arm(&h->timer[i], MATCH_LATER);
    }
    return 0;
}

static const struct dev_class hpet_class = {
    .name = "hpet",
    .version = 1,
    .state = hpet_state,
    .size = sizeof(struct hpet),
    .reset = hpet_reset,
    .post_load = hpet_post_load,
};

void hpet_init(struct hpet *h, struct bus *b, gpa_t base, const struct hpet_config *cfg)
{
    *h = (struct hpet){ .clock = cfg->clock, .msi = cfg->msi, .msi_ctx = cfg->msi_ctx };
    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        h->timer[i].hpet = h;
        timer_init(&h->timer[i].timer, cfg->clock, hpet_timer, &h->timer[i]);
    }
    for (unsigned i = 0; i < 2; i++) {
        h->legacy[i] = cfg->legacy[i];
    }
    for (unsigned pin = 0; pin < HPET_PINS; pin++) {
        if (cfg->routes & BIT(pin)) {
            h->pin[pin] = cfg->pin[pin];
        }
    }
    dev_register(b, &h->dev, &hpet_class, "hpet");
    bus_add_mmio(b, base, HPET_SIZE, &hpet_ops, h);
    hpet_reset(h);
}

void hpet_fini(struct hpet *h)
{
    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        timer_cancel(&h->timer[i].timer);
    }
    dev_unregister(&h->dev);
}
