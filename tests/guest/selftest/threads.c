/* SPDX-License-Identifier: Apache-2.0
 *
 * Threads on shared memory: locked and naturally atomic operations.
 */
#include "rt.h"

#include <asm/mman.h>

#define CLONE_VM 0x100
#define CLONE_FS 0x200
#define CLONE_FILES 0x400
#define THREADS 4
#define ROUNDS 20000u

static struct {
    volatile uint32_t add, inc, xadd, cas, lock, plain, bits[64];
    volatile uint64_t wide;
    uint8_t pad[60];
    volatile uint32_t split; /* across a cache line, made so below */
} shared __attribute__((aligned(64)));

static volatile uint32_t *split_word(void)
{
    return (volatile uint32_t *)(((word)&shared.pad[0] & ~63ul) + 64 - 2);
}

static int work(void)
{
    volatile uint32_t *split = split_word();
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint32_t one = 1, expect, next;
        __asm__ volatile("lock addl $3, %0" : "+m"(shared.add) : : "cc");
        __asm__ volatile("lock incl %0" : "+m"(shared.inc) : : "cc");
        __asm__ volatile("lock xaddl %1, %0" : "+m"(shared.xadd), "+r"(one) : : "cc");
        if (i % 16 == 0) {
            __asm__ volatile("lock incl %0" : "+m"(*split) : : "cc");
        }
        uint8_t good;
        do {
            expect = shared.cas;
            next = expect + 7;
            __asm__ volatile("lock cmpxchgl %3, %0; sete %1"
                             : "+m"(shared.cas), "=q"(good), "+a"(expect)
                             : "r"(next)
                             : "cc");
        } while (!good);
        uint64_t old = shared.wide, want;
        do {
            want = old + 0x100000001ull;
            uint32_t lo = (uint32_t)old, hi = (uint32_t)(old >> 32);
            __asm__ volatile("lock cmpxchg8b %0; sete %1"
                             : "+m"(shared.wide), "=q"(good), "+a"(lo), "+d"(hi)
                             : "b"((uint32_t)want), "c"((uint32_t)(want >> 32))
                             : "cc");
            old = lo | (uint64_t)hi << 32;
        } while (!good);
        /* A spin lock by XCHG, which locks by itself. */
        uint32_t held = 1;
        for (unsigned spins = 0;; spins++) {
            held = 1;
            __asm__ volatile("xchgl %1, %0" : "+m"(shared.lock), "+r"(held));
            if (!held) {
                break;
            }
            if (spins > 100) {
                SYS0(__NR_sched_yield);
            }
        }
        shared.plain = shared.plain + 1;
        shared.lock = 0;
        __asm__ volatile("lock btcl %1, %0" : "+m"(shared.bits[0]) : "r"(i % 32) : "cc", "memory");
    }
    return 0;
}

/* A new thread begins with a copy of our registers and an empty stack: it must not return. */
static int start(void)
{
    uint8_t *stack = map(0, 65536, PROT_READ | PROT_WRITE);
    word *top = (word *)(stack + 65536 - 64);
    top[0] = (word)work;
    long r;
#ifdef __x86_64__
    register long r10 __asm__("r10") = 0;
    register long r8 __asm__("r8") = 0;
    __asm__ volatile("syscall; test %%rax, %%rax; jnz 1f; mov (%%rsp), %%rax; call *%%rax;"
                     "mov $60, %%eax; xor %%edi, %%edi; syscall\n1:"
                     : "=a"(r)
                     : "0"((long)__NR_clone),
                       "D"((long)(CLONE_VM | CLONE_FS | CLONE_FILES | SIGCHLD)), "S"(top), "d"(0l),
                       "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
#else
    __asm__ volatile("int $0x80; test %%eax, %%eax; jnz 1f; mov (%%esp), %%eax; call *%%eax;"
                     "mov $1, %%eax; xor %%ebx, %%ebx; int $0x80\n1:"
                     : "=a"(r)
                     : "0"(__NR_clone), "b"(CLONE_VM | CLONE_FS | CLONE_FILES | SIGCHLD), "c"(top),
                       "d"(0), "S"(0), "D"(0)
                     : "memory");
#endif
    return (int)r;
}

void test_threads(void)
{
    int pids[THREADS];
    bool good = true;
    for (int i = 0; i < THREADS; i++) {
        pids[i] = start();
        good = good && pids[i] > 0;
    }
    for (int i = 0; i < THREADS; i++) {
        if (pids[i] > 0) {
            good = wait_for(pids[i]) == 0 && good;
        }
    }
    const uint32_t n = THREADS * ROUNDS;
    ok(good, "threads start and end");
    ok(shared.add == 3 * n && shared.inc == n, "LOCK ADD and INC among threads");
    ok(shared.xadd == n, "LOCK XADD among threads");
    ok(shared.cas == 7 * n, "LOCK CMPXCHG among threads");
    ok(shared.wide == n * 0x100000001ull, "LOCK CMPXCHG8B among threads");
    ok(shared.plain == n, "a lock by XCHG");
    ok(shared.bits[0] == 0, "LOCK BTC among threads");
    ok(*split_word() == n / 16, "LOCK across a cache line");
}
