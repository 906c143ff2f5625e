/* SPDX-License-Identifier: Apache-2.0
 *
 * Where guest general registers live while translated code runs: thirteen keep a host register for
 * good (the ones with implicit uses keep their own number), R13..R15 live in struct cpu. Host RSP
 * points into struct cpu, R14 and R15 are scratch.
 *
 * Fields of struct cpu are named by their place from RSP. Calls of stubs push their return address
 * below it (cpu.engine_stack); C code gets the thread's own stack. Signals would use RSP: a vCPU
 * thread has them all blocked.
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

/* Where RSP points in struct cpu. */
#define BT_ANCHOR ((int32_t)offsetof(struct cpu, tlb))
#define CPU_OFF(member) ((int32_t)offsetof(struct cpu, member) - BT_ANCHOR)
#define HOT_OFF(member)                                                                            \
    ((int32_t)(offsetof(struct cpu, engine_hot) + offsetof(struct bt_hot, member)) - BT_ANCHOR)
/* An entry of the return cache. */
#define RETURN_OFF(index, member)                                                                  \
    (CPU_OFF(engine_table) +                                                                       \
     (int32_t)((index) * sizeof(struct bt_return) + offsetof(struct bt_return, member)))
static inline int32_t gpr_off(unsigned guest)
{
    return (int32_t)(offsetof(struct cpu, gpr) + guest * 8) - BT_ANCHOR;
}
_Static_assert(offsetof(struct cpu, tlb) % 16 == 0, "alignment of RSP");

/* T0 becomes the place of the TLB entry of the page that T1 is in. */
static inline void emit_tlb_entry(struct emit *e, bool host_bmi2)
{
    if (host_bmi2) {
        emit_rorx(e, T0, T1, 7); /* page number times the entry size */
    } else {
        emit_mov_rr(e, true, T0, T1);
        emit_rr(e, 0xc1, true, 5, T0); /* shr T0, 7 */
        emit1(e, 7);
    }
    emit_ri(e, 4, false, T0, (CPU_TLB_SIZE - 1) * (int32_t)sizeof(struct tlb_entry));
    emit_rg(e, 0x03, true, T0, CPU_OFF(tlb));
}
_Static_assert(sizeof(struct tlb_entry) == 32, "index shift");

/* An address of a sliding block, at less the slide, into reg (slide.c); leaves flags alone. wide:
 * all 64 bits of it. */
static inline void emit_slid(struct emit *e, bool wide, unsigned reg, int32_t at)
{
    emit_rg(e, 0x8b, true, reg, HOT_OFF(slide));
    emit_lea(e, wide, reg, (struct host_mem){ (uint8_t)reg, H_NONE, 0, at });
}
/* The first instruction of a block has five bytes, see bt_patch_entry. */
_Static_assert(offsetof(struct cpu, events) > offsetof(struct cpu, tlb) &&
                   offsetof(struct cpu, events) < offsetof(struct cpu, tlb) + 128,
               "8-bit displacement");

#endif
