/* SPDX-License-Identifier: Apache-2.0
 *
 * The Linux loader from hostile bytes. The marks that make a file a bzImage are put in first, and
 * sizes that fit the input, or nothing would get past them; the input's first byte says which.
 */
// LAYERS: boot mem state base
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "support/bootimage.h"

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t len)
{
    if (len < 2) {
        return 0;
    }
    unsigned how = input[0];
    uint8_t *file = malloc(--len);
    memcpy(file, input + 1, len);
    if ((how & 1) != 0 && len > 0x211) {
        store_le16(file + 0x1fe, 0xaa55);
        memcpy(file + 0x202, "HdrS", 4);
        if ((how & 2) != 0) {
            store_le16(file + 0x206, 0x20f);
            file[0x201] = 0x6a;
            file[0x211] |= 1;
        }
        if ((how & 4) != 0) { /* the sectors and paragraphs that are there */
            file[0x1f1] = (uint8_t)(how >> 6);
            store_le32(file + 0x1f4, 0);
        }
    }
    image_try(file, len, how >> 3);
    free(file);
    return 0;
}
