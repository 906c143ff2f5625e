/* SPDX-License-Identifier: Apache-2.0
 *
 * System control port B, 0x61: the gate and output of timer counter 2, the speaker, the refresh
 * toggle, the enables of the NMI sources (PIIX3 2.5.5). Thread: machine lock held.
 */
#ifndef SOSIA_DEV_PC_PORT61_H
#define SOSIA_DEV_PC_PORT61_H

#include "bus/bus.h"
#include "bus/irq.h"
#include "dev/pc/i8254.h"

struct port61 {
    struct dev dev;
    uint8_t control;    /* bits 0..3 as written */
    bool iochk;         /* IOCHK# seen: bit 6 */
    struct pit *pit;    /* borrowed */
    struct irq nmi;     /* level: an enabled source is active */
    struct irq speaker; /* level: counter 2 reaches the speaker (bits 0 and 1) */
};

struct port61_config {
    struct pit *pit;
    struct irq nmi;
    struct irq speaker;
};

void port61_init(struct port61 *p, struct bus *b, const struct port61_config *cfg);
void port61_fini(struct port61 *p);

/* A device reports a failure on IOCHK#: latched until the guest disables the source (bit 3). */
void port61_raise_iochk(struct port61 *p);

#endif
