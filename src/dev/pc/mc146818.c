/* SPDX-License-Identifier: Apache-2.0
 *
 * Motorola MC146818A (data sheet ADI850), as PCs have it: 32.768 kHz, century in byte 0x32.
 * Nothing ticks: the time follows from the wall clock, flags from what has passed since the last
 * look; the timer runs only for interrupts that are enabled.
 *
 * UNIMPL: daylight saving (DSE), square wave output (SQWE). DEVIATION: the day of the week follows
 * from the date; divider settings for other crystals count as 32.768 kHz.
 */
#include "dev/pc/mc146818.h"

#include <errno.h>

#include "base/bits.h"
#include "base/log.h"
#include "dev/pc/ticks.h"

enum rtc_reg {
    RTC_SECONDS = 0,
    RTC_SECONDS_ALARM = 1,
    RTC_MINUTES = 2,
    RTC_MINUTES_ALARM = 3,
    RTC_HOURS = 4,
    RTC_HOURS_ALARM = 5,
    RTC_WEEKDAY = 6,
    RTC_DAY = 7,
    RTC_MONTH = 8,
    RTC_YEAR = 9,
    RTC_A = 10,
    RTC_B = 11,
    RTC_C = 12,
    RTC_D = 13
};

enum rtc_a { A_UIP = 0x80, A_DV = 0x70, A_RS = 0x0f };
enum rtc_b {
    B_SET = 0x80,
    B_PIE = 0x40, /* B's enables are at the bits of C's flags */
    B_AIE = 0x20,
    B_UIE = 0x10,
    B_SQWE = 0x08,
    B_BINARY = 0x04,
    B_24H = 0x02
};
enum rtc_c { C_IRQF = 0x80, C_PF = 0x40, C_AF = 0x20, C_UF = 0x10 };
#define D_VRT 0x80u

#define CRYSTAL_HZ 32768u
#define DIVIDER_HELD 0x60u /* DV2 and DV1: the chain is reset */
#define HOUR_PM 0x80u
#define ALARM_ANY 0xc0u
/* UIP is seen from 244 us before an update, which takes 1984 us, to its end. */
#define UIP_NS (244000u + 1984000u)
/* The first update comes half a second after the divider starts. */
#define DIVIDER_START_NS (NS_PER_S / 2)

#define DAY_S 86400
#define OFFSET_MAX_S (30000ll * 366 * DAY_S) /* bytes of 255 in binary say year 25755 */

/* -- Calendar: days since 1970-01-01 in the Gregorian calendar --------------------------------- */
struct date {
    int64_t year;
    int month; /* 1..12 */
    int day;   /* 1.. */
};

static int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }

/* Years begin in March, so that the leap day is the last of its year. */
static int64_t days_of(struct date d)
{
    int64_t y = d.year - (d.month <= 2);
    int64_t era = floor_div(y, 400);
    int64_t year_of_era = y - era * 400;
    int64_t day_of_year = (153 * ((d.month + 9) % 12) + 2) / 5 + d.day - 1;
    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year -
           719468;
}

static struct date date_of(int64_t days)
{
    days += 719468;
    int64_t era = floor_div(days, 146097);
    int64_t doe = days - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    int64_t mp = (5 * doy + 2) / 153;
    struct date d;
    d.day = (int)(doy - (153 * mp + 2) / 5 + 1);
    d.month = (int)(mp < 10 ? mp + 3 : mp - 9);
    d.year = era * 400 + yoe + (d.month <= 2);
    return d;
}

/* -- Time -------------------------------------------------------------------------------------- */
static bool divider_held(const struct rtc *r) { return (r->reg[RTC_A] & 0x60) == DIVIDER_HELD; }
static bool runs(const struct rtc *r) { return !(r->reg[RTC_B] & B_SET) && !divider_held(r); }

/* Nanoseconds since some second began. */
static uint64_t phased_ns(const struct rtc *r) { return r->wall_ns(r->wall_ctx) + r->phase_ns; }

static int64_t seconds_now(const struct rtc *r)
{
    return (int64_t)(phased_ns(r) / NS_PER_S) + r->offset_s;
}

static uint8_t encode(const struct rtc *r, unsigned v)
{
    return (uint8_t)(r->reg[RTC_B] & B_BINARY ? v : v / 10 << 4 | v % 10);
}

static unsigned decode(const struct rtc *r, uint8_t v)
{
    return r->reg[RTC_B] & B_BINARY ? v : (v >> 4) * 10u + (v & 15u);
}

static uint8_t encode_hour(const struct rtc *r, unsigned hour)
{
    if (r->reg[RTC_B] & B_24H) {
        return encode(r, hour);
    }
    unsigned h = hour % 12;
    return (uint8_t)(encode(r, h != 0 ? h : 12) | (hour >= 12 ? HOUR_PM : 0));
}

static unsigned decode_hour(const struct rtc *r, uint8_t v)
{
    if (r->reg[RTC_B] & B_24H) {
        return decode(r, v);
    }
    unsigned h = decode(r, v & (uint8_t)~HOUR_PM) % 12;
    return v & HOUR_PM ? h + 12 : h;
}

/* The time bytes, from the time. */
static void fill_time(struct rtc *r, int64_t seconds)
{
    int64_t days = floor_div(seconds, DAY_S);
    unsigned s = (unsigned)(seconds - days * DAY_S);
    struct date d = date_of(days);
    int64_t year = d.year < 0 ? 0 : d.year;
    int64_t week = (days + 4) % 7; /* 1970-01-01 was a Thursday; Sunday is 1 */
    r->reg[RTC_SECONDS] = encode(r, s % 60);
    r->reg[RTC_MINUTES] = encode(r, s / 60 % 60);
    r->reg[RTC_HOURS] = encode_hour(r, s / 3600);
    r->reg[RTC_WEEKDAY] = encode(r, (unsigned)(week < 0 ? week + 7 : week) + 1);
    r->reg[RTC_DAY] = encode(r, (unsigned)d.day);
    r->reg[RTC_MONTH] = encode(r, (unsigned)d.month);
    r->reg[RTC_YEAR] = encode(r, (unsigned)(year % 100));
    r->reg[RTC_CENTURY] = encode(r, (unsigned)(year / 100 % 100));
}

/* The time, from the time bytes. Values out of range carry over, month 0 excepted. */
static int64_t read_time(const struct rtc *r)
{
    unsigned month = decode(r, r->reg[RTC_MONTH]);
    struct date d = {
        .year = (int64_t)decode(r, r->reg[RTC_CENTURY]) * 100 + decode(r, r->reg[RTC_YEAR]),
        .month = month < 1    ? 1
                 : month > 12 ? 12
                              : (int)month,
        .day = (int)decode(r, r->reg[RTC_DAY]),
    };
    return days_of(d) * DAY_S + decode_hour(r, r->reg[RTC_HOURS]) * 3600ll +
           decode(r, r->reg[RTC_MINUTES]) * 60ll + decode(r, r->reg[RTC_SECONDS]);
}

static void set_time(struct rtc *r)
{
    r->offset_s = read_time(r) - (int64_t)(phased_ns(r) / NS_PER_S);
    r->second_seen = seconds_now(r);
}

static bool update_in_progress(const struct rtc *r)
{
    return runs(r) && NS_PER_S - phased_ns(r) % NS_PER_S <= UIP_NS;
}

/* -- Interrupts -------------------------------------------------------------------------------- */
/* Crystal ticks of the periodic interrupt, 0: none. Data sheet, table 5. */
static uint64_t period_ticks(const struct rtc *r)
{
    unsigned rs = r->reg[RTC_A] & A_RS;
    if (rs == 0 || divider_held(r)) {
        return 0;
    }
    return rs <= 2 ? 1u << (rs + 6) : 1u << (rs - 1);
}

static uint64_t periods_now(const struct rtc *r)
{
    uint64_t ticks = period_ticks(r);
    uint64_t now = clock_now_ns(r->clock);
    return ticks != 0 ? ns_to_ticks(now - r->period_base_ns, CRYSTAL_HZ) / ticks : 0;
}

static bool alarm_field(uint8_t alarm, uint8_t time)
{
    return (alarm & ALARM_ANY) == ALARM_ANY || alarm == time;
}

/* Is second (since 1970) one that the alarm names? */
static bool alarm_at(const struct rtc *r, int64_t second)
{
    unsigned s = (unsigned)(second - floor_div(second, DAY_S) * DAY_S);
    return alarm_field(r->reg[RTC_SECONDS_ALARM], encode(r, s % 60)) &&
           alarm_field(r->reg[RTC_MINUTES_ALARM], encode(r, s / 60 % 60)) &&
           alarm_field(r->reg[RTC_HOURS_ALARM], encode_hour(r, s / 3600));
}

/* Raise the flags of what happened since the last look. */
static void look(struct rtc *r)
{
    uint64_t periods = periods_now(r);
    if (periods != r->periods_seen) {
        r->reg[RTC_C] |= C_PF;
        r->periods_seen = periods;
    }
    if (!runs(r)) {
        return;
    }
    int64_t now = seconds_now(r);
    int64_t from = r->second_seen;
    r->second_seen = now;
    if (now == from) {
        return;
    }
    r->reg[RTC_C] |= C_UF;
    if (from > now || from < now - DAY_S) {
        from = from > now ? now - 1 : now - DAY_S; /* the host's clock was set, or time went by */
    }
    for (int64_t s = from + 1; s <= now && !(r->reg[RTC_C] & C_AF); s++) {
        if (alarm_at(r, s)) {
            r->reg[RTC_C] |= C_AF;
        }
    }
}

static void arm(struct rtc *r)
{
    uint64_t now = clock_now_ns(r->clock);
    uint64_t next = TIMER_NEVER;
    uint8_t wanted = r->reg[RTC_B] & (uint8_t)~r->reg[RTC_C]; /* a flag that is up is old news */
    if ((wanted & B_PIE) && period_ticks(r) != 0) {
        uint64_t tick = (r->periods_seen + 1) * period_ticks(r);
        next = deadline_after(r->period_base_ns, ticks_to_ns(tick, CRYSTAL_HZ));
    }
    if ((wanted & (B_UIE | B_AIE)) && runs(r)) {
        uint64_t second = deadline_after(now, NS_PER_S - phased_ns(r) % NS_PER_S);
        next = second < next ? second : next;
    }
    timer_arm(&r->timer, next);
}

static void update(struct rtc *r)
{
    uint8_t active = r->reg[RTC_B] & r->reg[RTC_C] & (C_PF | C_AF | C_UF);
    r->reg[RTC_C] = (uint8_t)((r->reg[RTC_C] & ~C_IRQF) | (active ? C_IRQF : 0));
    irq_set(&r->irq8, active != 0);
    irq_set(&r->nmi_mask, r->nmi_masked);
    arm(r);
}

static void rtc_timer(void *ctx, uint64_t now_ns)
{
    struct rtc *r = ctx;
    (void)now_ns;
    look(r);
    update(r);
}

/* -- Registers --------------------------------------------------------------------------------- */
static bool is_time(unsigned i)
{
    return i == RTC_CENTURY || i == RTC_SECONDS || i == RTC_MINUTES || i == RTC_HOURS ||
           (i >= RTC_WEEKDAY && i <= RTC_YEAR);
}

/* Before and after a change of A or B, the clock may stop, start, or be shown otherwise. */
static void write_control(struct rtc *r, unsigned i, uint8_t v)
{
    bool ran = runs(r);
    bool held = divider_held(r);
    if (ran) {
        fill_time(r, seconds_now(r));
    }
    r->reg[i] = v;
    if (held && !divider_held(r)) {
        uint64_t wall = r->wall_ns(r->wall_ctx) % NS_PER_S;
        r->phase_ns = (uint32_t)((NS_PER_S + DIVIDER_START_NS - wall) % NS_PER_S);
        r->period_base_ns = clock_now_ns(r->clock);
    }
    if (!ran && runs(r)) {
        set_time(r);
    }
    r->periods_seen = periods_now(r); /* of the new rate */
}

static void rtc_write_reg(struct rtc *r, unsigned i, uint8_t v)
{
    switch (i) {
    case RTC_A:
        write_control(r, i, v & (uint8_t)~A_UIP);
        break;
    case RTC_B:
        write_control(r, i, v & B_SET ? v & (uint8_t)~B_UIE : v);
        break;
    case RTC_C:
    case RTC_D:
        log_guest("rtc", "write to read-only register %#x", i);
        break;
    default:
        if (is_time(i) && runs(r)) {
            fill_time(r, seconds_now(r));
            r->reg[i] = v;
            set_time(r);
        } else {
            r->reg[i] = v;
        }
        break;
    }
}

static uint8_t rtc_read_reg(struct rtc *r, unsigned i)
{
    if (is_time(i) && runs(r)) {
        fill_time(r, seconds_now(r));
        return r->reg[i];
    }
    uint8_t v = r->reg[i];
    switch (i) {
    case RTC_A:
        return v | (update_in_progress(r) ? A_UIP : 0);
    case RTC_C:
        r->reg[RTC_C] = 0;
        return v;
    case RTC_D:
        return D_VRT;
    default:
        return v;
    }
}

static uint64_t rtc_read(void *dev, uint64_t offset, unsigned size)
{
    struct rtc *r = dev;
    (void)size;
    if (offset == 0) {
        return 0xff; /* the index cannot be read */
    }
    look(r);
    update(r); /* IRQF as C is read */
    uint8_t v = rtc_read_reg(r, r->index);
    update(r);
    return v;
}

static void rtc_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct rtc *r = dev;
    (void)size;
    if (offset == 0) {
        r->index = value & 0x7f;
        r->nmi_masked = value & 0x80;
    } else {
        look(r);
        rtc_write_reg(r, r->index, (uint8_t)value);
    }
    update(r);
}

void rtc_set_cmos(struct rtc *r, unsigned index, uint8_t value)
{
    if (index > RTC_D && index < RTC_CMOS_SIZE && index != RTC_CENTURY) {
        r->reg[index] = value;
    }
}

static const struct region_ops rtc_ops = { .read = rtc_read,
                                           .write = rtc_write,
                                           .sizes = ACCESS_1 };

/* -- State ------------------------------------------------------------------------------------- */
static const struct state_field rtc_state[] = {
    STATE(struct rtc, index),
    STATE(struct rtc, nmi_masked),
    STATE_BYTES(struct rtc, reg),
    STATE(struct rtc, offset_s),
    STATE(struct rtc, phase_ns),
    STATE(struct rtc, period_base_ns),
    STATE(struct rtc, periods_seen),
    STATE(struct rtc, second_seen),
    STATE_END,
};

/* RESET# clears the enables and the flags; time, alarm, CMOS, rate and format stay. */
static void rtc_reset(void *dev)
{
    struct rtc *r = dev;
    look(r);
    r->reg[RTC_B] &= (uint8_t) ~(B_PIE | B_AIE | B_UIE | B_SQWE);
    r->reg[RTC_C] = 0;
    r->index = 0;
    r->nmi_masked = false;
    update(r);
}

static void rtc_pre_save(void *dev)
{
    struct rtc *r = dev;
    look(r);
    update(r);
    if (runs(r)) {
        fill_time(r, seconds_now(r));
    }
}

static int rtc_post_load(void *dev, struct err *e)
{
    struct rtc *r = dev;
    uint64_t now = clock_now_ns(r->clock);
    if (r->index >= RTC_CMOS_SIZE || r->phase_ns >= NS_PER_S || r->offset_s > OFFSET_MAX_S ||
        r->offset_s < -OFFSET_MAX_S || r->period_base_ns > now || (r->reg[RTC_A] & A_UIP)) {
        return err_set(e, -EINVAL, "impossible state of the clock");
    }
    uint64_t periods = periods_now(r);
    if (r->periods_seen > periods) {
        r->periods_seen = periods;
    }
    look(r); /* the wall clock went on while the machine was saved */
    update(r);
    return 0;
}

static const struct dev_class rtc_class = {
    .name = "rtc",
    .version = 1,
    .state = rtc_state,
    .size = sizeof(struct rtc),
    .reset = rtc_reset,
    .post_load = rtc_post_load,
    .pre_save = rtc_pre_save,
};

void rtc_init(struct rtc *r, struct bus *b, const struct rtc_config *cfg)
{
    *r = (struct rtc){
        .clock = cfg->clock,
        .wall_ns = cfg->wall_ns,
        .wall_ctx = cfg->wall_ctx,
        .irq8 = cfg->irq8,
        .nmi_mask = cfg->nmi_mask,
        .period_base_ns = clock_now_ns(cfg->clock),
    };
    r->reg[RTC_A] = 0x26; /* 32.768 kHz, 1024 Hz: what PC firmware leaves */
    r->reg[RTC_B] = B_24H;
    r->second_seen = seconds_now(r);
    timer_init(&r->timer, cfg->clock, rtc_timer, r);
    dev_register(b, &r->dev, &rtc_class, "rtc");
    bus_add_port(b, 0x70, 2, &rtc_ops, r);
    rtc_reset(r);
}

void rtc_fini(struct rtc *r)
{
    timer_cancel(&r->timer);
    dev_unregister(&r->dev);
}
