/* SPDX-License-Identifier: Apache-2.0
 *
 * ELF executables for x86, 32 and 64 bits, as multiboot and PVH kernels are: program headers only.
 * Everything in the file is hostile.
 */
#ifndef SOSIA_BOOT_ELF_H
#define SOSIA_BOOT_ELF_H

#include <stdbool.h>

#include "boot/file.h"
#include "boot/layout.h"

#define ELF_MAX_PHDRS 128u

enum elf_segment_type { ELF_LOAD = 1, ELF_NOTE = 4 };

struct elf_segment {
    uint32_t type;
    uint64_t offset;
    uint64_t vaddr;
    uint64_t paddr;
    uint64_t file_size;
    uint64_t mem_size;
    uint64_t align;
};

struct elf {
    struct boot_file *file; /* borrowed */
    bool is64;
    uint64_t entry; /* as the header has it */
    struct elf_segment segment[ELF_MAX_PHDRS];
    size_t count;
};

/* By its first bytes: 1 yes, 0 no, -errno. */
MUST_CHECK int elf_is(struct boot_file *f, struct err *e);

MUST_CHECK int elf_open(struct elf *elf, struct boot_file *f, struct err *e);

/* Put the loadable segments where their physical addresses say. end: after the last of them. */
MUST_CHECK int elf_load(struct elf *elf, struct gmem *mem, struct layout *l, uint64_t *end,
                        struct err *e);

/* Physical address of the entry: kernels link it virtual or physical. */
uint64_t elf_entry(const struct elf *elf);

#endif
