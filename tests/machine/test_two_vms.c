/* SPDX-License-Identifier: Apache-2.0
 *
 * Two VMs in one process through the public header: they run beside each other, and what is done to
 * one the other does not feel. Also the header's smaller promises.
 */
#include <errno.h>

#include "machine/vmtest.h"

static char *kernel;

static int set_up(void **state)
{
    (void)state;
    kernel = vmtest_kernel(vmtest_echo, sizeof vmtest_echo);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(kernel);
    free(kernel);
    return 0;
}

static void two_vms(const char *first, const char *second)
{
    static struct vmtest a, b;
    struct sosia_config ca, cb;
    struct sosia_end end;
    vmtest_config(&a, &ca, kernel, first);
    vmtest_config(&b, &cb, kernel, second);
    cb.cpus = 2;
    cb.memory_bytes = 32u << 20;
    vmtest_make(&a, &ca);
    vmtest_make(&b, &cb);
    assert_string_equal(sosia_vm_engine(a.vm), first);
    assert_string_equal(sosia_vm_engine(b.vm), second);
    assert_true(sosia_vm_paused(a.vm));
    assert_int_equal(sosia_vm_end(a.vm, &end), -EAGAIN);
    sosia_vm_start(a.vm);
    sosia_vm_start(b.vm);
    assert_true(vmtest_shows(&a, 0, ">", 60));
    assert_true(vmtest_shows(&b, 0, ">", 60));
    vmtest_send(&a, "for a");
    vmtest_send(&b, "for b");
    assert_true(vmtest_shows(&a, 0, ">for a", 60));
    assert_true(vmtest_shows(&b, 0, ">for b", 60));

    /* One stands still, the other does not. */
    sosia_vm_pause(a.vm);
    sosia_vm_pause(a.vm);
    assert_true(sosia_vm_paused(a.vm));
    assert_false(sosia_vm_paused(b.vm));
    size_t before = vmtest_len(&a);
    vmtest_send(&a, "late");
    vmtest_send(&b, "still here");
    assert_true(vmtest_shows(&b, 0, "still here", 60));
    assert_int_equal(vmtest_len(&a), before);
    sosia_vm_resume(a.vm);
    assert_true(vmtest_shows(&a, before, "late", 60));

    /* One is reset, and its kernel starts again. */
    before = vmtest_len(&b);
    sosia_vm_reset(b.vm);
    assert_true(vmtest_shows(&b, before, ">", 60));

    /* One ends by itself, the other is stopped. */
    vmtest_send(&a, "\x85");
    assert_int_equal(sosia_vm_wait(a.vm, &end), 0);
    assert_int_equal(end.reason, SOSIA_END_EXIT_PORT);
    assert_int_equal(end.status, 11);
    vmtest_send(&b, "alive");
    assert_true(vmtest_shows(&b, before, "alive", 60));
    sosia_vm_stop(b.vm);
    assert_int_equal(sosia_vm_wait(b.vm, &end), 0);
    assert_int_equal(end.reason, SOSIA_END_STOPPED);
    assert_int_equal(end.status, 0);
    sosia_vm_free(a.vm);
    sosia_vm_free(b.vm);
    assert_int_equal(a.ended, 1);
    assert_int_equal(b.ended, 1);
}

static void test_interp_and_interp(void **state)
{
    (void)state;
    two_vms("interp", "interp");
}

static void test_bt_and_bt(void **state)
{
    (void)state;
    two_vms("bt", "bt");
}

static void test_bt_and_interp(void **state)
{
    (void)state;
    two_vms("bt", "interp");
}

static void test_free_while_running(void **state)
{
    (void)state;
    static struct vmtest t;
    struct sosia_config c;
    for (int i = 0; i < 20; i++) {
        vmtest_config(&t, &c, kernel, i % 2 ? "bt" : "interp");
        c.cpus = 1 + (unsigned)i % 4;
        vmtest_make(&t, &c);
        if (i % 5 != 0) {
            sosia_vm_start(t.vm);
        }
        if (i % 3 == 0) {
            sosia_vm_reset(t.vm);
        }
        sosia_vm_free(t.vm);
    }
    sosia_vm_free(NULL);
}

static void test_pause_and_reset_together(void **state)
{
    (void)state;
    static struct vmtest t;
    struct sosia_config c;
    vmtest_config(&t, &c, kernel, "interp");
    c.cpus = 3;
    vmtest_make(&t, &c);
    for (int i = 0; i < 50; i++) {
        sosia_vm_resume(t.vm);
        if (i % 2) {
            sosia_vm_reset(t.vm);
        }
        sosia_vm_pause(t.vm);
    }
    size_t from = vmtest_len(&t);
    sosia_vm_reset(t.vm);
    sosia_vm_resume(t.vm);
    assert_true(vmtest_shows(&t, from, ">", 60));
    sosia_vm_free(t.vm);
}

static void test_input_beyond_room(void **state)
{
    (void)state;
    static struct vmtest t;
    struct sosia_config c;
    static char text[200000];
    memset(text, 'x', sizeof text);
    vmtest_config(&t, &c, kernel, "bt");
    vmtest_make(&t, &c);
    /* Paused: there is an end to what is kept. */
    size_t taken = sosia_vm_serial_input(t.vm, 0, text, sizeof text);
    assert_true(taken > 1000 && taken < sizeof text);
    assert_int_equal(sosia_vm_serial_input(t.vm, 0, text, 1), 0);
    sosia_vm_start(t.vm);
    assert_true(vmtest_shows(&t, 0, ">xxxx", 60));
    sosia_vm_free(t.vm);
}

static void test_info(void **state)
{
    (void)state;
    static struct vmtest t;
    struct sosia_config c;
    char text[4096], small[10];
    vmtest_config(&t, &c, kernel, "bt");
    c.cpus = 2;
    vmtest_make(&t, &c);
    sosia_vm_start(t.vm);
    assert_true(vmtest_shows(&t, 0, ">", 60));
    long len = sosia_vm_info(t.vm, "registers", text, sizeof text);
    assert_true(len > 500 && strstr(text, "cpu 1: ") != NULL && strstr(text, "rip ") != NULL);
    assert_true(sosia_vm_info(t.vm, "registers", small, sizeof small) > 500);
    assert_int_equal(strlen(small), sizeof small - 1);
    assert_true(sosia_vm_info(t.vm, "registers", NULL, 0) > 500);
    assert_true(sosia_vm_info(t.vm, "devices", NULL, 0) > 100);
    assert_true(sosia_vm_info(t.vm, "memory", NULL, 0) > 10);
    assert_true(sosia_vm_info(t.vm, "engine", NULL, 0) > 5);
    assert_int_equal(sosia_vm_info(t.vm, "weather", text, sizeof text), -EINVAL);
    assert_int_equal(sosia_vm_power_button(t.vm), -ENOTSUP);
    assert_null(sosia_vm_serial_name(t.vm, 0));
    sosia_vm_free(t.vm);
}

static void test_bad_configurations(void **state)
{
    (void)state;
    struct sosia_config good;
    static struct vmtest t;
    char error[SOSIA_ERROR_BYTES];
    struct sosia_vm *vm = NULL;
    vmtest_config(&t, &good, kernel, NULL);
#define REFUSED(change, word)                                                                      \
    do {                                                                                           \
        struct sosia_config c = good;                                                              \
        change;                                                                                    \
        error[0] = '\0';                                                                           \
        assert_true(sosia_vm_new(&vm, &c, error) < 0);                                             \
        assert_null(vm);                                                                           \
        assert_non_null(strstr(error, word));                                                      \
    } while (0)
    REFUSED(c.size = 8, "version");
    REFUSED((c.kernel = NULL, c.initrd = "/dev/null"), "kernel");
    REFUSED((c.kernel = NULL, c.firmware = "/no/such/bios"), "/no/such/bios");
    REFUSED(c.kernel = "/no/such/kernel", "/no/such/kernel");
    REFUSED(c.cpus = 0, "processors");
    REFUSED(c.memory_bytes = 4097, "memory");
    REFUSED(c.engine = "perpetual", "perpetual");
    REFUSED(c.cpu_model = "abacus", "abacus");
    REFUSED(c.exit_port = 70000, "exit port");
    REFUSED(c.serial[2].kind = SOSIA_SERIAL_FILE, "path");
    REFUSED(c.serial[3].kind = (enum sosia_serial_kind)99, "kind");
    REFUSED(c.initrd = "/no/such/initrd", "/no/such/initrd");
    REFUSED(c.initrd = ",", "module");
    assert_true(sosia_vm_new(&vm, &(struct sosia_config){ 0 }, NULL) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_interp_and_interp),
        cmocka_unit_test(test_bt_and_bt),
        cmocka_unit_test(test_bt_and_interp),
        cmocka_unit_test(test_free_while_running),
        cmocka_unit_test(test_pause_and_reset_together),
        cmocka_unit_test(test_input_beyond_room),
        cmocka_unit_test(test_info),
        cmocka_unit_test(test_bad_configurations),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
