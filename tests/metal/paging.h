/* SPDX-License-Identifier: Apache-2.0
 *
 * Permission matrix of one paging mode. The including kernel says how the page at TEST_VA is mapped
 * (struct mode) and which features there are; what each access must do is computed here from SDM 3
 * 4.6 and 4.7, and compared with what happens. */
#include "rt.h"

#define P 1ull
#define W 2ull
#define U 4ull
#define A 0x20ull
#define D 0x40ull
#define PS 0x80ull
#define G 0x100ull
#define NX (1ull << 63)

#define F_P 1
#define F_W 2
#define F_U 4
#define F_RSVD 8
#define F_I 16
#define F_PK 32

#ifndef TEST_VA
#define TEST_VA 0x40000000ul
#endif
#define USER_VA 0x60000000ul /* a user page with code and stack */

struct level {
    void *entry;
    bool flags; /* takes U, W, NX (a PAE PDPTE does not) */
};
struct mode {
    const char *name;
    unsigned entry_size;
    unsigned levels; /* level[0] is the leaf */
    struct level level[5];
    bool nx;
    bool smep, smap, pku; /* the processor has them */
};

enum op { READ, WRITE, EXEC };

struct setup {
    uint64_t flags[5]; /* of each level */
    bool wp, smep, smap, ac;
    uint32_t pkru;
    unsigned key;
    bool pke;
};

static uint8_t test_page[4096] __attribute__((aligned(4096)));
static uint8_t user_page[4096] __attribute__((aligned(4096)));

static uint64_t get_entry(const struct mode *m, unsigned i)
{
    return m->entry_size == 8 ? *(volatile uint64_t *)m->level[i].entry
                              : *(volatile uint32_t *)m->level[i].entry;
}

static void set_entry(const struct mode *m, unsigned i, uint64_t v)
{
    if (m->entry_size == 8) {
        *(volatile uint64_t *)m->level[i].entry = v;
    } else {
        *(volatile uint32_t *)m->level[i].entry = (uint32_t)v;
    }
}

/* -- What must happen: error code, or NONE */
static int expected(const struct mode *m, const struct setup *s, enum op op, bool user)
{
    uint64_t all = ~0ull;
    bool nx = false;
    for (unsigned i = 0; i < m->levels; i++) {
        if (m->level[i].flags) {
            all &= s->flags[i];
            nx = nx || (s->flags[i] & NX);
        }
    }
    bool upage = all & U;
    bool wpage = all & W;
    bool pk = false;
    bool bad;
    if (op == EXEC) {
        bad = nx || (user ? !upage : upage && s->smep);
    } else {
        bad = user ? !upage : upage && s->smap && !s->ac;
        if (op == WRITE) {
            bad = bad || (!wpage && (user || s->wp));
        }
        if (upage && s->pke) {
            uint32_t rights = s->pkru >> (2 * s->key);
            pk = (rights & 1) || (op == WRITE && (rights & 2) && (user || s->wp));
            bad = bad || pk;
        }
    }
    if (!bad) {
        return NONE;
    }
    return F_P | (op == WRITE ? F_W : 0) | (user ? F_U : 0) |
           (op == EXEC && (m->nx || s->smep) ? F_I : 0) | (pk ? F_PK : 0);
}

/* -- Doing it */
struct access {
    enum op op;
    word va;
};

static void set_ac(bool on)
{
#ifdef __x86_64__
    if (on) {
        __asm__ volatile("pushf; orq $0x40000, (%%rsp); popf" ::: "memory", "cc");
    } else {
        __asm__ volatile("pushf; andq $~0x40000, (%%rsp); popf" ::: "memory", "cc");
    }
#else
    if (on) {
        __asm__ volatile("pushf; orl $0x40000, (%%esp); popf" ::: "memory", "cc");
    } else {
        __asm__ volatile("pushf; andl $~0x40000, (%%esp); popf" ::: "memory", "cc");
    }
#endif
}

static bool want_ac;

static void supervisor(void *arg)
{
    struct access a = *(struct access *)arg;
    uint8_t v = 0;
    set_ac(want_ac);
    switch (a.op) {
    case READ:
        __asm__ volatile("movb (%1), %0" : "=q"(v) : "r"(a.va));
        break;
    case WRITE:
        __asm__ volatile("movb %0, (%1)" ::"q"((uint8_t)0xcd), "r"(a.va));
        break;
    case EXEC:
        __asm__ volatile("call *%0" ::"r"(a.va) : "memory");
        break;
    }
    set_ac(false);
}

/* user_page: 0: mov (%rbx),%al; int 0x80   16: mov %al,(%rbx); int 0x80   32: jmp *%rbx */
static const uint8_t user_code[3][16] = {
    { 0x8a, 0x03, 0xcd, 0x80 },
    { 0x88, 0x03, 0xcd, 0x80 },
    { 0xff, 0xe3 },
};

static int perform(enum op op, bool user, word va)
{
    int v;
    if (user) {
        struct start s = { .ip = USER_VA + 16 * op,
                           .cs = SEL_UCODE,
                           .flags = 2,
                           .sp = USER_VA + 4096,
                           .ss = SEL_UDATA,
                           .gpr = { 0xcd, 0, 0, va },
                           .es = SEL_UDATA,
                           .ds = SEL_UDATA };
        v = enter(&s);
    } else {
        struct access a = { op, va };
        v = run(supervisor, &a);
        set_ac(false);
    }
    if (v == NONE || v == 0x80 || v == 0x81) {
        return NONE;
    }
    return v == 14 ? (int)trap.error : 0x1000 + v;
}

static void apply(const struct mode *m, const struct setup *s)
{
    for (unsigned i = 0; i < m->levels; i++) {
        uint64_t keep = get_entry(m, i) & ~(U | W | NX | A | D | (0xfull << 59));
        if (!m->level[i].flags) {
            continue;
        }
        uint64_t key = i == 0 && s->pke ? (uint64_t)s->key << 59 : 0;
        set_entry(m, i, keep | P | s->flags[i] | key);
    }
    word cr0 = read_cr0() & ~0x10000ul;
    write_cr0(cr0 | (s->wp ? 0x10000 : 0));
    word cr4 = read_cr4() & ~0x700000ul;
    write_cr4(cr4 | (s->smep ? 1ul << 20 : 0) | (s->smap ? 1ul << 21 : 0) |
              (s->pke ? 1ul << 22 : 0));
    if (s->pke) {
        __asm__ volatile("xor %%ecx, %%ecx; xor %%edx, %%edx; wrpkru" ::"a"(s->pkru)
                         : "ecx", "edx");
    }
    write_cr3(read_cr3());
    want_ac = s->ac;
}

static unsigned bad_count;

static void report(const struct mode *m, const struct setup *s, enum op op, bool user, int want,
                   int got)
{
    if (bad_count++ >= 5) {
        return;
    }
    print("# ");
    print(op == READ ? "read" : op == WRITE ? "write" : "exec");
    print(user ? " user" : " super");
    print(" wp smep smap ac ");
    print_hex((uint64_t)s->wp << 12 | (uint64_t)s->smep << 8 | (uint64_t)s->smap << 4 | s->ac);
    print(" entries");
    for (unsigned i = 0; i < m->levels; i++) {
        print(" ");
        print_hex(s->flags[i]);
    }
    print(" pkru ");
    print_hex(s->pkru);
    print(" want ");
    print_hex((uint32_t)want);
    print(" got ");
    print_hex((uint32_t)got);
    print(" cr2 ");
    print_hex(trap.cr2);
    print("\n");
}

static void one(const struct mode *m, struct setup *s, enum op op, bool user, word va)
{
    apply(m, s);
    test_page[0] = 0xcd; /* int 0x81 */
    test_page[1] = 0x81;
    int want = expected(m, s, op, user);
    int got = perform(op, user, va);
    if (got != want || (want != NONE && trap.cr2 != va)) {
        report(m, s, op, user, want, got);
        return;
    }
    bool dirty = get_entry(m, 0) & D;
    bool accessed = true;
    for (unsigned i = 0; i < m->levels; i++) {
        accessed = accessed && (!m->level[i].flags || (get_entry(m, i) & A));
    }
    if (want == NONE ? !accessed || dirty != (op == WRITE) : dirty) {
        print("# accessed/dirty wrong:");
        report(m, s, op, user, want, got);
    }
}

static uint64_t combination(const struct mode *m, unsigned bits)
{
    return (bits & 1 ? W : 0) | (bits & 2 ? U : 0) | (bits & 4 && m->nx ? NX : 0);
}

/* The leaf with each other level, all others open. */
static void matrix(const struct mode *m)
{
    unsigned kinds = m->nx ? 8 : 4;
    bad_count = 0;
    for (unsigned other = 1; other < m->levels; other++) {
        if (!m->level[other].flags) {
            continue;
        }
        for (unsigned n = 0; n < kinds * kinds * 16 * 6; n++) {
            unsigned c = n / 6;
            struct setup s = {
                .wp = c & 1, .smep = (c & 2) && m->smep, .smap = (c & 4) && m->smap, .ac = c & 8
            };
            if (((c & 2) && !m->smep) || ((c & 4) && !m->smap)) {
                continue;
            }
            for (unsigned i = 0; i < m->levels; i++) {
                s.flags[i] = W | U;
            }
            s.flags[0] = combination(m, c / 16 % kinds);
            s.flags[other] = combination(m, c / 16 / kinds);
            one(m, &s, n % 3, n / 3 % 2, TEST_VA);
        }
    }
    print("# ");
    print(m->name);
    print("\n");
    ok_eq(bad_count, 0, "permission matrix");
}

static void open_all(const struct mode *m)
{
    struct setup s = { .wp = true };
    for (unsigned i = 0; i < m->levels; i++) {
        s.flags[i] = W | U;
    }
    apply(m, &s);
}

static void ok_access(const struct mode *m, enum op op, bool user, int want, const char *name)
{
    write_cr3(read_cr3());
    test_page[0] = 0xcd;
    test_page[1] = 0x81;
    int got = perform(op, user, TEST_VA);
    ok_eq((uint32_t)got, (uint32_t)want, name);
    (void)m;
}

/* Not present and reserved bits at each level. */
static void holes(const struct mode *m)
{
    for (unsigned i = 0; i < m->levels; i++) {
        if (!m->level[i].flags) {
            continue;
        }
        open_all(m);
        uint64_t old = get_entry(m, i);
        set_entry(m, i, old & ~P);
        ok_access(m, READ, false, 0, "not present: supervisor read");
        ok_access(m, WRITE, true, F_W | F_U, "not present: user write");
        ok_access(m, EXEC, true, F_U | (m->nx ? F_I : 0), "not present: user fetch");
        set_entry(m, i, old);
    }
}

static void reserved(const struct mode *m, unsigned level, uint64_t bit, const char *name)
{
    open_all(m);
    uint64_t old = get_entry(m, level);
    set_entry(m, level, old | bit);
    ok_access(m, READ, false, F_P | F_RSVD, name);
    ok_access(m, WRITE, true, F_P | F_RSVD | F_W | F_U, name);
    set_entry(m, level, old);
}

static void not_reserved(const struct mode *m, unsigned level, uint64_t bit, const char *name)
{
    open_all(m);
    uint64_t old = get_entry(m, level);
    set_entry(m, level, old | bit);
    ok_access(m, READ, false, NONE, name);
    set_entry(m, level, old);
}

static unsigned phys_bits(void)
{
    uint32_t r[4];
    cpuid(0x80000008, 0, r);
    return r[0] & 0xff;
}

static void features(struct mode *m)
{
    uint32_t r[4];
    cpuid(7, 0, r);
    m->smep = r[1] & 1u << 7;
    m->smap = r[1] & 1u << 20;
    m->pku = r[2] & 1u << 3;
}
