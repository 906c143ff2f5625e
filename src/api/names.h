/* SPDX-License-Identifier: Apache-2.0
 *
 * Where VMs with a name have their control sockets: NAME.sock in $XDG_RUNTIME_DIR/sosia or, without
 * that, /tmp/sosia-UID. The directory is its owner's alone. Thread: [any].
 */
#ifndef SOSIA_API_NAMES_H
#define SOSIA_API_NAMES_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"

#define API_NAME_MAX 64u
#define API_PATH_MAX 108u /* what a socket's address holds, with the NUL */

/* Letters, digits and - _ . in it, a letter or digit first, as long as API_NAME_MAX. */
MUST_CHECK int api_name_check(const char *name, struct err *e);
/* The path of a name's socket. The directory is made. */
MUST_CHECK int api_name_path(char path[API_PATH_MAX], const char *name, struct err *e);
/* Listens at a name's socket: -EADDRINUSE when a VM of that name runs. Returns the descriptor. */
MUST_CHECK int api_name_listen(char path[API_PATH_MAX], const char *name, struct err *e);

/* One VM that answers: fd is the callback's to close. */
typedef void api_name_fn(void *ctx, const char *name, int fd, pid_t pid);
/* All of them in the order of their names; sockets whose VM is dead are removed. */
MUST_CHECK int api_names(api_name_fn *fn, void *ctx, struct err *e);
/* A connection to a VM by its name, its process or the path of its socket (with a slash in it). */
MUST_CHECK int api_name_connect(const char *which, struct err *e);

#endif
