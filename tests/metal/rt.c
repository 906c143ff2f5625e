/* SPDX-License-Identifier: Apache-2.0 -- see rt.h */
#include "rt.h"

#define COM1 0x3f8
#define EXIT_PORT 0xf4

uint64_t fails;
struct trap trap;
bool (*trap_hook)(struct trap *t);
static unsigned tests;

uint64_t gdt[64] __attribute__((aligned(16)));
uint8_t idt[256 * 16] __attribute__((aligned(16)));
uint8_t tss[0x68 + 8192 + 64] __attribute__((aligned(4096)));
uint8_t ring0_stack[8192] __attribute__((aligned(16)));
extern uint8_t stubs[];

void *memset(void *p, int c, word n)
{
    __asm__ volatile("rep stosb" : "+D"(p), "+c"(n) : "a"(c) : "memory");
    return p;
}

void *memcpy(void *d, const void *s, word n)
{
    void *to = d;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(s), "+c"(n)::"memory");
    return d;
}

/* -- Console ----------------------------------------------------------------------------------- */
static void put(char c)
{
    while (!(inb(COM1 + 5) & 0x20)) {
    }
    outb(COM1, (uint8_t)c);
}

void print(const char *s)
{
    for (; *s; s++) {
        if (*s == '\n') {
            put('\r');
        }
        put(*s);
    }
}

void print_hex(uint64_t v)
{
    print("0x");
    bool any = false;
    for (int shift = 60; shift >= 0; shift -= 4) {
        unsigned d = v >> shift & 15;
        any = any || d || shift == 0;
        if (any) {
            put("0123456789abcdef"[d]);
        }
    }
}

static void print_dec(unsigned v)
{
    if (v >= 10) {
        print_dec(v / 10);
    }
    put((char)('0' + v % 10));
}

static void result(bool good, const char *name)
{
    if (!good) {
        fails++;
        print("not ");
    }
    print("ok ");
    print_dec(++tests);
    print(" - ");
    print(name);
    print("\n");
}

void ok(bool good, const char *name) { result(good, name); }

void skip(const char *name)
{
    print("ok ");
    print_dec(++tests);
    print(" - ");
    print(name);
    print(" # SKIP\n");
}

void ok_eq(uint64_t got, uint64_t want, const char *name)
{
    result(got == want, name);
    if (got != want) {
        print("# got ");
        print_hex(got);
        print(" want ");
        print_hex(want);
        print("\n");
    }
}

static void print_trap(int got)
{
    if (got == NONE) {
        print("# no trap\n");
        return;
    }
    print("# vector ");
    print_dec((unsigned)got);
    print(" error ");
    print_hex(trap.error);
    print(" cs:ip ");
    print_hex(trap.cs);
    print(":");
    print_hex(trap.ip);
    print(" cr2 ");
    print_hex(trap.cr2);
    print("\n");
}

void ok_trap(int got, int vector, uint64_t error, const char *name)
{
    bool good = got == vector && (vector == NONE || trap.error == error);
    result(good, name);
    if (!good) {
        print_trap(got);
    }
}

void ok_pf(int got, uint64_t error, uint64_t address, const char *name)
{
    bool good = got == 14 && trap.error == error && trap.cr2 == address;
    result(good, name);
    if (!good) {
        print_trap(got);
    }
}

_Noreturn void exit_with(uint8_t code)
{
    outb(EXIT_PORT, code);
    for (;;) {
        __asm__ volatile("cli; hlt");
    }
}

_Noreturn void finish(void)
{
    print("1..");
    print_dec(tests);
    print("\n");
    exit_with(fails ? 1 : 0); /* status 1 when all is well, 3 when not */
}

/* -- Descriptors ------------------------------------------------------------------------------- */
uint64_t descriptor(uint32_t base, uint32_t limit, unsigned access, unsigned flags)
{
    return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)access << 40 |
           (uint64_t)(limit >> 16 & 0xf) << 48 | (uint64_t)flags << 52 |
           (uint64_t)(base >> 24) << 56;
}

void gdt_set(unsigned sel, uint64_t d) { gdt[sel >> 3] = d; }

void idt_raw(unsigned vector, uint64_t d) { *(uint64_t *)(idt + vector * 2 * sizeof(word)) = d; }

void idt_gate(unsigned vector, unsigned sel, void *handler, unsigned type)
{
    word at = (word)handler;
    idt_raw(vector, (at & 0xffff) | (uint64_t)sel << 16 | (uint64_t)type << 40 |
                        (uint64_t)(at >> 16 & 0xffff) << 48);
#ifdef __x86_64__
    *(uint64_t *)(idt + vector * 16 + 8) = at >> 32;
#endif
}

void idt_default(unsigned vector)
{
    /* DPL 3 where software may raise them */
    bool user = vector == 3 || vector == 4 || vector >= 0x80;
    idt_gate(vector, SEL_CODE, stubs + 16 * vector, user ? 0xee : 0x8e);
}

static void tables(void)
{
#ifdef __x86_64__
    const unsigned code = 0xa;
#else
    const unsigned code = 0xc;
#endif
    gdt_set(SEL_CODE, descriptor(0, 0xfffff, 0x9b, code));
    gdt_set(SEL_DATA, descriptor(0, 0xfffff, 0x93, 0xc));
    gdt_set(SEL_CODE16, descriptor(0, 0xffff, 0x9b, 0));
    gdt_set(SEL_DATA16, descriptor(0, 0xffff, 0x93, 0));
    gdt_set(SEL_UCODE, descriptor(0, 0xfffff, 0xfb, code));
    gdt_set(SEL_UDATA, descriptor(0, 0xfffff, 0xf3, 0xc));
    gdt_set(SEL_CODE32, descriptor(0, 0xfffff, 0x9b, 0xc));
    gdt_set(SEL_UCODE32, descriptor(0, 0xfffff, 0xfb, 0xc));
    gdt_set(SEL_TSS, descriptor((uint32_t)(word)tss, sizeof tss - 1, 0x89, 0));
    gdt_set(SEL_TSS + 8, 0);
    struct table_ptr p = { sizeof gdt - 1, (word)gdt };
    __asm__ volatile("lgdt %0" ::"m"(p));
    for (unsigned v = 0; v < 256; v++) {
        idt_default(v);
    }
    struct table_ptr q = { sizeof(word) * 2 * 256 - 1, (word)idt };
    __asm__ volatile("lidt %0" ::"m"(q));
    word top = (word)(ring0_stack + sizeof ring0_stack);
    memcpy(tss + 4, &top, sizeof top);
#ifndef __x86_64__
    *(uint32_t *)(tss + 8) = SEL_DATA;
#endif
    *(uint16_t *)(tss + 0x66) = 0x68 + 32;
    memset(tss + 0x68, 0, 32);                /* redirection map: all to the task */
    memset(tss + 0x68 + 32, 0xff, 8192 + 32); /* no ports, and the byte behind */
    __asm__ volatile("ltr %w0" ::"r"(SEL_TSS));
}

void rt_main(void);
void rt_main(void)
{
    outb(0x21, 0xff); /* no interrupts from the 8259s */
    outb(0xa1, 0xff);
    outb(COM1 + 1, 0);
    outb(COM1 + 3, 3);
    tables();
    test_main();
    finish();
}

bool rt_trap(void);
bool rt_trap(void) { return trap_hook && trap_hook(&trap); }
