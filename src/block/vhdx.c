/* SPDX-License-Identifier: Apache-2.0
 *
 * VHDX: opening, the block allocation table, and the header that says when writing has begun.
 * Differencing images are refused.
 */
#include "block/vhdx.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/log.h"

/* As they are in the file: the first three parts of a GUID are little-endian. */
const uint8_t vhdx_bat_guid[16] = { 0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42,
                                    0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08 };
const uint8_t vhdx_metadata_guid[16] = { 0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b,
                                         0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e };
const uint8_t vhdx_item_guids[VHDX_ITEMS][16] = {
    [VHDX_FILE_PARAMETERS] = { 0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33,
                               0xf0, 0xaa, 0x44, 0xe7, 0x6b },
    [VHDX_DISK_SIZE] = { 0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48, 0xb2, 0x11, 0x5d, 0xbe,
                         0xd8, 0x3b, 0xf4, 0xb8 },
    [VHDX_DISK_ID] = { 0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45, 0x93, 0xef, 0xc3, 0x09, 0xe0,
                       0x00, 0xc7, 0x46 },
    [VHDX_LOGICAL_SECTOR] = { 0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47, 0xba, 0x47, 0xf2,
                              0x33, 0xa8, 0xfa, 0xab, 0x5f },
    [VHDX_PHYSICAL_SECTOR] = { 0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44, 0x9c, 0xc9, 0xe9,
                               0x88, 0x52, 0x51, 0xc5, 0x56 },
};

uint32_t vhdx_checksum(const uint8_t *p, size_t len, size_t at)
{
    static const uint8_t nothing[4];
    uint32_t crc = crc32c(0, p, at);
    crc = crc32c(crc, nothing, sizeof nothing);
    return crc32c(crc, p + at + 4, len - at - 4);
}

static bool vhdx_probe(const struct block_probe *p) { return memcmp(p->head, "vhdxfile", 8) == 0; }

static uint64_t entry_at(const struct vhdx *v, uint64_t n)
{
    return v->bat + (n + n / v->ratio) * 8;
}

static int vhdx_look(struct grains *g, uint64_t offset, uint64_t len, struct grain *out)
{
    uint8_t bytes[8];
    int r = meta_read(g->meta, entry_at(g->format, offset / g->unit), bytes, sizeof bytes);
    uint64_t entry = load_le64(bytes), state = entry & VHDX_STATE_MASK;
    *out = (struct grain){ .kind = GRAIN_HOLE, .len = len };
    if (r < 0) {
        return r;
    }
    if (state == VHDX_PRESENT) {
        out->kind = GRAIN_DATA;
        out->host = (entry & VHDX_OFFSET_MASK) + offset % g->unit;
        return out->host >= VHDX_MIB && out->host <= INT64_MAX - g->unit ? 0 : -EIO;
    }
    out->kind = state == VHDX_ZERO ? GRAIN_ZERO : GRAIN_HOLE;
    return state <= VHDX_UNMAPPED ? 0 : -EIO;
}

static int vhdx_place(struct grains *g, uint64_t n, uint64_t *host, bool *fresh)
{
    uint64_t size;
    (void)n;
    int r = hostfile_size(g->file, &size);
    *host = align_up(g->end, VHDX_MIB);
    *fresh = *host >= size;
    return r;
}

static int vhdx_link(struct grains *g, uint64_t n, enum grain_kind kind, uint64_t host)
{
    uint8_t bytes[8];
    store_le64(bytes, kind == GRAIN_DATA ? host | VHDX_PRESENT : VHDX_ZERO);
    if (kind == GRAIN_DATA && host + g->unit > g->end) {
        g->end = host + g->unit;
    }
    return meta_write(g->meta, entry_at(g->format, n), bytes, sizeof bytes, 0);
}

static const struct grain_table vhdx_table = {
    .look = vhdx_look,
    .place = vhdx_place,
    .link = vhdx_link,
    .can_zero = true,
};

static int bad(struct vhdx *v, struct err *e, const char *what)
{
    return err_set(e, -EINVAL, "%s: damaged VHDX image: %s", v->g.block->path, what);
}

int vhdx_write_header(struct vhdx *v)
{
    int r = 0;
    for (unsigned i = 0; r == 0 && i < 2; i++) {
        store_le64(v->header + H_SEQUENCE, load_le64(v->header + H_SEQUENCE) + 1);
        store_le32(v->header + H_CHECKSUM, vhdx_checksum(v->header, VHDX_PAGE, H_CHECKSUM));
        v->second = !v->second;
        r = hostfile_write(v->g.file, v->second ? VHDX_HEADER_2 : VHDX_HEADER_1, v->header,
                           VHDX_PAGE);
        if (r == 0) {
            r = hostfile_sync(v->g.file);
        }
    }
    return r;
}

static bool load_one_header(struct vhdx *v, uint64_t at, uint8_t *h)
{
    return hostfile_read(v->g.file, at, h, VHDX_PAGE) == 0 && memcmp(h, "head", 4) == 0 &&
           vhdx_checksum(h, VHDX_PAGE, H_CHECKSUM) == load_le32(h + H_CHECKSUM) &&
           load_le16(h + H_VERSION) == 1;
}

static int load_header(struct vhdx *v, struct err *e)
{
    uint8_t other[VHDX_PAGE];
    bool first = load_one_header(v, VHDX_HEADER_1, v->header);
    v->second = load_one_header(v, VHDX_HEADER_2, other) &&
                (!first || load_le64(other + H_SEQUENCE) > load_le64(v->header + H_SEQUENCE));
    if (v->second) {
        memcpy(v->header, other, sizeof other);
    } else if (!first) {
        return bad(v, e, "no valid header");
    }
    v->log_at = load_le64(v->header + H_LOG_AT);
    v->log_len = load_le32(v->header + H_LOG_LEN);
    if (v->log_at < VHDX_MIB || v->log_at % VHDX_MIB != 0 || v->log_at > INT64_MAX - UINT32_MAX ||
        v->log_len == 0 || v->log_len % VHDX_MIB != 0 || v->log_len > VHDX_LOG_MAX ||
        load_le16(v->header + H_LOG_VERSION) != 0) {
        return bad(v, e, "place of the log");
    }
    return 0;
}

static int parse_regions(struct vhdx *v, const uint8_t *t, struct err *e)
{
    uint32_t count = load_le32(t + 8);
    if (count > 2047) {
        return bad(v, e, "region table");
    }
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *r = t + 16 + (size_t)i * 32;
        uint64_t at = load_le64(r + 16), len = load_le32(r + 24);
        if (at < VHDX_MIB || at % VHDX_MIB != 0 || at > INT64_MAX - len) {
            return bad(v, e, "region table");
        }
        if (memcmp(r, vhdx_bat_guid, 16) == 0) {
            v->bat = at;
            v->bat_len = len;
        } else if (memcmp(r, vhdx_metadata_guid, 16) == 0) {
            v->metadata = at;
            v->metadata_len = len;
        } else if (load_le32(r + 28) & 1) {
            return err_set(e, -ENOTSUP, "%s: has a region that must be understood, and is not",
                           v->g.block->path);
        }
    }
    return v->bat != 0 && v->metadata != 0 && v->metadata_len >= VHDX_PAGE
               ? 0
               : bad(v, e, "a region is missing");
}

static int load_regions(struct vhdx *v, struct err *e)
{
    static const uint64_t places[] = { VHDX_REGIONS_1, VHDX_REGIONS_2 };
    uint8_t *t = try_alloc(1, VHDX_REGIONS_LEN);
    int r = t == NULL ? -ENOMEM : -EINVAL;
    for (size_t i = 0; t != NULL && i < ARRAY_LEN(places); i++) {
        if (hostfile_read(v->g.file, places[i], t, VHDX_REGIONS_LEN) == 0 &&
            memcmp(t, "regi", 4) == 0 &&
            vhdx_checksum(t, VHDX_REGIONS_LEN, 4) == load_le32(t + 4)) {
            r = parse_regions(v, t, e);
            free(t);
            return r;
        }
    }
    free(t);
    return r == -ENOMEM ? err_set(e, r, "%s: %s", v->g.block->path, strerror(-r))
                        : bad(v, e, "no valid region table");
}

/* The item's bytes, at most room of them. */
static int load_item(struct vhdx *v, const uint8_t *table, enum vhdx_item item, uint8_t *to,
                     uint32_t room)
{
    uint16_t count = load_le16(table + 10);
    for (uint16_t i = 0; i < count && i < (VHDX_PAGE - 32) / 32; i++) {
        const uint8_t *entry = table + 32 + (size_t)i * 32;
        uint32_t at = load_le32(entry + 16), len = load_le32(entry + 20);
        if (memcmp(entry, vhdx_item_guids[item], 16) == 0) {
            return len >= room && at <= v->metadata_len && room <= v->metadata_len - at
                       ? meta_read(v->g.meta, v->metadata + at, to, room)
                       : -EINVAL;
        }
    }
    return -ENOENT;
}

static int load_metadata(struct vhdx *v, struct err *e)
{
    uint8_t t[VHDX_PAGE], params[8], size[8], sector[4];
    int r = meta_read(v->g.meta, v->metadata, t, sizeof t);
    if (r < 0 || memcmp(t, "metadata", 8) != 0 ||
        load_item(v, t, VHDX_FILE_PARAMETERS, params, sizeof params) < 0 ||
        load_item(v, t, VHDX_DISK_SIZE, size, sizeof size) < 0 ||
        load_item(v, t, VHDX_LOGICAL_SECTOR, sector, sizeof sector) < 0) {
        return bad(v, e, "metadata");
    }
    uint32_t flags = load_le32(params + 4), sector_size = load_le32(sector);
    v->g.unit = load_le32(params);
    v->g.size = load_le64(size);
    v->fixed = flags & 1;
    if (flags & 2) {
        return err_set(e, -ENOTSUP, "%s: differencing VHDX images are not supported",
                       v->g.block->path);
    }
    if (!is_pow2(v->g.unit) || v->g.unit < VHDX_MIB || v->g.unit > 256 * VHDX_MIB ||
        (sector_size != 512 && sector_size != 4096) || v->g.size > VHDX_SIZE_MAX ||
        v->g.size % sector_size != 0) {
        return bad(v, e, "sizes");
    }
    v->ratio = ((uint64_t)sector_size << 23) / v->g.unit;
    uint64_t blocks = (v->g.size + v->g.unit - 1) / v->g.unit;
    uint64_t entries = blocks + (blocks != 0 ? (blocks - 1) / v->ratio : 0);
    uint64_t file_size;
    if (hostfile_size(v->g.file, &file_size) < 0 || v->bat + entries * 8 > file_size) {
        return bad(v, e, "the file is shorter than its block allocation table");
    }
    if (entries * 8 > v->bat_len) {
        return bad(v, e, "block allocation table is too small for the disk");
    }
    atomic_store(&v->g.block->size, v->g.size);
    return 0;
}

/* What a crash left in the log: into the file when it may be written, into memory otherwise. */
static int apply_log(struct vhdx *v, struct err *e)
{
    uint64_t last, size;
    if (bytes_are_zero(v->header + H_LOG_GUID, 16)) {
        return 0;
    }
    int r = vhdx_replay(v, &last, e);
    if (r < 0 || v->g.block->readonly) {
        return r;
    }
    r = meta_flush(v->g.meta);
    if (r == 0) {
        r = hostfile_size(v->g.file, &size);
    }
    if (r == 0 && size < last && last - size <= VHDX_SIZE_MAX) {
        r = hostfile_truncate(v->g.file, last);
    }
    memset(v->header + H_LOG_GUID, 0, 16);
    if (r == 0) {
        r = vhdx_write_header(v);
    }
    return r < 0 ? err_set(e, r, "%s: %s", v->g.block->path, strerror(-r)) : 0;
}

static void vhdx_free(struct vhdx *v)
{
    grains_fini(&v->g);
    pthread_mutex_destroy(&v->start_lock);
    free(v);
}

static int vhdx_open(struct block *b, struct err *e)
{
    struct vhdx *v = xzalloc(sizeof *v);
    pthread_mutex_init(&v->start_lock, NULL);
    v->g.block = b;
    v->g.file = b->file;
    v->g.table = &vhdx_table;
    v->g.format = v;
    grains_init(&v->g, VHDX_PAGE);
    uint8_t id[8];
    int r = hostfile_read(b->file, 0, id, sizeof id);
    if (r < 0) {
        err_set(e, r, "%s: %s", b->path, strerror(-r));
    } else if (memcmp(id, "vhdxfile", 8) != 0) {
        r = err_set(e, -EINVAL, "%s: not a VHDX image", b->path);
    }
    if (r == 0) {
        r = load_header(v, e);
    }
    if (r == 0) {
        r = load_regions(v, e);
    }
    if (r == 0) {
        r = apply_log(v, e);
    }
    if (r == 0) {
        r = load_metadata(v, e);
    }
    if (r == 0) {
        r = hostfile_size(b->file, &v->g.end);
        r = r < 0 ? err_set(e, r, "%s: %s", b->path, strerror(-r)) : 0;
    }
    if (r < 0) {
        vhdx_free(v);
        return r;
    }
    b->priv = v;
    return 0;
}

/* Before the first change: new ids in the header, a log that is in use. */
static int start_writing(struct vhdx *v)
{
    int r = 0;
    if (atomic_load(&v->writing)) {
        return 0;
    }
    pthread_mutex_lock(&v->start_lock);
    if (!atomic_load(&v->writing)) {
        uint8_t ids[48];
        r = getrandom(ids, sizeof ids, 0) == sizeof ids ? 0 : -EIO;
        if (r == 0) {
            memcpy(v->header + H_FILE_GUID, ids, sizeof ids);
            r = vhdx_write_header(v);
        }
        if (r == 0) {
            meta_set_journal(v->g.meta, vhdx_journal, v);
            atomic_store(&v->writing, true);
        }
    }
    pthread_mutex_unlock(&v->start_lock);
    return r;
}

static void vhdx_close(struct block *b)
{
    struct vhdx *v = b->priv;
    if (atomic_load(&v->writing)) {
        int r = grains_flush(&v->g);
        if (r == 0) {
            memset(v->header + H_LOG_GUID, 0, 16);
            r = vhdx_write_header(v);
        }
        if (r < 0) {
            log_warn("%s: closing: %s", b->path, strerror(-r));
        }
    }
    vhdx_free(v);
}

static int vhdx_read(struct block *b, uint64_t offset, void *buf, size_t len)
{
    struct vhdx *v = b->priv;
    return grains_read(&v->g, offset, buf, len);
}

static int vhdx_write(struct block *b, uint64_t offset, const void *buf, size_t len)
{
    struct vhdx *v = b->priv;
    int r = start_writing(v);
    return r < 0 ? r : grains_write(&v->g, offset, buf, len);
}

static int vhdx_flush(struct block *b)
{
    struct vhdx *v = b->priv;
    return grains_flush(&v->g);
}

static int vhdx_discard(struct block *b, uint64_t offset, uint64_t len)
{
    struct vhdx *v = b->priv;
    int r = start_writing(v);
    return r < 0 ? r : grains_discard(&v->g, offset, len);
}

static int vhdx_write_zeroes(struct block *b, uint64_t offset, uint64_t len, bool may_unmap)
{
    struct vhdx *v = b->priv;
    int r = start_writing(v);
    return r < 0 ? r : grains_zero(&v->g, offset, len, may_unmap);
}

static int vhdx_map(struct block *b, uint64_t offset, uint64_t len, struct block_extent *out)
{
    struct vhdx *v = b->priv;
    return grains_map(&v->g, offset, len, out);
}

static void vhdx_info(struct block *b, struct block_info *info)
{
    const struct vhdx *v = b->priv;
    info->cluster_size = v->g.unit;
    info->subformat = v->fixed ? "fixed" : "dynamic";
    info->dirty = !bytes_are_zero(v->header + H_LOG_GUID, 16);
}

static int vhdx_check(struct block *b, bool repair, struct block_check *c, struct err *e)
{
    struct vhdx *v = b->priv;
    uint64_t size;
    int r = hostfile_size(b->file, &size);
    (void)repair; /* the log is applied by opening it for writing */
    (void)e;
    c->clusters = (v->g.size + v->g.unit - 1) / v->g.unit;
    for (uint64_t n = 0; r == 0 && n < c->clusters; n++) {
        struct grain at = { 0 };
        int found = vhdx_look(&v->g, n * v->g.unit, 1, &at);
        c->allocated += at.kind == GRAIN_DATA;
        if (found < 0 || (at.kind == GRAIN_DATA && at.host >= size)) {
            c->corruptions++;
            block_check_say(c, "error: block %llu is nowhere", (unsigned long long)n);
        }
    }
    return r;
}

const struct block_class block_vhdx = {
    .name = "vhdx",
    .probe = vhdx_probe,
    .open = vhdx_open,
    .close = vhdx_close,
    .read = vhdx_read,
    .write = vhdx_write,
    .flush = vhdx_flush,
    .discard = vhdx_discard,
    .write_zeroes = vhdx_write_zeroes,
    .map = vhdx_map,
    .create_keys = BLOCK_KEY_SUBFORMAT | BLOCK_KEY_CLUSTER_SIZE,
    .create = vhdx_create,
    .info = vhdx_info,
    .check = vhdx_check,
};
