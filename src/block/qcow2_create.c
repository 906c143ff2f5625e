/* SPDX-License-Identifier: Apache-2.0
 *
 * QCOW2 images made, resized, and given another backing file.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/bytes.h"
#include "block/codec.h"
#include "block/qcow2.h"

static size_t put_extension(uint8_t *head, size_t at, uint32_t type, const void *data, size_t len)
{
    store_be32(head + at, type);
    store_be32(head + at + 4, (uint32_t)len);
    memcpy(head + at + 8, data, len);
    return at + 8 + (size_t)align_up(len, 8);
}

/* The extensions that old has, but for those about the backing file, and then those about it; the
 * fixed part of head is there already. */
static int put_variable_part(uint8_t *head, size_t room, uint32_t header_len, const uint8_t *old,
                             const char *parent, const char *format)
{
    size_t at = header_len;
    for (size_t from = header_len; old != NULL && from + 8 <= room;) {
        uint32_t type = load_be32(old + from), len = load_be32(old + from + 4);
        if (type == QCOW2_EXT_END || len > room - from - 8) {
            break;
        }
        if (type != QCOW2_EXT_BACKING_FORMAT) {
            at = put_extension(head, at, type, old + from + 8, len);
        }
        from += 8 + (size_t)align_up(len, 8);
    }
    size_t needed = 8 + (parent != NULL ? 8 + 16 + strlen(parent) : 0);
    if (needed > room - at || (parent != NULL && strlen(parent) > 1023)) {
        return -ENAMETOOLONG;
    }
    if (parent != NULL && format != NULL) {
        at = put_extension(head, at, QCOW2_EXT_BACKING_FORMAT, format, strlen(format));
    }
    at = put_extension(head, at, QCOW2_EXT_END, "", 0);
    store_be64(head + 8, parent != NULL ? at : 0);
    store_be32(head + 16, parent != NULL ? (uint32_t)strlen(parent) : 0);
    if (parent != NULL) {
        memcpy(head + at, parent, strlen(parent));
    }
    return 0;
}

/* Where the parts of an empty image go, in clusters. */
struct layout {
    unsigned cluster_bits, order;
    uint64_t l1_entries;
    uint64_t rt_at, rt, blocks_at, blocks, l1_at, l1, end;
};

static int lay_out(struct layout *l, uint64_t size, struct err *e)
{
    unsigned l2_span = 2 * l->cluster_bits - 3;
    uint64_t cluster = 1ull << l->cluster_bits;
    uint64_t per_block = cluster * 8 >> l->order;
    l->l1_entries = (size >> l2_span) + ((size & MASK64(l2_span)) != 0);
    l->l1_entries = l->l1_entries != 0 ? l->l1_entries : 1; /* a table of none would be a leak */
    if (l->l1_entries * 8 > QCOW2_MAX_L1_BYTES) {
        return err_set(e, -EFBIG, "too large for clusters of %llu bytes",
                       (unsigned long long)cluster);
    }
    l->l1 = (l->l1_entries * 8 + cluster - 1) / cluster;
    l->blocks = 0;
    do {
        l->blocks++;
        l->rt = (l->blocks * 8 + cluster - 1) / cluster;
        l->end = 1 + l->rt + l->blocks + l->l1;
    } while (l->blocks * per_block < l->end);
    l->rt_at = 1;
    l->blocks_at = l->rt_at + l->rt;
    l->l1_at = l->blocks_at + l->blocks;
    return 0;
}

static void put_header(uint8_t *h, const struct layout *l, const struct block_create *c)
{
    bool v3 = c->compat != 2;
    bool zstd = c->compression != NULL && strcmp(c->compression, "zstd") == 0;
    store_be32(h, QCOW2_MAGIC);
    store_be32(h + 4, v3 ? 3 : 2);
    store_be32(h + 20, l->cluster_bits);
    store_be64(h + 24, c->size);
    store_be32(h + 36, (uint32_t)l->l1_entries);
    store_be64(h + 40, l->l1_at << l->cluster_bits);
    store_be64(h + 48, l->rt_at << l->cluster_bits);
    store_be32(h + 56, (uint32_t)l->rt);
    if (v3) {
        store_be64(h + 72, zstd ? QCOW2_COMPRESSION : 0);
        store_be64(h + 80, c->lazy_refcounts ? QCOW2_LAZY_REFCOUNTS : 0);
        store_be32(h + 96, l->order);
        store_be32(h + 100, QCOW2_HEADER);
        h[104] = zstd ? QCOW2_ZSTD : QCOW2_ZLIB;
    }
}

static int write_empty(struct hostfile *f, const struct layout *l, const struct block_create *c)
{
    size_t cluster = (size_t)1 << l->cluster_bits;
    uint8_t *head = try_alloc(1, cluster);
    uint8_t *rt = try_alloc(1, (size_t)l->rt * cluster);
    uint8_t *counts = try_alloc(1, (size_t)l->blocks * cluster);
    int r = head == NULL || rt == NULL || counts == NULL ? -ENOMEM : 0;
    if (r == 0) {
        put_header(head, l, c);
        r = put_variable_part(head, cluster, c->compat == 2 ? QCOW2_V2_HEADER : QCOW2_HEADER, NULL,
                              c->parent, c->parent_format);
    }
    if (r == 0) {
        for (uint64_t i = 0; i < l->blocks; i++) {
            store_be64(rt + i * 8, (l->blocks_at + i) << l->cluster_bits);
        }
        for (uint64_t i = 0; i < l->end; i++) { /* counts of 1 */
            uint64_t bit = i << l->order;
            if (l->order < 3) {
                counts[bit / 8] |= (uint8_t)(1u << (bit % 8));
            } else {
                counts[bit / 8 + (1u << (l->order - 3)) - 1] = 1; /* big-endian */
            }
        }
        r = hostfile_truncate(f, l->end << l->cluster_bits);
    }
    if (r == 0) {
        r = hostfile_write(f, l->blocks_at << l->cluster_bits, counts, (size_t)l->blocks * cluster);
    }
    if (r == 0) {
        r = hostfile_write(f, l->rt_at << l->cluster_bits, rt, (size_t)l->rt * cluster);
    }
    if (r == 0) {
        r = hostfile_write(f, 0, head, cluster);
    }
    free(head);
    free(rt);
    free(counts);
    return r;
}

/* Every cluster gets its place, in order; falloc and full: space on the host's disk, too. */
static int preallocate(const struct block_create *c, const char *how, struct err *e)
{
    struct block *b;
    struct block_options o = { .path = c->path, .format = "qcow2", .flags = BLOCK_NO_LOCK };
    int r = block_open(&b, &o, e);
    if (r < 0) {
        return r;
    }
    struct qcow2 *q = b->priv;
    uint64_t last = 0, first = 0;
    for (uint64_t at = 0; r == 0 && at < c->size; at += q->cluster_size) {
        r = qcow2_place(q, at, &last);
        first = first != 0 ? first : last;
    }
    if (r == 0 && last != 0) {
        r = strcmp(how, "metadata") == 0
                ? hostfile_truncate(b->file, last + q->cluster_size)
                : hostfile_reserve(b->file, first, last + q->cluster_size - first);
    }
    if (r == 0) {
        r = block_flush(b);
    }
    block_close(b);
    return r < 0 ? err_set(e, r, "%s: %s", c->path, strerror(-r)) : 0;
}

static int check_choices(const struct block_create *c, struct layout *l, struct err *e)
{
    uint64_t cluster = c->cluster_size != 0 ? c->cluster_size : 65536;
    unsigned bits = c->refcount_bits != 0 ? c->refcount_bits : 16;
    if (!is_pow2(cluster) || cluster < 512 || cluster > MIB(2)) {
        return err_set(e, -EINVAL, "cluster_size: a power of two from 512 to 2M");
    }
    if (!is_pow2(bits) || bits > 64) {
        return err_set(e, -EINVAL, "refcount_bits: a power of two up to 64");
    }
    if (c->compat == 2 && (bits != 16 || c->lazy_refcounts)) {
        return err_set(e, -EINVAL, "version 0.10 has refcounts of 16 bits, and not lazy");
    }
    if (c->compression != NULL && strcmp(c->compression, "zlib") != 0 &&
        strcmp(c->compression, "zstd") != 0) {
        return err_set(e, -EINVAL, "compression_type: zlib or zstd");
    }
    if (c->compression != NULL && strcmp(c->compression, "zstd") == 0) {
        if (c->compat == 2) {
            return err_set(e, -EINVAL, "version 0.10 knows only zlib");
        }
        if (!codec_available(CODEC_ZSTD)) {
            return err_set(e, -ENOTSUP, "this build has no zstd");
        }
    }
    l->cluster_bits = (unsigned)__builtin_ctzll(cluster);
    l->order = (unsigned)__builtin_ctz(bits);
    return 0;
}

int qcow2_create(struct hostfile *f, const struct block_create *c, struct err *e)
{
    struct layout l = { 0 };
    const char *how = c->preallocation != NULL ? c->preallocation : "off";
    bool ahead = strcmp(how, "off") != 0;
    int r = check_choices(c, &l, e);
    if (r == 0) {
        r = lay_out(&l, c->size, e);
    }
    if (r < 0) {
        return r;
    }
    if (ahead && strcmp(how, "metadata") != 0 && strcmp(how, "falloc") != 0 &&
        strcmp(how, "full") != 0) {
        return err_set(e, -EINVAL, "preallocation: off, metadata, falloc or full");
    }
    if (ahead && c->parent != NULL) {
        return err_set(e, -EINVAL, "preallocation does not go with a backing file");
    }
    r = write_empty(f, &l, c);
    if (r < 0) {
        return err_set(e, r, "%s: %s", c->path, strerror(-r));
    }
    return ahead ? preallocate(c, how, e) : 0;
}

/* A longer L1 table in another place; the header then names it, and its size, in one write. */
static int grow_l1(struct qcow2 *q, uint64_t entries)
{
    uint64_t old_at = q->l1_offset, old_size = q->l1_size, at;
    uint64_t clusters = (entries * 8 + q->cluster_size - 1) >> q->cluster_bits;
    uint64_t old_clusters = (old_size * 8 + q->cluster_size - 1) >> q->cluster_bits;
    uint8_t *table = try_alloc(1, (size_t)(clusters << q->cluster_bits));
    int r = table == NULL ? -ENOMEM : qcow2_alloc(q, clusters, &at);
    if (r == 0 && old_size != 0) {
        r = meta_read(q->meta, old_at, table, (size_t)old_size * 8);
    }
    if (r == 0) {
        r = meta_write(q->meta, at, table, (size_t)(clusters << q->cluster_bits), RANK_L1);
    }
    free(table);
    if (r == 0) {
        r = meta_flush(q->meta);
    }
    if (r == 0) {
        q->l1_offset = at;
        q->l1_size = (uint32_t)entries;
        r = old_clusters != 0 ? qcow2_free_later(q, old_at, old_clusters) : 0;
    }
    return r;
}

static int resize_locked(struct qcow2 *q, uint64_t size, struct err *e)
{
    struct block *b = q->block;
    unsigned span = q->cluster_bits + q->l2_bits;
    uint64_t old = block_size(b), entries = (size >> span) + ((size & MASK64(span)) != 0);
    uint64_t parent_size = b->parent != NULL ? block_size(b->parent) : 0;
    int r = 0;
    if (entries * 8 > QCOW2_MAX_L1_BYTES) {
        return err_set(e, -EFBIG, "%s: too large for its cluster size", b->path);
    }
    if (size < old) {
        r = qcow2_drop_from(q, size);
        if (r == 0) {
            r = meta_flush(q->meta);
        }
        if (r == 0) {
            atomic_store(&b->size, size);
            r = qcow2_write_fields(q);
        }
        return r;
    }
    if (entries > q->l1_size) {
        r = grow_l1(q, entries);
    }
    uint64_t tail = align_up(old, q->cluster_size);
    uint64_t shown = parent_size > size ? size : parent_size; /* of the parent, by growing */
    uint64_t zero_to = tail > shown ? tail : shown;
    if (r == 0 && size > old) {
        atomic_store(&b->size, size);
        zero_to = zero_to < size ? zero_to : size;
        if (zero_to > old) {
            r = qcow2_zero_locked(q, old, zero_to - old);
        }
        if (r == 0) {
            r = meta_flush(q->meta);
        }
        if (r < 0) {
            atomic_store(&b->size, old);
        }
    }
    return r < 0 ? r : qcow2_write_fields(q);
}

int qcow2_resize(struct block *b, uint64_t size, struct err *e)
{
    struct qcow2 *q = b->priv;
    pthread_rwlock_wrlock(&q->lock);
    int r = resize_locked(q, size, e);
    if (r == 0) {
        r = qcow2_flush_tables(q);
    }
    pthread_rwlock_unlock(&q->lock);
    return r;
}

int qcow2_set_parent(struct block *b, const char *path, const char *format, struct err *e)
{
    struct qcow2 *q = b->priv;
    uint8_t *old = try_alloc(1, q->cluster_size), *head = try_alloc(1, q->cluster_size);
    int r = old == NULL || head == NULL ? -ENOMEM : block_flush(b);
    if (r == 0) {
        r = hostfile_read(b->file, 0, old, q->cluster_size);
    }
    if (r == 0) {
        memcpy(head, old, q->header_len);
        r = put_variable_part(head, q->cluster_size, q->header_len, old, path, format);
    }
    if (r == 0) {
        r = hostfile_write(b->file, 0, head, q->cluster_size);
    }
    if (r == 0) {
        r = hostfile_sync(b->file);
    }
    free(old);
    free(head);
    if (r < 0) {
        return err_set(e, r, "%s: %s", b->path, strerror(-r));
    }
    free(q->backing);
    free(q->backing_format);
    q->backing = path != NULL ? xstrdup(path) : NULL;
    q->backing_format = path != NULL && format != NULL ? xstrdup(format) : NULL;
    return 0;
}
