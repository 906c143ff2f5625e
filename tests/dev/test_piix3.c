/* SPDX-License-Identifier: Apache-2.0 */
// LAYERS: dev/pc bus mem state base
#include "support/dev.h"

#include "dev/pc/i440fx.h"
#include "dev/pc/piix3.h"

struct fix {
    struct dev_rig rig;
    struct gmem *mem;
    struct i440fx host;
    struct piix3 isa;
    struct piix4_pm pm;
    struct pci_func card; /* slot 3, INTA# */
    struct dev_line irq[PIIX3_ISA_IRQS];
    struct dev_line reset;
    uint16_t pm_base;
    bool pm_on;
    unsigned pm_moves;
};

static void on_moved(void *ctx, uint16_t base, bool on)
{
    struct fix *f = ctx;
    f->pm_base = base;
    f->pm_on = on;
    f->pm_moves++;
}

static const struct state_field card_state[] = {
    STATE_BYTES(struct pci_func, config),
    STATE(struct pci_func, intx_level),
    STATE_END,
};

static void card_reset(void *dev) { pci_func_reset(dev); }
static int card_post_load(void *dev, struct err *e) { return pci_post_load(dev, e); }

static const struct dev_class card_class = { .name = "card",
                                             .version = 1,
                                             .state = card_state,
                                             .size = sizeof(struct pci_func),
                                             .reset = card_reset,
                                             .post_load = card_post_load };

static int setup(void **state)
{
    struct fix *f = calloc(1, sizeof *f);
    struct err e;
    struct irq pirq[4];
    struct irq isa[PIIX3_ISA_IRQS];
    assert_int_equal(gmem_new(&f->mem, 4u << 20, 0xc0000000, &e), 0);
    f->rig.bus = bus_new(f->mem);
    f->rig.clock = clock_new_fake();
    for (unsigned n = 0; n < 4; n++) {
        pirq[n] = piix3_pirq(&f->isa, n);
    }
    for (unsigned n = 0; n < PIIX3_ISA_IRQS; n++) {
        isa[n] = dev_line_irq(&f->irq[n]);
    }
    struct irq reset = dev_line_irq(&f->reset);
    i440fx_init(&f->host, f->rig.bus, pirq, NULL, NULL);
    struct pci_bus *pci = i440fx_pci(&f->host);
    piix3_init(&f->isa, f->rig.bus, pci, isa, &reset);
    piix4_pm_init(&f->pm, f->rig.bus, pci, on_moved, NULL, f);
    pci_func_init(&f->card, pci, PCI_DEVFN(3, 0), 0x1234, 0x5678, 0xff0000, 0);
    f->card.config[PCI_INTERRUPT_PIN] = 1;
    dev_register(f->rig.bus, &f->card.dev, &card_class, "card");
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fix *f = *state;
    pci_func_fini(&f->card);
    dev_unregister(&f->card.dev);
    piix4_pm_fini(&f->pm);
    piix3_fini(&f->isa);
    i440fx_fini(&f->host);
    dev_rig_fini(&f->rig);
    gmem_free(f->mem);
    free(f);
    return 0;
}

static void config_out(struct fix *f, unsigned fn, unsigned reg, unsigned size, uint32_t v)
{
    dev_out32(&f->rig, 0xcf8, 0x80000000u | (uint32_t)PCI_DEVFN(1, fn) << 8 | (reg & 0xfc));
    bus_port_write(f->rig.bus, (uint16_t)(0xcfc + (reg & 3)), size, v);
}

static uint32_t config_in(struct fix *f, unsigned fn, unsigned reg, unsigned size)
{
    dev_out32(&f->rig, 0xcf8, 0x80000000u | (uint32_t)PCI_DEVFN(1, fn) << 8 | (reg & 0xfc));
    return bus_port_read(f->rig.bus, (uint16_t)(0xcfc + (reg & 3)), size);
}

static void drive(struct fix *f, int level)
{
    bus_lock(f->rig.bus);
    pci_set_intx(&f->card, level);
    bus_unlock(f->rig.bus);
}

static void reset_all(struct fix *f)
{
    bus_lock(f->rig.bus);
    bus_reset(f->rig.bus);
    bus_unlock(f->rig.bus);
}

static void test_identity(void **state)
{
    struct fix *f = *state;
    assert_int_equal(config_in(f, 0, 0, 4), 0x70008086);
    assert_int_equal(config_in(f, 0, 8, 4), 0x06010000);
    assert_int_equal(config_in(f, 0, PCI_HEADER_TYPE, 1), 0x80); /* more functions */
    assert_int_equal(config_in(f, 3, 0, 4), 0x71138086);
    assert_int_equal(config_in(f, 3, 8, 4), 0x06800003);
    assert_int_equal(config_in(f, 0, 0x60, 4), 0x80808080);
    assert_int_equal(config_in(f, 3, PCI_INTERRUPT_PIN, 1), 1);
}

/* Slot 3 INTA# is PIRQC. */
static void test_routing(void **state)
{
    struct fix *f = *state;
    drive(f, 1);
    for (unsigned n = 0; n < PIIX3_ISA_IRQS; n++) {
        assert_int_equal(f->irq[n].level, 0);
    }
    config_out(f, 0, 0x62, 1, 11);
    assert_int_equal(f->irq[11].level, 1);
    config_out(f, 0, 0x62, 1, 5); /* moves while it is high */
    assert_int_equal(f->irq[11].level, 0);
    assert_int_equal(f->irq[5].level, 1);
    drive(f, 0);
    assert_int_equal(f->irq[5].level, 0);
    drive(f, 1);
    config_out(f, 0, 0x62, 1, 0x85);
    assert_int_equal(f->irq[5].level, 0);
    for (unsigned n = 0; n < 16; n++) {
        bool reserved = n == 0 || n == 1 || n == 2 || n == 8 || n == 13;
        config_out(f, 0, 0x62, 1, n);
        assert_int_equal(f->irq[n].level, !reserved);
    }
    reset_all(f);
    assert_int_equal(f->irq[15].level, 0);
}

static void test_shared_irq(void **state)
{
    struct fix *f = *state;
    struct irq pirq0 = piix3_pirq(&f->isa, 0);
    config_out(f, 0, 0x60, 4, 0x0b0b0b0b);
    drive(f, 1);
    irq_set(&pirq0, 1);
    drive(f, 0);
    assert_int_equal(f->irq[11].level, 1);
    assert_int_equal(f->irq[11].rises, 1);
    irq_set(&pirq0, 0);
    assert_int_equal(f->irq[11].level, 0);
}

static void test_reset_control(void **state)
{
    struct fix *f = *state;
    dev_out8(&f->rig, 0xcf9, 0x02);
    assert_int_equal(f->reset.rises, 0);
    assert_int_equal(dev_in8(&f->rig, 0xcf9), 0x02);
    dev_out8(&f->rig, 0xcf9, 0x06);
    assert_int_equal(f->reset.rises, 1);
    reset_all(f);
    assert_int_equal(dev_in8(&f->rig, 0xcf9), 0);
    dev_out8(&f->rig, 0xcf9, 0x04); /* without the other bit first */
    assert_int_equal(f->reset.rises, 2);
    /* The configuration address around it is not meant. */
    dev_out32(&f->rig, 0xcf8, 0x80000600);
    assert_int_equal(f->reset.rises, 2);
}

static void test_power_management_base(void **state)
{
    struct fix *f = *state;
    assert_int_equal(f->pm_moves, 1);
    assert_false(f->pm_on);
    assert_int_equal(config_in(f, 3, 0x40, 4), 1);
    config_out(f, 3, 0x40, 4, 0xb07f);
    assert_int_equal(config_in(f, 3, 0x40, 4), 0xb041);
    assert_false(f->pm_on);
    config_out(f, 3, 0x80, 1, 0xff);
    assert_int_equal(config_in(f, 3, 0x80, 1), 1);
    assert_true(f->pm_on);
    assert_int_equal(f->pm_base, 0xb040);
    unsigned moves = f->pm_moves;
    config_out(f, 3, 0x5c, 4, 0x12345678);
    assert_int_equal(f->pm_moves, moves);
    config_out(f, 3, 0x80, 1, 0);
    assert_false(f->pm_on);
}

static void test_firmware_setup(void **state)
{
    struct fix *f = *state;
    piix3_firmware_setup(&f->isa, &f->pm);
    assert_int_equal(config_in(f, 0, 0x60, 4), 0x0b0b0a0a);
    assert_true(f->pm_on);
    assert_int_equal(f->pm_base, PIIX4_PM_BASE);
    drive(f, 1);
    assert_int_equal(f->irq[11].level, 1);
    f->pm_on = false;
    dev_roundtrip(f->rig.bus, f->rig.clock);
    assert_true(f->pm_on);
    assert_int_equal(f->irq[11].level, 1);
    reset_all(f);
    assert_false(f->pm_on);
    assert_int_equal(f->irq[11].level, 0);
}

static void test_save_load_save(void **state)
{
    struct fix *f = *state;
    uint64_t seed = 4242;
    for (int i = 0; i < 2000; i++) {
        uint64_t r = test_random(&seed);
        unsigned fn = r & 1 ? 3 : 0;
        config_out(f, fn, (unsigned)(r >> 8 & 0xff), 1, (uint8_t)(r >> 16));
        drive(f, (int)(r >> 24 & 1));
        if (i % 8 == 0) {
            int level[PIIX3_ISA_IRQS];
            for (unsigned n = 0; n < PIIX3_ISA_IRQS; n++) {
                level[n] = f->irq[n].level;
            }
            dev_roundtrip(f->rig.bus, f->rig.clock);
            for (unsigned n = 0; n < PIIX3_ISA_IRQS; n++) {
                assert_int_equal(f->irq[n].level, level[n]);
            }
        }
    }
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_identity),
        TEST(test_routing),
        TEST(test_shared_irq),
        TEST(test_reset_control),
        TEST(test_power_management_base),
        TEST(test_firmware_setup),
        TEST(test_save_load_save),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
