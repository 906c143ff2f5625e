/* SPDX-License-Identifier: Apache-2.0
 * One of the small programs that bench/guest/day.sh compiles, links and runs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int by_value(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

int main(void)
{
    enum { COUNT = 5000 };
    static int value[COUNT];
    unsigned x = SEED;
    for (int i = 0; i < COUNT; i++) {
        x = x * 1664525u + 1013904223u;
        value[i] = (int)(x >> 8 & 0xffff);
    }
    qsort(value, COUNT, sizeof *value, by_value);
    char text[64];
    snprintf(text, sizeof text, "%d %d %d", value[0], value[COUNT / 2], value[COUNT - 1]);
    puts(text);
    return strlen(text) > 60;
}
