/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/options.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"

enum long_only {
    OPT_CPU = 256,
    OPT_SERIAL,
    OPT_DISPLAY,
    OPT_NO_REBOOT,
    OPT_EXIT_PORT,
    OPT_BT_CACHE,
    OPT_BT_DUMP,
    OPT_PERF_MAP,
    OPT_VIRTUAL_TIME,
    OPT_CDROM,
    OPT_FLOPPY,
    OPT_RNG,
    OPT_TABLET,
    OPT_BALLOON,
    OPT_VSOCK,
    OPT_CONSOLE,
    OPT_FIRMWARE,
    OPT_UEFI_VARS,
    OPT_SCREENSHOT,
    OPT_GDB,
    OPT_API,
    OPT_NAME,
    OPT_EPHEMERAL,
    OPT_INCOMING,
    OPT_TLS,
};

static const struct option long_options[] = {
    {"engine", required_argument, NULL, 'e'},
    {"memory", required_argument, NULL, 'm'},
    {"cpus", required_argument, NULL, 'c'},
    {"cpu", required_argument, NULL, OPT_CPU},
    {"kernel", required_argument, NULL, 'k'},
    {"initrd", required_argument, NULL, 'i'},
    {"append", required_argument, NULL, 'a'},
    {"net", required_argument, NULL, 'n'},
    {"display", required_argument, NULL, OPT_DISPLAY},
    {"ephemeral", no_argument, NULL, OPT_EPHEMERAL},
    {"incoming", required_argument, NULL, OPT_INCOMING},
    {"tls", required_argument, NULL, OPT_TLS},
    {"serial", required_argument, NULL, OPT_SERIAL},
    {"no-reboot", no_argument, NULL, OPT_NO_REBOOT},
    {"exit-port", required_argument, NULL, OPT_EXIT_PORT},
    {"bt-cache", required_argument, NULL, OPT_BT_CACHE},
    {"bt-dump", required_argument, NULL, OPT_BT_DUMP},
    {"perf-map", no_argument, NULL, OPT_PERF_MAP},
    {"virtual-time", no_argument, NULL, OPT_VIRTUAL_TIME},
    {"verbose", no_argument, NULL, 'v'},
    {"help", no_argument, NULL, 'h'},
    {"disk", required_argument, NULL, 'd'},
    {"cdrom", required_argument, NULL, OPT_CDROM},
    {"rng", no_argument, NULL, OPT_RNG},
    {"tablet", no_argument, NULL, OPT_TABLET},
    {"balloon", optional_argument, NULL, OPT_BALLOON},
    {"vsock", required_argument, NULL, OPT_VSOCK},
    {"console", required_argument, NULL, OPT_CONSOLE},
    {"floppy", required_argument, NULL, OPT_FLOPPY},
    {"firmware", required_argument, NULL, OPT_FIRMWARE},
    {"uefi-vars", required_argument, NULL, OPT_UEFI_VARS},
    {"screenshot", required_argument, NULL, OPT_SCREENSHOT},
    {"gdb", required_argument, NULL, OPT_GDB},
    {"paused", no_argument, NULL, 'S'},
    {"api", required_argument, NULL, OPT_API},
    {"name", required_argument, NULL, OPT_NAME},
    {NULL, 0, NULL, 0},
};

int options_size(const char *text, uint64_t *bytes, struct err *e)
{
    static const char units[] = "KMGT";
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || errno != 0) {
        return err_set(e, -EINVAL, "'%s' is not a size: use a number and K, M, G or T", text);
    }
    unsigned shift = 20;
    if (*end != '\0') {
        const char *unit = strchr(units, toupper((unsigned char)*end));
        if (unit == NULL || end[1] != '\0') {
            return err_set(e, -EINVAL, "'%s' is not a size: use a number and K, M, G or T", text);
        }
        shift = 10 * (unsigned)(unit - units + 1);
    }
    if (n > UINT64_MAX >> shift) {
        return err_set(e, -ERANGE, "'%s' is too large a size", text);
    }
    *bytes = (uint64_t)n << shift;
    return 0;
}

static int parse_number(const char *what, const char *text, unsigned long max, unsigned long *out,
                        struct err *e)
{
    char *end;
    errno = 0;
    unsigned long n = strtoul(text, &end, 0);
    if (!isdigit((unsigned char)text[0]) || *end != '\0') {
        return err_set(e, -EINVAL, "%s: '%s' is not a number", what, text);
    }
    if (errno != 0 || n > max) {
        return err_set(e, -ERANGE, "%s: '%s' is too large", what, text);
    }
    *out = n;
    return 0;
}

/* option: what to call it in messages. port: its number for callbacks. */
static int parse_port(struct run_options *o, const char *option, struct sosia_serial *s, int port,
                      const char *text, struct err *e)
{
    if (o->stdio_port == port) {
        o->stdio_port = -1;
    }
    if (strcmp(text, "stdio") == 0) {
        if (o->stdio_port >= 0) {
            return err_set(e, -EINVAL, "%s: stdio can be only one port", option);
        }
        s->kind = SOSIA_SERIAL_CALLBACK;
        o->stdio_port = port;
    } else if (strcmp(text, "none") == 0) {
        s->kind = SOSIA_SERIAL_NONE;
    } else if (strcmp(text, "pty") == 0) {
        s->kind = SOSIA_SERIAL_PTY;
    } else if (strncmp(text, "file=", 5) == 0 && text[5] != '\0') {
        s->kind = SOSIA_SERIAL_FILE;
        s->path = text + 5;
    } else if (strncmp(text, "unix=", 5) == 0 && text[5] != '\0') {
        s->kind = SOSIA_SERIAL_UNIX;
        s->path = text + 5;
    } else {
        return err_set(e, -EINVAL, "%s: '%s' is not stdio, none, file=F, unix=PATH or pty", option,
                       text);
    }
    return 0;
}

static int parse_serial(struct run_options *o, unsigned port, const char *text, struct err *e)
{
    if (port >= SOSIA_SERIAL_PORTS) {
        return err_set(e, -EINVAL, "--serial: there are only %d ports", SOSIA_SERIAL_PORTS);
    }
    return parse_port(o, "--serial", &o->config.serial[port], (int)port, text, e);
}

/* KIND[,name=NAME] */
static int parse_console(struct run_options *o, char *text, struct err *e)
{
    if (o->config.console_count == SOSIA_CONSOLES_MAX) {
        return err_set(e, -EINVAL, "--console: there are only %d ports", SOSIA_CONSOLES_MAX);
    }
    unsigned n = o->config.console_count++;
    char *name = strstr(text, ",name=");
    if (name != NULL) {
        *name = '\0';
        o->console[n].name = name + 6;
    }
    return parse_port(o, "--console", &o->console[n], (int)(SOSIA_SERIAL_PORTS + n), text, e);
}

static int parse_engine(const char *text, struct err *e)
{
    static const char *const known[] = {
        "auto", "bt", "kvm", "interp", "kvm,irqchip=none", "kvm,irqchip=split", "kvm,irqchip=full",
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(text, known[i]) == 0) {
            return 0;
        }
    }
    return err_set(e, -EINVAL,
                   "--engine: '%s' is not auto, bt, interp, kvm or kvm,irqchip=none|split|full",
                   text);
}

/* FILE[,FIRST[-LAST]]: linear addresses in hexadecimal. */
static int parse_bt_dump(struct run_options *o, char *text, struct err *e)
{
    struct sosia_config *c = &o->config;
    char *comma = strrchr(text, ',');
    c->dump_code = text;
    if (comma == NULL) {
        return 0;
    }
    char *end;
    c->dump_first = c->dump_last = strtoull(comma + 1, &end, 16);
    if (*end == '-') {
        c->dump_last = strtoull(end + 1, &end, 16);
    }
    if (end == comma + 1 || *end != '\0' || c->dump_last < c->dump_first) {
        return err_set(e, -EINVAL, "--bt-dump: '%s' is not FIRST[-LAST] in hexadecimal", comma + 1);
    }
    *comma = '\0';
    return 0;
}

static int parse_one(struct run_options *o, int option, char *arg, unsigned *serials,
                     struct err *e)
{
    unsigned long n = 0;
    int r = 0;
    static const char *const machines[] = { "memory", "cpus",  "cpu",     "kernel", "initrd",
                                            "append", "disk",  "cdrom",   "floppy", "firmware",
                                            "rng",    "vsock", "console", "balloon",
                                            "tablet" };
    const char *name = "";
    for (const struct option *l = long_options; l->name != NULL; l++) {
        name = l->val == option ? l->name : name;
    }
    bool ready_made = o->snapshot != NULL || o->incoming != NULL;
    for (size_t i = 0; ready_made && i < ARRAY_LEN(machines); i++) {
        if (strcmp(name, machines[i]) == 0) {
            return err_set(e, -EINVAL, "--%s: a %s brings its own machine", name,
                           o->snapshot != NULL ? "snapshot" : "VM that comes");
        }
    }
    switch (option) {
    case 'e':
        o->config.engine = arg;
        return parse_engine(arg, e);
    case 'm':
        r = options_size(arg, &o->config.memory_bytes, e);
        return r < 0 ? err_prefix(e, r, "--memory") : 0;
    case 'c':
        r = parse_number("--cpus", arg, UINT32_MAX, &n, e);
        o->config.cpus = (unsigned)n;
        return r;
    case OPT_CPU:
        o->config.cpu_model = arg;
        return 0;
    case 'k':
        o->config.kernel = arg;
        return 0;
    case 'i':
        o->config.initrd = arg;
        return 0;
    case 'a':
        o->config.append = arg;
        return 0;
    case OPT_FIRMWARE:
        o->config.firmware = arg;
        return 0;
    case OPT_SCREENSHOT:
        o->screenshot = arg;
        o->config.screen = true;
        return 0;
    case OPT_API:
        o->api = arg;
        return 0;
    case OPT_NAME:
        o->name = arg;
        return 0;
    case OPT_GDB:
        o->gdb = arg;
        return 0;
    case 'S':
        o->paused = true;
        return 0;
    case OPT_UEFI_VARS:
        o->config.uefi_vars = arg;
        return 0;
    case OPT_EPHEMERAL:
        o->ephemeral = true;
        return o->snapshot != NULL ? 0 : err_set(e, -EINVAL, "--ephemeral is for sosia restore; "
                                                 "here it is -d FILE,ephemeral");
    case 'n':
        if (ready_made && !o->nets_given) {
            o->nets_given = true;
            o->config.net_count = 0;
        }
        return options_net(o, arg, e);
    case 'd':
        return options_disk(o, arg, OPTIONS_DISK, e);
    case OPT_CDROM:
        return options_disk(o, arg, OPTIONS_CDROM, e);
    case OPT_FLOPPY:
        return options_disk(o, arg, OPTIONS_FLOPPY, e);
    case OPT_RNG:
        o->config.rng = true;
        return 0;
    case OPT_TABLET:
        o->config.tablet = true;
        return 0;
    case OPT_BALLOON:
        o->config.balloon = true;
        r = arg != NULL ? options_size(arg, &o->config.balloon_bytes, e) : 0;
        return r < 0 ? err_prefix(e, r, "--balloon") : 0;
    case OPT_VSOCK:
        return options_vsock(o, arg, e);
    case OPT_CONSOLE:
        return parse_console(o, arg, e);
    case OPT_INCOMING:
        return o->incoming != NULL ? 0 : err_set(e, -EINVAL, "--incoming is for sosia run, once");
    case OPT_TLS:
        return o->incoming != NULL ? 0 : err_set(e, -EINVAL, "--tls goes with --incoming");
    case OPT_DISPLAY:
        return options_display(o, arg, e);
    case OPT_SERIAL:
        return parse_serial(o, (*serials)++, arg, e);
    case OPT_NO_REBOOT:
        o->config.no_reboot = true;
        return 0;
    case OPT_EXIT_PORT:
        r = parse_number("--exit-port", arg, 0xfffc, &n, e);
        o->config.exit_port = (int)n;
        return r;
    case OPT_BT_CACHE:
        r = options_size(arg, &o->config.code_cache_bytes, e);
        return r < 0 ? err_prefix(e, r, "--bt-cache") : 0;
    case OPT_BT_DUMP:
        return parse_bt_dump(o, arg, e);
    case OPT_PERF_MAP:
        o->config.perf_map = true;
        return 0;
    case OPT_VIRTUAL_TIME:
        o->config.virtual_time = true;
        return 0;
    case 'v':
        o->verbose++;
        return 0;
    default: /* 'h' */
        o->help = true;
        return 0;
    }
}

/* A configuration that is there, in our own lists. */
static void begin_with(struct run_options *o)
{
    struct sosia_config *c = &o->config;
    memcpy(o->net, c->nets, c->net_count * sizeof o->net[0]);
    memcpy(o->console, c->consoles, c->console_count * sizeof o->console[0]);
    o->stdio_port = -1;
    for (int i = 0; i < SOSIA_SERIAL_PORTS && o->stdio_port < 0; i++) {
        o->stdio_port = c->serial[i].kind == SOSIA_SERIAL_CALLBACK ? i : -1;
    }
}

/* The snapshot's configuration to begin with. */
static int begin_restore(struct run_options *o, const char *path, struct err *e)
{
    char error[SOSIA_ERROR_BYTES];
    struct sosia_config *c = &o->config;
    int r = sosia_snapshot_open(&o->snapshot, path, error);
    if (r < 0) {
        return err_set(e, r, "%s", error);
    }
    sosia_snapshot_config(o->snapshot, c);
    begin_with(o);
    return 0;
}

static void say_listening(const char *where)
{
    fprintf(stderr, "sosia: a VM may come to %s\n", where);
}

/* The value of an option that is needed before the others, wherever it is; NULL: not given. */
static const char *find_early(int argc, char **argv, const char *name)
{
    size_t len = strlen(name);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], name) == 0) {
            return i + 1 < argc ? argv[i + 1] : NULL;
        }
        if (strncmp(argv[i], name, len) == 0 && argv[i][len] == '=') {
            return argv[i] + len + 1;
        }
    }
    return NULL;
}

/* The same of a VM that comes: this waits for it. */
static int begin_incoming(struct run_options *o, const char *address, const char *tls,
                          struct err *e)
{
    char error[SOSIA_ERROR_BYTES];
    int r = sosia_incoming_open(&o->incoming, address, tls, say_listening, error);
    if (r < 0) {
        return err_set(e, r, "--incoming: %s", error);
    }
    sosia_incoming_config(o->incoming, &o->config);
    memcpy(o->disk, o->config.disks, o->config.disk_count * sizeof o->disk[0]);
    begin_with(o);
    return 0;
}

int options_keep_disks(struct run_options *o, const char *prefix, struct err *e)
{
    char error[SOSIA_ERROR_BYTES];
    struct sosia_config c;
    int r = o->ephemeral ? 0 : sosia_snapshot_keep_disks(o->snapshot, prefix, error);
    if (r < 0) {
        return err_set(e, r, "%s", error);
    }
    sosia_snapshot_config(o->snapshot, &c);
    memcpy(o->disk, c.disks, c.disk_count * sizeof o->disk[0]);
    return 0;
}

int options_parse(struct run_options *o, int argc, char **argv, struct err *e)
{
    unsigned serials = 0;
    memset(o, 0, sizeof *o);
    sosia_config_init(&o->config);
    if (strcmp(argv[0], "restore") == 0 && argc > 1 && argv[1][0] != '-') {
        o->snapshot_path = argv[1];
        int r = begin_restore(o, argv[1], e);
        if (r < 0) {
            return r;
        }
        argc--;
        argv++;
    }
    bool runs = strcmp(argv[0], "run") == 0;
    const char *incoming = runs ? find_early(argc, argv, "--incoming") : NULL;
    if (incoming != NULL) {
        int r = begin_incoming(o, incoming, find_early(argc, argv, "--tls"), e);
        if (r < 0) {
            return r;
        }
    }
    o->config.disks = o->disk;
    o->config.nets = o->net;
    o->config.consoles = o->console;
    opterr = 0;
    optind = 0; /* glibc: scan this argv from its start */
    for (;;) {
        int option = getopt_long(argc, argv, ":e:m:c:k:i:a:d:n:Svh", long_options, NULL);
        if (option == -1) {
            break;
        }
        if (option == '?') {
            const char *text = argv[optind - 1];
            if (optopt != 0 && optopt < 256 && strncmp(text, "--", 2) != 0) {
                return err_set(e, -EINVAL, "unknown option -%c", optopt);
            }
            return err_set(e, -EINVAL, "unknown or ambiguous option %s", text);
        }
        if (option == ':') {
            return err_set(e, -EINVAL, "option %s needs an argument", argv[optind - 1]);
        }
        int r = parse_one(o, option, optarg, &serials, e);
        if (r < 0) {
            return r;
        }
    }
    if (o->help) {
        return 0;
    }
    if (o->snapshot != NULL) {
        return optind < argc ? err_set(e, -EINVAL, "restore: one snapshot, not '%s' too",
                                       argv[optind])
                             : 0;
    }
    if (o->incoming != NULL) {
        return optind < argc ? err_set(e, -EINVAL, "--incoming: the VM that comes brings its own "
                                                   "machine, not '%s' too", argv[optind])
                             : 0;
    }
    if (strcmp(argv[0], "restore") == 0) {
        return err_set(e, -EINVAL, "restore: which snapshot? sosia restore FILE [options]");
    }
    while (optind < argc) {
        int r = options_image(o, argv[optind++], e);
        if (r < 0) {
            return r;
        }
    }
    if (o->config.kernel == NULL && o->config.firmware == NULL && o->config.disk_count == 0) {
        return err_set(e, -EINVAL, "nothing to boot: give a kernel or a disk (see sosia help)");
    }
    return 0;
}
