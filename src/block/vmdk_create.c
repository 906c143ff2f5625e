/* SPDX-License-Identifier: Apache-2.0 -- VMDK images made: descriptors, extents, tables */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/bytes.h"
#include "block/vmdk.h"

#define SPLIT_SECTORS 4192256ull /* 2 GiB less a little, as others have it */

enum shape { ONE_SPARSE, ONE_FLAT, SPLIT_SPARSE, SPLIT_FLAT, STREAM };

static const struct {
    const char *name;
    enum shape shape;
} shapes[] = {
    { "monolithicSparse", ONE_SPARSE },
    { "monolithicFlat", ONE_FLAT },
    { "twoGbMaxExtentSparse", SPLIT_SPARSE },
    { "twoGbMaxExtentFlat", SPLIT_FLAT },
    { "streamOptimized", STREAM },
};

static void put_header(uint8_t *h, uint64_t sectors, bool stream, uint64_t descriptor_sectors)
{
    memset(h, 0, VMDK_SECTOR);
    store_le32(h + H_MAGIC, VMDK_MAGIC);
    store_le32(h + H_VERSION, stream ? 3 : 1);
    store_le32(h + H_FLAGS, stream ? VMDK_NEWLINES | VMDK_COMPRESSED | VMDK_MARKERS
                                   : VMDK_NEWLINES | VMDK_REDUNDANT);
    store_le64(h + H_CAPACITY, sectors);
    store_le64(h + H_GRAIN, VMDK_GRAIN);
    store_le64(h + H_DESCRIPTOR, descriptor_sectors != 0 ? 1 : 0);
    store_le64(h + H_DESCRIPTOR_SIZE, descriptor_sectors);
    store_le32(h + H_GTES, VMDK_GTES);
    memcpy(h + H_NEWLINES, "\n \r\n", 4);
    store_le16(h + H_COMPRESSION, stream ? 1 : 0);
}

static uint64_t tables_of(uint64_t sectors)
{
    uint64_t span = (uint64_t)VMDK_GRAIN * VMDK_GTES;
    return (sectors + span - 1) / span;
}

/* Directory and tables, twice; the tables all empty, which is what a file reads as. */
static int write_sparse(struct hostfile *f, uint64_t sectors, uint64_t descriptor_sectors)
{
    uint8_t h[VMDK_SECTOR];
    uint64_t tables = tables_of(sectors), gd_sectors = (tables * 4 + 511) / 512;
    uint64_t table_sectors = VMDK_GTES * 4 / VMDK_SECTOR;
    uint64_t rgd = 1 + descriptor_sectors, gd = rgd + gd_sectors + tables * table_sectors;
    uint64_t overhead = align_up(gd + gd_sectors + tables * table_sectors, VMDK_GRAIN);
    put_header(h, sectors, false, descriptor_sectors);
    store_le64(h + H_RGD, rgd);
    store_le64(h + H_GD, gd);
    store_le64(h + H_OVERHEAD, overhead);
    uint8_t *directory = try_alloc((size_t)gd_sectors + 1, VMDK_SECTOR);
    if (directory == NULL) {
        return -ENOMEM;
    }
    int r = hostfile_truncate(f, overhead * VMDK_SECTOR);
    for (unsigned copy = 0; r == 0 && copy < 2; copy++) {
        uint64_t at = copy == 0 ? rgd : gd;
        for (uint64_t i = 0; i < tables; i++) {
            store_le32(directory + i * 4, (uint32_t)(at + gd_sectors + i * table_sectors));
        }
        r = hostfile_write(f, at * VMDK_SECTOR, directory, (size_t)gd_sectors * VMDK_SECTOR);
    }
    free(directory);
    return r < 0 ? r : hostfile_write(f, 0, h, sizeof h);
}

static int write_marker(struct hostfile *f, uint64_t *at, uint64_t sectors, uint32_t type)
{
    uint8_t m[VMDK_SECTOR] = { 0 };
    store_le64(m, sectors);
    store_le32(m + 12, type);
    int r = hostfile_write(f, *at, m, sizeof m);
    *at += sizeof m;
    return r;
}

static int write_tables(struct hostfile *f, const uint32_t *gt, uint64_t tables, uint8_t *directory,
                        uint64_t *at)
{
    uint8_t table[VMDK_GTES * 4];
    int r = 0;
    for (uint64_t i = 0; r == 0 && gt != NULL && i < tables; i++) {
        const uint32_t *entries = gt + i * VMDK_GTES;
        if (bytes_are_zero(entries, sizeof table)) {
            continue;
        }
        r = write_marker(f, at, sizeof table / VMDK_SECTOR, MARKER_GT);
        store_le32(directory + i * 4, (uint32_t)(*at / VMDK_SECTOR));
        for (size_t k = 0; k < VMDK_GTES; k++) {
            store_le32(table + k * 4, entries[k]);
        }
        if (r == 0) {
            r = hostfile_write(f, *at, table, sizeof table);
        }
        *at += sizeof table;
    }
    return r;
}

int vmdk_write_stream_end(struct hostfile *f, const uint8_t *header, const uint32_t *gt,
                          uint64_t at)
{
    uint64_t tables = tables_of(load_le64(header + H_CAPACITY));
    size_t len = (size_t)align_up(tables * 4 + 1, VMDK_SECTOR);
    uint8_t footer[VMDK_SECTOR], *directory = try_alloc(1, len);
    int r = directory == NULL ? -ENOMEM : write_tables(f, gt, tables, directory, &at);
    memcpy(footer, header, sizeof footer);
    if (r == 0) {
        r = write_marker(f, &at, len / VMDK_SECTOR, MARKER_GD);
    }
    store_le64(footer + H_GD, at / VMDK_SECTOR);
    if (r == 0) {
        r = hostfile_write(f, at, directory, len);
        at += len;
    }
    if (r == 0) {
        r = write_marker(f, &at, 1, MARKER_FOOTER);
    }
    if (r == 0) {
        r = hostfile_write(f, at, footer, sizeof footer);
        at += sizeof footer;
    }
    if (r == 0) {
        r = write_marker(f, &at, 0, MARKER_EOS);
    }
    free(directory);
    return r < 0 ? r : hostfile_truncate(f, at);
}

static int write_stream(struct hostfile *f, uint64_t sectors)
{
    uint8_t h[VMDK_SECTOR];
    put_header(h, sectors, true, VMDK_DESCRIPTOR_SECTORS);
    store_le64(h + H_GD, VMDK_AT_END);
    store_le64(h + H_OVERHEAD, VMDK_GRAIN);
    int r = hostfile_write(f, 0, h, sizeof h);
    return r < 0 ? r : vmdk_write_stream_end(f, h, NULL, VMDK_GRAIN * VMDK_SECTOR);
}

struct plan {
    const struct block_create *c;
    enum shape shape;
    const char *type;
    uint64_t sectors;
    char *dir;  /* with its slash */
    char *stem; /* the image's name without .vmdk */
    const char *name;
    uint32_t parent_cid;
    char *extents; /* lines of the descriptor */
    unsigned made; /* files beside the descriptor */
};

static bool is_flat(enum shape s) { return s == ONE_FLAT || s == SPLIT_FLAT; }
static bool is_split(enum shape s) { return s == SPLIT_FLAT || s == SPLIT_SPARSE; }

static char *extent_name(const struct plan *p, unsigned n)
{
    return p->shape == ONE_FLAT
               ? xasprintf("%s-flat.vmdk", p->stem)
               : xasprintf("%s-%c%03u.vmdk", p->stem, is_flat(p->shape) ? 'f' : 's', n + 1);
}

static int make_extent(struct plan *p, unsigned n, uint64_t sectors, struct err *e)
{
    char *name = extent_name(p, n), *path = xasprintf("%s%s", p->dir, name);
    struct hostfile *f;
    int r = hostfile_open(&f, path, HOSTFILE_CREATE, e);
    if (r == 0) {
        p->made++;
        r = is_flat(p->shape) ? hostfile_truncate(f, sectors * VMDK_SECTOR)
                              : write_sparse(f, sectors, 0);
        if (r == 0) {
            r = hostfile_sync(f);
        }
        hostfile_close(f);
        if (r < 0) {
            err_set(e, r, "%s: %s", path, strerror(-r));
        }
        char *lines = xasprintf("%sRW %llu %s \"%s\"%s\n", p->extents, (unsigned long long)sectors,
                                is_flat(p->shape) ? "FLAT" : "SPARSE", name,
                                is_flat(p->shape) ? " 0" : "");
        free(p->extents);
        p->extents = lines;
    }
    free(name);
    free(path);
    return r;
}

static int make_extents(struct plan *p, struct err *e)
{
    int r = 0;
    unsigned n = 0;
    for (uint64_t at = 0; r == 0 && (at < p->sectors || n == 0); n++) {
        uint64_t left = p->sectors - at;
        uint64_t len = is_split(p->shape) && left > SPLIT_SECTORS ? SPLIT_SECTORS : left;
        if (n >= VMDK_EXTENTS_MAX) {
            return err_set(e, -EFBIG, "too large for extents of 2 GiB");
        }
        r = make_extent(p, n, len, e);
        at += len;
    }
    return r;
}

static char *descriptor_text(const struct plan *p)
{
    uint32_t cid;
    uint64_t cylinders = p->sectors / (16 * 63);
    if (getrandom(&cid, sizeof cid, 0) != sizeof cid || cid >= UINT32_MAX - 1) {
        cid = 0x50514d44;
    }
    char *parent = p->c->parent != NULL ? xasprintf("parentFileNameHint=\"%s\"\n", p->c->parent)
                                        : xstrdup("");
    char *text = xasprintf("# Disk DescriptorFile\n"
                           "version=1\n"
                           "CID=%08x\n"
                           "parentCID=%08x\n"
                           "createType=\"%s\"\n"
                           "%s"
                           "\n"
                           "# Extent description\n"
                           "%s"
                           "\n"
                           "# The Disk Data Base\n"
                           "#DDB\n"
                           "\n"
                           "ddb.virtualHWVersion = \"4\"\n"
                           "ddb.geometry.cylinders = \"%llu\"\n"
                           "ddb.geometry.heads = \"16\"\n"
                           "ddb.geometry.sectors = \"63\"\n"
                           "ddb.adapterType = \"ide\"\n",
                           cid, p->parent_cid, p->type, parent, p->extents,
                           (unsigned long long)(cylinders < 16383 ? cylinders : 16383));
    free(parent);
    return text;
}

static int load_parent_cid(struct plan *p, struct err *e)
{
    p->parent_cid = 0xffffffff;
    if (p->c->parent == NULL) {
        return 0;
    }
    if (strcmp(p->c->parent_format, "vmdk") != 0 || is_flat(p->shape) || p->shape == STREAM) {
        return err_set(e, -EINVAL, "a sparse VMDK image can have a VMDK image as backing file");
    }
    if (strpbrk(p->c->parent, "\"\n") != NULL) {
        return err_set(e, -EINVAL, "the backing file's name has a quote or a line end");
    }
    char *path = block_relative(p->c->path, p->c->parent);
    struct block_options o = { .path = path, .format = "vmdk" };
    o.flags = BLOCK_READONLY | BLOCK_NO_LOCK | BLOCK_NO_PARENT;
    struct block *parent;
    int r = block_open(&parent, &o, e);
    if (r == 0) {
        p->parent_cid = vmdk_cid(parent);
        block_close(parent);
    }
    free(path);
    return r;
}

static int choose_shape(struct plan *p, struct err *e)
{
    const char *wanted = p->c->subformat != NULL ? p->c->subformat : "monolithicSparse";
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        if (strcmp(shapes[i].name, wanted) == 0) {
            p->shape = shapes[i].shape;
            p->type = shapes[i].name;
            return 0;
        }
    }
    return err_set(e, -EINVAL,
                   "VMDK subformats: monolithicSparse, monolithicFlat, "
                   "twoGbMaxExtentSparse, twoGbMaxExtentFlat, streamOptimized");
}

static void take_back(struct plan *p)
{
    for (unsigned n = 0; n < p->made; n++) {
        char *name = extent_name(p, n), *path = xasprintf("%s%s", p->dir, name);
        unlink(path);
        free(name);
        free(path);
    }
}

static int write_image(struct plan *p, struct hostfile *f, struct err *e)
{
    bool inside = p->shape == ONE_SPARSE || p->shape == STREAM;
    int r = 0;
    if (inside) {
        free(p->extents);
        p->extents = xasprintf("RW %llu SPARSE \"%s\"\n", (unsigned long long)p->sectors, p->name);
        r = p->shape == STREAM ? write_stream(f, p->sectors)
                               : write_sparse(f, p->sectors, VMDK_DESCRIPTOR_SECTORS);
    } else {
        r = make_extents(p, e);
    }
    if (r < 0) {
        return r;
    }
    char *text = descriptor_text(p);
    size_t len = strlen(text);
    if (inside && len > VMDK_DESCRIPTOR_SECTORS * VMDK_SECTOR) {
        r = -ENAMETOOLONG;
    } else {
        r = hostfile_write(f, inside ? VMDK_SECTOR : 0, text, len);
    }
    free(text);
    return r;
}

int vmdk_create(struct hostfile *f, const struct block_create *c, struct err *e)
{
    const char *slash = strrchr(c->path, '/');
    struct plan p = { .c = c, .sectors = c->size / VMDK_SECTOR };
    p.name = slash != NULL ? slash + 1 : c->path;
    p.dir = xasprintf("%.*s", (int)(p.name - c->path), c->path);
    p.name = c->name != NULL ? c->name : p.name;
    p.stem = xstrdup(p.name);
    p.extents = xstrdup("");
    if (block_name_ends(p.stem, ".vmdk")) {
        p.stem[strlen(p.stem) - 5] = '\0';
    }
    int r = choose_shape(&p, e);
    if (r == 0) {
        r = load_parent_cid(&p, e);
    }
    if (r == 0 && strpbrk(p.name, "\"\n") != NULL) {
        r = err_set(e, -EINVAL, "%s: a VMDK image's name has no quotes or line ends", c->path);
    }
    if (r == 0 && p.shape == ONE_SPARSE && c->size / VMDK_SECTOR >= UINT32_MAX) {
        r = err_set(e, -EFBIG, "too large for one sparse extent: less than 2T");
    }
    if (r == 0) {
        struct err own = { "" };
        r = write_image(&p, f, &own);
        if (r < 0) {
            err_set(e, r, "%s%s%s", own.msg[0] != '\0' ? "" : c->path,
                    own.msg[0] != '\0' ? "" : ": ", own.msg[0] != '\0' ? own.msg : strerror(-r));
            take_back(&p);
        }
    }
    free(p.dir);
    free(p.stem);
    free(p.extents);
    return r;
}
