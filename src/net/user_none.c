/* SPDX-License-Identifier: Apache-2.0 -- in the place of user.c where libslirp is not installed */
#include <errno.h>

#include "net/net.h"

bool net_user_built(void) { return false; }

int net_user_new(struct net **out, const struct net_user_options *o, struct loop *loop,
                 struct clock *clock, struct err *e)
{
    (void)out;
    (void)o;
    (void)loop;
    (void)clock;
    return err_set(e, -ENOTSUP, "this sosia was built without libslirp (package libslirp-dev)");
}
