/* SPDX-License-Identifier: Apache-2.0
 *
 * Several processors: INIT and start-up IPIs, LOCK, cross-modifying code, TLB shootdown by IPI,
 * NMI. The number of processors comes from fw_cfg. */
#include "rt.h"

#define APIC ((volatile uint32_t *)0xfee00000)
#define MAX 16

static volatile uint32_t online;
static volatile uint32_t go_phase;
static volatile uint32_t done;
uint64_t ap_stack_top[MAX];
static uint8_t ap_stacks[MAX][8192] __attribute__((aligned(16)));
uint32_t ap_counter;
uint32_t counter;
uint32_t split[64] __attribute__((aligned(64)));
uint64_t wide[2] __attribute__((aligned(16)));

/* 0x8000: real mode to long mode, with the BSP's tables. */
__asm__(".pushsection .rodata\n.code16\n"
        "ap_begin: cli\n xor %ax, %ax\n mov %ax, %ds\n lgdtl 0x8000 + ap_gdtr - ap_begin\n"
        "mov 0x8ff0, %eax\n mov %eax, %cr4\n mov 0x8ff4, %eax\n mov %eax, %cr3\n"
        "mov $0xc0000080, %ecx\n mov $0x901, %eax\n xor %edx, %edx\n wrmsr\n"
        "mov $0x80010013, %eax\n mov %eax, %cr0\n ljmpl $8, $ap_long\n"
        "ap_gdtr: .word 23\n .long boot_gdt\n ap_end:\n.code64\n.popsection\n"
        ".text\nap_long: mov $16, %eax\n mov %eax, %ds\n mov %eax, %es\n mov %eax, %ss\n"
        "xor %eax, %eax\n"
        "mov %eax, %fs\n mov %eax, %gs\n mov $1, %eax\n lock xadd %eax, ap_counter\n"
        "mov ap_stack_top(,%rax,8), %rsp\n mov %eax, %edi\n call ap_main\n 1: hlt\n jmp 1b\n");
extern const uint8_t ap_begin[], ap_end[];

static void icr(uint32_t dest, uint32_t v)
{
    APIC[0x310 / 4] = dest << 24;
    APIC[0x300 / 4] = v;
    while (APIC[0x300 / 4] & 0x1000) {
    }
}

static void pause(void) { __asm__ volatile("pause" ::: "memory"); }

static void delay(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        pause();
    }
}

static void wait_for(volatile uint32_t *v, uint32_t want)
{
    for (uint64_t i = 0; *v != want && i < 2000000000; i++) {
        pause();
    }
}

/* -- What everybody does in each phase */
#define LOOPS 20000
static void add_locked(void)
{
    for (unsigned i = 0; i < LOOPS; i++) {
        __asm__ volatile("lock incl %0" : "+m"(counter));
        __asm__ volatile("lock addl $1, %0" : "+m"(*(uint32_t *)((uint8_t *)split + 62)));
    }
}

static void add_cmpxchg16b(void)
{
    for (unsigned i = 0; i < LOOPS / 4; i++) {
        uint64_t lo = wide[0], hi = wide[1];
        uint8_t ok;
        do {
            __asm__ volatile("lock cmpxchg16b %1; setz %0"
                             : "=q"(ok), "+m"(wide), "+a"(lo), "+d"(hi)
                             : "b"(lo + 1), "c"(hi + 2)
                             : "memory");
        } while (!ok);
    }
}

static uint8_t code_page[4096] __attribute__((aligned(4096)));
static volatile uint32_t stale;
/* mov $imm32, %eax; ret: written by the BSP, called by the others */
static uint32_t call_code(void)
{
    uint32_t v;
    __asm__ volatile("call *%1" : "=a"(v) : "r"(code_page) : "memory");
    return v;
}

static volatile uint32_t code_version, code_acks;

static void follow_code(void)
{
    for (uint32_t n = 1; n <= 200; n++) {
        while (code_version != n) {
            pause();
        }
        __asm__ volatile("cpuid" ::"a"(0), "c"(0) : "ebx", "edx", "memory"); /* serialise */
        if (call_code() != n) {
            stale++;
        }
        __asm__ volatile("lock incl %0" : "+m"(code_acks));
    }
}

void ap_main(uint32_t index);
void ap_main(uint32_t index)
{
    struct table_ptr q = { 256 * 16 - 1, (word)idt };
    (void)index;
    __asm__ volatile("lidt %0" ::"m"(q));
    APIC[0xf0 / 4] = 0x1ff;
    __asm__ volatile("lock incl %0" : "+m"(online));
    wait_for(&go_phase, 1);
    add_locked();
    __asm__ volatile("lock incl %0" : "+m"(done));
    wait_for(&go_phase, 2);
    add_cmpxchg16b();
    __asm__ volatile("lock incl %0" : "+m"(done));
    wait_for(&go_phase, 3);
    follow_code();
    __asm__ volatile("lock incl %0" : "+m"(done));
    for (;;) {
        __asm__ volatile("sti; hlt");
    }
}

static unsigned cpu_count(void)
{
    outw(0x510, 5);
    unsigned n = inb(0x511);
    return n | (unsigned)inb(0x511) << 8;
}

static volatile uint32_t ipis;
__asm__(".text\nipi_entry: lock incl ipi_count\n push %rax\n mov $0xfee000b0, %eax\n"
        "movl $0, (%rax)\n pop %rax\n"
        "iretq\n nmi_entry: lock incl nmi_count\n iretq\n");
extern uint8_t ipi_entry[], nmi_entry[];
uint32_t ipi_count, nmi_count;

int test_main(void)
{
    unsigned n = cpu_count();
    print("# processors: ");
    print_hex(n);
    print("\n");
    if (n > MAX) {
        n = MAX;
    }
    APIC[0xf0 / 4] = 0x1ff;
    memcpy((void *)0x8000, ap_begin, (word)(ap_end - ap_begin));
    *(uint32_t *)0x8ff0 = (uint32_t)read_cr4();
    *(uint32_t *)0x8ff4 = (uint32_t)read_cr3();
    for (unsigned i = 0; i < MAX; i++) {
        ap_stack_top[i] = (word)(ap_stacks[i] + sizeof ap_stacks[i]);
    }
    for (unsigned i = 1; i < n; i++) {
        icr(i, 0x4500);
        icr(i, 0x8500);
    }
    delay(20000);
    ok_eq(online, 0, "INIT alone starts nobody");
    for (unsigned i = 1; i < n; i++) {
        icr(i, 0x4600 | 8);
        delay(2000);
        icr(i, 0x4600 | 8);
    }
    wait_for(&online, n - 1);
    ok_eq(online, n - 1, "all processors start once");

    go_phase = 1;
    add_locked();
    wait_for(&done, n - 1);
    ok_eq(counter, n * LOOPS, "LOCK INC");
    ok_eq(*(uint32_t *)((uint8_t *)split + 62), n * LOOPS, "LOCK ADD across a cache line");
    done = 0;
    go_phase = 2;
    add_cmpxchg16b();
    wait_for(&done, n - 1);
    ok(wide[0] == n * (LOOPS / 4) && wide[1] == 2 * n * (LOOPS / 4), "LOCK CMPXCHG16B");
    done = 0;

    static const uint8_t stub[] = { 0xb8, 0, 0, 0, 0, 0xc3 };
    memcpy(code_page, stub, sizeof stub);
    go_phase = 3;
    for (uint32_t v = 1; v <= 200; v++) {
        *(volatile uint32_t *)(code_page + 1) = v;
        __asm__ volatile("mfence" ::: "memory");
        code_version = v;
        if (call_code() != v) {
            stale++;
        }
        wait_for(&code_acks, v * (n - 1));
    }
    wait_for(&done, n - 1);
    ok_eq(stale, 0, "code changed by another processor");

    idt_gate(0xd0, SEL_CODE, ipi_entry, 0x8e);
    idt_gate(2, SEL_CODE, nmi_entry, 0x8e);
    for (unsigned i = 0; i < 100; i++) {
        uint32_t want = ipi_count + n - 1;
        icr(0, 0xc4000 | 0xd0); /* all but self */
        wait_for(&ipi_count, want);
    }
    ok_eq(ipi_count, 100 * (n - 1), "IPIs to halted processors");
    icr(0, 0xc4400);
    wait_for(&nmi_count, n - 1);
    ok_eq(nmi_count, n - 1, "NMIs");
    for (unsigned i = 1; i < n; i++) {
        icr(i, 0x4500);
    }
    delay(1000);
    (void)ipis;
    return 0;
}
