/* SPDX-License-Identifier: Apache-2.0 */
#include "block/grains.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/log.h"

void grains_init(struct grains *g, uint32_t meta_page)
{
    block_lock_init(&g->lock);
    g->meta = meta_new(g->file, meta_page);
}

void grains_fini(struct grains *g)
{
    if (g->meta == NULL) {
        return;
    }
    if (!g->block->readonly && meta_is_dirty(g->meta)) {
        int r = meta_flush(g->meta);
        if (r < 0) {
            log_warn("%s: closing: %s", g->block->path, strerror(-r));
        }
    }
    meta_free(g->meta);
    g->meta = NULL;
    pthread_rwlock_destroy(&g->lock);
}

static uint64_t unit_end(const struct grains *g, uint64_t offset)
{
    uint64_t end = (offset | (g->unit - 1)) + 1;
    return end < g->size ? end : g->size;
}

static int look(struct grains *g, uint64_t offset, uint64_t len, struct grain *out)
{
    uint64_t left = unit_end(g, offset) - offset;
    return g->table->look(g, offset, len < left ? len : left, out);
}

static int read_locked(struct grains *g, uint64_t offset, uint8_t *buf, size_t len)
{
    while (len > 0) {
        struct grain at;
        int r = look(g, offset, len, &at);
        if (r < 0) {
            return r;
        }
        size_t n = (size_t)at.len;
        switch (at.kind) {
        case GRAIN_HOLE:
            r = block_read_parent(g->block, g->start + offset, buf, n);
            break;
        case GRAIN_ZERO:
            memset(buf, 0, n);
            break;
        case GRAIN_DATA:
            r = hostfile_read(g->file, at.host, buf, n);
            break;
        case GRAIN_PACKED:
            r = g->table->unpack(g, offset, &at, buf, n);
            break;
        }
        if (r < 0) {
            return r;
        }
        buf += n;
        offset += n;
        len -= n;
    }
    return 0;
}

int grains_read(struct grains *g, uint64_t offset, void *buf, size_t len)
{
    pthread_rwlock_rdlock(&g->lock);
    int r = read_locked(g, offset, buf, len);
    pthread_rwlock_unlock(&g->lock);
    return r;
}

/* Does all of the unit around offset read as zeroes without its own data? */
static bool zero_around(struct grains *g, uint64_t offset)
{
    uint64_t start = align_down(offset, g->unit);
    const struct block *parent = g->block->parent;
    struct grain at;
    if (look(g, start, g->unit, &at) < 0 || at.len != unit_end(g, start) - start) {
        return false;
    }
    return at.kind == GRAIN_ZERO ||
           (at.kind == GRAIN_HOLE && (parent == NULL || g->start + start >= block_size(parent)));
}

/* The rest of the unit as it was, by pieces: a unit may be large. */
static int copy_around(struct grains *g, uint64_t from, uint64_t to, uint64_t host)
{
    uint8_t *buf = try_alloc(1, 1 << 20);
    int r = buf == NULL ? -ENOMEM : 0;
    while (r == 0 && from < to) {
        size_t n = to - from < (1 << 20) ? (size_t)(to - from) : 1 << 20;
        r = read_locked(g, from, buf, n);
        if (r == 0) {
            r = hostfile_write(g->file, host, buf, n);
        }
        from += n;
        host += n;
    }
    free(buf);
    return r;
}

/* Inside one unit that is not, or not completely, there. */
static int write_unit(struct grains *g, uint64_t offset, const void *buf, size_t len)
{
    uint64_t start = align_down(offset, g->unit), end = unit_end(g, offset), host;
    uint64_t at = offset - start;
    bool fresh, zeroes = zero_around(g, offset);
    int r = g->table->place(g, offset / g->unit, &host, &fresh);
    if (r < 0) {
        return r;
    }
    if (zeroes && !(fresh && !hostfile_is_device(g->file))) {
        r = hostfile_zero(g->file, host, g->unit, true);
    } else if (!zeroes) {
        r = copy_around(g, start, offset, host);
        if (r == 0) {
            r = copy_around(g, offset + len, end, host + at + len);
        }
    }
    if (r == 0) {
        r = hostfile_write(g->file, host + at, buf, len);
    }
    if (r == 0 && at + len < g->unit) { /* the file holds whole units */
        uint64_t size;
        r = hostfile_size(g->file, &size);
        if (r == 0 && size < host + g->unit) {
            r = hostfile_truncate(g->file, host + g->unit);
        }
    }
    return r < 0 ? r : g->table->link(g, offset / g->unit, GRAIN_DATA, host);
}

static int write_piece(struct grains *g, uint64_t offset, const void *buf, size_t len)
{
    struct grain at;
    int r = look(g, offset, len, &at);
    if (r == 0 && at.kind == GRAIN_DATA && at.len == len) {
        return hostfile_write(g->file, at.host, buf, len);
    }
    if (r == 0 && at.kind == GRAIN_PACKED) {
        r = -EROFS;
    }
    return r < 0 ? r : write_unit(g, offset, buf, len);
}

/* As much as is there already; others may do the same. */
static int write_in_place(struct grains *g, uint64_t offset, const uint8_t *buf, size_t len,
                          size_t *written)
{
    *written = 0;
    while (*written < len) {
        struct grain at;
        int r = look(g, offset + *written, len - *written, &at);
        if (r < 0 || at.kind != GRAIN_DATA) {
            return r;
        }
        r = hostfile_write(g->file, at.host, buf + *written, (size_t)at.len);
        if (r < 0) {
            return r;
        }
        *written += (size_t)at.len;
    }
    return 0;
}

static int write_locked(struct grains *g, uint64_t offset, const uint8_t *buf, size_t len)
{
    int r = 0;
    while (r == 0 && len > 0) {
        size_t n = block_piece(offset, len, g->unit);
        if (meta_is_crowded(g->meta)) {
            r = meta_flush(g->meta);
        }
        if (r == 0) {
            r = write_piece(g, offset, buf, n);
        }
        buf += n;
        offset += n;
        len -= n;
    }
    return r;
}

int grains_write(struct grains *g, uint64_t offset, const void *buf, size_t len)
{
    size_t done;
    pthread_rwlock_rdlock(&g->lock);
    int r = write_in_place(g, offset, buf, len, &done);
    pthread_rwlock_unlock(&g->lock);
    if (r < 0 || done == len) {
        return r;
    }
    pthread_rwlock_wrlock(&g->lock);
    r = write_locked(g, offset + done, (const uint8_t *)buf + done, len - done);
    pthread_rwlock_unlock(&g->lock);
    return r;
}

static int write_literal_zeroes(struct grains *g, uint64_t offset, uint64_t len)
{
    static const uint8_t zeroes[65536];
    int r = 0;
    while (r == 0 && len > 0) {
        size_t n = block_piece(offset, len, sizeof zeroes);
        r = write_locked(g, offset, zeroes, n);
        offset += n;
        len -= n;
    }
    return r;
}

static int zero_piece(struct grains *g, uint64_t offset, const struct grain *at, bool may_unmap)
{
    bool whole = offset % g->unit == 0 && offset + at->len == unit_end(g, offset);
    const struct block *parent = g->block->parent;
    if (at->kind == GRAIN_DATA) {
        return hostfile_zero(g->file, at->host, at->len, may_unmap);
    }
    if (at->kind == GRAIN_ZERO ||
        (at->kind == GRAIN_HOLE && (parent == NULL || g->start + offset >= block_size(parent)))) {
        return 0;
    }
    if (whole && g->table->can_zero && at->kind == GRAIN_HOLE) {
        return g->table->link(g, offset / g->unit, GRAIN_ZERO, 0);
    }
    return write_literal_zeroes(g, offset, at->len);
}

int grains_zero(struct grains *g, uint64_t offset, uint64_t len, bool may_unmap)
{
    int r = 0;
    pthread_rwlock_wrlock(&g->lock);
    while (r == 0 && len > 0) {
        struct grain at;
        if (meta_is_crowded(g->meta)) {
            r = meta_flush(g->meta);
        }
        if (r == 0) {
            r = look(g, offset, len, &at);
        }
        if (r == 0) {
            r = zero_piece(g, offset, &at, may_unmap);
            offset += at.len;
            len -= at.len;
        }
    }
    pthread_rwlock_unlock(&g->lock);
    return r;
}

/* What is here gives its space back; what is the parent's stays. */
int grains_discard(struct grains *g, uint64_t offset, uint64_t len)
{
    int r = 0;
    pthread_rwlock_rdlock(&g->lock);
    while (r == 0 && len > 0) {
        struct grain at;
        r = look(g, offset, len, &at);
        if (r < 0) {
            break;
        }
        if (at.kind == GRAIN_DATA) {
            int punched = hostfile_punch(g->file, at.host, at.len);
            r = punched == -EOPNOTSUPP || punched == -ENODEV ? 0 : punched;
        }
        offset += at.len;
        len -= at.len;
    }
    pthread_rwlock_unlock(&g->lock);
    return r;
}

int grains_flush(struct grains *g)
{
    pthread_rwlock_wrlock(&g->lock);
    bool tables = meta_is_dirty(g->meta);
    int r = tables ? meta_flush(g->meta) : 0;
    pthread_rwlock_unlock(&g->lock);
    return tables ? r : hostfile_sync(g->file);
}

int grains_map(struct grains *g, uint64_t offset, uint64_t len, struct block_extent *out)
{
    static const enum block_extent_kind kinds[] = { [GRAIN_HOLE] = BLOCK_HOLE,
                                                    [GRAIN_ZERO] = BLOCK_ZERO,
                                                    [GRAIN_DATA] = BLOCK_DATA,
                                                    [GRAIN_PACKED] = BLOCK_DATA };
    struct grain first, at;
    pthread_rwlock_rdlock(&g->lock);
    int r = look(g, offset, len, &first);
    uint64_t n = r == 0 ? first.len : 0;
    /* Longer runs save the caller calls; a bound saves us from a table of holes without end. */
    for (unsigned units = 0; r == 0 && n < len && units < 4096; units++) {
        r = look(g, offset + n, len - n, &at);
        if (r < 0 || at.kind != first.kind || at.kind == GRAIN_PACKED ||
            (at.kind == GRAIN_DATA && at.host != first.host + n)) {
            break;
        }
        n += at.len;
    }
    if (r == 0) {
        out->kind = kinds[first.kind];
        out->len = n;
        out->file_offset = first.kind == GRAIN_DATA ? first.host : UINT64_MAX;
    }
    pthread_rwlock_unlock(&g->lock);
    return r;
}
