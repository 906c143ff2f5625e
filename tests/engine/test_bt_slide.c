/* SPDX-License-Identifier: Apache-2.0
 *
 * Sliding blocks (src/engine/bt/slide.c): a "library" of three code pages and a data page, mapped
 * by several address spaces at addresses of their own, as user code. What it computes depends on
 * where it is; so does what it leaves on its stack, and where it faults.
 */
// LAYERS: engine/bt engine cpu mem state base
#include "support/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "support/vm.h"

#define LIB 0x200000u     /* guest-physical: the code pages */
#define DATA 0x300000u    /* and a data page for each place */
#define PATCHED 0x310000u /* another second page */
#define ADD 0x100 /* what the second page's function adds, and the other second page's */
#define ADD_PATCHED 0x7000

/* Page 0 calls into pages 1 and 2 directly and through
 * pointers, jumps across, reads and writes its data by RIP, and ends with a fault. */
__asm__(".pushsection .rodata\n"
        "lib: xor %eax, %eax\n mov $40, %ecx\n"
        "1: add lib_data(%rip), %eax\n call lib_one\n"
        "lea lib_two(%rip), %rbx\n call *%rbx\n"
        "lea 3f(%rip), %r13\n mov %r13, lib_data+16(%rip)\n call *lib_data+16(%rip)\n"
        "cmp $20, %ecx\n je lib_far\n"
        "2: incq lib_data+8(%rip)\n movsd lib_data(%rip), %xmm1\n dec %ecx\n jnz 1b\n"
        "call 4f\n 4: pop %rdx\n lea lib(%rip), %rsi\n sub %rsi, %rdx\n"
        "movups lib_data+24(%rip), %xmm0\n hlt\n"
        "3: add $1, %eax\n ret\n"
        ".fill 4096 - (. - lib), 1, 0xcc\n"
        "lib_one: add $0x100, %eax\n ret\n"
        "lib_far: add $5, %eax\n jmp 2b\n"
        ".fill 8192 - (. - lib), 1, 0xcc\n"
        "lib_two: mov (%rsp), %rdi\n add $2, %eax\n ret\n"
        ".fill 12288 - (. - lib), 1, 0xcc\n"
        "lib_data: .fill 64, 1, 0\n"
        ".popsection\n");
extern const uint8_t lib[];

static int set_up(void **state)
{
    struct vm *vm = vm_new(1, &bt_engine);
    vm_poke(vm, LIB, lib, 3 * GMEM_PAGE_SIZE);
    vm_poke(vm, PATCHED, lib + GMEM_PAGE_SIZE, GMEM_PAGE_SIZE);
    vm_poke(vm, PATCHED, "\x05\x00\x70\x00\x00", 5); /* add $0x7000, %eax */
    *state = vm;
    return 0;
}

static int tear_down(void **state)
{
    vm_free(*state);
    return 0;
}

/* CPL 3, with a stack for the fault at the end. */
static void user_mode(struct vm *vm)
{
    struct cpu *c = vm->cpu[0];
    vm_mode(vm, 0, 64);
    vm_poke64(vm, 0xe000 + 4, VM_STACK - 0x1000);
    c->tr = (struct cpu_seg){ .base = 0xe000, .limit = 0x67, .attr = 0x8b, .sel = 8 };
    c->seg[SEG_CS].attr = 0xa0fb;
    c->seg[SEG_CS].sel = 11;
    c->seg[SEG_SS].attr = 0xc0f3;
    c->seg[SEG_SS].sel = 19;
    cpu_update_mode(c);
    tlb_flush_all(c);
}

/* Run the library at a page of VM_PAGES, second being its second page; checks all it computes. */
static void run_at(struct vm *vm, unsigned page, gpa_t second, unsigned add)
{
    struct cpu *c = vm->cpu[0];
    uint64_t va = VM_PAGES + page * (uint64_t)GMEM_PAGE_SIZE;
    gpa_t data = DATA + (page % 16) * GMEM_PAGE_SIZE;
    for (unsigned i = 0; i < 512; i++)
        vm_map(vm, i, 0);
    vm_map(vm, page, LIB | 5);
    vm_map(vm, page + 1, second | 5);
    vm_map(vm, page + 2, (LIB + 0x2000) | 5);
    vm_map(vm, page + 3, data | 7);
    vm_poke64(vm, data, page);
    vm_poke64(vm, data + 8, 0);
    user_mode(vm);
    c->cr4 |= CR4_OSFXSR;
    c->rip = va;
    cpu_update_mode(c);
    assert_int_equal(vm_run(vm, 0), ENGINE_EXIT_HALT);
    assert_int_equal(vm_vector(vm, 0), 13);
    assert_int_equal(c->gpr[R_AX], 40 * (page + add + 3) + 5);
    assert_int_equal(vm_peek64(vm, data + 8), 40);
    assert_int_equal(c->gpr[R_SI], va);
    assert_true(c->gpr[R_DX] > 0 && c->gpr[R_DX] < 0x100);
    assert_int_equal(c->gpr[13], vm_peek64(vm, data + 16));
    assert_int_equal(c->gpr[13] & ~0xfffull, va);
    assert_int_equal(c->gpr[R_DI] & ~0xfffull, va);
    /* the fault is where the HLT is */
    uint64_t rip = vm_peek64(vm, VM_STACK - 0x1000 - 40);
    assert_int_equal(rip & ~0xfffull, va);
    assert_int_equal(lib[rip - va], 0xf4);
}

static void elsewhere(void **state)
{
    struct vm *vm = *state;
    run_at(vm, 3, LIB + 0x1000, ADD);
    assert_int_equal(vm_counter(vm, "bt.sliding_blocks"), 0);
    run_at(vm, 3, LIB + 0x1000, ADD); /* the same again */
    assert_int_equal(vm_counter(vm, "bt.sliding_blocks"), 0);
    run_at(vm, 40, LIB + 0x1000, ADD);
    uint64_t blocks = vm_counter(vm, "bt.blocks");
    assert_true(vm_counter(vm, "bt.sliding_blocks") > 4);
    for (unsigned page = 50; page < 500; page += 37) {
        run_at(vm, page, LIB + 0x1000, ADD);
        assert_int_equal(vm_counter(vm, "bt.blocks"), blocks);
    }
    run_at(vm, 3, LIB + 0x1000, ADD); /* where it was first: its own translations or those */
    assert_int_equal(vm_counter(vm, "bt.blocks"), blocks);
}

/* One address space has a second page of its own. */
static void one_page_differs(void **state)
{
    struct vm *vm = *state;
    for (unsigned i = 0; i < 3; i++) {
        run_at(vm, 7 + 60 * i, LIB + 0x1000, ADD);
        run_at(vm, 8 + 60 * i, PATCHED, ADD_PATCHED);
        run_at(vm, 9 + 60 * i, LIB + 0x1000, ADD);
        run_at(vm, 9 + 60 * i, PATCHED, ADD_PATCHED);
    }
}

/* The second page goes, and comes as something else: for all. */
static void code_changes(void **state)
{
    struct vm *vm = *state;
    for (unsigned i = 0; i < 4; i++) {
        run_at(vm, 5 + 20 * i, LIB + 0x1000, ADD);
        run_at(vm, 100 + 20 * i, LIB + 0x1000, ADD);
        vm_poke(vm, LIB + 0x1000, "\x05\x00\x70\x00\x00", 5);
        run_at(vm, 5 + 20 * i, LIB + 0x1000, ADD_PATCHED);
        run_at(vm, 100 + 20 * i, LIB + 0x1000, ADD_PATCHED);
        vm_poke(vm, LIB + 0x1000, lib + 0x1000, 0x1000);
    }
}

/* A page that is missing is missing where it should be. */
static void page_absent(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    for (unsigned i = 0; i < 3; i++) {
        run_at(vm, 21 + 40 * i, LIB + 0x1000, ADD);
        uint64_t va = VM_PAGES + (21 + 40 * i) * (uint64_t)GMEM_PAGE_SIZE;
        vm_map(vm, 21 + 40 * i + 1, 0);
        user_mode(vm);
        c->rip = va;
        assert_int_equal(vm_run(vm, 0), ENGINE_EXIT_HALT);
        assert_int_equal(vm_vector(vm, 0), 14);
        assert_int_equal(c->cr2, va + 0x1000);
        assert_int_equal(vm_peek64(vm, VM_STACK - 0x1000 - 40), va + 0x1000);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = { TEST(elsewhere), TEST(one_page_differs), TEST(code_changes),
                                        TEST(page_absent) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
