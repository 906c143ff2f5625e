/* SPDX-License-Identifier: Apache-2.0
 *
 * A few lives of an image of every format; tests/block/long_ops.c has many.
 */
// LAYERS: block base
#include "block/ops.h"

static void test_ops(void **state)
{
    const struct ops_kind *k = *state;
    bool qemu = ops_have_qemu_img();
    for (uint64_t seed = 1; seed <= 2; seed++) {
        ops_sequence(k, seed, 60, qemu);
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
    return cmocka_run_group_tests_name("block ops", tests, NULL, NULL);
}
