/* SPDX-License-Identifier: Apache-2.0
 *
 * A kernel or module to load: a file on the host, or bytes in memory. Nothing is held in memory of
 * ours; loaders read the parts they need, and bulk goes straight to guest RAM.
 */
#ifndef SOSIA_BOOT_FILE_H
#define SOSIA_BOOT_FILE_H

#include <stdint.h>

#include "base/err.h"
#include "mem/gmem.h"

struct boot_file {
    char *name;          /* owned; for messages and multiboot command lines */
    int fd;              /* owned; -1: bytes in memory */
    const uint8_t *data; /* borrowed */
    uint64_t size;
};

/* A regular file, not empty. Errors read "NAME: No such file or directory". */
MUST_CHECK int boot_file_open(struct boot_file *f, const char *path, struct err *e);
/* data is borrowed until close. */
void boot_file_memory(struct boot_file *f, const char *name, const void *data, uint64_t size);
void boot_file_close(struct boot_file *f);

/* "NAME: what is wrong with it"; -EINVAL. */
int boot_file_bad(const struct boot_file *f, struct err *e, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* The whole range or an error that names the file. */
MUST_CHECK int boot_file_read(struct boot_file *f, uint64_t offset, void *buf, uint64_t len,
                              struct err *e);
MUST_CHECK int boot_file_to_guest(struct boot_file *f, uint64_t offset, struct gmem *mem, gpa_t gpa,
                                  uint64_t len, struct err *e);

#endif
