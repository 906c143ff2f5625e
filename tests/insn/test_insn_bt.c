/* SPDX-License-Identifier: Apache-2.0
 *
 * The bt engine against the host CPU: every row of the instruction table, random bytes, short
 * blocks, and the cases that once failed (cases.txt). As test_insn.c, which has the interpreter.
 */
// LAYERS: engine/bt engine cpu mem state base
#include "support/test.h"

#include <stdio.h>
#include <stdlib.h>

#include "support/insnrun.h"

static struct insnrun *runner;

static int set_up(void **state)
{
    struct err e = { "" };
    (void)state;
    runner = insnrun_new(&bt_engine, &e);
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

static void once_failed(void **state)
{
    (void)state;
    const char *top = getenv("TOP");
    char path[4096];
    snprintf(path, sizeof path, "%s/tests/insn/cases.txt", top != NULL ? top : ".");
    assert_int_equal(insnrun_file(runner, path, 50), 0);
}

static void every_row(void **state)
{
    (void)state;
    assert_int_equal(insnrun_rows(runner, 100), 0);
}

static void random_bytes(void **state)
{
    (void)state;
    assert_int_equal(insnrun_random(runner, 200000), 0);
}

static void blocks(void **state)
{
    (void)state;
    assert_int_equal(insnrun_blocks(runner, 200000), 0);
}

static void selected(void **state)
{
    bool any;
    (void)state;
    assert_int_equal(insnrun_selected(runner, &any), 0);
}

int main(void)
{
    const struct CMUnitTest one[] = { cmocka_unit_test(selected) };
    const struct CMUnitTest all[] = {
        cmocka_unit_test(once_failed),
        cmocka_unit_test(every_row),
        cmocka_unit_test(random_bytes),
        cmocka_unit_test(blocks),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    if (getenv("INSN_CASE") != NULL)
        return cmocka_run_group_tests(one, set_up, tear_down);
    return cmocka_run_group_tests(all, set_up, tear_down);
}
