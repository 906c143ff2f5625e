/* SPDX-License-Identifier: Apache-2.0
 *
 * Ten million random cases of the interp engine against the host CPU, besides thousands per row.
 */
// LAYERS: engine/interp engine cpu mem state base
#include "support/test.h"

#include "support/insnrun.h"

static struct insnrun *runner;

static int set_up(void **state)
{
    struct err e = { "" };
    (void)state;
    runner = insnrun_new(&interp_engine, &e);
    if (runner == NULL)
        print_error("%s\n", e.msg);
    return runner == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    print_message("%lu cases\n", insnrun_cases(runner));
    insnrun_free(runner);
    return 0;
}

static void every_row(void **state)
{
    (void)state;
    assert_int_equal(insnrun_rows(runner, 10000), 0);
}

static void random_bytes(void **state)
{
    (void)state;
    assert_int_equal(insnrun_random(runner, 20000000), 0);
    assert_true(insnrun_cases(runner) > 10000000);
}

static void blocks(void **state)
{
    (void)state;
    assert_int_equal(insnrun_blocks(runner, 5000000), 0);
}

int main(void)
{
    const struct CMUnitTest all[] = {
        cmocka_unit_test(every_row),
        cmocka_unit_test(random_bytes),
        cmocka_unit_test(blocks),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(all, set_up, tear_down);
}
