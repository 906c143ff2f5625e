/* SPDX-License-Identifier: Apache-2.0 */
#include "support/insnprogram.h"

#include <stdio.h>
#include <stdlib.h>

#include "support/test.h"

static const struct engine_class *tested;
static const struct insn_amounts *wanted;
static struct insnrun *runner;

static int set_up(void **state)
{
    struct err e = { "" };
    (void)state;
    runner = insnrun_new(tested, &e);
    if (runner == NULL) {
        print_error("%s\n", e.msg);
    }
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
    assert_int_equal(insnrun_file(runner, path, wanted->each), 0);
}

static void every_row(void **state)
{
    (void)state;
    assert_int_equal(insnrun_rows(runner, wanted->per_row), 0);
}

static void random_bytes(void **state)
{
    (void)state;
    unsigned long before = insnrun_cases(runner);
    assert_int_equal(insnrun_random(runner, wanted->random), 0);
    assert_true(insnrun_cases(runner) != before);
}

static void blocks(void **state)
{
    (void)state;
    assert_int_equal(insnrun_blocks(runner, wanted->blocks), 0);
}

static void selected(void **state)
{
    bool any;
    (void)state;
    assert_int_equal(insnrun_selected(runner, &any), 0);
}

int insn_program(const struct engine_class *engine, const struct insn_amounts *amounts)
{
    const struct CMUnitTest one[] = { cmocka_unit_test(selected) };
    const struct CMUnitTest all[] = {
        cmocka_unit_test(once_failed),
        cmocka_unit_test(every_row),
        cmocka_unit_test(random_bytes),
        cmocka_unit_test(blocks),
    };
    tested = engine;
    wanted = amounts;
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return getenv("INSN_CASE") != NULL ? cmocka_run_group_tests(one, set_up, tear_down)
                                       : cmocka_run_group_tests(all, set_up, tear_down);
}
