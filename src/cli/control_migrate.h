/* SPDX-License-Identifier: Apache-2.0 -- `sosia migrate` */
#ifndef SOSIA_CLI_CONTROL_MIGRATE_H
#define SOSIA_CLI_CONTROL_MIGRATE_H

#include "base/err.h"

/* argv: what follows the command. */
MUST_CHECK int control_migrate(int argc, char **argv, struct err *e);

#endif
