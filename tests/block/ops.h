/* SPDX-License-Identifier: Apache-2.0
 *
 * Random operations on an image of each format, against a plain array of bytes; at the end QEMU's
 * qemu-img, where it is installed, must find no error in the image and the same contents.
 */
#ifndef SOSIA_TESTS_BLOCK_OPS_H
#define SOSIA_TESTS_BLOCK_OPS_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/log.h"
#include "block/image.h"
#include "support/test.h"

#define OPS_SIZE_MAX (24u << 20)

struct ops_kind {
    const char *name;
    const char *format;  /* ours */
    const char *theirs;  /* qemu-img's word */
    const char *qemu;    /* made by qemu-img with these options; NULL: made by us */
    const char *backing; /* format of a backing file, NULL: none */
    struct block_create create;
    bool can_check; /* qemu-img check knows it */
    bool can_resize;
    bool can_pack;
    uint64_t unit; /* sizes of disks are multiples of it: qemu's VHD has a geometry */
};

static const struct ops_kind ops_kinds[] = {
    { .name = "raw", .format = "raw", .theirs = "raw", .can_resize = true },
    { .name = "qcow2",
      .format = "qcow2",
      .theirs = "qcow2",
      .can_check = true,
      .can_resize = true,
      .can_pack = true },
    { .name = "qcow2-512",
      .format = "qcow2",
      .theirs = "qcow2",
      .can_check = true,
      .can_resize = true,
      .can_pack = true,
      .create = { .cluster_size = 512, .given = BLOCK_KEY_CLUSTER_SIZE } },
    { .name = "qcow2-v2",
      .format = "qcow2",
      .theirs = "qcow2",
      .can_check = true,
      .can_resize = true,
      .can_pack = true,
      .create = { .cluster_size = 4096, .compat = 2, .given = BLOCK_KEY_CLUSTER_SIZE } },
    { .name = "qcow2-refs1",
      .format = "qcow2",
      .theirs = "qcow2",
      .can_check = true,
      .create = { .cluster_size = 4096, .refcount_bits = 1, .given = BLOCK_KEY_CLUSTER_SIZE } },
    { .name = "qcow2-refs64",
      .format = "qcow2",
      .theirs = "qcow2",
      .can_check = true,
      .can_resize = true,
      .create = { .cluster_size = 1024, .refcount_bits = 64, .given = BLOCK_KEY_CLUSTER_SIZE } },
    { .name = "qcow2-backed",
      .format = "qcow2",
      .theirs = "qcow2",
      .can_check = true,
      .can_resize = true,
      .can_pack = true,
      .backing = "raw",
      .create = { .cluster_size = 8192, .given = BLOCK_KEY_CLUSTER_SIZE } },
    { .name = "qcow2-v2-backed",
      .format = "qcow2",
      .theirs = "qcow2",
      .can_check = true,
      .can_pack = true,
      .backing = "qcow2",
      .create = { .compat = 2 } },
    { .name = "vdi", .format = "vdi", .theirs = "vdi", .can_check = true },
    { .name = "vmdk", .format = "vmdk", .theirs = "vmdk", .can_check = true },
    { .name = "vmdk-split",
      .format = "vmdk",
      .theirs = "vmdk",
      .can_check = true,
      .create = { .subformat = "twoGbMaxExtentSparse" } },
    { .name = "vmdk-flat",
      .format = "vmdk",
      .theirs = "vmdk",
      .create = { .subformat = "monolithicFlat" } },
    { .name = "vmdk-backed", .format = "vmdk", .theirs = "vmdk", .backing = "vmdk" },
    { .name = "vhd", .format = "vhd", .theirs = "vpc" },
    { .name = "vhd-fixed", .format = "vhd", .theirs = "vpc", .create = { .subformat = "fixed" } },
    { .name = "vhdx",
      .format = "vhdx",
      .theirs = "vhdx",
      .can_check = true,
      .create = { .cluster_size = 1 << 20, .given = BLOCK_KEY_CLUSTER_SIZE } },
    { .name = "vhdx-fixed",
      .format = "vhdx",
      .theirs = "vhdx",
      .can_check = true,
      .create = { .subformat = "fixed" } },
    { .name = "qemu-qcow2",
      .format = "qcow2",
      .theirs = "qcow2",
      .can_check = true,
      .can_resize = true,
      .can_pack = true,
      .qemu = "cluster_size=4096,lazy_refcounts=on" },
    { .name = "qemu-qcow2-zstd",
      .format = "qcow2",
      .theirs = "qcow2",
      .can_check = true,
      .can_pack = true,
      .qemu = "compression_type=zstd,refcount_bits=8" },
    { .name = "qemu-qcow2-pre",
      .format = "qcow2",
      .theirs = "qcow2",
      .can_check = true,
      .can_resize = true,
      .qemu = "preallocation=metadata,cluster_size=16384" },
    { .name = "qemu-vdi",
      .format = "vdi",
      .theirs = "vdi",
      .can_check = true,
      .qemu = "static=off" },
    { .name = "qemu-vmdk",
      .format = "vmdk",
      .theirs = "vmdk",
      .can_check = true,
      .qemu = "zeroed_grain=on" },
    { .name = "qemu-vhd",
      .format = "vhd",
      .theirs = "vpc",
      .qemu = "subformat=dynamic",
      .unit = 512u * 17 * 4 },
    { .name = "qemu-vhdx",
      .format = "vhdx",
      .theirs = "vhdx",
      .can_check = true,
      .qemu = "block_size=1M" },
};

struct ops {
    const struct ops_kind *kind;
    char dir[64];
    char path[128], base[128];
    struct block *b;
    uint8_t *model; /* OPS_SIZE_MAX bytes */
    uint8_t *buf;
    uint64_t size;
    uint64_t rng;
};

static inline bool ops_have_qemu_img(void)
{
    return system("qemu-img --version >/dev/null 2>&1") == 0;
}

static inline int ops_shell(const char *fmt, ...) PRINTF_LIKE(1, 2);
static inline int ops_shell(const char *fmt, ...)
{
    char line[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    return system(line);
}

static inline void ops_open(struct ops *o)
{
    struct err e = { "" };
    struct block_options open = { .path = o->path, .format = o->kind->format };
    int r = block_open(&o->b, &open, &e);
    if (r < 0) {
        fail_msg("%s: %s", o->kind->name, e.msg);
    }
}

/* A file with something in it, and shorter than the disk on top of it at times. */
static inline void ops_make_base(struct ops *o)
{
    struct err e = { "" };
    uint64_t size = test_random(&o->rng) % 2 ? o->size : align_down(o->size * 2 / 3, 512);
    struct block_create c = { .path = o->base, .format = o->kind->backing, .size = size };
    assert_int_equal(block_create(&c, &e), 0);
    struct block *b;
    struct block_options open = { .path = o->base, .format = o->kind->backing };
    assert_int_equal(block_open(&b, &open, &e), 0);
    for (unsigned i = 0; i < 20; i++) {
        uint64_t at = align_down(test_random(&o->rng) % size, 512);
        size_t n = 65536 < size - at ? 65536 : (size_t)(size - at);
        memset(o->model + at, (int)(i + 1), n);
        assert_int_equal(block_write(b, at, o->model + at, n), 0);
    }
    assert_int_equal(block_flush(b), 0);
    block_close(b);
}

static inline void ops_make(struct ops *o)
{
    const struct ops_kind *k = o->kind;
    struct err e = { "" };
    /* In memory, if there is such a place: it is the order of writes that counts here, and a disk
     * that is told to sync every time would take all of the time. */
    snprintf(o->dir, sizeof o->dir, "%s/sosia-ops-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(o->dir));
    snprintf(o->path, sizeof o->path, "%s/image.%s", o->dir, k->format);
    snprintf(o->base, sizeof o->base, "%s/base.%s", o->dir, k->backing != NULL ? k->backing : "");
    o->size = (6u << 20) + test_random(&o->rng) % 2000 * 512;
    if (k->unit != 0) {
        o->size -= o->size % k->unit;
    }
    memset(o->model, 0, OPS_SIZE_MAX);
    if (k->qemu != NULL) {
        assert_int_equal(ops_shell("qemu-img create -q -f %s -o %s %s %llu", k->theirs, k->qemu,
                                   o->path, (unsigned long long)o->size),
                         0);
        ops_open(o);
        o->size = block_size(o->b);
        return;
    }
    struct block_create c = k->create;
    c.path = o->path;
    c.format = k->format;
    c.size = o->size;
    if (k->backing != NULL) {
        ops_make_base(o);
        c.parent = strrchr(o->base, '/') + 1;
        c.parent_format = k->backing;
        c.given |= BLOCK_KEY_PARENT;
    }
    if (block_create(&c, &e) < 0) {
        fail_msg("%s: %s", k->name, e.msg);
    }
    ops_open(o);
    assert_int_equal(block_size(o->b), o->size);
}

static inline void ops_pick(struct ops *o, uint64_t *at, size_t *n)
{
    uint64_t rnd = test_random(&o->rng);
    unsigned most = rnd % 7 == 0 ? 3 << 20 : rnd % 3 == 0 ? 200000 : 20000;
    *at = test_random(&o->rng) % o->size;
    *n = 1 + test_random(&o->rng) % most;
    if (rnd >> 32 & 7) { /* most of what a disk gets is sectors */
        *at = align_down(*at, 512);
        *n = align_up(*n, 512);
    }
    *n = *n < o->size - *at ? *n : (size_t)(o->size - *at);
}

static inline void ops_compare(struct ops *o, uint64_t at, size_t n)
{
    struct iovec iov[4] = { { o->buf, n / 5 },
                            { o->buf + n / 5, 0 },
                            { o->buf + n / 5, n / 3 },
                            { o->buf + n / 5 + n / 3, n - n / 5 - n / 3 } };
    memset(o->buf, 0xa5, n);
    int r = test_random(&o->rng) & 1 ? block_read(o->b, at, o->buf, n)
                                     : block_readv(o->b, at, iov, 4);
    if (r < 0) {
        fail_msg("%s: read at 0x%llx: %s", o->kind->name, (unsigned long long)at, strerror(-r));
    }
    for (size_t i = 0; i < n; i++) {
        if (o->buf[i] != o->model[at + i]) {
            fail_msg("%s: wrong byte at 0x%llx", o->kind->name, (unsigned long long)(at + i));
        }
    }
}

static inline void ops_write(struct ops *o, uint64_t at, size_t n)
{
    uint64_t seed = test_random(&o->rng);
    for (size_t i = 0; i < n; i++) { /* runs, so that it can be compressed */
        o->model[at + i] = (uint8_t)(seed >> ((i / 64) % 7 * 8)) ^ (uint8_t)(i / 4096);
    }
    struct iovec iov[3] = { { o->model + at, n / 3 },
                            { o->model + at + n / 3, n / 3 },
                            { o->model + at + n / 3 * 2, n - n / 3 * 2 } };
    int r = seed & 1 ? block_write(o->b, at, o->model + at, n) : block_writev(o->b, at, iov, 3);
    if (r < 0) {
        fail_msg("%s: write: %s", o->kind->name, strerror(-r));
    }
}

/* Whatever is there afterwards is what there was, or zeroes. */
static inline void ops_discard(struct ops *o, uint64_t at, size_t n)
{
    assert_int_equal(block_discard(o->b, at, n), 0);
    assert_int_equal(block_read(o->b, at, o->buf, n), 0);
    for (size_t i = 0; i < n; i++) {
        assert_true(o->buf[i] == o->model[at + i] || o->buf[i] == 0);
    }
    memcpy(o->model + at, o->buf, n);
}

static inline void ops_resize(struct ops *o)
{
    struct err e = { "" };
    uint64_t size = (2u << 20) + align_down(test_random(&o->rng) % (20u << 20), 512);
    if (block_resize(o->b, size, &e) < 0) {
        fail_msg("%s: resize: %s", o->kind->name, e.msg);
    }
    if (size < o->size) {
        memset(o->model + size, 0, (size_t)(o->size - size));
    }
    o->size = size;
    assert_int_equal(block_size(o->b), size);
}

static inline void ops_pack(struct ops *o, uint64_t at)
{
    struct block_info info;
    block_describe(o->b, &info);
    at = align_down(at, info.cluster_size);
    size_t n = info.cluster_size < o->size - at ? (size_t)info.cluster_size
                                                : (size_t)(o->size - at);
    memset(o->model + at, (int)test_random(&o->rng), n);
    o->model[at + n / 2] ^= 1;
    int r = block_write_compressed(o->b, at, o->model + at, n);
    if (r == -EFBIG || r == -ENOTSUP) { /* a build without zlib */
        r = block_write(o->b, at, o->model + at, n);
    }
    assert_int_equal(r, 0);
}

static inline void ops_reopen(struct ops *o)
{
    block_close(o->b);
    ops_open(o);
    assert_int_equal(block_size(o->b), o->size);
}

/* The extents of a map add up, and what is a hole or zeroes reads so. */
static inline void ops_map(struct ops *o)
{
    for (uint64_t at = 0; at < o->size;) {
        struct block_extent x;
        assert_int_equal(block_map(o->b, at, o->size - at, &x), 0);
        assert_in_range(x.len, 1, o->size - at);
        if (x.kind == BLOCK_ZERO || (x.kind == BLOCK_HOLE && o->kind->backing == NULL)) {
            assert_true(o->model[at] == 0);
            assert_memory_equal(o->model + at, o->model + at + 1, (size_t)x.len - 1);
        }
        at += x.len;
    }
}

static inline void ops_step(struct ops *o)
{
    uint64_t at;
    size_t n;
    ops_pick(o, &at, &n);
    switch (test_random(&o->rng) % 24) {
    case 0 ... 8:
        ops_write(o, at, n);
        break;
    case 9 ... 13:
        ops_compare(o, at, n);
        break;
    case 14 ... 16: {
        bool unmap = test_random(&o->rng) & 1;
        memset(o->model + at, 0, n);
        int r = block_write_zeroes(o->b, at, n, unmap);
        assert_int_equal(r, 0);
        break;
    }
    case 17:
    case 18:
        ops_discard(o, at, n);
        break;
    case 19:
        assert_int_equal(block_flush(o->b), 0);
        break;
    case 20:
        ops_reopen(o);
        break;
    case 21:
        if (o->kind->can_resize && test_random(&o->rng) % 3 == 0) {
            ops_resize(o);
        }
        break;
    case 22:
        if (o->kind->can_pack) {
            ops_pack(o, at);
        }
        break;
    default:
        ops_map(o);
    }
}

static inline void ops_check_ourselves(struct ops *o)
{
    struct block_check c = { 0 };
    struct err e = { "" };
    int r = block_check(o->b, false, &c, &e);
    assert_true(r == 0 || r == -ENOTSUP);
    if (c.corruptions != 0 || c.leaks != 0) {
        fail_msg("%s: %llu corruptions, %llu leaks", o->kind->name,
                 (unsigned long long)c.corruptions, (unsigned long long)c.leaks);
    }
}

static inline void ops_check_with_qemu(struct ops *o)
{
    char model[160];
    snprintf(model, sizeof model, "%s/model", o->dir);
    FILE *f = fopen(model, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(o->model, 1, (size_t)o->size, f), o->size);
    fclose(f);
    if (o->kind->can_check &&
        ops_shell("qemu-img check -q -f %s %s", o->kind->theirs, o->path) != 0) {
        fail_msg("%s: qemu-img check", o->kind->name);
    }
    if (ops_shell("qemu-img compare -q -f raw -F %s %s %s", o->kind->theirs, model, o->path) != 0) {
        fail_msg("%s: qemu-img compare", o->kind->name);
    }
}

/* One image's life. */
static inline void ops_sequence(const struct ops_kind *k, uint64_t seed, unsigned steps, bool qemu)
{
    struct ops o = { .kind = k, .rng = seed * 0x9e3779b97f4a7c15ull + 1 };
    if (k->qemu != NULL && !qemu) {
        return;
    }
    o.model = malloc(OPS_SIZE_MAX);
    o.buf = malloc(OPS_SIZE_MAX);
    ops_make(&o);
    for (unsigned i = 0; i < steps; i++) {
        ops_step(&o);
    }
    ops_reopen(&o);
    ops_compare(&o, 0, (size_t)o.size);
    assert_int_equal(block_flush(o.b), 0);
    ops_check_ourselves(&o);
    block_close(o.b);
    if (qemu) {
        ops_check_with_qemu(&o);
    }
    free(o.model);
    free(o.buf);
    assert_int_equal(ops_shell("rm -rf %s", o.dir), 0);
}

#endif
