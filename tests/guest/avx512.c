/* SPDX-License-Identifier: Apache-2.0
 *
 * AVX-512 as a Linux program sees it: libc's string functions up to the edge of a page, masked
 * accesses and gathers beyond it, and registers that must survive other threads and signals.
 * Prints "avx512: N checks, M wrong".
 */
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096

static unsigned checks, wrong;
static uint8_t *page;     /* readable and writable; behind it one that is not there */
static uint8_t *volatile fault_at;
static volatile int faults;

static void check(int good, const char *what, long n)
{
    checks++;
    if (!good && wrong++ < 10)
        printf("wrong: %s %ld\n", what, n);
}

static void close_second(void) { mprotect(page + PAGE, PAGE, PROT_NONE); }

/* Makes the second page accessible, so that what faulted goes on. */
static void on_fault(int sig, siginfo_t *info, void *context)
{
    (void)sig, (void)context;
    faults++;
    fault_at = info->si_addr;
    mprotect(page + PAGE, PAGE, PROT_READ | PROT_WRITE);
}

/* -- libc picks its functions for this processor. */

static void strings(void)
{
    static uint8_t copy[PAGE];
    memset(page, 'a', PAGE);
    for (unsigned n = 1; n < 300; n++) {
        uint8_t *s = page + PAGE - n;
        s[n - 1] = 0;
        check(strlen((char *)s) == n - 1, "strlen", n);
        check(memchr(s, 0, n) == s + n - 1, "memchr", n);
        check(strchr((char *)s, 'b') == NULL, "strchr", n);
        memset(copy, 'z', sizeof copy);
        memcpy(copy + n % 64, s, n);
        check(memcmp(copy + n % 64, s, n) == 0 && copy[n % 64 + n] == 'z', "memcpy", n);
        copy[n % 64 + n / 2] = 'b';
        check(memcmp(copy + n % 64, s, n) != 0, "memcmp", n);
        memset(s, 'c', n);
        check(s[0] == 'c' && s[n - 1] == 'c' && s[-1] == 'a', "memset", n);
        memset(s, 'a', n);
    }
}

/* -- Opmasks at the edge of a page */

static void masked(void)
{
    uint8_t out[64];
    close_second();
    for (unsigned n = 1; n < 64; n++) { /* n bytes are there, and those are asked for */
        uint64_t k = (1ull << n) - 1;
        uint8_t *s = page + PAGE - n;
        faults = 0;
        memset(page + PAGE - 64, (int)n, 64);
        __asm__ volatile("kmovq %1, %%k1; vmovdqu8 (%0), %%zmm1%{%%k1%}%{z%};"
                         "vmovdqu8 %%zmm1, (%2);"
                         "vpaddb %%zmm1, %%zmm1, %%zmm1; vmovdqu8 %%zmm1, (%0)%{%%k1%}; vzeroupper"
                         :
                         : "r"(s), "r"(k), "r"(out)
                         : "memory", "k1", "xmm1");
        check(faults == 0, "fault for what is masked", n);
        check(out[n - 1] == n && out[n] == 0, "masked load", n);
        check(s[0] == 2 * n && s[n - 1] == 2 * n && s[-1] != 2 * n, "masked store", n);
        __asm__ volatile("kmovq %1, %%k1; vmovdqu8 %%zmm1, (%0)%{%%k1%}; vzeroupper"
                         :
                         : "r"(s), "r"(k | 1ull << n)
                         : "memory", "k1", "xmm1");
        check(faults == 1 && (uintptr_t)fault_at / PAGE == (uintptr_t)page / PAGE + 1,
              "store faults", n);
        close_second();
    }
}

/* Elements of both pages: the first ones are done before the fault, the rest after it. */
static void gathers(void)
{
    int32_t index[16], out[16];
    uint64_t k = 0xffff;
    for (int i = 0; i < 16; i++) {
        index[i] = (i - 8) * 4;
        memcpy(page + PAGE - 32, "gathered from one page, and zero", 32);
    }
    close_second();
    faults = 0;
    __asm__ volatile("kmovq %0, %%k1; vmovdqu32 (%1), %%zmm2;"
                     "vpgatherdd (%2,%%zmm2), %%zmm1%{%%k1%};"
                     "vmovdqu32 %%zmm1, (%3); kmovq %%k1, %0; vzeroupper"
                     : "+r"(k)
                     : "r"(index), "r"(page + PAGE), "r"(out)
                     : "memory", "k1", "xmm1", "xmm2");
    check(faults == 1 && k == 0, "gather", faults);
    check(memcmp(out, page + PAGE - 32, 64) == 0, "gathered", 0);
    close_second();
    faults = 0;
    k = 0xffff;
    __asm__ volatile("kmovq %0, %%k1; vmovdqu32 (%1), %%zmm2;"
                     "vpternlogd $0xff, %%zmm1, %%zmm1, %%zmm1;"
                     "vpscatterdd %%zmm1, (%2,%%zmm2)%{%%k1%}; kmovq %%k1, %0; vzeroupper"
                     : "+r"(k)
                     : "r"(index), "r"(page + PAGE)
                     : "memory", "k1", "xmm1", "xmm2");
    check(faults == 1 && k == 0 && page[PAGE - 32] == 0xff && page[PAGE + 31] == 0xff, "scatter",
          faults);
}

/* -- Registers */

static void on_usr1(int sig)
{
    (void)sig;
    __asm__ volatile("vpternlogd $0xff, %%zmm7, %%zmm7, %%zmm7; vmovdqa64 %%zmm7, %%zmm31;"
                     "kxnorq %%k3, %%k3, %%k3; vzeroupper"
                     :
                     :
                     : "k3", "xmm7", "xmm31");
}

/* System calls between, so that another thread runs and signals come. */
static void *keeps_registers(void *arg)
{
    uint64_t me = (uintptr_t)arg, k = 0;
    for (int i = 0; i < 2000; i++) {
        uint64_t v[3][8] = { { 0 } };
        long call = i % 16 == 0 ? 39 /* getpid */ : 24 /* sched_yield */;
        if (i % 16 == 1)
            raise(SIGUSR1);
        __asm__ volatile("vpbroadcastq %[me], %%zmm7; vpaddq %%zmm7, %%zmm7, %%zmm31;"
                         "kmovq %[me], %%k3; syscall; vmovdqu64 %%zmm7, (%[v]);"
                         "vmovdqu64 %%zmm31, 64(%[v]);"
                         "kmovq %%k3, %[k]; vzeroupper"
                         : [k] "=&r"(k), "+a"(call)
                         : [me] "r"(me), [v] "r"(v)
                         : "memory", "rcx", "r11", "k3", "xmm7", "xmm31");
        if (k != me || v[0][7] != me || v[1][7] != 2 * me || v[0][0] != me)
            return (void *)1;
    }
    return NULL;
}

static void registers(void)
{
    pthread_t t[4];
    for (uintptr_t i = 0; i < 4; i++)
        pthread_create(&t[i], NULL, keeps_registers, (void *)(0x1234567890abcdef + i));
    for (int i = 0; i < 4; i++) {
        void *bad;
        pthread_join(t[i], &bad);
        check(bad == NULL, "registers of a thread", i);
    }
    uint64_t v[8], k;
    __asm__ volatile("vpbroadcastq %[me], %%zmm31; kmovq %[me], %%k3; syscall;"
                     "vmovdqu64 %%zmm31, (%[v]); kmovq %%k3, %[k]; vzeroupper"
                     : [k] "=&r"(k)
                     : [me] "r"(0x5555aaaa5555aaaaull), [v] "r"(v), "a"(62L) /* kill */,
                       "D"((long)getpid()), "S"((long)SIGUSR1)
                     : "memory", "rcx", "r11", "k3", "xmm31");
    check(k == 0x5555aaaa5555aaaa && v[7] == k, "registers over a signal", 0);
}

int main(void)
{
    struct sigaction sa = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
    page = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    sigaction(SIGSEGV, &sa, NULL);
    signal(SIGUSR1, on_usr1);
    close_second();
    strings();
    masked();
    gathers();
    registers();
    printf("avx512: %u checks, %u wrong\n", checks, wrong);
    return wrong != 0;
}
