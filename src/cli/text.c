/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/text.h"

#include <stddef.h>
#include <stdio.h>
#include <time.h>

#include "base/bits.h"

void text_size(uint64_t bytes)
{
    static const char *const units[] = { "KiB", "MiB", "GiB", "TiB", "PiB" };
    unsigned unit = 0;
    double n = (double)bytes / 1024;
    for (; n >= 1024 && unit + 1 < ARRAY_LEN(units); unit++) {
        n /= 1024;
    }
    printf("%.3g %s", n, units[unit]);
}

void text_plain(const char *s)
{
    for (; *s != '\0'; s++) {
        unsigned char c = (unsigned char)*s;
        putchar(c < ' ' || c == 127 ? '?' : c);
    }
}

const char *text_when(char out[TEXT_WHEN], uint64_t seconds)
{
    time_t t = (time_t)seconds;
    struct tm tm;
    if (localtime_r(&t, &tm) == NULL || strftime(out, TEXT_WHEN, "%Y-%m-%d %H:%M:%S", &tm) == 0) {
        snprintf(out, TEXT_WHEN, "?");
    }
    return out;
}
