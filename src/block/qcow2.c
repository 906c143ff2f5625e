/* SPDX-License-Identifier: Apache-2.0
 *
 * QCOW2: the header, opening and closing.
 */
#include "block/qcow2.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/bytes.h"
#include "base/log.h"
#include "block/codec.h"

int qcow2_corrupt(struct qcow2 *q, const char *what, uint64_t value)
{
    if (!atomic_exchange(&q->block->warned, true)) {
        log_warn("%s: damaged image: %s 0x%llx", q->block->path, what, (unsigned long long)value);
    }
    return -EIO;
}

static bool qcow2_probe(const struct block_probe *p)
{
    uint32_t version = load_be32(p->head + 4);
    return load_be32(p->head) == QCOW2_MAGIC && version >= 2;
}

int qcow2_write_fields(struct qcow2 *q)
{
    uint8_t h[48]; /* bytes 24 to 71 */
    int r = hostfile_read(q->file, 24, h, sizeof h);
    if (r < 0) {
        return r;
    }
    store_be64(h, block_size(q->block));
    store_be32(h + 12, q->l1_size);
    store_be64(h + 16, q->l1_offset);
    store_be64(h + 24, q->rt_offset);
    store_be32(h + 32, q->rt_clusters);
    store_be32(h + 36, q->snapshot_count);
    store_be64(h + 40, q->snapshots_offset);
    r = hostfile_write(q->file, 24, h, sizeof h);
    return r < 0 ? r : hostfile_sync(q->file);
}

int qcow2_store_features(struct qcow2 *q)
{
    uint8_t h[24];
    if (q->version < 3) {
        return 0;
    }
    store_be64(h, q->incompatible);
    store_be64(h + 8, q->compatible);
    store_be64(h + 16, q->autoclear);
    return hostfile_write(q->file, 72, h, sizeof h);
}

int qcow2_write_features(struct qcow2 *q)
{
    int r = qcow2_store_features(q);
    return r < 0 || q->version < 3 ? r : hostfile_sync(q->file);
}

static int bad(struct qcow2 *q, struct err *e, const char *what)
{
    return err_set(e, -EINVAL, "%s: damaged qcow2 image: %s", q->block->path, what);
}

/* What a feature is called: the image's own word for it, when it has one. */
static void name_feature(const uint8_t *table, size_t len, unsigned bit, char *text, size_t room)
{
    static const char *const known[] = { "dirty", "corrupt", "external data file",
                                         "compression type", "extended L2 entries" };
    snprintf(text, room, "feature bit %u", bit);
    if (bit < ARRAY_LEN(known)) {
        snprintf(text, room, "%s", known[bit]);
    }
    for (size_t at = 0; at + 48 <= len; at += 48) {
        if (table[at] == 0 && table[at + 1] == bit) {
            int n = 0;
            for (; n < 46 && table[at + 2 + n] >= ' ' && table[at + 2 + n] < 127; n++) {
            }
            snprintf(text, room, "%.*s", n, (const char *)table + at + 2);
        }
    }
}

static int refuse_features(struct qcow2 *q, const uint8_t *names, size_t len, struct err *e)
{
    uint64_t unknown = q->incompatible &
                       ~(uint64_t)(QCOW2_DIRTY | QCOW2_CORRUPT | QCOW2_COMPRESSION);
    char name[64];
    if (unknown == 0) {
        return 0;
    }
    name_feature(names, len, (unsigned)__builtin_ctzll(unknown), name, sizeof name);
    return err_set(e, -ENOTSUP, "%s: needs a qcow2 feature that is not supported: %s",
                   q->block->path, name);
}

static char *copy_text(const uint8_t *from, size_t len)
{
    return xasprintf("%.*s", (int)len, from);
}

/* head: the first cluster, as far as extensions and the backing file's name may go. */
static int parse_extensions(struct qcow2 *q, const uint8_t *head, size_t len, struct err *e)
{
    size_t at = q->header_len, names_len = 0;
    const uint8_t *names = NULL;
    uint64_t name_at = load_be64(head + 8);
    uint32_t name_len = load_be32(head + 16);
    size_t end = name_at != 0 && name_at < len ? (size_t)name_at : len;
    while (at + 8 <= end) {
        uint32_t type = load_be32(head + at), ext_len = load_be32(head + at + 4);
        at += 8;
        if (type == QCOW2_EXT_END) {
            break;
        }
        if (ext_len > end - at) {
            return bad(q, e, "header extension is too long");
        }
        if (type == QCOW2_EXT_BACKING_FORMAT && q->backing_format == NULL && ext_len < 16) {
            q->backing_format = copy_text(head + at, ext_len);
        } else if (type == QCOW2_EXT_FEATURES) {
            names = head + at;
            names_len = ext_len;
        }
        at += align_up(ext_len, 8);
    }
    if (name_at != 0 && name_len != 0) {
        if (name_len > 1023 || name_at > len || name_len > len - name_at) {
            return bad(q, e, "name of the backing file");
        }
        q->backing = copy_text(head + name_at, name_len);
    }
    return refuse_features(q, names, names_len, e);
}

static int parse_header(struct qcow2 *q, const uint8_t *h, struct err *e)
{
    q->version = load_be32(h + 4);
    q->cluster_bits = load_be32(h + 20);
    q->l1_size = load_be32(h + 36);
    q->l1_offset = load_be64(h + 40);
    q->rt_offset = load_be64(h + 48);
    q->rt_clusters = load_be32(h + 56);
    q->snapshot_count = load_be32(h + 60);
    q->snapshots_offset = load_be64(h + 64);
    q->refcount_order = 4;
    q->header_len = QCOW2_V2_HEADER;
    if (q->version > 3) {
        return err_set(e, -ENOTSUP, "%s: qcow2 version %u is not supported", q->block->path,
                       q->version);
    }
    if (q->cluster_bits < QCOW2_MIN_CLUSTER_BITS || q->cluster_bits > QCOW2_MAX_CLUSTER_BITS) {
        return bad(q, e, "cluster size");
    }
    if (q->version == 3) {
        q->incompatible = load_be64(h + 72);
        q->compatible = load_be64(h + 80);
        q->autoclear = load_be64(h + 88);
        q->refcount_order = load_be32(h + 96);
        q->header_len = load_be32(h + 100);
        if (q->header_len < QCOW2_V3_HEADER || q->header_len > 512 || q->header_len % 8 != 0) {
            return bad(q, e, "header length");
        }
        if (q->header_len > 104) {
            q->compression = h[104];
        }
    }
    q->cluster_size = 1u << q->cluster_bits;
    q->l2_bits = q->cluster_bits - 3;
    uint32_t method = load_be32(h + 32);
    if (method != 0) {
        return err_set(e, -ENOTSUP, "%s: is encrypted (%s), which is not supported", q->block->path,
                       method == 1   ? "AES"
                       : method == 2 ? "LUKS"
                                     : "unknown");
    }
    return 0;
}

static int check_table(struct qcow2 *q, uint64_t offset, uint64_t len, uint64_t max,
                       const char *what, struct err *e)
{
    if (len > max) {
        return err_set(e, -EFBIG, "%s: damaged qcow2 image: %s is too large", q->block->path, what);
    }
    if (offset % q->cluster_size != 0 || offset > QCOW2_OFFSET_MASK - len ||
        (len != 0 && offset == 0)) {
        return bad(q, e, what);
    }
    return 0;
}

static int check_header(struct qcow2 *q, uint64_t size, struct err *e)
{
    if (q->refcount_order > 6) {
        return bad(q, e, "refcount width");
    }
    if (size > BLOCK_SIZE_MAX) {
        return bad(q, e, "disk size");
    }
    uint64_t per_l1 = 1ull << (q->cluster_bits + q->l2_bits);
    uint64_t needed = size / per_l1 + (size % per_l1 != 0);
    if (needed > q->l1_size) {
        return bad(q, e, "L1 table is too small for the disk");
    }
    bool packs = q->incompatible & QCOW2_COMPRESSION;
    if (q->compression > QCOW2_ZSTD || packs != (q->compression != QCOW2_ZLIB)) {
        return err_set(e, -ENOTSUP, "%s: unknown compression type %u", q->block->path,
                       (unsigned)q->compression);
    }
    int r = check_table(q, q->l1_offset, q->l1_size * 8ull, QCOW2_MAX_L1_BYTES, "L1 table", e);
    if (r == 0) {
        r = check_table(q, q->rt_offset, (uint64_t)q->rt_clusters << q->cluster_bits,
                        QCOW2_MAX_RT_BYTES, "refcount table", e);
    }
    if (r == 0) {
        r = check_table(q, q->snapshots_offset, q->snapshot_count, QCOW2_MAX_SNAPSHOTS,
                        "snapshot table", e);
    }
    if (r == 0 && q->rt_clusters == 0 && !(q->block->flags & BLOCK_REPAIR)) {
        r = bad(q, e, "no refcount table");
    }
    return r;
}

static void qcow2_free(struct qcow2 *q)
{
    meta_free(q->meta);
    pthread_rwlock_destroy(&q->lock);
    pthread_mutex_destroy(&q->unpack_lock);
    free(q->freed);
    free(q->unpacked);
    free(q->backing);
    free(q->backing_format);
    free(q);
}

static int load_header(struct qcow2 *q, struct err *e)
{
    struct block *b = q->block;
    uint8_t h[512];
    int r = hostfile_read(b->file, 0, h, sizeof h);
    if (r < 0) {
        return err_set(e, r, "%s: %s", b->path, strerror(-r));
    }
    if (load_be32(h) != QCOW2_MAGIC) {
        return err_set(e, -EINVAL, "%s: not a qcow2 image", b->path);
    }
    r = parse_header(q, h, e);
    if (r < 0) {
        return r;
    }
    uint8_t *head = try_alloc(1, q->cluster_size);
    r = head == NULL ? -ENOMEM : hostfile_read(b->file, 0, head, q->cluster_size);
    if (r < 0) {
        err_set(e, r, "%s: %s", b->path, strerror(-r));
    } else {
        r = parse_extensions(q, head, q->cluster_size, e);
    }
    free(head);
    uint64_t size = load_be64(h + 24);
    if (r == 0) {
        r = check_header(q, size, e);
    }
    atomic_store(&b->size, size);
    return r;
}

/* An image that was not closed by somebody who puts refcounts off: count again. */
static int make_clean(struct qcow2 *q, struct err *e)
{
    struct block_check found = { 0 };
    int r = qcow2_check(q->block, true, &found, e);
    if (r < 0) {
        return err_prefix(e, r, "%s: was not closed properly, and repair failed", q->block->path);
    }
    if (found.corruptions > found.corruptions_fixed) {
        return err_set(e, -EIO,
                       "%s: was not closed properly, and is damaged: try 'sosia disk check'",
                       q->block->path);
    }
    return 0;
}

/* What writing demands of an image that reading does not. */
static int prepare_writing(struct qcow2 *q, struct err *e)
{
    struct block *b = q->block;
    if (q->incompatible & QCOW2_CORRUPT && !(b->flags & BLOCK_REPAIR)) {
        return err_set(e, -EROFS,
                       "%s: is marked as damaged: it can be read; 'sosia disk check --repair' may "
                       "help",
                       b->path);
    }
    int r = 0;
    if (q->incompatible & QCOW2_DIRTY && !(b->flags & BLOCK_REPAIR)) {
        r = make_clean(q, e);
    }
    if (r == 0 && q->autoclear != 0) {
        q->autoclear = 0; /* what these stand for is not kept up to date by us */
        r = qcow2_write_features(q);
        if (r < 0) {
            err_set(e, r, "%s: %s", b->path, strerror(-r));
        }
    }
    return r;
}

static int qcow2_open(struct block *b, struct err *e)
{
    struct qcow2 *q = xzalloc(sizeof *q);
    q->block = b;
    q->file = b->file;
    block_lock_init(&q->lock);
    pthread_mutex_init(&q->unpack_lock, NULL);
    b->priv = q;
    int r = load_header(q, e);
    if (r == 0) {
        q->meta = meta_new(b->file, q->cluster_size < 4096 ? q->cluster_size : 4096);
        if (b->snapshot != NULL) {
            r = qcow2_enter_snapshot(q, b->snapshot, e);
        }
    }
    if (r == 0 && q->backing != NULL) {
        r = block_open_parent(b, q->backing, q->backing_format, e);
    }
    if (r == 0 && !b->readonly) {
        r = prepare_writing(q, e);
    }
    if (r < 0) {
        qcow2_free(q);
        b->priv = NULL;
    }
    return r;
}

static void qcow2_close(struct block *b)
{
    struct qcow2 *q = b->priv;
    if (!b->readonly) {
        int r = qcow2_flush_tables(q); /* twice: what the first one frees */
        if (r == 0) {
            r = qcow2_flush_tables(q);
        }
        if (r < 0) {
            log_warn("%s: closing: %s", b->path, strerror(-r));
        }
    }
    qcow2_free(q);
}

static int qcow2_make_empty(struct block *b)
{
    struct qcow2 *q = b->priv;
    pthread_rwlock_wrlock(&q->lock);
    int r = qcow2_drop_from(q, 0);
    if (r == 0) {
        r = qcow2_flush_tables(q);
    }
    pthread_rwlock_unlock(&q->lock);
    return r;
}

static void qcow2_info(struct block *b, struct block_info *info)
{
    struct qcow2 *q = b->priv;
    info->cluster_size = q->cluster_size;
    info->compat = q->version == 2 ? "0.10" : "1.1";
    info->parent_path = q->backing;
    info->parent_format = q->backing_format;
    info->compression = q->compression == QCOW2_ZSTD ? "zstd" : "zlib";
    info->refcount_bits = 1u << q->refcount_order;
    info->lazy_refcounts = q->compatible & QCOW2_LAZY_REFCOUNTS;
    info->dirty = q->incompatible & QCOW2_DIRTY;
    info->corrupt = q->incompatible & QCOW2_CORRUPT;
}

const struct block_class block_qcow2 = {
    .name = "qcow2",
    .probe = qcow2_probe,
    .open = qcow2_open,
    .close = qcow2_close,
    .read = qcow2_read,
    .write = qcow2_write,
    .readv = qcow2_readv,
    .writev = qcow2_writev,
    .flush = qcow2_flush,
    .discard = qcow2_discard,
    .write_zeroes = qcow2_write_zeroes,
    .resize = qcow2_resize,
    .map = qcow2_map,
    .create_keys = BLOCK_KEY_CLUSTER_SIZE | BLOCK_KEY_COMPAT | BLOCK_KEY_COMPRESSION |
                   BLOCK_KEY_LAZY_REFCOUNTS | BLOCK_KEY_REFCOUNT_BITS | BLOCK_KEY_PREALLOCATION |
                   BLOCK_KEY_PARENT,
    .create = qcow2_create,
    .info = qcow2_info,
    .check = qcow2_check,
    .write_compressed = qcow2_write_compressed,
    .set_parent = qcow2_set_parent,
    .make_empty = qcow2_make_empty,
    .snapshot_list = qcow2_snapshot_list,
    .snapshot_change = qcow2_snapshot_change,
};
