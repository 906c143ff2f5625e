/* SPDX-License-Identifier: Apache-2.0 -- kernels made on the spot */
#include "support/bootimage.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"

uint8_t image_fill(uint64_t n) { return (uint8_t)(n * 7 + (n >> 8) * 13 + 1); }

void image_fill_bytes(uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        p[i] = image_fill(i);
    }
}

void image_bzimage(struct image *im)
{
    uint8_t *h = im->data;
    memset(im, 0, sizeof *im);
    im->size = BZ_SETUP + BZ_BODY;
    h[BZ_SETUP_SECTS] = BZ_SETUP / 512 - 1;
    store_le32(h + BZ_SYSSIZE, BZ_BODY / 16);
    store_le16(h + BZ_BOOT_FLAG, 0xaa55);
    h[0x200] = 0xeb;
    h[BZ_JUMP_LEN] = 0x6a;
    memcpy(h + BZ_MAGIC, "HdrS", 4);
    store_le16(h + BZ_VERSION, 0x20f);
    h[BZ_LOADFLAGS] = 1;
    store_le32(h + 0x214, 0x100000);
    store_le32(h + BZ_INITRD_MAX, 0x7fffffff);
    store_le32(h + BZ_ALIGNMENT, 0x200000);
    h[BZ_RELOCATABLE] = 1;
    h[0x235] = 21;
    store_le16(h + BZ_XLOADFLAGS, 3);
    store_le32(h + BZ_CMDLINE_SIZE, 2047);
    store_le32(h + BZ_PAYLOAD_OFFSET, 0x300);
    store_le32(h + BZ_PAYLOAD_LENGTH, BZ_BODY - 0x300);
    store_le64(h + BZ_PREF_ADDRESS, BZ_PREF);
    store_le32(h + BZ_INIT_SIZE, BZ_INIT);
    image_fill_bytes(h + BZ_SETUP, BZ_BODY);
}

struct phdr {
    uint32_t type;
    uint64_t offset, addr, file_size, mem_size;
};

static size_t header_bytes(enum image_class c) { return c == IMAGE_ELF64 ? 64 : 52; }
static size_t phdr_bytes(enum image_class c) { return c == IMAGE_ELF64 ? 56 : 32; }

static void put_phdr(uint8_t *p, enum image_class c, const struct phdr *h)
{
    store_le32(p, h->type);
    if (c == IMAGE_ELF64) {
        store_le32(p + 4, 7);
        store_le64(p + 8, h->offset);
        store_le64(p + 16, h->addr);
        store_le64(p + 24, h->addr);
        store_le64(p + 32, h->file_size);
        store_le64(p + 40, h->mem_size);
        store_le64(p + 48, 4);
    } else {
        store_le32(p + 4, (uint32_t)h->offset);
        store_le32(p + 8, (uint32_t)h->addr);
        store_le32(p + 12, (uint32_t)h->addr);
        store_le32(p + 16, (uint32_t)h->file_size);
        store_le32(p + 20, (uint32_t)h->mem_size);
        store_le32(p + 24, 7);
        store_le32(p + 28, 4);
    }
}

static void put_multiboot(uint8_t *p, uint32_t flags)
{
    store_le32(p, 0x1badb002);
    store_le32(p + 4, flags);
    store_le32(p + 8, -(0x1badb002u + flags));
}

static void put_note(uint8_t *p, uint32_t type, uint32_t value)
{
    store_le32(p, 4);
    store_le32(p + 4, 4);
    store_le32(p + 8, type);
    memcpy(p + 12, "Xen", 4);
    store_le32(p + 16, value);
}

void image_elf(struct image *im, enum image_class c, enum image_header header)
{
    memset(im, 0, sizeof *im);
    uint8_t *h = im->data;
    im->size = ELF_DATA_OFFSET + ELF_DATA_SIZE;
    memcpy(h, "\177ELF", 4);
    h[4] = c == IMAGE_ELF64 ? 2 : 1;
    h[5] = h[6] = 1;
    store_le16(h + 16, 2);
    store_le16(h + 18, c == IMAGE_ELF64 ? 62 : 3);
    store_le32(h + 20, 1);
    size_t at = header_bytes(c);
    if (c == IMAGE_ELF64) {
        store_le64(h + 24, ELF_ENTRY);
        store_le64(h + 32, at);
    } else {
        store_le32(h + 24, ELF_ENTRY);
        store_le32(h + 28, (uint32_t)at);
    }
    size_t tail = c == IMAGE_ELF64 ? 52 : 40;
    store_le16(h + tail, (uint16_t)at);
    store_le16(h + tail + 2, (uint16_t)phdr_bytes(c));
    store_le16(h + tail + 4, 3);
    const struct phdr phdrs[3] = {
        { 1, ELF_TEXT_OFFSET, ELF_TEXT_ADDR, ELF_TEXT_SIZE, ELF_TEXT_SIZE },
        { 1, ELF_DATA_OFFSET, ELF_DATA_ADDR, ELF_DATA_SIZE, ELF_DATA_MEMORY },
        { 4, ELF_NOTE_OFFSET, 0, 40, 40 },
    };
    for (unsigned i = 0; i < ARRAY_LEN(phdrs); i++) {
        put_phdr(h + at + i * phdr_bytes(c), c, &phdrs[i]);
    }
    image_fill_bytes(h + ELF_TEXT_OFFSET, ELF_TEXT_SIZE);
    image_fill_bytes(h + ELF_DATA_OFFSET, ELF_DATA_SIZE);
    put_note(h + ELF_NOTE_OFFSET, 1, 42);
    put_note(h + ELF_NOTE_OFFSET + 20, header == IMAGE_PVH ? 18 : 2, ELF_ENTRY);
    if (header == IMAGE_MULTIBOOT) {
        put_multiboot(h + ELF_TEXT_OFFSET, 3);
    }
}

size_t image_elf_phdr(const struct image *im, unsigned n)
{
    enum image_class c = im->data[4] == 2 ? IMAGE_ELF64 : IMAGE_ELF32;
    return header_bytes(c) + n * phdr_bytes(c);
}

void image_kludge(struct image *im)
{
    memset(im, 0, sizeof *im);
    uint8_t *h = im->data + KLUDGE_HEADER;
    im->size = KLUDGE_SIZE + 0x100; /* symbols, say, that are not loaded */
    image_fill_bytes(im->data, im->size);
    put_multiboot(h, 1u << 16);
    store_le32(h + 12, KLUDGE_ADDR + KLUDGE_HEADER);
    store_le32(h + 16, KLUDGE_ADDR);
    store_le32(h + 20, KLUDGE_ADDR + KLUDGE_SIZE);
    store_le32(h + 24, KLUDGE_ADDR + KLUDGE_SIZE + KLUDGE_BSS);
    store_le32(h + 28, KLUDGE_ADDR + 0x40);
}

struct boot_machine image_machine(unsigned cpus)
{
    return (struct boot_machine){
        .cpus = cpus,
        .pm_base = 0x600,
        .pm_timer_32bit = true,
        .gpe0_base = 0x60c,
        .gpe0_len = 4,
        .hotplug_base = 0xae00,
        .hotplug_gpe = 1,
        .vmgenid = 0xfef00000,
        .vmgenid_gpe = 2,
        .sci_irq = 9,
        .serial_ports = 0xf,
        .pirq_gsi = 16,
        .hpet = true,
        .i8042 = true,
        .floppy = { 4, 1 },
        .serial_number = "S-1",
        .uuid = { 1, 2, 3 },
    };
}

int image_boot(const struct image *im, const struct image_boot *how, struct gmem **mem,
               struct boot_cpu *cpu, struct err *e)
{
    struct gmem *m;
    struct boot_file f;
    struct boot_machine machine = image_machine(how->cpus != 0 ? how->cpus : 1);
    int r = gmem_new(&m, how->ram != 0 ? how->ram : MIB(64), GIB(3), e);
    assert(r == 0);
    boot_file_memory(&f, "kernel", im->data, im->size);
    struct boot_params p = {
        .kernel = &f,
        .modules = how->modules,
        .module_count = how->module_count,
        .cmdline = how->cmdline,
        .no_long_mode = how->no_long_mode,
        .machine = &machine,
        .screen = how->screen,
    };
    r = boot_load(m, &p, cpu, e);
    boot_file_close(&f);
    if (mem != NULL) {
        *mem = m;
    } else {
        gmem_free(m);
    }
    return r;
}

bool image_err_is_clear(const struct err *e)
{
    size_t n = strlen(e->msg);
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)e->msg[i] < ' ') {
            return false;
        }
    }
    return n >= 10 && n <= 160;
}

static void check_entry(const struct gmem *m, const struct boot_cpu *cpu)
{
    uint8_t byte;
    if (gmem_read(m, cpu->gdt_base, &byte, 1) != 0 || cpu->gdt_limit < 0x1f) {
        abort();
    }
    if (cpu->mode == BOOT_CPU_LONG64 && gmem_read(m, cpu->cr3, &byte, 1) != 0) {
        abort();
    }
    for (unsigned i = 0; i < 16; i++) { /* RAX is a magic number; the others point to RAM */
        if (i != 0 && cpu->gpr[i] != 0 && gmem_read(m, cpu->gpr[i], &byte, 1) != 0) {
            abort();
        }
    }
}

void image_try(const uint8_t *data, size_t len, unsigned options)
{
    static const uint8_t module_bytes[5000] = { 1 };
    struct boot_file kernel, module_file;
    struct boot_machine machine = { .cpus = 1, .pm_base = 0x600, .sci_irq = 9 };
    struct boot_cpu cpu;
    struct err e = { "" };
    /* Kept from one input to the next: making memory takes longer than loading. */
    static struct gmem *kept[2];
    struct gmem **slot = &kept[(options & 4) != 0];
    if (*slot == NULL && gmem_new(slot, (options & 4) != 0 ? MIB(48) : MIB(24), MIB(32), &e) != 0) {
        abort();
    }
    struct gmem *m = *slot;
    boot_file_memory(&kernel, "kernel", data, len);
    boot_file_memory(&module_file, "module", module_bytes, sizeof module_bytes);
    struct boot_module module = { &module_file, "args" };
    struct boot_params p = {
        .kernel = &kernel,
        .modules = &module,
        .module_count = options & 1,
        .cmdline = "console=ttyS0",
        .no_long_mode = (options & 2) != 0,
        .machine = &machine,
    };
    if (boot_load(m, &p, &cpu, &e) == 0) {
        check_entry(m, &cpu);
    } else if (e.msg[0] == '\0' || strchr(e.msg, '\n') != NULL) {
        abort();
    }
    boot_file_close(&kernel);
    boot_file_close(&module_file);
}
