/* SPDX-License-Identifier: Apache-2.0
 *
 * Cases of the instruction tests: code with register and memory contents that make its memory
 * operands fall into the test regions, a comparison of two outcomes, and a report of the
 * differences. A case is a function of the code, the mode and a seed.
 */
#ifndef SOSIA_TESTS_SUPPORT_INSNCASE_H
#define SOSIA_TESTS_SUPPORT_INSNCASE_H

#include <stddef.h>
#include <stdio.h>

#include "cpu/insn.h"
#include "support/insnstate.h"

#define INSN_CASE_CODE_MAX 96u

struct insn_case {
    enum is_mode mode;
    uint64_t seed;
    unsigned offset; /* of the code in the code region */
    size_t len;
    uint8_t code[INSN_CASE_CODE_MAX];
    struct insn_state in;
    uint8_t mem[IS_MEM_SIZE];
};

struct insn_case_env {
    struct cpu_features features; /* what the guest's decoder accepts */
    uint64_t fs_base;
    bool hides_x87_pointers; /* the host's outcome has FOP, FIP, FDP with FSW.ES only */
};

/* Make the case for one instruction. Memory operands that are addressed absolutely or relative to
 * RIP have their displacement patched. False: not for the host (would leave the sandbox, or its
 * result is the machine's own: RDTSC, CPUID). Bytes that do not decode make a case, too. */
bool insn_case_single(struct insn_case *c, const struct insn_case_env *env, enum is_mode mode,
                      const uint8_t *code, size_t len, uint64_t seed);
/* A straight line of up to `count` random instructions that do not touch the address registers. */
bool insn_case_block(struct insn_case *c, const struct insn_case_env *env, enum is_mode mode,
                     unsigned count, uint64_t seed);

/* Linear address of the ModRM operand of `in`, which is at c->code + at. */
uint64_t insn_case_address(const struct insn_case *c, const struct insn_case_env *env,
                           const struct insn *in, size_t at);

/* Are two outcomes equal in what a processor must do alike? Registers, then memory. What is left to
 * the implementation is listed in insnreport.c. */
bool insn_outcome_equal(const struct insn_case *c, const struct insn_case_env *env,
                        const struct insn_outcome *a, const struct insn_outcome *b);
bool insn_memory_equal(const struct insn_case *c, const struct insn_case_env *env,
                       const struct insn_outcome *a, const uint8_t *mem_a, const uint8_t *mem_b);
/* What differs, with the disassembly; names: who a and b are. */
void insn_case_report(FILE *f, const struct insn_case *c, const struct insn_case_env *env,
                      const char *name_a, const struct insn_outcome *a, const uint8_t *mem_a,
                      const char *name_b, const struct insn_outcome *b, const uint8_t *mem_b);

#endif
