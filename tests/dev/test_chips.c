/* SPDX-License-Identifier: Apache-2.0
 *
 * Interrupt controllers that are given away, to an engine that has its own, and taken back: they
 * come back as they went, and do nothing meanwhile but see their inputs.
 */
// LAYERS: dev/pc bus mem state base
#include "dev/apic.h"

#include "dev/pc/i8259.h"

#define MASKED 0x10000u
#define LEVEL 0x8000u

static void same_registers(struct apic_rig *a, const uint32_t before[64])
{
    for (unsigned reg = 0; reg < 64; reg++) {
        if (reg != 0x0b) {
            assert_int_equal(apic_get(a, 0, reg * 16), before[reg]);
        }
    }
}

static void test_lapic(void **state)
{
    struct apic_rig *a = *state;
    struct lapic *l = &a->cpu[0].lapic;
    struct chip_lapic regs;
    uint32_t before[64];
    apic_enable_all(a);
    apic_set(a, 0, 0x80, 0x20);
    apic_set(a, 0, 0xd0, 0x05000000);
    apic_set(a, 0, 0xe0, 0x0fffffff);
    apic_set(a, 0, 0x350, 0x700);
    apic_set(a, 0, 0x320, 0x20000 | 0x41); /* periodic */
    apic_set(a, 0, 0x3e0, 0xb);
    apic_set(a, 0, 0x380, 1000000);
    apic_set(a, 0, 0x310, 0x01000000);
    const struct apic_msg m = { .vector = 0x63, .delivery = APIC_FIXED, .level = true };
    assert_true(apic_bus_deliver(&a->apics, &m, NULL));
    assert_int_equal(lapic_ack(l), 0x63);
    assert_true(apic_bus_deliver(&a->apics, &m, NULL));
    dev_step(&a->rig, 300000);
    for (unsigned reg = 0; reg < 64; reg++) {
        before[reg] = apic_get(a, 0, reg * 16);
    }
    assert_int_equal(before[0x39], 700000);

    lapic_give(l, &regs);
    assert_int_equal(regs.reg[0x39], 700000);
    assert_int_equal(a->cpu[0].intr, 0);
    dev_step(&a->rig, 50000000); /* many periods */
    struct irq lint0 = lapic_lint(l, 0);
    irq_set(&lint0, 1);
    assert_int_equal(a->cpu[0].intr, 0);
    irq_set(&lint0, 0);
    assert_false(apic_bit(a, 0, 0x200, 0x41));

    /* What comes back ran elsewhere; this did not. */
    lapic_take(l, &regs);
    same_registers(a, before);
    assert_int_equal(a->cpu[0].intr, 0); /* 0x63 in service holds 0x63 back */
    dev_step(&a->rig, 699999);
    assert_false(apic_bit(a, 0, 0x200, 0x41));
    dev_step(&a->rig, 1);
    assert_true(apic_bit(a, 0, 0x200, 0x41));
    dev_roundtrip(a->rig.bus, a->rig.clock);
}

static void test_lapic_deadline_and_x2apic(void **state)
{
    struct apic_rig *a = *state;
    struct lapic *l = &a->cpu[2].lapic;
    struct chip_lapic regs;
    uint64_t v;
    apic_enable_all(a);
    apic_set(a, 2, 0xd0, 0x04000000);
    assert_true(lapic_msr_write(l, 0x1b, l->base | LAPIC_BASE_X2));
    assert_true(lapic_msr_write(l, 0x832, 0x40000 | 0x41));
    assert_true(lapic_msr_write(l, 0x6e0, 2000000)); /* 1 ms */
    lapic_give(l, &regs);
    assert_int_equal(regs.reg[2], 2);
    assert_int_equal(regs.reg[0xd], 1u << 2);
    assert_int_equal(regs.tsc_deadline, 2000000);
    dev_step(&a->rig, 2000000);
    assert_int_equal(a->cpu[2].intr, 0);
    regs.tsc_deadline = 6000000;
    lapic_take(l, &regs);
    assert_true(lapic_msr_read(l, 0x6e0, &v) && v == 6000000);
    dev_step(&a->rig, 1000000);
    assert_int_equal(a->cpu[2].intr, 1);
    assert_int_equal(lapic_ack(l), 0x41);
    assert_true(lapic_msr_read(l, 0x1b, &v) && (v & LAPIC_BASE_X2));
}

/* Whatever comes, what is kept can be saved and loaded. */
static void test_lapic_garbage(void **state)
{
    struct apic_rig *a = *state;
    uint64_t seed = 5;
    for (unsigned i = 0; i < 200; i++) {
        struct chip_lapic regs = { .base = test_random(&seed) | LAPIC_BASE_EN,
                                   .tsc_deadline = test_random(&seed) };
        struct lapic *l = &a->cpu[i % APICS].lapic;
        for (unsigned reg = 0; reg < 64; reg++) {
            regs.reg[reg] = (uint32_t)test_random(&seed);
        }
        struct chip_lapic out;
        lapic_give(l, &out);
        lapic_take(l, &regs);
        dev_roundtrip(a->rig.bus, a->rig.clock);
        lapic_ack(l);
    }
}

static struct {
    unsigned count, pin;
    int level;
    struct apic_msg msg;
    const struct lapic *except;
} seen;

static void divert_line(void *ctx, unsigned pin, int level)
{
    (void)ctx;
    seen.count++;
    seen.pin = pin;
    seen.level = level;
}

static bool divert_message(void *ctx, const struct apic_msg *m, const struct lapic *except)
{
    (void)ctx;
    seen.count++;
    seen.msg = *m;
    seen.except = except;
    return true;
}

static void count_route(void *ctx) { ++*(unsigned *)ctx; }

static void test_ioapic(void **state)
{
    struct apic_rig *a = *state;
    struct chip_ioapic regs;
    memset(&seen, 0, sizeof seen);
    apic_enable_all(a);
    ioapic_route(a, 4, 1, LEVEL | 0x44);
    ioapic_line(a, 4, 1);
    assert_int_equal(a->ioapic.redir[4] & 0xffff, LEVEL | 0x4044);
    const struct ioapic before = a->ioapic;
    ioapic_give(&a->ioapic, &regs);
    a->ioapic.divert = divert_line;
    ioapic_line(a, 6, 1);
    assert_int_equal(seen.count, 1);
    assert_int_equal(seen.pin, 6);
    assert_int_equal(seen.level, 1);
    a->ioapic.divert = NULL;
    ioapic_take(&a->ioapic, &regs);
    assert_memory_equal(a->ioapic.redir, before.redir, sizeof before.redir);
    assert_int_equal(a->ioapic.lines, 1u << 4 | 1u << 6);
    memset(&regs, 0xff, sizeof regs);
    ioapic_take(&a->ioapic, &regs);
    dev_roundtrip(a->rig.bus, a->rig.clock);
}

/* The local APICs alone are elsewhere: messages go there, and who ends them must be told of routes.
 */
static void test_messages(void **state)
{
    struct apic_rig *a = *state;
    unsigned routes = 0;
    uint64_t address;
    uint32_t data;
    memset(&seen, 0, sizeof seen);
    a->apics.divert = divert_message;
    a->ioapic.routed = count_route;
    a->ioapic.ctx = &routes;
    ioapic_route(a, 4, 1, LEVEL | MASKED | 0x44);
    assert_int_equal(routes, 2);
    ioapic_route(a, 4, 1, LEVEL | 0x44); /* a mask is no other route */
    assert_int_equal(routes, 2);
    ioapic_line(a, 4, 1);
    assert_int_equal(seen.count, 1);
    assert_int_equal(seen.msg.vector, 0x44);
    assert_true(seen.msg.level);
    assert_int_equal(ioapic_get(a, 0x18), LEVEL | 0x4044);
    msi_compose(&seen.msg, &address, &data);
    assert_int_equal(address, 0xfee01000);
    assert_int_equal(data, 0xc044);
    msi_send(&a->apics, 0xfee0200c, 0x4155); /* logical, lowest priority */
    msi_compose(&seen.msg, &address, &data);
    assert_int_equal(address, 0xfee0200c);
    assert_int_equal(data, 0x4155);
    const struct apic_msg far = { .dest = 0x12345, .vector = 0x30, .delivery = APIC_NMI };
    msi_compose(&far, &address, &data);
    assert_int_equal(address, 0x12300fee45000);
    assert_int_equal(data, 0x4430);
    a->apics.divert = NULL;
    a->ioapic.routed = NULL;
}

static void test_pic(void **state)
{
    (void)state;
    struct dev_rig rig;
    static struct pic p;
    struct dev_line intr = { 0 };
    struct chip_pic regs[2];
    uint64_t seed = 9;
    dev_rig_init(&rig);
    struct irq out = dev_line_irq(&intr);
    pic_init(&p, rig.bus, &out);
    for (unsigned i = 0; i < 2000; i++) {
        static const uint16_t ports[] = { 0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1 };
        uint64_t x = test_random(&seed);
        struct irq line = pic_irq(&p, (int)(x & 15));
        irq_set(&line, x >> 4 & 1);
        dev_out8(&rig, ports[x >> 8 & 3], (uint8_t)(x >> 16));
        if (x >> 24 & 1) {
            pic_ack(&p);
        }
        const struct pic before = p;
        pic_give(&p, regs);
        p.divert = divert_line;
        irq_set(&line, !(x >> 4 & 1));
        irq_set(&line, x >> 4 & 1);
        p.divert = NULL;
        pic_take(&p, regs);
        assert_memory_equal(p.chip, before.chip, sizeof before.chip);
    }
    for (unsigned i = 0; i < 200; i++) {
        for (unsigned n = 0; n < 2; n++) {
            uint64_t x = test_random(&seed), y = test_random(&seed);
            regs[n] = (struct chip_pic){ .irr = (uint8_t)x, .imr = (uint8_t)(x >> 8),
                                         .isr = (uint8_t)(x >> 16), .elcr = (uint8_t)(x >> 24),
                                         .base = (uint8_t)y, .lowest = (uint8_t)(y >> 8),
                                         .icw_next = (uint8_t)(y >> 16) };
        }
        pic_take(&p, regs);
        dev_roundtrip(rig.bus, rig.clock);
    }
    pic_fini(&p);
    dev_rig_fini(&rig);
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, apic_rig_setup, apic_rig_teardown)
    const struct CMUnitTest tests[] = {
        T(test_lapic),  T(test_lapic_deadline_and_x2apic), T(test_lapic_garbage),
        T(test_ioapic), T(test_messages),                  cmocka_unit_test(test_pic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
