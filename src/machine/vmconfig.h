/* SPDX-License-Identifier: Apache-2.0
 *
 * A configuration as text, one "name=value" a line: what a snapshot holds of it, and what a
 * migration sends ahead. Only what makes the guest's machine; how it is run (engine, callbacks) is
 * each run's own business.  Thread: [any], one at a time for one object.
 */
#ifndef SOSIA_MACHINE_VMCONFIG_H
#define SOSIA_MACHINE_VMCONFIG_H

#include "base/err.h"
#include "sosia.h"

#define VMCONFIG_TEXT_MAX (1u << 20)

struct vmconfig;

/* Paths come out absolute. free() it. */
char *vmconfig_text(const struct sosia_config *c);
/* The text may be hostile. -EINVAL, also for a name that this sosia does not know. */
MUST_CHECK int vmconfig_parse(struct vmconfig **out, const char *text, size_t len, struct err *e);
void vmconfig_free(struct vmconfig *v);
/* Strings and lists are v's; may be changed, with strings that live as long as v. */
struct sosia_config *vmconfig_config(struct vmconfig *v);
/* The n-th disk of it, n below disk_count. */
struct sosia_disk *vmconfig_disk(struct vmconfig *v, unsigned n);
struct sosia_serial *vmconfig_console(struct vmconfig *v, unsigned n); /* below console_count */
/* A string that lives as long as v. */
const char *vmconfig_keep(struct vmconfig *v, const char *text);

#endif
