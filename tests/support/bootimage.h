/* SPDX-License-Identifier: Apache-2.0
 *
 * Kernels made on the spot, for tests of the loaders: small, right in every field, so that a test
 * can then make one wrong. The bytes of a segment are known (image_fill).
 */
#ifndef SOSIA_TESTS_SUPPORT_BOOTIMAGE_H
#define SOSIA_TESTS_SUPPORT_BOOTIMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "boot/boot.h"

#define IMAGE_MAX 65536u

struct image {
    uint8_t data[IMAGE_MAX];
    size_t size;
};

/* Byte n of what an image loads. */
uint8_t image_fill(uint64_t n);
void image_fill_bytes(uint8_t *p, size_t len);

/* -- bzImage, protocol 2.15, relocatable, with a 64-bit entry -- */
enum {
    BZ_SETUP = 5 * 512,
    BZ_BODY = 8192,
    BZ_SETUP_SECTS = 0x1f1,
    BZ_SYSSIZE = 0x1f4,
    BZ_BOOT_FLAG = 0x1fe,
    BZ_JUMP_LEN = 0x201,
    BZ_MAGIC = 0x202,
    BZ_VERSION = 0x206,
    BZ_LOADFLAGS = 0x211,
    BZ_INITRD_MAX = 0x22c,
    BZ_ALIGNMENT = 0x230,
    BZ_RELOCATABLE = 0x234,
    BZ_XLOADFLAGS = 0x236,
    BZ_CMDLINE_SIZE = 0x238,
    BZ_PAYLOAD_OFFSET = 0x248,
    BZ_PAYLOAD_LENGTH = 0x24c,
    BZ_PREF_ADDRESS = 0x258,
    BZ_INIT_SIZE = 0x260,
};
#define BZ_PREF 0x1000000u
#define BZ_INIT 0x800000u
void image_bzimage(struct image *im);

/* -- ELF: two loadable segments, the second with BSS, and a note -- */
enum image_class { IMAGE_ELF32, IMAGE_ELF64 };
enum image_header { IMAGE_PLAIN, IMAGE_MULTIBOOT, IMAGE_PVH };
enum {
    ELF_TEXT_OFFSET = 0x1000, /* in the file; a multiboot header is its first bytes */
    ELF_TEXT_SIZE = 0x900,
    ELF_DATA_OFFSET = 0x2000,
    ELF_DATA_SIZE = 0x300,
    ELF_DATA_MEMORY = 0x5000,
    ELF_NOTE_OFFSET = 0x400,
};
#define ELF_TEXT_ADDR 0x100000u
#define ELF_DATA_ADDR 0x110000u
#define ELF_ENTRY 0x100040u
void image_elf(struct image *im, enum image_class elf_class, enum image_header header);
size_t image_elf_phdr(const struct image *im, unsigned n); /* offset of program header n */

/* -- Multiboot with addresses in the header -- */
enum { KLUDGE_HEADER = 0x20, KLUDGE_SIZE = 0x1800, KLUDGE_BSS = 0x2000 };
#define KLUDGE_ADDR 0x200000u
void image_kludge(struct image *im);

/* The machine that tests describe: n processors, everything on. */
struct boot_machine image_machine(unsigned cpus);

/* -- Checks -- */
/* boot_load of the image in ram bytes of memory; what it says. The memory is the caller's to free
 * when mem is not NULL. */
struct image_boot {
    const char *cmdline;
    const struct boot_module *modules;
    size_t module_count;
    uint64_t ram;
    unsigned cpus;
    bool no_long_mode;
    struct boot_screen screen;
};
int image_boot(const struct image *im, const struct image_boot *how, struct gmem **mem,
               struct boot_cpu *cpu, struct err *e);

/* For fuzzing: load these bytes; abort when what comes out does not hold, or when they are refused
 * without a line that says why. options: bit 0 a module, 1 no long mode, 2 RAM above 4 GiB. */
void image_try(const uint8_t *data, size_t len, unsigned options);

/* One line for a person: something, not too long, no control characters. */
bool image_err_is_clear(const struct err *e);

#endif
