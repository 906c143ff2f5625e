/* SPDX-License-Identifier: Apache-2.0 -- a build without jansson: no commands to VMs that run */
#include "cli/control.h"

#include <errno.h>

bool control_knows(const char *command)
{
    (void)command;
    return false;
}

int control_main(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return 1;
}

void control_help(FILE *to) { fputs("       (commands to VMs that run need jansson)\n", to); }

int control_scratch_snapshot(const char *which, const char *file, int translations, struct err *e)
{
    (void)file;
    (void)translations;
    return err_set(e, -ENOTSUP, "%s is no snapshot, and commands to VMs that run need jansson",
                   which);
}
