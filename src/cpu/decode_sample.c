/* SPDX-License-Identifier: Apache-2.0
 *
 * Random valid encodings of a table row, for tests and instruction fuzzers: guess the constrained
 * parts from the row, fill the rest with noise, and keep what decodes to the row.
 */
#include <string.h>

#include "cpu/decode_tables.h"

#define ATTEMPTS 400

struct sampler {
    uint64_t *rng;
    uint8_t *out;
    size_t len;
    const struct insn_enc *enc;
    const struct insn_row *row;
    enum insn_mode mode;
};

static uint64_t next(struct sampler *s)
{
    uint64_t x = *s->rng;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    *s->rng = x;
    return x * 0x2545f4914f6cdd1dull >> 8;
}

static bool one_in(struct sampler *s, unsigned n)
{
    return next(s) % n == 0;
}

static void emit(struct sampler *s, unsigned byte)
{
    s->out[s->len++] = (uint8_t)byte;
}

/* One of the values whose bit is set in mask. */
static unsigned pick(struct sampler *s, unsigned mask, unsigned values)
{
    unsigned v;
    do
        v = (unsigned)(next(s) % values);
    while (!(mask >> v & 1));
    return v;
}

static void sample_legacy(struct sampler *s)
{
    static const uint8_t mandatory[4] = { 0, 0x66, 0xf3, 0xf2 };
    static const uint8_t segment[6] = { 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65 };
    const struct insn_enc *e = s->enc;
    uint32_t attr = insn_info[s->row - insn_row].attr;
    if (one_in(s, 8))
        emit(s, segment[next(s) % 6]);
    if (one_in(s, 8))
        emit(s, 0x67);
    if ((s->row->flags & RD_LOCK) && one_in(s, 4))
        emit(s, 0xf0);
    unsigned p = 0;
    if (e->pfx != 0xff) {
        p = pick(s, e->pfx, 4);
        if (p >= 2 && one_in(s, 4)) /* 66 beside F3 or F2: operand size */
            emit(s, 0x66);
    } else if (one_in(s, 4)) {
        p = 1;
    }
    if ((attr & IA_STRING) && one_in(s, 2))
        emit(s, one_in(s, 2) ? 0xf3 : 0xf2);
    if (p)
        emit(s, mandatory[p]);
    if (s->mode == INSN_MODE_64 && (one_in(s, 2) || e->w == 2))
        emit(s, 0x40 | pick(s, e->w, 2) << 3 | next(s) % 8);
    if (e->map)
        emit(s, 0x0f);
    if (e->map >= 2)
        emit(s, e->map == 2 ? 0x38 : 0x3a);
}

static void sample_vex(struct sampler *s)
{
    const struct insn_enc *e = s->enc;
    unsigned w = pick(s, e->w, 2);
    unsigned l = pick(s, e->l, 2);
    unsigned p = pick(s, e->pfx, 4);
    unsigned vvvv = s->row->flags & RD_NO_VVVV ? 15 : next(s) & 15;
    unsigned high = s->mode == INSN_MODE_64 ? next(s) & 0xe0 : 0xe0;
    if (one_in(s, 8))
        emit(s, 0x64);
    if (e->map == 1 && !w && one_in(s, 2)) {
        emit(s, 0xc5);
        emit(s, (s->mode == INSN_MODE_64 ? high & 0x80 : 0x80) |
                    (s->mode == INSN_MODE_64 ? vvvv : vvvv | 8) << 3 | l << 2 | p);
        return;
    }
    emit(s, 0xc4);
    emit(s, high | e->map);
    emit(s, w << 7 | vvvv << 3 | l << 2 | p);
}

static void sample_evex(struct sampler *s)
{
    const struct insn_enc *e = s->enc;
    unsigned flags = s->row->flags;
    unsigned vvvv = flags & RD_NO_VVVV ? 31 : next(s) & 31;
    unsigned high = s->mode == INSN_MODE_64 ? next(s) & 0xf0 : 0xf0;
    unsigned aaa = flags & RD_EVEX_K ? next(s) & 7 : 0;
    unsigned z = flags & RD_EVEX_Z ? next(s) & 1 : 0;
    unsigned b = one_in(s, 4);
    if (s->mode != INSN_MODE_64 || (flags & RD_VSIB))
        vvvv |= 16;
    emit(s, 0x62);
    emit(s, high | e->map);
    emit(s, pick(s, e->w, 2) << 7 | (vvvv & 15) << 3 | 4 | pick(s, e->pfx, 4));
    emit(s, z << 7 | (b ? next(s) % 4 : pick(s, e->l, 3)) << 5 | b << 4 | (vvvv >> 4) << 3 | aaa);
}

static void sample_tail(struct sampler *s)
{
    const struct insn_enc *e = s->enc;
    emit(s, e->opcode + next(s) % e->count);
    if (s->row->flags & RD_MODRM) {
        unsigned mod = 3;
        if (pick(s, e->mod, 2) == 0)
            mod = (unsigned)(next(s) % 3);
        unsigned rm = s->row->flags & RD_VSIB ? 4 : pick(s, e->rm, 8);
        emit(s, mod << 6 | pick(s, e->reg, 8) << 3 | rm);
    }
    while (s->len < INSN_MAX_LEN)
        emit(s, (unsigned)next(s) & 0xff);
}

size_t insn_sample(unsigned row, enum insn_mode mode, uint64_t *rng, uint8_t out[INSN_MAX_LEN])
{
    struct sampler s = {
        .rng = rng, .out = out, .enc = &insn_enc[row], .row = &insn_row[row], .mode = mode
    };
    struct cpu_features all;
    memset(&all, 0xff, sizeof all);
    if (insn_info[row].feature != CPU_FEATURE_AMD) /* would hide what the row is for */
        cpu_features_clear(&all, CPU_FEATURE_AMD);
    if (!(s.enc->m64 >> (mode == INSN_MODE_64) & 1))
        return 0;
    if (s.enc->w == 2 && s.enc->space == SPACE_LEGACY && mode != INSN_MODE_64)
        return 0;
    for (unsigned i = 0; i < ATTEMPTS; i++) {
        s.len = 0;
        if (s.enc->space == SPACE_LEGACY)
            sample_legacy(&s);
        else if (s.enc->space == SPACE_VEX)
            sample_vex(&s);
        else
            sample_evex(&s);
        sample_tail(&s);
        struct insn in;
        if (insn_decode(&in, out, INSN_MAX_LEN, mode, &all) == INSN_OK && in.row == row)
            return in.len;
    }
    return 0;
}
