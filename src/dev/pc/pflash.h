/* SPDX-License-Identifier: Apache-2.0
 *
 * Flash memory below 4 GiB in which UEFI firmware keeps its variables.  Thread: machine lock held.
 */
#ifndef SOSIA_DEV_PC_PFLASH_H
#define SOSIA_DEV_PC_PFLASH_H

#include "bus/bus.h"

#define PFLASH_MAX 0x100000u
#define PFLASH_BLOCK 0x1000u /* what is erased at once */

struct pflash {
    struct dev dev;
    /* State: */
    uint8_t mode;   /* enum pflash_mode */
    uint8_t status; /* status register */
    uint32_t buffer_left;
    uint8_t bytes[PFLASH_MAX]; /* the contents, while saving and loading */
    /* Not state: */
    struct gmem *mem; /* borrowed; has the contents as ROM pages */
    gpa_t base;
    uint32_t size;
    uint64_t page;
    bool shown; /* reads go to the ROM pages */
    uint32_t dirty_first, dirty_end;
    /* Changed bytes for the file behind it; may be NULL. */
    void (*changed)(void *ctx, uint32_t offset, const void *data, uint32_t len);
    void *ctx;
};

/* size: whole blocks, at most PFLASH_MAX. The contents survive resets. */
MUST_CHECK int pflash_init(struct pflash *f, struct bus *b, gpa_t base, const uint8_t *contents,
                           uint32_t size, struct err *e);
void pflash_fini(struct pflash *f);

#endif
