/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading the stream. Its bytes come from a file or a peer and are hostile: every length is checked
 * against what is left, every name and type against the table, and the object is only touched when
 * all of its section proved good.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "state/state.h"
#include "state/stream.h"

struct section {
    char name[STREAM_MAX_NAME + 1];
    enum stream_kind kind;
    uint32_t version;
    const uint8_t *payload; /* borrowed from the stream */
    size_t payload_len;
};

struct state_in {
    struct section *sections; /* owned */
    uint32_t count;
};

/* Everything that reading one section's fields needs; the errors name the section. */
struct loader {
    const struct section *section;
    struct err *err;
    bool older; /* the section is from an older version of the table */
};

/* A name made of printable bytes; anything else would make error messages a terminal attack. */
static bool take_name(struct stream_cursor *c, unsigned len, char out[STREAM_MAX_NAME + 1])
{
    if (len == 0 || len > STREAM_MAX_NAME) {
        return false;
    }
    const uint8_t *p = stream_take(c, len);
    if (p == NULL) {
        return false;
    }
    for (unsigned i = 0; i < len; i++) {
        if (p[i] <= 0x20 || p[i] >= 0x7f) {
            return false;
        }
    }
    memcpy(out, p, len);
    out[len] = '\0';
    return true;
}

static const struct section *find_section(const struct state_in *in, const char *name)
{
    for (uint32_t i = 0; i < in->count; i++) {
        if (strcmp(in->sections[i].name, name) == 0) {
            return &in->sections[i];
        }
    }
    return NULL;
}

static int take_section(struct state_in *in, struct stream_cursor *c, struct err *e)
{
    const uint8_t *start = c->at;
    struct section *s = &in->sections[in->count];
    uint32_t mark, version, crc;
    uint8_t kind, name_len;
    uint16_t zero;
    uint64_t payload_len;
    if (!stream_take_u32(c, &mark) || !stream_take_u8(c, &kind) || !stream_take_u8(c, &name_len) ||
        !stream_take_u16(c, &zero) || !stream_take_u32(c, &version) ||
        !stream_take_u64(c, &payload_len)) {
        return err_set(e, -EINVAL, "state: truncated in section %u", in->count);
    }
    if (mark != STREAM_SECTION_MARK || zero != 0 || version == 0 ||
        (kind != STREAM_TABLE && kind != STREAM_BLOB) || !take_name(c, name_len, s->name)) {
        return err_set(e, -EINVAL, "state: malformed section %u", in->count);
    }
    s->payload = stream_take(c, payload_len);
    if (s->payload == NULL) {
        return err_set(e, -EINVAL, "state: section %s is truncated", s->name);
    }
    size_t covered = (size_t)(c->at - start);
    if (!stream_take_u32(c, &crc)) {
        return err_set(e, -EINVAL, "state: section %s is truncated", s->name);
    }
    if (crc != crc32c(0, start, covered)) {
        return err_set(e, -EINVAL, "state: section %s has a wrong checksum", s->name);
    }
    if (find_section(in, s->name) != NULL) {
        return err_set(e, -EINVAL, "state: section %s appears twice", s->name);
    }
    s->kind = (enum stream_kind)kind;
    s->version = version;
    s->payload_len = (size_t)payload_len;
    in->count++;
    return 0;
}

int state_in_new(struct state_in **out, const uint8_t *data, size_t len, struct err *e)
{
    if (len < STREAM_HEADER_LEN || memcmp(data, STREAM_MAGIC, STREAM_MAGIC_LEN) != 0) {
        return err_set(e, -EINVAL, "state: not a sosia state stream");
    }
    if (load_le32(data + 24) != crc32c(0, data, 24)) {
        return err_set(e, -EINVAL, "state: header has a wrong checksum");
    }
    uint32_t format = load_le32(data + 8);
    uint32_t sections = load_le32(data + 12);
    if (format != STREAM_FORMAT) {
        return err_set(e, -EINVAL, "state: format %u is not known", format);
    }
    if (load_le64(data + 16) != len) {
        return err_set(e, -EINVAL, "state: %zu bytes where %llu were written", len,
                       (unsigned long long)load_le64(data + 16));
    }
    if (sections > STREAM_MAX_SECTIONS) {
        return err_set(e, -EINVAL, "state: too many sections (%u)", sections);
    }
    struct state_in *in = xzalloc(sizeof *in);
    in->sections = xcalloc(sections, sizeof *in->sections);
    struct stream_cursor c = { data + STREAM_HEADER_LEN, len - STREAM_HEADER_LEN };
    int r = 0;
    while (r == 0 && in->count < sections) {
        r = take_section(in, &c, e);
    }
    if (r == 0 && c.left != 0) {
        r = err_set(e, -EINVAL, "state: %zu bytes after the last section", c.left);
    }
    if (r < 0) {
        state_in_free(in);
        return r;
    }
    *out = in;
    return 0;
}

void state_in_free(struct state_in *in)
{
    if (in != NULL) {
        free(in->sections);
        free(in);
    }
}

static int bad_field(const struct loader *l, const char *name, const char *what)
{
    return err_set(l->err, -EINVAL, "state: %s.%s %s", l->section->name, name, what);
}

static int take_fields(const struct loader *l, struct stream_cursor *c,
                       const struct state_field *table, uint8_t *obj, unsigned depth,
                       unsigned version);

/* The values of one field that table entry f describes. */
static int take_values(const struct loader *l, struct stream_cursor *c, const struct state_field *f,
                       uint32_t count, uint8_t *at, unsigned depth)
{
    if (f->type != STATE_T_STRUCT) {
        const uint8_t *p = stream_take(c, (uint64_t)count * f->elem_size);
        if (p == NULL) {
            return bad_field(l, f->name, "is truncated");
        }
        if (f->type == STATE_T_BOOL) {
            for (uint32_t i = 0; i < count; i++) {
                if (p[i] > 1) {
                    return bad_field(l, f->name, "is neither true nor false");
                }
            }
        }
        memcpy(at, p, (size_t)count * f->elem_size);
        return 0;
    }
    for (uint32_t i = 0; i < count; i++, at += f->elem_size) {
        uint32_t len;
        if (!stream_take_u32(c, &len)) {
            return bad_field(l, f->name, "is truncated");
        }
        struct stream_cursor sub = { stream_take(c, len), len };
        if (sub.at == NULL) {
            return bad_field(l, f->name, "is truncated");
        }
        int r = take_fields(l, &sub, f->sub, at, depth + 1, l->section->version);
        if (r == 0 && sub.left != 0) {
            r = bad_field(l, f->name, "has bytes left over");
        }
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

/* Passes over the values of a field that this table no longer has. */
static bool skip_values(struct stream_cursor *c, unsigned type, uint32_t count)
{
    unsigned size = stream_scalar_size(type);
    if (size != 0) {
        return stream_take(c, (uint64_t)count * size) != NULL;
    }
    if (type != STATE_T_STRUCT) {
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t len;
        if (!stream_take_u32(c, &len) || stream_take(c, len) == NULL) {
            return false;
        }
    }
    return true;
}

static int take_field(const struct loader *l, struct stream_cursor *c,
                      const struct state_field *table, uint8_t *obj, unsigned depth, uint64_t *seen)
{
    uint8_t type, name_len;
    uint32_t count;
    char name[STREAM_MAX_NAME + 1];
    if (!stream_take_u8(c, &type) || !stream_take_u8(c, &name_len) || !stream_take_u32(c, &count) ||
        !take_name(c, name_len, name)) {
        return bad_field(l, "?", "is malformed");
    }
    unsigned i = 0;
    while (table[i].type != STATE_T_END && strcmp(table[i].name, name) != 0) {
        i++;
    }
    const struct state_field *f = &table[i];
    if (f->type == STATE_T_END) {
        return skip_values(c, type, count) ? 0 : bad_field(l, name, "is malformed");
    }
    if (seen[i / 64] & 1ull << (i % 64)) {
        return bad_field(l, name, "appears twice");
    }
    seen[i / 64] |= 1ull << (i % 64);
    if (type != f->type) {
        return bad_field(l, name, "has a wrong type");
    }
    /* An array may have grown since: the new elements keep their present value. */
    if (count > f->count || (count < f->count && !l->older)) {
        return bad_field(l, name, "has a wrong number of elements");
    }
    return take_values(l, c, f, count, obj + f->offset, depth);
}

/* A field may be missing when the section is older than it. A nested table's versions are its own,
 * while the stream holds the section's only: there, every field that was added later may miss. */
static bool may_miss(const struct state_field *f, unsigned depth, unsigned version)
{
    return depth == 0 ? f->since > version : f->since > 1;
}

static int take_fields(const struct loader *l, struct stream_cursor *c,
                       const struct state_field *table, uint8_t *obj, unsigned depth,
                       unsigned version)
{
    assert(depth < STREAM_MAX_DEPTH); /* the depth is the table's, not the stream's */
    uint64_t seen[STREAM_MAX_FIELDS / 64] = { 0 };
    uint16_t fields;
    if (!stream_take_u16(c, &fields) || fields > STREAM_MAX_FIELDS) {
        return bad_field(l, "?", "is malformed");
    }
    for (unsigned i = 0; i < fields; i++) {
        int r = take_field(l, c, table, obj, depth, seen);
        if (r < 0) {
            return r;
        }
    }
    for (unsigned i = 0; table[i].type != STATE_T_END; i++) {
        if (!(seen[i / 64] & 1ull << (i % 64)) && !may_miss(&table[i], depth, version)) {
            return bad_field(l, table[i].name, "is missing");
        }
    }
    return 0;
}

static int need_section(const struct state_in *in, const char *name, enum stream_kind kind,
                        const struct section **out, struct err *e)
{
    const struct section *s = find_section(in, name);
    if (s == NULL) {
        return err_set(e, -ENOENT, "state: no section %s", name);
    }
    if (s->kind != kind) {
        return err_set(e, -EINVAL, "state: section %s is of another kind", name);
    }
    *out = s;
    return 0;
}

int state_load(struct state_in *in, const char *name, unsigned version,
               const struct state_field *table, void *obj, size_t obj_size, struct err *e)
{
    const struct section *s;
    int r = need_section(in, name, STREAM_TABLE, &s, e);
    if (r < 0) {
        return r;
    }
    if (s->version > version) {
        return err_set(e, -EINVAL, "state: section %s has version %u, this sosia knows %u", name,
                       s->version, version);
    }
    for (const struct state_field *f = table; f->type != STATE_T_END; f++) {
        assert(f->offset + (uint64_t)f->count * f->elem_size <= obj_size);
    }
    uint8_t *copy = xzalloc(obj_size);
    memcpy(copy, obj, obj_size);
    struct loader l = { s, e, s->version < version };
    struct stream_cursor c = { s->payload, s->payload_len };
    r = take_fields(&l, &c, table, copy, 0, s->version);
    if (r == 0 && c.left != 0) {
        r = err_set(e, -EINVAL, "state: section %s has bytes left over", name);
    }
    if (r == 0) {
        memcpy(obj, copy, obj_size);
    }
    free(copy);
    return r;
}

int state_load_blob(struct state_in *in, const char *name, const uint8_t **data, size_t *len,
                    struct err *e)
{
    const struct section *s;
    int r = need_section(in, name, STREAM_BLOB, &s, e);
    if (r < 0) {
        return r;
    }
    *data = s->payload;
    *len = s->payload_len;
    return 0;
}
