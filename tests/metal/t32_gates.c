/* SPDX-License-Identifier: Apache-2.0
 *
 * Call gates of 16 and 32 bits, parameters, stack switches, RETF and IRET to outer levels,
 * conforming code, LDT, LAR LSL VERR VERW ARPL. */
#include "rt.h"

enum {
    CG = SEL_FREE,
    CG16 = SEL_FREE + 8,
    CG_SAME = SEL_FREE + 16,
    CONF = SEL_FREE + 24,
    LDT = SEL_FREE + 32,
    DATA1 = SEL_FREE + 40,
    CODE1 = SEL_FREE + 48,
    SS1 = SEL_FREE + 56,
    TMP = SEL_FREE + 64,
};

static uint64_t ldt[4] __attribute__((aligned(8)));
static uint8_t ustack[4096] __attribute__((aligned(16)));
static uint8_t stack1[4096] __attribute__((aligned(16)));
uint32_t seen[16];

static uint64_t gate(unsigned sel, word off, unsigned access, unsigned count)
{
    return (off & 0xffff) | (uint64_t)sel << 16 | (uint64_t)count << 32 | (uint64_t)access << 40 |
           (uint64_t)(off >> 16) << 48;
}

/* Inner procedure: record ESP, SS, CS and the frame, return dropping two parameters. */
__asm__(".text\n.globl inner\ninner: mov %esp, %ss:seen\n mov %ss, %eax\n mov %eax, %ss:seen+4\n"
        "mov %cs, %eax\n mov %eax, %ss:seen+8\n mov (%esp), %eax\n mov %eax, %ss:seen+12\n"
        "mov 4(%esp), %eax\n mov %eax, %ss:seen+16\n mov 8(%esp), %eax\n mov %eax, %ss:seen+20\n"
        "mov 12(%esp), %eax\n mov %eax, %ss:seen+24\n mov 16(%esp), %eax\n mov %eax, %ss:seen+28\n"
        "mov 20(%esp), %eax\n mov %eax, %ss:seen+32\n lret $8\n");
void inner(void);
__asm__(".text\n.globl inner_same\ninner_same: mov %cs, %eax\n mov %eax, %ss:seen\n lret\n");
void inner_same(void);
__asm__(".text\n.globl user_call\nuser_call: push $0x1111\n push $0x2222\n lcall $0x63, $0x12345\n"
        "user_back: mov %esp, %ebx\n int $0x80\n");
extern uint8_t user_call[], user_back[];
__asm__(".text\n.globl user_conf\nuser_conf: lcall $0x7b, $inner_conf\n int $0x80\n"
        ".globl inner_conf\ninner_conf: mov %cs, %esi\n lret\n");
extern uint8_t user_conf[], inner_conf[];
__asm__(".text\n.globl call_same\ncall_same: lcall $0x70, $0\n ret\n");
void call_same(void *);
__asm__(".text\n.globl user_jmp_gate\nuser_jmp_gate: ljmp $0x63, $0\n int $0x80\n");
extern uint8_t user_jmp_gate[];
__asm__(".text\n.globl user_retf\nuser_retf: push $8\n push $0x1000\n lret\n");
extern uint8_t user_retf[];

static struct start user(void *ip)
{
    return (struct start){ .ip = (word)ip,
                           .cs = SEL_UCODE,
                           .flags = 2,
                           .sp = (word)(ustack + 4096),
                           .ss = SEL_UDATA,
                           .es = SEL_UDATA,
                           .ds = SEL_UDATA,
                           .fs = SEL_UDATA,
                           .gs = SEL_DATA & 0 };
}

static void call_gates(void)
{
    gdt_set(CG, gate(SEL_CODE, (word)inner, 0xec, 2));
    gdt_set(CG_SAME, gate(SEL_CODE, (word)inner_same, 0x8c, 0));
    struct start s = user(user_call);
    ok_trap(enter(&s), 0x80, 0, "ring 3 calls through a 32-bit gate and comes back");
    ok_eq(seen[2], SEL_CODE, "CS in the gate's procedure");
    ok_eq(seen[1], SEL_DATA, "SS0");
    ok_eq(seen[0], (word)(ring0_stack + sizeof ring0_stack) - 24, "ESP0 less six words");
    ok_eq(seen[3], (word)user_back, "return EIP");
    ok_eq(seen[4], SEL_UCODE, "return CS");
    ok_eq(seen[5], 0x2222, "last parameter");
    ok_eq(seen[6], 0x1111, "first parameter");
    ok_eq(seen[7], (word)(ustack + 4096 - 8), "outer ESP");
    ok_eq(seen[8], SEL_UDATA, "outer SS");
    ok_eq(trap.gpr[3], (word)(ustack + 4096), "parameters dropped from the outer stack");
    ok_eq(trap.ip, (word)user_back + 4, "behind the INT");

    gdt_set(CG, gate(SEL_CODE, (word)inner, 0x8c, 2));
    ok_trap(enter(&s), 13, CG, "gate DPL 0 from ring 3");
    gdt_set(CG, gate(SEL_CODE, (word)inner, 0x6c, 2));
    ok_trap(enter(&s), 11, CG, "gate not present");
    gdt_set(CG, gate(0, (word)inner, 0xec, 2));
    ok_trap(enter(&s), 13, 0, "gate with null selector");
    gdt_set(CG, gate(SEL_DATA, (word)inner, 0xec, 2));
    ok_trap(enter(&s), 13, SEL_DATA, "gate to data");
    gdt_set(CG, gate(SEL_CODE, (word)inner, 0xec, 2));
    s = user(user_jmp_gate);
    ok_trap(enter(&s), 13, SEL_CODE, "JMP through a gate to an inner level");
    ok_trap(run(call_same, 0), NONE, 0, "gate at the same level");
    ok_eq(seen[0], SEL_CODE, "CS there");
    s = user(user_retf);
    ok_trap(enter(&s), 13, 8, "RETF to an inner level");
    gdt_set(CONF, descriptor(0, 0xfffff, 0x9f, 0xc));
    s = user(user_conf);
    ok_trap(enter(&s), 0x80, 0, "conforming code of DPL 0 from ring 3");
    ok_eq(trap.gpr[6], CONF | 3, "runs at CPL 3");
}

/* Return to ring 1 and data segments that it may not keep. */
static void outer(void)
{
    gdt_set(CODE1, descriptor(0, 0xfffff, 0xbb, 0xc));
    gdt_set(SS1, descriptor(0, 0xfffff, 0xb3, 0xc));
    static const uint8_t code[] = { 0xcd, 0x80 };
    struct start s = { .ip = (word)code,
                       .cs = CODE1 | 1,
                       .flags = 2,
                       .sp = (word)(stack1 + 4096),
                       .ss = SS1 | 1,
                       .es = SEL_UDATA,
                       .ds = SS1 | 1,
                       .fs = SEL_DATA,
                       .gs = 3 };
    ok_trap(enter(&s), 0x80, 0, "IRET to ring 1");
    ok_eq(trap.ds, SS1 | 1, "DS of DPL 1 stays");
    ok_eq(trap.es, SEL_UDATA, "ES of DPL 3 stays");
    ok_eq(trap.fs, 0, "FS of DPL 0 becomes null");
    ok_eq(trap.gs, 0, "a null GS loses its RPL");
    s.ss = SEL_UDATA;
    ok_trap(enter(&s), 13, SEL_UDATA & ~3, "IRET to ring 1 with ring 3 SS");
    s.ss = 0;
    ok_trap(enter(&s), 13, 0, "with null SS");
    gdt_set(SS1, descriptor(0, 0xfffff, 0x33, 0xc));
    s.ss = SS1 | 1;
    s.ds = SEL_UDATA;
    ok_trap(enter(&s), 12, SS1, "with SS not present");
}

static void do_lldt(void *arg) { __asm__ volatile("lldt %w0" ::"r"(*(unsigned *)arg)); }
static void do_ltr(void *arg) { __asm__ volatile("ltr %w0" ::"r"(*(unsigned *)arg)); }
static void do_ds(void *arg)
{
    __asm__ volatile("mov %0, %%ds; mov %1, %%ds" ::"r"(*(unsigned *)arg), "r"(SEL_DATA));
}

static void system_segments(void)
{
    ldt[1] = descriptor(0, 0xfffff, 0x93, 0xc);
    gdt_set(LDT, descriptor((word)ldt, sizeof ldt - 1, 0x82, 0));
    unsigned sel = LDT;
    ok_trap(run(do_lldt, &sel), NONE, 0, "LLDT");
    unsigned v;
    __asm__ volatile("sldt %0" : "=r"(v));
    ok_eq(v, LDT, "SLDT");
    sel = 0xc;
    ok_trap(run(do_ds, &sel), NONE, 0, "LDT selector into DS");
    sel = 0x24;
    ok_trap(run(do_ds, &sel), 13, 0x24, "beyond the LDT");
    sel = SEL_DATA;
    ok_trap(run(do_lldt, &sel), 13, SEL_DATA, "LLDT of a data segment");
    sel = LDT | 4;
    ok_trap(run(do_lldt, &sel), 13, LDT | 4, "LLDT from the LDT");
    sel = 0;
    ok_trap(run(do_lldt, &sel), NONE, 0, "LLDT null");
    sel = 0xc;
    ok_trap(run(do_ds, &sel), 13, 0xc, "no LDT any more");
    sel = SEL_TSS;
    ok_trap(run(do_ltr, &sel), 13, SEL_TSS, "LTR of a busy TSS");
    sel = 0;
    ok_trap(run(do_ltr, &sel), 13, 0, "LTR null");
    __asm__ volatile("str %0" : "=r"(v));
    ok_eq(v, SEL_TSS, "STR");
}

static bool lar(unsigned sel, uint32_t *out)
{
    uint32_t r = 0xdeadbeef;
    uint8_t z;
    __asm__ volatile("lar %2, %0; setz %1" : "+r"(r), "=q"(z) : "r"(sel));
    *out = r;
    return z;
}
static bool lsl(unsigned sel, uint32_t *out)
{
    uint32_t r = 0xdeadbeef;
    uint8_t z;
    __asm__ volatile("lsl %2, %0; setz %1" : "+r"(r), "=q"(z) : "r"(sel));
    *out = r;
    return z;
}
static bool verr(unsigned sel)
{
    uint8_t z;
    __asm__ volatile("verr %w1; setz %0" : "=q"(z) : "r"(sel));
    return z;
}
static bool verw(unsigned sel)
{
    uint8_t z;
    __asm__ volatile("verw %w1; setz %0" : "=q"(z) : "r"(sel));
    return z;
}

static void queries(void)
{
    uint32_t v;
    ok(lar(SEL_DATA, &v) && v == 0xc09300, "LAR data");
    ok(lar(SEL_CODE, &v) && (v & 0xf0ff00) == 0xc09b00, "LAR code");
    ok(!lar(0, &v) && v == 0xdeadbeef, "LAR null");
    ok(!lar(0x2000, &v), "LAR beyond the GDT");
    ok(lar(SEL_TSS, &v) && v >> 8 == 0x8b, "LAR busy TSS");
    gdt_set(TMP, descriptor(0, 0, 0x8e, 0));
    ok(!lar(TMP, &v), "LAR interrupt gate");
    gdt_set(TMP, descriptor(0, 0, 0x85, 0));
    ok(lar(TMP, &v), "LAR task gate");
    ok(!lsl(TMP, &v), "LSL task gate");
    gdt_set(TMP, descriptor(0, 0, 0x8c, 0));
    ok(lar(TMP, &v), "LAR call gate");
    ok(!lsl(TMP, &v), "LSL call gate");
    ok(!lar(SEL_DATA | 3, &v), "LAR with RPL beyond DPL");
    ok(lsl(SEL_DATA, &v) && v == 0xffffffff, "LSL in pages");
    ok(lsl(SEL_DATA16, &v) && v == 0xffff, "LSL in bytes");
    ok(verr(SEL_DATA) && verw(SEL_DATA), "VERR VERW data");
    ok(verr(SEL_CODE) && !verw(SEL_CODE), "VERR VERW code");
    gdt_set(TMP, descriptor(0, 0xffff, 0x99, 0));
    ok(!verr(TMP) && !verw(TMP), "VERR VERW execute-only");
    gdt_set(TMP, descriptor(0, 0xffff, 0x91, 0));
    ok(verr(TMP) && !verw(TMP), "VERR VERW read-only");
    ok(!verr(SEL_TSS), "VERR TSS");
    uint16_t dest = 0x18;
    uint8_t z;
    __asm__ volatile("arpl %w2, %0; setz %1" : "+r"(dest), "=q"(z) : "r"((uint16_t)0x13));
    ok(z && dest == 0x1b, "ARPL raises");
    __asm__ volatile("arpl %w2, %0; setz %1" : "+r"(dest), "=q"(z) : "r"((uint16_t)0x11));
    ok(!z && dest == 0x1b, "ARPL leaves");
}

int test_main(void)
{
    call_gates();
    outer();
    system_segments();
    queries();
    return 0;
}
