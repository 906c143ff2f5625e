/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/term.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

static struct termios before; /* valid once saved is set */
static _Atomic bool saved;
static _Atomic bool raw_now;

static const int crashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS};

void term_restore(void)
{
    if (atomic_exchange(&raw_now, false)) {
        int r = tcsetattr(STDIN_FILENO, TCSANOW, &before); /* async-signal-safe (POSIX 2.4.3) */
        (void)r;
    }
}

static void on_crash(int sig)
{
    term_restore();
    /* SA_RESETHAND: the second time it is deadly, with a core as usual. */
    raise(sig);
}

static void watch_crashes(void)
{
    struct sigaction act = {.sa_handler = on_crash, .sa_flags = (int)SA_RESETHAND | SA_NODEFER};
    for (size_t i = 0; i < sizeof crashes / sizeof crashes[0]; i++) {
        struct sigaction old;
        if (sigaction(crashes[i], NULL, &old) == 0 && old.sa_handler == SIG_DFL) {
            sigaction(crashes[i], &act, NULL);
        }
    }
}

bool term_raw(void)
{
    if (!isatty(STDIN_FILENO) || tcgetpgrp(STDIN_FILENO) != getpgrp()) {
        return false;
    }
    if (!atomic_load(&saved)) {
        if (tcgetattr(STDIN_FILENO, &before) < 0) {
            return false;
        }
        atomic_store(&saved, true);
        watch_crashes();
        atexit(term_restore);
    }
    struct termios raw = before;
    raw.c_iflag &= ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
    raw.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | ISIG | IEXTEN);
    /* c_oflag stays: messages of ours end in a plain line feed. */
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    atomic_store(&raw_now, true);
    if (tcsetattr(STDIN_FILENO, TCSANOW, &raw) < 0) {
        atomic_store(&raw_now, false);
        return false;
    }
    return true;
}

void term_suspend(void)
{
    bool was_raw = atomic_load(&raw_now);
    term_restore();
    raise(SIGSTOP);
    if (was_raw) {
        term_raw();
    }
}
