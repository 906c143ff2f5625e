/* SPDX-License-Identifier: Apache-2.0 -- sosia snapshot --list, --merge, --prune: files alone */
#ifndef SOSIA_CLI_SNAPSHOTS_H
#define SOSIA_CLI_SNAPSHOTS_H

#include <stdbool.h>
#include <stdio.h>

/* argv[0] is "snapshot". Is it one of these, not one of a VM? */
bool snapshots_know(int argc, char **argv);
/* Returns the exit status. */
int snapshots_main(int argc, char **argv);
void snapshots_help(FILE *to);

#endif
