/* SPDX-License-Identifier: Apache-2.0 */
// LAYERS: state base
#include "support/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "state/state.h"

enum color { RED, GREEN = 7 };

struct chan {
    uint16_t reload;
    bool loaded;
};

struct chip {
    const void *not_saved;
    bool on;
    uint8_t a;
    uint16_t b;
    uint32_t c;
    uint64_t d;
    int32_t negative;
    enum color color;
    uint16_t array[5];
    uint8_t blob[40];
    struct chan chan[3];
    struct chan single;
    uint32_t added; /* since version 2 */
};

static const struct state_field chan_state[] = {
    STATE(struct chan, reload),
    STATE(struct chan, loaded),
    STATE_END,
};

#define CHIP_V1_FIELDS                                                                             \
    STATE(struct chip, on), STATE(struct chip, a), STATE(struct chip, b), STATE(struct chip, c),   \
        STATE(struct chip, d), STATE(struct chip, negative), STATE(struct chip, color),            \
        STATE_ARRAY(struct chip, array), STATE_BYTES(struct chip, blob),                           \
        STATE_STRUCTS(struct chip, chan, chan_state),                                              \
        STATE_STRUCT(struct chip, single, chan_state)

static const struct state_field chip_v1[] = { CHIP_V1_FIELDS, STATE_END };
static const struct state_field chip_v2[] = {
    STATE_SINCE(2, struct chip, added),
    CHIP_V1_FIELDS,
    STATE_END,
};

static struct chip sample(void)
{
    struct chip chip;
    memset(&chip, 0, sizeof chip);
    chip.not_saved = &chip_v1;
    chip.on = true;
    chip.a = 0x12;
    chip.b = 0x3456;
    chip.c = 0x789abcde;
    chip.d = 0x1122334455667788ull;
    chip.negative = -5;
    chip.color = GREEN;
    for (unsigned i = 0; i < 5; i++) {
        chip.array[i] = (uint16_t)(i * 1000);
    }
    for (unsigned i = 0; i < 40; i++) {
        chip.blob[i] = (uint8_t)(255 - i);
    }
    for (unsigned i = 0; i < 3; i++) {
        chip.chan[i].reload = (uint16_t)(i + 1);
        chip.chan[i].loaded = i == 1;
    }
    chip.single.reload = 9;
    chip.added = 77;
    return chip;
}

static struct state_in *open_ok(const struct state_out *o)
{
    size_t len;
    const uint8_t *data = state_out_data(o, &len);
    struct state_in *in = NULL;
    struct err e = { "" };
    assert_int_equal(state_in_new(&in, data, len, &e), 0);
    assert_string_equal(e.msg, "");
    return in;
}

static void save_load_save(void **state)
{
    (void)state;
    struct chip one = sample();
    struct state_out *o = state_out_new();
    state_save(o, "chip", 2, chip_v2, &one);
    state_save_blob(o, "ram", "hello", 5);
    state_save(o, "chip.1", 2, chip_v2, &one);
    state_save_blob(o, "empty", NULL, 0);

    struct state_in *in = open_ok(o);
    struct chip two;
    memset(&two, 0, sizeof two);
    struct err e = { "" };
    assert_int_equal(state_load(in, "chip", 2, chip_v2, &two, sizeof two, &e), 0);
    assert_null(two.not_saved);
    two.not_saved = one.not_saved;
    assert_memory_equal(&one, &two, sizeof one);

    struct state_out *again = state_out_new();
    state_save(again, "chip", 2, chip_v2, &two);
    state_save_blob(again, "ram", "hello", 5);
    state_save(again, "chip.1", 2, chip_v2, &two);
    state_save_blob(again, "empty", NULL, 0);
    size_t len, len_again;
    const uint8_t *data = state_out_data(o, &len);
    const uint8_t *data_again = state_out_data(again, &len_again);
    assert_int_equal(len, len_again);
    assert_memory_equal(data, data_again, len);

    const uint8_t *blob;
    size_t blob_len;
    assert_int_equal(state_load_blob(in, "ram", &blob, &blob_len, &e), 0);
    assert_int_equal(blob_len, 5);
    assert_memory_equal(blob, "hello", 5);
    assert_int_equal(state_load_blob(in, "empty", &blob, &blob_len, &e), 0);
    assert_int_equal(blob_len, 0);
    state_in_free(in);
    state_out_free(o);
    state_out_free(again);
}

static void missing_and_wrong_kind(void **state)
{
    (void)state;
    struct chip one = sample(), two = sample();
    struct state_out *o = state_out_new();
    state_save(o, "chip", 1, chip_v1, &one);
    state_save_blob(o, "ram", "hello", 5);
    struct state_in *in = open_ok(o);
    struct err e = { "" };
    const uint8_t *blob;
    size_t len;
    assert_int_equal(state_load(in, "chop", 1, chip_v1, &two, sizeof two, &e), -ENOENT);
    assert_non_null(strstr(e.msg, "chop"));
    assert_int_equal(state_load(in, "ram", 1, chip_v1, &two, sizeof two, &e), -EINVAL);
    assert_int_equal(state_load_blob(in, "chip", &blob, &len, &e), -EINVAL);
    assert_int_equal(state_load_blob(in, "nope", &blob, &len, &e), -ENOENT);
    state_in_free(in);
    state_out_free(o);
}

static void versions(void **state)
{
    (void)state;
    struct chip one = sample();
    struct state_out *o = state_out_new();
    state_save(o, "old", 1, chip_v1, &one);
    state_save(o, "new", 2, chip_v2, &one);
    struct state_in *in = open_ok(o);
    struct err e = { "" };

    struct chip two;
    memset(&two, 0, sizeof two);
    two.added = 1234; /* keeps what reset gave it */
    assert_int_equal(state_load(in, "old", 2, chip_v2, &two, sizeof two, &e), 0);
    assert_int_equal(two.added, 1234);
    assert_true(two.d == one.d);

    struct chip before = two;
    assert_int_equal(state_load(in, "new", 1, chip_v1, &two, sizeof two, &e), -EINVAL);
    assert_non_null(strstr(e.msg, "version 2"));
    assert_memory_equal(&before, &two, sizeof two);

    /* Version 2 that lacks the field of version 2 lies. */
    struct state_out *lie = state_out_new();
    state_save(lie, "chip", 2, chip_v1, &one);
    struct state_in *in_lie = open_ok(lie);
    assert_int_equal(state_load(in_lie, "chip", 2, chip_v2, &two, sizeof two, &e), -EINVAL);
    assert_non_null(strstr(e.msg, "chip.added"));
    assert_memory_equal(&before, &two, sizeof two);
    state_in_free(in);
    state_in_free(in_lie);
    state_out_free(o);
    state_out_free(lie);
}

/* Tables that changed shape under the same names. */
struct wide {
    uint32_t b;
    uint16_t few[2];
    uint16_t many[8];
    struct chan chan[2];
};

static void changed_tables(void **state)
{
    (void)state;
    static const struct state_field few[] = {
        { "array", offsetof(struct wide, few), 2, 2, STATE_T_U16, 1, NULL }, STATE_END
    };
    static const struct state_field many[] = {
        { "array", offsetof(struct wide, many), 8, 2, STATE_T_U16, 1, NULL }, STATE_END
    };
    static const struct state_field type[] = { STATE(struct wide, b), STATE_END };
    static const struct state_field structs[] = { STATE_STRUCTS(struct wide, chan, chan_state),
                                                  STATE_END };
    static const struct state_field none[] = { STATE_END };
    struct chip one = sample();
    struct state_out *o = state_out_new();
    state_save(o, "chip", 1, chip_v1, &one);
    struct state_in *in = open_ok(o);
    struct err e = { "" };
    struct wide w;
    memset(&w, 0xaa, sizeof w);
    struct wide before = w;

    assert_int_equal(state_load(in, "chip", 1, few, &w, sizeof w, &e), -EINVAL);
    assert_int_equal(state_load(in, "chip", 2, few, &w, sizeof w, &e), -EINVAL);
    assert_int_equal(state_load(in, "chip", 1, many, &w, sizeof w, &e), -EINVAL);
    assert_int_equal(state_load(in, "chip", 1, type, &w, sizeof w, &e), -EINVAL);
    assert_non_null(strstr(e.msg, "chip.b"));
    assert_int_equal(state_load(in, "chip", 1, structs, &w, sizeof w, &e), -EINVAL);
    assert_memory_equal(&before, &w, sizeof w);
    /* An array that grew since takes the old elements and keeps the rest; dropped fields are
     * passed over. */
    assert_int_equal(state_load(in, "chip", 2, many, &w, sizeof w, &e), 0);
    assert_int_equal(w.many[4], 4000);
    assert_int_equal(w.many[5], 0xaaaa);
    assert_int_equal(state_load(in, "chip", 1, none, &w, sizeof w, &e), 0);
    state_in_free(in);
    state_out_free(o);
}

static uint8_t *copy_stream(const struct state_out *o, size_t *len)
{
    const uint8_t *data = state_out_data(o, len);
    uint8_t *copy = malloc(*len);
    assert_non_null(copy);
    memcpy(copy, data, *len);
    return copy;
}

static struct state_out *two_sections(void)
{
    struct chip one = sample();
    struct state_out *o = state_out_new();
    state_save(o, "chip", 2, chip_v2, &one);
    state_save_blob(o, "ram", "hello", 5);
    return o;
}

static void every_truncation_is_refused(void **state)
{
    (void)state;
    struct state_out *o = two_sections();
    size_t len;
    uint8_t *data = copy_stream(o, &len);
    for (size_t cut = 0; cut < len; cut++) {
        uint8_t *part = malloc(cut != 0 ? cut : 1); /* of exact size, for the sanitizer */
        memcpy(part, data, cut);
        struct state_in *in = NULL;
        struct err e = { "" };
        assert_int_equal(state_in_new(&in, part, cut, &e), -EINVAL);
        assert_string_not_equal(e.msg, "");
        assert_null(in);
        free(part);
    }
    uint8_t *longer = malloc(len + 1);
    memcpy(longer, data, len);
    longer[len] = 0;
    struct state_in *in = NULL;
    assert_int_equal(state_in_new(&in, longer, len + 1, NULL), -EINVAL);
    free(longer);
    free(data);
    state_out_free(o);
}

static void every_bit_flip_is_refused(void **state)
{
    (void)state;
    struct state_out *o = two_sections();
    size_t len;
    uint8_t *data = copy_stream(o, &len);
    for (size_t bit = 0; bit < 8 * len; bit++) {
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        struct state_in *in = NULL;
        struct err e = { "" };
        assert_int_equal(state_in_new(&in, data, len, &e), -EINVAL);
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    free(data);
    state_out_free(o);
}

#define HEADER 28u
#define SECTION 20u

/* Make the checksums right again after a change: a liar computes them, too. */
static void sign(uint8_t *data, size_t len)
{
    store_le32(data + 24, crc32c(0, data, 24));
    size_t at = HEADER;
    while (at + SECTION <= len) {
        uint64_t end = at + SECTION + data[at + 5] + load_le64(data + at + 12);
        if (end + 4 > len || end < at) {
            return;
        }
        store_le32(data + end, crc32c(0, data + at, end - at));
        at = end + 4;
    }
}

/* With good checksums, every byte changed to many values: refused or loaded, never worse; and what
 * is refused leaves the object alone. */
static void signed_lies_do_no_harm(void **state)
{
    (void)state;
    static const uint8_t deltas[] = { 1, 2, 0x10, 0x7f, 0x80, 0xff };
    struct state_out *o = two_sections();
    size_t len;
    uint8_t *data = copy_stream(o, &len);
    unsigned refused = 0, taken = 0;
    for (size_t at = 0; at < len; at++) {
        for (unsigned d = 0; d < ARRAY_LEN(deltas); d++) {
            uint8_t *lie = malloc(len);
            memcpy(lie, data, len);
            lie[at] ^= deltas[d];
            sign(lie, len);
            struct state_in *in = NULL;
            struct err e = { "" };
            if (state_in_new(&in, lie, len, &e) == 0) {
                struct chip two, before;
                memset(&two, 0x55, sizeof two);
                before = two;
                if (state_load(in, "chip", 2, chip_v2, &two, sizeof two, &e) == 0) {
                    taken++;
                } else {
                    assert_memory_equal(&two, &before, sizeof two);
                    refused++;
                }
                state_in_free(in);
            } else {
                refused++;
            }
            free(lie);
        }
    }
    assert_true(refused > 100 && taken > 100);
    free(data);
    state_out_free(o);
}

static void booleans_are_0_or_1(void **state)
{
    (void)state;
    struct chan c = { 1, true };
    struct state_out *o = state_out_new();
    state_save(o, "c", 1, chan_state, &c);
    size_t len;
    uint8_t *data = copy_stream(o, &len);
    assert_int_equal(data[len - 5], 1); /* the last value before the checksum */
    data[len - 5] = 2;
    sign(data, len);
    struct state_in *in;
    struct err e = { "" };
    assert_int_equal(state_in_new(&in, data, len, &e), 0);
    assert_int_equal(state_load(in, "c", 1, chan_state, &c, sizeof c, &e), -EINVAL);
    state_in_free(in);
    free(data);
    state_out_free(o);
}

static void names_come_once(void **state)
{
    (void)state;
    static const struct state_field doubled[] = { STATE(struct chan, reload),
                                                  STATE(struct chan, reload), STATE_END };
    struct chan c = { 1, true };
    struct state_out *o = state_out_new();
    state_save(o, "c", 1, doubled, &c);
    struct state_in *in = open_ok(o);
    struct err e = { "" };
    assert_int_equal(state_load(in, "c", 1, doubled, &c, sizeof c, &e), -EINVAL);
    state_in_free(in);
    state_save(o, "c", 1, chan_state, &c);
    size_t len;
    const uint8_t *data = state_out_data(o, &len);
    assert_int_equal(state_in_new(&in, data, len, &e), -EINVAL);
    assert_non_null(strstr(e.msg, "twice"));
    state_out_free(o);
}

static void empty_stream(void **state)
{
    (void)state;
    struct state_out *o = state_out_new();
    struct state_in *in = open_ok(o);
    state_in_free(in);
    state_out_free(o);
}

static void dump_is_for_people(void **state)
{
    (void)state;
    struct chip one = sample();
    char buf[2000];
    size_t need = state_dump(NULL, 0, chip_v2, &one);
    assert_true(need < sizeof buf);
    assert_int_equal(state_dump(buf, sizeof buf, chip_v2, &one), need);
    assert_int_equal(strlen(buf) + 1, need);
    assert_non_null(strstr(buf, "c=0x789abcde\n"));
    assert_non_null(strstr(buf, "array=0,0x3e8,0x7d0"));
    assert_non_null(strstr(buf, "chan[1].reload=0x2\n"));
    assert_non_null(strstr(buf, "single.reload=0x9\n"));
    assert_non_null(strstr(buf, "(40 bytes)"));
    char small[10];
    assert_int_equal(state_dump(small, sizeof small, chip_v2, &one), need);
    assert_int_equal(strlen(small), sizeof small - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(save_load_save),
        cmocka_unit_test(missing_and_wrong_kind),
        cmocka_unit_test(versions),
        cmocka_unit_test(changed_tables),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(every_bit_flip_is_refused),
        cmocka_unit_test(signed_lies_do_no_harm),
        cmocka_unit_test(booleans_are_0_or_1),
        cmocka_unit_test(names_come_once),
        cmocka_unit_test(empty_stream),
        cmocka_unit_test(dump_is_for_people),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
