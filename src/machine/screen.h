/* SPDX-License-Identifier: Apache-2.0
 *
 * A machine's screen, keyboard and mouse, for those who sit at it: remote viewers, the control
 * socket, the library's callers.  Thread: [any], the machine lock not held, unless said otherwise.
 */
#ifndef SOSIA_MACHINE_SCREEN_H
#define SOSIA_MACHINE_SCREEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/err.h"
#include "dev/pc/ps2.h"
#include "display/keys.h"

struct machine;
struct surface;

#define SCREEN_KEYS_MAX 1024u

/* Keys on their way to the guest, each as fast as the keyboard takes it. Machine lock held. */
struct typing {
    struct machine *machine;
    struct timer timer;
    struct {
        uint8_t key;
        bool down;
        uint32_t wait_ms; /* before the next one */
    } stroke[SCREEN_KEYS_MAX]; /* a ring */
    unsigned first, count;
    unsigned patience; /* how often the guest may still find no room before all are dropped */
};

/* One key goes down or comes up: as display/keys.h numbers them. -ENOBUFS: too many wait. */
int machine_key(struct machine *m, unsigned key, bool down);
/* Press keys together, by QEMU's names, and release them after hold_ms of the guest's time. Returns
 * at once. -EINVAL: a name that no key has; -ENOBUFS. */
int machine_send_key(struct machine *m, const char *const *name, size_t count, uint32_t hold_ms,
                     struct err *e);
/* Mouse: by so much to the right and down, wheel clicks towards the user, buttons held now
 * (enum ps2_button). */
void machine_pointer(struct machine *m, int dx, int dy, int dz, unsigned buttons);
/* The pointer goes there: 0x7fff is the right and the lower edge, below 0 is where it is. False:
 * nobody in the guest listens to a tablet. */
bool machine_pointer_at(struct machine *m, int x, int y, int dz, unsigned buttons);
/* The buttons that are held. */
unsigned machine_buttons(struct machine *m);

/* What the screen shows now. -ENODEV: the machine has none. */
int machine_picture(struct machine *m, struct surface *s);
/* The same as a PNG file. */
MUST_CHECK int machine_screendump(struct machine *m, const char *path, struct err *e);

struct display_config;
MUST_CHECK int machine_start_vnc(struct machine *m, const struct display_config *c, struct err *e);

/* Set-up and end; machine lock held. */
void typing_init(struct typing *t, struct machine *m);
void typing_fini(struct typing *t);

#endif
