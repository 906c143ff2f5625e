/* SPDX-License-Identifier: Apache-2.0 */
#include "display/keys.h"

#include <string.h>

#include "base/bits.h"

#define E0 0x80

/* Names from QEMU's qapi/ui.json; codes from Microsoft's "Keyboard Scan Code Specification" 1.3a.
 */
static const struct {
    const char name[18];
    uint8_t key;
} names[] = {
    { "shift", 0x2a },
    { "shift_r", 0x36 },
    { "alt", 0x38 },
    { "alt_r", 0x38 | E0 },
    { "ctrl", 0x1d },
    { "ctrl_r", 0x1d | E0 },
    { "meta_l", 0x5b | E0 },
    { "meta_r", 0x5c | E0 },
    { "menu", 0x5d | E0 },
    { "compose", 0x5d | E0 },
    { "esc", 0x01 },
    { "1", 0x02 },
    { "2", 0x03 },
    { "3", 0x04 },
    { "4", 0x05 },
    { "5", 0x06 },
    { "6", 0x07 },
    { "7", 0x08 },
    { "8", 0x09 },
    { "9", 0x0a },
    { "0", 0x0b },
    { "minus", 0x0c },
    { "equal", 0x0d },
    { "backspace", 0x0e },
    { "tab", 0x0f },
    { "q", 0x10 },
    { "w", 0x11 },
    { "e", 0x12 },
    { "r", 0x13 },
    { "t", 0x14 },
    { "y", 0x15 },
    { "u", 0x16 },
    { "i", 0x17 },
    { "o", 0x18 },
    { "p", 0x19 },
    { "bracket_left", 0x1a },
    { "bracket_right", 0x1b },
    { "ret", 0x1c },
    { "a", 0x1e },
    { "s", 0x1f },
    { "d", 0x20 },
    { "f", 0x21 },
    { "g", 0x22 },
    { "h", 0x23 },
    { "j", 0x24 },
    { "k", 0x25 },
    { "l", 0x26 },
    { "semicolon", 0x27 },
    { "apostrophe", 0x28 },
    { "grave_accent", 0x29 },
    { "backslash", 0x2b },
    { "z", 0x2c },
    { "x", 0x2d },
    { "c", 0x2e },
    { "v", 0x2f },
    { "b", 0x30 },
    { "n", 0x31 },
    { "m", 0x32 },
    { "comma", 0x33 },
    { "dot", 0x34 },
    { "slash", 0x35 },
    { "asterisk", 0x37 },
    { "spc", 0x39 },
    { "caps_lock", 0x3a },
    { "f1", 0x3b },
    { "f2", 0x3c },
    { "f3", 0x3d },
    { "f4", 0x3e },
    { "f5", 0x3f },
    { "f6", 0x40 },
    { "f7", 0x41 },
    { "f8", 0x42 },
    { "f9", 0x43 },
    { "f10", 0x44 },
    { "f11", 0x57 },
    { "f12", 0x58 },
    { "num_lock", 0x45 },
    { "scroll_lock", 0x46 },
    { "kp_7", 0x47 },
    { "kp_8", 0x48 },
    { "kp_9", 0x49 },
    { "kp_subtract", 0x4a },
    { "kp_4", 0x4b },
    { "kp_5", 0x4c },
    { "kp_6", 0x4d },
    { "kp_add", 0x4e },
    { "kp_1", 0x4f },
    { "kp_2", 0x50 },
    { "kp_3", 0x51 },
    { "kp_0", 0x52 },
    { "kp_decimal", 0x53 },
    { "kp_multiply", 0x37 },
    { "kp_divide", 0x35 | E0 },
    { "kp_enter", 0x1c | E0 },
    { "kp_equals", 0x59 },
    { "kp_comma", 0x7e },
    { "sysrq", 0x54 },
    { "print", 0x37 | E0 },
    { "pause", 0x46 | E0 },
    { "less", 0x56 },
    { "home", 0x47 | E0 },
    { "up", 0x48 | E0 },
    { "pgup", 0x49 | E0 },
    { "left", 0x4b | E0 },
    { "right", 0x4d | E0 },
    { "end", 0x4f | E0 },
    { "down", 0x50 | E0 },
    { "pgdn", 0x51 | E0 },
    { "insert", 0x52 | E0 },
    { "delete", 0x53 | E0 },
    { "hiragana", 0x70 },
    { "katakanahiragana", 0x70 },
    { "ro", 0x73 },
    { "henkan", 0x79 },
    { "muhenkan", 0x7b },
    { "yen", 0x7d },
    { "power", 0x5e | E0 },
    { "sleep", 0x5f | E0 },
    { "wake", 0x63 | E0 },
    { "audioprev", 0x10 | E0 },
    { "audionext", 0x19 | E0 },
    { "audiomute", 0x20 | E0 },
    { "calculator", 0x21 | E0 },
    { "audioplay", 0x22 | E0 },
    { "audiostop", 0x24 | E0 },
    { "volumedown", 0x2e | E0 },
    { "volumeup", 0x30 | E0 },
    { "ac_home", 0x32 | E0 },
    { "find", 0x65 | E0 },
    { "ac_bookmarks", 0x66 | E0 },
    { "ac_refresh", 0x67 | E0 },
    { "stop", 0x68 | E0 },
    { "ac_forward", 0x69 | E0 },
    { "ac_back", 0x6a | E0 },
    { "computer", 0x6b | E0 },
    { "mail", 0x6c | E0 },
    { "mediaselect", 0x6d | E0 },
};

int key_by_name(const char *name)
{
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(names[i].name, name) == 0) {
            return names[i].key;
        }
    }
    return -1;
}

/* The keys of a US keyboard from number 0x02 on, as they are without and with Shift. A blank: this
 * key types nothing, but Space itself, which is 0x39. */
static const char plain[] = "1234567890-=  qwertyuiop[]  asdfghjkl;'` \\zxcvbnm,./   ";
static const char shifted[] = "!@#$%^&*()_+  QWERTYUIOP{}  ASDFGHJKL:\"~ |ZXCVBNM<>?   ";

static int key_by_character(uint32_t c, enum key_shift *shift)
{
    if (c == ' ') {
        return 0x39;
    }
    for (int i = 0; plain[i] != '\0'; i++) {
        if (c == (unsigned char)plain[i] || c == (unsigned char)shifted[i]) {
            *shift = c == (unsigned char)plain[i] ? KEY_SHIFT_UP : KEY_SHIFT_DOWN;
            return 0x02 + i;
        }
    }
    return -1;
}

/* Keysyms of X11/keysymdef.h that are not characters. */
static const struct {
    uint16_t keysym;
    uint8_t key;
} functions[] = {
    { 0xff08, 0x0e }, { 0xff09, 0x0f }, { 0xfe20, 0x0f }, /* BackSpace, Tab, back tab */
    { 0xff0a, 0x1c }, { 0xff0d, 0x1c }, { 0xff13, 0x46 | E0 }, /* Linefeed, Return, Pause */
    { 0xff14, 0x46 }, { 0xff15, 0x54 }, { 0xff1b, 0x01 }, /* Scroll_Lock, Sys_Req, Esc */
    { 0xff23, 0x79 }, { 0xff22, 0x7b }, { 0xff27, 0x70 }, /* Henkan, Muhenkan, kana */
    { 0xff50, 0x47 | E0 }, { 0xff51, 0x4b | E0 }, { 0xff52, 0x48 | E0 }, /* Home, Left, Up */
    { 0xff53, 0x4d | E0 }, { 0xff54, 0x50 | E0 }, { 0xff55, 0x49 | E0 }, /* Right, Down, Page_Up */
    { 0xff56, 0x51 | E0 }, { 0xff57, 0x4f | E0 }, { 0xff61, 0x37 | E0 }, /* Page_Down, End, Print */
    { 0xff63, 0x52 | E0 }, { 0xff67, 0x5d | E0 }, { 0xff6b, 0x46 | E0 }, /* Insert, Menu, Break */
    { 0xff7f, 0x45 }, { 0xff80, 0x39 }, { 0xff89, 0x0f }, /* Num_Lock; KP: Space, Tab */
    { 0xff8d, 0x1c | E0 }, { 0xff95, 0x47 }, { 0xff96, 0x4b }, /* KP: Enter, Home, Left */
    { 0xff97, 0x48 }, { 0xff98, 0x4d }, { 0xff99, 0x50 }, /* KP: Up, Right, Down */
    { 0xff9a, 0x49 }, { 0xff9b, 0x51 }, { 0xff9c, 0x4f }, /* KP: PgUp, PgDn, End */
    { 0xff9d, 0x4c }, { 0xff9e, 0x52 }, { 0xff9f, 0x53 }, /* KP: Begin, Insert, Delete */
    { 0xffaa, 0x37 }, { 0xffab, 0x4e }, { 0xffac, 0x7e }, /* KP: * + , */
    { 0xffad, 0x4a }, { 0xffae, 0x53 }, { 0xffaf, 0x35 | E0 }, /* KP: - . / */
    { 0xffb0, 0x52 }, { 0xffb1, 0x4f }, { 0xffb2, 0x50 }, /* KP: 0 1 2 */
    { 0xffb3, 0x51 }, { 0xffb4, 0x4b }, { 0xffb5, 0x4c }, /* KP: 3 4 5 */
    { 0xffb6, 0x4d }, { 0xffb7, 0x47 }, { 0xffb8, 0x48 }, /* KP: 6 7 8 */
    { 0xffb9, 0x49 }, { 0xffbd, 0x59 }, { 0xffc8, 0x57 }, /* KP: 9 =; F11 */
    { 0xffc9, 0x58 }, { 0xffe1, 0x2a }, { 0xffe2, 0x36 }, /* F12, Shift */
    { 0xffe3, 0x1d }, { 0xffe4, 0x1d | E0 }, { 0xffe5, 0x3a }, /* Control, Caps_Lock */
    { 0xffe7, 0x5b | E0 }, { 0xffe8, 0x5c | E0 }, { 0xffe9, 0x38 }, /* Meta, Alt_L */
    { 0xffea, 0x38 | E0 }, { 0xffeb, 0x5b | E0 }, { 0xffec, 0x5c | E0 }, /* Alt_R, Super */
    { 0xfe03, 0x38 | E0 }, { 0xff7e, 0x38 | E0 }, { 0xffff, 0x53 | E0 }, /* AltGr twice, Delete */
};
#define KEYSYM_F1 0xffbeu
#define KEYSYM_F10 0xffc7u

int key_by_keysym(uint32_t keysym, enum key_shift *shift)
{
    *shift = KEY_SHIFT_ANY;
    if (keysym < 0x80) {
        return key_by_character(keysym, shift);
    }
    if (keysym >= KEYSYM_F1 && keysym <= KEYSYM_F10) {
        return (int)(0x3b + keysym - KEYSYM_F1);
    }
    for (unsigned i = 0; i < ARRAY_LEN(functions); i++) {
        if (functions[i].keysym == keysym) {
            return functions[i].key;
        }
    }
    return -1;
}
