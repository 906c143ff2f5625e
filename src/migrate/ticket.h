/* SPDX-License-Identifier: Apache-2.0
 *
 * Who runs the VM, when the two ends can no longer talk? The ticket is an empty file that both
 * reach, with a name that never was and never will be again. Whoever removes it has the VM: a
 * directory lets one of them do so and tells the other that there is nothing. The target may try
 * once it was told to go, the source once it has told and heard no answer.
 *
 * Thread: [any].
 */
#ifndef SOSIA_MIGRATE_TICKET_H
#define SOSIA_MIGRATE_TICKET_H

#include <stdbool.h>

#include "base/err.h"

#define TICKET_PATH_MAX 1024u

struct ticket {
    char path[TICKET_PATH_MAX]; /* "": there is none */
};

/* beside: a file of the storage that both ends share; NULL: a directory of this host. */
MUST_CHECK int ticket_make(struct ticket *t, const char *beside, struct err *e);
/* The other end's: is it there, and ours to remove? */
bool ticket_reachable(const struct ticket *t);
/* 0: the VM is ours. -ENOENT: it is the other's. Else it is not known whose. */
MUST_CHECK int ticket_take(const struct ticket *t);
/* The VM never left: away with it. */
void ticket_drop(struct ticket *t);

#endif
