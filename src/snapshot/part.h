/* SPDX-License-Identifier: Apache-2.0
 *
 * A snapshot while it is written: FILE.part, which becomes FILE when it is whole. What was called
 * FILE stays until then, whatever is killed when; what is left of a part is replaced by the next.
 */
#ifndef SOSIA_SNAPSHOT_PART_H
#define SOSIA_SNAPSHOT_PART_H

#include <stdbool.h>

#include "snapshot/file.h"

struct part {
    char *path; /* owned: FILE */
    char *part; /* owned: FILE.part */
    int fd;     /* -1: it is not open */
};

/* An empty one, which is ours alone. After a failure, too, part_close. */
MUST_CHECK int part_open(struct part *p, const char *path, struct err *e);
/* Renames it. durable: the name is on the medium before it returns; its bytes are the writer's
 * business. */
MUST_CHECK int part_publish(struct part *p, bool durable, struct err *e);
/* Removes what was not published. */
void part_close(struct part *p);

/* The parent's name and id into the header of what is to be path. Both lie in one directory, so
 * that a chain is found whole by who looks at one, and moves as a whole. */
MUST_CHECK int part_name_parent(struct snapfile_header *h, const char *path, const char *parent,
                                const uint8_t id[SNAPFILE_ID], struct err *e);

/* The directory of a path; free() it. */
char *part_directory(const char *path);
/* fsync of a file or directory; of the directory that a file is in. -errno */
MUST_CHECK int part_sync(const char *path);
MUST_CHECK int part_sync_directory(const char *path);

#endif
