/* SPDX-License-Identifier: Apache-2.0
 *
 * What test_gdb.py debugs, on the runtime of tests/metal: a sum that is known, by a function that
 * gdb breaks at and a variable that it watches, and code that is read as data. */
#include "rt.h"

#define TURNS 1000

volatile word total;
volatile word seldom;
uint8_t copy[64];

__attribute__((noinline)) void tick(word n)
{
    total += n;
    if (n % 100 == 99) {
        seldom = n;
    }
}

/* A checksum of tick's code: a breakpoint that is written there changes it. */
__attribute__((noinline)) word checksum(void)
{
    const uint8_t *code = (const uint8_t *)tick;
    word sum = 0;
    for (unsigned i = 0; i < 32; i++) {
        sum = sum * 31 + code[i];
    }
    return sum;
}

int test_main(void)
{
    word before = checksum();
    __asm__ volatile("rep movsb" ::"S"(tick), "D"(copy), "c"(sizeof copy) : "memory");
    for (word i = 0; i < TURNS; i++) {
        tick(i);
    }
    ok_eq(total, TURNS * (TURNS - 1) / 2, "the sum is as if nobody had looked");
    ok_eq(checksum(), before, "and so is the code");
    return 0;
}
