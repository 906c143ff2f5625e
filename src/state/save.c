/* SPDX-License-Identifier: Apache-2.0
 *
 * Writing the stream. The buffer is a whole, valid stream after each section: the header is brought
 * up to date every time.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "state/state.h"
#include "state/stream.h"

struct state_out {
    uint8_t *data; /* owned */
    size_t len;
    size_t capacity;
    uint32_t sections;
};

static uint8_t *grow(struct state_out *o, size_t len)
{
    if (o->capacity - o->len < len) {
        o->capacity = (o->capacity + len) * 2;
        o->data = xrealloc(o->data, o->capacity);
    }
    uint8_t *p = o->data + o->len;
    o->len += len;
    return p;
}

static void put_u8(struct state_out *o, uint8_t v) { *grow(o, 1) = v; }
static void put_u16(struct state_out *o, uint16_t v) { store_le16(grow(o, 2), v); }
static void put_u32(struct state_out *o, uint32_t v) { store_le32(grow(o, 4), v); }
static void put_u64(struct state_out *o, uint64_t v) { store_le64(grow(o, 8), v); }

static void put_bytes(struct state_out *o, const void *p, size_t len)
{
    if (len != 0) {
        memcpy(grow(o, len), p, len);
    }
}

static void finish_header(struct state_out *o)
{
    memcpy(o->data, STREAM_MAGIC, STREAM_MAGIC_LEN);
    store_le32(o->data + 8, STREAM_FORMAT);
    store_le32(o->data + 12, o->sections);
    store_le64(o->data + 16, o->len);
    store_le32(o->data + 24, crc32c(0, o->data, 24));
}

struct state_out *state_out_new(void)
{
    struct state_out *o = xzalloc(sizeof *o);
    grow(o, STREAM_HEADER_LEN);
    finish_header(o);
    return o;
}

void state_out_free(struct state_out *o)
{
    if (o != NULL) {
        free(o->data);
        free(o);
    }
}

const uint8_t *state_out_data(const struct state_out *o, size_t *len)
{
    *len = o->len;
    return o->data;
}

/* Returns the offset of the section, for end_section. */
static size_t begin_section(struct state_out *o, const char *name, enum stream_kind kind,
                            unsigned version)
{
    size_t name_len = strlen(name);
    assert(name_len > 0 && name_len <= STREAM_MAX_NAME);
    assert(o->sections < STREAM_MAX_SECTIONS);
    size_t start = o->len;
    put_u32(o, STREAM_SECTION_MARK);
    put_u8(o, (uint8_t)kind);
    put_u8(o, (uint8_t)name_len);
    put_u16(o, 0);
    put_u32(o, version);
    put_u64(o, 0); /* payload length, filled by end_section */
    put_bytes(o, name, name_len);
    return start;
}

static void end_section(struct state_out *o, size_t start)
{
    size_t payload = start + STREAM_SECTION_LEN + o->data[start + 5];
    store_le64(o->data + start + 12, o->len - payload);
    put_u32(o, crc32c(0, o->data + start, o->len - start));
    o->sections++;
    finish_header(o);
}

static void put_fields(struct state_out *o, const struct state_field *table, const uint8_t *obj,
                       unsigned depth)
{
    assert(depth < STREAM_MAX_DEPTH);
    uint16_t fields = 0;
    while (table[fields].type != STATE_T_END) {
        fields++;
    }
    assert(fields <= STREAM_MAX_FIELDS);
    put_u16(o, fields);
    for (const struct state_field *f = table; f->type != STATE_T_END; f++) {
        size_t name_len = strlen(f->name);
        assert(name_len > 0 && name_len <= STREAM_MAX_NAME);
        put_u8(o, (uint8_t)f->type);
        put_u8(o, (uint8_t)name_len);
        put_u32(o, f->count);
        put_bytes(o, f->name, name_len);
        const uint8_t *at = obj + f->offset;
        if (f->type != STATE_T_STRUCT) {
            /* Hosts are little-endian, as the stream is: an array is its own encoding. */
            assert(stream_scalar_size(f->type) == f->elem_size);
            put_bytes(o, at, (size_t)f->count * f->elem_size);
            continue;
        }
        for (uint32_t i = 0; i < f->count; i++, at += f->elem_size) {
            size_t len_at = o->len;
            put_u32(o, 0);
            put_fields(o, f->sub, at, depth + 1);
            store_le32(o->data + len_at, (uint32_t)(o->len - len_at - 4));
        }
    }
}

void state_save(struct state_out *o, const char *name, unsigned version,
                const struct state_field *table, const void *obj)
{
    assert(version >= 1);
    size_t start = begin_section(o, name, STREAM_TABLE, version);
    put_fields(o, table, obj, 0);
    end_section(o, start);
}

void state_save_blob(struct state_out *o, const char *name, const void *data, size_t len)
{
    size_t start = begin_section(o, name, STREAM_BLOB, 1);
    put_bytes(o, data, len);
    end_section(o, start);
}
