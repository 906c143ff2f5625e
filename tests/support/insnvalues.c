/* SPDX-License-Identifier: Apache-2.0
 *
 * See insnvalues.h.
 */
#include "support/insnvalues.h"

#include <string.h>

#include "support/insnstate.h"

#define POOL_SIZE 0x10000u

uint64_t rng_next(struct rng *r)
{
    r->s ^= r->s >> 12;
    r->s ^= r->s << 25;
    r->s ^= r->s >> 27;
    return r->s * 0x2545f4914f6cdd1dull;
}
unsigned rng_below(struct rng *r, unsigned n) { return (unsigned)((rng_next(r) >> 32) * n >> 32); }
bool rng_one_in(struct rng *r, unsigned n) { return rng_below(r, n) == 0; }

/* -- Values */

uint64_t rng_edge64(struct rng *r)
{
    static const uint64_t edges[] = {
        0,
        1,
        2,
        0x7f,
        0x80,
        0xff,
        0x100,
        0x7fff,
        0x8000,
        0xffff,
        0x10000,
        0x7fffffff,
        0x80000000,
        0xffffffff,
        0x100000000,
        0x7fffffffffffffff,
        0x8000000000000000,
        0xffffffffffffffff,
        0xfffffffffffffffe,
        0xffffffff80000000,
        0xffffffffffff8000,
        0xffffffffffffff80,
        0x5555555555555555,
        0xaaaaaaaaaaaaaaaa,
        0x0101010101010101,
        0x8080808080808080,
    };
    switch (rng_below(r, 4)) {
    case 0:
        return rng_next(r);
    case 1:
        return rng_next(r) >> rng_below(r, 64);
    case 2:
        return edges[rng_below(r, sizeof edges / sizeof edges[0])];
    default:
        return edges[rng_below(r, sizeof edges / sizeof edges[0])] + rng_below(r, 5) - 2;
    }
}

static uint32_t float32(struct rng *r)
{
    static const uint32_t edges[] = {
        0,          0x80000000, 0x3f800000, 0xbf800000, 0x00000001, 0x807fffff, 0x00800000,
        0x7f7fffff, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc00000, 0x7f800001, 0xffbfffff,
        0x4f000000, 0xcf000000, 0x5f000000, 0xdf000000, 0x3f000000, 0x3f7fffff, 0x4effffff,
        0x33800000, 0x477fe000, 0x38800000, 0x387fc000, 0x33000000,
    };
    uint32_t v = (uint32_t)rng_next(r);
    switch (rng_below(r, 4)) {
    case 0:
        return v;
    case 1: /* near 1: results neither vanish nor overflow */
        return (v & 0x807fffff) | (120 + rng_below(r, 16)) << 23;
    default:
        return edges[rng_below(r, sizeof edges / sizeof edges[0])] ^
               (rng_one_in(r, 4) ? v & 0x8000000f : 0);
    }
}

static uint64_t float64(struct rng *r)
{
    static const uint64_t edges[] = {
        0,
        0x8000000000000000,
        0x3ff0000000000000,
        0xbff0000000000000,
        1,
        0x800fffffffffffff,
        0x0010000000000000,
        0x7fefffffffffffff,
        0x7ff0000000000000,
        0xfff0000000000000,
        0x7ff8000000000000,
        0xfff8000000000000,
        0x7ff0000000000001,
        0xfff7ffffffffffff,
        0x41dfffffffc00000,
        0x41e0000000000000,
        0xc1e0000000200000,
        0x43e0000000000000,
        0xc3e0000000000000,
        0x3fe0000000000000,
        0x3fefffffffffffff,
        0x47efffffe0000000,
        0x36a0000000000000,
        0x3810000000000000,
    };
    uint64_t v = rng_next(r);
    switch (rng_below(r, 4)) {
    case 0:
        return v;
    case 1:
        return (v & 0x800fffffffffffff) | (uint64_t)(1015 + rng_below(r, 16)) << 52;
    default:
        return edges[rng_below(r, sizeof edges / sizeof edges[0])] ^
               (rng_one_in(r, 4) ? v & 0x800000000000000f : 0);
    }
}

void rng_fill16(struct rng *r, uint8_t *p)
{
    switch (rng_below(r, 4)) {
    case 0:
        for (unsigned i = 0; i < 4; i++) {
            uint32_t v = float32(r);
            memcpy(p + 4 * i, &v, sizeof v);
        }
        break;
    case 1:
        for (unsigned i = 0; i < 2; i++) {
            uint64_t v = float64(r);
            memcpy(p + 8 * i, &v, sizeof v);
        }
        break;
    default:
        for (unsigned i = 0; i < 2; i++) {
            uint64_t v = rng_edge64(r);
            memcpy(p + 8 * i, &v, sizeof v);
        }
    }
}

/* An 80-bit value: normal, special, or an encoding that only old coprocessors made. */
static void fill_st(struct rng *r, uint8_t *p)
{
    static const uint16_t exponents[] = { 0,      1,      0x3ffe, 0x3fff, 0x4000, 0x401e, 0x403e,
                                          0x7ffe, 0x7fff, 0x3f80, 0x3c00, 0x43ff, 0x407f, 0x4080 };
    static const uint64_t significands[] = {
        0,
        1,
        0x8000000000000000,
        0x8000000000000001,
        0xc000000000000000,
        0xffffffffffffffff,
        0x7fffffffffffffff,
        0x4000000000000000,
        0xa000000000000000,
        0xfffffffffffff800,
    };
    uint64_t m = rng_one_in(r, 2) ? significands[rng_below(r, 10)] : rng_next(r) | 1ull << 63;
    unsigned e = rng_one_in(r, 2)   ? exponents[rng_below(r, 14)]
                 : rng_one_in(r, 2) ? 0x3ff0 + rng_below(r, 80)
                                    : rng_below(r, 0x8000);
    e |= rng_one_in(r, 2) ? 0x8000 : 0;
    memset(p, 0, 16);
    memcpy(p, &m, sizeof m);
    p[8] = (uint8_t)e;
    p[9] = (uint8_t)(e >> 8);
}

void put16(uint8_t *p, unsigned v)
{
    uint16_t x = (uint16_t)v;
    memcpy(p, &x, sizeof x);
}
void put32(uint8_t *p, uint32_t v) { memcpy(p, &v, sizeof v); }
void put64(uint8_t *p, uint64_t v) { memcpy(p, &v, sizeof v); }

uint32_t rng_mxcsr(struct rng *r)
{
    switch (rng_below(r, 8)) {
    case 0:
        return (uint32_t)rng_next(r) & 0xffff;
    case 1:
        return 0x1f80 | ((uint32_t)rng_next(r) & 0xe07f);
    case 2:
        return 0x1fa0;
    default:
        return 0x1f80;
    }
}

void rng_fill_x87(struct rng *r, uint8_t *fx)
{
    memset(fx, 0, 160);
    unsigned fcw = 0x37f;
    if (rng_one_in(r, 4))
        fcw = (unsigned)rng_next(r) & 0x1f3f;
    else if (rng_one_in(r, 4))
        fcw = ((unsigned)rng_next(r) & 0xf00) | 0x3f;
    fcw |= 0x40;
    unsigned fsw = (unsigned)rng_next(r) & 0x7f7f;
    if (!rng_one_in(r, 16))
        fsw &= ~(~fcw & 0x3f); /* nothing pending */
    if (fsw & ~fcw & 0x3f)
        fsw |= 0x8080;
    if (rng_one_in(r, 2))
        fsw &= ~0x3800u;
    put16(fx, fcw);
    put16(fx + 2, fsw);
    fx[4] = (uint8_t)(rng_one_in(r, 4) ? rng_next(r) : rng_one_in(r, 3) ? 0 : 0xff);
    put16(fx + 6, (unsigned)rng_next(r) & 0x7ff);
    put64(fx + 8, rng_next(r) >> 18);
    put64(fx + 16, rng_next(r) >> 18);
    put32(fx + 24, rng_mxcsr(r));
    for (unsigned i = 0; i < 8; i++) {
        fill_st(r, fx + 32 + 16 * i);
    }
}

/* Memory comes from a pool of values, shifted, so that a case costs a copy only. */
static const uint8_t *pool(void)
{
    static uint8_t bytes[POOL_SIZE + IS_MEM_SIZE];
    static bool filled;
    if (!filled) {
        struct rng r = { 0x1234567 };
        for (unsigned i = 0; i < sizeof bytes; i += 16) {
            if (rng_one_in(&r, 5))
                fill_st(&r, bytes + i);
            else
                rng_fill16(&r, bytes + i);
        }
        filled = true;
    }
    return bytes;
}

void rng_fill_memory(struct rng *r, uint8_t *mem)
{
    const uint8_t *p = pool();
    memcpy(mem, p + 16 * rng_below(r, POOL_SIZE / 16), 0x2000);
    memcpy(mem + 0x2000, p, 0x1000); /* read-only page: always the same */
    memcpy(mem + 0x3000, p + 16 * rng_below(r, POOL_SIZE / 16), 0x1000);
}
