/* SPDX-License-Identifier: Apache-2.0
 *
 * Linux bzImage by its boot protocol (Documentation/arch/x86/boot.rst), entered in protected or in
 * long mode, never in real mode. memtest86+ comes by the same header.
 *
 * UNIMPL: protocols before 2.02 and kernels that load low (zImage): both are older than Linux 2.4.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "boot/internal.h"

/* Offsets into the file's setup part, and into the zero page alike. */
enum {
    HDR_SETUP_SECTS = 0x1f1,
    HDR_SYSSIZE = 0x1f4, /* of the protected-mode part, in 16 bytes */
    HDR_BOOT_FLAG = 0x1fe,
    HDR_JUMP_LEN = 0x201, /* the header ends this far after 0x202 */
    HDR_MAGIC = 0x202,
    HDR_VERSION = 0x206,
    HDR_TYPE_OF_LOADER = 0x210,
    HDR_LOADFLAGS = 0x211,
    HDR_CODE32_START = 0x214,
    HDR_RAMDISK_IMAGE = 0x218,
    HDR_RAMDISK_SIZE = 0x21c,
    HDR_CMD_LINE_PTR = 0x228,
    HDR_INITRD_ADDR_MAX = 0x22c,
    HDR_KERNEL_ALIGNMENT = 0x230,
    HDR_RELOCATABLE = 0x234,
    HDR_XLOADFLAGS = 0x236,
    HDR_CMDLINE_SIZE = 0x238,
    HDR_PAYLOAD_OFFSET = 0x248,
    HDR_PAYLOAD_LENGTH = 0x24c,
    HDR_SETUP_DATA = 0x250,
    HDR_PREF_ADDRESS = 0x258,
    HDR_INIT_SIZE = 0x260,
    HDR_END = 0x290, /* what may be header at most */

    ZP_VIDEO_MODE = 0x006,
    ZP_VIDEO_COLUMNS = 0x007,
    ZP_VIDEO_EGA_BX = 0x00a,
    ZP_VIDEO_LINES = 0x00e,
    ZP_VIDEO_IS_VGA = 0x00f,
    ZP_VIDEO_POINTS = 0x010,
    ZP_RSDP = 0x070,
    ZP_RAMDISK_IMAGE_HIGH = 0x0c0,
    ZP_RAMDISK_SIZE_HIGH = 0x0c4,
    ZP_E820_COUNT = 0x1e8,
    ZP_E820 = 0x2d0,
    ZP_SIZE = 4096,

    LOADED_HIGH = 1,
    XLF_KERNEL_64 = 1,
    XLF_ABOVE_4G = 2,
    ENTRY_64 = 0x200, /* from the beginning of the protected-mode part */
    LOADER_UNDEFINED = 0xff,
    SECTOR = 512,
    BOOT_CS = 0x10,
};
#define MAGIC_HDRS 0x53726448u
#define LOAD_ADDRESS 0x100000u     /* of a kernel that does not say */
#define INITRD_MAX_OLD 0x37ffffffu /* before 2.03 */
#define CMDLINE_MAX_OLD 255u       /* before 2.06 */
#define CMDLINE_MAX (KIB(64))      /* ours; no kernel takes more than 2 KiB */
#define TAIL_PADDING 16u           /* syssize is rounded up */

struct linux_image {
    uint8_t head[HDR_END]; /* the file's first bytes, zeros past its end */
    uint16_t version;
    uint64_t body;      /* file offset of the protected-mode part */
    uint64_t body_size; /* its bytes */
    bool long_mode;     /* has a 64-bit entry */
    bool relocatable;
    uint64_t align;
    uint64_t preferred;
    uint64_t init_size; /* what it needs from where it runs */
    uint64_t initrd_max;
    uint64_t cmdline_max;
};

int linux_recognise(struct boot_file *f, struct err *e)
{
    uint8_t head[HDR_VERSION];
    if (f->size < sizeof head) {
        return 0;
    }
    int r = boot_file_read(f, 0, head, sizeof head, e);
    if (r < 0) {
        return r;
    }
    return load_le16(head + HDR_BOOT_FLAG) == 0xaa55 && load_le32(head + HDR_MAGIC) == MAGIC_HDRS;
}

/* How large a 2.10 kernel's header says that it will be, and where; older ones leave it to us. */
static int read_placement(struct linux_image *k, const struct boot_file *f, struct err *e)
{
    k->relocatable = k->version >= 0x205 && k->head[HDR_RELOCATABLE] != 0;
    k->align = k->relocatable ? load_le32(k->head + HDR_KERNEL_ALIGNMENT) : 1;
    k->preferred = LOAD_ADDRESS;
    k->init_size = k->body_size;
    if (!is_pow2(k->align)) {
        return boot_file_bad(f, e, "corrupt Linux header: alignment %#" PRIx64, k->align);
    }
    if (k->version >= 0x20a) {
        uint32_t size = load_le32(k->head + HDR_INIT_SIZE);
        k->preferred = load_le64(k->head + HDR_PREF_ADDRESS);
        k->init_size = size > k->body_size ? size : k->body_size;
    }
    k->preferred = align_up(k->preferred, k->align);
    if (k->preferred < LOAD_ADDRESS || k->preferred >= LAYOUT_4G) {
        return boot_file_bad(f, e, "corrupt Linux header: load address %#" PRIx64, k->preferred);
    }
    return 0;
}

static int check_payload(const struct linux_image *k, const struct boot_file *f, struct err *e)
{
    uint32_t offset = load_le32(k->head + HDR_PAYLOAD_OFFSET);
    uint32_t length = load_le32(k->head + HDR_PAYLOAD_LENGTH);
    if (k->version < 0x208 || length == 0) {
        return 0;
    }
    if (offset > k->body_size || length > k->body_size - offset) {
        return boot_file_bad(f, e,
                             "truncated or corrupt Linux kernel: payload of %u bytes at %u, of "
                             "%" PRIu64,
                             length, offset, k->body_size);
    }
    return 0;
}

static int read_body(struct linux_image *k, const struct boot_file *f, struct err *e)
{
    unsigned sects = k->head[HDR_SETUP_SECTS] != 0 ? k->head[HDR_SETUP_SECTS] : 4;
    k->body = (uint64_t)(sects + 1) * SECTOR;
    if (k->body >= f->size) {
        return boot_file_bad(f, e,
                             "truncated Linux kernel: %" PRIu64 " bytes of setup, but the file has "
                             "%" PRIu64,
                             k->body, f->size);
    }
    k->body_size = f->size - k->body;
    uint64_t syssize = (uint64_t)load_le32(k->head + HDR_SYSSIZE) * 16;
    if (k->version >= 0x204 && syssize != 0) { /* 16 bits before, and wrong for large kernels */
        if (syssize > align_up(k->body_size, TAIL_PADDING)) {
            return boot_file_bad(f, e,
                                 "truncated Linux kernel: should have %" PRIu64 " bytes, has "
                                 "%" PRIu64,
                                 k->body + syssize, f->size);
        }
    }
    if (k->long_mode && k->body_size <= ENTRY_64) {
        return boot_file_bad(f, e, "truncated Linux kernel: no 64-bit entry");
    }
    return check_payload(k, f, e);
}

static int read_header(struct linux_image *k, struct boot_file *f, struct err *e)
{
    memset(k, 0, sizeof *k);
    int r = boot_file_read(f, 0, k->head, f->size < HDR_END ? f->size : HDR_END, e);
    if (r < 0) {
        return r;
    }
    unsigned end = HDR_MAGIC + k->head[HDR_JUMP_LEN];
    if (f->size < end || f->size < HDR_BOOT_FLAG + 2) {
        return boot_file_bad(f, e, "truncated Linux kernel: ends in its header");
    }
    if (end < HDR_END) { /* what follows is the kernel's code */
        memset(k->head + end, 0, HDR_END - end);
    }
    k->version = load_le16(k->head + HDR_VERSION);
    if (k->version < 0x202) {
        return boot_file_bad(f, e, "Linux boot protocol %u.%02u is too old; 2.02 is needed",
                             k->version >> 8, k->version & 0xff);
    }
    if ((k->head[HDR_LOADFLAGS] & LOADED_HIGH) == 0) {
        return boot_file_bad(f, e, "a zImage, which only loads below 1 MiB; not supported");
    }
    k->long_mode = k->version >= 0x20c &&
                   (load_le16(k->head + HDR_XLOADFLAGS) & XLF_KERNEL_64) != 0;
    k->initrd_max = k->version >= 0x203 ? load_le32(k->head + HDR_INITRD_ADDR_MAX) : INITRD_MAX_OLD;
    k->cmdline_max = k->version >= 0x206 ? load_le32(k->head + HDR_CMDLINE_SIZE) : CMDLINE_MAX_OLD;
    r = read_body(k, f, e);
    return r < 0 ? r : read_placement(k, f, e);
}

/* Where the protected-mode part goes. A relocatable kernel runs where it is put, if that is not
 * below its preferred address; another one is put at 1 MiB and moves itself there. */
static int place_kernel(struct boot_ctx *c, const struct linux_image *k, uint64_t *at,
                        struct err *e)
{
    uint64_t run_end = k->preferred + k->init_size;
    int r;
    if (k->relocatable) {
        uint64_t align = k->align > GMEM_PAGE_SIZE ? k->align : GMEM_PAGE_SIZE;
        r = layout_place_low(&c->layout, k->init_size, align, k->preferred, LAYOUT_4G, at);
    } else {
        uint64_t end = LOAD_ADDRESS + k->body_size;
        *at = LOAD_ADDRESS;
        r = layout_claim(&c->layout, *at, (run_end > end ? run_end : end) - *at);
    }
    if (r < 0) {
        return err_set(e, -ENOMEM,
                       "%s: needs memory up to %" PRIu64 " MiB, the guest has %" PRIu64 " MiB "
                       "(-m)",
                       c->p->kernel->name, (run_end + MIB(1) - 1) / MIB(1),
                       gmem_ram_below_4g(c->mem) / MIB(1));
    }
    return boot_file_to_guest(c->p->kernel, k->body, c->mem, *at, k->body_size, e);
}

static int load_cmdline(struct boot_ctx *c, const struct linux_image *k, uint64_t *at,
                        struct err *e)
{
    const char *text = c->p->cmdline != NULL ? c->p->cmdline : "";
    uint64_t len = strlen(text);
    uint64_t max = k->cmdline_max < CMDLINE_MAX ? k->cmdline_max : CMDLINE_MAX;
    if (len > max) {
        return err_set(e, -E2BIG,
                       "%s: the command line has %" PRIu64 " bytes, this kernel takes %" PRIu64,
                       c->p->kernel->name, len, max);
    }
    return boot_put(c, text, len + 1, 16, at, e);
}

/* As high as the kernel allows, so that it is in nobody's way. */
static int load_initrd(struct boot_ctx *c, const struct linux_image *k, uint8_t *zp, struct err *e)
{
    if (c->p->module_count == 0) {
        return 0;
    }
    if (c->p->module_count > 1) {
        return err_set(e, -EINVAL, "a Linux kernel takes one initrd, not %zu", c->p->module_count);
    }
    struct boot_file *f = c->p->modules[0].file;
    uint64_t at;
    int r = layout_place_high(&c->layout, f->size, GMEM_PAGE_SIZE, LOAD_ADDRESS, k->initrd_max + 1,
                              &at);
    if (r < 0 && k->long_mode && !c->p->no_long_mode &&
        (load_le16(k->head + HDR_XLOADFLAGS) & XLF_ABOVE_4G) != 0) {
        r = layout_place_high(&c->layout, f->size, GMEM_PAGE_SIZE, LAYOUT_4G, UINT64_MAX, &at);
    }
    if (r < 0) {
        return err_set(e, -ENOMEM,
                       "%s: no room for %" PRIu64 " MiB of initrd in %" PRIu64
                       " MiB of guest memory (-m)",
                       f->name, (f->size + MIB(1) - 1) / MIB(1), gmem_ram_size(c->mem) / MIB(1));
    }
    store_le32(zp + HDR_RAMDISK_IMAGE, (uint32_t)at);
    store_le32(zp + HDR_RAMDISK_SIZE, (uint32_t)f->size);
    store_le32(zp + ZP_RAMDISK_IMAGE_HIGH, (uint32_t)(at >> 32));
    store_le32(zp + ZP_RAMDISK_SIZE_HIGH, (uint32_t)(f->size >> 32));
    return boot_file_to_guest(f, 0, c->mem, at, f->size, e);
}

/* Text mode 3, as INT 10h would tell of it. */
static void describe_screen(uint8_t *zp, const struct boot_screen *s)
{
    if (s->base != 0 && s->text) {
        zp[ZP_VIDEO_MODE] = 3;
        zp[ZP_VIDEO_COLUMNS] = (uint8_t)s->width;
        zp[ZP_VIDEO_LINES] = (uint8_t)s->height;
        zp[ZP_VIDEO_IS_VGA] = 1;
        store_le16(zp + ZP_VIDEO_EGA_BX, 3); /* 256 KiB of memory */
        store_le16(zp + ZP_VIDEO_POINTS, 16);
    }
}

static void fill_zero_page(const struct boot_ctx *c, const struct linux_image *k, uint64_t kernel,
                           uint64_t cmdline, uint8_t *zp)
{
    memset(zp, 0, ZP_SIZE);
    memcpy(zp + HDR_SETUP_SECTS, k->head + HDR_SETUP_SECTS, HDR_END - HDR_SETUP_SECTS);
    zp[HDR_TYPE_OF_LOADER] = LOADER_UNDEFINED;
    store_le32(zp + HDR_CODE32_START, (uint32_t)kernel);
    store_le32(zp + HDR_CMD_LINE_PTR, (uint32_t)cmdline);
    store_le32(zp + HDR_RAMDISK_IMAGE, 0);
    store_le32(zp + HDR_RAMDISK_SIZE, 0);
    store_le64(zp + HDR_SETUP_DATA, 0);
    store_le64(zp + ZP_RSDP, c->rsdp);
    describe_screen(zp, &c->p->screen);
    const struct e820 *map = &c->layout.map;
    zp[ZP_E820_COUNT] = (uint8_t)map->count;
    for (size_t i = 0; i < map->count; i++) {
        e820_encode(&map->entry[i], zp + ZP_E820 + i * E820_ENTRY_BYTES);
    }
}

int linux_load(struct boot_ctx *c, struct err *e)
{
    struct linux_image k;
    uint8_t zp[ZP_SIZE];
    uint64_t kernel, cmdline, zero_page;
    int r = read_header(&k, c->p->kernel, e);
    if (r == 0) {
        r = place_kernel(c, &k, &kernel, e);
    }
    if (r == 0) {
        r = load_cmdline(c, &k, &cmdline, e);
    }
    if (r < 0) {
        return r;
    }
    fill_zero_page(c, &k, kernel, cmdline, zp);
    r = load_initrd(c, &k, zp, e);
    if (r == 0) {
        r = boot_put(c, zp, sizeof zp, GMEM_PAGE_SIZE, &zero_page, e);
    }
    if (r == 0) {
        r = k.long_mode && !c->p->no_long_mode ? entry_long64(c, BOOT_CS, kernel + ENTRY_64, e)
                                               : entry_prot32(c, BOOT_CS, (uint32_t)kernel, e);
    }
    if (r == 0) {
        c->cpu->gpr[GPR_RSI] = zero_page;
    }
    return r;
}
