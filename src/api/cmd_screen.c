/* SPDX-License-Identifier: Apache-2.0
 *
 * Sitting at the machine: its screen, keys, the mouse.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/command.h"
#include "base/bits.h"
#include "machine/screen.h"

#define KEYS_MAX 16u
#define HOLD_MS 100 /* as QEMU */
#define HOLD_MS_MAX 60000
#define POINTER_MAX 0x7fff

static int screendump(struct api_call *c)
{
    const char *format = api_string(c, "format");
    if (format != NULL && strcmp(format, "png") != 0) {
        return err_set(&c->e, -EINVAL, "Parameter 'format' does not accept value '%s': png is it",
                       format);
    }
    return machine_screendump(c->machine, api_string(c, "filename"), &c->e);
}

/* -- Keys -------------------------------------------------------------------------------------- */
/* { "type": "qcode", "data": "a" } or { "type": "number", "data": 30 }; -1: neither. */
static int key_value(const json_t *key)
{
    const char *type = json_string_value(json_object_get(key, "type"));
    const json_t *data = json_object_get(key, "data");
    if (type != NULL && strcmp(type, "qcode") == 0 && json_is_string(data)) {
        return key_by_name(json_string_value(data));
    }
    if (type != NULL && strcmp(type, "number") == 0 && json_is_integer(data)) {
        json_int_t n = json_integer_value(data);
        return n > 0 && n <= 0xff ? (int)n : -1;
    }
    return -1;
}

static int send_key(struct api_call *c)
{
    const json_t *keys = json_object_get(c->args, "keys");
    int64_t hold_ms = api_integer(c, "hold-time", HOLD_MS);
    const char *name[KEYS_MAX];
    size_t count = json_array_size(keys);
    if (count == 0 || count > KEYS_MAX) {
        return err_set(&c->e, -EINVAL, "Parameter 'keys' has 1 to %u keys", KEYS_MAX);
    }
    if (hold_ms < 0 || hold_ms > HOLD_MS_MAX) {
        return err_set(&c->e, -EINVAL, "Parameter 'hold-time' is 0 to %u ms", HOLD_MS_MAX);
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *key = json_array_get(keys, i);
        name[i] = json_string_value(json_object_get(key, "data"));
        if (key_value(key) < 0 || name[i] == NULL) {
            return err_set(&c->e, -EINVAL, "Parameter 'keys': each is {\"type\": \"qcode\", "
                                           "\"data\": \"a\"}, with a name of QKeyCode");
        }
    }
    return machine_send_key(c->machine, name, count, (uint32_t)hold_ms, &c->e);
}

/* -- Input events ------------------------------------------------------------------------------ */
struct pointer {
    int dx, dy, dz;
    unsigned buttons;
    bool moved;
    int at[2]; /* x, y on the screen; -1: not said */
};

static int on_button(struct pointer *p, const json_t *data)
{
    static const struct {
        const char *name;
        unsigned button;
        int wheel;
    } buttons[] = {
        { "left", PS2_BUTTON_LEFT, 0 },   { "middle", PS2_BUTTON_MIDDLE, 0 },
        { "right", PS2_BUTTON_RIGHT, 0 }, { "side", PS2_BUTTON_4, 0 },
        { "extra", PS2_BUTTON_5, 0 },     { "wheel-up", 0, -1 },
        { "wheel-down", 0, 1 },
    };
    const char *name = json_string_value(json_object_get(data, "button"));
    const json_t *down = json_object_get(data, "down");
    for (size_t i = 0; name != NULL && json_is_boolean(down) && i < ARRAY_LEN(buttons); i++) {
        if (strcmp(name, buttons[i].name) == 0) {
            p->buttons &= ~buttons[i].button;
            p->buttons |= json_is_true(down) ? buttons[i].button : 0;
            p->dz += json_is_true(down) ? buttons[i].wheel : 0;
            p->moved = true;
            return 0;
        }
    }
    return -EINVAL;
}

/* "x" or "y" and a number between; the axis, or -EINVAL. */
static int axis_value(const json_t *data, json_int_t least, json_int_t most, int *value)
{
    const char *axis = json_string_value(json_object_get(data, "axis"));
    const json_t *v = json_object_get(data, "value");
    json_int_t n = json_integer_value(v);
    if (axis == NULL || !json_is_integer(v) || n < least || n > most ||
        (strcmp(axis, "x") != 0 && strcmp(axis, "y") != 0)) {
        return -EINVAL;
    }
    *value = (int)n;
    return axis[0] - 'x';
}

static int on_move(struct pointer *p, const json_t *data)
{
    int by = 0, axis = axis_value(data, -POINTER_MAX, POINTER_MAX, &by);
    if (axis < 0) {
        return axis;
    }
    p->dx += axis == 0 ? by : 0;
    p->dy += axis == 1 ? by : 0;
    p->moved = true;
    return 0;
}

static int on_place(struct pointer *p, const json_t *data)
{
    int at = 0, axis = axis_value(data, 0, POINTER_MAX, &at);
    if (axis < 0) {
        return axis;
    }
    p->at[axis] = at;
    return 0;
}

static int on_input(struct api_call *c, struct pointer *p, const json_t *event)
{
    const char *type = json_string_value(json_object_get(event, "type"));
    const json_t *data = json_object_get(event, "data");
    if (type == NULL || !json_is_object(data)) {
        return -EINVAL;
    }
    if (strcmp(type, "key") == 0) {
        int key = key_value(json_object_get(data, "key"));
        const json_t *down = json_object_get(data, "down");
        return key >= 0 && json_is_boolean(down)
                   ? machine_key(c->machine, (unsigned)key, json_is_true(down))
                   : -EINVAL;
    }
    if (strcmp(type, "btn") == 0) {
        return on_button(p, data);
    }
    if (strcmp(type, "abs") == 0) {
        return on_place(p, data);
    }
    return strcmp(type, "rel") == 0 ? on_move(p, data) : -EINVAL;
}

static int input_send_event(struct api_call *c)
{
    const json_t *events = json_object_get(c->args, "events");
    struct pointer p = { .buttons = machine_buttons(c->machine), .at = { -1, -1 } };
    for (size_t i = 0; i < json_array_size(events); i++) {
        int r = on_input(c, &p, json_array_get(events, i));
        if (r == -ENOBUFS) {
            return err_set(&c->e, r, "the guest does not take its keys");
        }
        if (r < 0) {
            return err_set(&c->e, r,
                           "Parameter 'events': number %zu is no key, btn, rel or abs event",
                           i + 1);
        }
    }
    bool placed = p.at[0] >= 0 || p.at[1] >= 0;
    bool there = (placed || (p.moved && p.dx == 0 && p.dy == 0)) &&
                 machine_pointer_at(c->machine, p.at[0], p.at[1], p.dz, p.buttons);
    if (placed && !there) {
        return err_set(&c->e, -ENODEV, "no driver in the guest listens to a tablet (--tablet)");
    }
    if (p.moved && !there) {
        machine_pointer(c->machine, p.dx, p.dy, p.dz, p.buttons);
    }
    return 0;
}

const struct api_command api_screen_commands[] = {
    { "input-send-event", input_send_event, "events:arr ?device:str ?head:int" },
    { "screendump", screendump, "filename:str ?device:str ?head:int ?format:str" },
    { "send-key", send_key, "keys:arr ?hold-time:int" },
    { NULL, NULL, NULL },
};
