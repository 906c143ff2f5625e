/* SPDX-License-Identifier: Apache-2.0
 *
 * CPUID tells the truth about instructions and modes: what it does not announce is #UD or #GP, what
 * it announces is not. Hypercalls and ports of other hypervisors do nothing. */
#include "rt.h"

enum reg { EAX, EBX, ECX, EDX };

/* Instructions that are #UD without their bit. All are harmless at CPL 0 with these registers:
 * rax = rdx = 0, rcx = 0, rbx = rdi = a page of zeros. */
#define INSNS(X)                                                                                   \
    X(rdtscp, 0x80000001, EDX, 27, ".byte 0x0f, 0x01, 0xf9")                                       \
    X(rdpid, 7, ECX, 22, ".byte 0xf3, 0x0f, 0xc7, 0xf8")                                           \
    X(rdrand, 1, ECX, 30, ".byte 0x0f, 0xc7, 0xf0")                                                \
    X(rdseed, 7, EBX, 18, ".byte 0x0f, 0xc7, 0xf8")                                                \
    X(rdpru, 0x80000008, EBX, 4, ".byte 0x0f, 0x01, 0xfd")                                         \
    X(clzero, 0x80000008, EBX, 0, "mov %rbx, %rax; .byte 0x0f, 0x01, 0xfc")                        \
    X(monitorx, 0x80000001, ECX, 29, "mov %rbx, %rax; .byte 0x0f, 0x01, 0xfa")                     \
    X(monitor, 1, ECX, 3, "mov %rbx, %rax; .byte 0x0f, 0x01, 0xc8")                                \
    X(movbe, 1, ECX, 22, ".byte 0x0f, 0x38, 0xf0, 0x03")                                           \
    X(popcnt, 1, ECX, 23, "popcnt %rax, %rax")                                                     \
    X(crc32, 1, ECX, 20, ".byte 0xf2, 0x0f, 0x38, 0xf0, 0xc0")                                     \
    X(pclmulqdq, 1, ECX, 1, ".byte 0x66, 0x0f, 0x3a, 0x44, 0xc0, 0")                               \
    X(aesenc, 1, ECX, 25, ".byte 0x66, 0x0f, 0x38, 0xdc, 0xc0")                                    \
    X(pshufb, 1, ECX, 9, ".byte 0x66, 0x0f, 0x38, 0x00, 0xc0")                                     \
    X(pmulld, 1, ECX, 19, ".byte 0x66, 0x0f, 0x38, 0x40, 0xc0")                                    \
    X(sha1msg1, 7, EBX, 29, ".byte 0x0f, 0x38, 0xc9, 0xc0")                                        \
    X(gf2p8mulb, 7, ECX, 8, ".byte 0x66, 0x0f, 0x38, 0xcf, 0xc0")                                  \
    X(adcx, 7, EBX, 19, ".byte 0x66, 0x0f, 0x38, 0xf6, 0xc0")                                      \
    X(invpcid, 7, EBX, 10, "mov $2, %ecx; .byte 0x66, 0x0f, 0x38, 0x82, 0x0b")                     \
    X(rdfsbase, 7, EBX, 0, ".byte 0xf3, 0x0f, 0xae, 0xc0")                                         \
    X(clac, 7, EBX, 20, ".byte 0x0f, 0x01, 0xca")                                                  \
    X(clflushopt, 7, EBX, 23, ".byte 0x66, 0x0f, 0xae, 0x3b")                                      \
    X(wbnoinvd_is_wbinvd, 1, EDX, 0, ".byte 0xf3, 0x0f, 0x09")                                     \
    X(serialize, 7, EDX, 14, ".byte 0x0f, 0x01, 0xe8")                                             \
    X(movdiri, 7, ECX, 27, ".byte 0x0f, 0x38, 0xf9, 0x03")                                         \
    X(movdir64b, 7, ECX, 28, ".byte 0x66, 0x0f, 0x38, 0xf8, 0x3b")                                 \
    X(tpause, 7, ECX, 5, ".byte 0x66, 0x0f, 0xae, 0xf0")                                           \
    X(lzcnt_or_bsr, 1, EDX, 0, ".byte 0xf3, 0x0f, 0xbd, 0xc0")                                     \
    X(prefetchw, 1, EDX, 0, ".byte 0x0f, 0x0d, 0x0b")                                              \
    X(endbr64, 1, EDX, 0, ".byte 0xf3, 0x0f, 0x1e, 0xfa")                                          \
    X(lahf, 0x80000001, ECX, 0, "lahf")                                                            \
    X(cmpxchg16b, 1, ECX, 13, ".byte 0x48, 0x0f, 0xc7, 0x0b")                                      \
    X(extrq, 0x80000001, ECX, 6, ".byte 0x66, 0x0f, 0x79, 0xc0")                                   \
    X(femms, 0x80000001, EDX, 31, ".byte 0x0f, 0x0e")

#define DEFINE(name, leaf, reg, bit, text)                                                         \
    static __attribute__((naked)) void run_##name(void) { __asm__(text "; ret"); }
INSNS(DEFINE)

static const struct insn {
    const char *name;
    uint32_t leaf;
    enum reg reg;
    unsigned bit;
    void (*fn)(void);
} insns[] = {
#define ROW(name, leaf, reg, bit, text) { #name, leaf, reg, bit, run_##name },
    INSNS(ROW)
};

static uint8_t page[4096] __attribute__((aligned(4096)));

static void call(void *fn)
{
    __asm__ volatile("call *%0"
                     : "+S"(fn)
                     : "a"(0), "b"(page), "c"(0), "d"(0), "D"(page)
                     : "memory", "cc", "r8", "r9", "r10", "r11");
}

static bool announced(uint32_t leaf, enum reg reg, unsigned bit)
{
    uint32_t r[4];
    cpuid(leaf & 0x80000000, 0, r);
    if (r[EAX] < leaf) {
        return false;
    }
    cpuid(leaf, 0, r);
    return r[reg] >> bit & 1;
}

static void instructions(void)
{
    for (unsigned i = 0; i < sizeof insns / sizeof insns[0]; i++) {
        const struct insn *in = &insns[i];
        bool there = announced(in->leaf, in->reg, in->bit);
        int v = run(call, (void *)(word)in->fn);
        ok(there ? v == NONE : v == 6, in->name);
        if (there ? v != NONE : v != 6) {
            print(there ? "# announced, vector " : "# not announced, vector ");
            print_hex((uint32_t)v);
            print("\n");
        }
    }
}

/* -- Bits of CR4 and EFER -- */
static void do_cr4(void *arg)
{
    word old = read_cr4();
    write_cr4(old | *(word *)arg);
    write_cr4(old);
}

static void cr4_bits(void)
{
    static const struct {
        const char *name;
        unsigned bit;
        uint32_t leaf;
        enum reg reg;
        unsigned feature;
    } bits[] = {
        { "CR4.UMIP", 11, 7, ECX, 2 },       { "CR4.VMXE", 13, 1, ECX, 5 },
        { "CR4.SMXE", 14, 1, ECX, 6 },       { "CR4.FSGSBASE", 16, 7, EBX, 0 },
        { "CR4.PCIDE", 17, 1, ECX, 17 },     { "CR4.OSXSAVE", 18, 1, ECX, 26 },
        { "CR4.SMEP", 20, 7, EBX, 7 },       { "CR4.SMAP", 21, 7, EBX, 20 },
        { "CR4.PKE", 22, 7, ECX, 3 },        { "CR4.CET", 23, 7, ECX, 7 },
        { "CR4.PKS", 24, 7, ECX, 31 },       { "CR4.UINTR", 25, 7, EDX, 5 },
        { "bit 15 of CR4", 15, 0, EAX, 31 }, { "bit 19 of CR4", 19, 0, EAX, 31 },
    };
    for (unsigned i = 0; i < sizeof bits / sizeof bits[0]; i++) {
        word bit = 1ul << bits[i].bit;
        bool there = announced(bits[i].leaf, bits[i].reg, bits[i].feature);
        int v = run(do_cr4, &bit);
        /* CET needs CR0.WP, which is set here; PCIDE needs a CR3 with PCID 0: it has. */
        ok(there ? v == NONE : v == 13, bits[i].name);
    }
    word la57 = 1ul << 12;
    ok_trap(run(do_cr4, &la57), 13, 0, "CR4.LA57 cannot change in long mode");
}

static void do_rdpmc(void *arg)
{
    __asm__ volatile("rdpmc" ::"c"(*(uint32_t *)arg) : "eax", "edx");
}
static void do_rdmsr(void *arg) { rdmsr(*(uint32_t *)arg); }

static void counters(void)
{
    uint32_t r[4];
    cpuid(0, 0, r);
    uint32_t version = 0;
    if (r[EAX] >= 0xa && r[EBX] != 0x68747541) {
        cpuid(0xa, 0, r);
        version = r[EAX] & 0xff;
    }
    if (version != 0) {
        skip("performance counters are there");
        return;
    }
    uint32_t fixed = 1u << 30, none = 77, global = 0x38f;
    ok_trap(run(do_rdpmc, &fixed), 13, 0, "no fixed performance counter");
    ok_trap(run(do_rdpmc, &none), 13, 0, "no 77th performance counter");
    ok_trap(run(do_rdmsr, &global), 13, 0, "no global control of counters");
}

/* -- Doors of hypervisors -- */
static void do_vmcall(void *arg)
{
    uint64_t *r = arg;
    uint32_t v[4];
    cpuid(0, 0, v);
    if (v[EBX] == 0x68747541) {
        __asm__ volatile(".byte 0x0f, 0x01, 0xd9" : "+a"(*r) : "b"(0), "c"(0), "d"(0), "S"(0));
    } else {
        __asm__ volatile(".byte 0x0f, 0x01, 0xc1" : "+a"(*r) : "b"(0), "c"(0), "d"(0), "S"(0));
    }
}

static void doors(void)
{
    uint32_t r[4];
    cpuid(1, 0, r);
    ok(r[ECX] >> 31, "a hypervisor is announced");
    cpuid(0x40000000, 0, r);
    ok(r[EAX] >= 0x40000001 && r[EBX] == 0x4b4d564b, "KVM's leaves");
    uint64_t rax = 0x7777;
    ok_trap(run(do_vmcall, &rax), NONE, 0, "a hypercall that is unknown");
    ok_eq(rax, (uint64_t)-1000, "is ENOSYS");
    uint32_t a = 0x564d5868, b = 0, c = 10;
    __asm__ volatile("inl %%dx, %%eax" : "+a"(a), "+b"(b), "+c"(c) : "d"(0x5658) : "memory");
    ok(b == 0 || b == 0x564d5868, "the backdoor of VMware: there or not");
    ok_eq(inb(0x5659), b == 0 ? 0xff : inb(0x5659), "nobody else has its port");
}

int test_main(void)
{
    if (announced(7, EBX, 0)) {
        write_cr4(read_cr4() | 1ul << 16); /* FSGSBASE */
    }
    instructions();
    cr4_bits();
    counters();
    doors();
    return 0;
}
