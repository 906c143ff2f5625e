/* SPDX-License-Identifier: Apache-2.0
 *
 * Allocation: small host structures abort on exhaustion, anything sized by a guest, an image or a
 * person is asked for with try_alloc and may fail.  Thread: [any].
 */
#ifndef SOSIA_BASE_ALLOC_H
#define SOSIA_BASE_ALLOC_H

#include <stddef.h>

#include "base/err.h"

void *xzalloc(size_t size);
void *xcalloc(size_t count, size_t size);
void *xrealloc(void *p, size_t size);
char *xstrdup(const char *s);
char *xasprintf(const char *fmt, ...) PRINTF_LIKE(1, 2);
MUST_CHECK void *try_alloc(size_t count, size_t size); /* zeroed; NULL on overflow or exhaustion */

#endif
