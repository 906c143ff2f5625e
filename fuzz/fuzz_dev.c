/* SPDX-License-Identifier: Apache-2.0
 *
 * Fuzz target: the registers, lines, timers and saved states of every chip. The first byte chooses
 * a rig from the table at the end, the rest is a program of register accesses, passing time, and
 * states of any content, which a device may refuse but not choke on.
 */
// LAYERS: dev/pc bus mem state base
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dev/apic.h"
#include "dev/pc/acpi_pm.h"
#include "dev/pc/debug_port.h"
#include "dev/pc/hpet.h"
#include "dev/pc/i8042.h"
#include "dev/pc/i8254.h"
#include "dev/pc/i8259.h"
#include "dev/pc/mc146818.h"
#include "dev/pc/port61.h"
#include "dev/pc/port92.h"
#include "dev/pc/uart16550.h"
#include "dev/pc/vmgenid.h"
#include "program.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct range {
    uint64_t base;
    uint32_t size;
};

/* One kind of machine: its ranges, how it is made and unmade, what else can happen to it. */
struct rig_kind {
    struct range port[6];
    struct range mmio[2];
    void *(*make)(struct dev_rig *r);
    void (*poke)(void *rig, struct program *p);
    void (*unmake)(void *rig);
};

/* -- The driver -------------------------------------------------------------------------------- */
static uint64_t pick(const struct range *range, unsigned count, struct program *p)
{
    unsigned used = 0;
    while (used < count && range[used].size != 0) {
        used++;
    }
    const struct range *chosen = &range[take(p, 1) % used];
    return chosen->base + take(p, chosen->size > 256 ? 2 : 1) % chosen->size;
}

static void access(struct dev_rig *r, const struct rig_kind *kind, unsigned op, struct program *p)
{
    if ((op & 1) && kind->mmio[0].size != 0) {
        uint64_t gpa = pick(kind->mmio, 2, p);
        unsigned size = 1u << (op >> 2 & 3);
        gpa = op & 0x20 ? gpa : gpa & ~(uint64_t)(size - 1);
        if (op & 2) {
            bus_mmio_write(r->bus, gpa, size, take(p, size));
        } else {
            bus_mmio_read(r->bus, gpa, size);
        }
    } else if (kind->port[0].size != 0) {
        uint16_t port = (uint16_t)pick(kind->port, 6, p);
        unsigned size = 1u << (op >> 2 & 3) % 3;
        if (op & 2) {
            bus_port_write(r->bus, port, size, (uint32_t)take(p, size));
        } else {
            bus_port_read(r->bus, port, size);
        }
    }
}

static void run(const struct rig_kind *kind, struct program *p)
{
    struct dev_rig r;
    dev_rig_init(&r);
    void *rig = kind->make(&r);
    bool own_states = true;
    for (unsigned ops = 0; p->left > 0 && ops < 2000; ops++) {
        unsigned op = (unsigned)take(p, 1);
        if (op < 0xa0) {
            access(&r, kind, op, p);
            continue;
        }
        bus_lock(r.bus);
        if (op < 0xc8) {
            uint64_t ns = take(p, 2) << op % 8;
            clock_step(r.clock, ns);
        } else if (op < 0xf8) {
            kind->poke(rig, p);
        } else if (op < 0xfc) {
            if (own_states) {
                roundtrip(r.bus);
            }
        } else if (op < 0xfe) {
            load_any(&r, p);
            own_states = false;
        } else {
            bus_reset(r.bus);
        }
        bus_unlock(r.bus);
    }
    kind->unmake(rig);
    dev_rig_fini(&r);
}

/* -- The old chips ----------------------------------------------------------------------------- */
struct isa_rig {
    struct dev_rig *r;
    struct pic pic;
    struct pit pit;
    struct port61 port61;
    struct rtc rtc;
    struct acpi_pm pm;
    struct hpet hpet;
    struct vmgenid vmgenid;
    uint64_t wall_ns;
};

static void ignore_irq(void *ctx, int n, int level)
{
    (void)ctx;
    (void)n;
    (void)level;
}

static void ignore_msi(void *ctx, uint64_t address, uint32_t data)
{
    (void)ctx;
    (void)address;
    (void)data;
}

static uint64_t isa_wall(void *ctx)
{
    struct isa_rig *i = ctx;
    return i->wall_ns + clock_now_ns(i->r->clock);
}

static void *isa_make(struct dev_rig *r)
{
    struct isa_rig *i = calloc(1, sizeof *i);
    struct irq out = { ignore_irq, NULL, 0 };
    i->r = r;
    i->wall_ns = 1700000000000000000u;
    pic_init(&i->pic, r->bus, &out);
    struct hpet_config hpet = {
        .clock = r->clock,
        .legacy = { pic_irq(&i->pic, 0), pic_irq(&i->pic, 8) },
        .routes = 0xf00000,
        .msi = ignore_msi,
    };
    for (unsigned pin = 20; pin < 24; pin++) {
        hpet.pin[pin] = out;
    }
    hpet_init(&i->hpet, r->bus, 0xfed00000, &hpet);
    bus_mmio_write(r->bus, 0xfed00010, 4, 1);
    struct irq irq0 = hpet_legacy_in(&i->hpet, 0);
    pit_init(&i->pit, r->bus, 0x40, r->clock, &irq0);
    struct port61_config port61 = { .pit = &i->pit, .nmi = out, .speaker = out };
    port61_init(&i->port61, r->bus, &port61);
    struct rtc_config rtc = {
        .clock = r->clock,
        .wall_ns = isa_wall,
        .wall_ctx = i,
        .irq8 = hpet_legacy_in(&i->hpet, 1),
        .nmi_mask = out,
    };
    rtc_init(&i->rtc, r->bus, &rtc);
    struct acpi_pm_config pm = { .clock = r->clock,
                                 .sci = pic_irq(&i->pic, 9),
                                 .base = ACPI_PM_BASE };
    acpi_pm_init(&i->pm, r->bus, &pm);
    vmgenid_init(&i->vmgenid, r->bus, 0xfef00000);
    return i;
}

static void isa_poke(void *rig, struct program *p)
{
    struct isa_rig *i = rig;
    uint8_t x = (uint8_t)take(p, 1);
    struct irq line = pic_irq(&i->pic, x & 15);
    switch (x >> 5) {
    case 0:
        pic_ack(&i->pic);
        break;
    case 1:
        port61_raise_iochk(&i->port61);
        break;
    case 2:
        acpi_pm_raise_gpe(&i->pm, x & 31);
        break;
    case 3:
        acpi_pm_press_power_button(&i->pm);
        break;
    case 4:
        i->wall_ns += take(p, 4) << (x & 15);
        break;
    case 5:
        acpi_pm_set_base(&i->pm, (uint16_t)(take(p, 1) << 8), x & 1);
        break;
    default:
        if ((x & 15) > 2 && (x & 15) != 8 && (x & 15) != 9) {
            irq_set(&line, x >> 4 & 1);
        }
        break;
    }
}

static void isa_unmake(void *rig)
{
    struct isa_rig *i = rig;
    vmgenid_fini(&i->vmgenid);
    acpi_pm_fini(&i->pm);
    rtc_fini(&i->rtc);
    port61_fini(&i->port61);
    pit_fini(&i->pit);
    hpet_fini(&i->hpet);
    pic_fini(&i->pic);
    free(i);
}

/* -- APICs ------------------------------------------------------------------------------------- */
static void *apic_make(struct dev_rig *r)
{
    struct apic_rig *a = calloc(1, sizeof *a);
    apic_rig_init_on(a, r);
    apic_enable_all(a); /* else next to nothing gets through */
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint32_t trigger = pin & 1 ? 0x8000 : 0;
        ioapic_route(a, pin, pin & 3, trigger | (0x20 + 8 * pin));
    }
    for (unsigned i = 0; i < APICS; i++) {
        apic_set(a, i, 0x320, i << 17 | (0x40 + i)); /* one with each timer mode */
        apic_set(a, i, 0x3e0, i);
    }
    return a;
}

static void apic_poke(void *rig, struct program *p)
{
    struct apic_rig *a = rig;
    uint8_t x = (uint8_t)take(p, 1);
    unsigned n = x & 3;
    struct lapic *l = &a->cpu[n].lapic;
    struct irq line = lapic_lint(l, x >> 2 & 1);
    uint32_t msr;
    uint64_t value;
    switch (x >> 4) {
    case 0:
    case 1:
        value = take(p, 2);
        lapic_mmio_write(l, value << 4 & 0xff0, 4, take(p, 4));
        break;
    case 2:
        lapic_mmio_write(l, take(p, 2), 1u << (x >> 2 & 3), take(p, 4));
        break;
    case 3:
        lapic_mmio_read(l, take(p, 2), 1u << (x >> 2 & 3));
        break;
    case 4:
    case 5:
        msr = 0x800 + (uint32_t)take(p, 1);
        lapic_msr_write(l, msr, take(p, x & 8 ? 8 : 3));
        break;
    case 6:
        lapic_msr_read(l, 0x800 + (uint32_t)take(p, 1), &value);
        break;
    case 7:
        lapic_msr_write(l, 0x1b, 0xfee00000 | (take(p, 2) & 0xfff));
        break;
    case 8:
        lapic_msr_write(l, 0x6e0, x & 8 ? take(p, 8) : take(p, 3));
        break;
    case 9:
        irq_set(&line, x >> 3 & 1);
        break;
    case 10:
        lapic_local_event(l, take(p, 1) % LAPIC_LVTS);
        break;
    case 11:
        value = take(p, 2);
        msi_send(&a->apics, 0xfee00000 | (value & 0xfff) << 4, (uint32_t)take(p, 4));
        break;
    case 12:
        lapic_set_tpr(l, x >> 2 & 3);
        a->cpu[n].tsc_offset += take(p, 4);
        lapic_tsc_changed(l);
        break;
    case 13:
        a->cpu[n].extint_vector = (int)take(p, 1) - 1;
        break;
    case 14:
        lapic_ack(l);
        break;
    default:
        ioapic_line(a, (int)(take(p, 1) % IOAPIC_PINS), x & 1);
        break;
    }
}

static void apic_unmake(void *rig)
{
    apic_rig_fini_on(rig);
    free(rig);
}

/* -- Serial port, keyboard controller, small ports --------------------------------------------- */
struct serial_rig {
    struct uart uart;
    struct i8042 kbc;
    struct port92 port92;
    struct post_port post;
    struct debugcon debugcon;
};

static void serial_ready(void *ctx)
{
    struct serial_rig *s = ctx;
    uart_input(&s->uart, (const uint8_t *)"more input", 10);
}

static void *serial_make(struct dev_rig *r)
{
    struct serial_rig *s = calloc(1, sizeof *s);
    struct irq out = { ignore_irq, NULL, 0 };
    struct char_backend backend = { NULL, serial_ready, s };
    uart_init(&s->uart, r->bus, "uart.0", 0x3f8, &out, r->clock, &backend);
    i8042_init(&s->kbc, r->bus, &out, &out, &out, &out);
    port92_init(&s->port92, r->bus, &out, &out);
    post_port_init(&s->post, r->bus);
    debugcon_init(&s->debugcon, r->bus, 0xe9, &backend);
    return s;
}

static void serial_poke(void *rig, struct program *p)
{
    struct serial_rig *s = rig;
    uint8_t text[32] = { 0 };
    uint8_t x = (uint8_t)take(p, 1);
    switch (x & 3) {
    case 0:
        uart_input(&s->uart, text, x >> 3);
        break;
    case 1:
        uart_input_break(&s->uart);
        break;
    case 2:
        i8042_key(&s->kbc, (unsigned)take(p, x & 8 ? 4 : 1), x >> 2 & 1);
        break;
    default:
        i8042_mouse(&s->kbc, (int)take(p, x & 4 ? 4 : 1), (int)take(p, x & 8 ? 4 : 1),
                    (int)take(p, 1), (unsigned)take(p, 1));
        break;
    }
}

static void serial_unmake(void *rig)
{
    struct serial_rig *s = rig;
    debugcon_fini(&s->debugcon);
    post_port_fini(&s->post);
    port92_fini(&s->port92);
    i8042_fini(&s->kbc);
    uart_fini(&s->uart);
    free(s);
}

static const struct rig_kind kinds[] = {
    {
        .port = { { 0x20, 2 }, { 0xa0, 2 }, { 0x4d0, 2 } },
        .make = isa_make,
        .poke = isa_poke,
        .unmake = isa_unmake,
    },
    {
        .port = { { 0x40, 4 }, { 0x61, 1 } },
        .make = isa_make,
        .poke = isa_poke,
        .unmake = isa_unmake,
    },
    {
        .port = { { 0x70, 2 } },
        .make = isa_make,
        .poke = isa_poke,
        .unmake = isa_unmake,
    },
    {
        .port = { { 0x600, 64 }, { 0xb2, 2 }, { 0x20, 2 } },
        .mmio = { { 0xfed00000, 0x180 }, { 0xfef00000, 0x20 } },
        .make = isa_make,
        .poke = isa_poke,
        .unmake = isa_unmake,
    },
    {
        .mmio = { { 0xfec00000, 0x48 } },
        .make = apic_make,
        .poke = apic_poke,
        .unmake = apic_unmake,
    },
    {
        .port = { { 0x3f8, 8 } },
        .make = serial_make,
        .poke = serial_poke,
        .unmake = serial_unmake,
    },
    {
        .port = { { 0x60, 1 }, { 0x64, 1 }, { 0x92, 1 }, { 0x80, 1 }, { 0xe9, 1 } },
        .make = serial_make,
        .poke = serial_poke,
        .unmake = serial_unmake,
    },
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct program p = { data, size };
    run(&kinds[take(&p, 1) % (sizeof kinds / sizeof *kinds)], &p);
    return 0;
}
