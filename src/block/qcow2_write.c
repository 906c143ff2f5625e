/* SPDX-License-Identifier: Apache-2.0
 *
 * Writing to QCOW2: in place where a cluster is this image's alone, to a new one otherwise; zeroes,
 * discards, compressed clusters.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/bytes.h"
#include "base/log.h"
#include "block/codec.h"
#include "block/qcow2.h"
#include "block/vector.h"

/* An entry that points into the tables would let a write destroy them. */
static bool hits_tables(const struct qcow2 *q, uint64_t host)
{
    uint64_t l1_len = (uint64_t)q->l1_size * 8, rt_len = (uint64_t)q->rt_clusters * q->cluster_size;
    return host < q->cluster_size ||
           (host + q->cluster_size > q->l1_offset && host < q->l1_offset + l1_len) ||
           (host + q->cluster_size > q->rt_offset && host < q->rt_offset + rt_len);
}

/* A host cluster that only this entry refers to? Others leave the flag out at times. */
static int is_ours(struct qcow2 *q, uint64_t entry, uint64_t host, bool *ours)
{
    uint64_t count = 1;
    int r = 0;
    if (!(entry & QCOW2_COPIED)) {
        r = qcow2_refcount(q, qcow2_index(q, host), &count);
    }
    *ours = r == 0 && host != 0 && count == 1;
    return r;
}

/* A cluster for what is written, filled with what was there around it. Beyond the end of the file
 * there are zeroes already. */
static int write_new(struct qcow2 *q, uint64_t host, uint64_t offset, const void *buf, size_t len,
                     bool zero_around)
{
    size_t at = (size_t)(offset & (q->cluster_size - 1));
    uint64_t start = offset - at, size = block_size(q->block), end;
    if (len == q->cluster_size) {
        return hostfile_write(q->file, host, buf, len);
    }
    int r = hostfile_size(q->file, &end);
    if (r < 0) {
        return r;
    }
    if (zero_around && host >= end && !hostfile_is_device(q->file)) {
        r = hostfile_write(q->file, host + at, buf, len);
        return r < 0 ? r : hostfile_truncate(q->file, host + q->cluster_size);
    }
    uint8_t *whole = try_alloc(1, q->cluster_size);
    if (whole == NULL) {
        return -ENOMEM;
    }
    size_t old = size - start < q->cluster_size ? (size_t)(size - start) : q->cluster_size;
    r = zero_around ? 0 : qcow2_read_locked(q, start, whole, old);
    if (r == 0) {
        memcpy(whole + at, buf, len);
        r = hostfile_write(q->file, host, whole, q->cluster_size);
    }
    free(whole);
    return r;
}

/* Reads as zeroes from here and from the parent? */
static bool zero_below(const struct qcow2 *q, enum qcow2_kind kind, uint64_t offset)
{
    const struct block *parent = q->block->parent;
    return kind == KIND_ZERO ||
           (kind == KIND_HOLE &&
            (parent == NULL || align_down(offset, q->cluster_size) >= block_size(parent)));
}

/* Inside one cluster. */
static int write_cluster(struct qcow2 *q, uint64_t offset, const void *buf, size_t len)
{
    uint64_t table, entry = 0, host = 0;
    enum qcow2_kind kind = KIND_HOLE;
    bool ours;
    int r = qcow2_own_table(q, offset, &table);
    uint64_t entry_at = table + qcow2_entry_index(q, offset) * 8;
    if (r == 0) {
        r = qcow2_read_entry(q, entry_at, &entry);
    }
    if (r == 0) {
        r = qcow2_classify(q, entry, &kind, &host);
    }
    ours = false;
    if (r == 0 && kind != KIND_COMPRESSED) {
        r = is_ours(q, entry, host, &ours);
    }
    if (r < 0) {
        return r;
    }
    if (ours && hits_tables(q, host)) {
        return qcow2_corrupt(q, "L2 entry points to tables", entry);
    }
    uint64_t at = offset & (q->cluster_size - 1);
    if (ours && kind == KIND_DATA) {
        r = hostfile_write(q->file, host + at, buf, len);
        return r == 0 && !(entry & QCOW2_COPIED)
                   ? qcow2_write_entry(q, entry_at, host | QCOW2_COPIED, RANK_L2)
                   : r;
    }
    uint64_t to = host;
    if (!ours) {
        r = qcow2_alloc(q, 1, &to);
        if (r < 0) {
            return r;
        }
    }
    r = write_new(q, to, offset, buf, len, zero_below(q, kind, offset));
    if (r == 0) {
        r = qcow2_write_entry(q, entry_at, to | QCOW2_COPIED, RANK_L2);
    }
    if (ours) {
        return r;
    }
    if (r < 0) {
        qcow2_unalloc(q, to, 1);
        return r;
    }
    return qcow2_free_entry(q, entry);
}

static int write_locked(struct qcow2 *q, uint64_t offset, const uint8_t *buf, size_t len)
{
    int r = 0;
    while (r == 0 && len > 0) {
        size_t n = block_piece(offset, len, q->cluster_size);
        if (meta_is_crowded(q->meta)) {
            r = qcow2_flush_tables(q);
        }
        if (r == 0) {
            r = write_cluster(q, offset, buf, n);
        }
        buf += n;
        offset += n;
        len -= n;
    }
    return r;
}

/* As much as lies in clusters that are there: no table changes, others may do the same. */
static int in_place_locked(struct qcow2 *q, uint64_t offset, struct vector *v, size_t len,
                           size_t *written)
{
    *written = 0;
    while (*written < len) {
        struct qcow2_run run;
        int r = qcow2_find_run(q, offset + *written, len - *written, &run);
        if (r < 0) {
            return r;
        }
        if (run.kind != KIND_DATA || !run.ours) {
            return 0;
        }
        for (uint64_t at = 0; at < run.len; at += q->cluster_size) {
            if (hits_tables(q, align_down(run.host + at, q->cluster_size))) {
                return qcow2_corrupt(q, "L2 entry points to tables", run.host + at);
            }
        }
        r = vector_write(v, (size_t)run.len, q->file, run.host);
        if (r < 0) {
            return r;
        }
        *written += (size_t)run.len;
    }
    return 0;
}

static int write_in_place(struct qcow2 *q, uint64_t offset, struct vector *v, size_t len,
                          size_t *written)
{
    pthread_rwlock_rdlock(&q->lock);
    int r = in_place_locked(q, offset, v, len, written);
    pthread_rwlock_unlock(&q->lock);
    return r;
}

int qcow2_write(struct block *b, uint64_t offset, const void *buf, size_t len)
{
    struct qcow2 *q = b->priv;
    const struct iovec iov = { (void *)(uintptr_t)buf, len };
    struct vector v = { .iov = &iov };
    size_t done;
    int r = write_in_place(q, offset, &v, len, &done);
    if (r < 0 || done == len) {
        return r;
    }
    pthread_rwlock_wrlock(&q->lock);
    r = write_locked(q, offset + done, (const uint8_t *)buf + done, len - done);
    pthread_rwlock_unlock(&q->lock);
    return r;
}

int qcow2_writev(struct block *b, uint64_t offset, const struct iovec *iov, int count)
{
    struct vector v = { .iov = iov };
    size_t len = vector_bytes(iov, count), done;
    int r = write_in_place(b->priv, offset, &v, len, &done);
    return r < 0 || done == len ? r : block_write_copied(b, offset + done, &v, len - done);
}

int qcow2_flush(struct block *b)
{
    struct qcow2 *q = b->priv;
    pthread_rwlock_wrlock(&q->lock);
    bool tables = meta_is_dirty(q->meta) || q->freed_count != 0 || q->flushing;
    int r = tables ? qcow2_flush_tables(q) : 0;
    pthread_rwlock_unlock(&q->lock);
    return tables ? r : hostfile_sync(b->file);
}

/* One whole cluster reads as zeroes from now on. */
static int zero_cluster(struct qcow2 *q, uint64_t offset, bool keep)
{
    uint64_t table, entry, host;
    enum qcow2_kind kind;
    bool ours = false;
    int r = qcow2_get_entry(q, offset, &entry);
    if (r == 0) {
        r = qcow2_classify(q, entry, &kind, &host);
    }
    if (r < 0 || kind == KIND_ZERO || (kind == KIND_HOLE && zero_below(q, kind, offset))) {
        return r;
    }
    r = qcow2_own_table(q, offset, &table);
    if (r == 0 && kind == KIND_DATA) {
        r = is_ours(q, entry, host, &ours);
    }
    if (r < 0) {
        return r;
    }
    uint64_t at = table + qcow2_entry_index(q, offset) * 8;
    if (keep && ours) {
        return qcow2_write_entry(q, at, host | QCOW2_COPIED | QCOW2_ZERO, RANK_L2);
    }
    r = qcow2_write_entry(q, at, q->version >= 3 ? QCOW2_ZERO : 0, RANK_L2);
    return r == 0 ? qcow2_free_entry(q, entry) : r;
}

/* Version 2 knows no cluster that hides the parent's. */
static bool can_zero(const struct qcow2 *q) { return q->version >= 3 || q->block->parent == NULL; }

static int write_literal_zeroes(struct qcow2 *q, uint64_t offset, uint64_t len)
{
    static const uint8_t zeroes[65536];
    int r = 0;
    while (r == 0 && len > 0) {
        size_t n = block_piece(offset, len, sizeof zeroes);
        r = write_locked(q, offset, zeroes, n);
        offset += n;
        len -= n;
    }
    return r;
}

/* A part of a cluster; nothing is written where zeroes are already. */
static int zero_part(struct qcow2 *q, uint64_t offset, uint64_t len)
{
    uint64_t entry, host;
    enum qcow2_kind kind;
    int r = qcow2_get_entry(q, offset, &entry);
    if (r == 0) {
        r = qcow2_classify(q, entry, &kind, &host);
    }
    return r < 0 || zero_below(q, kind, offset) ? r : write_literal_zeroes(q, offset, len);
}

/* The next offset with another L2 table: nothing need be looked at in one that is not there. */
static uint64_t skip_absent(struct qcow2 *q, uint64_t offset, uint64_t end)
{
    uint64_t table, l1_entry;
    if (qcow2_find_table(q, offset, &table, &l1_entry) < 0 || table != 0 ||
        !zero_below(q, KIND_HOLE, offset)) {
        return offset;
    }
    uint64_t next = (offset | MASK64(q->cluster_bits + q->l2_bits)) + 1;
    return next < end ? next : end;
}

static int zero_range(struct qcow2 *q, uint64_t offset, uint64_t len, bool may_unmap)
{
    uint64_t end = offset + len, size = block_size(q->block);
    int r = 0;
    while (r == 0 && offset < end) {
        uint64_t next = skip_absent(q, offset, end);
        if (next != offset) {
            offset = next;
            continue;
        }
        if (meta_is_crowded(q->meta)) {
            r = qcow2_flush_tables(q);
        }
        uint64_t n = block_piece(offset, end - offset, q->cluster_size);
        bool whole = offset % q->cluster_size == 0 && (n == q->cluster_size || offset + n == size);
        if (r == 0) {
            r = !whole        ? zero_part(q, offset, n)
                : can_zero(q) ? zero_cluster(q, offset, !may_unmap && q->version >= 3)
                              : write_literal_zeroes(q, offset, n);
        }
        offset += n;
    }
    return r;
}

int qcow2_zero_locked(struct qcow2 *q, uint64_t offset, uint64_t len)
{
    return zero_range(q, offset, len, true);
}

int qcow2_write_zeroes(struct block *b, uint64_t offset, uint64_t len, bool may_unmap)
{
    struct qcow2 *q = b->priv;
    pthread_rwlock_wrlock(&q->lock);
    int r = zero_range(q, offset, len, may_unmap);
    pthread_rwlock_unlock(&q->lock);
    return r;
}

int qcow2_discard(struct block *b, uint64_t offset, uint64_t len)
{
    struct qcow2 *q = b->priv;
    uint64_t size = block_size(b), end = offset + len;
    offset = align_up(offset, q->cluster_size);
    end = end == size ? size : align_down(end, q->cluster_size);
    if (offset >= end) {
        return 0;
    }
    pthread_rwlock_wrlock(&q->lock);
    int r = can_zero(q) ? zero_range(q, offset, end - offset, true) : 0;
    pthread_rwlock_unlock(&q->lock);
    return r;
}

int qcow2_drop_from(struct qcow2 *q, uint64_t offset)
{
    uint64_t clusters = (uint64_t)q->l1_size << q->l2_bits;
    int r = 0;
    for (uint64_t c = align_up(offset, q->cluster_size) >> q->cluster_bits; r == 0 && c < clusters;
         c++) {
        uint64_t at = c << q->cluster_bits, table, l1_entry, entry = 0;
        r = qcow2_find_table(q, at, &table, &l1_entry);
        if (r == 0 && table == 0) {
            c |= MASK64(q->l2_bits);
            continue;
        }
        if (r == 0) {
            r = qcow2_read_entry(q, table + qcow2_entry_index(q, at) * 8, &entry);
        }
        if (r < 0 || entry == 0) {
            continue;
        }
        r = qcow2_own_table(q, at, &table);
        if (r == 0) {
            r = qcow2_write_entry(q, table + qcow2_entry_index(q, at) * 8, 0, RANK_L2);
        }
        if (r == 0) {
            r = qcow2_free_entry(q, entry);
        }
    }
    return r;
}

int qcow2_place(struct qcow2 *q, uint64_t offset, uint64_t *host)
{
    uint64_t table;
    int r = meta_is_crowded(q->meta) ? qcow2_flush_tables(q) : 0;
    if (r == 0) {
        r = qcow2_own_table(q, offset, &table);
    }
    if (r == 0) {
        r = qcow2_alloc(q, 1, host);
    }
    return r < 0 ? r
                 : qcow2_write_entry(q, table + qcow2_entry_index(q, offset) * 8,
                                     *host | QCOW2_COPIED, RANK_L2);
}

static int store_packed(struct qcow2 *q, uint64_t offset, const uint8_t *packed, size_t len)
{
    uint64_t table, old, host;
    int r = qcow2_own_table(q, offset, &table);
    uint64_t at = table + qcow2_entry_index(q, offset) * 8;
    if (r == 0) {
        r = qcow2_read_entry(q, at, &old);
    }
    if (r == 0) {
        r = qcow2_alloc_packed(q, (uint32_t)len, &host);
    }
    if (r == 0) {
        r = hostfile_write(q->file, host, packed, len);
    }
    pthread_mutex_lock(&q->unpack_lock);
    q->unpacked_entry = 0; /* an older cluster may have been in this very place */
    pthread_mutex_unlock(&q->unpack_lock);
    if (r == 0) {
        uint64_t sectors = ((host + len - 1) >> 9) - (host >> 9);
        unsigned bits = 62 - (q->cluster_bits - 8);
        r = qcow2_write_entry(q, at, QCOW2_COMPRESSED | sectors << bits | host, RANK_L2);
    }
    return r == 0 ? qcow2_free_entry(q, old) : r;
}

int qcow2_write_compressed(struct block *b, uint64_t offset, const void *buf, size_t len)
{
    struct qcow2 *q = b->priv;
    enum codec c = q->compression == QCOW2_ZSTD ? CODEC_ZSTD : CODEC_DEFLATE;
    if (!codec_available(c)) {
        return -ENOTSUP;
    }
    if (offset % q->cluster_size != 0 || len > q->cluster_size ||
        (len < q->cluster_size && offset + len != block_size(b))) {
        return -EINVAL;
    }
    uint8_t *plain = try_alloc(1, q->cluster_size), *packed = try_alloc(1, q->cluster_size);
    size_t packed_len = q->cluster_size - 1;
    int r = plain == NULL || packed == NULL ? -ENOMEM : 0;
    if (r == 0) {
        memcpy(plain, buf, len);
        r = codec_pack(c, plain, q->cluster_size, packed, &packed_len);
    }
    if (r == 0) {
        pthread_rwlock_wrlock(&q->lock);
        if (meta_is_crowded(q->meta)) {
            r = qcow2_flush_tables(q);
        }
        if (r == 0) {
            r = store_packed(q, offset, packed, packed_len);
        }
        pthread_rwlock_unlock(&q->lock);
    }
    free(plain);
    free(packed);
    return r;
}
