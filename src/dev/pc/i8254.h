/* SPDX-License-Identifier: Apache-2.0
 *
 * 8254 programmable interval timer: three counters of 1.193182 MHz. Counter 0 drives IRQ0; the
 * gate and output of counter 2 are in port 0x61. Thread: machine lock held.
 */
#ifndef SOSIA_DEV_PC_I8254_H
#define SOSIA_DEV_PC_I8254_H

#include "base/clock.h"
#include "bus/bus.h"
#include "bus/irq.h"

#define PIT_HZ 1193182u

struct pit_counter {
    uint8_t control; /* the last control word: RW, M, BCD */
    bool gate;
    bool cr_valid;     /* a whole count was written since the control word */
    uint32_t cr;       /* count register: ticks, 1..65536 */
    uint8_t write_lsb; /* first byte of two */
    bool write_msb;    /* the second byte of a count comes next */
    bool read_msb;     /* the second byte of a read comes next */
    bool null_count;   /* CR is newer than the counting element */

    bool loaded;         /* the counting element has a count, OUT follows from it */
    bool counting;       /* else frozen at `elapsed` */
    uint32_t count;      /* what it was loaded with: 1..65536 */
    uint64_t start_tick; /* while counting: when, in ticks of PIT_HZ since the clock began */
    uint64_t elapsed;    /* while frozen: ticks since the load */
    bool load_pending;   /* CR goes into the counting element at load_tick */
    uint64_t load_tick;

    bool count_latched;
    uint16_t latched_count;
    bool status_latched;
    uint8_t latched_status;
};

struct pit {
    struct dev dev;
    struct pit_counter counter[3];
    struct clock *clock; /* borrowed */
    struct timer timer;  /* next edge of counter 0's OUT */
    uint64_t edge_tick;  /* when that is; 0: none. Follows from the counter */
    struct irq irq0;
};

/* Ports base..base+3. irq0 is copied. */
void pit_init(struct pit *p, struct bus *b, uint16_t base, struct clock *c, const struct irq *irq0);
void pit_fini(struct pit *p);

/* For port 0x61. */
void pit_set_gate2(struct pit *p, int level);
int pit_out2(struct pit *p);

#endif
