/* SPDX-License-Identifier: Apache-2.0
 *
 * Damaged images: a good one of a format, some bytes of it changed, opened and used in every way.
 * Nothing is asked of the results but that there are some. The image is in memory; its checksums
 * are made right again, or nothing would get past them.
 */
#ifndef SOSIA_TESTS_BLOCK_DAMAGE_H
#define SOSIA_TESTS_BLOCK_DAMAGE_H

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "block/codec.h"
#include "block/image.h"

#define DAMAGE_PAGE 4096u
#define DAMAGE_BUFFER (1u << 20)

/* The pages of a good image that are not all zeroes. */
struct damage_template {
    const char *format;
    uint64_t size; /* of the file */
    size_t pages;
    uint64_t *offsets;
    uint8_t *bytes;
};

static inline void damage_must(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "damage: %s\n", what);
        abort();
    }
}

static inline void damage_fill(const char *path, const char *format, bool pack)
{
    struct block_options o = { .path = path, .format = format };
    struct block *b;
    struct err e = { "" };
    static uint8_t data[65536];
    damage_must(block_open(&b, &o, &e) == 0, e.msg);
    struct block_info info;
    block_describe(b, &info);
    for (unsigned i = 0; i < 6; i++) {
        memset(data, (int)i + 1, sizeof data);
        uint64_t at = i * 700 * 512ull;
        if (pack) {
            at = align_down(at, info.cluster_size);
            damage_must(block_write_compressed(b, at, data, (size_t)info.cluster_size) == 0,
                        "pack");
        } else {
            damage_must(block_write(b, at, data, 5000) == 0, "write");
        }
    }
    if (!pack && strcmp(format, "qcow2") == 0) {
        damage_must(block_snapshot_change(b, BLOCK_SNAPSHOT_CREATE, "one", &e) == 0, e.msg);
        damage_must(block_write(b, 0, data, 3000) == 0, "write");
        damage_must(block_write_zeroes(b, 70000, 9000, true) == 0, "zeroes");
    }
    damage_must(block_flush(b) == 0, "flush");
    block_close(b);
}

/* The log of a VHDX image as if it had not been closed: the headers name what is in it. */
static inline void damage_unclose(const char *path)
{
    uint8_t guid[16];
    int fd = open(path, O_RDWR | O_CLOEXEC);
    damage_must(pread(fd, guid, sizeof guid, (1 << 20) + 32) == sizeof guid, "read");
    damage_must(pwrite(fd, guid, sizeof guid, (64 << 10) + 48) == sizeof guid, "write");
    damage_must(pwrite(fd, guid, sizeof guid, (128 << 10) + 48) == sizeof guid, "write");
    close(fd);
}

static inline void damage_load(struct damage_template *t, const char *path)
{
    uint8_t page[DAMAGE_PAGE];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    damage_must(fd >= 0, path);
    t->size = (uint64_t)lseek(fd, 0, SEEK_END);
    t->offsets = calloc(t->size / DAMAGE_PAGE + 1, sizeof *t->offsets);
    t->bytes = NULL;
    for (uint64_t at = 0; at < t->size; at += DAMAGE_PAGE) {
        memset(page, 0, sizeof page);
        ssize_t n = pread(fd, page, sizeof page, (off_t)at);
        damage_must(n > 0, "read");
        if (page[0] == 0 && memcmp(page, page + 1, sizeof page - 1) == 0) {
            continue;
        }
        t->bytes = realloc(t->bytes, (t->pages + 1) * DAMAGE_PAGE);
        memcpy(t->bytes + t->pages * DAMAGE_PAGE, page, sizeof page);
        t->offsets[t->pages++] = at;
    }
    close(fd);
}

static inline void damage_template_make(struct damage_template *t, const struct block_create *shape,
                                        bool pack, bool unclosed)
{
    char dir[64], path[100];
    struct block_create c = *shape;
    struct err e = { "" };
    memset(t, 0, sizeof *t);
    t->format = shape->format;
    snprintf(dir, sizeof dir, "%s/sosia-damage-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    damage_must(mkdtemp(dir) != NULL, dir);
    snprintf(path, sizeof path, "%s/image", dir);
    c.path = path;
    c.size = 3u << 20;
    damage_must(block_create(&c, &e) == 0, e.msg);
    damage_fill(path, c.format, pack);
    if (unclosed) {
        damage_unclose(path);
    }
    damage_load(t, path);
    unlink(path);
    rmdir(dir);
}

static inline void damage_template_free(struct damage_template *t)
{
    free(t->offsets);
    free(t->bytes);
}

static inline void damage_sign_sum(int fd, uint64_t offset, size_t len, size_t at)
{
    uint8_t p[1024];
    uint32_t sum = 0;
    damage_must(pread(fd, p, len, (off_t)offset) >= 0, "read");
    memset(p + at, 0, 4);
    for (size_t i = 0; i < len; i++) {
        sum += p[i];
    }
    store_be32(p + at, ~sum);
    damage_must(pwrite(fd, p + at, 4, (off_t)(offset + at)) == 4, "write");
}

static inline void damage_sign_crc(int fd, uint64_t offset, size_t len)
{
    static uint8_t p[65536];
    memset(p, 0, sizeof p);
    damage_must(pread(fd, p, len, (off_t)offset) >= 0, "read");
    memset(p + 4, 0, 4);
    store_le32(p + 4, crc32c(0, p, len));
    damage_must(pwrite(fd, p + 4, 4, (off_t)(offset + 4)) == 4, "write");
}

static inline void damage_sign(int fd, const char *format, uint64_t size)
{
    if (strcmp(format, "vhd") == 0) {
        damage_sign_sum(fd, 0, 512, 64);
        damage_sign_sum(fd, size - 512, 512, 64);
        damage_sign_sum(fd, 512, 1024, 36);
    } else if (strcmp(format, "vhdx") == 0) {
        damage_sign_crc(fd, 64 << 10, 4096);
        damage_sign_crc(fd, 128 << 10, 4096);
        damage_sign_crc(fd, 192 << 10, 65536);
        damage_sign_crc(fd, 256 << 10, 65536);
        damage_sign_crc(fd, 1 << 20, 8192); /* an entry at the log's beginning */
    }
}

/* changes: of 5 bytes: page (2), place in the page (2, low 12 bits), and the byte; the high bits of
 * the place say how many times. */
static inline int damage_make(const struct damage_template *t, const uint8_t *changes, size_t len)
{
    uint8_t page[DAMAGE_PAGE];
    int fd = memfd_create("image", MFD_CLOEXEC);
    damage_must(fd >= 0 && ftruncate(fd, (off_t)t->size) == 0, "memfd");
    for (size_t i = 0; i < t->pages; i++) {
        memcpy(page, t->bytes + i * DAMAGE_PAGE, sizeof page);
        for (size_t k = 0; k + 5 <= len; k += 5) {
            if (load_le16(changes + k) % t->pages == i) {
                size_t at = load_le16(changes + k + 2) % DAMAGE_PAGE;
                size_t run = (size_t)1 << (changes[k + 3] >> 6);
                memset(page + at, changes[k + 4], run < sizeof page - at ? run : sizeof page - at);
            }
        }
        size_t n = t->size - t->offsets[i] < sizeof page ? (size_t)(t->size - t->offsets[i])
                                                         : sizeof page;
        damage_must(pwrite(fd, page, n, (off_t)t->offsets[i]) == (ssize_t)n, "write");
    }
    damage_sign(fd, t->format, t->size);
    return fd;
}

static inline void damage_ignore(int r) { (void)r; }

static inline void damage_read(struct block *b, uint8_t *buf)
{
    uint64_t size = block_size(b);
    for (uint64_t at = 0, i = 0; at < size && i < 8; i++, at += size / 8 + 1) {
        size_t n = size - at < DAMAGE_BUFFER / 4 ? (size_t)(size - at) : DAMAGE_BUFFER / 4;
        damage_ignore(block_read(b, at, buf, n));
    }
    for (uint64_t at = 0, i = 0; at < size && i < 100; i++) {
        struct block_extent x;
        if (block_map(b, at, size - at, &x) < 0) {
            break;
        }
        damage_must(x.len >= 1 && x.len <= size - at, "extent");
        at += x.len;
    }
}

static inline void damage_write(struct block *b, uint8_t *buf)
{
    uint64_t size = block_size(b);
    memset(buf, 0x5a, DAMAGE_BUFFER);
    for (uint64_t at = 0, i = 0; at < size && i < 4; i++, at += size / 4 + 1) {
        size_t n = size - at < 40000 ? (size_t)(size - at) : 40000;
        damage_ignore(block_write(b, at, buf, n));
        damage_ignore(block_write_zeroes(b, at, n / 2, i & 1));
        damage_ignore(block_discard(b, at, n));
    }
    damage_ignore(block_flush(b));
}

static inline void damage_use(const struct damage_template *t, int fd, unsigned how)
{
    char path[64];
    struct err e = { "" };
    struct block *b;
    static uint8_t buf[DAMAGE_BUFFER];
    struct block_check check = { 0 };
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    struct block_options o = { .path = path, .format = t->format };
    o.flags = BLOCK_NO_PARENT | BLOCK_NO_LOCK | (how & 1 ? BLOCK_READONLY : 0) |
              (how & 2 ? BLOCK_REPAIR : 0);
    int r = how & 4 ? block_open_snapshot(&b, &o, "one", &e) : block_open(&b, &o, &e);
    if (r < 0) {
        damage_must(e.msg[0] != '\0', "an error without a message");
        return;
    }
    struct block_snapshot *list;
    size_t count;
    if (block_snapshot_list(b, &list, &count, &e) == 0) {
        block_snapshots_free(list, count);
    }
    damage_read(b, buf);
    damage_ignore(block_check(b, (how & 2) && !(how & 1), &check, &e));
    if (!(how & 1)) {
        damage_write(b, buf);
        if (how & 8) {
            damage_ignore(block_snapshot_change(b, BLOCK_SNAPSHOT_CREATE, "two", &e));
            damage_ignore(block_snapshot_change(b, BLOCK_SNAPSHOT_APPLY, "one", &e));
            damage_ignore(block_snapshot_change(b, BLOCK_SNAPSHOT_DELETE, "one", &e));
        }
        if (how & 16) {
            damage_ignore(block_resize(b, block_size(b) / 2, &e));
            damage_ignore(block_resize(b, 5u << 20, &e));
        }
        damage_read(b, buf);
    }
    block_close(b);
}

/* The templates of a format; the last has format NULL. */
#define DAMAGE_TEMPLATES 4
static inline size_t damage_templates(const char *format, struct damage_template *list)
{
    static const struct {
        struct block_create create;
        bool pack, unclosed;
    } shapes[] = {
        { .create = { .format = "qcow2", .cluster_size = 512 } },
        { .create = { .format = "qcow2", .cluster_size = 4096, .refcount_bits = 2 } },
        { .create = { .format = "qcow2", .cluster_size = 4096 }, .pack = true },
        { .create = { .format = "qcow2", .cluster_size = 1024, .compat = 2 } },
        { .create = { .format = "vmdk" } },
        { .create = { .format = "vmdk", .subformat = "streamOptimized" }, .pack = true },
        { .create = { .format = "vdi" } },
        { .create = { .format = "vhd" } },
        { .create = { .format = "vhd", .subformat = "fixed" } },
        { .create = { .format = "vhdx", .cluster_size = 1 << 20 } },
        { .create = { .format = "vhdx", .cluster_size = 1 << 20 }, .unclosed = true },
    };
    size_t n = 0;
    log_set_level(LOG_ERR);
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        bool possible = !shapes[i].pack || codec_available(CODEC_ZLIB);
        if (possible && strcmp(shapes[i].create.format, format) == 0 && n < DAMAGE_TEMPLATES) {
            damage_template_make(&list[n++], &shapes[i].create, shapes[i].pack, shapes[i].unclosed);
        }
    }
    return n;
}

/* input: which template, how it is used, changes. */
static inline void damage_run(const struct damage_template *list, size_t count,
                              const uint8_t *input, size_t len)
{
    if (len < 2) {
        return;
    }
    const struct damage_template *t = &list[input[0] % count];
    int fd = damage_make(t, input + 2, len - 2);
    damage_use(t, fd, input[1]);
    close(fd);
}

#endif
