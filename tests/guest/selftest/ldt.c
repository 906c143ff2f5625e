/* SPDX-License-Identifier: Apache-2.0
 *
 * Segments of a program's own, by modify_ldt: 16-bit code, limits, expand-down.
 */
#include "rt.h"

#include <asm/ldt.h>
#include <asm/mman.h>

#define SELECTOR(n) ((n) << 3 | 7)

static bool set(unsigned entry, word base, unsigned limit, unsigned contents, bool wide)
{
    struct user_desc d = {
        .entry_number = entry,
        .base_addr = (unsigned)base,
        .limit = limit,
        .contents = contents,
        .seg_32bit = wide,
        .read_exec_only = 0,
        .useable = 1,
    };
    return SYS3(__NR_modify_ldt, 1, &d, sizeof d) == 0;
}

/* 16-bit code at 0: mov ax, 0x1234; add ax, bx; mov cx, 0xffff; inc cx; pushf; pop dx; shl ax, 1;
 * 32-bit far return (66 cb) */
static const uint8_t code16[] = {0xb8, 0x34, 0x12, 0x01, 0xd8, 0xb9, 0xff, 0xff, 0x41,
                                 0x9c, 0x5a, 0xd1, 0xe0, 0x66, 0xcb};

static void run16(uint8_t *code)
{
    struct {
        uint32_t offset;
        uint16_t selector;
    } __attribute__((packed)) target = {0, SELECTOR(1)};
    uint32_t a = 0xaaaa0000, b = 0xbbbb0042, c = 0xcccc0000, d = 0xdddd0000;
    memcpy(code, code16, sizeof code16);
#ifdef __x86_64__
    /* The stack pointer loses its upper half in 16-bit code: a stack below 4 GiB. */
    uint8_t *stack = map(0x10000000, 65536, PROT_READ | PROT_WRITE);
    __asm__ volatile("movq %%rsp, %%r12; movq %5, %%rsp; lcall *(%4); movq %%r12, %%rsp"
                     : "+a"(a), "+b"(b), "+c"(c), "+d"(d)
                     : "r"(&target), "r"(stack + 65536 - 64)
                     : "r12", "memory", "cc");
    SYS2(__NR_munmap, stack, 65536);
#else
    __asm__ volatile("lcall *(%4)"
                     : "+a"(a), "+b"(b), "+c"(c), "+d"(d)
                     : "S"(&target)
                     : "memory", "cc");
#endif
    ok(a == 0xaaaa24ec && c == 0xcccc0000 && (d & 0xffff0000) == 0xdddd0000 && (d & 0x40),
       "16-bit code (eax %x ecx %x edx %x)", a, c, d);
}

static volatile int faults;
static volatile word fault_ip;
static void on_fault(int sig, siginfo_t *info, void *ctx)
{
    struct ucontext *u = ctx;
    (void)sig;
    (void)info;
    faults++;
#ifdef __x86_64__
    u->uc_mcontext.rip = fault_ip;
#else
    u->uc_mcontext.eip = fault_ip;
#endif
}

static int probe_fs(unsigned offset)
{
    uint8_t value = 0;
    faults = 0;
#ifdef __x86_64__
    /* FS bases of segments work in 64-bit mode, limits do not. */
    (void)offset;
#else
    __asm__ volatile("movl $1f, %1; movb %%fs:(%2), %0\n1:"
                     : "=q"(value), "=m"(fault_ip)
                     : "r"(offset)
                     : "memory");
#endif
    return faults ? -1 : value;
}

static void data_segments(uint8_t *page)
{
    for (unsigned i = 0; i < 4096; i++) {
        page[i] = (uint8_t)(i * 3);
    }
    unsigned saved;
    __asm__ volatile("mov %%fs, %0" : "=r"(saved));
    set(2, (word)page, 99, MODIFY_LDT_CONTENTS_DATA, true);
#ifdef __x86_64__
    uint8_t value;
    uint64_t base = 0;
    SYS2(__NR_arch_prctl, 0x1003, &base); /* ARCH_GET_FS */
    __asm__ volatile("mov %1, %%fs; movb %%fs:7, %0" : "=q"(value) : "r"(SELECTOR(2)));
    ok(value == 21, "data through an LDT segment in FS");
    __asm__ volatile("mov %0, %%fs" : : "r"(saved));
    SYS2(__NR_arch_prctl, 0x1002, base);
    (void)probe_fs;
    (void)on_fault;
#else
    on_signal(SIGSEGV, on_fault, 0);
    __asm__ volatile("mov %0, %%fs" : : "r"(SELECTOR(2)));
    ok(probe_fs(7) == 21 && probe_fs(99) == (99 * 3 & 255), "data through an LDT segment in FS");
    ok(probe_fs(100) == -1 && probe_fs(0xffffffff) == -1, "limit of an LDT segment");
    set(3, (word)page, 99, MODIFY_LDT_CONTENTS_STACK, true); /* expand-down */
    __asm__ volatile("mov %0, %%fs" : : "r"(SELECTOR(3)));
    ok(probe_fs(99) == -1 && probe_fs(100) == (300 & 255), "limit of an expand-down segment");
    __asm__ volatile("mov %0, %%fs" : : "r"(saved));
#endif
}

void test_ldt(void)
{
    uint8_t *page = map(0x20000000, 8192, PROT_READ | PROT_WRITE | PROT_EXEC);
    if (page == NULL || !set(1, (word)page, 0xffff, MODIFY_LDT_CONTENTS_CODE, false)) {
        skip("segments by modify_ldt", "the kernel refuses");
        return;
    }
    run16(page);
    data_segments(page + 4096);
}
