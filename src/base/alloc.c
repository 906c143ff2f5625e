/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"

/* Nothing sensible is left to do without a few hundred bytes: say so and go. */
static void *or_abort(void *p)
{
    if (p == NULL) {
        fputs("sosia: out of host memory\n", stderr);
        abort();
    }
    return p;
}

void *xzalloc(size_t size) { return or_abort(calloc(1, size != 0 ? size : 1)); }

void *xcalloc(size_t count, size_t size)
{
    return or_abort(calloc(count != 0 ? count : 1, size != 0 ? size : 1));
}

void *xrealloc(void *p, size_t size) { return or_abort(realloc(p, size != 0 ? size : 1)); }

char *xstrdup(const char *s) { return or_abort(strdup(s)); }

char *xasprintf(const char *fmt, ...)
{
    char *s = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&s, fmt, ap);
    va_end(ap);
    return or_abort(n < 0 ? NULL : s);
}

void *try_alloc(size_t count, size_t size)
{
    size_t bytes;
    if (ckd_mul(&bytes, count, size)) {
        return NULL;
    }
    return calloc(1, bytes != 0 ? bytes : 1);
}
