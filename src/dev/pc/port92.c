/* SPDX-License-Identifier: Apache-2.0
 *
 * System control port A (PS/2 Technical Reference; PIIX3 leaves it to the super I/O). Bit 0: a
 * change to 1 resets the processors; bit 1: address line 20. The rest (disk lights, CMOS lock) is
 * storage.
 */
#include "dev/pc/port92.h"

enum { FAST_RESET = 0x01, FAST_A20 = 0x02 };

static uint64_t port92_read(void *dev, uint64_t offset, unsigned size)
{
    const struct port92 *p = dev;
    (void)offset;
    (void)size;
    return p->value;
}

static void port92_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct port92 *p = dev;
    (void)offset;
    (void)size;
    uint8_t old = p->value;
    p->value = (uint8_t)value;
    irq_set(&p->a20, (p->value & FAST_A20) != 0);
    if (~old & p->value & FAST_RESET) {
        irq_pulse(&p->reset);
    }
}

static const struct region_ops port92_ops = {
    .read = port92_read,
    .write = port92_write,
    .sizes = ACCESS_1,
};

static const struct state_field port92_state[] = {
    STATE(struct port92, value),
    STATE_END,
};

static void port92_reset(void *dev)
{
    struct port92 *p = dev;
    p->value = 0;
    irq_set(&p->a20, 0);
}

static int port92_post_load(void *dev, struct err *e)
{
    struct port92 *p = dev;
    (void)e;
    irq_set(&p->a20, (p->value & FAST_A20) != 0);
    return 0;
}

static const struct dev_class port92_class = {
    .name = "port92",
    .version = 1,
    .state = port92_state,
    .size = sizeof(struct port92),
    .reset = port92_reset,
    .post_load = port92_post_load,
};

void port92_init(struct port92 *p, struct bus *b, const struct irq *a20, const struct irq *reset)
{
    *p = (struct port92){ .a20 = *a20, .reset = *reset };
    dev_register(b, &p->dev, &port92_class, "port92");
    bus_add_port(b, 0x92, 1, &port92_ops, p);
    port92_reset(p);
}

void port92_fini(struct port92 *p) { dev_unregister(&p->dev); }
