/* SPDX-License-Identifier: Apache-2.0
 *
 * What test_twins.c and long_twins.c share: guests, and where they are.
 */
#ifndef SOSIA_TESTS_GUEST_TWINGUESTS_H
#define SOSIA_TESTS_GUEST_TWINGUESTS_H

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/test.h"
#include "support/twins.h"

/* A file below BUILD, to be freed. */
static inline char *twinguests_path(const char *name)
{
    const char *build = getenv("BUILD");
    char *path = NULL;
    assert_true(asprintf(&path, "%s/%s", build != NULL ? build : "build", name) > 0);
    return path;
}

/* A shell command, which sees TOP and BUILD. */
static inline bool twinguests_do(const char *command)
{
    setenv("TOP", ".", 0);
    setenv("BUILD", "build", 0);
    fflush(stdout);
    return system(command) == 0;
}

static inline void twinguests_make(const char *command) { assert_true(twinguests_do(command)); }

/* Of Debian's; false: not to be had. */
static inline bool twinguests_fetch(const char *names)
{
    char command[256];
    snprintf(command, sizeof command, "$TOP/tools/fetch-guests %s >/dev/null 2>&1", names);
    return twinguests_do(command);
}

static inline struct sosia_config twinguests_config(const char *kernel, unsigned mebibytes,
                                                    unsigned cpus)
{
    struct sosia_config c;
    sosia_config_init(&c);
    c.kernel = kernel;
    c.append = "console=ttyS0";
    c.cpus = cpus;
    c.memory_bytes = (uint64_t)mebibytes << 20;
    c.exit_port = 0xf4;
    c.no_reboot = true;
    return c;
}

#endif
