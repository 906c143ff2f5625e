/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory in messages: runs of pages with their bytes, and runs that are zero. A message holds up to
 * CHANNEL_PAGES_MAX pages, and is compressed as a whole if that is asked for.
 *
 * Thread: one at a time for one object.
 */
#ifndef SOSIA_MIGRATE_PAGES_H
#define SOSIA_MIGRATE_PAGES_H

#include "mem/gmem.h"
#include "migrate/channel.h"

struct pages_out {
    struct channel *channel; /* borrowed */
    uint8_t *data;           /* owned: the message that is being filled */
    uint8_t *packed;         /* owned; NULL: not compressed */
    size_t len;
    size_t run;    /* where the last run begins in data */
    uint32_t count; /* pages with bytes in data */
    _Atomic uint64_t zero, whole; /* sent so far, of each kind; others look */
};

void pages_out_init(struct pages_out *p, struct channel *c, bool compress);
void pages_out_fini(struct pages_out *p);
/* Page n has these bytes. It is copied: it may change meanwhile, and is then sent again. */
MUST_CHECK int pages_put(struct pages_out *p, uint64_t n, const uint8_t *page, struct err *e);
MUST_CHECK int pages_flush(struct pages_out *p, struct err *e);

/* A message into memory, which has `count` pages. unpacked: room for CHANNEL_PAYLOAD_MAX. */
MUST_CHECK int pages_take(struct gmem *mem, uint64_t count, const struct received *m,
                          uint8_t *unpacked, struct err *e);

#endif
