/* SPDX-License-Identifier: Apache-2.0
 *
 * 32-bit paging with 4 KiB and 4 MiB pages (PSE, PSE-36), and PAE paging with 4 KiB and 2 MiB
 * pages. */
#include "paging.h"

static uint32_t pd[1024] __attribute__((aligned(4096)));
static uint32_t pt_test[1024] __attribute__((aligned(4096)));
static uint32_t pt_user[1024] __attribute__((aligned(4096)));

static uint64_t pdpt[4] __attribute__((aligned(32)));
static uint64_t pae_pd[4][512] __attribute__((aligned(4096)));
static uint64_t pae_pt_test[512] __attribute__((aligned(4096)));
static uint64_t pae_pt_user[512] __attribute__((aligned(4096)));

static uint8_t big[4 << 20] __attribute__((aligned(4 << 20)));

static void paging_off(void)
{
    write_cr0(read_cr0() & ~0x80000000ul);
    write_cr4(read_cr4() & ~0x7000b0ul);
}

static void two_level(void)
{
    for (unsigned i = 0; i < 16; i++) {
        pd[i] = i << 22 | PS | W | P;
    }
    pd[TEST_VA >> 22] = (word)pt_test | P | W | U;
    pd[USER_VA >> 22] = (word)pt_user | P | W | U;
    pt_test[0] = (word)test_page | P | W | U;
    pt_user[0] = (word)user_page | P | W | U;
    write_cr4(read_cr4() | 0x10);
    write_cr3((word)pd);
    write_cr0(read_cr0() | 0x80010000ul);

    struct mode m = { .name = "32-bit, 4 KiB",
                      .entry_size = 4,
                      .levels = 2,
                      .level = { { &pt_test[0], true }, { &pd[TEST_VA >> 22], true } } };
    features(&m);
    matrix(&m);
    holes(&m);

    struct mode b = { .name = "32-bit, 4 MiB",
                      .entry_size = 4,
                      .levels = 1,
                      .level = { { &pd[TEST_VA >> 22], true } } };
    features(&b);
    pd[TEST_VA >> 22] = (word)big | PS | P | W | U;
    for (unsigned op = 0; op < 3; op++) {
        big[0] = 0xcd;
        big[1] = 0x81;
        open_all(&b);
        ok_access(&b, op, true, NONE, "4 MiB page, user");
    }
    bad_count = 0;
    for (unsigned n = 0; n < 4 * 16 * 6; n++) {
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
    ok_eq(bad_count, 0, "permission matrix, 4 MiB");
    holes(&b);
    reserved(&b, 0, 1u << 21, "4 MiB page, bit 21");
    /* PS without PSE means nothing */
    write_cr0(read_cr0() & ~0x80000000ul);
    pd[TEST_VA >> 22] = (word)pt_test | PS | P | W | U;
    for (unsigned i = 0; i < 16; i++) {
        static uint32_t low[16][1024] __attribute__((aligned(4096)));
        for (unsigned j = 0; j < 1024; j++) {
            low[i][j] = i << 22 | j << 12 | W | P;
        }
        pd[i] = (word)low[i] | PS | W | P;
    }
    write_cr4(read_cr4() & ~0x10ul);
    write_cr0(read_cr0() | 0x80000000ul);
    pt_test[0] = (word)test_page | P | W | U;
    ok_access(&m, READ, true, NONE, "PS without CR4.PSE is ignored");
    paging_off();
}

static void load_bad_pdpt(void *arg)
{
    pdpt[1] = *(uint64_t *)arg;
    write_cr3((word)pdpt);
}

static void pae(void)
{
    for (unsigned i = 0; i < 4; i++) {
        pdpt[i] = (word)pae_pd[i] | P;
    }
    for (unsigned i = 0; i < 32; i++) {
        pae_pd[0][i] = i << 21 | PS | W | P;
    }
    uint64_t *pde = &pae_pd[TEST_VA >> 30][TEST_VA >> 21 & 511];
    *pde = (word)pae_pt_test | P | W | U;
    pae_pd[USER_VA >> 30][USER_VA >> 21 & 511] = (word)pae_pt_user | P | W | U;
    pae_pt_test[0] = (word)test_page | P | W | U;
    pae_pt_user[0] = (word)user_page | P | W | U;
    write_cr4(read_cr4() | 0x20);
    write_cr3((word)pdpt);
    write_cr0(read_cr0() | 0x80010000ul);

    struct mode m = {
        .name = "PAE, 4 KiB",
        .entry_size = 8,
        .levels = 3,
        .nx = true,
        .level = { { &pae_pt_test[0], true }, { pde, true }, { &pdpt[TEST_VA >> 30], false } }
    };
    features(&m);
    struct mode x = m;
    x.nx = false;
    holes(&x);
    reserved(&x, 0, NX, "PTE.NX without NXE");
    reserved(&x, 1, NX, "PDE.NX without NXE");
    wrmsr(0xc0000080, rdmsr(0xc0000080) | 0x800);
    matrix(&m);
    holes(&m);
    unsigned bits = phys_bits();
    reserved(&m, 0, 1ull << bits, "PTE beyond MAXPHYADDR");
    reserved(&m, 1, 1ull << bits, "PDE beyond MAXPHYADDR");
    reserved(&m, 0, 1ull << 62, "PTE bit 62");
    reserved(&m, 1, 1ull << 52, "PDE bit 52");
    not_reserved(&m, 0, 0xe00, "bits 11:9 are free");

    uint64_t bad[] = { pdpt[1] | 2, pdpt[1] | 0x20, 1ull << bits | P, 1ull << 63 | P };
    uint64_t good = pdpt[1];
    for (unsigned i = 0; i < 4; i++) {
        ok_trap(run(load_bad_pdpt, &bad[i]), 13, 0, "reserved bit in a PDPTE: MOV CR3");
    }
    uint64_t absent = 0x1e6;
    ok_trap(run(load_bad_pdpt, &absent), NONE, 0, "the same in an absent one");
    ok_eq((uint32_t)perform(READ, false, TEST_VA), 0, "whose region is not present");
    pdpt[1] = good;
    ok_eq((uint32_t)perform(READ, false, TEST_VA), 0, "PDPTEs are read by MOV CR3 only");
    write_cr3((word)pdpt);
    ok_eq((uint32_t)perform(READ, false, TEST_VA), (uint32_t)NONE, "and now are");

    *pde = (word)big | PS | P | W | U;
    struct mode b = { .name = "PAE, 2 MiB",
                      .entry_size = 8,
                      .levels = 2,
                      .nx = true,
                      .level = { { pde, true }, { &pdpt[TEST_VA >> 30], false } } };
    features(&b);
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
    reserved(&b, 0, 1ull << 13, "2 MiB page, bit 13");
    reserved(&b, 0, 1ull << 20, "2 MiB page, bit 20");
    not_reserved(&b, 0, 1ull << 12, "2 MiB page, PAT bit 12");
    paging_off();
}

int test_main(void)
{
    memcpy(user_page, user_code, sizeof user_code);
    two_level();
    pae();
    return 0;
}
