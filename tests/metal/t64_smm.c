/* SPDX-License-Identifier: Apache-2.0
 *
 * System-management mode: SMI by the APM port, SMBASE relocation, the save area, SMRAM that shows
 * in SMM only, HLT restart, RSM outside SMM. */
#include "rt.h"

#define PM_BASE 0x600
#define GLBCTL (PM_BASE + 0x28)
#define APM 0xb2
#define HANDLER ((uint8_t *)0x38000)
#define SMRAM 0xa0000u

static void config_write(unsigned fn, unsigned reg, uint32_t v)
{
    outl(0xcf8, 0x80000000u | fn << 8 | (reg & 0xfc));
    if (fn == 0) {
        outb((uint16_t)(0xcfc + (reg & 3)), (uint8_t)v);
    } else {
        outl(0xcfc, v);
    }
}

/* At 0x38000: moves SMBASE to 0xa0000. */
__asm__(".pushsection .rodata\n.code16\n"
        "relocate: movl $0xa0000, %cs:0xff00\n rsm\n relocate_end:\n"
        /* At 0xa8000: counts, says what it found, changes RBX, R15 and HLT's fate in the area. */
        "handler: incl %cs:0x9000\n"
        "mov %cr0, %eax\n mov %eax, %cs:0x9004\n"
        "movl %cs:0xfefc, %eax\n mov %eax, %cs:0x9008\n"
        "pushf\n"
        "movl %cs:0xfff8, %eax\n mov %eax, %cs:0x900c\n"
        "movl $0x12345678, %cs:0xffe0\n"
        "movl $0x9abcdef0, %cs:0xff84\n"
        "movb %cs:0xfec9, %al\n movb %al, %cs:0x9010\n movb $0, %cs:0xfec9\n"
        "rsm\n handler_end:\n.code64\n.popsection\n");
extern const uint8_t relocate[], relocate_end[], handler[], handler_end[];

static void do_rsm(void *arg)
{
    (void)arg;
    __asm__ volatile("rsm");
}

static uint32_t smram(unsigned offset)
{
    config_write(0, 0x72, 0x4a);
    uint32_t v = *(volatile uint32_t *)(uintptr_t)(SMRAM + offset);
    config_write(0, 0x72, 0x0a);
    return v;
}

static void smi(uint64_t *rbx, uint64_t *r15, uint32_t eax)
{
    register uint64_t fifteen __asm__("r15") = 0x1111111122222222;
    uint64_t b = 0x3333333344444444;
    __asm__ volatile("outb %%al, $0xb2\n nop\n" : "+b"(b), "+r"(fifteen) : "a"(eax) : "memory");
    *rbx = b;
    *r15 = fifteen;
}

int test_main(void)
{
    ok_trap(run(do_rsm, 0), 6, 0, "RSM outside SMM is undefined");

    /* As firmware does: the first handler in ordinary RAM, SMRAM open. */
    memcpy(HANDLER, relocate, (word)(relocate_end - relocate));
    config_write(0, 0x72, 0x4a);
    memset((void *)(uintptr_t)SMRAM, 0, 0x10000);
    memcpy((void *)(uintptr_t)(SMRAM + 0x8000), handler, (word)(handler_end - handler));
    outl(0xcf8, 0x80000000u | 0xb << 8 | 0x58);
    outl(0xcfc, 1u << 25);
    outb(APM, 0);
    ok_eq(smram(0x9000), 0, "no SMI without SMI_EN");
    outl(GLBCTL, 1);
    outb(APM, 0);
    __asm__ volatile("nop");
    ok_eq(smram(0x9000), 0, "the first SMI only moved SMBASE");
    config_write(0, 0x72, 0x0a);
    ok_eq(*(volatile uint32_t *)(uintptr_t)(SMRAM + 0x8000), 0xffffffff, "SMRAM is closed");

    uint64_t rbx, r15, cr3 = read_cr3();
    for (unsigned i = 1; i <= 3; i++) {
        smi(&rbx, &r15, 0x100 + i);
        ok_eq(smram(0x9000), i, "the handler ran in SMRAM");
        ok_eq(smram(0x900c), 0x100 + i, "RAX is in the save area");
    }
    ok_eq(rbx, 0x3333333312345678, "RBX is from the save area");
    ok_eq(r15, 0x9abcdef022222222, "R15 is from the save area");
    ok_eq(smram(0x9004) & 0x8000000d, 0, "the handler runs without protection and paging");
    ok_eq(smram(0x9008), 0x20064, "revision");
    ok_eq(smram(0x9010) & 0xff, 0, "not out of HLT");
    ok_eq(read_cr3(), cr3, "CR3 is back");
    ok_eq(*(volatile uint32_t *)(uintptr_t)(SMRAM + 0x9000), 0xffffffff, "SMRAM is closed again");

    /* By IPI to itself, in HLT: the handler takes it out. */
    volatile uint32_t *apic = (volatile uint32_t *)0xfee00000;
    apic[0x380 / 4] = 0;
    apic[0x310 / 4] = 0;
    apic[0x300 / 4] = 0x4200 | 1 << 18;
    __asm__ volatile("nop");
    ok_eq(smram(0x9000), 4, "an SMI from the local APIC");
    return 0;
}
