/* SPDX-License-Identifier: Apache-2.0
 *
 * Hardware task switches: JMP, CALL and IRET, task gates in the IDT, nesting, busy bits, 16-bit
 * TSS, double fault through a task gate, faults in the new task's context, the T bit. */
#include "rt.h"

enum {
    TSS2 = SEL_FREE,
    TSS3 = SEL_FREE + 8,
    GATE = SEL_FREE + 16,
    TSS16 = SEL_FREE + 24,
    TMP = SEL_FREE + 32,
    NOSTACK = SEL_FREE + 40,
    TINY = SEL_FREE + 48
};

struct tss32 {
    uint32_t link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp,
        esi, edi, es, cs, ss, ds, fs, gs, ldt;
    uint16_t trap, map;
};
struct tss16 {
    uint16_t link, sp0, ss0, sp1, ss1, sp2, ss2, ip, flags, ax, cx, dx, bx, sp, bp, si, di, es, cs,
        ss, ds, ldt;
};

static struct tss32 t2 __attribute__((aligned(128))), t3 __attribute__((aligned(128)));
static struct tss16 t16 __attribute__((aligned(128)));
static uint8_t stack2[4096] __attribute__((aligned(16))), stack3[4096] __attribute__((aligned(16)));
uint32_t count, seen_error, seen_tr, seen_flags;

static unsigned access_of(unsigned sel) { return gdt[sel >> 3] >> 40 & 0xff; }
static unsigned tr(void)
{
    unsigned v;
    __asm__ volatile("str %0" : "=r"(v));
    return v;
}

static void fill(struct tss32 *t, void *eip, uint8_t *stack)
{
    memset(t, 0, sizeof *t);
    t->eip = (word)eip;
    t->eflags = 2;
    t->esp = (word)(stack + 4096);
    t->cs = SEL_CODE;
    t->ss = t->ds = t->es = t->fs = t->gs = SEL_DATA;
    t->map = sizeof *t;
    t->ss0 = SEL_DATA;
    t->esp0 = (word)(ring0_stack + sizeof ring0_stack);
}

/* A task that counts its calls and returns by IRET, over and over. */
__asm__(".text\ntask2: incl count\n str seen_tr\n pushf\n popl seen_flags\n iret\n jmp task2\n");
extern uint8_t task2[];
/* Goes back by JMP. */
__asm__(".text\ntask_jmp: incl count\n ljmp $0x38, $0\n jmp task_jmp\n");
extern uint8_t task_jmp[];
__asm__(".text\n.globl call_tss2\ncall_tss2: lcall $0x60, $0\n ret\n"
        ".globl jmp_tss2\njmp_tss2: ljmp $0x60, $0\n ret\n"
        ".globl call_gate\ncall_gate: lcall $0x70, $0\n ret\n"
        ".globl call_tss16\ncall_tss16: lcall $0x78, $0\n ret\n"
        ".globl call_self\ncall_self: lcall $0x38, $0\n ret\n"
        ".globl do_int90\ndo_int90: int $0x90\n ret\n"
        ".globl do_ud2\ndo_ud2: ud2\n ret\n"
        ".globl do_gp\ndo_gp: mov $0x1f8, %eax\n mov %eax, %fs\n ret\n");
void call_tss2(void *), jmp_tss2(void *), call_gate(void *), call_tss16(void *), call_self(void *),
    do_int90(void *), do_ud2(void *), do_gp(void *);

static void basic(void)
{
    fill(&t2, task2, stack2);
    gdt_set(TSS2, descriptor((word)&t2, sizeof t2 - 1, 0x89, 0));
    count = 0;
    ok_trap(run(call_tss2, 0), NONE, 0, "CALL to a TSS and IRET back");
    ok_eq(count, 1, "the task ran");
    ok_eq(seen_tr, TSS2, "TR in the task");
    ok(seen_flags & 0x4000, "NT in the task");
    ok_eq(t2.link, SEL_TSS, "link to the caller");
    ok_eq(access_of(TSS2), 0x89, "not busy after IRET");
    ok_eq(access_of(SEL_TSS), 0x8b, "caller busy all the time");
    ok_eq(tr(), SEL_TSS, "TR is back");
    ok(!(t2.eflags & 0x4000), "NT cleared in the saved flags");
    ok(read_cr0() & 8, "CR0.TS set");
    __asm__ volatile("clts");
    ok_trap(run(call_tss2, 0), NONE, 0, "again: it resumes behind its IRET");
    ok_eq(count, 2, "and loops");
    gdt_set(GATE, 0x0000850000000000ull | (uint64_t)TSS2 << 16);
    ok_trap(run(call_gate, 0), NONE, 0, "CALL through a task gate");
    ok_eq(count, 3, "ran");
    fill(&t2, task_jmp, stack2);
    ok_trap(run(jmp_tss2, 0), NONE, 0, "JMP there and JMP back");
    ok_eq(access_of(TSS2), 0x89, "JMP leaves no busy bit");
    ok_eq(t2.eip, (word)task_jmp + 13, "saved EIP");
    ok_trap(run(call_self, 0), 13, SEL_TSS, "CALL to a busy TSS");
    gdt_set(TSS2, descriptor((word)&t2, sizeof t2 - 1, 0x09, 0));
    ok_trap(run(call_tss2, 0), 11, TSS2, "TSS not present");
    gdt_set(TSS2, descriptor((word)&t2, 0x66, 0x89, 0));
    ok_trap(run(call_tss2, 0), 10, TSS2, "TSS too small");
    gdt_set(TSS2, descriptor((word)&t2, sizeof t2 - 1, 0x89, 0));
    __asm__ volatile("clts");
}

static void idt_tasks(void)
{
    fill(&t2, task2, stack2);
    count = 0;
    idt_raw(0x90, 0x0000850000000000ull | (uint64_t)TSS2 << 16);
    ok_trap(run(do_int90, 0), NONE, 0, "INT through a task gate");
    ok_eq(count, 1, "ran");
    idt_default(0x90);
    idt_raw(13, 0x0000850000000000ull | (uint64_t)TSS2 << 16);
    /* the #GP's task returns to the faulting instruction: let it skip it */
    extern uint8_t task_skip[];
    fill(&t2, task_skip, stack2);
    ok_trap(run(do_gp, 0), NONE, 0, "#GP through a task gate");
    ok_eq(seen_error, 0x1f8, "error code on the task's stack");
    idt_default(13);
}
__asm__(".text\n.globl task_skip\ntask_skip: popl seen_error\n mov tss_ptr, %eax\n"
        "addl $2, 0x20(%eax)\n iret\n"
        "jmp task_skip\n");
void *tss_ptr = tss;

static void double_fault(void)
{
    extern uint8_t task_df[];
    fill(&t3, task_df, stack3);
    gdt_set(TSS3, descriptor((word)&t3, sizeof t3 - 1, 0x89, 0));
    idt_raw(8, 0x0000850000000000ull | (uint64_t)TSS3 << 16);
    idt_raw(6, 0); /* #UD finds no gate: #GP, whose gate is missing too: #DF */
    idt_raw(13, 0);
    seen_error = 99;
    count = 0;
    ok_trap(run(do_ud2, 0), NONE, 0, "#DF by a task gate");
    ok_eq(count, 1, "its task ran");
    ok_eq(seen_error, 0, "error code 0");
    idt_default(6);
    idt_default(8);
    idt_default(13);
}
/* pops the error code, moves the faulting task past UD2, returns */
__asm__(".text\n.globl task_df\ntask_df: popl seen_error\n incl count\n mov tss_ptr, %eax\n"
        "addl $2, 0x20(%eax)\n"
        "iret\n jmp task_df\n");

/* Bad new tasks: the fault comes in the new task; its handler (same IDT) sees TR of the new one. */
static void bad_context(void)
{
    static const struct {
        const char *name;
        unsigned vector, error;
        unsigned field; /* offset in struct tss32 */
        uint32_t value;
    } bad[] = {
        { "new CS null", 10, 0, 0x4c, 0 },
        { "new CS data", 10, SEL_DATA, 0x4c, SEL_DATA },
        { "new SS null", 10, 0, 0x50, 0 },
        { "new SS read-only", 10, TMP, 0x50, TMP },
        { "new DS beyond the GDT", 10, 0x2008, 0x54, 0x2008 },
        { "new LDT not an LDT", 10, SEL_DATA, 0x60, SEL_DATA },
        { "new EIP beyond the limit", 13, 0, 0x4c, TINY },
        { "new DS not present", 11, NOSTACK, 0x54, NOSTACK },
    };
    extern uint8_t task_ts[];
    gdt_set(TMP, descriptor(0, 0xfffff, 0x91, 0xc));
    gdt_set(TINY, descriptor(0, 0xff, 0x9b, 0x4));
    gdt_set(NOSTACK, descriptor(0, 0xfffff, 0x13, 0xc));
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        /* Catch it in a third task, which goes straight back to the first by JMP. */
        fill(&t3, task_ts, stack3);
        gdt_set(TSS3, descriptor((word)&t3, sizeof t3 - 1, 0x89, 0));
        idt_raw(bad[i].vector, 0x0000850000000000ull | (uint64_t)TSS3 << 16);
        fill(&t2, task2, stack2);
        *(uint32_t *)((uint8_t *)&t2 + bad[i].field) = bad[i].value;
        gdt_set(TSS2, descriptor((word)&t2, sizeof t2 - 1, 0x89, 0));
        seen_error = 0xdead;
        run(jmp_tss2, 0);
        ok(seen_error == bad[i].error && t3.link == TSS2, bad[i].name);
        if (seen_error != bad[i].error || t3.link != TSS2) {
            print("# error ");
            print_hex(seen_error);
            print(" link ");
            print_hex(t3.link);
            print("\n");
        }
        idt_default(bad[i].vector);
        __asm__ volatile("clts");
    }
}
__asm__(".text\n.globl task_ts\ntask_ts: popl seen_error\n ljmp $0x38, $0\n");

static void small_tss(void)
{
    memset(&t16, 0, sizeof t16);
    /* 16-bit code in low memory: 1: inc ax; mov [0x9000], ax; iret; jmp 1b */
    volatile uint8_t *low = (volatile uint8_t *)0x8000;
    static const uint8_t body[] = { 0x40, 0xa3, 0x00, 0x90, 0xcf, 0xeb, 0xf9 };
    for (unsigned i = 0; i < sizeof body; i++) {
        low[i] = body[i];
    }
    t16.ip = 0x8000;
    t16.cs = SEL_CODE16;
    t16.ds = t16.es = t16.ss = SEL_DATA16;
    t16.sp = 0x7000;
    t16.flags = 2;
    t16.ax = 0x1234;
    gdt_set(TSS16, descriptor((word)&t16, sizeof t16 - 1, 0x81, 0));
    ok_trap(run(call_tss16, 0), NONE, 0, "CALL to a 16-bit TSS and IRET back");
    ok_eq(*(volatile uint16_t *)0x9000, 0x1235, "ran with its registers");
    ok_eq(t16.link, SEL_TSS, "link");
    ok_eq(t16.ax, 0x1235, "AX saved");
    ok_eq(t16.ip, 0x8005, "IP saved");
    gdt_set(TSS16, descriptor((word)&t16, 0x2a, 0x81, 0));
    ok_trap(run(call_tss16, 0), 10, TSS16, "16-bit TSS too small");
    __asm__ volatile("clts");
}

static void trap_bit(void)
{
    fill(&t2, task2, stack2);
    t2.trap = 1;
    gdt_set(TSS2, descriptor((word)&t2, sizeof t2 - 1, 0x89, 0));
    write_dr6(0xffff0ff0);
    count = 0;
    int v = run(call_tss2, 0);
    ok_trap(v, 1, 0, "T bit of the new TSS: #DB");
    ok_eq(trap.ip, (word)task2, "before its first instruction");
    ok_eq(count, 0, "which did not run");
    ok(read_dr6() & 0x8000, "DR6.BT");
    /* still in task 2: go home */
    ok_eq(tr(), TSS2, "in the new task");
    t2.trap = 0;
    gdt_set(SEL_TSS, gdt[SEL_TSS >> 3] & ~(2ull << 40));
    __asm__ volatile("ltr %w0; clts" ::"r"(SEL_TSS));
    __asm__ volatile("pushf; andl $~0x4000, (%%esp); popf" ::: "cc");
}

__asm__(".text\n.globl do_iret_nt\ndo_iret_nt: pushf\n orl $0x4000, (%esp)\n popf\n iret\n");
void do_iret_nt(void *);

static void iret_links(void)
{
    *(uint16_t *)tss = 0;
    ok_trap(run(do_iret_nt, 0), 10, 0, "IRET with NT, null link");
    *(uint16_t *)tss = TSS2;
    gdt_set(TSS2, descriptor((word)&t2, sizeof t2 - 1, 0x89, 0));
    ok_trap(run(do_iret_nt, 0), 10, TSS2, "IRET with NT to a TSS not busy");
    *(uint16_t *)tss = SEL_DATA;
    ok_trap(run(do_iret_nt, 0), 10, SEL_DATA, "IRET with NT to no TSS");
    __asm__ volatile("pushf; andl $~0x4000, (%%esp); popf" ::: "cc");
}

int test_main(void)
{
    basic();
    idt_tasks();
    double_fault();
    bad_context();
    small_tss();
    trap_bit();
    iret_links();
    return 0;
}
