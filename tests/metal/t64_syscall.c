/* SPDX-License-Identifier: Apache-2.0
 *
 * SYSCALL SYSRET SYSENTER SYSEXIT, SWAPGS, FS and GS bases, UMIP; interrupt shadows of STI and MOV
 * SS. */
#include "rt.h"

#define CODE(name, text)                                                                           \
    __asm__(".text\n.globl " #name "\n" #name ": " text "\n ret\n");                               \
    void name(void *)

uint64_t saved[8];
static uint8_t ustack[4096] __attribute__((aligned(16)));
static uint8_t kstack[4096] __attribute__((aligned(16)));

/* Entry of SYSCALL: remember, go back by SYSRETQ; of SYSENTER: by INT 0x80, seen from the kernel.
 */
__asm__(".text\n.globl entry\nentry: mov %rcx, saved\n mov %r11, saved+8\n mov %cs, %ecx\n"
        "mov %rcx, saved+16\n"
        "mov %ss, %ecx\n mov %rcx, saved+24\n pushf\n pop saved+32\n mov saved, %rcx\n sysretq\n");
extern uint8_t entry[];
__asm__(".text\n.globl sysenter_entry\nsysenter_entry: mov %cs, %eax\n mov %rax, saved\n"
        "mov %ss, %eax\n"
        "mov %rax, saved+8\n mov %rsp, saved+16\n pushf\n pop saved+24\n mov $1f, %edx\n"
        "mov %rbp, %rcx\n sysexitq\n"
        "1: int $0x80\n");
extern uint8_t sysenter_entry[];
__asm__(".text\n.globl u_syscall\nu_syscall: syscall\nu_back: int $0x80\n");
extern uint8_t u_syscall[], u_back[];
__asm__(".text\n.globl u_sysenter\nu_sysenter: mov %rsp, %rbp\n sysenter\n");
extern uint8_t u_sysenter[];
CODE(do_sysret_noncanon, "mov $0x800000000000, %rcx\n sysretq");
CODE(do_sysexit_noncanon, "mov $0x800000000000, %rcx\n xor %edx, %edx\n sysexitq");
CODE(do_rdfsbase, "rdfsbase %rax\n mov %rax, saved");
CODE(do_wrgsbase, "mov $0x800000000000, %rax\n wrgsbase %rax");
CODE(do_swapgs,
     "mov $0x1234, %eax\n wrgsbase %rax\n swapgs\n rdgsbase %rax\n mov %rax, saved\n swapgs\n"
     "rdgsbase %rax\n mov %rax, saved+8");
CODE(do_syscall, "syscall");
CODE(do_null_fs,
     "mov $0x5678, %eax\n wrfsbase %rax\n xor %eax, %eax\n mov %eax, %fs\n rdfsbase %rax\n"
     "mov %rax, saved");

static const uint8_t u_sgdt[] = { 0x0f, 0x01, 0x04, 0x24, 0xcd, 0x80 };
static const uint8_t u_sidt[] = { 0x0f, 0x01, 0x0c, 0x24, 0xcd, 0x80 };
static const uint8_t u_sldt[] = { 0x0f, 0x00, 0xc0, 0xcd, 0x80 };
static const uint8_t u_str[] = { 0x0f, 0x00, 0xc8, 0xcd, 0x80 };
static const uint8_t u_smsw[] = { 0x0f, 0x01, 0xe0, 0xcd, 0x80 };
static const uint8_t u_rdtsc[] = { 0x0f, 0x31, 0xcd, 0x80 };
static const uint8_t u_rdmsr[] = { 0x0f, 0x32 };
static const uint8_t u_swapgs[] = { 0x0f, 0x01, 0xf8 };
static const uint8_t u_stac[] = { 0x0f, 0x01, 0xcb };
static const uint8_t u_invlpg[] = { 0x0f, 0x01, 0x38 };
static const uint8_t u_sysret[] = { 0x48, 0x0f, 0x07 };
static const uint8_t u_wbinvd[] = { 0x0f, 0x09 };
static const uint8_t u_lgdt[] = { 0x0f, 0x01, 0x14, 0x24 };
static const uint8_t u_clts[] = { 0x0f, 0x06 };

static void open_to_user(void)
{
    extern uint64_t boot_pml4[512], boot_pdpt[512], boot_pd[2048];
    boot_pml4[0] |= 4;
    boot_pdpt[0] |= 4;
    for (unsigned i = 0; i < 512; i++) {
        boot_pd[i] |= 4;
    }
    write_cr3(read_cr3());
}

static struct start user(const void *ip)
{
    return (struct start){ .ip = (word)ip,
                           .cs = SEL_UCODE,
                           .flags = 2,
                           .sp = (word)(ustack + 2048),
                           .ss = SEL_UDATA,
                           .es = SEL_UDATA,
                           .ds = SEL_UDATA };
}

static int go(const void *ip)
{
    struct start s = user(ip);
    return enter(&s);
}

/* STAR and SYSENTER want code and stack in a row: 0x70 kernel CS, 0x78 SS, then +16.. user ones. */
static void selectors(void)
{
    gdt_set(0x70, gdt[SEL_CODE >> 3]);
    gdt_set(0x78, gdt[SEL_DATA >> 3]);
    gdt_set(0x80, descriptor(0, 0xfffff, 0xfb, 0xc)); /* 32-bit user code: STAR base */
    gdt_set(0x88, gdt[SEL_UDATA >> 3]);
    gdt_set(0x90, gdt[SEL_UCODE >> 3]);
    gdt_set(0x98, gdt[SEL_UDATA >> 3]);
}

static void syscalls(void)
{
    wrmsr(0xc0000081, 0x70ull << 32 | 0x80ull << 48);
    wrmsr(0xc0000082, (word)entry);
    wrmsr(0xc0000084, 0x4700);
    struct start s = user(u_syscall);
    s.flags = 2 | 0x600 | 1;
    ok_trap(enter(&s), 0x80, 0, "SYSCALL and SYSRET");
    ok_eq(saved[0], (word)u_back, "RCX: return address");
    ok_eq(saved[1], 0x603, "R11: flags");
    ok_eq(saved[2], 0x70, "CS");
    ok_eq(saved[3], 0x78, "SS");
    ok_eq(saved[4] & 0x4703, 3, "flags masked");
    ok_eq(trap.cs, 0x90 | 3, "CS of SYSRET");
    ok_eq(trap.ss, 0x88 | 3, "SS of SYSRET");
    ok_eq(trap.flags & 0xffff, 0x603, "flags back");
    ok_eq(trap.ip, (word)u_back + 2, "went on behind SYSCALL");
    ok_trap(run(do_sysret_noncanon, 0), 13, 0, "SYSRET to a non-canonical address");
    ok_eq(trap.cs, SEL_CODE, "faults at CPL 0");
    wrmsr(0xc0000080, rdmsr(0xc0000080) & ~1ull);
    ok_trap(run(do_syscall, 0), 6, 0, "SYSCALL without EFER.SCE");
    wrmsr(0xc0000080, rdmsr(0xc0000080) | 1);
}

static void sysenter(void)
{
    uint32_t r[4];
    cpuid(0, 0, r);
    if (r[2] != 0x6c65746e) { /* GenuineIntel: ntel */
        skip("SYSENTER in long mode");
        return;
    }
    wrmsr(0x174, 0x70);
    wrmsr(0x175, (word)(kstack + sizeof kstack));
    wrmsr(0x176, (word)sysenter_entry);
    struct start s = user(u_sysenter);
    s.flags = 2 | 0x200;
    ok_trap(enter(&s), 0x80, 0, "SYSENTER and SYSEXIT");
    ok_eq(saved[0], 0x70, "CS");
    ok_eq(saved[1], 0x78, "SS");
    ok_eq(saved[2], (word)(kstack + sizeof kstack), "RSP");
    ok_eq(saved[3] & 0x200, 0, "IF clear");
    ok_eq(trap.cs, 0x90 | 3, "CS of SYSEXIT");
    ok_eq(trap.ss, 0x98 | 3, "SS of SYSEXIT");
    ok_eq(trap.sp, (word)(ustack + 2048), "RSP from RCX");
    wrmsr(0x174, 0);
    ok_trap(go(u_sysenter), 13, 0, "SYSENTER with null CS");
    wrmsr(0x174, 0x70);
    ok_trap(run(do_sysexit_noncanon, 0), 13, 0, "SYSEXIT to a non-canonical stack");
}

static void bases(void)
{
    ok_trap(run(do_rdfsbase, 0), 6, 0, "RDFSBASE without CR4.FSGSBASE");
    write_cr4(read_cr4() | 1ul << 16);
    wrmsr(0xc0000100, 0x123456789abc);
    ok_trap(run(do_rdfsbase, 0), NONE, 0, "RDFSBASE");
    ok_eq(saved[0], 0x123456789abc, "is the MSR");
    ok_trap(run(do_wrgsbase, 0), 13, 0, "WRGSBASE non-canonical");
    wrmsr(0xc0000102, 0x9876);
    ok_trap(run(do_swapgs, 0), NONE, 0, "SWAPGS");
    ok_eq(saved[0], 0x9876, "swapped");
    ok_eq(saved[1], 0x1234, "and back");
    run(do_null_fs, 0);
    ok_eq(saved[0], 0, "null into FS clears the base");
}

static void privileged(void)
{
    ok_trap(go(u_rdmsr), 13, 0, "RDMSR at CPL 3");
    ok_trap(go(u_swapgs), 13, 0, "SWAPGS at CPL 3");
    ok_trap(go(u_invlpg), 13, 0, "INVLPG at CPL 3");
    ok_trap(go(u_sysret), 13, 0, "SYSRET at CPL 3");
    ok_trap(go(u_wbinvd), 13, 0, "WBINVD at CPL 3");
    ok_trap(go(u_lgdt), 13, 0, "LGDT at CPL 3");
    ok_trap(go(u_clts), 13, 0, "CLTS at CPL 3");
    uint32_t r[4];
    cpuid(7, 0, r);
    if (r[1] & 1u << 20) {
        ok_trap(go(u_stac), 6, 0, "STAC at CPL 3");
    }
    ok_trap(go(u_rdtsc), 0x80, 0, "RDTSC at CPL 3");
    write_cr4(read_cr4() | 4);
    ok_trap(go(u_rdtsc), 13, 0, "RDTSC with CR4.TSD");
    write_cr4(read_cr4() & ~4ul);
    ok_trap(go(u_sgdt), 0x80, 0, "SGDT at CPL 3");
    ok_trap(go(u_smsw), 0x80, 0, "SMSW at CPL 3");
    ok_eq(trap.gpr[0], (uint32_t)read_cr0(), "SMSW r32");
    if (!(r[2] & 4)) {
        skip("UMIP");
        return;
    }
    write_cr4(read_cr4() | 1ul << 11);
    ok_trap(go(u_sgdt), 13, 0, "UMIP: SGDT");
    ok_trap(go(u_sidt), 13, 0, "UMIP: SIDT");
    ok_trap(go(u_sldt), 13, 0, "UMIP: SLDT");
    ok_trap(go(u_str), 13, 0, "UMIP: STR");
    ok_trap(go(u_smsw), 13, 0, "UMIP: SMSW");
    write_cr4(read_cr4() & ~(1ul << 11));
}

/* -- Interrupt shadows, with an interrupt from the local APIC to itself ------------------------ */
#define APIC ((volatile uint32_t *)0xfee00000)

CODE(sti_nop,
     "mov $0xfee00300, %r8d\n movl $0x400c0, (%r8)\n mov $10000, %ecx\n 1: pause\n loop 1b\n"
     "sti\n sn1: nop\n sn2: nop\n nop\n cli");
extern uint8_t sn1[], sn2[];
CODE(sti_cli,
     "mov $0xfee00300, %r8d\n movl $0x400c0, (%r8)\n mov $10000, %ecx\n 1: pause\n loop 1b\n"
     "sti\n cli\n nop");
CODE(ss_shadow,
     "mov $0xfee00300, %r8d\n movl $0x400c0, (%r8)\n mov $10000, %ecx\n 1: pause\n loop 1b\n"
     "mov %ss, %eax\n pushf\n"
     "orq $0x200, (%rsp)\n popf_at: popf\n ssa: mov %eax, %ss\n ssb: nop\n"
     "ssc: nop\n cli");
CODE(sti_hlt, "mov $0xfee00300, %r8d\n movl $0x400c0, (%r8)\n sti\n hlt\n sh1: cli");
extern uint8_t sh1[], ssa[];

static void eoi(void) { APIC[0xb0 / 4] = 0; }

static void shadows(void)
{
    APIC[0xf0 / 4] = 0x1ff;
    ok_trap(run(sti_nop, 0), 0xc0, 0, "interrupt after STI");
    ok_eq(trap.ip, (word)sn2, "one instruction later");
    eoi();
    ok_trap(run(sti_cli, 0), NONE, 0, "STI CLI lets none in");
    APIC[0x80 / 4] = 0;
    __asm__ volatile("nop");
    int v = run(sti_nop, 0);
    ok_eq((uint32_t)v, 0xc0, "it was pending");
    eoi();
    ok_trap(run(ss_shadow, 0), 0xc0, 0, "interrupt after POPF of IF");
    ok_eq(trap.ip, (word)ssa, "at once");
    eoi();
    ok_trap(run(sti_hlt, 0), 0xc0, 0, "STI HLT");
    ok_eq(trap.ip, (word)sh1, "wakes from HLT");
    eoi();
}

int test_main(void)
{
    selectors();
    open_to_user();
    syscalls();
    sysenter();
    bases();
    privileged();
    shadows();
    return 0;
}
