/* SPDX-License-Identifier: Apache-2.0
 *
 * The ELF loaders, multiboot and PVH, from hostile bytes. The first byte says what of an ELF or a
 * multiboot header is made right first.
 */
// LAYERS: boot mem state base
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "support/bootimage.h"

static void make_elf(uint8_t *file, bool is64)
{
    memcpy(file, "\177ELF", 4);
    file[4] = is64 ? 2 : 1;
    file[5] = 1;
    store_le16(file + 16, 2);
    store_le16(file + 18, is64 ? 62 : 3);
    store_le16(file + (is64 ? 54 : 42), is64 ? 56 : 32);
    file[is64 ? 57 : 45] = 0; /* not too many program headers */
    file[is64 ? 56 : 44] &= 7;
}

/* At the place that the input has there. */
static void make_multiboot(uint8_t *file, size_t len)
{
    size_t at = load_le16(file + len / 2) % (len - 12) & ~(size_t)3;
    store_le32(file + at, 0x1badb002);
    file[at + 4] &= 7;
    file[at + 5] = 0;
    store_le32(file + at + 8, -(0x1badb002u + load_le32(file + at + 4)));
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t len)
{
    if (len < 2) {
        return 0;
    }
    unsigned how = input[0];
    uint8_t *file = malloc(--len);
    memcpy(file, input + 1, len);
    if (len >= 64 && (how & 1) != 0) {
        make_elf(file, (how & 2) != 0);
    }
    if (len >= 64 && (how & 4) != 0) {
        make_multiboot(file, len);
    }
    image_try(file, len, how >> 3);
    free(file);
    return 0;
}
