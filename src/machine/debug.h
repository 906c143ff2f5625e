/* SPDX-License-Identifier: Apache-2.0
 *
 * A debugger outside of the guest: it has the machine stand and go on, by processor, and says where
 * processors stop (cpu/stop.h): MACHINE_EVENT_DEBUG tells that one did. While it has the machine
 * stand, nobody else can make it run.
 *
 * Thread: [any] but vCPUs and the loop, one thread at a time, unless said otherwise.
 */
#ifndef SOSIA_MACHINE_DEBUG_H
#define SOSIA_MACHINE_DEBUG_H

#include "cpu/stop.h"
#include "machine/machine.h"

struct machine_stop {
    unsigned cpu;
    enum cpu_stop_why why;
    gva_t va;
};

enum machine_go { MACHINE_GO_STAND, MACHINE_GO_RUN, MACHINE_GO_STEP };

/* One at a time: -EBUSY. The machine goes on as it was. */
MUST_CHECK int machine_debug_attach(struct machine *m);
/* Stopped, or before any machine_debug_go. Nothing stops any more; who stands, stands until
 * somebody resumes the machine. */
void machine_debug_detach(struct machine *m);
/* Until machine_debug_go every processor stands, its state in struct cpu, and the clock with it. */
void machine_debug_stop(struct machine *m);
/* Stopped. The next processor that stopped of itself; false: there is none. */
bool machine_debug_next(struct machine *m, struct machine_stop *out);
/* Stopped. Copies the sets. */
void machine_debug_set_stops(struct machine *m, const struct cpu_stops *stops);
/* Stopped. how: one for each processor. When more than one had stopped, and not all were asked for,
 * nobody goes on, and MACHINE_EVENT_DEBUG comes again. */
void machine_debug_go(struct machine *m, const enum machine_go *how);

#endif
