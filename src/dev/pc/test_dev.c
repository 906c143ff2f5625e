/* SPDX-License-Identifier: Apache-2.0
 *
 * Port 0xe0..0xe3 reads back what was written, in any size; a write to 0xe4 asks that one page be
 * mapped anew, which guests cannot see here; port 0x2000 + n drives ISA interrupt n; 64 KiB of
 * memory that is I/O lie at 0xff000000.
 */
#include "dev/pc/test_dev.h"

#include <string.h>

#include "base/bits.h"

static uint64_t load(const uint8_t *at, unsigned size)
{
    uint64_t v = 0;
    memcpy(&v, at, size);
    return v;
}

static uint64_t port_read(void *dev, uint64_t offset, unsigned size)
{
    const struct test_dev *t = dev;
    return load(t->port + offset, size);
}

static void port_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct test_dev *t = dev;
    memcpy(t->port + offset, &value, size);
}

static uint64_t memory_read(void *dev, uint64_t offset, unsigned size)
{
    const struct test_dev *t = dev;
    return load(t->memory + offset, size);
}

static void memory_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct test_dev *t = dev;
    memcpy(t->memory + offset, &value, size);
}

static uint64_t zero_read(void *dev, uint64_t offset, unsigned size)
{
    (void)dev;
    (void)offset;
    (void)size;
    return 0;
}

static void ignore_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    (void)dev;
    (void)offset;
    (void)size;
    (void)value;
}

static void line_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct test_dev *t = dev;
    uint16_t bit = (uint16_t)BIT(offset);
    (void)size;
    t->levels = value != 0 ? t->levels | bit : t->levels & (uint16_t)~bit;
    irq_set(&t->line[offset], value != 0);
}

static const struct region_ops port_ops = { .read = port_read,
                                            .write = port_write,
                                            .sizes = ACCESS_1 | ACCESS_2 | ACCESS_4 };
static const struct region_ops flush_ops = { .read = zero_read,
                                             .write = ignore_write,
                                             .sizes = ACCESS_1 | ACCESS_2 | ACCESS_4 };
static const struct region_ops line_ops = { .read = zero_read,
                                            .write = line_write,
                                            .sizes = ACCESS_1 };
static const struct region_ops memory_ops = {
    .read = memory_read,
    .write = memory_write,
    .sizes = ACCESS_1 | ACCESS_2 | ACCESS_4 | ACCESS_8,
    .unaligned = true,
};

static const struct state_field test_dev_state[] = {
    STATE_BYTES(struct test_dev, port),
    STATE_BYTES(struct test_dev, memory),
    STATE(struct test_dev, levels),
    STATE_END,
};

static void drive(struct test_dev *t)
{
    for (unsigned n = 0; n < TEST_DEV_LINES; n++) {
        irq_set(&t->line[n], t->levels >> n & 1);
    }
}

static void test_dev_reset(void *dev)
{
    struct test_dev *t = dev;
    memset(t->port, 0, sizeof t->port);
    memset(t->memory, 0, sizeof t->memory);
    t->levels = 0;
    drive(t);
}

static int test_dev_post_load(void *dev, struct err *e)
{
    (void)e;
    drive(dev);
    return 0;
}

static const struct dev_class test_dev_class = {
    .name = "test_dev",
    .version = 1,
    .state = test_dev_state,
    .size = sizeof(struct test_dev),
    .reset = test_dev_reset,
    .post_load = test_dev_post_load,
};

void test_dev_init(struct test_dev *t, struct bus *b, const struct irq line[TEST_DEV_LINES])
{
    memset(t, 0, sizeof *t);
    memcpy(t->line, line, sizeof t->line);
    dev_register(b, &t->dev, &test_dev_class, "test_dev");
    t->regions[0] = bus_add_port(b, 0xe0, sizeof t->port, &port_ops, t);
    t->regions[1] = bus_add_port(b, 0xe4, 4, &flush_ops, t);
    t->regions[2] = bus_add_port(b, 0x2000, TEST_DEV_LINES, &line_ops, t);
    t->regions[3] = bus_add_mmio(b, 0xff000000, TEST_DEV_MEMORY, &memory_ops, t);
}

void test_dev_fini(struct test_dev *t)
{
    for (unsigned i = 0; i < ARRAY_LEN(t->regions); i++) {
        region_remove(t->regions[i]);
    }
    dev_unregister(&t->dev);
}
