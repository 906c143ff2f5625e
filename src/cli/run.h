/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SOSIA_CLI_RUN_H
#define SOSIA_CLI_RUN_H

/* `sosia run`: argv[0] is "run". Returns the exit status. */
int run_main(int argc, char **argv);
void run_help(void);

#endif
