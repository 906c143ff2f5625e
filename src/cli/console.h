/* SPDX-License-Identifier: Apache-2.0
 *
 * Keys from the terminal: to the guest, but for ctrl-a and what follows it.
 */
#ifndef SOSIA_CLI_CONSOLE_H
#define SOSIA_CLI_CONSOLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sosia.h"

#define CONSOLE_LINE 256u
#define CONSOLE_WAITING 4096u

struct console {
    struct sosia_vm *vm;
    int port; /* -1: keys for the guest are dropped */
    bool escape;   /* ctrl-a was the last key */
    bool commands; /* the command prompt has the keyboard */
    bool quit;     /* the person wants out */
    char line[CONSOLE_LINE];
    size_t line_len;
    uint8_t waiting[CONSOLE_WAITING]; /* for a guest that has no room */
    size_t waiting_len;
};

void console_init(struct console *c, struct sosia_vm *vm, int port);
/* At most console_room bytes. */
void console_keys(struct console *c, const uint8_t *keys, size_t len);
size_t console_room(const struct console *c);
/* Offer the guest again what it had no room for; true: nothing waits any more. */
bool console_flush(struct console *c);

#endif
