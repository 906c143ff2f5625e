/* SPDX-License-Identifier: Apache-2.0
 *
 * A command of the control socket is one row of a table and its function. To add some: a file
 * src/api/cmd_*.c with the table, its name below and in commands.c, a line each in docs/api.md.
 *
 * Commands run on the server's thread [api] with no lock held, one at a time, while the guest runs
 * on; they may call whatever of the machine is for [any] thread and may take a moment: only other
 * clients wait.
 */
#ifndef SOSIA_API_COMMAND_H
#define SOSIA_API_COMMAND_H

#include <jansson.h>
#include <stdbool.h>
#include <stdatomic.h>
#include <stdint.h>

#include "base/err.h"
#include "migrate/migrate.h"

struct api;
struct machine;

struct api_call {
    struct api *api;
    struct machine *machine;
    json_t *args;    /* an object that is as the row's params say; borrowed */
    json_t *result;  /* what to answer: the command's to make; NULL: {} */
    const char *class; /* of the error; NULL: API_GENERIC_ERROR */
    struct err e;      /* one line, when the command returns < 0 */
};

#define API_GENERIC_ERROR "GenericError"
#define API_COMMAND_NOT_FOUND "CommandNotFound"
#define API_DEVICE_NOT_ACTIVE "DeviceNotActive"
#define API_DEVICE_NOT_FOUND "DeviceNotFound"

/* 0 or -errno. */
typedef int api_fn(struct api_call *c);

struct api_command {
    const char *name;
    api_fn *fn;
    /* "id:str size:int ?force:bool": names and kinds (str int num bool obj arr any); ? before what
     * may be left out, and ... at the end when others may be given. NULL: none. */
    const char *params;
};

/* -- Tables, each ended by a row without a name ------------------------------------------------ */
extern const struct api_command api_block_commands[];   /* cmd_block.c: disks, their images */
extern const struct api_command api_core_commands[];    /* cmd_core.c: the protocol itself */
extern const struct api_command api_hotplug_commands[]; /* cmd_hotplug.c: what comes and goes */
extern const struct api_command api_migrate_commands[]; /* cmd_migrate.c */
extern const struct api_command api_monitor_commands[]; /* cmd_monitor.c: text for people */
extern const struct api_command api_query_commands[];   /* cmd_query.c: what it is made of */
extern const struct api_command api_run_commands[];     /* cmd_run.c: running, the end */
extern const struct api_command api_screen_commands[];  /* cmd_screen.c: screen, keys, mouse */
extern const struct api_command api_snapshot_commands[]; /* cmd_snapshot.c */

/* The n-th command of all tables; NULL after the last. */
const struct api_command *api_command(unsigned n);
const struct api_command *api_find_command(const char *name);
/* Are the arguments as the row says? */
MUST_CHECK int api_check_args(const char *params, json_t *args, struct err *e);

/* -- For commands ------------------------------------------------------------------------------ */
const char *api_string(const struct api_call *c, const char *name); /* NULL: not given */
bool api_flag(const struct api_call *c, const char *name, bool otherwise);
int64_t api_integer(const struct api_call *c, const char *name, int64_t otherwise);
/* A string that may come from a guest or a file system: bytes that are no UTF-8 become '?'. */
json_t *api_json_text(const char *text);
/* `return api_refuse(c, -ENOENT, API_DEVICE_NOT_FOUND, "Device '%s' not found", id)` */
int api_refuse(struct api_call *c, int error, const char *class, const char *fmt, ...)
    PRINTF_LIKE(4, 5);

/* machine_info of a topic, to be freed; "" when there is none. */
char *api_info(struct machine *m, const char *topic);
const char *api_vm_name(const struct api *a); /* or NULL */

/* What clients have asked for of migrations. */
struct api_migration {
    struct migration *running; /* owned; or NULL; it may be over */
    struct migrate_parameters parameters;
    char *tls;           /* owned: parameters.tls */
    bool multifd;        /* as many streams as the parameters say, else one */
    _Atomic bool events; /* are told */
};
struct api_migration *api_migration(struct api *a);

#endif
