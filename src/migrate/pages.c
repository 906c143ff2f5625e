/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/pages.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/bytes.h"
#include "snapshot/pack.h"

/* A run: first page:u64 pages:u32 kind:u32, then the bytes of WHOLE ones. */
#define RUN_HEADER 16u
enum run_kind { RUN_ZERO, RUN_WHOLE };

/* -- Sending ----------------------------------------------------------------------------------- */

/* Even if each page were a run of its own. */
#define DATA_MAX (CHANNEL_PAGES_MAX * (GMEM_PAGE_SIZE + 2 * RUN_HEADER))
_Static_assert(DATA_MAX <= CHANNEL_PAYLOAD_MAX, "a message of pages");

void pages_out_init(struct pages_out *p, struct channel *c, bool compress)
{
    *p = (struct pages_out){ .channel = c, .data = xzalloc(DATA_MAX) };
    p->packed = compress ? xzalloc(pack_bound(DATA_MAX)) : NULL;
}

void pages_out_fini(struct pages_out *p)
{
    free(p->data);
    free(p->packed);
}

int pages_flush(struct pages_out *p, struct err *e)
{
    long n = 0;
    int r = 0;
    if (p->len != 0 && p->packed != NULL) {
        n = pack_compress(p->packed, pack_bound(DATA_MAX), p->data, p->len);
        if (n < 0) {
            return err_set(e, (int)n, "memory cannot be compressed: %s", strerror((int)-n));
        }
    }
    if (n != 0 && (size_t)n < p->len) {
        r = channel_send(p->channel, MESSAGE_PACKED, p->packed, (size_t)n, e);
    } else if (p->len != 0) {
        r = channel_send(p->channel, MESSAGE_PAGES, p->data, p->len, e);
    }
    p->len = p->run = 0;
    p->count = 0;
    return r;
}

int pages_put(struct pages_out *p, uint64_t n, const uint8_t *page, struct err *e)
{
    uint8_t *copy = p->data + p->len;
    bool first = p->len == 0;
    /* Behind the place of a run's header, which may turn out to be needed. */
    memcpy(copy + RUN_HEADER, page, GMEM_PAGE_SIZE);
    enum run_kind kind = bytes_are_zero(copy + RUN_HEADER, GMEM_PAGE_SIZE) ? RUN_ZERO : RUN_WHOLE;
    uint8_t *run = p->data + p->run;
    if (!first && load_le32(run + 12) == kind && load_le64(run) + load_le32(run + 8) == n) {
        store_le32(run + 8, load_le32(run + 8) + 1);
        if (kind == RUN_WHOLE) {
            memmove(copy, copy + RUN_HEADER, GMEM_PAGE_SIZE);
            p->len += GMEM_PAGE_SIZE;
        }
    } else {
        p->run = p->len;
        store_le64(copy, n);
        store_le32(copy + 8, 1);
        store_le32(copy + 12, kind);
        p->len += RUN_HEADER + (kind == RUN_WHOLE ? GMEM_PAGE_SIZE : 0);
    }
    p->count += kind == RUN_WHOLE;
    atomic_fetch_add(kind == RUN_WHOLE ? &p->whole : &p->zero, 1);
    bool full = p->count == CHANNEL_PAGES_MAX ||
                p->len > DATA_MAX - 2 * (RUN_HEADER + GMEM_PAGE_SIZE);
    return full ? pages_flush(p, e) : 0;
}

/* -- Receiving --------------------------------------------------------------------------------- */

static int take_run(struct gmem *mem, uint64_t count, const uint8_t **at, size_t *left,
                    struct err *e)
{
    if (*left < RUN_HEADER) {
        return err_set(e, -EPROTO, "a message of memory is cut off");
    }
    uint64_t first = load_le64(*at);
    uint32_t pages = load_le32(*at + 8), kind = load_le32(*at + 12);
    *at += RUN_HEADER;
    *left -= RUN_HEADER;
    if (kind > RUN_WHOLE || first >= count || pages > count - first) {
        return err_set(e, -EPROTO, "pages that the machine does not have: %u from %llu on", pages,
                       (unsigned long long)first);
    }
    if (kind == RUN_ZERO) {
        gmem_drop_pages(mem, first, pages);
        return 0;
    }
    size_t bytes = (size_t)pages * GMEM_PAGE_SIZE;
    if (*left < bytes) {
        return err_set(e, -EPROTO, "a message of memory is cut off");
    }
    memcpy(gmem_ram_host(mem) + first * GMEM_PAGE_SIZE, *at, bytes);
    *at += bytes;
    *left -= bytes;
    return 0;
}

int pages_take(struct gmem *mem, uint64_t count, const struct received *m, uint8_t *unpacked,
               struct err *e)
{
    const uint8_t *at = m->data;
    size_t left = m->len;
    int r = 0;
    if (m->type == MESSAGE_PACKED) {
        long n = pack_expand(unpacked, CHANNEL_PAYLOAD_MAX, m->data, m->len);
        if (n < 0) {
            return err_set(e, (int)n,
                           n == -ENOTSUP ? "this build has no zstd: send without compression"
                                         : "compressed memory is damaged");
        }
        at = unpacked;
        left = (size_t)n;
    }
    while (left != 0 && r == 0) {
        r = take_run(mem, count, &at, &left, e);
    }
    return r;
}
