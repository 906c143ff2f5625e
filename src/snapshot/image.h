/* SPDX-License-Identifier: Apache-2.0
 *
 * Writing a snapshot file: of memory, where pages that are zero or the parent's are left out, or of
 * a chain whose layers become one. Of memory it runs in a forked child: no locks of ours, no
 * logging.
 */
#ifndef SOSIA_SNAPSHOT_IMAGE_H
#define SOSIA_SNAPSHOT_IMAGE_H

#include "snapshot/chain.h"

struct image {
    int fd;
    const uint8_t *memory; /* header.pages of them; NULL: they are those of `merged` */
    struct chain *merged;  /* tables loaded: the pages of its first layers go into the file */
    unsigned layers;       /* so many; the others' are the new parent's */
    struct snapfile_header header; /* id, parent, wall_ns, pages and flags given; the rest is set */
    struct snapfile_page *table;   /* zeroed room for header.pages */
    struct chain *parent;          /* tables loaded; NULL: none */
    const void *state;             /* the stream */
    bool sync;                     /* onto the medium before it returns */
    uint8_t *room;                 /* own: pages of `merged` */
};

/* Where everything goes, and the file grown to it. -errno. e: what is wrong with `merged`. */
MUST_CHECK int image_write(struct image *w, struct err *e);

#endif
