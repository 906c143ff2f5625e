/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/crc32c.h"

static const char magic[8] = "SOSIASN\x1a";
#define FORMAT 1u
#define PARENT_AT 128u
#define CRC_AT (SNAPFILE_PAGE - 4u)
/* A terabyte of RAM and the ROMs: what mem/gmem.h can hold. */
#define PAGES_MAX ((1ull << 28) + (1ull << 14))

/* Where in the header page the 64-bit numbers are. */
static const struct {
    uint32_t at, offset;
} numbers[] = {
#define N(at, m)                                                                                   \
    {                                                                                              \
        at, offsetof(struct snapfile_header, m)                                                    \
    }
    N(48, wall_ns),   N(56, pages),    N(64, ram_pages), N(72, rom_pages), N(80, stored),
    N(88, memory_at), N(96, table_at), N(104, slabs_at), N(112, state_at), N(120, state_len),
#undef N
};
#define FILE_LEN_AT (PARENT_AT + SNAPFILE_PARENT_MAX)

void snapfile_encode(const struct snapfile_header *h, uint8_t page[SNAPFILE_PAGE])
{
    memset(page, 0, SNAPFILE_PAGE);
    memcpy(page, magic, sizeof magic);
    store_le32(page + 8, FORMAT);
    store_le32(page + 12, h->flags);
    memcpy(page + 16, h->id, SNAPFILE_ID);
    memcpy(page + 32, h->parent_id, SNAPFILE_ID);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        memcpy(page + numbers[i].at, (const uint8_t *)h + numbers[i].offset, 8);
    }
    memcpy(page + PARENT_AT, h->parent, SNAPFILE_PARENT_MAX);
    store_le64(page + FILE_LEN_AT, h->file_len);
    store_le32(page + CRC_AT, crc32c(0, page, CRC_AT));
}

bool snapfile_recognise(const uint8_t *head, uint64_t len)
{
    return len >= sizeof magic && memcmp(head, magic, sizeof magic) == 0;
}

int snapfile_read(int fd, const char *path, uint64_t at, void *buf, uint64_t len, struct err *e)
{
    uint8_t *to = buf;
    while (len != 0) {
        ssize_t n = pread(fd, to, len < 1u << 30 ? (size_t)len : 1u << 30, (off_t)at);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return err_set(e, -errno, "%s: %s", path, strerror(errno));
        }
        if (n == 0) {
            return err_set(e, -EINVAL, "%s: ends before its time", path);
        }
        to += n;
        at += (uint64_t)n;
        len -= (uint64_t)n;
    }
    return 0;
}

int snapfile_write(int fd, uint64_t at, const void *buf, uint64_t len)
{
    const uint8_t *from = buf;
    while (len != 0) {
        ssize_t n = pwrite(fd, from, len < 1u << 30 ? (size_t)len : 1u << 30, (off_t)at);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? -errno : -ENOSPC;
        }
        from += n;
        at += (uint64_t)n;
        len -= (uint64_t)n;
    }
    return 0;
}

uint64_t snapfile_slab_count(const struct snapfile_header *h)
{
    return (h->pages + SNAPFILE_SLAB_PAGES - 1) / SNAPFILE_SLAB_PAGES;
}

/* [at, at+len) lies in the file, behind the header. */
static bool inside(const struct snapfile_header *h, uint64_t at, uint64_t len)
{
    return at >= SNAPFILE_PAGE && at <= h->file_len && len <= h->file_len - at;
}

static bool numbers_agree(const struct snapfile_header *h)
{
    if (h->pages == 0 || h->pages > PAGES_MAX || h->ram_pages > h->pages ||
        h->rom_pages > h->pages - h->ram_pages || h->state_len > SNAPFILE_STATE_MAX ||
        (h->flags & ~(uint32_t)SNAPFILE_ZSTD) || h->parent[SNAPFILE_PARENT_MAX - 1] != '\0') {
        return false;
    }
    bool memory = h->flags & SNAPFILE_ZSTD
                      ? inside(h, h->slabs_at,
                               snapfile_slab_count(h) * sizeof(struct snapfile_slab) + 4)
                      : inside(h, h->memory_at, h->pages * SNAPFILE_PAGE) &&
                            h->memory_at % SNAPFILE_PAGE == 0;
    return memory && inside(h, h->table_at, h->pages * sizeof(struct snapfile_page) + 4) &&
           inside(h, h->state_at, h->state_len);
}

int snapfile_read_header(int fd, const char *path, struct snapfile_header *h, struct err *e)
{
    uint8_t page[SNAPFILE_PAGE];
    struct stat st;
    if (fstat(fd, &st) < 0) {
        return err_set(e, -errno, "%s: %s", path, strerror(errno));
    }
    if (!S_ISREG(st.st_mode) || st.st_size < (off_t)sizeof page) {
        return err_set(e, -EINVAL, "%s: not a snapshot", path);
    }
    int r = snapfile_read(fd, path, 0, page, sizeof page, e);
    if (r < 0) {
        return r;
    }
    if (!snapfile_recognise(page, sizeof page)) {
        return err_set(e, -EINVAL, "%s: not a snapshot", path);
    }
    if (load_le32(page + CRC_AT) != crc32c(0, page, CRC_AT)) {
        return err_set(e, -EINVAL, "%s: the header is damaged", path);
    }
    if (load_le32(page + 8) != FORMAT) {
        return err_set(e, -EINVAL, "%s: format %u, this sosia knows %u", path, load_le32(page + 8),
                       FORMAT);
    }
    h->flags = load_le32(page + 12);
    memcpy(h->id, page + 16, SNAPFILE_ID);
    memcpy(h->parent_id, page + 32, SNAPFILE_ID);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        memcpy((uint8_t *)h + numbers[i].offset, page + numbers[i].at, 8);
    }
    memcpy(h->parent, page + PARENT_AT, SNAPFILE_PARENT_MAX);
    h->file_len = load_le64(page + FILE_LEN_AT);
    if (h->file_len != (uint64_t)st.st_size) {
        return err_set(e, -EINVAL, "%s: %lld bytes, where %llu were written", path,
                       (long long)st.st_size, (unsigned long long)h->file_len);
    }
    return numbers_agree(h) ? 0 : err_set(e, -EINVAL, "%s: the header contradicts itself", path);
}

/* An array with its checksum behind it. Its size was checked against the file's. */
static int read_array(int fd, const char *path, uint64_t at, uint64_t len, void **out,
                      struct err *e)
{
    uint8_t crc[4];
    void *array = try_alloc(1, len);
    if (array == NULL) {
        return err_set(e, -ENOMEM, "%s: no memory for its tables", path);
    }
    int r = snapfile_read(fd, path, at, array, len, e);
    if (r == 0) {
        r = snapfile_read(fd, path, at + len, crc, sizeof crc, e);
    }
    if (r == 0 && load_le32(crc) != crc32c(0, array, len)) {
        r = err_set(e, -EINVAL, "%s: a table is damaged", path);
    }
    if (r < 0) {
        free(array);
        return r;
    }
    *out = array;
    return 0;
}

int snapfile_read_table(int fd, const char *path, const struct snapfile_header *h,
                        struct snapfile_page **out, struct err *e)
{
    void *array;
    int r = read_array(fd, path, h->table_at, h->pages * sizeof **out, &array, e);
    if (r < 0) {
        return r;
    }
    struct snapfile_page *table = array;
    for (uint64_t i = 0; i < h->pages; i++) {
        if (table[i].kind > SNAPFILE_PARENT ||
            (table[i].kind == SNAPFILE_PARENT && h->parent[0] == '\0')) {
            free(table);
            return err_set(e, -EINVAL, "%s: a page of an unknown kind", path);
        }
    }
    *out = table;
    return 0;
}

int snapfile_read_slabs(int fd, const char *path, const struct snapfile_header *h,
                        struct snapfile_slab **out, struct err *e)
{
    void *array;
    uint64_t count = snapfile_slab_count(h);
    int r = read_array(fd, path, h->slabs_at, count * sizeof **out, &array, e);
    if (r < 0) {
        return r;
    }
    struct snapfile_slab *slabs = array;
    for (uint64_t i = 0; i < count; i++) {
        if (slabs[i].len != 0 && (!inside(h, slabs[i].at, slabs[i].len) ||
                                  slabs[i].len > 2ull * SNAPFILE_SLAB_PAGES * SNAPFILE_PAGE)) {
            free(slabs);
            return err_set(e, -EINVAL, "%s: compressed memory lies outside of the file", path);
        }
    }
    *out = slabs;
    return 0;
}

char *snapfile_relative(const char *from, const char *path)
{
    const char *slash = strrchr(from, '/');
    if (path[0] == '/' || slash == NULL) {
        return xstrdup(path);
    }
    return xasprintf("%.*s/%s", (int)(slash - from), from, path);
}
