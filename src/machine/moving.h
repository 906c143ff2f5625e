/* SPDX-License-Identifier: Apache-2.0
 *
 * What of a machine changes hands when a VM moves to another process: which pages were written
 * since they were sent, the disks, and the right to run.
 *
 * A machine is `elsewhere` (HOLD_ELSEWHERE) before its VM has come and after it has left: it can be
 * neither resumed nor reset. Its disks are then open only to be looked at, without their locks.
 */
#ifndef SOSIA_MACHINE_MOVING_H
#define SOSIA_MACHINE_MOVING_H

#include <stdint.h>

#include "base/err.h"
#include "sosia.h"

struct machine;

/* -- Written pages. [any], in machine_look or machine_still */
/* Add to bits (one for each page of RAM) those that were written since the last call, and go on
 * watching; the first call adds all. Returns how many bits it set that were not. */
uint64_t machine_take_written(struct machine *m, uint64_t *bits);
void machine_ignore_written(struct machine *m);

/* -- Disks. Machine lock held. */
/* Disk n as it was configured, with the file and the format that it has now. */
void machine_disk_now(struct machine *m, unsigned n, struct sosia_disk *out);
/* Can another process go on with the disks? e says which cannot. */
MUST_CHECK int machine_check_disks(struct machine *m, struct err *e);
/* Nothing is written to them any more: they are whole in their files, for others to lock. Requests
 * are drained. On failure all are as before. */
MUST_CHECK int machine_yield_disks(struct machine *m, struct err *e);
/* The opposite: -EBUSY while somebody has one of them. Those that were opened stay. */
MUST_CHECK int machine_take_disks(struct machine *m, struct err *e);

/* -- The right to run */
/* In machine_still: when that returns the machine stands, paused and elsewhere. */
void machine_leave(struct machine *m);
/* It is this process's: paused, machine_resume starts it. [any] */
void machine_arrive(struct machine *m);

#endif
