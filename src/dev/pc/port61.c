/* SPDX-License-Identifier: Apache-2.0
 *
 * NMI status and control register of the PIIX3 (290550, 2.5.5). UNIMPL: SERR# (bits 2 and 7): no
 * device here raises it, so bit 7 reads 0.
 */
#include "dev/pc/port61.h"

#include <errno.h>

#include "base/bits.h"

enum port61_bit {
    BIT_GATE2 = 0x01,
    BIT_SPEAKER = 0x02,
    BIT_SERR_OFF = 0x04,
    BIT_IOCHK_OFF = 0x08,
    BIT_REFRESH = 0x10,
    BIT_OUT2 = 0x20,
    BIT_IOCHK = 0x40
};
#define WRITABLE (BIT_GATE2 | BIT_SPEAKER | BIT_SERR_OFF | BIT_IOCHK_OFF)

/* Memory refresh: 128 rows each 2 ms, less some; toggles at each */
#define REFRESH_NS 15085u

static void update(struct port61 *p)
{
    if (p->control & BIT_IOCHK_OFF) {
        p->iochk = false;
    }
    irq_set(&p->nmi, p->iochk);
    irq_set(&p->speaker, (p->control & (BIT_GATE2 | BIT_SPEAKER)) == (BIT_GATE2 | BIT_SPEAKER));
}

static uint64_t port61_read(void *dev, uint64_t offset, unsigned size)
{
    struct port61 *p = dev;
    (void)offset;
    (void)size;
    unsigned v = p->control | (p->iochk ? BIT_IOCHK : 0) | (pit_out2(p->pit) ? BIT_OUT2 : 0);
    return v | (clock_now_ns(p->pit->clock) / REFRESH_NS & 1 ? BIT_REFRESH : 0);
}

static void port61_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct port61 *p = dev;
    (void)offset;
    (void)size;
    p->control = value & WRITABLE;
    pit_set_gate2(p->pit, p->control & BIT_GATE2);
    update(p);
}

void port61_raise_iochk(struct port61 *p)
{
    p->iochk = true;
    update(p);
}

static const struct region_ops port61_ops = { .read = port61_read,
                                              .write = port61_write,
                                              .sizes = ACCESS_1 };

static const struct state_field port61_state[] = {
    STATE(struct port61, control),
    STATE(struct port61, iochk),
    STATE_END,
};

static void port61_reset(void *dev)
{
    struct port61 *p = dev;
    p->control = 0;
    p->iochk = false;
    pit_set_gate2(p->pit, 0);
    update(p);
}

static int port61_post_load(void *dev, struct err *e)
{
    struct port61 *p = dev;
    if (p->control & ~WRITABLE) {
        return err_set(e, -EINVAL, "impossible bits in port 0x61");
    }
    update(p);
    return 0;
}

static const struct dev_class port61_class = {
    .name = "port61",
    .version = 1,
    .state = port61_state,
    .size = sizeof(struct port61),
    .reset = port61_reset,
    .post_load = port61_post_load,
};

void port61_init(struct port61 *p, struct bus *b, const struct port61_config *cfg)
{
    *p = (struct port61){ .pit = cfg->pit, .nmi = cfg->nmi, .speaker = cfg->speaker };
    dev_register(b, &p->dev, &port61_class, "port61");
    bus_add_port(b, 0x61, 1, &port61_ops, p);
    port61_reset(p);
}

void port61_fini(struct port61 *p) { dev_unregister(&p->dev); }
