/* SPDX-License-Identifier: Apache-2.0
 *
 * Stream sockets in the file system (unix(7)). Thread: [any].
 */
#ifndef SOSIA_BASE_UNIXSOCK_H
#define SOSIA_BASE_UNIXSOCK_H

#include <sys/types.h>

#include "base/err.h"

/* A connected socket, blocking. */
MUST_CHECK int unix_connect(const char *path, struct err *e);
/* A listening socket, non-blocking, with `mode` less the umask. It takes the place of one that a
 * process left behind which did not live to remove it; one that answers stays: -EADDRINUSE. */
MUST_CHECK int unix_listen(const char *path, mode_t mode, int backlog, struct err *e);

#endif
