/* SPDX-License-Identifier: Apache-2.0 -- damaged qcow2 images: see tests/block/damage.h */
// LAYERS: block base
#include "block/damage.h"

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t len)
{
    static struct damage_template list[DAMAGE_TEMPLATES];
    static size_t count;
    if (count == 0) {
        count = damage_templates("qcow2", list);
    }
    damage_run(list, count, input, len);
    return 0;
}
