// SPDX-License-Identifier: Apache-2.0
/* Disks, network cards and the other virtio devices through the public interface. */
#include "machine/vmtest.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>

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

struct cards {
    char disk[3][64];
    char vsock[80];
    struct sosia_disk disks[SOSIA_DISKS_MAX + 1];
    struct sosia_net nets[SOSIA_NETS_MAX + 1];
    struct sosia_serial consoles[2];
    struct sosia_forward forward;
};

static uint16_t free_port(void)
{
    struct sockaddr_storage a = { .ss_family = AF_INET };
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, 16), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    close(fd);
    const uint8_t *raw = (const uint8_t *)&a;
    return (uint16_t)(raw[2] << 8 | raw[3]);
}

/* Everything there is. */
static void fill(struct cards *k, struct sosia_config *c)
{
    static const enum sosia_disk_bus bus[3] = { SOSIA_DISK_VIRTIO, SOSIA_DISK_NVME,
                                                SOSIA_DISK_SCSI };
    memset(k, 0, sizeof *k);
    for (unsigned i = 0; i < 3; i++) {
        strcpy(k->disk[i], "/tmp/sosia-test-XXXXXX");
        int fd = mkstemp(k->disk[i]);
        assert_true(fd >= 0 && ftruncate(fd, 1 << 20) == 0);
        close(fd);
        k->disks[i] = (struct sosia_disk){
            .path = k->disk[i], .format = "raw", .bus = bus[i], .cdrom = i == 2
        };
    }
    k->forward = (struct sosia_forward){ false, 0x7f000001, free_port(), 22 };
    k->nets[0] = (struct sosia_net){
        .kind = SOSIA_NET_USER, .forwards = &k->forward, .forward_count = 1, .queues = 2
    };
    k->nets[1] = (struct sosia_net){ .kind = SOSIA_NET_USER, .model = SOSIA_NET_E1000 };
    k->consoles[0].kind = SOSIA_SERIAL_CALLBACK;
    k->consoles[1] = (struct sosia_serial){ .kind = SOSIA_SERIAL_PTY, .name = "agent" };
    snprintf(k->vsock, sizeof k->vsock, "%s.vsock", k->disk[0]);
    c->disks = k->disks;
    c->disk_count = 3;
    c->nets = k->nets;
    c->net_count = 2;
    c->consoles = k->consoles;
    c->console_count = 2;
    c->rng = c->balloon = c->tablet = true;
    c->vsock = k->vsock;
    c->vsock_cid = 3;
}

static void clean(const struct cards *k)
{
    for (unsigned i = 0; i < 3; i++) {
        unlink(k->disk[i]);
    }
    assert_int_equal(access(k->vsock, F_OK), -1); /* the machine has removed it */
}

static void test_save_load(void **state)
{
    (void)state;
    static struct vmtest a, b;
    static struct cards ka, kb;
    struct sosia_config ca, cb;
    char error[SOSIA_ERROR_BYTES] = "";
    void *data;
    size_t len;
    uint64_t keeps = 0;
    vmtest_config(&a, &ca, kernel, "interp");
    vmtest_config(&b, &cb, kernel, "interp");
    fill(&ka, &ca);
    fill(&kb, &cb);
    if (sosia_vm_new(&a.vm, &ca, error) == -ENOTSUP) {
        clean(&ka);
        clean(&kb);
        skip(); /* no libslirp */
    }
    assert_string_equal(error, "");
    vmtest_make(&b, &cb);
    assert_non_null(sosia_vm_serial_name(a.vm, SOSIA_SERIAL_PORTS + 1));
    assert_int_equal(sosia_vm_set_balloon(a.vm, 8 << 20), 0);
    assert_int_equal(sosia_vm_balloon(a.vm, &keeps), 0);
    assert_int_equal(keeps, 16 << 20);
    sosia_vm_start(a.vm);
    assert_true(vmtest_shows(&a, 0, ">", 60));
    sosia_vm_pause(a.vm);
    assert_int_equal(sosia_vm_save(a.vm, true, &data, &len, error), 0);
    assert_int_equal(sosia_vm_load(b.vm, data, len, error), 0);
    free(data);
    sosia_vm_start(b.vm);
    vmtest_send(&b, "moved");
    assert_true(vmtest_shows(&b, 0, "moved", 60));
    sosia_vm_reset(b.vm);
    assert_true(vmtest_shows(&b, 5, ">", 60));
    sosia_vm_free(a.vm);
    sosia_vm_free(b.vm);
    clean(&ka);
    clean(&kb);
}

static void refused(struct sosia_config *c, const char *text)
{
    char error[SOSIA_ERROR_BYTES] = "";
    struct sosia_vm *vm;
    assert_true(sosia_vm_new(&vm, c, error) < 0);
    if (strstr(error, text) == NULL) {
        fail_msg("'%s' is not in '%s'", text, error);
    }
}

static void test_refused(void **state)
{
    (void)state;
    static struct vmtest t;
    static struct cards k;
    struct sosia_config c;
    vmtest_config(&t, &c, kernel, "interp");
    fill(&k, &c);
    c.net_count = 0;
    k.disks[1].path = "/nonexistent/disk";
    refused(&c, "/nonexistent/disk");
    k.disks[1].path = k.disk[0]; /* twice */
    refused(&c, k.disk[0]);
    k.disks[1].path = k.disk[1];
    c.disk_count = SOSIA_DISKS_MAX + 1;
    refused(&c, "17 disks");
    c.disk_count = 3;
    c.vsock_cid = 2;
    refused(&c, "begin at 3");
    c.vsock_cid = 3;
    c.vsock = "/nonexistent/vsock";
    refused(&c, "/nonexistent/vsock");
    c.vsock = NULL;
    c.net_count = SOSIA_NETS_MAX + 1;
    refused(&c, "9 network cards");
    c.net_count = 1;
    k.nets[0] = (struct sosia_net){ .kind = SOSIA_NET_TAP, .interface = "much-too-long-a-name" };
    refused(&c, "tap");
    k.nets[0] = (struct sosia_net){ .kind = SOSIA_NET_PASST, .interface = "/nonexistent/passt" };
    refused(&c, "/nonexistent/passt");
    clean(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_save_load),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
