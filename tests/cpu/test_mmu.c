/* SPDX-License-Identifier: Apache-2.0
 *
 * The page walk beside what the metal kernels try: 5 levels, PSE-36, A20, tables in ROM and in
 * nowhere, what mmu_translate says of a page, races for the accessed bit.
 */
// LAYERS: cpu mem state base
#include "support/test.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "base/bits.h"
#include "support/vm.h"

#define P 1ull
#define W 2ull
#define U 4ull
#define A 0x20ull
#define D 0x40ull
#define PS 0x80ull
#define G 0x100ull
#define NX (1ull << 63)

#define TABLES 0x100000u /* five tables in a row, top first */

static int set_up(void **state)
{
    *state = vm_new(1, NULL);
    return 0;
}

static int tear_down(void **state)
{
    vm_free(*state);
    return 0;
}

static uint64_t *table(struct vm *vm, unsigned n)
{
    return (uint64_t *)(vm->ram + TABLES + n * 4096);
}

/* va -> 0x234000 by `levels` levels of 8-byte entries. */
static struct cpu *map(struct vm *vm, unsigned levels, gva_t va)
{
    struct cpu *c = vm->cpu[0];
    vm_mode(vm, 0, 64);
    memset(vm->ram + TABLES, 0, 6 * 4096);
    for (unsigned i = 0; i < levels; i++) {
        unsigned shift = 12 + 9 * (levels - 1 - i);
        uint64_t next = i == levels - 1 ? 0x234000 : TABLES + (i + 1) * 4096;
        table(vm, i)[va >> shift & 511] = next | P | W | U;
    }
    c->cr3 = TABLES;
    tlb_flush_all(c);
    return c;
}

static void five_levels(void **state)
{
    struct vm *vm = *state;
    gva_t va = 0x00ab123456789000ull;
    struct cpu *c = map(vm, 5, va);
    struct mmu_page p;
    uint32_t error;
    c->cr4 |= CR4_LA57;
    assert_true(mmu_canonical(c, va));
    assert_int_equal(mmu_translate(c, va, MMU_WRITE, TLB_VIEW_USER, &p, &error), 0);
    assert_int_equal(p.gpa, 0x234000);
    assert_true(p.read && p.write && p.exec && p.user && !p.global);
    assert_int_equal(table(vm, 0)[va >> 48 & 511] & (A | D), A);
    assert_int_equal(table(vm, 4)[va >> 12 & 511] & (A | D), A | D);
    table(vm, 0)[va >> 48 & 511] |= PS;
    assert_int_equal(mmu_translate(c, va, MMU_READ, TLB_VIEW_SUPER, &p, &error), -EFAULT);
    assert_int_equal(error, PF_P | PF_RSVD);
    assert_false(mmu_canonical(c, 0x0100000000000000ull));
    assert_true(mmu_canonical(c, 0xff00000000000000ull));
    c->cr4 &= ~CR4_LA57;
    assert_false(mmu_canonical(c, va));
    assert_false(mmu_canonical(c, 0x0000800000000000ull));
    assert_true(mmu_canonical(c, 0xffff800000000000ull));
}

static void what_it_says(void **state)
{
    struct vm *vm = *state;
    gva_t va = 0x8012345000ull;
    struct cpu *c = map(vm, 4, va);
    uint64_t *pte = &table(vm, 3)[va >> 12 & 511];
    struct mmu_page p;
    uint32_t error;
    assert_int_equal(mmu_translate(c, va + 0x123, MMU_READ, TLB_VIEW_SUPER, &p, &error), 0);
    assert_int_equal(p.gpa, 0x234000);
    assert_int_equal(p.span, 4096);
    assert_false(p.write); /* dirty is clear yet */
    assert_int_equal(*pte & (A | D), A);
    assert_int_equal(mmu_translate(c, va, MMU_WRITE, TLB_VIEW_SUPER, &p, &error), 0);
    assert_true(p.write);
    assert_int_equal(*pte & (A | D), A | D);
    *pte |= G | NX;
    assert_int_equal(mmu_translate(c, va, MMU_READ, TLB_VIEW_SUPER, &p, &error), 0);
    assert_true(p.global && !p.exec);
    c->cr4 &= ~CR4_PGE;
    assert_int_equal(mmu_translate(c, va, MMU_READ, TLB_VIEW_SUPER, &p, &error), 0);
    assert_false(p.global);

    /* 2 MiB: the 4 KiB piece, the span of the whole */
    table(vm, 2)[va >> 21 & 511] = 0x400000 | PS | P | W;
    assert_int_equal(mmu_translate(c, va, MMU_READ, TLB_VIEW_SUPER, &p, &error), 0);
    assert_int_equal(p.gpa, 0x400000 + (va & 0x1ff000));
    assert_int_equal(p.span, MIB(2));
    assert_false(p.user);
    gpa_t gpa;
    assert_int_equal(mmu_peek(c, va + 5, &gpa), 0);
    assert_int_equal(gpa, 0x400005 + (va & 0x1ff000));
    assert_int_equal(mmu_peek(c, 0, &gpa), -EFAULT);

    /* a peek leaves no trace */
    map(vm, 4, va);
    assert_int_equal(mmu_peek(c, va, &gpa), 0);
    assert_int_equal(*pte & A, 0);
    c->cr0 &= ~CR0_PG;
    assert_int_equal(mmu_translate(c, 0x1ffffffff, MMU_EXEC, TLB_VIEW_USER, &p, &error), 0);
    assert_int_equal(p.gpa, 0xfffff000);
}

static void pse36(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = map(vm, 4, 0);
    uint32_t *pd = (uint32_t *)(vm->ram + TABLES);
    struct mmu_page p;
    uint32_t error;
    memset(pd, 0, 4096);
    c->efer = 0;
    c->cr4 = CR4_PSE;
    vm->model.phys_bits = 40;
    pd[1] = 0x00800000 | 0xab << 13 | PS | P | W | U;
    assert_int_equal(mmu_translate(c, 0x400000 + 0x3000, MMU_READ, TLB_VIEW_USER, &p, &error), 0);
    assert_int_equal(p.gpa, 0xab00803000ull);
    assert_int_equal(p.span, MIB(4));
    vm->model.phys_bits = 36;
    assert_int_equal(mmu_translate(c, 0x400000, MMU_READ, TLB_VIEW_USER, &p, &error), -EFAULT);
    assert_int_equal(error, PF_P | PF_RSVD | PF_U);
    pd[1] = 0x00800000 | 0xb << 13 | PS | P | W | U;
    assert_int_equal(mmu_translate(c, 0x400000, MMU_READ, TLB_VIEW_USER, &p, &error), 0);
    assert_int_equal(p.gpa, 0xb00800000ull);
    cpu_features_clear(&c->features, CPU_FEATURE_PSE36);
    assert_int_equal(mmu_translate(c, 0x400000, MMU_READ, TLB_VIEW_USER, &p, &error), -EFAULT);
}

static bool masked(void *ctx)
{
    (void)ctx;
    return true;
}

static void a20(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    struct mmu_page p;
    uint32_t error;
    vm_mode(vm, 0, 16);
    vm->world.a20_masked = masked;
    assert_int_equal(mmu_translate(c, 0x10ffff, MMU_READ, TLB_VIEW_SUPER, &p, &error), 0);
    assert_int_equal(p.gpa, 0xf000);
    /* tables too: TABLES has address bit 20 set */
    map(vm, 4, 0x8000000000);
    memcpy(vm->ram, vm->ram + TABLES, 4 * 4096);
    memset(vm->ram + TABLES, 0, 4 * 4096);
    assert_int_equal(mmu_translate(c, 0x8000000000, MMU_READ, TLB_VIEW_SUPER, &p, &error), 0);
    assert_int_equal(p.gpa, 0x234000);
}

static void odd_places(void **state)
{
    struct vm *vm = *state;
    struct mmu_page p;
    uint32_t error;
    struct err e;
    gva_t va = 0x8012345000ull;
    struct cpu *c = map(vm, 4, va);
    /* the top table in a ROM: its accessed bit stays as it is */
    uint8_t rom[4096];
    memcpy(rom, table(vm, 0), sizeof rom);
    assert_int_equal(gmem_map_rom(vm->mem, 0xfffff000, rom, sizeof rom, &e), 0);
    c->cr3 = 0xfffff000;
    assert_int_equal(mmu_translate(c, va, MMU_WRITE, TLB_VIEW_USER, &p, &error), 0);
    assert_true(table(vm, 3)[va >> 12 & 511] & D);
    /* in nowhere: all ones, which has reserved bits set */
    c->cr3 = 0xc0000000;
    assert_int_equal(mmu_translate(c, va, MMU_READ, TLB_VIEW_USER, &p, &error), -EFAULT);
    assert_true(error & PF_RSVD);
}

static void pdptes(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = map(vm, 4, 0);
    uint64_t *t = (uint64_t *)(vm->ram + 0x200020);
    c->efer = 0;
    t[0] = 0x1001;
    t[1] = 0x1e6; /* absent: anything goes */
    t[2] = t[3] = 0;
    assert_true(mmu_load_pdptes(c, 0x200020));
    assert_int_equal(c->pdpte[0], 0x1001);
    t[3] = 0x2003; /* W is reserved here */
    t[0] = 0x5001;
    assert_false(mmu_load_pdptes(c, 0x200020));
    assert_int_equal(c->pdpte[0], 0x1001);
    t[3] = BIT(vm->model.phys_bits) | 1;
    assert_false(mmu_load_pdptes(c, 0x200020));
}

/* Somebody else changes the entry all the time: the walk must neither lose his change nor fail. */
struct racer {
    uint64_t *pte;
    _Atomic bool stop;
};
static void *race(void *arg)
{
    struct racer *r = arg;
    for (uint64_t n = 0; !atomic_load(&r->stop); n++) {
        uint64_t old = __atomic_load_n(r->pte, __ATOMIC_RELAXED);
        uint64_t new = (old & ~(A | D | 0xe00)) | (n & 7) << 9;
        __atomic_compare_exchange_n(r->pte, &old, new, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    return NULL;
}

static void racing(void **state)
{
    struct vm *vm = *state;
    gva_t va = 0x8012345000ull;
    struct cpu *c = map(vm, 4, va);
    struct racer r = { .pte = &table(vm, 3)[va >> 12 & 511] };
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, race, &r), 0);
    for (unsigned i = 0; i < 20000; i++) {
        struct mmu_page p;
        uint32_t error;
        assert_int_equal(mmu_translate(c, va, MMU_WRITE, TLB_VIEW_USER, &p, &error), 0);
        assert_int_equal(p.gpa, 0x234000);
        assert_true(p.write);
    }
    atomic_store(&r.stop, true);
    pthread_join(t, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(five_levels, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_it_says, set_up, tear_down),
        cmocka_unit_test_setup_teardown(pse36, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a20, set_up, tear_down),
        cmocka_unit_test_setup_teardown(odd_places, set_up, tear_down),
        cmocka_unit_test_setup_teardown(pdptes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(racing, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
