/* SPDX-License-Identifier: Apache-2.0
 *
 * Random values for instruction cases: half of them edges (extremes of each integer width; zeroes,
 * denormals, infinities, NaNs of each FP format), half noise.
 */
#ifndef SOSIA_TESTS_SUPPORT_INSNVALUES_H
#define SOSIA_TESTS_SUPPORT_INSNVALUES_H

#include <stdbool.h>
#include <stdint.h>

struct rng {
    uint64_t s;
};

uint64_t rng_next(struct rng *r);
unsigned rng_below(struct rng *r, unsigned n);
bool rng_one_in(struct rng *r, unsigned n);

uint64_t rng_edge64(struct rng *r);
/* 16 bytes: floats, doubles or integers. */
void rng_fill16(struct rng *r, uint8_t *p);
uint32_t rng_mxcsr(struct rng *r);
/* 160 bytes of FXSAVE image. */
void rng_fill_x87(struct rng *r, uint8_t *fx);
/* The memory image of insnstate.h; its read-only page is always the same. */
void rng_fill_memory(struct rng *r, uint8_t *mem);

void put16(uint8_t *p, unsigned v);
void put32(uint8_t *p, uint32_t v);
void put64(uint8_t *p, uint64_t v);

#endif
