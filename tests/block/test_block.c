/* SPDX-License-Identifier: Apache-2.0
 *
 * Opening, locks, chains, bounds, the queue, and what failing host calls do: pwrite, pread and
 * fdatasync of this program are its own, and fail when told to.
 */
// LAYERS: block base
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/log.h"
#include "base/loop.h"
#include "block/block.h"
#include "block/image.h"
#include "block/queue.h"
#include "support/test.h"

/* -- Host calls that fail -- */
static int writes_until_failure = -1; /* -1: never */
static int failure = ENOSPC;
static bool fail_sync, short_writes;

ssize_t pwrite(int fd, const void *buf, size_t len, off_t offset)
{
    if (writes_until_failure == 0) {
        errno = failure;
        return -1;
    }
    if (writes_until_failure > 0) {
        writes_until_failure--;
    }
    if (short_writes && len > 1) {
        len = (len + 1) / 2;
    }
    return syscall(SYS_pwrite64, fd, buf, len, offset);
}

/* As short as it may be: the rest comes by pwrite. */
ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
    (void)count;
    return pwrite(fd, iov[0].iov_base, iov[0].iov_len, offset);
}

int fdatasync(int fd)
{
    if (fail_sync) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

/* -- Images in a directory of the test's -- */
static char dir[64], path[128], base[128];
static struct err e;

static int set_up(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "%s/sosia-block-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/image", dir);
    snprintf(base, sizeof base, "%s/base", dir);
    writes_until_failure = -1;
    fail_sync = short_writes = false;
    log_set_level(LOG_ERR);
    return 0;
}

static int tear_down(void **state)
{
    char line[100];
    (void)state;
    snprintf(line, sizeof line, "rm -rf %s", dir);
    return system(line);
}

static void make(const char *name, const char *format, uint64_t size)
{
    struct block_create c = { .path = name, .format = format, .size = size };
    assert_int_equal(block_create(&c, &e), 0);
}

static int try_open(struct block **b, const char *name, const char *format, unsigned flags)
{
    struct block_options o = { .path = name, .format = format, .flags = flags };
    return block_open(b, &o, &e);
}

static struct block *must_open(const char *name, const char *format, unsigned flags)
{
    struct block *b;
    if (try_open(&b, name, format, flags) < 0) {
        fail_msg("%s", e.msg);
    }
    return b;
}

static void one_writer_or_many_readers(void **state)
{
    struct block *other;
    (void)state;
    make(path, "qcow2", 1 << 20);
    struct block *w = must_open(path, NULL, 0);
    assert_int_equal(try_open(&other, path, NULL, 0), -EBUSY);
    assert_non_null(strstr(e.msg, "in use by another VM"));
    assert_int_equal(try_open(&other, path, NULL, BLOCK_READONLY), -EBUSY);
    block_close(must_open(path, NULL, BLOCK_READONLY | BLOCK_NO_LOCK));
    block_close(w);
    struct block *r1 = must_open(path, NULL, BLOCK_READONLY);
    struct block *r2 = must_open(path, NULL, BLOCK_READONLY);
    assert_int_equal(try_open(&other, path, NULL, 0), -EBUSY);
    block_close(r1);
    block_close(r2);
    block_close(must_open(path, NULL, 0));
}

static void ranges_are_checked(void **state)
{
    uint8_t buf[512] = { 0 };
    struct iovec wrap[2] = { { buf, 512 }, { buf, SIZE_MAX - 511 } };
    struct block_extent x;
    (void)state;
    make(path, "raw", 10000);
    struct block *b = must_open(path, "raw", 0);
    assert_int_equal(block_read(b, 10000, buf, 0), 0);
    assert_int_equal(block_read(b, 9999, buf, 2), -EINVAL);
    assert_int_equal(block_write(b, UINT64_MAX, buf, 2), -EINVAL);
    assert_int_equal(block_readv(b, 0, wrap, 2), -EINVAL);
    assert_int_equal(block_writev(b, 0, wrap, -1), -EINVAL);
    assert_int_equal(block_discard(b, 1, UINT64_MAX), -EINVAL);
    assert_int_equal(block_write_zeroes(b, 9000, 1001, true), -EINVAL);
    assert_int_equal(block_map(b, 10000, 1, &x), -EINVAL);
    assert_int_equal(block_resize(b, UINT64_MAX, &e), -EFBIG);
    block_close(b);
    b = must_open(path, "raw", BLOCK_READONLY);
    assert_int_equal(block_write(b, 0, buf, 1), -EROFS);
    assert_int_equal(block_write_zeroes(b, 0, 1, true), -EROFS);
    assert_int_equal(block_discard(b, 0, 1), -EROFS);
    assert_int_equal(block_resize(b, 1, &e), -EROFS);
    assert_int_equal(block_flush(b), 0);
    block_close(b);
}

static void chain_to(const char *name, const char *parent, const char *format)
{
    struct block_create c = { .path = name,
                              .format = "qcow2",
                              .parent = parent,
                              .parent_format = format,
                              .given = BLOCK_KEY_PARENT };
    assert_int_equal(block_create(&c, &e), 0);
}

static void chains_end(void **state)
{
    char name[160], before[160];
    struct block *b;
    (void)state;
    make(base, "qcow2", 1 << 20);
    chain_to(path, "base", "qcow2");
    b = must_open(base, "qcow2", 0);
    assert_int_equal(block_set_parent(b, "image", "qcow2", &e), 0);
    block_close(b);
    assert_int_equal(try_open(&b, path, NULL, 0), -ELOOP);
    b = must_open(base, "qcow2", BLOCK_NO_PARENT);
    assert_int_equal(block_set_parent(b, NULL, NULL, &e), 0);
    block_close(b);
    snprintf(before, sizeof before, "base");
    for (unsigned i = 0; i < BLOCK_PARENTS_MAX; i++) {
        snprintf(name, sizeof name, "%s/n%u", dir, i);
        if (i + 1 < BLOCK_PARENTS_MAX) {
            chain_to(name, before, "qcow2");
        }
        snprintf(before, sizeof before, "n%u", i);
    }
    snprintf(name, sizeof name, "%s/n%u", dir, BLOCK_PARENTS_MAX - 2);
    b = must_open(name, NULL, BLOCK_READONLY);
    unsigned depth = 0;
    for (struct block *p = b; p != NULL; p = block_parent(p)) {
        depth++;
    }
    assert_int_equal(depth, BLOCK_PARENTS_MAX);
    block_close(b);
    struct block_create c = { .path = path,
                              .format = "qcow2",
                              .parent = before,
                              .parent_format = "qcow2",
                              .given = BLOCK_KEY_PARENT };
    assert_true(block_create(&c, &e) < 0); /* one too many */
}

static void ephemeral_leaves_no_trace(void **state)
{
    uint8_t buf[100000], back[100000], zero[300] = { 0 };
    (void)state;
    make(path, "qcow2", 1 << 20);
    struct block *b = must_open(path, NULL, 0);
    memset(buf, 1, sizeof buf);
    assert_int_equal(block_write(b, 65000, buf, sizeof buf), 0);
    block_close(b);
    b = must_open(path, NULL, BLOCK_EPHEMERAL);
    assert_false(block_readonly(b));
    assert_int_equal(block_write(b, 70000, "hello", 5), 0);
    assert_int_equal(block_write_zeroes(b, 100000, 300, true), 0);
    assert_int_equal(block_read(b, 65000, back, sizeof back), 0);
    memcpy(buf + 5000, "hello", 5);
    memset(buf + 35000, 0, 300);
    assert_memory_equal(buf, back, sizeof buf);
    struct block_extent x;
    assert_int_equal(block_map(b, 70000, 10, &x), 0);
    assert_int_equal(x.kind, BLOCK_DATA);
    block_close(b);
    b = must_open(path, NULL, BLOCK_READONLY);
    assert_int_equal(block_read(b, 65000, back, sizeof back), 0);
    memset(buf, 1, sizeof buf);
    assert_memory_equal(buf, back, sizeof buf);
    assert_int_equal(block_read(b, 0, back, sizeof zero), 0);
    assert_memory_equal(back, zero, sizeof zero);
    block_close(b);
}

static void raw_does_not_turn_into_something_else(void **state)
{
    uint8_t head[512] = "QFI\xfb\0\0\0\3";
    (void)state;
    make(path, "raw", 1 << 20);
    struct block *b = must_open(path, NULL, 0);
    assert_string_equal(block_format(b), "raw");
    assert_int_equal(block_write(b, 0, head, sizeof head), -EPERM);
    assert_int_equal(block_write(b, 512, head, sizeof head), 0);
    block_close(b);
    b = must_open(path, "raw", 0);
    assert_int_equal(block_write(b, 0, head, sizeof head), 0);
    block_close(b);
}

/* -- Failures -- */
static const char *const writable[] = { "raw", "qcow2", "vmdk", "vdi", "vhd", "vhdx" };

static uint64_t corruptions(const char *format)
{
    struct block_check c = { 0 };
    struct block *b = must_open(path, format, BLOCK_READONLY);
    int r = block_check(b, false, &c, &e);
    assert_true(r == 0 || r == -ENOTSUP);
    block_close(b);
    return c.corruptions;
}

/* Wherever the disk fills up, the error comes back, what was flushed stays, and it can go on. */
static void full_disk(void **state)
{
    uint8_t buf[20000], back[20000];
    (void)state;
    for (size_t f = 0; f < ARRAY_LEN(writable); f++) {
        for (int n = 0; n < 12; n++) {
            make(path, writable[f], 4 << 20);
            struct block *b = must_open(path, writable[f], 0);
            memset(buf, 7, sizeof buf);
            assert_int_equal(block_write(b, 100000, buf, sizeof buf), 0);
            assert_int_equal(block_flush(b), 0);
            writes_until_failure = n;
            int r = 0;
            for (unsigned i = 0; r == 0 && i < 6; i++) {
                r = block_write(b, 1000000 + i * 300000, buf, sizeof buf);
                r = r == 0 ? block_flush(b) : r;
            }
            assert_true(r == -ENOSPC || r == 0);
            assert_true(r == -ENOSPC || n >= 6);
            writes_until_failure = -1;
            assert_int_equal(block_read(b, 100000, back, sizeof back), 0);
            assert_memory_equal(buf, back, sizeof buf);
            memset(buf, 9, sizeof buf); /* somebody made room */
            assert_int_equal(block_write(b, 2500000, buf, sizeof buf), 0);
            assert_int_equal(block_flush(b), 0);
            block_close(b);
            assert_int_equal(corruptions(writable[f]), 0);
            b = must_open(path, writable[f], 0);
            assert_int_equal(block_read(b, 2500000, back, sizeof back), 0);
            assert_memory_equal(buf, back, sizeof buf);
            block_close(b);
            unlink(path);
        }
    }
}

static void a_failed_sync_stays_failed(void **state)
{
    (void)state;
    for (size_t f = 0; f < ARRAY_LEN(writable); f++) {
        make(path, writable[f], 4 << 20);
        struct block *b = must_open(path, writable[f], 0);
        assert_int_equal(block_write(b, 0, "data", 4), 0);
        fail_sync = true;
        assert_int_equal(block_flush(b), -EIO);
        fail_sync = false;
        assert_int_equal(block_flush(b), -EIO);
        block_close(b);
        unlink(path);
    }
}

static void short_writes_are_finished(void **state)
{
    uint8_t buf[70000], back[70000];
    (void)state;
    for (size_t i = 0; i < sizeof buf; i++) {
        buf[i] = (uint8_t)(i * 7 + i / 256);
    }
    for (size_t f = 0; f < ARRAY_LEN(writable); f++) {
        make(path, writable[f], 4 << 20);
        struct block *b = must_open(path, writable[f], 0);
        short_writes = true;
        assert_int_equal(block_write(b, 12345, buf, sizeof buf), 0);
        assert_int_equal(block_flush(b), 0);
        short_writes = false;
        block_close(b);
        b = must_open(path, writable[f], BLOCK_READONLY);
        assert_int_equal(block_read(b, 12345, back, sizeof back), 0);
        assert_memory_equal(buf, back, sizeof buf);
        block_close(b);
        unlink(path);
    }
}

static void nothing_is_left_of_a_failed_create(void **state)
{
    (void)state;
    for (size_t f = 1; f < ARRAY_LEN(writable); f++) {
        struct block_create c = { .path = path, .format = writable[f], .size = 1 << 20 };
        writes_until_failure = 0;
        assert_int_equal(block_create(&c, &e), -ENOSPC);
        assert_int_not_equal(access(path, F_OK), 0);
        writes_until_failure = -1;
    }
    make(path, "raw", 5);
    struct block_create c = { .path = path, .format = "qcow2", .size = 1 << 20 };
    assert_int_equal(block_create(&c, &e), -EEXIST);
    assert_int_equal(access(path, F_OK), 0);
}

/* -- The queue -- */
#define REQUESTS 64
static struct block_request requests[REQUESTS];
static uint8_t data[REQUESTS][4096];
static struct iovec pieces[REQUESTS][2];
static unsigned finished;
static struct block_queue *queue;

static void on_done(struct block_request *r)
{
    assert_int_equal(r->result, 0);
    finished++;
    if (r->op == BLOCK_OP_WRITE) { /* done may submit */
        r->op = BLOCK_OP_READ;
        memset(r->buf, 0, r->len);
        block_submit(queue, r);
    }
}

static void on_error(struct block_request *r)
{
    assert_int_equal(r->result, -EINVAL);
    finished++;
}

static void requests_come_back(const char *format)
{
    struct loop *loop;
    make(path, format, 1 << 20);
    struct block *b = must_open(path, format, 0);
    assert_int_equal(loop_new(&loop, NULL, NULL), 0);
    assert_int_equal(block_queue_new(&queue, b, loop, &e), 0);
    assert_ptr_equal(block_queue_block(queue), b);
    finished = 0;
    for (unsigned i = 0; i < REQUESTS; i++) {
        memset(data[i], (int)i + 1, sizeof data[i]);
        requests[i] = (struct block_request){ .op = BLOCK_OP_WRITE,
                                              .offset = i * 8192ull,
                                              .len = sizeof data[i],
                                              .buf = data[i],
                                              .fua = i % 16 == 0,
                                              .done = on_done };
        if (i % 2 != 0) {
            pieces[i][0] = (struct iovec){ data[i], 512 * (1 + i % 7) };
            pieces[i][1] = (struct iovec){ data[i] + pieces[i][0].iov_len,
                                           sizeof data[i] - pieces[i][0].iov_len };
            requests[i].iov = pieces[i];
            requests[i].iov_count = 2;
        }
        block_submit(queue, &requests[i]);
    }
    assert_int_equal(finished, 0); /* never from block_submit */
    for (unsigned turn = 0; finished < 2 * REQUESTS && turn < 10000; turn++) {
        loop_turn(loop, 100);
    }
    assert_int_equal(finished, 2 * REQUESTS);
    for (unsigned i = 0; i < REQUESTS; i++) {
        assert_int_equal(data[i][0], i + 1);
        assert_int_equal(data[i][4095], i + 1);
    }
    static const enum block_op others[] = { BLOCK_OP_FLUSH, BLOCK_OP_DISCARD, BLOCK_OP_ZERO };
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        requests[i] = (struct block_request){ .op = others[i], .len = 8192, .done = on_done };
        block_submit(queue, &requests[i]);
    }
    block_queue_drain(queue);
    assert_int_equal(finished, 2 * REQUESTS + 3);
    requests[0] = (struct block_request){
        .op = BLOCK_OP_READ, .offset = 1 << 20, .len = 1, .buf = data[0], .done = on_error
    };
    block_submit(queue, &requests[0]);
    block_queue_free(queue); /* drains */
    assert_int_equal(finished, 2 * REQUESTS + 4);
    loop_turn(loop, 0);
    loop_free(loop);
    block_close(b);
}

static void requests_come_back_on_the_loop(void **state)
{
    (void)state;
    requests_come_back("qcow2");
}

static void raw_requests_come_back_on_the_loop(void **state)
{
    (void)state;
    requests_come_back("raw");
}

/* -- Snapshots -- */
static void snapshots_come_back(void **state)
{
    uint8_t back[4096];
    struct block_options o = { .path = path };
    struct block *b, *then;
    (void)state;
    make(path, "qcow2", 4 << 20);
    for (int n = 1; n <= 3; n++) {
        char name[16];
        b = must_open(path, NULL, 0);
        memset(data[0], n, sizeof data[0]);
        assert_int_equal(block_write(b, 65536, data[0], 4096), 0);
        assert_int_equal(block_write(b, (uint64_t)n << 20, data[0], 4096), 0);
        snprintf(name, sizeof name, "s%d", n);
        assert_int_equal(block_snapshot_change(b, BLOCK_SNAPSHOT_CREATE, name, &e), 0);
        assert_int_equal(block_snapshot_change(b, BLOCK_SNAPSHOT_CREATE, name, &e), -EEXIST);
        block_close(b);
        assert_int_equal(corruptions("qcow2"), 0);
    }
    assert_int_equal(block_open_snapshot(&then, &o, "s2", &e), 0);
    assert_true(block_readonly(then));
    assert_int_equal(block_read(then, 65536, back, sizeof back), 0);
    assert_int_equal(back[77], 2);
    assert_int_equal(block_read(then, 3 << 20, back, sizeof back), 0);
    assert_int_equal(back[77], 0);
    block_close(then);
    assert_int_equal(block_open_snapshot(&then, &o, "s9", &e), -ENOENT);
    b = must_open(path, NULL, 0);
    assert_int_equal(block_resize(b, 6 << 20, &e), 0);
    assert_int_equal(block_snapshot_change(b, BLOCK_SNAPSHOT_APPLY, "s1", &e), 0);
    assert_int_equal(block_size(b), 4 << 20);
    assert_int_equal(block_read(b, 65536, back, sizeof back), 0);
    assert_int_equal(back[77], 1);
    assert_int_equal(block_write(b, 65536, data[0], 4096), 0);
    assert_int_equal(block_snapshot_change(b, BLOCK_SNAPSHOT_DELETE, "s2", &e), 0);
    assert_int_equal(block_snapshot_change(b, BLOCK_SNAPSHOT_APPLY, "3", &e), 0); /* by its id */
    assert_int_equal(block_read(b, 3 << 20, back, sizeof back), 0);
    assert_int_equal(back[77], 3);
    assert_int_equal(block_snapshot_change(b, BLOCK_SNAPSHOT_DELETE, "s1", &e), 0);
    assert_int_equal(block_snapshot_change(b, BLOCK_SNAPSHOT_DELETE, "s3", &e), 0);
    assert_int_equal(block_flush(b), 0);
    struct block_check c = { 0 };
    assert_int_equal(block_check(b, false, &c, &e), 0);
    assert_int_equal(c.corruptions, 0);
    assert_int_equal(c.leaks, 0);
    block_close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(one_writer_or_many_readers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(ranges_are_checked, set_up, tear_down),
        cmocka_unit_test_setup_teardown(chains_end, set_up, tear_down),
        cmocka_unit_test_setup_teardown(ephemeral_leaves_no_trace, set_up, tear_down),
        cmocka_unit_test_setup_teardown(raw_does_not_turn_into_something_else, set_up, tear_down),
        cmocka_unit_test_setup_teardown(full_disk, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_failed_sync_stays_failed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(short_writes_are_finished, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nothing_is_left_of_a_failed_create, set_up, tear_down),
        cmocka_unit_test_setup_teardown(requests_come_back_on_the_loop, set_up, tear_down),
        cmocka_unit_test_setup_teardown(raw_requests_come_back_on_the_loop, set_up, tear_down),
        cmocka_unit_test_setup_teardown(snapshots_come_back, set_up, tear_down),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests_name("block", tests, NULL, NULL);
}
