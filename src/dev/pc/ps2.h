/* SPDX-License-Identifier: Apache-2.0
 *
 * PS/2 keyboard and mouse: the devices at the other end of the 8042's two cables. A byte goes in by
 * ps2_*_write, bytes come out of their queues, which the 8042 empties.
 */
#ifndef SOSIA_DEV_PC_PS2_H
#define SOSIA_DEV_PC_PS2_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "state/state.h"

#define PS2_QUEUE 32u

/* A key is its make code in scan code set 1 (7 bits), | PS2_KEY_EXTENDED when 0xe0 precedes it. */
#define PS2_KEY_EXTENDED 0x80u
#define PS2_KEY_PAUSE 0xc6u
#define PS2_KEY_PRINT 0xb7u

#define PS2_LED_NUM 2u
#define PS2_LED_CAPS 4u

enum ps2_button {
    PS2_BUTTON_LEFT = 1,
    PS2_BUTTON_RIGHT = 2,
    PS2_BUTTON_MIDDLE = 4,
    PS2_BUTTON_4 = 8,
    PS2_BUTTON_5 = 16
};

struct ps2_queue {
    uint8_t data[PS2_QUEUE]; /* oldest first */
    uint8_t count;
};

struct ps2_keyboard {
    struct ps2_queue out;
    uint8_t command;      /* waits for its argument; 0: none */
    uint8_t set;          /* scan code set 1..3 */
    bool scanning;        /* keys are reported */
    uint8_t leds;         /* bit 0 scroll, 1 num, 2 caps lock */
    uint8_t typematic;    /* rate and delay, kept for nobody */
    uint8_t last;         /* for Resend */
    uint8_t held;         /* Shift, Ctrl and Alt keys that are down, a bit for each */
    uint8_t no_break[32]; /* set 3: bit per code whose release is silent */
};

struct ps2_mouse {
    struct ps2_queue out;
    uint8_t command;
    bool reporting; /* data reporting is on (stream mode) */
    bool remote;    /* packets on request only */
    bool wrap;      /* everything is echoed */
    bool scaling21;
    uint8_t resolution; /* 0..3: 1, 2, 4, 8 counts per mm */
    uint8_t rate;       /* samples per second */
    uint8_t id;         /* 0 plain, 3 wheel, 4 five buttons */
    uint8_t knock[2];   /* the two rates set before: certain three unlock the wheel */
    uint8_t buttons;
    uint8_t buttons_sent;
    uint8_t last;
    int32_t dx, dy, dz; /* not sent yet; y grows upwards */
};

void ps2_keyboard_reset(struct ps2_keyboard *k);
void ps2_keyboard_write(struct ps2_keyboard *k, uint8_t byte);
void ps2_keyboard_key(struct ps2_keyboard *k, unsigned key, bool down);
/* There is room for any one key. */
bool ps2_keyboard_room(const struct ps2_keyboard *k);
bool ps2_keyboard_take(struct ps2_keyboard *k, uint8_t *byte);

void ps2_mouse_reset(struct ps2_mouse *m);
void ps2_mouse_write(struct ps2_mouse *m, uint8_t byte);
void ps2_mouse_move(struct ps2_mouse *m, int dx, int dy, int dz, unsigned buttons);
bool ps2_mouse_take(struct ps2_mouse *m, uint8_t *byte);

/* What the 8042 makes of a set 2 code when it translates to set 1; 0xf0 is its business. */
uint8_t ps2_translate(uint8_t code);

/* Private to ps2_*.c and i8042.c. put: all len bytes or none; unget: put first in line again. */
bool ps2_queue_put(struct ps2_queue *q, const uint8_t *data, size_t len);
bool ps2_queue_take(struct ps2_queue *q, uint8_t *byte);
void ps2_queue_unget(struct ps2_queue *q, uint8_t byte);

MUST_CHECK int ps2_keyboard_check(const struct ps2_keyboard *k, struct err *e);
MUST_CHECK int ps2_mouse_check(const struct ps2_mouse *m, struct err *e);
extern const struct state_field ps2_keyboard_state[];
extern const struct state_field ps2_mouse_state[];

#endif
