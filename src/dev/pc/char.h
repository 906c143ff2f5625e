/* SPDX-License-Identifier: Apache-2.0
 *
 * What a serial device talks to: a terminal, a file, a socket. Thread: machine lock held.
 */
#ifndef SOSIA_DEV_PC_CHAR_H
#define SOSIA_DEV_PC_CHAR_H

#include <stddef.h>
#include <stdint.h>

struct char_backend {
    /* Bytes from the guest. NULL: nobody listens. The backend takes all, queueing or dropping as
     * it likes: a guest must not stop because nobody reads its console. */
    void (*write)(void *ctx, const uint8_t *data, size_t len);
    /* The device that last took fewer bytes than it was given has room again. May be NULL. May give
     * it more bytes before it returns. */
    void (*input_ready)(void *ctx);
    void *ctx;
};

#endif
