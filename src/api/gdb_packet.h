/* SPDX-License-Identifier: Apache-2.0
 *
 * Packets of GDB's remote serial protocol (GDB manual, appendix E.1): `$data#sum`, acknowledged by
 * `+` or `-` until both sides agree not to, and a lone 0x03 that asks a running target to stop.
 * Bytes in, packets out; no sockets here.
 */
#ifndef SOSIA_API_GDB_PACKET_H
#define SOSIA_API_GDB_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GDB_PACKET_MAX 16384u /* bytes between `$` and `#`, either way */

enum gdb_got {
    GDB_GOT_NOTHING, /* more bytes are needed */
    GDB_GOT_PACKET,  /* in gdb_link.in, terminated by 0 */
    GDB_GOT_BREAK,   /* 0x03 */
    GDB_GOT_ACK,
    GDB_GOT_NAK,
    GDB_GOT_DAMAGED, /* a packet whose sum is wrong, or that is too long */
    GDB_GOT_STRANGE, /* what no debugger sends: somebody else is at the other end */
};

struct gdb_link {
    uint8_t in[GDB_PACKET_MAX + 1];
    size_t len;
    enum { GDB_IDLE, GDB_DATA, GDB_ESCAPE, GDB_SUM_HIGH, GDB_SUM_LOW } state;
    uint8_t sum, claimed;
    bool damaged;
    /* What is sent, framed; kept until the next packet, as the other side may want it again. */
    char out[2 * GDB_PACKET_MAX + 8];
    size_t out_len;
};

enum gdb_got gdb_link_byte(struct gdb_link *l, uint8_t byte);

/* A packet to send: begin, add what it says, end. What does not fit is left out. */
void gdb_out_begin(struct gdb_link *l);
void gdb_out_text(struct gdb_link *l, const char *text);
/* As two hexadecimal digits a byte. */
void gdb_out_hex(struct gdb_link *l, const void *data, size_t len);
/* As it is, with escapes where the framing needs them. */
void gdb_out_binary(struct gdb_link *l, const void *data, size_t len);
void gdb_out_end(struct gdb_link *l);

/* -- Reading what a packet says. All move *p behind what they took. */
bool gdb_take(const char **p, const char *text); /* false: it does not begin so */
/* Hexadecimal, at least a digit and no more than 64 bits. */
bool gdb_take_number(const char **p, uint64_t *out);
/* Exactly len bytes. */
bool gdb_take_hex(const char **p, uint8_t *out, size_t len);

#endif
