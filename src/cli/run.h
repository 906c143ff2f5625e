/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SOSIA_CLI_RUN_H
#define SOSIA_CLI_RUN_H

#include "cli/options.h"

/* `sosia run`: argv[0] is "run". Returns the exit status. */
int run_main(int argc, char **argv);

/* The same for somebody who restores several VMs. */
struct run_hooks {
    /* Options have been read; disks are next, their overlays are called *prefix. */
    int (*prepare)(void *ctx, struct run_options *o, const char **prefix, struct err *e);
    /* All is ready to run. False: it is not to; nothing must be left of it. */
    bool (*go)(void *ctx);
    void *ctx;
};
int run_hooked(int argc, char **argv, const struct run_hooks *hooks);
void run_help(void);

#endif
