/* SPDX-License-Identifier: Apache-2.0
 *
 * What a client may ask of the protocol and the program: names and version.
 */
#include "api/command.h"
#include "api/events.h"
#include "api/qmp.h"
#include "sosia.h"

static int query_version(struct api_call *c)
{
    c->result = qmp_version();
    return 0;
}

static int query_commands(struct api_call *c)
{
    const struct api_command *command;
    c->result = json_array();
    for (unsigned n = 0; (command = api_command(n)) != NULL; n++) {
        json_array_append_new(c->result, json_pack("{s:s}", "name", command->name));
    }
    return 0;
}

static int query_events(struct api_call *c)
{
    const char *name;
    c->result = json_array();
    for (unsigned n = 0; (name = api_event_name(n)) != NULL; n++) {
        json_array_append_new(c->result, json_pack("{s:s}", "name", name));
    }
    return 0;
}

static int query_name(struct api_call *c)
{
    const char *name = api_vm_name(c->api);
    c->result = name != NULL ? json_pack("{s:o}", "name", api_json_text(name)) : NULL;
    return 0;
}

const struct api_command api_core_commands[] = {
    /* Negotiation is over when commands are looked up here (qmp.c). */
    { "qmp_capabilities", qmp_negotiated, "?enable:arr" },
    { "query-commands", query_commands, NULL },
    { "query-events", query_events, NULL },
    { "query-name", query_name, NULL },
    { "query-version", query_version, NULL },
    { NULL, NULL, NULL },
};
