/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory for generated code, W^X: one memfd mapped once for writing and once for executing. And
 * the SIGFPE handler, which turns a numeric exception inside a thunk into the thunk's fault exit.
 *
 * The disposition of a signal belongs to the process, so the handler needs process-wide data: a
 * table of the arenas' address ranges. Entries are written under atomics and read by the handler.
 */
#include "cpu/hostexec_int.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define ARENAS_MAX 4096u /* vCPUs in one process */

static _Atomic uintptr_t arena_base[ARENAS_MAX];
static struct sigaction previous;
static pthread_once_t handler_once = PTHREAD_ONCE_INIT;

static const uint8_t *find_arena(uintptr_t pc)
{
    for (unsigned i = 0; i < ARENAS_MAX; i++) {
        uintptr_t base = atomic_load_explicit(&arena_base[i], memory_order_acquire);
        if (base != 0 && pc - base < HOSTEXEC_ARENA_SIZE)
            return (const uint8_t *)base;
    }
    return NULL;
}

/* Not ours: what was installed before us decides. */
static void chain(int sig, siginfo_t *info, void *ucontext)
{
    if (previous.sa_flags & SA_SIGINFO) {
        previous.sa_sigaction(sig, info, ucontext);
    } else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
        previous.sa_handler(sig);
    } else {
        signal(sig, SIG_DFL); /* the instruction faults again and ends the process */
    }
}

static void on_sigfpe(int sig, siginfo_t *info, void *ucontext)
{
    ucontext_t *uc = ucontext;
    greg_t *regs = uc->uc_mcontext.gregs;
    const uint8_t *base = find_arena((uintptr_t)regs[REG_RIP]);
    int vector = (int)regs[REG_TRAPNO];
    if (base == NULL || (vector != EXC_MF && vector != EXC_XM)) {
        chain(sig, info, ucontext);
        return;
    }
    regs[REG_RAX] = vector;
    regs[REG_RIP] = (greg_t)(base + (vector == EXC_XM ? HOSTEXEC_EXIT_SIMD : HOSTEXEC_EXIT_X87));
}

static void install_handler(void)
{
    /* SA_NODEFER: a handler that we chain to may leave by longjmp. */
    struct sigaction sa = { .sa_sigaction = on_sigfpe,
                            .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };
    sigemptyset(&sa.sa_mask);
    sigaction(SIGFPE, NULL, &previous);
    sigaction(SIGFPE, &sa, NULL);
}

static int register_arena(struct hostexec_arena *a)
{
    for (unsigned i = 0; i < ARENAS_MAX; i++) {
        uintptr_t none = 0;
        if (atomic_compare_exchange_strong(&arena_base[i], &none, (uintptr_t)a->exec)) {
            a->slot = i;
            return 0;
        }
    }
    return -ENOSPC;
}

int hostexec_arena_init(struct hostexec_arena *a)
{
    memset(a, 0, sizeof *a);
    int fd = memfd_create("sosia-hostexec", MFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, HOSTEXEC_ARENA_SIZE) < 0) {
        int r = -errno;
        close(fd);
        return r;
    }
    void *w = mmap(NULL, HOSTEXEC_ARENA_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    void *x = mmap(NULL, HOSTEXEC_ARENA_SIZE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    int r = w == MAP_FAILED || x == MAP_FAILED ? -errno : 0;
    close(fd);
    a->write = w == MAP_FAILED ? NULL : w;
    a->exec = x == MAP_FAILED ? NULL : x;
    if (r == 0)
        r = register_arena(a);
    if (r < 0) {
        if (a->write != NULL)
            munmap(a->write, HOSTEXEC_ARENA_SIZE);
        if (a->exec != NULL)
            munmap(a->exec, HOSTEXEC_ARENA_SIZE);
        memset(a, 0, sizeof *a);
        return r;
    }
    hostexec_generate_exits(a->write);
    a->transient = HOSTEXEC_FIRST_THUNK;
    a->used = HOSTEXEC_FIRST_THUNK + HOSTEXEC_THUNK_MAX;
    pthread_once(&handler_once, install_handler);
    return 0;
}

void hostexec_arena_fini(struct hostexec_arena *a)
{
    if (a->write == NULL)
        return;
    atomic_store_explicit(&arena_base[a->slot], 0, memory_order_release);
    munmap(a->write, HOSTEXEC_ARENA_SIZE);
    munmap(a->exec, HOSTEXEC_ARENA_SIZE);
    memset(a, 0, sizeof *a);
}

void *hostexec_arena_add(struct hostexec_arena *a, const uint8_t *code, size_t len)
{
    size_t at = (a->used + 15) & ~(size_t)15;
    if (at + len > HOSTEXEC_ARENA_SIZE)
        return NULL;
    memcpy(a->write + at, code, len);
    a->used = at + len;
    return a->exec + at;
}

void *hostexec_arena_add_transient(struct hostexec_arena *a, const uint8_t *code, size_t len)
{
    memcpy(a->write + a->transient, code, len);
    /* Code changed through another linear address: a serializing instruction before it runs
     * (SDM 3 9.1.3). */
    unsigned eax = 0, ebx, ecx = 0, edx;
    __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx) : : "memory");
    return a->exec + a->transient;
}
