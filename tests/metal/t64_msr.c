/* SPDX-License-Identifier: Apache-2.0
 *
 * MSRs: values after reset, what may be written, #GP for the rest; CPUID against what there is;
 * XSETBV and XSAVE areas; the time-stamp counter; the paravirtual clock. */
#include "rt.h"

struct msr_args {
    uint32_t msr;
    uint64_t value;
};
static void do_rd(void *arg)
{
    struct msr_args *a = arg;
    a->value = rdmsr(a->msr);
}
static void do_wr(void *arg)
{
    struct msr_args *a = arg;
    wrmsr(a->msr, a->value);
}
static int rd(uint32_t msr, uint64_t *v)
{
    struct msr_args a = { msr, 0 };
    int r = run(do_rd, &a);
    *v = a.value;
    return r;
}
static int wr(uint32_t msr, uint64_t v)
{
    struct msr_args a = { msr, v };
    return run(do_wr, &a);
}

static void round_trip(uint32_t msr, uint64_t v, const char *name)
{
    uint64_t old = rdmsr(msr);
    uint64_t got = 0;
    int w = wr(msr, v);
    rd(msr, &got);
    ok(w == NONE && got == v, name);
    wrmsr(msr, old);
}

static void faults(uint32_t msr, uint64_t v, const char *name) { ok_trap(wr(msr, v), 13, 0, name); }

static void msrs(void)
{
    uint64_t v;
    ok_trap(rd(0xdeadbeef, &v), 13, 0, "RDMSR of no MSR");
    faults(0xdeadbeef, 0, "WRMSR of no MSR");
    round_trip(0x174, 0x10, "SYSENTER_CS");
    round_trip(0x175, 0xffff800000001000, "SYSENTER_ESP");
    faults(0x175, 0x0000800000000000, "SYSENTER_ESP non-canonical");
    faults(0x176, 0x8000000000000000, "SYSENTER_EIP non-canonical");
    round_trip(0xc0000081, 0x123456789abcdef0, "STAR");
    round_trip(0xc0000082, 0xffffffff81000000, "LSTAR");
    faults(0xc0000082, 0x0000800000000000, "LSTAR non-canonical");
    faults(0xc0000083, 0x0000800000000000, "CSTAR non-canonical");
    round_trip(0xc0000084, 0x47700, "SFMASK");
    faults(0xc0000100, 0x0000800000000000, "FS_BASE non-canonical");
    faults(0xc0000101, 0x0000800000000000, "GS_BASE non-canonical");
    faults(0xc0000102, 0x0000800000000000, "KERNEL_GS_BASE non-canonical");
    round_trip(0xc0000102, 0xffff888000000000, "KERNEL_GS_BASE");
    uint32_t r[4];
    cpuid(0x80000001, 0, r);
    if (r[3] & 1u << 27) {
        round_trip(0xc0000103, 0x1234, "TSC_AUX");
        uint32_t a, c, d;
        wrmsr(0xc0000103, 77);
        __asm__ volatile("rdtscp" : "=a"(a), "=c"(c), "=d"(d));
        ok_eq(c, 77, "RDTSCP");
    }
    ok_eq(rdmsr(0xc0000080) & 0xd01, 0xd01, "EFER");
    faults(0xc0000080, rdmsr(0xc0000080) | 2, "EFER reserved bit");
    faults(0xc0000080, rdmsr(0xc0000080) & ~0x100ull, "EFER.LME off under paging");
    ok_trap(wr(0xc0000080, rdmsr(0xc0000080) & ~0x400ull), NONE, 0, "EFER.LMA is not written");
    ok(rdmsr(0xc0000080) & 0x400, "and stays");
    ok_eq(rdmsr(0x277), 0x0007040600070406, "PAT after reset");
    round_trip(0x277, 0x0007010600070106, "PAT");
    faults(0x277, 0x0002040600070406, "PAT with a reserved type");
    faults(0x277, 0x0807040600070406, "PAT with a reserved bit");
    uint64_t cap = rdmsr(0xfe);
    ok_eq(cap & 0x5ff, 0x508, "MTRRCAP: 8 ranges, fixed, WC");
    round_trip(0x200, 0x80000006, "MTRR base");
    round_trip(0x201, 0xf80000800, "MTRR mask");
    faults(0x200, 0x80000002, "MTRR base with a reserved type");
    faults(0x201, 0x80000001, "MTRR mask with a reserved bit");
    round_trip(0x250, 0x0606060606060606, "fixed MTRR");
    faults(0x250, 0x0606060606060602, "fixed MTRR with a reserved type");
    round_trip(0x2ff, 0xc06, "MTRR default type");
    faults(0x2ff, 0x1006, "MTRR default type with a reserved bit");
    ok_trap(wr(0xfe, 0), 13, 0, "MTRRCAP is read-only");
    uint64_t mcg = rdmsr(0x179);
    ok((mcg & 0xff) >= 1, "machine-check banks");
    ok_eq(rdmsr(0x17a), 0, "MCG_STATUS");
    ok_eq(rdmsr(0x401), 0, "MC0_STATUS");
    faults(0x401, 1, "MC0_STATUS takes 0 only");
    ok_trap(wr(0x401, 0), NONE, 0, "MC0_STATUS 0");
    ok_trap(rd(0x1b, &v), NONE, 0, "APIC_BASE");
    ok_eq(v & 0xfffff900, 0xfee00900, "enabled, BSP");
    faults(0x1b, v | 1, "APIC_BASE reserved bit");
    ok_trap(rd(0x800, &v), 13, 0, "x2APIC register in xAPIC mode");
    ok_trap(rd(0x1a0, &v), NONE, 0, "MISC_ENABLE");
    ok_trap(rd(0x8b, &v), NONE, 0, "microcode revision");
    ok_trap(rd(0x17, &v), NONE, 0, "PLATFORM_ID");
}

static void tsc(void)
{
    uint64_t a = rdtsc();
    uint64_t b = rdtsc();
    ok(b > a, "TSC goes up");
    wrmsr(0x10, 0x100000000000);
    b = rdtsc();
    ok(b >= 0x100000000000 && b < 0x100100000000, "TSC can be set");
    uint32_t r[4];
    cpuid(7, 0, r);
    if (r[1] & 2) {
        uint64_t adj = rdmsr(0x3b);
        ok(adj != 0, "TSC_ADJUST follows");
        wrmsr(0x3b, adj - 0x80000000000);
        b = rdtsc();
        ok(b >= 0x80000000000 && b < 0x80100000000, "TSC_ADJUST moves the TSC");
        wrmsr(0x3b, 0);
    }
}

static void cpuids(void)
{
    uint32_t r[4], s[4];
    cpuid(0, 0, r);
    ok(r[0] >= 0xd, "CPUID leaves up to 0xd");
    cpuid(1, 0, r);
    ok(r[3] & 1 && r[3] & 1u << 25 && r[3] & 1u << 26, "x87, SSE, SSE2");
    ok(!(r[2] & 1u << 27), "OSXSAVE clear");
    if (r[2] & 1u << 26) {
        write_cr4(read_cr4() | 1ul << 18);
        cpuid(1, 0, r);
        ok(r[2] & 1u << 27, "OSXSAVE follows CR4");
        cpuid(0xd, 0, r);
        ok_eq(r[1], 576, "XSAVE area with x87 only");
        uint32_t mask = r[0];
        uint32_t whole = r[2];
        __asm__ volatile("xsetbv" ::"a"(mask), "d"(0), "c"(0));
        cpuid(0xd, 0, r);
        ok_eq(r[1], whole, "XSAVE area with everything");
        uint32_t end = 576;
        for (unsigned i = 2; i < 32; i++) {
            if (mask & 1u << i) {
                cpuid(0xd, i, s);
                if (s[0] + s[1] > end) {
                    end = s[0] + s[1];
                }
            }
        }
        ok_eq(end, whole, "components fill it");
    } else {
        skip("XSAVE");
    }
    cpuid(0x40000000, 0, r);
    print("# hypervisor leaves up to ");
    print_hex(r[0]);
    print("\n");
}

struct xcr {
    uint32_t index, value;
};
static void do_xsetbv(void *arg)
{
    struct xcr *x = arg;
    __asm__ volatile("xsetbv" ::"a"(x->value), "d"(0), "c"(x->index));
}

static void xcr0(void)
{
    struct xcr x = { 0, 2 };
    ok_trap(run(do_xsetbv, &x), 13, 0, "XCR0 without x87");
    x.value = 5;
    ok_trap(run(do_xsetbv, &x), 13, 0, "XCR0 with AVX without SSE");
    x.value = 1u << 31 | 1;
    ok_trap(run(do_xsetbv, &x), 13, 0, "XCR0 with a component that is not there");
    x = (struct xcr){ 1, 1 };
    ok_trap(run(do_xsetbv, &x), 13, 0, "XCR1");
    x = (struct xcr){ 0, 3 };
    ok_trap(run(do_xsetbv, &x), NONE, 0, "XCR0 with x87 and SSE");
    write_cr4(read_cr4() & ~(1ul << 18));
    ok_trap(run(do_xsetbv, &x), 6, 0, "XSETBV without OSXSAVE");
}

/* struct pvclock_vcpu_time_info */
static struct {
    uint32_t version, pad;
    uint64_t tsc, time;
    uint32_t mul;
    int8_t shift;
    uint8_t flags, pad2[2];
} clock __attribute__((aligned(64)));

static uint64_t clock_ns(void)
{
    uint64_t d = rdtsc() - clock.tsc;
    d = clock.shift < 0 ? d >> -clock.shift : d << clock.shift;
    return clock.time + (uint64_t)((unsigned __int128)d * clock.mul >> 32);
}

static void kvmclock(void)
{
    uint32_t r[4];
    cpuid(0x40000000, 0, r);
    if (r[1] != 0x4b4d564b) {
        skip("paravirtual clock");
        return;
    }
    cpuid(0x40000001, 0, r);
    ok(r[0] & 8, "CLOCKSOURCE2");
    wrmsr(0x4b564d01, (word)&clock | 1);
    ok(clock.version != 0 && !(clock.version & 1), "clock page filled");
    uint64_t a = clock_ns();
    uint64_t t = rdtsc();
    uint32_t c[4];
    cpuid(0x15, 0, c);
    uint64_t hz = (uint64_t)c[2] * c[1] / (c[0] ? c[0] : 1);
    while (hz && rdtsc() - t < hz / 100) {
        __asm__ volatile("pause");
    }
    uint64_t d = clock_ns() - a;
    ok(d > 9900000 && d < 200000000, "10 ms by the TSC are 10 ms by the clock");
    wrmsr(0x4b564d01, 0);
}

int test_main(void)
{
    msrs();
    tsc();
    cpuids();
    xcr0();
    kvmclock();
    return 0;
}
