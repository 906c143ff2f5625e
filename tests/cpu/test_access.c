/* SPDX-License-Identifier: Apache-2.0
 *
 * Guest-virtual accesses and the software TLB behind them: permissions, dirty and global pages,
 * address spaces, invalidation of large pages, page-crossing, MMIO, code and tracked pages, segment
 * limits, alignment checks.
 */
// LAYERS: cpu mem state base
#include "support/test.h"

#include <string.h>

#include "cpu/access_fast.h"
#include "cpu/except.h"
#include "support/vm.h"

#define P 1ull
#define W 2ull
#define U 4ull
#define D 0x40ull
#define G 0x100ull
#define PAGE(n) (VM_PAGES + 0x1000ull * (n))

static int set_up(void **state)
{
    struct vm *vm = vm_new(1, NULL);
    vm_mode(vm, 0, 64);
    *state = vm;
    return 0;
}

static int tear_down(void **state)
{
    vm_free(*state);
    return 0;
}

/* Vector that the statement raises, -1 none. The exception is taken off the CPU. */
#define RAISED(c, statement)                                                                       \
    ({                                                                                             \
        volatile int vector_ = -1;                                                                 \
        if (setjmp((c)->unwind) == 0) {                                                            \
            statement;                                                                             \
        } else {                                                                                   \
            vector_ = (c)->exc.vector;                                                             \
            (c)->exc_pending = false;                                                              \
        }                                                                                          \
        vector_;                                                                                   \
    })

static uint64_t pte(const struct vm *vm, unsigned page)
{
    uint64_t v;
    memcpy(&v, vm->ram + VM_PT + 8 * page, 8);
    return v;
}

/* -- Paging ----------------------------------------------------------------------------------- */
static void permissions(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    vm_map(vm, 0, 0x200000 | P);
    assert_int_equal(RAISED(c, (void)cpu_read(c, SEG_DS, PAGE(0), 8)), -1);
    assert_int_equal(RAISED(c, cpu_write(c, SEG_DS, PAGE(0), 8, 1)), EXC_PF);
    assert_int_equal(c->exc.error, 3);
    assert_int_equal(c->exc.cr2, PAGE(0));

    /* A page made writable is seen without invalidation: only presence is cached. */
    vm_map(vm, 0, 0x200000 | P | W);
    assert_int_equal(RAISED(c, cpu_write(c, SEG_DS, PAGE(0), 8, 0x1122334455667788)), -1);
    assert_true(pte(vm, 0) & D);
    assert_int_equal(cpu_read(c, SEG_DS, PAGE(0) + 4, 4), 0x11223344);

    /* CPL 3 has its own view. */
    c->cpl = 3;
    c->seg[SEG_CS].attr |= 0x60;
    c->seg[SEG_SS].attr |= 0x60;
    cpu_update_mode(c);
    assert_int_equal(RAISED(c, (void)cpu_read(c, SEG_DS, PAGE(0), 1)), EXC_PF);
    assert_int_equal(c->exc.error, 5);
    assert_int_equal(cpu_sys_read(c, PAGE(0), 8), 0x1122334455667788);
}

static void reads_leave_pages_clean(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    vm_map(vm, 1, 0x201000 | P | W);
    (void)cpu_read(c, SEG_DS, PAGE(1), 1);
    assert_false(pte(vm, 1) & D);
    cpu_write(c, SEG_DS, PAGE(1), 1, 1);
    assert_true(pte(vm, 1) & D);
}

static void put(struct vm *vm, gpa_t gpa, uint64_t v) { vm_poke(vm, gpa, &v, 8); }

static void load_cr3(struct cpu *c, uint64_t cr3, bool flush)
{
    c->cr3 = cr3;
    if (flush) {
        tlb_flush_asid(c, c->cr4 & CR4_PCIDE ? cr3 & 0xfff : 0);
    }
    tlb_switch(c);
}

static void global_pages_survive(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    put(vm, 0x200000, 0xa);
    put(vm, 0x201000, 0xb);
    vm_map(vm, 0, 0x200000 | P | W | G);
    vm_map(vm, 1, 0x200000 | P | W);
    assert_int_equal(cpu_read(c, SEG_DS, PAGE(0), 8), 0xa);
    assert_int_equal(cpu_read(c, SEG_DS, PAGE(1), 8), 0xa);
    vm_map(vm, 0, 0x201000 | P | W | G);
    vm_map(vm, 1, 0x201000 | P | W);
    load_cr3(c, VM_PML4, true);
    assert_int_equal(cpu_read(c, SEG_DS, PAGE(0), 8), 0xa);
    assert_int_equal(cpu_read(c, SEG_DS, PAGE(1), 8), 0xb);
    tlb_flush_page(c, PAGE(0) + 0x123);
    assert_int_equal(cpu_read(c, SEG_DS, PAGE(0), 8), 0xb);
    vm_map(vm, 0, 0x200000 | P | W | G);
    tlb_flush_all(c);
    assert_int_equal(cpu_read(c, SEG_DS, PAGE(0), 8), 0xa);
}

static void address_spaces(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    put(vm, 0x200000, 0xa);
    put(vm, 0x201000, 0xb);
    put(vm, 0x202000, 0xc);
    c->cr4 |= CR4_PCIDE;
    cpu_update_mode(c);
    vm_map(vm, 0, 0x200000 | P | W);
    vm_map_other(vm, 0, 0x201000 | P | W);
    load_cr3(c, VM_PML4 | 1, true);
    assert_int_equal(cpu_read(c, SEG_DS, PAGE(0), 8), 0xa);
    load_cr3(c, VM_PML4_OTHER | 2, true);
    assert_int_equal(cpu_read(c, SEG_DS, PAGE(0), 8), 0xb);

    /* Both are kept, until each is told to go. */
    vm_map(vm, 0, 0x202000 | P | W);
    vm_map_other(vm, 0, 0x202000 | P | W);
    load_cr3(c, VM_PML4 | 1, false);
    assert_int_equal(cpu_read(c, SEG_DS, PAGE(0), 8), 0xa);
    tlb_flush_page_pcid(c, PAGE(0), 2);
    assert_int_equal(cpu_read(c, SEG_DS, PAGE(0), 8), 0xa);
    load_cr3(c, VM_PML4_OTHER | 2, false);
    assert_int_equal(cpu_read(c, SEG_DS, PAGE(0), 8), 0xc);
    load_cr3(c, VM_PML4 | 1, true);
    assert_int_equal(cpu_read(c, SEG_DS, PAGE(0), 8), 0xc);

    /* More address spaces than there are tables: whatever is kept must be right. */
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned pcid = 1; pcid < 40; pcid++) {
            load_cr3(c, (pcid & 1 ? VM_PML4 : VM_PML4_OTHER) | pcid, false);
            vm_map(vm, 0, 0x200000 | P | W);
            vm_map_other(vm, 0, 0x201000 | P | W);
            if (round == 0) {
                tlb_flush_asid(c, (uint16_t)pcid);
            }
            assert_int_equal(cpu_read(c, SEG_DS, PAGE(0), 8), pcid & 1 ? 0xa : 0xb);
        }
    }
}

/* INVLPG of any address in a large page drops all of it. */
static void large_pages(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    gpa_t pde = VM_PML4 + 0x2000 + 8 * 3; /* 6..8 MiB */
    put(vm, 0x600000, 0xa);
    put(vm, 0x7ff000, 0xb);
    put(vm, 0x400000, 0xc);
    put(vm, 0x5ff000, 0xd);
    assert_int_equal(cpu_read(c, SEG_DS, 0x600000, 8), 0xa);
    assert_int_equal(cpu_read(c, SEG_DS, 0x7ff000, 8), 0xb);
    put(vm, pde, 0x400000 | 0x87);
    assert_int_equal(cpu_read(c, SEG_DS, 0x7ff000, 8), 0xb);
    tlb_flush_page(c, 0x6abcde);
    assert_int_equal(cpu_read(c, SEG_DS, 0x600000, 8), 0xc);
    assert_int_equal(cpu_read(c, SEG_DS, 0x7ff000, 8), 0xd);
}

/* -- Crossing, MMIO --------------------------------------------------------------------------- */
static void crossing(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    vm_map(vm, 0, 0x200000 | P | W);
    vm_map(vm, 1, 0x300000 | P | W);
    vm_map(vm, 2, 0x301000 | P);
    vm_map(vm, 3, 0);
    cpu_write(c, SEG_DS, PAGE(1) - 3, 8, 0x8877665544332211);
    assert_memory_equal(vm->ram + 0x200ffd, "\x11\x22\x33", 3);
    assert_memory_equal(vm->ram + 0x300000, "\x44\x55\x66\x77\x88", 5);
    assert_int_equal(cpu_read(c, SEG_DS, PAGE(1) - 3, 8), 0x8877665544332211);
    assert_null(cpu_host_rmw(c, SEG_DS, PAGE(1) - 3, 8));

    /* The second page refuses: the first keeps what it had. */
    put(vm, 0x300ff8, 0x0101010101010101);
    assert_int_equal(RAISED(c, cpu_write(c, SEG_DS, PAGE(2) - 4, 8, ~0ull)), EXC_PF);
    assert_int_equal(c->exc.cr2, PAGE(2));
    assert_int_equal(c->exc.error, 3);
    assert_int_equal(vm->ram[0x300fff], 1);
    assert_int_equal(RAISED(c, (void)cpu_read(c, SEG_DS, PAGE(3) - 1, 2)), EXC_PF);
    assert_int_equal(c->exc.cr2, PAGE(3));

    uint8_t out[4096], in[4096];
    for (unsigned i = 0; i < sizeof out; i++) {
        out[i] = (uint8_t)(i * 7);
    }
    cpu_write_bytes(c, SEG_DS, PAGE(0) + 100, out, 4096);
    cpu_read_bytes(c, SEG_DS, PAGE(0) + 100, in, 4096);
    assert_memory_equal(in, out, 4096);
    assert_int_equal(RAISED(c, cpu_write_bytes(c, SEG_DS, PAGE(1) + 1, in, 4096)), EXC_PF);
}

static void mmio(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    vm_map(vm, 0, VM_MMIO | P | W);
    vm_map(vm, 1, 0x200000 | P | W);
    assert_int_equal(cpu_read(c, SEG_DS, PAGE(0) + 8, 4), 0x44332211);
    cpu_write(c, SEG_DS, PAGE(0) + 16, 8, 0xfeedface);
    assert_int_equal(vm->mmio_count, 2);
    assert_int_equal(vm->mmio[0].gpa, VM_MMIO + 8);
    assert_int_equal(vm->mmio[0].size, 4);
    assert_true(vm->mmio[1].write);
    assert_int_equal(vm->mmio[1].size, 8);
    assert_int_equal(vm->mmio[1].value, 0xfeedface);
    assert_null(cpu_host_rmw(c, SEG_DS, PAGE(0), 4));

    /* Half of it RAM: the bus sees its own bytes only, in aligned pieces. */
    vm->mmio_count = 0;
    cpu_write(c, SEG_DS, PAGE(1) - 3, 4, 0x44332211);
    assert_int_equal(vm->mmio_count, 2);
    assert_int_equal(vm->mmio[0].gpa, VM_MMIO + 0xffd);
    assert_int_equal(vm->mmio[0].size, 1);
    assert_int_equal(vm->mmio[0].value, 0x11);
    assert_int_equal(vm->mmio[1].gpa, VM_MMIO + 0xffe);
    assert_int_equal(vm->mmio[1].size, 2);
    assert_int_equal(vm->mmio[1].value, 0x3322);
    assert_int_equal(vm->ram[0x200000], 0x44);

    /* Code cannot be had from there by pointer, but by bytes. */
    gpa_t gpa;
    uint8_t byte;
    assert_null(cpu_fetch_page(c, PAGE(0), &gpa));
    assert_int_equal(gpa, VM_MMIO);
    assert_int_equal(cpu_fetch(c, PAGE(0), &byte, 1), 1);
    assert_int_equal(byte, 0x11);
}

/* -- Pages somebody watches ------------------------------------------------------------------- */
static void code_pages(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    vm_map(vm, 0, 0x200000 | P | W);
    cpu_write(c, SEG_DS, PAGE(0), 4, 1); /* writable in the TLB */
    atomic_fetch_or(&gmem_page_flags(vm->mem)[0x200], GMEM_PAGE_CODE);
    tlb_protect_code(c, 0x200000);
    vm->code_writes = 0;
    cpu_write(c, SEG_DS, PAGE(0) + 8, 4, 0x55);
    cpu_write(c, SEG_DS, PAGE(0) + 12, 4, 0x66);
    assert_int_equal(vm->code_writes, 2);
    assert_int_equal(vm->ram[0x200008], 0x55);
    assert_null(cpu_host_rmw(c, SEG_DS, PAGE(0), 4));
    atomic_fetch_and(&gmem_page_flags(vm->mem)[0x200], (uint8_t)~GMEM_PAGE_CODE);
    cpu_write(c, SEG_DS, PAGE(0) + 8, 4, 0x77);
    cpu_write(c, SEG_DS, PAGE(0) + 8, 4, 0x88);
    assert_int_equal(vm->code_writes, 2);
    assert_non_null(cpu_host_rmw(c, SEG_DS, PAGE(0), 4));
}

static void tracked_pages(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    gmem_track(vm->mem, GMEM_PAGE_CLEAN_MIGRATE, 0x200000, 0x2000, true);
    vm_map(vm, 0, 0x200000 | P | W);
    vm_map(vm, 1, 0x201000 | P | W);
    (void)cpu_read(c, SEG_DS, PAGE(0), 8);
    assert_false(gmem_harvest(vm->mem, GMEM_PAGE_CLEAN_MIGRATE, 0x200));
    cpu_write(c, SEG_DS, PAGE(0), 8, 1);
    assert_non_null(cpu_host_rmw(c, SEG_DS, PAGE(1), 8));
    assert_true(gmem_harvest(vm->mem, GMEM_PAGE_CLEAN_MIGRATE, 0x200));
    assert_true(gmem_harvest(vm->mem, GMEM_PAGE_CLEAN_MIGRATE, 0x201));
    tlb_flush_all(c); /* as whoever harvests asks every vCPU to */
    cpu_write(c, SEG_DS, PAGE(0), 8, 2);
    assert_true(gmem_harvest(vm->mem, GMEM_PAGE_CLEAN_MIGRATE, 0x200));
    assert_false(gmem_harvest(vm->mem, GMEM_PAGE_CLEAN_MIGRATE, 0x201));
}

static void alignment_checks(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    vm_map(vm, 0, 0x200000 | P | W | U);
    c->cr0 |= CR0_AM;
    c->rflags |= FLAG_AC;
    cpu_update_mode(c);
    assert_int_equal(RAISED(c, (void)cpu_read(c, SEG_DS, PAGE(0) + 1, 4)), -1); /* CPL 0 */
    c->cpl = 3;
    c->seg[SEG_CS].attr |= 0x60;
    c->seg[SEG_SS].attr |= 0x60;
    cpu_update_mode(c);
    assert_int_equal(RAISED(c, (void)cpu_read(c, SEG_DS, PAGE(0) + 4, 4)), -1);
    assert_int_equal(RAISED(c, (void)cpu_read(c, SEG_DS, PAGE(0) + 1, 4)), EXC_AC);
    assert_int_equal(c->exc.error, 0);
    assert_int_equal(RAISED(c, cpu_write(c, SEG_DS, PAGE(0) + 2, 8, 0)), EXC_AC);
    assert_int_equal(RAISED(c, (void)cpu_sys_read(c, PAGE(0) + 1, 4)), -1);
    c->rflags &= ~FLAG_AC;
    cpu_update_mode(c);
    assert_int_equal(RAISED(c, (void)cpu_read(c, SEG_DS, PAGE(0) + 1, 4)), -1);
}

/* -- Segments
 * ------------------------------------------------------------------------------------------------
 */
static void canonical(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    assert_int_equal(RAISED(c, (void)cpu_read(c, SEG_DS, 0x800000000000, 1)), EXC_GP);
    assert_int_equal(RAISED(c, (void)cpu_read(c, SEG_SS, 0x800000000000, 1)), EXC_SS);
    assert_int_equal(RAISED(c, (void)cpu_read(c, SEG_DS, 0x7ffffffffffd, 4)), EXC_GP);
    c->seg[SEG_FS].base = 0x1000;
    c->seg[SEG_DS].base = 0x1000; /* does not count */
    put(vm, 0x300000, 0xa);
    put(vm, 0x301000, 0xb);
    assert_int_equal(cpu_read(c, SEG_FS, 0x300000, 8), 0xb);
    assert_int_equal(cpu_read(c, SEG_DS, 0x300000, 8), 0xa);
}

static void limits(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    vm_mode(vm, 0, 32);
    c->seg[SEG_DS] = (struct cpu_seg){ .base = 0x200000, .limit = 0xfff, .attr = 0x4093 };
    put(vm, 0x200ff8, 0x1122334455667788);
    assert_int_equal(cpu_read(c, SEG_DS, 0xffc, 4), 0x11223344);
    assert_int_equal(RAISED(c, (void)cpu_read(c, SEG_DS, 0xffd, 4)), EXC_GP);
    assert_int_equal(RAISED(c, (void)cpu_read(c, SEG_DS, 0xffffffff, 2)), EXC_GP);

    c->seg[SEG_DS].attr = 0x4097; /* expand-down: above the limit */
    assert_int_equal(RAISED(c, (void)cpu_read(c, SEG_DS, 0xfff, 1)), EXC_GP);
    assert_int_equal(RAISED(c, (void)cpu_read(c, SEG_DS, 0x1000, 1)), -1);
    assert_int_equal(RAISED(c, (void)cpu_read(c, SEG_DS, 0xffffffff, 2)), EXC_GP);
    c->seg[SEG_DS].attr = 0x0097; /* 16 bits of them */
    assert_int_equal(RAISED(c, (void)cpu_read(c, SEG_DS, 0xffff, 1)), -1);
    assert_int_equal(RAISED(c, (void)cpu_read(c, SEG_DS, 0xffff, 2)), EXC_GP);

    c->seg[SEG_DS] = (struct cpu_seg){ .limit = 0xffffffff, .attr = 0xc091 }; /* read-only */
    assert_int_equal(RAISED(c, cpu_write(c, SEG_DS, 0x200000, 1, 0)), EXC_GP);
    assert_int_equal(RAISED(c, (void)cpu_read(c, SEG_DS, 0x200000, 1)), -1);
    c->seg[SEG_DS].attr = 0xc099; /* execute-only */
    assert_int_equal(RAISED(c, (void)cpu_read(c, SEG_DS, 0x200000, 1)), EXC_GP);
    c->seg[SEG_DS].attr = SEG_ATTR_NULL;
    assert_int_equal(RAISED(c, (void)cpu_read(c, SEG_DS, 0x200000, 1)), EXC_GP);
    c->seg[SEG_SS].limit = 0xff;
    assert_int_equal(RAISED(c, (void)cpu_read(c, SEG_SS, 0x100, 1)), EXC_SS);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(permissions),
        TEST(reads_leave_pages_clean),
        TEST(global_pages_survive),
        TEST(address_spaces),
        TEST(large_pages),
        TEST(crossing),
        TEST(mmio),
        TEST(code_pages),
        TEST(tracked_pages),
        TEST(alignment_checks),
        TEST(canonical),
        TEST(limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
