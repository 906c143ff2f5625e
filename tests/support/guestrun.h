/* SPDX-License-Identifier: Apache-2.0
 *
 * Runs a few instructions in a small guest on an engine: long mode, CPL 3, the memory layout of
 * insnstate.h, Linux's selectors; every exception ends the run. Under hostrun's counterpart, the
 * same code gives the same outcome, or there is a bug.
 */
#ifndef SOSIA_TESTS_SUPPORT_GUESTRUN_H
#define SOSIA_TESTS_SUPPORT_GUESTRUN_H

#include <stddef.h>

#include "engine/engine.h"
#include "support/insnstate.h"

struct guestrun;

/* fs_base: what FS: addresses in the code are relative to. NULL on failure, with a message. */
struct guestrun *guestrun_new(const struct engine_class *cls, uint64_t fs_base, struct err *e);
void guestrun_free(struct guestrun *g);
/* Run one x87 instruction, so that what installs itself at the first one has done so. */
void guestrun_warm_up(struct guestrun *g);
struct cpu *guestrun_cpu(struct guestrun *g);

void guestrun_set_code(struct guestrun *g, unsigned offset, const uint8_t *code, size_t len);
void guestrun_set_memory(struct guestrun *g, const uint8_t image[IS_MEM_SIZE]);
/* The guest's memory, in the image's layout. */
const uint8_t *guestrun_memory(struct guestrun *g);
void guestrun_run(struct guestrun *g, enum is_mode mode, const struct insn_state *in,
                  struct insn_outcome *out);
/* [signal] End a run that hangs; guestrun_run then says timeout. */
void guestrun_kick(struct guestrun *g);

#endif
