/* SPDX-License-Identifier: Apache-2.0 -- what happens to a machine, as the protocol's events */
#ifndef SOSIA_API_EVENTS_H
#define SOSIA_API_EVENTS_H

#include <jansson.h>
#include <time.h>

#include "machine/events.h"

json_t *api_event(const struct machine_event *ev, const struct timespec *when);
const char *api_event_name(unsigned n); /* NULL after the last */

#endif
