/* SPDX-License-Identifier: Apache-2.0
 *
 * A stream of bytes cut into JSON texts (RFC 8259), which need no separator between them. Only
 * brackets and strings are looked at: whether a text is JSON is for the parser to say.
 */
#ifndef SOSIA_API_FRAME_H
#define SOSIA_API_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_TEXT_MAX 65536u
#define FRAME_DEPTH_MAX 64u

struct frame {
    char *text; /* owned; grows to FRAME_TEXT_MAX */
    size_t len;
    size_t cap;
    unsigned depth;
    bool in_string;
    bool escaped;
    bool given; /* text was handed out */
};

enum frame_result {
    FRAME_MORE,     /* all bytes are used up */
    FRAME_TEXT,     /* text[0..len) is one, until the next call */
    FRAME_TOO_LONG, /* nothing can be made of this stream any more; so, too: */
    FRAME_TOO_DEEP,
};

/* Takes bytes from *data on, and moves it past them. */
enum frame_result frame_take(struct frame *f, const uint8_t **data, const uint8_t *end);
void frame_fini(struct frame *f);

#endif
