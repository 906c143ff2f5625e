/* SPDX-License-Identifier: Apache-2.0
 *
 * Mode switches: protected to real and back, real-mode interrupts and limits, unreal mode, big
 * operands in 16-bit code, 16-bit protected mode; protected to long to compatibility and back. */
#include "rt.h"

#define CODE(name, text)                                                                           \
    __asm__(".text\n.globl " #name "\n" #name ": " text "\n ret\n");                               \
    void name(void *)

/* -- A piece of real-mode code, copied to 0x8000, started by going down through 16-bit protected
 * mode and left by coming back up. Results in real_result[]. The stack is at 0x7000. */
uint32_t real_result[16];
__asm__(".pushsection .rodata\n"
        ".code16\n"
        "real_begin:\n"
        /* 0x8000: in 16-bit protected mode, segments DATA16 */
        "  mov %cr0, %eax\n  and $~1, %al\n  mov %eax, %cr0\n"
        "  ljmp $0, $(0x8000 + real_entry - real_begin)\n"
        "real_entry:\n"
        "  xor %ax, %ax\n  mov %ax, %ds\n  mov %ax, %ss\n  mov $0x7000, %sp\n"
        "  mov $0x9000, %bx\n"
        /* 0: a selector is a paragraph */
        "  mov $0x900, %ax\n  mov %ax, %es\n  movl $0x11223344, %es:0x40\n  mov 0x9040, %eax\n"
        " mov %eax, (%bx)\n"
        /* 1: limits are checked still: the handler of #GP (13) skips three bytes and counts */
        "  movl $0, 4(%bx)\n  mov $0xffff, %si\n  real_gp: mov %es:(%si), %ax\n"
        /* 2: INT, flags in the frame */
        "  sti\n  int $0x21\n  cli\n  mov %ax, 8(%bx)\n"
        /* 3: 32-bit operands and addresses */
        "  mov $0x12345678, %eax\n  mov $0x9000, %ebp\n  mov %eax, 12(%ebp)\n"
        /* 4: PUSHF and POPF change IF and IOPL at will */
        "  push $0x3002\n  popf\n  pushf\n  pop %ax\n  mov %ax, 16(%bx)\n  push $2\n  popf\n"
        /* 5: SMSW */
        "  smsw %ax\n  mov %ax, 20(%bx)\n"
        /* 6: LLDT is undefined in real mode (vector 6 counts) */
        "  movl $0, 24(%bx)\n  .byte 0x0f, 0x00, 0xd0\n"
        /* 7: far call and return */
        "  lcall $0x800, $(real_far - real_begin)\n  mov %ax, 28(%bx)\n"
        /* 8: DIV by zero */
        "  movl $0, 32(%bx)\n  xor %cx, %cx\n  real_div: div %cx\n"
        /* 9: offset wraps at 64 KiB in a word read at 0xfffe */
        "  mov $0xfffe, %si\n  mov %es:(%si), %ax\n  movl $1, 36(%bx)\n"
        /* up again */
        "  lgdtl 0x8f00\n  mov %cr0, %eax\n  or $1, %al\n  mov %eax, %cr0\n"
        "  ljmpl $8, $real_back\n"
        "real_far:  mov $0x77, %ax\n  lret\n"
        "real_int21:  mov %sp, %bp\n  mov 4(%bp), %ax\n  iret\n"
        "real_int13:  mov %sp, %bp\n  addw $3, (%bp)\n  incl 0x9004\n  iret\n"
        "real_int6:  mov %sp, %bp\n  addw $3, (%bp)\n  incl 0x9018\n  iret\n"
        "real_int0:  mov %sp, %bp\n  addw $2, (%bp)\n  incl 0x9020\n  iret\n"
        "real_end:\n"
        ".code32\n"
        ".popsection\n");
extern const uint8_t real_begin[], real_end[], real_int21[], real_int13[], real_int6[], real_int0[];

__asm__(
    ".text\n.globl go_real\ngo_real: pushal\n mov %esp, saved_sp\n sidt saved_idt\n lidt real_idt\n"
    "mov $0x20, %eax\n mov %eax, %ds\n mov %eax, %es\n mov %eax, %ss\n ljmp $0x18, $0x8000\n"
    ".globl real_back\nreal_back: mov $16, %eax\n mov %eax, %ds\n mov %eax, %es\n"
    "mov %eax, %fs\n"
    "mov %eax, %gs\n mov %eax, %ss\n mov saved_sp, %esp\n lidt saved_idt\n popal\n ret\n");
void go_real(void);
uint32_t saved_sp;
struct table_ptr saved_idt, real_idt = { 0x3ff, 0 };

static void vector(unsigned n, const uint8_t *label)
{
    ((volatile uint32_t *)0)[n] = 0x8000u + (uint32_t)(label - real_begin);
}

static void real(void)
{
    memcpy((void *)0x8000, real_begin, (word)(real_end - real_begin));
    vector(0x21, real_int21);
    vector(13, real_int13);
    vector(6, real_int6);
    vector(0, real_int0);
    struct table_ptr *p = (struct table_ptr *)0x8f00;
    *p = (struct table_ptr){ sizeof gdt - 1, (word)gdt };
    go_real();
    memcpy(real_result, (void *)0x9000, sizeof real_result);
    ok_eq(real_result[0], 0x11223344, "segment is paragraph");
    ok_eq(real_result[1], 1, "word at 0xffff: vector 13");
    ok_eq(real_result[2] & 0x202, 0x202, "INT pushes flags with IF");
    ok_eq(real_result[3], 0x12345678, "32-bit operand and address");
    ok_eq(real_result[4] & 0x3200, 0x3000, "POPF sets IOPL");
    ok_eq(real_result[5] & 1, 0, "CR0.PE is 0");
    ok_eq(real_result[6], 1, "LLDT: vector 6");
    ok_eq(real_result[7] & 0xffff, 0x77, "far CALL and RET");
    ok_eq(real_result[8], 1, "DIV by zero: vector 0, a fault");
    ok_eq(real_result[9], 1, "word at 0xfffe");
    ok(read_cr0() & 1, "protected again");
}

/* -- Long mode from here, to compatibility code, and back -------------------------------------- */
static uint64_t pml4[512] __attribute__((aligned(4096)));
static uint64_t pdpt[512] __attribute__((aligned(4096)));
static uint64_t pd[512] __attribute__((aligned(4096)));
uint32_t long_result[8];
__asm__(".text\n.globl go_long\ngo_long: pushal\n"
        "mov %cr0, %eax\n or $0x80000000, %eax\n mov %eax, %cr0\n"
        /* compatibility mode: the old 32-bit CS */
        "mov $0xc0000080, %ecx\n rdmsr\n mov %eax, long_result\n"
        ".byte 0x40\n dec %eax\n mov %eax, long_result+4\n" /* INC EAX, not REX */
        "ljmp $0x68, $1f\n"
        ".code64\n1: mov $long_result, %ebp\n mov $-1, %rax\n shr $32, %rax\n mov %eax, 8(%rbp)\n"
        "mov $0x100000000, %rax\n mov %rax, %r15\n shr $32, %r15\n mov %r15d, 12(%rbp)\n"
        "lea 2f(%rip), %rax\n push $8\n push %rax\n lretq\n"
        ".code32\n2: mov $0x55, %eax\n mov %eax, long_result+16\n"
        "mov %cr0, %eax\n and $0x7fffffff, %eax\n mov %eax, %cr0\n"
        "mov $0xc0000080, %ecx\n rdmsr\n mov %eax, long_result+20\n"
        "popal\n ret\n");
void go_long(void *);
CODE(pg_without_pae, "mov %cr0, %eax\n or $0x80000000, %eax\n mov %eax, %cr0");
CODE(pg_without_pe, "mov %cr0, %eax\n or $0x80000000, %eax\n and $~1, %eax\n mov %eax, %cr0");

static void longmode(void)
{
    uint32_t r[4];
    cpuid(0x80000001, 0, r);
    if (!(r[3] & 1u << 29)) {
        skip("long mode");
        return;
    }
    for (unsigned i = 0; i < 512; i++) {
        pd[i] = (uint64_t)i << 21 | 0x83;
    }
    pdpt[0] = (word)pd | 3;
    pml4[0] = (word)pdpt | 3;
    gdt_set(0x68, descriptor(0, 0xfffff, 0x9b, 0xa));
    write_cr3((word)pml4);
    wrmsr(0xc0000080, 0x100);
    ok_trap(run(pg_without_pae, 0), 13, 0, "paging with LME but without PAE");
    ok_trap(run(pg_without_pe, 0), 13, 0, "paging without PE");
    write_cr4(read_cr4() | 0x20);
    /* a 16-bit TSS does not go with it */
    gdt_set(0x70, descriptor((word)tss, 0x67, 0x81, 0));
    __asm__ volatile("ltr %w0" ::"r"(0x70));
    ok_trap(run(pg_without_pae, 0), 13, 0, "long mode with a 16-bit TSS");
    gdt_set(SEL_TSS, gdt[SEL_TSS >> 3] & ~(2ull << 40));
    __asm__ volatile("ltr %w0" ::"r"(SEL_TSS));
    ok_trap(run(go_long, 0), NONE, 0, "to long mode and back");
    ok_eq(long_result[0] & 0x500, 0x500, "LMA follows paging");
    ok_eq(long_result[1], long_result[0], "compatibility mode: 0x40 is INC");
    ok_eq(long_result[2], 0xffffffff, "64-bit mode");
    ok_eq(long_result[3], 1, "R15");
    ok_eq(long_result[4], 0x55, "back in compatibility mode");
    ok_eq(long_result[5] & 0x500, 0x100, "LMA is off without paging");
    wrmsr(0xc0000080, 0);
    write_cr4(read_cr4() & ~0x20ul);
}

int test_main(void)
{
    real();
    longmode();
    return 0;
}
