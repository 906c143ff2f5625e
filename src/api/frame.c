/* SPDX-License-Identifier: Apache-2.0 */
#include "api/frame.h"

#include <stdlib.h>

#include "base/alloc.h"

#define RESET_BYTE 0xff /* no JSON, nor UTF-8: a client begins anew with it */

static bool is_space(uint8_t c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

static bool append(struct frame *f, uint8_t c)
{
    if (f->len == FRAME_TEXT_MAX) {
        return false;
    }
    if (f->len == f->cap) {
        f->cap = f->cap != 0 ? 2 * f->cap : 256;
        f->text = xrealloc(f->text, f->cap);
    }
    f->text[f->len++] = (char)c;
    return true;
}

static void restart(struct frame *f)
{
    f->len = 0;
    f->depth = 0;
    f->in_string = f->escaped = f->given = false;
}

/* The text ends with this byte. */
static bool ends_with(struct frame *f, uint8_t c)
{
    if (c == '\n' && (f->in_string || f->depth == 0)) {
        return true; /* what is no JSON, and what is neither object nor array, ends with the line */
    }
    if (f->in_string) {
        f->in_string = f->escaped || c != '"';
        f->escaped = !f->escaped && c == '\\';
        return false;
    }
    switch (c) {
    case '"':
        f->in_string = true;
        return false;
    case '{':
    case '[':
        f->depth++;
        return false;
    case '}':
    case ']':
        f->depth -= f->depth != 0;
        return f->depth == 0;
    default:
        return false;
    }
}

enum frame_result frame_take(struct frame *f, const uint8_t **data, const uint8_t *end)
{
    if (f->given) {
        restart(f);
    }
    while (*data < end) {
        uint8_t c = *(*data)++;
        if (c == RESET_BYTE) {
            restart(f);
            continue;
        }
        if (f->len == 0 && is_space(c)) {
            continue;
        }
        if (!append(f, c)) {
            return FRAME_TOO_LONG;
        }
        if (ends_with(f, c)) {
            f->given = true;
            return FRAME_TEXT;
        }
        if (f->depth > FRAME_DEPTH_MAX) {
            return FRAME_TOO_DEEP;
        }
    }
    return FRAME_MORE;
}

void frame_fini(struct frame *f) { free(f->text); }
