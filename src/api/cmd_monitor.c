/* SPDX-License-Identifier: Apache-2.0
 *
 * human-monitor-command: what a person would type, and text for a person to read.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/command.h"
#include "base/alloc.h"
#include "base/bits.h"
#include "machine/machine.h"

#define TOPIC_BYTES 64u

char *api_info(struct machine *m, const char *topic)
{
    long len = machine_info(m, topic, NULL, 0);
    size_t size = len >= 0 ? (size_t)len + 4096 : 1; /* it may have grown a little */
    char *text = xzalloc(size);
    if (len >= 0) {
        machine_info(m, topic, text, size);
    }
    return text;
}

/* What QEMU's monitor calls a topic, where we say it otherwise. */
static const char *topic_of(const char *word)
{
    static const char *const others[][2] = {
        { "qtree", "devices" },
        { "roms", "memory" },
        { "jit", "engine" },
    };
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        if (strcmp(word, others[i][0]) == 0) {
            return others[i][1];
        }
    }
    return word;
}

static json_t *info(struct api_call *c, const char *word)
{
    char text[128];
    if (strcmp(word, "status") == 0) {
        snprintf(text, sizeof text, "VM status: %s\r\n",
                 machine_paused(c->machine) ? "paused" : "running");
        return json_string(text);
    }
    if (machine_info(c->machine, topic_of(word), NULL, 0) < 0) {
        snprintf(text, sizeof text, "unknown command: 'info %.*s'\r\n", (int)TOPIC_BYTES, word);
        return api_json_text(text);
    }
    char *found = api_info(c->machine, topic_of(word));
    json_t *j = api_json_text(found);
    free(found);
    return j;
}

/* Errors are text as well, as a person at a monitor sees them. */
static int human_monitor_command(struct api_call *c)
{
    char line[TOPIC_BYTES + 8];
    char *save;
    snprintf(line, sizeof line, "%s", api_string(c, "command-line"));
    const char *verb = strtok_r(line, " \t\r\n", &save);
    const char *word = verb != NULL ? strtok_r(NULL, " \t\r\n", &save) : NULL;
    if (verb == NULL) {
        c->result = json_string("");
    } else if (strcmp(verb, "info") == 0 && word != NULL) {
        c->result = info(c, word);
    } else {
        char text[128];
        snprintf(text, sizeof text, "unknown command: '%s'\r\n", verb);
        c->result = api_json_text(text);
    }
    return 0;
}

const struct api_command api_monitor_commands[] = {
    { "human-monitor-command", human_monitor_command, "command-line:str ?cpu-index:int" },
    { NULL, NULL, NULL },
};
