/* SPDX-License-Identifier: Apache-2.0
 *
 * What the tests of snapshots share: a directory for them, a guest that echoes, and a look at
 * whether it goes on.
 */
#ifndef SOSIA_TESTS_SNAPSHOT_SNAPTEST_H
#define SOSIA_TESTS_SNAPSHOT_SNAPTEST_H

#include "machine/vmtest.h"

#define SNAPTEST_PAGES (3u << 8) /* of memory: little, as some tests look at each very often */

static char *snaptest_kernel;
static char snaptest_dir[40];

static inline int snaptest_set_up(void **state)
{
    (void)state;
    snaptest_kernel = vmtest_kernel(vmtest_echo, sizeof vmtest_echo);
    /* In memory where there is such a place: what is synced there takes no time. */
    strcpy(snaptest_dir, access("/dev/shm", W_OK) == 0 ? "/dev/shm/sosia-snapshot-XXXXXX"
                                                       : "/tmp/sosia-snapshot-XXXXXX");
    return mkdtemp(snaptest_dir) != NULL ? 0 : -1;
}

static inline int snaptest_tear_down(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", snaptest_dir);
    unlink(snaptest_kernel);
    free(snaptest_kernel);
    return system(command);
}

static inline const char *snaptest_path(const char *name)
{
    static char paths[8][128];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", snaptest_dir, name);
    return path;
}

/* A machine that echoes, and has echoed `text`. */
static inline void snaptest_start(struct vmtest *t, const char *engine, unsigned cpus,
                                  const char *text)
{
    struct sosia_config c;
    vmtest_config(t, &c, snaptest_kernel, engine);
    c.cpus = cpus;
    c.memory_bytes = (uint64_t)SNAPTEST_PAGES << 12;
    vmtest_make(t, &c);
    sosia_vm_start(t->vm);
    assert_true(vmtest_shows(t, 0, ">", 60));
    vmtest_send(t, text);
    assert_true(vmtest_shows(t, 0, text, 60));
}

static inline void snaptest_save(struct vmtest *t, const char *path,
                                 const struct sosia_snapshot_options *o,
                                 struct sosia_snapshot_result *result)
{
    char error[SOSIA_ERROR_BYTES] = "";
    int r = sosia_vm_snapshot(t->vm, path, o, result, error);
    if (r < 0) {
        print_message("snapshot: %s\n", error);
    }
    assert_int_equal(r, 0);
}

static inline int snaptest_restore(struct vmtest *t, const char *path, const char *engine,
                                   char *error)
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
static inline void snaptest_goes_on(const char *path, const char *engine)
{
    static struct vmtest t;
    char error[SOSIA_ERROR_BYTES] = "";
    int r = snaptest_restore(&t, path, engine, error);
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

#endif
