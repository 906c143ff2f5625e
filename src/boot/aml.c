/* SPDX-License-Identifier: Apache-2.0 -- ACPI machine language (ACPI 5.0 section 20.2) */
#include "boot/aml.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"

enum {
    OP_ZERO = 0x00,
    OP_ONE = 0x01,
    OP_NAME = 0x08,
    OP_BYTE = 0x0a,
    OP_WORD = 0x0b,
    OP_DWORD = 0x0c,
    OP_STRING = 0x0d,
    OP_QWORD = 0x0e,
    OP_SCOPE = 0x10,
    OP_BUFFER = 0x11,
    OP_PACKAGE = 0x12,
    OP_METHOD = 0x14,
    OP_DUAL_NAME = 0x2e,
    OP_MULTI_NAME = 0x2f,
    OP_EXT = 0x5b,
    OP_EXT_REGION = 0x80,
    OP_EXT_FIELD = 0x81,
    OP_EXT_DEVICE = 0x82,
    OP_IF = 0xa0,
    METHOD_SERIALIZED = 0x08,
    NAME_LEN = 4,
};

void aml_init(struct aml *a) { *a = (struct aml){ .len = 0 }; }

void aml_fini(struct aml *a)
{
    assert(a->depth == 0);
    free(a->data);
    *a = (struct aml){ .len = 0 };
}

static void reserve(struct aml *a, size_t more)
{
    if (a->len + more > a->cap) {
        a->cap = (a->len + more) * 2;
        a->data = xrealloc(a->data, a->cap);
    }
}

void aml_bytes(struct aml *a, const void *data, size_t len)
{
    reserve(a, len);
    memcpy(a->data + a->len, data, len);
    a->len += len;
}

static void byte(struct aml *a, unsigned b)
{
    uint8_t v = (uint8_t)b;
    aml_bytes(a, &v, 1);
}

static void open_term(struct aml *a)
{
    assert(a->depth < AML_DEPTH);
    a->open[a->depth++] = a->len;
}

/* 20.2.4: lengths below 64 take one byte; else 4 bits, and up to three more bytes. The length
 * counts its own bytes. */
static size_t encode_length(uint8_t out[4], size_t body)
{
    if (body + 1 < 64) {
        out[0] = (uint8_t)(body + 1);
        return 1;
    }
    size_t extra = body + 2 < 1u << 12 ? 1 : body + 3 < 1u << 20 ? 2 : 3;
    size_t value = body + 1 + extra;
    assert(value < 1u << 28);
    out[0] = (uint8_t)(extra << 6 | (value & 0xf));
    for (size_t i = 1; i <= extra; i++) {
        out[i] = (uint8_t)(value >> (4 + 8 * (i - 1)));
    }
    return 1 + extra;
}

void aml_close(struct aml *a)
{
    assert(a->depth > 0);
    size_t at = a->open[--a->depth];
    size_t body = a->len - at;
    uint8_t length[4];
    size_t n = encode_length(length, body);
    reserve(a, n);
    memmove(a->data + at + n, a->data + at, body);
    memcpy(a->data + at, length, n);
    a->len += n;
}

/* One segment, padded with underscores as 20.2.2 has it. Returns what follows it. */
static const char *segment(struct aml *a, const char *s)
{
    char name[NAME_LEN] = { '_', '_', '_', '_' };
    size_t n = strcspn(s, ".");
    assert(n >= 1 && n <= NAME_LEN);
    memcpy(name, s, n);
    aml_bytes(a, name, NAME_LEN);
    return s[n] == '.' ? s + n + 1 : s + n;
}

void aml_path(struct aml *a, const char *path)
{
    while (*path == '\\' || *path == '^') {
        byte(a, (uint8_t)*path++);
    }
    unsigned segments = *path != '\0';
    for (const char *s = path; *s != '\0'; s++) {
        segments += *s == '.';
    }
    if (segments == 0) {
        byte(a, 0);
    } else if (segments == 2) {
        byte(a, OP_DUAL_NAME);
    } else if (segments > 2) {
        byte(a, OP_MULTI_NAME);
        byte(a, segments);
    }
    while (*path != '\0') {
        path = segment(a, path);
    }
}

void aml_scope(struct aml *a, const char *path)
{
    byte(a, OP_SCOPE);
    open_term(a);
    aml_path(a, path);
}

void aml_device(struct aml *a, const char *name)
{
    byte(a, OP_EXT);
    byte(a, OP_EXT_DEVICE);
    open_term(a);
    aml_path(a, name);
}

/* All ours are serialized: they create named objects or touch registers. */
void aml_method(struct aml *a, const char *name, unsigned args)
{
    byte(a, OP_METHOD);
    open_term(a);
    aml_path(a, name);
    byte(a, args | METHOD_SERIALIZED);
}

void aml_package(struct aml *a, unsigned elements)
{
    assert(elements <= 255);
    byte(a, OP_PACKAGE);
    open_term(a);
    byte(a, elements);
}

void aml_if(struct aml *a)
{
    byte(a, OP_IF);
    open_term(a);
}

void aml_field(struct aml *a, const char *region, enum aml_access access)
{
    byte(a, OP_EXT);
    byte(a, OP_EXT_FIELD);
    open_term(a);
    aml_path(a, region);
    byte(a, access); /* no lock, other bits preserved */
}

void aml_op(struct aml *a, enum aml_op op) { byte(a, op); }

void aml_integer(struct aml *a, uint64_t value)
{
    uint8_t raw[8];
    store_le64(raw, value);
    if (value <= 1) {
        byte(a, value == 0 ? OP_ZERO : OP_ONE);
    } else if (value <= UINT8_MAX) {
        byte(a, OP_BYTE);
        aml_bytes(a, raw, 1);
    } else if (value <= UINT16_MAX) {
        byte(a, OP_WORD);
        aml_bytes(a, raw, 2);
    } else if (value <= UINT32_MAX) {
        byte(a, OP_DWORD);
        aml_bytes(a, raw, 4);
    } else {
        byte(a, OP_QWORD);
        aml_bytes(a, raw, 8);
    }
}

void aml_string(struct aml *a, const char *s)
{
    byte(a, OP_STRING);
    aml_bytes(a, s, strlen(s) + 1);
}

static unsigned hex_digit(char c)
{
    return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'A' + 10);
}

/* Three letters of 5 bits, four hex digits, as ISA Plug and Play has them: big-endian. */
void aml_eisaid(struct aml *a, const char *id)
{
    assert(strlen(id) == 7);
    uint32_t v = 0;
    for (int i = 0; i < 3; i++) {
        v = v << 5 | ((uint32_t)(id[i] - 'A' + 1) & 0x1f);
    }
    for (int i = 3; i < 7; i++) {
        v = v << 4 | hex_digit(id[i]);
    }
    uint8_t raw[4];
    store_be32(raw, v);
    aml_integer(a, load_le32(raw));
}

void aml_name(struct aml *a, const char *name)
{
    byte(a, OP_NAME);
    aml_path(a, name);
}

void aml_region(struct aml *a, const char *name, enum aml_space space, uint64_t offset,
                uint64_t len)
{
    byte(a, OP_EXT);
    byte(a, OP_EXT_REGION);
    aml_path(a, name);
    byte(a, space);
    aml_integer(a, offset);
    aml_integer(a, len);
}

void aml_field_unit(struct aml *a, const char *name, unsigned bits)
{
    assert(bits < 64);
    segment(a, name);
    byte(a, bits); /* as a package length that does not count itself */
}

void aml_field_place(struct aml *a, unsigned offset, const char *name)
{
    aml_integer(a, offset);
    segment(a, name);
}

/* -- Resource descriptors (6.4) ---------------------------------------------------------------- */
static uint8_t *add(struct aml_resources *r, size_t len)
{
    assert(r->len + len <= sizeof r->data);
    uint8_t *p = r->data + r->len;
    memset(p, 0, len);
    r->len += len;
    return p;
}

void aml_res_io(struct aml_resources *r, uint16_t base, unsigned len)
{
    assert(len <= 255);
    uint8_t *p = add(r, 8);
    p[0] = 0x47;
    p[1] = 1; /* decodes 16 bits */
    store_le16(p + 2, base);
    store_le16(p + 4, base);
    p[6] = 1; /* alignment */
    p[7] = (uint8_t)len;
}

void aml_res_irq(struct aml_resources *r, unsigned irq)
{
    uint8_t *p = add(r, 3);
    p[0] = 0x22;
    store_le16(p + 1, (uint16_t)(1u << irq));
}

void aml_res_dma(struct aml_resources *r, unsigned channel)
{
    uint8_t *p = add(r, 3);
    p[0] = 0x2a;
    p[1] = (uint8_t)(1u << channel);
    p[2] = 0;
}

void aml_res_interrupts(struct aml_resources *r, const uint32_t *irqs, unsigned count)
{
    uint8_t *p = add(r, 5 + 4 * (size_t)count);
    p[0] = 0x89;
    store_le16(p + 1, (uint16_t)(2 + 4 * count));
    p[3] = 0x09; /* consumer, level, active high, shared */
    p[4] = (uint8_t)count;
    for (unsigned i = 0; i < count; i++) {
        store_le32(p + 5 + 4 * i, irqs[i]);
    }
}

void aml_res_memory(struct aml_resources *r, uint32_t base, uint32_t len)
{
    uint8_t *p = add(r, 12);
    p[0] = 0x86;
    store_le16(p + 1, 9);
    p[3] = 1; /* writable */
    store_le32(p + 4, base);
    store_le32(p + 8, len);
}

enum { WINDOW_MEMORY = 0, WINDOW_IO = 1, WINDOW_BUS = 2, WINDOW_FIXED = 0x0c };

static void word_window(struct aml_resources *r, unsigned type, unsigned flags, unsigned first,
                        unsigned last)
{
    uint8_t *p = add(r, 16);
    p[0] = 0x88;
    store_le16(p + 1, 13);
    p[3] = (uint8_t)type;
    p[4] = WINDOW_FIXED; /* minimum and maximum fixed, produced, positive decode */
    p[5] = (uint8_t)flags;
    store_le16(p + 8, (uint16_t)first);
    store_le16(p + 10, (uint16_t)last);
    store_le16(p + 14, (uint16_t)(last - first + 1));
}

void aml_res_bus_window(struct aml_resources *r, unsigned first, unsigned last)
{
    word_window(r, WINDOW_BUS, 0, first, last);
}

void aml_res_io_window(struct aml_resources *r, unsigned first, unsigned last)
{
    word_window(r, WINDOW_IO, 3, first, last); /* ISA and other ranges */
}

void aml_res_memory_window(struct aml_resources *r, enum aml_caching caching, uint32_t first,
                           uint32_t last)
{
    uint8_t *p = add(r, 26);
    p[0] = 0x87;
    store_le16(p + 1, 23);
    p[3] = WINDOW_MEMORY;
    p[4] = WINDOW_FIXED;
    p[5] = (uint8_t)(1 | caching << 1); /* writable */
    store_le32(p + 10, first);
    store_le32(p + 14, last);
    store_le32(p + 22, last - first + 1);
}

void aml_res_memory_window64(struct aml_resources *r, uint64_t first, uint64_t last)
{
    uint8_t *p = add(r, 46);
    p[0] = 0x8a;
    store_le16(p + 1, 43);
    p[3] = WINDOW_MEMORY;
    p[4] = WINDOW_FIXED;
    p[5] = 1;
    store_le64(p + 14, first);
    store_le64(p + 22, last);
    store_le64(p + 38, last - first + 1);
}

void aml_buffer(struct aml *a, const void *data, size_t len)
{
    byte(a, OP_BUFFER);
    open_term(a);
    aml_integer(a, len);
    aml_bytes(a, data, len);
    aml_close(a);
}

void aml_resources(struct aml *a, struct aml_resources *r)
{
    uint8_t *end = add(r, 2);
    end[0] = 0x79; /* end tag; checksum 0: not used */
    aml_buffer(a, r->data, r->len);
    r->len = 0;
}
