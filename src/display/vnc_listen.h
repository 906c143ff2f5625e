/* SPDX-License-Identifier: Apache-2.0
 *
 * Where the VNC server listens and what password it asks for: what a person wrote, checked. Private
 * to vnc*.c.
 */
#ifndef SOSIA_DISPLAY_VNC_LISTEN_H
#define SOSIA_DISPLAY_VNC_LISTEN_H

#include <stddef.h>

#include "base/tcpsock.h"
#include "display/vnc.h"

#define VNC_PASSWORD_MAX 8u /* RFC 6143 7.2.2: DES has no room for more */
#define VNC_WHERE_BYTES TCP_WHERE_BYTES

/* A listening socket, or a negative errno value; where: what it is bound to, for people. */
MUST_CHECK int vnc_listen(const struct vnc_config *c, char where[VNC_WHERE_BYTES], struct err *e);
MUST_CHECK int vnc_read_password(const char *path, char out[VNC_PASSWORD_MAX + 1], struct err *e);

#endif
