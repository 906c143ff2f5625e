/* SPDX-License-Identifier: Apache-2.0
 *
 * Sparse extents of VMDK: grain directory, grain tables with a redundant copy, compressed grains.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/bytes.h"
#include "block/codec.h"
#include "block/vmdk.h"

static int read_u32(struct grains *g, uint64_t at, uint32_t *value)
{
    uint8_t bytes[4];
    int r = meta_read(g->meta, at, bytes, sizeof bytes);
    *value = load_le32(bytes);
    return r;
}

static int write_u32(struct grains *g, uint64_t at, uint32_t value, unsigned rank)
{
    uint8_t bytes[4];
    store_le32(bytes, value);
    return meta_write(g->meta, at, bytes, sizeof bytes, rank);
}

/* Where grain n's entry is, in the table of this directory; 0: the table is not there. */
static int find_entry(const struct vmdk_extent *x, uint64_t directory, uint64_t n, uint64_t *at)
{
    uint32_t table;
    struct grains *g = (struct grains *)&x->g;
    int r = read_u32(g, directory * VMDK_SECTOR + n / x->gtes * 4, &table);
    *at = table != 0 ? (uint64_t)table * VMDK_SECTOR + n % x->gtes * 4 : 0;
    return r;
}

static int sparse_look(struct grains *g, uint64_t offset, uint64_t len, struct grain *out)
{
    const struct vmdk_extent *x = g->format;
    uint64_t at;
    uint32_t entry = 0;
    int r = find_entry(x, x->gd, offset / g->unit, &at);
    if (r == 0 && at != 0) {
        r = read_u32(g, at, &entry);
    }
    *out = (struct grain){ .kind = GRAIN_HOLE, .len = len };
    if (r < 0 || entry == 0) {
        return r;
    }
    if (entry == 1 && (x->flags & VMDK_ZERO_GRAINS)) {
        out->kind = GRAIN_ZERO;
    } else if (x->flags & VMDK_COMPRESSED) {
        out->kind = GRAIN_PACKED;
        out->host = (uint64_t)entry * VMDK_SECTOR;
    } else {
        out->kind = GRAIN_DATA;
        out->host = (uint64_t)entry * VMDK_SECTOR + offset % g->unit;
    }
    return 0;
}

static int sparse_place(struct grains *g, uint64_t n, uint64_t *host, bool *fresh)
{
    uint64_t size;
    (void)n;
    int r = hostfile_size(g->file, &size);
    *host = align_up(g->end, g->unit);
    *fresh = *host >= size;
    return r < 0 ? r : *host / VMDK_SECTOR < UINT32_MAX ? 0 : -EFBIG;
}

/* Some writers leave out the tables of parts without data. */
static int add_table(struct grains *g, const struct vmdk_extent *x, uint64_t directory, uint64_t n)
{
    uint64_t at = align_up(g->end, VMDK_SECTOR), len = align_up(x->gtes * 4ull, VMDK_SECTOR);
    meta_forget(g->meta, at, len);
    int r = meta_zero(g->meta, at, len, RANK_GT);
    g->end = at + len;
    return r < 0 ? r
                 : write_u32(g, directory * VMDK_SECTOR + n / x->gtes * 4,
                             (uint32_t)(at / VMDK_SECTOR), RANK_GD);
}

static int link_in(struct grains *g, uint64_t directory, uint64_t n, uint32_t value)
{
    const struct vmdk_extent *x = g->format;
    uint64_t at;
    int r = find_entry(x, directory, n, &at);
    if (r == 0 && at == 0) {
        r = add_table(g, x, directory, n);
        if (r == 0) {
            r = find_entry(x, directory, n, &at);
        }
    }
    return r < 0 ? r : write_u32(g, at, value, RANK_GT);
}

static int sparse_link(struct grains *g, uint64_t n, enum grain_kind kind, uint64_t host)
{
    const struct vmdk_extent *x = g->format;
    uint32_t value = kind == GRAIN_DATA ? (uint32_t)(host / VMDK_SECTOR) : 1;
    if (kind == GRAIN_DATA && host + g->unit > g->end) {
        g->end = host + g->unit;
    }
    int r = link_in(g, x->gd, n, value);
    return r == 0 && x->rgd != 0 ? link_in(g, x->rgd, n, value) : r;
}

static int unpack_at(struct vmdk_extent *x, uint64_t host, uint64_t left)
{
    struct grains *g = &x->g;
    uint8_t marker[12];
    int r = hostfile_read(g->file, host, marker, sizeof marker);
    size_t head = x->flags & VMDK_MARKERS ? sizeof marker : 0;
    uint64_t len = head != 0 ? load_le32(marker + 8) : g->unit;
    if (r < 0 || len == 0 || len > 2 * g->unit + VMDK_SECTOR) {
        return r < 0 ? r : -EIO;
    }
    uint8_t *packed = try_alloc(1, (size_t)len);
    if (x->unpacked == NULL) {
        x->unpacked = try_alloc(1, (size_t)g->unit);
    }
    r = packed == NULL || x->unpacked == NULL ? -ENOMEM
                                              : hostfile_read(g->file, host + head, packed, len);
    if (r == 0) {
        r = codec_unpack(CODEC_ZLIB, packed, (size_t)len, x->unpacked, (size_t)g->unit);
        if (r == -EIO && left < g->unit) { /* the last one may be cut to the disk's size */
            r = codec_unpack(CODEC_ZLIB, packed, (size_t)len, x->unpacked, (size_t)left);
        }
    }
    free(packed);
    return r;
}

static int sparse_unpack(struct grains *g, uint64_t offset, const struct grain *at, void *buf,
                         size_t len)
{
    struct vmdk_extent *x = g->format;
    int r = 0;
    pthread_mutex_lock(&x->unpack_lock);
    if (x->unpacked_host != at->host) {
        x->unpacked_host = 0;
        r = unpack_at(x, at->host, g->size - align_down(offset, g->unit));
        x->unpacked_host = r == 0 ? at->host : 0;
    }
    if (r == 0) {
        memcpy(buf, x->unpacked + offset % g->unit, len);
    }
    pthread_mutex_unlock(&x->unpack_lock);
    return r;
}

static const struct grain_table sparse_table = {
    .look = sparse_look,
    .place = sparse_place,
    .link = sparse_link,
    .unpack = sparse_unpack,
};

static const struct grain_table zeroing_table = {
    .look = sparse_look,
    .place = sparse_place,
    .link = sparse_link,
    .unpack = sparse_unpack,
    .can_zero = true,
};

static int bad(struct vmdk *v, struct err *e, const char *what)
{
    return err_set(e, -EINVAL, "%s: damaged VMDK image: %s", v->block->path, what);
}

/* A stream's directory comes after its data; the header is repeated at its end with the place. */
static int load_header(struct vmdk *v, struct vmdk_extent *x, uint8_t *h, struct err *e)
{
    uint64_t size;
    int r = hostfile_read(x->file, 0, h, VMDK_SECTOR);
    if (r == 0 && load_le64(h + H_GD) == VMDK_AT_END) {
        r = hostfile_size(x->file, &size);
        if (r == 0 && size < 3 * VMDK_SECTOR) {
            return bad(v, e, "no footer");
        }
        r = r == 0 ? hostfile_read(x->file, align_down(size, VMDK_SECTOR) - 2 * VMDK_SECTOR, h,
                                   VMDK_SECTOR)
                   : r;
    }
    if (r < 0) {
        return err_set(e, r, "%s: %s", v->block->path, strerror(-r));
    }
    return load_le32(h + H_MAGIC) == VMDK_MAGIC ? 0 : bad(v, e, "no header of a sparse extent");
}

static int parse(struct vmdk *v, struct vmdk_extent *x, const uint8_t *h, struct err *e)
{
    uint32_t version = load_le32(h + H_VERSION);
    uint64_t capacity = load_le64(h + H_CAPACITY), grain = load_le64(h + H_GRAIN);
    if (version < 1 || version > 3) {
        return err_set(e, -ENOTSUP, "%s: sparse extents of version %u are not supported",
                       v->block->path, version);
    }
    x->flags = load_le32(h + H_FLAGS);
    x->gtes = load_le32(h + H_GTES);
    x->gd = load_le64(h + H_GD);
    x->rgd = x->flags & VMDK_REDUNDANT ? load_le64(h + H_RGD) : 0;
    x->overhead = load_le64(h + H_OVERHEAD);
    if (!is_pow2(grain) || grain < 8 || grain > MIB(1) / VMDK_SECTOR * 16) {
        return bad(v, e, "grain size");
    }
    if (x->gtes == 0 || x->gtes > 4096 || capacity > BLOCK_SIZE_MAX / VMDK_SECTOR) {
        return bad(v, e, "size");
    }
    if (x->gd == 0 || x->gd > UINT32_MAX || x->rgd > UINT32_MAX || x->overhead > UINT32_MAX) {
        return bad(v, e, "place of the grain directory");
    }
    if ((x->flags & VMDK_COMPRESSED) && load_le16(h + H_COMPRESSION) != 1) {
        return err_set(e, -ENOTSUP, "%s: compression %u is not supported", v->block->path,
                       load_le16(h + H_COMPRESSION));
    }
    if ((x->flags & VMDK_COMPRESSED) && !codec_available(CODEC_ZLIB)) {
        return err_set(e, -ENOTSUP, "%s: is compressed, and this build has no zlib",
                       v->block->path);
    }
    x->g.unit = grain * VMDK_SECTOR;
    if (x->size == 0) {
        x->size = capacity * VMDK_SECTOR;
    }
    return x->size > capacity * VMDK_SECTOR ? bad(v, e, "an extent is smaller than described") : 0;
}

int vmdk_sparse_open(struct vmdk *v, struct vmdk_extent *x, struct err *e)
{
    uint8_t h[VMDK_SECTOR];
    int r = load_header(v, x, h, e);
    if (r == 0) {
        r = parse(v, x, h, e);
    }
    if (r == 0) {
        r = hostfile_size(x->file, &x->g.end);
        if (r < 0) {
            err_set(e, r, "%s: %s", v->block->path, strerror(-r));
        }
    }
    uint64_t tables = r == 0 ? x->size / x->g.unit / x->gtes : 0; /* less a partial one */
    if (r == 0 && x->gd * VMDK_SECTOR + tables * 4 > x->g.end) {
        r = bad(v, e, "the file is shorter than its grain directory");
    }
    if (r < 0) {
        return r;
    }
    if (x->g.end < x->overhead * VMDK_SECTOR) {
        x->g.end = x->overhead * VMDK_SECTOR;
    }
    x->g.block = v->block;
    x->g.file = x->file;
    x->g.table = x->flags & VMDK_ZERO_GRAINS ? &zeroing_table : &sparse_table;
    x->g.format = x;
    x->g.start = x->start;
    x->g.size = x->size;
    pthread_mutex_init(&x->unpack_lock, NULL);
    grains_init(&x->g, VMDK_SECTOR);
    return 0;
}

void vmdk_sparse_close(struct vmdk_extent *x)
{
    if (x->g.meta != NULL) {
        grains_fini(&x->g);
        pthread_mutex_destroy(&x->unpack_lock);
        free(x->unpacked);
        free(x->stream_gt);
    }
}

void vmdk_sparse_check(struct vmdk_extent *x, struct block_check *c)
{
    uint64_t size;
    uint64_t grains = (x->size + x->g.unit - 1) / x->g.unit;
    int r = hostfile_size(x->file, &size);
    c->clusters += grains;
    for (uint64_t n = 0; r == 0 && n < grains; n++) {
        uint64_t at;
        struct grain where;
        r = find_entry(x, x->gd, n, &at);
        if (r == 0 && at == 0) {
            n += x->gtes - n % x->gtes - 1;
            continue;
        }
        if (r == 0 && at >= size) {
            c->corruptions++;
            block_check_say(c, "error: grain table at 0x%llx, outside of the file",
                            (unsigned long long)at);
            n += x->gtes - n % x->gtes - 1;
            continue;
        }
        if (r == 0) {
            r = sparse_look(&x->g, n * x->g.unit, 1, &where);
        }
        if (r < 0 || where.kind == GRAIN_HOLE || where.kind == GRAIN_ZERO) {
            continue;
        }
        c->allocated++;
        c->compressed += where.kind == GRAIN_PACKED;
        if (where.host >= size) {
            c->corruptions++;
            block_check_say(c, "error: grain %llu at 0x%llx, outside of the file",
                            (unsigned long long)n, (unsigned long long)where.host);
        }
    }
    if (r < 0) {
        c->corruptions++;
        block_check_say(c, "error: grain tables cannot be read");
    }
}

/* A streamOptimized extent is written once, from empty, by whole grains in rising order. */
int vmdk_stream_start(struct vmdk *v, struct vmdk_extent *x, struct err *e)
{
    uint64_t grains = (x->size + x->g.unit - 1) / x->g.unit;
    if (x->g.unit != VMDK_GRAIN * VMDK_SECTOR || x->gtes != VMDK_GTES) { /* none of ours */
        return err_set(e, -EROFS, "%s: streamOptimized images can only be read; convert it",
                       v->block->path);
    }
    for (uint64_t n = 0; n < grains; n += x->gtes) {
        uint64_t at;
        int r = find_entry(x, x->gd, n, &at);
        if (r < 0 || at != 0) {
            return err_set(e, -EROFS, "%s: streamOptimized images can only be read; convert it",
                           v->block->path);
        }
    }
    x->stream_gt = try_alloc((size_t)align_up(grains + 1, VMDK_GTES), sizeof *x->stream_gt);
    x->stream_end = x->overhead * VMDK_SECTOR;
    return x->stream_gt != NULL ? 0 : err_set(e, -ENOMEM, "%s: too large", v->block->path);
}

int vmdk_stream_write(struct vmdk_extent *x, uint64_t offset, const void *buf, size_t len)
{
    struct grains *g = &x->g;
    size_t room = (size_t)g->unit * 2;
    if (offset % g->unit != 0 || len > g->unit || x->stream_end / VMDK_SECTOR >= UINT32_MAX) {
        return -EINVAL;
    }
    if (x->stream_gt[offset / g->unit] != 0) {
        return -EROFS;
    }
    uint8_t *plain = try_alloc(1, (size_t)g->unit), *out = try_alloc(1, room + VMDK_SECTOR);
    int r = plain == NULL || out == NULL ? -ENOMEM : 0;
    if (r == 0) {
        memcpy(plain, buf, len);
        r = codec_pack(CODEC_ZLIB, plain, (size_t)g->unit, out + 12, &room);
    }
    if (r == 0) {
        size_t whole = (size_t)align_up(12 + room, VMDK_SECTOR);
        memset(out + 12 + room, 0, whole - 12 - room);
        store_le64(out, (g->start + offset) / VMDK_SECTOR);
        store_le32(out + 8, (uint32_t)room);
        r = hostfile_write(g->file, x->stream_end, out, whole);
        if (r == 0) {
            x->stream_gt[offset / g->unit] = (uint32_t)(x->stream_end / VMDK_SECTOR);
            x->stream_end += whole;
        }
    }
    free(plain);
    free(out);
    return r;
}

int vmdk_stream_finish(struct vmdk_extent *x)
{
    uint8_t h[VMDK_SECTOR];
    int r = hostfile_read(x->file, 0, h, sizeof h);
    if (r == 0) {
        store_le64(h + H_CAPACITY, x->size / VMDK_SECTOR); /* what the tables are for */
        r = vmdk_write_stream_end(x->file, h, x->stream_gt, x->stream_end);
    }
    return r < 0 ? r : hostfile_sync(x->file);
}
