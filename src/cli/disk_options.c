/* SPDX-License-Identifier: Apache-2.0 -- the command lines of `sosia disk` */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "cli/disk.h"

static const struct option long_options[] = {
    { "format", required_argument, NULL, 'f' },
    { "output-format", required_argument, NULL, 'O' },
    { "options", required_argument, NULL, 'o' },
    { "backing", required_argument, NULL, 'b' },
    { "backing-format", required_argument, NULL, 'F' },
    { "snapshot", required_argument, NULL, 'l' },
    { "compress", no_argument, NULL, 'c' },
    { "json", no_argument, NULL, 'j' },
    { "chain", no_argument, NULL, 'U' },
    { "repair", no_argument, NULL, 'r' },
    { "shrink", no_argument, NULL, 's' },
    { "unsafe", no_argument, NULL, 'u' },
    { "quiet", no_argument, NULL, 'q' },
    { NULL, 0, NULL, 0 },
};

int disk_size(const char *text, uint64_t *bytes, struct err *e)
{
    static const char units[] = "KMGTP";
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || errno != 0) {
        return err_set(e, -EINVAL, "'%s' is not a size: use a number and K, M, G or T", text);
    }
    unsigned shift = 0;
    if (*end != '\0') {
        const char *unit = strchr(units, toupper((unsigned char)*end));
        if (unit == NULL || end[1] != '\0') {
            return err_set(e, -EINVAL, "'%s' is not a size: use a number and K, M, G or T", text);
        }
        shift = 10 * (unsigned)(unit - units + 1);
    }
    if (n > BLOCK_SIZE_MAX >> shift) {
        return err_set(e, -ERANGE, "'%s' is too large a size", text);
    }
    *bytes = (uint64_t)n << shift;
    return 0;
}

static int parse_switch(const char *key, const char *value, bool *out, struct err *e)
{
    if (strcmp(value, "on") != 0 && strcmp(value, "off") != 0) {
        return err_set(e, -EINVAL, "-o %s: on or off", key);
    }
    *out = strcmp(value, "on") == 0;
    return 0;
}

static int parse_compat(const char *value, unsigned *out, struct err *e)
{
    static const struct {
        const char *text;
        unsigned version;
    } known[] = { { "0.10", 2 }, { "v2", 2 }, { "2", 2 }, { "1.1", 3 }, { "v3", 3 }, { "3", 3 } };
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        if (strcmp(value, known[i].text) == 0) {
            *out = known[i].version;
            return 0;
        }
    }
    return err_set(e, -EINVAL, "-o compat: 0.10 or 1.1");
}

static int parse_key(struct block_create *c, const char *key, const char *value, struct err *e)
{
    uint64_t n;
    int r = 0;
    if (strcmp(key, "cluster_size") == 0 || strcmp(key, "block_size") == 0) {
        c->given |= BLOCK_KEY_CLUSTER_SIZE;
        r = disk_size(value, &c->cluster_size, e);
    } else if (strcmp(key, "compat") == 0) {
        c->given |= BLOCK_KEY_COMPAT;
        r = parse_compat(value, &c->compat, e);
    } else if (strcmp(key, "compression_type") == 0) {
        c->given |= BLOCK_KEY_COMPRESSION;
        c->compression = value;
    } else if (strcmp(key, "lazy_refcounts") == 0) {
        c->given |= BLOCK_KEY_LAZY_REFCOUNTS;
        r = parse_switch(key, value, &c->lazy_refcounts, e);
    } else if (strcmp(key, "refcount_bits") == 0) {
        c->given |= BLOCK_KEY_REFCOUNT_BITS;
        r = disk_size(value, &n, e);
        if (r == 0 && (n == 0 || n > 64)) {
            r = err_set(e, -EINVAL, "-o refcount_bits: a power of two up to 64");
        }
        c->refcount_bits = r == 0 ? (unsigned)n : 0;
    } else if (strcmp(key, "subformat") == 0) {
        c->given |= BLOCK_KEY_SUBFORMAT;
        c->subformat = value;
    } else if (strcmp(key, "preallocation") == 0) {
        c->given |= BLOCK_KEY_PREALLOCATION;
        c->preallocation = value;
    } else {
        r = err_set(e, -EINVAL, "-o %s: unknown (see sosia disk help)", key);
    }
    return r;
}

/* text is argv's, and is cut into pieces in place. */
static int parse_keys(struct block_create *c, char *text, struct err *e)
{
    char *rest = text;
    for (char *item = strsep(&rest, ","); item != NULL; item = strsep(&rest, ",")) {
        char *value = strchr(item, '=');
        if (value == NULL || value[1] == '\0') {
            return err_set(e, -EINVAL, "-o '%s' is not KEY=VALUE", item);
        }
        *value++ = '\0';
        int r = parse_key(c, item, value, e);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static int parse_one(struct disk_options *o, int option, char *arg, struct err *e)
{
    switch (option) {
    case 'f':
        o->format = arg;
        return 0;
    case 'O':
        o->out_format = arg;
        return 0;
    case 'o':
        return parse_keys(&o->create, arg, e);
    case 'b':
        o->parent = arg;
        return 0;
    case 'F':
        o->parent_format = arg;
        return 0;
    case 'l':
        o->snapshot = arg;
        return 0;
    case 'c':
        o->compress = true;
        return 0;
    case 'j':
        o->json = true;
        return 0;
    case 'U':
        o->chain = true;
        return 0;
    case 'r':
        o->repair = true;
        return 0;
    case 's':
        o->shrink = true;
        return 0;
    case 'u':
        o->unsafe = true;
        return 0;
    default:
        o->quiet = true;
        return 0;
    }
}

int disk_options_parse(struct disk_options *o, const char *allowed, int argc, char **argv,
                       struct err *e)
{
    memset(o, 0, sizeof *o);
    opterr = 0;
    optind = 0; /* glibc: scan this argv from its start */
    for (;;) {
        int option = getopt_long(argc, argv, ":f:O:o:b:F:l:cq", long_options, NULL);
        if (option == -1) {
            break;
        }
        if (option == ':') {
            return err_set(e, -EINVAL, "option %s needs an argument", argv[optind - 1]);
        }
        if (option == '?' || strchr(allowed, option) == NULL) {
            return err_set(e, -EINVAL, "disk %s: unknown or ambiguous option %s", argv[0],
                           option != '?' && optind > 1 ? argv[optind - 1 - (optarg != NULL)]
                                                       : argv[optind - 1]);
        }
        int r = parse_one(o, option, optarg, e);
        if (r < 0) {
            return r;
        }
    }
    o->argc = argc - optind;
    o->argv = argv + optind;
    return 0;
}
