/* SPDX-License-Identifier: Apache-2.0
 *
 * The firmware configuration device: how firmware and test kernels ask for CPU count, memory size,
 * tables and files (interface of QEMU, docs/specs/fw_cfg).  Thread: machine lock held.
 */
#ifndef SOSIA_DEV_PC_FW_CFG_H
#define SOSIA_DEV_PC_FW_CFG_H

#include "bus/bus.h"

#define FW_CFG_FILES 64u      /* named files */
#define FW_CFG_NAME 56u       /* bytes of a name, with its end */
#define FW_CFG_WRITABLE 4096u /* bytes of all writable files together */

enum fw_cfg_key {
    FW_CFG_SIGNATURE = 0x00,
    FW_CFG_ID = 0x01,
    FW_CFG_UUID = 0x02,
    FW_CFG_RAM_SIZE = 0x03,
    FW_CFG_NOGRAPHIC = 0x04,
    FW_CFG_NB_CPUS = 0x05,
    FW_CFG_MACHINE_ID = 0x06,
    FW_CFG_KERNEL_ADDR = 0x07,
    FW_CFG_KERNEL_SIZE = 0x08,
    FW_CFG_INITRD_ADDR = 0x0a,
    FW_CFG_INITRD_SIZE = 0x0b,
    FW_CFG_BOOT_DEVICE = 0x0c,
    FW_CFG_NUMA = 0x0d,
    FW_CFG_BOOT_MENU = 0x0e,
    FW_CFG_MAX_CPUS = 0x0f,
    FW_CFG_KERNEL_ENTRY = 0x10,
    FW_CFG_KERNEL_DATA = 0x11,
    FW_CFG_INITRD_DATA = 0x12,
    FW_CFG_CMDLINE_ADDR = 0x13,
    FW_CFG_CMDLINE_SIZE = 0x14,
    FW_CFG_CMDLINE_DATA = 0x15,
    FW_CFG_SETUP_ADDR = 0x16,
    FW_CFG_SETUP_SIZE = 0x17,
    FW_CFG_SETUP_DATA = 0x18,
    FW_CFG_FILE_DIR = 0x19,
    FW_CFG_FILE_FIRST = 0x20,
    FW_CFG_ARCH_LOCAL = 0x8000, /* | key */
};

struct fw_cfg_item {
    const uint8_t *data; /* NULL: no such item */
    uint32_t len;
    bool owned;
    bool writable; /* data lies in fw_cfg.writable */
};

struct fw_cfg {
    struct dev dev;
    struct fw_cfg_item generic[FW_CFG_FILE_FIRST + FW_CFG_FILES];
    struct fw_cfg_item local[FW_CFG_FILE_FIRST];
    char names[FW_CFG_FILES][FW_CFG_NAME];
    unsigned files;
    uint8_t directory[4 + FW_CFG_FILES * 64]; /* item FW_CFG_FILE_DIR */
    void (*written)(void *ctx, const char *name);
    void *written_ctx;
    uint32_t writable_used;
    /* State: */
    uint16_t selector;
    uint32_t offset;
    uint32_t dma_high;
    uint8_t writable[FW_CFG_WRITABLE];
    /* What the writable files hold after reset. */
    uint8_t writable_initial[FW_CFG_WRITABLE];
};

/* Ports 0x510 to 0x51b. DMA goes to bus_mem(b). */
void fw_cfg_init(struct fw_cfg *f, struct bus *b);
void fw_cfg_fini(struct fw_cfg *f);

/* key: one of fw_cfg_key below FW_CFG_FILE_FIRST, perhaps | FW_CFG_ARCH_LOCAL. An item that is
 * there already is replaced. Bytes are copied, NULL: zeros. Little-endian numbers. */
void fw_cfg_set_bytes(struct fw_cfg *f, uint16_t key, const void *data, uint32_t len);
void fw_cfg_set_string(struct fw_cfg *f, uint16_t key, const char *s); /* with its end */
void fw_cfg_set_u16(struct fw_cfg *f, uint16_t key, uint16_t value);
void fw_cfg_set_u32(struct fw_cfg *f, uint16_t key, uint32_t value);
void fw_cfg_set_u64(struct fw_cfg *f, uint16_t key, uint64_t value);
/* Large contents: borrowed until fini or replaced. */
void fw_cfg_set_borrowed(struct fw_cfg *f, uint16_t key, const void *data, uint32_t len);

/* A named file ("etc/e820"); bytes are copied. -ENOSPC: too many; -EINVAL: name; -EEXIST. */
MUST_CHECK int fw_cfg_add_file(struct fw_cfg *f, const char *name, const void *data, uint32_t len);
/* New contents for a file that is there. -ENOENT. */
MUST_CHECK int fw_cfg_replace_file(struct fw_cfg *f, const char *name, const void *data,
                                   uint32_t len);
/* One that the guest may write by DMA; it survives until reset. -ENOSPC. */
MUST_CHECK int fw_cfg_add_writable(struct fw_cfg *f, const char *name, const void *data,
                                   uint32_t len);
/* Tell of guest writes. */
void fw_cfg_on_write(struct fw_cfg *f, void (*written)(void *ctx, const char *name), void *ctx);
/* Present contents, NULL when there is none. Borrowed until the next change. */
const uint8_t *fw_cfg_file(const struct fw_cfg *f, const char *name, uint32_t *len);

#endif
