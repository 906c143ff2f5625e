/* SPDX-License-Identifier: Apache-2.0 -- exit port, debug console, POST code */
#include "dev/pc/debug_port.h"

#define DEBUGCON_ID 0xe9u /* what Bochs answers at port 0xe9 */

/* -- Exit port --------------------------------------------------------------------------------- */
static uint64_t exit_read(void *dev, uint64_t offset, unsigned size)
{
    (void)dev;
    (void)offset;
    (void)size;
    return 0;
}

static void exit_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct exit_port *p = dev;
    (void)offset;
    (void)size;
    p->exit(p->ctx, (uint32_t)value << 1 | 1);
}

static const struct region_ops exit_ops = {
    .read = exit_read,
    .write = exit_write,
    .sizes = ACCESS_1 | ACCESS_2 | ACCESS_4,
    .unaligned = true,
};

void exit_port_init(struct exit_port *p, struct bus *b, uint16_t port,
                    void (*exit)(void *ctx, uint32_t status), void *ctx)
{
    uint32_t room = 0x10000u - port;
    *p = (struct exit_port){ .exit = exit, .ctx = ctx };
    p->region = bus_add_port(b, port, room < 4 ? room : 4, &exit_ops, p);
}

void exit_port_fini(struct exit_port *p)
{
    region_remove(p->region);
    p->region = NULL;
}

/* -- Debug console ----------------------------------------------------------------------------- */
static uint64_t debugcon_read(void *dev, uint64_t offset, unsigned size)
{
    (void)dev;
    (void)offset;
    (void)size;
    return DEBUGCON_ID;
}

static void debugcon_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct debugcon *d = dev;
    uint8_t byte = (uint8_t)value;
    (void)offset;
    (void)size;
    if (d->backend.write != NULL) {
        d->backend.write(d->backend.ctx, &byte, 1);
    }
}

static const struct region_ops debugcon_ops = {
    .read = debugcon_read,
    .write = debugcon_write,
    .sizes = ACCESS_1,
};

void debugcon_init(struct debugcon *d, struct bus *b, uint16_t port,
                   const struct char_backend *backend)
{
    *d = (struct debugcon){ .backend = *backend };
    d->region = bus_add_port(b, port, 1, &debugcon_ops, d);
}

void debugcon_fini(struct debugcon *d)
{
    region_remove(d->region);
    d->region = NULL;
}

/* -- Power-on self-test code ------------------------------------------------------------------- */
static uint64_t post_read(void *dev, uint64_t offset, unsigned size)
{
    const struct post_port *p = dev;
    (void)offset;
    (void)size;
    return p->code;
}

static void post_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct post_port *p = dev;
    (void)offset;
    (void)size;
    p->code = (uint8_t)value;
}

static const struct region_ops post_ops = {
    .read = post_read,
    .write = post_write,
    .sizes = ACCESS_1,
};

static const struct state_field post_state[] = {
    STATE(struct post_port, code),
    STATE_END,
};

static void post_reset(void *dev)
{
    struct post_port *p = dev;
    p->code = 0;
}

static const struct dev_class post_class = {
    .name = "post",
    .version = 1,
    .state = post_state,
    .size = sizeof(struct post_port),
    .reset = post_reset,
};

void post_port_init(struct post_port *p, struct bus *b)
{
    *p = (struct post_port){ .code = 0 };
    dev_register(b, &p->dev, &post_class, "post");
    bus_add_port(b, 0x80, 1, &post_ops, p);
}

void post_port_fini(struct post_port *p) { dev_unregister(&p->dev); }
