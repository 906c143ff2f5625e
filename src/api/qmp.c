/* SPDX-License-Identifier: Apache-2.0 */
#include "api/qmp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "machine/machine.h"
#include "sosia.h"

/* The QEMU whose commands and shapes these are. */
enum { QEMU_MAJOR = 7, QEMU_MINOR = 2, QEMU_MICRO = 0 };

char *qmp_line(json_t *j)
{
    char *text = json_dumps(j, JSON_ENSURE_ASCII);
    json_decref(j);
    char *line = text != NULL ? xasprintf("%s\r\n", text) : xstrdup("{\"error\": {}}\r\n");
    free(text);
    return line;
}

json_t *qmp_version(void)
{
    return json_pack("{s:{s:i, s:i, s:i}, s:s}", "qemu", "micro", QEMU_MICRO, "minor", QEMU_MINOR,
                     "major", QEMU_MAJOR, "package", "sosia " SOSIA_VERSION_STRING);
}

char *qmp_greeting(void)
{
    return qmp_line(json_pack("{s:{s:o, s:[]}}", "QMP", "version", qmp_version(), "capabilities"));
}

static json_t *error_of(const char *class, const char *desc)
{
    return json_pack("{s:{s:s, s:o}}", "error", "class", class, "desc", api_json_text(desc));
}

char *qmp_error_line(const char *desc) { return qmp_line(error_of(API_GENERIC_ERROR, desc)); }

/* -- A request --------------------------------------------------------------------------------- */
static int check_request(json_t *request, struct err *e)
{
    const char *key;
    json_t *value;
    if (!json_is_object(request)) {
        return err_set(e, -EINVAL, "QMP input must be a JSON object");
    }
    json_object_foreach (request, key, value) {
        if (strcmp(key, "execute") == 0) {
            if (!json_is_string(value)) {
                return err_set(e, -EINVAL, "QMP input member 'execute' must be a string");
            }
        } else if (strcmp(key, "arguments") == 0) {
            if (!json_is_object(value)) {
                return err_set(e, -EINVAL, "QMP input member 'arguments' must be an object");
            }
        } else if (strcmp(key, "id") != 0) {
            return err_set(e, -EINVAL, "QMP input member '%s' is unexpected", key);
        }
    }
    return json_object_get(request, "execute") != NULL
               ? 0
               : err_set(e, -EINVAL, "QMP input lacks member 'execute'");
}

int qmp_negotiated(struct api_call *c)
{
    return api_refuse(c, -EALREADY, API_COMMAND_NOT_FOUND,
                      "Capabilities negotiation is already complete, command ignored");
}

static int negotiate(struct qmp *q, const char *name, struct api_call *c)
{
    if (strcmp(name, "qmp_capabilities") != 0) {
        return api_refuse(c, -EPROTO, API_COMMAND_NOT_FOUND,
                          "Expecting capabilities negotiation with 'qmp_capabilities'");
    }
    int r = api_check_args("?enable:arr", c->args, &c->e);
    if (r == 0 && json_array_size(json_object_get(c->args, "enable")) != 0) {
        r = err_set(&c->e, -ENOTSUP, "This server has no capabilities to enable");
    }
    q->ready = r == 0;
    return r;
}

/* Before a VM has come, and after it has left: whatever changes it would be lost, or spoil it. */
static bool harms_nobody(const char *name)
{
    static const char *const good[] = { "query-", "migrate", "human-monitor-command", "cont",
                                        "stop",   "quit",    "qmp_capabilities" };
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        if (strncmp(name, good[i], strlen(good[i])) == 0) {
            return true;
        }
    }
    return false;
}

static int execute(struct qmp *q, const char *name, struct api_call *c)
{
    if (!q->ready) {
        return negotiate(q, name, c);
    }
    const struct api_command *command = api_find_command(name);
    if (command == NULL) {
        return api_refuse(c, -ENOENT, API_COMMAND_NOT_FOUND, "The command %s has not been found",
                          name);
    }
    int r = api_check_args(command->params, c->args, &c->e);
    if (r == 0 && !harms_nobody(name) && machine_elsewhere(q->machine)) {
        return api_refuse(c, -EBUSY, API_GENERIC_ERROR, "The VM is not here");
    }
    return r == 0 ? command->fn(c) : r;
}

/* What to answer to a request, without its id. */
static json_t *answer(struct qmp *q, json_t *request)
{
    struct api_call c = { .api = q->api, .machine = q->machine };
    int r = check_request(request, &c.e);
    if (r == 0) {
        json_t *args = json_object_get(request, "arguments");
        c.args = args != NULL ? json_incref(args) : json_object();
        r = execute(q, json_string_value(json_object_get(request, "execute")), &c);
        json_decref(c.args);
    }
    if (r < 0) {
        json_decref(c.result);
        return error_of(c.class != NULL ? c.class : API_GENERIC_ERROR, c.e.msg);
    }
    return json_pack("{s:o}", "return", c.result != NULL ? c.result : json_object());
}

char *qmp_answer(struct qmp *q, const char *text, size_t len)
{
    json_error_t bad;
    json_t *request = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &bad);
    if (request == NULL) {
        struct err e;
        err_set(&e, -EINVAL, "JSON parse error, %s", bad.text);
        return qmp_error_line(e.msg);
    }
    json_t *reply = answer(q, request);
    json_t *id = json_is_object(request) ? json_object_get(request, "id") : NULL;
    if (id != NULL) {
        json_object_set(reply, "id", id);
    }
    json_decref(request);
    return qmp_line(reply);
}
