/* SPDX-License-Identifier: Apache-2.0
 *
 * Power cuts and kills. The calls that change a file are this program's own: they do what they
 * should, and remember it; what was synced is on the medium, of the rest any part may be. From each
 * such medium the image must open, hold what was flushed, and have leaks at most.
 */
// LAYERS: block base
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/log.h"
#include "block/block.h"
#include "block/image.h"
#include "support/test.h"

#define MEDIUM_MAX (48u << 20)
#define DISK (4u << 20)
#define PIECE 4096u
#define PIECES (DISK / PIECE)

/* -- The medium -- */
enum change_kind { CHANGE_WRITE, CHANGE_SIZE, CHANGE_PUNCH };

struct change {
    enum change_kind kind;
    uint64_t offset, len;
    uint8_t *bytes;
    struct change *next;
};

static bool recording;
static uint8_t *medium, *scratch;
static uint64_t medium_size;
static struct change *pending, **pending_end = &pending;

static void remember(enum change_kind kind, uint64_t offset, uint64_t len, const void *bytes)
{
    if (!recording) {
        return;
    }
    struct change *c = calloc(1, sizeof *c);
    *c = (struct change){ .kind = kind, .offset = offset, .len = len };
    if (bytes != NULL) {
        c->bytes = malloc(len);
        memcpy(c->bytes, bytes, len);
    }
    *pending_end = c;
    pending_end = &c->next;
}

static void grow(uint64_t *size, uint64_t to)
{
    assert_true(to <= MEDIUM_MAX);
    *size = to > *size ? to : *size;
}

/* chance: of 256, for each sector of a write */
static void apply(uint8_t *to, uint64_t *size, const struct change *c, unsigned chance,
                  uint64_t *rng)
{
    uint64_t at = 0;
    if (c->kind == CHANGE_SIZE) {
        if (c->offset < *size) {
            memset(to + c->offset, 0, *size - c->offset);
        }
        assert_true(c->offset <= MEDIUM_MAX);
        *size = c->offset;
        return;
    }
    while (at < c->len) {
        uint64_t n = 512 - (c->offset + at) % 512;
        n = n < c->len - at ? n : c->len - at;
        if (test_random(rng) >> 56 < chance) {
            if (c->kind == CHANGE_WRITE) {
                grow(size, c->offset + at + n);
                memcpy(to + c->offset + at, c->bytes + at, n);
            } else if (c->offset + at < *size) {
                memset(to + c->offset + at, 0, n);
            }
        }
        at += n;
    }
}

static void forget(void)
{
    while (pending != NULL) {
        struct change *next = pending->next;
        free(pending->bytes);
        free(pending);
        pending = next;
    }
    pending_end = &pending;
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t offset)
{
    remember(CHANGE_WRITE, (uint64_t)offset, len, buf);
    return syscall(SYS_pwrite64, fd, buf, len, offset);
}

ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
    off_t at = offset;
    for (int i = 0; i < count; i++) {
        remember(CHANGE_WRITE, (uint64_t)at, iov[i].iov_len, iov[i].iov_base);
        at += (off_t)iov[i].iov_len;
    }
    return syscall(SYS_pwritev, fd, iov, count, offset, 0);
}

int ftruncate(int fd, off_t size)
{
    remember(CHANGE_SIZE, (uint64_t)size, 0, NULL);
    return (int)syscall(SYS_ftruncate, fd, size);
}

int fallocate(int fd, int mode, off_t offset, off_t len)
{
    remember(CHANGE_PUNCH, (uint64_t)offset, (uint64_t)len, NULL);
    return (int)syscall(SYS_fallocate, fd, mode, offset, len);
}

static useconds_t sync_us; /* a kill comes during a sync most of the time, on a real disk */

int fdatasync(int fd)
{
    uint64_t rng = 1;
    usleep(sync_us);
    (void)fd;
    for (const struct change *c = pending; c != NULL; c = c->next) {
        apply(medium, &medium_size, c, 256, &rng);
    }
    forget();
    return 0;
}

/* -- Images -- */
struct shape {
    const char *name;
    struct block_create create;
};

static const struct shape shapes[] = {
    { "qcow2", { .format = "qcow2" } },
    { "qcow2-512", { .format = "qcow2", .cluster_size = 512 } },
    { "qcow2-v2", { .format = "qcow2", .cluster_size = 4096, .compat = 2 } },
    { "vmdk", { .format = "vmdk" } },
    { "vdi", { .format = "vdi" } },
    { "vhd", { .format = "vhd" } },
    { "vhdx", { .format = "vhdx", .cluster_size = 1 << 20 } },
};

static char dir[64], path[96], cut[96];

/* What a piece may hold: its last flushed value, or one written since. */
struct history {
    uint8_t flushed[PIECES];
    uint64_t since[PIECES]; /* bit v % 64 */
};

static void make(const struct shape *s)
{
    struct err e = { "" };
    struct block_create c = s->create;
    c.path = path;
    c.size = DISK;
    unlink(path);
    assert_int_equal(block_create(&c, &e), 0);
}

static struct block *open_image(const char *name, const struct shape *s)
{
    struct err e = { "" };
    struct block *b;
    struct block_options o = { .path = name, .format = s->create.format };
    if (block_open(&b, &o, &e) < 0) {
        fail_msg("%s: %s", s->name, e.msg);
    }
    return b;
}

static void say(void *ctx, const char *line)
{
    (void)ctx;
    if (strncmp(line, "error", 5) == 0) { /* leaks are allowed */
        fprintf(stderr, "# %s\n", line);
    }
}

static void verify(struct block *b, const struct shape *s, const struct history *h)
{
    uint8_t buf[PIECE];
    struct block_check k = { .say = say };
    struct err e = { "" };
    for (unsigned p = 0; p < PIECES; p++) {
        assert_int_equal(block_read(b, p * PIECE, buf, sizeof buf), 0);
        for (size_t i = 0; i < sizeof buf; i += 512) { /* sectors are whole */
            if (buf[i] != h->flushed[p] && !(h->since[p] & BIT(buf[i] % 64))) {
                fail_msg("%s: piece %u holds %u instead of %u", s->name, p, buf[i], h->flushed[p]);
            }
            assert_memory_equal(buf + i, buf + i + 1, 511);
        }
    }
    assert_int_equal(block_check(b, false, &k, &e), 0);
    if (k.corruptions != 0) {
        fail_msg("%s: %llu corruptions", s->name, (unsigned long long)k.corruptions);
    }
}

/* The image as a cut would leave it, opened for writing as the next VM would do. */
static void cut_power(const struct shape *s, const struct history *h, uint64_t *rng)
{
    static const unsigned chances[] = { 0, 40, 128, 220, 256 };
    unsigned chance = chances[test_random(rng) % ARRAY_LEN(chances)];
    uint64_t size = medium_size;
    memcpy(scratch, medium, MEDIUM_MAX);
    for (const struct change *c = pending; c != NULL; c = c->next) {
        if (c->kind != CHANGE_SIZE || test_random(rng) >> 56 < chance) {
            apply(scratch, &size, c, chance, rng);
        }
    }
    recording = false;
    FILE *f = fopen(cut, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(scratch, 1, size, f), size);
    fclose(f);
    struct block *b = open_image(cut, s);
    verify(b, s, h);
    assert_int_equal(block_write(b, 0, "x", 1), 0);
    assert_int_equal(block_flush(b), 0);
    block_close(b);
    recording = true;
}

static void step(struct block *b, struct history *h, unsigned n, uint64_t *rng)
{
    uint8_t buf[8 * PIECE];
    unsigned p = (unsigned)(test_random(rng) % PIECES),
             count = 1 + (unsigned)(test_random(rng) % 8);
    count = count < PIECES - p ? count : PIECES - p;
    unsigned what = (unsigned)(test_random(rng) % 8);
    uint8_t value = what < 6 ? (uint8_t)(1 + n % 63) : 0;
    memset(buf, value, sizeof buf);
    if (what == 6) {
        assert_int_equal(block_write_zeroes(b, p * PIECE, count * PIECE, true), 0);
    } else if (what == 7) {
        assert_int_equal(block_discard(b, p * PIECE, count * PIECE), 0);
    } else {
        assert_int_equal(block_write(b, p * PIECE, buf, count * PIECE), 0);
    }
    for (unsigned i = p; i < p + count; i++) {
        h->since[i] |= BIT(value);
    }
}

/* What a flush covers: the disk as it reads now. */
static void settle(struct block *b, struct history *h)
{
    uint8_t buf[PIECE];
    for (unsigned p = 0; p < PIECES; p++) {
        assert_int_equal(block_read(b, p * PIECE, buf, sizeof buf), 0);
        h->flushed[p] = buf[0];
        h->since[p] = 0;
    }
}

static void power_cuts(void **state)
{
    const struct shape *s = *state;
    uint64_t rng = 99;
    static struct history h;
    for (unsigned life = 0; life < 3; life++) {
        recording = false;
        make(s);
        memset(&h, 0, sizeof h);
        memset(medium, 0, MEDIUM_MAX);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        medium_size = (uint64_t)read(fd, medium, MEDIUM_MAX);
        close(fd);
        recording = true;
        struct block *b = open_image(path, s);
        for (unsigned n = 0; n < 150; n++) {
            step(b, &h, n, &rng);
            if (test_random(&rng) % 6 == 0) {
                assert_int_equal(block_flush(b), 0);
                settle(b, &h);
            }
            if (test_random(&rng) % 12 == 0) {
                cut_power(s, &h, &rng);
            }
        }
        recording = false;
        block_close(b);
        forget();
    }
}

/* -- kill -9 -- */
struct progress {
    _Atomic unsigned started, flushed;
};

static unsigned place_of(unsigned n) { return (n * 2654435761u >> 7) % PIECES; }

static void write_until_killed(const struct shape *s, struct progress *progress)
{
    uint8_t buf[PIECE];
    struct block *b = open_image(path, s);
    sync_us = 500;
    for (unsigned n = 1;; n++) {
        progress->started = n;
        memset(buf, (int)(n % 251), sizeof buf);
        if (block_write(b, place_of(n) * PIECE, buf, sizeof buf) != 0) {
            _exit(1);
        }
        if (n % 5 == 0) {
            if (block_flush(b) != 0) {
                _exit(1);
            }
            progress->flushed = n;
        }
    }
}

/* Version 2 has no dirty bit: leaks remain until somebody repairs it. */
static void check_leaks(const struct shape *s)
{
    const struct block_options o = { .path = path, .format = "qcow2", .flags = BLOCK_READONLY };
    struct block_check k = { .say = say };
    struct err e = { "" };
    struct block *b;
    if (strcmp(s->create.format, "qcow2") == 0 && s->create.compat != 2) {
        assert_int_equal(block_open(&b, &o, &e), 0);
        assert_int_equal(block_check(b, false, &k, &e), 0);
        assert_int_equal(k.leaks, 0);
        block_close(b);
    }
}

static void check_after_kill(const struct shape *s, unsigned started, unsigned flushed)
{
    uint8_t buf[PIECE];
    check_leaks(s);
    struct block *b = open_image(path, s);
    struct block_check k = { .say = say };
    struct err e = { "" };
    for (unsigned p = 0; p < PIECES; p++) {
        unsigned last = 0, n;
        for (n = flushed; n > 0 && last == 0; n--) {
            last = place_of(n) == p ? n : 0;
        }
        assert_int_equal(block_read(b, p * PIECE, buf, sizeof buf), 0);
        bool good = buf[0] == (uint8_t)(last % 251);
        for (n = flushed + 1; n <= started && !good; n++) {
            good = place_of(n) == p && buf[0] == (uint8_t)(n % 251);
        }
        if (!good) {
            fail_msg("%s: piece %u after %u flushed writes", s->name, p, flushed);
        }
    }
    assert_int_equal(block_check(b, false, &k, &e), 0);
    assert_int_equal(k.corruptions, 0);
    block_close(b);
}

static void kills(void **state)
{
    const struct shape *s = *state;
    uint64_t rng = 5;
    const char *text = getenv("CRASH_KILLS");
    unsigned rounds = text != NULL ? (unsigned)atoi(text) : 8;
    struct progress *progress = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                                     -1, 0);
    assert_true(progress != MAP_FAILED);
    for (unsigned i = 0; i < rounds; i++) {
        make(s);
        progress->started = progress->flushed = 0;
        pid_t pid = fork();
        if (pid == 0) {
            write_until_killed(s, progress);
        }
        assert_true(pid > 0);
        usleep(3000 + test_random(&rng) % 20000);
        kill(pid, SIGKILL);
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
        check_after_kill(s, progress->started, progress->flushed);
    }
    munmap(progress, 4096);
}

int main(void)
{
    struct CMUnitTest tests[2 * ARRAY_LEN(shapes)];
    for (size_t i = 0; i < 2 * ARRAY_LEN(shapes); i++) {
        tests[i] = (struct CMUnitTest){ .name = shapes[i / 2].name,
                                        .test_func = i % 2 == 0 ? power_cuts : kills,
                                        .initial_state = (void *)&shapes[i / 2] };
    }
    log_set_level(LOG_ERR);
    snprintf(dir, sizeof dir, "%s/sosia-crash-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (mkdtemp(dir) == NULL) {
        return 1;
    }
    snprintf(path, sizeof path, "%s/image", dir);
    snprintf(cut, sizeof cut, "%s/cut", dir);
    medium = malloc(MEDIUM_MAX);
    scratch = malloc(MEDIUM_MAX);
    cmocka_set_message_output(CM_OUTPUT_TAP);
    int failed = cmocka_run_group_tests_name("block crash", tests, NULL, NULL);
    unlink(path);
    unlink(cut);
    rmdir(dir);
    free(medium);
    free(scratch);
    return failed;
}
