/* SPDX-License-Identifier: Apache-2.0 */
#include "state/stream.h"

#include "base/bytes.h"
#include "state/state.h"

const uint8_t *stream_take(struct stream_cursor *c, uint64_t len)
{
    if (len > c->left) {
        return NULL;
    }
    const uint8_t *p = c->at;
    c->at += len;
    c->left -= (size_t)len;
    return p;
}

bool stream_take_u8(struct stream_cursor *c, uint8_t *out)
{
    const uint8_t *p = stream_take(c, 1);
    if (p != NULL) {
        *out = *p;
    }
    return p != NULL;
}

bool stream_take_u16(struct stream_cursor *c, uint16_t *out)
{
    const uint8_t *p = stream_take(c, 2);
    if (p != NULL) {
        *out = load_le16(p);
    }
    return p != NULL;
}

bool stream_take_u32(struct stream_cursor *c, uint32_t *out)
{
    const uint8_t *p = stream_take(c, 4);
    if (p != NULL) {
        *out = load_le32(p);
    }
    return p != NULL;
}

bool stream_take_u64(struct stream_cursor *c, uint64_t *out)
{
    const uint8_t *p = stream_take(c, 8);
    if (p != NULL) {
        *out = load_le64(p);
    }
    return p != NULL;
}

unsigned stream_scalar_size(unsigned type)
{
    switch (type) {
    case STATE_T_BOOL:
    case STATE_T_U8:
    case STATE_T_BYTES:
        return 1;
    case STATE_T_U16:
        return 2;
    case STATE_T_U32:
        return 4;
    case STATE_T_U64:
        return 8;
    default:
        return 0;
    }
}
