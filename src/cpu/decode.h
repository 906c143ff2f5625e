/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside of the decoder: what decode.c (prefixes, opcode, row) hands to decode_opnd.c.
 */
#ifndef SOSIA_CPU_DECODE_H
#define SOSIA_CPU_DECODE_H

#include <stdint.h>

#include "cpu/decode_tables.h"

#define REX_W 8u
#define REX_R 4u
#define REX_X 2u
#define REX_B 1u

struct decoder {
    const uint8_t *bytes; /* borrowed for the call */
    unsigned pos;         /* bytes consumed */
    unsigned avail;       /* at most INSN_MAX_LEN */
    const struct cpu_features *features;
    struct insn *out;
    uint8_t mode;     /* enum insn_mode */
    uint8_t space;    /* enum insn_space */
    uint8_t rex;      /* REX_*; VEX and EVEX set the same bits, un-inverted */
    uint8_t rex_hi;   /* EVEX: bit 0 R', bit 1 V' */
    uint8_t vvvv;     /* as encoded, un-inverted: all bits count where no register is meant */
    uint8_t pfx;      /* mandatory prefix: 0 none, 1 66, 2 F3, 3 F2 */
    uint8_t vlen;     /* VEX.L, EVEX.L'L */
    uint8_t evex;     /* P2: z L'L b V' aaa */
    uint8_t modrm;
    uint8_t have_modrm;
    uint8_t disp8;    /* an 8-bit displacement was read (EVEX scales it) */
};

static inline enum insn_status decode_short(const struct decoder *d)
{
    return d->avail >= INSN_MAX_LEN ? INSN_TOO_LONG : INSN_NEED_MORE;
}

static inline enum insn_status decode_modrm(struct decoder *d)
{
    if (d->have_modrm)
        return INSN_OK;
    if (d->pos >= d->avail)
        return decode_short(d);
    d->out->modrm_off = (uint8_t)d->pos;
    d->modrm = d->bytes[d->pos++];
    d->have_modrm = 1;
    return INSN_OK;
}

/* ModRM memory form: SIB and displacement. */
enum insn_status decode_memory(struct decoder *d, enum row_flag flags);

/* All operands of the row, with immediates. */
enum insn_status decode_operands(struct decoder *d, const struct insn_row *row);

#endif
