/* SPDX-License-Identifier: Apache-2.0 -- Linux boot protocol (Documentation/arch/x86/boot.rst) */
// LAYERS: boot mem state base
#include "support/test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "support/bootimage.h"

static const struct image_boot plain = { .cmdline = "console=ttyS0" };
static struct image im;

static int boot(const struct image_boot *how, struct gmem **mem, struct boot_cpu *cpu)
{
    struct err e = { "" };
    int r = image_boot(&im, how, mem, cpu, &e);
    if (r != 0) {
        print_message("%s\n", e.msg);
        assert_true(image_err_is_clear(&e));
    }
    return r;
}

/* It fails, with a line that has `words` in it. */
static void refused(const struct image_boot *how, const char *words)
{
    struct boot_cpu cpu;
    struct err e = { "" };
    assert_true(image_boot(&im, how, NULL, &cpu, &e) < 0);
    if (!image_err_is_clear(&e) || strstr(e.msg, words) == NULL) {
        fail_msg("'%s' instead of '%s'", e.msg, words);
    }
}

static void body_is_at(const struct gmem *m, uint64_t at)
{
    uint8_t want[BZ_BODY], have[BZ_BODY];
    image_fill_bytes(want, sizeof want);
    assert_int_equal(gmem_read(m, at, have, sizeof have), 0);
    assert_memory_equal(want, have, sizeof want);
}

static void read_zero_page(const struct gmem *m, const struct boot_cpu *cpu, uint8_t zp[4096])
{
    assert_int_equal(gmem_read(m, cpu->gpr[6], zp, 4096), 0);
}

static void enters_long_mode(void **state)
{
    (void)state;
    struct gmem *m;
    struct boot_cpu cpu;
    uint8_t zp[4096];
    char cmdline[32];
    image_bzimage(&im);
    assert_int_equal(boot(&plain, &m, &cpu), 0);
    assert_int_equal(cpu.mode, BOOT_CPU_LONG64);
    assert_int_equal(cpu.rip, BZ_PREF + 0x200);
    body_is_at(m, BZ_PREF);

    assert_int_equal(cpu.cr0 & 0x80000001, 0x80000001);
    assert_int_equal(cpu.cr4, 0x20);
    assert_int_equal(cpu.efer, 0x500);
    assert_int_equal(cpu.rflags, 2);
    assert_int_equal(cpu.cs.selector, 0x10);
    assert_int_equal(cpu.cs.attr, 0xa09b);
    assert_int_equal(cpu.data.selector, 0x18);

    uint64_t gdt[4];
    assert_true(cpu.gdt_limit >= sizeof gdt - 1);
    assert_int_equal(gmem_read(m, cpu.gdt_base, gdt, sizeof gdt), 0);
    assert_int_equal(gdt[0], 0);
    assert_int_equal(gdt[2], 0x00af9b000000ffffull);
    assert_int_equal(gdt[3], 0x00cf93000000ffffull);

    /* 4 GiB one to one: the walk of a few addresses. */
    for (uint64_t va = 0x1234; va < GIB(4); va += 0x1fff5678) {
        uint64_t e4, e3, e2;
        assert_int_equal(gmem_read(m, cpu.cr3, &e4, 8), 0);
        assert_int_equal(gmem_read(m, (e4 & ~0xfffull) + (va >> 30) * 8, &e3, 8), 0);
        assert_int_equal(gmem_read(m, (e3 & ~0xfffull) + (va >> 21 & 511) * 8, &e2, 8), 0);
        assert_int_equal(e2 & ~(MIB(2) - 1), va & ~(MIB(2) - 1));
        assert_int_equal(e2 & 0x83, 0x83);
    }

    read_zero_page(m, &cpu, zp);
    assert_memory_equal(zp + 0x202, "HdrS", 4);
    assert_int_equal(zp[0x210], 0xff);
    assert_int_equal(load_le32(zp + 0x214), BZ_PREF);
    assert_int_equal(load_le32(zp + 0x218), 0);
    assert_int_equal(gmem_read(m, load_le32(zp + 0x228), cmdline, sizeof cmdline), 0);
    assert_string_equal(cmdline, "console=ttyS0");
    char rsdp[8];
    assert_int_equal(gmem_read(m, load_le64(zp + 0x70), rsdp, 8), 0);
    assert_memory_equal(rsdp, "RSD PTR ", 8);
    assert_int_equal(zp[0x1ef], 0); /* sentinel */
    assert_int_equal(zp[0x1e8], 5);
    assert_int_equal(load_le64(zp + 0x2d0 + 3 * 20), MIB(1));
    assert_int_equal(load_le64(zp + 0x2d0 + 3 * 20 + 8), MIB(63));
    /* What the file has past its header does not reach the zero page. */
    for (unsigned i = 0x26c; i < 0x290; i++) {
        assert_int_equal(zp[i], 0);
    }
    gmem_free(m);
}

static void enters_protected_mode(void **state)
{
    (void)state;
    struct gmem *m;
    struct boot_cpu cpu;
    for (int i = 0; i < 2; i++) { /* a 32-bit kernel, and a processor without long mode */
        struct image_boot how = { .no_long_mode = i == 1 };
        image_bzimage(&im);
        if (i == 0) {
            store_le16(im.data + BZ_XLOADFLAGS, 0);
        }
        assert_int_equal(boot(&how, &m, &cpu), 0);
        assert_int_equal(cpu.mode, BOOT_CPU_PROT32);
        assert_int_equal(cpu.rip, BZ_PREF);
        assert_int_equal(cpu.cr0 & 0x80000001, 1);
        assert_int_equal(cpu.cr4 | cpu.efer | cpu.cr3, 0);
        assert_int_equal(cpu.cs.attr, 0xc09b);
        assert_int_equal(cpu.cs.selector, 0x10);
        assert_int_equal(cpu.gpr[3] | cpu.gpr[5] | cpu.gpr[7], 0);
        body_is_at(m, BZ_PREF);
        gmem_free(m);
    }
}

static void old_protocols(void **state)
{
    (void)state;
    struct gmem *m;
    struct boot_cpu cpu;
    for (unsigned version = 0x202; version < 0x20a; version++) {
        image_bzimage(&im);
        store_le16(im.data + BZ_VERSION, (uint16_t)version);
        assert_int_equal(boot(&plain, &m, &cpu), 0);
        assert_int_equal(cpu.mode, BOOT_CPU_PROT32);
        assert_int_equal(cpu.rip,
                         version < 0x205 ? MIB(1) : MIB(2)); /* 2.05 can say 2 MiB aligned */
        body_is_at(m, cpu.rip);
        gmem_free(m);
    }
    store_le16(im.data + BZ_VERSION, 0x201);
    refused(&plain, "2.01 is too old");
    image_bzimage(&im);
    im.data[BZ_LOADFLAGS] = 0;
    refused(&plain, "zImage");
}

static void fixed_kernels(void **state)
{
    (void)state;
    struct gmem *m;
    struct boot_cpu cpu;
    image_bzimage(&im);
    im.data[BZ_RELOCATABLE] = 0;
    assert_int_equal(boot(&plain, &m, &cpu), 0);
    assert_int_equal(cpu.rip, MIB(1) + 0x200);
    body_is_at(m, MIB(1));
    gmem_free(m);
}

static void command_line_limits(void **state)
{
    (void)state;
    struct gmem *m;
    struct boot_cpu cpu;
    char *text = malloc(100000);
    struct image_boot how = { .cmdline = text };
    image_bzimage(&im);
    memset(text, 'x', 2047);
    text[2047] = '\0';
    assert_int_equal(boot(&how, &m, &cpu), 0);
    gmem_free(m);
    strcat(text, "y");
    refused(&how, "the command line has 2048 bytes, this kernel takes 2047");
    store_le32(im.data + BZ_CMDLINE_SIZE, 65536);
    memset(text, 'z', 65536);
    text[65536] = '\0';
    assert_int_equal(boot(&how, &m, &cpu), 0);
    uint8_t zp[4096];
    char back[65537];
    read_zero_page(m, &cpu, zp);
    assert_int_equal(gmem_read(m, load_le32(zp + 0x228), back, sizeof back), 0);
    assert_string_equal(back, text);
    gmem_free(m);
    store_le32(im.data + BZ_CMDLINE_SIZE, UINT32_MAX);
    memset(text, 'z', 99999);
    text[99999] = '\0';
    refused(&how, "the command line has 99999 bytes");
    store_le16(im.data + BZ_VERSION, 0x205); /* before the field was there */
    text[256] = '\0';
    refused(&how, "takes 255");
    free(text);
}

static void initrd_goes_high(void **state)
{
    (void)state;
    static uint8_t bytes[100000];
    struct gmem *m;
    struct boot_cpu cpu;
    struct boot_file f;
    uint8_t zp[4096], back[sizeof bytes];
    image_fill_bytes(bytes, sizeof bytes);
    boot_file_memory(&f, "initrd", bytes, sizeof bytes);
    struct boot_module module = { .file = &f };
    static const struct {
        uint64_t ram;
        uint32_t max;
        uint64_t end;
    } cases[] = {
        { MIB(64), 0x7fffffff, MIB(64) },
        { GIB(3), 0x7fffffff, GIB(2) },
        { GIB(8), 0xffffffff, GIB(3) },
        { MIB(512), 0x1fffffe, MIB(32) - 1 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct image_boot how = { .ram = cases[i].ram, .modules = &module, .module_count = 1 };
        image_bzimage(&im);
        store_le32(im.data + BZ_INITRD_MAX, cases[i].max);
        assert_int_equal(boot(&how, &m, &cpu), 0);
        read_zero_page(m, &cpu, zp);
        uint64_t at = load_le32(zp + 0x218);
        assert_int_equal(at, align_down(cases[i].end - sizeof bytes, 4096));
        assert_int_equal(load_le32(zp + 0x21c), sizeof bytes);
        assert_int_equal(gmem_read(m, at, back, sizeof back), 0);
        assert_memory_equal(back, bytes, sizeof back);
        gmem_free(m);
    }
    struct boot_module two[2] = { module, module };
    refused(&(struct image_boot){ .modules = two, .module_count = 2 }, "one initrd");
    store_le32(im.data + BZ_INITRD_MAX, 0xfffff);
    struct image_boot low = { .modules = &module, .module_count = 1 };
    refused(&low, "initrd: no room");
    low.ram = GIB(4); /* above 4 GiB, when the kernel takes it there */
    assert_int_equal(boot(&low, &m, &cpu), 0);
    read_zero_page(m, &cpu, zp);
    assert_int_equal(load_le32(zp + 0xc0), 1);
    gmem_free(m);
    store_le16(im.data + BZ_XLOADFLAGS, 1);
    refused(&low, "initrd: no room");
    boot_file_close(&f);
}

static void too_little_memory(void **state)
{
    (void)state;
    image_bzimage(&im);
    refused(&(struct image_boot){ .ram = MIB(16) }, "needs memory up to 24 MiB, the guest has 16");
    refused(&(struct image_boot){ .ram = MIB(23) }, "needs memory up to 24 MiB");
    struct boot_cpu cpu;
    struct gmem *m;
    assert_int_equal(boot(&(struct image_boot){ .ram = MIB(24) }, &m, &cpu), 0);
    gmem_free(m);
    store_le32(im.data + BZ_INIT_SIZE, UINT32_MAX);
    refused(&plain, "needs memory up to 4112 MiB");
    im.data[BZ_RELOCATABLE] = 0;
    refused(&plain, "needs memory up to 4112 MiB");
    refused(&(struct image_boot){ .ram = 0x80000 }, "RAM");
}

static void wrong_fields(void **state)
{
    (void)state;
    static const struct {
        unsigned at, len;
        uint64_t value;
        const char *words;
    } cases[] = {
        { BZ_BOOT_FLAG, 2, 0, "not a kernel" },
        { BZ_MAGIC, 4, 0x12345678, "not a kernel" },
        { BZ_SETUP_SECTS, 1, 255, "truncated" },
        { BZ_SYSSIZE, 4, BZ_BODY / 16 + 1, "truncated" },
        { BZ_SYSSIZE, 4, UINT32_MAX, "truncated" },
        { BZ_VERSION, 2, 0, "too old" },
        { BZ_ALIGNMENT, 4, 0, "alignment 0" },
        { BZ_ALIGNMENT, 4, 0x300000, "alignment 0x300000" },
        { BZ_ALIGNMENT, 4, 0x80000000, "memory" },
        { BZ_PREF_ADDRESS, 8, 0, "load address" },
        { BZ_PREF_ADDRESS, 8, 0x1000, "memory" }, /* 2 MiB when aligned: see below */
        { BZ_PREF_ADDRESS, 8, GIB(4), "load address 0x100000000" },
        { BZ_PREF_ADDRESS, 8, UINT64_MAX, "load address" },
        { BZ_PREF_ADDRESS, 8, GIB(2), "memory" },
        { BZ_PAYLOAD_OFFSET, 4, UINT32_MAX, "payload" },
        { BZ_PAYLOAD_LENGTH, 4, BZ_BODY, "payload" },
        { BZ_PAYLOAD_LENGTH, 4, UINT32_MAX, "payload" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        image_bzimage(&im);
        memcpy(im.data + cases[i].at, &cases[i].value, cases[i].len);
        if (cases[i].at == BZ_PREF_ADDRESS && cases[i].value == 0x1000) {
            struct boot_cpu cpu;
            struct err e;
            assert_int_equal(image_boot(&im, &plain, NULL, &cpu, &e), 0);
            assert_int_equal(cpu.rip, MIB(2) + 0x200);
            continue;
        }
        refused(&plain, cases[i].words);
    }
}

static void truncated_everywhere(void **state)
{
    (void)state;
    image_bzimage(&im);
    for (size_t size = 0; size < BZ_SETUP + BZ_BODY; size += size < 0x300 ? 1 : 61) {
        im.size = size;
        refused(&plain, size < 0x206 ? "kernel" : "truncated");
    }
}

/* Every header byte changed in turn: it loads, or says why not; no crash, no silence. */
static void any_byte_wrong(void **state)
{
    (void)state;
    uint64_t seed = 99;
    for (unsigned at = 0x1f1; at < 0x270; at++) {
        for (int i = 0; i < 6; i++) {
            struct boot_cpu cpu;
            struct err e = { "" };
            image_bzimage(&im);
            im.data[at] = (uint8_t)test_random(&seed);
            if (image_boot(&im, &plain, NULL, &cpu, &e) < 0) {
                assert_true(image_err_is_clear(&e));
            }
        }
    }
}

static void other_files(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
        const char *words;
    } cases[] = {
        { "\x1f\x8b\x08\x00", 4, "gzip" }, { "QFI\xfb", 4, "disk image" },
        { "070701000", 9, "initramfs" },   { "hello", 5, "not a kernel" },
        { "\177ELF", 4, "ELF" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        memcpy(im.data, cases[i].bytes, cases[i].len);
        im.size = cases[i].len;
        refused(&plain, cases[i].words);
    }
}

/* Debian's kernels, when tools/fetch-guests has brought them. */
static void real_kernels(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum boot_cpu_mode mode;
        uint64_t entry;
    } kernels[] = {
        { "cloud/vmlinuz", BOOT_CPU_LONG64, MIB(16) + 0x200 },
        { "amd64/vmlinuz", BOOT_CPU_LONG64, MIB(16) + 0x200 },
        { "686/vmlinuz", BOOT_CPU_PROT32, MIB(16) },
        { "686-pae/vmlinuz", BOOT_CPU_PROT32, MIB(16) },
        { "memtest/memtest64.bin", BOOT_CPU_LONG64, MIB(1) + 0x200 },
        { "memtest/memtest32.bin", BOOT_CPU_PROT32, MIB(1) },
    };
    const char *build = getenv("BUILD");
    const char *top = getenv("TOP");
    struct boot_machine machine = image_machine(2);
    for (size_t i = 0; i < ARRAY_LEN(kernels); i++) {
        char path[512];
        struct boot_file f;
        struct err e = { "" };
        snprintf(path, sizeof path, "%s/guests/%s", build != NULL ? build : "build",
                 kernels[i].name);
        if (boot_file_open(&f, path, &e) < 0) {
            snprintf(path, sizeof path, "%s/build/guests/%s", top != NULL ? top : ".",
                     kernels[i].name);
            if (boot_file_open(&f, path, &e) < 0) {
                print_message("# SKIP %s is not here\n", kernels[i].name);
                continue;
            }
        }
        struct gmem *m;
        struct boot_cpu cpu;
        assert_int_equal(gmem_new(&m, MIB(512), GIB(3), &e), 0);
        struct boot_params p = { .kernel = &f, .cmdline = "quiet", .machine = &machine };
        int r = boot_load(m, &p, &cpu, &e);
        if (r != 0) {
            fail_msg("%s", e.msg);
        }
        assert_int_equal(cpu.mode, kernels[i].mode);
        assert_int_equal(cpu.rip, kernels[i].entry);
        /* Cut off anywhere, they do not load. */
        uint64_t whole = f.size;
        for (int n = 0; n < 16; n++) {
            f.size = whole * (uint64_t)n / 16;
            assert_true(boot_load(m, &p, &cpu, &e) < 0);
            assert_true(image_err_is_clear(&e) || f.size > 60);
        }
        gmem_free(m);
        boot_file_close(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(enters_long_mode),     cmocka_unit_test(enters_protected_mode),
        cmocka_unit_test(old_protocols),        cmocka_unit_test(fixed_kernels),
        cmocka_unit_test(command_line_limits),  cmocka_unit_test(initrd_goes_high),
        cmocka_unit_test(too_little_memory),    cmocka_unit_test(wrong_fields),
        cmocka_unit_test(truncated_everywhere), cmocka_unit_test(any_byte_wrong),
        cmocka_unit_test(other_files),          cmocka_unit_test(real_kernels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
