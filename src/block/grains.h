/* SPDX-License-Identifier: Apache-2.0
 *
 * What the formats with a plain table of equal units have in common (VMDK, VDI, VHD, VHDX): reads
 * and writes through the table, units added at the end of the file. The format gives the table.
 *
 * A new unit is written first and linked afterwards; the link is in a struct meta and gets to the
 * file with the next flush, behind the unit. No unit moves or goes: discarding one gives its space
 * back to the host and leaves it where it is.
 */
#ifndef SOSIA_BLOCK_GRAINS_H
#define SOSIA_BLOCK_GRAINS_H

#include <pthread.h>

#include "block/internal.h"
#include "block/meta.h"

enum grain_kind { GRAIN_HOLE, GRAIN_ZERO, GRAIN_DATA, GRAIN_PACKED };

struct grain {
    enum grain_kind kind;
    uint64_t host; /* of the byte asked for: DATA; of the unit: PACKED */
    uint64_t len;  /* how far that goes, at most to the end of the unit */
};

struct grains;

struct grain_table {
    /* offset is inside the table's part of the disk, len ends inside the unit. */
    int (*look)(struct grains *g, uint64_t offset, uint64_t len, struct grain *out);
    /* Where unit n is to be; reuses its place if it has one. fresh: reads as zeroes there. */
    int (*place)(struct grains *g, uint64_t n, uint64_t *host, bool *fresh);
    /* Unit n is completely at host (DATA) or reads as zeroes (ZERO). */
    int (*link)(struct grains *g, uint64_t n, enum grain_kind kind, uint64_t host);
    int (*unpack)(struct grains *g, uint64_t offset, const struct grain *at, void *buf, size_t len);
    bool can_zero; /* link knows ZERO */
};

struct grains {
    struct block *block;
    struct hostfile *file; /* borrowed */
    struct meta *meta;
    pthread_rwlock_t lock; /* exclusive: the table changes */
    const struct grain_table *table;
    void *format;   /* the table's own */
    uint64_t unit;  /* a power of two */
    uint64_t start; /* of this part in the disk */
    uint64_t size;  /* of this part */
    uint64_t end;   /* of the file, where a unit can be added */
};

/* The caller sets block, file, table, format, unit, start, size and end. */
void grains_init(struct grains *g, uint32_t meta_page);
void grains_fini(struct grains *g); /* flushes */

/* Offsets are inside the part. */
int grains_read(struct grains *g, uint64_t offset, void *buf, size_t len);
int grains_write(struct grains *g, uint64_t offset, const void *buf, size_t len);
int grains_zero(struct grains *g, uint64_t offset, uint64_t len, bool may_unmap);
int grains_discard(struct grains *g, uint64_t offset, uint64_t len);
int grains_flush(struct grains *g);
int grains_map(struct grains *g, uint64_t offset, uint64_t len, struct block_extent *out);

#endif
