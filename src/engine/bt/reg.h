/* SPDX-License-Identifier: Apache-2.0
 *
 * Where guest general registers live while translated code runs: thirteen keep a host register for
 * good (the ones with implicit uses keep their own number), R13..R15 live in struct cpu. Host RSP
 * is the host's stack, R14 and R15 are scratch.
 */
#ifndef SOSIA_ENGINE_BT_REG_H
#define SOSIA_ENGINE_BT_REG_H

#include <stddef.h>

#include "cpu/cpu.h"
#include "engine/bt/bt.h"
#include "engine/bt/emit.h"

static inline unsigned host_of(unsigned guest)
{
    static const uint8_t map[16] = { H_AX, H_CX, H_DX, H_BX, H_13, H_BP,   H_SI,   H_DI,
                                     H_8,  H_9,  H_10, H_11, H_12, H_NONE, H_NONE, H_NONE };
    return map[guest];
}

#define CPU_OFF(member) ((uint32_t)offsetof(struct cpu, member))
#define HOT_OFF(member)                                                                            \
    ((uint32_t)(offsetof(struct cpu, engine_hot) + offsetof(struct bt_hot, member)))
static inline uint32_t gpr_off(unsigned guest)
{
    return (uint32_t)(offsetof(struct cpu, gpr) + guest * 8);
}

#endif
