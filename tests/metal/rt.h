/* SPDX-License-Identifier: Apache-2.0
 *
 * What bare-metal test kernels stand on: console, TAP, traps that are caught, code run in ring 3
 * and in virtual-8086 mode. A kernel is a multiboot ELF32 that prints to COM1 and ends through
 * port 0xf4. rt32.S or rt64.S is its beginning; it runs at CPL 0 without paging (32) or
 * identity-mapped (64).
 */
#ifndef SOSIA_TESTS_METAL_RT_H
#define SOSIA_TESTS_METAL_RT_H

#include <stdbool.h>
#include <stdint.h>

typedef unsigned long word; /* a register */

/* -- Console and results */
void print(const char *s);
void print_hex(uint64_t v);
void ok(bool good, const char *name);
void ok_eq(uint64_t got, uint64_t want, const char *name);
void skip(const char *name);
_Noreturn void finish(void); /* exit status says whether all were ok */
_Noreturn void exit_with(uint8_t code);
extern uint64_t fails;

/* -- Traps. Registers as they were when the last trap came. */
struct trap {
    word vector, error, ip, cs, flags, sp, ss;
    word gpr[16]; /* ax cx dx bx sp bp si di r8.. */
    word ds, es, fs, gs;
    word cr2;
    word handler_cs, handler_flags, handler_sp; /* on entry of the handler, error code popped */
};
extern struct trap trap;
/* Called for each trap; true: go on with *t as changed (ip, flags, gpr), false: end run(). */
extern bool (*trap_hook)(struct trap *t);

#define NONE (-1)
/* Call fn(arg). NONE when it returned, else the vector of the trap that ended it. */
int run(void (*fn)(void *), void *arg);

/* Go to cs:ip with these registers by IRET; ends at the first trap that trap_hook does not take. */
struct start {
    word ip, cs, flags, sp, ss;
    word gpr[16];
    word es, ds, fs, gs; /* virtual-8086 mode, and 32-bit user code */
};
int enter(const struct start *s);

void ok_trap(int got, int vector, uint64_t error, const char *name);
void ok_pf(int got, uint64_t error, uint64_t address, const char *name);

/* -- Descriptors */
struct __attribute__((packed)) table_ptr {
    uint16_t limit;
    word base;
};
extern uint64_t gdt[64];
extern uint8_t idt[256 * 16];
extern uint8_t tss[0x68 + 8192 + 64];
extern uint8_t ring0_stack[8192]; /* of the TSS */

enum {
    SEL_CODE = 0x08,
    SEL_DATA = 0x10,
    SEL_CODE16 = 0x18,
    SEL_DATA16 = 0x20,
    SEL_UCODE = 0x28 | 3,
    SEL_UDATA = 0x30 | 3,
    SEL_TSS = 0x38,
    /* two slots */ SEL_CODE32 = 0x48,
    SEL_UCODE32 = 0x50 | 3,
    SEL_FREE = 0x60, /* and up: the tests' own */
};
uint64_t descriptor(uint32_t base, uint32_t limit, unsigned access, unsigned flags);
void gdt_set(unsigned sel, uint64_t d);
/* type 0x8e interrupt gate, 0x8f trap gate, | dpl << 5 */
void idt_gate(unsigned vector, unsigned sel, void *handler, unsigned type);
void idt_default(unsigned vector);
void idt_raw(unsigned vector, uint64_t d);

/* -- Instructions */
static inline void outb(uint16_t port, uint8_t v)
{
    __asm__ volatile("outb %0,%1" ::"a"(v), "Nd"(port));
}
static inline void outl(uint16_t port, uint32_t v)
{
    __asm__ volatile("outl %0,%1" ::"a"(v), "Nd"(port));
}
static inline void outw(uint16_t port, uint16_t v)
{
    __asm__ volatile("outw %0,%1" ::"a"(v), "Nd"(port));
}
static inline uint8_t inb(uint16_t port)
{
    uint8_t v;
    __asm__ volatile("inb %1,%0" : "=a"(v) : "Nd"(port));
    return v;
}

#define CR_ACCESSORS(n)                                                                            \
    static inline word read_cr##n(void)                                                            \
    {                                                                                              \
        word v;                                                                                    \
        __asm__ volatile("mov %%cr" #n ",%0" : "=r"(v)::"memory");                                 \
        return v;                                                                                  \
    }                                                                                              \
    static inline void write_cr##n(word v)                                                         \
    {                                                                                              \
        __asm__ volatile("mov %0,%%cr" #n ::"r"(v) : "memory");                                    \
    }
CR_ACCESSORS(0)
CR_ACCESSORS(2)
CR_ACCESSORS(3)
CR_ACCESSORS(4)
#define DR_ACCESSORS(n)                                                                            \
    static inline word read_dr##n(void)                                                            \
    {                                                                                              \
        word v;                                                                                    \
        __asm__ volatile("mov %%dr" #n ",%0" : "=r"(v));                                           \
        return v;                                                                                  \
    }                                                                                              \
    static inline void write_dr##n(word v) { __asm__ volatile("mov %0,%%dr" #n ::"r"(v)); }
DR_ACCESSORS(0)
DR_ACCESSORS(1)
DR_ACCESSORS(2)
DR_ACCESSORS(3)
DR_ACCESSORS(6)
DR_ACCESSORS(7)

static inline uint64_t rdmsr(uint32_t n)
{
    uint32_t a, d;
    __asm__ volatile("rdmsr" : "=a"(a), "=d"(d) : "c"(n));
    return a | (uint64_t)d << 32;
}
static inline void wrmsr(uint32_t n, uint64_t v)
{
    __asm__ volatile("wrmsr" ::"c"(n), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)) : "memory");
}
static inline void cpuid(uint32_t leaf, uint32_t sub, uint32_t r[4])
{
    __asm__ volatile("cpuid"
                     : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
                     : "a"(leaf), "c"(sub));
}
static inline uint64_t rdtsc(void)
{
    uint32_t a, d;
    __asm__ volatile("rdtsc" : "=a"(a), "=d"(d));
    return a | (uint64_t)d << 32;
}
static inline void invlpg(void *p) { __asm__ volatile("invlpg (%0)" ::"r"(p) : "memory"); }

int test_main(void); /* the kernel's own */

void *memset(void *p, int c, word n);
void *memcpy(void *d, const void *s, word n);

#endif
