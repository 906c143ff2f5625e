/* SPDX-License-Identifier: Apache-2.0
 *
 * Writing the memory part of a snapshot: pages that are zero or the parent's are left out.  Runs in
 * a forked child: no locks of ours, no logging.
 */
#ifndef SOSIA_SNAPSHOT_IMAGE_H
#define SOSIA_SNAPSHOT_IMAGE_H

#include "snapshot/chain.h"

struct image {
    int fd;
    const uint8_t *memory;       /* header.pages of them */
    struct snapfile_header header; /* id, parent, wall_ns, pages and flags given; the rest is set */
    struct snapfile_page *table; /* zeroed room for header.pages */
    struct chain *parent;        /* tables loaded; NULL: none */
    const void *state;           /* the stream */
    bool sync;                   /* onto the medium before it returns */
};

/* Where everything goes, and the file grown to it. -errno */
MUST_CHECK int image_write(struct image *w);

#endif
