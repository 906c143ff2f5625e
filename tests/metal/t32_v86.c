/* SPDX-License-Identifier: Apache-2.0
 *
 * Virtual-8086 mode: what traps, by IOPL; frames; VME with its redirection map and virtual
 * interrupt flag; PVI at CPL 3. */
#include "rt.h"

#define CODE_SEG 0x800u /* linear 0x8000 */
#define STACK_SEG 0x700u
#define FL_IF 0x200u
#define FL_IOPL 0x3000u
#define FL_VM 0x20000u
#define FL_VIF 0x80000u
#define FL_VIP 0x100000u

static volatile uint8_t *const low = (volatile uint8_t *)0;

static struct start v86(const uint8_t *code, unsigned len, uint32_t flags)
{
    for (unsigned i = 0; i < len; i++) {
        low[0x8000 + i] = code[i];
    }
    return (struct start){ .ip = 0,
                           .cs = CODE_SEG,
                           .flags = 2 | FL_VM | flags,
                           .sp = 0xf00,
                           .ss = STACK_SEG,
                           .ds = 0x900,
                           .es = 0xa00,
                           .fs = 0xb00,
                           .gs = 0xc00 };
}
#define V86(flags, ...)                                                                            \
    ({                                                                                             \
        static const uint8_t c[] = { __VA_ARGS__ };                                                \
        v86(c, sizeof c, flags);                                                                   \
    })

static int go(struct start s) { return enter(&s); }

static uint16_t stack_word(unsigned sp) { return *(volatile uint16_t *)(STACK_SEG * 16 + sp); }

static void set_vector(unsigned n, unsigned seg, unsigned off)
{
    *(volatile uint32_t *)(n * 4) = seg << 16 | off;
}

static void plain(void)
{
    ok_trap(go(V86(0, 0xf4)), 13, 0, "HLT");
    ok_eq(trap.flags & FL_VM, FL_VM, "VM in the image");
    ok_eq(trap.cs, CODE_SEG, "CS in the image");
    ok_eq(trap.ss, STACK_SEG, "SS");
    ok_eq(trap.sp, 0xf00, "SP");
    ok(trap.ds == 0x900 && trap.es == 0xa00 && trap.fs == 0xb00 && trap.gs == 0xc00,
       "data segments on the stack");
    ok_eq(trap.handler_sp + 36, (word)(ring0_stack + sizeof ring0_stack),
          "frame of nine words on SS0:ESP0");
    ok_eq(trap.handler_flags & (FL_VM | 0x4100), 0, "VM, NT, TF clear in the handler");
    ok_trap(go(V86(0, 0xfa)), 13, 0, "CLI, IOPL 0");
    ok_trap(go(V86(FL_IOPL, 0xfa, 0xf4)), 13, 0, "CLI, IOPL 3, then HLT");
    ok_eq(trap.ip, 1, "HLT it was");
    ok_trap(go(V86(0, 0x9c)), 13, 0, "PUSHF, IOPL 0");
    ok_trap(go(V86(0, 0x9d)), 13, 0, "POPF, IOPL 0");
    ok_trap(go(V86(0, 0xcf)), 13, 0, "IRET, IOPL 0");
    ok_trap(go(V86(0, 0xcd, 0x80)), 13, 0, "INT, IOPL 0");
    ok_trap(go(V86(FL_IOPL, 0xcd, 0x80)), 0x80, 0, "INT, IOPL 3, gate DPL 3");
    ok_eq(trap.ip, 2, "IP behind it");
    ok_trap(go(V86(FL_IOPL, 0xcd, 0x21)), 13, 0x21 * 8 + 2, "INT, IOPL 3, gate DPL 0");
    ok_trap(go(V86(0, 0xcc)), 3, 0, "INT3 needs no IOPL");
    ok_trap(go(V86(0x800, 0xce)), 4, 0, "INTO needs no IOPL");
    ok_trap(go(V86(0, 0xe4, 0x60)), 13, 0, "IN");
    ok_trap(go(V86(FL_IOPL, 0xe4, 0x60)), 13, 0, "IN: the map counts at any IOPL");
    tss[0x68 + 32 + 0x60 / 8] = 0xfe;
    ok_trap(go(V86(0, 0xe4, 0x60, 0xf4)), 13, 0, "IN allowed by the map, then HLT");
    ok_eq(trap.ip, 2, "HLT it was");
    tss[0x68 + 32 + 0x60 / 8] = 0xff;
    ok_trap(go(V86(0, 0x0f, 0x20, 0xc0)), 13, 0, "MOV from CR0");
    ok_trap(go(V86(0, 0x0f, 0x00, 0xd0)), 6, 0, "LLDT: #UD");
    ok_trap(go(V86(0, 0x63, 0xc0)), 6, 0, "ARPL: #UD");
    ok_trap(go(V86(0, 0x0f, 0x02, 0xc0)), 6, 0, "LAR: #UD");
    ok_trap(go(V86(0, 0xb8, 0x34, 0x12, 0x8e, 0xd8, 0x8c, 0xd9, 0xf4)), 13, 0,
            "MOV DS takes any value");
    ok_eq(trap.gpr[1] & 0xffff, 0x1234, "and reads back");
    ok_eq(trap.ds, 0x1234, "in the frame");
    ok_trap(go(V86(0, 0xa1, 0xff, 0xff)), 13, 0, "word at 0xffff");
    ok_trap(go(V86(0, 0x66, 0xbb, 0, 0, 1, 0, 0x67, 0x8a, 0x03)), 13, 0, "byte at 0x10000");
    /* far call and return */
    ok_trap(go(V86(0, 0x9a, 0x08, 0, 0, 0x08, 0xf4, 0x90, 0x90, 0x40, 0xcb)), 13, 0,
            "far CALL and RET");
    ok(trap.ip == 5 && (trap.gpr[0] & 0xffff) == 1, "came back to HLT");
    ok_trap(go(V86(FL_IOPL, 0x66, 0x9c, 0x66, 0x58, 0xf4)), 13, 0, "PUSHFD, IOPL 3");
    ok_eq(trap.gpr[0] & 0x30000, 0, "pushes VM and RF as 0");
    ok_trap(go(V86(FL_IOPL, 0x68, 0x02, 0x00, 0x9d, 0xf4)), 13, 0, "POPF, IOPL 3");
    ok_eq(trap.flags & (FL_IOPL | FL_VM), FL_IOPL | FL_VM, "leaves IOPL and VM");
}

static void vme(void)
{
    uint32_t r[4];
    cpuid(1, 0, r);
    if (!(r[3] & 2)) {
        skip("VME");
        return;
    }
    write_cr4(read_cr4() | 1);
    set_vector(0x80, CODE_SEG, 0x100);
    low[0x8100] = 0xf4;
    ok_trap(go(V86(FL_VIF, 0xcd, 0x80)), 13, 0, "INT redirected to the task, then HLT there");
    ok_eq(trap.ip, 0x100, "at its handler");
    ok_eq(trap.sp, 0xf00 - 6, "six bytes pushed");
    ok_eq(stack_word(0xf00 - 6), 2, "IP");
    ok_eq(stack_word(0xf00 - 4), CODE_SEG, "CS");
    ok_eq(stack_word(0xf00 - 2) & 0x3200, 0x3200, "FLAGS with IOPL 3 and IF from VIF");
    ok_eq(trap.flags & FL_VIF, 0, "VIF cleared");
    go(V86(0, 0xcd, 0x80));
    ok_eq(stack_word(0xf00 - 2) & 0x3200, 0x3000, "IF clear from VIF clear");
    go(V86(FL_IOPL | FL_IF, 0xcd, 0x80));
    ok_eq(stack_word(0xf00 - 2) & 0x3200, 0x3200, "IOPL 3: the real IF");
    ok_eq(trap.flags & FL_IF, 0, "which is cleared");
    tss[0x68 + 0x80 / 8] = 1;
    ok_trap(go(V86(0, 0xcd, 0x80)), 13, 0, "INT not redirected, IOPL 0");
    ok_trap(go(V86(FL_IOPL, 0xcd, 0x80)), 0x80, 0, "INT not redirected, IOPL 3");
    tss[0x68 + 0x80 / 8] = 0;
    ok_trap(go(V86(FL_IF | FL_VIF, 0xfa, 0xf4)), 13, 0, "CLI, then HLT");
    ok_eq(trap.ip, 1, "HLT it was");
    ok_eq(trap.flags & (FL_IF | FL_VIF), FL_IF, "CLI clears VIF only");
    go(V86(0, 0xfb, 0xf4));
    ok_eq(trap.flags & (FL_IF | FL_VIF), FL_VIF, "STI sets VIF only");
    ok_trap(go(V86(FL_VIP, 0xfb, 0xf4)), 13, 0, "STI with VIP");
    ok_eq(trap.ip, 0, "faults itself");
    go(V86(FL_VIF, 0x9c, 0x58, 0xf4));
    ok_eq(trap.gpr[0] & 0x3200, 0x3200, "PUSHF shows VIF as IF, and IOPL 3");
    ok_trap(go(V86(0, 0x66, 0x9c)), 13, 0, "PUSHFD");
    go(V86(0, 0x68, 0x00, 0x02, 0x9d, 0xf4));
    ok_eq(trap.flags & (FL_IF | FL_VIF | FL_IOPL), FL_VIF, "POPF sets VIF");
    ok_trap(go(V86(FL_VIP, 0x68, 0x00, 0x02, 0x9d, 0xf4)), 13, 0, "POPF of IF with VIP");
    ok_eq(trap.ip, 3, "faults itself");
    ok_trap(go(V86(0, 0x68, 0x00, 0x01, 0x9d, 0xf4)), 13, 0, "POPF of TF");
    ok_eq(trap.ip, 3, "faults itself");
    ok_trap(go(V86(0, 0x68, 0x02, 0x02, 0x68, 0x00, 0x08, 0x68, 0x0a, 0x00, 0xcf, 0xf4)), 13, 0,
            "IRET");
    ok_eq(trap.ip, 10, "returned, wherever it was told");
    ok_eq(trap.flags & (FL_IF | FL_VIF), FL_VIF, "IF of the image into VIF");
    write_cr4(read_cr4() & ~1ul);
}

static void pvi(void)
{
    static const uint8_t code[] = { 0xfa, 0xfb, 0xfa, 0xcd, 0x80 };
    static uint8_t stack[256];
    struct start s = { .ip = (word)code,
                       .cs = SEL_UCODE,
                       .flags = 2 | FL_VIF,
                       .sp = (word)(stack + 256),
                       .ss = SEL_UDATA,
                       .es = SEL_UDATA,
                       .ds = SEL_UDATA };
    ok_trap(enter(&s), 13, 0, "ring 3 CLI without PVI");
    write_cr4(read_cr4() | 2);
    ok_trap(enter(&s), 0x80, 0, "ring 3 CLI STI CLI with PVI");
    ok_eq(trap.flags & FL_VIF, 0, "VIF cleared");
    s.ip = (word)code + 1;
    s.flags = 2 | FL_VIP;
    ok_trap(enter(&s), 13, 0, "ring 3 STI with VIP");
    write_cr4(read_cr4() & ~2ul);
}

int test_main(void)
{
    plain();
    vme();
    pvi();
    return 0;
}
