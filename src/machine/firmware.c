/* SPDX-License-Identifier: Apache-2.0
 *
 * Firmware images as distributions install them: SeaBIOS and OVMF. OVMF comes in two parts: code,
 * which ends at 4 GiB, and right below it the variables, in flash.
 */
#include "machine/firmware.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/bytes.h"
#include "base/log.h"
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

/* Code, and what the variables are at first; both of the same build. */
static const struct {
    const char *code, *vars;
} uefi_paths[] = {
    { "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd" },
    { "/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd" },
    { "/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd" },
    { "/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd" },
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

static unsigned boot_rank(const struct disk *d)
{
    return d->bus == DISK_FLOPPY ? 0 : d->cdrom ? 2 : 1;
}

/* What to start from: floppies, disks, CD-ROMs, each in the order of the command line. */
static int boot_order(struct pc *p, struct err *e)
{
    char text[MACHINE_DISKS_MAX * (sizeof p->disks.disk[0].place + 1) + 1];
    size_t len = 0;
    for (unsigned rank = 0; rank <= 2; rank++) {
        for (unsigned i = 0; i < p->disks.count; i++) {
            const struct disk *d = &p->disks.disk[i];
            if (boot_rank(d) == rank && d->place[0] != '\0') {
                len += (size_t)snprintf(text + len, sizeof text - len, "%s\n", d->place);
            }
        }
    }
    int r = len == 0 ? 0 : fw_cfg_add_file(&p->fw_cfg, "bootorder", text, (uint32_t)len + 1);
    return r < 0 ? err_set(e, r, "fw_cfg: no room for bootorder") : 0;
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

/* -- The screen -------------------------------------------------------------------------------- */
int firmware_add_vga(struct pc *p, struct err *e)
{
    static const char *const roms[] = { "/usr/share/seabios/vgabios-stdvga.bin",
                                        "/usr/share/qemu/vgabios-stdvga.bin", NULL };
    struct machine *m = p->machine;
    const char *path = first_there(roms);
    uint8_t *rom = NULL;
    size_t size = 0;
    int r = path != NULL ? firmware_read_file(path, KIB(64), &rom, &size, e) : 0;
    if (r == 0) {
        r = vga_init(&p->vga, m->bus, i440fx_pci(&p->host), PCI_DEVFN(2, 0), m->clock, rom, size,
                     e);
        p->has_vga = r == 0;
    }
    free(rom);
    return r;
}

#define FRAME_BUFFER 0xfd000000u
#define DEFAULT_WIDTH 1024u
#define DEFAULT_HEIGHT 768u
#define DEFAULT_BPP 32u

static bool set_graphics(struct pc *p, struct boot_screen *s)
{
    s->width = s->width != 0 ? s->width : DEFAULT_WIDTH;
    s->height = s->height != 0 ? s->height : DEFAULT_HEIGHT;
    s->bpp = s->bpp >= 15 ? s->bpp : DEFAULT_BPP;
    if (!vga_set_linear_mode(&p->vga, s->width, s->height, s->bpp)) {
        return false;
    }
    struct pci_bus *pci = i440fx_pci(&p->host);
    pci_config_write(pci, 0, p->vga.pci.devfn, PCI_BAR0, 4, FRAME_BUFFER);
    pci_config_write(pci, 0, p->vga.pci.devfn, PCI_COMMAND, 2,
                     PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
    s->base = FRAME_BUFFER;
    s->pitch = s->width * ((s->bpp + 7u) / 8);
    return true;
}

void firmware_set_screen(struct pc *p, bool graphics, struct boot_screen *s)
{
    if (!p->has_vga) {
        *s = (struct boot_screen){ .base = 0 };
        return;
    }
    vga_set_text_mode(&p->vga);
    if (!graphics || !set_graphics(p, s)) {
        *s = (struct boot_screen){ .base = 0xb8000,
                                   .pitch = 2 * VGA_COLUMNS,
                                   .width = VGA_COLUMNS,
                                   .height = VGA_ROWS,
                                   .bpp = 16,
                                   .text = true };
    }
}

/* -- UEFI's variables -------------------------------------------------------------------------- */
static void vars_changed(void *ctx, uint32_t offset, const void *data, uint32_t len)
{
    struct pc *p = ctx;
    const uint8_t *from = data;
    while (len != 0 && p->vars_fd >= 0) {
        ssize_t n = pwrite(p->vars_fd, from, len, offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            log_err("the file of UEFI's variables: %s", strerror(errno));
            return;
        }
        from += n;
        offset += (uint32_t)n;
        len -= (uint32_t)n;
    }
}

/* Two machines must not write one file. */
static int lock_vars(int fd, const char *path, struct err *e)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    if (fcntl(fd, F_OFD_SETLK, &lock) == 0) {
        return 0;
    }
    return err_set(e, -errno, "%s: %s", path,
                   errno == EAGAIN || errno == EACCES ? "in use by another VM" : strerror(errno));
}

/* vars holds a new machine's, and gets those of the file; a file that is not there is made. */
static int open_vars(struct pc *p, const char *path, uint8_t *vars, size_t size, struct err *e)
{
    struct stat st;
    p->vars_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (p->vars_fd < 0 || fstat(p->vars_fd, &st) < 0) {
        return err_set(e, -errno, "%s: %s", path, strerror(errno));
    }
    int r = lock_vars(p->vars_fd, path, e);
    if (r < 0) {
        return r;
    }
    if (st.st_size == 0) {
        ssize_t n = pwrite(p->vars_fd, vars, size, 0);
        return n == (ssize_t)size ? 0 : err_set(e, -EIO, "%s: cannot be written", path);
    }
    if ((uint64_t)st.st_size != size) {
        return err_set(e, -EINVAL, "%s: %lld bytes, not the %zu of this firmware's variables", path,
                       (long long)st.st_size, size);
    }
    ssize_t n = pread(p->vars_fd, vars, size, 0);
    return n == (ssize_t)size ? 0 : err_set(e, -EIO, "%s: cannot be read", path);
}

static int show_uefi(struct pc *p, const struct machine_config *c, const char *code_path,
                     const char *vars_path, struct err *e)
{
    uint8_t *code = NULL, *vars = NULL;
    size_t code_size = 0, vars_size = 0;
    int r = firmware_read_file(code_path, IMAGE_MAX, &code, &code_size, e);
    if (r == 0) {
        r = firmware_read_file(vars_path, PFLASH_MAX, &vars, &vars_size, e);
    }
    if (r == 0 && (code_size % GMEM_PAGE_SIZE != 0 || vars_size % PFLASH_BLOCK != 0)) {
        r = err_set(e, -EINVAL, "%s: not in whole blocks of 4 KiB", code_path);
    }
    if (r == 0) {
        r = gmem_map_rom(p->machine->mem, GIB(4) - code_size, code, code_size, e);
    }
    if (r == 0 && c->uefi_vars != NULL) {
        r = open_vars(p, c->uefi_vars, vars, vars_size, e);
    }
    if (r == 0) {
        r = pflash_init(&p->flash, p->machine->bus, GIB(4) - code_size - vars_size, vars,
                        (uint32_t)vars_size, e);
    }
    if (r == 0) {
        p->has_flash = true;
        p->flash.changed = vars_changed;
        p->flash.ctx = p;
    }
    free(code);
    free(vars);
    return r;
}

static int find_uefi(struct pc *p, const struct machine_config *c, struct err *e)
{
    for (unsigned i = 0; i < ARRAY_LEN(uefi_paths); i++) {
        if (access(uefi_paths[i].code, R_OK) == 0 && access(uefi_paths[i].vars, R_OK) == 0) {
            return show_uefi(p, c, uefi_paths[i].code, uefi_paths[i].vars, e);
        }
    }
    return err_set(e, -ENOENT, "no OVMF here: install the package ovmf");
}

void firmware_fini(struct pc *p)
{
    if (p->has_flash) {
        pflash_fini(&p->flash);
        p->has_flash = false;
    }
    if (p->vars_fd >= 0) {
        close(p->vars_fd);
        p->vars_fd = -1;
    }
}

/* -- The BIOS ---------------------------------------------------------------------------------- */
static int show_image(struct pc *p, const char *path, struct err *e)
{
    uint8_t *image = NULL;
    size_t size = 0;
    int r = firmware_read_file(path, IMAGE_MAX, &image, &size, e);
    if (r == 0) {
        r = show_bios(p, image, size, e);
    }
    free(image);
    return r;
}

int firmware_init(struct pc *p, const struct machine_config *c, struct err *e)
{
    const char *path = c->firmware != NULL ? c->firmware : "bios";
    int r = 0;
    if (strcmp(path, "uefi") == 0) {
        r = find_uefi(p, c, e);
    } else {
        r = strcmp(path, "bios") == 0 ? find_bios(&path, e) : 0;
        r = r == 0 ? show_image(p, path, e) : r;
    }
    if (r == 0) {
        r = console_file(p, c, e);
    }
    if (r == 0) {
        r = boot_order(p, e);
    }
    if (r == 0) {
        r = firmware_tables(p, e);
    }
    return r < 0 ? err_prefix(e, r, "firmware") : 0;
}
