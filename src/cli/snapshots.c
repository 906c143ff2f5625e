/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/snapshots.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "cli/text.h"
#include "snapshot/merge.h"

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

static void print_entry(void *ctx, const struct snapshot_entry *s)
{
    unsigned *count = ctx;
    const struct snapfile_header *h = s->header;
    if ((*count)++ == 0) {
        printf("%-19s  %10s  %10s  NAME\n", "MADE", "MEMORY", "STORED");
    }
    if (h != NULL) {
        char when[TEXT_WHEN];
        printf("%-19s  %6llu MiB  %6.1f MiB  ", text_when(when, h->wall_ns / 1000000000u),
               (unsigned long long)(h->ram_pages >> 8), (double)h->stored / 256);
    } else {
        printf("%-19s  %10s  %10s  ", "?", "?", "?");
    }
    printf("%*s", (int)(2 * s->depth), "");
    text_plain(base_name(s->path));
    if (s->problem != NULL) {
        printf("  (");
        text_plain(s->problem);
        putchar(')');
    }
    putchar('\n');
}

static int list(int argc, char **argv, struct err *e)
{
    unsigned count = 0;
    return snapshot_list(argc > 0 ? argv[0] : ".", print_entry, &count, e);
}

static int merge(int argc, char **argv, struct err *e)
{
    return snapshot_merge(argv[0], argc > 1 ? argv[1] : NULL, e);
}

static void say_freed(void *ctx, const struct snapshot_entry *s)
{
    const char *gone = ctx;
    text_plain(s->path);
    printf(": needs ");
    text_plain(gone);
    printf(" no more\n");
}

static int prune(int argc, char **argv, struct err *e)
{
    int r = 0;
    for (int i = 0; i < argc && r == 0; i++) {
        r = snapshot_prune(argv[i], say_freed, argv[i], e);
    }
    return r;
}

static const struct {
    const char *name;
    int (*run)(int argc, char **argv, struct err *e);
    int least, most;
    const char *args;
} verbs[] = {
    { "--list", list, 0, 1, "[DIRECTORY|FILE]" },
    { "--merge", merge, 1, 2, "FILE [PARENT]" },
    { "--prune", prune, 1, 1 << 20, "FILE..." },
};

bool snapshots_know(int argc, char **argv)
{
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        if (argc > 1 && strcmp(argv[1], verbs[i].name) == 0) {
            return true;
        }
    }
    return false;
}

void snapshots_help(FILE *to)
{
    fputs("       sosia snapshot --list [DIR]   those in a directory, and what they rest on\n"
          "       sosia snapshot --merge FILE   let it rest on none [or on PARENT alone]\n"
          "       sosia snapshot --prune FILE   remove it from under those that rest on it\n",
          to);
}

int snapshots_main(int argc, char **argv)
{
    struct err e = { "" };
    int r = 0;
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        if (strcmp(argv[1], verbs[i].name) != 0) {
            continue;
        }
        int rest = argc - 2;
        r = rest < verbs[i].least || rest > verbs[i].most
                ? err_set(&e, -EINVAL, "usage: sosia snapshot %s %s", verbs[i].name, verbs[i].args)
                : verbs[i].run(rest, argv + 2, &e);
    }
    if (r < 0) {
        fprintf(stderr, "sosia: %s\n", e.msg);
    }
    return r < 0 ? 1 : 0;
}
