/* SPDX-License-Identifier: Apache-2.0
 *
 * Exceptions of 32-bit protected mode: vectors, error codes, saved EIP, flags in the frame; INT n
 * and its gates; BOUND, INTO; limits of segments. */
#include "rt.h"

#define CODE(name, text)                                                                           \
    __asm__(".text\n.globl " #name "\n" #name ": " text "\n ret\n");                               \
    void name(void *)

CODE(do_ud2, "ud2");
CODE(do_div0, "xor %ecx, %ecx\n xor %edx, %edx\n mov $1, %eax\n div_at: div %ecx");
CODE(do_divov, "mov $1, %ecx\n mov $1, %edx\n mov $0, %eax\n div %ecx");
CODE(do_idivov, "mov $-1, %ecx\n mov $0x80000000, %eax\n cltd\n idiv %ecx");
CODE(do_aam0, "aam $0");
CODE(do_int3, "int3");
CODE(do_int90, "int $0x90");
CODE(do_int80, "int $0x80");
CODE(do_int3_long, "int $3");
CODE(do_into_no, "xor %eax, %eax\n into");
CODE(do_into, "mov $0x7fffffff, %eax\n inc %eax\n into");
CODE(do_bound_ok, "mov $5, %eax\n bound %eax, bounds");
CODE(do_bound_low, "mov $-9, %eax\n bound %eax, bounds");
CODE(do_bound_high, "mov $11, %eax\n bound_at: bound %eax, bounds");
CODE(do_int1, ".byte 0xf1");
CODE(do_ss_null, "xor %eax, %eax\n mov %eax, %ss");
CODE(do_ds_bad, "mov $0x1f8, %eax\n mov %eax, %ds");
CODE(do_ds_beyond, "mov $0x2008, %eax\n mov %eax, %ds");
CODE(do_ds_ldt, "mov $0x0c, %eax\n mov %eax, %ds");
CODE(do_long15, ".byte 0x2e,0x2e,0x2e,0x2e,0x2e,0x2e,0x2e,0x2e,0x2e,0x2e,0x2e,0x2e,0x2e,0x2e,0x90");
CODE(do_long16,
     ".byte 0x2e,0x2e,0x2e,0x2e,0x2e,0x2e,0x2e,0x2e,0x2e,0x2e,0x2e,0x2e,0x2e,0x2e,0x2e,0x90");
CODE(do_lock_bad, ".byte 0xf0, 0x90");
CODE(do_null_read, "xor %eax, %eax\n mov %eax, %es\n mov %es:0, %eax");
CODE(do_cs_write, "movb $0, %cs:scratch");
CODE(do_sysenter0, "xor %eax, %eax\n xor %edx, %edx\n mov $0x174, %ecx\n wrmsr\n sysenter");
CODE(do_popf_nt, "pushf\n orl $0x4000, (%esp)\n popf\n pushf\n pop %eax\n and $0x4000, %eax\n"
                 "mov %eax, scratch\n"
                 "pushf\n andl $~0x4000, (%esp)\n popf");
CODE(do_mov_cr1, ".byte 0x0f, 0x20, 0xc8");
CODE(do_mov_dr4, "mov %dr4, %eax");
CODE(do_far_null, "ljmp $0, $0");
CODE(do_far_data, "ljmp $0x10, $0");
CODE(do_far_np, "ljmp $0x60, $0");
CODE(do_iret_ring0_null, "pushf\n push $0\n push $0\n iret");

extern uint8_t div_at[], bound_at[];
int bounds[2] = { -8, 10 };
uint32_t scratch;

static void limits(void)
{
    /* 64 KiB minus one at 0x1000; expand-down above it */
    gdt_set(SEL_FREE, descriptor(0, 0xff, 0x93, 4));
    gdt_set(SEL_FREE + 8, descriptor(0, 0xff, 0x97, 4));
    gdt_set(SEL_FREE + 16, descriptor(0, 0xffff, 0x97, 0));
    gdt_set(SEL_FREE + 24, descriptor(0, 0xff, 0x91, 4));
    gdt_set(SEL_FREE + 32, descriptor(0, 0xff, 0x13, 4));
    gdt_set(SEL_FREE + 40, descriptor(0, 0xff, 0x99, 4)); /* execute only */
}

struct access {
    unsigned sel, off, size, write;
};

static void do_access(void *arg)
{
    struct access *a = arg;
    uint32_t v;
    __asm__ volatile("mov %0, %%fs" ::"r"(a->sel));
    if (a->write) {
        if (a->size == 4) {
            __asm__ volatile("movl %%fs:(%1), %0; movl %0, %%fs:(%1)" : "=&r"(v) : "r"(a->off));
        } else {
            __asm__ volatile("movb %%fs:(%1), %b0; movb %b0, %%fs:(%1)" : "=&q"(v) : "r"(a->off));
        }
    } else if (a->size == 4) {
        __asm__ volatile("movl %%fs:(%1), %0" : "=r"(v) : "r"(a->off));
    } else {
        __asm__ volatile("movb %%fs:(%1), %b0" : "=q"(v) : "r"(a->off));
    }
}

static int try(unsigned sel, unsigned off, unsigned size, bool write)
{
    struct access a = { sel, off, size, write };
    return run(do_access, &a);
}

static void segment_limits(void)
{
    limits();
    ok_trap(try(SEL_FREE, 0xff, 1, false), NONE, 0, "byte at limit");
    ok_trap(try(SEL_FREE, 0x100, 1, false), 13, 0, "byte beyond limit");
    ok_trap(try(SEL_FREE, 0xfc, 4, false), NONE, 0, "dword ending at limit");
    ok_trap(try(SEL_FREE, 0xfd, 4, false), 13, 0, "dword crossing limit");
    ok_trap(try(SEL_FREE, 0xffffffff, 1, false), 13, 0, "byte at 4G-1 beyond limit");
    ok_trap(try(SEL_FREE + 8, 0xff, 1, false), 13, 0, "expand-down at limit");
    ok_trap(try(SEL_FREE + 8, 0x100, 1, false), NONE, 0, "expand-down above limit");
    ok_trap(try(SEL_FREE + 16, 0xffff, 1, false), 13, 0, "expand-down 16-bit, full limit");
    gdt_set(SEL_FREE + 16, descriptor(0, 0xff, 0x97, 0));
    ok_trap(try(SEL_FREE + 16, 0xffff, 1, false), NONE, 0, "expand-down 16-bit at 64K-1");
    ok_trap(try(SEL_FREE + 16, 0x10000, 1, false), 13, 0, "expand-down 16-bit beyond 64K");
    ok_trap(try(SEL_FREE + 24, 0x10, 1, false), NONE, 0, "read-only read");
    ok_trap(try(SEL_FREE + 24, 0x10, 1, true), 13, 0, "read-only write");
    ok_trap(try(SEL_FREE + 32, 0x10, 1, false), 11, SEL_FREE + 32, "not present: #NP(sel)");
    ok_trap(try(SEL_FREE + 40, 0x10, 1, false), 13, SEL_FREE + 40,
            "execute-only into FS: #GP(sel)");
    ok_trap(try(SEL_TSS, 0, 1, false), 13, SEL_TSS, "TSS into FS: #GP(sel)");
    ok(gdt[(SEL_FREE) >> 3] >> 40 & 1, "accessed bit");
    gdt_set(SEL_FREE, descriptor(0, 0xff, 0x92, 4));
    try(SEL_FREE, 0, 1, false);
    ok(gdt[(SEL_FREE) >> 3] >> 40 & 1, "load sets the accessed bit");

    /* From ring 3: a handler at the same level would find the small stack too. */
    gdt_set(SEL_FREE, descriptor(0, 0xff, 0xf3, 4));
    static const uint8_t push_code[] = { 0x50, 0xcd, 0x80 };
    struct start s = { .ip = (word)push_code,
                       .cs = SEL_UCODE,
                       .flags = 2,
                       .sp = 2,
                       .ss = SEL_FREE | 3,
                       .es = SEL_UDATA,
                       .ds = SEL_UDATA,
                       .fs = 0,
                       .gs = 0 };
    ok_trap(enter(&s), 12, 0, "push below limit: #SS(0)");
    ok_eq(trap.ip, (word)push_code, "saved EIP of the push");
    ok_eq(trap.sp, 2, "ESP unchanged");
}

static void gates(void)
{
    idt_raw(0x90, 0);
    ok_trap(run(do_int90, 0), 13, 0x90 * 8 + 2, "INT through an empty gate");
    extern uint8_t stubs[];
    idt_gate(0x90, SEL_CODE, stubs + 16 * 0x90, 0x0e);
    ok_trap(run(do_int90, 0), 11, 0x90 * 8 + 2, "INT through a gate not present");
    idt_gate(0x90, 0, stubs + 16 * 0x90, 0x8e);
    ok_trap(run(do_int90, 0), 13, 0, "gate with null selector");
    idt_gate(0x90, SEL_DATA, stubs + 16 * 0x90, 0x8e);
    ok_trap(run(do_int90, 0), 13, SEL_DATA, "gate to a data segment");
    idt_gate(0x90, 0x1f8, stubs + 16 * 0x90, 0x8e);
    ok_trap(run(do_int90, 0), 13, 0x1f8, "gate to an empty descriptor");
    gdt_set(SEL_FREE, descriptor(0, 0xfffff, 0x1b, 0xc));
    idt_gate(0x90, SEL_FREE, stubs + 16 * 0x90, 0x8e);
    ok_trap(run(do_int90, 0), 11, SEL_FREE, "gate to code not present");
    idt_gate(0x90, SEL_UCODE & ~3, stubs + 16 * 0x90, 0x8e);
    ok_trap(run(do_int90, 0), 13, SEL_UCODE & ~3, "gate to outer code");
    idt_gate(0x90, SEL_CODE, stubs + 16 * 0x90, 0x8f);
    __asm__ volatile("sti");
    run(do_int90, 0);
    ok(trap.handler_flags & 0x200, "trap gate keeps IF");
    idt_gate(0x90, SEL_CODE, stubs + 16 * 0x90, 0x8e);
    __asm__ volatile("sti");
    run(do_int90, 0);
    ok(!(trap.handler_flags & 0x200), "interrupt gate clears IF");
    ok(trap.flags & 0x200, "image has IF");
    __asm__ volatile("cli");
    /* IDT limit */
    struct table_ptr p = { 0x90 * 8 - 1, (word)idt };
    __asm__ volatile("lidt %0" ::"m"(p));
    ok_trap(run(do_int90, 0), 13, 0x90 * 8 + 2, "INT beyond the IDT limit");
    p.limit = 0x90 * 8 + 6;
    __asm__ volatile("lidt %0" ::"m"(p));
    ok_trap(run(do_int90, 0), 13, 0x90 * 8 + 2, "INT at half a gate");
    p.limit = 256 * 8 - 1;
    __asm__ volatile("lidt %0" ::"m"(p));
    idt_default(0x90);
}

static void user(void)
{
    static const uint8_t int90[] = { 0xcd, 0x30 };
    static const uint8_t int3[] = { 0xcc };
    static const uint8_t hlt[] = { 0xf4 };
    static const uint8_t cli[] = { 0xfa };
    static const uint8_t in[] = { 0xe4, 0x60, 0xf4 };
    static const uint8_t int1[] = { 0xf1 };
    static const uint8_t cr0[] = { 0x0f, 0x20, 0xc0 };
    static const uint8_t popf_if[] = { 0x9c, 0x81, 0x0c, 0x24, 0x00, 0x32, 0,
                                       0,    0x9d, 0x9c, 0x58, 0xcd, 0x80 };
    static uint8_t stack[256];
    struct start s = { .ip = (word)int90,
                       .cs = SEL_UCODE,
                       .flags = 2,
                       .sp = (word)(stack + 256),
                       .ss = SEL_UDATA,
                       .es = SEL_UDATA,
                       .ds = SEL_UDATA };
    ok_trap(enter(&s), 13, 0x30 * 8 + 2, "ring 3: INT through a DPL 0 gate");
    ok_eq(trap.ip, (word)int90, "saved EIP is the INT");
    ok_eq(trap.ss, SEL_UDATA, "saved SS");
    ok_eq(trap.handler_sp + 20, (word)(ring0_stack + sizeof ring0_stack),
          "handler on the TSS' stack");
    s.ip = (word)int3;
    ok_trap(enter(&s), 3, 0, "ring 3: INT3");
    ok_eq(trap.ip, (word)int3 + 1, "saved EIP behind INT3");
    s.ip = (word)int1;
    ok_trap(enter(&s), 1, 0, "ring 3: INT1 ignores the DPL");
    s.ip = (word)hlt;
    ok_trap(enter(&s), 13, 0, "ring 3: HLT");
    s.ip = (word)cli;
    ok_trap(enter(&s), 13, 0, "ring 3: CLI");
    s.ip = (word)in;
    ok_trap(enter(&s), 13, 0, "ring 3: IN");
    tss[0x68 + 32 + 0x60 / 8] = 0xfe;
    ok_trap(enter(&s), 13, 0, "ring 3: IN, then privileged byte");
    ok_eq(trap.ip, (word)in + 2, "IN let through by the map");
    tss[0x68 + 32 + 0x60 / 8] = 0xff;
    s.flags = 2 | 0x3000;
    ok_trap(enter(&s), 13, 0, "ring 3: IN with IOPL 3, then the byte behind");
    ok_eq(trap.ip, (word)in + 2, "IN let through by IOPL");
    s.flags = 2;
    s.ip = (word)cr0;
    ok_trap(enter(&s), 13, 0, "ring 3: MOV from CR0");
    s.ip = (word)popf_if;
    enter(&s);
    ok_eq(trap.gpr[0] & 0x3200, 0, "ring 3: POPF changes neither IF nor IOPL");
    s.flags = 2 | 0x3000;
    enter(&s);
    ok_eq(trap.gpr[0] & 0x3200, 0x3200, "ring 3 with IOPL 3: POPF changes IF");
}

int test_main(void)
{
    ok_trap(run(do_ud2, 0), 6, 0, "UD2");
    ok_eq(trap.ip, (word)do_ud2, "saved EIP of a fault");
    ok(trap.flags & 0x10000, "RF in the image of a fault");
    ok_trap(run(do_div0, 0), 0, 0, "divide by zero");
    ok_eq(trap.ip, (word)div_at, "saved EIP of DIV");
    ok_trap(run(do_divov, 0), 0, 0, "divide overflow");
    ok_trap(run(do_idivov, 0), 0, 0, "IDIV overflow");
    ok_trap(run(do_aam0, 0), 0, 0, "AAM 0");
    ok_trap(run(do_int3, 0), 3, 0, "INT3");
    ok_eq(trap.ip, (word)do_int3 + 1, "saved EIP of a trap");
    ok(!(trap.flags & 0x10000), "no RF in the image of INT3");
    ok_trap(run(do_int3_long, 0), 3, 0, "INT 3, long form");
    ok_trap(run(do_int80, 0), 0x80, 0, "INT 0x80");
    ok_trap(run(do_into_no, 0), NONE, 0, "INTO without OF");
    ok_trap(run(do_into, 0), 4, 0, "INTO");
    ok_trap(run(do_bound_ok, 0), NONE, 0, "BOUND inside");
    ok_trap(run(do_bound_low, 0), 5, 0, "BOUND below");
    ok_trap(run(do_bound_high, 0), 5, 0, "BOUND above");
    ok_eq(trap.ip, (word)bound_at, "BOUND is a fault");
    ok_trap(run(do_int1, 0), 1, 0, "INT1");
    ok_trap(run(do_ss_null, 0), 13, 0, "null into SS");
    ok_trap(run(do_ds_bad, 0), 13, 0x1f8, "empty descriptor into DS");
    ok_trap(run(do_ds_beyond, 0), 13, 0x2008, "selector beyond GDT into DS");
    ok_trap(run(do_ds_ldt, 0), 13, 0xc, "LDT selector without LDT");
    ok_trap(run(do_long15, 0), NONE, 0, "15-byte instruction");
    ok_trap(run(do_long16, 0), 13, 0, "16-byte instruction");
    ok_trap(run(do_lock_bad, 0), 6, 0, "LOCK NOP");
    ok_trap(run(do_null_read, 0), 13, 0, "read by a null segment");
    ok_trap(run(do_cs_write, 0), 13, 0, "write into code segment");
    ok_trap(run(do_sysenter0, 0), 13, 0, "SYSENTER with null CS");
    ok_trap(run(do_popf_nt, 0), NONE, 0, "POPF NT");
    ok_eq(scratch, 0x4000, "NT was set");
    ok_trap(run(do_mov_cr1, 0), 6, 0, "MOV from CR1");
    ok_trap(run(do_mov_dr4, 0), NONE, 0, "MOV from DR4 without DE");
    write_cr4(read_cr4() | 8);
    ok_trap(run(do_mov_dr4, 0), 6, 0, "MOV from DR4 with DE");
    write_cr4(read_cr4() & ~8ul);
    ok_trap(run(do_far_null, 0), 13, 0, "far JMP null");
    ok_trap(run(do_far_data, 0), 13, 0x10, "far JMP data");
    gdt_set(SEL_FREE, descriptor(0, 0xfffff, 0x1b, 0xc));
    ok_trap(run(do_far_np, 0), 11, 0x60, "far JMP not present");
    ok_trap(run(do_iret_ring0_null, 0), 13, 0, "IRET to null CS");
    segment_limits();
    gates();
    user();
    return 0;
}
