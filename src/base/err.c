/* SPDX-License-Identifier: Apache-2.0 */
#include "base/err.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *e, int code, const char *fmt, ...)
{
    assert(code < 0);
    if (e != NULL) {
        /* The arguments may point into the old message: format beside it, then replace. */
        char fresh[sizeof e->msg];
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(fresh, sizeof fresh, fmt, ap);
        va_end(ap);
        memcpy(e->msg, fresh, sizeof fresh);
    }
    return code;
}

int err_prefix(struct err *e, int code, const char *fmt, ...)
{
    assert(code < 0);
    if (e != NULL) {
        char fresh[sizeof e->msg];
        va_list ap;
        va_start(ap, fmt);
        int n = vsnprintf(fresh, sizeof fresh, fmt, ap);
        va_end(ap);
        if (n >= 0 && (size_t)n < sizeof fresh - 3 && e->msg[0] != '\0') {
            memcpy(fresh + n, ": ", 2);
            size_t room = sizeof fresh - (size_t)n - 3; /* separator and NUL taken off */
            size_t len = strnlen(e->msg, room);
            memcpy(fresh + n + 2, e->msg, len);
            fresh[(size_t)n + 2 + len] = '\0';
        }
        memcpy(e->msg, fresh, sizeof fresh);
    }
    return code;
}
