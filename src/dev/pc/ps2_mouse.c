/* SPDX-License-Identifier: Apache-2.0
 *
 * PS/2 mouse (IBM PS/2 Hardware Interface Technical Reference, "Mouse") with the wheel and the five
 * buttons of Microsoft's IntelliMouse, unlocked by setting three rates in a row.
 * DEVIATION: samples are sent as they come, as fast as the controller takes them; the rate is kept
 * for reading only.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/bits.h"
#include "dev/pc/ps2.h"

#define PACKET_MAX 4u
#define QUEUED_MAX 8u     /* bytes of motion; the rest adds up until they are taken */
#define MOTION_MAX 0x8000 /* further than anyone moves a mouse between two packets */

enum mouse_command {
    CMD_SCALING11 = 0xe6,
    CMD_SCALING21 = 0xe7,
    CMD_RESOLUTION = 0xe8,
    CMD_STATUS = 0xe9,
    CMD_STREAM = 0xea,
    CMD_READ = 0xeb,
    CMD_WRAP_OFF = 0xec,
    CMD_WRAP = 0xee,
    CMD_REMOTE = 0xf0,
    CMD_ID = 0xf2,
    CMD_RATE = 0xf3,
    CMD_ENABLE = 0xf4,
    CMD_DISABLE = 0xf5,
    CMD_DEFAULTS = 0xf6,
    CMD_RESEND = 0xfe,
    CMD_RESET = 0xff
};
enum mouse_answer { ANSWER_ACK = 0xfa, ANSWER_RESEND = 0xfe, ANSWER_PASSED = 0xaa };
enum packet_bit {
    PACKET_ONE = 0x08,
    PACKET_X_SIGN = 0x10,
    PACKET_Y_SIGN = 0x20,
};
enum status_bit { STATUS_REMOTE = 0x40, STATUS_ENABLED = 0x20, STATUS_SCALING21 = 0x10 };

static void answer(struct ps2_mouse *m, uint8_t byte) { ps2_queue_put(&m->out, &byte, 1); }

static int32_t clamp(int32_t v, int32_t lo, int32_t hi) { return v < lo ? lo : v > hi ? hi : v; }

/* -- Packets ----------------------------------------------------------------------------------- */
static int32_t scaled(const struct ps2_mouse *m, int32_t v)
{
    static const uint8_t small[] = { 0, 1, 1, 3, 6, 9 };
    if (!m->scaling21 || m->remote) {
        return v;
    }
    int32_t size = abs(v) < (int)ARRAY_LEN(small) ? small[abs(v)] : 2 * abs(v);
    return clamp(v < 0 ? -size : size, -256, 255);
}

static void send_packet(struct ps2_mouse *m)
{
    int32_t dx = clamp(m->dx, -256, 255);
    int32_t dy = clamp(m->dy, -256, 255);
    int32_t dz = m->id != 0 ? clamp(m->dz, -8, 7) : 0;
    m->dx -= dx;
    m->dy -= dy;
    m->dz = m->id != 0 ? m->dz - dz : 0;
    m->buttons_sent = m->buttons;
    dx = scaled(m, dx);
    dy = scaled(m, dy);

    uint8_t packet[PACKET_MAX] = {
        (uint8_t)(PACKET_ONE | (m->buttons & 7) | (dx < 0 ? PACKET_X_SIGN : 0) |
                  (dy < 0 ? PACKET_Y_SIGN : 0)),
        (uint8_t)dx,
        (uint8_t)dy,
        (uint8_t)dz,
    };
    if (m->id == 4) {
        packet[3] = (uint8_t)((dz & 0x0f) | (m->buttons & (PS2_BUTTON_4 | PS2_BUTTON_5)) << 1);
    }
    ps2_queue_put(&m->out, packet, m->id != 0 ? 4 : 3);
}

static bool moved(const struct ps2_mouse *m)
{
    return m->dx != 0 || m->dy != 0 || (m->dz != 0 && m->id != 0) || m->buttons != m->buttons_sent;
}

static void stream(struct ps2_mouse *m)
{
    while (m->reporting && !m->remote && !m->wrap && moved(m) &&
           m->out.count + PACKET_MAX <= QUEUED_MAX) {
        send_packet(m);
    }
}

void ps2_mouse_move(struct ps2_mouse *m, int dx, int dy, int dz, unsigned buttons)
{
    m->buttons = buttons & 0x1f;
    if (!m->reporting && !m->remote) {
        m->buttons_sent = m->buttons;
        return; /* nobody watches */
    }
    m->dx = clamp(m->dx + clamp(dx, -MOTION_MAX, MOTION_MAX), -MOTION_MAX, MOTION_MAX);
    m->dy = clamp(m->dy - clamp(dy, -MOTION_MAX, MOTION_MAX), -MOTION_MAX, MOTION_MAX);
    m->dz = clamp(m->dz + clamp(dz, -MOTION_MAX, MOTION_MAX), -MOTION_MAX, MOTION_MAX);
    stream(m);
}

bool ps2_mouse_take(struct ps2_mouse *m, uint8_t *byte)
{
    if (!ps2_queue_take(&m->out, byte)) {
        return false;
    }
    m->last = *byte;
    stream(m);
    return true;
}

/* -- Commands ---------------------------------------------------------------------------------- */
static void forget_motion(struct ps2_mouse *m)
{
    m->out = (struct ps2_queue){ .count = 0 };
    m->dx = m->dy = m->dz = 0;
    m->buttons_sent = m->buttons;
}

static void defaults(struct ps2_mouse *m)
{
    m->reporting = false;
    m->remote = false;
    m->scaling21 = false;
    m->resolution = 2;
    m->rate = 100;
    forget_motion(m);
}

void ps2_mouse_reset(struct ps2_mouse *m)
{
    m->buttons = 0;
    defaults(m);
    m->command = 0;
    m->wrap = false;
    m->id = 0;
    m->knock[0] = m->knock[1] = 0;
    m->last = 0;
}

static void set_rate(struct ps2_mouse *m, uint8_t rate)
{
    if (m->knock[0] == 200 && m->knock[1] == 100 && rate == 80) {
        m->id = 3;
    } else if (m->knock[0] == 200 && m->knock[1] == 200 && rate == 80) {
        m->id = 4;
    }
    m->knock[0] = m->knock[1];
    m->knock[1] = rate;
    m->rate = rate;
}

static void argument(struct ps2_mouse *m, uint8_t byte)
{
    uint8_t command = m->command;
    m->command = 0;
    if (command == CMD_RATE) {
        set_rate(m, byte);
    } else if (byte > 3) {
        answer(m, ANSWER_RESEND);
        return;
    } else {
        m->resolution = byte;
    }
    answer(m, ANSWER_ACK);
}

static void send_status(struct ps2_mouse *m)
{
    uint8_t status = (m->remote ? STATUS_REMOTE : 0) | (m->reporting ? STATUS_ENABLED : 0) |
                     (m->scaling21 ? STATUS_SCALING21 : 0);
    status |= m->buttons & PS2_BUTTON_LEFT ? 4 : 0;
    status |= m->buttons & PS2_BUTTON_MIDDLE ? 2 : 0;
    status |= m->buttons & PS2_BUTTON_RIGHT ? 1 : 0;
    answer(m, ANSWER_ACK);
    answer(m, status);
    answer(m, m->resolution);
    answer(m, m->rate);
}

static void run(struct ps2_mouse *m, uint8_t byte)
{
    switch (byte) {
    case CMD_SCALING11:
    case CMD_SCALING21:
        m->scaling21 = byte == CMD_SCALING21;
        break;
    case CMD_RESOLUTION:
    case CMD_RATE:
        m->command = byte;
        break;
    case CMD_STATUS:
        send_status(m);
        return;
    case CMD_STREAM:
    case CMD_REMOTE:
        m->remote = byte == CMD_REMOTE;
        forget_motion(m);
        break;
    case CMD_READ:
        answer(m, ANSWER_ACK);
        send_packet(m);
        return;
    case CMD_WRAP_OFF:
    case CMD_WRAP:
        m->wrap = byte == CMD_WRAP;
        forget_motion(m);
        break;
    case CMD_ID:
        answer(m, ANSWER_ACK);
        answer(m, m->id);
        return;
    case CMD_ENABLE:
    case CMD_DISABLE:
        m->reporting = byte == CMD_ENABLE;
        forget_motion(m);
        break;
    case CMD_DEFAULTS:
        defaults(m);
        break;
    case CMD_RESEND:
        answer(m, m->last);
        return;
    case CMD_RESET:
        ps2_mouse_reset(m);
        answer(m, ANSWER_ACK);
        answer(m, ANSWER_PASSED);
        answer(m, m->id);
        return;
    default:
        answer(m, ANSWER_RESEND);
        return;
    }
    answer(m, ANSWER_ACK);
}

void ps2_mouse_write(struct ps2_mouse *m, uint8_t byte)
{
    if (m->wrap && byte != CMD_WRAP_OFF && byte != CMD_RESET) {
        answer(m, byte);
        return;
    }
    m->out = (struct ps2_queue){ .count = 0 }; /* being spoken to, it stops talking */
    if (m->command != 0) {
        argument(m, byte);
    } else {
        run(m, byte);
    }
}

int ps2_mouse_check(const struct ps2_mouse *m, struct err *e)
{
    bool motion = abs(clamp(m->dx, -MOTION_MAX - 1, MOTION_MAX + 1)) <= MOTION_MAX &&
                  abs(clamp(m->dy, -MOTION_MAX - 1, MOTION_MAX + 1)) <= MOTION_MAX &&
                  abs(clamp(m->dz, -MOTION_MAX - 1, MOTION_MAX + 1)) <= MOTION_MAX;
    if (m->out.count > PS2_QUEUE || m->resolution > 3 || !motion ||
        (m->id != 0 && m->id != 3 && m->id != 4)) {
        return err_set(e, -EINVAL, "impossible state of the mouse");
    }
    return 0;
}
