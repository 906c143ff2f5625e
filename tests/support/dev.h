/* SPDX-License-Identifier: Apache-2.0
 *
 * What device tests share: a bus with a clock that stands still until it is stepped, an interrupt
 * line that notes what it saw, and the save-load-save test.
 */
#ifndef SOSIA_TESTS_SUPPORT_DEV_H
#define SOSIA_TESTS_SUPPORT_DEV_H

#include "support/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "bus/bus.h"
#include "bus/irq.h"

struct dev_rig {
    struct bus *bus;
    struct clock *clock;
};

static inline void dev_rig_init(struct dev_rig *r)
{
    r->bus = bus_new(NULL);
    r->clock = clock_new_fake();
}

/* After every device's fini. */
static inline void dev_rig_fini(struct dev_rig *r)
{
    bus_free(r->bus);
    clock_free(r->clock);
}

static inline uint8_t dev_in8(struct dev_rig *r, uint16_t port)
{
    return (uint8_t)bus_port_read(r->bus, port, 1);
}
static inline uint16_t dev_in16(struct dev_rig *r, uint16_t port)
{
    return (uint16_t)bus_port_read(r->bus, port, 2);
}
static inline uint32_t dev_in32(struct dev_rig *r, uint16_t port)
{
    return bus_port_read(r->bus, port, 4);
}
static inline void dev_out8(struct dev_rig *r, uint16_t port, uint8_t v)
{
    bus_port_write(r->bus, port, 1, v);
}
static inline void dev_out16(struct dev_rig *r, uint16_t port, uint16_t v)
{
    bus_port_write(r->bus, port, 2, v);
}
static inline void dev_out32(struct dev_rig *r, uint16_t port, uint32_t v)
{
    bus_port_write(r->bus, port, 4, v);
}

/* Let time pass, as the machine's loop would. */
static inline void dev_step(struct dev_rig *r, uint64_t ns)
{
    bus_lock(r->bus);
    clock_step(r->clock, ns);
    bus_unlock(r->bus);
}

/* -- A line that counts ------------------------------------------------------------------------ */
struct dev_line {
    int level;
    unsigned rises;
    unsigned falls;
};

static inline void dev_line_set(void *ctx, int n, int level)
{
    struct dev_line *l = ctx;
    (void)n;
    l->rises += level && !l->level;
    l->falls += !level && l->level;
    l->level = !!level;
}

static inline struct irq dev_line_irq(struct dev_line *l)
{
    return (struct irq){ dev_line_set, l, 0 };
}

/* -- Save, load, save -------------------------------------------------------------------------- */
static inline uint8_t *dev_save(struct bus *b, size_t *len)
{
    struct state_out *out = state_out_new();
    bus_lock(b);
    bus_save(b, out);
    bus_unlock(b);
    const uint8_t *data = state_out_data(out, len);
    uint8_t *copy = malloc(*len);
    assert_non_null(copy);
    memcpy(copy, data, *len);
    state_out_free(out);
    return copy;
}

static inline int dev_load(struct bus *b, const uint8_t *data, size_t len, struct err *e)
{
    struct state_in *in;
    int r = state_in_new(&in, data, len, e);
    if (r < 0) {
        return r;
    }
    bus_lock(b);
    r = bus_load(b, in, e);
    bus_unlock(b);
    state_in_free(in);
    return r;
}

/* Save, reset everything, load: the state and the next deadline are what they were. */
static inline void dev_roundtrip(struct bus *b, struct clock *c)
{
    size_t len[2];
    uint8_t *first = dev_save(b, &len[0]);
    uint64_t deadline = clock_next_deadline(c);
    struct err e = { "" };
    bus_lock(b);
    bus_reset(b);
    bus_unlock(b);
    if (dev_load(b, first, len[0], &e) < 0) {
        fail_msg("%s", e.msg);
    }
    uint8_t *second = dev_save(b, &len[1]);
    assert_int_equal(len[0], len[1]);
    assert_memory_equal(first, second, len[0]);
    assert_int_equal(clock_next_deadline(c), deadline);
    free(first);
    free(second);
}

#endif
