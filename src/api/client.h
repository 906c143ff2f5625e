/* SPDX-License-Identifier: Apache-2.0
 *
 * The other end of the control socket, for commands by a VM's name. Thread: one per client.
 */
#ifndef SOSIA_API_CLIENT_H
#define SOSIA_API_CLIENT_H

#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"

struct api_client;

/* which: a name, a process or the path of a socket (names.h). timeout_s: for each answer. */
MUST_CHECK int api_client_open(struct api_client **out, const char *which, unsigned timeout_s,
                               struct err *e);
/* The same over a connection that there is; it takes fd, in any case. */
MUST_CHECK int api_client_new(struct api_client **out, int fd, unsigned timeout_s, struct err *e);
/* Is the VM a process of ours, whom we can believe everything? */
bool api_client_is_ours(const struct api_client *c);
void api_client_close(struct api_client *c); /* NULL is allowed */

/* Takes args (NULL: none). *result is the caller's to drop; result may be NULL. What the VM says
 * against it is in e. */
MUST_CHECK int api_client_call(struct api_client *c, const char *command, json_t *args,
                               json_t **result, struct err *e);

#endif
