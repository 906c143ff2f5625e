/* SPDX-License-Identifier: Apache-2.0 -- multiboot and PVH kernels */
// LAYERS: boot mem state base
#include "support/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "support/bootimage.h"

static struct image im;
static const struct image_boot plain = { .cmdline = "a b" };

static int boot(const struct image_boot *how, struct gmem **mem, struct boot_cpu *cpu)
{
    struct err e = { "" };
    int r = image_boot(&im, how, mem, cpu, &e);
    if (r != 0) {
        fail_msg("%s", e.msg);
    }
    return r;
}

static void refused(const struct image_boot *how, const char *words)
{
    struct boot_cpu cpu;
    struct err e = { "" };
    assert_true(image_boot(&im, how, NULL, &cpu, &e) < 0);
    if (!image_err_is_clear(&e) || strstr(e.msg, words) == NULL) {
        fail_msg("'%s' instead of '%s'", e.msg, words);
    }
}

static void string_is(const struct gmem *m, uint64_t at, const char *want)
{
    char have[256] = "";
    assert_true(strlen(want) < sizeof have);
    assert_int_equal(gmem_read(m, at, have, strlen(want) + 1), 0);
    assert_string_equal(have, want);
}

static uint32_t read32(const struct gmem *m, uint64_t at)
{
    uint32_t v = 0;
    assert_int_equal(gmem_read(m, at, &v, sizeof v), 0);
    return v;
}

static void memory_is(const struct gmem *m, uint64_t at, const uint8_t *want, size_t len)
{
    uint8_t *have = malloc(len);
    assert_int_equal(gmem_read(m, at, have, len), 0);
    assert_memory_equal(have, want, len);
    free(have);
}

/* MBI 3.2 */
static void state_is_multiboot(const struct boot_cpu *cpu, uint64_t entry)
{
    assert_int_equal(cpu->mode, BOOT_CPU_PROT32);
    assert_int_equal(cpu->rip, entry);
    assert_int_equal(cpu->gpr[0], 0x2badb002);
    assert_int_equal(cpu->cr0 & 0x80000001, 1);
    assert_int_equal(cpu->rflags & 0x20200, 0);
    assert_int_equal(cpu->cs.attr, 0xc09b);
    assert_int_equal(cpu->cs.limit, 0xffffffff);
    assert_int_equal(cpu->cs.base | cpu->data.base, 0);
    assert_int_equal(cpu->data.attr, 0xc093);
    assert_int_equal(cpu->data.limit, 0xffffffff);
}

static void segments_are_loaded(const struct gmem *m)
{
    static const uint8_t zeros[ELF_DATA_MEMORY];
    memory_is(m, ELF_TEXT_ADDR, im.data + ELF_TEXT_OFFSET, ELF_TEXT_SIZE);
    memory_is(m, ELF_DATA_ADDR, im.data + ELF_DATA_OFFSET, ELF_DATA_SIZE);
    memory_is(m, ELF_DATA_ADDR + ELF_DATA_SIZE, zeros, ELF_DATA_MEMORY - ELF_DATA_SIZE);
}

static void multiboot_elf(void **state)
{
    (void)state;
    for (int c = IMAGE_ELF32; c <= IMAGE_ELF64; c++) {
        struct gmem *m;
        struct boot_cpu cpu;
        image_elf(&im, (enum image_class)c, IMAGE_MULTIBOOT);
        assert_int_equal(boot(&(struct image_boot){ .cmdline = "a b", .ram = GIB(4) }, &m, &cpu),
                         0);
        state_is_multiboot(&cpu, ELF_ENTRY);
        segments_are_loaded(m);
        uint64_t info = cpu.gpr[3];
        assert_int_equal(read32(m, info), 0x24d);
        assert_int_equal(read32(m, info + 4), 639);
        assert_int_equal(read32(m, info + 8), (GIB(3) - MIB(1)) / 1024);
        string_is(m, read32(m, info + 16), "kernel a b");
        assert_int_equal(read32(m, info + 20), 0);
        string_is(m, read32(m, info + 64), "sosia");
        uint32_t at = read32(m, info + 48), end = at + read32(m, info + 44);
        uint64_t ram = 0;
        while (at < end) {
            uint64_t size = read32(m, at + 12) | (uint64_t)read32(m, at + 16) << 32;
            ram += read32(m, at + 20) == 1 ? size : 0;
            at += read32(m, at) + 4;
        }
        assert_int_equal(at, end);
        assert_int_equal(ram, GIB(4) - MIB(1) + 639 * 1024);
        gmem_free(m);
    }
}

static void multiboot_without_command_line(void **state)
{
    (void)state;
    struct gmem *m;
    struct boot_cpu cpu;
    image_elf(&im, IMAGE_ELF32, IMAGE_MULTIBOOT);
    assert_int_equal(boot(&(struct image_boot){ .cmdline = NULL }, &m, &cpu), 0);
    string_is(m, read32(m, cpu.gpr[3] + 16), "kernel");
    gmem_free(m);
}

static void multiboot_modules(void **state)
{
    (void)state;
    static uint8_t bytes[3][10000];
    struct boot_file f[3];
    struct boot_module modules[3];
    struct gmem *m;
    struct boot_cpu cpu;
    for (unsigned i = 0; i < 3; i++) {
        memset(bytes[i], (int)i + 'a', sizeof bytes[i]);
        boot_file_memory(&f[i], i == 2 ? "third" : "x", bytes[i], sizeof bytes[i] - i);
        modules[i] = (struct boot_module){ &f[i], i == 0 ? "one 1" : i == 1 ? "two" : NULL };
    }
    image_elf(&im, IMAGE_ELF32, IMAGE_MULTIBOOT);
    struct image_boot how = { .modules = modules, .module_count = 3 };
    assert_int_equal(boot(&how, &m, &cpu), 0);
    segments_are_loaded(m);
    uint64_t info = cpu.gpr[3];
    assert_int_equal(read32(m, info + 20), 3);
    uint64_t list = read32(m, info + 24);
    uint64_t last = ELF_DATA_ADDR + ELF_DATA_MEMORY;
    static const char *args[] = { "one 1", "two", "third" };
    for (unsigned i = 0; i < 3; i++) {
        uint64_t start = read32(m, list + i * 16);
        assert_int_equal(start % 4096, 0);
        assert_true(start >= last);
        last = read32(m, list + i * 16 + 4);
        assert_int_equal(last - start, sizeof bytes[i] - i);
        memory_is(m, start, bytes[i], last - start);
        string_is(m, read32(m, list + i * 16 + 8), args[i]);
    }
    gmem_free(m);
    how.module_count = BOOT_MAX_MODULES + 1;
    refused(&how, "modules");
    f[1].size = GIB(1); /* never read: there is no room */
    how.module_count = 3;
    refused(&how, "x: no room for this module");
    for (unsigned i = 0; i < 3; i++) {
        boot_file_close(&f[i]);
    }
}

/* MBI 3.3: what the screen shows, where it does. */
static void multiboot_screen(void **state)
{
    (void)state;
    static const struct image_boot text = {
        .screen = { .base = 0xb8000, .pitch = 160, .width = 80, .height = 25, .bpp = 16,
                    .text = true },
    };
    static const struct image_boot pixels = {
        .screen = { .base = 0xfd000000, .pitch = 2560, .width = 640, .height = 480, .bpp = 32 },
    };
    struct gmem *m;
    struct boot_cpu cpu;
    image_elf(&im, IMAGE_ELF32, IMAGE_MULTIBOOT);
    assert_int_equal(boot(&text, &m, &cpu), 0);
    uint64_t info = cpu.gpr[3];
    assert_int_equal(read32(m, info), 0x124d);
    assert_int_equal(read32(m, info + 88), 0xb8000);
    assert_int_equal(read32(m, info + 92), 0);
    assert_int_equal(read32(m, info + 96), 160);
    assert_int_equal(read32(m, info + 108) & 0xffff, 2 << 8 | 16);
    gmem_free(m);
    assert_int_equal(boot(&pixels, &m, &cpu), 0);
    info = cpu.gpr[3];
    assert_int_equal(read32(m, info + 88), 0xfd000000);
    assert_int_equal(read32(m, info + 100), 640);
    assert_int_equal(read32(m, info + 104), 480);
    assert_int_equal(read32(m, info + 108), 8 << 24 | 16 << 16 | 1 << 8 | 32); /* red: 8 at 16 */
    assert_int_equal(read32(m, info + 112), 8 << 24 | 0 << 16 | 8 << 8 | 8);
    gmem_free(m);
}

static void multiboot_wants_a_screen(void **state)
{
    (void)state;
    struct boot_file f;
    struct boot_screen want = { 0 };
    struct err e = { "" };
    image_kludge(&im);
    boot_file_memory(&f, "kernel", im.data, im.size);
    assert_int_equal(boot_wanted_screen(&f, &want, &e), 0);
    uint8_t *h = im.data + KLUDGE_HEADER;
    store_le32(h + 4, 1u << 16 | 1u << 2);
    store_le32(h + 8, -(0x1badb002u + (1u << 16 | 1u << 2)));
    static const uint32_t mode[] = { 0, 800, 0, 24 };
    for (unsigned i = 0; i < 4; i++) {
        store_le32(h + 32 + 4 * i, mode[i]);
    }
    assert_int_equal(boot_wanted_screen(&f, &want, &e), 1);
    assert_int_equal(want.width, 800);
    assert_int_equal(want.height, 0);
    assert_int_equal(want.bpp, 24);
    store_le32(h + 32, 1); /* text */
    assert_int_equal(boot_wanted_screen(&f, &want, &e), 0);
    boot_file_close(&f);
}

static void kludge(void **state)
{
    (void)state;
    struct gmem *m;
    struct boot_cpu cpu;
    uint8_t bss[KLUDGE_BSS] = { 0 };
    image_kludge(&im);
    assert_int_equal(boot(&plain, &m, &cpu), 0);
    state_is_multiboot(&cpu, KLUDGE_ADDR + 0x40);
    memory_is(m, KLUDGE_ADDR, im.data, KLUDGE_SIZE);
    memory_is(m, KLUDGE_ADDR + KLUDGE_SIZE, bss, KLUDGE_BSS);
    gmem_free(m);

    store_le32(im.data + KLUDGE_HEADER + 20, 0); /* the whole file, no BSS */
    store_le32(im.data + KLUDGE_HEADER + 24, 0);
    assert_int_equal(boot(&plain, &m, &cpu), 0);
    memory_is(m, KLUDGE_ADDR, im.data, im.size);
    gmem_free(m);
}

static void wrong_kludge(void **state)
{
    (void)state;
    static const struct {
        unsigned field;
        uint32_t value;
        const char *words;
    } cases[] = {
        { 12, KLUDGE_ADDR - 1, "load address" }, /* header before the image */
        { 12, KLUDGE_ADDR + 0x21, "load address" },
        { 12, UINT32_MAX, "load address" },
        { 16, 0, "load address" },
        { 20, KLUDGE_ADDR - 1, "load end" },
        { 20, KLUDGE_ADDR + KLUDGE_SIZE + 0x101, "truncated" },
        { 20, UINT32_MAX, "truncated" },
        { 24, KLUDGE_ADDR + KLUDGE_SIZE - 1, "BSS" },
        { 24, UINT32_MAX, "RAM" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        image_kludge(&im);
        store_le32(im.data + KLUDGE_HEADER + cases[i].field, cases[i].value);
        refused(&plain, cases[i].words);
    }
    image_kludge(&im);
    for (unsigned i = 12; i <= 16; i += 4) { /* into low memory that is not free */
        store_le32(im.data + KLUDGE_HEADER + i, i == 12 ? 0x9fc00 + KLUDGE_HEADER : 0x9fc00);
    }
    store_le32(im.data + KLUDGE_HEADER + 20, 0x9fc00 + KLUDGE_SIZE);
    store_le32(im.data + KLUDGE_HEADER + 24, 0);
    refused(&plain, "not in the guest's free RAM");
    image_kludge(&im);
    store_le32(im.data + KLUDGE_HEADER + 4, 1u << 16 | 8);
    store_le32(im.data + KLUDGE_HEADER + 8, -(0x1badb002u + (1u << 16 | 8)));
    refused(&plain, "unknown features");
    store_le32(im.data + KLUDGE_HEADER + 4, 0);
    store_le32(im.data + KLUDGE_HEADER + 8, -0x1badb002u);
    refused(&plain, "neither load addresses nor ELF");
}

static void header_must_be_near(void **state)
{
    (void)state;
    enum boot_kind kind;
    struct boot_file f;
    static const struct {
        size_t at;
        enum boot_kind kind;
    } cases[] = {
        { 0, BOOT_MULTIBOOT },         { 4, BOOT_MULTIBOOT },      { 6, BOOT_UNKNOWN },
        { 8192 - 12, BOOT_MULTIBOOT }, { 8192 - 8, BOOT_UNKNOWN }, { 9000, BOOT_UNKNOWN },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        memset(&im, 0, sizeof im);
        im.size = 10000;
        store_le32(im.data + cases[i].at, 0x1badb002);
        store_le32(im.data + cases[i].at + 8, -0x1badb002u);
        boot_file_memory(&f, "k", im.data, im.size);
        assert_int_equal(boot_recognise(&f, &kind, NULL), 0);
        assert_int_equal(kind, cases[i].kind);
        im.data[cases[i].at + 8] ^= 1;
        assert_int_equal(boot_recognise(&f, &kind, NULL), 0);
        assert_int_equal(kind, BOOT_UNKNOWN);
        boot_file_close(&f);
    }
}

static void pvh(void **state)
{
    (void)state;
    static uint8_t bytes[5000];
    struct boot_file f;
    image_fill_bytes(bytes, sizeof bytes);
    boot_file_memory(&f, "initrd", bytes, sizeof bytes);
    struct boot_module module = { &f, "args" };
    for (int c = IMAGE_ELF32; c <= IMAGE_ELF64; c++) {
        struct gmem *m;
        struct boot_cpu cpu;
        image_elf(&im, (enum image_class)c, IMAGE_PVH);
        struct image_boot how = { .cmdline = "a b", .modules = &module, .module_count = 1 };
        assert_int_equal(boot(&how, &m, &cpu), 0);
        assert_int_equal(cpu.mode, BOOT_CPU_PROT32);
        assert_int_equal(cpu.rip, ELF_ENTRY);
        assert_int_equal(cpu.tr.attr, 0x8b);
        assert_int_equal(cpu.tr.limit, 0x67);
        assert_int_equal(cpu.cr0 & 0x80000001, 1);
        segments_are_loaded(m);
        uint64_t info = cpu.gpr[3];
        assert_int_equal(read32(m, info), 0x336ec578);
        assert_int_equal(read32(m, info + 4), 1);
        assert_int_equal(read32(m, info + 12), 1);
        uint64_t list = read32(m, info + 16);
        string_is(m, read32(m, info + 24), "a b");
        char rsdp[8];
        assert_int_equal(gmem_read(m, read32(m, info + 32), rsdp, 8), 0);
        assert_memory_equal(rsdp, "RSD PTR ", 8);
        assert_int_equal(read32(m, info + 48), 5);
        uint64_t map = read32(m, info + 40);
        assert_int_equal(read32(m, map + 3 * 24), MIB(1));
        assert_int_equal(read32(m, map + 3 * 24 + 16), 1);
        assert_int_equal(read32(m, list + 8), sizeof bytes);
        memory_is(m, read32(m, list), bytes, sizeof bytes);
        string_is(m, read32(m, list + 16), "args");
        gmem_free(m);
    }
    boot_file_close(&f);
}

static void plain_elf_is_refused(void **state)
{
    (void)state;
    image_elf(&im, IMAGE_ELF64, IMAGE_PLAIN);
    refused(&plain, "neither a multiboot header nor a PVH entry");
    image_elf(&im, IMAGE_ELF64, IMAGE_PVH);
    store_le16(im.data + 18, 183);
    refused(&plain, "another machine (183)");
    image_elf(&im, IMAGE_ELF32, IMAGE_PVH);
    store_le16(im.data + 16, 1);
    refused(&plain, "no executable");
}

static void wrong_program_headers(void **state)
{
    (void)state;
    static const struct { /* offsets are of ELF64 */
        unsigned phdr, field;
        uint64_t value;
        const char *words;
    } cases[] = {
        { 0, 8, UINT64_MAX, "segment 0" }, /* offset */
        { 0, 8, IMAGE_MAX, "segment 0" },
        { 0, 32, UINT64_MAX, "segment 0" }, /* size in the file */
        { 0, 32, IMAGE_MAX, "segment 0" },
        { 0, 40, 8, "larger than its memory" }, /* size in memory */
        { 1, 40, UINT64_MAX, "not in the guest's RAM" },
        { 1, 40, MIB(64), "not in the guest's RAM" },
        { 0, 24, UINT64_MAX - 100, "not in the guest's RAM" }, /* address */
        { 0, 24, GIB(3), "not in the guest's RAM" },
        { 0, 24, 0xb8000, "not in the guest's RAM" },
        { 0, 24, 0xffe00, "not in the guest's RAM" },
        { 0, 24, 0, "overlaps" },
        { 1, 24, ELF_TEXT_ADDR + 8, "overlaps" },
    };
    for (int h = IMAGE_MULTIBOOT; h <= IMAGE_PVH; h++) {
        for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
            image_elf(&im, IMAGE_ELF64, (enum image_header)h);
            store_le64(im.data + image_elf_phdr(&im, cases[i].phdr) + cases[i].field,
                       cases[i].value);
            refused(&plain, cases[i].words);
        }
        static const struct {
            unsigned at;
            uint16_t value;
            const char *words;
        } header[] = { { 56, 0, "without program headers" },
                       { 56, 129, "corrupt" },
                       { 54, 32, "corrupt" },
                       { 33, 0x7f, "program headers at" } };
        for (size_t i = 0; i < ARRAY_LEN(header); i++) {
            image_elf(&im, IMAGE_ELF64, (enum image_header)h);
            store_le16(im.data + header[i].at, header[i].value);
            refused(&plain, header[i].words);
        }
        image_elf(&im, IMAGE_ELF64, (enum image_header)h);
        store_le32(im.data + image_elf_phdr(&im, 0), 6);
        store_le32(im.data + image_elf_phdr(&im, 1), 6);
        refused(&plain, "nothing to load");
    }
    image_elf(&im, IMAGE_ELF64, IMAGE_MULTIBOOT);
    store_le64(im.data + 24, GIB(4));
    refused(&plain, "entry at");
}

static void virtual_entry_is_translated(void **state)
{
    (void)state;
    struct gmem *m;
    struct boot_cpu cpu;
    image_elf(&im, IMAGE_ELF64, IMAGE_MULTIBOOT);
    store_le64(im.data + 24, 0xffffffff80000040ull);
    store_le64(im.data + image_elf_phdr(&im, 0) + 16, 0xffffffff80000000ull);
    assert_int_equal(boot(&plain, &m, &cpu), 0);
    assert_int_equal(cpu.rip, ELF_TEXT_ADDR + 0x40);
    gmem_free(m);
}

static void wrong_notes(void **state)
{
    (void)state;
    for (unsigned at = 0; at < 40; at += 4) {
        static const uint32_t values[] = { 0, 1, 5, 0xffff, 0x7fffffff, UINT32_MAX };
        for (size_t i = 0; i < ARRAY_LEN(values); i++) {
            struct boot_cpu cpu;
            struct err e = { "" };
            image_elf(&im, IMAGE_ELF64, IMAGE_PVH);
            store_le32(im.data + ELF_NOTE_OFFSET + at, values[i]);
            if (image_boot(&im, &plain, NULL, &cpu, &e) < 0) {
                assert_true(image_err_is_clear(&e));
            }
        }
    }
    image_elf(&im, IMAGE_ELF64, IMAGE_PVH);
    store_le32(im.data + ELF_NOTE_OFFSET + 4, 1000);
    refused(&plain, "a note goes past its segment");
}

/* Notes of 8-byte alignment: what follows the name is aligned, not the name's length. */
static void aligned_notes(void **state)
{
    (void)state;
    struct boot_cpu cpu;
    struct err e = { "" };
    image_elf(&im, IMAGE_ELF64, IMAGE_PVH);
    store_le64(im.data + image_elf_phdr(&im, 2) + 48, 8);
    store_le64(im.data + image_elf_phdr(&im, 2) + 32, 48);
    uint8_t *note = im.data + ELF_NOTE_OFFSET;
    memset(note, 0, 48);
    for (unsigned at = 0; at < 48; at += 24) { /* 12 + 4, then 8 bytes of description */
        store_le32(note + at, 4);
        store_le32(note + at + 4, 8);
        store_le32(note + at + 8, at == 0 ? 5 : 18);
        memcpy(note + at + 12, at == 0 ? "GNU" : "Xen", 4);
        store_le64(note + at + 16, ELF_ENTRY);
    }
    assert_int_equal(image_boot(&im, &plain, NULL, &cpu, &e), 0);
    assert_int_equal(cpu.rip, ELF_ENTRY);
}

static void truncated_everywhere(void **state)
{
    (void)state;
    for (int c = IMAGE_ELF32; c <= IMAGE_ELF64; c++) {
        for (int h = IMAGE_MULTIBOOT; h <= IMAGE_PVH; h++) {
            image_elf(&im, (enum image_class)c, (enum image_header)h);
            for (size_t size = im.size; size-- > 0; size -= size > 300 ? 23 : 0) {
                im.size = size;
                refused(&plain, "kernel");
            }
        }
    }
    image_kludge(&im);
    for (size_t size = KLUDGE_SIZE; size-- > 0; size -= size > 100 ? 23 : 0) {
        im.size = size;
        refused(&plain, "kernel");
    }
}

static void any_byte_wrong(void **state)
{
    (void)state;
    uint64_t seed = 7;
    for (int i = 0; i < 6000; i++) {
        struct boot_cpu cpu;
        struct err e = { "" };
        image_elf(&im, i % 2 != 0 ? IMAGE_ELF32 : IMAGE_ELF64,
                  i % 4 < 2 ? IMAGE_PVH : IMAGE_MULTIBOOT);
        uint64_t r = test_random(&seed);
        size_t at = r % 3 == 0   ? ELF_NOTE_OFFSET + r / 3 % 40
                    : r % 3 == 1 ? ELF_TEXT_OFFSET + r / 3 % 12
                                 : r / 3 % 232;
        im.data[at] = (uint8_t)(r >> 40);
        if (image_boot(&im, &plain, NULL, &cpu, &e) < 0) {
            assert_true(image_err_is_clear(&e));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(multiboot_elf),
        cmocka_unit_test(multiboot_without_command_line),
        cmocka_unit_test(multiboot_modules),
        cmocka_unit_test(multiboot_screen),
        cmocka_unit_test(multiboot_wants_a_screen),
        cmocka_unit_test(kludge),
        cmocka_unit_test(wrong_kludge),
        cmocka_unit_test(header_must_be_near),
        cmocka_unit_test(pvh),
        cmocka_unit_test(plain_elf_is_refused),
        cmocka_unit_test(wrong_program_headers),
        cmocka_unit_test(virtual_entry_is_translated),
        cmocka_unit_test(wrong_notes),
        cmocka_unit_test(aligned_notes),
        cmocka_unit_test(truncated_everywhere),
        cmocka_unit_test(any_byte_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
