/* SPDX-License-Identifier: Apache-2.0
 *
 * Internal snapshots of QCOW2: each is an L1 table of its own whose clusters are counted once more.
 *
 * A change is prepared in clusters that nothing refers to, and takes effect when the header names
 * them, in one write. While refcounts and the flags that mirror them are being rewritten the image
 * is marked dirty, so that whoever opens it after a crash counts again.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/bytes.h"
#include "block/qcow2.h"

#define ENTRY_BYTES 40u
#define EXTRA_MAX 1024u
#define TABLE_MAX (16u << 20)

struct entry {
    uint64_t l1_offset;
    uint32_t l1_size;
    uint32_t seconds, nanoseconds;
    uint64_t vm_clock;
    uint64_t vm_state_size;
    uint64_t disk_size;
    uint8_t extra[EXTRA_MAX]; /* as it came: others' words stay */
    uint32_t extra_len;
    char *id, *name;
};

struct table {
    struct entry *list;
    size_t count;
    uint64_t bytes; /* in the file */
};

static void table_free(struct table *t)
{
    for (size_t i = 0; i < t->count; i++) {
        free(t->list[i].id);
        free(t->list[i].name);
    }
    free(t->list);
}

static int read_text(struct qcow2 *q, uint64_t at, size_t len, char **out)
{
    char *text = xzalloc(len + 1);
    int r = meta_read(q->meta, at, text, len);
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)text[i] < ' ') { /* it will be shown on a terminal */
            text[i] = '?';
        }
    }
    *out = text;
    return r;
}

static int read_one(struct qcow2 *q, uint64_t *at, struct entry *s)
{
    uint8_t h[ENTRY_BYTES];
    int r = meta_read(q->meta, *at, h, sizeof h);
    if (r < 0) {
        return r;
    }
    s->l1_offset = load_be64(h);
    s->l1_size = load_be32(h + 8);
    size_t id_len = load_be16(h + 12), name_len = load_be16(h + 14);
    s->seconds = load_be32(h + 16);
    s->nanoseconds = load_be32(h + 20);
    s->vm_clock = load_be64(h + 24);
    s->vm_state_size = load_be32(h + 32);
    s->extra_len = load_be32(h + 36);
    if (s->extra_len > EXTRA_MAX) {
        return qcow2_corrupt(q, "snapshot with extra data of length", s->extra_len);
    }
    if (s->l1_offset % q->cluster_size != 0 || s->l1_offset > QCOW2_OFFSET_MASK ||
        s->l1_size * 8ull > QCOW2_MAX_L1_BYTES) {
        return qcow2_corrupt(q, "L1 table of a snapshot at", s->l1_offset);
    }
    *at += sizeof h;
    r = meta_read(q->meta, *at, s->extra, s->extra_len);
    *at += s->extra_len;
    if (s->extra_len >= 8) {
        s->vm_state_size = load_be64(s->extra);
    }
    s->disk_size = s->extra_len >= 16 ? load_be64(s->extra + 8) : block_size(q->block);
    if (r == 0) {
        r = read_text(q, *at, id_len, &s->id);
    }
    *at += id_len;
    if (r == 0) {
        r = read_text(q, *at, name_len, &s->name);
    }
    *at = align_up(*at + name_len, 8);
    return r;
}

static int table_read(struct qcow2 *q, struct table *t)
{
    uint64_t at = q->snapshots_offset;
    t->count = 0;
    t->list = try_alloc(q->snapshot_count + 1ull, sizeof *t->list);
    if (t->list == NULL) {
        return -ENOMEM;
    }
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < q->snapshot_count; i++) {
        t->count = i + 1;
        r = read_one(q, &at, &t->list[i]);
        if (r == 0 && at - q->snapshots_offset > TABLE_MAX) {
            r = qcow2_corrupt(q, "snapshot table is longer than", TABLE_MAX);
        }
    }
    t->bytes = at - q->snapshots_offset;
    if (r < 0) {
        table_free(t);
    }
    return r;
}

static int find_named(const struct table *t, const char *name)
{
    for (size_t i = 0; i < t->count; i++) {
        if (strcmp(t->list[i].name, name) == 0) {
            return (int)i;
        }
    }
    for (size_t i = 0; i < t->count; i++) {
        if (strcmp(t->list[i].id, name) == 0) {
            return (int)i;
        }
    }
    return -1;
}

int qcow2_snapshot_tables(struct qcow2 *q, struct qcow2_l1 **list, size_t *count,
                          uint64_t *table_len)
{
    struct table t;
    int r = table_read(q, &t);
    if (r < 0) {
        return r;
    }
    *list = xcalloc(t.count + 1, sizeof **list);
    *count = t.count;
    *table_len = t.bytes;
    for (size_t i = 0; i < t.count; i++) {
        (*list)[i] = (struct qcow2_l1){ t.list[i].l1_offset, t.list[i].l1_size };
    }
    table_free(&t);
    return 0;
}

int qcow2_enter_snapshot(struct qcow2 *q, const char *name, struct err *e)
{
    struct table t;
    int r = table_read(q, &t);
    if (r < 0) {
        return err_set(e, r, "%s: snapshot table cannot be read", q->block->path);
    }
    int i = find_named(&t, name);
    if (i < 0) {
        r = err_set(e, -ENOENT, "%s: no snapshot '%s'", q->block->path, name);
    } else {
        const struct entry *s = &t.list[i];
        unsigned span = q->cluster_bits + q->l2_bits;
        q->l1_offset = s->l1_offset;
        q->l1_size = s->l1_size;
        atomic_store(&q->block->size, s->disk_size);
        if (s->disk_size > BLOCK_SIZE_MAX ||
            (s->disk_size >> span) + ((s->disk_size & MASK64(span)) != 0) > s->l1_size) {
            r = err_set(e, -EINVAL, "%s: damaged snapshot '%s'", q->block->path, name);
        }
    }
    table_free(&t);
    return r;
}

int qcow2_snapshot_list(struct block *b, struct block_snapshot **list, size_t *count, struct err *e)
{
    struct qcow2 *q = b->priv;
    struct table t;
    int r = table_read(q, &t);
    if (r < 0) {
        return err_set(e, r, "%s: snapshot table cannot be read", b->path);
    }
    *list = xcalloc(t.count + 1, sizeof **list);
    *count = t.count;
    for (size_t i = 0; i < t.count; i++) {
        const struct entry *s = &t.list[i];
        (*list)[i] = (struct block_snapshot){ .id = xstrdup(s->id),
                                              .name = xstrdup(s->name),
                                              .size = s->disk_size,
                                              .vm_state_size = s->vm_state_size,
                                              .seconds = s->seconds,
                                              .nanoseconds = s->nanoseconds };
    }
    table_free(&t);
    return 0;
}

/* In clusters of its own; the header does not name it yet. */
static int table_write(struct qcow2 *q, const struct table *t, uint64_t *offset, uint64_t *len)
{
    size_t room = 0;
    for (size_t i = 0; i < t->count; i++) {
        const struct entry *s = &t->list[i];
        room += ENTRY_BYTES + s->extra_len + strlen(s->id) + strlen(s->name) + 8;
    }
    *offset = 0;
    *len = 0;
    if (t->count == 0) {
        return 0;
    }
    uint64_t clusters = (room + q->cluster_size - 1) >> q->cluster_bits;
    uint8_t *bytes = try_alloc(1, (size_t)(clusters << q->cluster_bits));
    if (bytes == NULL) {
        return -ENOMEM;
    }
    size_t at = 0;
    for (size_t i = 0; i < t->count; i++) {
        const struct entry *s = &t->list[i];
        uint8_t *h = bytes + at;
        store_be64(h, s->l1_offset);
        store_be32(h + 8, s->l1_size);
        store_be16(h + 12, (uint16_t)strlen(s->id));
        store_be16(h + 14, (uint16_t)strlen(s->name));
        store_be32(h + 16, s->seconds);
        store_be32(h + 20, s->nanoseconds);
        store_be64(h + 24, s->vm_clock);
        store_be32(h + 32, s->vm_state_size > UINT32_MAX ? 0 : (uint32_t)s->vm_state_size);
        store_be32(h + 36, s->extra_len);
        at += ENTRY_BYTES;
        memcpy(bytes + at, s->extra, s->extra_len);
        at += s->extra_len;
        memcpy(bytes + at, s->id, strlen(s->id));
        at += strlen(s->id);
        memcpy(bytes + at, s->name, strlen(s->name));
        at = (size_t)align_up(at + strlen(s->name), 8);
    }
    *len = clusters;
    int r = qcow2_alloc(q, clusters, offset);
    if (r == 0) {
        r = meta_write(q->meta, *offset, bytes, (size_t)(clusters << q->cluster_bits), RANK_L1);
    }
    free(bytes);
    return r;
}

static int set_dirty(struct qcow2 *q, bool dirty)
{
    q->incompatible = (q->incompatible & ~(uint64_t)QCOW2_DIRTY) | (dirty ? QCOW2_DIRTY : 0);
    return qcow2_write_features(q);
}

static int count_entry(struct qcow2 *q, uint64_t entry, int change)
{
    uint64_t first, last;
    int r = 0;
    if (entry & QCOW2_COMPRESSED) {
        uint32_t len;
        qcow2_compressed_range(q, entry, &first, &len);
        last = qcow2_index(q, first + len - 1);
        first = qcow2_index(q, first);
    } else {
        first = last = qcow2_index(q, entry & QCOW2_OFFSET_MASK);
        if (first == 0) {
            return 0;
        }
    }
    for (uint64_t c = first; r == 0 && c <= last; c++) {
        r = change > 0 ? qcow2_add_refcount(q, c, change)
                       : qcow2_free_later(q, c << q->cluster_bits, 1);
    }
    return r;
}

/* All clusters that an L1 table leads to are counted once more, or once less after a flush. */
static int count_tree(struct qcow2 *q, uint64_t l1_offset, uint32_t l1_size, int change)
{
    size_t entries = (size_t)1 << q->l2_bits;
    uint64_t *l2 = try_alloc(entries, 8), l1_entry;
    int r = l2 == NULL ? -ENOMEM : 0;
    for (uint32_t i = 0; r == 0 && i < l1_size; i++) {
        r = qcow2_load_table(q, l1_offset + i * 8ull, &l1_entry, 1);
        uint64_t table = l1_entry & QCOW2_OFFSET_MASK;
        if (r < 0 || table == 0) {
            continue;
        }
        if (table % q->cluster_size != 0) {
            r = qcow2_corrupt(q, "L1 entry", l1_entry);
        }
        if (r == 0) {
            r = qcow2_load_table(q, table, l2, entries);
        }
        for (size_t k = 0; r == 0 && k < entries; k++) {
            r = count_entry(q, l2[k], change);
        }
        if (r == 0) {
            r = count_entry(q, table, change);
        }
    }
    free(l2);
    return r;
}

static bool wanted_flag(uint64_t entry, uint64_t count)
{
    return !(entry & QCOW2_COMPRESSED) && (entry & QCOW2_OFFSET_MASK) != 0 && count == 1;
}

static int fix_flag(struct qcow2 *q, uint64_t at, uint64_t entry, unsigned rank)
{
    uint64_t count = 0;
    uint64_t host = entry & QCOW2_COMPRESSED ? 0 : entry & QCOW2_OFFSET_MASK;
    int r = host != 0 ? qcow2_refcount(q, qcow2_index(q, host), &count) : 0;
    uint64_t fixed = (entry & ~QCOW2_COPIED) | (wanted_flag(entry, count) ? QCOW2_COPIED : 0);
    return r < 0 || fixed == entry ? r : qcow2_store_table(q, at, &fixed, 1, rank);
}

/* The flags of the active tables say again what the refcounts say. */
int qcow2_fix_flags(struct qcow2 *q)
{
    size_t entries = (size_t)1 << q->l2_bits;
    uint64_t *l2 = try_alloc(entries, 8), l1_entry;
    int r = l2 == NULL ? -ENOMEM : 0;
    for (uint32_t i = 0; r == 0 && i < q->l1_size; i++) {
        uint64_t at = q->l1_offset + i * 8ull;
        r = qcow2_load_table(q, at, &l1_entry, 1);
        uint64_t table = l1_entry & QCOW2_OFFSET_MASK;
        if (r < 0 || table == 0) {
            continue;
        }
        r = qcow2_load_table(q, table, l2, entries);
        for (size_t k = 0; r == 0 && k < entries; k++) {
            r = fix_flag(q, table + k * 8, l2[k], RANK_L2);
        }
        if (r == 0) {
            r = fix_flag(q, at, l1_entry, RANK_L1);
        }
    }
    free(l2);
    return r;
}

static int copy_l1(struct qcow2 *q, uint64_t from, uint32_t entries, uint32_t room, uint64_t *to)
{
    uint64_t clusters = (room * 8ull + q->cluster_size - 1) >> q->cluster_bits;
    clusters = clusters != 0 ? clusters : 1;
    uint8_t *bytes = try_alloc(1, (size_t)(clusters << q->cluster_bits));
    int r = bytes == NULL ? -ENOMEM : meta_read(q->meta, from, bytes, entries * 8ull);
    if (r == 0) {
        r = qcow2_alloc(q, clusters, to);
    }
    if (r == 0) {
        r = meta_write(q->meta, *to, bytes, (size_t)(clusters << q->cluster_bits), RANK_L1);
    }
    free(bytes);
    return r;
}

static int free_l1(struct qcow2 *q, uint64_t offset, uint32_t entries)
{
    uint64_t clusters = (entries * 8ull + q->cluster_size - 1) >> q->cluster_bits;
    return qcow2_free_later(q, offset, clusters != 0 ? clusters : 1);
}

/* The header names t instead of the table there was. */
static int replace_table(struct qcow2 *q, const struct table *t)
{
    uint64_t old = q->snapshots_offset, offset, clusters;
    uint64_t old_clusters = (t->bytes + q->cluster_size - 1) >> q->cluster_bits;
    int r = table_write(q, t, &offset, &clusters);
    if (r == 0) {
        r = meta_flush(q->meta);
    }
    if (r < 0) {
        return r;
    }
    q->snapshots_offset = offset;
    q->snapshot_count = (uint32_t)t->count;
    r = qcow2_write_fields(q);
    return r == 0 && old != 0 && old_clusters != 0 ? qcow2_free_later(q, old, old_clusters) : r;
}

static char *new_id(const struct table *t)
{
    unsigned long max = 0;
    for (size_t i = 0; i < t->count; i++) {
        unsigned long id = strtoul(t->list[i].id, NULL, 10);
        max = id > max && id < UINT32_MAX ? id : max;
    }
    return xasprintf("%lu", max + 1);
}

static int create(struct qcow2 *q, struct table *t, const char *name, struct err *e)
{
    for (size_t i = 0; i < t->count; i++) {
        if (strcmp(t->list[i].name, name) == 0) {
            return err_set(e, -EEXIST, "%s: there is a snapshot '%s' already", q->block->path,
                           name);
        }
    }
    if (t->count >= QCOW2_MAX_SNAPSHOTS || strlen(name) > 255) {
        return err_set(e, -EINVAL, "%s: too many snapshots, or too long a name", q->block->path);
    }
    if (qcow2_max_refcount(q) == 1) {
        return err_set(e, -ERANGE, "%s: refcounts of one bit cannot count snapshots",
                       q->block->path);
    }
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct entry s = { .l1_size = q->l1_size,
                       .seconds = (uint32_t)now.tv_sec,
                       .nanoseconds = (uint32_t)now.tv_nsec,
                       .extra_len = 24 };
    store_be64(s.extra + 8, block_size(q->block));
    store_be64(s.extra + 16, UINT64_MAX); /* no instruction count */
    int r = count_tree(q, q->l1_offset, q->l1_size, 1);
    if (r == -ERANGE) {
        return err_set(e, r, "%s: refcounts of %u bits cannot count another snapshot",
                       q->block->path, 1u << q->refcount_order);
    }
    if (r == 0) {
        r = qcow2_fix_flags(q);
    }
    if (r == 0) {
        r = copy_l1(q, q->l1_offset, q->l1_size, q->l1_size, &s.l1_offset);
    }
    if (r < 0) {
        return r;
    }
    s.id = new_id(t);
    s.name = xstrdup(name);
    t->list[t->count++] = s; /* table_read left room for one */
    return replace_table(q, t);
}

static int apply(struct qcow2 *q, const struct entry *s, struct err *e)
{
    unsigned span = q->cluster_bits + q->l2_bits;
    uint64_t needed = (s->disk_size >> span) + ((s->disk_size & MASK64(span)) != 0);
    if (s->disk_size > BLOCK_SIZE_MAX || needed > s->l1_size) {
        return err_set(e, -EINVAL, "%s: damaged snapshot '%s'", q->block->path, s->name);
    }
    uint64_t old = q->l1_offset, l1;
    uint32_t old_size = q->l1_size;
    int r = count_tree(q, s->l1_offset, s->l1_size, 1);
    if (r == 0) {
        r = copy_l1(q, s->l1_offset, s->l1_size, s->l1_size, &l1);
    }
    if (r == 0) {
        r = meta_flush(q->meta);
    }
    if (r < 0) {
        return r;
    }
    q->l1_offset = l1;
    q->l1_size = s->l1_size;
    atomic_store(&q->block->size, s->disk_size);
    r = qcow2_write_fields(q);
    if (r == 0) {
        r = count_tree(q, old, old_size, -1);
    }
    if (r == 0) {
        r = free_l1(q, old, old_size);
    }
    return r;
}

static int delete (struct qcow2 *q, struct table *t, size_t i)
{
    struct entry gone = t->list[i];
    memmove(&t->list[i], &t->list[i + 1], (t->count - i - 1) * sizeof *t->list);
    t->count--;
    int r = replace_table(q, t);
    if (r == 0) {
        r = count_tree(q, gone.l1_offset, gone.l1_size, -1);
    }
    if (r == 0) {
        r = free_l1(q, gone.l1_offset, gone.l1_size);
    }
    free(gone.id);
    free(gone.name);
    return r;
}

static int change_locked(struct qcow2 *q, enum block_snapshot_verb verb, const char *name,
                         struct err *e)
{
    struct table t;
    int r = qcow2_flush_tables(q);
    if (r == 0) {
        r = table_read(q, &t);
    }
    if (r < 0) {
        return r;
    }
    int i = find_named(&t, name);
    if (verb != BLOCK_SNAPSHOT_CREATE && i < 0) {
        table_free(&t);
        return err_set(e, -ENOENT, "%s: no snapshot '%s'", q->block->path, name);
    }
    q->flushing = false; /* it stays until we say so */
    r = set_dirty(q, true);
    if (r == 0) {
        r = verb == BLOCK_SNAPSHOT_CREATE  ? create(q, &t, name, e)
            : verb == BLOCK_SNAPSHOT_APPLY ? apply(q, &t.list[i], e)
                                           : delete (q, &t, (size_t)i);
    }
    table_free(&t);
    int first = r;
    /* Frees what became free, then makes the flags true; after a failure, too, if it can. */
    r = qcow2_flush_tables(q);
    if (r == 0) {
        r = qcow2_fix_flags(q);
    }
    if (r == 0) {
        r = qcow2_flush_tables(q);
    }
    if (r == 0 && first == 0) {
        r = set_dirty(q, false);
    }
    return first < 0 ? first : r;
}

int qcow2_snapshot_change(struct block *b, enum block_snapshot_verb verb, const char *name,
                          struct err *e)
{
    struct qcow2 *q = b->priv;
    struct err own = { "" };
    pthread_rwlock_wrlock(&q->lock);
    int r = change_locked(q, verb, name, &own);
    pthread_rwlock_unlock(&q->lock);
    if (r < 0) {
        return own.msg[0] != '\0' ? err_set(e, r, "%s", own.msg)
                                  : err_set(e, r, "%s: %s", b->path, strerror(-r));
    }
    return 0;
}
