/* SPDX-License-Identifier: Apache-2.0
 *
 * The state of a machine with every card, as a sosia of the past wrote it, still loads: a change of
 * a state table must not make this fail (docs/state-format.md, "Changing a table").
 *
 * golden-N.xz.base64 were made by this program: GOLDEN_WRITE=FILE test_golden; xz -9; base64. Add
 * one when devices were added, and leave the old ones.
 */
#include <errno.h>

#include "base/alloc.h"
#include "machine/vmtest.h"

#define FILES "tests/machine/golden-*.xz.base64"
#define DISKS 5

static char *disk_image(void)
{
    char *path = strdup("/tmp/sosia-test-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 1 << 20), 0);
    close(fd);
    return path;
}

/* What it has is part of the golden files: nothing is changed here, a new machine is a new file. */
static void make(struct vmtest *t, char *kernel)
{
    static const enum sosia_disk_bus bus[DISKS] = { SOSIA_DISK_VIRTIO, SOSIA_DISK_SCSI,
                                                    SOSIA_DISK_AHCI, SOSIA_DISK_NVME,
                                                    SOSIA_DISK_IDE };
    static struct sosia_disk disks[DISKS];
    static const struct sosia_serial console = { .kind = SOSIA_SERIAL_NONE };
    static const struct sosia_net nets[] = { { .kind = SOSIA_NET_USER, .model = SOSIA_NET_E1000 },
                                             { .kind = SOSIA_NET_USER } };
    struct sosia_config c;
    vmtest_config(t, &c, kernel, "interp");
    for (unsigned i = 0; i < DISKS; i++) {
        disks[i] = (struct sosia_disk){ .path = disk_image(), .bus = bus[i], .format = "raw" };
    }
    c.cpu_model = "x86-64-v1";
    c.cpus = 2;
    c.memory_bytes = 2u << 20;
    c.screen = c.rng = c.balloon = true;
    c.disks = disks;
    c.disk_count = DISKS;
    c.nets = nets;
    c.net_count = 2;
    c.consoles = &console;
    c.console_count = 1;
    vmtest_make(t, &c);
    for (unsigned i = 0; i < DISKS; i++) {
        unlink(disks[i].path);
        free((char *)disks[i].path);
    }
}

static size_t unpack(const char *path, void **out)
{
    size_t len = 0, room = 4u << 20;
    char *command = xasprintf(
        "python3 -c 'import base64, lzma, sys\n"
        "text = open(sys.argv[1]).read()\n"
        "sys.stdout.buffer.write(lzma.decompress(base64.b64decode(text)))' '%s'",
        path);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    *out = malloc(room);
    len = fread(*out, 1, room, f);
    assert_int_equal(pclose(f), 0);
    free(command);
    return len;
}

static void load_one(struct vmtest *t, const char *path)
{
    char error[SOSIA_ERROR_BYTES] = "";
    void *data, *again;
    size_t len = unpack(path, &data), again_len;
    int r = sosia_vm_load(t->vm, data, len, error);
    free(data);
    if (r == -ENOTSUP) { /* made on a processor of another make */
        print_message("%s: %s\n", path, error);
        return;
    }
    if (r < 0) {
        fail_msg("%s: %s", path, error);
    }
    assert_int_equal(sosia_vm_save(t->vm, false, &again, &again_len, error), 0);
    assert_true(again_len >= len / 2);
    free(again);
}

static void write_one(struct vmtest *t, const char *path)
{
    char error[SOSIA_ERROR_BYTES];
    void *data;
    size_t len;
    assert_int_equal(sosia_vm_save(t->vm, false, &data, &len, error), 0);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, len, f), len);
    fclose(f);
    free(data);
}

static void test_golden(void **state)
{
    (void)state;
    static struct vmtest t;
    char path[256];
    unsigned count = 0;
    char *kernel = vmtest_kernel(vmtest_echo, sizeof vmtest_echo);
    make(&t, kernel);
    if (getenv("GOLDEN_WRITE") != NULL) {
        write_one(&t, getenv("GOLDEN_WRITE"));
    }
    FILE *list = popen("ls \"${TOP:-.}\"/" FILES, "r");
    while (list != NULL && fgets(path, sizeof path, list) != NULL) {
        path[strcspn(path, "\n")] = '\0';
        load_one(&t, path);
        count++;
    }
    pclose(list);
    assert_true(count > 0);
    sosia_vm_free(t.vm);
    unlink(kernel);
    free(kernel);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_golden) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
