/* SPDX-License-Identifier: Apache-2.0
 *
 * VDI, VirtualBox's format: a header, a map of 32-bit block numbers, blocks. Little-endian.
 * Dynamic, fixed and differencing images. A parent is known by its UUID alone; it is looked for as
 * the other *.vdi files of the directory.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/bytes.h"
#include "block/grains.h"

#define VDI_SIGNATURE 0xbeda107fu
#define VDI_VERSION 0x00010001u
#define VDI_HEADER 512u
#define VDI_FREE 0xffffffffu /* the parent's, or zeroes */
#define VDI_ZERO 0xfffffffeu
#define VDI_BLOCK MIB(1)
#define VDI_BLOCKS_MAX 0x3fffffffu

/* Offsets in the header. */
enum {
    H_SIGNATURE = 0x40,
    H_VERSION = 0x44,
    H_HEADER_SIZE = 0x48,
    H_TYPE = 0x4c,
    H_MAP = 0x154,
    H_DATA = 0x158,
    H_SECTOR = 0x168,
    H_DISK_SIZE = 0x170,
    H_BLOCK_SIZE = 0x178,
    H_BLOCK_EXTRA = 0x17c,
    H_BLOCKS = 0x180,
    H_ALLOCATED = 0x184,
    H_UUID = 0x188,
    H_UUID_SNAP = 0x198,
    H_UUID_PARENT = 0x1a8,
};
enum vdi_type { VDI_DYNAMIC = 1, VDI_FIXED = 2, VDI_DIFFERENCING = 4 };
enum { RANK_MAP };

struct vdi {
    struct grains g;
    uint32_t type;
    uint64_t map; /* offsets in the file */
    uint64_t data;
    uint32_t blocks;
    uint32_t allocated;
    char *parent;
};

static bool vdi_probe(const struct block_probe *p)
{
    return load_le32(p->head + H_SIGNATURE) == VDI_SIGNATURE;
}

static int get_entry(struct grains *g, uint64_t n, uint32_t *entry)
{
    const struct vdi *v = g->format;
    uint8_t bytes[4];
    int r = meta_read(g->meta, v->map + n * 4, bytes, sizeof bytes);
    *entry = load_le32(bytes);
    return r;
}

static int vdi_look(struct grains *g, uint64_t offset, uint64_t len, struct grain *out)
{
    const struct vdi *v = g->format;
    uint32_t entry;
    int r = get_entry(g, offset / g->unit, &entry);
    if (r < 0) {
        return r;
    }
    *out = (struct grain){ .len = len };
    if (entry == VDI_FREE) {
        out->kind = GRAIN_HOLE;
    } else if (entry == VDI_ZERO) {
        out->kind = GRAIN_ZERO;
    } else if (entry < VDI_BLOCKS_MAX) {
        out->kind = GRAIN_DATA;
        out->host = v->data + entry * g->unit + offset % g->unit;
    } else {
        return -EIO;
    }
    return 0;
}

static int vdi_place(struct grains *g, uint64_t n, uint64_t *host, bool *fresh)
{
    struct vdi *v = g->format;
    uint64_t size;
    (void)n;
    int r = hostfile_size(g->file, &size);
    *host = v->data + v->allocated * g->unit;
    *fresh = *host >= size;
    return r < 0 ? r : v->allocated < VDI_BLOCKS_MAX ? 0 : -EFBIG;
}

static int vdi_link(struct grains *g, uint64_t n, enum grain_kind kind, uint64_t host)
{
    struct vdi *v = g->format;
    uint8_t bytes[4];
    store_le32(bytes, kind == GRAIN_DATA ? (uint32_t)((host - v->data) / g->unit) : VDI_ZERO);
    int r = meta_write(g->meta, v->map + n * 4, bytes, sizeof bytes, RANK_MAP);
    if (r == 0 && kind == GRAIN_DATA) {
        store_le32(bytes, ++v->allocated);
        r = meta_write(g->meta, H_ALLOCATED, bytes, sizeof bytes, RANK_MAP);
    }
    return r;
}

static const struct grain_table vdi_table = {
    .look = vdi_look,
    .place = vdi_place,
    .link = vdi_link,
    .can_zero = true,
};

static int bad(struct block *b, struct err *e, const char *what)
{
    return err_set(e, -EINVAL, "%s: damaged VDI image: %s", b->path, what);
}

/* How many blocks are taken: where the next one goes. The header's number is not believed. */
static int count_blocks(struct vdi *v, struct err *e)
{
    uint8_t piece[4096];
    int r = 0;
    v->allocated = 0;
    for (uint64_t at = 0; r == 0 && at < v->blocks * 4ull; at += sizeof piece) {
        r = hostfile_read(v->g.file, v->map + at, piece, sizeof piece);
        for (size_t i = 0; r == 0 && i < sizeof piece && at + i < v->blocks * 4ull; i += 4) {
            uint32_t entry = load_le32(piece + i);
            if (entry < VDI_ZERO && entry >= VDI_BLOCKS_MAX) {
                return bad(v->g.block, e, "block map");
            }
            v->allocated = entry < VDI_ZERO && entry >= v->allocated ? entry + 1 : v->allocated;
        }
    }
    return r < 0 ? err_set(e, r, "%s: %s", v->g.block->path, strerror(-r)) : 0;
}

static bool has_uuid(const char *path, const uint8_t *uuid)
{
    struct hostfile *f;
    uint8_t h[VDI_HEADER];
    bool found = false;
    if (hostfile_open(&f, path, HOSTFILE_READONLY | HOSTFILE_NO_LOCK, NULL) < 0) {
        return false;
    }
    if (hostfile_read(f, 0, h, sizeof h) == 0 && load_le32(h + H_SIGNATURE) == VDI_SIGNATURE) {
        found = memcmp(h + H_UUID, uuid, 16) == 0;
    }
    hostfile_close(f);
    return found;
}

static int open_parent(struct block *b, struct vdi *v, const uint8_t *uuid, struct err *e)
{
    const char *slash = strrchr(b->path, '/');
    char *dir = slash != NULL ? xasprintf("%.*s", (int)(slash - b->path + 1), b->path)
                              : xstrdup("./");
    DIR *d = opendir(dir);
    for (struct dirent *entry; d != NULL && v->parent == NULL && (entry = readdir(d)) != NULL;) {
        size_t len = strlen(entry->d_name);
        char *path = xasprintf("%s%s", dir, entry->d_name);
        if (len > 4 && strcasecmp(entry->d_name + len - 4, ".vdi") == 0 && has_uuid(path, uuid)) {
            v->parent = xstrdup(entry->d_name);
        }
        free(path);
    }
    if (d != NULL) {
        closedir(d);
    }
    free(dir);
    if (v->parent == NULL) {
        return b->flags & BLOCK_NO_PARENT
                   ? 0
                   : err_set(e, -ENOENT, "%s: its parent is not among the .vdi files beside it",
                             b->path);
    }
    return block_open_parent(b, v->parent, "vdi", e);
}

static int parse(struct block *b, struct vdi *v, const uint8_t *h, struct err *e)
{
    uint64_t size = load_le64(h + H_DISK_SIZE), unit = load_le32(h + H_BLOCK_SIZE);
    if (load_le32(h + H_SIGNATURE) != VDI_SIGNATURE) {
        return err_set(e, -EINVAL, "%s: not a VDI image", b->path);
    }
    if (load_le32(h + H_VERSION) >> 16 != 1) {
        return err_set(e, -ENOTSUP, "%s: VDI version %u.%u is not supported", b->path,
                       load_le16(h + H_VERSION + 2), load_le16(h + H_VERSION));
    }
    v->type = load_le32(h + H_TYPE);
    v->map = load_le32(h + H_MAP);
    v->data = load_le32(h + H_DATA);
    v->blocks = load_le32(h + H_BLOCKS);
    if (v->type != VDI_DYNAMIC && v->type != VDI_FIXED && v->type != VDI_DIFFERENCING) {
        return err_set(e, -ENOTSUP, "%s: VDI images of type %u are not supported", b->path,
                       v->type);
    }
    if (!is_pow2(unit) || unit < 4096 || unit > MIB(256) || load_le32(h + H_BLOCK_EXTRA) != 0) {
        return bad(b, e, "block size");
    }
    if (v->blocks > VDI_BLOCKS_MAX || size > v->blocks * unit) {
        return bad(b, e, "disk size");
    }
    if (v->map < VDI_HEADER || v->map % 512 != 0 || v->data % 512 != 0 ||
        v->data < v->map + v->blocks * 4ull) {
        return bad(b, e, "offsets of map and data");
    }
    uint64_t file_size;
    if (hostfile_size(b->file, &file_size) < 0 || v->map + v->blocks * 4ull > file_size) {
        return bad(b, e, "the file is shorter than its block map");
    }
    v->g.unit = unit;
    v->g.size = size;
    atomic_store(&b->size, size);
    return 0;
}

static void vdi_free(struct vdi *v)
{
    grains_fini(&v->g);
    free(v->parent);
    free(v);
}

static int vdi_open(struct block *b, struct err *e)
{
    uint8_t h[VDI_HEADER];
    struct vdi *v = xzalloc(sizeof *v);
    v->g.block = b;
    v->g.file = b->file;
    v->g.table = &vdi_table;
    v->g.format = v;
    int r = hostfile_read(b->file, 0, h, sizeof h);
    r = r < 0 ? err_set(e, r, "%s: %s", b->path, strerror(-r)) : parse(b, v, h, e);
    if (r == 0) {
        grains_init(&v->g, 512);
        r = b->readonly ? 0 : count_blocks(v, e);
    }
    if (r == 0 && v->type == VDI_DIFFERENCING) {
        r = open_parent(b, v, h + H_UUID_PARENT, e);
    }
    if (r < 0) {
        vdi_free(v);
        return r;
    }
    b->priv = v;
    return 0;
}

static void vdi_close(struct block *b) { vdi_free(b->priv); }

static struct grains *grains_of(struct block *b) { return &((struct vdi *)b->priv)->g; }

static int vdi_read(struct block *b, uint64_t offset, void *buf, size_t len)
{
    return grains_read(grains_of(b), offset, buf, len);
}

static int vdi_write(struct block *b, uint64_t offset, const void *buf, size_t len)
{
    return grains_write(grains_of(b), offset, buf, len);
}

static int vdi_flush(struct block *b) { return grains_flush(grains_of(b)); }

static int vdi_discard(struct block *b, uint64_t offset, uint64_t len)
{
    return grains_discard(grains_of(b), offset, len);
}

static int vdi_write_zeroes(struct block *b, uint64_t offset, uint64_t len, bool may_unmap)
{
    return grains_zero(grains_of(b), offset, len, may_unmap);
}

static int vdi_map(struct block *b, uint64_t offset, uint64_t len, struct block_extent *out)
{
    return grains_map(grains_of(b), offset, len, out);
}

static void vdi_info(struct block *b, struct block_info *info)
{
    const struct vdi *v = b->priv;
    info->cluster_size = v->g.unit;
    info->subformat = v->type == VDI_FIXED     ? "fixed"
                      : v->type == VDI_DYNAMIC ? "dynamic"
                                               : "differencing";
    info->parent_path = v->parent;
    info->parent_format = v->parent != NULL ? "vdi" : NULL;
}

static int vdi_check(struct block *b, bool repair, struct block_check *c, struct err *e)
{
    struct vdi *v = b->priv;
    uint64_t file_size;
    uint8_t *seen = try_alloc(v->blocks / 8 + 1, 1), count[4];
    int r = seen == NULL ? -ENOMEM : hostfile_size(b->file, &file_size);
    uint32_t taken = 0;
    c->clusters = v->blocks;
    for (uint32_t i = 0; r == 0 && i < v->blocks; i++) {
        uint32_t entry;
        r = get_entry(&v->g, i, &entry);
        if (r < 0 || entry >= VDI_ZERO) {
            continue;
        }
        c->allocated++;
        if (entry >= v->blocks || v->data + entry * v->g.unit >= file_size) {
            c->corruptions++;
            block_check_say(c, "error: block %u is at %u, outside of the file", i, entry);
        } else if (seen[entry / 8] & 1u << (entry % 8)) {
            c->corruptions++;
            block_check_say(c, "error: block %u shares its place with another", i);
        } else {
            seen[entry / 8] |= (uint8_t)(1u << (entry % 8));
            taken++;
        }
    }
    free(seen);
    if (r == 0) {
        r = meta_read(v->g.meta, H_ALLOCATED, count, sizeof count);
    }
    if (r == 0 && load_le32(count) != taken && c->corruptions == 0) {
        c->leaks++;
        block_check_say(c, "leak: the header counts %u blocks, there are %u", load_le32(count),
                        taken);
        if (repair) {
            store_le32(count, taken);
            r = meta_write(v->g.meta, H_ALLOCATED, count, sizeof count, RANK_MAP);
            c->leaks_fixed += r == 0;
        }
    }
    (void)e;
    return r == 0 && repair ? grains_flush(&v->g) : r;
}

static int vdi_create(struct hostfile *f, const struct block_create *c, struct err *e)
{
    bool fixed = c->subformat != NULL && strcmp(c->subformat, "fixed") == 0;
    if (c->subformat != NULL && !fixed && strcmp(c->subformat, "dynamic") != 0) {
        return err_set(e, -EINVAL, "VDI subformats: dynamic, fixed");
    }
    uint64_t blocks = (c->size + VDI_BLOCK - 1) / VDI_BLOCK;
    if (blocks > VDI_BLOCKS_MAX) {
        return err_set(e, -EFBIG, "too large for a VDI image");
    }
    size_t map_len = (size_t)align_up(blocks * 4, 512);
    uint8_t h[VDI_HEADER] = "<<< Oracle VM VirtualBox Disk Image >>>\n";
    store_le32(h + H_SIGNATURE, VDI_SIGNATURE);
    store_le32(h + H_VERSION, VDI_VERSION);
    store_le32(h + H_HEADER_SIZE, 0x180);
    store_le32(h + H_TYPE, fixed ? VDI_FIXED : VDI_DYNAMIC);
    store_le32(h + H_MAP, VDI_HEADER);
    store_le32(h + H_DATA, (uint32_t)(VDI_HEADER + map_len));
    store_le32(h + H_SECTOR, 512);
    store_le64(h + H_DISK_SIZE, c->size);
    store_le32(h + H_BLOCK_SIZE, VDI_BLOCK);
    store_le32(h + H_BLOCKS, (uint32_t)blocks);
    store_le32(h + H_ALLOCATED, fixed ? (uint32_t)blocks : 0);
    uint8_t *map = try_alloc(1, map_len + 1);
    int r = map == NULL || getrandom(h + H_UUID, 32, 0) != 32 ? -ENOMEM : 0;
    for (uint64_t i = 0; r == 0 && i < blocks; i++) {
        store_le32(map + i * 4, fixed ? (uint32_t)i : VDI_FREE);
    }
    if (r == 0) {
        r = hostfile_write(f, VDI_HEADER, map, map_len);
    }
    if (r == 0) {
        r = hostfile_write(f, 0, h, sizeof h);
    }
    if (r == 0 && fixed) {
        r = hostfile_truncate(f, load_le32(h + H_DATA) + blocks * VDI_BLOCK);
    }
    free(map);
    return r < 0 ? err_set(e, r, "%s: %s", c->path, strerror(-r)) : 0;
}

/* Only as far as the map has room: a longer one would have to push the blocks aside. */
static int vdi_resize(struct block *b, uint64_t size, struct err *e)
{
    struct vdi *v = b->priv;
    uint64_t blocks = (size + v->g.unit - 1) / v->g.unit, old = block_size(b);
    if (size < old) {
        return err_set(e, -ENOTSUP, "%s: VDI images do not shrink", b->path);
    }
    if (v->map + blocks * 4 > v->data || v->type == VDI_FIXED) {
        return err_set(e, -ENOTSUP, "%s: no room to grow in its block map: convert it", b->path);
    }
    uint8_t bytes[12];
    int r = 0;
    for (uint64_t i = v->blocks; r == 0 && i < blocks; i++) {
        store_le32(bytes, VDI_FREE);
        r = meta_write(v->g.meta, v->map + i * 4, bytes, 4, RANK_MAP);
    }
    r = r == 0 ? meta_flush(v->g.meta) : r;
    store_le64(bytes, size);
    if (r == 0) {
        r = meta_write(v->g.meta, H_DISK_SIZE, bytes, 8, RANK_MAP);
    }
    store_le32(bytes, (uint32_t)blocks);
    if (r == 0) {
        r = meta_write(v->g.meta, H_BLOCKS, bytes, 4, RANK_MAP);
    }
    r = r == 0 ? meta_flush(v->g.meta) : r;
    if (r == 0) {
        v->blocks = (uint32_t)blocks;
        v->g.size = size;
        atomic_store(&b->size, size);
    }
    return r;
}

const struct block_class block_vdi = {
    .name = "vdi",
    .probe = vdi_probe,
    .open = vdi_open,
    .close = vdi_close,
    .read = vdi_read,
    .write = vdi_write,
    .flush = vdi_flush,
    .discard = vdi_discard,
    .write_zeroes = vdi_write_zeroes,
    .resize = vdi_resize,
    .map = vdi_map,
    .create_keys = BLOCK_KEY_SUBFORMAT,
    .create = vdi_create,
    .info = vdi_info,
    .check = vdi_check,
};
