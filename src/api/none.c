/* SPDX-License-Identifier: Apache-2.0 -- a build without jansson: no control socket */
#include <errno.h>

#include "api/api.h"

int api_new(struct api **out, struct machine *m, const struct api_config *c, struct err *e)
{
    (void)out;
    (void)m;
    (void)c;
    return err_set(e, -ENOTSUP, "a control socket needs jansson, which this build lacks");
}

void api_free(struct api *a) { (void)a; }

bool api_built(void) { return false; }
