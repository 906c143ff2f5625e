/* SPDX-License-Identifier: Apache-2.0
 *
 * Runs a few instructions on the host CPU itself with every user register set, and catches how they
 * end. The signal handlers are the process's; one thread only.
 */
#ifndef SOSIA_TESTS_SUPPORT_HOSTRUN_H
#define SOSIA_TESTS_SUPPORT_HOSTRUN_H

#include <stddef.h>

#include "support/insnstate.h"

/* Map the regions, install the handlers. 0 or -errno. Call before anything else that handles
 * SIGFPE. */
int hostrun_init(void);
/* The test framework takes the signals for itself around each test and fixture: save the handlers
 * once everything that installs one has run, put them back at the start of each test. */
void hostrun_save_handlers(void);
void hostrun_restore_handlers(void);
/* Called from a signal handler several times a second, to end a guest that hangs. */
void hostrun_on_tick(void (*tick)(void));
/* Base of FS, which the code sees, too. */
uint64_t hostrun_fs_base(void);
/* Do saved x87 states have FOP, FIP and FDP only while an unmasked exception is pending (as AMD's
 * do)? The outcome's then, too. */
bool hostrun_hides_x87_pointers(void);

/* Code bytes go to IS_CODE + offset, INT3 all around. */
void hostrun_set_code(unsigned offset, const uint8_t *code, size_t len);
void hostrun_set_memory(const uint8_t image[IS_MEM_SIZE]);
void hostrun_get_memory(uint8_t image[IS_MEM_SIZE]);
/* Compare without copying. */
bool hostrun_memory_equals(const uint8_t image[IS_MEM_SIZE]);

void hostrun_run(enum is_mode mode, const struct insn_state *in, struct insn_outcome *out);

#endif
