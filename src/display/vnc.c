/* SPDX-License-Identifier: Apache-2.0
 *
 * The thread: it looks at the picture some thirty times a second while there are viewers, finds
 * what changed by comparing it with what they have, and leaves the protocol to libvncserver. The
 * mouse of a PS/2 moves relatively, so that viewers' positions become differences.
 *
 * Libvncserver also talks WebSocket on the same port. Such connections are refused: any page in a
 * browser on this host could make one to a server that asks for no password.
 */
#include "display/vnc.h"

#include <errno.h>
#include <pthread.h>
#include <rfb/rfb.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/log.h"
#include "display/keys.h"
#include "display/vnc_listen.h"

#define BUSY_US 30000     /* between two looks while the picture changes, or somebody types */
#define CALM_US 150000    /* and when neither has happened for BUSY_LOOKS looks */
#define BUSY_LOOKS 20u
#define TILE 32u          /* pixels: what is compared and sent at a time */
#define CLIENT_WAIT_MS 2000 /* for one that takes or sends half a message */
#define CLIENTS_MAX 8u
#define KEYS 256u

struct vnc {
    struct vnc_console console;
    rfbScreenInfo *rfb;
    char where[VNC_WHERE_BYTES];
    char password[VNC_PASSWORD_MAX + 1];
    char *passwords[2]; /* as rfbCheckPasswordByList wants it */
    int stop_fd;        /* readable: the thread is to end */
    pthread_t thread;
    bool started;
    struct surface now;   /* scratch for the next picture */
    struct surface shown; /* what viewers have; libvncserver's frame buffer */
    unsigned calm;        /* looks since something happened */
    unsigned clients;
    bool held[KEYS];
    bool has_pointer; /* the two below say where it was */
    int x, y;
    unsigned buttons;
};

/* -- The picture ------------------------------------------------------------------------------- */
/* Libvncserver chooses red in the low byte; ours is in the third. */
static void set_format(rfbScreenInfo *rfb)
{
    rfb->serverFormat.redShift = 16;
    rfb->serverFormat.greenShift = 8;
    rfb->serverFormat.blueShift = 0;
}

static void resize(struct vnc *v)
{
    rfbScreenInfo *rfb = v->rfb;
    surface_resize(&v->shown, v->now.width, v->now.height);
    memcpy(v->shown.pixels, v->now.pixels,
           (size_t)v->now.width * v->now.height * sizeof *v->now.pixels);
    rfbNewFramebuffer(rfb, (char *)v->shown.pixels, (int)v->now.width, (int)v->now.height, 8, 3, 4);
    set_format(rfb);
    rfbClientIteratorPtr it = rfbGetClientIterator(rfb);
    for (rfbClientPtr cl; (cl = rfbClientIteratorNext(it)) != NULL;) {
        rfb->setTranslateFunction(cl);
        /* It marks those only that have said that they want to know; one that has ServerInit, and
         * with it the old size, may be about to. Until it does nothing is sent. */
        cl->newFBSizePending = cl->state == RFB_NORMAL;
    }
    rfbReleaseClientIterator(it);
}

/* Bring one tile up to date; false: it was. */
static bool update_tile(struct vnc *v, unsigned x, unsigned y)
{
    unsigned width = v->now.width - x < TILE ? v->now.width - x : TILE;
    unsigned height = v->now.height - y < TILE ? v->now.height - y : TILE;
    bool changed = false;
    for (unsigned i = 0; i < height; i++) {
        size_t at = (size_t)(y + i) * v->now.width + x;
        size_t bytes = width * sizeof *v->now.pixels;
        if (memcmp(v->shown.pixels + at, v->now.pixels + at, bytes) != 0) {
            memcpy(v->shown.pixels + at, v->now.pixels + at, bytes);
            changed = true;
        }
    }
    if (changed) {
        rfbMarkRectAsModified(v->rfb, (int)x, (int)y, (int)(x + width), (int)(y + height));
    }
    return changed;
}

static void look(struct vnc *v)
{
    bool changed = false;
    if (v->console.picture(v->console.ctx, &v->now) < 0) {
        return;
    }
    if (v->now.width != v->shown.width || v->now.height != v->shown.height) {
        resize(v);
        changed = true;
    } else {
        for (unsigned y = 0; y < v->now.height; y += TILE) {
            for (unsigned x = 0; x < v->now.width; x += TILE) {
                changed |= update_tile(v, x, y);
            }
        }
    }
    v->calm = changed ? 0 : v->calm + 1;
}

/* -- Keys and mouse ---------------------------------------------------------------------------- */
static void press(struct vnc *v, unsigned key, bool down)
{
    v->calm = 0;
    v->held[key] = down;
    v->console.key(v->console.ctx, key, down);
}

/* A character may need Shift to be otherwise than the viewer's user holds it, whose keyboard may
 * have another layout: Shift is then changed for a moment. */
static void press_character(struct vnc *v, unsigned key, bool want)
{
    static const unsigned shifts[] = { KEY_SHIFT_LEFT, KEY_SHIFT_RIGHT };
    bool held[2] = { v->held[shifts[0]], v->held[shifts[1]] };
    bool differs = want != (held[0] || held[1]);
    for (unsigned i = 0; i < 2 && differs; i++) {
        if (want ? i == 0 : held[i]) {
            press(v, shifts[i], want);
        }
    }
    press(v, key, true);
    for (unsigned i = 0; i < 2 && differs; i++) {
        if (want ? i == 0 : held[i]) {
            press(v, shifts[i], !want);
        }
    }
}

static void on_keysym(rfbBool down, rfbKeySym keysym, rfbClientPtr cl)
{
    struct vnc *v = cl->screen->screenData;
    enum key_shift shift;
    int key = key_by_keysym((uint32_t)keysym, &shift);
    if (key < 0) {
        log_dbg("vnc", "no key for keysym %#x", (unsigned)keysym);
        return;
    }
    if (!down || shift == KEY_SHIFT_ANY) {
        press(v, (unsigned)key, down);
        return;
    }
    bool letter = (keysym | 0x20) >= 'a' && (keysym | 0x20) <= 'z';
    bool caps = letter && v->console.caps_lock(v->console.ctx);
    press_character(v, (unsigned)key, (shift == KEY_SHIFT_DOWN) != caps);
}

/* 0 to the last pixel becomes 0 to 0x7fff. */
static int of_screen(int at, int size)
{
    at = at < 0 ? 0 : at >= size ? size - 1 : at;
    return size > 1 ? at * 0x7fff / (size - 1) : 0;
}

static void point(struct vnc *v, int dx, int dy, int dz, unsigned buttons)
{
    if (!v->console.pointer_at(v->console.ctx, of_screen(v->x, v->rfb->width),
                               of_screen(v->y, v->rfb->height), dz, buttons)) {
        v->console.pointer(v->console.ctx, dx, dy, dz, buttons);
    }
}

static void on_pointer(int mask, int x, int y, rfbClientPtr cl)
{
    struct vnc *v = cl->screen->screenData;
    unsigned pressed = (unsigned)mask & ~v->buttons;
    int dz = (pressed & 0x10 ? 1 : 0) - (pressed & 0x08 ? 1 : 0);
    unsigned buttons = (unsigned)((mask & 1) | (mask & 4) >> 1 | (mask & 2) << 1);
    int dx = v->has_pointer ? x - v->x : 0;
    int dy = v->has_pointer ? y - v->y : 0;
    v->has_pointer = true;
    v->x = x;
    v->y = y;
    v->buttons = (unsigned)mask;
    v->calm = 0;
    point(v, dx, dy, dz, buttons);
}

static void release_all(struct vnc *v)
{
    for (unsigned key = 0; key < KEYS; key++) {
        if (v->held[key]) {
            press(v, key, false);
        }
    }
    if (v->buttons != 0) {
        v->buttons = 0;
        point(v, 0, 0, 0, 0);
    }
}

/* -- QEMU Extended Key Event: keys by their own numbers, whatever the layout ("rfbproto") ------ */
static int extended_key_encodings[] = { rfbEncodingQemuExtendedKeyEvent, 0 };

/* An update of one rectangle of this encoding says that we understand such messages. */
static rfbBool enable_extended_keys(rfbClientPtr cl, void **data, int encoding)
{
    (void)data;
    if (encoding != (int)rfbEncodingQemuExtendedKeyEvent) {
        return FALSE;
    }
    static const uint8_t update[] = { rfbFramebufferUpdate, 0, 0, 1, /* one rectangle */
                                      0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xfe, 0xfe };
    return rfbWriteExact(cl, (const char *)update, sizeof update) > 0;
}

static rfbBool on_extended_key(rfbClientPtr cl, void *data, const rfbClientToServerMsg *msg)
{
    rfbQemuExtendedKeyEventMsg key;
    (void)data;
    if (msg->type != rfbQemuEvent) {
        return FALSE;
    }
    if (rfbReadExact(cl, (char *)&key + 1, sz_rfbQemuExtendedKeyEventMsg - 1) <= 0 ||
        key.subtype != 0) {
        rfbCloseClient(cl);
        return TRUE;
    }
    uint32_t code = load_be32(&key.keycode);
    if (code < KEYS && !cl->viewOnly) {
        press(cl->screen->screenData, code, key.down != 0);
    }
    return TRUE;
}

/* Lives in a list of the library's for all servers of the process. */
static rfbProtocolExtension extended_keys = {
    .pseudoEncodings = extended_key_encodings,
    .enablePseudoEncoding = enable_extended_keys,
    .handleMessage = on_extended_key,
};

/* -- Viewers ----------------------------------------------------------------------------------- */
static void client_gone(rfbClientPtr cl)
{
    struct vnc *v = cl->screen->screenData;
    v->clients--;
    v->has_pointer = false;
    release_all(v);
}

static enum rfbNewClientAction new_client(rfbClientPtr cl)
{
    struct vnc *v = cl->screen->screenData;
    v->clients++;
    cl->clientGoneHook = client_gone;
    if (v->clients > CLIENTS_MAX || cl->wsctx != NULL) {
        log_info("vnc: a viewer from %s is refused", cl->host);
        return RFB_CLIENT_REFUSE;
    }
    v->calm = 0;
    return RFB_CLIENT_ACCEPT;
}

static void log_nothing(const char *format, ...) { (void)format; }

static void *serve(void *ctx)
{
    struct vnc *v = ctx;
    uint64_t stop;
    while (read(v->stop_fd, &stop, sizeof stop) < 0) {
        if (v->clients != 0) {
            look(v);
        }
        rfbProcessEvents(v->rfb, v->calm < BUSY_LOOKS && v->clients != 0 ? BUSY_US : CALM_US);
    }
    return NULL;
}

/* -- Life -------------------------------------------------------------------------------------- */
static void register_once(void)
{
    rfbLog = rfbErr = log_nothing; /* every connection and every broken one is worth a line to it */
    rfbRegisterProtocolExtension(&extended_keys);
}

static int make_server(struct vnc *v, int listen_fd, struct err *e)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, register_once);
    if (v->console.picture(v->console.ctx, &v->shown) < 0) {
        return err_set(e, -ENODEV, "vnc: the machine has no screen");
    }
    rfbScreenInfo *rfb =
        rfbGetScreen(NULL, NULL, (int)v->shown.width, (int)v->shown.height, 8, 3, 4);
    if (rfb == NULL) {
        return err_set(e, -ENOMEM, "vnc: no memory for a server");
    }
    v->rfb = rfb;
    set_format(rfb);
    rfb->screenData = v;
    rfb->frameBuffer = (char *)v->shown.pixels;
    rfb->desktopName = "sosia";
    rfb->alwaysShared = TRUE;
    rfb->port = rfb->ipv6port = -1; /* the socket is ours */
    rfb->ignoreSIGPIPE = FALSE;     /* the process's business: the thread blocks it for itself */
    rfb->permitFileTransfer = FALSE;
    rfb->maxClientWait = CLIENT_WAIT_MS;
    rfb->cursor = NULL;
    rfb->kbdAddEvent = on_keysym;
    rfb->ptrAddEvent = on_pointer;
    rfb->newClientHook = new_client;
    if (v->password[0] != '\0') {
        v->passwords[0] = v->password;
        rfb->authPasswdData = v->passwords;
        rfb->passwordCheck = rfbCheckPasswordByList;
    }
    rfbInitServer(rfb);
    rfb->listenSock = listen_fd;
    FD_SET(listen_fd, &rfb->allFds);
    FD_SET(v->stop_fd, &rfb->allFds); /* ends its waiting, and is read by us alone */
    rfb->maxFd = listen_fd > v->stop_fd ? listen_fd : v->stop_fd;
    return 0;
}

static int start(struct vnc *v, struct err *e)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int error = pthread_create(&v->thread, NULL, serve, v);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    v->started = error == 0;
    return error == 0 ? 0 : err_set(e, -error, "vnc: no thread: %s", strerror(error));
}

bool vnc_built(void) { return true; }

int vnc_new(struct vnc **out, const struct vnc_config *c, struct err *e)
{
    struct vnc *v = xzalloc(sizeof *v);
    v->console = c->console;
    v->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int r = v->stop_fd < 0 ? err_set(e, -errno, "vnc: no event: %s", strerror(errno)) : 0;
    if (r == 0 && c->password_file != NULL) {
        r = vnc_read_password(c->password_file, v->password, e);
    }
    int fd = r == 0 ? vnc_listen(c, v->where, e) : r;
    r = fd < 0 ? fd : make_server(v, fd, e);
    if (fd >= 0 && v->rfb == NULL) {
        close(fd);
    }
    r = r == 0 ? start(v, e) : r;
    if (r < 0) {
        vnc_free(v);
        return r;
    }
    *out = v;
    return 0;
}

void vnc_free(struct vnc *v)
{
    if (v == NULL) {
        return;
    }
    if (v->started) {
        const uint64_t one = 1;
        ssize_t n = write(v->stop_fd, &one, sizeof one);
        (void)n; /* a counter of 1 always has room */
        pthread_join(v->thread, NULL);
    }
    if (v->rfb != NULL) {
        rfbShutdownServer(v->rfb, TRUE);
        rfbScreenCleanup(v->rfb);
    }
    if (v->stop_fd >= 0) {
        close(v->stop_fd);
    }
    surface_free(&v->now);
    surface_free(&v->shown);
    free(v);
}

const char *vnc_where(const struct vnc *v) { return v->where; }
