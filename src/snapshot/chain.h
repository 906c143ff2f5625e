/* SPDX-License-Identifier: Apache-2.0
 *
 * A snapshot and the parents that it rests on, open for reading: which file has a page, and what is
 * in it. While a chain is open its files have a lock that keeps merge and prune away.
 */
#ifndef SOSIA_SNAPSHOT_CHAIN_H
#define SOSIA_SNAPSHOT_CHAIN_H

#include "snapshot/file.h"

struct chain_layer {
    char *path; /* owned */
    int fd;
    struct snapfile_header header;
    struct snapfile_page *table; /* owned; NULL until chain_load_tables */
    struct snapfile_slab *slabs; /* owned; NULL unless compressed */
    uint8_t *slab;               /* owned: the pages of one frame, unpacked; NULL: none yet */
    uint64_t slab_number;
};

struct chain {
    struct chain_layer layer[SNAPFILE_CHAIN_MAX]; /* 0 is the snapshot, then its parent... */
    unsigned count;
};

MUST_CHECK int chain_open(struct chain **out, const char *path, struct err *e);
void chain_close(struct chain *c);
/* The tables of all layers: what chain_find and chain_page need. */
MUST_CHECK int chain_load_tables(struct chain *c, struct err *e);
/* Whose a page is: the layer that has its bytes, or where its word is that it is zero. */
const struct snapfile_page *chain_find(const struct chain *c, uint64_t page, unsigned *layer);
/* The bytes of a page that is not ZERO, checked. */
MUST_CHECK int chain_page(struct chain *c, uint64_t page, uint8_t out[SNAPFILE_PAGE],
                          struct err *e);

#endif
