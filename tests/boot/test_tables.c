/* SPDX-License-Identifier: Apache-2.0 -- ACPI, MP and SMBIOS tables, read as a guest reads them */
// LAYERS: boot mem state base
#include "support/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "boot/tables.h"
#include "support/bootimage.h"

#define SCAN_START 0xe0000u
#define SCAN_END 0x100000u

/* Memory below 1 MiB of a machine with tables. */
static uint8_t low[SCAN_END];

static void make(const struct boot_machine *m, uint64_t ram)
{
    struct gmem *mem;
    uint64_t rsdp = 0;
    assert_int_equal(gmem_new(&mem, ram, GIB(3), NULL), 0);
    assert_int_equal(tables_write(mem, m, &rsdp, NULL), 0);
    assert_int_equal(gmem_read(mem, 0, low, sizeof low), 0);
    assert_memory_equal(low + rsdp, "RSD PTR ", 8);
    gmem_free(mem);
}

static uint8_t sum(const uint8_t *p, size_t len)
{
    unsigned s = 0;
    for (size_t i = 0; i < len; i++) {
        s += p[i];
    }
    return (uint8_t)s;
}

/* The first paragraph from `from` on that begins with this. */
static const uint8_t *scan(uint32_t from, const char *anchor)
{
    for (uint32_t at = from; at < SCAN_END; at += 16) {
        if (memcmp(low + at, anchor, strlen(anchor)) == 0) {
            return low + at;
        }
    }
    fail_msg("no %s", anchor);
    return NULL;
}

static const uint8_t *checked_table(uint64_t at)
{
    assert_true(at >= SCAN_START && at % 16 == 0 && at + 36 <= SCAN_END);
    uint32_t len = load_le32(low + at + 4);
    assert_true(len >= 36 && at + len <= SCAN_END);
    assert_int_equal(sum(low + at, len), 0);
    return low + at;
}

static const uint8_t *find(const char *signature)
{
    const uint8_t *rsdp = scan(SCAN_START, "RSD PTR ");
    const uint8_t *xsdt = checked_table(load_le64(rsdp + 24));
    for (uint32_t i = 36; i < load_le32(xsdt + 4); i += 8) {
        const uint8_t *t = checked_table(load_le64(xsdt + i));
        if (memcmp(t, signature, 4) == 0) {
            return t;
        }
    }
    return NULL;
}

static void root_pointers(void **state)
{
    (void)state;
    struct boot_machine m = image_machine(1);
    make(&m, MIB(64));
    const uint8_t *rsdp = scan(SCAN_START, "RSD PTR ");
    assert_int_equal(sum(rsdp, 20), 0);
    assert_int_equal(sum(rsdp, 36), 0);
    const uint8_t *rsdt = checked_table(load_le32(rsdp + 16));
    const uint8_t *xsdt = checked_table(load_le64(rsdp + 24));
    uint32_t n = (load_le32(rsdt + 4) - 36) / 4;
    assert_int_equal(n, (load_le32(xsdt + 4) - 36) / 8);
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(load_le32(rsdt + 36 + i * 4), load_le64(xsdt + 36 + i * 8));
        checked_table(load_le32(rsdt + 36 + i * 4));
    }
    assert_non_null(find("HPET"));
    assert_int_equal(load_le64(find("HPET") + 44), 0xfed00000);
    assert_non_null(find("WAET"));
    m.hpet = false;
    make(&m, MIB(64));
    assert_null(find("HPET"));
}

static void fixed_hardware(void **state)
{
    (void)state;
    struct boot_machine m = image_machine(1);
    make(&m, MIB(64));
    const uint8_t *f = find("FACP");
    assert_int_equal(load_le32(f + 4), 268);
    assert_int_equal(load_le16(f + 46), 9);
    assert_int_equal(load_le32(f + 48), 0xb2);
    assert_int_equal(load_le32(f + 56), 0x600);
    assert_int_equal(load_le32(f + 64), 0x604);
    assert_int_equal(load_le32(f + 76), 0x608);
    assert_int_equal(load_le32(f + 80), 0x60c);
    assert_int_equal(f[92], 4);
    assert_int_equal(load_le64(f + 120), 0xcf9);
    assert_int_equal(f[116], 1);
    assert_int_equal(f[128], 6);
    uint32_t flags = load_le32(f + 112);
    assert_int_equal(flags & BIT(10), BIT(10)); /* reset register */
    assert_int_equal(flags & BIT(8), BIT(8));   /* 32-bit timer */
    assert_int_equal(flags & BIT(4), 0);        /* a fixed power button */
    assert_int_equal(load_le16(f + 109), 7);    /* legacy devices, 8042, no VGA */
    assert_int_equal(load_le32(f + 40), load_le64(f + 140));
    const uint8_t *dsdt = checked_table(load_le32(f + 40));
    assert_memory_equal(dsdt, "DSDT", 4);
    uint32_t facs = load_le32(f + 36);
    assert_int_equal(facs % 64, 0);
    assert_memory_equal(low + facs, "FACS", 4);
    m.i8042 = m.pm_timer_32bit = false;
    m.vga = true;
    m.gpe0_base = 0;
    make(&m, MIB(64));
    f = find("FACP");
    assert_int_equal(load_le16(f + 109), 1);
    assert_int_equal(load_le32(f + 112) & BIT(8), 0);
    assert_int_equal(load_le32(f + 80) | f[92], 0);
}

struct madt_count {
    unsigned cpus, ioapics, nmis;
    unsigned override[16]; /* gsi | flags << 8, by IRQ */
};

static void read_madt(struct madt_count *c, const uint32_t *ids)
{
    const uint8_t *p = find("APIC");
    assert_int_equal(load_le32(p + 36), 0xfee00000);
    assert_int_equal(load_le32(p + 40), 1);
    memset(c, 0, sizeof *c);
    uint32_t at = 44, end = load_le32(p + 4);
    for (; at < end; at += p[at + 1]) {
        const uint8_t *s = p + at;
        assert_true(s[1] >= 2 && at + s[1] <= end);
        switch (s[0]) {
        case 0:
            assert_int_equal(s[2], c->cpus);
            assert_int_equal(s[3], ids != NULL ? ids[c->cpus] : c->cpus);
            assert_int_equal(load_le32(s + 4), 1);
            c->cpus++;
            break;
        case 9:
            assert_int_equal(load_le32(s + 12), c->cpus);
            assert_int_equal(load_le32(s + 4), ids != NULL ? ids[c->cpus] : c->cpus);
            assert_int_equal(load_le32(s + 8), 1);
            assert_true(load_le32(s + 4) >= 255 || c->cpus >= 255);
            c->cpus++;
            break;
        case 1:
            assert_int_equal(load_le32(s + 4), 0xfec00000);
            assert_int_equal(load_le32(s + 8), 0);
            c->ioapics++;
            break;
        case 2:
            c->override[s[3] & 15] = load_le32(s + 4) | (unsigned)load_le16(s + 8) << 8;
            break;
        case 4:
        case 10:
            c->nmis++;
            break;
        default:
            fail();
        }
    }
    assert_int_equal(at, end);
}

static void processors_of_every_count(void **state)
{
    (void)state;
    static const unsigned counts[] = { 1, 2, 4, 64, 254, 255, 256, 300, BOOT_MAX_CPUS };
    for (size_t i = 0; i < ARRAY_LEN(counts); i++) {
        struct madt_count c;
        struct boot_machine m = image_machine(counts[i]);
        make(&m, MIB(64));
        read_madt(&c, NULL);
        assert_int_equal(c.cpus, counts[i]);
        assert_int_equal(c.ioapics, 1);
        assert_int_equal(c.nmis, 2);
        assert_int_equal(c.override[0], 2);
        assert_int_equal(c.override[9], 9 | 0xd << 8);
        assert_int_equal(c.override[10], 0);
    }
    static const uint32_t ids[] = { 0, 2, 4, 254, 255, 1000 };
    struct madt_count c;
    struct boot_machine m = image_machine(ARRAY_LEN(ids));
    m.apic_ids = ids;
    m.pirq_gsi = 0;
    make(&m, MIB(64));
    read_madt(&c, ids);
    assert_int_equal(c.cpus, ARRAY_LEN(ids));
    assert_int_equal(c.override[10], 10 | 0xd << 8);
    assert_int_equal(c.override[11], 11 | 0xd << 8);
}

static void mp_table(void **state)
{
    (void)state;
    for (unsigned cpus = 1; cpus <= BOOT_MAX_CPUS; cpus = cpus * 4 - 1 + (cpus == 1)) {
        struct boot_machine m = image_machine(cpus);
        make(&m, MIB(64));
        const uint8_t *pointer = scan(0xf0000, "_MP_");
        assert_int_equal(sum(pointer, 16), 0);
        assert_int_equal(pointer[11], 0); /* a configuration table, not a default one */
        const uint8_t *t = low + load_le32(pointer + 4);
        assert_memory_equal(t, "PCMP", 4);
        uint16_t len = load_le16(t + 4);
        assert_int_equal(sum(t, len), 0);
        unsigned n = 0, processors = 0, boot = 0, pci = 0, isa = 0, local = 0, at = 44;
        for (; at < len; n++) {
            const uint8_t *p = t + at;
            processors += p[0] == 0;
            boot += p[0] == 0 && (p[3] & 2) != 0;
            pci += p[0] == 3 && p[4] == 0;
            isa += p[0] == 3 && p[4] == 1;
            local += p[0] == 4;
            if (p[0] == 3 && p[4] == 0) {
                assert_int_equal(p[7], 16 + ((p[5] >> 2) - 1 + (p[5] & 3)) % 4);
                assert_int_equal(load_le16(p + 2), 0xd);
            }
            if (p[0] == 3 && p[4] == 1) {
                assert_int_equal(p[7], p[5] == 0 ? 2 : p[5]);
            }
            at += p[0] == 0 ? 20 : 8;
        }
        assert_int_equal(at, len);
        assert_int_equal(n, load_le16(t + 34));
        assert_int_equal(processors, cpus < 255 ? cpus : 255);
        assert_int_equal(boot, 1);
        assert_int_equal(pci, 31 * 4);
        assert_int_equal(isa, 15);
        assert_int_equal(local, 2);
    }
}

static void smbios(void **state)
{
    (void)state;
    static const uint64_t sizes[] = { MIB(16), GIB(3), GIB(64), GIB(1000) };
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct boot_machine m = image_machine(3);
        make(&m, sizes[i]);
        const uint8_t *v2 = scan(0xf0000, "_SM_");
        const uint8_t *v3 = scan(0xf0000, "_SM3_");
        assert_int_equal(sum(v2, v2[5]), 0);
        assert_int_equal(sum(v2 + 16, 15), 0);
        assert_int_equal(sum(v3, v3[6]), 0);
        assert_int_equal(load_le32(v2 + 24), load_le64(v3 + 16));
        assert_int_equal(load_le16(v2 + 22), load_le32(v3 + 12));
        const uint8_t *t = low + load_le32(v2 + 24);
        unsigned n = 0, at = 0, len = load_le16(v2 + 22), seen[8] = { 0 };
        uint64_t mapped = 0;
        while (at < len) {
            const uint8_t *p = t + at;
            if (p[0] < 8) {
                seen[p[0]]++;
            }
            if (p[0] == 1) {
                assert_memory_equal(p + 8, m.uuid, 16);
            }
            if (p[0] == 4) {
                assert_int_equal(p[0x23], 3);
                assert_int_equal(load_le16(p + 0x2a), 3);
            }
            if (p[0] == 17) {
                uint64_t mib = load_le16(p + 12) == 0x7fff ? load_le32(p + 0x1c)
                                                           : load_le16(p + 12);
                assert_int_equal(mib, sizes[i] / MIB(1));
            }
            if (p[0] == 19) {
                mapped += load_le32(p + 4) == UINT32_MAX
                              ? load_le64(p + 0x17) - load_le64(p + 0xf) + 1
                              : (load_le32(p + 8) + 1ull - load_le32(p + 4)) * 1024;
            }
            at += p[1];
            while (t[at] != 0 || t[at + 1] != 0) {
                at++;
            }
            at += 2;
            n++;
        }
        assert_int_equal(at, len);
        assert_int_equal(n, load_le16(v2 + 28));
        assert_int_equal(seen[0] & seen[1] & seen[3] & seen[4], 1);
        assert_int_equal(mapped, sizes[i]);
    }
    struct boot_machine m = image_machine(1);
    char serial[1000];
    memset(serial, 'S', sizeof serial - 1);
    serial[sizeof serial - 1] = '\0';
    m.serial_number = serial;
    make(&m, MIB(16));
    m.serial_number = NULL;
    make(&m, MIB(16));
}

static void bios_data(void **state)
{
    (void)state;
    struct boot_machine m = image_machine(1);
    m.serial_ports = 5;
    make(&m, MIB(16));
    assert_int_equal(load_le16(low + 0x400), 0x3f8);
    assert_int_equal(load_le16(low + 0x402), 0);
    assert_int_equal(load_le16(low + 0x404), 0x3e8);
    assert_int_equal(load_le16(low + 0x40e), 0x9fc0);
    assert_int_equal(load_le16(low + 0x413), 639);
    assert_int_equal(low[0x9fc00], 1);
}

static void needs_low_memory(void **state)
{
    (void)state;
    struct gmem *mem;
    struct boot_machine m = image_machine(1);
    uint64_t rsdp;
    struct err e = { "" };
    assert_int_equal(gmem_new(&mem, 0x90000, GIB(3), NULL), 0);
    assert_true(tables_write(mem, &m, &rsdp, &e) < 0);
    assert_true(image_err_is_clear(&e));
    gmem_free(mem);
}

static void put_file(const char *dir, const char *name, const uint8_t *table)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s.dat", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(table, load_le32(table + 4), 1, f), 1);
    fclose(f);
}

/* ACPICA's compiler takes the tables apart; the DSDT compiles again without an error or warning,
 * to the same code. */
static void iasl_reads_them(void **state)
{
    (void)state;
    if (system("command -v iasl >/dev/null") != 0) {
        print_message("# SKIP iasl is not here\n");
        return;
    }
    for (int i = 0; i < 4; i++) {
        char dir[] = "/tmp/sosia-acpi-XXXXXX";
        char command[1024];
        assert_non_null(mkdtemp(dir));
        struct boot_machine m = image_machine(i == 3 ? BOOT_MAX_CPUS : 2);
        m.pirq_gsi = i == 1 ? 0 : 16;
        m.hpet = i != 1;
        if (i == 2) {
            m.pci_high_start = GIB(512);
            m.pci_high_size = GIB(512);
        }
        make(&m, GIB(4));
        const uint8_t *fadt = find("FACP");
        put_file(dir, "dsdt", low + load_le32(fadt + 40));
        put_file(dir, "facp", fadt);
        put_file(dir, "facs", low + load_le32(fadt + 36));
        put_file(dir, "apic", find("APIC"));
        put_file(dir, "waet", find("WAET"));
        if (m.hpet) {
            put_file(dir, "hpet", find("HPET"));
        }
        snprintf(command, sizeof command,
                 "cd %s && for t in *.dat; do iasl -d $t >$t.log 2>&1 || { cat $t.log; exit 1; };"
                 "if grep -i 'error\\|invalid\\|unknown' $t.log; then exit 1; fi; done;"
                 "iasl -oa -p again dsdt.dsl >again.log 2>&1 || { cat again.log; exit 1; };"
                 "grep -q ' 0 Errors, 0 Warnings' again.log || { cat again.log; exit 1; };"
                 "tail -c +37 dsdt.dat >a; tail -c +37 again.aml >b; cmp a b",
                 dir);
        int r = system(command);
        snprintf(command, sizeof command, "rm -rf %s", dir);
        assert_int_equal(system(command), 0);
        assert_int_equal(r, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(root_pointers),
        cmocka_unit_test(fixed_hardware),
        cmocka_unit_test(processors_of_every_count),
        cmocka_unit_test(mp_table),
        cmocka_unit_test(smbios),
        cmocka_unit_test(bios_data),
        cmocka_unit_test(needs_low_memory),
        cmocka_unit_test(iasl_reads_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
