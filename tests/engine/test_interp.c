/* SPDX-License-Identifier: Apache-2.0
 *
 * The interpreter on small pieces of code: every mode, exact instruction counts, self- and
 * cross-modifying code, faults in the middle, atomics between vCPUs.
 */
// LAYERS: engine/interp engine cpu mem state base
#include "support/test.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "support/vm.h"

/* CODE(name, directives and instructions): bytes name_code[], name_code_end[]. */
#define CODE(name, text)                                                                           \
    __asm__(".pushsection .rodata\n" #name "_code:\n" text "\n" #name "_code_end:\n"               \
            ".code64\n.popsection\n");                                                             \
    extern const uint8_t name##_code[], name##_code_end[]
#define LOAD(vm, at, name) vm_poke(vm, at, name##_code, (size_t)(name##_code_end - name##_code))

static int set_up(void **state)
{
    *state = vm_new(2, &interp_engine);
    return 0;
}

static int tear_down(void **state)
{
    vm_free(*state);
    return 0;
}

/* -- Modes and counts -------------------------------------------------------------------------- */
CODE(sum64, "mov $1000, %ecx\n xor %eax, %eax\n 1: add %rcx, %rax\n dec %ecx\n jnz 1b\n hlt");
CODE(sum32, ".code32\n mov $1000, %ecx\n xor %eax, %eax\n 1: push %ecx\n call 2f\n pop %edx\n"
            "dec %ecx\n jnz 1b\n hlt\n 2: add 4(%esp), %eax\n ret");
CODE(sum16, ".code16\n mov $1000, %cx\n xor %eax, %eax\n 1: push %cx\n call 2f\n pop %dx\n"
            "loop 1b\n hlt\n 2: movzwl %cx, %edx\n add %edx, %eax\n ret");

static void sums(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    vm_mode(vm, 0, 64);
    LOAD(vm, VM_CODE, sum64);
    assert_int_equal(vm_run(vm, 0), ENGINE_EXIT_HALT);
    assert_int_equal(c->gpr[R_AX], 500500);
    assert_int_equal(c->icount, 2 + 3 * 1000 + 1);
    assert_true(c->rflags & FLAG_ZF);

    vm_mode(vm, 0, 32);
    LOAD(vm, VM_CODE, sum32);
    assert_int_equal(vm_run(vm, 0), ENGINE_EXIT_HALT);
    assert_int_equal(c->gpr[R_AX], 500500);
    assert_int_equal(c->gpr[R_SP], VM_STACK);
    assert_int_equal(c->icount, 2 + 7 * 1000 + 1);

    vm_mode(vm, 0, 16);
    LOAD(vm, VM_CODE, sum16);
    assert_int_equal(vm_run(vm, 0), ENGINE_EXIT_HALT);
    assert_int_equal(c->gpr[R_AX], 500500);
    assert_int_equal(c->gpr[R_SP], 0xfff0);
    assert_int_equal(c->icount, 2 + 7 * 1000 + 1);
}

/* 48 FF C0: DEC EAX, INC EAX in 32-bit code; INC RAX in 64-bit code. */
CODE(both, ".byte 0x48, 0xff, 0xc0, 0xf4");

static void same_bytes_other_mode(void **state)
{
    struct vm *vm = *state;
    LOAD(vm, VM_CODE, both);
    for (unsigned i = 0; i < 3; i++) {
        vm_mode(vm, 0, 32);
        assert_int_equal(vm_run(vm, 0), ENGINE_EXIT_HALT);
        assert_int_equal(vm->cpu[0]->gpr[R_AX], 0);
        assert_int_equal(vm->cpu[0]->icount, 3);
        vm_mode(vm, 0, 64);
        assert_int_equal(vm_run(vm, 0), ENGINE_EXIT_HALT);
        assert_int_equal(vm->cpu[0]->gpr[R_AX], 1);
        assert_int_equal(vm->cpu[0]->icount, 2);
    }
}

/* -- Code that changes ------------------------------------------------------------------------- */
CODE(patch_next, "movb $42, 1f+1-patch_next_code+0x10000\n 1: mov $1, %al\n hlt");
CODE(patch_loop,
     "mov $100, %ecx\n xor %ebx, %ebx\n 1: mov $0, %al\n movzbl %al, %eax\n add %eax, %ebx\n"
     "incb 1b+1-patch_loop_code+0x10000\n dec %ecx\n jnz 1b\n hlt");
CODE(patch_string, "mov $1f+1-patch_string_code+0x10000, %edi\n mov $7, %al\n stosb\n"
                   "1: mov $1, %al\n hlt");

static void modifies_itself(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    vm_mode(vm, 0, 64);
    LOAD(vm, VM_CODE, patch_next);
    assert_int_equal(vm_run(vm, 0), ENGINE_EXIT_HALT);
    assert_int_equal(c->gpr[R_AX], 42);
    assert_int_equal(c->icount, 3);

    vm_mode(vm, 0, 64);
    LOAD(vm, VM_CODE, patch_string);
    assert_int_equal(vm_run(vm, 0), ENGINE_EXIT_HALT);
    assert_int_equal(c->gpr[R_AX], 7);
    assert_int_equal(c->icount, 5);

    vm_mode(vm, 0, 64);
    LOAD(vm, VM_CODE, patch_loop);
    assert_int_equal(vm_run(vm, 0), ENGINE_EXIT_HALT);
    assert_int_equal(c->gpr[R_BX], 99 * 100 / 2);
    assert_int_equal(c->icount, 2 + 6 * 100 + 1);
}

/* A device writes code that has been run. */
static void dma_into_code(void **state)
{
    struct vm *vm = *state;
    vm_mode(vm, 0, 64);
    for (unsigned i = 0; i < 5; i++) {
        uint8_t code[] = { 0xb0, (uint8_t)i, 0xf4 };
        vm_poke(vm, VM_CODE, code, sizeof code);
        vm->cpu[0]->rip = VM_CODE;
        assert_int_equal(vm_run(vm, 0), ENGINE_EXIT_HALT);
        assert_int_equal(vm->cpu[0]->gpr[R_AX], i);
    }
}

/* Data beside code does not throw the code away. */
CODE(data_beside, "mov $1000, %ecx\n 1: incl 0x10800\n dec %ecx\n jnz 1b\n hlt");

static void keeps_code_beside_data(void **state)
{
    struct vm *vm = *state;
    char stats[512];
    vm_mode(vm, 0, 64);
    LOAD(vm, VM_CODE, data_beside);
    assert_int_equal(vm_run(vm, 0), ENGINE_EXIT_HALT);
    uint32_t v;
    memcpy(&v, vm->ram + 0x10800, 4);
    assert_int_equal(v, 1000);
    vm->cls->stats(vm->engine, stats, sizeof stats);
    unsigned long long blocks = 0;
    assert_int_equal(sscanf(stats, "cpu0.blocks %llu", &blocks), 1);
    assert_true(blocks < 10);
}

/* An instruction across two pages, of which the second is mapped elsewhere later. */
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
        assert_int_equal(vm_run(vm, 0), ENGINE_EXIT_HALT);
        assert_int_equal(c->gpr[R_AX], i & 1 ? 0x77665511 : 0x44332211);
    }
    vm_map(vm, 1, 0);
    tlb_flush_page(c, VM_PAGES + 0x1000);
    c->rip = VM_PAGES + 0xffe;
    assert_int_equal(vm_run(vm, 0), ENGINE_EXIT_HALT);
    assert_int_equal(vm_vector(vm, 0), 14);
    assert_int_equal(c->cr2, VM_PAGES + 0x1000);
}

/* -- Faults ------------------------------------------------------------------------------------ */
CODE(fault, "mov $5, %eax\n add $6, %eax\n mov %eax, 0x40005000\n inc %eax\n hlt");

static void fault_counts_and_flags(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    uint64_t frame[6];
    vm_mode(vm, 0, 64);
    vm_map(vm, 5, 0);
    LOAD(vm, VM_CODE, fault);
    assert_int_equal(vm_run(vm, 0), ENGINE_EXIT_HALT);
    assert_int_equal(vm_vector(vm, 0), 14);
    assert_int_equal(c->gpr[R_AX], 11);
    assert_int_equal(c->icount, 2 + 1);
    memcpy(frame, vm->ram + c->gpr[R_SP], sizeof frame);
    assert_int_equal(frame[0], 2);               /* write, not present, supervisor */
    assert_int_equal(frame[1], VM_CODE + 5 + 3); /* the store */
    assert_int_equal(frame[3] & FLAGS_ARITH, 0); /* of 5 + 6: odd parity */
}

CODE(copy, "mov $0x40000ff8, %edi\n mov $0x200000, %esi\n mov $16, %ecx\n rep movsb\n hlt");
CODE(fill, "mov $0x40000ff0, %edi\n mov $4, %ecx\n mov $-1, %rax\n rep stosq\n hlt");

static void string_faults_in_the_middle(void **state)
{
    struct vm *vm = *state;
    struct cpu *c = vm->cpu[0];
    vm_mode(vm, 0, 64);
    vm_map(vm, 0, 0x300000 | 7);
    vm_map(vm, 1, 0);
    vm_poke(vm, 0x200000, "0123456789abcdef", 16);
    LOAD(vm, VM_CODE, copy);
    assert_int_equal(vm_run(vm, 0), ENGINE_EXIT_HALT);
    assert_int_equal(vm_vector(vm, 0), 14);
    assert_int_equal(c->gpr[R_DI], VM_PAGES + 0x1000);
    assert_int_equal(c->gpr[R_SI], 0x200008);
    assert_int_equal(c->gpr[R_CX], 8);
    assert_memory_equal(vm->ram + 0x300ff8, "01234567", 8);
    assert_int_equal(c->icount, 3 + 1);

    vm_map(vm, 1, 0x302000 | 7); /* and on from there */
    c->rip = VM_CODE + 5 + 5 + 5;
    assert_int_equal(vm_run(vm, 0), ENGINE_EXIT_HALT);
    assert_int_equal(vm_vector(vm, 0), -1);
    assert_int_equal(c->gpr[R_CX], 0);
    assert_memory_equal(vm->ram + 0x302000, "89abcdef", 8);

    vm_mode(vm, 0, 64);
    vm_map(vm, 1, 0);
    LOAD(vm, VM_CODE, fill);
    assert_int_equal(vm_run(vm, 0), ENGINE_EXIT_HALT);
    assert_int_equal(vm_vector(vm, 0), 14);
    assert_int_equal(c->gpr[R_CX], 2);
    assert_int_equal(c->gpr[R_DI], VM_PAGES + 0x1000);
}

/* -- Between vCPUs ----------------------------------------------------------------------------- */
CODE(counting, "mov $200000, %ecx\n 1: lock incq (%rsi)\n lock xadd %rax, 8(%rsi)\n"
               "2: mov (%rdi), %rax\n lea 1(%rax), %rdx\n lock cmpxchg %rdx, (%rdi)\n jnz 2b\n"
               "mov $1, %eax\n dec %ecx\n jnz 1b\n hlt");

struct runner {
    struct vm *vm;
    unsigned index;
    pthread_t thread;
};

static void *run_vcpu(void *arg)
{
    struct runner *r = arg;
    vm_run(r->vm, r->index);
    return NULL;
}

static void run_both(struct vm *vm)
{
    struct runner r[2] = { { .vm = vm, .index = 0 }, { .vm = vm, .index = 1 } };
    for (unsigned i = 0; i < 2; i++) {
        pthread_create(&r[i].thread, NULL, run_vcpu, &r[i]);
    }
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(r[i].thread, NULL);
    }
}

static void count_at(struct vm *vm, uint64_t at)
{
    uint64_t v[3] = { 0 };
    vm_poke(vm, at, v, 8);
    vm_poke(vm, 0x210000, v, 24);
    for (unsigned i = 0; i < 2; i++) {
        vm_mode(vm, i, 64);
        vm->cpu[i]->gpr[R_SI] = 0x210000;
        vm->cpu[i]->gpr[R_DI] = at;
        vm->cpu[i]->gpr[R_AX] = 1;
    }
    LOAD(vm, VM_CODE, counting);
    run_both(vm);
    memcpy(v, vm->ram + 0x210000, 16);
    memcpy(v + 2, vm->ram + at, 8);
    assert_int_equal(v[0], 400000);
    assert_int_equal(v[1], 400000);
    assert_int_equal(v[2], 400000);
}

static void atomics(void **state) { count_at(*state, 0x220000); /* aligned */ }

static void split_atomics(void **state)
{
    struct vm *vm = *state;
    count_at(vm, 0x22003c); /* across a cache line: one vCPU alone at a time */
}

CODE(waiting, "1: mov $0, %eax\n test %eax, %eax\n jz 1b\n hlt");
CODE(patching, "mov $3000000, %ecx\n 1: dec %ecx\n jnz 1b\n movl $0x1234, 0x10001\n hlt");

static void cross_modifies(void **state)
{
    struct vm *vm = *state;
    for (unsigned i = 0; i < 10; i++) {
        vm_mode(vm, 0, 64);
        vm_mode(vm, 1, 64);
        LOAD(vm, VM_CODE, waiting);
        LOAD(vm, 0x20000, patching);
        vm->cpu[1]->rip = 0x20000;
        if (i & 1) { /* have it writable in the TLB of vCPU 1 already */
            cpu_write(vm->cpu[1], SEG_DS, 0x10800, 4, 0);
        }
        run_both(vm);
        assert_int_equal(vm->cpu[0]->gpr[R_AX], 0x1234);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(sums, set_up, tear_down),
        cmocka_unit_test_setup_teardown(same_bytes_other_mode, set_up, tear_down),
        cmocka_unit_test_setup_teardown(modifies_itself, set_up, tear_down),
        cmocka_unit_test_setup_teardown(dma_into_code, set_up, tear_down),
        cmocka_unit_test_setup_teardown(keeps_code_beside_data, set_up, tear_down),
        cmocka_unit_test_setup_teardown(across_pages, set_up, tear_down),
        cmocka_unit_test_setup_teardown(fault_counts_and_flags, set_up, tear_down),
        cmocka_unit_test_setup_teardown(string_faults_in_the_middle, set_up, tear_down),
        cmocka_unit_test_setup_teardown(atomics, set_up, tear_down),
        cmocka_unit_test_setup_teardown(split_atomics, set_up, tear_down),
        cmocka_unit_test_setup_teardown(cross_modifies, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
