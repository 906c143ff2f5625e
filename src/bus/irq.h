/* SPDX-License-Identifier: Apache-2.0
 *
 * An interrupt line is a three-word value. A device holds a copy and calls irq_set; it cannot know
 * whether a PIC, an IOAPIC, an APIC pin or a test listens.  Thread: machine lock held.
 */
#ifndef SOSIA_BUS_IRQ_H
#define SOSIA_BUS_IRQ_H

#include <stddef.h>

struct irq {
    void (*set)(void *ctx, int n, int level); /* NULL: not connected */
    void *ctx;
    int n;
};

static inline void irq_set(const struct irq *irq, int level)
{
    if (irq->set != NULL) {
        irq->set(irq->ctx, irq->n, level);
    }
}

static inline void irq_pulse(const struct irq *irq)
{
    irq_set(irq, 1);
    irq_set(irq, 0);
}

#endif
