/* SPDX-License-Identifier: Apache-2.0 -- ELF program headers (System V ABI, chapters 4 and 5) */
#include "boot/elf.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"

enum {
    IDENT_CLASS = 4, /* 1: 32 bits, 2: 64 */
    IDENT_DATA = 5,  /* 1: little-endian */
    EHDR_TYPE = 16,  /* 2: executable, 3: position-independent */
    EHDR_MACHINE = 18,
    EHDR_ENTRY = 24,
    EHDR32_SIZE = 52,
    EHDR64_SIZE = 64,
    PHDR32_SIZE = 32,
    PHDR64_SIZE = 56,
    EM_386 = 3,
    EM_X86_64 = 62,
};

int elf_is(struct boot_file *f, struct err *e)
{
    uint8_t ident[4];
    if (f->size < sizeof ident) {
        return 0;
    }
    int r = boot_file_read(f, 0, ident, sizeof ident, e);
    return r < 0 ? r : memcmp(ident, "\177ELF", 4) == 0;
}

static void parse_phdr(struct elf_segment *s, const uint8_t *p, bool is64)
{
    s->type = load_le32(p);
    if (is64) {
        s->offset = load_le64(p + 8);
        s->vaddr = load_le64(p + 16);
        s->paddr = load_le64(p + 24);
        s->file_size = load_le64(p + 32);
        s->mem_size = load_le64(p + 40);
        s->align = load_le64(p + 48);
    } else {
        s->offset = load_le32(p + 4);
        s->vaddr = load_le32(p + 8);
        s->paddr = load_le32(p + 12);
        s->file_size = load_le32(p + 16);
        s->mem_size = load_le32(p + 20);
        s->align = load_le32(p + 28);
    }
}

static int check_segment(const struct elf *elf, size_t n, struct err *e)
{
    const struct elf_segment *s = &elf->segment[n];
    if (s->offset > elf->file->size || s->file_size > elf->file->size - s->offset) {
        return boot_file_bad(elf->file, e,
                             "truncated or corrupt ELF file: segment %zu has %#" PRIx64
                             " bytes at %#" PRIx64 ", the file %#" PRIx64,
                             n, s->file_size, s->offset, elf->file->size);
    }
    if (s->type == ELF_LOAD && s->file_size > s->mem_size) {
        return boot_file_bad(elf->file, e,
                             "corrupt ELF file: segment %zu is larger than its memory", n);
    }
    return 0;
}

static int read_phdrs(struct elf *elf, uint64_t offset, unsigned size, unsigned count,
                      struct err *e)
{
    unsigned want = elf->is64 ? PHDR64_SIZE : PHDR32_SIZE;
    if (count == 0) {
        return boot_file_bad(elf->file, e, "an ELF file without program headers: not linked");
    }
    if (size != want || count > ELF_MAX_PHDRS) {
        return boot_file_bad(elf->file, e, "corrupt ELF file: %u program headers of %u bytes",
                             count, size);
    }
    uint64_t bytes = (uint64_t)size * count;
    if (offset > elf->file->size || bytes > elf->file->size - offset) {
        return boot_file_bad(elf->file, e,
                             "truncated or corrupt ELF file: program headers at %#" PRIx64, offset);
    }
    for (unsigned i = 0; i < count; i++) {
        uint8_t raw[PHDR64_SIZE];
        int r = boot_file_read(elf->file, offset + (uint64_t)i * size, raw, size, e);
        if (r < 0) {
            return r;
        }
        parse_phdr(&elf->segment[i], raw, elf->is64);
        elf->count = i + 1;
        r = check_segment(elf, i, e);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

int elf_open(struct elf *elf, struct boot_file *f, struct err *e)
{
    uint8_t h[EHDR64_SIZE] = { 0 };
    *elf = (struct elf){ .file = f };
    int r = boot_file_read(f, 0, h, f->size < sizeof h ? f->size : sizeof h, e);
    if (r < 0) {
        return r;
    }
    elf->is64 = h[IDENT_CLASS] == 2;
    unsigned type = load_le16(h + EHDR_TYPE);
    unsigned machine = load_le16(h + EHDR_MACHINE);
    if (f->size < (elf->is64 ? EHDR64_SIZE : EHDR32_SIZE)) {
        return boot_file_bad(f, e, "truncated ELF file: ends in its header");
    }
    if ((h[IDENT_CLASS] != 1 && h[IDENT_CLASS] != 2) || h[IDENT_DATA] != 1 ||
        (machine != EM_386 && machine != EM_X86_64)) {
        return boot_file_bad(f, e, "an ELF file for another machine (%u), not x86", machine);
    }
    if (type != 2 && type != 3) {
        return boot_file_bad(f, e, "an ELF file, but no executable (type %u)", type);
    }
    if (elf->is64) {
        elf->entry = load_le64(h + EHDR_ENTRY);
        return read_phdrs(elf, load_le64(h + 32), load_le16(h + 54), load_le16(h + 56), e);
    }
    elf->entry = load_le32(h + EHDR_ENTRY);
    return read_phdrs(elf, load_le32(h + 28), load_le16(h + 42), load_le16(h + 44), e);
}

static int load_segment(const struct elf *elf, size_t n, struct gmem *mem, struct layout *l,
                        struct err *e)
{
    const struct elf_segment *s = &elf->segment[n];
    int r = layout_claim(l, s->paddr, s->mem_size);
    if (r < 0) {
        const char *why = r == -EEXIST   ? "overlaps another one or reserved memory"
                          : r == -ENOSPC ? "is one too many"
                                         : "is not in the guest's RAM";
        return err_set(e, r, "%s: segment %zu, %#" PRIx64 " bytes at %#" PRIx64 ", %s",
                       elf->file->name, n, s->mem_size, s->paddr, why);
    }
    r = boot_file_to_guest(elf->file, s->offset, mem, s->paddr, s->file_size, e);
    if (r < 0) {
        return r;
    }
    r = gmem_zero(mem, s->paddr + s->file_size, s->mem_size - s->file_size);
    return r < 0 ? err_set(e, r, "%s: segment %zu is not in RAM", elf->file->name, n) : 0;
}

int elf_load(struct elf *elf, struct gmem *mem, struct layout *l, uint64_t *end, struct err *e)
{
    *end = 0;
    for (size_t i = 0; i < elf->count; i++) {
        const struct elf_segment *s = &elf->segment[i];
        if (s->type != ELF_LOAD || s->mem_size == 0) {
            continue;
        }
        int r = load_segment(elf, i, mem, l, e);
        if (r < 0) {
            return r;
        }
        if (s->paddr + s->mem_size > *end) {
            *end = s->paddr + s->mem_size;
        }
    }
    if (*end == 0) {
        return boot_file_bad(elf->file, e, "an ELF file with nothing to load");
    }
    return 0;
}

uint64_t elf_entry(const struct elf *elf)
{
    for (size_t i = 0; i < elf->count; i++) {
        const struct elf_segment *s = &elf->segment[i];
        if (s->type == ELF_LOAD && elf->entry >= s->vaddr && elf->entry - s->vaddr < s->mem_size) {
            return elf->entry - s->vaddr + s->paddr;
        }
    }
    return elf->entry;
}
