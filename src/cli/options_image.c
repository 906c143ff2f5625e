/* SPDX-License-Identifier: Apache-2.0 -- IMAGE: what a file is, by its content */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "cli/options.h"

#define ISO_MAGIC_AT 0x8001 /* of the first volume descriptor (ECMA-119 8.1) */
#define LINUX_MAGIC_AT 0x202
#define MULTIBOOT_MAGIC 0x1badb002u
#define MULTIBOOT_WITHIN 8192u

/* What machine/start.c can load; the loader checks the rest. */
static bool is_kernel(const uint8_t *head, size_t len)
{
    if (len > 4 && memcmp(head, "\177ELF", 4) == 0) {
        return true;
    }
    if (len > LINUX_MAGIC_AT + 4 && memcmp(head + LINUX_MAGIC_AT, "HdrS", 4) == 0) {
        return true;
    }
    for (size_t i = 0; i + 12 <= len; i += 4) {
        uint32_t word[3];
        memcpy(word, head + i, sizeof word);
        if (word[0] == MULTIBOOT_MAGIC && word[0] + word[1] + word[2] == 0) {
            return true;
        }
    }
    return false;
}

int options_image(struct run_options *o, char *path, struct err *e)
{
    struct sosia_config *c = &o->config;
    uint8_t head[MULTIBOOT_WITHIN];
    char iso[5] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return err_set(e, -errno, "%s: %s", path, strerror(errno));
    }
    ssize_t n = pread(fd, head, sizeof head, 0);
    ssize_t m = pread(fd, iso, sizeof iso, ISO_MAGIC_AT);
    close(fd);
    if (n < 0) {
        return err_set(e, -EISDIR, "%s: cannot be read", path);
    }
    if (n < 512) {
        return err_set(e, -EINVAL, "%s: %s", path,
                       n == 0 ? "the file is empty" : "neither a kernel nor a disk");
    }
    bool is_iso = m == (ssize_t)sizeof iso && memcmp(iso, "CD001", sizeof iso) == 0;
    if (!is_iso && is_kernel(head, (size_t)n)) {
        if (c->kernel != NULL) {
            return err_set(e, -EINVAL, "%s: only one kernel can be booted", path);
        }
        c->kernel = path;
        return 0;
    }
    if (c->disk_count == SOSIA_DISKS_MAX) {
        return err_set(e, -E2BIG, "there are only %d disks", SOSIA_DISKS_MAX);
    }
    o->disk[c->disk_count++] = (struct sosia_disk){ .path = path, .cdrom = is_iso };
    return 0;
}
