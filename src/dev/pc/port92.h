/* SPDX-License-Identifier: Apache-2.0
 *
 * Port 0x92, system control port A: fast A20 and fast reset.  Thread: machine lock held.
 */
#ifndef SOSIA_DEV_PC_PORT92_H
#define SOSIA_DEV_PC_PORT92_H

#include "bus/bus.h"
#include "bus/irq.h"

struct port92 {
    struct dev dev;
    struct irq a20;
    struct irq reset; /* pulsed: INIT# to the processors */
    uint8_t value;
};

void port92_init(struct port92 *p, struct bus *b, const struct irq *a20, const struct irq *reset);
void port92_fini(struct port92 *p);

#endif
