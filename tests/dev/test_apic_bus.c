/* SPDX-License-Identifier: Apache-2.0 -- many processors */
// LAYERS: dev/pc bus mem state base
#include "dev/apic.h"

#define MANY 300

struct many {
    struct dev_rig rig;
    struct apic_bus apics;
    struct test_cpu cpu[MANY];
    struct apic_rig clock_holder; /* what test_cpu_tsc looks at */
};

static int setup(void **state)
{
    struct many *m = calloc(1, sizeof *m);
    dev_rig_init(&m->rig);
    m->clock_holder.rig = m->rig;
    apic_bus_init(&m->apics, m->rig.bus);
    for (unsigned i = 0; i < MANY; i++) {
        m->cpu[i].rig = &m->clock_holder;
        m->cpu[i].extint_vector = -1;
        struct lapic_config cfg = {
            .apic_id = i,
            .bsp = i == 0,
            .x2apic = true,
            .phys_bits = 40,
            .timer_hz = APIC_TIMER_HZ,
            .tsc_hz = TEST_TSC_HZ,
            .clock = m->rig.clock,
            .apics = &m->apics,
            .out = { &m->cpu[i], test_cpu_intr, test_cpu_nmi, test_cpu_smi, test_cpu_init,
                     test_cpu_sipi, test_cpu_extint, test_cpu_tsc },
        };
        lapic_init(&m->cpu[i].lapic, m->rig.bus, &cfg);
        uint64_t base = 0xfee00000 | (i == 0 ? 0x100 : 0) | 0xc00;
        assert_true(lapic_msr_write(&m->cpu[i].lapic, 0x1b, base));
        assert_true(lapic_msr_write(&m->cpu[i].lapic, 0x80f, 0x1ff));
    }
    *state = m;
    return 0;
}

static int teardown(void **state)
{
    struct many *m = *state;
    for (unsigned i = 0; i < MANY; i++) {
        lapic_fini(&m->cpu[i].lapic);
    }
    apic_bus_fini(&m->apics);
    dev_rig_fini(&m->rig);
    free(m);
    return 0;
}

static void send(struct many *m, uint64_t icr)
{
    assert_true(lapic_msr_write(&m->cpu[0].lapic, 0x830, icr));
}

static void test_ids_beyond_255(void **state)
{
    struct many *m = *state;
    send(m, 299ull << 32 | 0x50);
    send(m, 255ull << 32 | 0x51);
    for (unsigned i = 0; i < MANY; i++) {
        assert_int_equal(lapic_ack(&m->cpu[i].lapic), i == 299 ? 0x50 : i == 255 ? 0x51 : -1);
    }
}

static void test_clusters(void **state)
{
    struct many *m = *state;
    send(m, (uint64_t)(18u << 16 | 0x0801) << 32 | 0x860); /* 288 and 299 */
    for (unsigned i = 0; i < MANY; i++) {
        assert_int_equal(lapic_ack(&m->cpu[i].lapic), i == 288 || i == 299 ? 0x60 : -1);
    }
}

static void test_broadcasts(void **state)
{
    struct many *m = *state;
    send(m, 0xc4500);
    send(m, 0xc4600 | 0x08);
    for (unsigned i = 0; i < MANY; i++) {
        assert_int_equal(m->cpu[i].inits, i != 0);
        assert_int_equal(m->cpu[i].sipis, i != 0);
    }
}

static void test_lowest_takes_turns(void **state)
{
    struct many *m = *state;
    for (unsigned n = 0; n < 100; n++) {
        send(m, 0xffffffffull << 32 | 0x100 | (0x40 + n));
    }
    unsigned served = 0;
    for (unsigned i = 0; i < MANY; i++) {
        served += lapic_ack(&m->cpu[i].lapic) >= 0;
        assert_int_equal(lapic_ack(&m->cpu[i].lapic), -1);
    }
    assert_int_equal(served, 100);
    dev_roundtrip(m->rig.bus, m->rig.clock);
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_ids_beyond_255),
        T(test_clusters),
        T(test_broadcasts),
        T(test_lowest_takes_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
