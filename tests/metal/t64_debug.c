/* SPDX-License-Identifier: Apache-2.0
 *
 * Single step and breakpoints: where the traps come, DR6, RF, MOV SS, SYSCALL, REP, general
 * detect, I/O breakpoints. */
#include "rt.h"

#define TF 0x100u
#define RF 0x10000u

#define CODE(name, text)                                                                           \
    __asm__(".text\n.globl " #name "\n" #name ": " text "\n ret\n");                               \
    void name(void *)

static word ips[64];
static word dr6s[64];
static word flags_seen[64];
static unsigned hits;

static bool collect(struct trap *t)
{
    if (t->vector != 1) {
        return false;
    }
    if (hits < 64) {
        ips[hits] = t->ip;
        dr6s[hits] = read_dr6();
        flags_seen[hits] = t->flags;
    }
    hits++;
    write_dr6(0xffff0ff0);
    return hits < 200;
}

static int step(void (*fn)(void *), void *arg)
{
    hits = 0;
    trap_hook = collect;
    write_dr6(0xffff0ff0);
    int v = run(fn, arg);
    trap_hook = 0;
    __asm__ volatile("pushf; andq $~0x100, (%%rsp); popf" ::: "cc");
    return v;
}

static bool hit_at(word ip)
{
    for (unsigned i = 0; i < hits && i < 64; i++) {
        if (ips[i] == ip) {
            return true;
        }
    }
    return false;
}

/* TF on by POPF; labels s1.. are the traps expected */
CODE(step_plain,
     "pushf\n orq $0x100, (%rsp)\n popf\n nop\n sp1: nop\n sp2: pushf\n sp3: andq $~0x100, (%rsp)\n"
     "sp4: popf\n sp5: nop");
extern uint8_t sp1[], sp2[], sp3[], sp4[], sp5[];
CODE(step_ss,
     "mov %ss, %ecx\n pushf\n orq $0x100, (%rsp)\n popf\n nop\n ss1: mov %ecx, %ss\n ss2: nop\n"
     "ss3: pushf\n"
     "andq $~0x100, (%rsp)\n popf\n nop");
extern uint8_t ss1[], ss2[], ss3[];
CODE(step_rep,
     "lea rep_buf, %rdi\n mov $3, %ecx\n xor %eax, %eax\n cld\n pushf\n orq $0x100, (%rsp)\n popf\n"
     "sr0: rep stosb\n sr1: pushf\n andq $~0x100, (%rsp)\n popf");
extern uint8_t sr0[], sr1[];
uint8_t rep_buf[16];
CODE(step_int, "pushf\n orq $0x100, (%rsp)\n popf\n int $0x82\n si1: nop\n si2: pushf\n"
               "andq $~0x100, (%rsp)\n popf");
extern uint8_t si1[], si2[];
__asm__(".text\nint82: incl int82_count\n iretq\n");
extern uint8_t int82[];
uint32_t int82_count;
CODE(step_fault, "pushf\n orq $0x100, (%rsp)\n popf\n sf0: ud2\n");
extern uint8_t sf0[];
CODE(step_syscall, "pushf\n orq $0x100, (%rsp)\n popf\n sy0: syscall\n sy1: nop\n");
extern uint8_t sy0[], sy1[];
__asm__(".text\nsys_entry: sye1: nop\n sye2: mov %r11, %rax\n andq $~0x100, %rax\n push %rax\n"
        "popf\n jmp *%rcx\n");
extern uint8_t sys_entry[], sye1[], sye2[];

static void single_step(void)
{
    ok_trap(step(step_plain, 0), NONE, 0, "single step");
    ok_eq(hits, 5, "five traps");
    ok(ips[0] == (word)sp1 && ips[1] == (word)sp2 && ips[2] == (word)sp3 && ips[3] == (word)sp4 &&
           ips[4] == (word)sp5,
       "after each instruction from the one behind POPF to the one that clears TF");
    ok_eq(dr6s[0], 0xffff4ff0, "DR6.BS");
    ok_eq(flags_seen[0] & TF, TF, "TF in the image");
    ok_eq(flags_seen[0] & RF, 0, "no RF in a trap's image");

    step(step_ss, 0);
    ok(hit_at((word)ss1) && !hit_at((word)ss2) && hit_at((word)ss3), "no trap right after MOV SS");
    step(step_rep, 0);
    ok(ips[0] == (word)sr0 && ips[1] == (word)sr0 && ips[2] == (word)sr1,
       "one trap for each iteration of REP");
    ok(flags_seen[0] & RF, "RF between the iterations");
    ok(!(flags_seen[2] & RF), "but not at the end");
    idt_gate(0x82, SEL_CODE, int82, 0x8e);
    step(step_int, 0);
    ok_eq(int82_count, 1, "INT under single step");
    ok(!hit_at((word)si1) && hit_at((word)si2), "INT itself is not trapped after");
    idt_default(0x82);
    ok_trap(step(step_fault, 0), 6, 0, "a fault comes instead of the trap");
    ok_eq(hits, 0, "no trap");
    ok_eq(trap.ip, (word)sf0, "at UD2");
    ok(trap.flags & RF, "RF");

    wrmsr(0xc0000081, (uint64_t)SEL_CODE << 32);
    wrmsr(0xc0000082, (word)sys_entry);
    wrmsr(0xc0000084, TF);
    step(step_syscall, 0);
    ok_eq(hits, 0, "SYSCALL with TF in FMASK: no trap");
    wrmsr(0xc0000084, 0);
    step(step_syscall, 0);
    ok(hit_at((word)sye1), "SYSCALL with TF kept: trap at the entry");
}

CODE(bp_code, "nop\n bpc: nop\n bpc1: nop");
extern uint8_t bpc[], bpc1[];
uint64_t watched[8] __attribute__((aligned(64)));
CODE(wr1, "movb $1, watched\n wr1a: nop");
extern uint8_t wr1a[];
CODE(wr_at, "movb $1, (%rdi)\n nop");
CODE(wr8_at, "movq $1, (%rdi)\n nop");
CODE(rd_at, "movb (%rdi), %al\n rda: nop");
extern uint8_t rda[];
CODE(rmw_at, "incb (%rdi)\n nop");
CODE(bp_ss,
     "mov %ss, %ecx\n lea watched_ss, %rax\n bpss0: mov (%rax), %ss\n bpss1: nop\n bpss2: nop");
uint16_t watched_ss __attribute__((aligned(8))) = SEL_DATA;
extern uint8_t bpss1[], bpss2[];
CODE(bp_io, "in $0x61, %al\n bpio: nop");
extern uint8_t bpio[];
CODE(rd_dr0, "mov %dr0, %rax\n");
CODE(rep_watch,
     "lea watched, %rdi\n mov $32, %ecx\n xor %eax, %eax\n cld\n rw0: rep stosb\n rw1: nop");
extern uint8_t rw0[], rw1[];

static bool collect_rf(struct trap *t)
{
    bool go = collect(t);
    t->flags |= RF;
    return go;
}

static unsigned watch(void (*fn)(void *), void *arg, word dr7)
{
    write_dr7(dr7);
    step(fn, arg);
    write_dr7(0x400);
    return hits;
}

static void breakpoints(void)
{
    write_dr0((word)bpc);
    hits = 0;
    trap_hook = collect_rf;
    write_dr6(0xffff0ff0);
    write_dr7(0x402);
    int v = run(bp_code, 0);
    write_dr7(0x400);
    trap_hook = 0;
    ok_trap(v, NONE, 0, "instruction breakpoint");
    ok_eq(hits, 1, "once, past it with RF");
    ok_eq(ips[0], (word)bpc, "before the instruction");
    ok_eq(dr6s[0], 0xffff0ff1, "DR6.B0");
    ok_eq(watch(bp_code, 0, 0x400), 0, "disabled");

    write_dr0((word)watched);
    ok_eq(watch(wr1, 0, 0x402 | 1 << 16), 1, "write watchpoint");
    ok_eq(ips[0], (word)wr1a, "after the instruction");
    ok_eq(dr6s[0], 0xffff0ff1, "DR6.B0");
    ok_eq(watch(rd_at, watched, 0x402 | 1 << 16), 0, "read does not meet a write watchpoint");
    ok_eq(watch(rd_at, watched, 0x402 | 3 << 16), 1, "read meets an access watchpoint");
    ok_eq(ips[0], (word)rda, "after the instruction");
    ok_eq(watch(rmw_at, watched, 0x402 | 1 << 16), 1, "read-modify-write");
    ok_eq(watch(wr_at, (uint8_t *)watched + 1, 0x402 | 1 << 16), 0, "length 1: not the next byte");
    ok_eq(watch(wr_at, (uint8_t *)watched + 3, 0x402 | 0xd << 16), 1, "length 4: the fourth byte");
    ok_eq(watch(wr_at, (uint8_t *)watched + 4, 0x402 | 0xd << 16), 0, "not the fifth");
    ok_eq(watch(wr_at, (uint8_t *)watched + 7, 0x402 | 0x9 << 16), 1, "length 8: the eighth byte");
    write_dr0((word)watched + 8);
    ok_eq(watch(wr8_at, (uint8_t *)watched + 4, 0x402 | 1 << 16), 1,
          "an access that reaches into it");
    write_dr1((word)watched + 16);
    write_dr2((word)watched + 16);
    ok_eq(watch(wr_at, (uint8_t *)watched + 16, 0x400 | 0x14 | 0x1100000ul | 1 << 20), 1,
          "two at once");
    ok_eq(dr6s[0] & 0xf, 6, "B1 and B2");
    write_dr0((word)watched + 5);
    ok(watch(rep_watch, 0, 0x402 | 1 << 16) == 1 && ips[0] == (word)rw0,
       "REP STOSB: trap between iterations");
    write_dr0((word)&watched_ss);
    watch(bp_ss, 0, 0x402 | 7ul << 16);
    ok(hits == 1 && ips[0] == (word)bpss2, "watchpoint hit by MOV SS: after the next instruction");

    write_cr4(read_cr4() | 8);
    write_dr0(0x61);
    ok_eq(watch(bp_io, 0, 0x402 | 2 << 16), 1, "I/O breakpoint");
    ok_eq(ips[0], (word)bpio, "after the instruction");
    write_cr4(read_cr4() & ~8ul);

    write_dr6(0xffff0ff0);
    write_dr7(0x2400);
    ok_trap(run(rd_dr0, 0), 1, 0, "general detect");
    ok_eq(trap.ip, (word)rd_dr0, "a fault");
    ok(read_dr6() & 0x2000, "DR6.BD");
    ok(!(read_dr7() & 0x2000), "GD is off again");
    write_dr7(0x400);
    write_dr6(0);
    ok_eq(read_dr6(), 0xffff0ff0, "fixed bits of DR6");
    write_dr7(0);
    ok_eq(read_dr7(), 0x400, "fixed bits of DR7");
    write_dr7(0xffffffff & ~0x20fful);
    ok_eq(read_dr7(), 0xffff0700, "zero bits of DR7");
    write_dr7(0x400);
}

/* INT1 is a #DB of its own, whatever else is due: no BS, no second trap. What MOV SS met comes with
 * it, but after a software interrupt, which is not held back. */
CODE(step_icebp, "mov %ss, %ecx\n pushf\n orq $0x100, (%rsp)\n popf\n mov %ecx, %ss\n .byte 0xf1\n"
                 "ic1: .byte 0xf1\n ic2: pushf\n ic3: andq $~0x100, (%rsp)\n ic4: popf\n ic5: nop");
extern uint8_t ic1[], ic2[], ic3[], ic4[], ic5[];
#define AFTER_SS(name, text)                                                                       \
    CODE(name, "mov %ss, %ecx\n lea watched_ss, %rax\n mov (%rax), %ss\n" text)
AFTER_SS(ss_icebp, ".byte 0xf1\n ssic: nop");
AFTER_SS(ss_int, "int $1\n ssint: nop");
AFTER_SS(ss_int3, "int3\n ssint3: nop");
extern uint8_t ssic[], ssint[], ssint3[];
CODE(step_cpuid, "pushf\n orq $0x100, (%rsp)\n popf\n mov $0, %eax\n sc0: cpuid\n"
                 "sc1: in $0x61, %al\n sc2: rdtsc\n sc3: pushf\n andq $~0x100, (%rsp)\n popf");
extern uint8_t sc0[], sc1[], sc2[], sc3[];
CODE(step_sti, "pushf\n orq $0x100, (%rsp)\n popf\n sti\n st0: cli\n st1: pushf\n"
               "andq $~0x100, (%rsp)\n popf");
extern uint8_t st0[], st1[];

static void icebp(void)
{
    step(step_icebp, 0);
    static uint8_t *const want[] = { ic1, ic2, ic3, ic4, ic5 };
    bool there = hits == 5;
    bool bits = true;
    for (unsigned i = 0; i < 5 && there; i++) {
        there = ips[i] == (word)want[i];
        bits = bits && dr6s[i] == (i < 2 ? 0xffff0ff0 : 0xffff4ff0);
    }
    ok(there, "INT1 under single step: one trap each");
    ok(bits, "DR6.BS is of the others only");
    write_dr0((word)&watched_ss);
    watch(ss_icebp, 0, 0x402 | 7ul << 16);
    ok(hits == 1 && ips[0] == (word)ssic, "watchpoint hit by MOV SS, then INT1: one trap");
    watch(ss_int, 0, 0x402 | 7ul << 16);
    ok_eq(hits, 2, "then INT 1: the interrupt and the trap");
    write_dr7(0x402 | 7ul << 16);
    int v = step(ss_int3, 0);
    write_dr7(0x400);
    ok(v == 3 && trap.ip == (word)ssint3, "then INT3: the breakpoint");
    ok_eq(hits, 1, "and the trap");
    step(step_cpuid, 0);
    ok(hit_at((word)sc0) && hit_at((word)sc1) && hit_at((word)sc2) && hit_at((word)sc3),
       "single step over CPUID, IN, RDTSC");
    step(step_sti, 0);
    ok(hit_at((word)st0) && hit_at((word)st1), "STI holds no trap back");
    write_cr4(read_cr4() & ~8ul);
    word dr4;
    write_dr6(0xffff4ff2);
    __asm__ volatile("mov %%dr4, %0" : "=r"(dr4));
    ok_eq(dr4, 0xffff4ff2, "DR4 is DR6 without CR4.DE");
    write_dr6(0xffff0ff0);
}

int test_main(void)
{
    single_step();
    breakpoints();
    icebp();
    return 0;
}
