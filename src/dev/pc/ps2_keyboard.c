/* SPDX-License-Identifier: Apache-2.0
 *
 * The 101/102-key keyboard (IBM PS/2 Hardware Interface Technical Reference, "Keyboards"), scan
 * code sets 1, 2 and 3. Keys are numbered by set 1; set 2 comes from the table by which the 8042
 * translates it, read backwards.
 * UNIMPL: the typematic rate (repeating is the caller's).
 */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "dev/pc/ps2.h"

#define KEY_ROOM 16u /* of the queue; the rest is for answers */
#define KEY_BYTES_MAX 8u /* of one key: Pause in set 2, or one with two shifts before it */
#define PREFIX_EXTENDED 0xe0u
#define PREFIX_BREAK 0xf0u
#define BREAK1 0x80u          /* set 1: make code with this bit */
#define KEY_SYSRQ 0x54u       /* numbers of keys, as ps2.h has them */
#define KEY_SLASH 0xb5u       /* the keypad's */
#define TYPEMATIC_RESET 0x2bu /* 10.9 a second after half a second */

enum keyboard_command {
    CMD_LEDS = 0xed,
    CMD_ECHO = 0xee,
    CMD_SET = 0xf0,
    CMD_ID = 0xf2,
    CMD_TYPEMATIC = 0xf3,
    CMD_ENABLE = 0xf4,
    CMD_DISABLE = 0xf5,
    CMD_DEFAULTS = 0xf6,
    CMD_ALL_TYPEMATIC = 0xf7,
    CMD_ALL_MAKE_BREAK = 0xf8,
    CMD_ALL_MAKE = 0xf9,
    CMD_ALL_BOTH = 0xfa,
    CMD_KEY_TYPEMATIC = 0xfb,
    CMD_KEY_MAKE_BREAK = 0xfc,
    CMD_KEY_MAKE = 0xfd,
    CMD_RESEND = 0xfe,
    CMD_RESET = 0xff
};
enum keyboard_answer { ANSWER_ACK = 0xfa, ANSWER_RESEND = 0xfe, ANSWER_PASSED = 0xaa };

/* -- Queues ------------------------------------------------------------------------------------ */
bool ps2_queue_put(struct ps2_queue *q, const uint8_t *data, size_t len)
{
    if (len > PS2_QUEUE - q->count) {
        return false;
    }
    memcpy(q->data + q->count, data, len);
    q->count += (uint8_t)len;
    return true;
}

bool ps2_queue_take(struct ps2_queue *q, uint8_t *byte)
{
    if (q->count == 0) {
        return false;
    }
    *byte = q->data[0];
    q->count--;
    memmove(q->data, q->data + 1, q->count);
    q->data[q->count] = 0;
    return true;
}

void ps2_queue_unget(struct ps2_queue *q, uint8_t byte)
{
    q->count -= q->count == PS2_QUEUE; /* the newest goes */
    memmove(q->data + 1, q->data, q->count);
    q->data[0] = byte;
    q->count++;
}

static void clear(struct ps2_queue *q) { *q = (struct ps2_queue){ .count = 0 }; }

static void answer(struct ps2_keyboard *k, uint8_t byte) { ps2_queue_put(&k->out, &byte, 1); }

/* -- Scan codes -------------------------------------------------------------------------------- */
static const uint8_t set2_to_set1[0x80] = {
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59,
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b,
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d,
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f,
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61,
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76,
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f,
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54,
};
#define SET2_F7 0x83u
#define SET2_SYSRQ 0x84u

uint8_t ps2_translate(uint8_t code)
{
    if (code < ARRAY_LEN(set2_to_set1)) {
        return set2_to_set1[code];
    }
    return code == SET2_F7 ? 0x41 : code == SET2_SYSRQ ? 0x54 : code;
}

static uint8_t set2_code(uint8_t set1)
{
    if (set1 == 0x41) {
        return SET2_F7;
    }
    if (set1 == 0x54) {
        return SET2_SYSRQ;
    }
    for (unsigned i = 1; i < ARRAY_LEN(set2_to_set1); i++) {
        if (set2_to_set1[i] == set1) {
            return (uint8_t)i;
        }
    }
    return 0;
}

/* Where set 3 is not set 2. */
static uint8_t set3_code(unsigned key)
{
    static const uint8_t codes[][2] = {
        { 0x01, 0x08 }, { 0x1d, 0x11 }, { 0x2b, 0x5c }, { 0x37, 0x7e }, { 0x38, 0x19 },
        { 0x3a, 0x14 }, { 0x3b, 0x07 }, { 0x3c, 0x0f }, { 0x3d, 0x17 }, { 0x3e, 0x1f },
        { 0x3f, 0x27 }, { 0x40, 0x2f }, { 0x41, 0x37 }, { 0x42, 0x3f }, { 0x43, 0x47 },
        { 0x44, 0x4f }, { 0x45, 0x76 }, { 0x46, 0x5f }, { 0x4a, 0x84 }, { 0x4e, 0x7c },
        { 0x54, 0x57 }, { 0x56, 0x13 }, { 0x57, 0x56 }, { 0x58, 0x5e }, { 0x9c, 0x79 },
        { 0x9d, 0x58 }, { 0xb5, 0x77 }, { 0xb7, 0x57 }, { 0xb8, 0x39 }, { 0xc6, 0x62 },
        { 0xc7, 0x6e }, { 0xc8, 0x63 }, { 0xc9, 0x6f }, { 0xcb, 0x61 }, { 0xcd, 0x6a },
        { 0xcf, 0x65 }, { 0xd0, 0x60 }, { 0xd1, 0x6d }, { 0xd2, 0x67 }, { 0xd3, 0x64 },
        { 0xdb, 0x8b }, { 0xdc, 0x8c }, { 0xdd, 0x8d },
    };
    for (unsigned i = 0; i < ARRAY_LEN(codes); i++) {
        if (codes[i][0] == key) {
            return codes[i][1];
        }
    }
    return key & PS2_KEY_EXTENDED ? 0 : set2_code((uint8_t)key);
}

/* One make or break code of sets 1 and 2; returns its length. */
static size_t encode(uint8_t *out, unsigned set, unsigned key, bool down)
{
    size_t n = 0;
    uint8_t set1 = key & 0x7f;
    if (key & PS2_KEY_EXTENDED) {
        out[n++] = PREFIX_EXTENDED;
    }
    if (set == 1) {
        out[n++] = down ? set1 : set1 | BREAK1;
        return n;
    }
    if (!down) {
        out[n++] = PREFIX_BREAK;
    }
    out[n++] = set2_code(set1);
    return n;
}

/* Keys that change what others send while they are held; their bits are in this order. */
static const uint8_t modifiers[] = { 0x2a, 0x36, 0x1d, 0x9d, 0x38, 0xb8 };
#define HELD_SHIFT 0x03u
#define HELD_SHIFT_LEFT 0x01u
#define HELD_CTRL 0x0cu
#define HELD_ALT 0x30u

static void note_modifier(struct ps2_keyboard *k, unsigned key, bool down)
{
    for (unsigned i = 0; i < ARRAY_LEN(modifiers); i++) {
        if (modifiers[i] == key) {
            k->held = (uint8_t)(down ? k->held | BIT(i) : k->held & ~BIT(i));
        }
    }
}

/* Extended codes of the Shift keys, which nobody has moved. */
static size_t encode_shifts(uint8_t *out, unsigned set, unsigned shifts, bool down)
{
    size_t n = 0;
    for (unsigned i = 0; i < 2; i++) {
        if (shifts & BIT(i)) {
            n += encode(out + n, set, modifiers[i] | PS2_KEY_EXTENDED, down);
        }
    }
    return n;
}

static bool is_cursor_key(unsigned key) { return key >= 0xc7 && key <= 0xd3; }

/* Extended keys share codes with keys that older keyboards had elsewhere. For programs that pass
 * over the prefix, Shift is changed around them so that those keys would mean the same: the cursor
 * keys are the keypad's, the slash that of the letters, Print Screen the asterisk. Which of the
 * Shift keys change, and whether they go down. */
static unsigned shifts_around(const struct ps2_keyboard *k, unsigned key, bool *down)
{
    unsigned shifts = k->held & HELD_SHIFT;
    bool num = k->leds & PS2_LED_NUM;
    *down = key == PS2_KEY_PRINT || (is_cursor_key(key) && num);
    if (key == PS2_KEY_PRINT) {
        return k->held & (HELD_SHIFT | HELD_CTRL) ? 0 : HELD_SHIFT_LEFT;
    }
    if (is_cursor_key(key) && num) {
        return shifts != 0 ? 0 : HELD_SHIFT_LEFT;
    }
    return is_cursor_key(key) || key == KEY_SLASH ? shifts : 0;
}

/* Pause comes and goes at once, and with Ctrl is Break. */
static size_t encode_pause(uint8_t *out, const struct ps2_keyboard *k, bool down)
{
    static const uint8_t pause1[] = { 0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5 };
    static const uint8_t pause2[] = { 0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77 };
    if (!down) {
        return 0;
    }
    if (k->held & HELD_CTRL) {
        size_t n = encode(out, k->set, PS2_KEY_PAUSE, true);
        return n + encode(out + n, k->set, PS2_KEY_PAUSE, false);
    }
    size_t len = k->set == 1 ? sizeof pause1 : sizeof pause2;
    memcpy(out, k->set == 1 ? pause1 : pause2, len);
    return len;
}

/* What a key sends in sets 1 and 2. */
static size_t encode_key(uint8_t *out, const struct ps2_keyboard *k, unsigned key, bool down)
{
    if (key == PS2_KEY_PAUSE) {
        return encode_pause(out, k, down);
    }
    if (key == PS2_KEY_PRINT && (k->held & HELD_ALT)) {
        return encode(out, k->set, KEY_SYSRQ, down);
    }
    bool shift_down;
    unsigned shifts = shifts_around(k, key, &shift_down);
    size_t n = down ? encode_shifts(out, k->set, shifts, shift_down) : 0;
    n += encode(out + n, k->set, key, down);
    return down ? n : n + encode_shifts(out + n, k->set, shifts, !shift_down);
}

void ps2_keyboard_key(struct ps2_keyboard *k, unsigned key, bool down)
{
    uint8_t bytes[KEY_BYTES_MAX];
    size_t n;
    note_modifier(k, key, down);
    if (!k->scanning || key > 0xff || set2_code(key & 0x7f) == 0) {
        return;
    }
    if (k->set == 3) {
        uint8_t code = set3_code(key);
        if (code == 0 || (!down && (k->no_break[code / 8] & BIT(code % 8)))) {
            return;
        }
        n = 0;
        if (!down) {
            bytes[n++] = PREFIX_BREAK;
        }
        bytes[n++] = code;
    } else {
        n = encode_key(bytes, k, key, down);
    }
    if (k->out.count + n <= KEY_ROOM) {
        ps2_queue_put(&k->out, bytes, n);
    } else if (k->out.count <= KEY_ROOM) {
        uint8_t overrun = k->set == 1 ? 0xff : 0x00;
        ps2_queue_put(&k->out, &overrun, 1);
    }
}

bool ps2_keyboard_room(const struct ps2_keyboard *k)
{
    return k->out.count + KEY_BYTES_MAX <= KEY_ROOM;
}

bool ps2_keyboard_take(struct ps2_keyboard *k, uint8_t *byte)
{
    if (!ps2_queue_take(&k->out, byte)) {
        return false;
    }
    k->last = *byte;
    return true;
}

/* -- Commands ---------------------------------------------------------------------------------- */
static void defaults(struct ps2_keyboard *k)
{
    clear(&k->out);
    k->set = 2;
    k->typematic = TYPEMATIC_RESET;
    memset(k->no_break, 0, sizeof k->no_break);
}

void ps2_keyboard_reset(struct ps2_keyboard *k)
{
    defaults(k);
    k->command = 0;
    k->scanning = true;
    k->leds = 0;
    k->last = 0;
    k->held = 0; /* as the guest believes */
}

static void argument(struct ps2_keyboard *k, uint8_t byte)
{
    uint8_t command = k->command;
    k->command = 0;
    switch (command) {
    case CMD_LEDS:
        k->leds = byte & 7;
        break;
    case CMD_TYPEMATIC:
        k->typematic = byte & 0x7f;
        break;
    case CMD_SET:
        if (byte > 3) {
            k->command = command;
            answer(k, ANSWER_RESEND);
            return;
        }
        answer(k, ANSWER_ACK);
        if (byte == 0) {
            answer(k, k->set);
        } else {
            k->set = byte;
        }
        return;
    case CMD_KEY_MAKE_BREAK:
        k->no_break[byte / 8] &= (uint8_t)~BIT(byte % 8);
        k->command = command; /* more keys until the next command */
        break;
    default: /* CMD_KEY_TYPEMATIC, CMD_KEY_MAKE */
        k->no_break[byte / 8] |= (uint8_t)BIT(byte % 8);
        k->command = command;
        break;
    }
    answer(k, ANSWER_ACK);
}

void ps2_keyboard_write(struct ps2_keyboard *k, uint8_t byte)
{
    if (k->command != 0 && byte < CMD_LEDS) {
        argument(k, byte);
        return;
    }
    k->command = 0;
    switch (byte) {
    case CMD_LEDS:
    case CMD_SET:
    case CMD_TYPEMATIC:
    case CMD_KEY_TYPEMATIC:
    case CMD_KEY_MAKE_BREAK:
    case CMD_KEY_MAKE:
        k->command = byte;
        answer(k, ANSWER_ACK);
        break;
    case CMD_ECHO:
        answer(k, CMD_ECHO);
        break;
    case CMD_ID:
        answer(k, ANSWER_ACK);
        answer(k, 0xab);
        answer(k, 0x83);
        break;
    case CMD_ENABLE:
        clear(&k->out);
        k->scanning = true;
        answer(k, ANSWER_ACK);
        break;
    case CMD_DISABLE:
    case CMD_DEFAULTS:
        defaults(k);
        k->scanning = byte == CMD_DEFAULTS ? k->scanning : false;
        answer(k, ANSWER_ACK);
        break;
    case CMD_ALL_TYPEMATIC:
    case CMD_ALL_MAKE:
        memset(k->no_break, 0xff, sizeof k->no_break);
        answer(k, ANSWER_ACK);
        break;
    case CMD_ALL_MAKE_BREAK:
    case CMD_ALL_BOTH:
        memset(k->no_break, 0, sizeof k->no_break);
        answer(k, ANSWER_ACK);
        break;
    case CMD_RESEND:
        answer(k, k->last);
        break;
    case CMD_RESET:
        ps2_keyboard_reset(k);
        answer(k, ANSWER_ACK);
        answer(k, ANSWER_PASSED);
        break;
    default:
        answer(k, ANSWER_RESEND);
        break;
    }
}

/* -- State ------------------------------------------------------------------------------------- */
static const struct state_field queue_state[] = {
    STATE_BYTES(struct ps2_queue, data),
    STATE(struct ps2_queue, count),
    STATE_END,
};

const struct state_field ps2_keyboard_state[] = {
    STATE_STRUCT(struct ps2_keyboard, out, queue_state),
    STATE(struct ps2_keyboard, command),
    STATE(struct ps2_keyboard, set),
    STATE(struct ps2_keyboard, scanning),
    STATE(struct ps2_keyboard, leds),
    STATE(struct ps2_keyboard, typematic),
    STATE(struct ps2_keyboard, last),
    STATE_BYTES(struct ps2_keyboard, no_break),
    STATE_SINCE(2, struct ps2_keyboard, held),
    STATE_END,
};

const struct state_field ps2_mouse_state[] = {
    STATE_STRUCT(struct ps2_mouse, out, queue_state),
    STATE(struct ps2_mouse, command),
    STATE(struct ps2_mouse, reporting),
    STATE(struct ps2_mouse, remote),
    STATE(struct ps2_mouse, wrap),
    STATE(struct ps2_mouse, scaling21),
    STATE(struct ps2_mouse, resolution),
    STATE(struct ps2_mouse, rate),
    STATE(struct ps2_mouse, id),
    STATE_BYTES(struct ps2_mouse, knock),
    STATE(struct ps2_mouse, buttons),
    STATE(struct ps2_mouse, buttons_sent),
    STATE(struct ps2_mouse, last),
    STATE(struct ps2_mouse, dx),
    STATE(struct ps2_mouse, dy),
    STATE(struct ps2_mouse, dz),
    STATE_END,
};

int ps2_keyboard_check(const struct ps2_keyboard *k, struct err *e)
{
    if (k->out.count > PS2_QUEUE || k->set < 1 || k->set > 3) {
        return err_set(e, -EINVAL, "impossible state of the keyboard");
    }
    return 0;
}
