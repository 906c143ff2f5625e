/* SPDX-License-Identifier: Apache-2.0
 *
 * Each operation on files that a snapshot or a restore does fails in turn, in every way, and dies
 * in turn: what was there before stays whole, what is made is whole or not there, a guest runs on,
 * and the next try succeeds.
 */
#include "support/faults.h"

#include <dirent.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "base/alloc.h"
#include "block/image.h"
#include "machine/machine.h"
#include "machine/vm.h"
#include "snapshot/snaptest.h"
#include "snapshot/snapshot.h"

#define SECTOR 512
#define CHANGES (FAULT_OP_WRITE | FAULT_OP_SYNC | FAULT_OP_NAME)

static struct vmtest t;
static uint8_t *base_memory, *new_memory; /* what the snapshots of that name show */

/* -- The scene: a VM with a disk, and a snapshot of it ----------------------------------------- */

static uint8_t *copy_of_memory(void)
{
    uint8_t *copy = malloc((size_t)SNAPTEST_PAGES * SNAPFILE_PAGE);
    memcpy(copy, gmem_ram_host(sosia_vm_machine(t.vm)->mem),
           (size_t)SNAPTEST_PAGES * SNAPFILE_PAGE);
    return copy;
}

static void write_memory(uint64_t seed)
{
    uint8_t *ram = gmem_ram_host(sosia_vm_machine(t.vm)->mem);
    for (unsigned i = 0; i < 40; i++) {
        uint64_t n = 300 + test_random(&seed) % (SNAPTEST_PAGES - 300);
        memset(ram + n * SNAPFILE_PAGE, (int)(seed & 0xff), SNAPFILE_PAGE);
    }
}

/* A machine that echoes, with a disk; paused. */
static void start_with_disk(void)
{
    char disk_path[64];
    snprintf(disk_path, sizeof disk_path, "%s", snaptest_path("disk"));
    const struct sosia_disk disk = { .path = disk_path, .bus = SOSIA_DISK_VIRTIO };
    struct sosia_config c;
    vmtest_config(&t, &c, snaptest_kernel, "interp");
    c.memory_bytes = (uint64_t)SNAPTEST_PAGES << 12;
    c.disks = &disk;
    c.disk_count = 1;
    vmtest_make(&t, &c);
    sosia_vm_start(t.vm);
    assert_true(vmtest_shows(&t, 0, ">", 60));
    sosia_vm_pause(t.vm);
}

static void make_scene(void)
{
    uint8_t sectors[64 * SECTOR];
    memset(sectors, 0x5a, sizeof sectors);
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s/*", snaptest_dir);
    assert_int_equal(system(command), 0);
    int fd = open(snaptest_path("disk"), O_WRONLY | O_CREAT, 0600);
    assert_int_equal(write(fd, sectors, sizeof sectors), sizeof sectors);
    close(fd);
    start_with_disk();
    write_memory(3);
    snaptest_save(&t, snaptest_path("base"), NULL, NULL);
    free(base_memory);
    base_memory = copy_of_memory();
    write_memory(5);
    free(new_memory);
    new_memory = copy_of_memory();
}

/* -- What must be so in the end ---------------------------------------------------------------- */

static bool is_there(const char *name) { return access(snaptest_path(name), F_OK) == 0; }

/* Whole, with its parents and its disk. */
static void is_whole(const char *name, const uint8_t *memory)
{
    static const uint8_t zero[SNAPFILE_PAGE];
    struct snapshot *s;
    struct err e = { "" };
    uint8_t page[SNAPFILE_PAGE];
    if (snapshot_open(&s, snaptest_path(name), &e) < 0 || chain_load_tables(s->chain, &e) < 0) {
        fail_msg("%s", e.msg);
    }
    for (uint64_t n = 0; n < SNAPTEST_PAGES; n++) {
        unsigned layer;
        bool empty = chain_find(s->chain, n, &layer)->kind == SNAPFILE_ZERO;
        if (!empty && chain_page(s->chain, n, page, &e) < 0) {
            fail_msg("%s", e.msg);
        }
        assert_memory_equal(empty ? zero : page, memory + n * SNAPFILE_PAGE, SNAPFILE_PAGE);
    }
    snapshot_close(s);
}

static void disk_is_whole(const char *path)
{
    const struct block_options o = { .path = path, .flags = BLOCK_READONLY | BLOCK_NO_LOCK };
    struct block *b;
    struct err e = { "" };
    uint8_t sector[SECTOR];
    if (block_open(&b, &o, &e) < 0) {
        fail_msg("%s", e.msg);
    }
    assert_int_equal(block_read(b, 7 * SECTOR, sector, sizeof sector), 0);
    assert_int_equal(sector[9], 0x5a);
    block_close(b);
}

/* Files of which nobody knows. */
static unsigned leftovers(void)
{
    unsigned count = 0;
    DIR *d = opendir(snaptest_dir);
    const struct dirent *ent;
    while ((ent = readdir(d)) != NULL) {
        const char *dot = strrchr(ent->d_name, '.');
        count += strstr(ent->d_name, ".new.new") != NULL ||
                 (dot != NULL && strcmp(dot, ".part") == 0);
    }
    closedir(d);
    return count;
}

static int save_new(char *error)
{
    char base[64];
    snprintf(base, sizeof base, "%s", snaptest_path("base"));
    const struct sosia_snapshot_options o = { .parent = base };
    return sosia_vm_snapshot(t.vm, snaptest_path("new"), &o, NULL, error);
}

static void earlier_is_whole(void)
{
    is_whole("base", base_memory);
    disk_is_whole(snaptest_path("disk"));
}

/* It runs on, and can be saved now; what a dead one left is gone then. */
static void goes_on(void)
{
    char error[SOSIA_ERROR_BYTES] = "";
    sosia_vm_resume(t.vm);
    size_t from = vmtest_len(&t);
    vmtest_send(&t, "on");
    assert_true(vmtest_shows(&t, from, "on", 60));
    sosia_vm_pause(t.vm);
    int r = save_new(error);
    if (r == -EIO && strstr(error, "/disk: ") != NULL) {
        /* What the host failed to write of its disk may be lost: it says so until it ends. */
        sosia_vm_free(t.vm);
        start_with_disk();
        r = save_new(error);
    }
    if (r < 0) {
        fail_msg("%s", error);
    }
    assert_int_equal(leftovers(), 0);
    sosia_vm_free(t.vm);
    snaptest_goes_on(snaptest_path("new"), "interp");
    earlier_is_whole();
}

/* -- Saving ------------------------------------------------------------------------------------ */

/* One try; false when the fault came too late to be met. */
static bool save_with(enum fault kind, unsigned n)
{
    char error[SOSIA_ERROR_BYTES] = "";
    make_scene();
    faults_arm(snaptest_dir, kind, CHANGES, n);
    int r = save_new(error);
    unsigned count = faults_disarm();
    if (r < 0 && kind == FAULT_SHORT) {
        fail_msg("operation %u was short: %s", n, error);
    }
    bool named = r == 0 || strstr(error, "it is written") != NULL;
    assert_true(r == 0 || error[0] != '\0');
    assert_int_equal(is_there("new"), named);
    if (named) {
        is_whole("new", new_memory);
    }
    assert_int_equal(leftovers(), 0);
    earlier_is_whole();
    goes_on();
    return n <= count;
}

static void save_with_each(enum fault kind)
{
    unsigned n = 1;
    while (save_with(kind, n)) {
        n++;
    }
    print_message("%u operations\n", n - 1);
    assert_true(n > 10);
}

static void test_save_full(void **state)
{
    (void)state;
    save_with_each(FAULT_FULL);
}
static void test_save_eio(void **state)
{
    (void)state;
    save_with_each(FAULT_EIO);
}
static void test_save_short(void **state)
{
    (void)state;
    save_with_each(FAULT_SHORT);
}
static void test_save_writer(void **state)
{
    (void)state;
    save_with_each(FAULT_KILL_WRITER);
}

/* In a process that dies of it. False: it did not. */
static bool dies(enum fault kind, unsigned ops, unsigned n, int (*act)(char *error))
{
    char error[SOSIA_ERROR_BYTES] = "";
    int status;
    fflush(NULL);
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* of its writer, too, which dies a moment later */
    pid_t pid = fork();
    if (pid == 0) {
        make_scene();
        faults_arm(snaptest_dir, kind, ops, n);
        int r = act(error);
        _exit(r == 0 && faults_disarm() < n ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    while (waitpid(-1, NULL, 0) > 0) {
    }
    if (WIFEXITED(status)) {
        assert_int_equal(WEXITSTATUS(status), 0);
        return false;
    }
    assert_int_equal(WTERMSIG(status), SIGKILL);
    return true;
}

static void test_save_killed(void **state)
{
    (void)state;
    unsigned n = 1;
    make_scene(); /* for the contents, which are always the same */
    sosia_vm_free(t.vm);
    while (dies(FAULT_KILL, CHANGES, n, save_new)) {
        earlier_is_whole();
        if (is_there("new")) {
            is_whole("new", new_memory);
        }
        start_with_disk();
        goes_on();
        n++;
    }
    print_message("%u operations\n", n - 1);
    assert_true(n > 10);
}

/* -- Restoring --------------------------------------------------------------------------------- */

static int restore_base(char *error)
{
    static struct vmtest second;
    struct sosia_snapshot *s;
    struct sosia_config c, fresh;
    int r = sosia_snapshot_open(&s, snaptest_path("base"), error);
    if (r < 0) {
        return r;
    }
    r = sosia_snapshot_keep_disks(s, snaptest_path("base"), error);
    vmtest_config(&second, &fresh, NULL, "interp");
    sosia_snapshot_config(s, &c);
    c.engine = "interp";
    c.ctx = &second;
    c.serial_output = fresh.serial_output;
    c.ended = fresh.ended;
    if (r == 0) {
        r = sosia_vm_new(&second.vm, &c, error);
    }
    if (r == 0) {
        r = sosia_vm_restore(second.vm, s, error);
        sosia_vm_free(second.vm);
    }
    sosia_snapshot_drop_disks(s);
    sosia_snapshot_close(s);
    return r;
}

static void restore_with_each(enum fault kind)
{
    char error[SOSIA_ERROR_BYTES] = "";
    unsigned n = 0, count;
    make_scene();
    sosia_vm_free(t.vm);
    do {
        faults_arm(snaptest_dir, kind, CHANGES | FAULT_OP_READ, ++n);
        error[0] = '\0';
        int r = restore_base(error);
        count = faults_disarm();
        assert_true(r == 0 || (kind != FAULT_SHORT && error[0] != '\0'));
        earlier_is_whole();
        if (kind != FAULT_EIO) { /* which an unlink may have met */
            assert_int_equal(leftovers(), 0);
            assert_false(is_there("base.disk0.qcow2"));
        }
        unlink(snaptest_path("base.disk0.qcow2"));
        error[0] = '\0';
        if (restore_base(error) < 0) {
            fail_msg("%s", error);
        }
    } while (n <= count);
    print_message("%u operations\n", n - 1);
    assert_true(n > 10);
}

static void test_restore_full(void **state)
{
    (void)state;
    restore_with_each(FAULT_FULL);
}
static void test_restore_eio(void **state)
{
    (void)state;
    restore_with_each(FAULT_EIO);
}
static void test_restore_short(void **state)
{
    (void)state;
    restore_with_each(FAULT_SHORT);
}

static void test_restore_killed(void **state)
{
    (void)state;
    char error[SOSIA_ERROR_BYTES] = "";
    unsigned n = 1;
    make_scene();
    sosia_vm_free(t.vm);
    while (dies(FAULT_KILL, CHANGES, n, restore_base)) {
        earlier_is_whole();
        if (is_there("base.disk0.qcow2")) {
            disk_is_whole(snaptest_path("base.disk0.qcow2"));
        }
        n++;
        unlink(snaptest_path("base.disk0.qcow2"));
        if (restore_base(error) < 0) {
            fail_msg("%s", error);
        }
    }
    print_message("%u operations\n", n - 1);
    assert_true(n > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_save_full),      cmocka_unit_test(test_save_eio),
        cmocka_unit_test(test_save_short),     cmocka_unit_test(test_save_writer),
        cmocka_unit_test(test_save_killed),    cmocka_unit_test(test_restore_full),
        cmocka_unit_test(test_restore_eio),    cmocka_unit_test(test_restore_short),
        cmocka_unit_test(test_restore_killed),
    };
    return cmocka_run_group_tests(tests, snaptest_set_up, snaptest_tear_down);
}
