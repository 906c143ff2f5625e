/* SPDX-License-Identifier: Apache-2.0
 *
 * MC146818 real-time clock with 128 bytes of CMOS, and the NMI mask in its index port. The time is
 * the host's wall clock plus what the guest changed. Thread: machine lock held.
 */
#ifndef SOSIA_DEV_PC_MC146818_H
#define SOSIA_DEV_PC_MC146818_H

#include "base/clock.h"
#include "bus/bus.h"
#include "bus/irq.h"

#define RTC_CMOS_SIZE 128
#define RTC_CENTURY 0x32 /* for the FADT */

struct rtc {
    struct dev dev;
    uint8_t index; /* what port 0x70 selects */
    bool nmi_masked;
    /* Registers and CMOS. Time bytes in here count only while the clock does not run (SET, or
     * divider held); else they are computed. */
    uint8_t reg[RTC_CMOS_SIZE];
    int64_t offset_s;        /* guest's seconds since 1970 minus those of wall_ns + phase_ns */
    uint32_t phase_ns;       /* below one second */
    uint64_t period_base_ns; /* guest clock: when the divider chain began */
    uint64_t periods_seen;   /* of the present rate, since then, at the last look */
    int64_t second_seen;     /* guest's second at the last look */

    uint64_t (*wall_ns)(void *ctx); /* nanoseconds since 1970 UTC */
    void *wall_ctx;
    struct clock *clock; /* borrowed */
    struct timer timer;  /* the next interrupt that is enabled */
    struct irq irq8;
    struct irq nmi_mask; /* level: the guest masks NMI */
};

struct rtc_config {
    struct clock *clock;
    uint64_t (*wall_ns)(void *ctx);
    void *wall_ctx;
    struct irq irq8;
    struct irq nmi_mask;
};

/* Ports 0x70 and 0x71. */
void rtc_init(struct rtc *r, struct bus *b, const struct rtc_config *cfg);
void rtc_fini(struct rtc *r);

/* What firmware keeps there: 14..127 but for the century. Not changed by reset. */
void rtc_set_cmos(struct rtc *r, unsigned index, uint8_t value);

#endif
