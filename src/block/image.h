/* SPDX-License-Identifier: Apache-2.0
 *
 * Disk images as tools see them: made, described, checked, repaired, compressed, given snapshots
 * and other parents. Thread: one at a time, and nobody uses the image otherwise.
 */
#ifndef SOSIA_BLOCK_IMAGE_H
#define SOSIA_BLOCK_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "block/block.h"

enum block_create_key {
    BLOCK_KEY_CLUSTER_SIZE = 1u << 0,
    BLOCK_KEY_COMPAT = 1u << 1,
    BLOCK_KEY_COMPRESSION = 1u << 2,
    BLOCK_KEY_LAZY_REFCOUNTS = 1u << 3,
    BLOCK_KEY_REFCOUNT_BITS = 1u << 4,
    BLOCK_KEY_SUBFORMAT = 1u << 5,
    BLOCK_KEY_PREALLOCATION = 1u << 6,
    BLOCK_KEY_PARENT = 1u << 7,
};

struct block_create {
    const char *path;
    const char *format;
    const char *name;          /* what it will be called in the end; NULL: as path says */
    uint64_t size;             /* 0 with a parent: the parent's */
    const char *parent;        /* NULL: none */
    const char *parent_format; /* with a parent: must be given */
    /* 0 and NULL: the format's own choice */
    uint64_t cluster_size;
    unsigned compat;           /* qcow2: 2 or 3 */
    const char *compression;   /* qcow2: zlib, zstd */
    bool lazy_refcounts;       /* qcow2 */
    unsigned refcount_bits;    /* qcow2 */
    const char *subformat;     /* vmdk, vdi, vhd, vhdx */
    const char *preallocation; /* off, metadata, falloc, full */
    unsigned given;            /* enum block_create_key: what the person asked for */
};

/* The file must not exist. Nothing is left of it when this fails. */
MUST_CHECK int block_create(const struct block_create *c, struct err *e);
bool block_format_known(const char *format);

struct block_info {
    const char *subformat;     /* NULL: nothing to say */
    uint64_t cluster_size;     /* 0: none */
    uint64_t allocated;        /* bytes on the host's disk */
    const char *parent_path;   /* as the image has it; the image's string, NULL: none */
    const char *parent_format; /* the same */
    const char *compression;   /* NULL: none */
    const char *compat;        /* qcow2: "0.10", "1.1" */
    unsigned refcount_bits;
    bool lazy_refcounts;
    bool dirty;
    bool corrupt;
};
void block_describe(struct block *b, struct block_info *info);

struct block_check {
    uint64_t corruptions;
    uint64_t leaks;
    uint64_t corruptions_fixed;
    uint64_t leaks_fixed;
    uint64_t clusters;                        /* of the image's size */
    uint64_t allocated;                       /* of these, with data in this file */
    uint64_t compressed;                      /* of these */
    uint64_t end;                             /* of the file's part that is in use */
    void (*say)(void *ctx, const char *line); /* each finding; set by the caller, may be NULL */
    void *ctx;
};
/* 0 when the check could be done, whatever it found. -ENOTSUP: the format has no redundancy. */
MUST_CHECK int block_check(struct block *b, bool repair, struct block_check *result, struct err *e);
void block_check_say(struct block_check *c, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* A whole cluster (or the end of the image), where nothing is yet. -ENOTSUP: cannot; -EFBIG: does
 * not get smaller, write it plainly. */
MUST_CHECK int block_write_compressed(struct block *b, uint64_t offset, const void *buf,
                                      size_t len);
bool block_can_compress(const struct block *b);

/* The image then names another parent, or none (NULL). Its contents are the caller's business. */
MUST_CHECK int block_set_parent(struct block *b, const char *path, const char *format,
                                struct err *e);

/* The image holds nothing of its own any more and shows its parent. -ENOTSUP: the format cannot,
 * and what it holds stays. */
MUST_CHECK int block_make_empty(struct block *b);

/* An image that is written is handed on: everything is in its file, and its lock is free for those
 * who open it read-only. Nothing may be written to b any more, unless it is reclaimed. -ENOTSUP:
 * the image is no single file. */
MUST_CHECK int block_yield(struct block *b, struct err *e);
MUST_CHECK int block_reclaim(struct block *b, struct err *e);

struct block_snapshot {
    char *id;
    char *name;
    uint64_t size; /* of the disk then */
    uint64_t vm_state_size;
    uint64_t seconds; /* since 1970 */
    uint32_t nanoseconds;
};
enum block_snapshot_verb { BLOCK_SNAPSHOT_CREATE, BLOCK_SNAPSHOT_APPLY, BLOCK_SNAPSHOT_DELETE };
MUST_CHECK int block_snapshot_list(struct block *b, struct block_snapshot **list, size_t *count,
                                   struct err *e);
void block_snapshots_free(struct block_snapshot *list, size_t count);
/* name: its name or, when no snapshot is called so, its id */
MUST_CHECK int block_snapshot_change(struct block *b, enum block_snapshot_verb verb,
                                     const char *name, struct err *e);
/* One snapshot of an image, read-only. */
MUST_CHECK int block_open_snapshot(struct block **out, const struct block_options *o,
                                   const char *name, struct err *e);

/* What this build has of optional parts: "zlib 1.2.13, zstd 1.5.4, libnbd 1.14.2"; "none" */
const char *block_parts(char *text, size_t room);

#endif
