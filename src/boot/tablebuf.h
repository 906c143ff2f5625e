/* SPDX-License-Identifier: Apache-2.0
 *
 * A region of guest memory that tables are laid out in before it is written: space is handed out
 * from low to high.
 */
#ifndef SOSIA_BOOT_TABLEBUF_H
#define SOSIA_BOOT_TABLEBUF_H

#include <stddef.h>
#include <stdint.h>

struct tablebuf {
    uint8_t *data; /* of the region from base on */
    uint64_t base; /* guest address */
    size_t size;
    size_t used;
};

/* len zeroed bytes; the region is large enough for what BOOT_MAX_CPUS need. at: guest address. */
uint8_t *tablebuf_take(struct tablebuf *t, size_t len, size_t align, uint64_t *at);

/* What makes all len bytes sum up to 0. */
uint8_t table_checksum(const uint8_t *data, size_t len);

#endif
