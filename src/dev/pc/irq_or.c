/* SPDX-License-Identifier: Apache-2.0 -- several outputs wired to one line */
#include "dev/pc/irq_or.h"

#include <assert.h>

static void input_set(void *ctx, int n, int level)
{
    struct irq_or *o = ctx;
    uint32_t bit = 1u << n;
    o->high = level != 0 ? o->high | bit : o->high & ~bit;
    /* Also when nothing changed: a listener that was reset or loaded learns of the level again. */
    irq_set(&o->out, o->high != 0);
}

void irq_or_init(struct irq_or *o, const struct irq *out) { *o = (struct irq_or){ .out = *out }; }

struct irq irq_or_input(struct irq_or *o, int n)
{
    assert(n >= 0 && n < IRQ_OR_INPUTS);
    return (struct irq){ input_set, o, n };
}
