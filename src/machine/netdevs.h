/* SPDX-License-Identifier: Apache-2.0
 *
 * What is at the other end of a machine's network cards. Which card, is the board's business.
 * Thread: set-up, or machine lock held.
 */
#ifndef SOSIA_MACHINE_NETDEVS_H
#define SOSIA_MACHINE_NETDEVS_H

#include "machine/config.h"

struct machine;

struct netdev {
    struct net *net; /* owned; NULL: this place is free */
    char name[MACHINE_NAME_BYTES];
    enum nic_backend kind;
    bool used; /* by a card */
};

struct netdevs {
    struct netdev netdev[MACHINE_NICS_MAX];
};

/* -EEXIST: the name is taken. -ENOSPC: there are too many. */
MUST_CHECK int netdevs_add(struct netdevs *n, struct machine *m, const char *name,
                           const struct nic_config *c, struct netdev **out, struct err *e);
struct netdev *netdevs_find(struct netdevs *n, const char *name); /* NULL: none */
/* No card uses it. */
void netdevs_remove(struct netdev *d);
void netdevs_fini(struct netdevs *n);

#endif
