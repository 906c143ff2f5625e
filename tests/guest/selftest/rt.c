/* SPDX-License-Identifier: Apache-2.0 */
#include "rt.h"

#include <cpuid.h>
#include <stdarg.h>

#define O_RDONLY 0
#define MAP_PRIVATE 2
#define MAP_FIXED 0x10
#define MAP_ANONYMOUS 0x20
#ifndef SA_RESTORER
#define SA_RESTORER 0x04000000
#endif

static word *aux;
static unsigned tests, failures;

#ifdef __x86_64__
__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call start_c\n"
        ".globl restorer\nrestorer: mov $15, %eax\n syscall\n");

long sys(long nr, word a, word b, word c, word d, word e, word f)
{
    register word r10 __asm__("r10") = d;
    register word r8 __asm__("r8") = e;
    register word r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "+a"(nr), "+r"(r10), "+r"(r8), "+r"(r9)
                     : "D"(a), "S"(b), "d"(c)
                     : "rcx", "r11", "memory");
    return nr;
}
#else
__asm__(".globl _start\n_start: mov %esp, %eax\n and $-16, %esp\n sub $12, %esp\n push %eax\n"
        "call start_c\n"
        ".globl restorer\nrestorer: mov $173, %eax\n int $0x80\n");

long sys(long nr, word a, word b, word c, word d, word e, word f)
{
    word args[6] = { a, b, c, d, e, f };
    __asm__ volatile("push %%ebp; push %%ebx; mov (%%esi), %%ebx; mov 4(%%esi), %%ecx;"
                     "mov 8(%%esi), %%edx; mov 16(%%esi), %%edi; mov 20(%%esi), %%ebp;"
                     "mov 12(%%esi), %%esi; int $0x80; pop %%ebx; pop %%ebp"
                     : "+a"(nr), "=S"(a)
                     : "S"(args)
                     : "ecx", "edx", "edi", "memory");
    return nr;
}
#endif

void restorer(void);
int main(int args);
void start_c(word *stack);

void start_c(word *stack)
{
    word *at = stack + 1 + stack[0] + 1; /* argc, argv, NULL */
    while (*at++ != 0) {                 /* environment */
    }
    aux = at;
    quit(main((int)stack[0]));
}

void quit(int status)
{
    for (;;) {
        SYS1(__NR_exit_group, status);
    }
}

void *memset(void *p, int c, size_t n)
{
    void *at = p;
    __asm__ volatile("rep stosb" : "+D"(at), "+c"(n) : "a"(c) : "memory");
    return p;
}

void *memcpy(void *to, const void *from, size_t n)
{
    void *at = to;
    __asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(n) : : "memory");
    return to;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const uint8_t *x = a, *y = b;
    for (size_t i = 0; i < n; i++) {
        if (x[i] != y[i]) {
            return x[i] - y[i];
        }
    }
    return 0;
}

size_t strlen(const char *s)
{
    size_t n = 0;
    while (s[n] != '\0') {
        n++;
    }
    return n;
}

bool same(const char *a, const char *b)
{
    return strlen(a) == strlen(b) && memcmp(a, b, strlen(a)) == 0;
}

void *map(word at, size_t size, int prot)
{
    struct {
        word addr, len, prot, flags, fd, off;
    } a = { at, size, (word)prot, MAP_PRIVATE | MAP_ANONYMOUS | (at ? MAP_FIXED : 0), (word)-1, 0 };
#ifdef __x86_64__
    long r = sys(__NR_mmap, a.addr, a.len, a.prot, a.flags, a.fd, a.off);
#else
    long r = sys(__NR_mmap2, a.addr, a.len, a.prot, a.flags, a.fd, a.off);
#endif
    return r < 0 && r > -4096 ? NULL : (void *)r;
}

const void *auxv(word type)
{
    for (const word *a = aux; a[0] != 0; a += 2) {
        if (a[0] == type) {
            return (const void *)a[1];
        }
    }
    return NULL;
}

bool contains(const char *file, const char *text)
{
    static char buf[65536];
    size_t len = 0, want = strlen(text);
    int fd = (int)SYS3(__NR_open, file, O_RDONLY, 0);
    long n;
    while (fd >= 0 && len < sizeof buf &&
           (n = SYS3(__NR_read, fd, buf + len, sizeof buf - len)) > 0) {
        len += (size_t)n;
    }
    SYS1(__NR_close, fd);
    for (size_t i = 0; i + want <= len; i++) {
        if (memcmp(buf + i, text, want) == 0) {
            return true;
        }
    }
    return false;
}

/* -- Text -------------------------------------------------------------------------------------- */

struct line {
    char text[512];
    size_t len;
};

static void put(struct line *l, const char *s)
{
    for (; *s != '\0' && l->len < sizeof l->text; s++) {
        l->text[l->len++] = *s;
    }
}

static void put_number(struct line *l, uint64_t n, unsigned base, unsigned width)
{
    char digits[24];
    unsigned at = sizeof digits - 1, count = 0;
    digits[at] = '\0';
    do {
        /* No 64-bit division: that would want the compiler's library. */
        unsigned digit;
        if (base == 16) {
            digit = n & 15;
            n >>= 4;
        } else {
            digit = (uint32_t)n % 10;
            n = (uint32_t)n / 10;
        }
        digits[--at] = "0123456789abcdef"[digit];
    } while (++count < width || n != 0);
    put(l, digits + at);
}

static void format(struct line *l, const char *fmt, va_list ap)
{
    for (; *fmt != '\0'; fmt++) {
        if (*fmt != '%') {
            put(l, (char[]){ *fmt, '\0' });
            continue;
        }
        bool is_long = *++fmt == 'l';
        fmt += is_long;
        switch (*fmt) {
        case 's':
            put(l, va_arg(ap, const char *));
            break;
        case 'd': {
            int n = va_arg(ap, int);
            if (n < 0) {
                put(l, "-");
            }
            put_number(l, n < 0 ? 0u - (unsigned)n : (unsigned)n, 10, 1);
            break;
        }
        case 'u':
            put_number(l, va_arg(ap, unsigned), 10, 1);
            break;
        case 'x':
            put_number(l, is_long ? va_arg(ap, word) : va_arg(ap, unsigned), 16, 1);
            break;
        case 'X':
            put_number(l, va_arg(ap, uint64_t), 16, 16);
            break;
        }
    }
}

static void finish(struct line *l)
{
    put(l, "\n");
    SYS3(__NR_write, 1, l->text, l->len);
}

void say(const char *fmt, ...)
{
    struct line l = { .len = 0 };
    va_list ap;
    va_start(ap, fmt);
    format(&l, fmt, ap);
    va_end(ap);
    finish(&l);
}

void ok(bool good, const char *fmt, ...)
{
    struct line l = { .len = 0 };
    va_list ap;
    tests++;
    failures += !good;
    put(&l, good ? "ok " : "not ok ");
    put_number(&l, tests, 10, 1);
    put(&l, " - ");
    va_start(ap, fmt);
    format(&l, fmt, ap);
    va_end(ap);
    finish(&l);
    if (failures > 50) {
        say("selftest gives up");
        quit(98);
    }
}

void skip(const char *name, const char *why)
{
    tests++;
    say("ok %u - %s # SKIP %s", tests, name, why);
}

unsigned tests_done(void) { return tests; }
unsigned tests_failed(void) { return failures; }

/* -- Signals ----------------------------------------------------------------------------------- */

void on_signal(int sig, handler *fn, unsigned long flags)
{
    struct {
        handler *fn;
        unsigned long flags;
        void (*restorer)(void);
        uint64_t mask;
    } act = { fn, flags | SA_SIGINFO | SA_RESTORER, restorer, 0 };
    SYS4(__NR_rt_sigaction, sig, &act, 0, 8);
}

int wait_for(int pid)
{
    int status = 0;
    SYS4(__NR_wait4, pid, &status, 0, 0);
    return status;
}

/* -- Features ---------------------------------------------------------------------------------- */

static unsigned xcr0(void)
{
    unsigned a, d;
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return a;
}

bool has(const char *feature)
{
    static const struct {
        const char *name;
        unsigned leaf, reg, bit;
        unsigned xcr0;
    } list[] = {
        { "tsc", 1, 3, 4, 0 },     { "cx8", 1, 3, 8, 0 },          { "sep", 1, 3, 11, 0 },
        { "cmov", 1, 3, 15, 0 },   { "mmx", 1, 3, 23, 0 },         { "fxsr", 1, 3, 24, 0 },
        { "sse", 1, 3, 25, 0 },    { "sse2", 1, 3, 26, 0 },        { "sse3", 1, 2, 0, 0 },
        { "pclmul", 1, 2, 1, 0 },  { "ssse3", 1, 2, 9, 0 },        { "fma", 1, 2, 12, 6 },
        { "cx16", 1, 2, 13, 0 },   { "sse4_1", 1, 2, 19, 0 },      { "sse4_2", 1, 2, 20, 0 },
        { "movbe", 1, 2, 22, 0 },  { "popcnt", 1, 2, 23, 0 },      { "aes", 1, 2, 25, 0 },
        { "avx", 1, 2, 28, 6 },    { "f16c", 1, 2, 29, 6 },        { "bmi1", 7, 1, 3, 0 },
        { "avx2", 7, 1, 5, 6 },    { "bmi2", 7, 1, 8, 0 },         { "adx", 7, 1, 19, 0 },
        { "sha_ni", 7, 1, 29, 0 }, { "abm", 0x80000001, 2, 5, 0 },
    };
    unsigned r[4], max;
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        if (!same(list[i].name, feature)) {
            continue;
        }
        __cpuid(list[i].leaf & 0x80000000, max, r[1], r[2], r[3]);
        if (max < list[i].leaf) {
            return false;
        }
        __cpuid_count(list[i].leaf, 0, r[0], r[1], r[2], r[3]);
        if (!(r[list[i].reg] >> list[i].bit & 1)) {
            return false;
        }
        if (list[i].xcr0 != 0) {
            __cpuid(1, r[0], r[1], r[2], r[3]);
            return (r[2] >> 27 & 1) && (xcr0() & list[i].xcr0) == list[i].xcr0;
        }
        return true;
    }
    say("# selftest: no feature named %s", feature);
    quit(99);
}

uint64_t rnd(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

uint64_t hash(uint64_t h, const void *data, size_t len)
{
    const uint8_t *p = data;
    for (size_t i = 0; i < len; i++) {
        h = (h ^ p[i]) * 0x100000001b3ull;
    }
    return h;
}
