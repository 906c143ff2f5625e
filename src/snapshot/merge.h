/* SPDX-License-Identifier: Apache-2.0
 *
 * Keeping snapshots in order: which there are, one made to rest on fewer others, one taken away
 * from under those that rest on it. A chain lies in one directory. Whatever fails or is killed,
 * each snapshot but one that is being removed stays whole and shows what it showed.
 */
#ifndef SOSIA_SNAPSHOT_MERGE_H
#define SOSIA_SNAPSHOT_MERGE_H

#include "snapshot/chain.h"

/* One of a directory. Texts are borrowed for the call. */
struct snapshot_entry {
    const char *path;
    const struct snapfile_header *header; /* NULL: it cannot be read */
    unsigned depth;      /* how many others it rests on, as far as they are there */
    const char *problem; /* why it cannot be taken up; NULL: its chain is whole */
};

typedef void snapshot_entry_fn(void *ctx, const struct snapshot_entry *entry);

/* Those of a directory, or of the one that a file is in, each after the one that it rests on. */
MUST_CHECK int snapshot_list(const char *path, snapshot_entry_fn *fn, void *ctx, struct err *e);

/* path rests on `onto`, one of those that it rested on before, or (NULL) on none. */
MUST_CHECK int snapshot_merge(const char *path, const char *onto, struct err *e);

/* Removes it. Those that rest on it take what they need of it and rest on its parent then; told of
 * each: fn, entry->path and header alone. */
MUST_CHECK int snapshot_prune(const char *path, snapshot_entry_fn *fn, void *ctx, struct err *e);

#endif
