/* SPDX-License-Identifier: Apache-2.0
 *
 * Multiboot 1 (The Multiboot Specification 0.6.96): ELF files of both classes and files that carry
 * their load addresses in the header (a.out kludge), with modules, command line and memory map.
 * Section numbers below are of that text.
 *
 * UNIMPL: VBE's own structures (the frame buffer is told of), symbols, drives, APM.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/bytes.h"
#include "boot/elf.h"
#include "boot/internal.h"

enum {
    SEARCH_BYTES = 8192, /* the header lies within these */
    HEADER_BYTES = 32,   /* with the addresses */
    VIDEO_BYTES = 48,    /* with the video mode too */
    MB_VIDEO = 1u << 2,
    MB_ADDRESSES = 1u << 16,
    MB_REQUIRED = 0xffff, /* a loader must refuse what it does not know of these */
    MB_KNOWN = 0x7,       /* page-aligned modules, memory, video mode wanted */

    INFO_MEM = 1u << 0,
    INFO_CMDLINE = 1u << 2,
    INFO_MODS = 1u << 3,
    INFO_MMAP = 1u << 6,
    INFO_LOADER = 1u << 9,
    INFO_MEM_LOWER = 4,
    INFO_MEM_UPPER = 8,
    INFO_CMDLINE_PTR = 16,
    INFO_MODS_COUNT = 20,
    INFO_MODS_ADDR = 24,
    INFO_MMAP_LENGTH = 44,
    INFO_MMAP_ADDR = 48,
    INFO_LOADER_PTR = 64,
    INFO_FRAMEBUFFER = 1u << 12,
    INFO_FB_ADDR = 88,
    INFO_FB_PITCH = 96,
    INFO_FB_WIDTH = 100,
    INFO_FB_HEIGHT = 104,
    INFO_FB_BPP = 108,
    INFO_FB_TYPE = 109,
    INFO_FB_COLOURS = 110,
    FB_RGB = 1,
    FB_TEXT = 2,
    INFO_BYTES = 116,
    MODULE_BYTES = 16,
    MMAP_BYTES = 4 + E820_ENTRY_BYTES,
    CMDLINE_MAX = 65536,
    BOOT_CS = 0x8,
};
#define HEADER_MAGIC 0x1badb002u
#define EAX_MAGIC 0x2badb002u

struct mb_header {
    uint64_t at; /* in the file */
    uint32_t flags;
    uint32_t header_addr, load_addr, load_end, bss_end, entry; /* with MB_ADDRESSES */
    uint32_t text_mode, width, height, depth;                  /* with MB_VIDEO */
};

/* 3.1: longword-aligned, magic, flags and checksum sum up to zero. 1 found, 0 not, -errno. */
static int find_header(struct boot_file *f, struct mb_header *h, struct err *e)
{
    uint8_t raw[SEARCH_BYTES + VIDEO_BYTES] = { 0 };
    uint64_t size = f->size < sizeof raw ? f->size : sizeof raw;
    int r = boot_file_read(f, 0, raw, size, e);
    if (r < 0) {
        return r;
    }
    for (uint64_t at = 0; at + 12 <= size && at + 12 <= SEARCH_BYTES; at += 4) {
        const uint8_t *p = raw + at;
        if (load_le32(p) == HEADER_MAGIC &&
            load_le32(p) + load_le32(p + 4) + load_le32(p + 8) == 0) {
            *h = (struct mb_header){
                .at = at,
                .flags = load_le32(p + 4),
                .header_addr = load_le32(p + 12),
                .load_addr = load_le32(p + 16),
                .load_end = load_le32(p + 20),
                .bss_end = load_le32(p + 24),
                .entry = load_le32(p + 28),
                .text_mode = load_le32(p + 32),
                .width = load_le32(p + 36),
                .height = load_le32(p + 40),
                .depth = load_le32(p + 44),
            };
            return 1;
        }
    }
    return 0;
}

int multiboot_recognise(struct boot_file *f, struct err *e)
{
    struct mb_header h;
    return find_header(f, &h, e);
}

/* 3.1.4. Of a text mode the machine has one, whatever its size. */
int multiboot_wanted_screen(struct boot_file *f, struct boot_screen *want, struct err *e)
{
    struct mb_header h = { 0 };
    int r = find_header(f, &h, e);
    if (r <= 0 || !(h.flags & MB_VIDEO) || h.text_mode != 0) {
        return r < 0 ? r : 0;
    }
    *want = (struct boot_screen){ .width = h.width,
                                  .height = h.height,
                                  .bpp = h.depth <= 32 ? (uint8_t)h.depth : 0 };
    return 1;
}

/* 3.1.3: the file's bytes from load_addr to load_end, then zeros to bss_end. */
static int load_by_addresses(struct boot_ctx *c, const struct mb_header *h, uint64_t *end,
                             struct err *e)
{
    struct boot_file *f = c->p->kernel;
    uint64_t before = (uint64_t)h->header_addr - h->load_addr; /* of the header, in the image */
    if (f->size - h->at < HEADER_BYTES) {
        return boot_file_bad(f, e, "truncated multiboot kernel: ends in its header");
    }
    if (h->load_addr > h->header_addr || before > h->at) {
        return boot_file_bad(f, e, "corrupt multiboot header: header at %#x, load address %#x",
                             h->header_addr, h->load_addr);
    }
    uint64_t offset = h->at - before;
    uint64_t size = f->size - offset;
    if (h->load_end != 0) {
        if (h->load_end < h->load_addr) {
            return boot_file_bad(f, e, "corrupt multiboot header: load end %#x below start %#x",
                                 h->load_end, h->load_addr);
        }
        if (h->load_end - h->load_addr > size) {
            return boot_file_bad(f, e,
                                 "truncated multiboot kernel: %#x bytes to load at %#" PRIx64
                                 ", the file has %#" PRIx64,
                                 h->load_end - h->load_addr, offset, f->size);
        }
        size = h->load_end - h->load_addr;
    }
    *end = h->load_addr + size;
    if (h->bss_end != 0 && h->bss_end < *end) {
        return boot_file_bad(f, e, "corrupt multiboot header: BSS ends at %#x, below its start",
                             h->bss_end);
    }
    uint64_t bss = h->bss_end != 0 ? h->bss_end - *end : 0;
    int r = layout_claim(&c->layout, h->load_addr, size + bss);
    if (r < 0) {
        return err_set(e, r, "%s: %#" PRIx64 " bytes at %#x are not in the guest's free RAM",
                       f->name, size + bss, h->load_addr);
    }
    r = boot_file_to_guest(f, offset, c->mem, h->load_addr, size, e);
    if (r == 0 && gmem_zero(c->mem, *end, bss) < 0) {
        r = err_set(e, -EFAULT, "%s: its BSS is not in RAM", f->name);
    }
    *end += bss;
    return r;
}

static int load_kernel(struct boot_ctx *c, uint64_t *entry, uint64_t *end, struct err *e)
{
    struct boot_file *f = c->p->kernel;
    struct mb_header h;
    struct elf elf;
    int r = find_header(f, &h, e);
    if (r <= 0) {
        return r < 0 ? r : boot_file_bad(f, e, "the multiboot header went away");
    }
    if ((h.flags & MB_REQUIRED & ~MB_KNOWN) != 0) {
        return boot_file_bad(f, e, "its multiboot header requires unknown features, flags %#x",
                             h.flags);
    }
    if ((h.flags & MB_ADDRESSES) != 0) {
        *entry = h.entry;
        return load_by_addresses(c, &h, end, e);
    }
    r = elf_is(f, e);
    if (r == 0) {
        return boot_file_bad(f, e, "a multiboot header, but neither load addresses nor ELF");
    }
    if (r > 0) {
        r = elf_open(&elf, f, e);
    }
    if (r == 0) {
        r = elf_load(&elf, c->mem, &c->layout, end, e);
    }
    if (r < 0) {
        return r;
    }
    *entry = elf_entry(&elf);
    return *entry < LAYOUT_4G ? 0
                              : boot_file_bad(f, e, "corrupt ELF file: entry at %#" PRIx64, *entry);
}

static int put_string(struct boot_ctx *c, const char *s, uint64_t *at, struct err *e)
{
    return boot_put(c, s, strlen(s) + 1, 4, at, e);
}

/* 3.3: modules are on page boundaries, whether or not the kernel asks. They follow the kernel, as
 * with other loaders. */
static int load_modules(struct boot_ctx *c, uint64_t kernel_end, uint64_t *list, struct err *e)
{
    uint8_t entries[BOOT_MAX_MODULES * MODULE_BYTES] = { 0 };
    for (size_t i = 0; i < c->p->module_count; i++) {
        const struct boot_module *m = &c->p->modules[i];
        uint8_t *entry = entries + i * MODULE_BYTES;
        uint64_t min = kernel_end > LAYOUT_TABLES_END ? kernel_end : LAYOUT_TABLES_END;
        uint64_t at, args;
        int r = layout_place_low(&c->layout, m->file->size, GMEM_PAGE_SIZE, min, LAYOUT_4G, &at);
        if (r < 0) {
            return err_set(e, -ENOMEM, "%s: no room for this module in guest memory (-m)",
                           m->file->name);
        }
        r = boot_file_to_guest(m->file, 0, c->mem, at, m->file->size, e);
        if (r == 0) {
            r = put_string(c, m->args != NULL ? m->args : m->file->name, &args, e);
        }
        if (r < 0) {
            return r;
        }
        store_le32(entry, (uint32_t)at);
        store_le32(entry + 4, (uint32_t)(at + m->file->size));
        store_le32(entry + 8, (uint32_t)args);
    }
    *list = 0;
    return c->p->module_count == 0
               ? 0
               : boot_put(c, entries, c->p->module_count * MODULE_BYTES, 4, list, e);
}

static int put_mmap(struct boot_ctx *c, uint64_t *at, struct err *e)
{
    uint8_t map[E820_MAX * MMAP_BYTES];
    for (size_t i = 0; i < c->layout.map.count; i++) {
        store_le32(map + i * MMAP_BYTES, E820_ENTRY_BYTES); /* size of what follows it */
        e820_encode(&c->layout.map.entry[i], map + i * MMAP_BYTES + 4);
    }
    return boot_put(c, map, c->layout.map.count * MMAP_BYTES, 4, at, e);
}

/* The kernel's name, then what the person said: argv[0] and the rest. */
static int put_cmdline(struct boot_ctx *c, uint64_t *at, struct err *e)
{
    const char *name = c->p->kernel->name;
    const char *text = c->p->cmdline != NULL ? c->p->cmdline : "";
    if (strlen(name) + strlen(text) + 2 > CMDLINE_MAX) {
        return err_set(e, -E2BIG, "%s: the command line has %zu bytes, at most %d are supported",
                       name, strlen(text), CMDLINE_MAX - 1);
    }
    char *line = *text != '\0' ? xasprintf("%s %s", name, text) : xstrdup(name);
    int r = put_string(c, line, at, e);
    free(line);
    return r;
}

/* Contiguous KiB from 1 MiB up, or all that 32 bits of KiB can say. */
static uint32_t mem_upper(const struct boot_ctx *c)
{
    uint64_t low = gmem_ram_below_4g(c->mem);
    return low > LAYOUT_TABLES_END ? (uint32_t)((low - LAYOUT_TABLES_END) / 1024) : 0;
}

/* 3.3, framebuffer_*: of each colour its lowest bit and how many there are. */
static void describe_screen(uint8_t *info, const struct boot_screen *s)
{
    static const uint8_t true_colour[] = { 16, 8, 8, 8, 0, 8 };
    static const uint8_t high_colour[] = { 11, 5, 5, 6, 0, 5 };
    static const uint8_t high_colour_15[] = { 10, 5, 5, 5, 0, 5 };
    if (s->base == 0) {
        return;
    }
    store_le32(info, load_le32(info) | INFO_FRAMEBUFFER);
    store_le64(info + INFO_FB_ADDR, s->base);
    store_le32(info + INFO_FB_PITCH, s->pitch);
    store_le32(info + INFO_FB_WIDTH, s->width);
    store_le32(info + INFO_FB_HEIGHT, s->height);
    info[INFO_FB_BPP] = s->bpp;
    info[INFO_FB_TYPE] = s->text ? FB_TEXT : FB_RGB;
    if (!s->text) {
        memcpy(info + INFO_FB_COLOURS,
               s->bpp == 15   ? high_colour_15
               : s->bpp == 16 ? high_colour
                              : true_colour,
               sizeof true_colour);
    }
}

static int put_info(struct boot_ctx *c, uint64_t kernel_end, uint64_t *at, struct err *e)
{
    uint8_t info[INFO_BYTES] = { 0 };
    uint64_t modules, cmdline, map, loader;
    int r = load_modules(c, kernel_end, &modules, e);
    if (r == 0) {
        r = put_cmdline(c, &cmdline, e);
    }
    if (r == 0) {
        r = put_mmap(c, &map, e);
    }
    if (r == 0) {
        r = put_string(c, BOOT_NAME, &loader, e);
    }
    if (r < 0) {
        return r;
    }
    store_le32(info, INFO_MEM | INFO_CMDLINE | INFO_MODS | INFO_MMAP | INFO_LOADER);
    store_le32(info + INFO_MEM_LOWER, LAYOUT_EBDA / 1024);
    store_le32(info + INFO_MEM_UPPER, mem_upper(c));
    store_le32(info + INFO_CMDLINE_PTR, (uint32_t)cmdline);
    store_le32(info + INFO_MODS_COUNT, (uint32_t)c->p->module_count);
    store_le32(info + INFO_MODS_ADDR, (uint32_t)modules);
    store_le32(info + INFO_MMAP_LENGTH, (uint32_t)(c->layout.map.count * MMAP_BYTES));
    store_le32(info + INFO_MMAP_ADDR, (uint32_t)map);
    store_le32(info + INFO_LOADER_PTR, (uint32_t)loader);
    describe_screen(info, &c->p->screen);
    return boot_put(c, info, sizeof info, 4, at, e);
}

int multiboot_load(struct boot_ctx *c, struct err *e)
{
    uint64_t entry, end, info;
    int r = load_kernel(c, &entry, &end, e);
    if (r == 0) {
        r = put_info(c, end, &info, e);
    }
    if (r == 0) {
        r = entry_prot32(c, BOOT_CS, (uint32_t)entry, e);
    }
    if (r == 0) {
        c->cpu->gpr[GPR_RAX] = EAX_MAGIC;
        c->cpu->gpr[GPR_RBX] = info;
    }
    return r;
}
