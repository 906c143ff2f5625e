/* SPDX-License-Identifier: Apache-2.0
 *
 * A machine's state goes into another machine of the same configuration: saved again it is the same
 * bytes, and the guest goes on where it was. Bad streams are refused.
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

/* time() would lag behind the second that the RTC reads. */
static time_t second_now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return ts.tv_sec;
}

/* b takes up all of a, and what it saves is the same. The RTC shows the host's wall clock, which
 * does not stand still with the machine: what is saved twice must be saved in the same second to be
 * the same bytes, which memory is too big for on a busy host. */
static void save_and_copy(struct vmtest *a, struct vmtest *b)
{
    char error[SOSIA_ERROR_BYTES] = "";
    void *first, *second;
    size_t first_len, second_len, state_len = 0;
    bool same_second = false;
    assert_int_equal(sosia_vm_save(a->vm, true, &first, &first_len, error), 0);
    int r = sosia_vm_load(b->vm, first, first_len, error);
    if (r < 0) {
        print_message("load: %s\n", error);
    }
    assert_int_equal(r, 0);
    assert_int_equal(sosia_vm_save(b->vm, true, &second, &second_len, error), 0);
    assert_int_equal(first_len, second_len);
    for (int tries = 0; !same_second && tries < 100; tries++) {
        void *of_a, *of_b;
        time_t before = second_now();
        assert_int_equal(sosia_vm_save(a->vm, false, &of_a, &state_len, error), 0);
        assert_int_equal(sosia_vm_load(b->vm, of_a, state_len, error), 0);
        assert_int_equal(sosia_vm_save(b->vm, false, &of_b, &second_len, error), 0);
        same_second = second_now() == before;
        assert_int_equal(state_len, second_len);
        if (same_second) {
            assert_memory_equal(of_a, of_b, state_len);
        }
        free(of_a);
        free(of_b);
    }
    assert_true(same_second);
    /* Memory is behind the devices. */
    assert_memory_equal((uint8_t *)first + state_len, (uint8_t *)second + state_len,
                        first_len - state_len);
    free(first);
    free(second);
}

static void save_load_save(const char *from, const char *to, unsigned cpus)
{
    static struct vmtest a, b;
    struct sosia_config ca, cb;
    char error[SOSIA_ERROR_BYTES] = "";
    void *first;
    size_t first_len;
    vmtest_config(&a, &ca, kernel, from);
    vmtest_config(&b, &cb, kernel, to);
    ca.cpus = cb.cpus = cpus;
    vmtest_make(&a, &ca);
    sosia_vm_start(a.vm);
    vmtest_send(&a, "before");
    assert_true(vmtest_shows(&a, 0, ">before", 60));
    assert_int_equal(sosia_vm_save(a.vm, true, &first, &first_len, error), -EBUSY);
    sosia_vm_pause(a.vm);
    vmtest_make(&b, &cb);
    save_and_copy(&a, &b);

    /* It goes on: no second '>', and the echo works. */
    sosia_vm_start(b.vm);
    vmtest_send(&b, "after");
    assert_true(vmtest_shows(&b, 0, "after", 60));
    assert_memory_equal(b.text, "after", 5);
    /* So does the one it came from, and a reset starts afresh. */
    sosia_vm_resume(a.vm);
    vmtest_send(&a, "too");
    assert_true(vmtest_shows(&a, 0, "beforetoo", 60));
    sosia_vm_reset(b.vm);
    assert_true(vmtest_shows(&b, 5, ">", 60));
    sosia_vm_free(a.vm);
    sosia_vm_free(b.vm);
}

static void test_interp(void **state)
{
    (void)state;
    save_load_save("interp", "interp", 1);
    save_load_save("interp", "interp", 3);
}

static void test_across_engines(void **state)
{
    (void)state;
    save_load_save("interp", "bt", 1);
    save_load_save("bt", "interp", 2);
    save_load_save("bt", "bt", 1);
}

static bool kvm_usable(void)
{
    const char *name;
    bool usable = false;
    char text[SOSIA_ERROR_BYTES];
    for (unsigned n = 0; !usable && sosia_engine_info(n, &name, &usable, text) == 0; n++) {
        usable &= strcmp(name, "kvm") == 0;
    }
    return usable;
}

static void test_kvm(void **state)
{
    (void)state;
    if (!kvm_usable()) {
        skip();
    }
    save_load_save("kvm", "interp", 1);
    save_load_save("bt", "kvm", 1);
    save_load_save("kvm", "kvm", 2);
    save_load_save("kvm,irqchip=split", "interp", 2);
    save_load_save("interp", "kvm,irqchip=full", 1);
    save_load_save("kvm,irqchip=full", "kvm,irqchip=split", 1);
}

/* A pause finds timers that are due and have not fired: the thread that fires them is busy, or the
 * host is. */
static void test_late_timers(void **state)
{
    (void)state;
    static const uint8_t ticks[] = {
        0xb0, 0x36, 0xe6, 0x43, /* mov al, 0x36; out 0x43, al: counter 0, mode 3 */
        0xb0, 0xa9, 0xe6, 0x40, /* 1000 Hz */
        0xb0, 0x04, 0xe6, 0x40,
        0xeb, 0xfe, /* 1: jmp 1b */
    };
    static struct vmtest a, b;
    struct sosia_config ca, cb;
    char *path = vmtest_kernel(ticks, sizeof ticks);
    vmtest_config(&a, &ca, path, "bt");
    vmtest_config(&b, &cb, path, "interp");
    ca.memory_bytes = cb.memory_bytes = 2u << 20;
    vmtest_make(&a, &ca);
    vmtest_make(&b, &cb);
    sosia_vm_start(a.vm);
    uint64_t seed = 1;
    for (unsigned i = 0; i < 100; i++) {
        usleep(1000 + (useconds_t)(test_random(&seed) % 2000));
        sosia_vm_pause(a.vm);
        save_and_copy(&a, &b);
        sosia_vm_resume(a.vm);
    }
    sosia_vm_free(a.vm);
    sosia_vm_free(b.vm);
    unlink(path);
    free(path);
}

/* Through firmware: chips that a kernel of our own never touches, shadowed ROM, a disk. Saved when
 * SeaBIOS has said its name, and again in the boot sector, which says '~' and echoes. */
static void test_firmware(void **state)
{
    (void)state;
    static const uint8_t echo[] = {
        0xfa,                                           /* cli: SeaBIOS would take what comes */
        0xba, 0xf8, 0x03, 0xb0, 0x7e, 0xee,             /* mov dx, 0x3f8; mov al, '~'; out dx, al */
        0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xf8, /* 1: mov dx, 0x3fd; in; test al, 1; jz */
        0xba, 0xf8, 0x03, 0xec, 0xee, 0xeb, 0xf1,       /* mov dx, 0x3f8; in; out; jmp 1b */
    };
    static struct vmtest a, b, c;
    struct vmtest *vm[] = { &a, &b, &c };
    uint8_t sector[512] = { [510] = 0x55, [511] = 0xaa };
    char image[] = "/tmp/sosia-test-XXXXXX";
    char error[SOSIA_ERROR_BYTES] = "";
    const struct sosia_disk disk = { .path = image, .readonly = true, .bus = SOSIA_DISK_IDE };
    memcpy(sector, echo, sizeof echo);
    int fd = mkstemp(image);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, sector, sizeof sector), sizeof sector);
    assert_int_equal(ftruncate(fd, 1 << 20), 0);
    close(fd);
    for (unsigned i = 0; i < 3; i++) {
        struct sosia_config config;
        vmtest_config(vm[i], &config, NULL, i == 1 ? "interp" : "bt");
        config.firmware = "bios";
        config.disks = &disk;
        config.disk_count = 1;
        if (sosia_vm_new(&vm[i]->vm, &config, error) < 0) {
            print_message("%s\n", error);
            unlink(image);
            skip(); /* no SeaBIOS here */
        }
    }
    unlink(image);
    sosia_vm_start(a.vm);
    assert_true(vmtest_shows(&a, 0, "SeaBIOS", 120));
    sosia_vm_pause(a.vm);
    save_and_copy(&a, &b);
    sosia_vm_start(b.vm);
    assert_true(vmtest_shows(&b, 0, "~", 120));
    sosia_vm_pause(b.vm);
    save_and_copy(&b, &c);
    sosia_vm_start(c.vm);
    vmtest_send(&c, "on");
    assert_true(vmtest_shows(&c, 0, "on", 60));
    for (unsigned i = 0; i < 3; i++) {
        sosia_vm_free(vm[i]->vm);
    }
}

static void test_bad_streams(void **state)
{
    (void)state;
    static struct vmtest a, b;
    struct sosia_config c;
    char error[SOSIA_ERROR_BYTES];
    void *data;
    size_t len;
    vmtest_config(&a, &c, kernel, "interp");
    vmtest_make(&a, &c);
    assert_int_equal(sosia_vm_save(a.vm, false, &data, &len, error), 0);
    vmtest_config(&b, &c, kernel, "interp");
    c.cpus = 2;
    vmtest_make(&b, &c);
    assert_int_equal(sosia_vm_load(b.vm, data, len, error), -EINVAL);
    assert_non_null(strstr(error, "processors"));
    sosia_vm_free(b.vm);
    vmtest_config(&b, &c, kernel, "interp");
    c.memory_bytes = 32u << 20;
    vmtest_make(&b, &c);
    assert_int_equal(sosia_vm_load(b.vm, data, len, error), -EINVAL);
    assert_non_null(strstr(error, "memory"));
    sosia_vm_free(b.vm);
    /* Cut anywhere, or with any bit turned, it is refused, and a reset helps. */
    uint64_t seed = 42;
    for (int i = 0; i < 60; i++) {
        assert_true(sosia_vm_load(a.vm, data, test_random(&seed) % len, error) < 0);
        uint8_t *bytes = data;
        size_t at = test_random(&seed) % len;
        uint8_t bit = (uint8_t)(1u << test_random(&seed) % 8);
        bytes[at] ^= bit;
        assert_true(sosia_vm_load(a.vm, data, len, error) < 0);
        bytes[at] ^= bit;
    }
    assert_int_equal(sosia_vm_load(a.vm, data, len, error), 0);
    sosia_vm_reset(a.vm);
    sosia_vm_start(a.vm);
    assert_true(vmtest_shows(&a, 0, ">", 60));
    free(data);
    sosia_vm_free(a.vm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_interp),
        cmocka_unit_test(test_across_engines),
        cmocka_unit_test(test_kvm),
        cmocka_unit_test(test_late_timers),
        cmocka_unit_test(test_firmware),
        cmocka_unit_test(test_bad_streams),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
