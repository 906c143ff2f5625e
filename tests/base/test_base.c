/* SPDX-License-Identifier: Apache-2.0 -- errors, messages, allocation, bits, bytes, checksum */
// LAYERS: base
#include "support/test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bits.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/err.h"
#include "base/log.h"

static void errors_read_outermost_first(void **state)
{
    (void)state;
    struct err e = { "" };
    assert_int_equal(err_set(&e, -EINVAL, "bad %d", 7), -EINVAL);
    assert_string_equal(e.msg, "bad 7");
    assert_int_equal(err_prefix(&e, -ENOENT, "disk %s", "a"), -ENOENT);
    assert_string_equal(e.msg, "disk a: bad 7");
    assert_int_equal(err_set(&e, -EINVAL, "<%s>", e.msg), -EINVAL); /* from the old message */
    assert_string_equal(e.msg, "<disk a: bad 7>");
    assert_int_equal(err_set(NULL, -EIO, "nobody listens"), -EIO);
    assert_int_equal(err_prefix(NULL, -EIO, "nobody listens"), -EIO);
    struct err empty = { "" };
    err_prefix(&empty, -EIO, "alone");
    assert_string_equal(empty.msg, "alone");
}

static void errors_are_cut_not_overrun(void **state)
{
    (void)state;
    char text[2000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    struct err e;
    for (size_t len = 500; len < 520; len++) {
        memset(&e, 0xee, sizeof e);
        e.msg[0] = '\0';
        err_set(&e, -EIO, "%.*s", (int)len, text);
        assert_int_equal(strlen(e.msg), len < 511 ? len : 511);
        err_prefix(&e, -EIO, "%.*s", (int)(len - 20), text);
        assert_true(strlen(e.msg) <= 511);
        err_prefix(&e, -EIO, "front");
        assert_int_equal(strlen(e.msg), 511);
        assert_memory_equal(e.msg, "front: xxx", 10);
    }
}

struct sink {
    char line[1100];
    unsigned lines;
    enum log_level level;
};

static void to_sink(void *ctx, enum log_level level, const char *line)
{
    struct sink *s = ctx;
    s->lines++;
    s->level = level;
    snprintf(s->line, sizeof s->line, "%s", line);
}

static void messages_go_by_level(void **state)
{
    (void)state;
    struct sink s = { 0 };
    log_set_sink(to_sink, &s);
    log_set_level(LOG_WARN);
    log_info("not shown");
    log_dbg("cpu", "not shown");
    assert_int_equal(s.lines, 0);
    log_warn("disk %d is slow", 3);
    assert_string_equal(s.line, "disk 3 is slow");
    assert_int_equal(s.level, LOG_WARN);
    log_err("a\nb\033[31m");
    assert_string_equal(s.line, "a b [31m");
    log_set_level(LOG_DEBUG);
    assert_int_equal(log_get_level(), LOG_DEBUG);
    log_dbg("cpu", "reset");
    assert_string_equal(s.line, "cpu: reset");
    log_set_level(LOG_WARN);
    log_set_sink(NULL, NULL);
}

static void guests_cannot_flood(void **state)
{
    (void)state;
    struct sink s = { 0 };
    log_set_sink(to_sink, &s);
    log_set_level(LOG_INFO);
    log_guest("rtc", "write to register %#x", 1);
    assert_int_equal(s.lines, 0);
    log_set_level(LOG_DEBUG);
    for (int i = 0; i < 10000; i++) {
        log_guest("rtc", "write to register %#x", i);
    }
    assert_true(s.lines >= 10 && s.lines <= 30); /* 10 a second, a second may turn or two */
    assert_memory_equal(s.line, "rtc: write", 10);
    log_set_level(LOG_WARN);
    log_set_sink(NULL, NULL);
}

static void allocation_that_may_fail(void **state)
{
    (void)state;
    assert_null(try_alloc(SIZE_MAX / 2, 4));
    uint8_t *p = try_alloc(10, 10);
    assert_non_null(p);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(p[i], 0);
    }
    free(p);
    char *s = xasprintf("%s-%d", "a", 5);
    assert_string_equal(s, "a-5");
    free(s);
    free(xcalloc(0, 0));
}

static void bits_and_bytes(void **state)
{
    (void)state;
    assert_true(MASK64(64) == UINT64_MAX);
    assert_true(MASK64(0) == 0);
    assert_int_equal(bits64(0x12345678, 15, 8), 0x56);
    assert_int_equal(align_up(4097, 4096), 8192);
    assert_int_equal(align_down(8191, 4096), 4096);
    assert_true(is_pow2(1) && is_pow2(BIT(63)) && !is_pow2(0) && !is_pow2(6));
    uint8_t b[9] = { 0 };
    store_le32(b + 1, 0x11223344);
    assert_int_equal(b[1], 0x44);
    assert_int_equal(load_be32(b + 1), 0x44332211);
    store_be64(b + 1, 0x0102030405060708ull);
    assert_int_equal(b[8], 8);
    assert_true(load_le64(b + 1) == 0x0807060504030201ull);
    uint8_t sum;
    assert_true(ckd_add(&sum, 200, 100));
    assert_false(ckd_add(&sum, 200, 55));
}

static void crc32c_known_answers(void **state)
{
    (void)state;
    uint8_t buf[32];
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
    assert_int_equal(crc32c(0, "", 0), 0);
    memset(buf, 0, sizeof buf); /* RFC 3720 B.4 */
    assert_int_equal(crc32c(0, buf, sizeof buf), 0x8a9136aa);
    memset(buf, 0xff, sizeof buf);
    assert_int_equal(crc32c(0, buf, sizeof buf), 0x62a8ab43);
    for (unsigned i = 0; i < sizeof buf; i++) {
        buf[i] = (uint8_t)i;
    }
    assert_int_equal(crc32c(0, buf, sizeof buf), 0x46dd794e);
    for (unsigned cut = 0; cut <= sizeof buf; cut++) {
        assert_int_equal(crc32c(crc32c(0, buf, cut), buf + cut, sizeof buf - cut), 0x46dd794e);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_read_outermost_first), cmocka_unit_test(errors_are_cut_not_overrun),
        cmocka_unit_test(messages_go_by_level),        cmocka_unit_test(guests_cannot_flood),
        cmocka_unit_test(allocation_that_may_fail),    cmocka_unit_test(bits_and_bytes),
        cmocka_unit_test(crc32c_known_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
