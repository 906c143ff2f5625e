// SPDX-License-Identifier: Apache-2.0
/* The protocol without a socket: texts out of a stream, requests and their answers, names. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/command.h"
#include "api/frame.h"
#include "api/names.h"
#include "api/qmp.h"
#include "base/unixsock.h"
#include "support/test.h"

/* -- Frames ------------------------------------------------------------------------------------ */
/* The texts of a stream that comes in pieces of `step` bytes, with '|' after each. */
static enum frame_result cut(char *out, const char *in, size_t len, size_t step)
{
    struct frame f = { .text = NULL };
    enum frame_result r = FRAME_MORE;
    *out = '\0';
    for (size_t at = 0; at < len && r == FRAME_MORE; at += step) {
        const uint8_t *data = (const uint8_t *)in + at;
        const uint8_t *end = data + (len - at < step ? len - at : step);
        while ((r = frame_take(&f, &data, end)) == FRAME_TEXT) {
            strncat(out, f.text, f.len);
            strcat(out, "|");
        }
    }
    frame_fini(&f);
    return r;
}

static void test_frames(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
    } cases[] = {
        { "{}", "{}|" },
        { "{} {}{}\r\n[]", "{}|{}|{}|[]|" },
        { "{\"a\": [{}, \"}\"]}{", "{\"a\": [{}, \"}\"]}|" },
        { "{\"\\\\\"}{\"\\\"}\"}", "{\"\\\\\"}|{\"\\\"}\"}|" },
        { "hello\n{}", "hello\n|{}|" },
        { "]{}", "]|{}|" },
        { "{\"open\n{}", "{\"open\n|{}|" }, /* no string has a line feed: begin anew */
        { "{[\xff{}", "{}|" },
        { "  \n\n\t ", "" },
        { "\"a\" 1\n{}", "\"a\" 1\n|{}|" },
    };
    char out[256];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (size_t step = 1; step < 8; step++) {
            assert_int_equal(cut(out, cases[i].in, strlen(cases[i].in), step), FRAME_MORE);
            assert_string_equal(out, cases[i].out);
        }
    }
}

static void test_frame_limits(void **state)
{
    (void)state;
    static char big[FRAME_TEXT_MAX + 100];
    static char out[2 * sizeof big];
    memset(big, '[', sizeof big);
    assert_int_equal(cut(out, big, FRAME_DEPTH_MAX, 4096), FRAME_MORE);
    assert_int_equal(cut(out, big, FRAME_DEPTH_MAX + 1, 4096), FRAME_TOO_DEEP);
    memset(big, 'x', sizeof big);
    big[0] = '"';
    assert_int_equal(cut(out, big, FRAME_TEXT_MAX, 4096), FRAME_MORE);
    assert_int_equal(cut(out, big, FRAME_TEXT_MAX + 1, 4096), FRAME_TOO_LONG);
    /* As much as that in many texts is none of its business. */
    memset(big, ' ', sizeof big);
    memcpy(big + sizeof big - 2, "{}", 2);
    assert_int_equal(cut(out, big, sizeof big, 4096), FRAME_MORE);
    assert_string_equal(out, "{}|");
}

/* -- Answers ----------------------------------------------------------------------------------- */
static void answers(struct qmp *q, const char *text, const char *expected)
{
    char *line = qmp_answer(q, text, strlen(text));
    if (strstr(line, expected) == NULL) {
        fail_msg("'%s' is not in '%s'", expected, line);
    }
    assert_true(strlen(line) > 2 && strcmp(line + strlen(line) - 2, "\r\n") == 0);
    assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
    free(line);
}

static void test_negotiation(void **state)
{
    (void)state;
    struct qmp q = { .ready = false };
    char *greeting = qmp_greeting();
    assert_non_null(strstr(greeting, "{\"QMP\": {\"version\": {\"qemu\": {"));
    assert_non_null(strstr(greeting, "\"capabilities\": []}}\r\n"));
    free(greeting);
    answers(&q, "{\"execute\": \"query-version\"}", "Expecting capabilities negotiation");
    answers(&q, "{\"execute\": \"qmp_capabilities\", \"arguments\": {\"enable\": [\"oob\"]}}",
            "no capabilities");
    answers(&q, "{\"execute\": \"qmp_capabilities\", \"arguments\": {\"enable\": 1}}",
            "expected: array");
    assert_false(q.ready);
    answers(&q, "{\"execute\": \"qmp_capabilities\", \"id\": 7}", "{\"return\": {}, \"id\": 7}");
    assert_true(q.ready);
    answers(&q, "{\"execute\": \"qmp_capabilities\"}", "\"CommandNotFound\"");
}

static void test_requests(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        { "{\"execute\": \"query-version\"}", "{\"return\": {\"qemu\"" },
        { "{\"execute\": \"query-commands\"}", "{\"name\": \"query-commands\"}" },
        { "{\"execute\": \"query-events\"}", "{\"name\": \"SHUTDOWN\"}" },
        { "{\"execute\": \"query-version\", \"id\": {\"a\": [null, \"\\u00e9\"]}}",
          "\"id\": {\"a\": [null, \"\\u00E9\"]}}" },
        { "{\"execute\": \"nonsense\", \"id\": \"x\"}",
          "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"The command nonsense has not "
          "been found\"}, \"id\": \"x\"}" },
        { "{\"execute\": 1}", "'execute' must be a string" },
        { "{\"arguments\": {}}", "lacks member 'execute'" },
        { "{\"execute\": \"stop\", \"arguments\": []}", "'arguments' must be an object" },
        { "{\"execute\": \"stop\", \"argument\": {}}", "member 'argument' is unexpected" },
        { "{\"exec-oob\": \"stop\"}", "'exec-oob' is unexpected" },
        { "{\"execute\": \"stop\", \"arguments\": {\"a\": 1}}", "Parameter 'a' is unexpected" },
        { "{\"execute\": \"device_del\"}", "Parameter 'id' is missing" },
        { "{\"execute\": \"device_del\", \"arguments\": {\"id\": 1}}",
          "Invalid parameter type for 'id', expected: string" },
        { "[]", "must be a JSON object" },
        { "12", "must be a JSON object" },
        { "{\"execute\": \"stop\", \"execute\": \"stop\"}", "JSON parse error" },
        { "{\"execute\": \"st\\u0000op\"}", "JSON parse error" },
        { "{\"execute\": \"\xff\"}", "JSON parse error" },
        { "{\"id\": 99999999999999999999}", "JSON parse error" },
        { "{]", "JSON parse error" },
        { "", "JSON parse error" },
    };
    struct qmp q = { .ready = true };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        answers(&q, cases[i][0], cases[i][1]);
    }
}

/* Every row's parameters are ones that api_check_args understands, and no name is there twice. */
static void test_tables(void **state)
{
    (void)state;
    const struct api_command *c;
    unsigned n = 0;
    for (; (c = api_command(n)) != NULL; n++) {
        assert_ptr_equal(api_find_command(c->name), c);
        json_t *args = json_object();
        char params[256];
        char *save;
        snprintf(params, sizeof params, "%s", c->params != NULL ? c->params : "");
        for (char *p = strtok_r(params, " ", &save); p != NULL; p = strtok_r(NULL, " ", &save)) {
            char *kind = strchr(p, ':');
            if (kind == NULL) {
                assert_string_equal(p, "...");
                continue;
            }
            *kind++ = '\0';
            json_t *value = strcmp(kind, "str") == 0    ? json_string("")
                            : strcmp(kind, "int") == 0  ? json_integer(1)
                            : strcmp(kind, "num") == 0  ? json_real(1)
                            : strcmp(kind, "bool") == 0 ? json_true()
                            : strcmp(kind, "obj") == 0  ? json_object()
                            : strcmp(kind, "arr") == 0  ? json_array()
                            : strcmp(kind, "any") == 0  ? json_null()
                                                        : NULL;
            assert_non_null(value);
            json_object_set_new(args, p + (*p == '?'), value);
        }
        struct err e = { "" };
        assert_int_equal(api_check_args(c->params, args, &e), 0);
        json_decref(args);
    }
    assert_true(n > 30);
}

static void test_text(void **state)
{
    (void)state;
    json_t *good = api_json_text("gr\xc3\xbc\xc3\x9f");
    json_t *bad = api_json_text("a\xff z");
    assert_string_equal(json_string_value(good), "gr\xc3\xbc\xc3\x9f");
    assert_string_equal(json_string_value(bad), "a? z");
    json_decref(good);
    json_decref(bad);
}

/* -- Names ------------------------------------------------------------------------------------- */
static char runtime[64];

static int set_up(void **state)
{
    (void)state;
    strcpy(runtime, "/tmp/sosia-test-XXXXXX");
    return mkdtemp(runtime) != NULL ? setenv("XDG_RUNTIME_DIR", runtime, 1) : -1;
}

static int tear_down(void **state)
{
    (void)state;
    char dir[80];
    snprintf(dir, sizeof dir, "%s/sosia", runtime);
    rmdir(dir);
    return rmdir(runtime);
}

static void test_name_check(void **state)
{
    (void)state;
    static const char *const bad[] = { "", ".", "..", "a/b", "-a", "a b", "a\n", "\xc3\xa9" };
    struct err e;
    char longest[API_NAME_MAX + 2];
    memset(longest, 'a', sizeof longest);
    longest[API_NAME_MAX] = '\0';
    assert_int_equal(api_name_check(longest, &e), 0);
    longest[API_NAME_MAX] = 'a';
    longest[API_NAME_MAX + 1] = '\0';
    assert_int_equal(api_name_check(longest, &e), -EINVAL);
    assert_int_equal(api_name_check("web-1.test_2", &e), 0);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(api_name_check(bad[i], &e), -EINVAL);
    }
}

struct found {
    unsigned count;
    char names[64];
};

static void take_name(void *ctx, const char *name, int fd, pid_t pid)
{
    struct found *f = ctx;
    assert_int_equal(pid, getpid());
    close(fd);
    f->count++;
    strcat(strcat(f->names, name), " ");
}

static void test_names(void **state)
{
    (void)state;
    char a[API_PATH_MAX], b[API_PATH_MAX], dead[API_PATH_MAX];
    struct err e = { "" };
    struct found found = { 0 };
    int fd_b = api_name_listen(b, "b", &e);
    int fd_a = api_name_listen(a, "a", &e);
    int fd_dead = api_name_listen(dead, "dead", &e);
    assert_true(fd_a >= 0 && fd_b >= 0 && fd_dead >= 0);
    struct stat st;
    assert_int_equal(stat(a, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    close(fd_dead); /* as a process does that is killed: the file stays */
    assert_int_equal(access(dead, F_OK), 0);
    char other[API_PATH_MAX];
    assert_int_equal(api_name_listen(other, "a", &e), -EADDRINUSE);
    assert_non_null(strstr(e.msg, "'a' is running already"));
    assert_int_equal(api_names(take_name, &found, &e), 0);
    assert_string_equal(found.names, "a b ");
    assert_int_equal(access(dead, F_OK), -1);
    /* A dead one's name is free, and one may go by name, process or path. */
    close(fd_b);
    fd_b = api_name_listen(b, "b", &e);
    assert_true(fd_b >= 0);
    char pid[16];
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    const char *const ways[] = { "a", pid, a };
    for (size_t i = 0; i < 3; i++) {
        int fd = api_name_connect(ways[i], &e);
        assert_true(fd >= 0);
        close(fd);
    }
    assert_int_equal(api_name_connect("nobody", &e), -ENOENT);
    assert_int_equal(api_name_connect("999999999", &e), -ENOENT);
    close(fd_a);
    close(fd_b);
    unlink(a);
    unlink(b);
}

static void test_dir_of_others(void **state)
{
    (void)state;
    char dir[80], path[API_PATH_MAX];
    struct err e;
    snprintf(dir, sizeof dir, "%s/sosia", runtime);
    assert_int_equal(api_name_path(path, "a", &e), 0);
    assert_int_equal(chmod(dir, 0755), 0); /* others may look in */
    assert_int_equal(api_name_listen(path, "a", &e), -EPERM);
    assert_int_equal(rmdir(dir), 0);
    assert_int_equal(symlink("/tmp", dir), 0);
    assert_true(api_name_listen(path, "a", &e) < 0);
    assert_int_equal(unlink(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frames),     cmocka_unit_test(test_frame_limits),
        cmocka_unit_test(test_negotiation), cmocka_unit_test(test_requests),
        cmocka_unit_test(test_tables),     cmocka_unit_test(test_text),
        cmocka_unit_test(test_name_check), cmocka_unit_test(test_names),
        cmocka_unit_test(test_dir_of_others),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
