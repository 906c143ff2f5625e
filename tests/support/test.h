/* SPDX-License-Identifier: Apache-2.0
 *
 * What every unit test includes: cmocka with the headers that it wants first, and a random number
 * generator whose sequence is the same on every run.
 */
#ifndef SOSIA_TESTS_SUPPORT_TEST_H
#define SOSIA_TESTS_SUPPORT_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* xorshift64*: start from any state but 0. */
static inline uint64_t test_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1dull;
}

#endif
