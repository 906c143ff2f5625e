/* SPDX-License-Identifier: Apache-2.0
 *
 * State described once: a table of fields per struct drives save, restore, migration, debug dump
 * and the save-load-save tests. What can be derived is not in the table: post_load rebuilds and
 * validates it. See docs/state-format.md for the stream.
 */
#ifndef SOSIA_STATE_STATE_H
#define SOSIA_STATE_STATE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum state_type {
    STATE_T_END,
    STATE_T_BOOL,
    STATE_T_U8,
    STATE_T_U16,
    STATE_T_U32,
    STATE_T_U64,
    STATE_T_BYTES,  /* fixed-size blob: count bytes */
    STATE_T_STRUCT, /* nested table, count elements of elem_size */
};

struct state_field {
    const char *name;
    uint32_t offset;
    uint32_t count;                /* array elements; 1 for a scalar */
    uint32_t elem_size;            /* bytes of one element */
    uint16_t type;                 /* enum state_type */
    uint16_t since;                /* first version of the table that has it */
    const struct state_field *sub; /* STATE_T_STRUCT */
};

/* The type comes from the member, so that name, size and offset can never disagree. Signed and
 * enum members are stored as the unsigned type of their size. */
/* clang-format off */
#define STATE_TYPE_OF(m)                                                                           \
    _Generic((m), _Bool: STATE_T_BOOL, uint8_t: STATE_T_U8, int8_t: STATE_T_U8,                    \
             uint16_t: STATE_T_U16, int16_t: STATE_T_U16, uint32_t: STATE_T_U32,                   \
             int32_t: STATE_T_U32, uint64_t: STATE_T_U64, int64_t: STATE_T_U64)
#define STATE_M(T, m) (((T *)0)->m)
#define STATE_SINCE(v, T, m)                                                                       \
    { #m, offsetof(T, m), 1, sizeof STATE_M(T, m), STATE_TYPE_OF(STATE_M(T, m)), v, NULL }
#define STATE(T, m) STATE_SINCE(1, T, m)
#define STATE_ARRAY_SINCE(v, T, m)                                                                 \
    { #m, offsetof(T, m), sizeof STATE_M(T, m) / sizeof STATE_M(T, m)[0], sizeof STATE_M(T, m)[0], \
      STATE_TYPE_OF(STATE_M(T, m)[0]), v, NULL }
#define STATE_ARRAY(T, m) STATE_ARRAY_SINCE(1, T, m)
#define STATE_BYTES(T, m)                                                                          \
    { #m, offsetof(T, m), sizeof STATE_M(T, m), 1, STATE_T_BYTES, 1, NULL }
#define STATE_STRUCT(T, m, table)                                                                  \
    { #m, offsetof(T, m), 1, sizeof STATE_M(T, m), STATE_T_STRUCT, 1, table }
#define STATE_STRUCTS(T, m, table) /* array of structs */                                          \
    { #m, offsetof(T, m), sizeof STATE_M(T, m) / sizeof STATE_M(T, m)[0], sizeof STATE_M(T, m)[0], \
      STATE_T_STRUCT, 1, table }
#define STATE_END { NULL, 0, 0, 0, STATE_T_END, 0, NULL }
/* clang-format on */

/* A growing or a bounded buffer of state. Writers never fail (they allocate); readers check every
 * length against what is left. */
struct state_out;
struct state_in;

struct state_out *state_out_new(void);
void state_out_free(struct state_out *o);
/* The finished stream, owned by o; valid until o is freed or written again. */
const uint8_t *state_out_data(const struct state_out *o, size_t *len);

/* One named section with the fields of *obj. name e.g. "pit", "lapic.0"; version: the table's. */
void state_save(struct state_out *o, const char *name, unsigned version,
                const struct state_field *table, const void *obj);
/* One named section holding raw bytes (bulk data: option RAM, queues). */
void state_save_blob(struct state_out *o, const char *name, const void *data, size_t len);

/* Opens and checks header and checksums of the whole stream. data is borrowed. */
MUST_CHECK int state_in_new(struct state_in **out, const uint8_t *data, size_t len, struct err *e);
void state_in_free(struct state_in *in);
/* Fills *obj from the section; fields absent from an older section keep their present value.
 * -ENOENT no such section, -EINVAL malformed or newer than `version`; *obj is then untouched. */
MUST_CHECK int state_load(struct state_in *in, const char *name, unsigned version,
                          const struct state_field *table, void *obj, size_t obj_size,
                          struct err *e);
/* Borrowed from the stream. */
MUST_CHECK int state_load_blob(struct state_in *in, const char *name, const uint8_t **data,
                               size_t *len, struct err *e);

/* "name=value" lines for people; returns bytes that a large enough buffer would need. */
size_t state_dump(char *buf, size_t size, const struct state_field *table, const void *obj);

#endif
