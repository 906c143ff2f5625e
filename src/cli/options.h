/* SPDX-License-Identifier: Apache-2.0 -- the command line of `sosia run` */
#ifndef SOSIA_CLI_OPTIONS_H
#define SOSIA_CLI_OPTIONS_H

#include <stdbool.h>

#include "base/err.h"
#include "sosia.h"

struct run_options {
    struct sosia_config config; /* strings are argv's */
    int stdio_port;             /* the serial port on the terminal, -1: none */
    int verbose;
    bool help;
};

/* argv[0] is "run". On failure e has one line. */
MUST_CHECK int options_parse(struct run_options *o, int argc, char **argv, struct err *e);

/* "512M", "4G", "1048576K"; a plain number counts MiB. */
MUST_CHECK int options_size(const char *text, uint64_t *bytes, struct err *e);

#endif
