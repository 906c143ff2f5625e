/* SPDX-License-Identifier: Apache-2.0 -- commands to VMs that run: ls, stop, info... */
#ifndef SOSIA_CLI_CONTROL_H
#define SOSIA_CLI_CONTROL_H

#include <stdbool.h>
#include <stdio.h>

#include "base/err.h"

/* Is it one of these commands? */
bool control_knows(const char *command);
/* argv[0] is the command. Returns the exit status. */
int control_main(int argc, char **argv);
void control_help(FILE *to);
/* Of a file, for a VM that may be in another directory than we are. free() it. */
char *control_absolute(const char *file);
/* Of a VM that runs, for our own use: not synced. translations: a memory file that gets those of
 * its engine, if it has some and the VM is a process of this user. */
MUST_CHECK int control_scratch_snapshot(const char *which, const char *file, int translations,
                                        struct err *e);

#endif
