/* SPDX-License-Identifier: Apache-2.0
 *
 * VHDX ([MS-VHDX]: Virtual Hard Disk v2), private to vhdx*.c: two headers of which the newer valid
 * one counts, two copies of a region table, metadata, a block allocation table, and a log through
 * which every change of the table goes. Little-endian.
 */
#ifndef SOSIA_BLOCK_VHDX_H
#define SOSIA_BLOCK_VHDX_H

#include "block/grains.h"

#define VHDX_PAGE 4096u
#define VHDX_MIB (1ull << 20)
#define VHDX_HEADER_1 (64u << 10)
#define VHDX_HEADER_2 (128u << 10)
#define VHDX_REGIONS_1 (192u << 10)
#define VHDX_REGIONS_2 (256u << 10)
#define VHDX_REGIONS_LEN (64u << 10)
#define VHDX_SIZE_MAX (64ull << 40)
#define VHDX_LOG_MAX (256u << 20)

enum { /* header */
       H_CHECKSUM = 4,
       H_SEQUENCE = 8,
       H_FILE_GUID = 16,
       H_DATA_GUID = 32,
       H_LOG_GUID = 48,
       H_LOG_VERSION = 64,
       H_VERSION = 66,
       H_LOG_LEN = 68,
       H_LOG_AT = 72,
};
enum vhdx_block_state {
    VHDX_NOT_PRESENT = 0,
    VHDX_UNDEFINED = 1,
    VHDX_ZERO = 2,
    VHDX_UNMAPPED = 3,
    VHDX_PRESENT = 6,
    VHDX_PARTLY = 7,
};
#define VHDX_STATE_MASK 7ull
#define VHDX_OFFSET_MASK (~(VHDX_MIB - 1))

enum vhdx_item {
    VHDX_FILE_PARAMETERS,
    VHDX_DISK_SIZE,
    VHDX_DISK_ID,
    VHDX_LOGICAL_SECTOR,
    VHDX_PHYSICAL_SECTOR,
    VHDX_ITEMS,
};
extern const uint8_t vhdx_item_guids[VHDX_ITEMS][16];
extern const uint8_t vhdx_bat_guid[16], vhdx_metadata_guid[16];

struct vhdx {
    struct grains g;
    uint8_t header[VHDX_PAGE]; /* the current one */
    bool second;               /* it is at VHDX_HEADER_2 */
    uint64_t log_at;
    uint32_t log_len;
    uint64_t bat, bat_len;
    uint64_t metadata, metadata_len;
    uint64_t ratio; /* payload blocks for each entry of a sector bitmap in the table */
    bool fixed;

    pthread_mutex_t start_lock; /* guards the start of writing */
    atomic_bool writing;        /* the header says so */
    uint64_t log_sequence;
    uint32_t log_head; /* where the next entry goes */
};

uint32_t vhdx_checksum(const uint8_t *p, size_t len, size_t at);
/* The header in v, as a newer one, to both places. */
int vhdx_write_header(struct vhdx *v);

/* -- vhdx_log.c -- */
/* What a log left by a crash says, into v's tables; *last: how long the file must be. */
int vhdx_replay(struct vhdx *v, uint64_t *last, struct err *e);
int vhdx_journal(void *ctx, const struct meta_page *pages, size_t count);

/* -- vhdx_create.c -- */
int vhdx_create(struct hostfile *f, const struct block_create *c, struct err *e);

#endif
