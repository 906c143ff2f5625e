/* SPDX-License-Identifier: Apache-2.0 -- in the place of vnc.c where there is no libvncserver */
#include <errno.h>
#include <stddef.h>

#include "display/vnc.h"

bool vnc_built(void) { return false; }

int vnc_new(struct vnc **out, const struct vnc_config *c, struct err *e)
{
    (void)out;
    (void)c;
    return err_set(e, -ENOTSUP, "this sosia was built without libvncserver "
                                "(package libvncserver-dev)");
}

void vnc_free(struct vnc *v) { (void)v; }

const char *vnc_where(const struct vnc *v)
{
    (void)v;
    return NULL;
}
