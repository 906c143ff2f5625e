/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/vmconfig.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bits.h"

#define FORWARDS_MAX 64u
#define STRINGS_MAX 512u

enum kind { END, NUMBER, TEXT, PATH };

struct field {
    const char *name;
    enum kind kind;
    uint32_t offset;
    uint32_t size; /* NUMBER: 1, 2, 4 or 8 bytes */
};

#define FIELD(T, kind, m) { #m, kind, offsetof(struct T, m), sizeof(((struct T *)0)->m) }
#define FIELD_END { NULL, END, 0, 0 }

/* Numbers are cut to their member's size on reading, so that a bool is the only one with values
 * that it cannot hold; those are written as bytes and checked there. */
static const struct field machine_fields[] = {
    FIELD(sosia_config, TEXT, cpu_model),
    FIELD(sosia_config, NUMBER, cpus),
    FIELD(sosia_config, NUMBER, memory_bytes),
    FIELD(sosia_config, PATH, kernel),
    FIELD(sosia_config, PATH, firmware),
    FIELD(sosia_config, NUMBER, screen),
    FIELD(sosia_config, PATH, initrd),
    FIELD(sosia_config, TEXT, append),
    FIELD(sosia_config, NUMBER, disk_count),
    FIELD(sosia_config, NUMBER, net_count),
    FIELD(sosia_config, NUMBER, console_count),
    FIELD(sosia_config, NUMBER, rng),
    FIELD(sosia_config, NUMBER, tablet),
    FIELD(sosia_config, NUMBER, balloon),
    FIELD(sosia_config, NUMBER, balloon_bytes),
    FIELD(sosia_config, PATH, vsock),
    FIELD(sosia_config, NUMBER, vsock_cid),
    FIELD(sosia_config, NUMBER, exit_port),
    FIELD(sosia_config, NUMBER, no_reboot),
    FIELD(sosia_config, NUMBER, virtual_time),
    FIELD(sosia_config, NUMBER, code_cache_bytes),
    FIELD_END,
};
static const struct field serial_fields[] = {
    FIELD(sosia_serial, NUMBER, kind),
    FIELD(sosia_serial, PATH, path),
    FIELD(sosia_serial, TEXT, name),
    FIELD_END,
};
static const struct field disk_fields[] = {
    FIELD(sosia_disk, PATH, path),       FIELD(sosia_disk, TEXT, format),
    FIELD(sosia_disk, TEXT, serial),     FIELD(sosia_disk, NUMBER, bus),
    FIELD(sosia_disk, NUMBER, readonly), FIELD(sosia_disk, NUMBER, ephemeral),
    FIELD(sosia_disk, NUMBER, cdrom),    FIELD(sosia_disk, NUMBER, packed),
    FIELD_END,
};
/* The address is made up, as a rule, and is the state's business then. */
static const struct field net_fields[] = {
    FIELD(sosia_net, NUMBER, kind),       FIELD(sosia_net, NUMBER, model),
    FIELD(sosia_net, TEXT, interface),    FIELD(sosia_net, TEXT, hostname),
    FIELD(sosia_net, NUMBER, restricted), FIELD(sosia_net, NUMBER, forward_count),
    FIELD(sosia_net, NUMBER, has_mac),    FIELD(sosia_net, NUMBER, mac[0]),
    FIELD(sosia_net, NUMBER, mac[1]),     FIELD(sosia_net, NUMBER, mac[2]),
    FIELD(sosia_net, NUMBER, mac[3]),     FIELD(sosia_net, NUMBER, mac[4]),
    FIELD(sosia_net, NUMBER, mac[5]),     FIELD(sosia_net, NUMBER, queues),
    FIELD(sosia_net, NUMBER, packed),     FIELD_END,
};
static const struct field forward_fields[] = {
    FIELD(sosia_forward, NUMBER, udp),
    FIELD(sosia_forward, NUMBER, host_addr),
    FIELD(sosia_forward, NUMBER, host_port),
    FIELD(sosia_forward, NUMBER, guest_port),
    FIELD_END,
};

struct vmconfig {
    struct sosia_config config;
    struct sosia_disk disk[SOSIA_DISKS_MAX];
    struct sosia_net net[SOSIA_NETS_MAX];
    struct sosia_forward forward[SOSIA_NETS_MAX][FORWARDS_MAX];
    struct sosia_serial console[SOSIA_CONSOLES_MAX];
    char *string[STRINGS_MAX]; /* owned */
    unsigned strings;
};

/* -- Writing ----------------------------------------------------------------------------------- */
static uint64_t number(const struct field *f, const uint8_t *obj)
{
    uint64_t v = 0;
    memcpy(&v, obj + f->offset, f->size); /* hosts are little-endian */
    return v;
}

static const char *string(const struct field *f, const uint8_t *obj)
{
    const char *s;
    memcpy(&s, obj + f->offset, sizeof s);
    return s;
}

/* A name of a file, as opposed to a word like "bios" or the name of something on a network. */
static bool is_relative(const char *path)
{
    return path[0] != '/' && strcmp(path, "bios") != 0 && strcmp(path, "uefi") != 0 &&
           strncmp(path, "nbd", 3) != 0;
}

static void put_text(FILE *to, const char *s)
{
    for (; *s != '\0'; s++) {
        if ((unsigned char)*s < ' ' || *s == '%' || *s == 0x7f) {
            fprintf(to, "%%%02x", (unsigned char)*s);
        } else {
            fputc(*s, to);
        }
    }
}

static void put_fields(FILE *to, const char *prefix, const struct field *f, const void *obj)
{
    char cwd[PATH_MAX];
    for (; f->kind != END; f++) {
        if (f->kind == NUMBER) {
            fprintf(to, "%s%s=%" PRIu64 "\n", prefix, f->name, number(f, obj));
            continue;
        }
        const char *s = string(f, obj);
        if (s == NULL) {
            continue;
        }
        fprintf(to, "%s%s=", prefix, f->name);
        if (f->kind == PATH && is_relative(s) && getcwd(cwd, sizeof cwd) != NULL) {
            put_text(to, cwd);
            fputc('/', to);
        }
        put_text(to, s);
        fputc('\n', to);
    }
}

char *vmconfig_text(const struct sosia_config *c)
{
    char *text = NULL, prefix[32];
    size_t len;
    FILE *to = open_memstream(&text, &len);
    if (to == NULL) {
        return xstrdup("");
    }
    put_fields(to, "", machine_fields, c);
    for (unsigned i = 0; i < SOSIA_SERIAL_PORTS; i++) {
        snprintf(prefix, sizeof prefix, "serial.%u.", i);
        put_fields(to, prefix, serial_fields, &c->serial[i]);
    }
    for (unsigned i = 0; i < c->console_count && i < SOSIA_CONSOLES_MAX; i++) {
        snprintf(prefix, sizeof prefix, "console.%u.", i);
        put_fields(to, prefix, serial_fields, &c->consoles[i]);
    }
    for (unsigned i = 0; i < c->disk_count && i < SOSIA_DISKS_MAX; i++) {
        snprintf(prefix, sizeof prefix, "disk.%u.", i);
        put_fields(to, prefix, disk_fields, &c->disks[i]);
    }
    for (unsigned i = 0; i < c->net_count && i < SOSIA_NETS_MAX; i++) {
        snprintf(prefix, sizeof prefix, "net.%u.", i);
        put_fields(to, prefix, net_fields, &c->nets[i]);
        for (unsigned k = 0; k < c->nets[i].forward_count && k < FORWARDS_MAX; k++) {
            snprintf(prefix, sizeof prefix, "net.%u.forward.%u.", i, k);
            put_fields(to, prefix, forward_fields, &c->nets[i].forwards[k]);
        }
    }
    fclose(to);
    return text;
}

/* -- Reading ----------------------------------------------------------------------------------- */
const char *vmconfig_keep(struct vmconfig *v, const char *text)
{
    if (v->strings == STRINGS_MAX) {
        return NULL;
    }
    return v->string[v->strings++] = xstrdup(text);
}

/* "%0a" and the like back to bytes, in place. False: malformed, or a NUL. */
static bool unescape(char *s)
{
    char *to = s;
    for (; *s != '\0'; s++) {
        unsigned byte;
        if (*s != '%') {
            *to++ = *s;
        } else if (s[1] != '\0' && s[2] != '\0' && sscanf(s + 1, "%2x", &byte) == 1 && byte != 0) {
            *to++ = (char)byte;
            s += 2;
        } else {
            return false;
        }
    }
    *to = '\0';
    return true;
}

/* "disk.3." of the name: which object it is about; NULL: none of ours. */
static void *find_object(struct vmconfig *v, const char **name, const struct field **fields)
{
    static const char *const lists[] = { "serial", "console", "disk", "net" };
    static const unsigned limits[] = { SOSIA_SERIAL_PORTS, SOSIA_CONSOLES_MAX, SOSIA_DISKS_MAX,
                                       SOSIA_NETS_MAX };
    unsigned i, k;
    char list[16];
    int used = 0, more = 0;
    *fields = machine_fields;
    if (sscanf(*name, "%15[a-z].%u.%n", list, &i, &used) != 2 || used == 0) {
        return &v->config;
    }
    *name += used;
    unsigned n = 0;
    while (n < ARRAY_LEN(lists) && strcmp(list, lists[n]) != 0) {
        n++;
    }
    if (n == ARRAY_LEN(lists) || i >= limits[n]) {
        return NULL;
    }
    if (n == 3 && sscanf(*name, "forward.%u.%n", &k, &more) == 1 && more != 0) {
        *name += more;
        *fields = forward_fields;
        return k < FORWARDS_MAX ? &v->forward[i][k] : NULL;
    }
    *fields = n < 2 ? serial_fields : n == 2 ? disk_fields : net_fields;
    switch (n) {
    case 0:
        return &v->config.serial[i];
    case 1:
        return &v->console[i];
    case 2:
        return &v->disk[i];
    default:
        return &v->net[i];
    }
}

static bool set_number(const struct field *f, uint8_t *obj, const char *value)
{
    char *end;
    errno = 0;
    uint64_t n = strtoull(value, &end, 10);
    uint64_t max = f->size == 8 ? UINT64_MAX : (1ull << 8 * f->size) - 1;
    if (errno != 0 || end == value || *end != '\0' || n > max) {
        return false;
    }
    memcpy(obj + f->offset, &n, f->size);
    return true;
}

static int set_line(struct vmconfig *v, char *line, struct err *e)
{
    char *value = strchr(line, '=');
    const char *name = line;
    const struct field *f;
    if (value == NULL) {
        return err_set(e, -EINVAL, "configuration: a line without a value");
    }
    *value++ = '\0';
    uint8_t *obj = find_object(v, &name, &f);
    while (obj != NULL && f->kind != END && strcmp(f->name, name) != 0) {
        f++;
    }
    if (obj == NULL || f->kind == END) {
        return err_set(e, -EINVAL, "configuration: '%.60s' is not known to this sosia", line);
    }
    if (f->kind == NUMBER) {
        return set_number(f, obj, value)
                   ? 0
                   : err_set(e, -EINVAL, "configuration: %.60s: not a number it can be", line);
    }
    const char *kept = unescape(value) ? vmconfig_keep(v, value) : NULL;
    if (kept == NULL) {
        return err_set(e, -EINVAL, "configuration: %.60s: malformed", line);
    }
    memcpy(obj + f->offset, &kept, sizeof kept);
    return 0;
}

/* Bools came as bytes: any other value in one would be undefined behaviour to look at. */
static bool bools_good(const struct field *f, const void *obj, const char *const *names)
{
    for (; f->kind != END; f++) {
        for (const char *const *n = names; *n != NULL; n++) {
            if (f->kind == NUMBER && strcmp(f->name, *n) == 0 && number(f, obj) > 1) {
                return false;
            }
        }
    }
    return true;
}

static bool counts_and_bools_good(struct vmconfig *v)
{
    static const char *const bools[] = { "screen",   "rng",       "balloon", "no_reboot",
                                         "readonly", "ephemeral", "cdrom",   "packed",
                                         "has_mac",  "udp",       "restricted",
                                         "virtual_time", "tablet", NULL };
    struct sosia_config *c = &v->config;
    bool good = c->disk_count <= SOSIA_DISKS_MAX && c->net_count <= SOSIA_NETS_MAX &&
                c->console_count <= SOSIA_CONSOLES_MAX && bools_good(machine_fields, c, bools);
    for (unsigned i = 0; good && i < SOSIA_DISKS_MAX; i++) {
        good = bools_good(disk_fields, &v->disk[i], bools) &&
               (i >= c->disk_count || v->disk[i].path != NULL);
    }
    for (unsigned i = 0; good && i < SOSIA_NETS_MAX; i++) {
        good = v->net[i].forward_count <= FORWARDS_MAX && bools_good(net_fields, &v->net[i], bools);
        for (unsigned k = 0; good && k < FORWARDS_MAX; k++) {
            good = bools_good(forward_fields, &v->forward[i][k], bools);
        }
    }
    return good;
}

int vmconfig_parse(struct vmconfig **out, const char *text, size_t len, struct err *e)
{
    if (len > VMCONFIG_TEXT_MAX || memchr(text, '\0', len) != NULL) {
        return err_set(e, -EINVAL, "configuration: malformed");
    }
    struct vmconfig *v = xzalloc(sizeof *v);
    sosia_config_init(&v->config);
    v->config.disks = v->disk;
    v->config.nets = v->net;
    v->config.consoles = v->console;
    for (unsigned i = 0; i < SOSIA_NETS_MAX; i++) {
        v->net[i].forwards = v->forward[i];
    }
    char *copy = xzalloc(len + 1);
    memcpy(copy, text, len);
    int r = 0;
    char *rest = copy;
    for (char *line; r == 0 && (line = strsep(&rest, "\n")) != NULL;) {
        r = line[0] != '\0' ? set_line(v, line, e) : 0;
    }
    free(copy);
    if (r == 0 && !counts_and_bools_good(v)) {
        r = err_set(e, -EINVAL, "configuration: values that cannot be");
    }
    if (r < 0) {
        vmconfig_free(v);
        return r;
    }
    *out = v;
    return 0;
}

void vmconfig_free(struct vmconfig *v)
{
    if (v != NULL) {
        for (unsigned i = 0; i < v->strings; i++) {
            free(v->string[i]);
        }
        free(v);
    }
}

struct sosia_disk *vmconfig_disk(struct vmconfig *v, unsigned n) { return &v->disk[n]; }
struct sosia_serial *vmconfig_console(struct vmconfig *v, unsigned n) { return &v->console[n]; }
struct sosia_config *vmconfig_config(struct vmconfig *v) { return &v->config; }
