/* SPDX-License-Identifier: Apache-2.0
 *
 * Refcounts of host clusters: a table of blocks of counts of 1 to 64 bits, found, changed, grown.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/bytes.h"
#include "block/qcow2.h"

/* An image that counts references far past the end of its file wastes our time, not more. */
#define SCAN_PAST_END (1ull << 22)

static unsigned block_bits(const struct qcow2 *q)
{
    return q->cluster_bits + 3 - q->refcount_order; /* counts in a block */
}

static uint64_t covered(const struct qcow2 *q) /* clusters that the table can count */
{
    return ((uint64_t)q->rt_clusters << (q->cluster_bits - 3)) << block_bits(q);
}

uint64_t qcow2_max_refcount(const struct qcow2 *q) { return MASK64(1u << q->refcount_order); }

static uint64_t get_count(const struct qcow2 *q, const uint8_t *bytes, uint64_t index)
{
    switch (q->refcount_order) {
    case 3:
        return bytes[index];
    case 4:
        return load_be16(bytes + index * 2);
    case 5:
        return load_be32(bytes + index * 4);
    case 6:
        return load_be64(bytes + index * 8);
    default: {
        uint64_t bit = index << q->refcount_order;
        return (bytes[bit / 8] >> (bit % 8)) & MASK64(1u << q->refcount_order);
    }
    }
}

static void put_count(const struct qcow2 *q, uint8_t *bytes, uint64_t index, uint64_t count)
{
    switch (q->refcount_order) {
    case 3:
        bytes[index] = (uint8_t)count;
        break;
    case 4:
        store_be16(bytes + index * 2, (uint16_t)count);
        break;
    case 5:
        store_be32(bytes + index * 4, (uint32_t)count);
        break;
    case 6:
        store_be64(bytes + index * 8, count);
        break;
    default: {
        uint64_t bit = index << q->refcount_order;
        uint64_t mask = MASK64(1u << q->refcount_order) << (bit % 8);
        bytes[bit / 8] = (uint8_t)((bytes[bit / 8] & ~mask) | (count << (bit % 8)));
    }
    }
}

/* Where the block that counts cluster is; 0: there is none. */
static int find_block(struct qcow2 *q, uint64_t cluster, uint64_t *offset)
{
    uint8_t bytes[8];
    *offset = 0;
    if (cluster >= covered(q)) {
        return 0;
    }
    uint64_t index = cluster >> block_bits(q);
    int r = meta_read(q->meta, q->rt_offset + index * 8, bytes, sizeof bytes);
    if (r < 0) {
        return r;
    }
    *offset = load_be64(bytes) & ~0x1ffull;
    if (*offset & (q->cluster_size - 1) || *offset > QCOW2_OFFSET_MASK) {
        return qcow2_corrupt(q, "refcount table entry", *offset);
    }
    return 0;
}

/* The bytes with cluster's count in them: 8 of a block, at most. */
static void locate(const struct qcow2 *q, uint64_t cluster, uint64_t *at, size_t *len)
{
    uint64_t index = cluster & MASK64(block_bits(q));
    *at = (index << q->refcount_order) / 8;
    *len = q->refcount_order > 3 ? (size_t)1 << (q->refcount_order - 3) : 1;
}

/* As get_count, in the bytes that locate found. */
static uint64_t index_there(const struct qcow2 *q, uint64_t cluster)
{
    return q->refcount_order < 3 ? cluster & MASK64(3 - q->refcount_order) : 0;
}

int qcow2_refcount(struct qcow2 *q, uint64_t cluster, uint64_t *count)
{
    uint64_t block, at;
    uint8_t bytes[8];
    size_t len;
    *count = 0;
    int r = find_block(q, cluster, &block);
    if (r < 0 || block == 0) {
        return r;
    }
    locate(q, cluster, &at, &len);
    r = meta_read(q->meta, block + at, bytes, len);
    if (r == 0) {
        *count = get_count(q, bytes, index_there(q, cluster));
    }
    return r;
}

int qcow2_set_refcount(struct qcow2 *q, uint64_t cluster, uint64_t count)
{
    uint64_t block, at;
    uint8_t bytes[8];
    size_t len;
    if (count > qcow2_max_refcount(q)) {
        return -ERANGE;
    }
    int r = find_block(q, cluster, &block);
    if (r < 0) {
        return r;
    }
    if (block == 0) {
        return qcow2_corrupt(q, "no refcount for cluster", cluster);
    }
    locate(q, cluster, &at, &len);
    r = meta_read(q->meta, block + at, bytes, len);
    if (r == 0) {
        put_count(q, bytes, index_there(q, cluster), count);
        r = meta_write(q->meta, block + at, bytes, len, RANK_REFS);
    }
    return r;
}

int qcow2_add_refcount(struct qcow2 *q, uint64_t cluster, int change)
{
    uint64_t count;
    int r = qcow2_refcount(q, cluster, &count);
    if (r < 0) {
        return r;
    }
    if (change < 0 && count == 0) {
        return qcow2_corrupt(q, "reference to a free cluster", cluster);
    }
    if (change > 0 && count == qcow2_max_refcount(q)) {
        return -ERANGE;
    }
    count += (uint64_t)(int64_t)change;
    if (count == 0 && cluster < q->hint) {
        q->hint = cluster;
    }
    return qcow2_set_refcount(q, cluster, count);
}

/* Looks at counts by pieces of a block: an image may have millions. */
struct scan {
    uint64_t first, end; /* clusters whose counts are in bytes */
    bool free;           /* all of them: no block counts them */
    uint8_t bytes[512];
};

static int scan_at(struct qcow2 *q, struct scan *s, uint64_t cluster)
{
    if (cluster >= s->first && cluster < s->end) {
        return 0;
    }
    uint64_t block;
    int r = find_block(q, cluster, &block);
    if (r < 0) {
        return r;
    }
    s->free = block == 0;
    uint64_t per_block = 1ull << block_bits(q),
             per_piece = (sizeof s->bytes * 8ull) >> q->refcount_order;
    uint64_t step = s->free || per_block < per_piece ? per_block : per_piece;
    s->first = align_down(cluster, step);
    s->end = s->first + step;
    if (s->free) {
        return 0;
    }
    uint64_t at = ((s->first & MASK64(block_bits(q))) << q->refcount_order) / 8;
    return meta_read(q->meta, block + at, s->bytes, (size_t)((step << q->refcount_order) / 8));
}

static int find_free(struct qcow2 *q, uint64_t clusters, uint64_t *first)
{
    struct scan s = { .first = 1, .end = 0 };
    uint64_t size, run = 0;
    int r = hostfile_size(q->file, &size);
    if (r < 0) {
        return r;
    }
    uint64_t limit = (size >> q->cluster_bits) + SCAN_PAST_END + clusters;
    for (uint64_t c = q->hint; run < clusters; c++) {
        if (c >= limit) {
            return qcow2_corrupt(q, "refcounts past the end of the file", c);
        }
        r = scan_at(q, &s, c);
        if (r < 0) {
            return r;
        }
        bool free = s.free || get_count(q, s.bytes, c - s.first) == 0;
        run = free ? run + 1 : 0;
        *first = c + 1 - run;
    }
    return *first + clusters > QCOW2_OFFSET_MASK >> q->cluster_bits ? -EFBIG : 0;
}

/* A block for the counts around cluster, which is free: it becomes that block, counting itself. */
static int add_block(struct qcow2 *q, uint64_t cluster)
{
    uint8_t entry[8];
    uint64_t offset = cluster << q->cluster_bits;
    meta_forget(q->meta, offset, q->cluster_size);
    int r = meta_zero(q->meta, offset, q->cluster_size, RANK_REFS);
    if (r == 0) {
        store_be64(entry, offset);
        uint64_t index = cluster >> block_bits(q);
        r = meta_write(q->meta, q->rt_offset + index * 8, entry, sizeof entry, RANK_REF_TABLE);
    }
    return r < 0 ? r : qcow2_set_refcount(q, cluster, 1);
}

/* Every cluster of the range can be counted; -EAGAIN: something was added for that, look again. */
static int ensure_blocks(struct qcow2 *q, uint64_t first, uint64_t clusters)
{
    for (uint64_t c = first; c < first + clusters; c = (c | MASK64(block_bits(q))) + 1) {
        uint64_t block;
        if (c >= covered(q)) {
            int r = qcow2_grow_table(q, c);
            return r < 0 ? r : -EAGAIN;
        }
        int r = find_block(q, c, &block);
        if (r == 0 && block == 0) {
            r = add_block(q, c);
            return r < 0 ? r : -EAGAIN;
        }
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

int qcow2_alloc(struct qcow2 *q, uint64_t clusters, uint64_t *offset)
{
    uint64_t first = 0;
    int r;
    do {
        r = find_free(q, clusters, &first);
        if (r == 0) {
            r = ensure_blocks(q, first, clusters);
        }
    } while (r == -EAGAIN);
    for (uint64_t c = first; r == 0 && c < first + clusters; c++) {
        r = qcow2_set_refcount(q, c, 1);
    }
    if (r < 0) {
        return r;
    }
    if (clusters == 1 || first == q->hint) {
        q->hint = first + clusters;
    }
    *offset = first << q->cluster_bits;
    meta_forget(q->meta, *offset, clusters << q->cluster_bits);
    return 0;
}

int qcow2_alloc_packed(struct qcow2 *q, uint32_t len, uint64_t *offset)
{
    uint64_t mask = q->cluster_size - 1;
    uint64_t left = q->packed_to != 0 ? (q->cluster_size - (q->packed_to & mask)) & mask : 0;
    uint64_t open = q->packed_to & ~mask;
    int r = 0;
    if (left < len) {
        uint64_t next;
        r = qcow2_alloc(q, 1, &next);
        if (r < 0) {
            return r;
        }
        bool adjacent = left != 0 && next == open + q->cluster_size;
        if (adjacent) {
            r = qcow2_add_refcount(q, open >> q->cluster_bits, 1);
            if (r == -ERANGE) {
                adjacent = false; /* the old cluster is as full of references as can be */
                r = 0;
            }
        }
        *offset = adjacent ? q->packed_to : next;
    } else {
        r = qcow2_add_refcount(q, open >> q->cluster_bits, 1);
        if (r == -ERANGE) {
            q->packed_to = 0;
            return qcow2_alloc_packed(q, len, offset);
        }
        *offset = q->packed_to;
    }
    q->packed_to = *offset + len;
    if ((q->packed_to & mask) == 0) {
        q->packed_to = 0;
    }
    return r;
}

void qcow2_unalloc(struct qcow2 *q, uint64_t offset, uint64_t clusters)
{
    for (uint64_t i = 0; i < clusters; i++) {
        /* A failure leaks the cluster, as said on the tin. */
        int r = qcow2_add_refcount(q, qcow2_index(q, offset) + i, -1);
        (void)r;
    }
}

int qcow2_free_later(struct qcow2 *q, uint64_t offset, uint64_t clusters)
{
    if (q->freed_count + clusters > q->freed_room) {
        size_t room = 2 * (q->freed_count + (size_t)clusters);
        uint64_t *list = realloc(q->freed, room * sizeof *list);
        if (list == NULL) {
            return 0; /* leaked, no worse */
        }
        q->freed = list;
        q->freed_room = room;
    }
    for (uint64_t i = 0; i < clusters; i++) {
        q->freed[q->freed_count++] = qcow2_index(q, offset) + i;
    }
    return 0;
}

int qcow2_free_entry(struct qcow2 *q, uint64_t entry)
{
    if (entry & QCOW2_COMPRESSED) {
        uint64_t offset;
        uint32_t len;
        qcow2_compressed_range(q, entry, &offset, &len);
        uint64_t first = qcow2_index(q, offset), last = qcow2_index(q, offset + len - 1);
        return qcow2_free_later(q, first << q->cluster_bits, last - first + 1);
    }
    uint64_t host = entry & QCOW2_OFFSET_MASK;
    return host != 0 ? qcow2_free_later(q, host, 1) : 0;
}

/* Nothing in the file points to these any more. What was data there gives its space back. */
static int apply_freed(struct qcow2 *q)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < q->freed_count; i++) {
        uint64_t count, cluster = q->freed[i];
        r = qcow2_add_refcount(q, cluster, -1);
        if (r == 0) {
            r = qcow2_refcount(q, cluster, &count);
        }
        if (r == 0 && count == 0) {
            if (q->packed_to != 0 && qcow2_index(q, q->packed_to) == cluster) {
                q->packed_to = 0;
            }
            meta_forget(q->meta, cluster << q->cluster_bits, q->cluster_size);
            int punched = hostfile_punch(q->file, cluster << q->cluster_bits, q->cluster_size);
            (void)punched;
        }
    }
    q->freed_count = 0;
    return r;
}

/* Whoever is killed between counting clusters and pointing to them, or between no more pointing and
 * no more counting, leaves leaks: the dirty bit is there meanwhile, and the next to write counts
 * again. It is on the medium before the tables are, as these begin with a sync. */
static int flush_marked(struct qcow2 *q)
{
    if (q->version >= 3 && !(q->incompatible & QCOW2_DIRTY) && meta_is_dirty(q->meta)) {
        q->incompatible |= QCOW2_DIRTY;
        int r = qcow2_store_features(q);
        if (r < 0) {
            q->incompatible &= ~(uint64_t)QCOW2_DIRTY;
            return r;
        }
        q->flushing = true;
    }
    return meta_flush(q->meta);
}

/* What became free is counted down in memory only, and the bit stays until that is written. */
int qcow2_flush_tables(struct qcow2 *q)
{
    int r = flush_marked(q);
    if (r == 0 && q->freed_count != 0) {
        r = apply_freed(q);
    }
    if (r == 0 && q->flushing && !meta_is_dirty(q->meta)) {
        q->flushing = false;
        q->incompatible &= ~(uint64_t)QCOW2_DIRTY;
        r = qcow2_store_features(q);
    }
    return r;
}

/* A larger table, with the blocks that count itself and them, in clusters that nothing counts yet.
 * The old table goes when the header names the new one. */
int qcow2_grow_table(struct qcow2 *q, uint64_t cluster)
{
    uint64_t per_block = 1ull << block_bits(q), per_table = q->cluster_size / 8;
    uint64_t first = covered(q) > cluster ? covered(q) : cluster;
    first = align_up(first, per_block);
    uint64_t blocks = 1, tables = 0, entries;
    for (uint64_t before = 0; before != blocks + tables;) {
        before = blocks + tables;
        entries = first / per_block + blocks;
        tables = (entries + entries / 2 + per_table - 1) / per_table;
        blocks = (blocks + tables + per_block - 1) / per_block;
    }
    if (tables * q->cluster_size > QCOW2_MAX_RT_BYTES) {
        return -EFBIG;
    }
    int r = flush_marked(q);
    size_t counts_len = (size_t)(blocks * q->cluster_size),
           len = (size_t)(tables * q->cluster_size);
    uint8_t *counts = try_alloc(1, counts_len), *table = try_alloc(1, len);
    uint64_t block_at = first << q->cluster_bits, table_at = block_at + counts_len;
    if (counts == NULL || table == NULL) {
        r = -ENOMEM;
    }
    if (r == 0) {
        r = meta_read(q->meta, q->rt_offset, table, (size_t)q->rt_clusters << q->cluster_bits);
    }
    if (r == 0) {
        for (uint64_t i = 0; i < blocks; i++) {
            store_be64(table + (first / per_block + i) * 8, block_at + i * q->cluster_size);
        }
        for (uint64_t i = 0; i < blocks + tables; i++) {
            put_count(q, counts, i, 1);
        }
        meta_forget(q->meta, block_at, counts_len + len);
        r = hostfile_write(q->file, block_at, counts, counts_len);
    }
    if (r == 0) {
        r = hostfile_write(q->file, table_at, table, len);
    }
    if (r == 0) {
        r = hostfile_sync(q->file);
    }
    free(counts);
    free(table);
    if (r < 0) {
        return r;
    }
    uint64_t old = q->rt_offset, old_clusters = q->rt_clusters;
    q->rt_offset = table_at;
    q->rt_clusters = (uint32_t)tables;
    r = qcow2_write_fields(q);
    if (r < 0) {
        q->rt_offset = old;
        q->rt_clusters = (uint32_t)old_clusters;
        return r;
    }
    return qcow2_free_later(q, old, old_clusters);
}
