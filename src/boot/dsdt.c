/* SPDX-License-Identifier: Apache-2.0
 *
 * The DSDT: the board's devices that cannot be found by asking a bus (ACPI 5.0 chapters 6, 7, 9).
 *
 * PCI interrupts (6.2.13): in PIC mode by link devices over the PIIX3's routing registers; in APIC
 * mode the same, or the IOAPIC inputs that the board wires. UNIMPL: processor power states.
 */
#include <stdio.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "boot/acpi.h"
#include "boot/layout.h"

enum {
    PIRQS = 4,
    PCI_SLOTS = 32,
    PIIX3_ADR = 0x00010000,
    PIIX3_ROUTING = 0x60,
    ROUTE_OFF = 0x80,
    ROUTE_IRQ = 0x0f,
    STA_PRESENT = 0x0b, /* and enabled, and working */
    STA_DISABLED = 0x09,
    INTERRUPT_AT = 5, /* of the number, in the extended interrupt descriptor */
    PCI_FIRST_PORT = 0xd00,
    CHANGED = 0x80, /* what a device-specific notification says */
};
#define PCI_WINDOW_MIN 0xc0000000u

static void name_eisaid(struct aml *a, const char *name, const char *id)
{
    aml_name(a, name);
    aml_eisaid(a, id);
}

static void name_integer(struct aml *a, const char *name, uint64_t value)
{
    aml_name(a, name);
    aml_integer(a, value);
}

static void name_resources(struct aml *a, const char *name, struct aml_resources *r)
{
    aml_name(a, name);
    aml_resources(a, r);
}

/* 7.3.4: what to write to SLP_TYP. */
static void sleep_states(struct aml *a, const struct boot_machine *m)
{
    aml_name(a, "\\_S5");
    aml_package(a, 4);
    aml_integer(a, m->s5_type);
    aml_integer(a, m->s5_type);
    aml_integer(a, 0);
    aml_integer(a, 0);
    aml_close(a);
}

/* 5.8.1: the operating system tells which interrupt model it uses; \PICM keeps it. */
static void interrupt_model(struct aml *a)
{
    name_integer(a, "\\PICM", 0);
    aml_method(a, "\\_PIC", 1);
    aml_op(a, AML_STORE);
    aml_op(a, AML_ARG0);
    aml_path(a, "\\PICM");
    aml_close(a);
}

/* -- PCI --------------------------------------------------------------------------------------- */
static void pci_windows(struct aml *a, const struct boot_machine *m, uint64_t ram_below_4g)
{
    struct aml_resources r = { .len = 0 };
    uint64_t first = align_up(ram_below_4g, MIB(1));
    aml_res_bus_window(&r, 0, 0xff);
    aml_res_io(&r, 0xcf8, 8);
    aml_res_io_window(&r, 0, 0xcf7);
    aml_res_io_window(&r, PCI_FIRST_PORT, 0xffff);
    aml_res_memory_window(&r, AML_CACHED, 0xa0000, 0xbffff);
    aml_res_memory_window(&r, AML_UNCACHED,
                          first > PCI_WINDOW_MIN ? (uint32_t)first : PCI_WINDOW_MIN,
                          LAYOUT_IOAPIC - 1);
    if (m->pci_high_size != 0) {
        aml_res_memory_window64(&r, m->pci_high_start, m->pci_high_start + m->pci_high_size - 1);
    }
    name_resources(a, "_CRS", &r);
}

enum routing { ROUTING_LINKS, ROUTING_GSI };

/* Slot s, pin n meets PIRQ (s - 1 + n) & 3: pci_intx_route. */
static void routes(struct aml *a, const struct boot_machine *m, enum routing how)
{
    aml_package(a, PCI_SLOTS * PIRQS);
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
        for (unsigned pin = 0; pin < PIRQS; pin++) {
            unsigned pirq = (slot + PIRQS - 1 + pin) % PIRQS;
            aml_package(a, 4);
            aml_integer(a, (uint64_t)slot << 16 | 0xffff);
            aml_integer(a, pin);
            if (how == ROUTING_LINKS) {
                char link[] = "\\_SB.LNKA";
                link[sizeof link - 2] = (char)('A' + pirq);
                aml_path(a, link);
                aml_integer(a, 0);
            } else {
                aml_integer(a, 0);
                aml_integer(a, acpi_pirq_gsi(m, pirq));
            }
            aml_close(a);
        }
    }
    aml_close(a);
}

static void pci_routing(struct aml *a, const struct boot_machine *m)
{
    aml_name(a, m->pirq_gsi != 0 ? "PRTL" : "_PRT");
    routes(a, m, ROUTING_LINKS);
    if (m->pirq_gsi == 0) {
        return;
    }
    aml_name(a, "PRTG");
    routes(a, m, ROUTING_GSI);
    aml_method(a, "_PRT", 0);
    aml_if(a);
    aml_op(a, AML_EQUAL);
    aml_path(a, "\\PICM");
    aml_integer(a, 1);
    aml_op(a, AML_RETURN);
    aml_path(a, "PRTG");
    aml_close(a);
    aml_op(a, AML_RETURN);
    aml_path(a, "PRTL");
    aml_close(a);
}

/* -- Links (6.2.12, 6.2.15): _CRS and _SRS are the routing register ---------------------------- */
static void link_status(struct aml *a, const char *reg)
{
    aml_method(a, "_STA", 0);
    aml_if(a);
    aml_op(a, AML_AND);
    aml_path(a, reg);
    aml_integer(a, ROUTE_OFF);
    aml_op(a, AML_NULL_TARGET);
    aml_op(a, AML_RETURN);
    aml_integer(a, STA_DISABLED);
    aml_close(a);
    aml_op(a, AML_RETURN);
    aml_integer(a, STA_PRESENT);
    aml_close(a);
}

static void link_current(struct aml *a, const char *reg)
{
    struct aml_resources r = { .len = 0 };
    aml_res_interrupts(&r, (const uint32_t[]){ 0 }, 1);
    aml_method(a, "_CRS", 0);
    name_resources(a, "CUR", &r);
    aml_op(a, AML_CREATE_DWORD_FIELD);
    aml_path(a, "CUR");
    aml_field_place(a, INTERRUPT_AT, "IRQN");
    aml_if(a);
    aml_op(a, AML_LESS);
    aml_path(a, reg);
    aml_integer(a, ROUTE_OFF);
    aml_op(a, AML_STORE);
    aml_path(a, reg);
    aml_path(a, "IRQN");
    aml_close(a);
    aml_op(a, AML_RETURN);
    aml_path(a, "CUR");
    aml_close(a);
}

static void link_set(struct aml *a, const char *reg)
{
    aml_method(a, "_SRS", 1);
    aml_op(a, AML_CREATE_DWORD_FIELD);
    aml_op(a, AML_ARG0);
    aml_field_place(a, INTERRUPT_AT, "IRQN");
    aml_op(a, AML_AND);
    aml_path(a, "IRQN");
    aml_integer(a, ROUTE_IRQ);
    aml_path(a, reg);
    aml_close(a);
    aml_method(a, "_DIS", 0);
    aml_op(a, AML_OR);
    aml_path(a, reg);
    aml_integer(a, ROUTE_OFF);
    aml_path(a, reg);
    aml_close(a);
}

static void links(struct aml *a)
{
    static const uint32_t possible[] = { 5, 10, 11 };
    for (unsigned i = 0; i < PIRQS; i++) {
        struct aml_resources r = { .len = 0 };
        char name[] = "LNKA";
        char reg[] = "\\_SB.PCI0.ISA.PRQA";
        name[sizeof name - 2] = (char)('A' + i);
        reg[sizeof reg - 2] = (char)('A' + i);
        aml_device(a, name);
        name_eisaid(a, "_HID", "PNP0C0F");
        name_integer(a, "_UID", i + 1);
        aml_res_interrupts(&r, possible, ARRAY_LEN(possible));
        name_resources(a, "_PRS", &r);
        link_status(a, reg);
        link_current(a, reg);
        link_set(a, reg);
        aml_close(a);
    }
}

/* -- ISA --------------------------------------------------------------------------------------- */
struct isa_device {
    const char *name;
    const char *hid;
    struct {
        uint16_t base;
        uint8_t len;
    } io[3];
    uint8_t irq; /* 0: none; but the timer has it */
    uint8_t dma; /* 0: none */
    uint8_t uid;
};

/* Stays open. */
static void open_isa_device(struct aml *a, const struct isa_device *d)
{
    struct aml_resources r = { .len = 0 };
    aml_device(a, d->name);
    name_eisaid(a, "_HID", d->hid);
    if (d->uid != 0) {
        name_integer(a, "_UID", d->uid);
    }
    for (size_t i = 0; i < ARRAY_LEN(d->io) && d->io[i].len != 0; i++) {
        aml_res_io(&r, d->io[i].base, d->io[i].len);
    }
    if (d->irq != 0) {
        aml_res_irq(&r, d->irq);
    }
    if (d->dma != 0) {
        aml_res_dma(&r, d->dma);
    }
    name_resources(a, "_CRS", &r);
}

static void isa_device(struct aml *a, const struct isa_device *d)
{
    open_isa_device(a, d);
    aml_close(a);
}

/* 9.9.2: _FDI is what INT 13h function 8 returns of a drive, and the eleven bytes behind INT 1Eh */
static void floppy_drive(struct aml *a, unsigned n, uint8_t type)
{
    static const struct {
        uint8_t last_cylinder, sectors; /* a track */
        uint8_t specify[2], gap, format_gap;
    } of[] = {
        [1] = { 39, 9, { 0xdf, 2 }, 0x2a, 0x50 },  [2] = { 79, 15, { 0xdf, 2 }, 0x1b, 0x54 },
        [3] = { 79, 9, { 0xdf, 2 }, 0x2a, 0x50 },  [4] = { 79, 18, { 0xaf, 2 }, 0x1b, 0x6c },
        [5] = { 79, 36, { 0xaf, 2 }, 0x1b, 0x50 },
    };
    const uint8_t fdi[16] = { (uint8_t)n, type, of[type].last_cylinder, of[type].sectors,
                              1, /* the last head */
                              of[type].specify[0], of[type].specify[1],
                              0x25, /* ticks until the motor is off */
                              2, /* sectors of 512 bytes */
                              of[type].sectors, of[type].gap, 0xff, of[type].format_gap,
                              0xf6, /* what formatting fills with */
                              15, /* ms for the head to settle */
                              8 /* eighths of a second for the motor to come to speed */ };
    const char name[] = { 'F', 'L', 'P', (char)('A' + n), '\0' };
    aml_device(a, name);
    name_integer(a, "_ADR", n);
    aml_name(a, "_FDI");
    aml_package(a, ARRAY_LEN(fdi));
    for (size_t i = 0; i < ARRAY_LEN(fdi); i++) {
        aml_integer(a, fdi[i]);
    }
    aml_close(a);
    aml_close(a);
}

/* 9.9.1: _FDE says which of four drives are there; and there never is a tape. */
static void floppies(struct aml *a, const struct boot_machine *m)
{
    static const struct isa_device fdc = {
        "FDC0", "PNP0700", { { 0x3f0, 6 }, { 0x3f7, 1 } }, 6, 2, 0
    };
    uint8_t fde[5 * 4] = { 0 };
    open_isa_device(a, &fdc);
    for (unsigned n = 0; n < ARRAY_LEN(m->floppy); n++) {
        store_le32(fde + 4 * n, m->floppy[n] != 0);
    }
    store_le32(fde + 16, 2);
    aml_name(a, "_FDE");
    aml_buffer(a, fde, sizeof fde);
    for (unsigned n = 0; n < ARRAY_LEN(m->floppy); n++) {
        if (m->floppy[n] != 0) {
            floppy_drive(a, n, m->floppy[n]);
        }
    }
    aml_close(a);
}

static void serial_ports(struct aml *a, const struct boot_machine *m)
{
    static const struct isa_device com[] = {
        { "COM1", "PNP0501", { { 0x3f8, 8 } }, 4, 0, 1 },
        { "COM2", "PNP0501", { { 0x2f8, 8 } }, 3, 0, 2 },
        { "COM3", "PNP0501", { { 0x3e8, 8 } }, 4, 0, 3 },
        { "COM4", "PNP0501", { { 0x2e8, 8 } }, 3, 0, 4 },
    };
    for (unsigned i = 0; i < ARRAY_LEN(com); i++) {
        if ((m->serial_ports & BIT(i)) != 0) {
            isa_device(a, &com[i]);
        }
    }
}

static void isa(struct aml *a, const struct boot_machine *m)
{
    static const struct isa_device always[] = {
        { "PIC", "PNP0000", { { 0x20, 2 }, { 0xa0, 2 }, { 0x4d0, 2 } }, 2, 0, 0 },
        { "RTC", "PNP0B00", { { 0x70, 8 } }, 8, 0, 0 },
        { "SPKR", "PNP0800", { { 0x61, 1 } }, 0, 0, 0 },
        { "DMAC", "PNP0200", { { 0x00, 16 }, { 0x81, 15 }, { 0xc0, 32 } }, 0, 4, 0 },
    };
    static const struct isa_device i8042[] = {
        { "KBD", "PNP0303", { { 0x60, 1 }, { 0x64, 1 } }, 1, 0, 0 },
        { "MOU", "PNP0F13", { { 0, 0 } }, 12, 0, 0 },
    };
    struct aml_resources timer = { .len = 0 };
    aml_device(a, "ISA");
    name_integer(a, "_ADR", PIIX3_ADR);
    aml_region(a, "PIRQ", AML_SPACE_PCI, PIIX3_ROUTING, PIRQS);
    aml_field(a, "PIRQ", AML_ACCESS_BYTE);
    aml_field_unit(a, "PRQA", 8);
    aml_field_unit(a, "PRQB", 8);
    aml_field_unit(a, "PRQC", 8);
    aml_field_unit(a, "PRQD", 8);
    aml_close(a);
    for (size_t i = 0; i < ARRAY_LEN(always); i++) {
        isa_device(a, &always[i]);
    }
    for (size_t i = 0; m->i8042 && i < ARRAY_LEN(i8042); i++) {
        isa_device(a, &i8042[i]);
    }
    if (m->floppy[0] != 0) {
        floppies(a, m);
    }
    aml_device(a, "TIMR");
    name_eisaid(a, "_HID", "PNP0100");
    aml_res_io(&timer, 0x40, 4);
    aml_res_irq(&timer, 0);
    name_resources(a, "_CRS", &timer);
    aml_close(a);
    serial_ports(a, m);
    aml_close(a);
}

/* Ports that the PCI root would otherwise think it may hand out. */
static void motherboard(struct aml *a, const struct boot_machine *m)
{
    struct aml_resources r = { .len = 0 };
    aml_device(a, "MBRD");
    name_eisaid(a, "_HID", "PNP0C02");
    aml_res_io(&r, 0x80, 1);
    aml_res_io(&r, 0x92, 1);
    aml_res_io(&r, 0xb2, 2);
    aml_res_io(&r, m->pm_base, 64);
    if (m->gpe0_base != 0 && (m->gpe0_base & ~63) != m->pm_base) {
        aml_res_io(&r, m->gpe0_base, m->gpe0_len);
    }
    if (m->hotplug_base != 0) {
        aml_res_io(&r, m->hotplug_base, 20);
    }
    if (m->vmgenid != 0) {
        aml_res_memory(&r, m->vmgenid, 0x1000);
    }
    name_resources(a, "_CRS", &r);
    aml_close(a);
}

static void hpet(struct aml *a)
{
    struct aml_resources r = { .len = 0 };
    aml_device(a, "HPET");
    name_eisaid(a, "_HID", "PNP0103");
    name_integer(a, "_UID", 0);
    aml_res_memory(&r, LAYOUT_HPET, 0x400);
    name_resources(a, "_CRS", &r);
    aml_close(a);
}

/* 8.4: processor devices, tied to the MADT by _UID. */
static void processors(struct aml *a, const struct boot_machine *m)
{
    for (unsigned i = 0; i < m->cpus; i++) {
        char name[5];
        snprintf(name, sizeof name, "C%03X", i & 0xfffu);
        aml_device(a, name);
        aml_name(a, "_HID");
        aml_string(a, "ACPI0007");
        name_integer(a, "_UID", i);
        aml_close(a);
    }
}

/* -- The VM generation ID, which is notified when it changed ----------------------------------- */
static void generation(struct aml *a, const struct boot_machine *m)
{
    aml_device(a, "VGEN");
    aml_name(a, "_HID");
    aml_string(a, "SOSI0001");
    aml_name(a, "_CID");
    aml_string(a, "VM_Gen_Counter");
    aml_name(a, "_DDN");
    aml_string(a, "VM_Gen_Counter");
    aml_name(a, "ADDR");
    aml_package(a, 2);
    aml_integer(a, m->vmgenid);
    aml_integer(a, 0);
    aml_close(a);
    aml_close(a);
}

static void generation_event(struct aml *a, const struct boot_machine *m)
{
    char method[] = "_E00";
    snprintf(method, sizeof method, "_E%02X", m->vmgenid_gpe & 0xffu);
    aml_scope(a, "\\_GPE");
    aml_method(a, method, 0);
    aml_op(a, AML_NOTIFY);
    aml_path(a, "\\_SB.VGEN");
    aml_integer(a, CHANGED);
    aml_close(a);
    aml_close(a);
}

void dsdt_build(struct aml *a, const struct boot_machine *m, uint64_t ram_below_4g)
{
    sleep_states(a, m);
    interrupt_model(a);
    aml_scope(a, "\\_SB");
    aml_device(a, "PCI0");
    name_eisaid(a, "_HID", "PNP0A03");
    name_integer(a, "_UID", 0);
    pci_windows(a, m, ram_below_4g);
    pci_routing(a, m);
    isa(a, m);
    if (m->hotplug_base != 0) {
        dsdt_hotplug_slots(a, m);
    }
    aml_close(a);
    links(a);
    motherboard(a, m);
    if (m->hpet) {
        hpet(a);
    }
    processors(a, m);
    if (m->vmgenid != 0) {
        generation(a, m);
    }
    aml_close(a);
    if (m->hotplug_base != 0) {
        dsdt_hotplug_event(a, m);
    }
    if (m->vmgenid != 0) {
        generation_event(a, m);
    }
}
