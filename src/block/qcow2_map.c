/* SPDX-License-Identifier: Apache-2.0
 *
 * From guest clusters to host clusters: the two levels of tables, and reading through them.
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

static uint64_t table_index(const struct qcow2 *q, uint64_t offset)
{
    return offset >> (q->cluster_bits + q->l2_bits);
}

uint64_t qcow2_entry_index(const struct qcow2 *q, uint64_t offset)
{
    return (offset >> q->cluster_bits) & MASK64(q->l2_bits);
}

int qcow2_read_entry(struct qcow2 *q, uint64_t at, uint64_t *entry)
{
    uint8_t bytes[8];
    int r = meta_read(q->meta, at, bytes, sizeof bytes);
    *entry = load_be64(bytes);
    return r;
}

int qcow2_write_entry(struct qcow2 *q, uint64_t at, uint64_t entry, unsigned rank)
{
    uint8_t bytes[8];
    store_be64(bytes, entry);
    return meta_write(q->meta, at, bytes, sizeof bytes, rank);
}

int qcow2_load_table(struct qcow2 *q, uint64_t offset, uint64_t *table, size_t entries)
{
    int r = meta_read(q->meta, offset, table, entries * 8);
    for (size_t i = 0; i < entries; i++) {
        table[i] = load_be64(&table[i]);
    }
    return r;
}

int qcow2_store_table(struct qcow2 *q, uint64_t offset, const uint64_t *table, size_t entries,
                      unsigned rank)
{
    for (size_t i = 0; i < entries; i++) {
        int r = qcow2_write_entry(q, offset + i * 8, table[i], rank);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

void qcow2_compressed_range(const struct qcow2 *q, uint64_t entry, uint64_t *offset, uint32_t *len)
{
    unsigned bits = 62 - (q->cluster_bits - 8);
    *offset = entry & MASK64(bits);
    uint64_t sectors = (entry & MASK64(62)) >> bits;
    *len = (uint32_t)((sectors + 1) * 512 - (*offset & 511));
}

int qcow2_classify(struct qcow2 *q, uint64_t entry, enum qcow2_kind *kind, uint64_t *host)
{
    *host = entry & QCOW2_OFFSET_MASK;
    if (entry & QCOW2_COMPRESSED) {
        *kind = KIND_COMPRESSED;
        return 0;
    }
    if (*host & (q->cluster_size - 1)) {
        return qcow2_corrupt(q, "L2 entry", entry);
    }
    if (q->version >= 3 && (entry & QCOW2_ZERO)) {
        *kind = KIND_ZERO;
    } else {
        *kind = *host != 0 ? KIND_DATA : KIND_HOLE;
    }
    return 0;
}

/* Where the L2 table for offset is; 0: there is none. */
int qcow2_find_table(struct qcow2 *q, uint64_t offset, uint64_t *table, uint64_t *l1_entry)
{
    uint64_t index = table_index(q, offset);
    *table = 0;
    if (index >= q->l1_size) {
        return -EIO; /* opening and resizing see to it that this cannot be */
    }
    int r = qcow2_read_entry(q, q->l1_offset + index * 8, l1_entry);
    *table = *l1_entry & QCOW2_OFFSET_MASK;
    if (r == 0 && (*table & (q->cluster_size - 1))) {
        r = qcow2_corrupt(q, "L1 entry", *l1_entry);
    }
    return r;
}

int qcow2_get_entry(struct qcow2 *q, uint64_t offset, uint64_t *entry)
{
    uint64_t table, l1_entry;
    *entry = 0;
    int r = qcow2_find_table(q, offset, &table, &l1_entry);
    if (r == 0 && table != 0) {
        r = qcow2_read_entry(q, table + qcow2_entry_index(q, offset) * 8, entry);
    }
    return r;
}

int qcow2_find_run(struct qcow2 *q, uint64_t offset, uint64_t len, struct qcow2_run *run)
{
    uint64_t host;
    int r = qcow2_get_entry(q, offset, &run->entry);
    if (r == 0) {
        r = qcow2_classify(q, run->entry, &run->kind, &host);
    }
    if (r < 0) {
        return r;
    }
    run->host = host + (offset & (q->cluster_size - 1));
    run->len = block_piece(offset, len, q->cluster_size);
    run->ours = run->entry & QCOW2_COPIED;
    while (run->len < len && run->kind != KIND_COMPRESSED) {
        enum qcow2_kind kind;
        uint64_t entry;
        r = qcow2_get_entry(q, offset + run->len, &entry);
        if (r == 0) {
            r = qcow2_classify(q, entry, &kind, &host);
        }
        if (r < 0) {
            return r;
        }
        if (kind != run->kind || (kind == KIND_DATA && host != run->host + run->len) ||
            !(entry & QCOW2_COPIED) != !run->ours) {
            break;
        }
        run->len += block_piece(offset + run->len, len - run->len, q->cluster_size);
    }
    return 0;
}

/* Bytes of a compressed cluster, from `at` on. */
static int unpack(struct qcow2 *q, uint64_t entry, size_t at, struct vector *v, size_t len)
{
    uint64_t host;
    uint32_t packed_len;
    int r = 0;
    pthread_mutex_lock(&q->unpack_lock);
    if (q->unpacked_entry != entry || entry == 0) {
        qcow2_compressed_range(q, entry, &host, &packed_len);
        uint8_t *packed = try_alloc(1, packed_len);
        if (q->unpacked == NULL) {
            q->unpacked = try_alloc(1, q->cluster_size);
        }
        q->unpacked_entry = 0;
        r = packed == NULL || q->unpacked == NULL ? -ENOMEM : 0;
        if (r == 0) {
            r = hostfile_read(q->file, host, packed, packed_len);
        }
        if (r == 0) {
            enum codec c = q->compression == QCOW2_ZSTD ? CODEC_ZSTD : CODEC_DEFLATE;
            r = codec_unpack(c, packed, packed_len, q->unpacked, q->cluster_size);
        }
        if (r == 0) {
            q->unpacked_entry = entry;
        }
        free(packed);
    }
    if (r == 0) {
        vector_put(v, q->unpacked + at, len);
    }
    pthread_mutex_unlock(&q->unpack_lock);
    return r;
}

static int readv_locked(struct qcow2 *q, uint64_t offset, struct vector *v, size_t len)
{
    while (len > 0) {
        struct qcow2_run run;
        int r = qcow2_find_run(q, offset, len, &run);
        if (r < 0) {
            return r;
        }
        size_t n = (size_t)run.len;
        switch (run.kind) {
        case KIND_HOLE:
            r = block_readv_parent(q->block, offset, v, n);
            break;
        case KIND_ZERO:
            vector_put_zeroes(v, n);
            break;
        case KIND_DATA:
            r = vector_read(v, n, q->file, run.host);
            break;
        case KIND_COMPRESSED:
            r = unpack(q, run.entry, offset & (q->cluster_size - 1), v, n);
            break;
        }
        if (r < 0) {
            return r;
        }
        offset += n;
        len -= n;
    }
    return 0;
}

int qcow2_readv(struct block *b, uint64_t offset, const struct iovec *iov, int count)
{
    struct qcow2 *q = b->priv;
    struct vector v = { .iov = iov };
    pthread_rwlock_rdlock(&q->lock);
    int r = readv_locked(q, offset, &v, vector_bytes(iov, count));
    pthread_rwlock_unlock(&q->lock);
    return r;
}

int qcow2_read_locked(struct qcow2 *q, uint64_t offset, uint8_t *buf, size_t len)
{
    struct iovec iov = { buf, len };
    struct vector v = { .iov = &iov };
    return readv_locked(q, offset, &v, len);
}

int qcow2_read(struct block *b, uint64_t offset, void *buf, size_t len)
{
    struct iovec iov = { buf, len };
    return qcow2_readv(b, offset, &iov, 1);
}

/* The L2 table for offset, this image's alone. */
int qcow2_own_table(struct qcow2 *q, uint64_t offset, uint64_t *table)
{
    uint64_t entry, old, count = 0;
    int r = qcow2_find_table(q, offset, &old, &entry);
    if (r < 0) {
        return r;
    }
    *table = old;
    if (old != 0 && (entry & QCOW2_COPIED)) {
        return 0;
    }
    uint64_t l1_at = q->l1_offset + table_index(q, offset) * 8;
    if (old != 0) {
        r = qcow2_refcount(q, qcow2_index(q, old), &count);
        if (r == 0 && count == 1) {
            return qcow2_write_entry(q, l1_at, old | QCOW2_COPIED, RANK_L1);
        }
    }
    uint64_t *copy = try_alloc(1, q->cluster_size);
    if (copy == NULL) {
        return -ENOMEM;
    }
    if (r == 0 && old != 0) {
        r = meta_read(q->meta, old, copy, q->cluster_size);
    }
    if (r == 0) {
        r = qcow2_alloc(q, 1, table);
    }
    if (r == 0) {
        r = meta_write(q->meta, *table, copy, q->cluster_size, RANK_L2);
        if (r == 0) {
            r = qcow2_write_entry(q, l1_at, *table | QCOW2_COPIED, RANK_L1);
        }
        if (r < 0) {
            qcow2_unalloc(q, *table, 1);
        }
    }
    free(copy);
    return r == 0 && old != 0 ? qcow2_free_later(q, old, 1) : r;
}
int qcow2_map(struct block *b, uint64_t offset, uint64_t len, struct block_extent *out)
{
    static const enum block_extent_kind kinds[] = {
        [KIND_HOLE] = BLOCK_HOLE,
        [KIND_ZERO] = BLOCK_ZERO,
        [KIND_DATA] = BLOCK_DATA,
        [KIND_COMPRESSED] = BLOCK_DATA,
    };
    struct qcow2 *q = b->priv;
    struct qcow2_run run;
    pthread_rwlock_rdlock(&q->lock);
    uint64_t end = offset + len, table, l1_entry;
    int r = qcow2_find_table(q, offset, &table, &l1_entry);
    if (r == 0 && table == 0) { /* whole L2 tables that are not there, without looking inside */
        uint64_t next = offset;
        while (r == 0 && next < end && table == 0) {
            next = (next | MASK64(q->cluster_bits + q->l2_bits)) + 1;
            if (next < end) {
                r = qcow2_find_table(q, next, &table, &l1_entry);
            }
        }
        *out = (struct block_extent){ BLOCK_HOLE, (next < end ? next : end) - offset, UINT64_MAX };
        pthread_rwlock_unlock(&q->lock);
        return r;
    }
    uint64_t table_end = (offset | MASK64(q->cluster_bits + q->l2_bits)) + 1;
    if (r == 0) {
        r = qcow2_find_run(q, offset, (table_end < end ? table_end : end) - offset, &run);
    }
    if (r == 0) {
        out->kind = kinds[run.kind];
        out->len = run.len;
        out->file_offset = run.kind == KIND_DATA ? run.host : UINT64_MAX;
    }
    pthread_rwlock_unlock(&q->lock);
    return r;
}
