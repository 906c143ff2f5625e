/* SPDX-License-Identifier: Apache-2.0 -- what the loaders share */
#ifndef SOSIA_BOOT_INTERNAL_H
#define SOSIA_BOOT_INTERNAL_H

#include "boot/boot.h"
#include "boot/layout.h"

/* Structures of a boot protocol go between these: test kernels have trampolines of their own in the
 * first pages, and think that a loader uses these. */
#define BOOT_LOW_MIN 0x9000u
#define BOOT_LOW_MAX LAYOUT_EBDA

#define BOOT_NAME "sosia" /* as loader, OEM and manufacturer */

struct boot_ctx {
    struct gmem *mem;            /* borrowed */
    const struct boot_params *p; /* borrowed */
    struct boot_cpu *cpu;        /* borrowed */
    struct layout layout;
    uint64_t rsdp;
};

/* Room for len bytes of a protocol's structure below 640 KiB, zeroed. */
MUST_CHECK int boot_low(struct boot_ctx *c, uint64_t len, uint64_t align, uint64_t *at,
                        struct err *e);
/* The same with contents. */
MUST_CHECK int boot_put(struct boot_ctx *c, const void *data, uint64_t len, uint64_t align,
                        uint64_t *at, struct err *e);
MUST_CHECK int boot_write(struct boot_ctx *c, uint64_t at, const void *data, uint64_t len,
                          struct err *e);

/* entry.c: c->cpu and its descriptor table. The data selector is the one after code. Protected
 * mode as all protocols want it: flat segments, no paging; or long mode with the first 4 GiB
 * mapped one to one. General registers are zero. */
MUST_CHECK int entry_prot32(struct boot_ctx *c, uint16_t code, uint32_t eip, struct err *e);
MUST_CHECK int entry_long64(struct boot_ctx *c, uint16_t code, uint64_t rip, struct err *e);

enum boot_gpr { GPR_RAX = 0, GPR_RBX = 3, GPR_RSP = 4, GPR_RSI = 6 };

/* Is it one? 1 yes, 0 no with a reason in e, -errno with it. */
MUST_CHECK int linux_recognise(struct boot_file *f, struct err *e);
MUST_CHECK int multiboot_recognise(struct boot_file *f, struct err *e);
MUST_CHECK int pvh_recognise(struct boot_file *f, struct err *e);

MUST_CHECK int multiboot_wanted_screen(struct boot_file *f, struct boot_screen *want,
                                       struct err *e);

MUST_CHECK int linux_load(struct boot_ctx *c, struct err *e);
MUST_CHECK int multiboot_load(struct boot_ctx *c, struct err *e);
MUST_CHECK int pvh_load(struct boot_ctx *c, struct err *e);

#endif
