/* SPDX-License-Identifier: Apache-2.0
 *
 * VMDK (VMware's "Virtual Disk Format 5.0"), private to vmdk*.c: a text that lists extents, in a
 * file of its own or inside the only extent; extents are flat files or sparse ones with grain
 * directories and tables. Little-endian.
 */
#ifndef SOSIA_BLOCK_VMDK_H
#define SOSIA_BLOCK_VMDK_H

#include "block/grains.h"

#define VMDK_SECTOR 512u
#define VMDK_MAGIC 0x564d444bu
#define VMDK_GRAIN 128u /* sectors, of what we make */
#define VMDK_GTES 512u  /* entries of a grain table */
#define VMDK_AT_END UINT64_MAX
#define VMDK_EXTENTS_MAX 1024u
#define VMDK_DESCRIPTOR_MAX (256u << 10)
#define VMDK_DESCRIPTOR_SECTORS 20u

enum { /* header of a sparse extent */
       H_MAGIC = 0,
       H_VERSION = 4,
       H_FLAGS = 8,
       H_CAPACITY = 12,
       H_GRAIN = 20,
       H_DESCRIPTOR = 28,
       H_DESCRIPTOR_SIZE = 36,
       H_GTES = 44,
       H_RGD = 48,
       H_GD = 56,
       H_OVERHEAD = 64,
       H_NEWLINES = 73,
       H_COMPRESSION = 77,
};
enum vmdk_flag {
    VMDK_NEWLINES = 1u << 0,
    VMDK_REDUNDANT = 1u << 1,
    VMDK_ZERO_GRAINS = 1u << 2,
    VMDK_COMPRESSED = 1u << 16,
    VMDK_MARKERS = 1u << 17,
};
enum vmdk_marker { MARKER_EOS, MARKER_GT, MARKER_GD, MARKER_FOOTER };
enum { RANK_GT, RANK_GD };

enum vmdk_extent_kind { EXTENT_FLAT, EXTENT_SPARSE, EXTENT_ZERO };

struct vmdk_extent {
    enum vmdk_extent_kind kind;
    uint64_t start, size; /* bytes of the disk */
    char *name;
    struct hostfile *file; /* NULL: ZERO */
    bool owned;            /* file is not the block's */
    uint64_t flat_offset;

    struct grains g; /* SPARSE */
    uint32_t flags;
    uint32_t gtes;
    uint64_t gd, rgd; /* sectors; rgd 0: none */
    uint64_t overhead;
    pthread_mutex_t unpack_lock; /* guards the two below */
    uint64_t unpacked_host;
    uint8_t *unpacked;

    uint32_t *stream_gt; /* while a streamOptimized image is being written: every entry */
    uint64_t stream_end; /* bytes: where the next grain goes */
};

struct vmdk {
    struct block *block;
    struct vmdk_extent *extents;
    size_t count;
    char *text; /* the descriptor, NULL: none */
    size_t text_room;
    uint64_t text_at; /* in the block's file */
    char *type;
    uint32_t cid, parent_cid;
    char *parent;
    atomic_bool touched; /* cid says that the contents changed */
    bool stream;
};

/* -- vmdk_sparse.c -- */
int vmdk_sparse_open(struct vmdk *v, struct vmdk_extent *x, struct err *e);
void vmdk_sparse_close(struct vmdk_extent *x);
void vmdk_sparse_check(struct vmdk_extent *x, struct block_check *c);
int vmdk_stream_start(struct vmdk *v, struct vmdk_extent *x, struct err *e);
int vmdk_stream_write(struct vmdk_extent *x, uint64_t offset, const void *buf, size_t len);
int vmdk_stream_finish(struct vmdk_extent *x);

/* -- vmdk_create.c -- */
int vmdk_create(struct hostfile *f, const struct block_create *c, struct err *e);
/* The tables and the end of a streamOptimized extent behind its grains; gt NULL: all empty. */
int vmdk_write_stream_end(struct hostfile *f, const uint8_t *header, const uint32_t *gt,
                          uint64_t at);
/* In vmdk.c: an image's content id. */
uint32_t vmdk_cid(const struct block *b);

#endif
