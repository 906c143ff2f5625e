/* SPDX-License-Identifier: Apache-2.0
 *
 * Commands to VMs that run, by name, over their control sockets (docs/api.md).
 */
#include "cli/control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/client.h"
#include "api/names.h"
#include "base/alloc.h"
#include "base/bits.h"
#include "cli/control_migrate.h"

#define PATIENCE_S 30u
#define LS_PATIENCE_S 3u
#define SNAPSHOT_PATIENCE_S 3600u /* the time that a disk takes to write all memory */

/* -- sosia ls ---------------------------------------------------------------------------------- */
static const char *string_at(const json_t *j, const char *key)
{
    const char *text = json_string_value(json_object_get(j, key));
    return text != NULL ? text : "?";
}

static json_t *ask(struct api_client *c, const char *command)
{
    struct err e;
    json_t *result = NULL;
    return c != NULL && api_client_call(c, command, NULL, &result, &e) == 0 ? result : NULL;
}

static void list_one(void *ctx, const char *name, int fd, pid_t pid)
{
    unsigned *count = ctx;
    struct api_client *c = NULL;
    struct err e;
    if (api_client_new(&c, fd, LS_PATIENCE_S, &e) < 0) {
        c = NULL; /* it hangs, or something else is at the socket: the line says so */
    }
    json_t *status = ask(c, "query-status");
    json_t *cpus = ask(c, "query-cpus-fast");
    json_t *memory = ask(c, "query-memory-size-summary");
    if ((*count)++ == 0) {
        printf("%-20s %8s %-10s %5s %10s\n", "NAME", "PID", "STATUS", "CPUS", "MEMORY");
    }
    printf("%-20s %8d %-10s %5zu %8lld M\n", name, (int)pid, string_at(status, "status"),
           json_array_size(cpus),
           (long long)json_integer_value(json_object_get(memory, "base-memory")) >> 20);
    json_decref(status);
    json_decref(cpus);
    json_decref(memory);
    api_client_close(c);
}

static int ls(struct err *e)
{
    unsigned count = 0;
    return api_names(list_one, &count, e);
}

/* -- Those with a VM --------------------------------------------------------------------------- */
static int plain(const char *which, const char *command, json_t *args, json_t **result,
                 struct err *e)
{
    struct api_client *c;
    int r = api_client_open(&c, which, PATIENCE_S, e);
    if (r < 0) {
        json_decref(args);
        return r;
    }
    r = api_client_call(c, command, args, result, e);
    api_client_close(c);
    return r;
}

static int info(const char *which, const char *topic, struct err *e)
{
    json_t *text = NULL;
    char *line = xasprintf("info %s", topic != NULL ? topic : "status");
    int r = plain(which, "human-monitor-command", json_pack("{s:s}", "command-line", line), &text,
                  e);
    const char *answer = json_string_value(text);
    if (r == 0 && answer == NULL) {
        r = err_set(e, -EPROTO, "that socket speaks another language");
    } else if (r == 0 && strncmp(answer, "unknown", 7) == 0) {
        r = err_set(e, -EINVAL, "'%s' is an unknown topic (see sosia help)", topic);
    } else if (r == 0) {
        fputs(answer, stdout);
    }
    json_decref(text);
    free(line);
    return r;
}

/* The VM may be in another directory than we are. free() it */
char *control_absolute(const char *file)
{
    char *here = file[0] != '/' ? getcwd(NULL, 0) : NULL;
    char *path = here != NULL ? xasprintf("%s/%s", here, file) : xstrdup(file);
    free(here);
    return path;
}

static int screenshot(const char *which, const char *file, struct err *e)
{
    char *path = control_absolute(file);
    int r = plain(which, "screendump", json_pack("{s:s}", "filename", path), NULL, e);
    free(path);
    return r;
}

/* Takes args; their "file" is added. translations: a memory file of ours, or < 0. */
static int take_snapshot(const char *which, const char *file, json_t *args, int translations,
                         json_t **did, struct err *e)
{
    struct api_client *c;
    int r = api_client_open(&c, which, SNAPSHOT_PATIENCE_S, e);
    if (r < 0) {
        json_decref(args);
        return r;
    }
    char *path = control_absolute(file);
    json_object_set_new(args, "file", json_string(path));
    free(path);
    if (translations >= 0 && api_client_is_ours(c)) {
        path = xasprintf("/proc/%ld/fd/%d", (long)getpid(), translations);
        json_object_set_new(args, "translations", json_string(path));
        free(path);
    }
    r = api_client_call(c, "x-sosia-snapshot", args, did, e);
    api_client_close(c);
    return r;
}

int control_scratch_snapshot(const char *which, const char *file, int translations, struct err *e)
{
    return take_snapshot(which, file, json_pack("{s:b}", "scratch", true), translations, NULL, e);
}

/* argv: NAME FILE, and options in any place. */
static int snapshot(int argc, char **argv, struct err *e)
{
    const char *names[2] = { NULL, NULL };
    json_t *args = json_object(), *did = NULL;
    unsigned count = 0;
    int r = 0;
    for (int i = 0; i < argc && r == 0; i++) {
        if (strcmp(argv[i], "--compress") == 0) {
            json_object_set_new(args, "compress", json_true());
        } else if (strcmp(argv[i], "--parent") == 0 && i + 1 < argc) {
            char *parent = control_absolute(argv[++i]);
            json_object_set_new(args, "parent", json_string(parent));
            free(parent);
        } else if (argv[i][0] == '-' || count == ARRAY_LEN(names)) {
            r = err_set(e, -EINVAL, "unexpected '%s'", argv[i]);
        } else {
            names[count++] = argv[i];
        }
    }
    if (r == 0 && count != ARRAY_LEN(names)) {
        r = err_set(e, -EINVAL, "the name of a VM, and a file");
    }
    if (r == 0) {
        r = take_snapshot(names[0], names[1], json_incref(args), -1, &did, e);
    }
    if (r == 0) {
        printf("%s: %.1f MiB of memory in %lld ms, the guest stood still for %.1f ms\n", names[1],
               (double)json_integer_value(json_object_get(did, "bytes")) / 1048576,
               (long long)json_integer_value(json_object_get(did, "total-time")),
               (double)json_integer_value(json_object_get(did, "pause-us")) / 1000);
    }
    json_decref(args);
    json_decref(did);
    return r;
}

static const struct {
    const char *name;
    const char *command; /* of the socket; NULL: more than that */
    const char *args;
    const char *help; /* NULL: another name for one that has some */
} verbs[] = {
    { "ls", NULL, "", "the VMs that run" },
    { "info", NULL, "NAME [TOPIC]", "registers, tlb, mem, mtree, pci, devices, engine..." },
    { "screenshot", NULL, "NAME FILE", "its screen as a PNG file" },
    { "snapshot", NULL, "NAME FILE", "the VM as it is now [--parent FILE] [--compress]" },
    { "migrate", NULL, "NAME ADDRESS", "it goes on where sosia run --incoming ADDRESS waits" },
    { "stop", "stop", "NAME", "stop its clock and processors" },
    { "cont", "cont", "NAME", "let them go on" },
    { "powerdown", "system_powerdown", "NAME", "press the power button" },
    { "reset", "system_reset", "NAME", "press the reset button" },
    { "quit", "quit", "NAME", "end it at once, as pulling the plug does" },
    { "kill", "quit", "NAME", NULL },
};

void control_help(FILE *to)
{
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        if (verbs[i].help != NULL) {
            int n = fprintf(to, "       sosia %s %s", verbs[i].name, verbs[i].args);
            fprintf(to, "%*s%s\n", n < 37 ? 37 - n : 1, "", verbs[i].help);
        }
    }
}

bool control_knows(const char *command)
{
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        if (strcmp(command, verbs[i].name) == 0) {
            return true;
        }
    }
    return false;
}

static int run(int argc, char **argv, struct err *e)
{
    if (strcmp(argv[0], "info") == 0) {
        return info(argv[1], argc > 2 ? argv[2] : NULL, e);
    }
    if (strcmp(argv[0], "screenshot") == 0) {
        return screenshot(argv[1], argv[2], e);
    }
    if (strcmp(argv[0], "snapshot") == 0) {
        return snapshot(argc - 1, argv + 1, e);
    }
    if (strcmp(argv[0], "migrate") == 0) {
        return control_migrate(argc - 1, argv + 1, e);
    }
    const char *command = NULL;
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        command = strcmp(argv[0], verbs[i].name) == 0 ? verbs[i].command : command;
    }
    return plain(argv[1], command, NULL, NULL, e);
}

int control_main(int argc, char **argv)
{
    struct err e = { 0 };
    bool is_ls = strcmp(argv[0], "ls") == 0;
    int least = is_ls ? 1 : strcmp(argv[0], "screenshot") == 0 ? 3 : 2;
    bool has_options = strcmp(argv[0], "snapshot") == 0 || strcmp(argv[0], "migrate") == 0;
    int most = strcmp(argv[0], "info") == 0 ? 3 : has_options ? argc : least;
    if (argc < least || argc > most) {
        fprintf(stderr, "sosia: %s: %s (see sosia help)\n", argv[0],
                argc < least ? "the name of a VM is missing" : "too many arguments");
        return 1;
    }
    if ((is_ls ? ls(&e) : run(argc, argv, &e)) < 0) {
        fprintf(stderr, "sosia: %s: %s\n", is_ls ? argv[0] : argv[1], e.msg);
        return 1;
    }
    return 0;
}
