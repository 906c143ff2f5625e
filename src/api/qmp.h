/* SPDX-License-Identifier: Apache-2.0
 *
 * The QEMU Machine Protocol (QEMU docs/interop/qmp-spec): a text in, a text out. Knows no socket.
 */
#ifndef SOSIA_API_QMP_H
#define SOSIA_API_QMP_H

#include <stdbool.h>
#include <stddef.h>

#include "api/command.h"

/* Whose messages these are. */
struct qmp {
    struct api *api;
    struct machine *machine;
    bool ready; /* capabilities are negotiated: commands, and events */
};

/* Each returns a line to send, to be freed. */
char *qmp_greeting(void);
char *qmp_answer(struct qmp *q, const char *text, size_t len);
char *qmp_error_line(const char *desc);
char *qmp_line(json_t *j); /* and drops j */

json_t *qmp_version(void);
int qmp_negotiated(struct api_call *c); /* qmp_capabilities a second time */

#endif
