/* SPDX-License-Identifier: Apache-2.0
 *
 * ACPI tables (ACPI 5.0 chapter 5; HPET 1.0a 3.2.4; WAET): RSDP, RSDT, XSDT, FADT, FACS, DSDT,
 * MADT, HPET, WAET.
 */
#include "boot/acpi.h"

#include <assert.h>
#include <string.h>

#include "base/bytes.h"
#include "boot/internal.h"

enum {
    SMI_PORT = 0xb2,
    SMI_ACPI_ENABLE = 0xf1,
    SMI_ACPI_DISABLE = 0xf0,
    RESET_PORT = 0xcf9,
    RESET_VALUE = 6,
    CMOS_CENTURY = 0x32,
    IOAPIC_PINS = 24,

    FADT_BYTES = 268,
    FADT_REVISION = 5,
    FADT_WBINVD = 1u << 0,
    FADT_PROC_C1 = 1u << 2,
    FADT_SLP_BUTTON = 1u << 5, /* there is no fixed one; but there is a power button */
    FADT_TIMER_32BIT = 1u << 8,
    FADT_RESET_REG = 1u << 10,
    ARCH_LEGACY_DEVICES = 1u << 0,
    ARCH_8042 = 1u << 1,
    ARCH_NO_VGA = 1u << 2,
    FACS_BYTES = 64,
    RSDP_BYTES = 36,
    RSDP_V1_BYTES = 20,

    MADT_LAPIC = 0,
    MADT_IOAPIC = 1,
    MADT_OVERRIDE = 2,
    MADT_LAPIC_NMI = 4,
    MADT_X2APIC = 9,
    MADT_X2APIC_NMI = 10,
    LEVEL_HIGH = 0xd, /* MPS INTI flags */
    XAPIC_IDS = 255,  /* higher ids need x2APIC entries */

    HPET_BLOCK_ID = 0x8086a201, /* as its capabilities register */
    WAET_PM_TIMER_GOOD = 2,     /* one read is enough */

    TABLES = 5, /* that the root tables name */
};

/* -- The common header (5.2.6) ----------------------------------------------------------------- */
static uint8_t *new_table(struct tablebuf *t, const char *signature, unsigned revision, size_t len,
                          uint64_t *at)
{
    uint8_t *p = tablebuf_take(t, len, 16, at);
    memcpy(p, signature, 4);
    store_le32(p + ACPI_LENGTH_AT, (uint32_t)len);
    p[8] = (uint8_t)revision;
    memcpy(p + 10, "SOSIA ", 6);
    memcpy(p + 16, "SOSIAPC ", 8);
    store_le32(p + 24, 1);
    memcpy(p + 28, "SOSI", 4);
    store_le32(p + 32, 1);
    return p;
}

static void finish(uint8_t *table)
{
    table[ACPI_CHECKSUM_AT] = 0;
    table[ACPI_CHECKSUM_AT] = table_checksum(table, load_le32(table + ACPI_LENGTH_AT));
}

/* Generic address (5.2.3.1) of a register block in I/O space. size: 1 byte, 2 word, 3 dword. */
static void io_address(uint8_t *p, uint64_t port, unsigned bits, unsigned access)
{
    p[0] = 1;
    p[1] = (uint8_t)bits;
    p[3] = (uint8_t)access;
    store_le64(p + 4, port);
}

/* -- Tables ------------------------------------------------------------------------------------ */
static uint64_t build_facs(struct tablebuf *t)
{
    uint64_t at;
    uint8_t *p = tablebuf_take(t, FACS_BYTES, 64, &at);
    memcpy(p, "FACS", 4);
    store_le32(p + ACPI_LENGTH_AT, FACS_BYTES);
    p[32] = 2; /* version */
    return at;
}

static uint64_t build_dsdt(struct tablebuf *t, const struct boot_machine *m, uint64_t ram_below_4g)
{
    struct aml a;
    uint64_t at;
    aml_init(&a);
    dsdt_build(&a, m, ram_below_4g);
    uint8_t *p = new_table(t, "DSDT", 2, ACPI_HEADER + a.len, &at);
    memcpy(p + ACPI_HEADER, a.data, a.len);
    finish(p);
    aml_fini(&a);
    return at;
}

static unsigned boot_arch(const struct boot_machine *m)
{
    return ARCH_LEGACY_DEVICES | (m->i8042 ? ARCH_8042 : 0) | (m->vga ? 0 : ARCH_NO_VGA);
}

static uint64_t build_fadt(struct tablebuf *t, const struct boot_machine *m, uint64_t facs,
                           uint64_t dsdt)
{
    uint64_t at;
    uint8_t *p = new_table(t, "FACP", FADT_REVISION, FADT_BYTES, &at);
    unsigned event = m->pm_base, control = m->pm_base + 4u, timer = m->pm_base + 8u;
    store_le32(p + 36, (uint32_t)facs);
    store_le32(p + 40, (uint32_t)dsdt);
    store_le16(p + 46, m->sci_irq);
    store_le32(p + 48, SMI_PORT);
    p[52] = SMI_ACPI_ENABLE;
    p[53] = SMI_ACPI_DISABLE;
    store_le32(p + 56, event);
    store_le32(p + 64, control);
    store_le32(p + 76, timer);
    store_le32(p + 80, m->gpe0_base);
    p[88] = 4;
    p[89] = 2;
    p[91] = 4;
    p[92] = m->gpe0_base != 0 ? m->gpe0_len : 0;
    store_le16(p + 96, 0xfff); /* no C2, no C3 */
    store_le16(p + 98, 0xfff);
    p[108] = CMOS_CENTURY;
    store_le16(p + 109, (uint16_t)boot_arch(m));
    store_le32(p + 112, FADT_WBINVD | FADT_PROC_C1 | FADT_SLP_BUTTON | FADT_RESET_REG |
                            (m->pm_timer_32bit ? FADT_TIMER_32BIT : 0));
    io_address(p + 116, RESET_PORT, 8, 1);
    p[128] = RESET_VALUE;
    store_le64(p + 140, dsdt); /* the FACS has its 32-bit pointer only: one must be 0 */
    io_address(p + 148, event, 32, 2);
    io_address(p + 172, control, 16, 2);
    io_address(p + 208, timer, 32, 3);
    if (p[92] != 0) {
        io_address(p + 220, m->gpe0_base, p[92] * 8u, 1);
    }
    finish(p);
    return at;
}

static uint32_t apic_id(const struct boot_machine *m, unsigned cpu)
{
    return m->apic_ids != NULL ? m->apic_ids[cpu] : cpu;
}

static size_t madt_cpu(uint8_t *p, unsigned uid, uint32_t id)
{
    if (id < XAPIC_IDS && uid < XAPIC_IDS) {
        p[0] = MADT_LAPIC;
        p[1] = 8;
        p[2] = (uint8_t)uid;
        p[3] = (uint8_t)id;
        store_le32(p + 4, 1); /* enabled */
    } else {
        p[0] = MADT_X2APIC;
        p[1] = 16;
        store_le32(p + 4, id);
        store_le32(p + 8, 1);
        store_le32(p + 12, uid);
    }
    return p[1];
}

static size_t madt_override(uint8_t *p, unsigned irq, unsigned gsi, unsigned flags)
{
    p[0] = MADT_OVERRIDE;
    p[1] = 10;
    p[3] = (uint8_t)irq;
    store_le32(p + 4, gsi);
    store_le16(p + 8, (uint16_t)flags);
    return 10;
}

static size_t madt_irqs(uint8_t *p, const struct boot_machine *m)
{
    size_t n = 0;
    p[n] = MADT_IOAPIC;
    p[n + 1] = 12;
    p[n + 2] = m->ioapic_id;
    store_le32(p + n + 4, LAYOUT_IOAPIC);
    n += 12;
    n += madt_override(p + n, 0, 2, 0);
    for (unsigned irq = 1; irq < 16; irq++) {
        /* PIRQs that come as ISA IRQs are level-triggered, whoever reads the links or not. */
        if (irq == m->sci_irq || (m->pirq_gsi == 0 && (irq == 10 || irq == 11))) {
            n += madt_override(p + n, irq, irq, LEVEL_HIGH);
        }
    }
    p[n] = MADT_LAPIC_NMI;
    p[n + 1] = 6;
    p[n + 2] = 0xff; /* every processor's LINT1 */
    p[n + 5] = 1;
    n += 6;
    p[n] = MADT_X2APIC_NMI;
    p[n + 1] = 12;
    store_le32(p + n + 4, 0xffffffffu);
    p[n + 8] = 1;
    return n + 12;
}

static uint64_t build_madt(struct tablebuf *t, const struct boot_machine *m)
{
    enum { OTHERS = 256, FIRST = ACPI_HEADER + 8 };
    size_t used = t->used;
    uint64_t at;
    uint8_t *p = new_table(t, "APIC", 3, FIRST + (size_t)m->cpus * 16 + OTHERS, &at);
    store_le32(p + 36, LAYOUT_LAPIC);
    store_le32(p + 40, 1); /* there are 8259s, too */
    size_t n = FIRST;
    for (unsigned i = 0; i < m->cpus; i++) {
        n += madt_cpu(p + n, i, apic_id(m, i));
    }
    n += madt_irqs(p + n, m);
    assert(at - t->base >= used);
    t->used = (size_t)(at - t->base) + n;
    store_le32(p + ACPI_LENGTH_AT, (uint32_t)n);
    finish(p);
    return at;
}

static uint64_t build_hpet(struct tablebuf *t)
{
    uint64_t at;
    uint8_t *p = new_table(t, "HPET", 1, 56, &at);
    store_le32(p + 36, HPET_BLOCK_ID);
    p[41] = 64; /* bits; in memory space */
    store_le64(p + 44, LAYOUT_HPET);
    finish(p);
    return at;
}

static uint64_t build_waet(struct tablebuf *t)
{
    uint64_t at;
    uint8_t *p = new_table(t, "WAET", 1, 40, &at);
    store_le32(p + 36, WAET_PM_TIMER_GOOD);
    finish(p);
    return at;
}

static void build_root(struct tablebuf *t, const uint64_t *tables, size_t count, uint64_t rsdp,
                       uint8_t *root)
{
    uint64_t rsdt_at, xsdt_at;
    uint8_t *rsdt = new_table(t, "RSDT", 1, ACPI_HEADER + count * 4, &rsdt_at);
    uint8_t *xsdt = new_table(t, "XSDT", 1, ACPI_HEADER + count * 8, &xsdt_at);
    for (size_t i = 0; i < count; i++) {
        store_le32(rsdt + ACPI_HEADER + i * 4, (uint32_t)tables[i]);
        store_le64(xsdt + ACPI_HEADER + i * 8, tables[i]);
    }
    finish(rsdt);
    finish(xsdt);
    assert(rsdp % 16 == 0);
    memcpy(root, "RSD PTR ", 8);
    memcpy(root + 9, "SOSIA ", 6);
    root[15] = 2;
    store_le32(root + 16, (uint32_t)rsdt_at);
    store_le32(root + 20, RSDP_BYTES);
    store_le64(root + 24, xsdt_at);
    root[8] = table_checksum(root, RSDP_V1_BYTES);
    root[32] = table_checksum(root, RSDP_BYTES);
}

unsigned acpi_pirq_gsi(const struct boot_machine *m, unsigned pirq)
{
    return m->pirq_gsi != 0 ? m->pirq_gsi + pirq : 10 + pirq / 2;
}

void acpi_build(struct tablebuf *t, const struct boot_machine *m, uint64_t ram_below_4g,
                uint64_t *rsdp)
{
    uint64_t tables[TABLES];
    size_t n = 0;
    assert(m->pirq_gsi == 0 || (m->pirq_gsi >= 16 && m->pirq_gsi + 4 <= IOAPIC_PINS));
    uint8_t *root = tablebuf_take(t, RSDP_BYTES, 16, rsdp);
    uint64_t facs = build_facs(t);
    uint64_t dsdt = build_dsdt(t, m, ram_below_4g);
    tables[n++] = build_fadt(t, m, facs, dsdt);
    tables[n++] = build_madt(t, m);
    if (m->hpet) {
        tables[n++] = build_hpet(t);
    }
    tables[n++] = build_waet(t);
    build_root(t, tables, n, *rsdp, root);
}
