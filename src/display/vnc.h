/* SPDX-License-Identifier: Apache-2.0
 *
 * The screen, keyboard and mouse of a machine for remote viewers: RFB 3.8 ("VNC", RFC 6143) by
 * libvncserver, on a thread of its own, so that no viewer, slow or hostile, holds up the machine.
 */
#ifndef SOSIA_DISPLAY_VNC_H
#define SOSIA_DISPLAY_VNC_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "display/surface.h"

struct vnc;

#define VNC_DEFAULT_PORT 5900u

/* What a viewer sees and touches. Called on the server's thread. */
struct vnc_console {
    void *ctx;
    /* The picture now; negative: there is none yet. */
    int (*picture)(void *ctx, struct surface *s);
    /* key: as in display/keys.h. */
    void (*key)(void *ctx, unsigned key, bool down);
    /* To the right and down; wheel clicks towards the user; buttons held: 1 left, 2 right,
     * 4 middle. */
    void (*pointer)(void *ctx, int dx, int dy, int dz, unsigned buttons);
    /* To this place; the right and the lower edge are 0x7fff. False: the guest wants pointer. */
    bool (*pointer_at)(void *ctx, int x, int y, int dz, unsigned buttons);
    bool (*caps_lock)(void *ctx); /* the keyboard's light is on */
};

struct vnc_config {
    const char *address; /* numeric, IPv4 or IPv6; NULL: 127.0.0.1 */
    uint16_t port;       /* 0: any that is free */
    /* Its first line, of 1 to 8 characters, is asked for. Needed for all addresses but loopback. */
    const char *password_file;
    struct vnc_console console;
};

bool vnc_built(void);
/* -ENOTSUP: sosia was built without libvncserver. */
MUST_CHECK int vnc_new(struct vnc **out, const struct vnc_config *c, struct err *e);
void vnc_free(struct vnc *v);
/* "127.0.0.1:5900". Valid as long as the server. */
const char *vnc_where(const struct vnc *v);

#endif
