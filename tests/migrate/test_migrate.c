/* SPDX-License-Identifier: Apache-2.0
 *
 * Migration through the public interface, between engines in one process; and ends that lie.
 */
#include "machine/vmtest.h"

#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/unixsock.h"
#include "machine/vm.h"
#include "migrate/migrate.h"
#include "migrate/pages.h"
#include "migrate/ticket.h"
#include "migrate/wire.h"

static char *kernel;
static char dir[] = "/tmp/sosia-migrate-XXXXXX";
static char address[64];

static int set_up(void **state)
{
    (void)state;
    kernel = vmtest_kernel(vmtest_echo, sizeof vmtest_echo);
    if (mkdtemp(dir) == NULL) {
        return -1;
    }
    snprintf(address, sizeof address, "unix:%s/m", dir);
    return setenv("XDG_RUNTIME_DIR", dir, 1);
}

static int tear_down(void **state)
{
    (void)state;
    unlink(kernel);
    free(kernel);
    return rmdir(dir); /* nothing is left in it */
}

static void start(struct vmtest *t, const char *engine, unsigned cpus)
{
    struct sosia_config c;
    vmtest_config(t, &c, kernel, engine);
    c.cpus = cpus;
    vmtest_make(t, &c);
    sosia_vm_start(t->vm);
    assert_true(vmtest_shows(t, 0, ">", 60));
    vmtest_send(t, "before");
    assert_true(vmtest_shows(t, 0, "before", 60));
}

/* -- A target on a thread of its own ----------------------------------------------------------- */
struct target {
    pthread_t thread;
    pthread_mutex_t lock;
    const char *engine;
    const char *tls;
    struct vmtest t;
    int result;
    bool paused;
    char error[SOSIA_ERROR_BYTES];
};

static struct target *listener; /* sosia_incoming_open's callback has no context */

static void on_listening(const char *where)
{
    assert_string_equal(where, address);
    pthread_mutex_unlock(&listener->lock);
}

static void *target_main(void *arg)
{
    struct target *g = arg;
    struct sosia_incoming *in;
    struct sosia_config c, fresh;
    g->result = sosia_incoming_open(&in, address, g->tls, on_listening, g->error);
    if (g->result < 0) {
        return NULL;
    }
    vmtest_config(&g->t, &fresh, NULL, g->engine);
    sosia_incoming_config(in, &c);
    c.engine = g->engine;
    c.ctx = &g->t;
    c.serial_output = fresh.serial_output;
    c.ended = fresh.ended;
    g->result = sosia_vm_new(&g->t.vm, &c, g->error);
    if (g->result == 0) {
        g->result = sosia_vm_receive(g->t.vm, in, &g->paused, g->error);
        if (g->result < 0) {
            sosia_vm_free(g->t.vm);
        }
    }
    sosia_incoming_close(in, g->result < 0 ? g->error : NULL);
    return NULL;
}

/* Returns when it listens. */
static void listen_for(struct target *g, const char *engine, const char *tls)
{
    memset(g, 0, sizeof *g);
    g->engine = engine;
    g->tls = tls;
    listener = g;
    pthread_mutex_init(&g->lock, NULL);
    pthread_mutex_lock(&g->lock);
    assert_int_equal(pthread_create(&g->thread, NULL, target_main, g), 0);
    pthread_mutex_lock(&g->lock);
}

static void between(const char *from, const char *to, unsigned cpus, unsigned streams,
                    bool compress, bool paused, const char *tls)
{
    static struct vmtest t;
    static struct target g;
    struct sosia_migrate_options o;
    struct sosia_migrate_result result;
    char error[SOSIA_ERROR_BYTES] = "";
    start(&t, from, cpus);
    if (paused) {
        sosia_vm_pause(t.vm);
    }
    listen_for(&g, to, tls);
    sosia_migrate_options_init(&o);
    o.streams = streams;
    o.compress = compress;
    o.tls = tls;
    int r = sosia_vm_migrate(t.vm, address, &o, &result, error);
    pthread_join(g.thread, NULL);
    if (r < 0 || g.result < 0) {
        print_message("source: %s, target: %s\n", error, g.error);
    }
    assert_int_equal(r, 0);
    assert_int_equal(g.result, 0);
    assert_true(g.paused == paused);
    assert_true(result.passes >= 2 && result.bytes > 4096 && !result.unknown);
    /* It has left: nothing brings it to life here. */
    sosia_vm_resume(t.vm);
    sosia_vm_reset(t.vm);
    assert_true(sosia_vm_paused(t.vm));
    sosia_vm_start(g.t.vm);
    vmtest_send(&g.t, "after");
    assert_true(vmtest_shows(&g.t, 0, "after", 60));
    assert_memory_equal(g.t.text, "after", 5);
    sosia_vm_free(t.vm);
    sosia_vm_free(g.t.vm);
}

static void test_engines(void **state)
{
    (void)state;
    between("interp", "bt", 1, 1, false, false, NULL);
    between("bt", "interp", 2, 1, false, false, NULL);
    between("bt", "bt", 1, 1, false, true, NULL);
}

static void test_streams(void **state)
{
    (void)state;
    between("interp", "interp", 1, 4, false, false, NULL);
    between("interp", "interp", 1, MIGRATE_STREAMS_MAX, false, false, NULL);
}

static void test_compressed(void **state)
{
    (void)state;
    struct migrate_parameters p = migrate_defaults;
    struct err e;
    p.compress = true;
    if (migrate_check(&p, &e) == -ENOTSUP) {
        skip(); /* a build without zstd */
    }
    between("interp", "interp", 1, 2, true, false, NULL);
}

/* -- TLS --------------------------------------------------------------------------------------- */

/* Certificates as QEMU names them, by an authority of their own. False: this host cannot. */
static bool make_certificates(const char *to)
{
    char command[2048];
    snprintf(command, sizeof command,
             "exec >/dev/null 2>&1; mkdir -p %s && cd %s && "
             "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
             "-subj /CN=authority -keyout ca-key.pem -out ca-cert.pem || exit 1; "
             "for who in server client; do "
             "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=$who "
             "-keyout $who-key.pem -out $who.req && echo extendedKeyUsage=${who}Auth >$who.ext && "
             "openssl x509 -req -in $who.req -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial "
             "-days 2 -extfile $who.ext -out $who-cert.pem || exit 1; done",
             to, to);
    return system(command) == 0;
}

static void fails(const char *source_tls, const char *target_tls, const char *words)
{
    static struct vmtest t;
    static struct target g;
    struct sosia_migrate_options o;
    char error[SOSIA_ERROR_BYTES] = "";
    start(&t, "interp", 1);
    listen_for(&g, "interp", target_tls);
    sosia_migrate_options_init(&o);
    o.tls = source_tls;
    assert_true(sosia_vm_migrate(t.vm, address, &o, NULL, error) < 0);
    pthread_join(g.thread, NULL);
    assert_true(g.result < 0);
    if (strstr(error, words) == NULL && strstr(g.error, words) == NULL) {
        print_message("'%s' is not in: %s; %s\n", words, error, g.error);
        fail();
    }
    vmtest_send(&t, "on");
    assert_true(vmtest_shows(&t, 0, "beforeon", 60));
    sosia_vm_free(t.vm);
}

static void test_tls(void **state)
{
    (void)state;
    char ours[64], theirs[64], clean[160];
    snprintf(ours, sizeof ours, "%s/ours", dir);
    snprintf(theirs, sizeof theirs, "%s/theirs", dir);
    snprintf(clean, sizeof clean, "rm -rf %s %s", ours, theirs);
    bool made = make_certificates(ours) && make_certificates(theirs);
    if (tls_built() && made) {
        between("interp", "interp", 1, 3, false, false, ours);
        fails(ours, theirs, "NOT trusted"); /* either says so first */
        fails(NULL, ours, "TLS");
        fails(ours, NULL, "protocol");
        fails("/no/such", ours, "/no/such/ca-cert.pem");
    }
    assert_int_equal(system(clean), 0);
    if (!tls_built() || !made) {
        skip();
    }
}

/* -- A target that lies ------------------------------------------------------------------------ */
struct liar {
    pthread_t thread;
    int fd;            /* listens */
    enum message answer; /* to HELLO: READY, or what is no answer; 0: goes away */
    uint32_t len;
    bool until_go; /* plays along until GO, then says no more */
};

static void *liar_main(void *arg)
{
    struct liar *l = arg;
    struct channel *c;
    struct received m = { .type = MESSAGE_HELLO };
    struct err e;
    static const uint8_t zeroes[8192];
    assert_int_equal(channel_accept(&c, l->fd, 60, &e), 0);
    assert_int_equal(channel_expect(c, MESSAGE_HELLO, &m, &e), 0);
    if (l->answer != 0) {
        assert_int_equal(channel_send(c, l->answer, zeroes, l->len, &e), 0);
    }
    while (l->until_go && m.type != MESSAGE_GO) {
        assert_int_equal(channel_receive(c, &m, &e), 0);
        if (m.type == MESSAGE_SYNC) {
            assert_int_equal(channel_send(c, MESSAGE_SYNCED, NULL, 0, &e), 0);
        } else if (m.type == MESSAGE_LOAD) {
            assert_int_equal(channel_send(c, MESSAGE_LOADED, NULL, 0, &e), 0);
        }
    }
    channel_free(c);
    return NULL;
}

static void lie(struct vmtest *t, struct liar *l, const char *words, bool unknown)
{
    char error[SOSIA_ERROR_BYTES] = "";
    struct sosia_migrate_result result;
    struct err e;
    l->fd = unix_listen(address + 5, 0600, 1, &e);
    assert_true(l->fd >= 0);
    assert_int_equal(pthread_create(&l->thread, NULL, liar_main, l), 0);
    assert_true(sosia_vm_migrate(t->vm, address, NULL, &result, error) < 0);
    pthread_join(l->thread, NULL);
    close(l->fd);
    unlink(address + 5);
    if (strstr(error, words) == NULL) {
        print_message("'%s' is not in: %s\n", words, error);
    }
    assert_non_null(strstr(error, words));
    assert_true(result.unknown == unknown);
}

static void test_targets_that_lie(void **state)
{
    (void)state;
    static struct vmtest t;
    start(&t, "interp", 1);
    lie(&t, &(struct liar){ .answer = 0 }, "gone", false);
    lie(&t, &(struct liar){ .answer = MESSAGE_RUNS }, "message", false);
    lie(&t, &(struct liar){ .answer = MESSAGE_READY, .len = 3 }, "malformed", false);
    lie(&t, &(struct liar){ .answer = MESSAGE_READY, .len = 8192 }, "another protocol", false);
    lie(&t, &(struct liar){ .answer = MESSAGE_FAILED, .len = 4 }, "????", false);
    assert_false(sosia_vm_paused(t.vm));
    vmtest_send(&t, "on");
    assert_true(vmtest_shows(&t, 0, "beforeon", 60));
    /* Without a ticket, and silent after GO: nobody knows, so that nobody runs it. */
    lie(&t, &(struct liar){ .answer = MESSAGE_READY, .len = 4, .until_go = true }, "not known",
        true);
    sosia_vm_resume(t.vm);
    assert_true(sosia_vm_paused(t.vm));
    /* A person does. */
    struct err e;
    assert_int_equal(migrate_take_back(sosia_vm_machine(t.vm), &e), 0);
    sosia_vm_resume(t.vm);
    vmtest_send(&t, "back");
    assert_true(vmtest_shows(&t, 0, "beforeonback", 60));
    sosia_vm_free(t.vm);
}

/* -- A source that lies ------------------------------------------------------------------------ */

/* What an incoming says of these bytes, and nothing after them. */
static int hear(const uint8_t *data, size_t len, char *words)
{
    int ends[2];
    struct incoming *in = NULL;
    struct err e = { 0 };
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    assert_int_equal(write(ends[1], data, len), (ssize_t)len);
    shutdown(ends[1], SHUT_WR);
    int r = incoming_over(&in, ends[0], &e);
    close(ends[1]);
    incoming_close(in);
    strcpy(words, e.msg);
    return r;
}

static size_t hello_bytes(uint8_t *out, size_t room, const struct wire_hello *h)
{
    int ends[2];
    struct err e;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    struct channel *c = channel_over(ends[0]);
    assert_int_equal(wire_send_hello(c, h, &e), 0);
    ssize_t n = read(ends[1], out, room);
    channel_free(c);
    close(ends[1]);
    return (size_t)n;
}

static void test_sources_that_lie(void **state)
{
    (void)state;
    static const char config[] = "cpus=1\n";
    struct wire_hello h = {
        .streams = 1, .ram_pages = 256, .config = config, .config_len = sizeof config - 1
    };
    uint8_t data[4096], copy[4096];
    char words[512];
    size_t len = hello_bytes(data, sizeof data, &h);
    for (size_t i = 0; i < len; i++) { /* cut off anywhere, and any byte another */
        assert_true(hear(data, i, words) < 0);
        assert_true(words[0] != '\0');
        memcpy(copy, data, len);
        copy[i] ^= 0x10;
        assert_true(hear(copy, len, words) < 0);
        assert_true(words[0] != '\0');
    }
    h.streams = MIGRATE_STREAMS_MAX + 1;
    assert_true(hear(data, hello_bytes(data, sizeof data, &h), words) < 0);
    assert_non_null(strstr(words, "streams"));
}

static void test_pages_that_lie(void **state)
{
    (void)state;
    struct gmem *mem;
    struct err e;
    uint8_t data[16 + 4096] = { 0 };
    uint8_t *unpacked = calloc(1, CHANNEL_PAYLOAD_MAX);
    assert_int_equal(gmem_new(&mem, 1 << 20, 0xc0000000, &e), 0);
    static const struct {
        uint64_t first;
        uint32_t pages, kind;
        size_t len;
        int result;
    } cases[] = {
        { 255, 1, 1, 16 + 4096, 0 },
        { 0, 256, 0, 16, 0 },
        { 256, 1, 1, 16 + 4096, -EPROTO },
        { 255, 2, 0, 16, -EPROTO },
        { UINT64_MAX, 1, 0, 16, -EPROTO },
        { 1, UINT32_MAX, 0, 16, -EPROTO },
        { 0, 1, 1, 16 + 4095, -EPROTO },
        { 0, 2, 1, 16 + 4096, -EPROTO },
        { 0, 1, 2, 16, -EPROTO },
        { 0, 1, 0, 15, -EPROTO },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        store_le64(data, cases[i].first);
        store_le32(data + 8, cases[i].pages);
        store_le32(data + 12, cases[i].kind);
        const struct received m = { MESSAGE_PAGES, data, (uint32_t)cases[i].len };
        assert_int_equal(pages_take(mem, 256, &m, unpacked, &e), cases[i].result);
    }
    const struct received m = { MESSAGE_PACKED, data, sizeof data };
    assert_true(pages_take(mem, 256, &m, unpacked, &e) < 0);
    gmem_free(mem);
    free(unpacked);
}

/* -- The ticket -------------------------------------------------------------------------------- */

static void *try_ticket(void *arg) { return (void *)(intptr_t)ticket_take(arg); }

static void test_ticket(void **state)
{
    (void)state;
    struct ticket t, other;
    struct err e;
    for (unsigned i = 0; i < 200; i++) { /* of two that try, one has it */
        pthread_t thread;
        void *theirs;
        assert_int_equal(ticket_make(&t, NULL, &e), 0);
        assert_true(ticket_reachable(&t));
        assert_int_equal(pthread_create(&thread, NULL, try_ticket, &t), 0);
        int ours = ticket_take(&t);
        pthread_join(thread, &theirs);
        assert_true((ours == 0) != (theirs == NULL));
        assert_true(ours == 0 || ours == -ENOENT);
        assert_false(ticket_reachable(&t));
    }
    /* Nobody's file is one. */
    snprintf(other.path, sizeof other.path, "%s/file", dir);
    fclose(fopen(other.path, "w"));
    assert_false(ticket_reachable(&other));
    assert_int_equal(ticket_make(&t, other.path, &e), 0);
    assert_true(ticket_reachable(&t));
    FILE *f = fopen(t.path, "w");
    fputs("x", f);
    fclose(f);
    assert_false(ticket_reachable(&t));
    ticket_drop(&t);
    unlink(other.path);
}

static void test_refusals(void **state)
{
    (void)state;
    static struct vmtest t;
    char error[SOSIA_ERROR_BYTES];
    start(&t, "interp", 1);
    static const char *const bad[] = { "here", "tcp:1", "tcp:no:1x", "unix:/no/such",
                                       "tcp:no:1" };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_true(sosia_vm_migrate(t.vm, bad[i], NULL, NULL, error) < 0);
        assert_true(error[0] != '\0');
    }
    struct sosia_migrate_options o;
    sosia_migrate_options_init(&o);
    o.streams = 0;
    assert_int_equal(sosia_vm_migrate(t.vm, address, &o, NULL, error), -EINVAL);
    vmtest_send(&t, "on");
    assert_true(vmtest_shows(&t, 0, "beforeon", 60));
    sosia_vm_free(t.vm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_engines),          cmocka_unit_test(test_streams),
        cmocka_unit_test(test_compressed),       cmocka_unit_test(test_tls),
        cmocka_unit_test(test_targets_that_lie),
        cmocka_unit_test(test_sources_that_lie), cmocka_unit_test(test_pages_that_lie),
        cmocka_unit_test(test_ticket),           cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
