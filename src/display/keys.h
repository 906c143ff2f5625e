/* SPDX-License-Identifier: Apache-2.0
 *
 * Keys by the names and numbers that people and remote viewers give them. A key is what it is to a
 * PC's keyboard: its make code in scan code set 1 (7 bits), | 0x80 when 0xe0 precedes it.
 * Thread: [any].
 */
#ifndef SOSIA_DISPLAY_KEYS_H
#define SOSIA_DISPLAY_KEYS_H

#include <stdbool.h>
#include <stdint.h>

#define KEY_SHIFT_LEFT 0x2a
#define KEY_SHIFT_RIGHT 0x36

/* By QEMU's names of keys (QKeyCode: "a", "ret", "ctrl", "kp_7"); -1: there is no such key. */
int key_by_name(const char *name);

enum key_shift { KEY_SHIFT_ANY, KEY_SHIFT_UP, KEY_SHIFT_DOWN };

/* By X's keysym, as RFB 3.8 7.5.4 has them: the key that makes this character on a US keyboard,
 * and in *shift what Shift has to be for it. -1: no key does. */
int key_by_keysym(uint32_t keysym, enum key_shift *shift);

#endif
