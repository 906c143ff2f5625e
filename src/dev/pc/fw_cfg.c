/* SPDX-License-Identifier: Apache-2.0
 *
 * fw_cfg, as QEMU's docs/specs/fw_cfg describes it: selector and data ports, DMA, file directory.
 * Items below FW_CFG_FILE_FIRST and the architecture's are numbers and blobs; files have names.
 * DEVIATION: the data port is read-only (writing through it was withdrawn in QEMU 2.4, too).
 */
#include "dev/pc/fw_cfg.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/bytes.h"
#include "base/log.h"

#define PORT_SELECTOR 0x510
#define PORT_DMA 0x514
#define ID_TRADITIONAL 1u
#define ID_DMA 2u
#define DMA_SIGNATURE 0x51454d5520434647ull /* "QEMU CFG" */
#define DIR_ENTRY 64u
#define KEY_NUMBER_BITS 14u /* bit 14 was "write", bit 15 is the architecture's */
#define NAME_OFFSET 8u

enum dma_control {
    DMA_ERROR = 0x01,
    DMA_READ = 0x02,
    DMA_SKIP = 0x04,
    DMA_SELECT = 0x08,
    DMA_WRITE = 0x10
};

/* What the guest hands over by address, big-endian (16 bytes). */
struct dma_request {
    uint32_t control;
    uint32_t length;
    uint64_t address;
};

/* -- Items ------------------------------------------------------------------------------------- */
static struct fw_cfg_item *item_at(struct fw_cfg *f, uint16_t key)
{
    unsigned n = key & MASK64(KEY_NUMBER_BITS);
    if (key & FW_CFG_ARCH_LOCAL) {
        return n < ARRAY_LEN(f->local) ? &f->local[n] : NULL;
    }
    return n < ARRAY_LEN(f->generic) ? &f->generic[n] : NULL;
}

/* The selected item; NULL when it does not exist. */
static struct fw_cfg_item *selected(struct fw_cfg *f)
{
    struct fw_cfg_item *item = item_at(f, f->selector);
    return item != NULL && item->data != NULL ? item : NULL;
}

static uint32_t left(const struct fw_cfg *f, const struct fw_cfg_item *item)
{
    return item != NULL && f->offset < item->len ? item->len - f->offset : 0;
}

static void release(struct fw_cfg_item *item)
{
    if (item->owned) {
        free((uint8_t *)item->data);
    }
    *item = (struct fw_cfg_item){ 0 };
}

static void set_copy(struct fw_cfg_item *item, const void *data, uint32_t len)
{
    uint8_t *copy = xzalloc(len != 0 ? len : 1);
    if (data != NULL) {
        memcpy(copy, data, len);
    }
    release(item);
    *item = (struct fw_cfg_item){ .data = copy, .len = len, .owned = true };
}

static struct fw_cfg_item *numbered(struct fw_cfg *f, uint16_t key)
{
    struct fw_cfg_item *item = item_at(f, key);
    assert(item != NULL && (key & MASK64(KEY_NUMBER_BITS)) < FW_CFG_FILE_FIRST);
    return item;
}

void fw_cfg_set_bytes(struct fw_cfg *f, uint16_t key, const void *data, uint32_t len)
{
    set_copy(numbered(f, key), data, len);
}

void fw_cfg_set_string(struct fw_cfg *f, uint16_t key, const char *s)
{
    fw_cfg_set_bytes(f, key, s, (uint32_t)strlen(s) + 1);
}

void fw_cfg_set_u16(struct fw_cfg *f, uint16_t key, uint16_t value)
{
    fw_cfg_set_bytes(f, key, &value, sizeof value); /* hosts are little-endian, as items are */
}

void fw_cfg_set_u32(struct fw_cfg *f, uint16_t key, uint32_t value)
{
    fw_cfg_set_bytes(f, key, &value, sizeof value);
}

void fw_cfg_set_u64(struct fw_cfg *f, uint16_t key, uint64_t value)
{
    fw_cfg_set_bytes(f, key, &value, sizeof value);
}

void fw_cfg_set_borrowed(struct fw_cfg *f, uint16_t key, const void *data, uint32_t len)
{
    struct fw_cfg_item *item = numbered(f, key);
    release(item);
    *item = (struct fw_cfg_item){ .data = data, .len = len };
}

/* -- Files ------------------------------------------------------------------------------------- */
static int find_file(const struct fw_cfg *f, const char *name)
{
    for (unsigned i = 0; i < f->files; i++) {
        if (strcmp(f->names[i], name) == 0) {
            return (int)i;
        }
    }
    return -1;
}

static int new_file(struct fw_cfg *f, const char *name, uint32_t len, struct fw_cfg_item **item)
{
    size_t name_len = strlen(name);
    if (name_len == 0 || name_len >= FW_CFG_NAME) {
        return -EINVAL;
    }
    if (find_file(f, name) >= 0) {
        return -EEXIST;
    }
    if (f->files == FW_CFG_FILES) {
        return -ENOSPC;
    }
    unsigned n = f->files++;
    memcpy(f->names[n], name, name_len + 1);
    uint8_t *entry = f->directory + 4 + n * DIR_ENTRY;
    store_be32(entry, len);
    store_be16(entry + 4, (uint16_t)(FW_CFG_FILE_FIRST + n));
    memcpy(entry + NAME_OFFSET, name, name_len + 1);
    store_be32(f->directory, f->files);
    f->generic[FW_CFG_FILE_DIR] = (struct fw_cfg_item){ .data = f->directory,
                                                        .len = 4 + f->files * DIR_ENTRY };
    *item = &f->generic[FW_CFG_FILE_FIRST + n];
    return 0;
}

int fw_cfg_add_file(struct fw_cfg *f, const char *name, const void *data, uint32_t len)
{
    struct fw_cfg_item *item;
    int r = new_file(f, name, len, &item);
    if (r == 0) {
        set_copy(item, data, len);
    }
    return r;
}

int fw_cfg_replace_file(struct fw_cfg *f, const char *name, const void *data, uint32_t len)
{
    int n = find_file(f, name);
    if (n < 0 || f->generic[FW_CFG_FILE_FIRST + n].writable) {
        return -ENOENT;
    }
    set_copy(&f->generic[FW_CFG_FILE_FIRST + n], data, len);
    store_be32(f->directory + 4 + (unsigned)n * DIR_ENTRY, len);
    return 0;
}

int fw_cfg_add_writable(struct fw_cfg *f, const char *name, const void *data, uint32_t len)
{
    struct fw_cfg_item *item;
    if (len > FW_CFG_WRITABLE - f->writable_used) {
        return -ENOSPC;
    }
    int r = new_file(f, name, len, &item);
    if (r < 0) {
        return r;
    }
    uint8_t *at = f->writable + f->writable_used;
    if (data != NULL) {
        memcpy(at, data, len);
        memcpy(f->writable_initial + f->writable_used, data, len);
    }
    f->writable_used += len;
    *item = (struct fw_cfg_item){ .data = at, .len = len, .writable = true };
    return 0;
}

void fw_cfg_on_write(struct fw_cfg *f, void (*written)(void *ctx, const char *name), void *ctx)
{
    f->written = written;
    f->written_ctx = ctx;
}

const uint8_t *fw_cfg_file(const struct fw_cfg *f, const char *name, uint32_t *len)
{
    int n = find_file(f, name);
    if (n < 0) {
        return NULL;
    }
    const struct fw_cfg_item *item = &f->generic[FW_CFG_FILE_FIRST + n];
    *len = item->len;
    return item->data;
}

/* -- Ports ------------------------------------------------------------------------------------- */
static void select_item(struct fw_cfg *f, uint16_t key)
{
    f->selector = key;
    f->offset = 0;
}

static uint64_t ports_read(void *dev, uint64_t offset, unsigned size)
{
    struct fw_cfg *f = dev;
    (void)offset; /* both ports read as the data port */
    const struct fw_cfg_item *item = selected(f);
    uint64_t value = 0;
    for (unsigned i = 0; i < size && left(f, item) != 0; i++) {
        value |= (uint64_t)item->data[f->offset++] << 8 * i;
    }
    return value;
}

static void ports_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    if (offset == 0 && size == 2) {
        select_item(dev, (uint16_t)value);
    }
}

static const struct region_ops ports_ops = {
    .read = ports_read,
    .write = ports_write,
    .sizes = ACCESS_1 | ACCESS_2,
};

/* -- DMA --------------------------------------------------------------------------------------- */
static int dma_read(struct fw_cfg *f, struct gmem *mem, const struct dma_request *rq)
{
    const struct fw_cfg_item *item = selected(f);
    uint32_t n = left(f, item);
    n = n < rq->length ? n : rq->length;
    if (n != 0 && gmem_write(mem, rq->address, item->data + f->offset, n) < 0) {
        return -EFAULT;
    }
    f->offset += n;
    gpa_t rest;
    if (ckd_add(&rest, rq->address, n)) {
        return -EFAULT;
    }
    return rq->length != n ? gmem_zero(mem, rest, rq->length - n) : 0; /* reads as zeros */
}

static int dma_write(struct fw_cfg *f, struct gmem *mem, const struct dma_request *rq)
{
    const struct fw_cfg_item *item = selected(f);
    if (item == NULL || !item->writable || rq->length > left(f, item)) {
        return -EINVAL;
    }
    uint8_t *at = f->writable + (item->data - f->writable) + f->offset;
    if (rq->length != 0 && gmem_read(mem, rq->address, at, rq->length) < 0) {
        return -EFAULT;
    }
    f->offset += rq->length;
    if (f->written != NULL) {
        f->written(f->written_ctx, f->names[item - &f->generic[FW_CFG_FILE_FIRST]]);
    }
    return 0;
}

static int dma_skip(struct fw_cfg *f, const struct dma_request *rq)
{
    uint32_t n = left(f, selected(f));
    f->offset += n < rq->length ? n : rq->length;
    return 0;
}

static void dma_run(struct fw_cfg *f, gpa_t at)
{
    struct gmem *mem = bus_mem(f->dev.bus);
    uint8_t raw[16];
    int r = 0;
    if (mem == NULL || gmem_read(mem, at, raw, sizeof raw) < 0) {
        log_guest(f->dev.name, "DMA request outside RAM");
        return; /* there is no place to tell it */
    }
    struct dma_request rq = { load_be32(raw), load_be32(raw + 4), load_be64(raw + 8) };
    if (rq.control & DMA_SELECT) {
        select_item(f, (uint16_t)(rq.control >> 16));
    }
    if (rq.control & DMA_READ) {
        r = dma_read(f, mem, &rq);
    } else if (rq.control & DMA_WRITE) {
        r = dma_write(f, mem, &rq);
    } else if (rq.control & DMA_SKIP) {
        r = dma_skip(f, &rq);
    }
    /* The data may have been written over the request: the answer comes last. */
    store_be32(raw, r < 0 ? DMA_ERROR : 0);
    if (gmem_write(mem, at, raw, 4) < 0) {
        log_guest(f->dev.name, "DMA request in ROM");
    }
}

static uint64_t dma_port_read(void *dev, uint64_t offset, unsigned size)
{
    uint8_t bytes[8];
    uint64_t value = 0;
    (void)dev;
    store_be64(bytes, DMA_SIGNATURE);
    memcpy(&value, bytes + offset, size);
    return value;
}

static void dma_port_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct fw_cfg *f = dev;
    uint32_t half = __builtin_bswap32((uint32_t)value);
    (void)size;
    if (offset == 0) {
        f->dma_high = half;
        return;
    }
    gpa_t at = (uint64_t)f->dma_high << 32 | half;
    f->dma_high = 0; /* so that 32-bit firmware need not write it */
    dma_run(f, at);
}

static const struct region_ops dma_ops = {
    .read = dma_port_read,
    .write = dma_port_write,
    .sizes = ACCESS_4,
};

/* -- Life -------------------------------------------------------------------------------------- */
static const struct state_field fw_cfg_state[] = {
    STATE(struct fw_cfg, selector),
    STATE(struct fw_cfg, offset),
    STATE(struct fw_cfg, dma_high),
    STATE_BYTES(struct fw_cfg, writable),
    STATE_END,
};

static void fw_cfg_reset(void *dev)
{
    struct fw_cfg *f = dev;
    select_item(f, FW_CFG_SIGNATURE);
    f->dma_high = 0;
    memcpy(f->writable, f->writable_initial, sizeof f->writable);
}

static const struct dev_class fw_cfg_class = {
    .name = "fw_cfg",
    .version = 1,
    .state = fw_cfg_state,
    .size = sizeof(struct fw_cfg),
    .reset = fw_cfg_reset,
};

void fw_cfg_init(struct fw_cfg *f, struct bus *b)
{
    *f = (struct fw_cfg){ 0 };
    dev_register(b, &f->dev, &fw_cfg_class, "fw_cfg");
    bus_add_port(b, PORT_SELECTOR, 2, &ports_ops, f);
    bus_add_port(b, PORT_DMA, 8, &dma_ops, f);
    fw_cfg_set_bytes(f, FW_CFG_SIGNATURE, "QEMU", 4);
    fw_cfg_set_u32(f, FW_CFG_ID, ID_TRADITIONAL | ID_DMA);
    f->generic[FW_CFG_FILE_DIR] = (struct fw_cfg_item){ .data = f->directory, .len = 4 };
    fw_cfg_reset(f);
}

void fw_cfg_fini(struct fw_cfg *f)
{
    for (unsigned i = 0; i < ARRAY_LEN(f->generic); i++) {
        release(&f->generic[i]);
    }
    for (unsigned i = 0; i < ARRAY_LEN(f->local); i++) {
        release(&f->local[i]);
    }
    dev_unregister(&f->dev);
}
