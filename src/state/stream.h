/* SPDX-License-Identifier: Apache-2.0 -- layout of the state stream, see docs/state-format.md */
#ifndef SOSIA_STATE_STREAM_H
#define SOSIA_STATE_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STREAM_MAGIC "SOSIAST\x1a"
#define STREAM_MAGIC_LEN 8u
#define STREAM_FORMAT 1u

/* Header: magic[8] format:u32 sections:u32 total_bytes:u64 crc:u32 (of the 24 bytes before it) */
#define STREAM_HEADER_LEN 28u

/* Section: mark:u32 kind:u8 name_len:u8 zero:u16 table_version:u32 payload_len:u64
 * name[name_len] payload[payload_len] crc:u32 (of everything before it, from the mark on) */
#define STREAM_SECTION_MARK 0x54434553u /* "SECT" */
#define STREAM_SECTION_LEN 20u
#define STREAM_CRC_LEN 4u

enum stream_kind { STREAM_TABLE = 1, STREAM_BLOB = 2 };

/* Payload of a table, and each element of a nested struct: fields:u16, then per field
 * type:u8 name_len:u8 count:u32 name[name_len] and its values; a nested struct's elements are each
 * preceded by their byte length:u32. */
#define STREAM_FIELD_LEN 6u

#define STREAM_MAX_NAME 63u
#define STREAM_MAX_SECTIONS 4096u
#define STREAM_MAX_FIELDS 1024u
#define STREAM_MAX_DEPTH 8u

/* A bounded cursor over bytes of the stream: every take checks what is left. */
struct stream_cursor {
    const uint8_t *at;
    size_t left;
};

/* NULL when fewer than len bytes are left. */
const uint8_t *stream_take(struct stream_cursor *c, uint64_t len);
bool stream_take_u8(struct stream_cursor *c, uint8_t *out);
bool stream_take_u16(struct stream_cursor *c, uint16_t *out);
bool stream_take_u32(struct stream_cursor *c, uint32_t *out);
bool stream_take_u64(struct stream_cursor *c, uint64_t *out);

/* Bytes of one scalar element of a type; 0 for a struct or an unknown type. */
unsigned stream_scalar_size(unsigned type);

#endif
