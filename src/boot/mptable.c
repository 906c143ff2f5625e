/* SPDX-License-Identifier: Apache-2.0
 *
 * The MP floating pointer and configuration table (MultiProcessor Specification 1.4, chapter 4),
 * for those who do not read ACPI. The board is in virtual wire mode after boot: no IMCR.
 */
#include "boot/mptable.h"

#include <string.h>

#include "base/bytes.h"
#include "boot/acpi.h"
#include "boot/layout.h"

enum {
    POINTER_BYTES = 16,
    HEADER_BYTES = 44,
    CPU_BYTES = 20,
    ENTRY_BYTES = 8,
    MAX_CPUS = 255, /* 8-bit ids, 255 is broadcast */
    MAX_OTHERS = 2 + 1 + 16 + 32 * 4 + 2,

    ENTRY_CPU = 0,
    ENTRY_BUS = 1,
    ENTRY_IOAPIC = 2,
    ENTRY_IO_INT = 3,
    ENTRY_LOCAL_INT = 4,

    INT_INT = 0,
    INT_NMI = 1,
    INT_EXTINT = 3,
    CONFORMS = 0,
    LEVEL_HIGH = 0xd,

    BUS_PCI = 0,
    BUS_ISA = 1,
    APIC_VERSION = 0x14,
    IOAPIC_VERSION = 0x20,
    CPU_ENABLED = 1,
    CPU_BOOT = 2,
    CPU_FAMILY6 = 0x600,
    CPU_FPU_APIC = 0x201, /* CPUID.1 EDX bits that old systems look at */
    ALL_APICS = 0xff,
};

struct writer {
    uint8_t *table;
    size_t len;
    unsigned entries;
};

static uint8_t *entry(struct writer *w, unsigned type, size_t len)
{
    uint8_t *p = w->table + w->len;
    p[0] = (uint8_t)type;
    w->len += len;
    w->entries++;
    return p;
}

static void cpus(struct writer *w, const struct boot_machine *m)
{
    for (unsigned i = 0; i < m->cpus; i++) {
        uint32_t id = m->apic_ids != NULL ? m->apic_ids[i] : i;
        if (id >= MAX_CPUS || w->entries >= MAX_CPUS) {
            continue;
        }
        uint8_t *p = entry(w, ENTRY_CPU, CPU_BYTES);
        p[1] = (uint8_t)id;
        p[2] = APIC_VERSION;
        p[3] = (uint8_t)(CPU_ENABLED | (i == 0 ? CPU_BOOT : 0));
        store_le32(p + 4, CPU_FAMILY6);
        store_le32(p + 8, CPU_FPU_APIC);
    }
}

static void bus(struct writer *w, unsigned id, const char *type)
{
    uint8_t *p = entry(w, ENTRY_BUS, ENTRY_BYTES);
    p[1] = (uint8_t)id;
    memcpy(p + 2, type, 6);
}

struct interrupt {
    unsigned entry, type, flags, bus, irq, apic, pin;
};

static void interrupt(struct writer *w, const struct interrupt *i)
{
    uint8_t *p = entry(w, i->entry, ENTRY_BYTES);
    p[1] = (uint8_t)i->type;
    store_le16(p + 2, (uint16_t)i->flags);
    p[4] = (uint8_t)i->bus;
    p[5] = (uint8_t)i->irq;
    p[6] = (uint8_t)i->apic;
    p[7] = (uint8_t)i->pin;
}

static void isa_interrupts(struct writer *w, const struct boot_machine *m)
{
    for (unsigned irq = 0; irq < 16; irq++) {
        bool pirq = m->pirq_gsi == 0 && (irq == 10 || irq == 11);
        if (irq == 2 || pirq) { /* 2: the cascade, whose pin IRQ 0 has */
            continue;
        }
        interrupt(w, &(struct interrupt){
                         .entry = ENTRY_IO_INT,
                         .type = INT_INT,
                         .flags = irq == m->sci_irq ? LEVEL_HIGH : CONFORMS,
                         .bus = BUS_ISA,
                         .irq = irq,
                         .apic = m->ioapic_id,
                         .pin = irq == 0 ? 2 : irq,
                     });
    }
}

static void pci_interrupts(struct writer *w, const struct boot_machine *m)
{
    for (unsigned slot = 1; slot < 32; slot++) {
        for (unsigned pin = 0; pin < 4; pin++) {
            interrupt(w, &(struct interrupt){
                             .entry = ENTRY_IO_INT,
                             .type = INT_INT,
                             .flags = LEVEL_HIGH,
                             .bus = BUS_PCI,
                             .irq = slot << 2 | pin,
                             .apic = m->ioapic_id,
                             .pin = acpi_pirq_gsi(m, (slot - 1 + pin) & 3),
                         });
        }
    }
}

static void local_interrupt(struct writer *w, unsigned type, unsigned lint)
{
    interrupt(w, &(struct interrupt){ .entry = ENTRY_LOCAL_INT,
                                      .type = type,
                                      .bus = BUS_ISA,
                                      .apic = ALL_APICS,
                                      .pin = lint });
}

void mptable_build(struct tablebuf *t, const struct boot_machine *m)
{
    uint64_t pointer_at, table_at;
    uint8_t *pointer = tablebuf_take(t, POINTER_BYTES, 16, &pointer_at);
    unsigned listed = m->cpus < MAX_CPUS ? m->cpus : MAX_CPUS;
    size_t room = HEADER_BYTES + listed * CPU_BYTES + MAX_OTHERS * ENTRY_BYTES;
    struct writer w = { .table = tablebuf_take(t, room, 16, &table_at), .len = HEADER_BYTES };
    cpus(&w, m);
    bus(&w, BUS_PCI, "PCI   ");
    bus(&w, BUS_ISA, "ISA   ");
    uint8_t *p = entry(&w, ENTRY_IOAPIC, ENTRY_BYTES);
    p[1] = m->ioapic_id;
    p[2] = IOAPIC_VERSION;
    p[3] = 1; /* usable */
    store_le32(p + 4, LAYOUT_IOAPIC);
    isa_interrupts(&w, m);
    pci_interrupts(&w, m);
    local_interrupt(&w, INT_EXTINT, 0);
    local_interrupt(&w, INT_NMI, 1);

    memcpy(w.table, "PCMP", 4);
    store_le16(w.table + 4, (uint16_t)w.len);
    w.table[6] = 4; /* specification 1.4 */
    memcpy(w.table + 8, "SOSIA   ", 8);
    memcpy(w.table + 16, "PC          ", 12);
    store_le16(w.table + 34, (uint16_t)w.entries);
    store_le32(w.table + 36, LAYOUT_LAPIC);
    w.table[7] = table_checksum(w.table, w.len);

    memcpy(pointer, "_MP_", 4);
    store_le32(pointer + 4, (uint32_t)table_at);
    pointer[8] = 1; /* of 16 bytes */
    pointer[9] = 4;
    pointer[10] = table_checksum(pointer, POINTER_BYTES);
}
