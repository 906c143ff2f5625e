/* SPDX-License-Identifier: Apache-2.0
 *
 * Several threads on one image, as the workers of a queue are: each has pieces of its own, and all
 * clusters have pieces of each.
 */
// LAYERS: block base
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/log.h"
#include "block/block.h"
#include "block/image.h"
#include "support/test.h"

#define THREADS 4u
#define PIECE 4096u
#define DISK (4u << 20)
#define STEPS 400u

struct shape {
    const char *name;
    unsigned flags;
    struct block_create create;
};

static const struct shape shapes[] = {
    { "raw", 0, { .format = "raw" } },
    { "qcow2", 0, { .format = "qcow2" } },
    { "qcow2-512", 0, { .format = "qcow2", .cluster_size = 512 } },
    { "ephemeral", BLOCK_EPHEMERAL, { .format = "qcow2" } },
    { "vmdk", 0, { .format = "vmdk" } },
    { "vdi", 0, { .format = "vdi" } },
    { "vhd", 0, { .format = "vhd" } },
    { "vhdx", 0, { .format = "vhdx" } },
};

struct worker {
    struct block *b;
    unsigned number;
    uint8_t values[DISK / PIECE / THREADS];
    bool failed;
};

static bool holds(struct worker *w, unsigned n)
{
    uint8_t buf[PIECE];
    uint64_t at = ((uint64_t)n * THREADS + w->number) * PIECE;
    return block_read(w->b, at, buf, sizeof buf) == 0 && buf[0] == w->values[n] &&
           memcmp(buf, buf + 1, sizeof buf - 1) == 0;
}

static void *work(void *ctx)
{
    struct worker *w = ctx;
    uint64_t rng = 77 + w->number;
    uint8_t buf[PIECE];
    for (unsigned i = 0; i < STEPS && !w->failed; i++) {
        unsigned n = (unsigned)(test_random(&rng) % ARRAY_LEN(w->values));
        uint64_t at = ((uint64_t)n * THREADS + w->number) * PIECE;
        struct block_extent x;
        switch (test_random(&rng) % 8) {
        case 0 ... 3:
            w->values[n] = (uint8_t)(test_random(&rng) >> 8);
            memset(buf, w->values[n], sizeof buf);
            w->failed = block_write(w->b, at, buf, sizeof buf) != 0;
            break;
        case 4:
            w->values[n] = 0;
            w->failed = block_write_zeroes(w->b, at, PIECE, true) != 0;
            break;
        case 5:
            w->failed = i % 4 == 0 && block_flush(w->b) != 0;
            break;
        case 6:
            w->failed = block_map(w->b, at, DISK - at, &x) != 0;
            break;
        default:
            w->failed = !holds(w, n);
        }
    }
    for (unsigned n = 0; n < ARRAY_LEN(w->values) && !w->failed; n++) {
        w->failed = !holds(w, n);
    }
    return NULL;
}

static void threads(void **state)
{
    const struct shape *s = *state;
    char dir[64], path[96];
    struct err e = { "" };
    static struct worker workers[THREADS];
    pthread_t ids[THREADS];
    snprintf(dir, sizeof dir, "%s/sosia-threads-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/image", dir);
    struct block_create c = s->create;
    c.path = path;
    c.size = DISK;
    assert_int_equal(block_create(&c, &e), 0);
    struct block_options o = { .path = path, .format = c.format, .flags = s->flags };
    struct block *b;
    assert_int_equal(block_open(&b, &o, &e), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){ .b = b, .number = i };
        assert_int_equal(pthread_create(&ids[i], NULL, work, &workers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(ids[i], NULL), 0);
        assert_false(workers[i].failed);
    }
    assert_int_equal(block_flush(b), 0);
    struct block_check k = { 0 };
    if (s->flags == 0 && block_check(b, false, &k, &e) == 0) {
        assert_int_equal(k.corruptions, 0);
        assert_int_equal(k.leaks, 0);
    }
    block_close(b);
    unlink(path);
    rmdir(dir);
}

int main(void)
{
    struct CMUnitTest tests[ARRAY_LEN(shapes)];
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        tests[i] = (struct CMUnitTest){ .name = shapes[i].name,
                                        .test_func = threads,
                                        .initial_state = (void *)&shapes[i] };
    }
    log_set_level(LOG_ERR);
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests_name("block threads", tests, NULL, NULL);
}
