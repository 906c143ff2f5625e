/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/screen.h"

#include <errno.h>

#include "base/bits.h"
#include "display/keys.h"
#include "display/vnc.h"
#include "machine/machine.h"
#include "machine/pc.h"

#define MS 1000000ull
#define RETRY_MS 2u
#define PATIENCE 500u /* a second without room: nobody reads this keyboard */

/* -- Typing ------------------------------------------------------------------------------------ */
static void type_some(void *ctx, uint64_t now_ns)
{
    struct typing *t = ctx;
    while (t->count != 0) {
        if (!i8042_key_room(&t->machine->pc->kbc)) {
            if (t->patience-- == 0) {
                t->count = 0;
                return;
            }
            timer_arm(&t->timer, now_ns + RETRY_MS * MS);
            return;
        }
        unsigned at = t->first;
        t->first = (t->first + 1) % SCREEN_KEYS_MAX;
        t->count--;
        t->patience = PATIENCE;
        i8042_key(&t->machine->pc->kbc, t->stroke[at].key, t->stroke[at].down);
        if (t->stroke[at].wait_ms != 0) {
            timer_arm(&t->timer, now_ns + t->stroke[at].wait_ms * MS);
            return;
        }
    }
}

static void put(struct typing *t, unsigned key, bool down, uint32_t wait_ms)
{
    unsigned at = (t->first + t->count++) % SCREEN_KEYS_MAX;
    t->stroke[at].key = (uint8_t)key;
    t->stroke[at].down = down;
    t->stroke[at].wait_ms = wait_ms;
}

static void start_typing(struct typing *t)
{
    if (!timer_armed(&t->timer)) {
        t->patience = PATIENCE;
        timer_arm(&t->timer, clock_now_ns(t->machine->clock));
    }
}

void typing_init(struct typing *t, struct machine *m)
{
    t->machine = m;
    timer_init(&t->timer, m->clock, type_some, t);
}

void typing_fini(struct typing *t) { timer_cancel(&t->timer); }

int machine_key(struct machine *m, unsigned key, bool down)
{
    struct typing *t = &m->pc->typing;
    bus_lock(m->bus);
    bool room = t->count < SCREEN_KEYS_MAX;
    if (room) {
        put(t, key, down, 0);
        start_typing(t);
    }
    bus_unlock(m->bus);
    return room ? 0 : -ENOBUFS;
}

int machine_send_key(struct machine *m, const char *const *name, size_t count, uint32_t hold_ms,
                     struct err *e)
{
    struct typing *t = &m->pc->typing;
    int r = 0;
    for (size_t i = 0; i < count; i++) {
        if (key_by_name(name[i]) < 0) {
            return err_set(e, -EINVAL, "there is no key '%s'", name[i]);
        }
    }
    bus_lock(m->bus);
    if (2 * count > SCREEN_KEYS_MAX - t->count) {
        r = err_set(e, -ENOBUFS, "too many keys wait for the guest");
    } else {
        for (size_t i = 0; i < count; i++) {
            put(t, (unsigned)key_by_name(name[i]), true, i + 1 == count ? hold_ms : 0);
        }
        for (size_t i = count; i-- > 0;) {
            put(t, (unsigned)key_by_name(name[i]), false, 0);
        }
        start_typing(t);
    }
    bus_unlock(m->bus);
    return r;
}

void machine_pointer(struct machine *m, int dx, int dy, int dz, unsigned buttons)
{
    bus_lock(m->bus);
    i8042_mouse(&m->pc->kbc, dx, dy, dz, buttons);
    bus_unlock(m->bus);
}

/* Both number the buttons in one way. */
_Static_assert((int)PS2_BUTTON_5 == (int)VIRTIO_INPUT_EXTRA &&
                   (int)PS2_BUTTON_MIDDLE == (int)VIRTIO_INPUT_MIDDLE,
               "buttons");

static uint16_t within_tablet(int at, uint16_t now)
{
    return at < 0 ? now : at < VIRTIO_INPUT_MAX ? (uint16_t)at : VIRTIO_INPUT_MAX;
}

bool machine_pointer_at(struct machine *m, int x, int y, int dz, unsigned buttons)
{
    struct virtio_input *tablet = m->pc->cards.tablet;
    bus_lock(m->bus);
    bool ready = tablet != NULL && virtio_input_ready(tablet);
    if (ready) {
        const struct virtio_input_place to = { within_tablet(x, tablet->is.x),
                                               within_tablet(y, tablet->is.y), (uint8_t)buttons };
        virtio_input_put(tablet, &to, dz);
    }
    bus_unlock(m->bus);
    return ready;
}

unsigned machine_buttons(struct machine *m)
{
    const struct virtio_input *tablet = m->pc->cards.tablet;
    bus_lock(m->bus);
    unsigned buttons = tablet != NULL && virtio_input_ready(tablet) ? tablet->is.buttons
                                                                    : m->pc->kbc.mouse.buttons;
    bus_unlock(m->bus);
    return buttons;
}

/* -- Looking ----------------------------------------------------------------------------------- */
/* A picture takes milliseconds: only the registers are copied under the lock. The memory may change
 * while it is read, as under the beam of a tube. */
int machine_picture(struct machine *m, struct surface *s)
{
    if (!m->pc->has_vga) {
        return -ENODEV;
    }
    bus_lock(m->bus);
    const struct vga v = m->pc->vga;
    bus_unlock(m->bus);
    vga_render(&v, s);
    return s->pixels != NULL ? 0 : -ENODEV;
}

int machine_screendump(struct machine *m, const char *path, struct err *e)
{
    struct surface s = { 0 };
    int r = machine_picture(m, &s);
    r = r < 0 ? err_set(e, r, "the machine has no screen") : surface_write_png(&s, path, e);
    surface_free(&s);
    return r;
}

/* -- Viewers ----------------------------------------------------------------------------------- */
static int vnc_picture(void *ctx, struct surface *s) { return machine_picture(ctx, s); }

static void vnc_key(void *ctx, unsigned key, bool down)
{
    int r = machine_key(ctx, key, down);
    (void)r; /* a key that nobody reads is lost, as on any keyboard */
}

static void vnc_pointer(void *ctx, int dx, int dy, int dz, unsigned buttons)
{
    machine_pointer(ctx, dx, dy, dz, buttons);
}

static bool vnc_pointer_at(void *ctx, int x, int y, int dz, unsigned buttons)
{
    return machine_pointer_at(ctx, x, y, dz, buttons);
}

static bool vnc_caps_lock(void *ctx)
{
    struct machine *m = ctx;
    bus_lock(m->bus);
    bool on = i8042_caps_lock(&m->pc->kbc);
    bus_unlock(m->bus);
    return on;
}

int machine_start_vnc(struct machine *m, const struct display_config *c, struct err *e)
{
    const struct vnc_config config = {
        .address = c->address,
        .port = c->port,
        .password_file = c->password_file,
        .console = { .ctx = m,
                     .picture = vnc_picture,
                     .key = vnc_key,
                     .pointer = vnc_pointer,
                     .pointer_at = vnc_pointer_at,
                     .caps_lock = vnc_caps_lock },
    };
    return vnc_new(&m->vnc, &config, e);
}
