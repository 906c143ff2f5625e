/* SPDX-License-Identifier: Apache-2.0
 *
 * Virtual-8086 mode, by the system call that only an i386 kernel has.
 */
#include "rt.h"

#ifdef __x86_64__
void test_vm86(void) {}
#else

#include <asm/mman.h>
#include <asm/vm86.h>

#define SEGMENT 0x2000u

/* mov ax, 0x1111; mov ds, ax...: arithmetic, a store through DS, a call, then INT 0x21. */
static const uint8_t code[] = {
    0xb8, 0x34, 0x12,             /* mov ax, 0x1234 */
    0xbb, 0x11, 0x11,             /* mov bx, 0x1111 */
    0x01, 0xd8,                   /* add ax, bx */
    0x8c, 0xc9,                   /* mov cx, cs */
    0x8e, 0xd9,                   /* mov ds, cx */
    0xa3, 0x00, 0x02,             /* mov [0x200], ax */
    0xe8, 0x03, 0x00,             /* call +3 */
    0xcd, 0x21,                   /* int 0x21 */
    0xf4,                         /* hlt */
    0xff, 0xc2,                   /* inc dx */
    0x66, 0xbe, 0x78, 0x56, 0x34, 0x12, /* mov esi, 0x12345678 */
    0xc3,                         /* ret */
};

static long enter(struct vm86plus_struct *v) { return SYS2(__NR_vm86, VM86_ENTER, v); }

void test_vm86(void)
{
    if (!contains("/proc/version", "686")) {
        skip("vm86", "not an i386 kernel");
        return;
    }
    uint8_t *memory = map(SEGMENT << 4, 0x10000, PROT_READ | PROT_WRITE | PROT_EXEC);
    static struct vm86plus_struct v;
    long check = SYS2(__NR_vm86, VM86_PLUS_INSTALL_CHECK, 0);
    if (memory == NULL || check != 0) {
        say("# memory %lx, vm86 check %d", (word)memory, (int)check);
        skip("vm86", check == -38 ? "this kernel has no such call" : "the kernel refuses");
        return;
    }
    memcpy(memory, code, sizeof code);
    v.regs.cs = SEGMENT;
    v.regs.ss = SEGMENT;
    v.regs.esp = 0xff00;
    v.regs.eflags = 0x200;
    v.cpu_type = 5; /* CPU_586: VIF and VIP as VME has them */
    memset(&v.int_revectored, 0xff, sizeof v.int_revectored);
    long r = enter(&v);
    ok(VM86_TYPE(r) == VM86_INTx && VM86_ARG(r) == 0x21, "vm86: INT comes back (%lx)", r);
    ok((v.regs.eax & 0xffff) == 0x2345 && (v.regs.edx & 0xffff) == 1 && v.regs.esi == 0x12345678,
       "vm86: registers");
    uint16_t stored;
    memcpy(&stored, memory + 0x200, 2);
    ok(stored == 0x2345 && v.regs.ds == SEGMENT, "vm86: a store through DS");
    r = enter(&v); /* at the hlt */
    ok(VM86_TYPE(r) == VM86_UNKNOWN, "vm86: HLT comes back (%lx)", r);
    /* cli; pushf; pop ax; sti; pushf; pop bx; int 0x22: flags are virtual */
    static const uint8_t flags[] = {0xfa, 0x9c, 0x58, 0xfb, 0x9c, 0x5b, 0xcd, 0x22};
    memcpy(memory, flags, sizeof flags);
    v.regs.eip = 0;
    r = enter(&v);
    ok(VM86_TYPE(r) == VM86_INTx && VM86_ARG(r) == 0x22 && !(v.regs.eax & 0x200) &&
           (v.regs.ebx & 0x200),
       "vm86: CLI, STI and PUSHF are virtual (%lx)", r);
}
#endif
