/* SPDX-License-Identifier: Apache-2.0
 *
 * Time by system call, vDSO, vsyscall page and TSC: one clock, which goes forwards.
 */
#include "rt.h"

#include <linux/elf.h>

#ifndef AT_SYSINFO_EHDR
#define AT_SYSINFO_EHDR 33
#endif
#ifdef __x86_64__
typedef Elf64_Ehdr elf_ehdr;
typedef Elf64_Phdr elf_phdr;
typedef Elf64_Dyn elf_dyn;
typedef Elf64_Sym elf_sym;
#else
typedef Elf32_Ehdr elf_ehdr;
typedef Elf32_Phdr elf_phdr;
typedef Elf32_Dyn elf_dyn;
typedef Elf32_Sym elf_sym;
#endif

struct time {
    long s, ns;
};
typedef long clock_fn(int id, struct time *t);

static long syscall_clock(int id, struct time *t) { return SYS2(__NR_clock_gettime, id, t); }

/* The classic hash table tells how many symbols there are. */
static clock_fn *vdso_clock(void)
{
    const elf_ehdr *head = auxv(AT_SYSINFO_EHDR);
    if (head == NULL) {
        return NULL;
    }
    const uint8_t *base = (const uint8_t *)head;
    const elf_phdr *ph = (const elf_phdr *)(base + head->e_phoff);
    const elf_dyn *dyn = NULL;
    word bias = 0;
    for (int i = 0; i < head->e_phnum; i++) {
        if (ph[i].p_type == PT_LOAD) {
            bias = (word)base - ph[i].p_vaddr + ph[i].p_offset;
        } else if (ph[i].p_type == PT_DYNAMIC) {
            dyn = (const elf_dyn *)(base + ph[i].p_offset);
        }
    }
    const elf_sym *sym = NULL;
    const char *names = NULL;
    const uint32_t *table = NULL;
    for (; dyn != NULL && dyn->d_tag != DT_NULL; dyn++) {
        word value = bias + dyn->d_un.d_ptr;
        if (dyn->d_tag == DT_SYMTAB) {
            sym = (const elf_sym *)value;
        } else if (dyn->d_tag == DT_STRTAB) {
            names = (const char *)value;
        } else if (dyn->d_tag == DT_HASH) {
            table = (const uint32_t *)value;
        }
    }
    if (sym == NULL || names == NULL || table == NULL) {
        return NULL;
    }
    for (uint32_t i = 0; i < table[1]; i++) {
        if (same(names + sym[i].st_name, "__vdso_clock_gettime")) {
            return (clock_fn *)(bias + sym[i].st_value);
        }
    }
    return NULL;
}

static bool before(const struct time *a, const struct time *b)
{
    return a->s < b->s || (a->s == b->s && a->ns <= b->ns);
}

static void agree(const char *name, clock_fn *fn)
{
    static const int ids[] = {0, 1, 4, 5, 6, 7}; /* realtime, monotonic, raw, coarse, boot */
    bool good = true;
    for (unsigned i = 0; i < sizeof ids / sizeof ids[0]; i++) {
        bool coarse = ids[i] == 5 || ids[i] == 6;
        for (unsigned n = 0; n < 200; n++) {
            struct time a, b, c;
            syscall_clock(ids[i], &a);
            fn(ids[i], &b);
            syscall_clock(ids[i], &c);
            if (!before(&a, &b) || !before(&b, &c)) {
                say("# clock %d: %lx.%lx %lx.%lx %lx.%lx", ids[i], a.s, a.ns, b.s, b.ns, c.s, c.ns);
                good = false;
                break;
            }
            (void)coarse;
        }
    }
    ok(good, "%s: between two system calls", name);
}

static uint64_t tsc(void)
{
    uint32_t a, d;
    __asm__ volatile("rdtsc" : "=a"(a), "=d"(d));
    return a | (uint64_t)d << 32;
}

static void tsc_forwards(void)
{
    uint64_t last = tsc();
    bool good = true;
    for (unsigned i = 0; i < 2000; i++) {
        uint64_t now = tsc();
        good = good && now >= last;
        last = now;
    }
    ok(good, "TSC goes forwards");
}

static void sleeping(void)
{
    struct time a, b, want = {0, 50000000};
    syscall_clock(1, &a);
    SYS2(__NR_nanosleep, &want, 0);
    syscall_clock(1, &b);
    long ms = (b.s - a.s) * 1000 + (b.ns - a.ns) / 1000000;
    ok(ms >= 49 && ms < 5000, "a sleep of 50 ms (%d ms)", (int)ms);
}

void test_time(void)
{
    clock_fn *vdso = vdso_clock();
    if (vdso != NULL) {
        agree("vDSO clock_gettime", vdso);
    } else {
        skip("vDSO clock_gettime", "not found");
    }
#ifdef __x86_64__
    if (contains("/proc/self/maps", "[vsyscall]")) {
        long (*vsyscall_time)(long *) = (long (*)(long *))0xffffffffff600400;
        struct time a, c;
        syscall_clock(0, &a);
        long now = vsyscall_time(NULL);
        syscall_clock(0, &c);
        ok(now >= a.s - 1 && now <= c.s, "vsyscall time");
    } else {
        skip("vsyscall time", "the kernel has no such page");
    }
#endif
    if (has("tsc")) {
        tsc_forwards();
    }
    sleeping();
}
