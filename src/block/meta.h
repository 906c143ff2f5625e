/* SPDX-License-Identifier: Apache-2.0
 *
 * Tables of an image file, held in memory by pages and written back in an order that leaves the
 * file consistent wherever it is cut off.
 *
 * A page that is written belongs to a rank. meta_flush brings the data that was written before it
 * to the medium, then the pages of rank 0, then those of rank 1..., with a sync after each: what
 * points to something has a higher rank than the thing. Until then nothing of it is in the file: a
 * process that dies loses what was not flushed, and nothing else.
 *
 * Thread: [any] for meta_read; what changes pages has the format's exclusive lock.
 */
#ifndef SOSIA_BLOCK_META_H
#define SOSIA_BLOCK_META_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct hostfile;
struct meta;

#define META_RANKS 4u

/* page_size: a power of two that no table shares with data. file is borrowed. */
struct meta *meta_new(struct hostfile *file, uint32_t page_size);
void meta_free(struct meta *m); /* what was not flushed is lost */

MUST_CHECK int meta_read(struct meta *m, uint64_t offset, void *buf, size_t len);
MUST_CHECK int meta_write(struct meta *m, uint64_t offset, const void *buf, size_t len,
                          unsigned rank);
/* Whole pages become zeroes without being read. */
MUST_CHECK int meta_zero(struct meta *m, uint64_t offset, uint64_t len, unsigned rank);
/* These bytes are no table any more: drop them, written back or not. */
void meta_forget(struct meta *m, uint64_t offset, uint64_t len);

/* Called before pages are written in place, at most META_JOURNAL_MAX at a time, with what they will
 * be; has that on the medium when it returns 0. For formats with a log. */
#define META_JOURNAL_MAX 64u
struct meta_page {
    uint64_t offset;
    const uint8_t *bytes;
};
typedef int meta_journal_fn(void *ctx, const struct meta_page *pages, size_t count);
void meta_set_journal(struct meta *m, meta_journal_fn *fn, void *ctx);

bool meta_is_dirty(struct meta *m);
/* Enough is waiting to be worth a flush. */
bool meta_is_crowded(struct meta *m);
MUST_CHECK int meta_flush(struct meta *m);

#endif
