/* SPDX-License-Identifier: Apache-2.0
 *
 * Commands of the control socket: moving to another process. Names, arguments and answers as QEMU
 * 7.2 has them, as far as they go.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/command.h"
#include "base/alloc.h"
#include "base/bits.h"
#include "machine/machine.h"
#include "migrate/migrate.h"

static bool is_under_way(struct api_migration *a)
{
    struct migrate_stats s;
    if (a->running == NULL) {
        return false;
    }
    migrate_look(a->running, &s);
    return !migrate_over(s.status);
}

/* What is known of the last one stays until the next. */
static int migrate(struct api_call *c)
{
    struct api_migration *a = api_migration(c->api);
    struct migrate_parameters p = a->parameters;
    struct migration *g;
    if (is_under_way(a)) {
        return api_refuse(c, -EBUSY, API_GENERIC_ERROR,
                          "There's a migration process in progress");
    }
    if (api_flag(c, "blk", false) || api_flag(c, "inc", false) || api_flag(c, "resume", false)) {
        return api_refuse(c, -ENOTSUP, API_GENERIC_ERROR,
                          "Disks are not copied, they must be shared; nothing is resumed");
    }
    p.streams = a->multifd ? p.streams : 1;
    int r = migrate_start(&g, c->machine, api_string(c, "uri"), &p, &c->e);
    if (r == 0) {
        migrate_free(a->running);
        a->running = g;
    }
    return r;
}

static int cancel(struct api_call *c)
{
    struct api_migration *a = api_migration(c->api);
    if (a->running != NULL) {
        migrate_cancel(a->running);
    }
    return 0;
}

static json_int_t ms(uint64_t ns) { return (json_int_t)(ns / 1000000); }

static json_t *ram(const struct migrate_stats *s)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f}", "transferred",
                     (json_int_t)s->transferred, "remaining", (json_int_t)s->remaining, "total",
                     (json_int_t)s->total, "duplicate", (json_int_t)s->zero_pages, "normal",
                     (json_int_t)s->whole_pages, "normal-bytes",
                     (json_int_t)(s->whole_pages * GMEM_PAGE_SIZE), "dirty-pages-rate",
                     (json_int_t)s->dirty_rate, "dirty-sync-count", (json_int_t)s->passes,
                     "page-size", (json_int_t)GMEM_PAGE_SIZE, "mbps",
                     (double)s->bandwidth * 8 / 1e6);
}

static int query(struct api_call *c)
{
    struct api_migration *a = api_migration(c->api);
    struct migrate_stats s;
    if (a->running == NULL) {
        return 0;
    }
    migrate_look(a->running, &s);
    c->result = json_pack("{s:s, s:I, s:I, s:o, s:i}", "status", migrate_status_name(s.status),
                          "total-time", ms(s.total_ns), "setup-time", ms(s.setup_ns), "ram",
                          ram(&s), "cpu-throttle-percentage", (int)s.throttle);
    if (s.status == MIGRATE_COMPLETED) {
        json_object_set_new(c->result, "downtime", json_integer(ms(s.downtime_ns)));
        json_object_set_new(c->result, "x-sosia-downtime-us",
                            json_integer((json_int_t)(s.downtime_ns / 1000)));
    } else if (s.status == MIGRATE_FAILED) {
        json_object_set_new(c->result, "error-desc", api_json_text(s.error.msg));
        json_object_set_new(c->result, "x-sosia-unknown", json_boolean(s.unknown));
    } else if (s.bandwidth != 0) {
        json_object_set_new(c->result, "expected-downtime",
                            json_integer((json_int_t)(s.remaining * 1000 / s.bandwidth)));
    }
    return 0;
}

/* -- Parameters -------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    size_t at;
} numbers[] = {
    { "cpu-throttle-increment", offsetof(struct migrate_parameters, cpu_throttle_increment) },
    { "cpu-throttle-initial", offsetof(struct migrate_parameters, cpu_throttle_initial) },
    { "downtime-limit", offsetof(struct migrate_parameters, downtime_limit) },
    { "max-cpu-throttle", offsetof(struct migrate_parameters, max_cpu_throttle) },
    { "multifd-channels", offsetof(struct migrate_parameters, streams) },
};

static unsigned *number_at(struct migrate_parameters *p, size_t at)
{
    return (unsigned *)((char *)p + at);
}

static int set_parameters(struct api_call *c)
{
    struct api_migration *a = api_migration(c->api);
    struct migrate_parameters p = a->parameters;
    int64_t bandwidth = api_integer(c, "max-bandwidth", (int64_t)p.max_bandwidth);
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        unsigned *number = number_at(&p, numbers[i].at);
        int64_t value = api_integer(c, numbers[i].name, *number);
        *number = value < 0 || value > UINT32_MAX ? UINT32_MAX : (unsigned)value;
    }
    if (bandwidth < 0) {
        return api_refuse(c, -EINVAL, API_GENERIC_ERROR, "max-bandwidth: bytes per second, or 0");
    }
    p.max_bandwidth = (uint64_t)bandwidth;
    const char *tls = api_string(c, "tls-creds"); /* "": none again, as in QEMU */
    char *dir = tls != NULL && tls[0] != '\0' ? xstrdup(tls) : NULL;
    p.tls = tls != NULL ? dir : p.tls;
    int r = migrate_check(&p, &c->e);
    if (r == 0 && tls != NULL) {
        free(a->tls);
        a->tls = dir;
    } else {
        free(dir);
    }
    if (r == 0) {
        a->parameters = p;
        if (a->running != NULL) {
            migrate_change(a->running, &p);
        }
    }
    return r;
}

static int query_parameters(struct api_call *c)
{
    struct api_migration *a = api_migration(c->api);
    c->result = json_pack("{s:I}", "max-bandwidth", (json_int_t)a->parameters.max_bandwidth);
    json_object_set_new(c->result, "tls-creds", api_json_text(a->tls != NULL ? a->tls : ""));
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        json_object_set_new(c->result, numbers[i].name,
                            json_integer(*number_at(&a->parameters, numbers[i].at)));
    }
    return 0;
}

/* -- Capabilities ------------------------------------------------------------------------------ */

static bool get_capability(const struct api_migration *a, unsigned n, const char **name)
{
    static const char *const names[] = { "auto-converge", "compress", "events", "multifd" };
    *name = n < ARRAY_LEN(names) ? names[n] : NULL;
    return n == 0   ? a->parameters.auto_converge
           : n == 1 ? a->parameters.compress
           : n == 2 ? atomic_load(&a->events)
                    : a->multifd;
}

static void set_capability(struct api_migration *a, unsigned n, bool on)
{
    switch (n) {
    case 0:
        a->parameters.auto_converge = on;
        break;
    case 1:
        a->parameters.compress = on;
        break;
    case 2:
        atomic_store(&a->events, on);
        break;
    default:
        a->multifd = on;
    }
}

/* The number of what a list's entry names; -EINVAL. */
static int find_capability(struct api_call *c, json_t *entry, bool *on)
{
    const char *wanted = json_string_value(json_object_get(entry, "capability")), *name;
    json_t *state = json_object_get(entry, "state");
    if (wanted == NULL || !json_is_boolean(state)) {
        return api_refuse(c, -EINVAL, API_GENERIC_ERROR,
                          "capabilities: a list of {capability, state}");
    }
    *on = json_is_true(state);
    for (unsigned n = 0; get_capability(api_migration(c->api), n, &name), name != NULL; n++) {
        if (strcmp(wanted, name) == 0) {
            return (int)n;
        }
    }
    return api_refuse(c, -EINVAL, API_GENERIC_ERROR,
                      "capability '%s' is not here: auto-converge, compress, events, multifd are",
                      wanted);
}

static int set_capabilities(struct api_call *c)
{
    struct api_migration *a = api_migration(c->api);
    json_t *list = json_object_get(c->args, "capabilities"), *entry;
    size_t i;
    bool on;
    if (is_under_way(a)) {
        return api_refuse(c, -EBUSY, API_GENERIC_ERROR,
                          "There's a migration process in progress");
    }
    json_array_foreach (list, i, entry) {
        int n = find_capability(c, entry, &on);
        if (n < 0) {
            return n;
        }
    }
    json_array_foreach (list, i, entry) {
        int n = find_capability(c, entry, &on);
        set_capability(a, (unsigned)n, on);
    }
    return migrate_check(&a->parameters, &c->e);
}

static int query_capabilities(struct api_call *c)
{
    const char *name;
    c->result = json_array();
    for (unsigned n = 0;; n++) {
        bool on = get_capability(api_migration(c->api), n, &name);
        if (name == NULL) {
            return 0;
        }
        json_array_append_new(c->result, json_pack("{s:s, s:b}", "capability", name, "state", on));
    }
}

const struct api_command api_migrate_commands[] = {
    { "migrate", migrate, "uri:str ?blk:bool ?inc:bool ?detach:bool ?resume:bool" },
    { "migrate_cancel", cancel, NULL },
    { "migrate-set-capabilities", set_capabilities, "capabilities:arr" },
    { "migrate-set-parameters", set_parameters,
      "?cpu-throttle-increment:int ?cpu-throttle-initial:int ?downtime-limit:int "
      "?max-bandwidth:int ?max-cpu-throttle:int ?multifd-channels:int "
      "?tls-creds:str" },
    { "query-migrate", query, NULL },
    { "query-migrate-capabilities", query_capabilities, NULL },
    { "query-migrate-parameters", query_parameters, NULL },
    { NULL, NULL, NULL },
};
