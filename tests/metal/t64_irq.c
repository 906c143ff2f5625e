/* SPDX-License-Identifier: Apache-2.0
 *
 * Interrupts through the whole board: 8259 by the virtual wire, I/O APIC with lines of the test
 * device, local APIC with its priorities and timers, x2APIC, HPET, RTC; and whether the clocks
 * agree. */
#include "rt.h"

#define APIC ((volatile uint32_t *)0xfee00000)
#define IOAPIC ((volatile uint32_t *)0xfec00000)
#define HPET ((volatile uint64_t *)0xfed00000)
#define REG(n) APIC[(n) / 4]

enum { ID = 0x20, VERSION = 0x30, TPR = 0x80, PPR = 0xa0, EOI = 0xb0, SVR = 0xf0, TMR = 0x180,
       ESR = 0x280, ICR = 0x300, ICR_HIGH = 0x310, LVT_TIMER = 0x320, LINT0 = 0x350,
       INITIAL = 0x380, CURRENT = 0x390, DIVIDE = 0x3e0 };
enum { APIC_BASE = 0x1b, TSC_DEADLINE = 0x6e0, X2_ICR = 0x830, X2_SELF = 0x83f };

static volatile uint32_t got[256];
static volatile uint8_t order[16];
static volatile uint32_t taken;
static bool x2;
static int line_to_lower; /* a level-triggered line that its handler takes back, or -1 */
static uint32_t lower_after; /* when it has seen so many */
static bool pic_eoi;

static void eoi(void)
{
    if (x2) {
        wrmsr(0x80b, 0);
    } else {
        REG(EOI) = 0;
    }
}

static bool on_trap(struct trap *t)
{
    if (t->vector < 32) {
        return false;
    }
    got[t->vector]++;
    order[taken++ % 16] = (uint8_t)t->vector;
    if (t->vector == 0x28 || (t->vector >= 0x78 && t->vector < 0x80)) {
        outb(0x70, 0x0c);
        inb(0x71);
    }
    if (line_to_lower >= 0 && got[t->vector] >= lower_after) {
        outb((uint16_t)(0x2000 + line_to_lower), 0);
    }
    if (pic_eoi) {
        if (t->vector >= 0x28) {
            outb(0xa0, 0x20);
        }
        outb(0x20, 0x20);
    } else if (t->vector != 0xff) {
        eoi();
    }
    return true;
}

/* A window of one instruction and a bit, as interrupt shadows go. */
static void window(void) { __asm__ volatile("sti; nop; nop; cli" ::: "memory"); }

static void wait_got(unsigned vector, uint32_t want, uint64_t ticks)
{
    uint64_t end = rdtsc() + ticks;
    while (got[vector] < want && rdtsc() < end) {
        window();
    }
}

static void clear(void)
{
    for (unsigned i = 0; i < 256; i++) {
        got[i] = 0;
    }
    taken = 0;
}

static void icr(uint32_t v)
{
    REG(ICR_HIGH) = REG(ID);
    REG(ICR) = v;
}

static uint32_t ioapic_read(uint32_t reg)
{
    IOAPIC[0] = reg;
    return IOAPIC[4];
}

static void ioapic_write(uint32_t reg, uint32_t v)
{
    IOAPIC[0] = reg;
    IOAPIC[4] = v;
}

static void route(unsigned pin, uint32_t low)
{
    ioapic_write(0x11 + 2 * pin, REG(ID));
    ioapic_write(0x10 + 2 * pin, low);
}

static void line(unsigned n, uint8_t level) { outb((uint16_t)(0x2000 + n), level); }

static void pic_init(uint8_t mask_master, uint8_t mask_slave)
{
    static const uint8_t words[][2] = { { 0x20, 0x11 }, { 0x21, 0x20 }, { 0x21, 4 }, { 0x21, 1 },
                                        { 0xa0, 0x11 }, { 0xa1, 0x28 }, { 0xa1, 2 }, { 0xa1, 1 } };
    for (unsigned i = 0; i < 8; i++) {
        outb(words[i][0], words[i][1]);
    }
    outb(0x21, mask_master);
    outb(0xa1, mask_slave);
}

static void pit_rate(uint16_t count)
{
    outb(0x43, 0x34);
    outb(0x40, (uint8_t)count);
    outb(0x40, (uint8_t)(count >> 8));
}

/* -- 8259 -- */
static void test_pic(void)
{
    pic_eoi = true;
    pic_init(0xfe, 0xff);
    pit_rate(11932);
    uint64_t start = rdtsc();
    wait_got(0x20, 10, 20000000000ull);
    uint64_t ticks = rdtsc() - start;
    ok(got[0x20] >= 10, "the 8254 ticks through the 8259");
    ok(ticks > 1000000, "not all at once");
    outb(0x43, 0x30); /* no more */
    outb(0x21, 0xff);
    /* RTC, through the slave */
    outb(0x70, 0x0a);
    outb(0x71, 0x26);
    outb(0x70, 0x0b);
    uint8_t b = inb(0x71);
    outb(0x70, 0x0b);
    outb(0x71, b | 0x40);
    outb(0x70, 0x0c);
    inb(0x71);
    outb(0x21, 0xfb);
    outb(0xa1, 0xfe);
    wait_got(0x28, 5, 20000000000ull);
    ok(got[0x28] >= 5, "the RTC's periodic interrupt through the slave");
    outb(0x70, 0x0b);
    outb(0x71, b);
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    /* A request that is taken back is spurious, without in-service bit. */
    clear();
    outb(0x21, 0xf7);
    line(3, 1);
    line(3, 0);
    window();
    ok_eq(got[0x23], 0, "a request withdrawn in time is none");
    line(3, 1);
    window();
    line(3, 0);
    ok_eq(got[0x23], 1, "an edge of the test device");
    outb(0x21, 0xff);
    pic_eoi = false;
}

/* -- Local APIC -- */
static void test_apic(void)
{
    clear();
    ok_eq(REG(VERSION) & 0xf0, 0x10, "an integrated APIC");
    icr(0x4050);
    icr(0x4070);
    icr(0x4060);
    ok_eq(taken, 0, "nothing with IF=0");
    window();
    ok(taken == 3 && order[0] == 0x70 && order[1] == 0x60 && order[2] == 0x50,
       "by priority, each at once after the last one's EOI");
    clear();
    __asm__ volatile("mov %0, %%cr8" ::"r"(6ull));
    ok_eq(REG(TPR), 0x60, "CR8 is the upper half of TPR");
    icr(0x4065);
    icr(0x4075);
    window();
    ok(got[0x75] == 1 && got[0x65] == 0, "CR8 bars its class and those below");
    REG(TPR) = 0x50;
    uint64_t cr8;
    __asm__ volatile("mov %%cr8, %0" : "=r"(cr8));
    ok_eq(cr8, 5, "TPR is seen in CR8");
    window();
    ok_eq(got[0x65], 1, "and lets them through when it is lowered");
    REG(TPR) = 0;
    clear();
    icr(0x44051);
    __asm__ volatile("sti; cli" ::: "memory");
    ok_eq(got[0x51], 0, "no interrupt between STI and the next instruction");
    window();
    ok_eq(got[0x51], 1, "the one after");
    /* HLT is left. */
    icr(0x44052);
    __asm__ volatile("sti; hlt; cli" ::: "memory");
    ok_eq(got[0x52], 1, "HLT ends with an interrupt that was pending");
    icr(0x4003);
    REG(ESR) = 0;
    ok_eq(REG(ESR), 0x20, "an illegal vector is not sent");
    REG(ESR) = 0;
}

static void test_timer(void)
{
    clear();
    REG(DIVIDE) = 0xb;
    REG(LVT_TIMER) = 0x90;
    REG(INITIAL) = 100000;
    uint32_t now = REG(CURRENT);
    ok(now != 0 && now <= 100000, "the timer counts down");
    wait_got(0x90, 1, 20000000000ull);
    ok_eq(got[0x90], 1, "one-shot");
    ok_eq(REG(CURRENT), 0, "and stays at zero");
    REG(LVT_TIMER) = 0x20091;
    REG(INITIAL) = 50000;
    wait_got(0x91, 5, 20000000000ull);
    ok(got[0x91] >= 5, "periodic");
    REG(INITIAL) = 0;
    window();
    uint32_t r[4];
    cpuid(1, 0, r);
    if (!(r[2] & 1u << 24)) {
        skip("TSC-deadline");
        return;
    }
    REG(LVT_TIMER) = 0x40092;
    wrmsr(TSC_DEADLINE, rdtsc());
    window();
    ok_eq(got[0x92], 1, "a TSC deadline that has passed fires at once");
    ok_eq(rdmsr(TSC_DEADLINE), 0, "and is disarmed");
    uint64_t deadline = rdtsc() + 5000000;
    wrmsr(TSC_DEADLINE, deadline);
    wait_got(0x92, 2, 20000000000ull);
    ok(got[0x92] == 2 && rdtsc() >= deadline, "one in the future fires, not before");
    uint64_t tsc = rdtsc();
    wrmsr(TSC_DEADLINE, tsc + (1ull << 50));
    wrmsr(0x10, tsc + (1ull << 50));
    wait_got(0x92, 3, 20000000000ull);
    wrmsr(0x3b, 0); /* IA32_TSC_ADJUST: and back */
    ok_eq(got[0x92], 3, "one that the guest's TSC is set to");
    REG(LVT_TIMER) = 0x10000;
}

/* -- I/O APIC -- */
static void test_ioapic(void)
{
    clear();
    ok_eq(ioapic_read(1), 0x00170020, "24 pins");
    route(14, 0xa0);
    line(14, 1);
    line(14, 0);
    window();
    ok_eq(got[0xa0], 1, "an edge");
    ok_eq(REG(TMR + 0x50) & 1, 0, "TMR says edge");
    line_to_lower = 14;
    route(14, 0x80a1);
    line(14, 1);
    window();
    ok_eq(got[0xa1], 1, "a level that its handler takes back");
    ok_eq(REG(TMR + 0x50) >> 1 & 1, 1, "TMR says level");
    ok_eq(ioapic_read(0x10 + 28), 0x80a1, "EOI has cleared remote IRR");
    clear();
    lower_after = 3;
    line(14, 1);
    window();
    ok_eq(got[0xa1], 3, "a level that stays comes again");
    route(14, 0x180a1);
    lower_after = 0;
    clear();
    line(14, 1);
    line(14, 0);
    line(14, 1);
    window();
    ok_eq(got[0xa1], 0, "masked");
    route(14, 0x80a2);
    line_to_lower = 14;
    window();
    ok_eq(got[0xa2], 1, "unmasked while active");
    line_to_lower = -1;
    route(14, 0x10000);
    /* HPET timer 2 on pin 22 */
    clear();
    route(22, 0xa3);
    HPET[2] = 1;
    HPET[0x140 / 8] = 22 << 9 | 4;
    HPET[0x148 / 8] = HPET[0xf0 / 8] + 100000;
    wait_got(0xa3, 1, 20000000000ull);
    ok_eq(got[0xa3], 1, "an HPET comparator");
    HPET[0x140 / 8] = 0;
    route(22, 0x10000);
}

/* -- x2APIC -- */
static void write_base(void *arg) { wrmsr(APIC_BASE, *(uint64_t *)arg); }
static void write_x2(void *arg) { wrmsr((uint32_t) * (uint64_t *)arg, ~0ull); }

static void test_x2apic(void)
{
    uint32_t r[4];
    cpuid(1, 0, r);
    if (!(r[2] & 1u << 21)) {
        skip("x2APIC");
        return;
    }
    uint64_t base = rdmsr(APIC_BASE);
    uint64_t bad[] = { (base & ~0x800ull) | 0x400, base | 1, base | 1ull << 60 };
    uint64_t self = X2_SELF;
    for (unsigned i = 0; i < 3; i++) {
        ok_trap(run(write_base, &bad[i]), 13, 0, "a bad IA32_APIC_BASE");
    }
    ok_trap(run(write_x2, &self), 13, 0, "no x2APIC registers in xAPIC mode");
    wrmsr(APIC_BASE, base | 0x400);
    x2 = true;
    clear();
    wrmsr(X2_SELF, 0xb0);
    window();
    ok_eq(got[0xb0], 1, "self IPI");
    wrmsr(X2_ICR, 0x440b1);
    window();
    ok_eq(got[0xb1], 1, "ICR with shorthand");
    wrmsr(X2_ICR, rdmsr(0x802) << 32 | 0xb2);
    window();
    ok_eq(got[0xb2], 1, "ICR to an id");
    wrmsr(X2_ICR, rdmsr(0x80d) << 32 | 0x8b3);
    window();
    ok_eq(got[0xb3], 1, "ICR to a logical id");
    ok_trap(run(write_x2, &self), 13, 0, "reserved bits");
    ok_trap(run(write_base, &base), 13, 0, "no way back to xAPIC mode");
    wrmsr(APIC_BASE, base & ~0xc00ull);
    cpuid(1, 0, r);
    ok_eq(r[3] >> 9 & 1, 0, "CPUID says that it is off");
    wrmsr(APIC_BASE, base);
    x2 = false;
    ok_eq(REG(SVR), 0xff, "off and on again is a reset");
    REG(SVR) = 0x1ff;
}

/* -- Clocks -- */
static uint32_t inl(uint16_t port)
{
    uint32_t v;
    __asm__ volatile("inl %1,%0" : "=a"(v) : "Nd"(port));
    return v;
}

/* A is right by B when their rates agree to a hundredth. */
static void agree(uint64_t a, uint64_t a_hz, uint64_t b, uint64_t b_hz, const char *name)
{
    uint64_t x = a / 1000 * (b_hz / 1000), y = b / 1000 * (a_hz / 1000);
    ok(x > y - y / 100 && x < y + y / 100, name);
}

static void test_clocks(void)
{
    uint32_t r[4];
    cpuid(0x15, 0, r);
    uint64_t tsc_hz = (uint64_t)r[2] * r[1] / r[0];
    REG(LVT_TIMER) = 0x10000;
    REG(DIVIDE) = 0xb;
    HPET[2] = 1;
    uint64_t hpet0 = HPET[0xf0 / 8];
    uint32_t pm0 = inl(0x608);
    uint64_t tsc0 = rdtsc();
    REG(INITIAL) = 0xffffffff;
    while (HPET[0xf0 / 8] - hpet0 < 50000000) { /* half a second */
        __asm__ volatile("pause");
    }
    uint64_t hpet = HPET[0xf0 / 8] - hpet0;
    uint32_t pm = inl(0x608) - pm0;
    uint64_t tsc = rdtsc() - tsc0;
    uint32_t apic = 0xffffffff - REG(CURRENT);
    REG(INITIAL) = 0;
    agree(tsc, tsc_hz, hpet, 100000000, "TSC by CPUID 0x15 and HPET");
    agree(pm, 3579545, hpet, 100000000, "PM timer and HPET");
    agree(apic, r[2], hpet, 100000000, "APIC timer by CPUID 0x15 and HPET");
}

int test_main(void)
{
    trap_hook = on_trap;
    line_to_lower = -1;
    REG(SVR) = 0x1ff;
    test_pic();
    REG(LINT0) = 0x10700;
    test_apic();
    test_timer();
    test_ioapic();
    test_clocks();
    test_x2apic();
    return 0;
}
