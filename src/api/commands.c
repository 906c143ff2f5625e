/* SPDX-License-Identifier: Apache-2.0 -- the tables of commands, and what arguments they take */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/command.h"
#include "base/alloc.h"
#include "base/bits.h"

static const struct api_command *const tables[] = {
    api_block_commands,   api_core_commands,  api_hotplug_commands, api_migrate_commands,
    api_monitor_commands, api_query_commands, api_run_commands,     api_screen_commands,
    api_snapshot_commands,
};

const struct api_command *api_command(unsigned n)
{
    for (size_t i = 0; i < ARRAY_LEN(tables); i++) {
        for (const struct api_command *c = tables[i]; c->name != NULL; c++) {
            if (n-- == 0) {
                return c;
            }
        }
    }
    return NULL;
}

const struct api_command *api_find_command(const char *name)
{
    const struct api_command *c;
    for (unsigned n = 0; (c = api_command(n)) != NULL; n++) {
        if (strcmp(c->name, name) == 0) {
            return c;
        }
    }
    return NULL;
}

/* -- Arguments --------------------------------------------------------------------------------- */
struct param {
    char name[32];
    char kind[8];
    bool optional;
    bool others; /* the "..." at the end */
};

/* The next word of a row's params; false after the last. */
static bool next_param(const char **params, struct param *p)
{
    const char *at = *params;
    if (at == NULL || *at == '\0') {
        return false;
    }
    *p = (struct param){ .optional = *at == '?', .others = *at == '.' };
    at += p->optional;
    size_t name = strcspn(at, ": ");
    snprintf(p->name, sizeof p->name, "%.*s", (int)name, at);
    at += name;
    if (*at == ':') {
        size_t kind = strcspn(++at, " ");
        snprintf(p->kind, sizeof p->kind, "%.*s", (int)kind, at);
        at += kind;
    }
    *params = at + strspn(at, " ");
    return true;
}

static bool is_kind(const json_t *value, const char *kind, const char **expected)
{
    static const struct {
        const char *kind, *expected;
    } kinds[] = { { "str", "string" }, { "int", "integer" }, { "num", "number" },
                  { "bool", "boolean" }, { "obj", "object" }, { "arr", "array" } };
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (strcmp(kind, kinds[i].kind) == 0) {
            *expected = kinds[i].expected;
        }
    }
    switch (json_typeof(value)) {
    case JSON_STRING:
        return strcmp(kind, "str") == 0 || strcmp(kind, "any") == 0;
    case JSON_INTEGER:
        return strcmp(kind, "int") == 0 || strcmp(kind, "num") == 0 || strcmp(kind, "any") == 0;
    case JSON_REAL:
        return strcmp(kind, "num") == 0 || strcmp(kind, "any") == 0;
    case JSON_TRUE:
    case JSON_FALSE:
        return strcmp(kind, "bool") == 0 || strcmp(kind, "any") == 0;
    case JSON_OBJECT:
        return strcmp(kind, "obj") == 0 || strcmp(kind, "any") == 0;
    case JSON_ARRAY:
        return strcmp(kind, "arr") == 0 || strcmp(kind, "any") == 0;
    case JSON_NULL:
        return strcmp(kind, "any") == 0;
    }
    return false;
}

static bool is_param(const char *params, const char *name)
{
    struct param p;
    while (next_param(&params, &p)) {
        if (p.others || strcmp(p.name, name) == 0) {
            return true;
        }
    }
    return false;
}

int api_check_args(const char *params, json_t *args, struct err *e)
{
    const char *name;
    json_t *value;
    json_object_foreach (args, name, value) {
        if (!is_param(params, name)) {
            return err_set(e, -EINVAL, "Parameter '%s' is unexpected", name);
        }
    }
    struct param p;
    for (const char *at = params; next_param(&at, &p) && !p.others;) {
        const char *expected = "any";
        value = json_object_get(args, p.name);
        if (value == NULL && !p.optional) {
            return err_set(e, -EINVAL, "Parameter '%s' is missing", p.name);
        }
        if (value != NULL && !is_kind(value, p.kind, &expected)) {
            return err_set(e, -EINVAL, "Invalid parameter type for '%s', expected: %s", p.name,
                           expected);
        }
    }
    return 0;
}

/* -- For commands ------------------------------------------------------------------------------ */
const char *api_string(const struct api_call *c, const char *name)
{
    return json_string_value(json_object_get(c->args, name));
}

bool api_flag(const struct api_call *c, const char *name, bool otherwise)
{
    const json_t *value = json_object_get(c->args, name);
    return value != NULL ? json_is_true(value) : otherwise;
}

int64_t api_integer(const struct api_call *c, const char *name, int64_t otherwise)
{
    const json_t *value = json_object_get(c->args, name);
    return value != NULL ? json_integer_value(value) : otherwise;
}

json_t *api_json_text(const char *text)
{
    json_t *j = json_string(text);
    if (j == NULL) {
        char *copy = xstrdup(text);
        for (char *c = copy; *c != '\0'; c++) {
            *c = (unsigned char)*c < 0x80 ? *c : '?';
        }
        j = json_string(copy);
        free(copy);
    }
    return j;
}

int api_refuse(struct api_call *c, int error, const char *class, const char *fmt, ...)
{
    char text[sizeof c->e.msg];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    c->class = class;
    return err_set(&c->e, error, "%s", text);
}
