/* SPDX-License-Identifier: Apache-2.0 -- VHDX images made */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/bytes.h"
#include "block/vhdx.h"

/* Where the parts of a new image are. */
#define LOG_AT VHDX_MIB
#define METADATA_AT (2 * VHDX_MIB)
#define BAT_AT (3 * VHDX_MIB)

static void put_region(uint8_t *entry, const uint8_t *guid, uint64_t at, uint64_t len)
{
    memcpy(entry, guid, 16);
    store_le64(entry + 16, at);
    store_le32(entry + 24, (uint32_t)len);
    store_le32(entry + 28, 1); /* required */
}

static int write_regions(struct hostfile *f, uint64_t bat_len)
{
    uint8_t *t = try_alloc(1, VHDX_REGIONS_LEN);
    if (t == NULL) {
        return -ENOMEM;
    }
    memcpy(t, "regi", 4);
    store_le32(t + 8, 2);
    put_region(t + 16, vhdx_bat_guid, BAT_AT, bat_len);
    put_region(t + 48, vhdx_metadata_guid, METADATA_AT, VHDX_MIB);
    store_le32(t + 4, vhdx_checksum(t, VHDX_REGIONS_LEN, 4));
    int r = hostfile_write(f, VHDX_REGIONS_1, t, VHDX_REGIONS_LEN);
    if (r == 0) {
        r = hostfile_write(f, VHDX_REGIONS_2, t, VHDX_REGIONS_LEN);
    }
    free(t);
    return r;
}

static int write_metadata(struct hostfile *f, const struct block_create *c, uint64_t block,
                          bool fixed)
{
    static const struct {
        uint32_t len, flags;
    } shape[VHDX_ITEMS] = { { 8, 4 }, { 8, 6 }, { 16, 6 }, { 4, 6 }, { 4, 6 } };
    const uint32_t items_at = 64u << 10;
    uint8_t t[VHDX_PAGE] = "metadata", items[64] = { 0 };
    uint32_t at = 0;
    store_le16(t + 10, VHDX_ITEMS);
    for (unsigned i = 0; i < VHDX_ITEMS; i++) {
        uint8_t *entry = t + 32 + i * 32;
        memcpy(entry, vhdx_item_guids[i], 16);
        store_le32(entry + 16, items_at + at);
        store_le32(entry + 20, shape[i].len);
        store_le32(entry + 24, shape[i].flags);
        at += shape[i].len;
    }
    store_le32(items, (uint32_t)block);
    store_le32(items + 4, fixed ? 1 : 0);
    store_le64(items + 8, c->size);
    if (getrandom(items + 16, 16, 0) != 16) {
        return -EIO;
    }
    store_le32(items + 32, 512);
    store_le32(items + 36, 512);
    int r = hostfile_write(f, METADATA_AT, t, sizeof t);
    return r < 0 ? r : hostfile_write(f, METADATA_AT + items_at, items, at);
}

static int write_bat(struct hostfile *f, uint64_t blocks, uint64_t block, uint64_t bat_len,
                     bool fixed)
{
    uint64_t ratio = (512ull << 23) / block, data_at = BAT_AT + bat_len;
    int r = hostfile_truncate(f, data_at + (fixed ? blocks * block : 0));
    uint8_t *bat = fixed ? try_alloc(1, (size_t)bat_len) : NULL;
    if (r < 0 || !fixed) {
        return r;
    }
    if (bat == NULL) {
        return -ENOMEM;
    }
    for (uint64_t i = 0; i < blocks; i++) {
        store_le64(bat + (i + i / ratio) * 8, (data_at + i * block) | VHDX_PRESENT);
    }
    r = hostfile_write(f, BAT_AT, bat, (size_t)bat_len);
    free(bat);
    return r;
}

static int write_headers(struct hostfile *f)
{
    uint8_t id[VHDX_PAGE] = "vhdxfile", h[VHDX_PAGE] = "head";
    static const char creator[] = "sosia";
    for (size_t i = 0; i < sizeof creator; i++) {
        id[8 + i * 2] = (uint8_t)creator[i];
    }
    store_le16(h + H_VERSION, 1);
    store_le32(h + H_LOG_LEN, (uint32_t)VHDX_MIB);
    store_le64(h + H_LOG_AT, LOG_AT);
    int r = getrandom(h + H_FILE_GUID, 32, 0) == 32 ? hostfile_write(f, 0, id, sizeof id) : -EIO;
    for (unsigned i = 0; r == 0 && i < 2; i++) {
        store_le64(h + H_SEQUENCE, i + 1);
        store_le32(h + H_CHECKSUM, vhdx_checksum(h, sizeof h, H_CHECKSUM));
        r = hostfile_write(f, i == 0 ? VHDX_HEADER_1 : VHDX_HEADER_2, h, sizeof h);
    }
    return r;
}

int vhdx_create(struct hostfile *f, const struct block_create *c, struct err *e)
{
    bool fixed = c->subformat != NULL && strcmp(c->subformat, "fixed") == 0;
    uint64_t block = c->cluster_size != 0       ? c->cluster_size
                     : c->size > (512ull << 30) ? 32 * VHDX_MIB
                                                : 8 * VHDX_MIB;
    if (c->subformat != NULL && !fixed && strcmp(c->subformat, "dynamic") != 0) {
        return err_set(e, -EINVAL, "VHDX subformats: dynamic, fixed");
    }
    if (!is_pow2(block) || block < VHDX_MIB || block > 256 * VHDX_MIB) {
        return err_set(e, -EINVAL, "block_size: a power of two from 1M to 256M");
    }
    if (c->size > VHDX_SIZE_MAX) {
        return err_set(e, -EFBIG, "too large for a VHDX image: at most 64T");
    }
    uint64_t blocks = (c->size + block - 1) / block, ratio = (512ull << 23) / block;
    uint64_t entries = blocks + (blocks != 0 ? (blocks - 1) / ratio : 0);
    uint64_t bat_len = align_up(entries * 8 + 1, VHDX_MIB);
    int r = write_bat(f, blocks, block, bat_len, fixed);
    if (r == 0) {
        r = write_metadata(f, c, block, fixed);
    }
    if (r == 0) {
        r = write_regions(f, bat_len);
    }
    if (r == 0) {
        r = write_headers(f);
    }
    return r < 0 ? err_set(e, r, "%s: %s", c->path, strerror(-r)) : 0;
}
