/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/disk.h"

#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bits.h"

static volatile sig_atomic_t caught; /* a signal's number */

static const struct command {
    const char *name;
    const char *options; /* letters of disk_options.c */
    int min, max;        /* arguments */
    int (*run)(const struct disk_options *o, struct err *e);
} commands[] = {
    { "create", "fobFq", 1, 2, disk_create },
    { "info", "fjUl", 1, 1, disk_info },
    { "map", "fjUl", 1, 1, disk_map },
    { "check", "frjUq", 1, 1, disk_check },
    { "convert", "fOocblFUq", 2, 2, disk_convert },
    { "resize", "fsq", 2, 2, disk_resize },
    { "snapshot", "fj", 2, 3, disk_snapshot },
    { "merge", "fbFuq", 1, 1, disk_merge },
};

void disk_help(FILE *to)
{
    fputs(
        "usage: sosia disk create [-f FORMAT] [-o KEY=VALUE,...] [-b BACKING -F FORMAT]\n"
        "                         IMAGE [SIZE]\n"
        "       sosia disk info [--json] [--chain] IMAGE\n"
        "       sosia disk map [--json] IMAGE\n"
        "       sosia disk check [--repair] [--json] IMAGE\n"
        "       sosia disk convert -O FORMAT [-c] [-o KEY=VALUE,...] [-l SNAPSHOT]\n"
        "                          [-b BACKING -F FORMAT] SOURCE TARGET\n"
        "       sosia disk resize [--shrink] IMAGE [+|-]SIZE\n"
        "       sosia disk snapshot create|apply|delete IMAGE NAME\n"
        "       sosia disk snapshot list [--json] IMAGE\n"
        "       sosia disk merge IMAGE                      its contents go into its backing file\n"
        "       sosia disk merge -b BACKING [-F FORMAT] [--unsafe] IMAGE   another backing file;\n"
        "                                                   \"\": none\n"
        "formats: raw qcow2 vmdk vdi vhd vhdx; -f FORMAT: do not guess by content\n"
        "SIZE: a number of bytes, or with K M G T\n"
        "-o: cluster_size= compat= compression_type= lazy_refcounts= refcount_bits= subformat=\n"
        "    preallocation=\n"
        "-q: no progress on the terminal\n",
        to);
}

static void on_signal(int number) { caught = number; }

void disk_catch_signals(void)
{
    static const int numbers[] = { SIGINT, SIGTERM, SIGHUP };
    struct sigaction sa = { .sa_handler = on_signal };
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        struct sigaction before;
        if (sigaction(numbers[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN) {
            sigaction(numbers[i], &sa, NULL);
        }
    }
}

bool disk_interrupted(void) { return caught != 0; }

void disk_progress_start(struct disk_progress *p, uint64_t total, bool quiet)
{
    *p = (struct disk_progress){ .total = total, .percent = -1 };
    p->shown = !quiet && isatty(STDERR_FILENO);
}

void disk_progress_set(struct disk_progress *p, uint64_t done)
{
    int percent = p->total == 0 ? 100 : (int)((double)done / (double)p->total * 100);
    if (p->shown && percent != p->percent) {
        p->percent = percent;
        fprintf(stderr, "\r%3d%%", percent);
    }
}

void disk_progress_end(struct disk_progress *p)
{
    if (p->shown && p->percent >= 0) {
        fprintf(stderr, "\r    \r");
    }
}

int disk_open(struct block **out, const struct disk_options *o, unsigned flags, struct err *e)
{
    struct block_options b = { .path = o->argv[0], .format = o->format, .flags = flags };
    return o->snapshot != NULL ? block_open_snapshot(out, &b, o->snapshot, e)
                               : block_open(out, &b, e);
}

int disk_extent(struct block *b, uint64_t offset, uint64_t len, struct block_extent *out,
                unsigned *depth)
{
    unsigned level = 0;
    for (;; level++) {
        int r = block_map(b, offset, len, out);
        if (r < 0) {
            return r;
        }
        len = out->len;
        struct block *parent = block_parent(b);
        if (out->kind != BLOCK_HOLE || parent == NULL || offset >= block_size(parent)) {
            break;
        }
        uint64_t left = block_size(parent) - offset;
        len = len < left ? len : left;
        b = parent;
    }
    if (depth != NULL) {
        *depth = level;
    }
    return 0;
}

static int finish(int r, const struct err *e)
{
    if (fflush(stdout) != 0 && r >= 0) {
        fprintf(stderr, "sosia: standard output: %s\n", strerror(errno));
        return 1;
    }
    if (r < 0) {
        fprintf(stderr, "sosia: %s\n", e->msg);
    }
    if (caught != 0) {
        signal(caught, SIG_DFL);
        raise(caught);
    }
    return r < 0 ? 1 : r;
}

int disk_main(int argc, char **argv)
{
    struct disk_options o;
    struct err e = { "" };
    const char *name = argc > 1 ? argv[1] : "";
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        disk_help(stdout);
        return finish(0, &e);
    }
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        const struct command *c = &commands[i];
        if (strcmp(c->name, name) != 0) {
            continue;
        }
        /* "resize IMAGE -1G": what comes off is no option. getopt moves names behind options, so
         * that it stays next to them. */
        bool less = argc > 2 && argv[argc - 1][0] == '-' &&
                    isdigit((unsigned char)argv[argc - 1][1]);
        int r = disk_options_parse(&o, c->options, argc - 1 - less, argv + 1, &e);
        o.argc += less;
        if (r == 0 && (o.argc < c->min || o.argc > c->max)) {
            r = err_set(&e, -EINVAL, "disk %s: %s (see sosia disk help)", name,
                        o.argc < c->min ? "something is missing" : "too many arguments");
        }
        return finish(r < 0 ? r : c->run(&o, &e), &e);
    }
    if (argc < 2) {
        disk_help(stderr);
        return 1;
    }
    err_set(&e, -EINVAL, "disk: unknown command '%s' (see sosia disk help)", name);
    return finish(-EINVAL, &e);
}
