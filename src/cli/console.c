/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/console.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#define CTRL(c) ((c)&0x1f)

static const char escape_help[] = "\nctrl-a x       quit\n"
                                  "ctrl-a c       command prompt, and back\n"
                                  "ctrl-a h       this help\n"
                                  "ctrl-a ctrl-a  ctrl-a for the guest\n";

static const char command_help[] =
    "info TOPIC     registers, devices, memory, engine\n"
    "pause          stop the clock and the processors\n"
    "cont           let them go on\n"
    "reset          press the reset button\n"
    "power          press the power button\n"
    "snapshot FILE  the machine as it is now, for sosia restore\n"
    "quit           end the machine\n"
    "help           this help; an empty line goes back to the guest\n";

void console_init(struct console *c, struct sosia_vm *vm, int port)
{
    memset(c, 0, sizeof *c);
    c->vm = vm;
    c->port = port;
}

size_t console_room(const struct console *c) { return CONSOLE_WAITING - c->waiting_len; }

bool console_flush(struct console *c)
{
    if (c->waiting_len != 0) {
        size_t n = sosia_vm_serial_input(c->vm, (unsigned)c->port, c->waiting, c->waiting_len);
        memmove(c->waiting, c->waiting + n, c->waiting_len - n);
        c->waiting_len -= n;
    }
    return c->waiting_len == 0;
}

static void to_guest(struct console *c, uint8_t key)
{
    if (c->port >= 0 && c->waiting_len < CONSOLE_WAITING) {
        c->waiting[c->waiting_len++] = key;
    }
}

/* -- Commands ---------------------------------------------------------------------------------- */

static void prompt(const struct console *c)
{
    if (c->commands) {
        fputs("sosia> ", stderr);
    }
}

static void leave(struct console *c)
{
    c->commands = false;
    c->line_len = 0;
    fputs("\n", stderr);
}

static void info(struct console *c, const char *topic)
{
    long len = sosia_vm_info(c->vm, topic, NULL, 0);
    if (len < 0) {
        fprintf(stderr, "info: registers, devices, memory or engine\n");
        return;
    }
    size_t size = (size_t)len + 4096; /* it may have grown a little */
    char *text = xzalloc(size);
    if (sosia_vm_info(c->vm, topic, text, size) >= 0) {
        fputs(text, stderr);
    }
    free(text);
}

static void take_snapshot(struct console *c, const char *path)
{
    char error[SOSIA_ERROR_BYTES];
    struct sosia_snapshot_result r;
    if (path == NULL) {
        fprintf(stderr, "snapshot: which file?\n");
    } else if (sosia_vm_snapshot(c->vm, path, NULL, &r, error) < 0) {
        fprintf(stderr, "snapshot: %s\n", error);
    } else {
        fprintf(stderr, "%s: %.1f of %.1f MiB in %.0f ms, the guest stood still for %.1f ms\n",
                path, (double)r.bytes / 1048576, (double)r.memory / 1048576,
                (double)r.total_ns / 1e6, (double)r.pause_ns / 1e6);
    }
}

static void command(struct console *c)
{
    c->line[c->line_len] = '\0';
    c->line_len = 0;
    char *save;
    const char *verb = strtok_r(c->line, " \t", &save);
    const char *arg = verb != NULL ? strtok_r(NULL, " \t", &save) : NULL;
    if (verb == NULL) {
        leave(c);
    } else if (strcmp(verb, "info") == 0 || strcmp(verb, "i") == 0) {
        info(c, arg != NULL ? arg : "");
    } else if (strcmp(verb, "pause") == 0 || strcmp(verb, "stop") == 0) {
        sosia_vm_pause(c->vm);
    } else if (strcmp(verb, "cont") == 0 || strcmp(verb, "c") == 0) {
        sosia_vm_resume(c->vm);
    } else if (strcmp(verb, "reset") == 0) {
        sosia_vm_reset(c->vm);
    } else if (strcmp(verb, "power") == 0) {
        if (sosia_vm_power_button(c->vm) < 0) {
            fprintf(stderr, "the guest does not listen to the button\n");
        }
    } else if (strcmp(verb, "snapshot") == 0) {
        take_snapshot(c, arg);
    } else if (strcmp(verb, "quit") == 0 || strcmp(verb, "q") == 0) {
        c->quit = true;
    } else if (strcmp(verb, "help") == 0 || strcmp(verb, "?") == 0) {
        fputs(command_help, stderr);
    } else {
        fprintf(stderr, "unknown command '%s'; help lists them\n", verb);
    }
    if (!c->quit) {
        prompt(c);
    }
}

static void edit(struct console *c, uint8_t key)
{
    switch (key) {
    case '\r':
    case '\n':
        fputs("\n", stderr);
        command(c);
        break;
    case CTRL('d'):
        leave(c);
        break;
    case CTRL('u'):
    case CTRL('c'):
        c->line_len = 0;
        fputs("\n", stderr);
        prompt(c);
        break;
    case '\b':
    case 0x7f:
        if (c->line_len != 0) {
            c->line_len--;
            fputs("\b \b", stderr);
        }
        break;
    default:
        if (key >= 0x20 && key < 0x7f && c->line_len < CONSOLE_LINE - 1) {
            c->line[c->line_len++] = (char)key;
            fputc(key, stderr);
        }
    }
}

static void escape(struct console *c, uint8_t key)
{
    switch (key) {
    case 'x':
        c->quit = true;
        break;
    case 'c':
        if (c->commands) {
            leave(c);
        } else {
            c->commands = true;
            fputs("\n", stderr);
            prompt(c);
        }
        break;
    case 'h':
    case '?':
        fputs(escape_help, stderr);
        prompt(c);
        break;
    case CTRL('a'):
        to_guest(c, key);
        break;
    default:
        break;
    }
}

void console_keys(struct console *c, const uint8_t *keys, size_t len)
{
    for (size_t i = 0; i < len && !c->quit; i++) {
        if (c->escape) {
            c->escape = false;
            escape(c, keys[i]);
        } else if (keys[i] == CTRL('a')) {
            c->escape = true;
        } else if (c->commands) {
            edit(c, keys[i]);
        } else {
            to_guest(c, keys[i]);
        }
    }
    console_flush(c);
}
