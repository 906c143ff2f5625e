/* SPDX-License-Identifier: Apache-2.0
 *
 * NMIs by the local APIC: when they come, how many, what holds them back; the APIC when it is off,
 * elsewhere, and its ids; timer modes; logical destinations. SDM 3 6.7, 11. */
#include "rt.h"

#define APIC ((volatile uint32_t *)0xfee00000)
#define ELSEWHERE ((volatile uint32_t *)0xfec80000)
#define REG(n) APIC[(n) / 4]

enum { ID = 0x20, VERSION = 0x30, TPR = 0x80, EOI = 0xb0, LDR = 0xd0, DFR = 0xe0, SVR = 0xf0,
       ESR = 0x280, ICR = 0x300, ICR_HIGH = 0x310, LVT_TIMER = 0x320, INITIAL = 0x380,
       CURRENT = 0x390, DIVIDE = 0x3e0 };
enum { APIC_BASE = 0x1b, SELF_NMI = 0x44400 };

static volatile unsigned nmis, interrupts;
static volatile word nmi_ip;
static unsigned again; /* NMIs that the handler sends */
static bool fault_inside;

static void ud(void *arg)
{
    (void)arg;
    __asm__ volatile("ud2");
}

static bool on_trap(struct trap *t)
{
    if (t->vector == 2) {
        nmis++;
        nmi_ip = t->ip;
        for (; again != 0; again--) {
            REG(ICR) = SELF_NMI;
        }
        return true;
    }
    if (t->vector == 6 && fault_inside) {
        t->ip += 2;
        return true;
    }
    if (t->vector >= 32) {
        interrupts++;
        REG(EOI) = 0;
        return true;
    }
    return false;
}

static void clear(void)
{
    nmis = interrupts = 0;
    nmi_ip = 0;
}

static void nmi(void)
{
    clear();
    REG(ICR) = SELF_NMI;
    __asm__ volatile("nop; nop");
    ok_eq(nmis, 1, "an NMI comes with IF=0");
    clear();
    again = 10;
    REG(ICR) = SELF_NMI;
    __asm__ volatile("nop; nop");
    ok_eq(nmis, 2, "those sent inside its handler are one after it");
    /* IRET of any kind opens the door: also that of an exception inside the handler. */
    clear();
    word after;
    __asm__ volatile("mov %%ss, %%ecx\n mov %3, %%ss\n movl %2, (%1)\n lea 1f(%%rip), %0\n 1: nop"
                     : "=&r"(after)
                     : "r"(&REG(ICR)), "i"(SELF_NMI), "r"(SEL_DATA)
                     : "rcx", "memory");
    ok(nmis == 1 && nmi_ip <= after, "an NMI right after MOV SS comes, late");
    clear();
    REG(ICR_HIGH) = REG(ID);
    REG(ICR) = 0x4041;
    REG(ICR) = SELF_NMI;
    ok(nmis == 1 && interrupts == 0, "an NMI does not wait for the interrupt that IF bars");
    __asm__ volatile("sti; nop; nop; cli");
    ok_eq(interrupts, 1, "which comes when it may");
    clear();
    fault_inside = true;
    ok_eq((uint64_t)(int64_t)run(ud, 0), (uint64_t)NONE, "an exception beside it");
    fault_inside = false;
}

static void write_msr(void *arg)
{
    uint64_t *a = arg;
    wrmsr((uint32_t)a[0], a[1]);
}

static uint64_t cr8(void)
{
    uint64_t v;
    __asm__ volatile("mov %%cr8, %0" : "=r"(v));
    return v;
}

static void set_cr8(uint64_t v) { __asm__ volatile("mov %0, %%cr8" ::"r"(v)); }
static void write_cr8(void *arg) { set_cr8(*(uint64_t *)arg); }

/* A page that no chip answers reads as ones and forgets what is written. */
static void nobody_there(const char *name)
{
    set_cr8(3);
    memset((void *)0xfee00000, 0xff, 4096);
    ok(REG(VERSION) == ~0u && REG(TPR) == ~0u && REG(ID) == ~0u, name);
    ok_eq(cr8(), 3, "CR8 is kept");
    set_cr8(9);
    ok_eq(cr8(), 9, "CR8 can be written");
    ok_eq(REG(TPR), ~0u, "and is not seen there");
    set_cr8(0);
    uint64_t bad = 16;
    ok_trap(run(write_cr8, &bad), 13, 0, "reserved bits of CR8");
}

static void off_and_elsewhere(void)
{
    uint32_t r[4];
    uint64_t base = rdmsr(APIC_BASE);
    uint32_t version = REG(VERSION), id = REG(ID);
    ok((version & 0xff) >= 0x10 && (version & 0xff) <= 0x15, "version");
    wrmsr(APIC_BASE, base & ~0x800ull);
    cpuid(1, 0, r);
    ok_eq(r[3] >> 9 & 1, 0, "off: CPUID says so");
    nobody_there("off: its page is nobody's");
    wrmsr(APIC_BASE, base);
    cpuid(1, 0, r);
    ok(r[3] >> 9 & 1, "on: CPUID says so");
    ok(REG(VERSION) == version && REG(ID) == id && REG(TPR) == 0, "on: as after reset");
    ok_eq(REG(SVR), 0xff, "disabled by software");
    set_cr8(6);
    ok_eq(REG(TPR), 0x60, "TPR is CR8");
    set_cr8(0);
    wrmsr(APIC_BASE, (base & 0xfffull) | (word)ELSEWHERE);
    ok_eq(ELSEWHERE[VERSION / 4], version, "elsewhere");
    ok_eq(REG(VERSION), ~0u, "not where it was");
    wrmsr(APIC_BASE, base);
    ok_eq(REG(VERSION), version, "back");
    REG(SVR) = 0x1ff;

    /* Ids */
    cpuid(1, 0, r);
    ok_eq(r[1] >> 24, id >> 24, "the id that CPUID knows");
    cpuid(7, 0, r);
    cpuid(1, 0, r);
    if (r[2] & 1u << 21) {
        wrmsr(APIC_BASE, base | 0x400);
        nobody_there("x2APIC: its page is nobody's");
        uint64_t a[2] = { 0x802, 5 };
        ok_trap(run(write_msr, a), 13, 0, "x2APIC: the id is read-only");
        a[0] = 0x80d;
        ok_trap(run(write_msr, a), 13, 0, "x2APIC: the logical id, too");
        a[0] = 0x80e;
        ok_trap(run(write_msr, a), 13, 0, "x2APIC: no destination format");
        a[0] = 0x80b;
        a[1] = 1;
        ok_trap(run(write_msr, a), 13, 0, "x2APIC: EOI takes 0 only");
        uint32_t leaf[4];
        cpuid(0xb, 0, leaf);
        ok_eq(rdmsr(0x802), leaf[3], "x2APIC: the id that CPUID knows");
        ok_eq(rdmsr(0x80d), (rdmsr(0x802) >> 4 << 16) | 1u << (rdmsr(0x802) & 15),
              "x2APIC: the logical id follows from it");
        wrmsr(APIC_BASE, base & ~0xc00ull);
        wrmsr(APIC_BASE, base);
    }
    ok_eq(REG(ID), id, "the id after a way through all modes");
    REG(SVR) = 0x1ff;
}

static void logical(void)
{
    REG(DFR) = 0xffffffff;
    REG(LDR) = 0x08000000;
    static const struct {
        uint32_t dfr, dest;
        unsigned hits;
    } cases[] = {
        { 0xffffffff, 0x08, 1 }, { 0xffffffff, 0x0c, 1 }, { 0xffffffff, 0x04, 0 },
        { 0xffffffff, 0xff, 1 }, { 0x0fffffff, 0x08, 1 }, { 0x0fffffff, 0x18, 0 },
        { 0x0fffffff, 0x0f, 1 }, { 0x0fffffff, 0x07, 0 }, { 0x0fffffff, 0xff, 1 },
    };
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        clear();
        REG(DFR) = cases[i].dfr;
        REG(ICR_HIGH) = cases[i].dest << 24;
        REG(ICR) = 0x4842;
        __asm__ volatile("sti; nop; nop; cli");
        ok_eq(interrupts, cases[i].hits, i < 4 ? "flat destination" : "cluster destination");
    }
    REG(DFR) = 0xffffffff;
    clear();
    REG(ICR_HIGH) = 0xff000000;
    REG(ICR) = 0x4043;
    __asm__ volatile("sti; nop; nop; cli");
    ok_eq(interrupts, 1, "physical broadcast");
    REG(ICR) = 0x84044;
    REG(ICR) = 0xc4045;
    __asm__ volatile("sti; nop; nop; cli");
    ok_eq(interrupts, 2, "shorthands: all with and without oneself");
}

static void until_below(uint32_t bound)
{
    uint32_t now = REG(CURRENT), before = ~0u;
    while (now > bound && now <= before) {
        before = now;
        now = REG(CURRENT);
    }
}

/* Switching between one-shot and periodic leaves the count as it is. */
static void timer_modes(void)
{
    const uint32_t count = 8000000;
    REG(DIVIDE) = 0xb;
    REG(LVT_TIMER) = 0x10050;
    REG(INITIAL) = count;
    REG(LVT_TIMER) = 0x30050;
    ok_eq(REG(INITIAL), count, "the initial count stays when the mode changes");
    REG(LVT_TIMER) = 0x10050;
    REG(INITIAL) = count;
    until_below(0);
    ok_eq(REG(CURRENT), 0, "one-shot ends at zero");
    REG(INITIAL) = count;
    until_below(count / 2);
    REG(LVT_TIMER) = 0x30050;
    uint32_t now = REG(CURRENT);
    ok(now != 0 && now <= count / 2, "periodic goes on from where one-shot was");
    uint64_t end = rdtsc() + 20000000000ull;
    while (REG(CURRENT) <= count / 2 && rdtsc() < end) {
    }
    ok(REG(CURRENT) > count / 4, "and begins again");
    REG(LVT_TIMER) = 0x10050;
    until_below(0);
    ok_eq(REG(CURRENT), 0, "one-shot again: the last round");
    REG(LVT_TIMER) = 0x30050;
    ok_eq(REG(CURRENT), 0, "what has ended does not begin again by a mode");
    REG(INITIAL) = 0;
    REG(LVT_TIMER) = 0x50;
    clear();
    uint64_t before = rdtsc();
    REG(INITIAL) = 65536;
    while (interrupts == 0 && rdtsc() - before < 20000000000ull) {
        __asm__ volatile("sti; nop; nop; cli");
    }
    ok_eq(interrupts, 1, "one-shot fires once");
    REG(LVT_TIMER) = 0x10050;
}

int test_main(void)
{
    trap_hook = on_trap;
    REG(SVR) = 0x1ff;
    REG(0x350) = 0x10700; /* LINT0: no 8259 */
    nmi();
    off_and_elsewhere();
    logical();
    timer_modes();
    return 0;
}
