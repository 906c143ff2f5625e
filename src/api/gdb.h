/* SPDX-License-Identifier: Apache-2.0
 *
 * A stub for GDB's `target remote`: a listening socket with a thread of its own. One debugger at a
 * time; while there is none, the machine runs as if there were no stub.
 */
#ifndef SOSIA_API_GDB_H
#define SOSIA_API_GDB_H

#include "base/err.h"

struct gdb;
struct machine;

/* address: PORT or HOST:PORT (without a host only this computer's programs reach it), a path with a
 * slash in it for a Unix socket, and ",arch=i386" behind either for 32-bit registers. Listens when
 * it returns. The machine is borrowed until gdb_free. */
MUST_CHECK int gdb_new(struct gdb **out, struct machine *m, const char *address, struct err *e);
/* Says good-bye to who is there. NULL is allowed. */
void gdb_free(struct gdb *g);
/* For `target remote`. */
const char *gdb_where(const struct gdb *g);

#endif
