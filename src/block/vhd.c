/* SPDX-License-Identifier: Apache-2.0
 *
 * VHD (Microsoft's "Virtual Hard Disk Image Format Specification" 1.0): fixed, dynamic and
 * differencing. Big-endian. A block is a bitmap of its sectors and the sectors; a clear bit is the
 * parent's sector, or zeroes. The footer is the file's last sector, and its first in all but fixed
 * images; a new block takes the place of the last one, which moves behind it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/bytes.h"
#include "block/grains.h"

#define SECTOR 512u
#define VHD_BLOCK MIB(2)
#define VHD_SIZE_MAX (2040ull << 30)
#define VHD_UNUSED 0xffffffffu
#define VHD_EPOCH 946684800u /* 2000-01-01 */
#define CHS_MAX_SECTORS (65535ull * 16 * 255)

enum { /* footer */
       F_COOKIE = 0,
       F_FEATURES = 8,
       F_VERSION = 12,
       F_DATA = 16,
       F_TIME = 24,
       F_CREATOR = 28,
       F_CREATOR_VERSION = 32,
       F_CREATOR_OS = 36,
       F_ORIGINAL_SIZE = 40,
       F_SIZE = 48,
       F_CYLINDERS = 56,
       F_HEADS = 58,
       F_SECTORS = 59,
       F_TYPE = 60,
       F_CHECKSUM = 64,
       F_UUID = 68,
};
enum { /* header of a dynamic disk */
       D_DATA = 8,
       D_TABLE = 16,
       D_VERSION = 24,
       D_ENTRIES = 28,
       D_BLOCK = 32,
       D_CHECKSUM = 36,
       D_PARENT_UUID = 40,
       D_PARENT_NAME = 64,
       D_LOCATORS = 576,
       D_LEN = 1024,
};
enum vhd_type { VHD_FIXED = 2, VHD_DYNAMIC = 3, VHD_DIFFERENCING = 4 };
enum { RANK_BITMAP, RANK_TABLE };

struct vhd {
    struct grains g; /* not for fixed images */
    uint32_t type;
    uint64_t table;
    uint32_t entries;
    uint32_t bitmap; /* bytes before a block */
    char *parent;
    uint8_t uuid[16];
    uint8_t footer[SECTOR];
};

static bool vhd_probe(const struct block_probe *p)
{
    return memcmp(p->head, "conectix", 8) == 0 ||
           (memcmp(p->tail, "conectix", 8) == 0 && load_be32(p->tail + F_TYPE) == VHD_FIXED &&
            block_name_ends(p->path, ".vhd"));
}

static uint32_t checksum(const uint8_t *p, size_t len, size_t at)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < len; i++) {
        sum += i >= at && i < at + 4 ? 0 : p[i];
    }
    return ~sum;
}

static int get_entry(struct grains *g, uint64_t n, uint64_t *offset)
{
    const struct vhd *v = g->format;
    uint8_t bytes[4];
    int r = meta_read(g->meta, v->table + n * 4, bytes, sizeof bytes);
    uint32_t entry = load_be32(bytes);
    *offset = entry == VHD_UNUSED ? 0 : (uint64_t)entry * SECTOR;
    return r;
}

/* How many sectors from `first` on have the same bit, of those up to `end`. */
static int bitmap_run(struct grains *g, uint64_t block, uint32_t first, uint32_t end, bool *set,
                      uint32_t *run)
{
    uint8_t bits[64];
    uint32_t at = first, loaded = UINT32_MAX;
    for (; at < end; at++) {
        uint32_t chunk = at / 8 / sizeof bits;
        if (chunk != loaded) {
            int r = meta_read(g->meta, block + chunk * sizeof bits, bits, sizeof bits);
            if (r < 0) {
                return r;
            }
            loaded = chunk;
        }
        bool bit = bits[at / 8 % sizeof bits] & 0x80u >> (at % 8);
        if (at == first) {
            *set = bit;
        } else if (bit != *set) {
            break;
        }
    }
    *run = at - first;
    return 0;
}

static int vhd_look(struct grains *g, uint64_t offset, uint64_t len, struct grain *out)
{
    const struct vhd *v = g->format;
    uint64_t block, in_block = offset % g->unit;
    int r = get_entry(g, offset / g->unit, &block);
    *out = (struct grain){ .kind = GRAIN_HOLE, .len = len };
    if (r < 0 || block == 0) {
        return r;
    }
    uint32_t run = 0;
    bool set = false;
    uint32_t first = (uint32_t)(in_block / SECTOR);
    uint32_t end = (uint32_t)((in_block + len + SECTOR - 1) / SECTOR);
    r = bitmap_run(g, block, first, end, &set, &run);
    uint64_t reach = (uint64_t)(first + run) * SECTOR - in_block;
    out->len = reach < len ? reach : len;
    if (r == 0 && set) {
        out->kind = GRAIN_DATA;
        out->host = block + v->bitmap + in_block;
    }
    return r;
}

static int vhd_place(struct grains *g, uint64_t n, uint64_t *host, bool *fresh)
{
    const struct vhd *v = g->format;
    uint64_t block, size;
    int r = get_entry(g, n, &block);
    if (r == 0) {
        r = hostfile_size(g->file, &size);
    }
    if (r < 0) {
        return r;
    }
    *host = (block != 0 ? block : g->end) + v->bitmap;
    *fresh = block == 0 && *host >= size;
    return *host / SECTOR < UINT32_MAX ? 0 : -EFBIG;
}

static int vhd_link(struct grains *g, uint64_t n, enum grain_kind kind, uint64_t host)
{
    struct vhd *v = g->format;
    uint64_t block = host - v->bitmap, old;
    uint8_t entry[4], ones[SECTOR];
    (void)kind;
    memset(ones, 0xff, sizeof ones);
    int r = get_entry(g, n, &old);
    for (uint32_t at = 0; r == 0 && at < v->bitmap; at += SECTOR) {
        r = meta_write(g->meta, block + at, ones, sizeof ones, RANK_BITMAP);
    }
    if (r < 0 || old == block) {
        return r;
    }
    g->end = host + g->unit;
    r = meta_write(g->meta, g->end, v->footer, SECTOR, RANK_BITMAP);
    if (r == 0) {
        store_be32(entry, (uint32_t)(block / SECTOR));
        r = meta_write(g->meta, v->table + n * 4, entry, sizeof entry, RANK_TABLE);
    }
    return r;
}

static const struct grain_table vhd_table = {
    .look = vhd_look,
    .place = vhd_place,
    .link = vhd_link,
};

static int bad(struct block *b, struct err *e, const char *what)
{
    return err_set(e, -EINVAL, "%s: damaged VHD image: %s", b->path, what);
}

/* Virtual PC shows its guests what the geometry says, others the size. */
static uint64_t disk_size(const uint8_t *f)
{
    uint64_t sectors = (uint64_t)load_be16(f + F_CYLINDERS) * f[F_HEADS] * f[F_SECTORS];
    bool by_geometry = memcmp(f + F_CREATOR, "vpc ", 4) == 0 ||
                       memcmp(f + F_CREATOR, "qemu", 4) == 0;
    return by_geometry && sectors != 0 && sectors < CHS_MAX_SECTORS ? sectors * SECTOR
                                                                    : load_be64(f + F_SIZE);
}

static int load_footer(struct block *b, struct vhd *v, struct err *e)
{
    uint64_t size;
    int r = hostfile_size(b->file, &size);
    if (r == 0) {
        r = hostfile_read(b->file, 0, v->footer, SECTOR);
    }
    bool good = r == 0 && memcmp(v->footer, "conectix", 8) == 0 &&
                checksum(v->footer, SECTOR, F_CHECKSUM) == load_be32(v->footer + F_CHECKSUM);
    if (r == 0 && !good && size >= SECTOR) {
        r = hostfile_read(b->file, align_down(size - 1, SECTOR), v->footer, SECTOR);
    }
    if (r < 0) {
        return err_set(e, r, "%s: %s", b->path, strerror(-r));
    }
    if (memcmp(v->footer, "conectix", 8) != 0) {
        return err_set(e, -EINVAL, "%s: not a VHD image", b->path);
    }
    if (checksum(v->footer, SECTOR, F_CHECKSUM) != load_be32(v->footer + F_CHECKSUM)) {
        return bad(b, e, "checksum of the footer");
    }
    v->type = load_be32(v->footer + F_TYPE);
    memcpy(v->uuid, v->footer + F_UUID, sizeof v->uuid);
    uint64_t disk = disk_size(v->footer);
    if (v->type == VHD_FIXED && (size < SECTOR || disk > size - SECTOR)) {
        disk = load_be64(v->footer + F_SIZE);
        if (size < SECTOR || disk > size - SECTOR) {
            return bad(b, e, "disk size");
        }
    }
    if (disk > VHD_SIZE_MAX && v->type != VHD_FIXED) {
        return bad(b, e, "disk size");
    }
    v->g.size = disk;
    atomic_store(&b->size, disk);
    return 0;
}

/* UTF-16 to UTF-8; what has no place in a file name becomes '?'. */
static char *from_utf16(const uint8_t *p, size_t units, bool big_endian)
{
    char *text = xzalloc(units * 3 + 1);
    size_t n = 0;
    for (size_t i = 0; i < units; i++) {
        unsigned c = big_endian ? load_be16(p + i * 2) : load_le16(p + i * 2);
        if (c == 0) {
            break;
        }
        c = c == '\\' ? '/' : c >= 0xd800 && c < 0xe000 ? '?' : c;
        if (c < 0x80) {
            text[n++] = (char)c;
        } else if (c < 0x800) {
            text[n++] = (char)(0xc0 | c >> 6);
            text[n++] = (char)(0x80 | (c & 0x3f));
        } else {
            text[n++] = (char)(0xe0 | c >> 12);
            text[n++] = (char)(0x80 | (c >> 6 & 0x3f));
            text[n++] = (char)(0x80 | (c & 0x3f));
        }
    }
    return text;
}

/* A relative locator, or else the file of the parent's name beside this one. */
static char *parent_name(struct block *b, const uint8_t *d)
{
    for (unsigned i = 0; i < 8; i++) {
        const uint8_t *l = d + D_LOCATORS + i * 24;
        uint32_t len = load_be32(l + 8);
        uint8_t text[1024];
        if (memcmp(l, "W2ru", 4) == 0 && len <= sizeof text &&
            hostfile_read(b->file, load_be64(l + 16), text, len) == 0) {
            return from_utf16(text, len / 2, false);
        }
    }
    char *name = from_utf16(d + D_PARENT_NAME, 256, true);
    char *base = strrchr(name, '/');
    char *out = xstrdup(base != NULL ? base + 1 : name);
    free(name);
    return out;
}

static int open_parent(struct block *b, struct vhd *v, const uint8_t *d, struct err *e)
{
    v->parent = parent_name(b, d);
    int r = block_open_parent(b, v->parent, "vhd", e);
    if (r < 0 || b->parent == NULL) {
        return r;
    }
    const struct vhd *p = b->parent->priv;
    if (memcmp(p->uuid, d + D_PARENT_UUID, sizeof p->uuid) != 0) {
        return err_set(e, -EINVAL, "%s: %s is not the image that it was made from", b->path,
                       b->parent->path);
    }
    return 0;
}

static int load_dynamic(struct block *b, struct vhd *v, uint8_t *d, struct err *e)
{
    int r = hostfile_read(b->file, load_be64(v->footer + F_DATA), d, D_LEN);
    if (r < 0) {
        return err_set(e, r, "%s: %s", b->path, strerror(-r));
    }
    if (memcmp(d, "cxsparse", 8) != 0 ||
        checksum(d, D_LEN, D_CHECKSUM) != load_be32(d + D_CHECKSUM)) {
        return bad(b, e, "header");
    }
    v->table = load_be64(d + D_TABLE);
    v->entries = load_be32(d + D_ENTRIES);
    v->g.unit = load_be32(d + D_BLOCK);
    if (!is_pow2(v->g.unit) || v->g.unit < 4096 || v->g.unit > MIB(256)) {
        return bad(b, e, "block size");
    }
    if (v->table < SECTOR || v->table % SECTOR != 0 || v->table > INT64_MAX / 2) {
        return bad(b, e, "place of the block table");
    }
    uint64_t file_size;
    if (hostfile_size(b->file, &file_size) < 0 || v->table + v->entries * 4ull > file_size) {
        return bad(b, e, "the file is shorter than its block table");
    }
    if (v->g.size > v->entries * v->g.unit) {
        return bad(b, e, "block table is too small for the disk");
    }
    v->bitmap = (uint32_t)align_up(v->g.unit / SECTOR / 8, SECTOR);
    return 0;
}

/* A new block goes to where the footer is. After a crash there may be a piece of one behind it, and
 * no footer: then that is where the next one goes. Nothing is cut off. */
static int find_end(struct vhd *v)
{
    uint64_t size;
    uint8_t last[SECTOR] = { 0 };
    int r = hostfile_size(v->g.file, &size);
    if (r == 0 && size % SECTOR == 0 && size >= SECTOR) {
        r = hostfile_read(v->g.file, size - SECTOR, last, SECTOR);
    }
    if (r < 0) {
        return r;
    }
    if (memcmp(last, v->footer, SECTOR) == 0) {
        v->g.end = size - SECTOR;
        return 0;
    }
    v->g.end = align_up(size, SECTOR);
    return hostfile_write(v->g.file, v->g.end, v->footer, SECTOR);
}

static void vhd_free(struct vhd *v)
{
    grains_fini(&v->g);
    free(v->parent);
    free(v);
}

static int open_sparse(struct block *b, struct vhd *v, struct err *e)
{
    uint8_t d[D_LEN];
    int r = load_dynamic(b, v, d, e);
    if (r < 0) {
        return r;
    }
    grains_init(&v->g, SECTOR);
    if (!b->readonly) {
        r = find_end(v);
        if (r < 0) {
            return err_set(e, r, "%s: %s", b->path, strerror(-r));
        }
    }
    return v->type == VHD_DIFFERENCING ? open_parent(b, v, d, e) : 0;
}

static int vhd_open(struct block *b, struct err *e)
{
    struct vhd *v = xzalloc(sizeof *v);
    v->g.block = b;
    v->g.file = b->file;
    v->g.table = &vhd_table;
    v->g.format = v;
    int r = load_footer(b, v, e);
    if (r == 0 && (v->type == VHD_DYNAMIC || v->type == VHD_DIFFERENCING)) {
        r = open_sparse(b, v, e);
    } else if (r == 0 && v->type != VHD_FIXED) {
        r = err_set(e, -ENOTSUP, "%s: VHD images of type %u are not supported", b->path, v->type);
    }
    if (r < 0) {
        vhd_free(v);
        return r;
    }
    b->priv = v;
    return 0;
}

static void vhd_close(struct block *b) { vhd_free(b->priv); }

static int vhd_read(struct block *b, uint64_t offset, void *buf, size_t len)
{
    struct vhd *v = b->priv;
    return v->type == VHD_FIXED ? hostfile_read(b->file, offset, buf, len)
                                : grains_read(&v->g, offset, buf, len);
}

/* Sectors are what a bitmap knows: the rest of one comes along. */
static int write_sectors(struct vhd *v, uint64_t offset, const uint8_t *buf, size_t len)
{
    uint64_t start = align_down(offset, SECTOR), end = align_up(offset + len, SECTOR);
    end = end < v->g.size ? end : v->g.size;
    if (start == offset && end == offset + len) {
        return grains_write(&v->g, offset, buf, len);
    }
    uint8_t *whole = try_alloc(1, (size_t)(end - start));
    int r = whole == NULL ? -ENOMEM : grains_read(&v->g, start, whole, (size_t)(end - start));
    if (r == 0) {
        memcpy(whole + (offset - start), buf, len);
        r = grains_write(&v->g, start, whole, (size_t)(end - start));
    }
    free(whole);
    return r;
}

static int vhd_write(struct block *b, uint64_t offset, const void *buf, size_t len)
{
    struct vhd *v = b->priv;
    return v->type == VHD_FIXED ? hostfile_write(b->file, offset, buf, len)
                                : write_sectors(v, offset, buf, len);
}

static int vhd_flush(struct block *b)
{
    struct vhd *v = b->priv;
    return v->type == VHD_FIXED ? hostfile_sync(b->file) : grains_flush(&v->g);
}

static int vhd_discard(struct block *b, uint64_t offset, uint64_t len)
{
    struct vhd *v = b->priv;
    return v->type == VHD_FIXED ? 0 : grains_discard(&v->g, offset, len);
}

static int vhd_write_zeroes(struct block *b, uint64_t offset, uint64_t len, bool may_unmap)
{
    struct vhd *v = b->priv;
    return v->type == VHD_FIXED ? hostfile_zero(b->file, offset, len, may_unmap)
                                : grains_zero(&v->g, offset, len, may_unmap);
}

static int vhd_map(struct block *b, uint64_t offset, uint64_t len, struct block_extent *out)
{
    struct vhd *v = b->priv;
    if (v->type != VHD_FIXED) {
        return grains_map(&v->g, offset, len, out);
    }
    bool data;
    int r = hostfile_extent(b->file, offset, len, &data, &out->len);
    out->kind = data ? BLOCK_DATA : BLOCK_ZERO;
    out->file_offset = offset;
    return r;
}

static void vhd_info(struct block *b, struct block_info *info)
{
    const struct vhd *v = b->priv;
    info->cluster_size = v->type == VHD_FIXED ? 0 : v->g.unit;
    info->subformat = v->type == VHD_FIXED     ? "fixed"
                      : v->type == VHD_DYNAMIC ? "dynamic"
                                               : "differencing";
    info->parent_path = v->parent;
    info->parent_format = v->parent != NULL ? "vhd" : NULL;
}

/* The geometry that the specification's appendix computes from a number of sectors. */
static void put_geometry(uint8_t *f, uint64_t sectors)
{
    uint32_t n = sectors < 65535ull * 16 * 255 ? (uint32_t)sectors : 65535u * 16 * 255;
    uint32_t per_track = 17, heads, cylinder_heads = n / 17;
    if (n >= 65535u * 16 * 63) {
        per_track = 255;
        heads = 16;
        cylinder_heads = n / per_track;
    } else {
        heads = (cylinder_heads + 1023) / 1024;
        heads = heads < 4 ? 4 : heads;
        if (cylinder_heads >= heads * 1024 || heads > 16) {
            per_track = 31;
            heads = 16;
            cylinder_heads = n / per_track;
        }
        if (cylinder_heads >= heads * 1024) {
            per_track = 63;
            heads = 16;
            cylinder_heads = n / per_track;
        }
    }
    store_be16(f + F_CYLINDERS, (uint16_t)(cylinder_heads / heads));
    f[F_HEADS] = (uint8_t)heads;
    f[F_SECTORS] = (uint8_t)per_track;
}

static int make_footer(uint8_t *f, uint64_t size, enum vhd_type type)
{
    memset(f, 0, SECTOR);
    memcpy(f, "conectix", 8);
    store_be32(f + F_FEATURES, 2); /* reserved, always set */
    store_be32(f + F_VERSION, 0x00010000);
    store_be64(f + F_DATA, type == VHD_FIXED ? UINT64_MAX : SECTOR);
    store_be32(f + F_TIME, (uint32_t)(time(NULL) - VHD_EPOCH));
    /* "win ": the disk is as large as F_SIZE says, and not as the geometry does. */
    memcpy(f + F_CREATOR, "win ", 4);
    store_be32(f + F_CREATOR_VERSION, 0x00060001);
    memcpy(f + F_CREATOR_OS, "Wi2k", 4);
    store_be64(f + F_ORIGINAL_SIZE, size);
    store_be64(f + F_SIZE, size);
    put_geometry(f, size / SECTOR);
    store_be32(f + F_TYPE, type);
    if (getrandom(f + F_UUID, 16, 0) != 16) {
        return -EIO;
    }
    store_be32(f + F_CHECKSUM, checksum(f, SECTOR, F_CHECKSUM));
    return 0;
}

static int create_dynamic(struct hostfile *f, const uint8_t *footer, uint64_t size)
{
    uint8_t d[D_LEN] = "cxsparse";
    uint32_t entries = (uint32_t)((size + VHD_BLOCK - 1) / VHD_BLOCK);
    size_t table_len = (size_t)align_up(entries * 4ull, SECTOR);
    table_len = table_len != 0 ? table_len : SECTOR;
    uint64_t table_at = SECTOR + D_LEN;
    store_be64(d + D_DATA, UINT64_MAX);
    store_be64(d + D_TABLE, table_at);
    store_be32(d + D_VERSION, 0x00010000);
    store_be32(d + D_ENTRIES, entries);
    store_be32(d + D_BLOCK, VHD_BLOCK);
    store_be32(d + D_CHECKSUM, checksum(d, D_LEN, D_CHECKSUM));
    uint8_t *table = try_alloc(1, table_len);
    int r = table == NULL ? -ENOMEM : hostfile_write(f, 0, footer, SECTOR);
    if (r == 0) {
        memset(table, 0xff, table_len);
        r = hostfile_write(f, SECTOR, d, sizeof d);
    }
    if (r == 0) {
        r = hostfile_write(f, table_at, table, table_len);
    }
    if (r == 0) {
        r = hostfile_write(f, table_at + table_len, footer, SECTOR);
    }
    free(table);
    return r;
}

static int vhd_create(struct hostfile *f, const struct block_create *c, struct err *e)
{
    bool fixed = c->subformat != NULL && strcmp(c->subformat, "fixed") == 0;
    uint8_t footer[SECTOR];
    if (c->subformat != NULL && !fixed && strcmp(c->subformat, "dynamic") != 0) {
        return err_set(e, -EINVAL, "VHD subformats: dynamic, fixed");
    }
    if (c->size > VHD_SIZE_MAX) {
        return err_set(e, -EFBIG, "too large for a VHD image: at most 2040G");
    }
    int r = make_footer(footer, c->size, fixed ? VHD_FIXED : VHD_DYNAMIC);
    if (r == 0) {
        r = fixed ? hostfile_write(f, c->size, footer, SECTOR) : create_dynamic(f, footer, c->size);
    }
    return r < 0 ? err_set(e, r, "%s: %s", c->path, strerror(-r)) : 0;
}

static int vhd_check(struct block *b, bool repair, struct block_check *c, struct err *e)
{
    struct vhd *v = b->priv;
    uint64_t size;
    if (v->type == VHD_FIXED) {
        return 0;
    }
    int r = hostfile_size(b->file, &size);
    uint64_t first = align_up(v->table + v->entries * 4ull, SECTOR);
    c->clusters = (v->g.size + v->g.unit - 1) / v->g.unit;
    for (uint64_t i = 0; r == 0 && i < c->clusters; i++) {
        uint64_t block;
        r = get_entry(&v->g, i, &block);
        if (r < 0 || block == 0) {
            continue;
        }
        c->allocated++;
        if (block < first || block >= size) {
            c->corruptions++;
            block_check_say(c, "error: block %llu is at 0x%llx", (unsigned long long)i,
                            (unsigned long long)block);
        }
    }
    (void)repair; /* what can be repaired was when it was opened for writing */
    (void)e;
    return r;
}

const struct block_class block_vhd = {
    .name = "vhd",
    .probe = vhd_probe,
    .open = vhd_open,
    .close = vhd_close,
    .read = vhd_read,
    .write = vhd_write,
    .flush = vhd_flush,
    .discard = vhd_discard,
    .write_zeroes = vhd_write_zeroes,
    .map = vhd_map,
    .create_keys = BLOCK_KEY_SUBFORMAT,
    .create = vhd_create,
    .info = vhd_info,
    .check = vhd_check,
};
