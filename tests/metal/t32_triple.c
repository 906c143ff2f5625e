/* SPDX-License-Identifier: Apache-2.0
 *
 * Double faults, and at the end a triple fault: the machine resets, which is this kernel's success
 * (exit status 2 of `sosia run --no-reboot`). */
#include "rt.h"

#define CODE(name, text)                                                                           \
    __asm__(".text\n.globl " #name "\n" #name ": " text "\n ret\n");                               \
    void name(void *)

CODE(do_ud2, "ud2");
CODE(do_gp, "mov $0x1f8, %eax\n mov %eax, %ds");
CODE(do_div, "xor %ecx, %ecx\n div %ecx");
CODE(do_pf, "mov 0x70000000, %eax");
CODE(do_int, "int $0x90");

static uint32_t pd[1024] __attribute__((aligned(4096)));

int test_main(void)
{
    /* benign then contributory: served one after the other */
    idt_raw(6, 0);
    ok_trap(run(do_ud2, 0), 13, 6 * 8 + 3, "#UD without gate: #GP with EXT");
    idt_default(6);
    idt_raw(0x90, 0);
    ok_trap(run(do_int, 0), 13, 0x90 * 8 + 2, "INT without gate: #GP without EXT");
    /* contributory then contributory */
    idt_raw(0, 0);
    ok_trap(run(do_div, 0), 8, 0, "#DE without gate: double fault");
    idt_default(0);
    idt_gate(13, 0x1f0, 0, 0x8e);
    ok_trap(run(do_gp, 0), 8, 0, "#GP with a bad gate: double fault");
    idt_default(13);
    /* page fault then contributory, page fault then page fault; contributory then page fault is
     * serial */
    for (unsigned i = 0; i < 8; i++) {
        pd[i] = i << 22 | 0x83;
    }
    write_cr4(read_cr4() | 0x10);
    write_cr3((word)pd);
    write_cr0(read_cr0() | 0x80000000ul);
    ok_pf(run(do_pf, 0), 0, 0x70000000, "page fault");
    idt_raw(14, 0);
    ok_trap(run(do_pf, 0), 8, 0, "#PF without gate: double fault");
    ok_eq(trap.cr2, 0x70000000, "CR2");
    idt_default(14);
    struct table_ptr p = { 256 * 8 - 1, (word)idt }, q = { 256 * 8 - 1, 0x70000000 };
    (void)p;
    print("# now the IDT goes away: triple fault\n");
    if (fails) {
        finish();
    }
    print("1..7\n");
    __asm__ volatile("lidt %0; int3" ::"m"(q));
    print("not ok 8 - still here\n");
    exit_with(1);
}
