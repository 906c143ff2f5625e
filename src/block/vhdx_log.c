/* SPDX-License-Identifier: Apache-2.0
 *
 * The log of VHDX. What we write is applied and on the medium before the next entry is begun, so
 * that each entry is a sequence of its own. What others left may be longer.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/bytes.h"
#include "block/vhdx.h"

enum { /* entry */
       E_CHECKSUM = 4,
       E_LEN = 8,
       E_TAIL = 12,
       E_SEQUENCE = 16,
       E_DESCRIPTORS = 24,
       E_GUID = 32,
       E_FLUSHED = 48,
       E_LAST = 56,
       E_HEADER_LEN = 64,
};
enum { /* descriptor, 32 bytes */
       D_TRAILING = 4,
       D_LEADING = 8, /* of zeroes: how many */
       D_OFFSET = 16,
       D_SEQUENCE = 24,
       D_LEN = 32,
};
#define ZEROES_MAX (64ull << 20) /* of one replay: it is done in memory */
#define SECTOR_DATA 4084u        /* bytes of a page that a data sector carries itself */

struct log {
    struct vhdx *v;
    uint8_t *bytes; /* all of it */
    uint64_t zeroed;
};

static void read_ring(const struct log *l, uint64_t at, uint8_t *to, size_t len)
{
    for (size_t done = 0; done < len;) {
        size_t from = (size_t)((at + done) % l->v->log_len);
        size_t n = l->v->log_len - from < len - done ? l->v->log_len - from : len - done;
        memcpy(to + done, l->bytes + from, n);
        done += n;
    }
}

/* The entry at `at`, free() it; NULL: there is no valid one. */
static uint8_t *valid_entry(const struct log *l, uint32_t at)
{
    uint8_t h[E_HEADER_LEN];
    read_ring(l, at, h, sizeof h);
    uint32_t len = load_le32(h + E_LEN);
    if (memcmp(h, "loge", 4) != 0 || len < VHDX_PAGE || len % VHDX_PAGE != 0 ||
        len > l->v->log_len || memcmp(h + E_GUID, l->v->header + H_LOG_GUID, 16) != 0 ||
        load_le64(h + E_SEQUENCE) == 0 || load_le32(h + E_TAIL) % VHDX_PAGE != 0 ||
        load_le32(h + E_TAIL) >= l->v->log_len ||
        load_le32(h + E_DESCRIPTORS) > (len - E_HEADER_LEN) / D_LEN) {
        return NULL;
    }
    uint8_t *entry = try_alloc(1, len);
    if (entry != NULL) {
        read_ring(l, at, entry, len);
        if (vhdx_checksum(entry, len, E_CHECKSUM) != load_le32(entry + E_CHECKSUM)) {
            free(entry);
            entry = NULL;
        }
    }
    return entry;
}

/* From the tail that `head` names up to it, every entry valid and with the next number? */
static bool is_sequence(const struct log *l, const uint8_t *head, uint32_t head_at)
{
    uint32_t at = load_le32(head + E_TAIL);
    uint64_t expected = 0;
    for (uint32_t steps = 0; steps <= l->v->log_len / VHDX_PAGE; steps++) {
        uint8_t *entry = valid_entry(l, at);
        if (entry == NULL) {
            return false;
        }
        uint64_t number = load_le64(entry + E_SEQUENCE);
        uint32_t len = load_le32(entry + E_LEN);
        free(entry);
        if (expected != 0 && number != expected) {
            return false;
        }
        if (at == head_at) {
            return true;
        }
        expected = number + 1;
        at = (at + len) % l->v->log_len;
    }
    return false;
}

/* The newest complete sequence; its head's place, or UINT32_MAX. */
static uint32_t find_head(const struct log *l)
{
    uint32_t best = UINT32_MAX;
    uint64_t best_number = 0;
    for (uint32_t at = 0; at < l->v->log_len; at += VHDX_PAGE) {
        if (memcmp(l->bytes + at, "loge", 4) != 0 ||
            load_le64(l->bytes + at + E_SEQUENCE) <= best_number) {
            continue;
        }
        uint8_t *entry = valid_entry(l, at);
        if (entry != NULL && is_sequence(l, entry, at)) {
            best = at;
            best_number = load_le64(entry + E_SEQUENCE);
        }
        free(entry);
    }
    return best;
}

static int apply_data(struct vhdx *v, const uint8_t *d, const uint8_t *sector, uint64_t sequence)
{
    uint8_t page[VHDX_PAGE];
    uint64_t offset = load_le64(d + D_OFFSET);
    uint64_t found = (uint64_t)load_le32(sector + 4) << 32 | load_le32(sector + VHDX_PAGE - 4);
    if (memcmp(sector, "data", 4) != 0 || found != sequence || offset % VHDX_PAGE != 0 ||
        offset > INT64_MAX - VHDX_PAGE) {
        return -EIO;
    }
    memcpy(page, d + D_LEADING, 8);
    memcpy(page + 8, sector + 8, SECTOR_DATA);
    memcpy(page + 8 + SECTOR_DATA, d + D_TRAILING, 4);
    return meta_write(v->g.meta, offset, page, sizeof page, 0);
}

static int apply_zeroes(struct log *l, const uint8_t *d)
{
    uint64_t len = load_le64(d + D_LEADING), offset = load_le64(d + D_OFFSET);
    if (len % VHDX_PAGE != 0 || offset % VHDX_PAGE != 0 || len > ZEROES_MAX - l->zeroed ||
        offset > INT64_MAX - len) {
        return -EIO;
    }
    l->zeroed += len;
    return meta_zero(l->v->g.meta, offset, len, 0);
}

static int apply_entry(struct log *l, const uint8_t *entry, uint64_t *last)
{
    uint32_t count = load_le32(entry + E_DESCRIPTORS), len = load_le32(entry + E_LEN);
    uint64_t sequence = load_le64(entry + E_SEQUENCE);
    uint64_t sector = align_up(E_HEADER_LEN + (uint64_t)count * D_LEN, VHDX_PAGE);
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < count; i++) {
        const uint8_t *d = entry + E_HEADER_LEN + (size_t)i * D_LEN;
        if (load_le64(d + D_SEQUENCE) != sequence) {
            r = -EIO;
        } else if (memcmp(d, "zero", 4) == 0) {
            r = apply_zeroes(l, d);
        } else if (memcmp(d, "desc", 4) == 0 && sector + VHDX_PAGE <= len) {
            r = apply_data(l->v, d, entry + sector, sequence);
            sector += VHDX_PAGE;
        } else {
            r = -EIO;
        }
    }
    uint64_t end = load_le64(entry + E_LAST);
    *last = end > *last ? end : *last;
    return r;
}

int vhdx_replay(struct vhdx *v, uint64_t *last, struct err *e)
{
    struct log l = { .v = v, .bytes = try_alloc(1, v->log_len) };
    uint64_t size = 0;
    *last = 0;
    int r = l.bytes == NULL ? -ENOMEM : hostfile_read(v->g.file, v->log_at, l.bytes, v->log_len);
    if (r == 0) {
        r = hostfile_size(v->g.file, &size);
    }
    uint32_t head = r == 0 ? find_head(&l) : UINT32_MAX;
    if (head != UINT32_MAX) {
        uint8_t *entry = valid_entry(&l, head);
        uint32_t at = entry != NULL ? load_le32(entry + E_TAIL) : 0;
        if (entry == NULL || load_le64(entry + E_FLUSHED) > size) {
            r = -EIO; /* the file was cut since */
        }
        free(entry);
        for (bool more = r == 0; r == 0 && more;) {
            entry = valid_entry(&l, at);
            more = at != head;
            r = entry != NULL ? apply_entry(&l, entry, last) : -EIO;
            at = entry != NULL ? (at + load_le32(entry + E_LEN)) % v->log_len : 0;
            free(entry);
        }
    }
    free(l.bytes);
    return r < 0 ? err_set(e, r, "%s: the log of what was not finished cannot be applied: %s",
                           v->g.block->path, strerror(-r))
                 : 0;
}

static void put_descriptor(uint8_t *d, const struct meta_page *p, uint64_t sequence)
{
    memcpy(d, "desc", 4);
    memcpy(d + D_TRAILING, p->bytes + 8 + SECTOR_DATA, 4);
    memcpy(d + D_LEADING, p->bytes, 8);
    store_le64(d + D_OFFSET, p->offset);
    store_le64(d + D_SEQUENCE, sequence);
}

int vhdx_journal(void *ctx, const struct meta_page *pages, size_t count)
{
    struct vhdx *v = ctx;
    uint64_t size;
    size_t len = VHDX_PAGE + count * VHDX_PAGE; /* a page has room for 126 descriptors */
    int r = hostfile_size(v->g.file, &size);
    uint8_t *entry = try_alloc(1, len);
    if (entry == NULL || len > v->log_len) {
        r = -ENOMEM;
    }
    if (r < 0) {
        free(entry);
        return r;
    }
    if (v->log_head + len > v->log_len) {
        v->log_head = 0;
    }
    uint64_t sequence = ++v->log_sequence;
    memcpy(entry, "loge", 4);
    store_le32(entry + E_LEN, (uint32_t)len);
    store_le32(entry + E_TAIL, v->log_head);
    store_le64(entry + E_SEQUENCE, sequence);
    store_le32(entry + E_DESCRIPTORS, (uint32_t)count);
    memcpy(entry + E_GUID, v->header + H_LOG_GUID, 16);
    store_le64(entry + E_FLUSHED, size);
    store_le64(entry + E_LAST, align_up(size, VHDX_MIB));
    for (size_t i = 0; i < count; i++) {
        uint8_t *sector = entry + VHDX_PAGE + i * VHDX_PAGE;
        put_descriptor(entry + E_HEADER_LEN + i * D_LEN, &pages[i], sequence);
        memcpy(sector, "data", 4);
        store_le32(sector + 4, (uint32_t)(sequence >> 32));
        memcpy(sector + 8, pages[i].bytes + 8, SECTOR_DATA);
        store_le32(sector + VHDX_PAGE - 4, (uint32_t)sequence);
    }
    store_le32(entry + E_CHECKSUM, vhdx_checksum(entry, len, E_CHECKSUM));
    r = hostfile_write(v->g.file, v->log_at + v->log_head, entry, len);
    if (r == 0) {
        r = hostfile_sync(v->g.file);
    }
    if (r == 0) {
        v->log_head = (uint32_t)((v->log_head + len) % v->log_len);
    }
    free(entry);
    return r;
}
