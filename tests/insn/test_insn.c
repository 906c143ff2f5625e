/* SPDX-License-Identifier: Apache-2.0 -- the interp engine against the host CPU */
// LAYERS: engine/interp engine cpu mem state base
#include "support/insnprogram.h"

int main(void)
{
    static const struct insn_amounts amounts = {
        .each = 200, .per_row = 300, .random = 800000, .blocks = 200000
    };
    return insn_program(&interp_engine, &amounts);
}
