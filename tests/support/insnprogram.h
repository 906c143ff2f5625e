/* SPDX-License-Identifier: Apache-2.0
 *
 * A test program that compares an engine with the host CPU (support/insnrun.h): the cases that once
 * failed, every row of the instruction table, random bytes, short blocks.
 */
#ifndef SOSIA_TESTS_SUPPORT_INSNPROGRAM_H
#define SOSIA_TESTS_SUPPORT_INSNPROGRAM_H

#include "support/insnrun.h"

struct insn_amounts {
    unsigned each;        /* seeds of each case in tests/insn/cases.txt */
    unsigned per_row;     /* and mode */
    unsigned long random; /* programs of random bytes */
    unsigned long blocks;
};

/* The whole program: returns its exit status. */
int insn_program(const struct engine_class *engine, const struct insn_amounts *amounts);

#endif
