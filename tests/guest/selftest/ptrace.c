/* SPDX-License-Identifier: Apache-2.0
 *
 * ptrace: single step, system call stops, hardware breakpoints and watchpoints in a child.
 */
#include "rt.h"

#include <asm/mman.h>
#include <linux/ptrace.h>
#include <asm/ptrace.h>

#ifdef __x86_64__
#define REG_IP 128 /* offset of rip in struct user */
#define DR(n) (848 + 8 * (n))
#else
#define REG_IP 48
#define DR(n) (252 + 4 * (n))
#endif

static volatile word watched[4];

static bool stopped(int status, int sig)
{
    return (status & 0xff) == 0x7f && (status >> 8 & 0xff) == sig;
}

static long trace(long request, int pid, word addr, word data)
{
    return SYS4(__NR_ptrace, request, pid, addr, data);
}

static word peek_user(int pid, word offset)
{
    word value = 0;
    trace(PTRACE_PEEKUSR, pid, offset, (word)&value);
    return value;
}

static int child(void (*fn)(void))
{
    int pid = (int)SYS0(__NR_fork);
    if (pid == 0) {
        trace(PTRACE_TRACEME, 0, 0, 0);
        SYS2(__NR_kill, SYS0(__NR_getpid), SIGSTOP);
        fn();
        quit(7);
    }
    wait_for(pid);
    return pid;
}

static void finish(int pid, const char *name, bool good)
{
    trace(PTRACE_CONT, pid, 0, 0);
    int status = wait_for(pid);
    ok(good && status == 7 << 8, "%s (status %x)", name, (unsigned)status);
    if (status != 7 << 8) {
        SYS2(__NR_kill, pid, SIGKILL);
    }
}

static void straight(void)
{
    __asm__ volatile(".globl step_begin\nstep_begin: nop; nop; cld; clc; nop\n"
                     ".globl step_end\nstep_end:" ::: "cc");
}
extern const char step_begin[], step_end[];

static void single_step(void)
{
    int pid = child(straight);
    word ip = 0;
    unsigned steps = 0, inside = 0;
    bool good = true;
    while (ip != (word)step_end && steps++ < 20000) {
        trace(PTRACE_SINGLESTEP, pid, 0, 0);
        if (!stopped(wait_for(pid), SIGTRAP)) {
            good = false;
            break;
        }
        ip = peek_user(pid, REG_IP);
        inside += ip > (word)step_begin && ip <= (word)step_end;
    }
    finish(pid, "ptrace single step", good && inside == 5);
}

static void touch(void)
{
    for (int i = 0; i < 3; i++) {
        watched[0] = watched[1] + 1;
    }
}

static void watch(const char *name, word addr, word dr7, int hits)
{
    int pid = child(touch);
    trace(PTRACE_POKEUSR, pid, DR(0), addr);
    if (trace(PTRACE_POKEUSR, pid, DR(7), dr7) < 0) {
        ok(false, "%s: cannot set DR7", name);
    }
    bool good = true;
    for (int i = 0; i < hits; i++) {
        trace(PTRACE_CONT, pid, 0, 0);
        if (!stopped(wait_for(pid), SIGTRAP) || !(peek_user(pid, DR(6)) & 1)) {
            good = false;
        }
        trace(PTRACE_POKEUSR, pid, DR(6), 0);
    }
    finish(pid, name, good);
}

static void system_calls(void)
{
    int pid = child(straight);
    trace(PTRACE_SYSCALL, pid, 0, 0);
    bool good = stopped(wait_for(pid), SIGTRAP); /* exit_group */
    finish(pid, "ptrace system call stop", good);
}

static void breakpoint(void)
{
    /* An execution breakpoint is reported before its instruction, and once. */
    int pid = child(straight);
    trace(PTRACE_POKEUSR, pid, DR(1), (word)step_begin + 2);
    trace(PTRACE_POKEUSR, pid, DR(7), 1u << 2);
    trace(PTRACE_CONT, pid, 0, 0);
    bool good = stopped(wait_for(pid), SIGTRAP) && (peek_user(pid, DR(6)) & 15) == 2 &&
                peek_user(pid, REG_IP) == (word)step_begin + 2;
    finish(pid, "hardware breakpoint", good);
}

void test_ptrace(void)
{
    word size = sizeof(word) == 8 ? 2 : 3; /* LEN of 8 or 4 bytes */
    single_step();
    system_calls();
    breakpoint();
    watch("hardware watchpoint on writes", (word)&watched[0], 1 | 1u << 16 | size << 18, 3);
    watch("hardware watchpoint on accesses", (word)&watched[1], 1 | 3u << 16 | size << 18, 3);
    watch("hardware watchpoint on one byte", (word)&watched[0] + 1, 1 | 1u << 16, 3);
    watch("no watchpoint beside what is written", (word)&watched[2], 1 | 1u << 16 | size << 18, 0);
}
