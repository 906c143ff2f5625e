/* SPDX-License-Identifier: Apache-2.0
 *
 * What happens to a machine, for whoever listens: the control socket.
 */
#ifndef SOSIA_MACHINE_EVENTS_H
#define SOSIA_MACHINE_EVENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "machine/config.h"

struct machine;

enum machine_event_kind {
    MACHINE_EVENT_STOP, /* paused */
    MACHINE_EVENT_RESUME,
    MACHINE_EVENT_RESET,
    MACHINE_EVENT_POWERDOWN, /* somebody pressed the power button */
    MACHINE_EVENT_SHUTDOWN,  /* it is over */
    MACHINE_EVENT_DEVICE_DELETED, /* a card is out */
    MACHINE_EVENT_MIGRATION, /* it moves, or tried to */
    MACHINE_EVENT_MIGRATION_PASS,
    MACHINE_EVENT_DEBUG,     /* a processor stopped for the debugger (debug.h) */
};

struct machine_event {
    enum machine_event_kind kind;
    bool guest;          /* RESET: the guest wanted it */
    unsigned end_reason; /* SHUTDOWN: enum machine_reason */
    char id[MACHINE_NAME_BYTES]; /* DEVICE_DELETED */
    const char *status; /* MIGRATION: QEMU's word for it, static */
    unsigned number;    /* MIGRATION_PASS */
};

/* Told on whatever thread it happens, with any of the machine's locks held: fn may only take note,
 * and call nothing of the machine. */
struct machine_listener {
    void (*fn)(void *ctx, const struct machine_event *ev);
    void *ctx;
    struct machine_listener *next; /* private to events.c */
};

/* The listener is borrowed until machine_unlisten returns; then fn is not running either. [any] */
void machine_listen(struct machine *m, struct machine_listener *l);
void machine_unlisten(struct machine *m, struct machine_listener *l);
void machine_notify(struct machine *m, const struct machine_event *ev);

#endif
