/* SPDX-License-Identifier: Apache-2.0
 *
 * Exceptions in long mode: vectors, error codes, IST, aligned stacks, canonical addresses, IRETQ,
 * compatibility mode. */
#include "rt.h"

#define CODE(name, text)                                                                           \
    __asm__(".text\n.globl " #name "\n" #name ": " text "\n ret\n");                               \
    void name(void *)

CODE(do_ud2, "ud2");
CODE(do_noncanon, "mov $0x800000000000, %rax\n mov (%rax), %al");
CODE(do_noncanon_stack, "mov %rsp, %rdx\n mov $0x800000000000, %rbp\n mov (%rbp), %al");
CODE(do_noncanon_cross, "mov $0x7ffffffffffd, %rax\n mov (%rax), %eax");
CODE(do_jmp_noncanon, "mov $0x800000000000, %rax\n jmp_at: jmp *%rax");
CODE(do_int_80, "int $0x80");
CODE(do_int_81, "int $0x81");
CODE(do_push_es, ".byte 0x06");
CODE(do_swapgs, "swapgs\n swapgs");
CODE(do_lgdt_noncanon, "lgdt bad_gdtr");
CODE(do_mov_ss_null, "xor %eax, %eax\n mov %eax, %ss\n mov $16, %eax\n mov %eax, %ss");
CODE(do_far_call_mem, "rex.w lcall *far_ptr");
CODE(do_misaligned, "int_at: push %rax\n int $0x80");
CODE(do_sse_unaligned, "mov $scratch + 1, %rax\n movaps (%rax), %xmm0");
CODE(do_cr4_bad, "mov %cr4, %rax\n bts $31, %rax\n mov %rax, %cr4");
CODE(do_cr0_bad, "mov %cr0, %rax\n bts $32, %rax\n mov %rax, %cr0");
CODE(do_cr0_pg_off, "mov %cr0, %rax\n btr $31, %rax\n mov %rax, %cr0");
CODE(do_cr0_nw, "mov %cr0, %rax\n bts $29, %rax\n btr $30, %rax\n mov %rax, %cr0");
CODE(do_cr4_nopae, "mov %cr4, %rax\n btr $5, %rax\n mov %rax, %cr4");
CODE(do_cr8_big, "mov $16, %eax\n mov %rax, %cr8");
CODE(do_cr8, "mov $5, %eax\n mov %rax, %cr8\n xor %eax, %eax\n mov %cr8, %rax\n mov %rax, result\n"
             "xor %eax, %eax\n mov %rax, %cr8");
CODE(do_dr7_big, "mov $0x100000000, %rax\n mov %rax, %dr7");
CODE(do_iret_nt, "pushf\n orq $0x4000, (%rsp)\n popf\n iretq");
CODE(target64, "mov $0x1234, %eax\n mov %rax, result\n lretq");
CODE(do_ldt_np, "mov $0x68, %eax\n lldt %ax");

extern uint8_t jmp_at[];
uint64_t result;
uint8_t scratch[64] __attribute__((aligned(64)));
struct __attribute__((packed)) {
    uint16_t limit;
    uint64_t base;
} bad_gdtr = { 0xff, 0x800000000000 };
struct __attribute__((packed)) {
    uint64_t off;
    uint16_t sel;
} far_ptr;

static uint8_t ist_stack[4096] __attribute__((aligned(16)));

static void ist(void)
{
    extern uint8_t stubs[];
    *(uint64_t *)(tss + 0x24) = (word)(ist_stack + sizeof ist_stack -
                                       8); /* misaligned on purpose */
    idt_gate(6, SEL_CODE, stubs + 16 * 6, 0x8e);
    *(uint8_t *)(idt + 6 * 16 + 4) = 1;
    ok_trap(run(do_ud2, 0), 6, 0, "#UD with IST 1");
    ok_eq(trap.handler_sp + 40, (word)(ist_stack + sizeof ist_stack - 16),
          "on the IST stack, aligned");
    *(uint64_t *)(tss + 0x24) = 0x800000000000;
    ok_trap(run(do_ud2, 0), 12, 1, "IST not canonical: #SS(EXT)");
    idt_default(6);
    idt_gate(0x81, SEL_CODE, stubs + 16 * 0x81, 0x85);
    ok_trap(run(do_int_81, 0), 13, 0x81 * 8 + 2, "task gate in long mode");
    idt_gate(0x81, SEL_CODE32, stubs + 16 * 0x81, 0x8e);
    ok_trap(run(do_int_81, 0), 13, SEL_CODE32, "gate to 32-bit code");
    idt_gate(0x81, SEL_CODE, (void *)0x800000000000, 0x8e);
    ok_trap(run(do_int_81, 0), 13, 0, "gate to a non-canonical address");
    idt_default(0x81);
}

static void compatibility(void)
{
    static uint8_t stack[4096];
    static const uint8_t user32[] = { 0x40, 0xcd, 0x80 };             /* inc eax; int 0x80 */
    static const uint8_t user64[] = { 0x48, 0xff, 0xc0, 0xcd, 0x80 }; /* inc rax; int 0x80 */
    static const uint8_t wrap[] = { 0x8b, 0x44, 0x08, 0x04, 0xcd, 0x80 };
    /* page tables: let ring 3 in */
    extern uint64_t boot_pml4[512], boot_pdpt[512], boot_pd[2048];
    boot_pml4[0] |= 4;
    boot_pdpt[0] |= 4;
    for (unsigned i = 0; i < 512; i++) {
        boot_pd[i] |= 4;
    }
    write_cr3(read_cr3());
    struct start s = { .ip = (word)user32,
                       .cs = SEL_UCODE32,
                       .flags = 2,
                       .sp = (word)(stack + 4096),
                       .ss = SEL_UDATA,
                       .es = SEL_UDATA,
                       .ds = SEL_UDATA,
                       .gpr = { 41 } };
    ok_trap(enter(&s), 0x80, 0, "compatibility mode");
    ok_eq(trap.gpr[0], 42, "INC EAX there is 0x40");
    ok_eq(trap.cs, SEL_UCODE32, "saved CS");
    ok_eq(trap.handler_sp + 40, (word)(ring0_stack + sizeof ring0_stack), "on RSP0");
    s.ip = (word)user64;
    s.cs = SEL_UCODE;
    s.gpr[0] = 0xffffffff;
    ok_trap(enter(&s), 0x80, 0, "64-bit user code");
    ok_eq(trap.gpr[0], 0x100000000, "64-bit INC");
    s.ip = (word)wrap;
    s.cs = SEL_UCODE32;
    s.gpr[0] = 0xfffffff0;
    s.gpr[1] = 0x10 + (word)user32 - 4;
    ok_trap(enter(&s), 0x80, 0, "effective address wraps at 4 GiB");
    ok_eq(trap.gpr[0], *(const uint32_t *)user32, "and reads there");
    s.ip = 0x800000000000;
    s.cs = SEL_UCODE;
    ok_trap(enter(&s), 13, 0, "IRETQ to a non-canonical RIP");
    ok(trap.cs == SEL_CODE, "faults at IRETQ itself");
    s.ip = (word)user64;
    s.ss = 0;
    ok_trap(enter(&s), 13, 0, "IRETQ to ring 3 with null SS");
    s.ss = SEL_DATA;
    ok_trap(enter(&s), 13, SEL_DATA, "IRETQ to ring 3 with ring 0 SS");
    s.ss = SEL_UDATA;
    s.cs = SEL_UCODE & ~3;
    ok_trap(enter(&s), 13, SEL_UCODE & ~3, "IRETQ with wrong RPL");
}

/* The last page below the canonical hole: what runs off its end, or ends just there, faults at the
 * address behind, once it has been done. */
#define LAST_PAGE 0x7ffffffff000ul
static uint64_t edge_pdpt[512] __attribute__((aligned(4096)));
static uint64_t edge_pd[512] __attribute__((aligned(4096)));
static uint64_t edge_pt[512] __attribute__((aligned(4096)));
static uint8_t edge_page[4096] __attribute__((aligned(4096)));

static void jump_to(void *to) { __asm__ volatile("jmp *%0" ::"r"(to), "a"(-1l) : "memory"); }

static void edge_case(const uint8_t *code, unsigned len, const char *name)
{
    memset(edge_page, 0xcc, sizeof edge_page);
    memcpy(edge_page + 4096 - len, code, len);
    ok_trap(run(jump_to, (void *)(LAST_PAGE + 4096 - len)), 13, 0, name);
    ok_eq(trap.ip, LAST_PAGE + 4096, "at the first address behind");
}

static void canonical_edge(void)
{
    extern uint64_t boot_pml4[512];
    static const uint8_t nop[] = { 0x90 }, vmcall[] = { 0x0f, 0x01, 0xc1 };
    static const uint8_t vmmcall[] = { 0x0f, 0x01, 0xd9 }, cpuid_code[] = { 0x0f, 0xa2 };
    static const uint8_t load[] = { 0x48, 0x8b, 0x04, 0x24 }, split[] = { 0x48, 0x8b };
    boot_pml4[255] = (word)edge_pdpt | 3;
    edge_pdpt[511] = (word)edge_pd | 3;
    edge_pd[511] = (word)edge_pt | 3;
    edge_pt[511] = (word)edge_page | 3;
    write_cr3(read_cr3());
    edge_case(nop, sizeof nop, "NOP at the canonical edge");
    edge_case(cpuid_code, sizeof cpuid_code, "CPUID");
    edge_case(load, sizeof load, "MOV");
    uint32_t r[4];
    cpuid(0, 0, r);
    bool amd = r[1] == 0x68747541;
    edge_case(amd ? vmmcall : vmcall, sizeof vmcall, amd ? "VMMCALL" : "VMCALL");
    memcpy(edge_page + 4094, split, 2);
    ok_trap(run(jump_to, (void *)(LAST_PAGE + 4094)), 13, 0, "an instruction across the edge");
    ok_eq(trap.ip, LAST_PAGE + 4094, "at its beginning");
}

int test_main(void)
{
    ok_trap(run(do_ud2, 0), 6, 0, "UD2");
    ok_eq(trap.ip, (word)do_ud2, "saved RIP");
    ok(trap.flags & 0x10000, "RF in the image");
    ok((trap.handler_sp & 15) == 8, "frame on an aligned stack");
    ok_trap(run(do_noncanon, 0), 13, 0, "non-canonical read");
    ok_trap(run(do_noncanon_stack, 0), 12, 0, "non-canonical read by RBP");
    ok_trap(run(do_noncanon_cross, 0), 13, 0, "read across the canonical edge");
    ok_trap(run(do_jmp_noncanon, 0), 13, 0, "JMP to a non-canonical address");
    ok_eq(trap.ip, (word)jmp_at, "faults at the JMP");
    ok_trap(run(do_int_80, 0), 0x80, 0, "INT 0x80");
    ok_trap(run(do_misaligned, 0), 0x80, 0, "INT from a misaligned stack");
    ok((trap.handler_sp & 15) == 8, "aligned again");
    ok_trap(run(do_push_es, 0), 6, 0, "PUSH ES in 64-bit mode");
    ok_trap(run(do_swapgs, 0), NONE, 0, "SWAPGS");
    ok_trap(run(do_mov_ss_null, 0), NONE, 0, "null SS at CPL 0");
    far_ptr.off = (word)target64;
    far_ptr.sel = SEL_CODE;
    uint32_t r[4];
    cpuid(0, 0, r);
    if (r[1] == 0x68747541) { /* AMD's take m16:32 whatever REX.W says (AMD 3, CALL far) */
        skip("far CALL m16:64");
    } else {
        ok_trap(run(do_far_call_mem, 0), NONE, 0, "far CALL m16:64 and RETFQ");
        ok_eq(result, 0x1234, "got there");
    }
    ok_trap(run(do_sse_unaligned, 0), 13, 0, "MOVAPS misaligned");
    ok_trap(run(do_cr4_bad, 0), 13, 0, "reserved bit of CR4");
    ok_trap(run(do_cr0_bad, 0), 13, 0, "upper half of CR0");
    ok_trap(run(do_cr0_pg_off, 0), 13, 0, "paging off in 64-bit code");
    ok_trap(run(do_cr0_nw, 0), 13, 0, "NW without CD");
    ok_trap(run(do_cr4_nopae, 0), 13, 0, "PAE off in long mode");
    ok_trap(run(do_cr8_big, 0), 13, 0, "CR8 of 16");
    ok_trap(run(do_cr8, 0), NONE, 0, "CR8");
    ok_eq(result, 5, "CR8 reads back");
    ok_trap(run(do_dr7_big, 0), 13, 0, "upper half of DR7");
    ok_trap(run(do_iret_nt, 0), 13, 0, "IRET with NT in long mode");
    __asm__ volatile("pushf; andq $~0x4000, (%rsp); popf");
    gdt_set(0x68, descriptor(0, 0x100, 0x02, 0));
    ok_trap(run(do_ldt_np, 0), 11, 0x68, "LLDT not present");
    ist();
    ok_trap(run(do_lgdt_noncanon, 0), 13, 0, "LGDT with non-canonical base");
    compatibility();
    canonical_edge();
    return 0;
}
