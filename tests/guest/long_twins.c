/* SPDX-License-Identifier: Apache-2.0
 *
 * Debian's kernels from the first instruction to powered off on interp and on bt in virtual time:
 * the same registers, devices and memory at every checkpoint.
 */
#include "support/twins.h"

#include "guest/twinguests.h"

struct boot {
    const char *kernel;
    unsigned cpus;
    uint64_t code_cache_bytes;
};

static void boots(void **state)
{
    const struct boot *b = *state;
    const char *userland = strstr(b->kernel, "686") != NULL ? "busybox-i386" : "busybox";
    char command[160];
    char name[64];
    snprintf(command, sizeof command, "%s %s", b->kernel, userland);
    if (!twinguests_fetch(command))
        skip();
    snprintf(command, sizeof command,
             "$TOP/tools/mkinitrd -b $BUILD/guests/%s/busybox -r true -o $BUILD/guests/twins.cpio",
             userland);
    twinguests_make(command);
    snprintf(name, sizeof name, "guests/%s/vmlinuz", b->kernel);
    char *kernel = twinguests_path(name);
    char *initrd = twinguests_path("guests/twins.cpio");
    struct sosia_config c = twinguests_config(kernel, 256, b->cpus);
    c.initrd = initrd;
    c.code_cache_bytes = b->code_cache_bytes;
    struct twins t = { .config = &c, .gap = 10000000, .end = 20000000000 };
    bool same = twins_run(&t);
    print_message("%s, %u processors: %lu instructions, %u checkpoints\n", b->kernel, b->cpus,
                  (unsigned long)t.instructions, t.checkpoints);
    assert_true(same);
    assert_true(t.ended);
    assert_int_equal(t.how.reason, SOSIA_END_POWER_OFF);
    free(initrd);
    free(kernel);
}

#define BOOT(what, ...)                                                                            \
    { .name = what, .test_func = boots, .initial_state = &(struct boot){ __VA_ARGS__ } }

int main(void)
{
    const struct CMUnitTest all[] = {
        BOOT("cloud", "cloud", 1, 0),
        BOOT("cloud in a code cache of 1 MiB", "cloud", 1, 1 << 20),
        BOOT("cloud on 4 processors", "cloud", 4, 0),
        BOOT("amd64", "amd64", 1, 0),
        BOOT("686", "686", 1, 0),
        BOOT("686-pae on 4 processors", "686-pae", 4, 0),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(all, NULL, NULL);
}
