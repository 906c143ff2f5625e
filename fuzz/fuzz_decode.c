/* SPDX-License-Identifier: Apache-2.0
 *
 * Fuzz target: decoder and disassembler over any bytes, in each mode, with few and with all
 * features. The first byte chooses.
 */
#include <stdlib.h>
#include <string.h>

#include "cpu/insn.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    struct cpu_features f;
    memset(&f, data[0] & 4 ? 0xff : 0, sizeof f);
    enum insn_mode mode = (enum insn_mode)((data[0] & 3) % 3);
    uint8_t *bytes = malloc(size); /* exact: the sanitizer sees a read past the end */
    if (!bytes)
        return 0;
    memcpy(bytes, data + 1, size - 1);
    for (size_t at = 0; at < size - 1;) {
        struct insn in;
        enum insn_status s = insn_decode(&in, bytes + at, size - 1 - at, mode, &f);
        if (s == INSN_OK) {
            char text[200];
            insn_format(text, data[0] >> 3, &in, at);
            if (insn_flags_written(&in) & ~0x3fffffu || insn_flags_read(&in) & ~0x3fffffu)
                abort();
        }
        at += s == INSN_OK ? in.len : 1;
    }
    free(bytes);
    return 0;
}
