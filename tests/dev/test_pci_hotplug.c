/* SPDX-License-Identifier: Apache-2.0 */
// LAYERS: dev/pc bus mem state base
#include "support/dev.h"

#include "base/bits.h"
#include "dev/pc/pci_hotplug.h"

#define BASE 0xae00

/* Cards as bits, and what the chip asked for. */
struct board {
    struct dev_rig r;
    struct pci_hotplug h;
    uint32_t cards;
    uint32_t ejected;
    unsigned events;
};

static void on_change(void *ctx)
{
    struct board *b = ctx;
    b->events++;
}

static void on_eject(void *ctx, unsigned slot)
{
    struct board *b = ctx;
    assert_true(b->cards & BIT(slot)); /* nothing is taken out that is not in */
    b->cards &= ~(uint32_t)BIT(slot);
    b->ejected |= (uint32_t)BIT(slot);
}

static uint32_t removable(void *ctx)
{
    struct board *b = ctx;
    return b->cards;
}

static int setup(void **state)
{
    struct board *b = calloc(1, sizeof *b);
    const struct pci_hotplug_config cfg = {
        .changed = on_change, .eject = on_eject, .removable = removable, .ctx = b
    };
    dev_rig_init(&b->r);
    pci_hotplug_init(&b->h, b->r.bus, BASE, &cfg);
    b->cards = 0xe8; /* slots 3, 5, 6, 7 */
    *state = b;
    return 0;
}

static int teardown(void **state)
{
    struct board *b = *state;
    pci_hotplug_fini(&b->h);
    dev_rig_fini(&b->r);
    free(b);
    return 0;
}

static void test_came(void **state)
{
    struct board *b = *state;
    pci_hotplug_plug(&b->h, 3);
    pci_hotplug_plug(&b->h, 31);
    assert_int_equal(b->events, 2);
    assert_int_equal(dev_in32(&b->r, BASE), 0x80000008);
    assert_int_equal(dev_in32(&b->r, BASE), 0); /* told once */
    assert_int_equal(dev_in32(&b->r, BASE + 4), 0);
}

static void test_leave(void **state)
{
    struct board *b = *state;
    pci_hotplug_unplug(&b->h, 5);
    assert_int_equal(b->events, 1);
    assert_int_equal(dev_in32(&b->r, BASE + 4), 0x20);
    assert_int_equal(dev_in32(&b->r, BASE + 4), 0x20); /* until it is out */
    assert_int_equal(dev_in32(&b->r, BASE + 12), 0xe8);
    dev_out32(&b->r, BASE + 8, 0x20);
    assert_int_equal(b->ejected, 0x20);
    assert_int_equal(dev_in32(&b->r, BASE + 4), 0);
    assert_int_equal(dev_in32(&b->r, BASE + 12), 0xc8);
}

/* A guest may eject what nobody asked it to; where there is nothing, nothing happens. */
static void test_eject_all(void **state)
{
    struct board *b = *state;
    dev_out32(&b->r, BASE + 8, 0xffffffff);
    assert_int_equal(b->ejected, 0xe8);
    dev_out32(&b->r, BASE + 8, 0xffffffff);
    assert_int_equal(b->cards, 0);
    assert_int_equal(dev_in32(&b->r, BASE + 12), 0);
}

static void test_reset(void **state)
{
    struct board *b = *state;
    pci_hotplug_plug(&b->h, 3);
    pci_hotplug_unplug(&b->h, 5);
    pci_hotplug_unplug(&b->h, 9); /* its card has gone by itself since */
    bus_lock(b->r.bus);
    bus_reset(b->r.bus);
    bus_unlock(b->r.bus);
    assert_int_equal(b->ejected, 0x20);
    assert_int_equal(dev_in32(&b->r, BASE), 0);
    assert_int_equal(dev_in32(&b->r, BASE + 4), 0);
}

static void test_sizes(void **state)
{
    struct board *b = *state;
    pci_hotplug_unplug(&b->h, 5);
    assert_int_equal(dev_in8(&b->r, BASE + 4), 0x20); /* cut out of a read of all four */
    dev_out8(&b->r, BASE + 8, 0xff);
    dev_out16(&b->r, BASE + 8, 0xffff);
    assert_int_equal(b->ejected, 0);
    dev_out32(&b->r, BASE + 16, 1);
    dev_out32(&b->r, BASE, 1);
    assert_int_equal(dev_in32(&b->r, BASE + 16), 0);
}

static void test_state(void **state)
{
    struct board *b = *state;
    size_t len;
    struct err e;
    pci_hotplug_plug(&b->h, 3);
    pci_hotplug_unplug(&b->h, 5);
    uint8_t *saved = dev_save(b->r.bus, &len);
    (void)dev_in32(&b->r, BASE);
    dev_out32(&b->r, BASE + 8, 0x20);
    assert_int_equal(dev_load(b->r.bus, saved, len, &e), 0);
    assert_int_equal(dev_in32(&b->r, BASE), 8);
    assert_int_equal(dev_in32(&b->r, BASE + 4), 0x20);
    /* Whatever a state says, only what is in comes out. */
    dev_out32(&b->r, BASE + 8, 0x20);
    assert_int_equal(b->ejected, 0x20);
    free(saved);
}

#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = { T(test_came),  T(test_leave), T(test_eject_all),
                                        T(test_reset), T(test_sizes), T(test_state) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
