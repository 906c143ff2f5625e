/* SPDX-License-Identifier: Apache-2.0
 *
 * 4-level paging with 4 KiB, 2 MiB and 1 GiB pages: permissions, SMEP, SMAP, protection keys,
 * reserved bits, PCIDs and what invalidates what. */
/* In a PML4 slot of its own, so that every level can be closed. */
#define TEST_VA 0x8040000000ul
#include "paging.h"

extern uint64_t boot_pml4[512];
static uint64_t pdpt[512] __attribute__((aligned(4096)));
static uint64_t pd[512] __attribute__((aligned(4096)));
static uint64_t pt[512] __attribute__((aligned(4096)));
static uint64_t pd_user[512] __attribute__((aligned(4096)));
static uint64_t pt_user[512] __attribute__((aligned(4096)));
static uint64_t other_pml4[512] __attribute__((aligned(4096)));
static uint8_t page_a[4096] __attribute__((aligned(4096)));
static uint8_t page_b[4096] __attribute__((aligned(4096)));
static uint8_t big[2 << 20] __attribute__((aligned(2 << 20)));

static void map(void)
{
    extern uint64_t boot_pdpt[512];
    boot_pml4[1] = (word)pdpt | P | W | U;
    pdpt[TEST_VA >> 30 & 511] = (word)pd | P | W | U;
    pd[0] = (word)pt | P | W | U;
    pt[0] = (word)test_page | P | W | U;
    boot_pml4[0] |= U;
    boot_pdpt[USER_VA >> 30] = (word)pd_user | P | W | U;
    pd_user[USER_VA >> 21 & 511] = (word)pt_user | P | W | U;
    pt_user[0] = (word)user_page | P | W | U;
    memcpy(user_page, user_code, sizeof user_code);
    write_cr3((word)boot_pml4);
}

static void keys(struct mode *m)
{
    if (!m->pku) {
        skip("protection keys");
        return;
    }
    bad_count = 0;
    for (unsigned n = 0; n < 4 * 4 * 4 * 6; n++) {
        struct setup s = { .wp = n / 6 & 1, .pke = true, .key = n / 12 & 1 ? 15 : 3 };
        for (unsigned i = 0; i < m->levels; i++) {
            s.flags[i] = W | U;
        }
        s.flags[0] = combination(m, n / 24 & 3);
        s.pkru = (n / 96 & 3) << (2 * s.key);
        one(m, &s, n % 3, n / 3 % 2, TEST_VA);
    }
    ok_eq(bad_count, 0, "protection keys");
    uint32_t eax;
    __asm__ volatile("rdpkru" : "=a"(eax) : "c"(0) : "edx");
    write_cr4(read_cr4() & ~(1ul << 22));
}

/* -- TLB --------------------------------------------------------------------------------------- */
static uint8_t peek(void) { return *(volatile uint8_t *)TEST_VA; }

static void invpcid(word type, uint64_t pcid, uint64_t va)
{
    struct {
        uint64_t pcid, va;
    } d = { pcid, va };
    __asm__ volatile("invpcid %1, %0" ::"r"(type), "m"(d) : "memory");
}

struct invpcid_args {
    word type;
    uint64_t pcid, va;
};
static void do_invpcid(void *arg)
{
    struct invpcid_args *a = arg;
    invpcid(a->type, a->pcid, a->va);
}
static void do_cr3(void *arg) { write_cr3(*(word *)arg); }
static void do_cr4(void *arg) { write_cr4(*(word *)arg); }

static void tlb(void)
{
    page_a[0] = 1;
    page_b[0] = 2;
    pt[0] = (word)page_a | P | W | U;
    invlpg((void *)TEST_VA);
    ok_eq(peek(), 1, "INVLPG: first page");
    pt[0] = (word)page_b | P | W | U;
    invlpg((void *)TEST_VA);
    ok_eq(peek(), 2, "INVLPG: second page");
    pt[0] = (word)page_a | P | W | U;
    write_cr3(read_cr3());
    ok_eq(peek(), 1, "MOV CR3");
    write_cr4(read_cr4() | 0x80); /* PGE */
    pt[0] = (word)page_a | P | W | U | G;
    invlpg((void *)TEST_VA);
    (void)peek();
    pt[0] = (word)page_b | P | W | U | G;
    invlpg((void *)TEST_VA);
    ok_eq(peek(), 2, "INVLPG drops a global page");
    pt[0] = (word)page_a | P | W | U | G;
    write_cr4(read_cr4() & ~0x80ul);
    ok_eq(peek(), 1, "CR4.PGE drops global pages");
    pt[0] = (word)page_a | P | W | U;
    invlpg((void *)TEST_VA);
    /* INVLPG in the middle of a 2 MiB page drops all of it */
    uint64_t old = pd[0];
    big[0] = 7;
    pd[0] = (word)big | PS | P | W | U;
    invlpg((void *)TEST_VA);
    ok_eq(peek(), 7, "2 MiB page");
    (void)*(volatile uint8_t *)(TEST_VA + 0x1000);
    pd[0] = old;
    invlpg((void *)(TEST_VA + 0x1000));
    ok_eq(peek(), 1, "INVLPG of any part drops a large page");
}

static void pcids(void)
{
    uint32_t r[4];
    cpuid(1, 0, r);
    bool pcid = r[2] & 1u << 17;
    cpuid(7, 0, r);
    bool has_invpcid = r[1] & 1u << 10;
    if (!pcid) {
        skip("PCID");
        return;
    }
    word cr3 = read_cr3();
    word bad = cr3 | 1;
    word pcide = read_cr4() | 1ul << 17;
    write_cr3(bad & ~8ul);
    ok_trap(run(do_cr4, &pcide), 13, 0, "PCIDE with CR3[11:0] not 0");
    write_cr3(cr3);
    ok_trap(run(do_cr4, &pcide), NONE, 0, "PCIDE");
    memcpy(other_pml4, boot_pml4, 4096);
    static uint64_t pdpt2[512] __attribute__((aligned(4096))),
        pd2[512] __attribute__((aligned(4096))), pt2[512] __attribute__((aligned(4096)));
    other_pml4[1] = (word)pdpt2 | P | W | U;
    pdpt2[TEST_VA >> 30 & 511] = (word)pd2 | P | W | U;
    pd2[0] = (word)pt2 | P | W | U;
    pt2[0] = (word)page_b | P | W | U;
    pt[0] = (word)page_a | P | W | U;
    write_cr3((word)boot_pml4 | 1);
    ok_eq(peek(), 1, "PCID 1");
    write_cr3((word)other_pml4 | 2);
    ok_eq(peek(), 2, "PCID 2");
    write_cr3((word)boot_pml4 | 1 | 1ul << 63);
    ok_eq(peek(), 1, "PCID 1 again, without a flush");
    ok_eq(read_cr3() >> 63, 0, "bit 63 does not read back");
    if (has_invpcid) {
        pt[0] = (word)page_b | P | W | U;
        invpcid(0, 1, TEST_VA);
        ok_eq(peek(), 2, "INVPCID 0: one address");
        pt[0] = (word)page_a | P | W | U;
        invpcid(1, 1, 0);
        ok_eq(peek(), 1, "INVPCID 1: one PCID");
        pt[0] = (word)page_b | P | W | U;
        invpcid(2, 0, 0);
        ok_eq(peek(), 2, "INVPCID 2: all, with globals");
        pt[0] = (word)page_a | P | W | U;
        invpcid(3, 0, 0);
        ok_eq(peek(), 1, "INVPCID 3: all");
        struct invpcid_args a = { 4, 0, 0 };
        ok_trap(run(do_invpcid, &a), 13, 0, "INVPCID 4");
        a = (struct invpcid_args){ 0, 0x1000, 0 };
        ok_trap(run(do_invpcid, &a), 13, 0, "INVPCID with reserved bits");
        a = (struct invpcid_args){ 0, 1, 0x800000000000 };
        ok_trap(run(do_invpcid, &a), 13, 0, "INVPCID 0 with a non-canonical address");
    }
    word big_cr3 = 1ul << phys_bits();
    ok_trap(run(do_cr3, &big_cr3), 13, 0, "CR3 beyond MAXPHYADDR");
    write_cr3((word)boot_pml4);
    write_cr4(read_cr4() & ~(1ul << 17));
    word no_pcid = (word)boot_pml4 | 1ul << 63;
    ok_trap(run(do_cr3, &no_pcid), 13, 0, "CR3 bit 63 without PCIDE");
}

int test_main(void)
{
    map();
    struct mode m = { .name = "4-level, 4 KiB",
                      .entry_size = 8,
                      .levels = 4,
                      .nx = true,
                      .level = { { &pt[0], true },
                                 { &pd[0], true },
                                 { &pdpt[TEST_VA >> 30 & 511], true },
                                 { &boot_pml4[1], true } } };
    features(&m);
    matrix(&m);
    holes(&m);
    keys(&m);
    unsigned bits = phys_bits();
    for (unsigned i = 0; i < 4; i++) {
        if (bits < 52) {
            reserved(&m, i, 1ull << bits, "beyond MAXPHYADDR");
            reserved(&m, i, 1ull << 51, "bit 51");
        }
        not_reserved(&m, i, 1ull << 52, "bit 52 is free");
        not_reserved(&m, i, 0xe00, "bits 11:9 are free");
    }
    reserved(&m, 3, PS, "PS in a PML4E");
    open_all(&m);
    wrmsr(0xc0000080, rdmsr(0xc0000080) & ~0x800ull);
    struct mode x = m;
    x.nx = false;
    for (unsigned i = 0; i < 4; i++) {
        reserved(&x, i, NX, "NX without NXE");
    }
    wrmsr(0xc0000080, rdmsr(0xc0000080) | 0x800);
    open_all(&m);

    /* Large pages */
    uint64_t old = pd[0];
    pd[0] = (word)big | PS | P | W | U;
    struct mode b = {
        .name = "2 MiB", .entry_size = 8, .levels = 1, .nx = true, .level = { { &pd[0], true } }
    };
    features(&b);
    reserved(&b, 0, 1ull << 13, "2 MiB page, bit 13");
    reserved(&b, 0, 1ull << 20, "2 MiB page, bit 20");
    not_reserved(&b, 0, 1ull << 12, "2 MiB page, PAT");
    bad_count = 0;
    for (unsigned n = 0; n < 8 * 16 * 6; n++) {
        unsigned c = n / 6;
        struct setup s = { .flags = { combination(&b, c / 16) },
                           .wp = c & 1,
                           .smep = (c & 2) && b.smep,
                           .smap = (c & 4) && b.smap,
                           .ac = c & 8 };
        big[0] = 0xcd;
        big[1] = 0x81;
        one(&b, &s, n % 3, n / 3 % 2, TEST_VA);
    }
    ok_eq(bad_count, 0, "permission matrix, 2 MiB");
    pd[0] = old;

    uint32_t r[4];
    cpuid(0x80000001, 0, r);
    uint64_t *e = &pdpt[TEST_VA >> 30 & 511];
    old = *e;
    *e = PS | P | W | U;
    struct mode g = {
        .name = "1 GiB", .entry_size = 8, .levels = 1, .nx = true, .level = { { e, true } }
    };
    if (r[3] & 1u << 26) {
        reserved(&g, 0, 1ull << 13, "1 GiB page, bit 13");
        reserved(&g, 0, 1ull << 29, "1 GiB page, bit 29");
        write_cr3(read_cr3());
        ok_eq(*(volatile uint32_t *)(TEST_VA + 0x100000), *(volatile uint32_t *)0x100000,
              "1 GiB page");
    } else {
        reserved(&g, 0, 0, "PS in a PDPTE without 1 GiB pages");
    }
    *e = old;
    open_all(&m);
    tlb();
    pcids();
    return 0;
}
