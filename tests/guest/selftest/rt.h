/* SPDX-License-Identifier: Apache-2.0
 *
 * What a program needs to live without a C library: system calls, text, TAP. So that one source
 * makes 64-bit and 32-bit static programs wherever there is a compiler.
 */
#ifndef SELFTEST_RT_H
#define SELFTEST_RT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <asm/unistd.h>
#include <linux/signal.h>
#include <linux/time.h>
#include <asm/sigcontext.h>
#include <asm/ucontext.h>

typedef unsigned long word;

long sys(long nr, word a, word b, word c, word d, word e, word f);
#define SYS0(n) sys(n, 0, 0, 0, 0, 0, 0)
#define SYS1(n, a) sys(n, (word)(a), 0, 0, 0, 0, 0)
#define SYS2(n, a, b) sys(n, (word)(a), (word)(b), 0, 0, 0, 0)
#define SYS3(n, a, b, c) sys(n, (word)(a), (word)(b), (word)(c), 0, 0, 0)
#define SYS4(n, a, b, c, d) sys(n, (word)(a), (word)(b), (word)(c), (word)(d), 0, 0)

void say(const char *fmt, ...); /* %s %d %u %x %lx (word) %X (uint64_t) */
_Noreturn void quit(int status);
void *memset(void *p, int c, size_t n);
void *memcpy(void *to, const void *from, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);
bool same(const char *a, const char *b);
void *map(word at, size_t size, int prot); /* at 0: anywhere; NULL: no */
const void *auxv(word type);               /* value as a pointer */
bool contains(const char *file, const char *text); /* a /proc file has this text */

/* TAP */
void ok(bool good, const char *fmt, ...);
void skip(const char *name, const char *why);

/* Signals */
typedef void handler(int sig, siginfo_t *info, void *ucontext);
void on_signal(int sig, handler *fn, unsigned long flags);
int wait_for(int pid); /* status word */

/* CPU features, as this processor announces them */
bool has(const char *feature);

/* A stream of numbers that is the same everywhere */
uint64_t rnd(uint64_t *state);
uint64_t hash(uint64_t h, const void *data, size_t len);
#define HASH0 0xcbf29ce484222325ull

/* Groups of tests; main.c has the order */
void test_integer(void);
void test_x87(void);
void test_simd(void);
void test_signals(void);
void test_traps(void);
void test_ptrace(void);
void test_time(void);
void test_threads(void);
void test_ldt(void);
void test_vm86(void);

#endif
