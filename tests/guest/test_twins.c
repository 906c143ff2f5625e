/* SPDX-License-Identifier: Apache-2.0
 *
 * Guests on interp and on bt in virtual time, side by side: the bare-metal kernels to their end or
 * a few million instructions, and the beginning of Debian's, which long_twins.c has whole.
 */
#include "support/twins.h"

#include "guest/twinguests.h"

static void metal(void **state)
{
    (void)state;
    glob_t found;
    twinguests_make("make -s -C $TOP/tests/metal OUT=$BUILD/metal");
    char *pattern = twinguests_path("metal/t[36][24]_*.elf");
    assert_int_equal(glob(pattern, 0, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        unsigned cpus = strstr(found.gl_pathv[i], "t64_smp") != NULL ? 4 : 1;
        struct sosia_config c = twinguests_config(found.gl_pathv[i], 32, cpus);
        struct twins t = { .config = &c, .gap = 50000, .end = 4000000 };
        assert_true(twins_run(&t));
        print_message("%s: the same at %u checkpoints, %lu instructions\n", found.gl_pathv[i],
                      t.checkpoints, (unsigned long)t.instructions);
    }
    assert_true(found.gl_pathc > 10);
    globfree(&found);
    free(pattern);
}

static void cloud(void **state)
{
    (void)state;
    if (!twinguests_fetch("cloud"))
        skip();
    char *kernel = twinguests_path("guests/cloud/vmlinuz");
    struct sosia_config c = twinguests_config(kernel, 96, 2);
    struct twins t = { .config = &c, .gap = 2000000, .end = 50000000 };
    assert_true(twins_run(&t));
    assert_int_equal(t.instructions, t.end);
    free(kernel);
}

int main(void)
{
    const struct CMUnitTest all[] = { cmocka_unit_test(metal), cmocka_unit_test(cloud) };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(all, NULL, NULL);
}
