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

#include "machine/vmtest.h"

static char *kernel;
static char dir[] = "/tmp/sosia-snapshot-XXXXXX";

static int set_up(void **state)
{
    (void)state;
    kernel = vmtest_kernel(vmtest_echo, sizeof vmtest_echo);
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    unlink(kernel);
    free(kernel);
    return system(command);
}

static const char *in_dir(const char *name)
{
    static char paths[8][128];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

/* A machine that echoes, and has echoed `text`. */
static void start(struct vmtest *t, const char *engine, unsigned cpus, const char *text)
{
    struct sosia_config c;
    vmtest_config(t, &c, kernel, engine);
    c.cpus = cpus;
    vmtest_make(t, &c);
    sosia_vm_start(t->vm);
    assert_true(vmtest_shows(t, 0, ">", 60));
    vmtest_send(t, text);
    assert_true(vmtest_shows(t, 0, text, 60));
}

static void save(struct vmtest *t, const char *path, const struct sosia_snapshot_options *o,
                 struct sosia_snapshot_result *result)
{
    char error[SOSIA_ERROR_BYTES] = "";
    int r = sosia_vm_snapshot(t->vm, path, o, result, error);
    if (r < 0) {
        print_message("snapshot: %s\n", error);
    }
    assert_int_equal(r, 0);
}

static int try_restore(struct vmtest *t, const char *path, const char *engine, char *error)
{
    struct sosia_snapshot *s;
    struct sosia_config c, fresh;
    int r = sosia_snapshot_open(&s, path, error);
    if (r < 0) {
        return r;
    }
    vmtest_config(t, &fresh, NULL, engine);
    sosia_snapshot_config(s, &c);
    c.engine = engine;
    c.ctx = t;
    c.serial_output = fresh.serial_output;
    c.ended = fresh.ended;
    r = sosia_vm_new(&t->vm, &c, error);
    if (r == 0) {
        r = sosia_vm_restore(t->vm, s, error);
        if (r < 0) {
            sosia_vm_free(t->vm);
        }
    }
    sosia_snapshot_close(s);
    return r;
}

/* Take it up: no second '>', and it echoes. */
static void restore_and_see(const char *path, const char *engine)
{
    static struct vmtest t;
    char error[SOSIA_ERROR_BYTES] = "";
    int r = try_restore(&t, path, engine, error);
    if (r < 0) {
        print_message("restore: %s\n", error);
    }
    assert_int_equal(r, 0);
    sosia_vm_start(t.vm);
    vmtest_send(&t, "after");
    assert_true(vmtest_shows(&t, 0, "after", 60));
    assert_memory_equal(t.text, "after", 5);
    sosia_vm_free(t.vm);
}

static void between(const char *from, const char *to, unsigned cpus)
{
    static struct vmtest t;
    struct sosia_snapshot_result result;
    start(&t, from, cpus, "before");
    save(&t, in_dir("s"), NULL, &result);
    assert_true(result.bytes > 0 && result.bytes < result.memory);
    /* It runs on, and what it does now is not in the file. */
    vmtest_send(&t, "on");
    assert_true(vmtest_shows(&t, 0, "beforeon", 60));
    sosia_vm_free(t.vm);
    restore_and_see(in_dir("s"), to);
    restore_and_see(in_dir("s"), to);
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
    start(&t, "interp", 1, "before");
    if (sosia_vm_snapshot(t.vm, in_dir("packed"), &o, NULL, error) == -ENOTSUP) {
        sosia_vm_free(t.vm);
        skip(); /* a build without zstd */
    }
    sosia_vm_free(t.vm);
    restore_and_see(in_dir("packed"), "bt");
}

static void test_chain(void **state)
{
    (void)state;
    static struct vmtest t;
    struct sosia_snapshot_result whole, delta;
    char error[SOSIA_ERROR_BYTES] = "";
    start(&t, "interp", 1, "one");
    save(&t, in_dir("c0"), NULL, &whole);
    const char *names[] = { "c0", "c1", "c2", "c3" };
    for (unsigned i = 1; i < 4; i++) {
        char parent[128];
        snprintf(parent, sizeof parent, "%s", in_dir(names[i - 1]));
        const struct sosia_snapshot_options o = { .parent = parent, .compress = i == 2 };
        size_t from = vmtest_len(&t);
        vmtest_send(&t, "x");
        assert_true(vmtest_shows(&t, from, "x", 60));
        int r = sosia_vm_snapshot(t.vm, in_dir(names[i]), &o, &delta, error);
        if (r == -ENOTSUP) {
            save(&t, in_dir(names[i]), &(struct sosia_snapshot_options){ .parent = parent },
                 &delta);
        }
        assert_true(delta.bytes < whole.bytes);
    }
    const struct sosia_snapshot_options self = { .parent = in_dir("c3") };
    assert_int_equal(sosia_vm_snapshot(t.vm, in_dir("c3"), &self, NULL, error), -EINVAL);
    assert_non_null(strstr(error, "its own parent"));
    sosia_vm_free(t.vm);
    for (unsigned i = 0; i < 4; i++) {
        restore_and_see(in_dir(names[i]), i % 2 ? "bt" : "interp");
    }
    /* A parent that was made anew is another one. */
    start(&t, "interp", 1, "two");
    save(&t, in_dir("c0"), NULL, NULL);
    sosia_vm_free(t.vm);
    assert_int_equal(try_restore(&t, in_dir("c1"), "interp", error), -EINVAL);
    assert_non_null(strstr(error, "not the snapshot"));
    unlink(in_dir("c0"));
    assert_int_equal(try_restore(&t, in_dir("c1"), "interp", error), -ENOENT);
    assert_non_null(strstr(error, "parent of"));
}

static void test_paused_and_ended(void **state)
{
    (void)state;
    static struct vmtest t;
    char error[SOSIA_ERROR_BYTES] = "";
    start(&t, "interp", 1, "before");
    sosia_vm_pause(t.vm);
    save(&t, in_dir("paused"), NULL, NULL);
    assert_true(sosia_vm_paused(t.vm));
    sosia_vm_stop(t.vm);
    assert_int_equal(sosia_vm_snapshot(t.vm, in_dir("ended"), NULL, NULL, error), -ESHUTDOWN);
    assert_int_equal(access(in_dir("ended"), F_OK), -1);
    assert_int_equal(access(in_dir("ended.part"), F_OK), -1);
    sosia_vm_free(t.vm);
    restore_and_see(in_dir("paused"), "interp");
}

/* Whatever is wrong with a file: a message, and nothing of it is believed. */
static void test_damaged(void **state)
{
    (void)state;
    static struct vmtest t;
    char error[SOSIA_ERROR_BYTES] = "";
    struct stat st;
    start(&t, "interp", 1, "before");
    save(&t, in_dir("d"), NULL, NULL);
    sosia_vm_free(t.vm);
    int fd = open(in_dir("d"), O_RDWR);
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    uint64_t seed = 7;
    for (int i = 0; i < 40; i++) { /* in the header page, and in the state at the end */
        off_t at = i % 2 ? (off_t)(test_random(&seed) % 4096)
                         : st.st_size - 4096 - (off_t)(test_random(&seed) % 4096);
        uint8_t byte, bad;
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        bad = byte ^ (uint8_t)(1u << test_random(&seed) % 8);
        assert_int_equal(pwrite(fd, &bad, 1, at), 1);
        assert_true(try_restore(&t, in_dir("d"), "interp", error) < 0);
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    }
    for (int i = 0; i < 10; i++) {
        assert_int_equal(ftruncate(fd, (off_t)(test_random(&seed) % (uint64_t)st.st_size)), 0);
        assert_true(try_restore(&t, in_dir("d"), "interp", error) < 0);
    }
    close(fd);
    assert_int_equal(try_restore(&t, kernel, "interp", error), -EINVAL);
    assert_non_null(strstr(error, "not a snapshot"));
}

/* No room: the old one stays, the new one is not there, the guest goes on. */
static void test_no_room(void **state)
{
    (void)state;
    static struct vmtest t;
    char error[SOSIA_ERROR_BYTES] = "";
    struct rlimit old, small = { 65536, RLIM_INFINITY };
    start(&t, "interp", 1, "before");
    save(&t, in_dir("room"), NULL, NULL);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small.rlim_max = old.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    int r = sosia_vm_snapshot(t.vm, in_dir("room"), NULL, NULL, error);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(r, -EFBIG);
    assert_non_null(strstr(error, "room"));
    assert_int_equal(access(in_dir("room.part"), F_OK), -1);
    vmtest_send(&t, "on");
    assert_true(vmtest_shows(&t, 0, "beforeon", 60));
    sosia_vm_free(t.vm);
    restore_and_see(in_dir("room"), "interp");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_engines),          cmocka_unit_test(test_compressed),
        cmocka_unit_test(test_chain),            cmocka_unit_test(test_paused_and_ended),
        cmocka_unit_test(test_damaged),          cmocka_unit_test(test_no_room),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
