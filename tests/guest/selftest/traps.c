/* SPDX-License-Identifier: Apache-2.0
 *
 * Traps that a program sets for itself: INT3, INT 3, INT1, single step by RFLAGS.TF; code that
 * changes itself.
 */
#include "rt.h"

#include <asm/mman.h>

#ifdef __x86_64__
#define IP(u) ((u)->uc_mcontext.rip)
#define FLAGS(u) ((u)->uc_mcontext.eflags)
#define PUSHF_SET_TF "pushfq; orl $0x100, (%%rsp); popfq; "
#else
#define IP(u) ((u)->uc_mcontext.eip)
#define FLAGS(u) ((u)->uc_mcontext.eflags)
#define PUSHF_SET_TF "pushfl; orl $0x100, (%%esp); popfl; "
#endif

static volatile struct {
    int count, code;
    word ip[32];
    int stop_after;
} seen;

static void on_trap(int sig, siginfo_t *info, void *ctx)
{
    struct ucontext *u = ctx;
    (void)sig;
    if (seen.count < 32) {
        seen.ip[seen.count] = IP(u);
    }
    seen.code = info->si_code;
    seen.count++;
    if (seen.count >= seen.stop_after) {
        FLAGS(u) &= ~0x100ul;
    }
}

static void breakpoints(void)
{
    word at[2];
    seen.count = 0;
    seen.stop_after = 100;
#ifdef __x86_64__
    __asm__ volatile("lea 1f(%%rip), %%rax; mov %%rax, (%0); lea 2f(%%rip), %%rax;"
                     "mov %%rax, 8(%0); int3\n1: int $3\n2:"
                     :
                     : "r"(at)
                     : "rax", "memory");
#else
    __asm__ volatile("movl $1f, (%0); movl $2f, 4(%0); int3\n1: int $3\n2:" : : "r"(at) : "memory");
#endif
    ok(seen.count == 2 && seen.ip[0] == at[0] && seen.ip[1] == at[1], "int3 and int $3");
    seen.count = 0;
    __asm__ volatile(".byte 0xf1");
    ok(seen.count == 1, "int1");
}

static void single_step(void)
{
    word first;
    seen.count = 0;
    seen.stop_after = 8;
    /* The traps: behind each instruction after the popf. rep movsb traps at each of its rounds;
     * mov ss holds the trap back until behind the next instruction. */
    static uint8_t from[3], to[3];
#ifdef __x86_64__
    __asm__ volatile("leaq 1f(%%rip), %%rax; movq %%rax, %0; movl $3, %%ecx;" PUSHF_SET_TF
                     "\n1: nop\n nop\n rep movsb\n mov %%ss, %%eax\n mov %%eax, %%ss\n nop\n nop\n"
                     " nop\n nop\n nop"
                     : "=m"(first)
                     : "S"(from), "D"(to)
                     : "rax", "rcx", "memory", "cc");
#else
    __asm__ volatile("movl $1f, %0; movl $3, %%ecx;" PUSHF_SET_TF
                     "\n1: nop\n nop\n rep movsb\n mov %%ss, %%eax\n mov %%eax, %%ss\n nop\n nop\n"
                     " nop\n nop\n nop"
                     : "=m"(first)
                     : "S"(from), "D"(to)
                     : "eax", "ecx", "memory", "cc");
#endif
    /* Offsets: nop 0, nop 1, rep movsb 2, mov 4, mov ss 6, nop 8, nop 9. */
    static const uint8_t want[] = {1, 2, 2, 2, 4, 6, 9, 10};
    bool good = seen.count == 8;
    for (int i = 0; i < 8 && i < seen.count; i++) {
        if (seen.ip[i] - first != want[i]) {
            say("# trap %d at +%d, expected +%d", i, (int)(seen.ip[i] - first), (int)want[i]);
            good = false;
        }
    }
    ok(good, "single step: each instruction, string rounds, MOV SS (%d traps)", seen.count);
}

/* mov $imm, %eax; ret */
static void self_modifying(void)
{
    uint8_t *code = map(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC);
    static const uint8_t text[] = {0xb8, 0, 0, 0, 0, 0xc3};
    bool good = code != NULL;
    if (good) {
        memcpy(code, text, sizeof text);
        unsigned (*fn)(void) = (unsigned (*)(void))(word)code;
        for (unsigned i = 0; i < 3000 && good; i++) {
            memcpy(code + 1, &i, 4);
            good = fn() == i;
        }
        /* It changes an instruction just before it comes to it: movb $5, 7(%rip) or absolute. */
        static const uint8_t self[] = {0xc6, 0x05, 1, 0, 0, 0, 7, 0xb8, 1, 0, 0, 0, 0xc3};
        memcpy(code, self, sizeof self);
#ifndef __x86_64__
        uint32_t target = (uint32_t)code + 8;
        memcpy(code + 2, &target, 4);
#endif
        good = good && fn() == 7;
        SYS2(__NR_munmap, code, 4096);
    }
    ok(good, "code that changes itself");
}

void test_traps(void)
{
    on_signal(SIGTRAP, on_trap, 0);
    breakpoints();
    single_step();
    self_modifying();
}
