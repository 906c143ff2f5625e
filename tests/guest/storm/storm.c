/* SPDX-License-Identifier: Apache-2.0
 *
 * For a guest: everything at once that a translator has to follow. Processes that fork and execute
 * themselves, map and unmap memory under other processes' feet, change protections, and run code
 * that they have just written, rewritten in place, or moved; with results that can be checked.
 *
 * Usage: storm SECONDS WORKERS        (prints "storm: N rounds, 0 wrong")
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u

static const char *self;

static uint32_t next(uint32_t *x)
{
    *x = *x * 1664525u + 1013904223u;
    return *x >> 8;
}

typedef uint32_t code_fn(uint32_t);

/* mov eax, edi; then n times: xor eax, k or add eax, k; ret. Returns what it does to seed. */
static uint32_t write_code(uint8_t *p, uint32_t *x, uint32_t seed)
{
    unsigned n = next(x) % 40 + 1;
    *p++ = 0x89;
    *p++ = 0xf8;
    for (unsigned i = 0; i < n; i++) {
        uint32_t k = next(x);
        bool add = next(x) & 1;
        *p++ = add ? 0x05 : 0x35;
        memcpy(p, &k, 4);
        p += 4;
        seed = add ? seed + k : seed ^ k;
    }
    *p = 0xc3;
    return seed;
}

/* Code in a page that is written while it is executable, and in one that never is both. */
static unsigned jit(uint32_t *x)
{
    unsigned wrong = 0;
    uint8_t *open = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint8_t *strict = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (unsigned i = 0; i < 50; i++) {
        uint32_t seed = next(x);
        uint8_t *at = open + next(x) % (2 * PAGE - 300); /* across the pages' border, too */
        uint32_t want = write_code(at, x, seed);
        wrong += ((code_fn *)(uintptr_t)at)(seed) != want;
    }
    for (unsigned i = 0; i < 5; i++) {
        uint32_t seed = next(x);
        mprotect(strict, PAGE, PROT_READ | PROT_WRITE);
        uint32_t want = write_code(strict + 64 * i, x, seed);
        mprotect(strict, PAGE, PROT_READ | PROT_EXEC);
        wrong += ((code_fn *)(uintptr_t)(strict + 64 * i))(seed) != want;
    }
    /* The same code, elsewhere; other code where it was. */
    uint32_t seed = next(x);
    uint32_t want = write_code(open, x, seed);
    uint8_t *moved = mremap(open, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
                            strict + 64 * PAGE);
    if (moved != MAP_FAILED) {
        wrong += ((code_fn *)(uintptr_t)moved)(seed) != want;
        open = moved;
    }
    munmap(open, 2 * PAGE);
    munmap(strict, PAGE);
    return wrong;
}

static unsigned maps(uint32_t *x)
{
    unsigned wrong = 0;
    size_t pages = next(x) % 200 + 1;
    uint8_t *p = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                      0);
    for (size_t i = 0; i < pages; i++)
        memset(p + i * PAGE, (int)i, 64);
    size_t hole = next(x) % pages;
    munmap(p + hole * PAGE, PAGE);
    mprotect(p, hole * PAGE, PROT_READ);
    for (size_t i = 0; i < pages; i++)
        wrong += i != hole && p[i * PAGE + 63] != (uint8_t)i;
    munmap(p, pages * PAGE);
    return wrong;
}

/* A child with a copy of our memory, which it changes; ours must stay. */
static unsigned forks(uint32_t *x)
{
    static volatile uint32_t shared_page[PAGE];
    uint32_t mark = next(x);
    int status = 0;
    shared_page[17] = mark;
    pid_t pid = fork();
    if (pid == 0) {
        shared_page[17] = mark + 1;
        if (next(x) % 4 == 0)
            execl(self, self, "child", NULL);
        _exit(shared_page[17] == mark + 1 ? 42 : 1);
    }
    waitpid(pid, &status, 0);
    return !(WIFEXITED(status) && WEXITSTATUS(status) == 42) + (shared_page[17] != mark);
}

static atomic_uint faults;
static uint8_t *guarded;

static void on_fault(int n, siginfo_t *info, void *context)
{
    (void)n;
    (void)info;
    (void)context;
    atomic_fetch_add(&faults, 1);
    mprotect(guarded, PAGE, PROT_READ | PROT_WRITE);
}

/* A store that faults, is let through, and must have happened exactly once. */
static unsigned signals(uint32_t *x)
{
    struct sigaction act = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
    unsigned before = atomic_load(&faults);
    sigaction(SIGSEGV, &act, NULL);
    guarded = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    volatile uint64_t *cell = (volatile uint64_t *)(void *)(guarded + next(x) % 500 * 8);
    *cell += 3;
    unsigned wrong = *cell != 3 || atomic_load(&faults) != before + 1;
    munmap(guarded, PAGE);
    return wrong;
}

struct team {
    uint8_t *code;
    atomic_int go;
    uint32_t seed, want;
    atomic_uint wrong;
};

static void *runs_code(void *arg)
{
    struct team *t = arg;
    while (atomic_load(&t->go) == 0) {
    }
    if (((code_fn *)(uintptr_t)t->code)(t->seed) != t->want)
        atomic_fetch_add(&t->wrong, 1);
    return NULL;
}

/* Code written by one thread for another, which has run other code there before. */
static unsigned threads(uint32_t *x)
{
    struct team t = { .seed = next(x) };
    t.code = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                  0);
    for (unsigned i = 0; i < 4; i++) {
        pthread_t thread;
        atomic_store(&t.go, 0);
        pthread_create(&thread, NULL, runs_code, &t);
        t.want = write_code(t.code, x, t.seed);
        atomic_store(&t.go, 1);
        pthread_join(thread, NULL);
    }
    munmap(t.code, PAGE);
    return atomic_load(&t.wrong);
}

static int work(uint32_t seed, double seconds, int out)
{
    static unsigned (*const storms[])(uint32_t *) = { jit, maps, forks, signals, threads };
    struct timespec begin, now;
    uint64_t result[2] = { 0, 0 };
    clock_gettime(CLOCK_MONOTONIC, &begin);
    do {
        result[1] += storms[next(&seed) % 5](&seed);
        result[0]++;
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((double)(now.tv_sec - begin.tv_sec) + (double)(now.tv_nsec - begin.tv_nsec) / 1e9 <
             seconds);
    return write(out, result, sizeof result) == (ssize_t)sizeof result ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "child") == 0)
        return 42;
    if (argc != 3)
        return 2;
    self = argv[0];
    double seconds = atof(argv[1]);
    int workers = atoi(argv[2]);
    int ends[2];
    uint64_t total[2] = { 0, 0 }, one[2];
    if (pipe(ends) < 0)
        return 1;
    for (int i = 0; i < workers; i++) {
        if (fork() == 0)
            _exit(work((uint32_t)i * 7919u + 1, seconds, ends[1]));
    }
    for (int i = 0; i < workers; i++) {
        int status;
        wait(&status);
        total[1] += status != 0;
        if (status == 0 && read(ends[0], one, sizeof one) == (ssize_t)sizeof one) {
            total[0] += one[0];
            total[1] += one[1];
        }
    }
    printf("storm: %llu rounds, %llu wrong\n", (unsigned long long)total[0],
           (unsigned long long)total[1]);
    return total[1] != 0;
}
