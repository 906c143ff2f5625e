/* SPDX-License-Identifier: Apache-2.0
 *
 * Binary translation on small pieces of code: modes, code that changes or is mapped elsewhere,
 * what is cached about the stack's page, faults in the middle of a block, segments, wild branches,
 * a full code cache. Events are in test_bt_events.c, several vCPUs in test_bt_smp.c.
 */
// LAYERS: engine/bt engine cpu mem state base
#include "support/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "support/vm.h"

/* CODE(name, directives and instructions): bytes name_code[], name_code_end[]. */
#define CODE(name, text)                                                                           \
    __asm__(".pushsection .rodata\n" #name "_code:\n" text "\n" #name "_code_end:\n"               \
            ".code64\n.popsection\n");                                                             \
    extern const uint8_t name##_code[], name##_code_end[]
#define LOAD(vm, at, name) vm_poke(vm, at, name##_code, (size_t)(name##_code_end - name##_code))

#define FRAME_ERROR 0 /* what a fault with an error code pushes in long mode */
#define FRAME_RIP 1

static int set_up(void **state)
{
    *state = vm_new(1, &bt_engine);
    return 0;
}

static int tear_down(void **state)
{
    vm_free(*state);
    return 0;
}

/* The n-th word on the stack of the handler that was reached. */
static uint64_t frame(struct vm *vm, unsigned n)
{
    return vm_peek64(vm, vm->cpu[0]->gpr[R_SP] + 8 * n);
}

static uint64_t run64(struct vm *vm)
{
    assert_int_equal(vm_run(vm, 0), ENGINE_EXIT_HALT);
    return vm->cpu[0]->gpr[R_AX];
}

/* -- Modes and control flow -------------------------------------------------------------------- */
CODE(sum64, "mov $1000, %ecx\n xor %eax, %eax\n 1: add %rcx, %rax\n dec %ecx\n jnz 1b\n hlt");
CODE(sum32, ".code32\n mov $1000, %ecx\n xor %eax, %eax\n 1: push %ecx\n call 2f\n pop %edx\n"
            "dec %ecx\n jnz 1b\n hlt\n 2: add 4(%esp), %eax\n ret");
CODE(sum16, ".code16\n mov $1000, %cx\n xor %eax, %eax\n 1: push %cx\n call 2f\n pop %dx\n"
            "loop 1b\n hlt\n 2: movzwl %cx, %edx\n add %edx, %eax\n ret");
CODE(count,
     "mov $300, %ecx\n xor %eax, %eax\n jrcxz 9f\n 1: inc %eax\n loop 1b\n jrcxz 2f\n"
     "9: ud2\n 2: mov $3, %ecx\n 3: inc %eax\n cmp $302, %eax\n loopne 3b\n add %ecx, %eax\n hlt");
CODE(indirect, "mov $90, %ecx\n xor %eax, %eax\n lea 2f(%rip), %rbx\n 1: lea (%rbx,%rax), %rdx\n"
               "mov $7, %esi\n and %ecx, %esi\n lea 4f(%rip), %rdx\n lea (%rdx,%rsi,8), %rdx\n"
               "call *%rdx\n dec %ecx\n jnz 1b\n hlt\n 2: nop\n .balign 8\n 4:\n"
               ".rept 8\n add $3, %rax\n ret\n .balign 8\n .endr");

static void sums(void **state)
{
    struct vm *vm = *state;
    vm_mode(vm, 0, 64);
    LOAD(vm, VM_CODE, sum64);
    assert_int_equal(run64(vm), 500500);
    assert_true(vm->cpu[0]->rflags & FLAG_ZF);
    vm_mode(vm, 0, 32);
    LOAD(vm, VM_CODE, sum32);
    assert_int_equal(run64(vm), 500500);
    assert_int_equal(vm->cpu[0]->gpr[R_SP], VM_STACK);
    vm_mode(vm, 0, 16);
    LOAD(vm, VM_CODE, sum16);
    assert_int_equal(run64(vm), 500500);
    assert_int_equal(vm->cpu[0]->gpr[R_SP], 0xfff0);
    vm_mode(vm, 0, 64);
    LOAD(vm, VM_CODE, count);
    assert_int_equal(run64(vm), 302 + 1);
    vm_mode(vm, 0, 64);
    LOAD(vm, VM_CODE, indirect);
    assert_int_equal(run64(vm), 270);
}

/* 48 FF C0: DEC EAX, INC EAX in 32-bit code; INC RAX in 64-bit code. */
CODE(both, ".byte 0x48, 0xff, 0xc0, 0xf4");

static void same_bytes_other_mode(void **state)
{
    struct vm *vm = *state;
    LOAD(vm, VM_CODE, both);
    for (unsigned i = 0; i < 3; i++) {
        vm_mode(vm, 0, 32);
        assert_int_equal(run64(vm), 0);
        vm_mode(vm, 0, 64);
        assert_int_equal(run64(vm), 1);
    }
}

/* Blocks that end at a page's end, jumps over pages, an instruction on two pages: run often enough
 * that all is linked. */
static void chains_over_pages(void **state)
{
    struct vm *vm = *state;
    static const uint8_t inc[] = { 0xff, 0xc0 };
    static const uint8_t jump[] = { 0xe9, 0xfb, 0x0f, 0, 0 }; /* to the same place a page further */
    vm_mode(vm, 0, 64);
    for (unsigned page = 0; page < 8; page++) {
        gpa_t at = 0x100ff0 + 0x1000 * page;
        vm_poke(vm, at, inc, 2);
        if (page & 1) { /* falls through the page's end in steps of 3 bytes: one crosses */
            for (unsigned i = 2; i < 30; i += 3) {
                vm_poke(vm, at + i, "\x83\xc0\x01", 3); /* add $1, %eax */
            }
            uint8_t on[] = { 0xe9, 0xcb, 0x0f, 0, 0 };
            int32_t rel = 0x1000 - 32 - 5;
            memcpy(on + 1, &rel, 4);
            vm_poke(vm, at + 32, on, 5);
        } else {
            vm_poke(vm, at + 2, jump, 5);
            int32_t rel = 0x1000 - 2 - 5;
            vm_poke(vm, at + 3, &rel, 4);
        }
    }
    /* back: dec ecx; jnz first; hlt */
    uint8_t back[] = { 0xff, 0xc9, 0x0f, 0x85, 0, 0, 0, 0, 0xf4 };
    int32_t rel = (int32_t)(0x100ff0 - (0x108ff0 + 8));
    memcpy(back + 4, &rel, 4);
    vm_poke(vm, 0x108ff0, back, sizeof back);
    vm->cpu[0]->rip = 0x100ff0;
    vm->cpu[0]->gpr[R_CX] = 1000;
    assert_int_equal(run64(vm), 1000 * (8 + 4 * 10));
}

/* -- Code that changes ------------------------------------------------------------------------- */
CODE(patch_next, "movb $42, 1f+1-patch_next_code+0x10000\n 1: mov $1, %al\n hlt");
CODE(patch_loop,
     "mov $100, %ecx\n xor %ebx, %ebx\n 1: mov $0, %al\n movzbl %al, %eax\n add %eax, %ebx\n"
     "incb 1b+1-patch_loop_code+0x10000\n dec %ecx\n jnz 1b\n hlt");
CODE(patch_string, "mov $1f+1-patch_string_code+0x10000, %edi\n mov $7, %al\n stosb\n"
                   "1: mov $1, %al\n hlt");
CODE(patch_other,
     "mov $200, %ecx\n xor %ebx, %ebx\n 1: call 2f\n add %eax, %ebx\n"
     "incl 2f+1-patch_other_code+0x10000\n dec %ecx\n jnz 1b\n hlt\n 2: mov $0, %eax\n ret");

static void modifies_itself(void **state)
{
    struct vm *vm = *state;
    vm_mode(vm, 0, 64);
    LOAD(vm, VM_CODE, patch_next);
    assert_int_equal(run64(vm), 42);
    vm_mode(vm, 0, 64);
    LOAD(vm, VM_CODE, patch_string);
    assert_int_equal(run64(vm), 7);
    vm_mode(vm, 0, 64);
    LOAD(vm, VM_CODE, patch_loop);
    (void)run64(vm);
    assert_int_equal(vm->cpu[0]->gpr[R_BX], 99 * 100 / 2);
    vm_mode(vm, 0, 64);
    LOAD(vm, VM_CODE, patch_other);
    (void)run64(vm);
    assert_int_equal(vm->cpu[0]->gpr[R_BX], 199 * 200 / 2);
}

static void dma_into_code(void **state)
{
    struct vm *vm = *state;
    vm_mode(vm, 0, 64);
    for (unsigned i = 0; i < 5; i++) {
        uint8_t code[] = { 0xb0, (uint8_t)i, 0xf4 };
        vm_poke(vm, VM_CODE, code, sizeof code);
        vm->cpu[0]->rip = VM_CODE;
        assert_int_equal(run64(vm), i);
    }
}

/* An instruction across two pages: the second is mapped elsewhere, or written. */
static void across_pages(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    vm_mode(vm, 0, 64);
    const uint8_t head[] = { 0xb8, 0x11 }; /* mov $0x44332211, %eax */
    const uint8_t tail1[] = { 0x22, 0x33, 0x44, 0xf4 };
    const uint8_t tail2[] = { 0x55, 0x66, 0x77, 0xf4 };
    vm_poke(vm, 0x100ffe, head, 2);
    vm_poke(vm, 0x101000, tail1, 4);
    vm_poke(vm, 0x103000, tail2, 4);
    vm_map(vm, 0, 0x100000 | 7);
    for (unsigned i = 0; i < 6; i++) {
        vm_map(vm, 1, (i & 1 ? 0x103000 : 0x101000) | 7);
        tlb_flush_page(c, VM_PAGES + 0x1000);
        c->rip = VM_PAGES + 0xffe;
        assert_int_equal(run64(vm), i & 1 ? 0x77665511 : 0x44332211);
    }
    vm_poke(vm, 0x103001, "\x88", 1);
    c->rip = VM_PAGES + 0xffe;
    assert_int_equal(run64(vm), 0x77885511);
    /* both halves on one physical page */
    vm_poke(vm, 0x100000, tail1, 4);
    vm_map(vm, 1, 0x100000 | 7);
    tlb_flush_page(c, VM_PAGES + 0x1000);
    c->rip = VM_PAGES + 0xffe;
    assert_int_equal(run64(vm), 0x44332211);
    vm_poke(vm, 0x100002, "\x99", 1);
    c->rip = VM_PAGES + 0xffe;
    assert_int_equal(run64(vm), 0x99332211);
    vm_map(vm, 1, 0);
    tlb_flush_page(c, VM_PAGES + 0x1000);
    c->rip = VM_PAGES + 0xffe;
    (void)run64(vm);
    assert_int_equal(vm_vector(vm, 0), 14);
    assert_int_equal(c->cr2, VM_PAGES + 0x1000);
    assert_int_equal(frame(vm, FRAME_RIP), VM_PAGES + 0xffe);
}

/* -- Code and data mapped elsewhere ------------------------------------------------------------ */
/* rbx: function; rsi: address of its PTE; r8 and r9: the two mappings. eax collects. */
CODE(remap, "mov $50, %ecx\n xor %eax, %eax\n 1: call *%rbx\n mov %r9, (%rsi)\n invlpg (%rdi)\n"
            "call *%rbx\n mov %r8, (%rsi)\n invlpg (%rdi)\n dec %ecx\n jnz 1b\n hlt");
CODE(add_one, "add $1, %eax\n ret");
CODE(add_thousand, "add $1000, %eax\n ret");

static void prepare_remap(struct vm *vm)
{
    vm_mode(vm, 0, 64);
    LOAD(vm, VM_CODE, remap);
    LOAD(vm, 0x200000, add_one);
    LOAD(vm, 0x400000, add_thousand);
}

static void code_remapped(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    prepare_remap(vm);
    vm_map(vm, 0, 0x200000 | 3 | PTE_G);
    c->gpr[R_BX] = c->gpr[R_DI] = VM_PAGES;
    c->gpr[R_SI] = VM_PT;
    c->gpr[8] = 0x200000 | 3 | PTE_G;
    c->gpr[9] = 0x400000 | 3 | PTE_G;
    assert_int_equal(run64(vm), 50 * 1001);
}

/* INVLPG of any address in a large page drops all of it. */
static void large_code_page_remapped(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    prepare_remap(vm);
    vm_poke64(vm, VM_PD_PAGES + 8, 0x200000 | 0x83 | PTE_G);
    c->gpr[R_BX] = VM_PAGES + MIB(2);
    c->gpr[R_DI] = VM_PAGES + MIB(2) + 0x55000;
    c->gpr[R_SI] = VM_PD_PAGES + 8;
    c->gpr[8] = 0x200000 | 0x83 | PTE_G;
    c->gpr[9] = 0x400000 | 0x83 | PTE_G;
    assert_int_equal(run64(vm), 50 * 1001);
}

/* The address space changes under the code: the next instruction is the other one's. */
CODE(change_cr3_a, "mov %rax, %cr3\n mov $1, %ebx\n hlt");
CODE(change_cr3_b, "mov %rax, %cr3\n mov $2, %ebx\n hlt");
CODE(flush_a, "mov %rdx, (%rsi)\n invlpg (%rdi)\n mov $3, %ebx\n hlt");
CODE(flush_b, "mov %rdx, (%rsi)\n invlpg (%rdi)\n mov $4, %ebx\n hlt");

static void code_remaps_itself(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    vm_mode(vm, 0, 64);
    LOAD(vm, 0x200000, change_cr3_a);
    LOAD(vm, 0x201000, change_cr3_b);
    vm_map(vm, 0, 0x200000 | 3);
    vm_map_other(vm, 0, 0x201000 | 3);
    for (unsigned i = 0; i < 3; i++) {
        c->rip = VM_PAGES;
        c->gpr[R_AX] = i & 1 ? VM_PML4 : VM_PML4_OTHER;
        (void)run64(vm);
        assert_int_equal(c->gpr[R_BX], i & 1 ? 1 : 2);
    }
    vm_mode(vm, 0, 64);
    LOAD(vm, 0x200000, flush_a);
    LOAD(vm, 0x201000, flush_b);
    for (unsigned i = 0; i < 4; i++) {
        vm_map(vm, 0, (i & 1 ? 0x201000 : 0x200000) | 3);
        tlb_flush_page(c, VM_PAGES);
        c->rip = c->gpr[R_DI] = VM_PAGES;
        c->gpr[R_SI] = VM_PT;
        c->gpr[R_DX] = (i & 1 ? 0x200000 : 0x201000) | 3;
        (void)run64(vm);
        assert_int_equal(c->gpr[R_BX], i & 1 ? 3 : 4);
    }
}

/* Two address spaces, in turns: code, data and stack. Global pages stay when CR3 is loaded. */
CODE(spaces,
     "mov $100, %ecx\n xor %eax, %eax\n 1: mov %r8, %cr3\n push $5\n incq (%rdi)\n call *%rbx\n"
     "mov %r9, %cr3\n incq (%rdi)\n add $8, %rsp\n push $6\n add $8, %rsp\n call *%rbx\n"
     "dec %ecx\n jnz 1b\n hlt");

static void address_spaces(void **state, bool pcid)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    vm_mode(vm, 0, 64);
    LOAD(vm, VM_CODE, spaces);
    LOAD(vm, 0x200000, add_one);
    LOAD(vm, 0x201000, add_thousand);
    vm_map(vm, 0, 0x200000 | 3);
    vm_map_other(vm, 0, 0x201000 | 3);
    for (unsigned i = 1; i < 4; i++) {
        vm_map(vm, i, (0x300000 + 0x1000 * i) | 3);
        vm_map_other(vm, i, (0x310000 + 0x1000 * i) | 3);
    }
    uint64_t zero = 0;
    vm_poke(vm, 0x301000, &zero, 8);
    vm_poke(vm, 0x311000, &zero, 8);
    c->gpr[8] = VM_PML4;
    c->gpr[9] = VM_PML4_OTHER;
    if (pcid) {
        c->cr4 |= CR4_PCIDE;
        c->gpr[8] |= 1 | 1ull << 63; /* no flush */
        c->gpr[9] |= 2 | 1ull << 63;
    }
    c->gpr[R_BX] = VM_PAGES;
    c->gpr[R_DI] = VM_PAGES + 0x1000;
    c->gpr[R_SP] = VM_PAGES + 0x3000;
    cpu_update_mode(c);
    tlb_flush_all(c);
    assert_int_equal(run64(vm), 100 * 1001);
    assert_int_equal(vm_peek64(vm, 0x301000), 100);
    assert_int_equal(vm_peek64(vm, 0x311000), 100);
    assert_int_equal(vm_peek64(vm, 0x302ff8), 5);
    assert_int_not_equal(vm_peek64(vm, 0x312ff8), 5);
}

static void address_spaces_flushed(void **state) { address_spaces(state, false); }

static void address_spaces_tagged(void **state)
{
    struct vm *vm = *state;
    if (cpu_has(&vm->model.features, CPU_FEATURE_PCID))
        address_spaces(state, true);
}

/* -- The stack's page -------------------------------------------------------------------------- */
/* rsi: the PTE, r8 its new value. */
CODE(stack_moves,
     "push $1\n pop %rax\n push $2\n mov %r8, (%rsi)\n invlpg -8(%rsp)\n push $3\n pop %rax\n"
     "push $4\n hlt");

static void stack_remapped(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    vm_mode(vm, 0, 64);
    LOAD(vm, VM_CODE, stack_moves);
    vm_map(vm, 4, 0x300000 | 3);
    c->gpr[R_SP] = VM_PAGES + 0x5000;
    c->gpr[R_SI] = VM_PT + 8 * 4;
    c->gpr[8] = 0x302000 | 3;
    vm_poke64(vm, 0x302ff0, 77);
    (void)run64(vm);
    assert_int_equal(vm_peek64(vm, 0x300ff8), 2);
    assert_int_equal(vm_peek64(vm, 0x302ff0), 4);

    vm_mode(vm, 0, 64); /* read-only now */
    vm_map(vm, 4, 0x300000 | 3);
    c->gpr[R_SP] = VM_PAGES + 0x5000;
    c->gpr[R_SI] = VM_PT + 8 * 4;
    c->gpr[8] = 0x300000 | 1;
    assert_int_equal(vm_run(vm, 0), ENGINE_EXIT_SHUTDOWN); /* nor can the fault be pushed */

    vm_poke64(vm, 0x300ff0, 55); /* not there at first: the push makes it dirty and accessed */
    vm_mode(vm, 0, 64);
    vm_map(vm, 4, 0x300000 | 3);
    c->gpr[R_SP] = VM_PAGES + 0x5000;
    c->gpr[R_SI] = VM_PT + 8 * 4;
    c->gpr[8] = 0x300000 | 3;
    (void)run64(vm);
    assert_int_equal(vm_peek64(vm, VM_PT + 8 * 4) & 0x60, 0x60);
}

/* A page of the user as stack of the supervisor: only between STAC and CLAC. */
CODE(smap, "stac\n push $1\n pop %rax\n push $2\n clac\n 1: push $3\n hlt");

static void stack_and_smap(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    if (!cpu_has(&vm->model.features, CPU_FEATURE_SMAP))
        return;
    vm_mode(vm, 0, 64);
    for (unsigned i = 0; i < 8; i++) {
        vm_poke64(vm, VM_PML4 + 0x2000 + 8 * i, (uint64_t)i << 21 | 0x83);
    }
    vm_poke64(vm, 0xe000 + 36, VM_STACK); /* IST1: the handler's own stack */
    vm_poke64(vm, VM_IDT + 16 * 14, vm_peek64(vm, VM_IDT + 16 * 14) | 1ull << 32);
    c->tr = (struct cpu_seg){ .base = 0xe000, .limit = 0x67, .attr = 0x8b, .sel = 8 };
    LOAD(vm, VM_CODE, smap);
    vm_map(vm, 4, 0x300000 | 7);
    c->cr4 |= CR4_SMAP;
    c->gpr[R_SP] = VM_PAGES + 0x5000;
    cpu_update_mode(c);
    tlb_flush_all(c);
    (void)run64(vm);
    assert_int_equal(vm_vector(vm, 0), 14);
    assert_int_equal(c->cr2, VM_PAGES + 0x4ff0);
    assert_int_equal(vm_peek64(vm, 0x300ff8), 2);
    assert_int_equal(frame(vm, FRAME_ERROR), 3);
}

/* -- Faults ------------------------------------------------------------------------------------ */
CODE(fault, "mov $5, %eax\n add $6, %eax\n mov %eax, 0x40005000\n inc %eax\n hlt");
CODE(fault_last, "mov $9, %ebx\n xor %r15, %r15\n mov $7, %r14d\n add %r14, %rbx\n push %rbx\n"
                 "mov $0x40000ffc, %esi\n 1: mov (%rsi), %r15\n inc %ebx\n hlt");

static void faults_in_the_middle(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    vm_mode(vm, 0, 64);
    vm_map(vm, 5, 0);
    LOAD(vm, VM_CODE, fault);
    assert_int_equal(run64(vm), 11);
    assert_int_equal(vm_vector(vm, 0), 14);
    assert_int_equal(frame(vm, FRAME_ERROR), 2); /* write, not present, supervisor */
    assert_int_equal(frame(vm, FRAME_RIP), VM_CODE + 5 + 3);

    vm_mode(vm, 0, 64); /* across a page's end, the second not there */
    vm_map(vm, 0, 0x300000 | 3);
    vm_map(vm, 1, 0);
    LOAD(vm, VM_CODE, fault_last);
    (void)run64(vm);
    assert_int_equal(vm_vector(vm, 0), 14);
    assert_int_equal(c->cr2, VM_PAGES + 0x1000);
    assert_int_equal(c->gpr[R_BX], 16);
    assert_int_equal(c->gpr[14], 7);
    assert_int_equal(c->gpr[15], 0);
    assert_int_equal(vm_peek64(vm, VM_STACK - 8), 16);
    assert_int_equal(frame(vm, FRAME_ERROR), 0);
}

/* Not aligned, on pages that need the slow path: the guest's fault, not the host's. */
CODE(unaligned_load, "movaps (%rsi), %xmm0\n hlt");
CODE(unaligned_store, "movaps %xmm0, (%rsi)\n hlt");

static void unaligned_on_special_pages(void **state)
{
    struct vm *vm = *state;
    for (unsigned low = 0; low < 64; low++) {
        vm_mode(vm, 0, 64);
        if (low & 1)
            LOAD(vm, VM_CODE, unaligned_load);
        else
            LOAD(vm, VM_CODE, unaligned_store);
        vm->cpu[0]->gpr[R_SI] = (low & 2 ? VM_CODE + 0x800 : VM_MMIO) + (low >> 2);
        for (unsigned i = 0; i < 2; i++) { /* the second time it is in the TLB */
            vm->cpu[0]->rip = VM_CODE;
            vm->cpu[0]->gpr[R_SP] = VM_STACK;
            (void)run64(vm);
            assert_int_equal(vm_vector(vm, 0), low >> 2 ? 13 : -1);
        }
    }
}

/* Branches to what is no address fault themselves and change nothing. */
CODE(wild_jump, "jmp *%rax");
CODE(wild_call, "call *%rax");
CODE(wild_ret, "ret $8");

static void wild_branches(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    for (unsigned i = 0; i < 3; i++) {
        vm_mode(vm, 0, 64);
        if (i == 0)
            LOAD(vm, VM_CODE, wild_jump);
        else if (i == 1)
            LOAD(vm, VM_CODE, wild_call);
        else
            LOAD(vm, VM_CODE, wild_ret);
        c->gpr[R_AX] = 0x800000000000;
        vm_poke64(vm, VM_STACK, c->gpr[R_AX]);
        (void)run64(vm);
        assert_int_equal(vm_vector(vm, 0), 13);
        assert_int_equal(frame(vm, FRAME_RIP), VM_CODE);
        assert_int_equal(frame(vm, FRAME_RIP + 3), VM_STACK); /* rsp */
    }
}

/* -- Segments outside 64-bit mode -------------------------------------------------------------- */
CODE(other_data, ".code32\n mov $0x18, %eax\n movl $1, 0x300010\n mov %eax, %ds\n movl $2, 0x10\n"
                 "mov $0x10, %eax\n mov %eax, %ds\n movl $3, 0x300014\n push $0x18\n pop %es\n"
                 "movl $4, %es:0x18\n movl $5, 0x30001c\n hlt");

static void segments_in_the_middle(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    static const uint32_t want[] = { 2, 0, 4, 0 };
    vm_mode(vm, 0, 64); /* for the GDT */
    vm_mode(vm, 0, 32);
    vm_poke64(vm, VM_GDT + 24, 0x00cf93200000ffff); /* data, base 0x200000 */
    c->gdtr = (struct cpu_dtable){ VM_GDT, 0x1f };
    LOAD(vm, VM_CODE, other_data);
    for (unsigned i = 0; i < 3; i++) {
        memset(vm->ram + 0x200010, 0, 16);
        memset(vm->ram + 0x300010, 0, 16);
        c->rip = VM_CODE;
        (void)run64(vm);
        assert_memory_equal(vm->ram + 0x200010, want, 16);
        assert_int_equal(*(const uint32_t *)(const void *)(vm->ram + 0x300010), 1);
        assert_int_equal(*(const uint32_t *)(const void *)(vm->ram + 0x300014), 3);
        assert_int_equal(*(const uint32_t *)(const void *)(vm->ram + 0x30001c), 5);
        c->seg[SEG_ES] = c->seg[SEG_SS];
    }
}

/* Code does not run past the end of its segment, nor round it; not after STI either, where the
 * block is left. */
static void end_of_segment(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    static const uint8_t vector13[] = { 0x00, 0x00, 0x00, 0x05 }; /* 0500:0000 */
    vm_mode(vm, 0, 16);
    vm_poke(vm, 13 * 4, vector13, 4);
    vm_poke(vm, 0x5000, "\xf4", 1);
    for (unsigned i = 0; i < 0x20; i++) {
        vm_poke(vm, VM_CODE + 0xfff0 + i, "\x40", 1); /* inc ax */
    }
    for (unsigned i = 0; i < 4; i++) {
        if (i == 2) {
            vm_poke(vm, VM_CODE + 0xffff, "\xfb", 1);
        }
        c->seg[SEG_CS].base = VM_CODE;
        c->seg[SEG_CS].sel = VM_CODE >> 4;
        c->rip = 0xfff0;
        c->gpr[R_AX] = 0;
        c->rflags &= ~FLAG_IF;
        assert_int_equal(run64(vm), i < 2 ? 16 : 15);
        assert_int_equal(c->seg[SEG_CS].sel, 0x500);
    }
}

/* CPL 1 is supervisor to memory, but may not CLI. */
CODE(cli, "mov $1, %eax\n cli\n mov $2, %eax\n hlt");

static void ring_one(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    vm_mode(vm, 0, 64);
    LOAD(vm, VM_CODE, cli);
    assert_int_equal(run64(vm), 2);
    vm_mode(vm, 0, 64);
    vm_poke64(vm, 0xe000 + 4, VM_STACK - 0x1000);
    c->tr = (struct cpu_seg){ .base = 0xe000, .limit = 0x67, .attr = 0x8b, .sel = 8 };
    c->seg[SEG_CS].attr = 0xa0bb;
    c->seg[SEG_CS].sel = 9;
    c->seg[SEG_SS].attr = 0xc0b3;
    c->seg[SEG_SS].sel = 17;
    cpu_update_mode(c);
    assert_int_equal(c->cpl, 1);
    assert_int_equal(run64(vm), 1);
    assert_int_equal(vm_vector(vm, 0), 13);
}

/* -- Vector registers -------------------------------------------------------------------------- */
CODE(vex, "vpaddd %xmm1, %xmm2, %xmm3\n vpaddd %ymm1, %ymm2, %ymm4\n paddd %xmm1, %xmm5\n hlt");

/* AVX clears up to the longest vector there is; SSE leaves what is above. */
static void upper_halves(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    bool wide = cpu_has(&vm->model.features, CPU_FEATURE_AVX512F);
    if (!cpu_has(&vm->model.features, CPU_FEATURE_AVX2))
        return;
    vm_mode(vm, 0, 64);
    c->cr4 |= CR4_OSXSAVE;
    c->xcr0 = wide ? 0xe7 : 7;
    memset(c->fpu.zmm, 0x11, sizeof c->fpu.zmm);
    LOAD(vm, VM_CODE, vex);
    (void)run64(vm);
    assert_int_equal(vm_vector(vm, 0), -1);
    assert_int_equal(c->fpu.zmm[3].u32[0], 0x22222222);
    assert_int_equal(c->fpu.zmm[3].u64[2], 0);
    assert_int_equal(c->fpu.zmm[4].u32[7], 0x22222222);
    assert_int_equal(c->fpu.zmm[5].u64[0], 0x2222222222222222);
    assert_int_equal(c->fpu.zmm[5].u64[3], 0x1111111111111111);
    if (wide) {
        assert_int_equal(c->fpu.zmm[3].u64[7], 0);
        assert_int_equal(c->fpu.zmm[4].u64[4], 0);
        assert_int_equal(c->fpu.zmm[5].u64[7], 0x1111111111111111);
        assert_int_equal(c->fpu.zmm[31].u64[7], 0x1111111111111111);
    }
}

/* -- A full code cache ------------------------------------------------------------------------- */
/* Far more code than fits: a chain of small blocks over three MiB, several times, with calls back
 * to code that is dropped again and again. */
static void tiny_cache(void **state)
{
    (void)state;
    struct vm *vm = vm_new_config(1, &bt_engine,
                                  &(struct engine_config){ .code_cache_bytes = MIB(1) });
    struct cpu *c = vm->cpu[0];
    vm_mode(vm, 0, 64);
    LOAD(vm, 0x80000, add_one);
    const unsigned blocks = 0x300000 / 64;
    for (unsigned i = 0; i < blocks; i++) {
        /* call rbx; inc r8; jmp next */
        uint8_t code[] = { 0xff, 0xd3, 0x49, 0xff, 0xc0, 0xeb, 64 - 7 };
        vm_poke(vm, 0x100000 + 64 * i, code, sizeof code);
    }
    uint8_t end[] = { 0xff, 0xc9, 0x0f, 0x85, 0, 0, 0, 0, 0xf4 }; /* dec ecx; jnz; hlt */
    int32_t rel = -(int32_t)(64 * blocks) - 8;
    memcpy(end + 4, &rel, 4);
    vm_poke(vm, 0x100000 + 64 * blocks, end, sizeof end);
    c->rip = 0x100000;
    c->gpr[R_BX] = 0x80000;
    c->gpr[R_SP] = 0x70000;
    c->gpr[R_CX] = 5;
    assert_int_equal(run64(vm), 5 * blocks);
    assert_int_equal(c->gpr[8], 5 * blocks);
    assert_true(vm_counter(vm, "bt.cache_flushes") > 5);
    vm_free(vm);
}

/* -- Looking inside ---------------------------------------------------------------------------- */
static bool file_has(const char *path, const char *text)
{
    char buf[65536];
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    size_t n = fread(buf, 1, sizeof buf - 1, f);
    fclose(f);
    buf[n] = 0;
    return strstr(buf, text) != NULL;
}

static void introspection(void **state)
{
    (void)state;
    char dump[] = "/tmp/sosia-bt-dump-XXXXXX";
    char map[64];
    int fd = mkstemp(dump);
    assert_true(fd >= 0);
    close(fd);
    snprintf(map, sizeof map, "/tmp/perf-%ld.map", (long)getpid());
    struct vm *vm = vm_new_config(1, &bt_engine,
                                  &(struct engine_config){ .dump_path = dump, .perf_map = true });
    vm_mode(vm, 0, 64);
    LOAD(vm, VM_CODE, sum64);
    (void)run64(vm);
    assert_true(vm_counter(vm, "bt.blocks") >= 2);
    assert_true(vm_counter(vm, "bt.insns") >= 6);
    assert_true(vm_counter(vm, "bt.helper.hlt") == 1);
    assert_true(vm_counter(vm, "bt.exits") >= 2);
    assert_true(vm_counter(vm, "bt.exits.helper") >= 1);
    vm_free(vm);
    assert_true(file_has(dump, "block 10000 gpa 10000"));
    assert_true(file_has(dump, "xor eax,eax"));
    assert_true(file_has(map, "guest_kernel_10000\n"));
    assert_true(file_has(map, "bt_stub_fill\n"));
    unlink(dump);
    unlink(map);
    /* where nothing can be written */
    struct vm *plain = vm_new(1, NULL);
    struct engine *en;
    struct err e = { "" };
    const struct engine_config config = {
        .mem = plain->mem, .cpus = plain->cpu, .cpu_count = 1, .dump_path = "/nowhere/at/all"
    };
    assert_true(bt_engine.create(&en, &config, &e) < 0);
    assert_non_null(strstr(e.msg, "/nowhere/at/all"));
    vm_free(plain);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(sums),
        TEST(same_bytes_other_mode),
        TEST(chains_over_pages),
        TEST(modifies_itself),
        TEST(dma_into_code),
        TEST(across_pages),
        TEST(code_remapped),
        TEST(large_code_page_remapped),
        TEST(code_remaps_itself),
        TEST(address_spaces_flushed),
        TEST(address_spaces_tagged),
        TEST(stack_remapped),
        TEST(stack_and_smap),
        TEST(faults_in_the_middle),
        TEST(wild_branches), TEST(unaligned_on_special_pages),
        TEST(segments_in_the_middle),
        TEST(end_of_segment),
        TEST(ring_one),
        TEST(upper_halves),
        cmocka_unit_test(tiny_cache), cmocka_unit_test(introspection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
