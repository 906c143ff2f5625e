/* SPDX-License-Identifier: Apache-2.0
 *
 * A thousand lives of an image of every format, each judged by qemu-img at its end. OPS_SEQUENCES
 * says another number.
 */
// LAYERS: block base
#include "block/ops.h"

static void test_ops(void **state)
{
    const char *text = getenv("OPS_SEQUENCES");
    uint64_t sequences = text != NULL ? strtoull(text, NULL, 10) : 1000;
    bool qemu = ops_have_qemu_img();
    for (uint64_t seed = 1; seed <= sequences; seed++) {
        ops_sequence(*state, seed + 1000, 40, qemu);
    }
}

int main(void)
{
    struct CMUnitTest tests[ARRAY_LEN(ops_kinds)];
    for (size_t i = 0; i < ARRAY_LEN(ops_kinds); i++) {
        tests[i] = (struct CMUnitTest){ .name = ops_kinds[i].name,
                                        .test_func = test_ops,
                                        .initial_state = (void *)&ops_kinds[i] };
    }
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests_name("block ops, long", tests, NULL, NULL);
}
