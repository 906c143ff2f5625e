/* SPDX-License-Identifier: Apache-2.0
 *
 * ELF kernels with a PVH entry: Xen's x86/HVM direct boot ABI (docs/misc/pvh). The kernel's note
 * XEN_ELFNOTE_PHYS32_ENTRY names a physical address, which is entered in protected mode with EBX
 * pointing to hvm_start_info.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "boot/elf.h"
#include "boot/internal.h"

enum {
    NOTE_HEADER = 12,
    NOTE_PHYS32_ENTRY = 18,
    NOTES_MAX = 65536, /* bytes of notes that are looked at */

    START_MODULE_COUNT = 12,
    START_MODULES = 16,
    START_CMDLINE = 24,
    START_RSDP = 32,
    START_MAP = 40,
    START_MAP_COUNT = 48,
    START_SIZE = 56,
    MODULE_BYTES = 32,
    MAP_ENTRY_BYTES = 24,
    CMDLINE_MAX = 65536,
    BOOT_CS = 0x8,
};
#define START_MAGIC 0x336ec578u

struct note_reader {
    const struct elf_segment *segment;
    uint64_t at;
    uint64_t align;
};

/* The note at n->at: is it the entry? 1, 0, -errno. Moves on. */
static int next_note(const struct elf *elf, struct note_reader *n, uint64_t *entry, struct err *e)
{
    const struct elf_segment *s = n->segment;
    uint8_t note[NOTE_HEADER];
    uint8_t body[16] = { 0 };
    int r = boot_file_read(elf->file, s->offset + n->at, note, sizeof note, e);
    if (r < 0) {
        return r;
    }
    uint64_t name = n->at + NOTE_HEADER;
    uint64_t desc = n->at + align_up(NOTE_HEADER + (uint64_t)load_le32(note), n->align);
    uint64_t desc_size = load_le32(note + 4);
    uint64_t end = desc + align_up(desc_size, n->align);
    if (desc > s->file_size || desc_size > s->file_size - desc) {
        return boot_file_bad(elf->file, e, "corrupt ELF file: a note goes past its segment");
    }
    n->at = end;
    if (load_le32(note + 8) != NOTE_PHYS32_ENTRY || load_le32(note) != 4 ||
        (desc_size != 4 && desc_size != 8)) {
        return 0;
    }
    r = boot_file_read(elf->file, s->offset + name, body, 4, e);
    if (r == 0) {
        r = boot_file_read(elf->file, s->offset + desc, body + 8, desc_size, e);
    }
    if (r < 0) {
        return r;
    }
    *entry = load_le64(body + 8);
    return memcmp(body, "Xen", 4) == 0;
}

static int find_entry(const struct elf *elf, uint64_t *entry, struct err *e)
{
    for (size_t i = 0; i < elf->count; i++) {
        const struct elf_segment *s = &elf->segment[i];
        struct note_reader n = { .segment = s, .align = s->align == 8 ? 8 : 4 };
        while (s->type == ELF_NOTE && n.at < NOTES_MAX && n.at <= s->file_size &&
               s->file_size - n.at >= NOTE_HEADER) {
            int r = next_note(elf, &n, entry, e);
            if (r != 0) {
                return r;
            }
        }
    }
    return 0;
}

int pvh_recognise(struct boot_file *f, struct err *e)
{
    struct elf elf;
    uint64_t entry;
    int r = elf_is(f, e);
    if (r <= 0) {
        return r;
    }
    r = elf_open(&elf, f, e);
    if (r == 0) {
        r = find_entry(&elf, &entry, e);
    }
    if (r == 0) {
        boot_file_bad(f, e, "an ELF file with neither a multiboot header nor a PVH entry");
    }
    return r == -EINVAL ? 0 : r; /* what is wrong with it is the reason */
}

static int load_modules(struct boot_ctx *c, uint64_t kernel_end, uint64_t *list, struct err *e)
{
    uint8_t entries[BOOT_MAX_MODULES * MODULE_BYTES] = { 0 };
    for (size_t i = 0; i < c->p->module_count; i++) {
        const struct boot_module *m = &c->p->modules[i];
        uint8_t *entry = entries + i * MODULE_BYTES;
        uint64_t at, args = 0;
        int r = layout_place_high(&c->layout, m->file->size, GMEM_PAGE_SIZE,
                                  align_up(kernel_end, GMEM_PAGE_SIZE), LAYOUT_4G, &at);
        if (r < 0) {
            return err_set(e, -ENOMEM, "%s: no room for this module in guest memory (-m)",
                           m->file->name);
        }
        r = boot_file_to_guest(m->file, 0, c->mem, at, m->file->size, e);
        if (r == 0 && m->args != NULL) {
            r = boot_put(c, m->args, strlen(m->args) + 1, 8, &args, e);
        }
        if (r < 0) {
            return r;
        }
        store_le64(entry, at);
        store_le64(entry + 8, m->file->size);
        store_le64(entry + 16, args);
    }
    *list = 0;
    return c->p->module_count == 0
               ? 0
               : boot_put(c, entries, c->p->module_count * MODULE_BYTES, 8, list, e);
}

static int put_map(struct boot_ctx *c, uint64_t *at, struct err *e)
{
    uint8_t map[E820_MAX * MAP_ENTRY_BYTES] = { 0 };
    for (size_t i = 0; i < c->layout.map.count; i++) {
        e820_encode(&c->layout.map.entry[i], map + i * MAP_ENTRY_BYTES);
    }
    return boot_put(c, map, c->layout.map.count * MAP_ENTRY_BYTES, 8, at, e);
}

static int put_start_info(struct boot_ctx *c, uint64_t kernel_end, uint64_t *at, struct err *e)
{
    const char *text = c->p->cmdline != NULL ? c->p->cmdline : "";
    uint8_t start[START_SIZE] = { 0 };
    uint64_t modules, cmdline, map;
    if (strlen(text) >= CMDLINE_MAX) {
        return err_set(e, -E2BIG, "%s: the command line has %zu bytes, at most %d are supported",
                       c->p->kernel->name, strlen(text), CMDLINE_MAX - 1);
    }
    int r = load_modules(c, kernel_end, &modules, e);
    if (r == 0) {
        r = boot_put(c, text, strlen(text) + 1, 8, &cmdline, e);
    }
    if (r == 0) {
        r = put_map(c, &map, e);
    }
    if (r < 0) {
        return r;
    }
    store_le32(start, START_MAGIC);
    store_le32(start + 4, 1); /* version, with a memory map */
    store_le32(start + START_MODULE_COUNT, (uint32_t)c->p->module_count);
    store_le64(start + START_MODULES, modules);
    store_le64(start + START_CMDLINE, cmdline);
    store_le64(start + START_RSDP, c->rsdp);
    store_le64(start + START_MAP, map);
    store_le32(start + START_MAP_COUNT, (uint32_t)c->layout.map.count);
    return boot_put(c, start, sizeof start, 8, at, e);
}

int pvh_load(struct boot_ctx *c, struct err *e)
{
    struct elf elf;
    uint64_t entry = 0, end, start;
    int r = elf_open(&elf, c->p->kernel, e);
    if (r == 0) {
        r = find_entry(&elf, &entry, e);
    }
    if (r < 0) {
        return r;
    }
    if (r == 0 || entry >= LAYOUT_4G) {
        return boot_file_bad(c->p->kernel, e, "corrupt ELF file: PVH entry at %#" PRIx64, entry);
    }
    r = elf_load(&elf, c->mem, &c->layout, &end, e);
    if (r == 0) {
        r = put_start_info(c, end, &start, e);
    }
    if (r == 0) {
        r = entry_prot32(c, BOOT_CS, (uint32_t)entry, e);
    }
    if (r == 0) {
        c->cpu->gpr[GPR_RBX] = start;
    }
    return r;
}
