/* SPDX-License-Identifier: Apache-2.0 */
// LAYERS: dev/pc bus mem state base
#include "dev/apic.h"

#define BASE 0xfee00000u
#define EN 0x800u
#define X2 0x400u
#define BSP 0x100u

static bool msr_set(struct apic_rig *a, unsigned n, uint32_t msr, uint64_t v)
{
    return lapic_msr_write(&a->cpu[n].lapic, msr, v);
}

static bool msr_get(struct apic_rig *a, unsigned n, uint32_t msr, uint64_t *v)
{
    return lapic_msr_read(&a->cpu[n].lapic, msr, v);
}

static uint64_t msr(struct apic_rig *a, unsigned n, uint32_t number)
{
    uint64_t v;
    assert_true(msr_get(a, n, number, &v));
    return v;
}

static void x2_all(struct apic_rig *a)
{
    for (unsigned i = 0; i < APICS; i++) {
        assert_true(msr_set(a, i, 0x1b, BASE | EN | X2 | (i == 0 ? BSP : 0)));
        assert_true(msr_set(a, i, 0x80f, 0x1ff));
    }
}

static void icr(struct apic_rig *a, unsigned n, uint8_t dest, uint32_t low)
{
    apic_set(a, n, 0x310, (uint32_t)dest << 24);
    apic_set(a, n, 0x300, low);
}

static void test_reset_state(void **state)
{
    struct apic_rig *a = *state;
    assert_int_equal(msr(a, 0, 0x1b), BASE | EN | BSP);
    assert_int_equal(msr(a, 1, 0x1b), BASE | EN);
    assert_int_equal(apic_get(a, 3, 0x20), 3u << 24);
    assert_int_equal(apic_get(a, 0, 0x30), 0x01050014);
    assert_int_equal(apic_get(a, 0, 0xe0), 0xffffffff);
    assert_int_equal(apic_get(a, 0, 0xf0), 0xff);
    for (unsigned r = 0x320; r <= 0x370; r += 16) {
        assert_int_equal(apic_get(a, 0, r), 0x10000);
    }
    assert_true(lapic_claims(&a->cpu[0].lapic, BASE + 0xfff));
    assert_false(lapic_claims(&a->cpu[0].lapic, BASE + 0x1000));
    assert_false(lapic_claims(&a->cpu[0].lapic, BASE - 1));
    /* Masks cannot be cleared while disabled by software. */
    apic_set(a, 0, 0x350, 0x700);
    assert_int_equal(apic_get(a, 0, 0x350), 0x10700);
}

static void test_priorities(void **state)
{
    struct apic_rig *a = *state;
    struct test_cpu *c = &a->cpu[0];
    apic_enable_all(a);
    icr(a, 0, 0, 0x4041);
    icr(a, 0, 0, 0x4061);
    icr(a, 0, 0, 0x4065);
    assert_int_equal(c->intr, 1);
    assert_int_equal(lapic_ack(&c->lapic), 0x65);
    assert_int_equal(apic_get(a, 0, 0xa0), 0x60); /* PPR */
    assert_int_equal(c->intr, 0);                 /* 0x61 is of the same class */
    assert_int_equal(lapic_ack(&c->lapic), -1);
    apic_set(a, 0, 0xb0, 0);
    assert_int_equal(lapic_ack(&c->lapic), 0x61);
    apic_set(a, 0, 0xb0, 0);
    lapic_set_tpr(&c->lapic, 4);
    assert_int_equal(apic_get(a, 0, 0x80), 0x40);
    assert_int_equal(c->intr, 0);
    apic_set(a, 0, 0x80, 0x3f);
    assert_int_equal(lapic_get_tpr(&c->lapic), 3);
    assert_int_equal(c->intr, 1);
    assert_int_equal(apic_get(a, 0, 0xa0), 0x3f);
    assert_int_equal(lapic_ack(&c->lapic), 0x41);
    assert_true(apic_bit(a, 0, 0x100, 0x41));
    assert_false(apic_bit(a, 0, 0x200, 0x41));
    apic_set(a, 0, 0xb0, 0);
    assert_false(apic_bit(a, 0, 0x100, 0x41));
    apic_set(a, 0, 0xb0, 0); /* nothing in service: nothing happens */
}

static void test_shorthands(void **state)
{
    struct apic_rig *a = *state;
    apic_enable_all(a);
    icr(a, 1, 0, 0x44000 | 0x50); /* self */
    icr(a, 1, 0, 0x84000 | 0x51); /* all */
    icr(a, 1, 0, 0xc4000 | 0x52); /* others */
    icr(a, 1, 0xff, 0x4053);      /* physical broadcast */
    icr(a, 1, 2, 0x4054);
    icr(a, 1, 77, 0x4055); /* nobody */
    for (unsigned i = 0; i < APICS; i++) {
        assert_int_equal(apic_bit(a, i, 0x200, 0x50), i == 1);
        assert_int_equal(apic_bit(a, i, 0x200, 0x51), 1);
        assert_int_equal(apic_bit(a, i, 0x200, 0x52), i != 1);
        assert_int_equal(apic_bit(a, i, 0x200, 0x53), 1);
        assert_int_equal(apic_bit(a, i, 0x200, 0x54), i == 2);
        assert_int_equal(apic_bit(a, i, 0x200, 0x55), 0);
    }
    assert_int_equal(apic_get(a, 1, 0x300), 0x4055); /* delivery status idle */
    assert_int_equal(apic_get(a, 1, 0x310), 77u << 24);
}

static void test_logical(void **state)
{
    struct apic_rig *a = *state;
    apic_enable_all(a);
    for (unsigned i = 0; i < APICS; i++) {
        apic_set(a, i, 0xd0, 0x01000000u << i | 0xffffff);
        assert_int_equal(apic_get(a, i, 0xd0), 0x01000000u << i);
    }
    icr(a, 0, 0x0a, 0x4840);
    for (unsigned i = 0; i < APICS; i++) {
        assert_int_equal(apic_bit(a, i, 0x200, 0x40), i == 1 || i == 3);
    }
    /* Clusters: 0x11 0x12 0x21 0x22 */
    for (unsigned i = 0; i < APICS; i++) {
        apic_set(a, i, 0xe0, 0);
        assert_int_equal(apic_get(a, i, 0xe0), 0x0fffffff);
        apic_set(a, i, 0xd0, (uint32_t)((i / 2 + 1) << 4 | 1u << i % 2) << 24);
    }
    icr(a, 0, 0x22, 0x4841);
    icr(a, 0, 0x13, 0x4842);
    icr(a, 0, 0xff, 0x4843);
    for (unsigned i = 0; i < APICS; i++) {
        assert_int_equal(apic_bit(a, i, 0x200, 0x41), i == 3);
        assert_int_equal(apic_bit(a, i, 0x200, 0x42), i < 2);
        assert_int_equal(apic_bit(a, i, 0x200, 0x43), 1);
    }
}

static void test_lowest_priority(void **state)
{
    struct apic_rig *a = *state;
    apic_enable_all(a);
    for (unsigned i = 0; i < APICS; i++) {
        apic_set(a, i, 0xd0, 0x01000000u << i);
        apic_set(a, i, 0x80, i == 2 ? 0x10 : 0x20);
    }
    icr(a, 0, 0xff, 0x4900 | 0x60);
    assert_true(apic_bit(a, 2, 0x200, 0x60));
    icr(a, 0, 0x0b, 0x4900 | 0x61); /* not 2: the others take turns */
    icr(a, 0, 0x0b, 0x4900 | 0x62);
    icr(a, 0, 0x0b, 0x4900 | 0x63);
    assert_true(apic_bit(a, 3, 0x200, 0x61));
    assert_true(apic_bit(a, 0, 0x200, 0x62));
    assert_true(apic_bit(a, 1, 0x200, 0x63));
    apic_set(a, 2, 0xf0, 0xff);
    icr(a, 0, 0xff, 0x4900 | 0x64);
    assert_false(apic_bit(a, 2, 0x200, 0x64)); /* disabled by software */
}

static void test_special_deliveries(void **state)
{
    struct apic_rig *a = *state;
    icr(a, 0, 1, 0x4400);
    assert_int_equal(a->cpu[1].nmis, 1); /* even while disabled by software */
    icr(a, 0, 1, 0x4200);
    assert_int_equal(a->cpu[1].smis, 1);
    apic_set(a, 1, 0xf0, 0x1ff);
    apic_set(a, 1, 0xd0, 0x02000000);
    icr(a, 0, 0, 0xc4500);
    assert_int_equal(a->cpu[0].inits, 0);
    for (unsigned i = 1; i < APICS; i++) {
        assert_int_equal(a->cpu[i].inits, 1);
    }
    assert_int_equal(apic_get(a, 1, 0xf0), 0xff); /* INIT resets the APIC, but for its id */
    assert_int_equal(apic_get(a, 1, 0xd0), 0);
    assert_int_equal(apic_get(a, 1, 0x20), 1u << 24);
    icr(a, 0, 1, 0x8500); /* INIT level de-assert */
    assert_int_equal(a->cpu[1].inits, 1);
    icr(a, 0, 1, 0xc500); /* assert, level */
    assert_int_equal(a->cpu[1].inits, 2);
    icr(a, 0, 2, 0x4600 | 0x9a);
    assert_int_equal(a->cpu[2].sipis, 1);
    assert_int_equal(a->cpu[2].sipi_vector, 0x9a);
    icr(a, 0, 2, 0x4300); /* reserved */
    icr(a, 0, 2, 0x4700);
    assert_int_equal(a->cpu[2].sipis, 1);
}

static void test_errors(void **state)
{
    struct apic_rig *a = *state;
    apic_enable_all(a);
    apic_set(a, 0, 0x370, 0xfe);
    icr(a, 0, 1, 0x4005); /* illegal vector: not sent */
    assert_int_equal(apic_get(a, 0, 0x280), 0);
    assert_true(apic_bit(a, 0, 0x200, 0xfe));
    apic_set(a, 0, 0x280, 0);
    assert_int_equal(apic_get(a, 0, 0x280), 0x20);
    apic_set(a, 0, 0x280, 0);
    assert_int_equal(apic_get(a, 0, 0x280), 0);
    apic_get(a, 0, 0x3f0); /* there is no such register */
    apic_set(a, 0, 0x280, 0);
    assert_int_equal(apic_get(a, 0, 0x280), 0x80);
    apic_set(a, 0, 0x280, 0);
    apic_set(a, 0, 0x30, 0); /* is read-only, no error */
    apic_set(a, 0, 0x280, 0);
    assert_int_equal(apic_get(a, 0, 0x280), 0);
    msi_send(&a->apics, 0xfee00000, 0x4003);
    apic_set(a, 0, 0x280, 0);
    assert_int_equal(apic_get(a, 0, 0x280), 0x40);
    apic_set(a, 0, 0x370, 3); /* an error interrupt that is one itself */
    icr(a, 0, 1, 0x4005);
    apic_set(a, 0, 0x280, 0);
    assert_int_equal(apic_get(a, 0, 0x280), 0x60);
}

static void test_odd_accesses(void **state)
{
    struct apic_rig *a = *state;
    struct lapic *l = &a->cpu[2].lapic;
    assert_int_equal(lapic_mmio_read(l, 0x23, 1), 2);
    assert_int_equal(lapic_mmio_read(l, 0x22, 2), 0x200);
    assert_int_equal(lapic_mmio_read(l, 0x24, 4), 0);
    assert_int_equal(lapic_mmio_read(l, 0x30, 8), 0x01050014);
    lapic_mmio_write(l, 0x80, 1, 0x55);
    lapic_mmio_write(l, 0x84, 4, 0x55);
    lapic_mmio_write(l, 0x80, 8, 0x55);
    assert_int_equal(apic_get(a, 2, 0x80), 0);
}

static void test_software_disable(void **state)
{
    struct apic_rig *a = *state;
    struct test_cpu *c = &a->cpu[0];
    apic_enable_all(a);
    apic_set(a, 0, 0x350, 0x700);
    apic_set(a, 0, 0x320, 0x40);
    icr(a, 0, 0, 0x4050);
    apic_set(a, 0, 0xf0, 0xff);
    assert_int_equal(apic_get(a, 0, 0x350), 0x10700);
    assert_int_equal(apic_get(a, 0, 0x320), 0x10040);
    icr(a, 1, 0, 0x4051);
    assert_false(apic_bit(a, 0, 0x200, 0x51));    /* takes nothing new */
    assert_int_equal(lapic_ack(&c->lapic), 0x50); /* what was pending waits for the CPU */
    apic_set(a, 0, 0xf0, 0x1ff);
    assert_int_equal(apic_get(a, 0, 0x350), 0x10700); /* stays masked */
}

static void test_extint_and_lint(void **state)
{
    struct apic_rig *a = *state;
    struct test_cpu *c = &a->cpu[0];
    struct irq intr = lapic_lint(&c->lapic, 0);
    struct irq nmi = lapic_lint(&c->lapic, 1);
    irq_set(&intr, 1);
    assert_int_equal(c->intr, 0); /* masked after reset */
    lapic_set_virtual_wire(&c->lapic);
    assert_int_equal(c->intr, 1);
    c->extint_vector = 0x0e; /* vectors below 16 are the 8259's business */
    assert_int_equal(lapic_ack(&c->lapic), 0x0e);
    assert_int_equal(c->intr, 1);
    irq_set(&intr, 0);
    assert_int_equal(c->intr, 0);
    irq_set(&nmi, 1);
    irq_set(&nmi, 1);
    assert_int_equal(c->nmis, 1);
    irq_set(&nmi, 0);
    /* Level-triggered fixed LINT0, with remote IRR */
    apic_set(a, 0, 0x350, 0x8060);
    irq_set(&intr, 1);
    assert_int_equal(apic_get(a, 0, 0x350), 0xc060);
    assert_int_equal(lapic_ack(&c->lapic), 0x60);
    assert_int_equal(c->intr, 0);
    assert_true(apic_bit(a, 0, 0x180, 0x60));
    apic_set(a, 0, 0xb0, 0);
    assert_int_equal(c->intr, 1); /* the line is still there */
    irq_set(&intr, 0);
    assert_int_equal(lapic_ack(&c->lapic), 0x60);
    apic_set(a, 0, 0xb0, 0);
    assert_int_equal(apic_get(a, 0, 0x350), 0x8060);
    assert_int_equal(c->intr, 0);
    /* Edge-triggered fixed LINT1 */
    apic_set(a, 0, 0x360, 0x70);
    irq_set(&nmi, 1);
    assert_int_equal(lapic_ack(&c->lapic), 0x70);
    assert_false(apic_bit(a, 0, 0x180, 0x70));
    /* Disabled altogether: pins are INTR and NMI */
    assert_true(msr_set(a, 0, 0x1b, BASE | BSP));
    irq_set(&intr, 1);
    assert_int_equal(c->intr, 1);
    assert_int_equal(lapic_ack(&c->lapic), 0x0e);
    irq_set(&nmi, 0);
    irq_set(&nmi, 1);
    assert_int_equal(c->nmis, 2);
}

static void test_local_events(void **state)
{
    struct apic_rig *a = *state;
    apic_enable_all(a);
    apic_set(a, 0, 0x340, 0x400);
    lapic_local_event(&a->cpu[0].lapic, LAPIC_LVT_PERF);
    assert_int_equal(a->cpu[0].nmis, 1);
    assert_int_equal(apic_get(a, 0, 0x340), 0x10400); /* masks itself */
    lapic_local_event(&a->cpu[0].lapic, LAPIC_LVT_PERF);
    assert_int_equal(a->cpu[0].nmis, 1);
    apic_set(a, 0, 0x330, 0x41);
    lapic_local_event(&a->cpu[0].lapic, LAPIC_LVT_THERMAL);
    assert_int_equal(lapic_ack(&a->cpu[0].lapic), 0x41);
}

static void test_base_transitions(void **state)
{
    struct apic_rig *a = *state;
    static const struct {
        uint64_t from[3]; /* steps to get there */
        uint64_t to;
        bool ok;
    } cases[] = {
        { { BASE | EN }, BASE | X2, false },
        { { BASE | EN }, BASE | EN | X2, true },
        { { BASE | EN }, BASE, true },
        { { BASE }, BASE | EN | X2, false },
        { { BASE }, BASE | X2, false },
        { { BASE }, BASE | EN, true },
        { { BASE | EN | X2 }, BASE | EN, false },
        { { BASE | EN | X2 }, BASE | X2, false },
        { { BASE | EN | X2 }, BASE, true },
        { { BASE | EN | X2 }, BASE | EN | X2, true },
        { { BASE | EN }, BASE | EN | 1, false },
        { { BASE | EN }, BASE | EN | 0x200, false },
        { { BASE | EN }, BASE | EN | 1ull << 40, false },
        { { BASE | EN }, 0x8000000000 | EN, true },
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        msr_set(a, 1, 0x1b, BASE);
        msr_set(a, 1, 0x1b, BASE | EN);
        assert_true(msr_set(a, 1, 0x1b, cases[i].from[0]));
        assert_int_equal(msr_set(a, 1, 0x1b, cases[i].to), cases[i].ok);
        assert_int_equal(msr(a, 1, 0x1b), cases[i].ok ? cases[i].to : cases[i].from[0]);
    }
    assert_true(lapic_claims(&a->cpu[1].lapic, 0x8000000080));
    assert_false(lapic_claims(&a->cpu[1].lapic, BASE));
    /* Disabling loses everything. */
    apic_set(a, 0, 0xf0, 0x1ff);
    apic_set(a, 0, 0x80, 0x50);
    msr_set(a, 0, 0x1b, BASE | BSP);
    assert_false(lapic_claims(&a->cpu[0].lapic, BASE));
    lapic_set_tpr(&a->cpu[0].lapic, 5); /* CR8 works all the same */
    assert_int_equal(lapic_get_tpr(&a->cpu[0].lapic), 5);
    msr_set(a, 0, 0x1b, BASE | BSP | EN);
    assert_int_equal(apic_get(a, 0, 0xf0), 0xff);
    assert_int_equal(apic_get(a, 0, 0x80), 0x50);
}

static void test_x2apic_msrs(void **state)
{
    struct apic_rig *a = *state;
    uint64_t v;
    assert_false(msr_get(a, 3, 0x802, &v)); /* not in xAPIC mode */
    assert_false(msr_set(a, 3, 0x80b, 0));
    x2_all(a);
    assert_false(lapic_claims(&a->cpu[3].lapic, BASE));
    assert_int_equal(msr(a, 3, 0x802), 3);
    assert_int_equal(msr(a, 3, 0x80d), 8);
    static const uint16_t readable[] = { 0x802, 0x803, 0x808, 0x80a, 0x80d, 0x80f,
                                         0x828, 0x830, 0x832, 0x833, 0x834, 0x835,
                                         0x836, 0x837, 0x838, 0x839, 0x83e };
    for (unsigned m = 0x800; m < 0x900; m++) {
        bool ok = m >= 0x810 && m <= 0x827;
        for (unsigned i = 0; i < sizeof readable / sizeof *readable; i++) {
            ok |= readable[i] == m;
        }
        assert_int_equal(msr_get(a, 3, m, &v), ok);
    }
    static const struct {
        uint16_t msr;
        uint64_t ok;
        uint64_t bad;
    } writes[] = {
        { 0x808, 0xff, 0x100 },
        { 0x808, 0, 1ull << 32 },
        { 0x80b, 0, 1 },
        { 0x80f, 0x1ff, 0x2000 },
        { 0x828, 0, 1 },
        { 0x832, 0x700ff, 0x80000 },
        { 0x832, 0x600ff, 0x700 },
        { 0x833, 0x107ff, 0x2000 },
        { 0x834, 0x107ff, 0x8000 },
        { 0x835, 0x1a7ff, 0x20000 },
        { 0x837, 0x100ff, 0x100 },
        { 0x838, 0, 1ull << 32 },
        { 0x83e, 0xb, 0x4 },
        { 0x83e, 0, 0x10 },
        { 0x83f, 0xff, 0x100 },
        { 0x830, 0xffff000000045050ull, 0x2000 },
        { 0x830, 0x45050, 0x10000 },
    };
    for (unsigned i = 0; i < sizeof writes / sizeof *writes; i++) {
        assert_true(msr_set(a, 3, writes[i].msr, writes[i].ok));
        assert_false(msr_set(a, 3, writes[i].msr, writes[i].bad));
    }
    static const uint16_t unwritable[] = { 0x802, 0x803, 0x80a, 0x80d, 0x80e, 0x810,
                                           0x820, 0x82f, 0x831, 0x839, 0x840, 0x8ff };
    for (unsigned i = 0; i < sizeof unwritable / sizeof *unwritable; i++) {
        assert_false(msr_set(a, 3, unwritable[i], 0));
    }
}

static void test_x2apic_ipis(void **state)
{
    struct apic_rig *a = *state;
    x2_all(a);
    assert_true(msr_set(a, 0, 0x83f, 0x51));
    assert_int_equal(lapic_ack(&a->cpu[0].lapic), 0x51);
    assert_true(msr_set(a, 0, 0x80b, 0));
    assert_true(msr_set(a, 0, 0x830, 2ull << 32 | 0x52));
    assert_int_equal(lapic_ack(&a->cpu[2].lapic), 0x52);
    assert_int_equal(msr(a, 0, 0x830), 2ull << 32 | 0x52);
    assert_true(msr_set(a, 0, 0x830, 0xaull << 32 | 0x853)); /* logical, cluster 0 */
    assert_int_equal(lapic_ack(&a->cpu[1].lapic), 0x53);
    assert_int_equal(lapic_ack(&a->cpu[3].lapic), 0x53);
    assert_int_equal(lapic_ack(&a->cpu[2].lapic), -1);
    assert_true(msr_set(a, 0, 0x830, 0x1000aull << 32 | 0x8f3)); /* cluster 1: nobody */
    assert_true(msr_set(a, 0, 0x830, 0xffull << 32 | 0xf3));     /* 255 is an id like any other */
    assert_true(msr_set(a, 0, 0x830, 0xffffffffull << 32 | 0x64));
    for (unsigned i = 0; i < APICS; i++) {
        assert_int_equal(lapic_ack(&a->cpu[i].lapic), 0x64);
        assert_int_equal(lapic_ack(&a->cpu[i].lapic), -1);
    }
    /* IOAPICs and MSIs have 8 bits. */
    msi_send(&a->apics, 0xfee03000, 0x71);
    assert_int_equal(lapic_ack(&a->cpu[3].lapic), 0x71);
    msi_send(&a->apics, 0xfeeff000, 0x82);
    assert_int_equal(lapic_ack(&a->cpu[1].lapic), 0x82);
    assert_true(msr_set(a, 0, 0x83f, 5));
    assert_true(msr_set(a, 0, 0x828, 0));
    assert_int_equal(msr(a, 0, 0x828), 0x20);
}

/* -- Timer */
static void test_one_shot(void **state)
{
    struct apic_rig *a = *state;
    apic_enable_all(a);
    apic_set(a, 0, 0x320, 0x40);
    apic_set(a, 0, 0x3e0, 0xb); /* by 1 */
    apic_set(a, 0, 0x380, 1000);
    assert_int_equal(apic_get(a, 0, 0x390), 1000);
    dev_step(&a->rig, 400);
    assert_int_equal(apic_get(a, 0, 0x390), 600);
    dev_step(&a->rig, 599);
    assert_int_equal(a->cpu[0].intr, 0);
    dev_step(&a->rig, 1);
    assert_int_equal(apic_get(a, 0, 0x390), 0);
    assert_int_equal(lapic_ack(&a->cpu[0].lapic), 0x40);
    apic_set(a, 0, 0xb0, 0);
    dev_step(&a->rig, 10000);
    assert_int_equal(a->cpu[0].intr, 0);
    assert_int_equal(apic_get(a, 0, 0x380), 1000);
    /* Masked it counts, too, but tells nobody. */
    apic_set(a, 0, 0x320, 0x10040);
    apic_set(a, 0, 0x380, 1000);
    dev_step(&a->rig, 500);
    assert_int_equal(apic_get(a, 0, 0x390), 500);
    dev_step(&a->rig, 1000);
    assert_int_equal(a->cpu[0].intr, 0);
    apic_set(a, 0, 0x320, 0x40);
    apic_set(a, 0, 0x380, 1000);
    apic_set(a, 0, 0x380, 0); /* stops it */
    dev_step(&a->rig, 5000);
    assert_int_equal(a->cpu[0].intr, 0);
}

static void test_divider(void **state)
{
    struct apic_rig *a = *state;
    static const struct {
        uint8_t reg;
        unsigned by;
    } dividers[] = { { 0, 2 },  { 1, 4 },  { 2, 8 },    { 3, 16 },
                     { 8, 32 }, { 9, 64 }, { 10, 128 }, { 11, 1 } };
    apic_enable_all(a);
    for (unsigned i = 0; i < 8; i++) {
        apic_set(a, 0, 0x3e0, dividers[i].reg | 4);
        assert_int_equal(apic_get(a, 0, 0x3e0), dividers[i].reg);
        apic_set(a, 0, 0x380, 0xffffffff);
        dev_step(&a->rig, 128 * 100);
        assert_int_equal(apic_get(a, 0, 0x390), 0xffffffff - 128 * 100 / dividers[i].by);
    }
    apic_set(a, 0, 0x380, 1000); /* by 1, changed on the way */
    dev_step(&a->rig, 500);
    apic_set(a, 0, 0x3e0, 0);
    dev_step(&a->rig, 500);
    assert_int_equal(apic_get(a, 0, 0x390), 250);
}

static void test_periodic(void **state)
{
    struct apic_rig *a = *state;
    unsigned got = 0;
    apic_enable_all(a);
    apic_set(a, 0, 0x3e0, 0xb);
    apic_set(a, 0, 0x320, 0x20040);
    apic_set(a, 0, 0x380, 100000);
    for (int i = 0; i < 1000; i++) {
        dev_step(&a->rig, 10000);
        if (lapic_ack(&a->cpu[0].lapic) == 0x40) {
            got++;
            apic_set(a, 0, 0xb0, 0);
        }
        dev_roundtrip(a->rig.bus, a->rig.clock);
    }
    assert_int_equal(got, 100);
    dev_step(&a->rig, 30000);
    assert_int_equal(apic_get(a, 0, 0x390), 70000);
    /* Mode changes go on from the count. */
    apic_set(a, 0, 0x320, 0x40);
    assert_int_equal(apic_get(a, 0, 0x390), 70000);
    dev_step(&a->rig, 70000);
    assert_int_equal(apic_get(a, 0, 0x390), 0);
    apic_set(a, 0, 0x320, 0x20040);
    assert_int_equal(apic_get(a, 0, 0x390), 0); /* stopped until the initial count is written */
    dev_step(&a->rig, 1000000);
    assert_int_equal(apic_get(a, 0, 0x390), 0);
    apic_set(a, 0, 0x320, 0x40);
    apic_set(a, 0, 0x380, 50000);
    dev_step(&a->rig, 10000);
    apic_set(a, 0, 0x320, 0x20040);
    dev_step(&a->rig, 45000);
    assert_int_equal(apic_get(a, 0, 0x390), 45000); /* wrapped: periodic now */
    /* One count per nanosecond would fire without end. */
    apic_set(a, 0, 0x380, 1);
    dev_step(&a->rig, 1000000);
    assert_true(a->cpu[0].intr);
}

/* Take what there is, one after the other, across saves; at most max. */
static unsigned take_all(struct apic_rig *a, unsigned max)
{
    unsigned got = 0;
    while (got < max && lapic_ack(&a->cpu[0].lapic) == 0x40) {
        got++;
        dev_roundtrip(a->rig.bus, a->rig.clock);
        apic_set(a, 0, 0xb0, 0);
    }
    return got;
}

/* Nobody took them in time: they are made up for, each after the one before. */
static void test_periodic_owed(void **state)
{
    struct apic_rig *a = *state;
    apic_enable_all(a);
    apic_set(a, 0, 0x3e0, 0xb);
    apic_set(a, 0, 0x320, 0x20040);
    apic_set(a, 0, 0x380, 1000000);
    dev_step(&a->rig, 5500000);
    assert_int_equal(take_all(a, 100), 5);
    dev_step(&a->rig, 500000);
    assert_int_equal(take_all(a, 100), 1);
    /* No more than a second of them, and none of a timer that was set anew or masked. */
    dev_step(&a->rig, 5000000000);
    assert_int_equal(take_all(a, 5000), 1001);
    dev_step(&a->rig, 5000000);
    apic_set(a, 0, 0x380, 2000000);
    assert_int_equal(take_all(a, 100), 1);
    dev_step(&a->rig, 5000000);
    apic_set(a, 0, 0x320, 0x30040);
    apic_set(a, 0, 0x320, 0x20040);
    assert_int_equal(take_all(a, 100), 1);
}

static void test_tsc_deadline(void **state)
{
    struct apic_rig *a = *state;
    struct test_cpu *c = &a->cpu[0];
    apic_enable_all(a);
    dev_step(&a->rig, 1000000);
    assert_true(msr_set(a, 0, 0x6e0, 12345)); /* not in this mode: ignored */
    assert_int_equal(msr(a, 0, 0x6e0), 0);
    apic_set(a, 0, 0x320, 0x40040);
    uint64_t tsc = test_cpu_tsc(c);
    msr_set(a, 0, 0x6e0, tsc + 20001);
    assert_int_equal(msr(a, 0, 0x6e0), tsc + 20001);
    apic_set(a, 0, 0x380, 100); /* ignored */
    assert_int_equal(apic_get(a, 0, 0x390), 0);
    assert_int_equal(apic_get(a, 0, 0x380), 0);
    dev_step(&a->rig, 10000);
    assert_int_equal(c->intr, 0);
    dev_step(&a->rig, 1);
    assert_int_equal(c->intr, 1);
    assert_int_equal(msr(a, 0, 0x6e0), 0);
    assert_int_equal(lapic_ack(&c->lapic), 0x40);
    apic_set(a, 0, 0xb0, 0);
    /* In the past: before the next instruction */
    msr_set(a, 0, 0x6e0, test_cpu_tsc(c));
    assert_int_equal(lapic_ack(&c->lapic), 0x40);
    apic_set(a, 0, 0xb0, 0);
    msr_set(a, 0, 0x6e0, test_cpu_tsc(c) + 1000);
    msr_set(a, 0, 0x6e0, 0); /* disarms */
    dev_step(&a->rig, 10000);
    assert_int_equal(c->intr, 0);
    /* The guest moves its TSC. */
    msr_set(a, 0, 0x6e0, test_cpu_tsc(c) + 1000000);
    c->tsc_offset += 990000;
    lapic_tsc_changed(&c->lapic);
    dev_step(&a->rig, 5000);
    assert_int_equal(lapic_ack(&c->lapic), 0x40);
    apic_set(a, 0, 0xb0, 0);
    /* Leaving the mode disarms. */
    msr_set(a, 0, 0x6e0, test_cpu_tsc(c) + 1000);
    apic_set(a, 0, 0x320, 0x40);
    assert_int_equal(msr(a, 0, 0x6e0), 0);
    dev_step(&a->rig, 10000);
    assert_int_equal(c->intr, 0);
}

/* A guest that comes before the thread that runs timers loses no interrupt. */
static void test_late_loop(void **state)
{
    struct apic_rig *a = *state;
    apic_enable_all(a);
    apic_set(a, 0, 0x3e0, 0xb);
    apic_set(a, 0, 0x320, 0x40);
    apic_set(a, 0, 0x380, 1000);
    clock_set_now(a->rig.clock, 2000);
    assert_int_equal(apic_get(a, 0, 0x390), 0);
    assert_int_equal(lapic_ack(&a->cpu[0].lapic), 0x40);
}

static void test_bad_state(void **state)
{
    struct apic_rig *a = *state;
    struct lapic *l = &a->cpu[1].lapic;
    for (int i = 0; i < 8; i++) {
        struct lapic old = *l;
        size_t len;
        struct err e;
        l->base |= i == 0 ? 1 : i == 1 ? 1ull << 50 : 0;
        l->lvt[0] = i == 2 ? 0x80000 : i == 3 ? 0x40 : l->lvt[0];
        l->irr[0] = i == 4;
        l->timer_runs = i == 5;
        l->timer_base_ns = i == 6 ? 1000 : 0;
        l->divide = i == 7 ? 4 : 0;
        uint8_t *data = dev_save(a->rig.bus, &len);
        assert_int_equal(dev_load(a->rig.bus, data, len, &e), -EINVAL);
        free(data);
        *l = old;
    }
}

static void random_access(struct apic_rig *a, uint64_t x, unsigned n)
{
    uint64_t v;
    uint32_t value = (uint32_t)(x >> 32);
    unsigned offset = (x >> 8 & 0x3f) * 16;
    switch (x & 7) {
    case 0:
    case 1:
        if (offset == 0x300 && x & 0x10000) {
            value &= ~0x700u; /* not only INIT and NMI */
        }
        if (offset == 0xf0) {
            value |= 0x100;
        }
        apic_set(a, n, offset, value);
        break;
    case 2:
        apic_get(a, n, offset);
        break;
    case 3:
        msr_set(a, n, 0x800 + (offset >> 4), x >> (x & 16 ? 32 : 50));
        break;
    case 4:
        msr_set(a, n, 0x6e0, x & 16 ? test_cpu_tsc(&a->cpu[n]) + value : x >> 16);
        break;
    case 5:
        lapic_ack(&a->cpu[n].lapic);
        msr_get(a, n, 0x800 + (offset >> 4), &v);
        break;
    case 6:
        dev_step(&a->rig, value % 20000);
        break;
    default:
        if ((x & 0xf0) == 0) {
            msr_set(a, n, 0x1b, BASE | (value & 0xd00));
        } else {
            struct irq line = lapic_lint(&a->cpu[n].lapic, x >> 10 & 1);
            irq_set(&line, x >> 11 & 1);
        }
        break;
    }
}

static void test_random_traffic(void **state)
{
    struct apic_rig *a = *state;
    uint64_t seed = 0x1a91c;
    for (int i = 0; i < 100000; i++) {
        uint64_t x = test_random(&seed);
        random_access(a, x, x >> 60 & 3);
        if (i % 200 == 0) {
            dev_roundtrip(a->rig.bus, a->rig.clock);
        }
    }
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, apic_rig_setup, apic_rig_teardown)
    const struct CMUnitTest tests[] = {
        T(test_reset_state),     T(test_priorities),      T(test_shorthands),
        T(test_logical),         T(test_lowest_priority), T(test_special_deliveries),
        T(test_errors),          T(test_odd_accesses),    T(test_software_disable),
        T(test_extint_and_lint), T(test_local_events),    T(test_base_transitions),
        T(test_x2apic_msrs),     T(test_x2apic_ipis),     T(test_one_shot),
        T(test_divider),         T(test_periodic),        T(test_periodic_owed),
        T(test_tsc_deadline),
        T(test_late_loop),       T(test_bad_state),       T(test_random_traffic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
