/* SPDX-License-Identifier: Apache-2.0
 *
 * QCOW2 checked and repaired: all references are counted again and compared with the refcounts.
 * Too low a refcount, or a table that points nowhere, is a corruption; too high a one a leak.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/bytes.h"
#include "block/qcow2.h"

#define SAY_MAX 100u /* findings told one by one */

struct count {
    struct qcow2 *q;
    struct block_check *result;
    uint32_t *refs;    /* of each cluster of the file */
    uint64_t clusters; /* of the file */
    bool fix;          /* bad entries become empty */
    bool quiet;        /* again, after repair */
    bool broken_refs;  /* the refcounts cannot be fixed one by one */
    bool dirty;        /* leaks are what the next to write gives back, not findings */
    uint64_t awaiting; /* of these */
};

static void finding(struct count *c, bool leak, const char *what, uint64_t where)
{
    struct block_check *k = c->result;
    if (c->quiet) {
        return;
    }
    uint64_t n = leak ? ++k->leaks : ++k->corruptions;
    if (n <= SAY_MAX) {
        block_check_say(k, "%s: %s 0x%llx", leak ? "leak" : "error", what,
                        (unsigned long long)where);
    }
}

static bool in_file(const struct count *c, uint64_t offset, uint64_t len)
{
    uint64_t end = c->clusters << c->q->cluster_bits;
    return offset < end && len <= end - offset;
}

static void refer(struct count *c, uint64_t offset, uint64_t len)
{
    if (len == 0) {
        return;
    }
    uint64_t first = qcow2_index(c->q, offset), last = qcow2_index(c->q, offset + len - 1);
    for (uint64_t i = first; i <= last && i < c->clusters; i++) {
        c->refs[i] += c->refs[i] < UINT32_MAX;
    }
    if (last < c->clusters && (last + 1) << c->q->cluster_bits > c->result->end) {
        c->result->end = (last + 1) << c->q->cluster_bits;
    }
}

/* A cluster that a table names; false: it names nonsense. */
static bool refer_cluster(struct count *c, uint64_t offset, const char *what)
{
    if (offset % c->q->cluster_size != 0 || !in_file(c, offset, 1)) {
        finding(c, false, what, offset);
        return false;
    }
    refer(c, offset, c->q->cluster_size);
    return true;
}

static int drop_entry(struct count *c, uint64_t at, unsigned rank)
{
    uint64_t none = 0;
    if (!c->fix) {
        return 0;
    }
    c->result->corruptions_fixed++;
    return qcow2_store_table(c->q, at, &none, 1, rank);
}

static int count_l2(struct count *c, uint64_t table, uint64_t *l2, bool active)
{
    struct qcow2 *q = c->q;
    size_t entries = (size_t)1 << q->l2_bits;
    int r = qcow2_load_table(q, table, l2, entries);
    for (size_t i = 0; r == 0 && i < entries; i++) {
        uint64_t entry = l2[i], host = entry & QCOW2_OFFSET_MASK;
        if (entry & QCOW2_COMPRESSED) {
            uint32_t len;
            qcow2_compressed_range(q, entry, &host, &len);
            if (!in_file(c, host, 1)) {
                finding(c, false, "compressed cluster outside of the file", host);
                r = drop_entry(c, table + i * 8, RANK_L2);
                continue;
            }
            refer(c, host, len);
        } else if (host == 0) {
            continue;
        } else if (!refer_cluster(c, host, "L2 entry points nowhere")) {
            r = drop_entry(c, table + i * 8, RANK_L2);
            continue;
        }
        if (active && !c->quiet) {
            c->result->allocated++;
            c->result->compressed += (entry & QCOW2_COMPRESSED) != 0;
        }
    }
    return r;
}

static int count_l1(struct count *c, uint64_t l1, uint64_t size, bool active)
{
    struct qcow2 *q = c->q;
    if (size == 0) {
        return 0;
    }
    if (!in_file(c, l1, 1)) {
        finding(c, false, "L1 table outside of the file", l1);
        return 0;
    }
    refer(c, l1, size * 8);
    if (c->refs[qcow2_index(q, l1)] > 1) { /* and an image could make us walk it without end */
        finding(c, false, "L1 table is something else, too", l1);
        return 0;
    }
    uint64_t *l2 = try_alloc((size_t)1 << q->l2_bits, 8), entry;
    int r = l2 == NULL ? -ENOMEM : 0;
    for (uint64_t i = 0; r == 0 && i < size; i++) {
        r = qcow2_load_table(q, l1 + i * 8, &entry, 1);
        uint64_t table = entry & QCOW2_OFFSET_MASK;
        if (r < 0 || table == 0) {
            continue;
        }
        if (refer_cluster(c, table, "L1 entry points nowhere")) {
            if (c->refs[qcow2_index(q, table)] > q->snapshot_count + 1ull) {
                finding(c, false, "L2 table is in use twice", table);
                continue;
            }
            r = count_l2(c, table, l2, active);
        } else {
            r = drop_entry(c, l1 + i * 8, RANK_L1);
        }
    }
    free(l2);
    return r;
}

static int count_refcount_blocks(struct count *c)
{
    struct qcow2 *q = c->q;
    uint64_t entries = (uint64_t)q->rt_clusters << (q->cluster_bits - 3), entry;
    refer(c, q->rt_offset, (uint64_t)q->rt_clusters << q->cluster_bits);
    int r = 0;
    for (uint64_t i = 0; r == 0 && i < entries; i++) {
        r = qcow2_load_table(q, q->rt_offset + i * 8, &entry, 1);
        entry &= ~0x1ffull;
        if (r < 0 || entry == 0) {
            continue;
        }
        if (!refer_cluster(c, entry, "refcount block nowhere")) {
            c->broken_refs = true;
        } else if (c->refs[qcow2_index(q, entry)] > 1) {
            finding(c, false, "refcount block is something else, too", entry);
            c->broken_refs = true;
        }
    }
    return r;
}

static int count_all(struct count *c, bool refcounts_too)
{
    struct qcow2 *q = c->q;
    memset(c->refs, 0, (size_t)c->clusters * sizeof *c->refs);
    c->result->end = 0;
    refer(c, 0, q->cluster_size);
    int r = count_l1(c, q->l1_offset, q->l1_size, true);
    if (r == 0 && q->snapshot_count != 0) {
        struct qcow2_l1 *list;
        size_t count;
        uint64_t len;
        r = qcow2_snapshot_tables(q, &list, &count, &len);
        if (r < 0) {
            finding(c, false, "snapshot table cannot be read at", q->snapshots_offset);
            return r;
        }
        refer(c, q->snapshots_offset, len);
        for (size_t i = 0; r == 0 && i < count; i++) {
            r = count_l1(c, list[i].offset, list[i].size, false);
        }
        free(list);
    }
    return r == 0 && refcounts_too ? count_refcount_blocks(c) : r;
}

static int compare(struct count *c)
{
    int r = 0;
    for (uint64_t i = 0; r == 0 && i < c->clusters; i++) {
        uint64_t count, offset = i << c->q->cluster_bits;
        if (qcow2_refcount(c->q, i, &count) < 0) {
            c->broken_refs = true;
            count = 0;
        }
        if (count < c->refs[i]) {
            finding(c, false, "refcount too low for the cluster at", offset);
            c->broken_refs = true;
        } else if (count > c->refs[i] && c->dirty) {
            c->awaiting++;
        } else if (count > c->refs[i]) {
            finding(c, true, "cluster at", offset);
        }
    }
    return r;
}

static int check_flag(struct count *c, uint64_t entry, const char *what)
{
    uint64_t count, host = entry & QCOW2_OFFSET_MASK;
    if ((entry & QCOW2_COMPRESSED) || host == 0 || !in_file(c, host, 1)) {
        return 0;
    }
    int r = qcow2_refcount(c->q, qcow2_index(c->q, host), &count);
    if (r == 0 && (count == 1) != !!(entry & QCOW2_COPIED)) {
        finding(c, false, what, entry);
    }
    return r;
}

static int check_flags(struct count *c)
{
    struct qcow2 *q = c->q;
    size_t entries = (size_t)1 << q->l2_bits;
    uint64_t *l2 = try_alloc(entries, 8), entry;
    int r = l2 == NULL ? -ENOMEM : 0;
    for (uint32_t i = 0; r == 0 && i < q->l1_size; i++) {
        r = qcow2_load_table(q, q->l1_offset + i * 8ull, &entry, 1);
        uint64_t table = entry & QCOW2_OFFSET_MASK;
        if (r < 0 || table == 0 || table % q->cluster_size != 0 || !in_file(c, table, 1)) {
            continue;
        }
        r = check_flag(c, entry, "wrong flag in L1 entry");
        if (r == 0) {
            r = qcow2_load_table(q, table, l2, entries);
        }
        for (size_t k = 0; r == 0 && k < entries; k++) {
            r = check_flag(c, l2[k], "wrong flag in L2 entry");
        }
    }
    free(l2);
    return r;
}

static int lower_leaks(struct count *c)
{
    int r = 0;
    for (uint64_t i = 0; r == 0 && i < c->clusters; i++) {
        uint64_t count;
        r = qcow2_refcount(c->q, i, &count);
        if (r == 0 && count > c->refs[i]) {
            r = qcow2_set_refcount(c->q, i, c->refs[i]);
            c->result->leaks_fixed++;
        }
    }
    return r;
}

/* All refcounts anew, behind everything else, from what is referred to; then the header names
 * them. The old ones are then free. */
static int rebuild(struct count *c)
{
    struct qcow2 *q = c->q;
    uint64_t per_block = (uint64_t)q->cluster_size * 8 >> q->refcount_order;
    uint64_t per_table = q->cluster_size / 8, blocks = 0, tables = 0, total;
    int r = count_all(c, false);
    do {
        blocks++;
        tables = (blocks + per_table - 1) / per_table;
        total = c->clusters + tables + blocks;
    } while (blocks * per_block < total);
    if (r < 0 || tables * q->cluster_size > QCOW2_MAX_RT_BYTES) {
        return r < 0 ? r : -EFBIG;
    }
    r = meta_flush(q->meta);
    uint64_t rt_at = c->clusters << q->cluster_bits, blocks_at = rt_at + tables * q->cluster_size;
    uint8_t *rt = try_alloc((size_t)tables, q->cluster_size);
    if (r == 0 && rt == NULL) {
        r = -ENOMEM;
    }
    if (r == 0) {
        for (uint64_t i = 0; i < blocks; i++) {
            store_be64(rt + i * 8, blocks_at + i * q->cluster_size);
        }
        meta_forget(q->meta, rt_at, (tables + blocks) << q->cluster_bits);
        r = hostfile_zero(q->file, rt_at, (tables + blocks) << q->cluster_bits, false);
    }
    if (r == 0) {
        r = hostfile_write(q->file, rt_at, rt, (size_t)tables * q->cluster_size);
    }
    free(rt);
    uint64_t old_at = q->rt_offset;
    uint32_t old_clusters = q->rt_clusters;
    q->rt_offset = rt_at;
    q->rt_clusters = (uint32_t)tables;
    for (uint64_t i = 0; r == 0 && i < total; i++) {
        uint64_t count = i < c->clusters ? c->refs[i] : 1;
        r = count != 0 ? qcow2_set_refcount(q, i, count) : 0;
    }
    if (r == 0) {
        r = meta_flush(q->meta);
    }
    if (r < 0) {
        q->rt_offset = old_at;
        q->rt_clusters = old_clusters;
        return r;
    }
    c->result->end = total << q->cluster_bits;
    return qcow2_write_fields(q);
}

static int repair(struct count *c)
{
    struct qcow2 *q = c->q;
    struct block_check *k = c->result;
    uint64_t bad = k->corruptions, leaks = k->leaks;
    c->fix = true;
    c->quiet = true;
    int r = count_all(c, true); /* drops the entries that point nowhere */
    if (r == 0) {
        r = c->broken_refs || bad != 0 ? rebuild(c) : lower_leaks(c);
    }
    if (r == 0) {
        q->hint = 0;
        r = qcow2_fix_flags(q);
    }
    if (r == 0) {
        r = qcow2_flush_tables(q);
    }
    if (r == 0 && q->incompatible & (QCOW2_DIRTY | QCOW2_CORRUPT)) {
        q->incompatible &= ~(uint64_t)(QCOW2_DIRTY | QCOW2_CORRUPT);
        r = qcow2_write_features(q);
    }
    if (r == 0) {
        k->corruptions_fixed = bad;
        k->leaks_fixed = leaks;
    }
    return r;
}

int qcow2_check(struct block *b, bool fix, struct block_check *result, struct err *e)
{
    struct qcow2 *q = b->priv;
    uint64_t size;
    pthread_rwlock_wrlock(&q->lock);
    int r = b->readonly ? 0 : qcow2_flush_tables(q);
    if (r == 0) {
        r = hostfile_size(b->file, &size);
    }
    struct count c = { .q = q, .result = result, .dirty = !fix && (q->incompatible & QCOW2_DIRTY) };
    if (r == 0) {
        c.clusters = (size >> q->cluster_bits) + ((size & (q->cluster_size - 1)) != 0);
        c.refs = try_alloc((size_t)c.clusters, sizeof *c.refs);
        r = c.refs == NULL ? err_set(e, -ENOMEM, "no memory to count its clusters") : 0;
    }
    uint64_t disk = block_size(b);
    result->clusters = (disk >> q->cluster_bits) + ((disk & (q->cluster_size - 1)) != 0);
    if (r == 0) {
        r = count_all(&c, true);
    }
    if (r == 0) {
        r = compare(&c);
    }
    if (r == 0 && c.awaiting != 0) {
        block_check_say(result,
                        "was not closed properly: %" PRIu64 " leaked clusters are given back when "
                        "it is next opened for writing",
                        c.awaiting);
    }
    if (r == 0) {
        r = check_flags(&c);
    }
    if (r == 0 && fix) {
        r = repair(&c);
    }
    pthread_rwlock_unlock(&q->lock);
    free(c.refs);
    return r;
}
