/* SPDX-License-Identifier: Apache-2.0
 *
 * `sosia disk`: disk images made, described, converted and repaired without a VM. Each command is a
 * function of its parsed options that returns 0, a negative errno with a line in e, or a status of
 * its own for the program to end with.
 */
#ifndef SOSIA_CLI_DISK_H
#define SOSIA_CLI_DISK_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"
#include "block/image.h"

struct disk_options {
    const char *format;         /* -f; NULL: by content */
    const char *out_format;     /* -O */
    const char *parent;         /* -b; "": none */
    const char *parent_format;  /* -F */
    const char *snapshot;       /* -l */
    struct block_create create; /* -o */
    bool json;
    bool compress;
    bool repair;
    bool shrink;
    bool unsafe;
    bool chain;
    bool quiet;
    int argc; /* what is left: names and sizes */
    char **argv;
};

int disk_main(int argc, char **argv);
void disk_help(FILE *to);

/* "10G", a plain number counts bytes. */
MUST_CHECK int disk_size(const char *text, uint64_t *bytes, struct err *e);
MUST_CHECK int disk_options_parse(struct disk_options *o, const char *allowed, int argc,
                                  char **argv, struct err *e);
/* Opens argv[0] with -f. */
MUST_CHECK int disk_open(struct block **out, const struct disk_options *o, unsigned flags,
                         struct err *e);

int disk_create(const struct disk_options *o, struct err *e);
int disk_info(const struct disk_options *o, struct err *e);
int disk_map(const struct disk_options *o, struct err *e);
int disk_check(const struct disk_options *o, struct err *e);
int disk_convert(const struct disk_options *o, struct err *e);
int disk_resize(const struct disk_options *o, struct err *e);
int disk_snapshot(const struct disk_options *o, struct err *e);
int disk_merge(const struct disk_options *o, struct err *e);

/* What of an image and its parents is at offset, and how far that goes: the first that holds
 * something. depth may be NULL. kind HOLE: none does, zeroes. */
MUST_CHECK int disk_extent(struct block *b, uint64_t offset, uint64_t len, struct block_extent *out,
                           unsigned *depth);

/* -- Long operations -- */
struct disk_progress {
    uint64_t total;
    bool shown;
    int percent;
};
void disk_progress_start(struct disk_progress *p, uint64_t total, bool quiet);
void disk_progress_set(struct disk_progress *p, uint64_t done);
void disk_progress_end(struct disk_progress *p);
/* SIGINT, SIGTERM, SIGHUP are caught from here on: what is half done can be taken back. */
void disk_catch_signals(void);
bool disk_interrupted(void);

#endif
