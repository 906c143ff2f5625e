/* SPDX-License-Identifier: Apache-2.0
 *
 * Images of every format damaged at random, some hundred of each: what fuzz/fuzz_<format> does
 * for hours.
 */
// LAYERS: block base
#include "support/test.h"

#include "block/damage.h"

/* What fuzzing found. */
static const struct {
    const char *format;
    const char *input;
    size_t len;
} found[] = {
    /* a streamOptimized header that counts more grains than the footer does */
    { "vmdk", "\x93\x08\0\0\x24\x30\0\0\xda\0\x08\0\0\0\x0f\0\x28\x32\x32\x32\x32\x32\x32", 23 },
};

static void damaged(void **state)
{
    const char *format = *state;
    struct damage_template list[DAMAGE_TEMPLATES];
    size_t count = damage_templates(format, list);
    uint64_t rng = 0x1234567;
    assert_true(count > 0);
    for (unsigned i = 0; i < 250; i++) {
        uint8_t input[2 + 5 * 12];
        size_t changes = test_random(&rng) % 12;
        for (size_t k = 0; k < sizeof input; k++) {
            input[k] = (uint8_t)(test_random(&rng) >> 24);
        }
        damage_run(list, count, input, 2 + 5 * changes);
    }
    for (size_t i = 0; i < ARRAY_LEN(found); i++) {
        if (strcmp(found[i].format, format) == 0) {
            damage_run(list, count, (const uint8_t *)found[i].input, found[i].len);
        }
    }
    for (size_t i = 0; i < count; i++) {
        damage_template_free(&list[i]);
    }
}

int main(void)
{
    static char *const formats[] = { "qcow2", "vmdk", "vdi", "vhd", "vhdx" };
    struct CMUnitTest tests[ARRAY_LEN(formats)];
    for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
        tests[i] = (struct CMUnitTest){ .name = formats[i],
                                        .test_func = damaged,
                                        .initial_state = formats[i] };
    }
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests_name("block damage", tests, NULL, NULL);
}
