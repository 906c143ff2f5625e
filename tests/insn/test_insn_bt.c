/* SPDX-License-Identifier: Apache-2.0 -- the bt engine against the host CPU */
// LAYERS: engine/bt engine cpu mem state base
#include "support/insnprogram.h"

int main(void)
{
    static const struct insn_amounts amounts = {
        .each = 50, .per_row = 100, .random = 200000, .blocks = 200000
    };
    return insn_program(&bt_engine, &amounts);
}
