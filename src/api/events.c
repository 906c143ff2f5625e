/* SPDX-License-Identifier: Apache-2.0 */
#include "api/events.h"

#include <stdio.h>

#include "api/command.h"
#include "base/bits.h"
#include "machine/machine.h"

static const char *const names[] = {
    [MACHINE_EVENT_STOP] = "STOP",           [MACHINE_EVENT_RESUME] = "RESUME",
    [MACHINE_EVENT_RESET] = "RESET",         [MACHINE_EVENT_POWERDOWN] = "POWERDOWN",
    [MACHINE_EVENT_SHUTDOWN] = "SHUTDOWN",   [MACHINE_EVENT_DEVICE_DELETED] = "DEVICE_DELETED",
    [MACHINE_EVENT_MIGRATION] = "MIGRATION", [MACHINE_EVENT_MIGRATION_PASS] = "MIGRATION_PASS",
};

const char *api_event_name(unsigned n) { return n < ARRAY_LEN(names) ? names[n] : NULL; }

static json_t *shutdown_data(enum machine_reason reason)
{
    static const struct {
        const char *name;
        bool guest;
    } reasons[] = {
        [MACHINE_RUNS] = { "none", false },
        [MACHINE_POWER_OFF] = { "guest-shutdown", true },
        [MACHINE_STOPPED] = { "host-qmp-quit", false },
        [MACHINE_EXIT_PORT] = { "guest-shutdown", true },
        [MACHINE_RESET] = { "guest-reset", true },
        [MACHINE_SHUTDOWN] = { "guest-panic", true },
        [MACHINE_FAILED] = { "host-error", false },
    };
    return json_pack("{s:b, s:s}", "guest", reasons[reason].guest, "reason", reasons[reason].name);
}

static json_t *data_of(const struct machine_event *ev)
{
    char path[MACHINE_NAME_BYTES + 32];
    switch (ev->kind) {
    case MACHINE_EVENT_RESET:
        return json_pack("{s:b, s:s}", "guest", ev->guest, "reason",
                         ev->guest ? "guest-reset" : "host-qmp-system-reset");
    case MACHINE_EVENT_SHUTDOWN:
        return shutdown_data((enum machine_reason)ev->end_reason);
    case MACHINE_EVENT_DEVICE_DELETED:
        snprintf(path, sizeof path, "/machine/peripheral/%s", ev->id);
        return json_pack("{s:o, s:o}", "device", api_json_text(ev->id), "path",
                         api_json_text(path));
    case MACHINE_EVENT_MIGRATION:
        return json_pack("{s:s}", "status", ev->status);
    case MACHINE_EVENT_MIGRATION_PASS:
        return json_pack("{s:i}", "pass", (int)ev->number);
    case MACHINE_EVENT_STOP:
    case MACHINE_EVENT_RESUME:
    case MACHINE_EVENT_POWERDOWN:
    case MACHINE_EVENT_DEBUG:
        break;
    }
    return NULL;
}

json_t *api_event(const struct machine_event *ev, const struct timespec *when)
{
    json_t *j = json_pack("{s:{s:I, s:I}, s:s}", "timestamp", "seconds", (json_int_t)when->tv_sec,
                          "microseconds", (json_int_t)(when->tv_nsec / 1000), "event",
                          names[ev->kind]);
    json_t *data = data_of(ev);
    if (data != NULL) {
        json_object_set_new(j, "data", data);
    }
    return j;
}
