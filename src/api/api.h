/* SPDX-License-Identifier: Apache-2.0
 *
 * The control socket of a machine (docs/api.md): a server of the QEMU Machine Protocol on a thread
 * of its own, so that neither a command nor a slow reader stops the guest.
 */
#ifndef SOSIA_API_API_H
#define SOSIA_API_API_H

#include <stdbool.h>

#include "base/err.h"

struct api;
struct machine;

struct api_config {
    const char *name; /* of the VM: makes a socket in the directory of them all (names.h) */
    const char *path; /* of another socket; or NULL */
};

/* Listens when it returns. The machine is borrowed until api_free. -ENOTSUP: not in this build. */
MUST_CHECK int api_new(struct api **out, struct machine *m, const struct api_config *c,
                       struct err *e);
/* Says what there is to say, closes, removes the sockets. NULL is allowed. */
void api_free(struct api *a);
bool api_built(void);

#endif
