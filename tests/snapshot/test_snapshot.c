/* SPDX-License-Identifier: Apache-2.0
 *
 * Snapshots through the public interface: of a running machine, taken up under either engine, whole
 * and compressed, on a parent; and files that are damaged or do not fit.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <signal.h>
#include <sys/stat.h>

#include "snapshot/snaptest.h"

static void between(const char *from, const char *to, unsigned cpus)
{
    static struct vmtest t;
    struct sosia_snapshot_result result;
    snaptest_start(&t, from, cpus, "before");
    snaptest_save(&t, snaptest_path("s"), NULL, &result);
    assert_true(result.bytes > 0 && result.bytes < result.memory);
    /* It runs on, and what it does now is not in the file. */
    vmtest_send(&t, "on");
    assert_true(vmtest_shows(&t, 0, "beforeon", 60));
    sosia_vm_free(t.vm);
    snaptest_goes_on(snaptest_path("s"), to);
    snaptest_goes_on(snaptest_path("s"), to);
}

static void test_engines(void **state)
{
    (void)state;
    between("interp", "bt", 1);
    between("bt", "interp", 3);
    between("bt", "bt", 1);
}

static void test_compressed(void **state)
{
    (void)state;
    static struct vmtest t;
    const struct sosia_snapshot_options o = { .compress = true };
    char error[SOSIA_ERROR_BYTES] = "";
    snaptest_start(&t, "interp", 1, "before");
    if (sosia_vm_snapshot(t.vm, snaptest_path("packed"), &o, NULL, error) == -ENOTSUP) {
        sosia_vm_free(t.vm);
        skip(); /* a build without zstd */
    }
    sosia_vm_free(t.vm);
    snaptest_goes_on(snaptest_path("packed"), "bt");
}

static void test_chain(void **state)
{
    (void)state;
    static struct vmtest t;
    struct sosia_snapshot_result whole, delta;
    char error[SOSIA_ERROR_BYTES] = "";
    snaptest_start(&t, "interp", 1, "one");
    snaptest_save(&t, snaptest_path("c0"), NULL, &whole);
    const char *names[] = { "c0", "c1", "c2", "c3" };
    for (unsigned i = 1; i < 4; i++) {
        char parent[128];
        snprintf(parent, sizeof parent, "%s", snaptest_path(names[i - 1]));
        const struct sosia_snapshot_options o = { .parent = parent, .compress = i == 2 };
        size_t from = vmtest_len(&t);
        vmtest_send(&t, "x");
        assert_true(vmtest_shows(&t, from, "x", 60));
        int r = sosia_vm_snapshot(t.vm, snaptest_path(names[i]), &o, &delta, error);
        if (r == -ENOTSUP) {
            snaptest_save(&t, snaptest_path(names[i]),
                          &(struct sosia_snapshot_options){ .parent = parent }, &delta);
        }
        assert_true(delta.bytes < whole.bytes);
    }
    const struct sosia_snapshot_options self = { .parent = snaptest_path("c3") };
    assert_int_equal(sosia_vm_snapshot(t.vm, snaptest_path("c3"), &self, NULL, error), -EINVAL);
    assert_non_null(strstr(error, "its own parent"));
    sosia_vm_free(t.vm);
    for (unsigned i = 0; i < 4; i++) {
        snaptest_goes_on(snaptest_path(names[i]), i % 2 ? "bt" : "interp");
    }
    /* A parent that was made anew is another one. */
    snaptest_start(&t, "interp", 1, "two");
    snaptest_save(&t, snaptest_path("c0"), NULL, NULL);
    sosia_vm_free(t.vm);
    assert_int_equal(snaptest_restore(&t, snaptest_path("c1"), "interp", error), -EINVAL);
    assert_non_null(strstr(error, "not the snapshot"));
    unlink(snaptest_path("c0"));
    assert_int_equal(snaptest_restore(&t, snaptest_path("c1"), "interp", error), -ENOENT);
    assert_non_null(strstr(error, "parent of"));
}

static void test_paused_and_ended(void **state)
{
    (void)state;
    static struct vmtest t;
    char error[SOSIA_ERROR_BYTES] = "";
    snaptest_start(&t, "interp", 1, "before");
    sosia_vm_pause(t.vm);
    snaptest_save(&t, snaptest_path("paused"), NULL, NULL);
    assert_true(sosia_vm_paused(t.vm));
    sosia_vm_stop(t.vm);
    assert_int_equal(sosia_vm_snapshot(t.vm, snaptest_path("ended"), NULL, NULL, error),
                     -ESHUTDOWN);
    assert_int_equal(access(snaptest_path("ended"), F_OK), -1);
    assert_int_equal(access(snaptest_path("ended.part"), F_OK), -1);
    sosia_vm_free(t.vm);
    snaptest_goes_on(snaptest_path("paused"), "interp");
}

/* Whatever is wrong with a file: a message, and nothing of it is believed. */
static void test_damaged(void **state)
{
    (void)state;
    static struct vmtest t;
    char error[SOSIA_ERROR_BYTES] = "";
    struct stat st;
    snaptest_start(&t, "interp", 1, "before");
    snaptest_save(&t, snaptest_path("d"), NULL, NULL);
    sosia_vm_free(t.vm);
    int fd = open(snaptest_path("d"), O_RDWR);
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    uint64_t seed = 7;
    for (int i = 0; i < 40; i++) { /* in the header page, and in the state at the end */
        off_t at = i % 2 ? (off_t)(test_random(&seed) % 4096)
                         : st.st_size - 4096 - (off_t)(test_random(&seed) % 4096);
        uint8_t byte, bad;
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        bad = byte ^ (uint8_t)(1u << test_random(&seed) % 8);
        assert_int_equal(pwrite(fd, &bad, 1, at), 1);
        assert_true(snaptest_restore(&t, snaptest_path("d"), "interp", error) < 0);
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    }
    for (int i = 0; i < 10; i++) {
        assert_int_equal(ftruncate(fd, (off_t)(test_random(&seed) % (uint64_t)st.st_size)), 0);
        assert_true(snaptest_restore(&t, snaptest_path("d"), "interp", error) < 0);
    }
    close(fd);
    assert_int_equal(snaptest_restore(&t, snaptest_kernel, "interp", error), -EINVAL);
    assert_non_null(strstr(error, "not a snapshot"));
}

/* No room: the old one stays, the new one is not there, the guest goes on. */
static void test_no_room(void **state)
{
    (void)state;
    static struct vmtest t;
    char error[SOSIA_ERROR_BYTES] = "";
    struct rlimit old, small = { 65536, RLIM_INFINITY };
    snaptest_start(&t, "interp", 1, "before");
    snaptest_save(&t, snaptest_path("room"), NULL, NULL);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small.rlim_max = old.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    int r = sosia_vm_snapshot(t.vm, snaptest_path("room"), NULL, NULL, error);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(r, -EFBIG);
    assert_non_null(strstr(error, "room"));
    assert_int_equal(access(snaptest_path("room.part"), F_OK), -1);
    vmtest_send(&t, "on");
    assert_true(vmtest_shows(&t, 0, "beforeon", 60));
    sosia_vm_free(t.vm);
    snaptest_goes_on(snaptest_path("room"), "interp");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_engines), cmocka_unit_test(test_compressed),
        cmocka_unit_test(test_chain),   cmocka_unit_test(test_paused_and_ended),
        cmocka_unit_test(test_damaged), cmocka_unit_test(test_no_room),
    };
    return cmocka_run_group_tests(tests, snaptest_set_up, snaptest_tear_down);
}
