/* SPDX-License-Identifier: Apache-2.0
 *
 * A snapshot file of hostile bytes, with its checksums made right: header, tables, compressed
 * memory and configuration are read as far as they let us. Memory itself is not mapped.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "machine/vmconfig.h"
#include "snapshot/chain.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PAGES_AT 56
#define TABLE_AT 96
#define SLABS_AT 104
#define FILE_LEN_AT 1152

static void sign_array(uint8_t *file, size_t size, uint64_t at, uint64_t len)
{
    if (at <= size && len <= size - at && size - at - len >= 4) {
        store_le32(file + at + len, crc32c(0, file + at, len));
    }
}

static void sign(uint8_t *file, size_t size)
{
    uint64_t pages = load_le64(file + PAGES_AT) % 1024;
    memcpy(file, "SOSIASN\x1a", 8);
    store_le32(file + 8, 1);
    store_le64(file + PAGES_AT, pages);
    store_le64(file + FILE_LEN_AT, size);
    sign_array(file, size, load_le64(file + TABLE_AT), pages * 8);
    sign_array(file, size, load_le64(file + SLABS_AT), (pages + 255) / 256 * 16);
    store_le32(file + SNAPFILE_PAGE - 4, crc32c(0, file, SNAPFILE_PAGE - 4));
}

static void read_all(const char *path)
{
    struct chain *c;
    struct err e = { 0 };
    uint8_t page[SNAPFILE_PAGE];
    if (chain_open(&c, path, &e) < 0) {
        return;
    }
    if (chain_load_tables(c, &e) == 0) {
        for (uint64_t n = 0; n < c->layer[0].header.pages; n++) {
            unsigned layer;
            if (chain_find(c, n, &layer)->kind == SNAPFILE_STORED) {
                (void)!chain_page(c, n, page, &e);
            }
        }
    }
    chain_close(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err e = { 0 };
    struct vmconfig *v;
    if (vmconfig_parse(&v, (const char *)data, size, &e) == 0) {
        char *text = vmconfig_text(vmconfig_config(v));
        free(text);
        vmconfig_free(v);
    }
    if (size < SNAPFILE_PAGE || size > 1 << 20) {
        return 0;
    }
    uint8_t *file = malloc(size);
    memcpy(file, data, size);
    sign(file, size);
    char path[64];
    int fd = memfd_create("fuzz", 0);
    if (fd >= 0 && write(fd, file, size) == (ssize_t)size) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        read_all(path);
    }
    close(fd);
    free(file);
    return 0;
}
