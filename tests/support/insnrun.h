/* SPDX-License-Identifier: Apache-2.0
 *
 * Drives instruction cases through the host CPU and through an engine, and counts mismatches.
 *
 * Environment: INSN_SEED, another sequence; INSN_SCALE, multiplies the counts; INSN_CASE="64 HEX
 * SEED", what a mismatch report gives, runs that case only; INSN_REPORTS, how many mismatches are
 * reported whole (default 10).
 */
#ifndef SOSIA_TESTS_SUPPORT_INSNRUN_H
#define SOSIA_TESTS_SUPPORT_INSNRUN_H

#include "engine/engine.h"

struct insnrun;

/* NULL with a message on failure. One at a time: the host side is the process's. */
struct insnrun *insnrun_new(const struct engine_class *cls, struct err *e);
void insnrun_free(struct insnrun *r);

/* Each returns the number of mismatches; cases counts those executed on both sides. */
unsigned long insnrun_rows(struct insnrun *r, unsigned per_row);      /* per row and mode */
unsigned long insnrun_random(struct insnrun *r, unsigned long count); /* random bytes */
unsigned long insnrun_blocks(struct insnrun *r, unsigned long count); /* short straight lines */
/* "MODE HEX [SEED]" per line, '#' comments: the seed and `each` others. -1: cannot read. */
long insnrun_file(struct insnrun *r, const char *path, unsigned each);
/* INSN_CASE; 0 when not set. */
unsigned long insnrun_selected(struct insnrun *r, bool *any);
unsigned long insnrun_cases(const struct insnrun *r);

#endif
