/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SOSIA_CPU_UMIP_H
#define SOSIA_CPU_UMIP_H

#include "cpu/except.h"

/* SGDT SIDT SLDT STR SMSW are #GP(0) beyond CPL 0 under CR4.UMIP. */
static inline void umip_check(struct cpu *cpu)
{
    if ((cpu->cr4 & CR4_UMIP) && cpu->cpl != 0) {
        cpu_raise_error(cpu, EXC_GP, 0);
    }
}

#endif
