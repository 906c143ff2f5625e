/* SPDX-License-Identifier: Apache-2.0 -- which loader, and what loaders share */
#include "boot/boot.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "boot/internal.h"
#include "boot/tables.h"

int boot_write(struct boot_ctx *c, uint64_t at, const void *data, uint64_t len, struct err *e)
{
    int r = gmem_write(c->mem, at, data, len);
    return r < 0 ? err_set(e, r, "no RAM at %#llx for the boot protocol", (unsigned long long)at)
                 : 0;
}

int boot_low(struct boot_ctx *c, uint64_t len, uint64_t align, uint64_t *at, struct err *e)
{
    int r = layout_place_low(&c->layout, len, align, BOOT_LOW_MIN, BOOT_LOW_MAX, at);
    if (r < 0) {
        return err_set(e, r, "no room below 640 KiB for %llu bytes of the boot protocol",
                       (unsigned long long)len);
    }
    r = gmem_zero(c->mem, *at, len);
    return r < 0 ? err_set(e, r, "no RAM at %#llx for the boot protocol", (unsigned long long)*at)
                 : 0;
}

int boot_put(struct boot_ctx *c, const void *data, uint64_t len, uint64_t align, uint64_t *at,
             struct err *e)
{
    int r = boot_low(c, len, align, at, e);
    return r < 0 ? r : boot_write(c, *at, data, len, e);
}

/* Why nothing took it: people try compressed kernels, disk images and other machines' kernels. */
static int say_unknown(struct boot_file *f, struct err *e)
{
    static const struct {
        const char *magic;
        size_t offset;
        size_t len;
        const char *what;
    } others[] = {
        { "\x1f\x8b", 0, 2, "gzip-compressed; unpack it first" },
        { "\xfd"
          "7zXZ",
          0, 5, "xz-compressed; unpack it first" },
        { "\x28\xb5\x2f\xfd", 0, 4, "zstd-compressed; unpack it first" },
        { "ARM\x64", 56, 4, "an arm64 Linux kernel, not x86" },
        { "QFI\xfb", 0, 4, "a disk image, not a kernel" },
        { "KDMV", 0, 4, "a disk image, not a kernel" },
        { "070701", 0, 6, "an initramfs, not a kernel" },
    };
    uint8_t head[64] = { 0 };
    int r = boot_file_read(f, 0, head, f->size < sizeof head ? f->size : sizeof head, e);
    if (r < 0) {
        return r;
    }
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        if (memcmp(head + others[i].offset, others[i].magic, others[i].len) == 0) {
            boot_file_bad(f, e, "%s", others[i].what);
            return 0;
        }
    }
    boot_file_bad(f, e, "not a kernel (Linux bzImage, multiboot or ELF with a PVH entry)");
    return 0;
}

int boot_recognise(struct boot_file *kernel, enum boot_kind *kind, struct err *e)
{
    static const struct {
        int (*is)(struct boot_file *f, struct err *e);
        enum boot_kind kind;
    } kinds[] = {
        { linux_recognise, BOOT_LINUX },
        { multiboot_recognise, BOOT_MULTIBOOT },
        { pvh_recognise, BOOT_PVH },
    };
    *kind = BOOT_UNKNOWN;
    struct err why = { "" };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        int r = kinds[i].is(kernel, &why);
        if (r < 0) {
            return err_set(e, r, "%s", why.msg);
        }
        if (r > 0) {
            *kind = kinds[i].kind;
            return 0;
        }
    }
    if (why.msg[0] != '\0') { /* an ELF file knows best what it lacks */
        (void)err_set(e, -ENOEXEC, "%s", why.msg);
        return 0;
    }
    return say_unknown(kernel, e);
}

const char *boot_kind_name(enum boot_kind kind)
{
    switch (kind) {
    case BOOT_LINUX:
        return "Linux";
    case BOOT_MULTIBOOT:
        return "multiboot";
    case BOOT_PVH:
        return "PVH";
    case BOOT_UNKNOWN:
        break;
    }
    return "unknown";
}

int boot_wanted_screen(struct boot_file *kernel, struct boot_screen *want, struct err *e)
{
    enum boot_kind kind;
    int r = boot_recognise(kernel, &kind, e);
    return r < 0 || kind != BOOT_MULTIBOOT ? r : multiboot_wanted_screen(kernel, want, e);
}

int boot_load(struct gmem *mem, const struct boot_params *p, struct boot_cpu *cpu, struct err *e)
{
    assert(p->machine->cpus >= 1 && p->machine->cpus <= BOOT_MAX_CPUS);
    enum boot_kind kind;
    int r = boot_recognise(p->kernel, &kind, e);
    if (r < 0 || kind == BOOT_UNKNOWN) {
        return r < 0 ? r : -ENOEXEC; /* boot_recognise said why */
    }
    if (p->module_count > BOOT_MAX_MODULES) {
        return err_set(e, -E2BIG, "%zu modules; at most %u", p->module_count, BOOT_MAX_MODULES);
    }
    struct boot_ctx c = { .mem = mem, .p = p, .cpu = cpu };
    layout_init(&c.layout, mem);
    r = tables_write(mem, p->machine, &c.rsdp, e);
    if (r < 0) {
        return r;
    }
    switch (kind) {
    case BOOT_LINUX:
        return linux_load(&c, e);
    case BOOT_MULTIBOOT:
        return multiboot_load(&c, e);
    case BOOT_PVH:
        return pvh_load(&c, e);
    case BOOT_UNKNOWN:
        break;
    }
    return -ENOEXEC;
}
