/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/netdevs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "machine/machine.h"

static int make(struct net **out, const struct nic_config *c, struct machine *m, struct err *e)
{
    const struct net_user_options user = { .restricted = c->restricted,
                                           .hostname = c->hostname,
                                           .forwards = c->forward,
                                           .forward_count = c->forward_count };
    switch (c->backend) {
    case NIC_USER:
        return net_user_new(out, &user, m->loop, m->clock, e);
    case NIC_TAP:
        return net_tap_new(out, c->interface, m->loop, e);
    case NIC_PASST:
        return net_passt_new(out, c->interface, &user, m->loop, e);
    }
    return err_set(e, -EINVAL, "unknown kind of network");
}

struct netdev *netdevs_find(struct netdevs *n, const char *name)
{
    for (unsigned i = 0; i < MACHINE_NICS_MAX; i++) {
        if (n->netdev[i].net != NULL && strcmp(n->netdev[i].name, name) == 0) {
            return &n->netdev[i];
        }
    }
    return NULL;
}

int netdevs_add(struct netdevs *n, struct machine *m, const char *name, const struct nic_config *c,
                struct netdev **out, struct err *e)
{
    unsigned i = 0;
    while (i < MACHINE_NICS_MAX && n->netdev[i].net != NULL) {
        i++;
    }
    if (i == MACHINE_NICS_MAX) {
        return err_set(e, -ENOSPC, "there can be %u networks", MACHINE_NICS_MAX);
    }
    if (netdevs_find(n, name) != NULL) {
        return err_set(e, -EEXIST, "Duplicate ID '%s' for netdev", name);
    }
    struct netdev *d = &n->netdev[i];
    int r = make(&d->net, c, m, e);
    if (r < 0) {
        d->net = NULL;
        return r;
    }
    snprintf(d->name, sizeof d->name, "%s", name);
    d->kind = c->backend;
    d->used = false;
    *out = d;
    return 0;
}

void netdevs_remove(struct netdev *d)
{
    net_free(d->net);
    *d = (struct netdev){ .net = NULL };
}

void netdevs_fini(struct netdevs *n)
{
    for (unsigned i = 0; i < MACHINE_NICS_MAX; i++) {
        netdevs_remove(&n->netdev[i]);
    }
}
