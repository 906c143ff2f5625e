/* SPDX-License-Identifier: Apache-2.0
 *
 * TLS over a connected socket, by GnuTLS, where the build has it. Both ends show a certificate that
 * the same authority has signed, or nothing is said.
 *
 * Thread: one sends and one receives at a time.
 */
#ifndef SOSIA_MIGRATE_TLS_H
#define SOSIA_MIGRATE_TLS_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"

struct tls;

enum tls_role { TLS_CLIENT, TLS_SERVER };

bool tls_built(void);
/* dir has ca-cert.pem and client-cert.pem, client-key.pem or server-cert.pem, server-key.pem. fd is
 * borrowed, blocking, with time limits of its own. */
MUST_CHECK int tls_new(struct tls **out, int fd, enum tls_role role, const char *dir,
                       struct err *e);
void tls_free(struct tls *t); /* NULL is allowed */
/* As send and recv: bytes, 0 at the end, -errno. */
MUST_CHECK ssize_t tls_send(struct tls *t, const void *data, size_t len);
MUST_CHECK ssize_t tls_receive(struct tls *t, void *data, size_t len);

#endif
