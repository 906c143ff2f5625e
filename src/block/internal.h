/* SPDX-License-Identifier: Apache-2.0
 *
 * What formats and block.c share. A class sees ranges that are inside the image, not empty and at
 * most BLOCK_REQUEST_MAX long; writes come only to an image that is not read-only. Calls come from
 * several threads at once: the class locks what it must.
 */
#ifndef SOSIA_BLOCK_INTERNAL_H
#define SOSIA_BLOCK_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "block/block.h"
#include "block/hostfile.h"
#include "block/image.h"

struct block_chain; /* the images that are being opened, child before parent: block.c */

/* What a format is recognised by. */
struct block_probe {
    const uint8_t *head; /* as much as there is of the first BLOCK_PROBE_BYTES; zeroes after that */
    const uint8_t *tail; /* the last 512 bytes */
    uint64_t size;       /* of the file */
    const char *path;    /* "" when a name says nothing */
};
#define BLOCK_PROBE_BYTES 4096u

struct block_class {
    const char *name;
    bool (*probe)(const struct block_probe *p);
    /* b has its file, path, flags; sets priv and size. Frees what it made when it fails. */
    int (*open)(struct block *b, struct err *e);
    void (*close)(struct block *b);
    int (*read)(struct block *b, uint64_t offset, void *buf, size_t len);
    int (*write)(struct block *b, uint64_t offset, const void *buf, size_t len);
    /* NULL: by read and write, in a copy. */
    int (*readv)(struct block *b, uint64_t offset, const struct iovec *iov, int count);
    int (*writev)(struct block *b, uint64_t offset, const struct iovec *iov, int count);
    /* NULL: always -EAGAIN. */
    int (*readv_cached)(struct block *b, uint64_t offset, const struct iovec *iov, int count);
    int (*flush)(struct block *b);
    /* Any length. NULL: nothing is done; zeroes are written. */
    int (*discard)(struct block *b, uint64_t offset, uint64_t len);
    int (*write_zeroes)(struct block *b, uint64_t offset, uint64_t len, bool may_unmap);
    int (*resize)(struct block *b, uint64_t size, struct err *e);
    int (*map)(struct block *b, uint64_t offset, uint64_t len, struct block_extent *out);

    /* Tools: block/image.h. NULL: the format cannot. */
    unsigned create_keys; /* enum block_create_key */
    int (*create)(struct hostfile *f, const struct block_create *c, struct err *e);
    void (*info)(struct block *b, struct block_info *info);
    int (*check)(struct block *b, bool repair, struct block_check *result, struct err *e);
    int (*write_compressed)(struct block *b, uint64_t offset, const void *buf, size_t len);
    int (*set_parent)(struct block *b, const char *path, const char *format, struct err *e);
    int (*make_empty)(struct block *b);
    int (*snapshot_list)(struct block *b, struct block_snapshot **list, size_t *count,
                         struct err *e);
    int (*snapshot_change)(struct block *b, enum block_snapshot_verb verb, const char *name,
                           struct err *e);
};

struct block {
    const struct block_class *class;
    char *path;
    struct hostfile *file; /* NULL: the class has none or several */
    struct block *parent;
    _Atomic uint64_t size;
    bool readonly;
    bool guessed;       /* nobody named the format */
    atomic_bool warned; /* of something that a guest can provoke again and again */
    unsigned flags;
    const char *snapshot;            /* while opening */
    const struct block_chain *chain; /* while opening */
    void *priv;
};

extern const struct block_class block_raw, block_qcow2, block_vmdk, block_vdi, block_vhd,
    block_vhdx, block_overlay, block_nbd;

const char *block_nbd_version(void);

/* Every format, raw last. NULL at the end. */
extern const struct block_class *const block_classes[];
const struct block_class *block_class_named(const char *name);

/* Open b's parent: path as the image has it, relative to the image's directory. format NULL: by
 * content. Nothing under BLOCK_NO_PARENT. */
MUST_CHECK int block_open_parent(struct block *b, const char *path, const char *format,
                                 struct err *e);
/* path as seen from the directory of the image `from`; free() it */
char *block_relative(const char *from, const char *path);
/* What b does not hold: its parent's bytes, zeroes past its end or without one. */
MUST_CHECK int block_read_parent(struct block *b, uint64_t offset, void *buf, size_t len);
struct vector;
MUST_CHECK int block_readv_parent(struct block *b, uint64_t offset, struct vector *v, size_t len);
/* The next len bytes of a vector to or from the image, in a copy, by the class's read and write. */
MUST_CHECK int block_read_copied(struct block *b, uint64_t offset, struct vector *v, size_t len);
MUST_CHECK int block_write_copied(struct block *b, uint64_t offset, struct vector *v, size_t len);
/* An image around what is already open, for BLOCK_EPHEMERAL. Takes base over when it works. */
MUST_CHECK int block_overlay_new(struct block **out, struct block *base, struct err *e);

/* The file of a raw image if r, a read or write, can go there as it is (NULL: if such requests can
 * be); -1: it cannot. */
struct block_request;
int block_raw_fd(struct block *b, const struct block_request *r);
/* A lock whose writers do not wait for readers without end. */
void block_lock_init(pthread_rwlock_t *lock);
bool block_name_ends(const char *path, const char *ending);

/* What is left of [offset, offset + len) up to the next multiple of unit, a power of two. */
static inline size_t block_piece(uint64_t offset, uint64_t len, uint64_t unit)
{
    uint64_t n = unit - (offset & (unit - 1));
    return (size_t)(n < len ? n : len);
}

#endif
