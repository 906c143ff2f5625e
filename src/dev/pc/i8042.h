/* SPDX-License-Identifier: Apache-2.0
 *
 * Intel 8042 keyboard controller as in a PS/2, with a keyboard and a mouse behind it.
 * Thread: machine lock held.
 */
#ifndef SOSIA_DEV_PC_I8042_H
#define SOSIA_DEV_PC_I8042_H

#include "bus/bus.h"
#include "bus/irq.h"
#include "dev/pc/ps2.h"

/* Who put the byte into the output buffer. */
enum kbc_source { KBC_NONE, KBC_SELF, KBC_SELF_AUX, KBC_KEYBOARD, KBC_MOUSE, KBC_SOURCES };

struct i8042 {
    struct dev dev;
    struct irq irq_keyboard; /* IRQ1 */
    struct irq irq_mouse;    /* IRQ12 */
    struct irq a20;
    struct irq reset;  /* pulsed */
    uint8_t ram[32];   /* ram[0]: the command byte */
    uint8_t outport;   /* bit 0: reset, low active; bit 1: A20 */
    uint8_t output;    /* the output buffer */
    uint8_t source;    /* enum kbc_source; KBC_NONE: the buffer is empty */
    uint8_t pending;   /* command that waits for its data byte; 0: none */
    bool command_last; /* the last write was to port 0x64 */
    bool breaking;     /* translation has seen 0xf0 */
    struct ps2_keyboard keyboard;
    struct ps2_mouse mouse;
};

/* Ports 0x60 and 0x64. All lines are copied. */
void i8042_init(struct i8042 *k, struct bus *b, const struct irq *irq_keyboard,
                const struct irq *irq_mouse, const struct irq *a20, const struct irq *reset);
void i8042_fini(struct i8042 *k);

/* From the screen. key: as in ps2.h. Auto
 * repeat is the caller's: a key that is down and comes down again repeats. */
void i8042_key(struct i8042 *k, unsigned key, bool down);
/* Would the keyboard keep any key now? */
bool i8042_key_room(const struct i8042 *k);
/* The light for Caps Lock is on. */
bool i8042_caps_lock(const struct i8042 *k);
/* Relative motion (y grows downwards), wheel clicks (towards the user is positive), buttons:
 * PS2_BUTTON_* held now. */
void i8042_mouse(struct i8042 *k, int dx, int dy, int dz, unsigned buttons);

#endif
