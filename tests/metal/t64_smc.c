/* SPDX-License-Identifier: Apache-2.0
 *
 * Self-modifying code: in the next block, in the same block, in the very next instruction, by
 * string instructions, across a page boundary, through an alias, and by remapping. */
#include "rt.h"

static uint8_t page[8192] __attribute__((aligned(4096)));
typedef uint32_t code_fn(void);

static uint32_t call(void *p) { return ((code_fn *)p)(); }
static void put_mov(uint8_t *p, uint32_t v)
{
    p[0] = 0xb8;
    memcpy(p + 1, &v, 4);
    p[5] = 0xc3;
}

/* movb $0x22, next+1; next: mov $0x11, %eax; ret */
__asm__(".data\n.globl same_block\nsame_block: movb $0x22, 1f+1\n 1: mov $0x11, %eax\n ret\n"
        ".globl loop_mod\nloop_mod: xor %eax, %eax\n mov $100, %ecx\n 1: add $1, %eax\n"
        "incb 1b+2\n dec %ecx\n"
        "jnz 1b\n ret\n"
        ".globl rep_mod\nrep_mod: push %rdi\n lea 1f(%rip), %rdi\n mov $0x90, %al\n"
        "mov $5, %ecx\n xor %eax, %eax\n"
        "mov $0x90, %al\n cld\n rep stosb\n 1: mov $0x33, %eax\n pop %rdi\n ret\n.text\n");
extern uint8_t same_block[], loop_mod[], rep_mod[];

int test_main(void)
{
    for (unsigned i = 0; i < 1000; i++) {
        put_mov(page, i);
        if (call(page) != i) {
            ok(false, "rewritten function");
            return 0;
        }
    }
    ok(true, "rewritten function, 1000 times");
    ok_eq(call(same_block), 0x22, "store into the next instruction");
    /* adds 1, 2, 3, ... */
    ok_eq(call(loop_mod), 5050, "immediate incremented in its own loop");
    ok_eq(call(rep_mod), 0x90, "REP STOSB over the next instruction");
    uint8_t *cross = page + 4096 - 3;
    for (unsigned i = 0; i < 100; i++) {
        put_mov(cross, 0x01010101u * i);
        if (call(cross) != 0x01010101u * i) {
            ok(false, "across pages");
            return 0;
        }
        cross[4] = 0x7f; /* a byte on the second page */
        if (call(cross) != ((0x01010101u * i & 0x00ffffff) | 0x7f000000u)) {
            ok(false, "across pages, second page only");
            return 0;
        }
    }
    ok(true, "across pages");

    /* An alias 1 GiB up, and code at a virtual page whose frame changes */
    extern uint64_t boot_pdpt[512];
    static uint64_t pd[512] __attribute__((aligned(4096))), pt[512] __attribute__((aligned(4096)));
    static uint8_t other[4096] __attribute__((aligned(4096)));
    boot_pdpt[8] = (word)pd | 3;
    pd[0] = (word)pt | 3;
    pt[0] = (word)page | 3;
    pt[1] = (word)page | 3;
    uint8_t *a = (uint8_t *)0x200000000, *b = a + 4096;
    put_mov(page, 1);
    ok_eq(call(a), 1, "code by an alias");
    put_mov(b, 2);
    ok_eq(call(a), 2, "changed by another alias");
    put_mov(page, 3);
    ok_eq(call(b), 3, "changed by its own address");
    put_mov(other, 4);
    pt[0] = (word)other | 3;
    invlpg(a);
    ok_eq(call(a), 4, "another frame");
    pt[0] = (word)page | 3;
    invlpg(a);
    ok_eq(call(a), 3, "the first again");
    return 0;
}
