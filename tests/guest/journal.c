/* SPDX-License-Identifier: Apache-2.0
 *
 * A guest that keeps a journal: each record is a file of its own, and once record n and its
 * directory have been fsynced, "synced n" goes to the console. At the start it says what it finds:
 * "holds n", the last of the records that are there without a gap, with their contents as written.
 * A child writes without ever syncing, so that more is under way than the journal.
 *
 * Usage: journal DIRECTORY
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RECORD_MAX 40960u
#define PER_DIR 32u
#define DIRS_KEPT 24u /* the oldest are deleted: that, too, is to survive */
#define NOISE_BYTES (1u << 20)

struct record {
    uint64_t number;
    uint64_t words; /* of what follows */
    uint64_t data[RECORD_MAX / 8];
};

static const char *top;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t mix(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdull;
    x ^= x >> 33;
    return x * 0xc4ceb9fe1a85ec53ull;
}

static size_t make_record(struct record *r, uint64_t number)
{
    r->number = number;
    r->words = 1 + mix(number) % (RECORD_MAX / 8);
    for (uint64_t i = 0; i < r->words; i++) {
        r->data[i] = mix(number * RECORD_MAX + i);
    }
    return (2 + r->words) * 8;
}

static void dir_name(char *path, size_t size, uint64_t dir)
{
    snprintf(path, size, "%s/d%" PRIu64, top, dir);
}

static void record_name(char *path, size_t size, uint64_t number)
{
    snprintf(path, size, "%s/d%" PRIu64 "/r%" PRIu64, top, number / PER_DIR, number);
}

static int holds(uint64_t number)
{
    static struct record want, is;
    char path[256];
    record_name(path, sizeof path, number);
    int fd = open(path, O_RDONLY);
    if (fd < 0) {
        return 0;
    }
    size_t len = make_record(&want, number);
    ssize_t got = read(fd, &is, sizeof is);
    close(fd);
    return got == (ssize_t)len && memcmp(&want, &is, len) == 0;
}

static void sync_path(const char *path)
{
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fsync(fd) < 0) {
        die(path);
    }
    close(fd);
}

static void write_record(uint64_t number)
{
    static struct record r;
    char path[256];
    if (number % PER_DIR == 0) {
        dir_name(path, sizeof path, number / PER_DIR);
        if (mkdir(path, 0777) < 0 && access(path, W_OK) < 0) {
            die(path);
        }
        sync_path(top);
    }
    record_name(path, sizeof path, number);
    size_t len = make_record(&r, number);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (fd < 0 || write(fd, &r, len) != (ssize_t)len || fsync(fd) < 0) {
        die(path);
    }
    close(fd);
    dir_name(path, sizeof path, number / PER_DIR);
    sync_path(path);
}

static void delete_dir(uint64_t dir)
{
    char path[256];
    for (uint64_t n = dir * PER_DIR; n < (dir + 1) * PER_DIR; n++) {
        record_name(path, sizeof path, n);
        unlink(path);
    }
    dir_name(path, sizeof path, dir);
    rmdir(path);
}

static void noise(void)
{
    static uint64_t data[NOISE_BYTES / 8];
    char path[256];
    for (uint64_t n = 0;; n++) {
        snprintf(path, sizeof path, "%s/noise%" PRIu64, top, n % 8);
        memset(data, (int)n, sizeof data);
        int fd = open(path, O_WRONLY | O_CREAT | (n % 16 < 8 ? O_TRUNC : 0), 0666);
        if (fd < 0 || write(fd, data, sizeof data) < 0) {
            die(path);
        }
        close(fd);
        usleep(5000);
    }
}

/* The number of the first record that is to be there. Directories go in order and from their first
 * file on: one without it is one whose deletion was under way at the end of the last life. */
static uint64_t first_record(void)
{
    char path[256];
    static const uint64_t far = 1u << 12;
    for (uint64_t dir = 0; dir < far; dir++) {
        dir_name(path, sizeof path, dir);
        if (access(path, F_OK) == 0) {
            record_name(path, sizeof path, dir * PER_DIR);
            if (access(path, F_OK) == 0) {
                return dir * PER_DIR;
            }
            delete_dir(dir);
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        return 1;
    }
    top = argv[1];
    uint64_t next = first_record();
    while (holds(next)) {
        next++;
    }
    /* The last life may have ended before it deleted: later directories are not to go before. */
    for (uint64_t dir = 0; dir + DIRS_KEPT < next / PER_DIR; dir++) {
        delete_dir(dir);
    }
    printf("holds %" PRIu64 "\n", next);
    fflush(stdout);
    if (fork() == 0) {
        noise();
    }
    for (uint64_t number = next;; number++) {
        write_record(number);
        printf("synced %" PRIu64 "\n", number + 1);
        fflush(stdout);
        if (number % PER_DIR == 0 && number / PER_DIR >= DIRS_KEPT) {
            delete_dir(number / PER_DIR - DIRS_KEPT);
        }
    }
}
