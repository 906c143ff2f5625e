/* SPDX-License-Identifier: Apache-2.0
 *
 * A snapshot file (docs/snapshots.md): a header page, the pages of memory, a table of what they
 * are, and the state stream. Everything that is read from one is hostile.
 */
#ifndef SOSIA_SNAPSHOT_FILE_H
#define SOSIA_SNAPSHOT_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define SNAPFILE_PAGE 4096u
#define SNAPFILE_ID 16u
#define SNAPFILE_PARENT_MAX 1024u
#define SNAPFILE_STATE_MAX (256ull << 20)
#define SNAPFILE_CHAIN_MAX 64u
/* Compressed memory: this many pages are one zstd frame. */
#define SNAPFILE_SLAB_PAGES 256u

enum snapfile_flag { SNAPFILE_ZSTD = 1u << 0 };

/* What a page is. Its bytes are in the file only for STORED. */
enum snapfile_kind { SNAPFILE_ZERO, SNAPFILE_STORED, SNAPFILE_PARENT };

struct snapfile_header {
    uint32_t flags;
    uint8_t id[SNAPFILE_ID];
    uint8_t parent_id[SNAPFILE_ID]; /* zero: none */
    uint64_t wall_ns;               /* when the machine stood still */
    uint64_t pages;                 /* of memory: RAM, then copies of ROMs */
    uint64_t ram_pages;             /* of these */
    uint64_t rom_pages;             /* of ROMs that were in use */
    uint64_t stored;                /* pages with bytes here */
    uint64_t memory_at;             /* page n at memory_at + n * 4096, unless compressed */
    uint64_t table_at;              /* pages times struct snapfile_page, then a checksum */
    uint64_t slabs_at;              /* compressed: of each slab where it is, then a checksum */
    uint64_t state_at, state_len;
    uint64_t file_len;
    char parent[SNAPFILE_PARENT_MAX]; /* its name as seen from this file's directory; "": none */
};

/* In the file as it is here. */
struct snapfile_page {
    uint32_t crc; /* STORED: CRC-32C of the 4096 bytes */
    uint32_t kind;
};
struct snapfile_slab {
    uint64_t at;
    uint64_t len;
};

void snapfile_encode(const struct snapfile_header *h, uint8_t page[SNAPFILE_PAGE]);
/* The header of an open file; all numbers fit together and in the file. path: for messages. */
MUST_CHECK int snapfile_read_header(int fd, const char *path, struct snapfile_header *h,
                                    struct err *e);
bool snapfile_recognise(const uint8_t *head, uint64_t len);
/* Allocated; the checksum is right and the kinds are known. */
MUST_CHECK int snapfile_read_table(int fd, const char *path, const struct snapfile_header *h,
                                   struct snapfile_page **out, struct err *e);
MUST_CHECK int snapfile_read_slabs(int fd, const char *path, const struct snapfile_header *h,
                                   struct snapfile_slab **out, struct err *e);
uint64_t snapfile_slab_count(const struct snapfile_header *h);

/* The whole range or an error, which names the file. */
MUST_CHECK int snapfile_read(int fd, const char *path, uint64_t at, void *buf, uint64_t len,
                             struct err *e);
/* -errno. No allocation, no locks: a forked child uses it. */
MUST_CHECK int snapfile_write(int fd, uint64_t at, const void *buf, uint64_t len);

/* path as seen from the directory of the file `from`; free() it. */
char *snapfile_relative(const char *from, const char *path);

#endif
