/* SPDX-License-Identifier: Apache-2.0
 *
 * A family of snapshots is merged and pruned in every way: each of them shows the same bytes before
 * and after, to the page, or is one that was removed. What cannot be done is refused with nothing
 * changed; what fails or is killed half way can be done again.
 */
#include "support/faults.h"

#include <sys/wait.h>

#include "base/alloc.h"
#include "machine/machine.h"
#include "machine/vm.h"
#include "snapshot/merge.h"
#include "snapshot/pack.h"
#include "snapshot/snaptest.h"

/* c0 <- c1 <- c2 <- c3, and d2 on c1. */
static const struct {
    const char *name, *parent;
    bool compress;
} family[] = {
    { "c0", NULL, false }, { "c1", "c0", true },  { "c2", "c1", false },
    { "c3", "c2", true },  { "d2", "c1", false },
};
#define FAMILY (sizeof family / sizeof family[0])

static uint8_t *shown[FAMILY]; /* what each one shows */
static bool gone[FAMILY];

static void write_some(struct vmtest *t, uint64_t *seed)
{
    uint8_t *ram = gmem_ram_host(sosia_vm_machine(t->vm)->mem);
    for (unsigned i = 0; i < 20; i++) {
        uint64_t n = 300 + test_random(seed) % (SNAPTEST_PAGES - 300); /* above the guest's own */
        for (unsigned k = 0; k < 1 + test_random(seed) % 40 && n < SNAPTEST_PAGES; k++, n++) {
            uint8_t *page = ram + n * SNAPFILE_PAGE;
            memset(page, 0, SNAPFILE_PAGE);
            for (unsigned b = 0; b < SNAPFILE_PAGE && i % 4 != 0; b += 64) {
                page[b] = (uint8_t)test_random(seed);
            }
        }
    }
}

static int make_family(void **state)
{
    static struct vmtest t;
    uint64_t seed = 11;
    int r = snaptest_set_up(state);
    memset(gone, 0, sizeof gone);
    snaptest_start(&t, "interp", 1, "before");
    sosia_vm_pause(t.vm);
    for (unsigned i = 0; i < FAMILY; i++) {
        char parent[128];
        snprintf(parent, sizeof parent, "%s",
                 snaptest_path(family[i].parent != NULL ? family[i].parent : ""));
        const struct sosia_snapshot_options o = {
            .parent = family[i].parent != NULL ? parent : NULL,
            .compress = family[i].compress && pack_built(),
        };
        write_some(&t, &seed);
        snaptest_save(&t, snaptest_path(family[i].name), &o, NULL);
        free(shown[i]);
        shown[i] = malloc((size_t)SNAPTEST_PAGES * SNAPFILE_PAGE);
        memcpy(shown[i], gmem_ram_host(sosia_vm_machine(t.vm)->mem),
               (size_t)SNAPTEST_PAGES * SNAPFILE_PAGE);
    }
    sosia_vm_free(t.vm);
    return r;
}

/* How many others it rests on. */
static unsigned depth_of(const char *name)
{
    struct chain *c;
    assert_int_equal(chain_open(&c, snaptest_path(name), NULL), 0);
    unsigned depth = c->count - 1;
    chain_close(c);
    return depth;
}

static void shows(unsigned i)
{
    static const uint8_t zero[SNAPFILE_PAGE];
    struct chain *c;
    struct err e = { "" };
    uint8_t page[SNAPFILE_PAGE];
    if (chain_open(&c, snaptest_path(family[i].name), &e) < 0 || chain_load_tables(c, &e) < 0) {
        fail_msg("%s", e.msg);
    }
    for (uint64_t n = 0; n < SNAPTEST_PAGES; n++) {
        unsigned layer;
        bool empty = chain_find(c, n, &layer)->kind == SNAPFILE_ZERO;
        if (!empty && chain_page(c, n, page, &e) < 0) {
            fail_msg("%s", e.msg);
        }
        assert_memory_equal(empty ? zero : page, shown[i] + n * SNAPFILE_PAGE, SNAPFILE_PAGE);
    }
    chain_close(c);
}

static bool is_there(const char *name) { return access(snaptest_path(name), F_OK) == 0; }

static void no_parts(void)
{
    for (unsigned i = 0; i < FAMILY; i++) {
        char *part = xasprintf("%s.part", family[i].name);
        assert_false(is_there(part));
        free(part);
    }
}

static void all_show(void)
{
    for (unsigned i = 0; i < FAMILY; i++) {
        assert_int_equal(is_there(family[i].name), !gone[i]);
        if (!gone[i]) {
            shows(i);
        }
    }
}

static void all_as_before(void)
{
    no_parts();
    all_show();
}

static void merge(const char *name, const char *onto)
{
    struct err e = { "" };
    char path[128];
    snprintf(path, sizeof path, "%s", snaptest_path(name));
    if (snapshot_merge(path, onto != NULL ? snaptest_path(onto) : NULL, &e) < 0) {
        fail_msg("%s", e.msg);
    }
    all_as_before();
}

static void count_entry(void *ctx, const struct snapshot_entry *entry)
{
    unsigned *count = ctx;
    *count += entry->header != NULL;
}

/* How many took it in. */
static unsigned prune(unsigned i)
{
    struct err e = { "" };
    unsigned count = 0;
    if (snapshot_prune(snaptest_path(family[i].name), count_entry, &count, &e) < 0) {
        fail_msg("%s", e.msg);
    }
    gone[i] = true;
    all_as_before();
    return count;
}

static void test_merge(void **state)
{
    (void)state;
    all_as_before();
    assert_int_equal(depth_of("c3"), 3);
    merge("c3", "c2"); /* as it is */
    assert_int_equal(depth_of("c3"), 3);
    merge("c3", "c1");
    assert_int_equal(depth_of("c3"), 2);
    merge("c3", "c0");
    assert_int_equal(depth_of("c3"), 1);
    merge("c1", NULL); /* those on it need not know */
    assert_int_equal(depth_of("c1"), 0);
    assert_int_equal(depth_of("d2"), 1);
    merge("d2", NULL);
    merge("d2", NULL);
    snaptest_goes_on(snaptest_path("c2"), "interp");
    snaptest_goes_on(snaptest_path("c3"), "bt");
}

static void test_prune(void **state)
{
    (void)state;
    assert_int_equal(prune(1), 2); /* c2 and d2 rest on c0 now */
    assert_int_equal(depth_of("c3"), 2);
    assert_int_equal(prune(0), 2);
    assert_int_equal(depth_of("d2"), 0);
    assert_int_equal(prune(4), 0);
    assert_int_equal(prune(2), 1);
    snaptest_goes_on(snaptest_path("c3"), "bt");
    assert_int_equal(prune(3), 0);
}

static void refused(int r, const struct err *e, int code, const char *text)
{
    assert_int_equal(r, code);
    if (strstr(e->msg, text) == NULL) {
        fail_msg("%s", e->msg);
    }
    all_as_before();
}

static int try_prune(const char *name, struct err *e)
{
    unsigned count = 0;
    return snapshot_prune(snaptest_path(name), count_entry, &count, e);
}

static void test_refusals(void **state)
{
    (void)state;
    struct err e = { "" };
    struct chain *c;
    char c2[128];
    snprintf(c2, sizeof c2, "%s", snaptest_path("c2"));
    refused(snapshot_merge(c2, snaptest_path("d2"), &e), &e, -EINVAL, "does not rest on");
    refused(snapshot_merge(snaptest_path("none"), NULL, &e), &e, -ENOENT, "No such file");
    refused(try_prune("none", &e), &e, -ENOENT, "No such file");
    refused(snapshot_merge(snaptest_kernel, NULL, &e), &e, -EINVAL, "not a snapshot");
    refused(try_prune("../", &e), &e, -EISDIR, "directory");

    assert_int_equal(chain_open(&c, snaptest_path("d2"), &e), 0);
    refused(try_prune("d2", &e), &e, -EBUSY, "in use");
    chain_close(c);

    /* What may rest on it and cannot be asked. */
    int fd = open(snaptest_path("odd"), O_RDWR | O_CREAT, 0600);
    assert_int_equal(write(fd, "SOSIASN\x1a of tomorrow", 20), 20);
    refused(try_prune("c1", &e), &e, -EINVAL, "c1 stays");
    close(fd);
    unlink(snaptest_path("odd"));

    /* A parent under another name is missed by those on it; as a copy it is not. */
    rename(snaptest_path("c2"), snaptest_path("moved"));
    assert_int_equal(try_prune("moved", &e), -ENOENT);
    assert_non_null(strstr(e.msg, "stays"));
    rename(snaptest_path("moved"), c2);
    all_as_before();

    /* A page that is not what it was goes nowhere. */
    struct stat st;
    uint8_t byte;
    fd = open(snaptest_path("c0"), O_RDWR);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(chain_open(&c, snaptest_path("d2"), &e), 0);
    assert_int_equal(chain_load_tables(c, &e), 0);
    uint64_t n = 0;
    unsigned layer;
    while (chain_find(c, n, &layer)->kind != SNAPFILE_STORED || layer != 2) {
        n++;
    }
    off_t at = (off_t)(c->layer[2].header.memory_at + n * SNAPFILE_PAGE);
    chain_close(c);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    assert_int_equal(snapshot_merge(snaptest_path("d2"), NULL, &e), -EINVAL);
    assert_non_null(strstr(e.msg, "is damaged"));
    assert_int_equal(try_prune("c0", &e), -EINVAL);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
    all_as_before();
}

/* -- Faults ------------------------------------------------------------------------------------ */

#define CHANGES (FAULT_OP_WRITE | FAULT_OP_SYNC | FAULT_OP_NAME)

/* c1 goes: c2 and d2, which rest on it, are written anew, on c0. */
static int prune_c1(struct err *e)
{
    int r = try_prune("c1", e);
    gone[1] = !is_there("c1");
    return r;
}

static void start_anew(void)
{
    snaptest_tear_down(NULL);
    assert_int_equal(make_family(NULL), 0);
}

/* The n-th operation fails: true, when there was one. */
static bool prune_with(enum fault kind, unsigned ops, unsigned n)
{
    struct err e = { "" };
    faults_arm(snaptest_dir, kind, ops, n);
    int r = prune_c1(&e);
    unsigned count = faults_disarm();
    assert_true(r == 0 || (e.msg[0] != '\0' && kind != FAULT_SHORT));
    all_show();
    if (kind != FAULT_EIO) { /* which the removal of a part may have met */
        no_parts();
    }
    if (!gone[1] && prune_c1(&e) < 0) {
        fail_msg("%s", e.msg);
    }
    all_show();
    start_anew();
    return n <= count;
}

static void prune_with_each(enum fault kind)
{
    unsigned n = 1;
    while (prune_with(kind, CHANGES, n)) {
        n++;
    }
    print_message("%u operations\n", n - 1);
    assert_true(n > 20);
    for (n = 1; prune_with(kind, FAULT_OP_READ, n); n += 1 + n / 2) { /* one for each page */
    }
}

static void test_prune_full(void **state)
{
    (void)state;
    prune_with_each(FAULT_FULL);
}
static void test_prune_eio(void **state)
{
    (void)state;
    prune_with_each(FAULT_EIO);
}
static void test_prune_short(void **state)
{
    (void)state;
    prune_with_each(FAULT_SHORT);
}

static void test_prune_killed(void **state)
{
    (void)state;
    struct err e = { "" };
    for (unsigned n = 1;; n++) {
        int status;
        pid_t pid = fork();
        if (pid == 0) {
            faults_arm(snaptest_dir, FAULT_KILL, CHANGES, n);
            _exit(prune_c1(&e) == 0 ? 0 : 1);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        faults_disarm();
        gone[1] = !is_there("c1");
        all_show();
        if (WIFEXITED(status)) {
            assert_int_equal(WEXITSTATUS(status), 0);
            break;
        }
        if (!gone[1] && prune_c1(&e) < 0) {
            fail_msg("%s", e.msg);
        }
        all_show();
        start_anew();
    }
}

/* -- Lists ------------------------------------------------------------------------------------- */

struct seen {
    unsigned count, problems;
    char names[256];
};

static void see(void *ctx, const struct snapshot_entry *entry)
{
    struct seen *s = ctx;
    size_t len = strlen(s->names);
    s->count++;
    s->problems += entry->problem != NULL;
    snprintf(s->names + len, sizeof s->names - len, "%u%s ", entry->depth,
             strrchr(entry->path, '/') + 1);
}

static void test_list(void **state)
{
    (void)state;
    struct err e = { "" };
    struct seen s = { .count = 0 };
    assert_int_equal(snapshot_list(snaptest_dir, see, &s, &e), 0);
    assert_string_equal(s.names, "0c0 1c1 2c2 3c3 2d2 ");
    assert_int_equal(s.problems, 0);
    s = (struct seen){ .count = 0 };
    assert_int_equal(snapshot_list(snaptest_path("d2"), see, &s, &e), 0);
    assert_string_equal(s.names, "0c0 1c1 2d2 ");
    /* Without c1 those on it are listed with what is wrong; a file cut short is, too. */
    rename(snaptest_path("c1"), snaptest_path("x.part"));
    assert_int_equal(truncate(snaptest_path("c0"), 5000), 0);
    s = (struct seen){ .count = 0 };
    assert_int_equal(snapshot_list(snaptest_dir, see, &s, &e), 0);
    assert_string_equal(s.names, "0c0 0c2 1c3 0d2 ");
    assert_int_equal(s.problems, 4);
    assert_int_equal(snapshot_list(snaptest_path("none"), see, &s, &e), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_merge, make_family, snaptest_tear_down),
        cmocka_unit_test_setup_teardown(test_prune, make_family, snaptest_tear_down),
        cmocka_unit_test_setup_teardown(test_refusals, make_family, snaptest_tear_down),
        cmocka_unit_test_setup_teardown(test_prune_full, make_family, snaptest_tear_down),
        cmocka_unit_test_setup_teardown(test_prune_eio, make_family, snaptest_tear_down),
        cmocka_unit_test_setup_teardown(test_prune_short, make_family, snaptest_tear_down),
        cmocka_unit_test_setup_teardown(test_prune_killed, make_family, snaptest_tear_down),
        cmocka_unit_test_setup_teardown(test_list, make_family, snaptest_tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
