/* SPDX-License-Identifier: Apache-2.0 -- the bt engine against the host CPU, for an hour */
// LAYERS: engine/bt engine cpu mem state base
#include "support/insnprogram.h"

int main(void)
{
    static const struct insn_amounts amounts = {
        .each = 50, .per_row = 1000, .random = 10000000, .blocks = 20000000
    };
    return insn_program(&bt_engine, &amounts);
}
