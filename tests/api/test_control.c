// SPDX-License-Identifier: Apache-2.0
/* A control socket with a VM behind it: clients that are many, slow, rude; events; cards that come
 * and go without an operating system; the client of the sosia program. */
#include "machine/vmtest.h"

#include <errno.h>
#include <sys/socket.h>

#include "api/client.h"
#include "base/unixsock.h"

#define SECONDS 60u

struct fixture {
    struct vmtest t;
    struct sosia_api *api;
    char path[80], image[64];
};

static char *kernel;
static struct fixture fixture;

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

static int start(void **state)
{
    struct fixture *f = &fixture;
    struct sosia_config c;
    char error[SOSIA_ERROR_BYTES] = "";
    strcpy(f->image, "/tmp/sosia-test-XXXXXX");
    int fd = mkstemp(f->image);
    assert_true(fd >= 0 && ftruncate(fd, 1 << 20) == 0);
    close(fd);
    snprintf(f->path, sizeof f->path, "%s.api", f->image);
    vmtest_config(&f->t, &c, kernel, "interp");
    vmtest_make(&f->t, &c);
    assert_int_equal(sosia_api_new(&f->api, f->t.vm, NULL, f->path, error), 0);
    sosia_vm_start(f->t.vm);
    assert_true(vmtest_shows(&f->t, 0, ">", SECONDS));
    *state = f;
    return 0;
}

static int stop(void **state)
{
    struct fixture *f = *state;
    sosia_api_free(f->api);
    sosia_vm_free(f->t.vm);
    assert_int_equal(access(f->path, F_OK), -1);
    return unlink(f->image);
}

/* -- Clients of our own ------------------------------------------------------------------------ */
static int connect_to(const struct fixture *f)
{
    struct err e;
    const struct timeval patience = { .tv_sec = SECONDS };
    int fd = unix_connect(f->path, &e);
    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return fd;
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* Until this comes; what was before and with it is dropped. */
static bool hears(int fd, const char *text)
{
    static char buf[1 << 16];
    size_t len = 0;
    for (;;) {
        ssize_t n = recv(fd, buf + len, sizeof buf - 1 - len, 0);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        len += (size_t)n;
        buf[len] = '\0';
        if (strstr(buf, text) != NULL) {
            return true;
        }
        len = len > sizeof buf / 2 ? 0 : len;
    }
}

static int ready_client(const struct fixture *f)
{
    int fd = connect_to(f);
    assert_true(hears(fd, "\"QMP\""));
    say(fd, "{\"execute\": \"qmp_capabilities\"}");
    assert_true(hears(fd, "{\"return\": {}}"));
    return fd;
}

static void test_events_go_to_all(void **state)
{
    struct fixture *f = *state;
    int a = ready_client(f), b = ready_client(f), silent = connect_to(f);
    say(a, "{\"execute\": \"stop\"} {\"execute\": \"stop\"} {\"execute\": \"query-status\"}");
    assert_true(hears(a, "\"status\": \"paused\""));
    assert_true(hears(b, "\"event\": \"STOP\""));
    sosia_vm_resume(f->t.vm);
    assert_true(hears(b, "\"event\": \"RESUME\""));
    say(b, "{\"execute\": \"system_reset\"}");
    assert_true(hears(a, "\"reason\": \"host-qmp-system-reset\""));
    assert_true(hears(silent, "\"QMP\""));
    say(silent, "{\"execute\": \"qmp_capabilities\"}");
    assert_true(hears(silent, "{\"return\": {}}"));
    say(a, "{\"execute\": \"quit\"}");
    assert_true(hears(silent, "\"reason\": \"host-qmp-quit\""));
    struct sosia_end end;
    assert_int_equal(sosia_vm_wait(f->t.vm, &end), 0);
    assert_int_equal(end.reason, SOSIA_END_STOPPED);
    assert_int_equal(end.status, 0);
    close(a);
    close(b);
    close(silent);
}

/* Whoever asks without end and reads nothing gets no more than a bound, and costs nobody else. */
static void test_slow_reader(void **state)
{
    struct fixture *f = *state;
    static const char ask[] = "{\"execute\": \"query-commands\"}";
    int slow = ready_client(f), other = ready_client(f);
    size_t sent = 0;
    for (unsigned tries = 0; tries < 100; tries++) {
        ssize_t n = send(slow, ask, sizeof ask - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0) {
            sent += (size_t)n;
            tries = 0;
        } else {
            usleep(1000);
        }
        assert_true(sent < 64u << 20); /* the server stops reading at some time */
    }
    say(other, "{\"execute\": \"query-status\"}");
    assert_true(hears(other, "\"running\": true"));
    vmtest_send(&f->t, "still there");
    assert_true(vmtest_shows(&f->t, 0, "still there", SECONDS));
    close(slow);
    say(other, "{\"execute\": \"query-status\"}");
    assert_true(hears(other, "\"running\": true"));
    close(other);
}

static void test_rude_clients(void **state)
{
    struct fixture *f = *state;
    static char brackets[200000];
    memset(brackets, '{', sizeof brackets);
    int fd = ready_client(f);
    (void)!send(fd, brackets, sizeof brackets, MSG_NOSIGNAL);
    assert_true(hears(fd, "nested too deeply"));
    close(fd);
    fd = ready_client(f);
    memset(brackets, 'x', sizeof brackets);
    (void)!send(fd, brackets, sizeof brackets, MSG_NOSIGNAL);
    assert_true(hears(fd, "too long"));
    close(fd);
    /* Gone in the middle of a text, or of an answer; one that ends its side still gets its own. */
    fd = ready_client(f);
    say(fd, "{\"execute\": ");
    close(fd);
    fd = ready_client(f);
    say(fd, "{\"execute\": \"query-commands\"}");
    close(fd);
    fd = ready_client(f);
    say(fd, "{\"execute\": \"query-name\", \"id\": 5}");
    shutdown(fd, SHUT_WR);
    assert_true(hears(fd, "\"id\": 5"));
    close(fd);
}

/* More than are served at a time wait until others have gone. */
static void test_many_clients(void **state)
{
    struct fixture *f = *state;
    int fd[40];
    for (unsigned i = 0; i < 36; i++) {
        fd[i] = connect_to(f);
    }
    for (unsigned i = 0; i < 32; i++) {
        assert_true(hears(fd[i], "\"QMP\""));
    }
    for (unsigned i = 0; i < 32; i++) {
        close(fd[i]);
    }
    for (unsigned i = 32; i < 36; i++) {
        assert_true(hears(fd[i], "\"QMP\""));
        close(fd[i]);
    }
}

/* -- The program's client, and cards ----------------------------------------------------------- */
static json_t *call(struct api_client *c, const char *command, json_t *args)
{
    struct err e = { "" };
    json_t *result = NULL;
    if (api_client_call(c, command, args, &result, &e) < 0) {
        fail_msg("%s: %s", command, e.msg);
    }
    return result;
}

static void refused(struct api_client *c, const char *command, json_t *args, const char *text)
{
    struct err e = { "" };
    assert_true(api_client_call(c, command, args, NULL, &e) < 0);
    if (strstr(e.msg, text) == NULL) {
        fail_msg("%s: '%s' is not in '%s'", command, text, e.msg);
    }
}

static json_t *image_node(const struct fixture *f, const char *name)
{
    return json_pack("{s:s, s:s, s:{s:s, s:s}}", "driver", "raw", "node-name", name, "file",
                     "driver", "file", "filename", f->image);
}

static json_t *blk(const char *id, const char *drive, const char *addr)
{
    return json_pack("{s:s, s:s, s:s, s:s*}", "driver", "virtio-blk-pci", "id", id, "drive", drive,
                     "addr", addr);
}

static void test_cards(void **state)
{
    struct fixture *f = *state;
    struct api_client *c;
    struct err e;
    assert_int_equal(api_client_open(&c, f->path, SECONDS, &e), 0);
    json_decref(call(c, "blockdev-add", image_node(f, "d1")));
    refused(c, "blockdev-add", image_node(f, "d1"), f->image); /* locked by ourselves */
    refused(c, "device_add", blk("v1", "d2", NULL), "can't find 'd2'");
    refused(c, "device_add", blk("v1", "d1", "0x2"), "slot 2");
    refused(c, "device_add", blk("v1", "d1", "20"), "slot 32");
    refused(c, "device_add", blk("", "d1", NULL), "1 to 63 characters");
    refused(c, "device_add", json_pack("{s:s, s:s}", "driver", "vga", "id", "v"), "not a valid");
    refused(c, "device_add", json_pack("{s:s, s:s}", "driver", "e1000", "id", "v"), "needs");
    json_decref(call(c, "device_add", blk("v1", "d1", "0x9")));
    refused(c, "device_add", blk("v1", "d1", NULL), "Duplicate device ID");
    refused(c, "device_add", blk("v2", "d1", NULL), "in use");
    refused(c, "blockdev-del", json_pack("{s:s}", "node-name", "d1"), "in use");
    json_t *block = call(c, "query-block", NULL);
    const json_t *first = json_array_get(block, 0);
    assert_string_equal(json_string_value(json_object_get(first, "qdev")), "v1");
    json_decref(block);
    json_decref(call(c, "block_resize",
                     json_pack("{s:s, s:I}", "node-name", "d1", "size", (json_int_t)(2 << 20))));
    /* Nobody listens: it leaves with a reset. */
    json_decref(call(c, "device_del", json_pack("{s:s}", "id", "v1")));
    refused(c, "device_del", json_pack("{s:s}", "id", "v9"), "not found");
    int listener = ready_client(f);
    json_decref(call(c, "system_reset", NULL));
    assert_true(hears(listener, "\"path\": \"/machine/peripheral/v1\""));
    json_decref(call(c, "blockdev-del", json_pack("{s:s}", "node-name", "d1")));
    refused(c, "blockdev-del", json_pack("{s:s}", "node-name", "d1"), "Failed to find");
    close(listener);
    api_client_close(c);
}

/* The first drive of query-block: its tray is open or not, and this is its file. */
static void drive_is(struct api_client *c, bool open, const char *file)
{
    json_t *block = call(c, "query-block", NULL);
    const json_t *drive = json_array_get(block, 0);
    const json_t *inserted = json_object_get(drive, "inserted");
    assert_int_equal(json_is_true(json_object_get(drive, "tray_open")), open);
    assert_string_equal(json_string_value(json_object_get(inserted, "file")), file);
    json_decref(block);
}

static void test_disc(void **state)
{
    struct fixture *f = *state;
    struct vmtest t;
    struct sosia_config config;
    struct sosia_api *api;
    struct api_client *c;
    struct err e;
    char path[96], other[] = "/tmp/sosia-test-XXXXXX";
    const struct sosia_disk disc = {
        .path = f->image, .format = "raw", .cdrom = true, .bus = SOSIA_DISK_IDE
    };
    int fd = mkstemp(other);
    assert_true(fd >= 0 && ftruncate(fd, 4096) == 0);
    close(fd);
    snprintf(path, sizeof path, "%s.2", f->path);
    vmtest_config(&t, &config, kernel, "interp");
    config.disks = &disc;
    config.disk_count = 1;
    vmtest_make(&t, &config);
    assert_int_equal(sosia_api_new(&api, t.vm, NULL, path, NULL), 0);
    assert_int_equal(api_client_open(&c, path, SECONDS, &e), 0);
    drive_is(c, false, f->image);
    json_decref(call(c, "eject", json_pack("{s:s}", "device", "disk0")));
    drive_is(c, true, f->image);
    refused(c, "blockdev-change-medium",
            json_pack("{s:s, s:s}", "id", "disk0", "filename", "/nonexistent/disc"), "nonexistent");
    json_decref(call(c, "blockdev-change-medium",
                     json_pack("{s:s, s:s, s:s}", "id", "disk0", "filename", other, "format",
                               "raw")));
    drive_is(c, false, other);
    refused(c, "eject", json_pack("{s:s}", "id", "disk9"), "not found");
    refused(c, "eject", NULL, "'id' is missing");
    json_decref(call(c, "blockdev-add", image_node(f, "d1"))); /* the first disc is free again */
    refused(c, "eject", json_pack("{s:s}", "id", "d1"), "not removable");
    api_client_close(c);
    sosia_api_free(api);
    sosia_vm_free(t.vm);
    unlink(other);
}

/* A state is for a machine with the same cards. */
static void test_state_names_the_card(void **state)
{
    struct fixture *f = *state;
    struct api_client *c;
    char error[SOSIA_ERROR_BYTES] = "";
    struct err e;
    void *with;
    size_t len;
    assert_int_equal(api_client_open(&c, f->path, SECONDS, &e), 0);
    json_decref(call(c, "blockdev-add", image_node(f, "d1")));
    json_decref(call(c, "device_add", blk("v1", "d1", "0x7")));
    json_decref(call(c, "stop", NULL));
    assert_int_equal(sosia_vm_save(f->t.vm, true, &with, &len, error), 0);
    assert_int_equal(sosia_vm_load(f->t.vm, with, len, error), 0);
    struct vmtest b;
    struct sosia_config config;
    vmtest_config(&b, &config, kernel, "interp");
    vmtest_make(&b, &config);
    assert_int_equal(sosia_vm_load(b.vm, with, len, error), -EINVAL);
    assert_non_null(strstr(error, "a card 1af4:1001 in PCI slot 7, this one has none"));
    sosia_vm_free(b.vm);
    free(with);
    api_client_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_events_go_to_all, start, stop),
        cmocka_unit_test_setup_teardown(test_slow_reader, start, stop),
        cmocka_unit_test_setup_teardown(test_rude_clients, start, stop),
        cmocka_unit_test_setup_teardown(test_many_clients, start, stop),
        cmocka_unit_test_setup_teardown(test_cards, start, stop),
        cmocka_unit_test_setup_teardown(test_disc, start, stop),
        cmocka_unit_test_setup_teardown(test_state_names_the_card, start, stop),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
