/* SPDX-License-Identifier: Apache-2.0
 *
 * One guest on two engines in virtual time, side by side: at checkpoints the whole state of both
 * machines must be the same, processors, devices and memory.
 */
#ifndef SOSIA_TESTS_TWINS_H
#define SOSIA_TESTS_TWINS_H

#include <stdbool.h>
#include <stdint.h>

#include "sosia.h"

struct twins {
    const struct sosia_config *config; /* engine and virtual_time are set here */
    uint64_t gap;                      /* instructions between checkpoints */
    uint64_t end;                      /* at most so many */
    /* What came of it. */
    uint64_t instructions;
    unsigned checkpoints;
    bool ended;  /* both came to their end, the same one */
    bool sleeps; /* both are in HLT, with no timer armed */
    struct sosia_end how;
};

/* interp beside bt. False: they differ, or do not run at all; where, and what was executed just
 * before, is on stderr then. */
bool twins_run(struct twins *t);

#endif
