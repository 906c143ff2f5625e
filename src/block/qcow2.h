/* SPDX-License-Identifier: Apache-2.0
 *
 * QCOW2, versions 2 and 3, by the specification in QEMU's docs/interop/qcow2.txt: private to the
 * qcow2*.c files.
 *
 * What is in the file at any time is consistent, leaked clusters aside: tables go through
 * block/meta.h with ranks refcounts < refcount table < L2 < L1, and a cluster that is not needed
 * any more keeps its refcount until a flush has written the tables that no longer point to it.
 */
#ifndef SOSIA_BLOCK_QCOW2_H
#define SOSIA_BLOCK_QCOW2_H

#include <pthread.h>

#include "block/internal.h"
#include "block/meta.h"

#define QCOW2_MAGIC 0x514649fbu
#define QCOW2_MIN_CLUSTER_BITS 9u
#define QCOW2_MAX_CLUSTER_BITS 21u
#define QCOW2_MAX_L1_BYTES (32u << 20)
#define QCOW2_MAX_RT_BYTES (8u << 20)
#define QCOW2_MAX_SNAPSHOTS 65536u
#define QCOW2_V2_HEADER 72u
#define QCOW2_V3_HEADER 104u
#define QCOW2_HEADER 112u /* with the compression type */

#define QCOW2_OFFSET_MASK 0x00fffffffffffe00ull
#define QCOW2_COPIED (1ull << 63)
#define QCOW2_COMPRESSED (1ull << 62)
#define QCOW2_ZERO 1ull

enum qcow2_incompatible {
    QCOW2_DIRTY = 1u << 0,
    QCOW2_CORRUPT = 1u << 1,
    QCOW2_DATA_FILE = 1u << 2,
    QCOW2_COMPRESSION = 1u << 3,
    QCOW2_EXTENDED_L2 = 1u << 4,
};
#define QCOW2_LAZY_REFCOUNTS 1u /* compatible */

enum qcow2_extension {
    QCOW2_EXT_END = 0,
    QCOW2_EXT_BACKING_FORMAT = 0xe2792aca,
    QCOW2_EXT_FEATURES = 0x6803f857,
};

enum qcow2_rank { RANK_REFS, RANK_REF_TABLE, RANK_L2, RANK_L1 };
enum qcow2_compression { QCOW2_ZLIB, QCOW2_ZSTD };

enum qcow2_kind { KIND_HOLE, KIND_ZERO, KIND_DATA, KIND_COMPRESSED };

struct qcow2 {
    struct block *block;
    struct hostfile *file; /* the block's */
    struct meta *meta;
    pthread_rwlock_t lock; /* exclusive: tables change; shared: data moves */

    unsigned version;
    unsigned cluster_bits;
    uint32_t cluster_size;
    unsigned l2_bits;        /* entries of an L2 table */
    unsigned refcount_order; /* bits of a refcount */
    uint64_t l1_offset;
    uint32_t l1_size; /* entries */
    uint64_t rt_offset;
    uint32_t rt_clusters;
    uint32_t snapshot_count;
    uint64_t snapshots_offset;
    uint64_t incompatible, compatible, autoclear;
    bool
        flushing; /* the dirty bit is there for tables that are being written, and goes with that */
    uint32_t header_len;
    enum qcow2_compression compression;
    char *backing; /* NULL: none */
    char *backing_format;
    bool no_active; /* a snapshot of it is open: these are that one's L1 and size */

    uint64_t hint;   /* no free cluster before this one */
    uint64_t *freed; /* clusters to be given back after the next flush, once for each time here */
    size_t freed_count, freed_room;
    uint64_t packed_to; /* end of the last compressed cluster in a host cluster, 0: none open */

    pthread_mutex_t unpack_lock; /* guards the two below */
    uint64_t unpacked_entry;     /* 0: none */
    uint8_t *unpacked;           /* what it decompresses to */
};

static inline uint64_t qcow2_index(const struct qcow2 *q, uint64_t offset)
{
    return offset >> q->cluster_bits;
}

/* -- qcow2.c -- */
/* Size, tables and snapshots in the header, in one write, on the medium. */
int qcow2_write_fields(struct qcow2 *q);
int qcow2_store_features(struct qcow2 *q); /* without a sync */
int qcow2_write_features(struct qcow2 *q);
/* Shared parts of the check: what a corrupt table gets. */
int qcow2_corrupt(struct qcow2 *q, const char *what, uint64_t value);

/* -- qcow2_refs.c: exclusive lock -- */
int qcow2_refcount(struct qcow2 *q, uint64_t cluster, uint64_t *count);
int qcow2_set_refcount(struct qcow2 *q, uint64_t cluster, uint64_t count);
int qcow2_add_refcount(struct qcow2 *q, uint64_t cluster, int change);
uint64_t qcow2_max_refcount(const struct qcow2 *q);
/* Consecutive clusters with refcount 1; what they hold is not defined. */
int qcow2_alloc(struct qcow2 *q, uint64_t clusters, uint64_t *offset);
/* Room for a compressed cluster, anywhere in clusters of such. */
int qcow2_alloc_packed(struct qcow2 *q, uint32_t len, uint64_t *offset);
/* Never in the file's tables yet: free again at once. */
void qcow2_unalloc(struct qcow2 *q, uint64_t offset, uint64_t clusters);
/* One reference less, after the next flush. */
int qcow2_free_later(struct qcow2 *q, uint64_t offset, uint64_t clusters);
int qcow2_free_entry(struct qcow2 *q, uint64_t entry); /* what an L2 entry refers to */
int qcow2_flush_tables(struct qcow2 *q);
int qcow2_grow_table(struct qcow2 *q, uint64_t cluster);

/* -- qcow2_map.c -- */
/* Of an L2 entry. -EIO when it makes no sense. */
int qcow2_classify(struct qcow2 *q, uint64_t entry, enum qcow2_kind *kind, uint64_t *host);
void qcow2_compressed_range(const struct qcow2 *q, uint64_t entry, uint64_t *offset, uint32_t *len);
int qcow2_load_table(struct qcow2 *q, uint64_t offset, uint64_t *table, size_t entries);
int qcow2_store_table(struct qcow2 *q, uint64_t offset, const uint64_t *table, size_t entries,
                      unsigned rank);
uint64_t qcow2_entry_index(const struct qcow2 *q, uint64_t offset); /* in its L2 table */
int qcow2_read_entry(struct qcow2 *q, uint64_t at, uint64_t *entry);
int qcow2_write_entry(struct qcow2 *q, uint64_t at, uint64_t entry, unsigned rank);
/* Where the L2 table for offset is; 0: there is none. */
int qcow2_find_table(struct qcow2 *q, uint64_t offset, uint64_t *table, uint64_t *l1_entry);
/* The same, made or copied until it is this image's alone. */
int qcow2_own_table(struct qcow2 *q, uint64_t offset, uint64_t *table);
int qcow2_get_entry(struct qcow2 *q, uint64_t offset, uint64_t *entry); /* of an L2 table, or 0 */

/* A run of clusters that are alike, and behind each other in the file when they hold data. */
struct qcow2_run {
    enum qcow2_kind kind;
    uint64_t host; /* of the first byte: data */
    uint64_t entry;
    uint64_t len;
    bool ours; /* every one may be written in place */
};

int qcow2_find_run(struct qcow2 *q, uint64_t offset, uint64_t len, struct qcow2_run *run);
int qcow2_read_locked(struct qcow2 *q, uint64_t offset, uint8_t *buf, size_t len);
int qcow2_read(struct block *b, uint64_t offset, void *buf, size_t len);
int qcow2_readv(struct block *b, uint64_t offset, const struct iovec *iov, int count);
int qcow2_map(struct block *b, uint64_t offset, uint64_t len, struct block_extent *out);

/* -- qcow2_write.c -- */
int qcow2_write(struct block *b, uint64_t offset, const void *buf, size_t len);
int qcow2_writev(struct block *b, uint64_t offset, const struct iovec *iov, int count);
int qcow2_flush(struct block *b);
int qcow2_discard(struct block *b, uint64_t offset, uint64_t len);
int qcow2_write_zeroes(struct block *b, uint64_t offset, uint64_t len, bool may_unmap);
int qcow2_write_compressed(struct block *b, uint64_t offset, const void *buf, size_t len);
/* A cluster gets its place in the file, where nothing is yet. */
int qcow2_place(struct qcow2 *q, uint64_t offset, uint64_t *host);
/* With the exclusive lock: these clusters are in the image no more. */
int qcow2_drop_from(struct qcow2 *q, uint64_t offset);
int qcow2_zero_locked(struct qcow2 *q, uint64_t offset, uint64_t len);

/* -- qcow2_create.c -- */
int qcow2_create(struct hostfile *f, const struct block_create *c, struct err *e);
int qcow2_resize(struct block *b, uint64_t size, struct err *e);
int qcow2_set_parent(struct block *b, const char *path, const char *format, struct err *e);

/* -- qcow2_snapshot.c -- */
int qcow2_snapshot_list(struct block *b, struct block_snapshot **list, size_t *count,
                        struct err *e);
int qcow2_snapshot_change(struct block *b, enum block_snapshot_verb verb, const char *name,
                          struct err *e);
/* The flags of the active tables say again what the refcounts say. */
int qcow2_fix_flags(struct qcow2 *q);
/* While opening: the image becomes what it was then. */
int qcow2_enter_snapshot(struct qcow2 *q, const char *name, struct err *e);
/* L1 tables of all snapshots, for the check; free() it. */
struct qcow2_l1 {
    uint64_t offset;
    uint64_t size;
};
int qcow2_snapshot_tables(struct qcow2 *q, struct qcow2_l1 **list, size_t *count,
                          uint64_t *table_len);

/* -- qcow2_check.c -- */
int qcow2_check(struct block *b, bool repair, struct block_check *result, struct err *e);

#endif
