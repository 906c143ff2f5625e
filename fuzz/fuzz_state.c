/* SPDX-License-Identifier: Apache-2.0
 *
 * The state stream from hostile bytes. Checksums are made right first, or nothing would get past
 * them. What loads must save and load again to the same.
 */
// LAYERS: state base
#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "state/state.h"
#include "state/stream.h"

struct inner {
    uint16_t reload;
    bool loaded;
    uint8_t raw[6];
};

struct outer {
    bool on;
    uint8_t a;
    uint32_t b[3];
    uint64_t c;
    struct inner inner[2];
    int32_t late;
};

static const struct state_field inner_state[] = {
    STATE(struct inner, reload),
    STATE(struct inner, loaded),
    STATE_BYTES(struct inner, raw),
    STATE_END,
};

static const struct state_field outer_state[] = {
    STATE(struct outer, on),
    STATE(struct outer, a),
    STATE_ARRAY(struct outer, b),
    STATE(struct outer, c),
    STATE_STRUCTS(struct outer, inner, inner_state),
    STATE_SINCE(2, struct outer, late),
    STATE_END,
};

static void sign(uint8_t *data, size_t len)
{
    if (len < STREAM_HEADER_LEN) {
        return;
    }
    memcpy(data, STREAM_MAGIC, STREAM_MAGIC_LEN);
    store_le64(data + 16, len);
    store_le32(data + 24, crc32c(0, data, 24));
    size_t at = STREAM_HEADER_LEN;
    while (len - at >= STREAM_SECTION_LEN) {
        uint64_t head = STREAM_SECTION_LEN + data[at + 5];
        uint64_t payload = load_le64(data + at + 12);
        if (payload > len || len - at < head + payload + STREAM_CRC_LEN) {
            return;
        }
        uint64_t covered = head + payload;
        store_le32(data + at + covered, crc32c(0, data + at, covered));
        at += covered + STREAM_CRC_LEN;
    }
}

static void must_survive(const struct outer *obj)
{
    struct state_out *o = state_out_new();
    state_save(o, "dev", 2, outer_state, obj);
    size_t len;
    const uint8_t *data = state_out_data(o, &len);
    struct state_in *in;
    struct outer back;
    memset(&back, 0, sizeof back);
    if (state_in_new(&in, data, len, NULL) != 0 ||
        state_load(in, "dev", 2, outer_state, &back, sizeof back, NULL) != 0 ||
        memcmp(&back, obj, sizeof back) != 0) {
        abort();
    }
    state_in_free(in);
    state_out_free(o);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t len)
{
    uint8_t *data = malloc(len != 0 ? len : 1);
    if (len != 0) {
        memcpy(data, input, len);
    }
    sign(data, len);
    struct state_in *in;
    struct err e = { "" };
    if (state_in_new(&in, data, len, &e) == 0) {
        struct outer obj;
        memset(&obj, 0, sizeof obj);
        if (state_load(in, "dev", 2, outer_state, &obj, sizeof obj, &e) == 0) {
            must_survive(&obj);
            char text[512];
            state_dump(text, sizeof text, outer_state, &obj);
        }
        const uint8_t *blob;
        size_t blob_len;
        if (state_load_blob(in, "ram", &blob, &blob_len, &e) == 0) {
            assert(blob >= data && blob + blob_len <= data + len);
        }
        state_in_free(in);
    }
    free(data);
    return 0;
}
