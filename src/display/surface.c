/* SPDX-License-Identifier: Apache-2.0 */
#include "display/surface.h"

#include <assert.h>
#include <stdlib.h>

#include "base/alloc.h"

void surface_resize(struct surface *s, unsigned width, unsigned height)
{
    assert(width >= 1 && width <= SURFACE_MAX && height >= 1 && height <= SURFACE_MAX);
    if (s->width != width || s->height != height) {
        free(s->pixels);
        s->pixels = xcalloc((size_t)width * height, sizeof *s->pixels);
        s->width = width;
        s->height = height;
    }
}

void surface_free(struct surface *s)
{
    free(s->pixels);
    *s = (struct surface){ 0 };
}
