/* SPDX-License-Identifier: Apache-2.0
 *
 * The host's end of a serial port: a callback, a file, a socket, a pseudo-terminal.
 * Thread: machine lock held, unless said otherwise.
 */
#ifndef SOSIA_MACHINE_SERIAL_H
#define SOSIA_MACHINE_SERIAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "dev/pc/char.h"
#include "machine/config.h"

struct uart;

#define SERIAL_INPUT 65536u    /* bytes that wait for the guest */
#define SERIAL_OUTPUT 1048576u /* bytes that wait for a slow reader; more are lost */

struct serial {
    enum serial_kind kind;
    unsigned n;
    struct uart *uart; /* borrowed; NULL until it is there */
    /* What takes input: the uart, or a console port. NULL: nothing is there yet. */
    size_t (*to_guest)(void *dev, unsigned n, const uint8_t *data, size_t len);
    void *dev;
    const struct machine_callbacks *callbacks;
    struct loop *loop;
    char *path; /* owned: PTY's far end, UNIX socket to remove */
    int listen_fd;
    int fd;        /* -1: nobody is connected */
    int far_fd;    /* PTY: keeps the far end open, so that ours does not hang up */
    struct loop_fd *listen_watch;
    struct loop_fd *watch;
    uint8_t *input; /* ring of SERIAL_INPUT bytes */
    size_t input_at, input_len;
    bool input_short; /* somebody was told that there is no room */
    uint8_t *output;  /* ring of SERIAL_OUTPUT bytes */
    size_t output_at, output_len;
    bool posted; /* serial_turn is on its way */
};

/* Set-up. c is borrowed for the call, callbacks and loop longer. */
MUST_CHECK int serial_init(struct serial *s, unsigned n, const struct serial_config *c,
                           const struct machine_callbacks *callbacks, struct loop *loop,
                           struct err *e);
/* No thread uses it any more. */
void serial_fini(struct serial *s);
/* What the uart is to be made with. */
struct char_backend serial_backend(struct serial *s);
/* Bytes from outside: how many were taken. */
size_t serial_input(struct serial *s, const uint8_t *data, size_t len);

#endif
