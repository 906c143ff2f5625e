/* SPDX-License-Identifier: Apache-2.0 -- local APICs, an IOAPIC, and what they told the CPUs */
#ifndef SOSIA_TESTS_DEV_APIC_H
#define SOSIA_TESTS_DEV_APIC_H

#include "support/dev.h"

#include "dev/pc/apic_bus.h"
#include "dev/pc/ioapic.h"
#include "dev/pc/lapic.h"
#include "dev/pc/msi.h"

#define APICS 4
#define APIC_TIMER_HZ 1000000000u
#define TEST_TSC_HZ 2000000000u

struct test_cpu {
    struct lapic lapic;
    struct apic_rig *rig;
    int intr;
    unsigned nmis, smis, inits, sipis;
    uint8_t sipi_vector;
    int extint_vector; /* what the 8259 would say */
    uint64_t tsc_offset;
};

struct apic_rig {
    struct dev_rig rig;
    struct apic_bus apics;
    struct ioapic ioapic;
    struct test_cpu cpu[APICS];
};

static inline void test_cpu_intr(void *ctx, int level) { ((struct test_cpu *)ctx)->intr = level; }
static inline void test_cpu_nmi(void *ctx) { ((struct test_cpu *)ctx)->nmis++; }
static inline void test_cpu_smi(void *ctx) { ((struct test_cpu *)ctx)->smis++; }
static inline void test_cpu_init(void *ctx) { ((struct test_cpu *)ctx)->inits++; }
static inline void test_cpu_sipi(void *ctx, uint8_t vector)
{
    struct test_cpu *c = ctx;
    c->sipis++;
    c->sipi_vector = vector;
}
static inline int test_cpu_extint(void *ctx) { return ((struct test_cpu *)ctx)->extint_vector; }
static inline uint64_t test_cpu_tsc(void *ctx)
{
    struct test_cpu *c = ctx;
    return clock_now_ns(c->rig->rig.clock) * 2 + c->tsc_offset;
}

/* On a bus that is there already */
static inline void apic_rig_init_on(struct apic_rig *a, const struct dev_rig *r)
{
    a->rig = *r;
    apic_bus_init(&a->apics, a->rig.bus);
    for (unsigned i = 0; i < APICS; i++) {
        a->cpu[i].rig = a;
        a->cpu[i].extint_vector = -1;
        struct lapic_config cfg = {
            .apic_id = i,
            .bsp = i == 0,
            .x2apic = true,
            .tsc_deadline = true,
            .phys_bits = 40,
            .timer_hz = APIC_TIMER_HZ,
            .tsc_hz = TEST_TSC_HZ,
            .clock = a->rig.clock,
            .apics = &a->apics,
            .out = { &a->cpu[i], test_cpu_intr, test_cpu_nmi, test_cpu_smi, test_cpu_init,
                     test_cpu_sipi, test_cpu_extint, test_cpu_tsc },
        };
        lapic_init(&a->cpu[i].lapic, a->rig.bus, &cfg);
    }
    ioapic_init(&a->ioapic, a->rig.bus, 0xfec00000, &a->apics);
}

static inline void apic_rig_init(struct apic_rig *a)
{
    struct dev_rig r;
    dev_rig_init(&r);
    apic_rig_init_on(a, &r);
}

static inline void apic_rig_fini_on(struct apic_rig *a)
{
    ioapic_fini(&a->ioapic);
    for (unsigned i = 0; i < APICS; i++) {
        lapic_fini(&a->cpu[i].lapic);
    }
    apic_bus_fini(&a->apics);
}

static inline void apic_rig_fini(struct apic_rig *a)
{
    apic_rig_fini_on(a);
    dev_rig_fini(&a->rig);
}

/* Registers of CPU n by their offsets in the page */
static inline uint32_t apic_get(struct apic_rig *a, unsigned n, unsigned offset)
{
    return (uint32_t)lapic_mmio_read(&a->cpu[n].lapic, offset, 4);
}
static inline void apic_set(struct apic_rig *a, unsigned n, unsigned offset, uint32_t v)
{
    lapic_mmio_write(&a->cpu[n].lapic, offset, 4, v);
}
static inline void apic_enable_all(struct apic_rig *a)
{
    for (unsigned i = 0; i < APICS; i++) {
        apic_set(a, i, 0xf0, 0x1ff);
    }
}
/* Is vector v requested (0x200), in service (0x100), level-triggered (0x180)? */
static inline bool apic_bit(struct apic_rig *a, unsigned n, unsigned offset, unsigned v)
{
    return apic_get(a, n, offset + v / 32 * 16) >> v % 32 & 1;
}

static inline uint32_t ioapic_get(struct apic_rig *a, uint8_t reg)
{
    bus_mmio_write(a->rig.bus, 0xfec00000, 4, reg);
    return (uint32_t)bus_mmio_read(a->rig.bus, 0xfec00010, 4);
}
static inline void ioapic_set(struct apic_rig *a, uint8_t reg, uint32_t v)
{
    bus_mmio_write(a->rig.bus, 0xfec00000, 4, reg);
    bus_mmio_write(a->rig.bus, 0xfec00010, 4, v);
}
static inline void ioapic_route(struct apic_rig *a, unsigned pin, uint8_t dest, uint32_t low)
{
    ioapic_set(a, (uint8_t)(0x11 + 2 * pin), (uint32_t)dest << 24);
    ioapic_set(a, (uint8_t)(0x10 + 2 * pin), low);
}
static inline void ioapic_line(struct apic_rig *a, int pin, int level)
{
    struct irq irq = ioapic_irq(&a->ioapic, pin);
    irq_set(&irq, level);
}

static inline int apic_rig_setup(void **state)
{
    struct apic_rig *a = calloc(1, sizeof *a);
    apic_rig_init(a);
    *state = a;
    return 0;
}
static inline int apic_rig_teardown(void **state)
{
    apic_rig_fini(*state);
    free(*state);
    return 0;
}

#endif
