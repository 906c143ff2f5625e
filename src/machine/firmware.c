/* SPDX-License-Identifier: Apache-2.0
 *
 * Firmware images as distributions install them: SeaBIOS and, when asked for, OVMF.
 */
#include "machine/firmware.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/bytes.h"
#include "boot/loader.h"
#include "machine/machine.h"
#include "machine/pc.h"

#define IMAGE_MAX MIB(16)
#define IMAGE_UNIT KIB(64)
#define SERIAL_CONSOLE 0x3f8

static const char *const bios_paths[] = {
    "/usr/share/seabios/bios-256k.bin",
    "/usr/share/qemu/bios-256k.bin",
    "/usr/share/qemu-kvm/bios-256k.bin",
    NULL,
};

int firmware_read_file(const char *path, size_t max, uint8_t **data, size_t *len, struct err *e)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0) {
        int r = err_set(e, -errno, "%s: %s", path, strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        return r;
    }
    if (!S_ISREG(st.st_mode) || st.st_size <= 0 || (uint64_t)st.st_size > max) {
        close(fd);
        return err_set(e, -EFBIG, "%s: not a file of 1 to %zu bytes", path, max);
    }
    size_t size = (size_t)st.st_size, got = 0;
    uint8_t *bytes = xzalloc(size);
    while (got < size) {
        ssize_t n = pread(fd, bytes + got, size - got, (off_t)got);
        if (n <= 0 && !(n < 0 && errno == EINTR)) {
            break;
        }
        got += n > 0 ? (size_t)n : 0;
    }
    close(fd);
    if (got < size) {
        free(bytes);
        return err_set(e, -EIO, "%s: cannot be read", path);
    }
    *data = bytes;
    *len = size;
    return 0;
}

static const char *first_there(const char *const *paths)
{
    for (; *paths != NULL; paths++) {
        if (access(*paths, R_OK) == 0) {
            return *paths;
        }
    }
    return NULL;
}

static int find_bios(const char **path, struct err *e)
{
    *path = first_there(bios_paths);
    return *path != NULL ? 0
                         : err_set(e, -ENOENT,
                                   "no SeaBIOS here: install the package seabios, or name an image "
                                   "with --firmware FILE");
}

/* -- fw_cfg ------------------------------------------------------------------------------------ */
int firmware_tables(struct pc *p, struct err *e)
{
    struct machine *m = p->machine;
    uint32_t ids[MACHINE_MAX_CPUS];
    struct boot_machine board = { .cpus = m->cpu_count, .apic_ids = ids };
    for (unsigned i = 0; i < m->cpu_count; i++) {
        ids[i] = m->cpus[i]->apic_id;
    }
    pc_describe(p, &board);
    struct loader_files files;
    loader_build(&files, &board, gmem_ram_below_4g(m->mem), gmem_ram_size(m->mem));
    int r = 0;
    for (unsigned i = 0; i < LOADER_FILES && r == 0; i++) {
        const struct loader_file *f = &files.file[i];
        r = fw_cfg_replace_file(&p->fw_cfg, f->name, f->data, (uint32_t)f->size);
        if (r == -ENOENT) {
            r = fw_cfg_add_file(&p->fw_cfg, f->name, f->data, (uint32_t)f->size);
        }
    }
    loader_free(&files);
    return r < 0 ? err_set(e, r, "fw_cfg: no room for tables") : 0;
}

/* Without a screen the BIOS's text is wanted where the kernel's is. */
static int console_file(struct pc *p, const struct machine_config *c, struct err *e)
{
    if (c->serial[0].kind == SERIAL_ABSENT) {
        return 0;
    }
    uint8_t port[8];
    store_le64(port, SERIAL_CONSOLE);
    int r = fw_cfg_add_file(&p->fw_cfg, "etc/sercon-port", port, sizeof port);
    return r < 0 ? err_set(e, r, "fw_cfg: no room for etc/sercon-port") : 0;
}

/* -- The image --------------------------------------------------------------------------------- */
static int show_bios(struct pc *p, const uint8_t *image, size_t size, struct err *e)
{
    struct gmem *mem = p->machine->mem;
    uint64_t page;
    if (size % IMAGE_UNIT != 0) {
        return err_set(e, -EINVAL, "%zu bytes of firmware: not a multiple of 64 KiB", size);
    }
    int r = gmem_map_rom(mem, GIB(4) - size, image, size, e);
    if (r < 0) {
        return r;
    }
    size_t low = size < I440FX_ROM_BYTES ? size : I440FX_ROM_BYTES;
    uint8_t *copy = xzalloc(I440FX_ROM_BYTES);
    memcpy(copy + I440FX_ROM_BYTES - low, image + size - low, low);
    r = gmem_add_rom(mem, copy, I440FX_ROM_BYTES, &page, e);
    free(copy);
    if (r == 0) {
        i440fx_set_rom(&p->host, page);
    }
    return r;
}

int firmware_init(struct pc *p, const struct machine_config *c, struct err *e)
{
    const char *path = c->firmware != NULL ? c->firmware : "bios";
    int r = 0;
    if (strcmp(path, "bios") == 0) {
        r = find_bios(&path, e);
    }
    uint8_t *image = NULL;
    size_t size = 0;
    if (r == 0) {
        r = firmware_read_file(path, IMAGE_MAX, &image, &size, e);
    }
    if (r == 0) {
        r = show_bios(p, image, size, e);
    }
    free(image);
    if (r == 0) {
        r = console_file(p, c, e);
    }
    if (r == 0) {
        r = firmware_tables(p, e);
    }
    return r < 0 ? err_prefix(e, r, "firmware") : 0;
}
