/* SPDX-License-Identifier: Apache-2.0
 *
 * VMDK: the descriptor, and requests handed to the extents.
 */
#include "block/vmdk.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/bytes.h"
#include "base/log.h"

static bool starts_descriptor(const uint8_t *head)
{
    static const char title[] = "# Disk DescriptorFile";
    return strncasecmp((const char *)head, title, sizeof title - 1) == 0;
}

static bool vmdk_probe(const struct block_probe *p)
{
    return load_le32(p->head) == VMDK_MAGIC || memcmp(p->head, "COWD", 4) == 0 ||
           starts_descriptor(p->head);
}

static int bad(struct vmdk *v, struct err *e, const char *what)
{
    return err_set(e, -EINVAL, "%s: damaged VMDK image: %s", v->block->path, what);
}

/* The value of `key = value` or `key="value"` on a line of its own; free() it. NULL: none. */
static char *find_value(const char *text, const char *key)
{
    size_t len = strlen(key);
    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncasecmp(line, key, len) != 0) {
            continue;
        }
        const char *p = line + len + strspn(line + len, " \t");
        if (*p++ != '=') {
            continue;
        }
        p += strspn(p, " \t");
        bool quoted = *p == '"';
        p += quoted;
        return xasprintf("%.*s", (int)strcspn(p, quoted ? "\"\r\n" : " \t\r\n"), p);
    }
    return NULL;
}

static uint32_t find_id(const char *text, const char *key)
{
    char *value = find_value(text, key);
    uint32_t id = value != NULL ? (uint32_t)strtoul(value, NULL, 16) : 0xffffffff;
    free(value);
    return id;
}

/* An extent is a file beside the descriptor: an image from elsewhere must not name the host's
 * others. */
static int open_extent_file(struct vmdk *v, struct vmdk_extent *x, struct err *e)
{
    struct block *b = v->block;
    if (x->name[0] == '\0' || strchr(x->name, '/') != NULL || strcmp(x->name, "..") == 0) {
        return err_set(e, -EINVAL, "%s: its extent '%.100s' is not a file beside it", b->path,
                       x->name);
    }
    char *path = block_relative(b->path, x->name);
    unsigned flags = (b->readonly ? HOSTFILE_READONLY : 0) |
                     (b->flags & BLOCK_NO_LOCK ? HOSTFILE_NO_LOCK : 0);
    int r = hostfile_open(&x->file, path, flags, e);
    x->owned = r == 0;
    free(path);
    return r;
}

static int open_extent(struct vmdk *v, struct vmdk_extent *x, const char *type, struct err *e)
{
    uint64_t size;
    if (strcmp(type, "ZERO") == 0) {
        x->kind = EXTENT_ZERO;
        return 0;
    }
    x->kind = strcmp(type, "SPARSE") == 0 ? EXTENT_SPARSE : EXTENT_FLAT;
    if (x->kind == EXTENT_FLAT && strcmp(type, "FLAT") != 0 && strcmp(type, "VMFS") != 0) {
        return err_set(e, -ENOTSUP, "%s: VMDK extents of type %.20s are not supported",
                       v->block->path, type);
    }
    int r = open_extent_file(v, x, e);
    if (r == 0 && x->kind == EXTENT_SPARSE) {
        return vmdk_sparse_open(v, x, e);
    }
    if (r == 0) {
        r = hostfile_size(x->file, &size);
        if (r == 0 && (x->flat_offset > size || x->size > size - x->flat_offset)) {
            return err_set(e, -EINVAL, "%s: its extent %s is too short", v->block->path, x->name);
        }
    }
    return r;
}

/* ACCESS SECTORS TYPE "NAME" OFFSET */
static int parse_extent(struct vmdk *v, const char *line, uint64_t *at, struct err *e)
{
    char type[21] = "", name[256] = "";
    unsigned long long sectors = 0, offset = 0;
    int n = sscanf(line, "%*s %llu %20s \"%255[^\"\n]\" %llu", &sectors, type, name, &offset);
    if (n < 2 || (n < 3 && strcmp(type, "ZERO") != 0) || sectors > BLOCK_SIZE_MAX / VMDK_SECTOR ||
        offset > BLOCK_SIZE_MAX / VMDK_SECTOR) {
        return bad(v, e, "description of an extent");
    }
    if (v->count == VMDK_EXTENTS_MAX) {
        return err_set(e, -EFBIG, "%s: more than %u extents", v->block->path, VMDK_EXTENTS_MAX);
    }
    struct vmdk_extent *x = &v->extents[v->count++];
    x->start = *at;
    x->size = sectors * VMDK_SECTOR;
    x->name = xstrdup(name);
    x->flat_offset = offset * VMDK_SECTOR;
    *at += x->size;
    if (x->size == 0 || *at > BLOCK_SIZE_MAX) {
        return *at == 0 ? open_extent(v, x, type, e) : bad(v, e, "size of an extent");
    }
    return open_extent(v, x, type, e);
}

static bool is_extent_line(const char *line)
{
    static const char *const access[] = { "RW ", "RDONLY ", "NOACCESS " };
    for (size_t i = 0; i < ARRAY_LEN(access); i++) {
        if (strncmp(line, access[i], strlen(access[i])) == 0) {
            return true;
        }
    }
    return false;
}

static int open_extents(struct vmdk *v, struct err *e)
{
    uint64_t at = 0;
    int r = 0;
    for (const char *line = v->text; r == 0 && line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (is_extent_line(line)) {
            r = parse_extent(v, line, &at, e);
        }
    }
    atomic_store(&v->block->size, at);
    return r == 0 && v->count == 0 ? bad(v, e, "no extents") : r;
}

/* The only extent is the file itself. */
static int open_monolithic(struct vmdk *v, struct err *e)
{
    struct vmdk_extent *x = &v->extents[v->count++];
    x->kind = EXTENT_SPARSE;
    x->name = xstrdup("");
    x->file = v->block->file;
    int r = vmdk_sparse_open(v, x, e);
    atomic_store(&v->block->size, x->size);
    return r;
}

static int load_text(struct vmdk *v, uint64_t at, uint64_t len, struct err *e)
{
    if (len > VMDK_DESCRIPTOR_MAX) {
        return bad(v, e, "the descriptor is too long");
    }
    v->text = xzalloc((size_t)len + 1);
    v->text_at = at;
    v->text_room = (size_t)len;
    int r = hostfile_read(v->block->file, at, v->text, (size_t)len);
    if (r < 0) {
        return err_set(e, r, "%s: %s", v->block->path, strerror(-r));
    }
    v->cid = find_id(v->text, "CID");
    v->parent_cid = find_id(v->text, "parentCID");
    v->type = find_value(v->text, "createType");
    return 0;
}

uint32_t vmdk_cid(const struct block *b) { return ((const struct vmdk *)b->priv)->cid; }

static int open_parent(struct vmdk *v, struct err *e)
{
    struct block *b = v->block;
    if (v->text == NULL || v->parent_cid == 0xffffffff) {
        return 0;
    }
    v->parent = find_value(v->text, "parentFileNameHint");
    if (v->parent == NULL) {
        return bad(v, e, "it has a parent without a name");
    }
    int r = block_open_parent(b, v->parent, "vmdk", e);
    if (r == 0 && b->parent != NULL && vmdk_cid(b->parent) != v->parent_cid) {
        return err_set(e, -EINVAL, "%s: %s was changed after it was made from it", b->path,
                       b->parent->path);
    }
    return r;
}

static int load(struct vmdk *v, struct err *e)
{
    struct block *b = v->block;
    uint8_t h[VMDK_SECTOR];
    uint64_t size = 0;
    int r = hostfile_read(b->file, 0, h, sizeof h);
    if (r == 0) {
        r = hostfile_size(b->file, &size);
    }
    if (r < 0) {
        return err_set(e, r, "%s: %s", b->path, strerror(-r));
    }
    if (memcmp(h, "COWD", 4) == 0) {
        return err_set(e, -ENOTSUP, "%s: VMDK extents of type VMFSSPARSE are not supported",
                       b->path);
    }
    if (load_le32(h) == VMDK_MAGIC) {
        uint64_t at = load_le64(h + H_DESCRIPTOR), len = load_le64(h + H_DESCRIPTOR_SIZE);
        if (at > BLOCK_SIZE_MAX / VMDK_SECTOR || len > VMDK_DESCRIPTOR_MAX / VMDK_SECTOR) {
            return bad(v, e, "place of the descriptor");
        }
        r = at != 0 ? load_text(v, at * VMDK_SECTOR, len * VMDK_SECTOR, e) : 0;
        return r < 0 ? r : open_monolithic(v, e);
    }
    if (!starts_descriptor(h)) {
        return err_set(e, -EINVAL, "%s: not a VMDK image", b->path);
    }
    r = load_text(v, 0, size, e);
    return r < 0 ? r : open_extents(v, e);
}

static void vmdk_free(struct vmdk *v)
{
    for (size_t i = 0; i < v->count; i++) {
        struct vmdk_extent *x = &v->extents[i];
        vmdk_sparse_close(x);
        if (x->owned) {
            hostfile_close(x->file);
        }
        free(x->name);
    }
    free(v->extents);
    free(v->text);
    free(v->type);
    free(v->parent);
    free(v);
}

static int prepare_writing(struct vmdk *v, struct err *e)
{
    for (size_t i = 0; i < v->count; i++) {
        if (v->extents[i].flags & VMDK_COMPRESSED) {
            v->stream = v->count == 1;
            return v->stream
                       ? vmdk_stream_start(v, &v->extents[i], e)
                       : err_set(e, -EROFS, "%s: has compressed extents, which can only be read",
                                 v->block->path);
        }
    }
    return 0;
}

static int vmdk_open(struct block *b, struct err *e)
{
    struct vmdk *v = xzalloc(sizeof *v);
    v->block = b;
    v->extents = xcalloc(VMDK_EXTENTS_MAX, sizeof *v->extents);
    int r = load(v, e);
    if (r == 0) {
        r = open_parent(v, e);
    }
    if (r == 0 && !b->readonly) {
        r = prepare_writing(v, e);
    }
    if (r < 0) {
        vmdk_free(v);
        return r;
    }
    b->priv = v;
    return 0;
}

static void vmdk_close(struct block *b) { vmdk_free(b->priv); }

/* A new content id, so that children made before know that they do not fit any more. */
static int touch(struct vmdk *v)
{
    if (atomic_load(&v->touched) || v->text == NULL || atomic_exchange(&v->touched, true)) {
        return 0;
    }
    char hex[16];
    uint32_t cid;
    if (getrandom(&cid, sizeof cid, 0) != sizeof cid || cid >= 0xfffffffe) {
        cid = v->cid + 1;
    }
    for (char *line = v->text; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, "CID=", 4) == 0 && strspn(line + 4, "0123456789abcdefABCDEF") == 8) {
            snprintf(hex, sizeof hex, "%08x", cid);
            memcpy(line + 4, hex, 8);
            v->cid = cid;
            return hostfile_write(v->block->file, v->text_at + (uint64_t)(line + 4 - v->text), hex,
                                  8);
        }
    }
    return 0;
}

/* Only that the parent may be another than it was: its content id becomes the one we know. */
static int vmdk_set_parent(struct block *b, const char *path, const char *format, struct err *e)
{
    struct vmdk *v = b->priv;
    char *hint = v->text != NULL ? find_value(v->text, "parentFileNameHint") : NULL;
    bool same = path != NULL && hint != NULL && strcmp(path, hint) == 0;
    free(hint);
    if (!same) {
        return err_set(e, -ENOTSUP, "%s: the backing file of a vmdk image cannot be changed",
                       b->path);
    }
    char *name = block_relative(b->path, path), hex[16];
    struct block_options o = { .path = name, .format = format };
    o.flags = BLOCK_READONLY | BLOCK_NO_LOCK | BLOCK_NO_PARENT;
    struct block *parent;
    int r = block_open(&parent, &o, e);
    free(name);
    if (r < 0) {
        return r;
    }
    snprintf(hex, sizeof hex, "%08x", vmdk_cid(parent));
    block_close(parent);
    char *line = strstr(v->text, "\nparentCID=");
    if (line == NULL || strspn(line + 11, "0123456789abcdefABCDEF") != 8) {
        return bad(v, e, "no parentCID");
    }
    memcpy(line + 11, hex, 8);
    r = hostfile_write(b->file, v->text_at + (uint64_t)(line + 11 - v->text), hex, 8);
    r = r == 0 ? hostfile_sync(b->file) : r;
    return r < 0 ? err_set(e, r, "%s: %s", b->path, strerror(-r)) : 0;
}

/* The extent that offset is in, and how much of len is. */
static struct vmdk_extent *extent_at(struct vmdk *v, uint64_t offset, uint64_t len, uint64_t *n)
{
    size_t low = 0, high = v->count - 1;
    while (low < high) {
        size_t middle = (low + high + 1) / 2;
        if (v->extents[middle].start <= offset) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    struct vmdk_extent *x = &v->extents[low];
    uint64_t left = x->start + x->size - offset;
    *n = len < left ? len : left;
    return x;
}

static int vmdk_read(struct block *b, uint64_t offset, void *buf, size_t len)
{
    struct vmdk *v = b->priv;
    uint8_t *p = buf;
    int r = 0;
    while (r == 0 && len > 0) {
        uint64_t n;
        struct vmdk_extent *x = extent_at(v, offset, len, &n);
        uint64_t at = offset - x->start;
        if (x->kind == EXTENT_ZERO) {
            memset(p, 0, (size_t)n);
        } else {
            r = x->kind == EXTENT_FLAT ? hostfile_read(x->file, x->flat_offset + at, p, (size_t)n)
                                       : grains_read(&x->g, at, p, (size_t)n);
        }
        p += n;
        offset += n;
        len -= (size_t)n;
    }
    return r;
}

static int vmdk_write(struct block *b, uint64_t offset, const void *buf, size_t len)
{
    struct vmdk *v = b->priv;
    const uint8_t *p = buf;
    if (v->stream) {
        return vmdk_stream_write(&v->extents[0], offset, buf, len);
    }
    int r = touch(v);
    while (r == 0 && len > 0) {
        uint64_t n;
        struct vmdk_extent *x = extent_at(v, offset, len, &n);
        uint64_t at = offset - x->start;
        r = x->kind == EXTENT_ZERO   ? -EROFS
            : x->kind == EXTENT_FLAT ? hostfile_write(x->file, x->flat_offset + at, p, (size_t)n)
                                     : grains_write(&x->g, at, p, (size_t)n);
        p += n;
        offset += n;
        len -= (size_t)n;
    }
    return r;
}

static int vmdk_flush(struct block *b)
{
    struct vmdk *v = b->priv;
    int r = 0;
    if (v->stream) {
        return vmdk_stream_finish(&v->extents[0]);
    }
    for (size_t i = 0; i < v->count; i++) {
        struct vmdk_extent *x = &v->extents[i];
        int one = x->kind == EXTENT_ZERO   ? 0
                  : x->kind == EXTENT_FLAT ? hostfile_sync(x->file)
                                           : grains_flush(&x->g);
        r = r == 0 ? one : r;
    }
    /* The descriptor may have got a new content id. */
    return r == 0 && atomic_load(&v->touched) ? hostfile_sync(b->file) : r;
}

static int vmdk_discard(struct block *b, uint64_t offset, uint64_t len)
{
    struct vmdk *v = b->priv;
    int r = v->stream ? 0 : touch(v);
    while (r == 0 && len > 0 && !v->stream) {
        uint64_t n;
        struct vmdk_extent *x = extent_at(v, offset, len, &n);
        r = x->kind == EXTENT_SPARSE ? grains_discard(&x->g, offset - x->start, n) : 0;
        offset += n;
        len -= n;
    }
    return r;
}

static int vmdk_write_zeroes(struct block *b, uint64_t offset, uint64_t len, bool may_unmap)
{
    struct vmdk *v = b->priv;
    int r = v->stream ? -ENOTSUP : touch(v);
    while (r == 0 && len > 0) {
        uint64_t n;
        struct vmdk_extent *x = extent_at(v, offset, len, &n);
        uint64_t at = offset - x->start;
        r = x->kind == EXTENT_ZERO   ? 0
            : x->kind == EXTENT_FLAT ? hostfile_zero(x->file, x->flat_offset + at, n, may_unmap)
                                     : grains_zero(&x->g, at, n, may_unmap);
        offset += n;
        len -= n;
    }
    return r;
}

static int vmdk_map(struct block *b, uint64_t offset, uint64_t len, struct block_extent *out)
{
    struct vmdk *v = b->priv;
    uint64_t n;
    struct vmdk_extent *x = extent_at(v, offset, len, &n);
    uint64_t at = offset - x->start;
    bool data;
    if (x->kind == EXTENT_SPARSE) {
        return grains_map(&x->g, at, n, out);
    }
    out->kind = BLOCK_ZERO;
    out->len = n;
    if (x->kind == EXTENT_ZERO) {
        return 0;
    }
    int r = hostfile_extent(x->file, x->flat_offset + at, n, &data, &out->len);
    out->kind = data ? BLOCK_DATA : BLOCK_ZERO;
    out->file_offset = x->flat_offset + at;
    return r;
}

static void vmdk_info(struct block *b, struct block_info *info)
{
    const struct vmdk *v = b->priv;
    info->subformat = v->type;
    info->parent_path = v->parent;
    info->parent_format = v->parent != NULL ? "vmdk" : NULL;
    for (size_t i = 0; i < v->count; i++) {
        const struct vmdk_extent *x = &v->extents[i];
        uint64_t bytes = 0;
        if (x->kind == EXTENT_SPARSE) {
            info->cluster_size = x->g.unit;
            info->compression = x->flags & VMDK_COMPRESSED ? "zlib" : NULL;
        }
        if (x->owned && hostfile_allocated(x->file, &bytes) == 0) {
            info->allocated += bytes;
        }
    }
}

static int vmdk_check(struct block *b, bool repair, struct block_check *c, struct err *e)
{
    struct vmdk *v = b->priv;
    (void)repair;
    (void)e;
    for (size_t i = 0; i < v->count; i++) {
        if (v->extents[i].kind == EXTENT_SPARSE) {
            vmdk_sparse_check(&v->extents[i], c);
        }
    }
    return 0;
}

static int vmdk_write_compressed(struct block *b, uint64_t offset, const void *buf, size_t len)
{
    struct vmdk *v = b->priv;
    return v->stream ? vmdk_stream_write(&v->extents[0], offset, buf, len) : -ENOTSUP;
}

const struct block_class block_vmdk = {
    .name = "vmdk",
    .probe = vmdk_probe,
    .open = vmdk_open,
    .close = vmdk_close,
    .read = vmdk_read,
    .write = vmdk_write,
    .flush = vmdk_flush,
    .discard = vmdk_discard,
    .write_zeroes = vmdk_write_zeroes,
    .map = vmdk_map,
    .create_keys = BLOCK_KEY_SUBFORMAT | BLOCK_KEY_PARENT,
    .create = vmdk_create,
    .info = vmdk_info,
    .check = vmdk_check,
    .set_parent = vmdk_set_parent,
    .write_compressed = vmdk_write_compressed,
};
