/* SPDX-License-Identifier: Apache-2.0
 *
 * `sosia migrate NAME ADDRESS`: begins a migration over the VM's control socket, watches it, and
 * ends the process that the VM has left. Interrupted, it cancels.
 */
#include "cli/control_migrate.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "api/client.h"
#include "cli/control.h"
#include "cli/options.h"

#define PATIENCE_S 30u
#define LOOK_NS 50000000

struct migrate_options {
    const char *name, *address;
    json_t *parameters; /* owned, as the next */
    json_t *capabilities;
};

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

static void add_capability(json_t *list, const char *name)
{
    json_array_append_new(list, json_pack("{s:s, s:b}", "capability", name, "state", 1));
}

static int add_number(json_t *parameters, const char *key, const char *option, const char *text,
                      struct err *e)
{
    char *end;
    errno = 0;
    unsigned long n = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || n > UINT32_MAX) {
        return err_set(e, -EINVAL, "%s: '%s' is not a number", option, text);
    }
    json_object_set_new(parameters, key, json_integer((json_int_t)n));
    return 0;
}

/* An option with a value. */
static int take_option(struct migrate_options *o, const char *option, const char *value,
                       struct err *e)
{
    uint64_t bytes;
    if (strcmp(option, "--streams") == 0) {
        add_capability(o->capabilities, "multifd");
        return add_number(o->parameters, "multifd-channels", option, value, e);
    }
    if (strcmp(option, "--downtime") == 0) {
        return add_number(o->parameters, "downtime-limit", option, value, e);
    }
    if (strcmp(option, "--bandwidth") == 0) {
        int r = options_size(value, &bytes, e);
        json_object_set_new(o->parameters, "max-bandwidth",
                            json_integer(r == 0 ? (json_int_t)bytes : 0));
        return r < 0 ? err_prefix(e, r, "%s", option) : 0;
    }
    if (strcmp(option, "--tls") == 0) {
        char *dir = control_absolute(value);
        json_object_set_new(o->parameters, "tls-creds", json_string(dir));
        free(dir);
        return 0;
    }
    return err_set(e, -EINVAL, "unexpected '%s'", option);
}

/* argv: NAME ADDRESS, and options in any place. */
static int parse(struct migrate_options *o, int argc, char **argv, struct err *e)
{
    bool throttle = true;
    int r = 0;
    for (int i = 0; i < argc && r == 0; i++) {
        if (strcmp(argv[i], "--compress") == 0) {
            add_capability(o->capabilities, "compress");
        } else if (strcmp(argv[i], "--no-throttle") == 0) {
            throttle = false;
        } else if (argv[i][0] == '-') {
            r = i + 1 < argc ? take_option(o, argv[i], argv[i + 1], e)
                             : err_set(e, -EINVAL, "unexpected '%s'", argv[i]);
            i++;
        } else if (o->address != NULL) {
            r = err_set(e, -EINVAL, "unexpected '%s'", argv[i]);
        } else {
            *(o->name == NULL ? &o->name : &o->address) = argv[i];
        }
    }
    if (r == 0 && o->address == NULL) {
        r = err_set(e, -EINVAL, "the name of a VM, and unix:PATH or tcp:HOST:PORT");
    }
    if (throttle) {
        add_capability(o->capabilities, "auto-converge");
    }
    return r;
}

static json_int_t number_in(const json_t *j, const char *key)
{
    return json_integer_value(json_object_get(j, key));
}

static void show_progress(const json_t *now, bool end)
{
    const json_t *ram = json_object_get(now, "ram");
    if (isatty(STDERR_FILENO)) {
        fprintf(stderr, "\r%8lld of %lld MiB to go, %lld sent, pass %lld\033[K%s",
                (long long)number_in(ram, "remaining") >> 20,
                (long long)number_in(ram, "total") >> 20,
                (long long)number_in(ram, "transferred") >> 20,
                (long long)number_in(ram, "dirty-sync-count"), end ? "\r\033[K" : "");
    }
}

static int judge(const struct migrate_options *o, const json_t *now, struct err *e)
{
    const char *status = json_string_value(json_object_get(now, "status"));
    const char *why = json_string_value(json_object_get(now, "error-desc"));
    const json_t *ram = json_object_get(now, "ram");
    if (status != NULL && strcmp(status, "completed") == 0) {
        printf("%s: moved to %s in %lld ms, %.1f MiB sent in %lld passes, the guest stood still "
               "for %.1f ms\n",
               o->name, o->address, (long long)number_in(now, "total-time"),
               (double)number_in(ram, "transferred") / 1048576,
               (long long)number_in(ram, "dirty-sync-count"),
               (double)number_in(now, "x-sosia-downtime-us") / 1000);
        return 0;
    }
    if (json_is_true(json_object_get(now, "x-sosia-unknown"))) {
        return err_set(e, -EIO, "%s; it stands here: look there, then `sosia cont` or `sosia quit` "
                                "it here", why);
    }
    return err_set(e, -EIO, "%s; the VM goes on here", why != NULL ? why : "cancelled");
}

static int watch(struct api_client *c, const struct migrate_options *o, struct err *e)
{
    const struct timespec pause = { .tv_nsec = LOOK_NS };
    bool cancelled = false;
    for (;;) {
        json_t *now = NULL;
        int r = api_client_call(c, "query-migrate", NULL, &now, e);
        const char *status = json_string_value(json_object_get(now, "status"));
        bool over = status == NULL || strcmp(status, "completed") == 0 ||
                    strcmp(status, "failed") == 0 || strcmp(status, "cancelled") == 0;
        if (r == 0) {
            show_progress(now, over);
        }
        if (r < 0 || over) {
            r = r < 0 ? r : judge(o, now, e);
            json_decref(now);
            return r;
        }
        json_decref(now);
        if (interrupted && !cancelled) {
            cancelled = true;
            r = api_client_call(c, "migrate_cancel", NULL, NULL, e);
            if (r < 0) {
                return r;
            }
        }
        nanosleep(&pause, NULL);
    }
}

static int do_it(struct api_client *c, const struct migrate_options *o, struct err *e)
{
    struct sigaction act = { .sa_handler = on_signal };
    json_t *uri = json_pack("{s:s}", "uri", o->address);
    if (uri == NULL) {
        return err_set(e, -EINVAL, "'%s' is no UTF-8", o->address);
    }
    int r = api_client_call(c, "migrate-set-parameters", json_incref(o->parameters), NULL, e);
    if (r == 0) {
        r = api_client_call(c, "migrate-set-capabilities",
                            json_pack("{s:O}", "capabilities", o->capabilities), NULL, e);
    }
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
    if (r == 0) {
        r = api_client_call(c, "migrate", uri, NULL, e);
    } else {
        json_decref(uri);
    }
    if (r == 0) {
        r = watch(c, o, e);
    }
    /* Nobody needs the process that it has left. */
    return r < 0 ? r : api_client_call(c, "quit", NULL, NULL, e);
}

int control_migrate(int argc, char **argv, struct err *e)
{
    struct migrate_options o = { .parameters = json_object(), .capabilities = json_array() };
    struct api_client *c;
    int r = parse(&o, argc, argv, e);
    if (r == 0) {
        r = api_client_open(&c, o.name, PATIENCE_S, e);
    }
    if (r == 0) {
        r = do_it(c, &o, e);
        api_client_close(c);
    }
    json_decref(o.parameters);
    json_decref(o.capabilities);
    return r;
}
