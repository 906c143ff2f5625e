/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SOSIA_CLI_CLONE_H
#define SOSIA_CLI_CLONE_H

/* `sosia clone`: argv[0] is "clone". Returns the exit status. */
int clone_main(int argc, char **argv);

#endif
