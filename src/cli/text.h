/* SPDX-License-Identifier: Apache-2.0 -- sizes, times and names of any bytes, on standard output */
#ifndef SOSIA_CLI_TEXT_H
#define SOSIA_CLI_TEXT_H

#include <stdint.h>

#define TEXT_WHEN 64

void text_size(uint64_t bytes);
/* What a file says must not move the terminal's cursor. */
void text_plain(const char *s);
/* A time since 1970, in the zone of the person. */
const char *text_when(char out[TEXT_WHEN], uint64_t seconds);

#endif
