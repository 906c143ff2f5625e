/* SPDX-License-Identifier: Apache-2.0 -- packets of GDB's remote serial protocol */
#include "api/gdb_packet.h"

#include <string.h>

#define OUT_TAIL 4 /* room kept for "#ss" */

static int digit_of(uint8_t c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* -- In ---------------------------------------------------------------------------------------- */

static void begin(struct gdb_link *l)
{
    l->state = GDB_DATA;
    l->len = 0;
    l->sum = 0;
    l->damaged = false;
}

static void keep(struct gdb_link *l, uint8_t byte)
{
    if (l->len < GDB_PACKET_MAX) {
        l->in[l->len++] = byte;
    } else {
        l->damaged = true;
    }
}

static enum gdb_got idle(struct gdb_link *l, uint8_t byte)
{
    switch (byte) {
    case '$':
        begin(l);
        return GDB_GOT_NOTHING;
    case '+':
        return GDB_GOT_ACK;
    case '-':
        return GDB_GOT_NAK;
    case 0x03:
        return GDB_GOT_BREAK;
    default:
        return GDB_GOT_STRANGE;
    }
}

static enum gdb_got sum_digit(struct gdb_link *l, uint8_t byte)
{
    int digit = digit_of(byte);
    l->damaged |= digit < 0;
    l->claimed = (uint8_t)(l->claimed << 4 | (digit & 0xf));
    if (l->state == GDB_SUM_HIGH) {
        l->state = GDB_SUM_LOW;
        return GDB_GOT_NOTHING;
    }
    l->state = GDB_IDLE;
    l->in[l->len] = 0;
    return l->damaged || l->claimed != l->sum ? GDB_GOT_DAMAGED : GDB_GOT_PACKET;
}

enum gdb_got gdb_link_byte(struct gdb_link *l, uint8_t byte)
{
    switch (l->state) {
    case GDB_IDLE:
        return idle(l, byte);
    case GDB_SUM_HIGH:
    case GDB_SUM_LOW:
        return sum_digit(l, byte);
    case GDB_ESCAPE:
        l->sum = (uint8_t)(l->sum + byte);
        keep(l, byte ^ 0x20);
        l->state = GDB_DATA;
        return GDB_GOT_NOTHING;
    default:
        break;
    }
    if (byte == '$') { /* the end of the one before was lost */
        begin(l);
    } else if (byte == '#') {
        l->state = GDB_SUM_HIGH;
    } else {
        l->sum = (uint8_t)(l->sum + byte);
        if (byte == '}') {
            l->state = GDB_ESCAPE;
        } else {
            keep(l, byte);
        }
    }
    return GDB_GOT_NOTHING;
}

/* -- Out --------------------------------------------------------------------------------------- */

void gdb_out_begin(struct gdb_link *l)
{
    l->out[0] = '$';
    l->out_len = 1;
}

static bool room(const struct gdb_link *l, size_t n)
{
    return n <= sizeof l->out - OUT_TAIL - l->out_len;
}

void gdb_out_text(struct gdb_link *l, const char *text)
{
    size_t n = strlen(text);
    if (room(l, n)) {
        memcpy(l->out + l->out_len, text, n);
        l->out_len += n;
    }
}

static void put_hex(struct gdb_link *l, uint8_t byte)
{
    static const char digits[] = "0123456789abcdef";
    l->out[l->out_len++] = digits[byte >> 4];
    l->out[l->out_len++] = digits[byte & 0xf];
}

void gdb_out_hex(struct gdb_link *l, const void *data, size_t len)
{
    const uint8_t *bytes = data;
    for (size_t i = 0; i < len && room(l, 2); i++) {
        put_hex(l, bytes[i]);
    }
}

void gdb_out_binary(struct gdb_link *l, const void *data, size_t len)
{
    const char *bytes = data;
    for (size_t i = 0; i < len && room(l, 2); i++) {
        char c = bytes[i];
        if (c == '#' || c == '$' || c == '}' || c == '*') {
            l->out[l->out_len++] = '}';
            c ^= 0x20;
        }
        l->out[l->out_len++] = c;
    }
}

void gdb_out_end(struct gdb_link *l)
{
    uint8_t sum = 0;
    for (size_t i = 1; i < l->out_len; i++) {
        sum = (uint8_t)(sum + (uint8_t)l->out[i]);
    }
    l->out[l->out_len++] = '#';
    put_hex(l, sum);
}

/* -- What a packet says ------------------------------------------------------------------------ */

bool gdb_take(const char **p, const char *text)
{
    size_t n = strlen(text);
    if (strncmp(*p, text, n) != 0) {
        return false;
    }
    *p += n;
    return true;
}

bool gdb_take_number(const char **p, uint64_t *out)
{
    uint64_t v = 0;
    unsigned digits = 0;
    for (int d; (d = digit_of((uint8_t) * *p)) >= 0; (*p)++, digits++) {
        if (v >> 60 != 0) {
            return false;
        }
        v = v << 4 | (uint64_t)d;
    }
    *out = v;
    return digits != 0;
}

bool gdb_take_hex(const char **p, uint8_t *out, size_t len)
{
    for (size_t i = 0; i < len; i++, *p += 2) {
        int high = digit_of((uint8_t)(*p)[0]);
        int low = high < 0 ? -1 : digit_of((uint8_t)(*p)[1]);
        if (low < 0) {
            return false;
        }
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}
