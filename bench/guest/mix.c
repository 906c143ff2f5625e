/* SPDX-License-Identifier: Apache-2.0
 *
 * The benchmark mix: one static program, run natively and as /init of a guest. Prints one line per
 * case, "bench NAME NANOSECONDS CHECK": the best of three runs (two where a run is long), and a
 * checksum that must be the same everywhere.
 *
 * As process 1 it powers the machine off at the end. Arguments: names of cases to run; default all.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *self_path = "/proc/self/exe";

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t rng_state = 1;
static uint32_t rng(void)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return (uint32_t)(rng_state >> 32);
}

/* -- Integer, memory and floating-point kernels ------------------------------------------------- */
static uint64_t bench_crc(void)
{
    static uint32_t table[256];
    static uint8_t data[1 << 20];
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++)
            c = c & 1 ? c >> 1 ^ 0xedb88320u : c >> 1;
        table[i] = c;
    }
    rng_state = 42;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)rng();
    uint32_t c = ~0u;
    for (int r = 0; r < 40; r++)
        for (size_t i = 0; i < sizeof data; i++)
            c = table[(c ^ data[i]) & 0xff] ^ c >> 8;
    return c;
}

static uint64_t bench_sieve(void)
{
    static uint8_t composite[1 << 21];
    uint64_t count = 0;
    for (int r = 0; r < 6; r++) {
        memset(composite, 0, sizeof composite);
        for (size_t i = 2; i < sizeof composite; i++) {
            if (composite[i])
                continue;
            count++;
            for (size_t j = i * 2; j < sizeof composite; j += i)
                composite[j] = 1;
        }
    }
    return count;
}

static uint64_t bench_double(void)
{
    double x = 0.5;
    double s = 0;
    for (int i = 0; i < 40000000; i++) {
        x = x * 1.0000001 + 1e-9;
        s += x - 0.25;
    }
    return (uint64_t)(s * 1000);
}

#define MAT 256
static uint64_t bench_matmul(void)
{
    static double a[MAT][MAT], b[MAT][MAT], c[MAT][MAT];
    for (int i = 0; i < MAT; i++)
        for (int j = 0; j < MAT; j++) {
            a[i][j] = i * 0.5 + j;
            b[i][j] = i - j * 0.25;
        }
    for (int r = 0; r < 3; r++)
        for (int i = 0; i < MAT; i++)
            for (int j = 0; j < MAT; j++) {
                double s = 0;
                for (int k = 0; k < MAT; k++)
                    s += a[i][k] * b[k][j];
                c[i][j] = s + r;
            }
    double t = 0;
    for (int i = 0; i < MAT; i++)
        t += c[i][i];
    return (uint64_t)(int64_t)t;
}

struct node {
    struct node *left, *right;
    uint32_t key;
};

static uint64_t bench_tree(void)
{
    enum { N = 1 << 17 };
    struct node *pool = malloc(N * sizeof *pool);
    struct node *root = NULL;
    uint64_t sum = 0;
    rng_state = 7;
    for (int i = 0; i < N; i++) {
        pool[i] = (struct node){ NULL, NULL, rng() };
        struct node **p = &root;
        while (*p)
            p = pool[i].key < (*p)->key ? &(*p)->left : &(*p)->right;
        *p = &pool[i];
    }
    rng_state = 9;
    for (int i = 0; i < N; i++) {
        uint32_t key = rng();
        for (struct node *n = root; n; n = key < n->key ? n->left : n->right)
            sum += n->key & 1;
    }
    free(pool);
    return sum;
}

static int compare_int(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

static uint64_t bench_qsort(void)
{
    enum { N = 400000 };
    int *v = malloc(N * sizeof *v);
    rng_state = 3;
    for (int i = 0; i < N; i++)
        v[i] = (int)rng();
    qsort(v, N, sizeof *v, compare_int);
    uint64_t s = (uint32_t)v[0] ^ (uint64_t)(uint32_t)v[N / 2] << 20;
    free(v);
    return s;
}

static const uint32_t sha_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};
#define ROR(x, n) ((x) >> (n) | (x) << (32 - (n)))

static void sha_block(uint32_t h[8], const uint8_t *p)
{
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t a = ROR(w[i - 15], 7) ^ ROR(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t b = ROR(w[i - 2], 17) ^ ROR(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + a + w[i - 7] + b;
    }
    memcpy(s, h, sizeof s);
    for (int i = 0; i < 64; i++) {
        uint32_t e1 = ROR(s[4], 6) ^ ROR(s[4], 11) ^ ROR(s[4], 25);
        uint32_t t1 = s[7] + e1 + ((s[4] & s[5]) ^ (~s[4] & s[6])) + sha_k[i] + w[i];
        uint32_t e0 = ROR(s[0], 2) ^ ROR(s[0], 13) ^ ROR(s[0], 22);
        uint32_t t2 = e0 + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        s[7] = s[6], s[6] = s[5], s[5] = s[4], s[4] = s[3] + t1;
        s[3] = s[2], s[2] = s[1], s[1] = s[0], s[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++)
        h[i] += s[i];
}

static uint64_t sha_run(int blocks)
{
    uint32_t h[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
    uint8_t data[64];
    for (int i = 0; i < 64; i++)
        data[i] = (uint8_t)(i * 7);
    for (int i = 0; i < blocks; i++)
        sha_block(h, data);
    return (uint64_t)h[0] << 32 | h[7];
}

static uint64_t bench_sha256(void) { return sha_run(200000); }

/* A small stack machine with computed gotos. */
static uint64_t bench_bytecode(void)
{
    static const void *const ops[] = { &&inc, &&add, &&xor_, &&shift, &&swap, &&loop };
    static const uint8_t code[] = { 0, 1, 2, 4, 0, 3, 1, 4, 2, 0, 3, 4, 1, 0, 2, 5 };
    uint64_t a = 1, b = 2, n = 0;
    const uint8_t *pc = code;
#define NEXT goto *ops[*pc++]
    NEXT;
inc:
    a++;
    NEXT;
add:
    a += b;
    NEXT;
xor_:
    b ^= a;
    NEXT;
shift:
    a = a << 1 | a >> 63;
    NEXT;
swap: {
    uint64_t t = a;
    a = b;
    b = t;
    NEXT;
}
loop:
    if (++n < 2500000) {
        pc = code;
        NEXT;
    }
    return a ^ b;
}

static __attribute__((noinline)) uint64_t fib(unsigned n)
{
    if (n < 2)
        return n;
    uint64_t a = fib(n - 1);
    __asm__ volatile("" : "+r"(a));
    return a + fib(n - 2);
}
static uint64_t bench_fib(void) { return fib(34); }

static uint64_t bench_memcpy(void)
{
    enum { SIZE = 8 << 20 };
    char *a = malloc(SIZE), *b = malloc(SIZE);
    memset(a, 5, SIZE);
    memset(b, 6, SIZE);
    for (int i = 0; i < 25; i++) {
        memcpy(b, a, SIZE);
        a[i] ^= b[i + 1];
    }
    uint64_t s = (uint64_t)b[3] + (uint64_t)a[7];
    free(a);
    free(b);
    return s;
}

static uint64_t bench_chase(void)
{
    enum { N = 1 << 20 };
    uint32_t *next = malloc(N * sizeof *next);
    for (uint32_t i = 0; i < N; i++)
        next[i] = i;
    rng_state = 11;
    for (uint32_t i = N - 1; i > 0; i--) {
        uint32_t j = rng() % i;
        uint32_t t = next[i];
        next[i] = next[j];
        next[j] = t;
    }
    uint32_t p = 0;
    for (int i = 0; i < 5000000; i++)
        p = next[p];
    free(next);
    return p;
}

/* -- Kernel paths -------------------------------------------------------------------------------------- */
static uint64_t bench_getppid(void)
{
    for (int i = 0; i < 300000; i++)
        syscall(SYS_getppid);
    return 0;
}

static uint64_t bench_stat(void)
{
    struct stat st;
    uint64_t s = 0;
    for (int i = 0; i < 50000; i++)
        s += (uint64_t)stat("/proc/self/status", &st);
    return s;
}

static uint64_t spawn(int exec)
{
    uint64_t s = 0;
    for (int i = 0; i < 300; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            if (exec)
                execl(self_path, "mix", "--exit", (char *)NULL);
            _exit(1);
        }
        int status;
        waitpid(pid, &status, 0);
        s += (uint64_t)WEXITSTATUS(status);
    }
    return s;
}
static uint64_t bench_fork(void) { return spawn(0); }
static uint64_t bench_exec(void) { return spawn(1); }

static uint64_t bench_touch(void)
{
    enum { SIZE = 32 << 20 };
    uint64_t s = 0;
    for (int r = 0; r < 4; r++) {
        volatile char *p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        madvise((void *)(uintptr_t)p, SIZE, MADV_NOHUGEPAGE);
        for (size_t i = 0; i < SIZE; i += 4096) {
            p[i] = 1;
            s += (uint64_t)p[i];
        }
        munmap((void *)(uintptr_t)p, SIZE);
    }
    return s;
}

static uint64_t bench_pipe(void)
{
    int a[2], b[2];
    char c = 1;
    if (pipe(a) || pipe(b))
        return 1;
    pid_t pid = fork();
    if (pid == 0) {
        while (read(a[0], &c, 1) == 1 && write(b[1], &c, 1) == 1 && c != 0)
            ;
        _exit(0);
    }
    uint64_t s = 0;
    for (int i = 20000; i-- > 0;) {
        c = i == 0 ? 0 : 1;
        if (write(a[1], &c, 1) != 1 || read(b[0], &c, 1) != 1)
            break;
        s++;
    }
    waitpid(pid, NULL, 0);
    close(a[0]), close(a[1]), close(b[0]), close(b[1]);
    return s;
}

static void *thread_nop(void *arg) { return arg; }
static uint64_t bench_thread(void)
{
    for (int i = 0; i < 3000; i++) {
        pthread_t t;
        if (pthread_create(&t, NULL, thread_nop, NULL) == 0)
            pthread_join(t, NULL);
    }
    return 0;
}

static void *thread_sha(void *arg)
{
    *(uint64_t *)arg = sha_run(150000);
    return NULL;
}
static uint64_t bench_sha2(void)
{
    pthread_t t[2];
    uint64_t r[2] = { 0, 0 };
    for (int i = 0; i < 2; i++)
        pthread_create(&t[i], NULL, thread_sha, &r[i]);
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
    return r[0] ^ r[1];
}

static const struct {
    const char *name;
    uint64_t (*run)(void);
} cases[] = {
    { "crc", bench_crc },       { "sieve", bench_sieve },     { "double", bench_double },
    { "matmul", bench_matmul }, { "tree", bench_tree },       { "qsort", bench_qsort },
    { "sha256", bench_sha256 }, { "bytecode", bench_bytecode }, { "fib", bench_fib },
    { "memcpy", bench_memcpy }, { "chase", bench_chase },     { "getppid", bench_getppid },
    { "stat", bench_stat },     { "fork", bench_fork },       { "exec", bench_exec },
    { "touch", bench_touch },   { "pipe", bench_pipe },       { "thread", bench_thread },
    { "sha256x2", bench_sha2 },
};

static int wanted(int argc, char **argv, const char *name)
{
    if (argc < 2)
        return 1;
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return 1;
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--exit") == 0)
        return 3;
    int init = getpid() == 1;
    if (init) {
        mkdir("/proc", 0755);
        mkdir("/dev", 0755);
        mount("proc", "/proc", "proc", 0, NULL);
        mount("dev", "/dev", "devtmpfs", 0, NULL);
        int fd = open("/dev/console", O_RDWR);
        if (fd >= 0) {
            dup2(fd, 0);
            dup2(fd, 1);
            dup2(fd, 2);
        }
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("\n"); /* the kernel may be in the middle of a line */
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (!wanted(argc, argv, cases[i].name))
            continue;
        uint64_t best = UINT64_MAX, check = 0, total = 0;
        for (int r = 0; r < 3 && (r == 0 || total < 4000000000u); r++) {
            uint64_t t = now_ns();
            check = cases[i].run();
            t = now_ns() - t;
            total += t;
            best = t < best ? t : best;
        }
        printf("bench %s %llu %llx\n", cases[i].name, (unsigned long long)best, (unsigned long long)check);
    }
    printf("bench end 0 0\n");
    if (init) {
        fflush(stdout);
        reboot(RB_POWER_OFF);
    }
    return 0;
}
