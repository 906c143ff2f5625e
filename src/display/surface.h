/* SPDX-License-Identifier: Apache-2.0
 *
 * A picture in memory: what a screen shows, for files and remote viewers.  Thread: the caller's.
 */
#ifndef SOSIA_DISPLAY_SURFACE_H
#define SOSIA_DISPLAY_SURFACE_H

#include <stdint.h>

#include "base/err.h"

#define SURFACE_MAX 4096u /* pixels in each direction */

struct surface {
    unsigned width, height;
    uint32_t *pixels; /* owned; 0x00rrggbb, rows without gaps */
};

/* Make it this large, contents unspecified; each side 1 to SURFACE_MAX. */
void surface_resize(struct surface *s, unsigned width, unsigned height);
void surface_free(struct surface *s);
/* A PNG file (RFC 2083), 8 bits of red, green and blue. */
MUST_CHECK int surface_write_png(const struct surface *s, const char *path, struct err *e);

#endif
