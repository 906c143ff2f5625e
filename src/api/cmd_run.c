/* SPDX-License-Identifier: Apache-2.0
 *
 * Running and stopping, the buttons of the case, the end.
 */
#include <errno.h>

#include "api/command.h"
#include "machine/machine.h"

/* Only one that has left has a migration behind it. */
static const char *elsewhere_status(const struct api_call *c)
{
    return api_migration(c->api)->running != NULL ? "postmigrate" : "inmigrate";
}

static int query_status(struct api_call *c)
{
    struct machine_end end;
    bool ended = machine_get_end(c->machine, &end) == 0;
    bool paused = machine_paused(c->machine);
    const char *status = ended                          ? "shutdown"
                         : machine_elsewhere(c->machine) ? elsewhere_status(c)
                         : paused                        ? "paused"
                                                         : "running";
    c->result = json_pack("{s:b, s:b, s:s}", "running", !ended && !paused, "singlestep", 0,
                          "status", status);
    return 0;
}

static int stop(struct api_call *c)
{
    machine_pause(c->machine);
    return 0;
}

static int cont(struct api_call *c)
{
    struct api_migration *a = api_migration(c->api);
    struct migrate_stats s;
    if (machine_elsewhere(c->machine)) {
        if (a->running == NULL) {
            return api_refuse(c, -EBUSY, API_GENERIC_ERROR, "The VM has not arrived yet");
        }
        migrate_look(a->running, &s);
        if (!s.unknown) {
            return api_refuse(c, -EBUSY, API_GENERIC_ERROR, "The VM runs elsewhere now");
        }
        int r = migrate_take_back(c->machine, &c->e); /* a person knows better */
        if (r < 0) {
            return r;
        }
    }
    machine_resume(c->machine);
    return 0;
}

static int system_reset(struct api_call *c)
{
    machine_request_reset(c->machine);
    return 0;
}

/* The button is pressed whether the guest listens or not, as on any PC. */
static int system_powerdown(struct api_call *c)
{
    machine_press_power(c->machine);
    return 0;
}

static int system_wakeup(struct api_call *c)
{
    return api_refuse(c, -ENOTSUP, API_GENERIC_ERROR,
                      "Unable to wake up: guest is not in suspended state");
}

static int quit(struct api_call *c)
{
    machine_request_end(c->machine, MACHINE_STOPPED, 0, "quit over the control socket");
    return 0;
}

const struct api_command api_run_commands[] = {
    { "cont", cont, NULL },
    { "query-status", query_status, NULL },
    { "quit", quit, NULL },
    { "stop", stop, NULL },
    { "system_powerdown", system_powerdown, NULL },
    { "system_reset", system_reset, NULL },
    { "system_wakeup", system_wakeup, NULL },
    { NULL, NULL, NULL },
};
