/* SPDX-License-Identifier: Apache-2.0
 *
 * Several outputs wired to one line: the line is high while any of them is. For shared interrupts
 * (COM1 and COM3, PCI and ISA), and for the two gates of address line 20.
 */
#ifndef SOSIA_DEV_PC_IRQ_OR_H
#define SOSIA_DEV_PC_IRQ_OR_H

#include <stdint.h>

#include "bus/irq.h"

#define IRQ_OR_INPUTS 32

/* Has no state of its own to save: after a load each device drives its output again. */
struct irq_or {
    struct irq out;
    uint32_t high; /* bit per input */
};

void irq_or_init(struct irq_or *o, const struct irq *out);
struct irq irq_or_input(struct irq_or *o, int n);

#endif
