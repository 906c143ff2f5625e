/* SPDX-License-Identifier: Apache-2.0
 *
 * The terminal in raw mode, and back on every way out: return, exit, stop signals, crashes.
 * One terminal per process: what it was like before is the process's business, not a VM's.
 */
#ifndef SOSIA_CLI_TERM_H
#define SOSIA_CLI_TERM_H

#include <stdbool.h>

/* Standard input becomes raw if it is a terminal and we are in its foreground; false when not. */
bool term_raw(void);
/* As it was. May be called at any time, from signal handlers too. */
void term_restore(void);
/* Stopped by job control: restore, stop, and be raw again when continued. */
void term_suspend(void);

#endif
